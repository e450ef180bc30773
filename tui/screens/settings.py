"""What a person wants to find again at every start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.preferences import Preferences
from tui.settings import Setting, settings, word_of
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import pad, shorten

_TITLE = 33  # cells


class SettingsList(OptionList):
    """Its own keys, and not by priority: those would overtake an arrow that was pressed just before."""

    BINDINGS = [
        Binding("right,space", "turn(1)", "Next value", show=False, id="settings.next"),
        Binding("left", "turn(-1)", "Previous value", show=False, id="settings.previous"),
    ]

    @dataclass
    class Turned(Message):
        """The next (1) or the previous (-1) value of the marked setting is wanted."""

        step: int

    def action_turn(self, step: int) -> None:
        self.post_message(self.Turned(step))


class SettingsScreen(ModalScreen[None]):
    """Every change counts at once and is kept; escape leaves.

    Args:
        preferences: what is chosen now.
        themes, models: what can be chosen.
        change: takes the name of a preference and its new value.
        open_sampling: shows the screen for the parameters of new conversations, and calls back when that is left.
    """

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape,f3", "leave", "Leave", show=False, id="settings.leave"),
    ]

    def __init__(
        self,
        preferences: Preferences,
        themes: list[str],
        models: list[str],
        change: Callable[[str, Any], None],
        open_sampling: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self._preferences = preferences
        self._groups = settings(themes, models)
        self._change = change
        self._open_sampling = open_sampling

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="settings"):
            yield Still("Settings", classes="heading")
            yield SettingsList(id="hits", markup=False)
            yield Still("", classes="note")
            yield Hint(
                *(("↑↓", "choose", ""), ("enter or →", "next value", "change(1)"), ("←", "previous", "change(-1)")),
                ("esc", "leave", "leave"),
            )

    def on_mount(self) -> None:
        self.call_after_refresh(self._paint)  # the list knows its width then
        self.query_one(OptionList).focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # ------------------------------------------------------------------------------------------------- painting

    def _paint(self) -> None:
        listing = self.query_one(OptionList)
        marked = listing.highlighted
        width = max(30, listing.size.width - 3)
        options: list[Option] = []
        for heading, group in self._groups:
            gap = "\n" if options else ""
            options.append(Option(Content.styled(f"{gap}{heading}", "bold $secondary"), disabled=True))
            options += [Option(self._row(setting, width), id=setting.name) for setting in group]
        listing.clear_options()
        listing.add_options(options)
        listing.highlighted = 1 if marked is None else marked

    def _row(self, setting: Setting, width: int) -> Content:
        room = min(_TITLE, width // 2)
        word = word_of(setting, self._preferences, self._value(setting))
        shown = shorten(word, max(8, width - room - 4))
        ends = ("› ", "") if not setting.choices else ("‹ ", " ›")
        value = Content.assemble((ends[0], "$secondary"), (shown, "bold"), (ends[1], "$secondary"))
        gap = " " * max(0, width - room - cell_len(shown) - sum(map(cell_len, ends)))
        return Content.assemble(pad(setting.title, room), value, gap)

    def _value(self, setting: Setting) -> Any:
        return self.app.theme if setting.name == "theme" else getattr(self._preferences, setting.name)

    @on(OptionList.OptionHighlighted)
    def explain(self) -> None:
        """The line under the list: what the marked setting does."""
        setting = self._marked
        self.query_one(".note", Still).update(Content(f"{setting.help}." if setting else ""))

    @property
    def _marked(self) -> Setting | None:
        option = self.query_one(OptionList).highlighted_option
        return self._named(option.id) if option is not None else None

    def _named(self, name: str | None) -> Setting | None:
        return next((found for _, group in self._groups for found in group if found.name == name), None)

    # --------------------------------------------------------------------------------------------------- changes

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_change(1)

    @on(SettingsList.Turned)
    def turned(self, event: SettingsList.Turned) -> None:
        event.stop()
        self.action_change(event.step)

    def action_change(self, step: int) -> None:
        """Take the next (1) or the previous (-1) value of the marked setting."""
        setting = self._marked
        if setting is None:
            return
        if not setting.choices:
            self._open_sampling(self._paint)
            return
        self._change(setting.name, setting.after(self._value(setting), step))
        self._paint()

    def action_leave(self) -> None:
        self.dismiss(None)
