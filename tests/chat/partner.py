"""A tiny random model with a real tokenizer and Qwen3's template, and a way to put words into its mouth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from qwen_mlx import load
from qwen_mlx.chat import session as module
from qwen_mlx.chat.session import ChatSession
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.events import PrefillProgress
from qwen_mlx.generation.generate import Finished, Timing, Token
from tests.models import tiny

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>"]
TEXTS = ["hello world, how are you today?", "think about numbers 1 2 3", "你好，世界。", "user assistant system\n\n"]


def make_folder(folder: Path, config: dict[str, Any] = tiny.QWEN3, **changes: Any) -> Path:
    """A checkpoint folder with everything a chat needs."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(CONTROL)
    tokenizer.add_tokens(MARKERS)
    config = config | {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 2048} | changes
    tiny.save(folder, config, hub_tensors(tiny.decoder(config)))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    return folder


def make_session(folder: Path, **options: Any) -> ChatSession:
    return ChatSession(load(make_folder(folder, **options)))


def script(monkeypatch: pytest.MonkeyPatch, session: ChatSession, text: str, end: bool = True) -> list[dict[str, Any]]:
    """The next replies consist of `text`, whatever the model would say; returns the arguments it is called with."""
    ids = session.model.tokenizer.encode(text + ("<|im_end|>" if end else ""))
    calls: list[dict[str, Any]] = []

    def scripted(decoder: Any, prompt: Any, params: Any, **options: Any) -> Iterator[Any]:
        calls.append({"prompt": prompt, "params": params, **options})
        yield PrefillProgress(len(prompt), len(prompt), 0)
        for i in ids[: params.max_tokens]:
            if options["cancel"].cancelled:
                yield Finished("cancelled", Timing(0.5, 0.5, 1.0))
                return
            yield Token(i)
        yield Finished("stop" if end else "length", Timing(0.5, 0.5, 1.0))

    monkeypatch.setattr(module, "generate", scripted)
    return calls
