"""Where the tokens of one forward stand in their text, and what they may see."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass

import mlx.core as mx

from qwen_mlx.models.cache import LayerCache


@dataclass(frozen=True)
class Texts:
    """Texts one after the other in the rows of a batch, as they are trained: no token sees another text.

    Padding is texts of one token.

    Attributes:
        positions: int32 (batch, length), of every token in its text.
        starts: int32 (batch, length), where in its row the text of a token begins.
    """

    positions: mx.array
    starts: mx.array

    @functools.cached_property
    def places(self) -> mx.array:
        """int32 (length,), where in its row a token is."""
        return mx.arange(self.starts.shape[1], dtype=mx.int32)

    @functools.cached_property
    def lengths(self) -> mx.array:
        """int32 (batch, length), of the text of every token."""
        rows = mx.arange(self.starts.shape[0])[:, None]
        ones = mx.ones(self.starts.shape, dtype=mx.int32)
        return mx.zeros(self.starts.shape, dtype=mx.int32).at[rows, self.starts].add(ones)[rows, self.starts]

    def before(self, distance: int) -> mx.array:
        """bool (batch, length): whether the token `distance` places before is of the same text."""
        return self.places - distance >= self.starts


@dataclass(frozen=True)
class Positions:
    """The same for all layers with one window.

    Attributes:
        offset: position of the first token, or int32 (batch,) for a left-padded batch.
        index: the same, padding counted.
        end: longest position plus one.
        mask: None (everything), "causal" (lower right), or bool (1 | batch, 1, length, keys), True is visible.
        real: bool (batch, length), False for padding; None where there is none.
        prompt: length, padding counted, of the prompt that the text began with; some families depend on it.
        reading: length of the prompt that is being read in pieces, or `end` when it is longer.
        padding: tokens of padding before each text of the batch, None where there is none.
        texts: what is in the rows where they hold several texts; all else is then said of whole rows, and there is
            neither a cache nor a mask.
    """

    offset: int | mx.array
    index: int
    end: int
    mask: str | mx.array | None
    real: mx.array | None
    prompt: int
    reading: int
    padding: tuple[int, ...] | None = None
    texts: Texts | None = None

    @functools.cached_property
    def offsets(self) -> mx.array:
        """`offset` as int32, (1,) or (batch,)."""
        return self.offset if isinstance(self.offset, mx.array) else mx.array([self.offset], dtype=mx.int32)

    @property
    def single(self) -> bool:
        """Whether this is one token of one text, or of texts of one length."""
        return isinstance(self.offset, int) and self.end - self.index == 1

    @functools.cached_property
    def shared(self) -> dict[Hashable, mx.array]:
        """What one layer computed of these positions and others need too."""
        return {}

    def places(self, length: int) -> mx.array:
        """Positions of `length` new tokens, to be broadcast to (batch, heads, length, head_dim); padding is counted."""
        if self.texts is not None:
            return self.texts.positions[:, None, :, None]
        return mx.arange(self.index, self.index + length)[:, None]


def of_texts(texts: Texts) -> Positions:
    """The `Positions` of rows with several texts."""
    length = texts.starts.shape[1]
    return Positions(0, 0, length, None, None, length, length, texts=texts)


def positions(length: int, cache: LayerCache | None, window: int | None) -> Positions:
    """The `Positions` of `length` new tokens on top of `cache`."""
    offset = 0 if cache is None else cache.offset
    first, last = (0, length) if cache is None else cache.visible(length)
    prompt = (0 if cache is None else cache.prompt) or last
    reading = max(last, 0 if cache is None else cache.reading)
    padding = None if cache is None else cache.left_padding
    narrow = window is not None and last - first > window
    if padding is None:
        mask: str | mx.array | None = None if length == 1 else "causal"
        if narrow:
            mask = _mask(offset, length, first, last, window)[None, None]
        return Positions(offset, offset, last, mask, None, prompt, reading)
    pads = mx.array(padding, dtype=mx.int32)
    keys = mx.arange(first, last)
    # A padded query sees itself, so that no row of the softmax is empty.
    visible = (keys[None, None] >= pads[:, None, None]) | _same(offset, length, first, last)
    visible = visible & _mask(offset, length, first, last, window)
    real = mx.arange(offset, offset + length)[None] >= pads[:, None]
    end = last - min(padding)
    return Positions(offset - pads, offset, end, visible[:, None], real, prompt, reading, tuple(padding))


def _mask(offset: int, length: int, first: int, last: int, window: int | None) -> mx.array:
    """bool (length, keys): key j is visible to query i iff `i - window < j <= i`."""
    queries = mx.arange(offset, offset + length)[:, None]
    keys = mx.arange(first, last)[None]
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)


def _same(offset: int, length: int, first: int, last: int) -> mx.array:
    return mx.arange(offset, offset + length)[:, None] == mx.arange(first, last)[None]
