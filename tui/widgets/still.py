"""A text of the interface itself: selecting the conversation with the mouse does not take it along."""

from __future__ import annotations

from textual.widgets import Static


class Still(Static):
    """A `Static` that is never part of a selection."""

    ALLOW_SELECT = False
