"""What a person chose once and expects to find again: a small JSON file.

A value that cannot be meant counts as not chosen. A file that cannot be read at all is put aside under another name,
and `problem` says so: nothing of it is lost, and the app starts all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from qwen_mlx.events import KVBits
from qwen_mlx.paths import atomic_write
from qwen_mlx.ranges import OPTION_RANGES

ThinkingChoice = Literal["auto", "on", "off"]
ListWidth = Literal["narrow", "wide"]
Announce = Literal["off", "bell", "message"]
_LONGEST = 1_000_000  # bytes; what we write has a few hundred


class Preferences:
    """The file of preferences. It is a convenience: one that cannot be read or written is no error.

    Attributes:
        problem: what was wrong with the file when it was read, as a sentence; None as a rule.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._values = self._read()

    # ------------------------------------------------------------------------------------------- how it looks

    @property
    def theme(self) -> str | None:
        """The name of the theme that was chosen."""
        return self._name("theme")

    @property
    def list_shown(self) -> Literal[False] | None:
        """Whether the conversations are shown; None means: where there is room."""
        return False if self._values.get("list_shown") is False else None

    @property
    def list_width(self) -> ListWidth:
        """How wide the list of conversations is."""
        return "wide" if self._values.get("list_width") == "wide" else "narrow"

    @property
    def text(self) -> bool:
        """Whether the app shows text only: no frames, no symbols, one thing below the other."""
        return self._flag("text", False)

    # ------------------------------------------------------------------------------------------- model and answers

    @property
    def model(self) -> str | None:
        """The name of the model that was used last."""
        return self._name("model")

    @property
    def default_model(self) -> str | None:
        """The name of the model to begin with; None means the one that was used last."""
        return self._name("default_model")

    @property
    def kv_bits(self) -> KVBits | None:
        """As in `LoadModel`."""
        value = self._values.get("kv_bits")
        return cast(KVBits, value) if value in get_args(KVBits) else None

    @property
    def thinking(self) -> ThinkingChoice:
        """Whether a model that can do both thinks first."""
        value = self._values.get("thinking")
        return cast(ThinkingChoice, value) if value in get_args(ThinkingChoice) else "auto"

    @property
    def thinking_open(self) -> bool:
        """Whether thinking is shown unfolded."""
        return self._flag("thinking_open", False)

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of `SamplingOptions` that new conversations begin with."""
        value = self._values.get("sampling")
        if not isinstance(value, Mapping):
            return {}
        return {name: number for name, number in value.items() if _allowed(name, number)}

    @property
    def announce(self) -> Announce:
        """How the end of a long answer is announced: "bell" rings, "message" asks the desktop to show one as well."""
        value = self._values.get("announce")
        return cast(Announce, value) if value in get_args(Announce) else "off"

    @property
    def titles(self) -> bool:
        """Whether the model gives conversations their titles."""
        return self._flag("titles", True)

    # ------------------------------------------------------------------------------------------- what was going on

    @property
    def offer_dismissed(self) -> bool:
        """Whether the offer of a first real model was turned down."""
        return self._flag("offer_dismissed", False)

    @property
    def download(self) -> str | None:
        """The name of a model whose download was under way when the app ended."""
        return self._name("download")

    # ------------------------------------------------------------------------------------------------- changing

    def choose(self, **changes: Any) -> None:
        """Take new values, None to forget one; they count at once, and are on disk after the next `save`."""
        with self._lock:
            self._values = _without_none(self._values | changes)
            self._changed |= set(changes)

    def save(self) -> None:
        """Write what was chosen; another window may have changed something else meanwhile. Blocks for the disk."""
        with self._lock:
            changes = {name: self._values.get(name) for name in self._changed}
            self._changed = set()
            before = self._read()
            self._values = _without_none(before | changes)
            if self._values == before:
                return
            try:
                with atomic_write(self.path, private=True) as file:
                    json.dump(self._values, file, indent=1)
            except OSError:
                return

    def keep(self, **changes: Any) -> None:
        """`choose` and `save`."""
        self.choose(**changes)
        self.save()

    # ------------------------------------------------------------------------------------------------- inside

    def _name(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) and value else None

    def _flag(self, key: str, usual: bool) -> bool:
        value = self._values.get(key)
        return value if isinstance(value, bool) else usual

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                data = file.read(_LONGEST + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self.problem = f"The settings in {self.path} cannot be read: {error.strerror or error}."
            return {}
        try:
            if len(data) > _LONGEST:
                raise ValueError("it is too long")
            values = json.loads(data.decode("utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
        except (ValueError, RecursionError) as error:
            self._put_aside(error)
            return {}
        return values

    def _put_aside(self, error: Exception) -> None:
        kept = self.path.with_name(f"{self.path.stem}.broken{self.path.suffix}")
        number = 2
        while kept.exists():
            kept, number = kept.with_name(f"{self.path.stem}.broken-{number}{self.path.suffix}"), number + 1
        self.problem = f"The settings in {self.path} could not be read ({str(error)[:80]})"
        with contextlib.suppress(OSError):
            os.replace(self.path, kept)
            self.problem += f"; they are kept as {kept.name}"
        self.problem += ". The app begins with the usual ones."


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _allowed(name: object, number: object) -> bool:
    """Whether a value of the file is one that a person could have typed for this option."""
    if name not in OPTION_RANGES or isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    try:
        OPTION_RANGES[str(name)].parse(number)
    except ValueError:
        return False
    return True
