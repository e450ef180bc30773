"""What a model thought before it answered: one line that unfolds.

Not Textual's `Collapsible`, which scrolls itself into view when it folds and so tears the log away from the end of
the answer. The body is made when it is first opened, so a folded block costs one line however long the thinking is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui.bindings import bindings
from tui.text_mode import CLASS as TEXT
from tui.widgets.still import Still
from tui.wording import duration, tokens

if TYPE_CHECKING:
    from tui.widgets.stream_markdown import StreamMarkdown

_LONG = 12  # lines of thinking from which on the end gets a line to fold with, too


class ThinkingHeader(Still):
    """`▸ Thinking… 12.4 s · 834 tokens`; a click, enter or space unfolds."""

    BINDINGS = bindings("thinking")
    can_focus = True

    class Pressed(Message):
        """The person wants it the other way."""

    def on_click(self) -> None:
        self.post_message(self.Pressed())

    def action_press(self) -> None:
        self.post_message(self.Pressed())


class ThinkingBody(Vertical):
    """The text, with a margin on the left that folds as well: it is there wherever one has scrolled to."""

    @on(events.Click)
    def fold(self, event: events.Click) -> None:
        if event.widget is self and event.x <= 1:
            event.stop()
            self.post_message(ThinkingHeader.Pressed())


class ThinkingBlock(Widget):
    """The thinking of one reply.

    Args:
        text: what was thought already.
        seconds, tokens: None when not known.
        live: more will come by `add`, until `finish`.
        unfolded: begin open.
    """

    @dataclass
    class Toggled(Message):
        """It was folded or unfolded by hand."""

        block: ThinkingBlock
        unfolded: bool

    def __init__(
        self, text: str = "", seconds: float | None = None, count: int | None = None, *, live: bool, unfolded: bool
    ) -> None:
        super().__init__()
        self.unfolded = unfolded
        self.live = live
        self._pieces = [text]
        self._seconds = seconds
        self._count = count
        self._header = ThinkingHeader(self._title(), markup=False)
        self._body: StreamMarkdown | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def compose(self) -> ComposeResult:
        yield self._header

    async def on_mount(self) -> None:
        if self.unfolded:
            await self._show_body()

    async def add(self, text: str) -> None:
        """More thinking."""
        self._pieces.append(text)
        if self._body is not None:
            await self._body.append(text)

    def tick(self, seconds: float | None, count: int | None) -> None:
        """How long, how much so far. The line keeps its height, so nothing else is laid out again."""
        self._seconds, self._count = seconds, count
        if not (self.live and self.app.has_class(TEXT)):  # a screen reader would read every number
            self._header.update(self._title(), layout=False)

    async def finish(self, text: str, seconds: float | None, count: int | None) -> None:
        """It is over; `text` is all of it."""
        self.live = False
        self._pieces = [text]
        self.tick(seconds, count)
        if self._body is not None:
            await self._body.finish(text)
            self._show_end()

    async def fold(self, unfolded: bool) -> None:
        """Open or close it."""
        if unfolded == self.unfolded:
            return
        self.unfolded = unfolded
        self._header.update(self._title(), layout=False)
        await self._show_body()

    @on(ThinkingHeader.Pressed)
    async def toggle(self, event: ThinkingHeader.Pressed) -> None:
        event.stop()
        await self.fold(not self.unfolded)
        self.post_message(self.Toggled(self, self.unfolded))

    async def _show_body(self) -> None:
        if self._body is None and self.unfolded:
            from tui.widgets.stream_markdown import StreamMarkdown  # not before the first paint

            self._body = StreamMarkdown()
            end = ThinkingHeader("▴ fold", classes="end")
            end.can_focus = False
            await self.mount(ThinkingBody(self._body, end))
            await self._body.append(self.text)
            if not self.live:
                await self._body.finish(self.text)
        for body in self.query(ThinkingBody):
            body.display = self.unfolded
        self._show_end()

    def _show_end(self) -> None:
        for end in self.query(".end"):
            end.display = not self.live and self.text.count("\n") + len(self.text) // 80 >= _LONG

    def _title(self) -> Content:
        arrow = "▾" if self.unfolded else "▸"
        known = [] if self._seconds is None else [duration(self._seconds)]
        if self._count:
            known.append(tokens(self._count))
        verb = "Thinking…" if self.live else "Thought for" if self._seconds is not None else "Thought"
        return Content(f"{arrow} {verb} {' · '.join(known)}".rstrip())
