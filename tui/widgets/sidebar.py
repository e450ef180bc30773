"""The conversations, grouped by when they were last used."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qwen_mlx.chat.history import Conversation
from qwen_mlx.errors import QwenError
from tui.bindings import bindings
from tui.clock import Clock
from tui.notices import complain
from tui.store import Store
from tui.widgets.still import Still
from tui.wording import ago, group_of, pad, shorten

NARROW, WIDE = 32, 48
LISTED = 200
REPAINT_SECONDS = 60.0  # the times in the list grow old
_BESIDES = 4  # cells of a line: border, padding and scrollbar


class ConversationList(OptionList):
    """One line per conversation: a mark, the title, when."""

    BINDINGS = bindings("list")
    ALLOW_SELECT = False

    @property
    def marked(self) -> int | None:
        """The id of the conversation under the cursor."""
        option = None if self.highlighted is None else self.get_option_at_index(self.highlighted)
        return int(option.id) if option is not None and option.id is not None else None


class Sidebar(Vertical):
    """Reads the conversations and changes their list; what is open and running it is told by `show_state`."""

    @dataclass
    class Chosen(Message):
        """Open this conversation."""

        conversation_id: int

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self.conversations: list[Conversation] = []
        self._store = store
        self._clock = clock
        self._current: int | None = None
        self._answering: int | None = None
        self._deleted: list[int] = []
        self._width = NARROW

    def set_width(self, wide: bool) -> None:
        """More room for titles, or less."""
        self._width = WIDE if wide else NARROW
        self.styles.width = self._width
        self._paint()

    def compose(self) -> ComposeResult:
        yield Still("Conversations", classes="heading")
        yield ConversationList(id="conversations", markup=False)
        yield Still("Nothing here yet.\nWhat you ask is kept on\nthis machine.", classes="empty")

    def on_mount(self) -> None:
        self.set_interval(REPAINT_SECONDS, self._paint)

    @property
    def listing(self) -> ConversationList:
        return self.query_one(ConversationList)

    def known(self, conversation_id: int | None) -> Conversation | None:
        """A conversation of the list."""
        return next((found for found in self.conversations if found.id == conversation_id), None)

    def subject(self) -> Conversation | None:
        """What a command is about: the marked one if the list has the focus, else the open one."""
        return self.known(self.listing.marked if self.listing.has_focus else self._current)

    def show_state(self, current: int | None, running: int | None) -> None:
        """Which conversation is open, and which one is being answered."""
        if (current, running) != (self._current, self._answering):
            self._current, self._answering = current, running
            self._paint()

    async def refresh_list(self) -> None:
        """Read the conversations again."""
        try:
            self.conversations = await self._store.call(self._store.history.conversations, LISTED)
        except QwenError as error:
            complain(self, error)
        self._paint()

    async def delete(self, conversation: Conversation) -> bool:
        """Take a conversation off the list; it can be brought back."""
        try:
            await self._store.call(self._store.history.delete, conversation.id)
        except QwenError as error:
            complain(self, error)
            return False
        self._deleted.append(conversation.id)
        text = f"“{conversation.title}” is deleted. Press u in the list to bring it back."
        self.notify(text, markup=False, timeout=10)
        await self.refresh_list()
        return True

    async def undelete(self) -> int | None:
        """Bring the last deleted one back; its id, or None."""
        if not self._deleted:
            self.notify("Nothing was deleted since the app started.")
            return None
        identity = self._deleted.pop()
        try:
            await self._store.call(self._store.history.undelete, identity)
        except QwenError as error:
            complain(self, error)
            return None
        self.app.clear_notifications()  # what said that it is gone
        await self.refresh_list()
        self._mark(identity)
        return identity

    async def pin(self, conversation: Conversation) -> None:
        """Keep it at the top of the list, or no more."""
        try:
            await self._store.call(self._store.history.pin, conversation.id, not conversation.pinned)
        except QwenError as error:
            complain(self, error)
        await self.refresh_list()
        self._mark(conversation.id)

    async def rename(self, conversation: Conversation, title: str) -> None:
        try:
            await self._store.call(self._store.history.rename, conversation.id, title)
        except QwenError as error:
            complain(self, error)
        await self.refresh_list()

    def _paint(self) -> None:
        listing = self.listing
        marked, place = listing.marked, listing.highlighted
        options = self._options()
        listing.clear_options()
        listing.add_options(options)
        if marked is None or self.known(marked):
            self._mark(self._current if marked is None else marked)
        elif options:  # the marked one was deleted: its neighbour takes its place
            listing.highlighted = min(place or 0, len(options) - 1)
            if listing.marked is None:
                listing.action_cursor_up()
        self.set_class(not self.conversations, "-empty")

    def _options(self) -> list[Option]:
        now = self._clock.wall()
        options: list[Option] = []
        group = ""
        for conversation in self.conversations:
            heading = "Pinned" if conversation.pinned else group_of(conversation.updated, now, self._clock)
            if heading != group:
                gap = "\n" if group else ""
                options.append(Option(Content.styled(f"{gap}{heading}", "bold $secondary"), disabled=True))
                group = heading
            mark = "●" if conversation.id == self._answering else "▌" if conversation.id == self._current else " "
            when = ago(conversation.updated, now, self._clock)
            title = pad(conversation.title or "Untitled", self._width - _BESIDES - 3 - cell_len(when))
            tags = " ".join(f"#{tag}" for tag in conversation.tags)
            under = f"\n  {shorten(tags, self._width - _BESIDES - 2)}" if tags else ""
            row = Content.assemble(
                (mark, "$primary"),
                " ",
                (title, "bold" if conversation.id == self._current else ""),
                " ",
                (when, "$secondary"),
                (under, "$secondary"),
            )
            options.append(Option(row, id=str(conversation.id)))
        return options

    def _mark(self, conversation_id: int | None) -> None:
        """Put the cursor on a conversation."""
        places = range(self.listing.option_count)
        wanted = str(conversation_id)
        self.listing.highlighted = next(
            (place for place in places if self.listing.get_option_at_index(place).id == wanted), None
        )

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option.id is not None:
            self.post_message(self.Chosen(int(event.option.id)))
