"""Tiny byte-level tokenizers in Qwen's style, trained on the spot, and the files of a model folder."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "The quick brown fox doesn't jump over 12 lazy dogs.\n\nHello hello world, world!",
    "你好，世界。今天天气很好。你好你好世界世界",
    "naïve café résumé — “quoted” text 😀😀 👩‍👩‍👧 🇨🇳",
    "def main(x):\n    return x + 1\n<tag>value</tag> <think> </think>",
] * 4
# id relative to the vocabulary's end -> token, special
ADDED = (
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<think>", False),
    ("</think>", False),
    ("<tool_call>", False),
)


@functools.cache
def _trained() -> str:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def description(*, gap: int = 0) -> dict[str, Any]:
    """A whole `tokenizer.json`; `gap` ids stay unused between the vocabulary and the added tokens."""
    value = json.loads(_trained())
    first = len(value["model"]["vocab"]) + gap
    value["added_tokens"] = [
        {"id": first + index, "content": content, "special": special, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for index, (content, special) in enumerate(ADDED)
    ]
    return value


def write_tokenizer_json(folder: Path, value: dict[str, Any] | None = None) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(value or description()), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}), encoding="utf-8")
    return folder


def write_vocabulary(folder: Path, *, gap: int = 0) -> Path:
    """The same tokenizer as `vocab.json`, `merges.txt` and `tokenizer_config.json`."""
    value = description(gap=gap)
    merges = [" ".join(pair) for pair in value["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(value["model"]["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in value["added_tokens"]}
    settings = {"added_tokens_decoder": decoder, "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
