"""The files that will go along with the next message: one line for each, above the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message

from qwen_mlx.chat.attachments import Attachment
from tui.bindings import bindings
from tui.widgets.still import Still
from tui.wording import shorten, size, tokens


@dataclass
class Attached:
    """A file, and how many tokens it has once the model has counted them."""

    attachment: Attachment
    tokens: int | None = None

    @property
    def count(self) -> int:
        """As counted, or about."""
        return estimate(self.attachment.text) if self.tokens is None else self.tokens


def estimate(text: str) -> int:
    """About how many tokens a text has: four letters, or one Chinese character, each."""
    plain = len(text.encode("ascii", "ignore"))
    return round(plain / 4 + 0.8 * (len(text) - plain))


def file_line(attachment: Attachment, count: int | None = None, *, about: bool = False) -> str:
    """`▤ notes.md · 12 kB · 3,120 tokens`."""
    parts = [f"▤ {shorten(attachment.name, 40)}", size(attachment.nbytes)]
    if count is not None:
        parts.append(f"{'about ' if about else ''}{tokens(count)}")
    return " · ".join(parts)


class Chip(Still):
    """One file; a click on it, or delete, takes it away."""

    BINDINGS = bindings("chip")
    can_focus = True

    @dataclass
    class Removed(Message):
        """Take this file away."""

        place: int

    def __init__(self, attached: Attached, place: int) -> None:
        super().__init__(classes="chip", markup=False)
        self.place = place
        self.show(attached)

    def show(self, attached: Attached) -> None:
        about = attached.tokens is None
        line = file_line(attached.attachment, attached.count, about=about)
        self.update(Content.assemble(line, ("  ✕", "$secondary")))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_remove()

    def action_remove(self) -> None:
        self.post_message(self.Removed(self.place))


class Chips(VerticalScroll):
    """Nothing at all when there are no files, and no warning."""

    can_focus = False

    def __init__(self) -> None:
        super().__init__(id="chips")
        self._warning = Still("", id="fit", markup=False)

    async def show(self, attached: list[Attached]) -> None:
        """These files, and no others."""
        with self.app.batch_update():
            await self.remove_children(Chip)
            if not self._warning.is_attached:
                await self.mount(self._warning)
            await self.mount_all([Chip(file, place) for place, file in enumerate(attached)], before=self._warning)
        self._show_self()

    def recount(self, attached: list[Attached]) -> None:
        """The model has counted tokens."""
        for chip, file in zip(self.query(Chip), attached):
            chip.show(file)

    def warn(self, text: str) -> None:
        """That they will not fit, or "" when they will."""
        self._warning.update(Content(text))
        self._warning.display = bool(text)
        self._show_self()

    def _show_self(self) -> None:
        self.display = bool(self.query(Chip)) or (self._warning.is_attached and self._warning.display)
