"""The two Markdown blocks that would be slow to stream as Textual has them: code and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.highlight import Token as Kind
from textual.widgets._markdown import (
    MarkdownBlock,
    MarkdownFence,
    MarkdownTable,
    MarkdownTableCellContents,
    MarkdownTableContent,
)

if TYPE_CHECKING:
    from markdown_it.token import Token
    from textual.widgets import Markdown

OPEN_LIMIT = 1500  # characters; highlighting all of an open block at every append costs the square of its length
CLOSED_LIMIT = 60_000  # beyond this even one pass is a stall that a person sees


TAB = 4


class QuietHighlight(HighlightTheme):
    """Few colours, all of the theme."""

    STYLES = {
        Kind.Comment: "$foreground 50% italic",
        Kind.Keyword: "$primary",
        Kind.Keyword.Constant: "$warning",
        Kind.Literal.String: "$success",
        Kind.Literal.String.Doc: "$success 80%",
        Kind.Literal.Number: "$warning",
        Kind.Name.Builtin: "$primary 85%",
        Kind.Name.Class: "bold",
        Kind.Name.Decorator: "$primary 85%",
        Kind.Name.Function: "bold",
        Kind.Name.Tag: "$primary",
        Kind.Operator.Word: "$primary",
        Kind.Generic.Deleted: "$error",
        Kind.Generic.Inserted: "$success",
        Kind.Generic.Heading: "bold",
        Kind.Generic.Subheading: "bold",
    }


class StreamFence(MarkdownFence):
    """A code block that is highlighted while it is short, and once more when it is whole."""

    _whole = False

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return cls._colour(code, language, OPEN_LIMIT)

    @classmethod
    def _colour(cls, code: str, language: str, limit: int) -> Content:
        name = language.split()[0].lower() if language.split() else "text"
        if len(code) > limit or name in ("text", "latex"):
            return Content(code.expandtabs(TAB))
        return highlight(code, language=name, theme=QuietHighlight, tab_size=TAB)

    def complete(self) -> None:
        """No more code will come."""
        if not self._whole and OPEN_LIMIT < len(self.code) <= CLOSED_LIMIT:
            self._highlighted_code = self._colour(self.code, self.lexer, CLOSED_LIMIT)
            self.set_content(self._highlighted_code)
        self._whole = True

    def notify_style_update(self) -> None:
        # The colours are variables of the theme, so a new theme needs no new highlighting.
        MarkdownBlock.notify_style_update(self)


class StreamTable(MarkdownTable):
    """A table that grows by its new rows only."""

    def __init__(self, markdown: Markdown, token: Token, *arguments: object, **options: object) -> None:
        super().__init__(markdown, token, *arguments, **options)

    async def grow(self, newer: MarkdownTable) -> bool:
        """Take over the rows of `newer`, which was parsed from more text; False when it is not a continuation."""
        headers, rows = newer._get_headers_and_rows()
        contents = self.query(MarkdownTableContent)
        if not contents or headers != self._headers or len(rows) < len(self._rows):
            return False
        content = contents.first()
        cells = list(content.query(MarkdownTableCellContents))
        width, mounted = len(headers), len(self._rows)
        if len(cells) != width * (mounted + 1) or any(len(row) != width for row in rows):
            return False
        # Only the last mounted row can have changed: a row is final once its line has ended.
        for cell, text in zip(cells[-width:] if mounted else [], rows[mounted - 1] if mounted else []):
            cell.update(text)
        await content.mount_all(
            MarkdownTableCellContents(text, classes=f"row{number} cell")
            for number, row in enumerate(rows[mounted:], mounted + 1)
            for text in row
        )
        self._rows = content.rows = rows
        content.last_row = len(rows)
        return True
