"""What tab makes of a command that is being written, and what is shown of it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tui.slash import COMMANDS, suggestions

_LISTED = 1000  # names of a folder that are looked at


@dataclass(frozen=True)
class Completion:
    """One way to go on: the whole text then, and what is shown of it."""

    text: str
    label: str
    about: str = ""


def completions(text: str, presets: Sequence[str] = (), tags: Sequence[str] = ()) -> list[Completion]:
    """What a command in the prompt may become; none for a message.

    Args:
        presets, tags: names that may follow `/preset` and `/tag`.
    """
    if found := suggestions(text):
        return [
            Completion(
                f"/{command.name}{' ' if command.argument else ''}",
                f"/{command.name} {command.argument}",
                command.title,
            )
            for command in found
        ]
    word, space, rest = text.partition(" ")
    if not space or "\n" in text or not text.startswith("/"):
        return []
    if word == "/attach":
        return _files(f"{word} ", rest)
    names: dict[str, Sequence[str]] = {"/preset": presets, "/tag": tags, "/untag": tags}
    names |= {f"/{command.name}": command.choices for command in COMMANDS if command.choices}
    wanted = rest.strip().casefold()
    return [
        Completion(f"{word} {name}", name)
        for name in names.get(word, ())
        if name.casefold().startswith(wanted) and name.casefold() != wanted
    ]


def common(found: Sequence[Completion], text: str) -> str:
    """What tab makes of `text`: as far as all files begin alike, else the first one."""
    if not found:
        return text
    if not text.startswith("/attach "):
        return found[0].text
    first, last = min(completion.text for completion in found), max(completion.text for completion in found)
    shared = first[: next((n for n, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))]
    return shared if len(shared) > len(text) else found[0].text


def _files(before: str, written: str) -> list[Completion]:
    """The files and folders whose path begins as it is written; hidden ones when a dot is."""
    head, _, begin = written.rpartition("/")
    shown = f"{head}/" if "/" in written else ""
    folder = Path(shown or ".").expanduser()
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir()) for entry, _ in zip(entries, range(_LISTED))]
    except OSError:
        return []
    begin = begin.casefold()
    fitting = [
        (name, is_folder)
        for name, is_folder in sorted(found, key=lambda entry: entry[0].casefold())
        if name.casefold().startswith(begin) and (begin or not name.startswith(".")) and name.isprintable()
    ]
    if [name for name, is_folder in fitting if not is_folder] == [begin] and len(fitting) == 1:
        return []
    ends = [f"{name}/" if is_folder else name for name, is_folder in fitting]
    return [Completion(f"{before}{shown}{end}", end) for end in ends if f"{shown}{end}" != written]
