"""The terminal app: themes, commands, clipboard, and how it starts and ends.

It sees the `Runtime` protocol, never MLX: a test puts in a runtime that follows a script.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from textual.app import App, SystemCommand
from textual.screen import Screen
from textual.widgets import Input, TextArea

from qwen_mlx import paths
from qwen_mlx.chat.history import History
from qwen_mlx.errors import QwenError, UsageError
from qwen_mlx.events import KVBits, Runtime, Shelf
from tui import clipboard
from tui.bindings import KEYS, all_shown, bindings
from tui.clock import Clock
from tui.conductor import Conductor
from tui.downloads import Downloads
from tui.garbage import GarbagePolicy
from tui.preferences import Preferences
from tui.prompts import PromptFile
from tui.screens.chat import ChatScreen
from tui.screens.help import HelpScreen
from tui.store import Store
from tui.themes import DARK, THEMES, other

AGAIN_SECONDS = 2.0  # within which the second ctrl+c quits
CLOSE_SECONDS = 2.0


class QwenApp(App[None], inherit_bindings=False):
    """Chat with a model.

    Args:
        runtime: owner of the model; closed when the app ends.
        history: the conversations; stays open when the app ends.
        model: what to load after the first paint; None when the runtime has a model already.
        rope_scaling, kv_bits: as in `LoadModel`.
        theme: name of a theme, ours or Textual's; None for `qwen-dark`.
        prompts: the file behind the up key; None for the one in the data folder.
        preferences: the file of what was chosen before; None for the one in the data folder.
        clock: what time it is.
        shelf: the models of this machine; None leaves their screen out.
    """

    TITLE = "qwen-mlx"
    CSS_PATH = "app.tcss"
    BINDINGS = bindings("app")
    DEFAULT_MODE = "chat"
    PAUSE_GC_ON_SCROLL = True

    def __init__(
        self,
        runtime: Runtime,
        history: History,
        *,
        model: str | None = None,
        rope_scaling: str | None = None,
        kv_bits: KVBits | None = None,
        theme: str | None = None,
        prompts: Path | None = None,
        preferences: Path | None = None,
        clock: Clock | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        super().__init__()
        for ours in THEMES:
            self.register_theme(ours)
        self.preferences = Preferences(preferences or paths.data_home() / "preferences.json")
        wanted = [name for name in (theme, self.preferences.theme) if name in self.available_themes]
        self.theme = wanted[0] if wanted else DARK.name
        self.runtime = runtime
        self.clock = clock or Clock()
        self._downloads = Downloads(shelf) if shelf is not None else None
        self.store = Store(history, self._store_failed)
        self.conductor = Conductor(runtime, self.store, self.clock, rope_scaling, kv_bits)
        self.closing: threading.Thread | None = None
        self._garbage = GarbagePolicy()
        self._prompts = PromptFile(prompts or paths.data_home() / "prompts.jsonl")
        self._model = model
        self._interrupted = float("-inf")
        self._left = False
        self.add_mode(self.DEFAULT_MODE, self._chat_screen)

    def _chat_screen(self) -> ChatScreen:
        return ChatScreen(
            *(self.conductor, self._prompts, self.preferences, self.clock, self._garbage, self._model),
            self._downloads,
        )

    @property
    def chat(self) -> ChatScreen:
        """The screen at the bottom of the stack."""
        screen = self.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    def _store_failed(self, error: QwenError) -> None:
        self.notify(str(error), title="Not saved", severity="error", timeout=12, markup=False)

    # ------------------------------------------------------------------------------------------------------ commands

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for key in KEYS:
            if key.palette:
                node = "screen" if key.owner == "chat" else "app"
                hint = " · ".join(part for part in (all_shown(key.keys), key.hint) if part)
                yield SystemCommand(key.title, hint, partial(self.run_action, f"{node}.{key.action}"))
        yield SystemCommand("Rename the conversation", "", self._on_chat("rename"))
        yield SystemCommand("Pin the conversation, or not", "Pinned ones stay at the top", self._on_chat("pin"))
        yield SystemCommand(
            "Export as Markdown", "The branch shown, to the current folder", self._on_chat("export('md')")
        )
        yield SystemCommand("Export as JSON", "All branches, with numbers", self._on_chat("export('json')"))
        yield SystemCommand("Delete this conversation", "It can be brought back", self._on_chat("delete"))
        yield SystemCommand("Bring back the deleted conversation", "", self._on_chat("undelete"))
        yield SystemCommand("Light or dark", "The other one of our two themes", self.action_other_theme)
        yield SystemCommand("Choose a theme", "Ours and those of Textual", self.action_change_theme)
        if self._model is not None:
            yield SystemCommand("Load the model again", "After a failure", self.action_reload)

    def _on_chat(self, action: str) -> Callable[[], Awaitable[bool]]:
        return partial(self.run_action, f"screen.{action}")

    def watch_theme(self, theme: str) -> None:
        if self.is_running:  # chosen by the person, not by the start
            self.run_worker(asyncio.to_thread(self.preferences.keep, theme=theme), group="preferences")

    def action_other_theme(self) -> None:
        self.theme = other(self.theme)

    def action_reload(self) -> None:
        if self._model is not None and not self.conductor.busy:
            self.chat.load(self._model)

    async def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            await self.push_screen(HelpScreen())

    # ----------------------------------------------------------------------------------------------------- clipboard

    async def action_copy_or_stop(self) -> None:
        """Copy what is selected; else stop the answer; else quit, when pressed twice."""
        focused = self.screen.focused
        written = focused.selected_text if isinstance(focused, (TextArea, Input)) else ""
        selected = written or self.screen.get_selected_text()
        now = self.clock.monotonic()
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            self.notify("The selection is copied.")
        elif self.conductor.turn is not None and not self.conductor.turn.stopping:
            self.chat.action_stop()
        elif now - self._interrupted <= AGAIN_SECONDS:
            await self.action_quit()
        else:
            self._interrupted = now
            self.notify("Press ctrl+c again to quit.", timeout=AGAIN_SECONDS)

    def copy_to_clipboard(self, text: str) -> None:
        """By the system's tool, else by the terminal."""
        self._clipboard = text
        command = clipboard.tool()
        if command is None:
            self._ask_terminal(text)
        else:
            self.run_worker(self._copy(command, text), group="clipboard", exit_on_error=False)

    async def _copy(self, command: list[str], text: str) -> None:
        if not await asyncio.to_thread(clipboard.run_tool, command, text):
            self._ask_terminal(text)

    def _ask_terminal(self, text: str) -> None:
        if self._driver is not None:
            self._driver.write(clipboard.sequence(text))

    # ------------------------------------------------------------------------------------------------------- the end

    async def action_quit(self) -> None:
        """Keep what has arrived and go; the model's thread ends behind our back."""
        await self._leave()
        self.exit()

    async def on_unmount(self) -> None:
        await self._leave()
        self._garbage.close()
        self.store.close()

    async def _leave(self) -> None:
        if not self._left:
            self._left = True
            if self._downloads is not None:
                self._downloads.stop()
            with contextlib.suppress(QwenError):
                await self.conductor.leave()
            # A model in the middle of a long step answers late; nobody should look at a dead screen meanwhile.
            self.closing = threading.Thread(target=self.runtime.close, args=(CLOSE_SECONDS,), daemon=True)
            self.closing.start()


def run(
    runtime: Runtime,
    history: History | None = None,
    *,
    shelf: Shelf | None = None,
    model: str | None = None,
    rope_scaling: str | None = None,
    kv_bits: KVBits | None = None,
    theme: str | None = None,
    mouse: bool = True,
) -> int:
    """Run the app until the person quits; returns the exit status.

    Args:
        runtime: owner of the model; it is closed at the end.
        history: the conversations; None opens the ones of this person, and closes them at the end.
        shelf: the models of this machine.
        model: what to load, after the first paint; None loads the one that was used last, or else the demo.
        rope_scaling, kv_bits: as in `LoadModel`.
        theme: name of a theme.
        mouse: False leaves the mouse to the terminal.

    Raises:
        UsageError: there is no terminal.
        HistoryError: the conversations cannot be opened.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the terminal app needs a terminal", hint="Use `qwen-mlx chat` in scripts and pipes.")
    with contextlib.ExitStack() as stack:
        if history is None:
            history = stack.enter_context(History(paths.history_file()))
        theme = theme or os.environ.get("QWEN_MLX_THEME")
        if model is None:
            model = Preferences(paths.data_home() / "preferences.json").model or "demo"
        app = QwenApp(
            runtime, history, model=model, rope_scaling=rope_scaling, kv_bits=kv_bits, theme=theme, shelf=shelf
        )
        app.run(mouse=mouse)
        if app.closing is not None:
            app.closing.join(CLOSE_SECONDS)
        else:
            runtime.close(CLOSE_SECONDS)
        return app.return_code or 0
