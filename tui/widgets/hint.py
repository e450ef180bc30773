"""The line of keys at the foot of a dialog; each of them is a button as well."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style

from tui.widgets.still import Still


class Hint(Still):
    """`Hint(("ctrl+g", "download", "get"), ("esc", "leave", "leave"))`: key, word, and the screen's action or ""."""

    def __init__(self, *keys: tuple[str, str, str]) -> None:
        super().__init__(classes="hint")
        self.keys = keys
        self.update(content_of(keys))

    def show(self, *keys: tuple[str, str, str]) -> None:
        """Other keys matter now."""
        if keys != self.keys:
            self.keys = keys
            self.update(content_of(keys))


def content_of(keys: tuple[tuple[str, str, str], ...]) -> Content:
    """Keys and words on one line, each a button where it has an action."""
    parts = []
    for key, word, action in keys:
        meta = Style.from_meta({"@click": f"screen.{action}"}) if action else Style()
        parts.append(Content.assemble((key, "bold"), f" {word}").stylize(meta))
    return Content(" · ").join(parts)
