"""Between the model and the conversation store: starts replies, takes their events, keeps them on disk.

It knows no widget. The chat screen calls `poll` on its own clock and paints what came; everything that touches
the disk goes through `Store`, so nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history import Conversation, History, StoredMessage
from qwen_mlx.errors import QwenError
from qwen_mlx.events import (
    Event,
    JobCancelled,
    JobFailed,
    JobHandle,
    KVBits,
    LoadModel,
    Message,
    ModelInfo,
    ModelLoaded,
    Progress,
    Reply,
    Runtime,
    SamplingOptions,
)
from tui.asides import Asides
from tui.clock import Clock
from tui.store import Store
from tui.tool_runs import ToolRuns, toolbox_of
from tui.turn import Turn
from tui.wording import title_of

CHECKPOINT_SECONDS = 1.0
THINKING = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True)
class Settings:
    """What a person set for one conversation: a system prompt, and fields of `SamplingOptions` by name.

    `params` may also hold "thinking" ("auto", "on", "off"), which goes before what the app is set to; "preset", the
    name of the one that was chosen; "tools" (True), "tools_folder" and "files_always" (True).
    """

    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Queued:
    """A message that waits for the model: for its loading, or for the end of the reply that runs."""

    conversation_id: int | None
    text: str
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True)
class Begun:
    """A reply that was started, and what the screen shows of it."""

    conversation: Conversation
    question: StoredMessage
    answer: StoredMessage
    turn: Turn


@dataclass
class Loading:
    """A model on its way."""

    name: str
    handle: JobHandle
    progress: Progress | None = None


class Conductor:
    """One model, at most one running reply, at most one queued message.

    `rope_scaling` and `kv_bits` are as in `LoadModel`.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        clock: Clock,
        rope_scaling: str | None = None,
        kv_bits: KVBits | None = None,
    ) -> None:
        self.runtime = runtime
        self.store = store
        self.clock = clock
        self.rope_scaling = rope_scaling
        self.kv_bits: KVBits | None = kv_bits
        self.loading: Loading | None = None
        self.load_error: str | None = None
        self.refusal: Callable[[], str | None] = lambda: None  # why nothing can be asked now, as a sentence
        self.turn: Turn | None = None
        self.queued: Queued | None = None
        self.thinking: bool | None = None
        self.asides = Asides(runtime, store)
        self.tools = ToolRuns(store, self._submit, self._keep)
        self._checkpoint = 0.0

    # ------------------------------------------------------------------------------------------------- the model

    @property
    def model(self) -> ModelInfo | None:
        return self.runtime.model

    @property
    def busy(self) -> bool:
        """Whether a new message has to wait."""
        return self.loading is not None or self.turn is not None

    @property
    def active(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self.busy or self.asides.active

    def load(self, name: str, adapter: str | None = None) -> None:
        """Start to load a model, with the adapter in a folder; `poll` tells how far it is."""
        self.asides.stop_title()
        self.load_error = None
        job = LoadModel(name, rope_scaling=self.rope_scaling, kv_bits=self.kv_bits, adapter=adapter)
        self.loading = Loading(name, self.runtime.submit(job))

    def thinks(self, params: Mapping[str, Any]) -> bool | None:
        """Whether the model is to think: what was set for the conversation, else what the app is set to."""
        return THINKING.get(str(params.get("thinking")), self.thinking)

    def cycle_thinking(self) -> str | None:
        """Auto -> on -> off -> auto, for the next turns; the reason in words when there is no choice."""
        return self.set_thinking({None: "on", True: "off", False: "auto"}[self.thinking])

    def set_thinking(self, choice: str) -> str | None:
        """ "on", "off" or "auto", for the next turns; the reason in words when there is no choice."""
        if self.no_thinking_choice is None:
            self.thinking = THINKING[choice]
        return self.no_thinking_choice

    @property
    def no_thinking_choice(self) -> str | None:
        """Why it cannot be chosen whether the model thinks; None when it can."""
        model = self.model
        if model is None:
            return "No model is loaded yet."
        if model.thinking == "always":
            return f"{model.name} always thinks."
        return f"{model.name} does not think." if model.thinking == "never" else None

    # --------------------------------------------------------------------------------------------------- replies

    async def send(
        self,
        conversation_id: int | None,
        text: str,
        settings: Settings | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> Begun:
        """Store a question, in a new conversation with these settings if there is none, and start the reply.

        Raises:
            QwenError: there is no model, or the store cannot be written. Nothing was started.
        """
        model = self._model()
        arguments = (self.store.history, conversation_id, text, settings or Settings(), model.name, self.clock.wall())
        begun = await self.store.call(_ask, *arguments, attachments)
        return await self._start(*begun)

    async def regenerate(self, conversation_id: int, message_id: int | None = None) -> Begun | None:
        """Start another answer to a question, beside the one shown; None when nothing was asked.

        `message_id` is the question or one of its answers; None is the last question of the branch shown.
        """
        model = self._model()
        arguments = (self.store.history, conversation_id, message_id, model.name, self.clock.wall())
        begun = await self.store.call(_ask_again, *arguments)
        return await self._start(*begun) if begun else None

    async def edit(
        self, conversation_id: int, message_id: int, text: str, attachments: Sequence[Attachment] = ()
    ) -> Begun:
        """Ask another question in the place of `message_id`, on a branch of its own, and start the reply.

        Raises:
            QwenError: there is no model, no such message, or the store cannot be written. Nothing was started.
        """
        model = self._model()
        arguments = (self.store.history, conversation_id, message_id, text, model.name, self.clock.wall(), attachments)
        return await self._start(*await self.store.call(_ask_instead, *arguments))

    async def go_on(self, conversation_id: int, message_id: int) -> Begun:
        """Go on with an answer that was stopped, in its place.

        Raises:
            QwenError: there is no model, or the store cannot be written. Nothing was started.
        """
        self._model()
        begun = await self.store.call(_go_on, self.store.history, conversation_id, message_id)
        return await self._start(*begun, continuing=True)

    def _submit(self, job: Reply) -> JobHandle:
        return self.runtime.submit(job)

    def stop(self) -> None:
        """Ask the running reply, or the loading of a model, to end."""
        if self.turn is not None:
            self.turn.stopping = True
            self.turn.handle.cancel()

    def take_queued(self) -> Queued | None:
        """Take the queued message back, if there is one."""
        queued, self.queued = self.queued, None
        return queued

    def _model(self) -> ModelInfo:
        if (reason := self.refusal()) is not None:
            raise QwenError(reason)
        if self.model is None:
            raise QwenError("no model is loaded", hint="Start qwen-mlx with the name or the folder of a model.")
        return self.model

    async def _start(
        self,
        conversation: Conversation,
        question: StoredMessage,
        answer: StoredMessage,
        branch: list[StoredMessage],
        continuing: bool = False,
    ) -> Begun:
        self.asides.stop_title()
        box = toolbox_of(conversation, self._model())
        job = Reply(
            conversation=str(conversation.id),
            messages=_context(conversation, branch),
            sampling=_sampling(conversation),
            # A choice made for another model must not reach one that has none.
            thinking=self.thinks(conversation.params) if self._model().thinking == "optional" else None,
            tools=box.described if box is not None else (),
            # An answer that was stopped among its tool calls has nothing yet to go on with, but their results.
            continuing=continuing and bool(answer.content or answer.reasoning),
        )
        now = self.clock.monotonic()
        try:
            handle = self._submit(job)
        except Exception as error:  # the runtime is closed, or broken: the row must not stay "streaming"
            self.store.post(
                *(self.store.history.finish_message, answer.id),
                content=answer.content,
                reasoning=answer.reasoning,
                status="failed",
                error=str(error),
            )
            raise QwenError(f"the model cannot be asked: {error}") from error
        begun = answer if continuing else None
        self.turn = Turn(conversation.id, answer.id, handle, self._model().name, now, begun)
        self.tools.begin(job, conversation, box, len(self.turn.steps))
        self._checkpoint = now
        return Begun(conversation, question, answer, self.turn)

    # ---------------------------------------------------------------------------------------------------- events

    def poll(self) -> list[Event]:
        """Take what has arrived, keep it on disk, and return the events of the running reply.

        A reply that ended stays `turn` until `forget_turn`.
        """
        self._poll_loading()
        self.asides.poll()
        turn = self.turn
        if turn is None or turn.ended:
            return []
        now = self.clock.monotonic()
        if turn.phase == "calling":
            self.tools.advance(turn)
            if turn.stopping:
                turn.abandon(now)
        events = turn.handle.drain() if turn.phase not in ("calling", "ended") else []
        for event in events:
            turn.apply(event, now)
        if turn.status != "streaming":
            self._finish(turn)
        elif events and now - self._checkpoint >= CHECKPOINT_SECONDS and not self.store.waiting:
            self._checkpoint = now
            self._keep(turn)
        return events

    def _keep(self, turn: Turn) -> None:
        """Put what there is of a running reply on disk."""
        self.store.post(
            self.store.history.update_message,
            turn.message_id,
            content=turn.content,
            reasoning=turn.reasoning,
            reasoning_seconds=turn.reasoning_seconds(self.clock.monotonic()),
            reasoning_tokens=turn.reasoning_tokens or None,
            steps=turn.steps or None,
        )

    def forget_turn(self) -> Turn | None:
        """Hand over the reply that ended, so that the next one may start."""
        turn, self.turn = self.turn, None
        return turn

    def _poll_loading(self) -> None:
        loading = self.loading
        if loading is None:
            return
        for event in loading.handle.drain():
            if isinstance(event, Progress):
                loading.progress = event
            elif isinstance(event, JobFailed):
                self.load_error, self.loading = event.error, None
            elif isinstance(event, JobCancelled):
                self.load_error, self.loading = "loading was cancelled", None
            elif isinstance(event, ModelLoaded):
                self.loading = None

    def _finish(self, turn: Turn) -> None:
        self.store.post(
            self.store.history.finish_message,
            turn.message_id,
            content=turn.content,
            reasoning=turn.reasoning,
            reasoning_seconds=turn.reasoning_seconds(self.clock.monotonic()),
            reasoning_tokens=turn.reasoning_tokens or None,
            status=turn.status,
            stats=turn.numbers(),
            error=turn.error,
            steps=turn.steps or None,
        )

    async def leave(self) -> None:
        """The app ends: cancel, and keep what had arrived. Returns when it is on disk."""
        self.poll()
        self.asides.leave()
        self.tools.stop()
        if self.loading is not None:
            self.loading.handle.cancel()
        turn = self.turn
        if turn is not None and not turn.ended:
            turn.handle.cancel()
            turn.abandon(self.clock.monotonic())
            self._finish(turn)
        await self.store.settle()


# ---------------------------------------------------------------------------------- on the thread of the store

_Asked = tuple[Conversation, StoredMessage, StoredMessage, list[StoredMessage]]


def _ask(
    history: History,
    conversation_id: int | None,
    text: str,
    settings: Settings,
    model: str,
    now: float,
    files: Sequence[Attachment],
) -> _Asked:
    if conversation_id is None:
        conversation_id = history.new_conversation(
            title_of(text), model=model, system=settings.system, params=settings.params, titled_by="line", now=now
        ).id
    elif not history.messages(conversation_id):
        history.entitle(conversation_id, title_of(text), "line")
    question = history.add_message(conversation_id, "user", text, attachments=files, now=now)
    return _answer(history, conversation_id, question, model, now)


def _ask_again(history: History, conversation_id: int, message_id: int | None, model: str, now: float) -> _Asked | None:
    shown = history.messages(conversation_id) if message_id is None else history.branch(message_id)
    questions = [message for message in shown if message.role == "user"]
    return _answer(history, conversation_id, questions[-1], model, now) if questions else None


def _ask_instead(
    history: History,
    conversation_id: int,
    message_id: int,
    text: str,
    model: str,
    now: float,
    files: Sequence[Attachment],
) -> _Asked:
    parent = history.message(message_id).parent_id
    question = history.add_message(conversation_id, "user", text, parent_id=parent, attachments=files, now=now)
    return _answer(history, conversation_id, question, model, now)


def _go_on(history: History, conversation_id: int, message_id: int) -> _Asked:
    branch = history.branch(message_id)
    answer = history.reopen_message(message_id)
    return history.conversation(conversation_id), branch[-2], answer, branch


def _answer(history: History, conversation_id: int, question: StoredMessage, model: str, now: float) -> _Asked:
    answer = history.add_message(
        conversation_id, "assistant", parent_id=question.id, model=model, status="streaming", now=now
    )
    conversation = history.conversation(conversation_id)
    return conversation, question, answer, history.branch(question.id)


def _context(conversation: Conversation, branch: list[StoredMessage]) -> tuple[Message, ...]:
    """What the model is told: the branch, without questions that failed and answers that said nothing.

    A question whose answer failed would often make every later one fail too (a text longer than the context).
    """
    messages = [Message("system", conversation.system)] if conversation.system else []
    for message, following in zip(branch, [*branch[1:], None]):
        failed = following is not None and following.status == "failed" and not (following.content or following.steps)
        if not (failed and message.role == "user"):  # an answer that said nothing makes no message
            messages += message.as_messages()
    return tuple(messages)


def _sampling(conversation: Conversation) -> SamplingOptions:
    """The options kept with a conversation; names this version does not know are left out."""
    known = SamplingOptions.__dataclass_fields__
    params = {name: value for name, value in conversation.params.items() if name in known}
    if isinstance(params.get("stop"), list):
        params["stop"] = tuple(params["stop"])
    return SamplingOptions(**params)
