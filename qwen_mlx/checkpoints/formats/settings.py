"""The `quantization_config` of a model, read so that every key is used, known to be harmless, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.errors import ConfigError

_COMMON = frozenset({"quant_method", "quantization_status"})


@dataclass(frozen=True)
class GroupQuantization:
    """Settings that formats with integer codes have in common.

    Attributes:
        bits: per code.
        group: inputs that share a scale; -1 for all inputs of an output.
    """

    bits: int
    group: int


class Settings:
    """A configuration while it is read: remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any], form: str, where: str = "quantization_config") -> None:
        self._values = values
        self._form = form
        self._where = where
        self._used: set[str] = set(_COMMON)

    def first(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of `keys` that is there and not null; all spellings count as used."""
        self._used.update(keys)
        return next((self._values[key] for key in keys if self._values.get(key) is not None), default)

    def integer(self, *keys: str, default: int, low: int = 1, high: int = 1 << 24) -> int:
        value = self.first(*keys, default=default)
        if type(value) is not int or not low <= value <= high:
            raise self.error(keys[0], f"a whole number from {low} to {high}", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.first(key, default=default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, or nothing."""
        value = self.first(key, default=[])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.error(key, "a list of module names", value)
        return tuple(value)

    def expect(self, key: str, *allowed: Any, default: Any) -> None:
        """Raise unless the value is one of `allowed`."""
        value = self.first(key, default=default)
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise self.error(key, " or ".join(repr(one) for one in allowed), value)

    def error(self, key: str, expected: str, found: Any) -> ConfigError:
        return ConfigError(
            f"config.json: {key!r} in {self._where} is not usable for {self._form}",
            expected=expected,
            found=quote(repr(found), 80)[1:-1],
            hint="Take the original model, or a version in another format.",
        )

    def finish(self, harmless: Iterable[str] = ()) -> None:
        """Refuse every key that was not used and could therefore change the numbers."""
        known = self._used | set(harmless)
        for key, value in self._values.items():
            if key not in known and value is not None:
                raise ConfigError(
                    f"config.json: {quote(key)} in {self._where} is not known for {self._form} and could change the "
                    "numbers",
                    found=quote(repr(value), 80)[1:-1],
                    hint="If the key is harmless, remove it from config.json.",
                )
