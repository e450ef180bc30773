"""What is learnt from which rows: the `[data]` section of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from qwen_mlx.errors import UsageError

FormatName = Literal["messages", "sharegpt", "prompt-completion", "alpaca", "text"]


@dataclass(frozen=True)
class DataConfig:
    """Attributes:
    train: a file (JSONL, JSON, CSV, TSV, Parquet, Arrow; also with .gz), or a Hugging Face dataset folder.
    valid: a file or folder of examples to judge by, or the share of `train` that is kept back for it; 0 is none.
    format: how rows are written; "auto" finds out by looking at all of them.
    max_len: tokens of the longest example; longer ones are cut at their end.
    packing: several examples in one row, none of which sees another.
    loss_on: learn every answer of a conversation, or the last one only.
    history: what an answer follows. "keep" is one example per row, in which earlier answers keep their thinking;
        "chat" repeats exactly what a chat would show, so that a row becomes several examples where the template
        rewrites what is past (Qwen3 leaves out its thinking). Where it does not, both are the same.
    empty_think: the empty `<think>` block of an answer without thinking: "mask" where the prompt of a chat with
        thinking switched off has it already, or "learn" that it is written.
    wrap: whether plain prompts and completions become turns of a chat; "auto" does so for chat models, and leaves
        them as they are for base models.
    split: the split of a dataset folder to learn from; `valid_split` that to judge by, if `valid` is a folder.
    """

    train: str
    valid: str | float = 0.0
    format: Literal["auto", "messages", "sharegpt", "prompt-completion", "alpaca", "text"] = "auto"
    max_len: int = 2048
    packing: bool = True
    loss_on: Literal["assistant", "last"] = "assistant"
    history: Literal["keep", "chat"] = "keep"
    empty_think: Literal["mask", "learn"] = "mask"
    wrap: Literal["auto", "chat", "plain"] = "auto"
    split: str = "train"
    valid_split: str = "validation"

    def __post_init__(self) -> None:
        """Raises `UsageError` for values that cannot be meant."""
        choices = {
            "format": ("auto", "messages", "sharegpt", "prompt-completion", "alpaca", "text"),
            "loss_on": ("assistant", "last"),
            "history": ("keep", "chat"),
            "empty_think": ("mask", "learn"),
            "wrap": ("auto", "chat", "plain"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"data.{name} cannot be {value!r}", expected=", ".join(known))
        if isinstance(self.max_len, bool) or not isinstance(self.max_len, int) or self.max_len < 2:
            raise UsageError("data.max_len cannot be used", expected="2 tokens or more", found=repr(self.max_len))
        if not self.train:
            raise UsageError("data.train is empty", expected="a file or a folder")
        share = self.valid
        if not isinstance(share, str) and not (math.isfinite(share) and 0 <= share < 1):
            raise UsageError(
                "data.valid cannot be used", expected="a file, or a share from 0 to below 1", found=repr(share)
            )
