"""How a text reaches the clipboard of the machine a person sits at.

Locally the system's own tool is the surest way (macOS Terminal ignores the terminal sequence). Over ssh that tool
would fill the clipboard of the wrong machine, so the terminal is asked (OSC 52), wrapped for tmux if need be.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping

_SECONDS = 2.0


def tool() -> list[str] | None:
    """The clipboard command of this machine, see `find_tool`."""
    return find_tool(sys.platform, os.environ, shutil.which)


def find_tool(platform: str, environment: Mapping[str, str], which: Callable[[str], str | None]) -> list[str] | None:
    """The command that takes the text on its standard input; None when there is none, or over ssh."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return None
    candidates: list[list[str]] = []
    if platform == "darwin":
        candidates.append(["pbcopy"])
    if environment.get("WAYLAND_DISPLAY"):
        candidates.append(["wl-copy"])
    if environment.get("DISPLAY"):
        candidates += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return next((command for command in candidates if which(command[0])), None)


def run_tool(command: list[str], text: str) -> bool:
    """Give `text` to a command of `tool`; False when it failed. Blocks: call it off the event loop."""
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def sequence(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The terminal sequence that sets the clipboard."""
    osc = f"\x1b]52;c;{base64.b64encode(text.encode('utf-8', 'replace')).decode()}\a"
    if environment.get("TMUX"):
        return "\x1bPtmux;" + osc.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return osc
