"""Presets: named sets of a system prompt, sampling parameters and a thinking setting.

A few are built in. A person's own are in a small private JSON file, which is written whole or not at all; one that
cannot be read is put aside under another name, and nothing of it is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_mlx.errors import HistoryError, UsageError
from qwen_mlx.paths import atomic_write
from qwen_mlx.ranges import OPTION_RANGES
from tui.conductor import Settings

MAX_NAME = 40
MAX_OWN = 200
_THINKING = ("auto", "on", "off")


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
        params: fields of `SamplingOptions` by name, and "thinking" ("auto", "on", "off"), where they are set.
        own: the person made it.
        about: what it is for, in a few words.
    """

    name: str
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    own: bool = True
    about: str = ""

    def settings(self, before: Settings) -> Settings:
        """A conversation's settings with this preset: what a preset knows nothing of stays, such as tools."""
        kept = {
            name: value for name, value in before.params.items() if name not in (*OPTION_RANGES, "thinking", "preset")
        }
        named = {} if self == DEFAULT else {"preset": self.name}
        return Settings(self.system, {**kept, **self.params, **named})


DEFAULT = Preset("Default", own=False, about="the model as it comes")
BUILT_IN: tuple[Preset, ...] = (
    DEFAULT,
    Preset(
        "Precise",
        "Answer briefly and exactly. Say so when you do not know something, or are not sure.",
        {"temperature": 0.3, "top_p": 0.9},
        own=False,
        about="short, exact answers",
    ),
    Preset(
        "Creative",
        "Write vividly and with variety. Avoid clichés and surprise the reader.",
        {"temperature": 1.1, "top_p": 0.98, "min_p": 0.05},
        own=False,
        about="stories, names, ideas",
    ),
    Preset(
        "Translator",
        "You are a translator. Translate every message into English; if it is English, into Chinese. If the person "
        "names another language, use that one. Keep tone and layout. Answer with the translation alone.",
        {"temperature": 0.3, "thinking": "off"},
        own=False,
        about="into English, or from English into Chinese",
    ),
    Preset(
        "Programmer",
        "You are an experienced programmer. Answer with code that is complete and correct, explain only what is not "
        "obvious, and name the assumptions you make.",
        {"temperature": 0.6, "top_p": 0.95},
        own=False,
        about="code first, few words",
    ),
)


def preset_of(name: str, settings: Settings) -> Preset:
    """What is set now, under a name of the person's.

    Raises:
        UsageError: the name is empty, too long, or that of a built-in preset.
    """
    name = clean_name(name)
    params = {key: value for key, value in settings.params.items() if key in OPTION_RANGES}
    if settings.params.get("thinking") in _THINKING:
        params["thinking"] = settings.params["thinking"]
    return Preset(name, settings.system, params)


def clean_name(name: str) -> str:
    """A name as it is kept. Raises as `preset_of`."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if not name:
        raise UsageError("a preset needs a name")
    if len(name) > MAX_NAME:
        raise UsageError("this name is too long", expected=f"at most {MAX_NAME} characters", found=str(len(name)))
    if any(preset.name.casefold() == name.casefold() for preset in BUILT_IN):
        raise UsageError(f"“{name}” is built in", hint="Choose another name for your own.")
    return name


class Presets:
    """The built-in presets and those of the file `path`. Every call blocks for the disk as long as a small file does.

    Another window may change the file at any time: each change reads it again first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Preset]:
        """The built-in ones, then the person's own by name."""
        return [*BUILT_IN, *sorted(self._own(), key=lambda preset: preset.name.casefold())]

    def find(self, name: str) -> Preset:
        """By name, in any case; the beginning is enough where only one has it.

        Raises:
            UsageError: there is none, or there are several.
        """
        wanted, known = name.strip().casefold(), self.all()
        for preset in known:
            if preset.name.casefold() == wanted:
                return preset
        near = [preset for preset in known if wanted and preset.name.casefold().startswith(wanted)]
        if len(near) == 1:
            return near[0]
        names = ", ".join(preset.name for preset in near or known)
        raise UsageError(f"there is no preset “{name.strip()}”", expected=f"one of {names}")

    def save(self, preset: Preset) -> bool:
        """Keep one of the person's; whether it took the place of another. Raises `HistoryError`, `UsageError`."""
        replaced = False

        def change(own: dict[str, Preset]) -> None:
            nonlocal replaced
            replaced = own.pop(preset.name.casefold(), None) is not None
            if len(own) >= MAX_OWN:
                raise UsageError(f"there are {MAX_OWN} presets already", hint="Delete one first.")
            own[preset.name.casefold()] = preset

        self._change(change)
        return replaced

    def rename(self, before: str, after: str) -> Preset:
        """Give one of the person's another name. Raises `UsageError` if that is taken, `HistoryError`."""
        after = clean_name(after)
        renamed: Preset | None = None

        def change(own: dict[str, Preset]) -> None:
            nonlocal renamed
            preset = own.pop(before.casefold(), None)
            if preset is None:
                raise UsageError(f"there is no preset “{before}” of yours")
            if after.casefold() in own:
                raise UsageError(f"there is a preset “{after}” already")
            renamed = Preset(after, preset.system, preset.params)
            own[after.casefold()] = renamed

        self._change(change)
        assert renamed is not None
        return renamed

    def delete(self, name: str) -> Preset:
        """Delete one of the person's; it is returned, so that it can be saved again. Raises as `rename`."""
        gone: Preset | None = None

        def change(own: dict[str, Preset]) -> None:
            nonlocal gone
            gone = own.pop(name.casefold(), None)
            if gone is None:
                raise UsageError(f"“{name}” is built in, and stays")

        self._change(change)
        assert gone is not None
        return gone

    def _change(self, change: Callable[[dict[str, Preset]], None]) -> None:
        own = {preset.name.casefold(): preset for preset in self._own()}
        change(own)
        values = [
            {"name": preset.name, "system": preset.system, "params": dict(preset.params)} for preset in own.values()
        ]
        try:
            with atomic_write(self.path, private=True) as file:
                json.dump({"presets": values}, file, ensure_ascii=False, indent=1)
        except OSError as error:
            raise HistoryError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _own(self) -> list[Preset]:
        try:
            value = json.loads(self.path.read_bytes().decode("utf-8"))
            entries = value["presets"]
            if not isinstance(entries, list):
                raise TypeError("no list")
        except FileNotFoundError:
            return []
        except OSError:
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            self._put_aside()
            return []
        return [preset for entry in entries if (preset := _read(entry)) is not None]

    def _put_aside(self) -> None:
        number, kept = 2, self.path.with_name("presets.broken.json")
        while kept.exists():
            number, kept = number + 1, self.path.with_name(f"presets.broken-{number}.json")
        with contextlib.suppress(OSError):
            os.replace(self.path, kept)


def _read(entry: Any) -> Preset | None:
    """One entry of the file; values that cannot be meant are left out."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return None
    try:
        name = clean_name(entry["name"])
    except UsageError:
        return None
    system, given = entry.get("system"), entry.get("params")
    params: dict[str, Any] = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        if key == "thinking" and value in _THINKING:
            params[key] = value
        elif key in OPTION_RANGES:
            with contextlib.suppress(ValueError):
                params[key] = OPTION_RANGES[key].parse(value)
    return Preset(name, system if isinstance(system, str) and system else None, params)
