"""What a person chose once and expects to find again: a small JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwen_mlx.paths import atomic_write


class Preferences:
    """The file of preferences. It is a convenience: one that cannot be read or written is no error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = self._read()

    @property
    def theme(self) -> str | None:
        """The name of the theme that was chosen."""
        value = self._values.get("theme")
        return value if isinstance(value, str) else None

    @property
    def model(self) -> str | None:
        """The name of the model that was used last."""
        value = self._values.get("model")
        return value if isinstance(value, str) and value else None

    @property
    def list_shown(self) -> bool | None:
        """Whether the conversations are shown; None leaves it to the width of the terminal."""
        value = self._values.get("list_shown")
        return value if isinstance(value, bool) else None

    def keep(self, **changes: Any) -> None:
        """Write what changed; another window may have changed something else meanwhile."""
        values = self._read() | changes
        if values == self._values:
            return
        self._values = values
        try:
            with atomic_write(self.path, private=True) as file:
                json.dump(values, file, indent=1)
        except OSError:
            return

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}
