"""Embedding and head that an adapter replaces as a whole, in models with tied embeddings and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.adapters.matrices import unpack
from qwen_mlx.models import Decoder
from qwen_mlx.models.spec import QuantizationSpec

EMBEDDING, HEAD = "embed_tokens", "lm_head"


class SplitEmbedding(nn.Module):
    """Embedding and head of a tied model of which only one was replaced, or both by different matrices."""

    def __init__(self, embedding: Any, head: Any) -> None:
        super().__init__()
        self.embedding, self.head = embedding, head

    def __call__(self, ids: mx.array) -> mx.array:
        """ids int (...) -> (..., dims)."""
        return self.embedding(ids)

    def as_linear(self, x: mx.array) -> mx.array:
        """x (..., dims) -> logits (..., vocab)."""
        return _as_head(self.head, x)


@dataclass(frozen=True)
class Ends:
    """The embedding and the head of a decoder as it came; the head None where the two are one."""

    embedding: Any
    head: Any

    @classmethod
    def of(cls, decoder: Decoder) -> Ends:
        return cls(decoder.embed_tokens, None if decoder.spec.tied else decoder.lm_head)


class Whole:
    """What an adapter has in their place, in float32; the same module twice where one matrix is both."""

    def __init__(self, embedding: nn.Embedding | None, head: nn.Embedding | nn.Linear | None) -> None:
        self.embedding, self.head = embedding, head

    @property
    def tied(self) -> bool:
        return self.embedding is not None and self.embedding is self.head

    def matrices(self) -> dict[str, mx.array]:
        """By "embed_tokens" and "lm_head"; one that is both is there once, as "embed_tokens"."""
        found = {EMBEDDING: self.embedding, HEAD: None if self.tied else self.head}
        return {name: module.weight for name, module in found.items() if module is not None}

    def set(self, matrices: Mapping[str, mx.array]) -> None:
        for name, matrix in matrices.items():
            module = self.embedding if name == EMBEDDING else self.head
            assert module is not None
            module.weight = matrix

    def freeze(self) -> None:
        for module in (self.embedding, self.head):
            if module is not None:
                module.freeze()


def copies(decoder: Decoder, ends: Ends, names: Sequence[str]) -> Whole:
    """Copies of the matrices that are to be trained, unpacked where they were packed."""
    if decoder.spec.tied:
        return given(dict.fromkeys((EMBEDDING, HEAD), dense(ends.embedding)) if names else {})
    return given({name: dense(ends.embedding if name == EMBEDDING else ends.head) for name in names})


def given(matrices: Mapping[str, mx.array]) -> Whole:
    """Modules with these matrices (vocab, dims), by "embed_tokens" and "lm_head"; the same array twice is one."""
    for matrix in matrices.values():
        mx.eval(matrix)
    embedding = None if EMBEDDING not in matrices else _embedding(matrices[EMBEDDING])
    if HEAD not in matrices:
        return Whole(embedding, None)
    if matrices.get(EMBEDDING) is matrices[HEAD]:
        return Whole(embedding, embedding)
    return Whole(embedding, _linear(matrices[HEAD]))


def use(decoder: Decoder, ends: Ends, counting: Sequence[tuple[Whole, float]]) -> None:
    """Give `decoder` the embedding and head of a mix; its own where no adapter has any."""
    embeddings = [(own.embedding, weight) for own, weight in counting if own.embedding is not None]
    heads = [(own.head, weight) for own, weight in counting if own.head is not None]
    if not decoder.spec.tied:
        _put(decoder, EMBEDDING, _combined(ends.embedding, embeddings, _embedding))
        _put(decoder, HEAD, _combined(ends.head, heads, _linear))
        return
    embedding = _combined(ends.embedding, embeddings, _embedding)
    if all(own.embedding is own.head for own, _ in counting):
        _put(decoder, EMBEDDING, embedding)
    else:
        _put(decoder, EMBEDDING, SplitEmbedding(embedding, _combined(ends.embedding, heads, _linear)))


def _put(decoder: Decoder, name: str, module: Any) -> None:
    if decoder[name] is not module:
        module.train(decoder.training)
        setattr(decoder, name, module)


def _combined(base: Any, counting: Sequence[tuple[Any, float]], make: Any) -> Any:
    """`W + sum_i w_i (W_i - W)`; one adapter alone, and the base, are used as they are."""
    if not counting:
        return base
    if len(counting) == 1 and counting[0][1] == 1:
        return counting[0][0]
    own = dense(base)
    total = own
    for module, weight in counting:
        total = total + weight * (module.weight - own)
    mx.eval(total)
    module = make(total)
    module.freeze()
    return module


def dense(module: Any) -> mx.array:
    """The matrix of an embedding or head in float32, a copy."""
    form = None
    if "scales" in module:
        form = QuantizationSpec(module.bits, module.group_size, module.mode)
    return unpack((module.weight, module.get("scales"), module.get("biases")), form) + 0


def _embedding(matrix: mx.array) -> nn.Embedding:
    module = nn.Embedding(1, 1)
    module.weight = matrix
    return module


def _linear(matrix: mx.array) -> nn.Linear:
    module = nn.Linear(1, 1, bias=False)
    module.weight = matrix
    return module


def _as_head(module: Any, x: mx.array) -> mx.array:
    return module.as_linear(x) if hasattr(module, "as_linear") else module(x)
