"""What one question of the demo data is, and how the held-out share is chosen.

Held-out membership is a pure function of a key (an operand pair, a word, a phrasing), so that training data, evaluation
and the tests agree about it without sharing any state.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

Item = TypeVar("Item")

HELD_OUT_PERCENT = 6
"""Share of operand pairs, words and phrasings that training never sees."""


@dataclass(frozen=True)
class Task:
    """One question with its short thinking trace and its answer."""

    kind: str
    question: str
    thinking: str
    answer: str
    language: str = "en"
    facts: dict[str, object] = field(default_factory=dict)
    """What an independent check needs: operands, the word, the expected command ..."""

    def asking(self, question: str) -> Task:
        """The same task under another wording."""
        return replace(self, question=question)


def bucket(key: str) -> int:
    """A stable number 0..99 of a key (Python's own hash changes from process to process)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100


def is_held_out(key: str) -> bool:
    """Whether a key belongs to the part kept for evaluation."""
    return bucket(key) < HELD_OUT_PERCENT


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One item, all equally likely."""
    return items[rng.randrange(len(items))]


def phrases(table: str) -> list[str]:
    """The entries of a table of wordings, separated by '|'."""
    return [" ".join(entry.split()) for entry in table.split("|")]


def split_phrasings(items: Sequence[str], held_out: bool) -> list[str]:
    """The phrasings of one side of the split; a list too short to spare any is wholly for training."""
    kept = [item for item in items if is_held_out("phrasing:" + item) == held_out]
    return kept or list(items)


def roughen(rng: random.Random, text: str) -> str:
    """Type the question the way people do: sometimes lower case, no final mark, a please."""
    if rng.random() < 0.22 and text[:1].isupper() and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    if rng.random() < 0.06:
        text = text.lower()
    if rng.random() < 0.15 and text[-1:] in "?.!？。！":
        text = text[:-1]
    if text.isascii() and text[-1:].isalpha() and rng.random() < 0.04:
        text += " please"
    return text
