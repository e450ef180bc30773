"""Where a person writes: grows with the text, remembers what was sent before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from tui.bindings import bindings
from tui.completing import Completion, common, completions
from tui.dropping import dropped_files
from tui.prompts import PromptHistory
from tui.sanitize import sanitize

_NEWLINE_KEYS = ("shift+enter", "ctrl+j", "shift+\r")


class Prompt(TextArea):
    """Enter sends; shift+enter and ctrl+j begin a new line; up and down at the edge walk through earlier prompts."""

    BINDINGS = [
        *bindings("prompt"),
        # Terminals with "modify other keys" send shift+enter under this name.
        Binding("shift+\r", "newline", show=False, id="prompt.newline_modified"),
    ]

    @dataclass
    class Submitted(Message):
        """The text was sent, and the prompt is empty now."""

        text: str

    class UpWhenEmpty(Message):
        """Up was pressed with nothing written: a queued message may want to come back."""

    class HelpAsked(Message):
        """A question mark was typed, and nothing else."""

    @dataclass
    class Dropped(Message):
        """Files were dropped on the terminal."""

        paths: list[Path]

    @dataclass
    class ScrollLog(Message):
        """A page "up" or "down" of the log, not of the prompt."""

        direction: str

    def __init__(self, *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            id=id,
            placeholder=placeholder,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
            compact=True,
        )
        self.earlier = PromptHistory()
        self.holds_queued = False
        self.complete: Callable[[str], list[Completion]] = completions
        self._walked = ""

    def fill(self, text: str) -> None:
        """Put in a text, with the cursor at its end. It is one step of undo."""
        self.replace(text, self.document.start, self.document.end, maintain_selection_offset=False)
        self.move_cursor(self.document.end)
        self._walked = text

    def give_back(self, text: str) -> None:
        """Put in a message that was not sent, before what is being written."""
        self.fill(f"{text}\n{self.text}" if self.text else text)

    # ------------------------------------------------------------------------------------------------------ actions

    def action_send(self) -> None:
        text = self.text.strip("\n")
        if text.strip():
            self.clear()
            self.earlier.add(text)
            self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        self.insert("\n")
        self.scroll_cursor_visible()

    def action_older(self) -> None:
        if not self.navigator.is_first_wrapped_line(self.cursor_location):
            self.action_cursor_up()
        elif self.holds_queued and not self.text:
            self.post_message(self.UpWhenEmpty())
        else:
            self._leave_if_edited()
            if (text := self.earlier.older(self.text)) is not None:
                self.fill(text)

    def action_newer(self) -> None:
        if not self.navigator.is_last_wrapped_line(self.cursor_location):
            self.action_cursor_down()
            return
        self._leave_if_edited()
        if (text := self.earlier.newer()) is not None:
            self.fill(text)

    def action_scroll_log(self, direction: str) -> None:
        self.post_message(self.ScrollLog(direction))

    def _leave_if_edited(self) -> None:
        if self.text != self._walked:
            self.earlier.leave()

    # ------------------------------------------------------------------------------------------------------- events

    async def _on_key(self, event: events.Key) -> None:
        # Here and not by a priority binding: those run before the characters typed just before have arrived, so that
        # a question and its enter in one burst (a script, a fast paste) would be sent without its end.
        if event.key == "enter":
            self.action_send()
        elif event.key in _NEWLINE_KEYS:
            self.action_newline()
        elif event.key == "tab" and self.text.startswith("/") and (found := self.complete(self.text)):
            self.fill(common(found, self.text))
        elif event.character == "?" and not self.text:
            self.post_message(self.HelpAsked())
        else:
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        # Line ends of other systems, and control characters, have no place in a question.
        event.prevent_default()
        event.stop()
        if paths := dropped_files(event.text):
            self.post_message(self.Dropped(paths))
            return
        if result := self._replace_via_keyboard(sanitize(event.text), *self.selection):
            self.move_cursor(result.end_location)
            self.focus()
