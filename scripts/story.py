#!/usr/bin/env python
"""The whole story in a real terminal: the app is started in tmux, and used as a person would, with the demo model.

    scripts/story.py              # says what it did, and how long it took
    scripts/story.py --show       # and shows the screen after every step
    scripts/story.py --size 80x24

First run, a question, thinking, folding, editing (a branch), other versions, search, settings, export, quitting, and
the second start, where everything is found again. It needs tmux and the demo model; it keeps to a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = float(os.environ.get("PATIENCE", "60"))


class Failed(Exception):
    """The screen never showed what it should."""


class Terminal:
    """One tmux server with one window, in which the app runs."""

    def __init__(self, folder: Path, width: int, height: int, show: bool) -> None:
        self._socket = str(folder / "tmux.sock")
        self._folder = folder
        self._size = (width, height)
        self._show = show
        self.steps: list[tuple[str, float]] = []

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def start(self) -> None:
        """Start the app; its data stay from one start to the next."""
        own = {"QWEN_MLX_HOME": "data", "QWEN_MLX_CACHE": "cache", "HF_HUB_CACHE": "hub", "HOME": "."}
        settings = [f"{name}={shlex.quote(str((self._folder / place).absolute()))}" for name, place in own.items()]
        settings += [f"PYTHONPATH={shlex.quote(str(ROOT))}", "TEXTUAL_ANIMATIONS=none", "QWEN_MLX_MODEL="]
        program = f"{shlex.quote(sys.executable)} -m qwen_mlx.cli.main"
        line = f"cd {shlex.quote(str(self._folder))}; env {' '.join(settings)} {program}"
        width, height = self._size
        self.tmux("new-session", "-d", "-s", "story", "-x", str(width), "-y", str(height), f"sh -c {shlex.quote(line)}")

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "story")

    @property
    def runs(self) -> bool:
        return "story" in self.tmux("list-sessions")

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.tmux("send-keys", "-t", "story", key)

    def write(self, text: str) -> None:
        self.tmux("send-keys", "-t", "story", "-l", text)

    def until(self, what: str, true: Callable[[str], object]) -> str:
        """Wait for the screen to be so; the screen then."""
        began = time.monotonic()
        while True:
            screen = self.screen()
            if true(screen):
                self.steps.append((what, time.monotonic() - began))
                if self._show:
                    print(f"\n===== {what}\n{screen}")
                return screen
            if time.monotonic() - began > PATIENCE:
                raise Failed(f"{what}: the screen never showed it\n{screen}")
            time.sleep(0.05)

    def end(self) -> None:
        self.tmux("kill-server")


def tell(terminal: Terminal, folder: Path) -> None:
    """The story. Raises `Failed`."""
    see = terminal.until
    terminal.start()
    see("the first run welcomes, and the demo model is loaded", lambda s: "Try one of these" in s and "Ready" in s)
    terminal.write("What is 27 + 48?")
    terminal.keys("Enter")
    see("a question is answered", lambda s: "75" in s and "Ready" in s)
    terminal.write("/think on")
    terminal.keys("Enter")
    see("thinking is on", lambda s: "thinking on" in s)
    terminal.write("What is 12 + 30?")
    terminal.keys("Enter")
    see("it thinks first, in one line", lambda s: "▸ Thought" in s and "42" in s and "Ready" in s)
    terminal.keys("C-o")
    see("the thinking unfolds", lambda s: "▾ Thought" in s)
    terminal.keys("C-o")
    see("and folds", lambda s: "▸ Thought" in s)
    terminal.keys("C-Up", "Up", "e")
    see("the question is in the prompt", lambda s: "Editing" in s and "❯ What is 12 + 30?" in s)
    terminal.keys("C-u")
    see("and taken out", lambda s: "❯ Ask anything" in s)
    terminal.write("What is 20 + 30?")
    terminal.keys("Enter")
    see("which makes a branch", lambda s: "50" in s and "2/2" in s and "Ready" in s)
    terminal.keys("C-Up", "Up", "[")
    see("the version before is still there", lambda s: "1/2" in s and "42" in s)
    terminal.keys("Escape", "C-n")
    see("a new conversation", lambda s: "Try one of these" in s)
    terminal.keys("C-s")
    see("search opens", lambda s: "Search all conversations" in s)
    terminal.write("20 + 30")
    see("and finds what was said on the other branch", lambda s: "What is 20 + 30?" in s)
    terminal.keys("Enter")
    see("which is opened there", lambda s: "2/2" in s and "50" in s)
    terminal.keys("Escape", "F3")
    see("the settings", lambda s: "How it looks" in s)
    terminal.keys("Right")
    see("a theme is chosen", lambda s: "qwen-light" in s)
    terminal.keys("Escape")
    see("back in the conversation", lambda s: "How it looks" not in s)
    terminal.write("/export md")
    terminal.keys("Enter")
    see("it is exported", lambda s: "Exported to" in s)
    terminal.keys("C-q")
    see("the app is left", lambda s: not terminal.runs)
    (exported,) = folder.glob("*.md")
    if "What is 20 + 30?" not in exported.read_text("utf-8"):
        raise Failed(f"{exported} has not got the branch that was shown")
    terminal.start()
    see("the second start shows the list", lambda s: "What is 27 + 48?" in s and "Ready" in s)
    terminal.keys("C-s")
    see("search opens again", lambda s: "Search all conversations" in s)
    terminal.write("27")
    see("and finds the first question", lambda s: s.count("27 + 48") >= 2)
    terminal.keys("Enter")
    see("the conversation is as it was", lambda s: "Search all conversations" not in s and "27 + 48 = 75" in s)
    terminal.keys("C-q")
    see("the end", lambda s: not terminal.runs)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="show the screen after every step")
    parser.add_argument("--size", default="120x40", help="columns x lines (default: 120x40)")
    options = parser.parse_args()
    if shutil.which("tmux") is None:
        print("tmux is not installed", file=sys.stderr)
        return 2
    width, height = (int(part) for part in options.size.split("x"))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        terminal = Terminal(Path(name), width, height, options.show)
        try:
            tell(terminal, Path(name))
        except Failed as problem:
            print(problem, file=sys.stderr)
            return 1
        finally:
            terminal.end()
    for what, seconds in terminal.steps:
        print(f"{seconds:6.2f} s  {what}")
    print(f"{time.monotonic() - began:6.2f} s  in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
