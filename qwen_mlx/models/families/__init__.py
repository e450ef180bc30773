"""`config.json` -> `ModelSpec`, one small file per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qwen_mlx.errors import ConfigError, UnsupportedModel
from qwen_mlx.models.families import qwen, qwen2, qwen2_moe, qwen3, qwen3_moe, qwen3_next
from qwen_mlx.models.spec import ModelSpec

_READERS: dict[str, Callable[[Mapping[str, Any]], ModelSpec]] = {
    **{name: family.read_spec for family in (qwen, qwen2, qwen2_moe, qwen3, qwen3_moe) for name in family.MODEL_TYPES},
    **qwen3_next.READERS,
}
SUPPORTED = tuple(_READERS)
_WORDS = (("vl", "a vision model"), ("audio", "an audio model"), ("omni", "an audio and vision model"))


def read_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of any supported `config.json`.

    Raises:
        UnsupportedModel: `model_type` is another one; the message lists what is supported.
        ConfigError: a key is missing, damaged, or would change the numbers and is not understood.
    """
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(
            "config.json has no usable 'model_type'",
            expected="one of " + ", ".join(SUPPORTED),
            found=repr(model_type)[:60],
        )
    reader = _READERS.get(model_type)
    if reader is None:
        kind = next((f" ({text})" for word, text in _WORDS if word in model_type.split("_")), "")
        raise UnsupportedModel(
            f"models of type {model_type[:60]!r}{kind} are not supported yet",
            expected="one of " + ", ".join(SUPPORTED),
            hint="See `docs/architecture.md` for the families and their state.",
        )
    return reader(values)
