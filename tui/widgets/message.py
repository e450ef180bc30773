"""One message of a conversation on screen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from qwen_mlx.chat.history import StoredMessage
from qwen_mlx.events import AnswerDelta, Event, ReasoningDelta, ReasoningEnd
from tui.sanitize import sanitize
from tui.text_mode import CLASS as TEXT
from tui.turn import Turn
from tui.widgets.chips import file_line
from tui.widgets.selectable import SelectableMessage, VersionRow
from tui.widgets.still import Still
from tui.widgets.thinking import ThinkingBlock
from tui.widgets.tool_call import Steps
from tui.wording import sentence


class UserMessage(SelectableMessage):
    """What the person wrote, exactly as written."""

    def __init__(self, message: StoredMessage) -> None:
        super().__init__(message.id, "user")
        self.content = message.content
        self._message = message

    def compose(self) -> ComposeResult:
        if self.app.has_class(TEXT):
            yield Still("You:", classes="who")
        yield Static(Content(sanitize(self.content)), classes="text")
        for attachment in self._message.attachments:
            yield Still(Content(file_line(attachment)), classes="file")
        if self._message.siblings > 1:
            yield VersionRow(self._message.position, self._message.siblings)


class AssistantMessage(SelectableMessage):
    """An answer: thinking, text, and in words how it ended if not well.

    Args:
        message: as it is stored.
        turn: the reply that is still running, whose text is taken instead of the stored one.
        unfolded: show the thinking.
    """

    def __init__(self, message: StoredMessage, turn: Turn | None = None, *, unfolded: bool = False) -> None:
        from tui.widgets.stream_markdown import StreamMarkdown  # not before the first paint

        super().__init__(message.id, "assistant")
        self.unfolded = unfolded
        self.content = turn.content if turn else message.content
        self._message = message
        self._turn = turn
        self._thinking: ThinkingBlock | None = None
        self._rounds = (turn.steps if turn else message.steps) or ()
        self._steps: Steps | None = Steps() if self._rounds else None
        self._text = StreamMarkdown()
        self._note = Still(classes="note")
        self._error = Still(classes="error")

    def compose(self) -> ComposeResult:
        message, turn = self._message, self._turn
        if self.app.has_class(TEXT):
            yield Still(f"{message.model or 'Answer'}:", classes="who", markup=False)
        if self._steps is not None:
            yield self._steps
        if turn is not None and turn.reasoning is not None:
            self._thinking = ThinkingBlock(turn.reasoning, live=turn.phase == "thinking", unfolded=self.unfolded)
        elif turn is None and message.reasoning:
            self._thinking = ThinkingBlock(
                *(message.reasoning, message.reasoning_seconds, message.reasoning_tokens),
                live=False,
                unfolded=self.unfolded,
            )
        if self._thinking is not None:
            yield self._thinking
        yield self._text
        yield self._note
        yield self._error
        if message.siblings > 1:
            yield VersionRow(message.position, message.siblings)

    async def on_mount(self) -> None:
        if self._steps is not None:
            await self._steps.show(self._rounds)
        if self._turn is not None:
            await self._text.append(self.content)
        elif self.content:
            await self._text.replace(self.content)
        message = self._message
        failed = message.status == "failed"
        self._show_note(_ending(message.status, message.stats.get("finish_reason")))
        self._show_error(message.error or "The answer failed" if failed else None)

    async def apply(self, turn: Turn, events: list[Event], now: float) -> None:
        """Show what a running reply brought; many small pieces are painted as one."""
        if len(turn.steps) > len(self._rounds):  # what was said so far belongs to a round now
            await self._show_steps(turn)
            await self._begin_anew()
            self.tick(turn, now)
            return
        await self._show_steps(turn)
        thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
        answer = "".join(event.text for event in events if isinstance(event, AnswerDelta))
        if thought or any(isinstance(event, ReasoningEnd) for event in events):
            block = await self._thinking_block()
            if thought:
                await block.add(thought)
        if answer:
            self.content += answer
            await self._text.append(answer)
        self.tick(turn, now)

    def tick(self, turn: Turn, now: float) -> None:
        """Times go on while nothing arrives."""
        if self._thinking is not None:
            self._thinking.live = turn.phase == "thinking"
            self._thinking.tick(turn.reasoning_seconds(now), turn.reasoning_tokens)
        self._show_note(_waiting(turn))

    async def finish(self, turn: Turn, now: float) -> None:
        """The reply ended: show exactly what was stored."""
        self.content = turn.content
        await self._show_steps(turn)
        if turn.reasoning:
            block = await self._thinking_block()
            await block.finish(turn.reasoning, turn.reasoning_seconds(now), turn.reasoning_tokens)
        elif self._thinking is not None:
            await self._thinking.remove()
            self._thinking = None
        await self._text.finish(turn.content)
        self._show_note(_ending(turn.status, turn.reason))
        self._show_error(turn.error)

    async def _show_steps(self, turn: Turn) -> None:
        if turn.steps == self._rounds:
            return
        self._rounds = turn.steps
        if self._steps is None:
            self._steps = Steps()
            await self.mount(self._steps, before=self._thinking or self._text)
        await self._steps.show(turn.steps)

    async def _begin_anew(self) -> None:
        """After a round: thinking and text are empty again."""
        if self._thinking is not None:
            await self._thinking.remove()
            self._thinking = None
        from tui.widgets.stream_markdown import StreamMarkdown

        self.content = ""
        done, self._text = self._text, StreamMarkdown()
        await self.mount(self._text, before=done)
        await done.remove()

    async def fold(self, unfolded: bool) -> None:
        self.unfolded = unfolded
        if self._steps is not None:
            await self._steps.fold(unfolded)
        if self._thinking is not None:
            await self._thinking.fold(unfolded)

    @property
    def has_thinking(self) -> bool:
        """Whether there is something to fold: thinking, or tool calls."""
        return self._thinking is not None or self._steps is not None

    async def _thinking_block(self) -> ThinkingBlock:
        if self._thinking is None:
            self._thinking = ThinkingBlock(live=True, unfolded=self.unfolded)
            await self.mount(self._thinking, before=self._text)
        return self._thinking

    def _show_note(self, text: str) -> None:
        if str(self._note.content) != text:
            self._note.update(Content(text))
        self._note.display = bool(text)

    def _show_error(self, error: str | None) -> None:
        if error:
            text = sentence(sanitize(error))
            way = "\nctrl+r tries again" + (" · ctrl+↑ g goes on" if self.content else "")
            self._error.update(Content.assemble(("✗ Failed. ", "bold"), text, (way, "$secondary")))
        self._error.display = bool(error)


def _waiting(turn: Turn) -> str:
    if turn.stopping:
        return "■ Stopping…"
    if turn.phase == "calling":
        return "○ Using tools…"
    if turn.phase == "reading" and turn.read is not None and turn.read.done < turn.read.total:
        return f"○ Reading the conversation… {turn.read.done:,} of {turn.read.total:,} tokens"
    return "○ Waiting for the first word…" if turn.phase in ("waiting", "reading") else ""


def _ending(status: str, reason: object) -> str:
    if status == "stopped":
        return "■ Stopped · ctrl+↑ g goes on"
    if reason == "length":
        return "■ Stopped at the token limit · ctrl+↑ g goes on"
    return "○ Another window is writing this answer" if status == "streaming" else ""
