"""The settings screen, and what a changed setting does to the app at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qwen_mlx.errors import QwenError
from tui.announce import LONG_SECONDS, sequence
from tui.conductor import Settings
from tui.notices import complain
from tui.screens.parameters import ParametersScreen
from tui.screens.settings import SettingsScreen
from tui.themes import THEMES

if TYPE_CHECKING:
    from tui.preferences import Preferences
    from tui.screens.chat import ChatScreen
    from tui.turn import Turn

_THINKING = {"auto": None, "on": True, "off": False}


class SettingCommands:
    """Belongs to a chat screen."""

    def __init__(self, screen: ChatScreen, preferences: Preferences) -> None:
        self._screen = screen
        self._preferences = preferences

    def begin(self) -> None:
        """What was chosen before counts, once the screen stands."""
        screen, preferences = self._screen, self._preferences
        if preferences.list_shown is False:
            screen.show_sidebar(False)
        screen.sidebar.set_width(preferences.list_width == "wide")
        screen.log_widget.unfold_later(preferences.thinking_open)
        screen.conductor.thinking = _THINKING[preferences.thinking]
        if preferences.problem is not None:
            screen.notify(preferences.problem, severity="warning", timeout=20, markup=False)

    def new_settings(self) -> Settings:
        """Of a conversation that begins."""
        return Settings(params=self._preferences.sampling)

    async def open(self) -> None:
        """Show the screen."""
        screen = self._screen
        models: list[str] = []
        if screen.downloads is not None:
            try:
                entries = await asyncio.to_thread(screen.downloads.shelf.models)
                models = [model.name for model in entries if model.problem is None]
            except QwenError as error:
                complain(screen, error)
        ours = [theme.name for theme in THEMES]
        themes = [*ours, *sorted(name for name in screen.app.available_themes if name not in ours)]
        screen.app.push_screen(SettingsScreen(self._preferences, themes, models, self.change, self._open_sampling))

    def keep(self, **changes: Any) -> None:
        """Write preferences; what is read of them is new at once."""
        self._preferences.choose(**changes)
        self._screen.app.run_worker(asyncio.to_thread(self._preferences.save), group="preferences")

    def change(self, name: str, value: Any) -> None:
        """A setting has a new value: keep it, and let it count."""
        screen = self._screen
        if name == "theme":
            screen.app.theme = value  # the app keeps it
            return
        self.keep(**{name: value})
        if name == "list_shown":
            screen.show_sidebar(value)
        elif name == "list_width":
            screen.sidebar.set_width(value == "wide")
        elif name == "thinking_open":
            screen.run_worker(screen.log_widget.fold_all(value), group="folding")
        elif name == "thinking":
            screen.conductor.thinking = _THINKING[value]
        elif name == "kv_bits":
            screen.models.set_kv_bits(value)
        elif name == "text":
            screen.run_worker(screen.show_as_text(value), group="text")

    def _open_sampling(self, done: Callable[[], None]) -> None:
        """The parameters that new conversations begin with."""
        screen = self._screen

        def keep(chosen: Settings | None) -> None:
            if chosen is not None:
                untouched = screen.settings == self.new_settings()
                self.keep(sampling=dict(chosen.params))
                if untouched:
                    screen.settings = self.new_settings()
            done()

        screen.app.push_screen(ParametersScreen(self.new_settings(), None, system=False), keep)

    def announce(self, turn: Turn) -> None:
        """Ring at the end of a long answer, if that is wanted."""
        screen, how = self._screen, self._preferences.announce
        if how == "off" or turn.stopping or screen.clock.monotonic() - turn.started < LONG_SECONDS:
            return
        screen.app.bell()
        if how == "message":
            said = "An answer failed" if turn.status == "failed" else "The answer is there"
            screen.tell_terminal(sequence(f"qwen-mlx: {said}"))
