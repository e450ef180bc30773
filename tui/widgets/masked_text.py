"""Examples as a model will learn them: what it must write is coloured and underlined, the rest is only read."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import VerticalScroll
from textual.content import Content

from qwen_mlx.events import ShownRow
from tui.sanitize import sanitize
from tui.widgets.still import Still
from tui.wording import tokens

_LONGEST = 4000  # characters of one example
_NEWLINE = "⏎\n"


class MaskedText(VerticalScroll):
    """Scrolls; `show` puts other examples in."""

    can_focus = True
    COMPONENT_CLASSES = {"masked--learnt", "masked--read", "masked--place", "masked--control"}
    DEFAULT_CSS = "MaskedText > Still { height: auto; width: 100%; }"

    def compose(self):  # type: ignore[no-untyped-def]
        yield Still("", markup=False)

    def show(self, rows: Sequence[ShownRow], empty: str = "") -> None:
        """Show these examples, or say why there is none."""
        body = self.query_one(Still)
        if not rows:
            body.update(Content.styled(empty, self.get_visual_style("masked--place")))
            return
        body.update(Content("\n\n").join([self._example(row) for row in rows]))
        self.scroll_home(animate=False)

    def _example(self, row: ShownRow) -> Content:
        learnt = sum(1 for _, weight in row.pieces if weight)
        place = f"{row.source} · {tokens(row.tokens)}, {learnt:,} learnt"
        parts: list[Content] = [Content.styled(place, self.get_visual_style("masked--place")), Content("\n")]
        length = 0
        for text, weight in joined(row.pieces):
            shown = marked_newlines(sanitize(text))
            length += len(shown)
            name = "learnt" if weight else "control" if _is_control(text) else "read"
            if weight and self.app.has_class("-text"):
                shown = f"[[{shown}]]"  # no colours and no underlines to be seen
            parts.append(Content.styled(shown[:_LONGEST], self.get_visual_style(f"masked--{name}")))
            if weight not in (0.0, 1.0):
                parts.append(Content.styled(f"×{weight:g}", self.get_visual_style("masked--place")))
            if length > _LONGEST:
                parts.append(Content.styled(" …", self.get_visual_style("masked--place")))
                break
        return Content.assemble(*parts).rstrip("\n")


def joined(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbouring tokens of one weight as one piece; control tokens that are only read stay alone."""
    found: list[tuple[str, float]] = []
    for text, weight in pieces:
        alone = not weight and (_is_control(text) or (bool(found) and _is_control(found[-1][0])))
        if found and found[-1][1] == weight and not alone:
            found[-1] = (found[-1][0] + text, weight)
        else:
            found.append((text, weight))
    return [(text, weight) for text, weight in found if text]


def marked_newlines(text: str) -> str:
    """Line breaks as signs, because they are tokens like others; the break itself stays."""
    return text.replace("\n", _NEWLINE)


def _is_control(text: str) -> bool:
    return text.startswith("<|") and text.endswith("|>")
