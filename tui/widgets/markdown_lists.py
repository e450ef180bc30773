"""Lists whose plain items are one widget each, where Textual has four: mounting is what a long list costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.css.styles import RulesMap
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widget import Widget
from textual.widgets._markdown import (
    MarkdownBlock,
    MarkdownBullet,
    MarkdownBulletList,
    MarkdownListItem,
    MarkdownOrderedList,
    MarkdownParagraph,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hanging(Visual):
    """A text with a symbol before its first line; all lines begin at the same column."""

    def __init__(self, symbol: str, text: Content) -> None:
        self._symbol = Content.styled(symbol, "$primary")
        self._indent = self._symbol.cell_length
        self._text = text

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        room = max(1, width - self._indent)
        blank = Strip.blank(self._indent, style.rich_style)
        plain = RenderOptions(options.get_style, options.rules)
        symbol = self._symbol.render_strips(self._indent, 1, style, plain) or [blank]
        lines = self._text.render_strips(room, height, style, options) or [Strip.blank(room, style.rich_style)]
        return [Strip.join([symbol[0] if place == 0 else blank, line]) for place, line in enumerate(lines)]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return self._indent + self._text.get_optimal_width(rules, container_width)

    def get_minimal_width(self, rules: RulesMap) -> int:
        return self._indent + self._text.get_minimal_width(rules)

    def get_height(self, rules: RulesMap, width: int) -> int:
        return max(1, self._text.get_height(rules, max(1, width - self._indent)))


class ListRow(MarkdownParagraph):
    """An item of a list that is one paragraph, or nothing yet."""

    def __init__(self, block: MarkdownBlock, symbol: str, text: Content) -> None:
        super().__init__(block._markdown, block._token)
        self.symbol = symbol
        self.set_content(text)

    def set_content(self, content: Content) -> None:
        self._content = content
        self.update(Hanging(self.symbol, content))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected of the text; with the symbol when it begins before the text does."""
        text = selection.extract(self._content.plain)
        begins = selection.start is None or selection.start == (0, 0)
        return (self.symbol if begins else "") + text, "\n"


class StreamBulletList(MarkdownBulletList):
    """A bullet list."""

    def compose(self) -> ComposeResult:
        for item in self._blocks:
            if isinstance(item, MarkdownListItem):
                yield row(item, item.bullet)
        self._blocks.clear()


class StreamOrderedList(MarkdownOrderedList):
    """A numbered list."""

    def compose(self) -> ComposeResult:
        items = [item for item in self._blocks if isinstance(item, MarkdownListItem)]
        for item, symbol in zip(items, numbers(items[0].bullet if items else "", len(items))):
            yield row(item, symbol)
        self._blocks.clear()


def row(item: MarkdownBlock, symbol: str) -> Widget:
    """The widget of one item: plain, or as Textual builds it."""
    text = _plain(item)
    if text is not None:
        return ListRow(item, symbol, text)
    bullet = MarkdownBullet()
    bullet.symbol = symbol
    return Horizontal(bullet, Vertical(*item._blocks))


def _plain(item: MarkdownBlock) -> Content | None:
    """The text of an item that is one paragraph at most; None for every other."""
    blocks = item._blocks
    if not blocks:
        return Content("")
    return blocks[0]._content if len(blocks) == 1 and type(blocks[0]) is MarkdownParagraph else None


def numbers(first: str, count: int) -> Iterator[str]:
    """The numbers in front of ordered items: counted up from the first, aligned to the right."""
    start = int(first) if first.isdigit() else 1
    width = len(f"{start + max(count, 1) - 1}. ")
    for number in range(start, start + count):
        yield f"{number}. ".rjust(width + 1)
