"""Short messages at the corner of the screen."""

from __future__ import annotations

from textual.widget import Widget

from qwen_mlx.errors import QwenError
from tui.wording import sentence


def complain(widget: Widget, error: QwenError) -> None:
    """Say what went wrong, when it is about nothing that is on screen."""
    widget.notify(sentence(error), severity="error", timeout=12, markup=False)
