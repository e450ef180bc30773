"""The numbers that decide how the next token is chosen: complete, checked, and nothing else.

`SamplingOptions` of `qwen_mlx.events` is what a person asked for, with gaps; `SamplingParams` is what
generation follows, without gaps. `qwen_mlx.generation.defaults` makes the one from the other.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

from qwen_mlx.errors import UsageError
from qwen_mlx.ranges import RANGES

# Colder than this, the second best token has no chance unless it is tied, and float32 is close to overflow.
COLDEST = 1e-5


@dataclass(frozen=True)
class SamplingParams:
    """How one reply is sampled. The defaults here are neutral: they leave the model's distribution as it is.

    Attributes:
        temperature: divides the logits; 0 (anything below 1e-5) is greedy.
        top_k: keep the k most likely tokens; 0 is off, 1 is greedy.
        top_p: keep the smallest set of most likely tokens with at least this probability together; 1 is off.
        min_p: keep tokens at least this fraction as likely as the most likely one; 0 is off.
        repetition_penalty: of tokens in the prompt and the output, positive logits are divided and negative
            ones multiplied by it; 1 is off.
        presence_penalty: subtracted from the logit of every token that is in the output; 0 is off.
        frequency_penalty: subtracted once per occurrence in the output; 0 is off.
        seed: of the random numbers, 64 bits.
        max_tokens: longest reply, in tokens.
        stop: strings that end the reply.

    Raises:
        UsageError: a value that is not of its type or outside its range (`RANGES`).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, allowed.parse(value))
            except ValueError:
                raise UsageError(
                    f"{name} cannot be {reprlib.repr(value)}", expected=str(allowed), found=_describe(value)
                ) from None
        object.__setattr__(self, "stop", _stop_strings(self.stop))

    @property
    def greedy(self) -> bool:
        """True if the most likely token is always taken."""
        return self.temperature < COLDEST or self.top_k == 1


def _stop_strings(stop: Any) -> tuple[str, ...]:
    # A bare string is a sequence of strings too: "END" would stop at every E.
    if not isinstance(stop, (tuple, list)):
        raise UsageError(f"stop cannot be {reprlib.repr(stop)}", expected="a tuple of strings", found=_describe(stop))
    for text in stop:
        if not isinstance(text, str) or not text:
            raise UsageError(
                f"stop cannot hold {reprlib.repr(text)}", expected="non-empty strings", found=_describe(text)
            )
    return tuple(stop)


def _describe(value: Any) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"
