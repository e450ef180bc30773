"""How a model wants to be sampled when nobody says otherwise, and which tokens end its replies."""

from __future__ import annotations

import re
import reprlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from qwen_mlx.errors import ConfigError
from qwen_mlx.events import SamplingOptions
from qwen_mlx.generation.parameters import SamplingParams
from qwen_mlx.ranges import RANGES

# End of a ChatML turn, and of a document. Configs of chat models often name only one, some the wrong one.
END_TOKENS = ("<|im_end|>", "<|endoftext|>")

_FILE_KEYS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
}
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


class KnowsTokens(Protocol):
    """The part of a tokenizer that is needed here."""

    def token_id(self, text: str, /) -> int | None:
        """The id of a token that is exactly `text`, if there is one."""


@dataclass(frozen=True)
class Recommended:
    """One row of the model cards' advice."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_p: float = 0.0
    max_tokens: int = 16384


def recommended(family: str, *, thinking: bool, name: str = "") -> Recommended:
    """The authors' advice for a model, from the Qwen model cards and documentation.

    Args:
        family: `model_type` of the config; "_moe", "_text", "_vl" and the like make no difference.
        thinking: whether this reply thinks first.
        name: of the model or its repository; tells apart what `family` does not (Coder, QwQ, small sizes).
    """
    name = name.rstrip("/").rsplit("/", 1)[-1].lower()
    if family.startswith("qwen3_5"):
        temperature, top_p = (1.0, 0.95) if thinking else (0.7, 0.8)
        return Recommended(temperature, top_p, 20, presence_penalty=1.5, max_tokens=32768)
    if family == "qwen":
        return Recommended(1.0, 0.8, 0, max_tokens=2048)
    if family.startswith("qwen2"):
        # QwQ is a qwen2 that always thinks.
        if thinking or "qwq" in name:
            return Recommended(0.6, 0.95, 40, max_tokens=32768)
        small = re.search(r"(?<![\d.])(0\.5|1\.5|1\.8)b(?![a-z])", name) is not None
        return Recommended(0.7, 0.8, 20, repetition_penalty=1.1 if small else 1.05, max_tokens=8192)
    if "coder" in name:
        return Recommended(0.7, 0.8, 20, repetition_penalty=1.05)
    if thinking:
        # The 2507 models advise 81,920 for the hardest tasks and 32,768 for the rest.
        return Recommended(0.6, 0.95, 20, max_tokens=32768 if "2507" in name else 38912)
    return Recommended(0.7, 0.8, 20)


def resolve(
    options: SamplingOptions,
    *,
    generation_config: Mapping[str, Any],
    family: str,
    thinking: bool,
    name: str = "",
) -> SamplingParams:
    """Fill the gaps of `options`: from the model's `generation_config.json`, then from `recommended`.

    A `do_sample` of false in the file means greedy. Greedy without further words is a plain argmax: penalties
    that neither the person nor the file asked for stay off. Without a seed one is drawn; it is in the result,
    so that a reply can be repeated. What the person set is not read from the file, so a damaged file can be
    overruled.

    Args:
        options: what the person asked for.
        generation_config: content of the file, empty if there is none.
        family, thinking, name: as for `recommended`.

    Raises:
        UsageError: an option outside its range.
        ConfigError: a value of the file that is not of its type or outside its range.
    """
    if not isinstance(generation_config, Mapping):
        raise _bad_file("the whole file", generation_config, "an object")
    advice = recommended(family, thinking=thinking, name=name)
    values: dict[str, Any] = {}
    for field in RANGES:
        if (asked := getattr(options, field)) is not None:
            values[field] = asked
        elif (written := _from_file(generation_config, field)) is not None:
            values[field] = written
    if "temperature" not in values:
        values["temperature"] = advice.temperature
    if "seed" not in values:
        values["seed"] = secrets.randbits(32)
    # The options are not checked yet: SamplingParams does that and has the better message.
    greedy = SamplingParams(**values).greedy
    for field in RANGES:
        if not (greedy and field in _PENALTIES):
            values.setdefault(field, getattr(advice, field, None))
    return SamplingParams(**values, stop=options.stop)


def stop_ids(generation_config: Mapping[str, Any], config: Mapping[str, Any], tokenizer: KnowsTokens) -> frozenset[int]:
    """Ids of the tokens that end a reply.

    All that `eos_token_id` names in `generation_config.json`, `config.json` and its `text_config`, and those
    of `<|im_end|>` and `<|endoftext|>` if the tokenizer has them.

    Raises:
        ConfigError: an `eos_token_id` that is neither an id nor a list of ids.
    """
    found: set[int] = set()
    sources = {"generation_config.json": generation_config, "config.json": config}
    if isinstance(config, Mapping) and config.get("text_config") is not None:
        sources["text_config of config.json"] = config["text_config"]
    for place, source in sources.items():
        if not isinstance(source, Mapping):
            raise ConfigError(f"{place} cannot be read", expected="an object", found=reprlib.repr(source))
        found.update(_ids(source.get("eos_token_id"), place))
    for text in END_TOKENS:
        if (known := tokenizer.token_id(text)) is not None:
            found.add(known)
    return frozenset(found)


def _ids(value: Any, place: str) -> list[int]:
    if value is None:
        return []
    ids = value if isinstance(value, (list, tuple)) else [value]
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, int) or one < 0:
            raise ConfigError(
                f"eos_token_id of {place} cannot be followed",
                expected="a token id or a list of token ids",
                found=reprlib.repr(value),
                hint="Mend the file, or download the model again.",
            )
    return list(ids)


def _from_file(generation_config: Mapping[str, Any], field: str) -> Any:
    """The value of the file for a field of `SamplingParams`, None if it says nothing."""
    if field == "temperature":
        sampled = generation_config.get("do_sample")
        if sampled is not None and not isinstance(sampled, bool):
            raise _bad_file("do_sample", sampled, "true or false")
        if sampled is False:
            return 0.0
    key = _FILE_KEYS.get(field)
    value = generation_config.get(key) if key else None
    if value is None:
        return None
    try:
        return RANGES[field].parse(value)
    except ValueError as error:
        raise _bad_file(str(key), value, str(error)) from None


def _bad_file(key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(
        f"{key} of generation_config.json cannot be followed",
        expected=expected,
        found=f"{reprlib.repr(value)} ({type(value).__name__})",
        hint="Mend the file, or set the option yourself.",
    )
