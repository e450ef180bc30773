"""Reading what a person types into the line mode: one message, one line or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from qwen_mlx import paths
from qwen_mlx.cli.terminal import Terminal

ReadLine = Callable[[str], str]

_FENCE = '"""'
_LINES_KEPT = 1000


def read_message(read: ReadLine, prompt: str = "> ", more: str = ". ") -> str:
    """One message: a line; lines that end with a backslash, and the next; or everything between two triple quotes.

    Args:
        read: asks for one line, like `input`.
        prompt: before the first line.
        more: before the others.

    Raises:
        EOFError, KeyboardInterrupt: from `read`; what was entered so far is dropped.
    """
    line = read(prompt)
    if line.lstrip().startswith(_FENCE):
        lines = [line.lstrip()[len(_FENCE) :]]
        while not lines[-1].rstrip().endswith(_FENCE):
            lines.append(read(more))
        lines[-1] = lines[-1].rstrip()[: -len(_FENCE)]
        return "\n".join(lines).strip("\n")
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read(more))
    return "\n".join(lines)


@contextlib.contextmanager
def readline_input(out: Terminal) -> Iterator[ReadLine]:
    """`input` with editing and lines remembered from earlier, where Python has readline; else plain `input`."""
    try:
        import readline
    except ImportError:
        yield input
        return
    file = paths.data_home() / "lines"
    _recall(readline, file)
    try:
        yield lambda prompt: input(out.bold(prompt))
    finally:
        _remember(readline, file)


def _recall(readline: ModuleType, file: Path) -> None:
    # Line by line, not by readline itself: libedit, which macOS has in its place, writes another format.
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in file.read_text(encoding="utf-8").splitlines():
            readline.add_history(line)


def _remember(readline: ModuleType, file: Path) -> None:
    count = readline.get_current_history_length()
    numbers = range(max(1, count - _LINES_KEPT + 1), count + 1)
    lines = [line for number in numbers if (line := readline.get_history_item(number))]
    if not lines:
        return
    # Whoever cannot write there still wants to chat. The file is private: atomic_write makes it so.
    with contextlib.suppress(OSError), paths.atomic_write(file, private=True) as target:
        target.write("\n".join(lines) + "\n")
