"""The lower edge of the conversation: a hint about text below, the queued message, the prompt."""

from __future__ import annotations

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from tui.completing import Completion
from tui.widgets.ask_row import AskRow
from tui.widgets.chat_log import COLUMN
from tui.widgets.chips import Chips
from tui.widgets.prompt import Prompt
from tui.widgets.still import Still
from tui.wording import shorten

_SUGGESTED = 8  # commands shown at once
_FRAME = 4  # cells of border and padding around the prompt


class QueuedRow(Still):
    """A message that waits; a click takes it back."""

    class Pressed(Message):
        """Take it back into the prompt."""

    def show(self, text: str | None, files: int = 0) -> None:
        if text is not None:
            with_files = f" (and {files} file{'' if files == 1 else 's'})" if files else ""
            row = ("· ↑ takes it back · ", shorten(text, COLUMN), with_files)
            self.update(Content.assemble(("◌ Queued ", "bold"), *row))
        self.display = text is not None

    def on_click(self) -> None:
        self.post_message(self.Pressed())


class EditingRow(Still):
    """Shown while an earlier message is in the prompt."""

    def __init__(self) -> None:
        super().__init__(
            Content.assemble(
                ("✎ Editing ", "bold"), "· enter asks this instead, on a branch · esc leaves it as it was"
            ),
            id="editing",
        )


class SlashRows(Still):
    """What a command that is being written may become."""

    def show(self, found: list[Completion]) -> None:
        rows = []
        for completion in found[:_SUGGESTED]:
            name, space, argument = completion.label.partition(" ") if completion.about else (completion.label, "", "")
            rows.append(
                Content.assemble(
                    (name, "bold $primary"),
                    (f"{space}{argument}".ljust(25 - len(name)), "$secondary"),
                    completion.about,
                )
            )
        if len(found) > _SUGGESTED:
            rows.append(Content.styled(f"… {len(found) - _SUGGESTED} more", "$secondary"))
        self.update(Content("\n").join(rows))
        self.display = bool(rows)


class BelowRow(Still):
    """Shown while the newest lines are out of view; a click goes there."""

    class Pressed(Message):
        """Go to the end."""

    def __init__(self, *, id: str) -> None:
        super().__init__("↓ newer text below · ctrl+end", id=id)

    def on_click(self) -> None:
        self.post_message(self.Pressed())


class NoticeRow(Still):
    """Something that stays wrong until it is mended, such as a model that could not be loaded."""

    def show(self, title: str, text: str) -> None:
        self.update(Content.assemble((f"✗ {title} ", "bold"), text))
        self.display = True


class Composer(Vertical):
    """As wide as the column of the messages above."""

    def compose(self) -> ComposeResult:
        yield BelowRow(id="below")
        yield NoticeRow(id="notice")
        yield QueuedRow(id="queued")
        yield EditingRow()
        yield AskRow()
        yield SlashRows(id="slash")
        yield Chips()
        with Horizontal(id="frame"):
            yield Still("❯", id="mark")
            yield Prompt(id="prompt", placeholder="Ask anything, or / for commands")

    def on_mount(self) -> None:
        for row in (BelowRow, NoticeRow, QueuedRow, EditingRow, AskRow, SlashRows, Chips):
            self.query_one(row).display = False

    @on(TextArea.Changed)
    def suggest(self, event: TextArea.Changed) -> None:
        text = event.text_area.text
        complete = self.query_one(Prompt).complete
        self.query_one(SlashRows).show(complete(text) if text.startswith("/") else [])

    def show_numbers(self, parts: tuple[str, ...]) -> None:
        """Numbers of the last answer, in the lower edge of the frame, as many as there is room for."""
        self.fit()
        frame = self.query_one("#frame")
        room, shown = frame.outer_size.width - 6, ""
        for part in parts:
            longer = f"{shown} · {part}" if shown else part
            if len(longer) > room:
                break
            shown = longer
        subtitle = Content(shown)
        if frame.border_subtitle != subtitle:
            frame.border_subtitle = subtitle

    def on_resize(self, event: events.Resize) -> None:
        self.fit()

    def fit(self) -> None:
        """Stay as wide as the column."""
        side = max(0, (self.outer_size.width - COLUMN - _FRAME) // 2)
        if self.styles.padding.left != side:
            self.styles.padding = (0, side)
