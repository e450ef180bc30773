"""The tags: give them to a conversation or take them away, rename and delete them everywhere."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from qwen_mlx.chat.history import Conversation
from qwen_mlx.errors import QwenError
from tui.screens.naming import NamingScreen
from tui.store import Store
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import pad, sentence, shorten

_KEYS = (
    ("enter", "give or take", "give"),
    ("n", "new", "new"),
    ("r", "rename", "rename"),
    ("del", "delete", "delete"),
    ("f", "find", "find"),
    ("esc", "leave", "leave"),
)


class TagsScreen(NamingScreen[str | None]):
    """Gives the tag whose conversations are to be looked for, or None.

    Args:
        conversation: whose tags; None only lists them.
    """

    CSS_PATH = "dialog.tcss"
    LIST_KEYS = _KEYS
    BINDINGS = [
        Binding("escape", "leave", "Leave", show=False, id="tags.leave"),
        Binding("n", "new", "New", show=False, id="tags.new"),
        Binding("r", "rename", "Rename", show=False, id="tags.rename"),
        Binding("delete,backspace", "delete", "Delete everywhere", show=False, id="tags.delete"),
        Binding("f", "find", "Find its conversations", show=False, id="tags.find"),
    ]

    def __init__(self, store: Store, conversation: Conversation | None) -> None:
        super().__init__(store)
        self._conversation = conversation
        self._tags: list[tuple[str, int]] = []
        self._given: set[str] = set()
        self._renaming: str | None = None
        self._sure: str | None = None  # whose deletion was asked for once

    def compose(self) -> ComposeResult:
        whose = f"Tags of “{shorten(self._conversation.title, 40)}”" if self._conversation else "Tags"
        with Vertical(id="dialog", classes="tags"):
            yield Still(whose, classes="heading", markup=False)
            yield OptionList(id="hits", markup=False)
            yield Input(id="title", compact=True)
            yield Still("", id="problem", markup=False)
            yield Hint(*_KEYS)

    async def on_mount(self) -> None:
        self._ask_name(None)
        await self._refresh()
        if not self._tags and self._conversation is not None:
            self.action_new()

    async def _refresh(self, marked: str = "") -> None:
        history = self._store.history
        try:
            self._tags = await self._store.call(history.tags)
            if self._conversation is not None:
                self._conversation = await self._store.call(history.conversation, self._conversation.id)
        except QwenError as error:
            self._say(sentence(error))
        self._given = {tag.casefold() for tag in self._conversation.tags} if self._conversation else set()
        listing = self.query_one(OptionList)
        place = listing.highlighted or 0
        listing.clear_options()
        listing.add_options([Option(_row(tag, count, tag.casefold() in self._given)) for tag, count in self._tags])
        names = [tag.casefold() for tag, _ in self._tags]
        wanted = names.index(marked.casefold()) if marked.casefold() in names else place
        listing.highlighted = min(wanted, len(names) - 1) if names else None
        self._sure = None
        if not names:
            self._say("There are no tags yet. A tag is a word, such as work.")

    @property
    def _marked(self) -> str | None:
        place = self.query_one(OptionList).highlighted
        return self._tags[place][0] if place is not None and place < len(self._tags) else None

    @on(OptionList.OptionSelected)
    async def action_give(self) -> None:
        tag, conversation, history = self._marked, self._conversation, self._store.history
        if tag is None or conversation is None:
            self._say("There is no conversation to tag yet." if tag is not None else "")
            return
        change = history.untag if tag.casefold() in self._given else history.tag
        if await self._try(lambda: (change(conversation.id, tag), True)[1]):
            await self._refresh(tag)

    def action_new(self) -> None:
        if self._conversation is None:
            self._say("There is no conversation to tag yet.")
            return
        self._renaming = None
        self._ask_name("", "a word, such as work")

    def action_rename(self) -> None:
        if self._marked is not None:
            self._renaming = self._marked
            self._ask_name(self._marked)

    @on(Input.Submitted)
    async def action_name(self) -> None:
        name, conversation, history = self.query_one(Input).value, self._conversation, self._store.history
        before = self._renaming
        if before is not None:
            done = await self._try(lambda: (history.rename_tag(before, name), True)[1])
        elif conversation is not None:
            done = await self._try(lambda: (history.tag(conversation.id, name), True)[1])
        else:
            done = None
        if done:
            self._ask_name(None)
            await self._refresh(name.strip().strip("#"))

    async def action_delete(self) -> None:
        """Asks once more where several conversations would lose it."""
        tag = self._marked
        if tag is None:
            return
        count = dict(self._tags)[tag]
        if count > 1 and self._sure != tag:
            self._sure = tag
            self._say(f"#{tag} is on {count} conversations. Press delete again to take it from all of them.")
            return
        if await self._try(lambda: (self._store.history.delete_tag(tag), True)[1]):
            await self._refresh()

    def action_find(self) -> None:
        if self._marked is not None:
            self.dismiss(self._marked)

    def action_leave(self) -> None:
        if self.query_one(Input).display and self._tags:
            self._ask_name(None)
        else:
            self.dismiss(None)


def _row(tag: str, count: int, given: bool) -> Content:
    mark = "●" if given else "○"
    word = "conversation" if count == 1 else "conversations"
    return Content.assemble((mark, "$primary"), f" #{pad(tag, 24)} ", (f"{count} {word}", "$secondary"))
