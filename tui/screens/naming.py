"""A list in a dialog with a field for names and a line for what went wrong: what presets and tags share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList

from qwen_mlx.errors import QwenError
from tui.store import Store
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import sentence

Result = TypeVar("Result")


class NamingScreen(ModalScreen[Result]):
    """Holds an `OptionList`, an `Input` for a name, a `Still` with the id "problem", and a `Hint`.

    Attributes:
        LIST_KEYS, NAME_KEYS: what the hint shows while the list, or the field, is in use.
    """

    LIST_KEYS: ClassVar[Sequence[tuple[str, str, str]]] = ()
    NAME_KEYS: ClassVar[Sequence[tuple[str, str, str]]] = (("enter", "keep", "name"), ("esc", "leave it", "leave"))

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    async def _try(self, change: Callable[[], Any]) -> Any:
        """What `change` gives on the thread of the store; None, and the reason in the dialog, when it cannot be."""
        self._say("")
        try:
            return await self._store.call(change)
        except QwenError as error:
            self._say(sentence(error))
            return None

    def _ask_name(self, name: str | None, placeholder: str = "") -> None:
        """Ask for a name, or (None) go back to the list."""
        field = self.query_one(Input)
        field.display = name is not None
        field.value, field.placeholder = name or "", placeholder
        self.query_one(Hint).show(*(self.LIST_KEYS if name is None else self.NAME_KEYS))
        self._say("")
        (self.query_one(OptionList) if name is None else field).focus()

    def _say(self, text: str) -> None:
        problem = self.query_one("#problem", Still)
        problem.update(Content(text))
        problem.display = bool(text)
