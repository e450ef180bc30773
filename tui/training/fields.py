"""The form of a new run: what can be filled in, and what it makes of a run's configuration. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "list", "lines", "choice", "flag"]
Config = Mapping[str, Mapping[str, Any]]

METHODS: tuple[tuple[str, str], ...] = (
    ("lora", "LoRA"),
    ("rslora", "rsLoRA"),
    ("dora", "DoRA"),
    ("qlora", "QLoRA"),
    ("full", "full"),
)
_OF_METHOD: dict[str, tuple[str, ...]] = {
    "lora": ('adapter.method="lora"', "adapter.rslora=false"),
    "rslora": ('adapter.method="lora"', "adapter.rslora=true"),
    "dora": ('adapter.method="dora"', "adapter.rslora=false"),
    "qlora": ('adapter.method="lora"', "adapter.rslora=false"),
    "full": ('adapter.method="full"',),
}
_QUANTIZED = 'model.quantize="small"'
ADAPTER_ONLY = ("adapter.rank", "adapter.alpha", "adapter.dropout", "adapter.targets")


@dataclass(frozen=True)
class Field:
    """One line of the form.

    Attributes:
        key: `section.key` of the configuration; "name", "preset", "method" and "more" are ours.
        label: what it is called; `help` says more, in a few words.
        kind: how its text is read.
        choices: of a "choice": value and word.
        optional: an empty one says nothing.
    """

    key: str
    label: str
    help: str
    kind: Kind = "text"
    choices: tuple[tuple[str, str], ...] = ()
    optional: bool = False

    @property
    def id(self) -> str:
        """For the widget."""
        return self.key.replace(".", "-")


GROUPS: tuple[tuple[str, tuple[Field, ...]], ...] = (
    (
        "What it learns from",
        (
            Field("data.train", "Data", "JSONL, JSON, CSV, Parquet, or a folder"),
            Field("data.valid", "Judged by", "a file, or the share kept back; 0 is none"),
            Field(
                *("data.loss_on", "Learn", "of a conversation", "choice"),
                (("assistant", "every answer"), ("last", "the last answer")),
            ),
            Field("data.max_len", "Longest example", "tokens; longer ones are cut", "whole"),
            Field(
                *("data.packing", "Packing", "several examples in a row", "flag"),
                (("true", "on"), ("false", "off")),
            ),
        ),
    ),
    (
        "Model and method",
        (
            Field("model.path", "Model", "what it is trained from"),
            Field("preset", "Preset", "sets what is below", "choice"),
            Field("method", "Method", "what is trained", "choice", METHODS),
            Field("adapter.rank", "Rank", "size of the change of a matrix", "whole"),
            Field("adapter.alpha", "Alpha", "its strength: alpha / rank", "number"),
            Field("adapter.targets", "Targets", "all-linear, or q_proj, v_proj …", "list"),
        ),
    ),
    (
        "How long and how fast",
        (
            Field("optim.lr", "Learning rate", "at its peak", "number"),
            Field("loop.epochs", "Epochs", "how often all is seen", "whole"),
            Field("loop.tokens_per_batch", "Tokens per batch", "computed at once: memory", "whole"),
            Field("loop.accumulate", "Batches per step", "of one update", "whole"),
        ),
    ),
    (
        "The run",
        (
            Field("name", "Name", "of its folder"),
            Field("log.samples", "Ask meanwhile", "a prompt, answered while it trains", "lines", optional=True),
            Field("more", "More", "section.key=value, with spaces between", optional=True),
        ),
    ),
)
FIELDS: tuple[Field, ...] = tuple(field for _, group in GROUPS for field in group)
BY_KEY: dict[str, Field] = {field.key: field for field in FIELDS}
_SAYS_NOTHING = ("train", "training", "data", "dataset")
_OURS = ("name", "preset", "method", "more")


def values_of(config: Config, keys: Sequence[str] | None = None) -> dict[str, str]:
    """What the fields say for a configuration: `section.key` -> text."""
    found: dict[str, str] = {}
    for field in FIELDS:
        section, _, name = field.key.partition(".")
        if name and name in config.get(section, {}) and (keys is None or field.key in keys):
            found[field.key] = _text(config[section][name], field.kind)
    return found


def _text(value: Any, kind: Kind) -> str:
    if kind in ("list", "lines"):
        return ", ".join(str(item) for item in value) if kind == "list" else " ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def method_of(config: Config) -> str:
    """The method field for a configuration."""
    adapter, model = config.get("adapter", {}), config.get("model", {})
    if adapter.get("method") == "lora":
        return "qlora" if model.get("quantize") else "rslora" if adapter.get("rslora") else "lora"
    return str(adapter.get("method", "lora"))


def change_of(field: Field, text: str) -> str | None:
    """`section.key=value` in TOML; None for a field that says nothing.

    What is no number where one should be becomes a string, so that whoever checks it says what is wrong.
    """
    text = text.strip()
    if field.key in _OURS or (field.optional and not text):
        return None
    return f"{field.key}={_toml(field, text)}"


def _toml(field: Field, text: str) -> str:
    if field.kind == "flag":
        return text
    if field.kind in ("whole", "number"):
        try:
            if field.kind == "whole":
                return str(int(text.replace(",", "").replace("_", "")))
            return repr(float(text.replace(",", ".")))
        except ValueError:
            return json.dumps(text, ensure_ascii=False)
    if field.kind == "list":
        return json.dumps([part for part in text.replace(",", " ").split() if part], ensure_ascii=False)
    if field.kind == "lines":
        return json.dumps([text], ensure_ascii=False)
    if field.key == "data.valid":
        try:
            return repr(float(text.replace(",", ".").removesuffix("%")) / (100 if text.endswith("%") else 1))
        except ValueError:
            pass
    if field.key in ("data.train", "data.valid"):
        text = str(Path(text).expanduser()) if text.startswith("~") else text
    return json.dumps(text, ensure_ascii=False)


def changes_of(values: Mapping[str, str]) -> list[str]:
    """All fields as changes of a configuration, the preset first and what is written under "more" last."""
    method = values.get("method", "lora")
    found = [f'preset="{values["preset"]}"'] if values.get("preset") else []
    found += _OF_METHOD.get(method, ())
    if method == "qlora":
        found.append(_QUANTIZED)
    for key, text in values.items():
        field = BY_KEY[key]
        if method == "full" and key in ADAPTER_ONLY:
            continue
        if (change := change_of(field, text)) is not None:
            found.append(change)
    return found + more_changes(values.get("more", ""))


def more_changes(text: str) -> list[str]:
    """`optim.name=lion loop.steps=20` as changes; a value with spaces needs quotes or brackets."""
    found: list[str] = []
    depth, quote, word = 0, "", ""
    for character in text.strip() + " ":
        if character == " " and not depth and not quote:
            if word:
                found.append(word)
            word = ""
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "[{") - (character in "]}")
        word += character
    return found + ([word.strip()] if word.strip() else [])


def name_for(data: str, model: str, method: str) -> str:
    """What a run is called that nobody named: `poems-qwen3-0.6b-lora`; of `poems/train.jsonl` as well."""
    path = Path(data)
    stem = path.name.partition(".")[0]
    if stem.lower() in _SAYS_NOTHING and path.parent.name:
        stem = path.parent.name
    tail = model.rstrip("/").rpartition("/")[2].lower()
    return "-".join(part for part in (stem, tail, method) if part) or "run"
