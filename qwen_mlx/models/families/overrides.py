"""Changes to a `config.json` that a person asks for when a model is loaded; the file itself stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qwen_mlx.errors import UsageError
from qwen_mlx.models.families.config import MAX_FACTOR, MAX_SIZE
from qwen_mlx.models.families.qwen3_next import WRAPPER

FORMS = "none, linear:2, dynamic:2, yarn:4, or yarn:4:32768 with the length the model was trained on"

_FORM = re.compile(r"(linear|dynamic|yarn):(\d{1,9}(?:\.\d{1,9})?)(?::(\d{1,9}))?")
# Of a wrapped config, what stands beside the text model. Every other key belongs into it.
_WRAPPER = WRAPPER | {"architectures", "model_type", "quantization", "quantization_config"}
# What a scaling does not replace: how a head is rotated at all.
_KEPT = ("rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved")
# Published as 32,768 tokens of text and 8,192 for the reply; the cards scale from the first number.
_TRAINED = {40960: 32768}
_MISSING_LENGTH = 32768  # as `read_rope` has it


@dataclass(frozen=True)
class RopeScaling:
    """How positions beyond the training length are to be treated.

    Attributes:
        type: as in `config.json`; "none" takes a scaling away.
        factor: how many times the training length.
        original: the training length, None to find it in the model's configuration.
    """

    type: Literal["none", "linear", "dynamic", "yarn"]
    factor: float = 1.0
    original: int | None = None

    def __str__(self) -> str:
        """The form that `parse_rope_scaling` reads."""
        if self.type == "none":
            return "none"
        text = f"{self.type}:{self.factor:.9f}".rstrip("0").rstrip(".")
        return text if self.original is None else f"{text}:{self.original}"


def parse_rope_scaling(text: str) -> RopeScaling:
    """Read `yarn:4`, `yarn:4:32768`, `linear:2`, `dynamic:2` or `none`.

    Raises:
        UsageError: anything else, with the forms that are possible.
    """
    word = text.strip().lower()
    if word == "none":
        return RopeScaling("none")
    match = _FORM.fullmatch(word) if word.isascii() else None
    if match is None:
        raise UsageError(f"the rope scaling {text[:40]!r} cannot be read", expected=FORMS)
    kind, factor, original = match[1], float(match[2]), None if match[3] is None else int(match[3])
    if not 1 <= factor <= MAX_FACTOR:
        raise UsageError(f"the rope scaling {text[:40]!r} has no possible factor", expected=f"1 to {MAX_FACTOR}")
    if original is not None and not 1 <= original <= MAX_SIZE:
        raise UsageError(f"the rope scaling {text[:40]!r} has no possible length", expected=f"1 to {MAX_SIZE} tokens")
    return RopeScaling(kind, factor, original)  # type: ignore[arg-type]


def merge(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `changes` over it, key by key; a value of None is JSON's null.

    Where the text model is wrapped (Qwen3.5), keys of the text model go into `text_config`, and a `text_config` among
    the changes is merged too.
    """
    inner = config.get("text_config")
    if not isinstance(inner, Mapping) or not isinstance(changes.get("text_config", {}), Mapping):
        return {**config, **changes}
    merged, text = dict(config), dict(inner)
    for key, value in changes.items():
        if key == "text_config":
            text.update(value)
            continue
        beside = key in _WRAPPER or key in config
        if beside:
            merged[key] = value
        if key in text or not beside:  # in both, the wrapper has the last word
            text[key] = value
    return {**merged, "text_config": text}


def scale_rope(config: Mapping[str, Any], scaling: RopeScaling) -> dict[str, Any]:
    """`config` with another rope scaling, as the model cards advise to write it.

    `max_position_embeddings` becomes factor times the training length where it is smaller. The training length is
    the one given, else the one an earlier scaling names, else that of the model.

    Raises:
        UsageError: the model has another way to long texts, or none could be this long.
    """
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) else config
    if config.get("model_type") == "qwen":
        raise UsageError(
            "the first Qwen stretches its rope by itself and takes no other scaling",
            hint="Leave --rope-scaling away.",
        )
    if text.get("dual_chunk_attention_config") and scaling.type != "none":
        raise UsageError(
            f"this model reads long texts by Dual Chunk Attention, which does not go with {scaling.type}",
            expected="no rope scaling, or none",
        )
    key = "rope_parameters" if text.get("rope_parameters") and not text.get("rope_scaling") else "rope_scaling"
    present = text.get(key)
    present = present if isinstance(present, Mapping) else {}
    native, trained = _lengths(text, present)
    original = scaling.original or trained
    rope = {name: present[name] for name in _KEPT if name in present}
    changes: dict[str, Any] = {}
    if text.get("original_max_position_embeddings") is not None:
        changes["original_max_position_embeddings"] = None  # it would go before the one in the scaling
    if scaling.type == "none":
        return merge(config, {**changes, key: {"rope_type": "default", **rope}, "max_position_embeddings": native})
    longest = int(scaling.factor * original)
    if longest > MAX_SIZE:
        raise UsageError(
            f"the rope scaling {scaling} of a model for {original} tokens is too long",
            expected=f"at most {MAX_SIZE} tokens",
            found=str(longest),
        )
    factor = int(scaling.factor) if scaling.factor.is_integer() else scaling.factor
    added = {"rope_type": scaling.type, "factor": factor, "original_max_position_embeddings": original}
    # "dynamic" begins to stretch at max_position_embeddings, so that cannot be the new length too.
    changes[key] = {**rope, **added}
    changes["max_position_embeddings"] = original if scaling.type == "dynamic" else max(native, longest)
    return merge(config, changes)


def _lengths(text: Mapping[str, Any], rope: Mapping[str, Any]) -> tuple[int, int]:
    """The longest text without any scaling, and the length the model was trained on.

    Values that make no sense are left for the reader of the configuration, which names them.
    """
    longest = _whole(text.get("max_position_embeddings")) or _MISSING_LENGTH
    named = _whole(text.get("original_max_position_embeddings")) or _whole(rope.get("original_max_position_embeddings"))
    if named is None:
        return longest, _TRAINED.get(longest, longest)
    factor = rope.get("factor")
    if isinstance(factor, (int, float)) and longest < named * factor:
        return longest, named  # the length was left as it was when the scaling was added
    return named, named


def _whole(value: Any) -> int | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= MAX_SIZE
    return int(value) if number else None
