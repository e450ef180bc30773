"""Markdown that grows: each append costs as much as the last block, not as the whole text.

Only the end of the source, from the last block on, is parsed again and compared with what is mounted ("live"); all
before it is settled and never touched. This builds on private parts of `textual.widgets.Markdown` (how tokens become
widgets, how a paragraph takes over new content), which is why Textual is pinned below its next major version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from markdown_it.token import Token
from textual import events
from textual.await_complete import AwaitComplete
from textual.widget import Widget
from textual.widgets import Markdown

from tui.sanitize import Sanitizer
from tui.widgets.markdown_blocks import StreamFence
from tui.widgets.markdown_lists import StreamBulletList, StreamOrderedList
from tui.widgets.markdown_parser import parser
from tui.widgets.markdown_sync import LISTS, groups, sync
from tui.widgets.markdown_table import StreamTable

LIST_ITEMS = 12  # a longer list at the end is cut before its last item, so that finished items stay as they are


@dataclass(frozen=True)
class _Block:
    """A top-level block of the source: its tokens, its lines, and whether it goes on with the list above."""

    kind: str
    source: str
    tokens: list[Token]
    start: int
    continues: bool = False


class StreamMarkdown(Markdown):
    """Call `append` with pieces cut anywhere, at last `finish`. Not to be used with `update`."""

    BLOCKS = {
        **Markdown.BLOCKS,
        "fence": StreamFence,
        "code_block": StreamFence,
        "table_open": StreamTable,
        "bullet_list_open": StreamBulletList,
        "ordered_list_open": StreamOrderedList,
    }

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes, parser_factory=parser, open_links=False)
        self._sanitizer = Sanitizer()
        self._cut = 0  # where in the source the live part begins
        self._settled = 0  # how many mounted blocks lie before it
        self._continuing = False  # the live part begins inside a list
        self._live: list[_Block] = []
        self._kinds: list[str] = []  # of the settled blocks, list parts counted once
        self._references: dict[str, object] = {}  # link definitions, kept across parses

    def on_mount(self, event: events.Mount) -> None:
        event.prevent_default()  # the base class would start with `update("")`, which races with the first append

    def append(self, markdown: str) -> AwaitComplete:
        """Add text at the end."""
        return AwaitComplete(self._append(markdown))

    async def _append(self, text: str) -> None:
        async with self.lock:
            text = self._sanitizer.feed(text)
            if text and self.is_attached:
                self._markdown += text
                await self._show(split_lists=True)

    def replace(self, markdown: str) -> AwaitComplete:
        """Show a whole text instead of what there is."""
        return AwaitComplete(self._replace(markdown))

    async def _replace(self, text: str) -> None:
        async with self.lock:
            if not self.is_attached:
                return
            self._sanitizer = Sanitizer()
            self._markdown = self._sanitizer.feed(text) + self._sanitizer.flush()
            self._cut = self._settled = 0
            self._live, self._kinds, self._references = [], [], {}
            self._continuing = False
            with self.app.batch_update():
                await self.remove_children()
                await self._show(split_lists=False)
            self._complete_fences()

    def finish(self, whole: str | None = None) -> AwaitComplete:
        """No more will come. `whole` is the text as it should be; the screen is made to agree with it."""
        return AwaitComplete(self._finish(whole))

    async def _finish(self, whole: str | None) -> None:
        await self._append(self._sanitizer.flush())
        if whole is not None:
            expected = Sanitizer()
            whole = expected.feed(whole) + expected.flush()
            if whole.startswith(self._markdown):
                await self._append(whole[len(self._markdown) :])
            elif whole.strip("\n") != self._markdown.strip("\n"):
                await self._replace(whole)
                return
        # A link defined after its use, or a list that turned out to be two, is seen in the whole text only.
        kinds = _kinds(_blocks(self._markdown, {}, split_lists=False))
        if self._references or kinds != self._kinds + _kinds(self._live):
            await self._replace(self._markdown)
        else:
            self._complete_fences()

    # -------------------------------------------------------------------------------------------------- inside

    async def _show(self, split_lists: bool) -> None:
        """Bring the mounted blocks into line with the source; the lock is held."""
        tail = self._markdown[self._cut :]
        blocks = _blocks(tail, self._references, split_lists)
        if blocks and self._continuing:
            blocks[0] = replace(blocks[0], continues=True)
        with self.app.batch_update():
            old, new = [block.tokens for block in self._live], [block.tokens for block in blocks]
            await sync(self, self, list(self.children)[self._settled :], old, new)
            self._mark_continued(blocks)
        self._live = blocks
        self._settle(tail)

    def _mark_continued(self, blocks: list[_Block]) -> None:
        """Parts of one list stand without a gap."""
        for widget, following in zip(self.children[self._settled :], blocks[1:]):
            widget.set_class(following.continues, "-continued")

    def _settle(self, tail: str) -> None:
        """Leave all blocks behind but the last one.

        A block counts as begun when its first line is whole: "- a\\n*" looks like a second list until it becomes
        "- a\\n**b**", more text of the first.
        """
        last = len(self._live) - 1
        while last > 0 and tail.count("\n") <= self._live[last].start:
            last -= 1
        if last <= 0:
            return
        for block, widget in zip(self._live[:last], self.children[self._settled :]):
            if not block.continues:
                self._kinds.append(block.kind)
            _complete(widget)
        self._cut += _offset(tail, self._live[last].start)
        self._settled += last
        first = self._live[last].start
        self._live = [replace(block, start=block.start - first) for block in self._live[last:]]
        self._continuing = self._live[0].continues

    def _complete_fences(self) -> None:
        for fence in self.query(StreamFence):
            fence.complete()

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Open web and mail links only: a model may write any address, and a click is quickly done."""
        event.stop()
        if urlsplit(event.href).scheme in ("http", "https", "mailto"):
            self.app.open_url(event.href)
        else:
            self.notify(f"Not opened: {event.href}", markup=False)


def _complete(widget: Widget) -> None:
    for fence in widget.query(StreamFence):
        fence.complete()
    if isinstance(widget, StreamFence):
        widget.complete()


def _kinds(blocks: list[_Block]) -> list[str]:
    return [block.kind for block in blocks if not block.continues]


def _blocks(source: str, references: dict[str, object], split_lists: bool) -> list[_Block]:
    """The top-level blocks of a source."""
    lines = source.split("\n")
    blocks = [
        _Block(tokens[0].type, _lines(lines, *(tokens[0].map or (0, 0))), tokens, (tokens[0].map or (0, 0))[0])
        for tokens in groups(parser().parse(source, {"references": references}))
    ]
    if split_lists and blocks and blocks[-1].kind in LISTS:
        blocks[-1:] = _split_list(blocks[-1], lines, references)
    return blocks


def _split_list(block: _Block, lines: list[str], references: dict[str, object]) -> list[_Block]:
    """A long list as two: all items but the last, and the last, which is the one that grows."""
    items = [
        token.map[0] for token in block.tokens if token.type == "list_item_open" and token.level == 1 and token.map
    ]
    if len(items) <= LIST_ITEMS or items[-1] >= len(lines) - 1:
        return [block]
    end = (block.tokens[0].map or (0, 0))[1]
    first = _blocks(_lines(lines, block.start, items[-1]), references, split_lists=False)
    second = _blocks(_lines(lines, items[-1], end), references, split_lists=False)
    if [part.kind for part in first + second] != [block.kind] * 2:
        return [block]
    return [
        replace(first[0], start=block.start, continues=block.continues),
        replace(second[0], start=items[-1], continues=True),
    ]


def _lines(lines: list[str], start: int, end: int) -> str:
    return "\n".join(lines[start:end])


def _offset(text: str, line: int) -> int:
    """Where line number `line` begins."""
    position = 0
    for _ in range(line):
        position = text.index("\n", position) + 1
    return position
