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

from textual import constants, events
from textual.app import App, SystemCommand
from textual.screen import Screen
from textual.widgets import Input, TextArea

from qwen_mlx import paths
from qwen_mlx.chat.history import History
from qwen_mlx.errors import QwenError, UsageError
from qwen_mlx.events import KVBits, Runtime, Shelf, Workshop
from tui import clipboard
from tui.bindings import KEYS, all_shown, bindings
from tui.clock import Clock
from tui.conductor import Conductor
from tui.downloads import Downloads
from tui.garbage import GarbagePolicy
from tui.preferences import Preferences
from tui.prompts import PromptFile
from tui.quantizing import Quantizer
from tui.screens.chat import ChatScreen
from tui.screens.help import HelpScreen
from tui.screens.training_desk import POLL_SECONDS, TrainingDesk
from tui.store import Store
from tui.text_mode import CLASS as TEXT
from tui.text_mode import PlainText, WithoutColour
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
        workshop: the training runs of this machine; None leaves their screens out.
        text: text only, for screen readers; None leaves it to the preferences.
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
        preferences: Preferences | Path | None = None,
        clock: Clock | None = None,
        shelf: Shelf | None = None,
        workshop: Workshop | None = None,
        text: bool | None = None,
    ) -> None:
        super().__init__()
        for ours in THEMES:
            self.register_theme(ours)
        if not isinstance(preferences, Preferences):
            preferences = Preferences(preferences or _preferences_file())
        self.preferences = preferences
        wanted = [name for name in (theme, self.preferences.theme) if name in self.available_themes]
        self.theme = wanted[0] if wanted else DARK.name
        self.runtime = runtime
        self.clock = clock or Clock()
        self._text = self.preferences.text if text is None else text
        self._filters += [WithoutColour(self._text or self.no_color), PlainText(self._text)]
        self.set_text_mode(self._text)
        self._downloads = Downloads(shelf, self._remember_download) if shelf is not None else None
        self._quantizer = Quantizer(runtime, shelf) if shelf is not None else None
        self.store = Store(history, self._store_failed)
        kv_bits = kv_bits or self.preferences.kv_bits
        self.conductor = Conductor(runtime, self.store, self.clock, rope_scaling, kv_bits)
        self.desk = TrainingDesk(self, runtime, workshop, shelf, self.clock) if workshop is not None else None
        if self.desk is not None:
            self.conductor.refusal = self.desk.refusal
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
            *(self._downloads, self._quantizer, self._text),
        )

    def _remember_download(self, name: str | None) -> None:
        self.chat.choices.keep(download=name)

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
        yield SystemCommand("Tags of the conversation", "Give, take away, rename, delete", self._on_chat("tag"))
        yield SystemCommand("Attach a text file", "/attach PATH, or drop it on the window", self._on_chat("attach"))
        yield SystemCommand("Numbers of the last answer", "Speeds, time, context, memory", self._on_chat("stats"))
        yield SystemCommand("Pin the conversation, or not", "Pinned ones stay at the top", self._on_chat("pin"))
        yield SystemCommand(
            "Export as Markdown", "The branch shown, to the current folder", self._on_chat("export('md')")
        )
        yield SystemCommand("Export as JSON", "All branches, with numbers", self._on_chat("export('json')"))
        yield SystemCommand(
            "Import conversations", "Of ChatGPT, Open WebUI, oterm: /import FILE", self._on_chat("import_chats")
        )
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
            self.chat.choices.keep(theme=theme)

    def action_other_theme(self) -> None:
        self.theme = other(self.theme)

    def set_text_mode(self, text: bool) -> None:
        """Text only, without frames, symbols, colours and things that move; see `tui.text_mode`."""
        self.set_class(text, TEXT)
        self.set_class(self.no_color or text, "-no-colour")
        self.animation_level = "none" if text else constants.TEXTUAL_ANIMATIONS
        for line_filter in self._filters:
            if isinstance(line_filter, PlainText):
                line_filter.enabled = text
            elif isinstance(line_filter, WithoutColour):
                line_filter.enabled = text or self.no_color
        if self.is_running:
            for screen in self.screen_stack:
                for widget in [screen, *screen.query("*")]:
                    widget.notify_style_update()  # what was painted is forgotten
            self.refresh_css(animate=False)

    def write_to_terminal(self, sequence: str) -> None:
        """Send a sequence that shows nothing."""
        if self._driver is not None:
            self._driver.write(sequence)

    def action_reload(self) -> None:
        model = self.chat.models.model
        if model is not None and not self.conductor.busy:
            self.chat.load(model)

    def on_mount(self) -> None:
        if self.desk is not None:
            self.set_interval(POLL_SECONDS, self.desk.poll)

    async def action_training(self) -> None:
        """The training runs of this machine."""
        if self.desk is None:
            self.notify("This app cannot look at training runs.")
        else:
            await self.desk.open()

    async def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            await self.push_screen(HelpScreen())

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded and isinstance(self.screen, ChatScreen):
            self.app_focus = True
            if await self.screen.take_key(event):
                return
        await super().on_event(event)

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
        self.write_to_terminal(clipboard.sequence(text))

    # ------------------------------------------------------------------------------------------------------- the end

    async def action_quit(self) -> None:
        """Keep what has arrived and go; the model's thread ends behind our back. A run that goes on is asked about."""
        if self.desk is not None and self.desk.trainer.current is not None:
            self.desk.ask_to_quit(self._go)
        else:
            await self._go()

    async def _go(self) -> None:
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
            if self._quantizer is not None:
                self._quantizer.stop()
            with contextlib.suppress(QwenError):
                await self.conductor.leave()
            await asyncio.to_thread(self.preferences.save)  # what was chosen a moment ago
            # A model in the middle of a long step answers late; nobody should look at a dead screen meanwhile.
            self.closing = threading.Thread(target=self.runtime.close, args=(CLOSE_SECONDS,), daemon=True)
            self.closing.start()


def run(
    runtime: Runtime,
    history: History | None = None,
    *,
    shelf: Shelf | None = None,
    workshop: Workshop | None = None,
    model: str | None = None,
    rope_scaling: str | None = None,
    kv_bits: KVBits | None = None,
    theme: str | None = None,
    mouse: bool = True,
    text: bool | None = None,
) -> int:
    """Run the app until the person quits; returns the exit status.

    Args:
        runtime: owner of the model; it is closed at the end.
        history: the conversations; None opens the ones of this person, and closes them at the end.
        shelf: the models of this machine; workshop: its training runs.
        model: what to load, after the first paint; None loads the one that was chosen for this, else the one that was
            used last, or else the demo.
        rope_scaling, kv_bits: as in `LoadModel`.
        theme: name of a theme.
        mouse: False leaves the mouse to the terminal.
        text: text only, see `QwenApp`.

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
        preferences = Preferences(_preferences_file())
        model = model or preferences.default_model or preferences.model or "demo"
        app = QwenApp(
            *(runtime, history),
            model=model,
            rope_scaling=rope_scaling,
            kv_bits=kv_bits,
            theme=theme,
            preferences=preferences,
            shelf=shelf,
            workshop=workshop,
            text=text,
        )
        app.run(mouse=mouse)
        if app.closing is not None:
            app.closing.join(CLOSE_SECONDS)
        else:
            runtime.close(CLOSE_SECONDS)
        return app.return_code or 0


def _preferences_file() -> Path:
    return paths.data_home() / "preferences.json"
