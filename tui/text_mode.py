"""The app as text only, for screen readers, braille lines and plain terminals; and the app without colours.

Style sheets take frames and columns away (`.-text`); what is left of symbols, in an answer perhaps, is written in
plain characters of the same width by a filter that sees every line before the terminal does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Input, OptionList

CLASS = "-text"
_PAIRS = {
    "─━┄┅┈┉╌╍═╴╶╸╺╼╾▬": "-",
    "│┃┆┇┊┋╎╏║╵╷╹╻╽╿": "|",
    "▁▂▃▄▅▆▇█▉▊▋▌▍▎▏▐░▒▓▔▕▖▗▘▙▚▛▜▝▞▟": " ",
    "●◉▰■": "*",
    "○◌◐◑◍▱□": "o",
    "◆◇": " ",
    "▸▶❯›": ">",
    "◂◀‹": "<",
    "▾▼": "v",
    "▴▲": "^",
    "✓✔": "+",
    "✗✘✕": "x",
    "★✎": "*",
    "•⁃‣·": "-",
    "…": ".",
}
# The rest of the box drawing characters are corners and crossings.
_TABLE = dict.fromkeys(range(9472, 9600), "+")
_TABLE |= dict.fromkeys(range(10240, 10496), " ")  # braille, of which spinners are made
_TABLE |= {ord(symbol): plain for symbols, plain in _PAIRS.items() for symbol in symbols}


def plain(text: str) -> str:
    """`text` without frames and symbols, in as many cells."""
    return text if text.isascii() else text.translate(_TABLE)


class PlainText(LineFilter):
    """Writes every line in plain characters."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]


class WithoutColour(LineFilter):
    """Leaves bold, underlined and reversed, and no colour at all, not even grey."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(text, _colourless(style) if style else None, control) for text, style, control in segments]


@lru_cache(2048)
def _colourless(style: Style) -> Style:
    return style.without_color + Style(dim=False)


def focus_name(screen: Screen[Any]) -> str:
    """What has the focus, in words; "" for nothing."""
    from tui.widgets.message import UserMessage
    from tui.widgets.prompt import Prompt
    from tui.widgets.selectable import SelectableMessage
    from tui.widgets.sidebar import ConversationList
    from tui.widgets.thinking import ThinkingHeader

    focused = screen.focused
    if isinstance(focused, Prompt):
        return "prompt"
    if isinstance(focused, ConversationList):
        return "list of conversations"
    if isinstance(focused, SelectableMessage):
        siblings = focused.parent.children if focused.parent is not None else ()
        messages = [child for child in siblings if isinstance(child, SelectableMessage)]
        whose = "yours" if isinstance(focused, UserMessage) else "an answer"
        return f"message {messages.index(focused) + 1} of {len(messages)}, {whose}"
    if isinstance(focused, ThinkingHeader):
        block = focused.parent
        return f"thinking, {'open' if getattr(block, 'unfolded', False) else 'folded'}, enter changes it"
    if isinstance(focused, OptionList):
        return "a choice"
    if isinstance(focused, Input):
        return "a field"
    return ""
