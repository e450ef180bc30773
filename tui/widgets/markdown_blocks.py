"""Code blocks, which would be slow to stream as Textual has them."""

from __future__ import annotations

from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.highlight import Token as Kind
from textual.widgets._markdown import MarkdownBlock, MarkdownFence

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
