"""Taking over conversations of other programs, as the chat screen does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_mlx.chat.history import History
from qwen_mlx.errors import QwenError
from tui.notices import complain

if TYPE_CHECKING:
    from tui.chat_import import ChatImport
    from tui.screens.chat import ChatScreen


class ImportCommands:
    """Belongs to a chat screen."""

    def __init__(self, screen: ChatScreen, history: History) -> None:
        self._screen = screen
        self._history = history
        self._running: ChatImport | None = None

    @property
    def work(self) -> str:
        """What goes on, in words; "" for nothing."""
        progress = self._running.progress if self._running is not None else None
        if progress is None:
            return ""
        return f"Importing{f' {100 * progress.done // progress.total}%' if progress.total else ''}"

    async def begin(self, text: str) -> None:
        """Import the file that `text` names."""
        from tui.chat_import import ChatImport, message_of, path_of  # readers of formats: not before they are needed

        screen = self._screen
        if self._running is not None:
            screen.notify("One import at a time.")
            return
        self._running = ChatImport(self._history)
        try:
            done = await self._running.run(path_of(text))
        except QwenError as error:
            complain(screen, error)
        else:
            if done is not None:
                screen.notify(message_of(done), markup=False, timeout=10)
        finally:
            self._running = None
        await screen.sidebar.refresh_list()

    def stop(self) -> None:
        """The app ends: what is imported by now stays."""
        if self._running is not None:
            self._running.stop()
