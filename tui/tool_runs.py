"""The tools that a model calls while it answers: asks the person where one must be asked, and runs them.

A running answer waits in the phase "calling" until all calls of its round have results; then the reply goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwen_mlx.chat.history import Conversation
from qwen_mlx.chat.steps import Call
from qwen_mlx.chat.tool_loop import completed, next_reply, refused
from qwen_mlx.chat.tools import Toolbox
from qwen_mlx.errors import QwenError, UsageError
from qwen_mlx.events import ModelInfo, Reply
from tui.store import Store
from tui.turn import Turn

Allowed = Literal["once", "always", "no"]
SMALLEST = 100_000_000
"""Parameters of a model from which on it follows instructions well enough for tools and titles; the demo has fewer."""
_UNPRINTABLE = str.maketrans(dict.fromkeys((*range(32), *range(127, 160)), " "))


@dataclass(frozen=True)
class Asking:
    """A call that waits for a person."""

    conversation_id: int
    call: Call
    folder: Path
    answer: asyncio.Future[Allowed]


def why_not(model: ModelInfo | None) -> str | None:
    """Why this model cannot call tools, as a sentence; None when it can."""
    if model is None:
        return "No model is loaded yet."
    if not model.tools:
        return f"{model.name} cannot call tools: it was not taught to."
    if model.parameters < SMALLEST:
        return f"{model.name} is too small to call tools."
    return None


def toolbox_of(conversation: Conversation, model: ModelInfo) -> Toolbox | None:
    """The tools that are on in a conversation; None when they are off, or the model has no use for them."""
    if conversation.params.get("tools") is not True or why_not(model) is not None:
        return None
    folder = conversation.params.get("tools_folder")
    return Toolbox(Path(folder) if isinstance(folder, str) and folder else None)


class ToolRuns:
    """Belongs to a conductor, whose running reply it follows.

    Args:
        submit: gives a job to the runtime.
        kept: is called after each change, so that the rounds so far are on disk.
    """

    def __init__(self, store: Store, submit: Callable[[Reply], Any], kept: Callable[[Turn], None]) -> None:
        self.asking: Asking | None = None
        self._store = store
        self._submit = submit
        self._kept = kept
        self._job: Reply | None = None
        self._box: Toolbox | None = None
        self._always = False
        self._before = 0  # rounds of the answer that were there when this reply began
        self._task: asyncio.Task[None] | None = None

    def begin(self, job: Reply, conversation: Conversation, box: Toolbox | None, before: int) -> None:
        """A reply starts, with these tools."""
        self._job, self._box, self._before = job, box, before
        self._always = conversation.params.get("files_always") is True

    def advance(self, turn: Turn) -> None:
        """Called again and again while `turn` is in the phase "calling"."""
        if turn.stopping:
            self.stop()
        elif self._task is None:
            self._kept(turn)
            self._task = asyncio.get_running_loop().create_task(self._run(turn))
        elif self._task.done():
            task, self._task = self._task, None
            error = None if task.cancelled() else task.exception()
            if error is not None:
                turn.fail(str(error) or type(error).__name__)

    def answer(self, allowed: Allowed) -> None:
        """What a person says to `asking`."""
        asking, self.asking = self.asking, None
        if asking is not None and not asking.answer.done():
            asking.answer.set_result(allowed)

    def stop(self) -> None:
        """Leave what is going on; a call that runs ends by itself, unheard."""
        self.asking = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _run(self, turn: Turn) -> None:
        assert self._job is not None and self._box is not None
        box, job = self._box, self._job
        for place, call in enumerate(turn.steps[-1].calls):
            if call.outcome != "waiting":
                continue
            allowed = not box.asks_first(call.name) or self._always or await self._ask(turn, call, box)
            done = await asyncio.to_thread(completed, call, box, place) if allowed else refused(call)
            turn.call_done(place, done)
            self._kept(turn)
        handle = self._submit(next_reply(job, turn.steps[self._before :]))
        turn.next_round(handle)

    async def _ask(self, turn: Turn, call: Call, box: Toolbox) -> bool:
        assert box.folder is not None
        future: asyncio.Future[Allowed] = asyncio.get_running_loop().create_future()
        self.asking = Asking(turn.conversation_id, call, box.folder, future)
        allowed = await future
        if allowed == "always":
            self._always = True
            with contextlib.suppress(QwenError):
                await self._store.call(self._store.history.set_param, turn.conversation_id, "files_always", True)
        return allowed != "no"


def folder_of(written: str) -> str:
    """The folder a person means, in full. Raises `UsageError`."""
    folder = Path(written).expanduser()
    try:
        if not folder.is_dir():
            raise UsageError(
                f"{written} is no folder", hint="/tools takes on, off, or a folder that files are read from."
            )
        return str(folder.resolve())
    except (OSError, ValueError):
        raise UsageError(f"{written} is no folder") from None


def brief_call(call: Call) -> str:
    """The arguments of a call in one line."""
    values = [value if isinstance(value, str) else repr(value) for value in call.arguments.values()]
    return " ".join(" ".join(values).translate(_UNPRINTABLE).split())
