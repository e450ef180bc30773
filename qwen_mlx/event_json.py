"""Events as plain values: `type` first, the fields named as in `qwen_mlx.events`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from qwen_mlx.events import Event, ReplyStats


def type_name(event: Event) -> str:
    """`AnswerDelta` -> "answer_delta"."""
    return kind_name(type(event))


def kind_name(kind: type) -> str:
    """The same of a class of events."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def as_dictionary(event: Event) -> dict[str, Any]:
    """The event as plain dictionaries, lists and numbers; `ReplyStats` also carries its two speeds."""
    return {"type": type_name(event), **_plain(event)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, ReplyStats):
            fields.update(prefill_speed=value.prefill_speed, decode_speed=value.decode_speed)
        return fields
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return value
