"""Telling a person who looks elsewhere that an answer is there."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tui.sanitize import sanitize
from tui.wording import shorten

LONG_SECONDS = 10.0  # of waiting, before which nobody looked away
_WIDTH = 80


def sequence(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """What asks a terminal for a message of the desktop (OSC 9), which those that cannot ignore."""
    clean = shorten(sanitize(text), _WIDTH)
    osc = f"\x1b]9;{clean}\a"
    if environment.get("TMUX"):
        return "\x1bPtmux;" + osc.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return osc
