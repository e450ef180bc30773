"""Looks for words in everything that was said, while they are typed."""

from __future__ import annotations

import re

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from qwen_mlx.chat.history import Conversation, SearchHit
from qwen_mlx.chat.history_tags import split_query
from qwen_mlx.errors import QwenError
from tui.clock import Clock
from tui.notices import complain
from tui.store import Store
from tui.widgets.still import Still
from tui.wording import ago, shorten

PAUSE_SECONDS = 0.15  # after a key, before the search: who types on is not kept waiting
FOUND = 50
_TITLES = 10
_WHO = {"user": "you", "assistant": "model"}

Found = tuple[int, int | None]
"""A conversation, and the message in it, if it was not the title that matched."""


class SearchScreen(ModalScreen[Found | None]):
    """Enter opens what is marked, at the message found."""

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape,ctrl+s", "leave", "Leave", show=False, id="search.leave"),
        Binding("down", "mark(1)", "Next", show=False, id="search.down", priority=True),
        Binding("up", "mark(-1)", "Previous", show=False, id="search.up", priority=True),
        Binding("pagedown", "mark(8)", "Next page", show=False, id="search.page_down", priority=True),
        Binding("pageup", "mark(-8)", "Previous page", show=False, id="search.page_up", priority=True),
    ]

    def __init__(self, store: Store, clock: Clock, words: str = "") -> None:
        super().__init__()
        self._words = words
        self._store = store
        self._clock = clock
        self._soon: Timer | None = None
        self._found: list[Found] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="search"):
            yield Still("Search all conversations", classes="heading")
            yield Input(
                self._words, id="query", placeholder="Words, in any order; tag:work keeps to a tag", compact=True
            )
            yield OptionList(id="hits", markup=False)
            yield Still("", classes="note")
            yield Still("↑↓ choose · enter open · esc leave", classes="hint")

    async def on_mount(self) -> None:
        self._say("")
        if self._words:
            await self._look()

    @on(Input.Changed)
    def changed(self) -> None:
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(PAUSE_SECONDS, self._look)

    async def _look(self) -> None:
        query = self.query_one(Input).value.strip()
        history = self._store.history
        try:
            titles = await self._store.call(history.search_titles, query, _limit(query)) if query else []
            hits = await self._store.call(history.search, query, FOUND) if query else []
        except QwenError as error:
            complain(self, error)
            return
        if self.query_one(Input).value.strip() == query:  # else another search is on its way
            self._show(query, titles, hits)

    def _show(self, query: str, titles: list[Conversation], hits: list[SearchHit]) -> None:
        (words, _), now, listing = split_query(query), self._clock.wall(), self.query_one(OptionList)
        width = max(20, listing.size.width - 4)
        self._found = [(conversation.id, None) for conversation in titles]
        self._found += [(hit.conversation_id, hit.message_id) for hit in hits]
        options = [
            _row(conversation.title, ago(conversation.updated, now, self._clock), _about(conversation), words, width)
            for conversation in titles
        ]
        for hit in hits:
            when = f"{_WHO.get(hit.role, hit.role)} · {ago(hit.created, now, self._clock)}"
            options.append(_row(hit.title, when, hit.snippet, words, width))
        listing.clear_options()
        listing.add_options([Option(content) for content in options])
        listing.highlighted = 0 if options else None
        if not query:
            self._say("")
        elif not options:
            self._say("Nothing was found. All words must be in one message, or in a title.")
        else:
            self._say(f"The newest {FOUND} messages are shown." if len(hits) == FOUND else "")

    def _say(self, text: str) -> None:
        note = self.query_one(".note", Still)
        note.update(Content(text))
        note.display = bool(text)

    def action_mark(self, step: int) -> None:
        listing = self.query_one(OptionList)
        if listing.option_count:
            place = (listing.highlighted or 0) + step
            listing.highlighted = min(max(place, 0), listing.option_count - 1)

    @on(Input.Submitted)
    def open_marked(self) -> None:
        place = self.query_one(OptionList).highlighted
        if place is not None and place < len(self._found):
            self.dismiss(self._found[place])

    @on(OptionList.OptionSelected)
    def open_clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._found[event.option_index])

    def action_leave(self) -> None:
        self.dismiss(None)


def _limit(query: str) -> int:
    """How many conversations are listed: all that have a tag, when nothing else is looked for."""
    return _TITLES if split_query(query)[0] else FOUND


def _about(conversation: Conversation) -> str:
    return " ".join(f"#{tag}" for tag in conversation.tags) or "title"


def _row(title: str, when: str, snippet: str, words: list[str], width: int) -> Content:
    """Two lines: whose and when, then the words found among their neighbours."""
    head = Content.assemble(
        (shorten(title or "Untitled", max(8, width - len(when) - 3)), "bold"), (f" · {when}", "$secondary")
    )
    body = Content(shorten(snippet, width))
    for word in words:
        for match in re.finditer(re.escape(word), body.plain, re.IGNORECASE):
            body = body.stylize("bold $primary", match.start(), match.end())
    return Content("\n").join([head, body])
