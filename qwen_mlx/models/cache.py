"""KV caches: what attention has computed of a text, in the order of the text.

All follow one protocol, which is also mlx-lm's: `offset`, `state`, `trim`, `nbytes`. What attention needs besides is
`Store`: it writes the heads of new tokens and attends over all, in the form the cache keeps them. Positions in here
count padding: token i of row b of a left-padded batch has position `i - left_padding[b]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx

from qwen_mlx.models.blockwise import KeyGroup, attend_blockwise
from qwen_mlx.models.heads import NewHeads, Rotation

if TYPE_CHECKING:
    from qwen_mlx.models.quantized_cache import QuantizedKVCache

FIRST_CAPACITY = 256  # tokens


class Store(Protocol):
    """Where attention leaves the keys and values of a text, and reads them: caches, and `Passing` for none."""

    def write(self, heads: NewHeads, rotations: Sequence[Rotation]) -> mx.array:
        """Take the keys and values of new tokens; returns their queries (batch, heads, length, head_dim), rotated."""

    def append(self, keys: mx.array, values: mx.array) -> Any:
        """Take keys, already rotated, and values (batch, kv_heads, length, head_dim)."""

    def attend(self, q: mx.array, scale: float, mask: str | mx.array | None, end: int | None = None) -> mx.array:
        """Softmax attention of the tokens written last, q (batch, heads, length, head_dim) -> the same shape.

        Args:
            scale: what the scores are multiplied with.
            mask: as `Positions.mask`; nothing else than what it says is visible.
            end: attend as if the text ended before this token; `q` then are the last tokens before it.
        """

    def attend_regions(self, q: mx.array, scale: float, borders: tuple[int, int]) -> mx.array:
        """Attention of one new token, given as three queries (batch, heads, 3, head_dim) -> (batch, heads, 1, ...).

        They meet the keys before the first border, between the two, and from the second on, all in one softmax.
        """

    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """Keys and values of the tokens first to last - 1, (batch, kv_heads, last - first, head_dim)."""


class _Plain(ABC):
    """The part of a `Store` that keeps keys and values as they are."""

    @abstractmethod
    def append(self, keys: mx.array, values: mx.array) -> None: ...
    @abstractmethod
    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]: ...
    @abstractmethod
    def visible_now(self) -> tuple[mx.array, mx.array]:
        """Keys and values that the tokens written last may attend to."""

    def write(self, heads: NewHeads, rotations: Sequence[Rotation]) -> mx.array:
        q, k = heads.rotated(rotations)
        self.append(k, heads.v.swapaxes(1, 2))
        return q

    def attend(self, q: mx.array, scale: float, mask: str | mx.array | None, end: int | None = None) -> mx.array:
        keys, values = self.visible_now() if end is None else self.block(0, end, q.dtype)
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=scale, mask=mask)

    def attend_regions(self, q: mx.array, scale: float, borders: tuple[int, int]) -> mx.array:
        before, near = borders
        end = self.visible_now()[0].shape[2]
        ranges = ((0, before), (before, near), (near, end))
        groups = [KeyGroup(q[:, :, i : i + 1], first, last) for i, (first, last) in enumerate(ranges)]
        return attend_blockwise(groups, self.block, scale)


class Passing(_Plain):
    """A `Store` for one forward without a cache: nothing is kept, and everything can be differentiated."""

    def append(self, keys: mx.array, values: mx.array) -> None:
        self._keys, self._values = keys, values

    def visible_now(self) -> tuple[mx.array, mx.array]:
        return self._keys, self._values

    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        return self._keys[:, :, first:last], self._values[:, :, first:last]


class LayerCache(Protocol):
    """What every layer's cache can do, whatever it holds."""

    offset: int
    left_padding: list[int] | None
    prompt: int  # length of the prompt the text began with, 0 while there is none
    reading: int  # length of the prompt that is being read, 0 when nobody said

    @property
    def trims_freely(self) -> bool:
        """Whether `trim` can go back to any earlier token; if not, going back needs a snapshot."""

    @property
    def state(self) -> tuple[mx.array, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def announce(self, prompt: int) -> None:
        """A prompt of `prompt` tokens, those held included, will be read, perhaps in pieces."""

    def reserve(self, tokens: int) -> None: ...
    def can_trim_to(self, offset: int) -> bool: ...
    def trim(self, count: int) -> int: ...
    def visible(self, length: int) -> tuple[int, int]: ...
    def snapshot(self) -> Any: ...
    def restore(self, snapshot: Any) -> None: ...


class TokenCache(ABC):
    """Something for each token of a text, all of them (`window` None) or at least the last `window`.

    Buffers (batch, kv_heads, capacity, size) are written in place and grow by half, so that n tokens cost O(n)
    copying in all. With a window the tail moves to the front when a buffer is full.
    """

    def __init__(self, window: int | None = None, left_padding: Sequence[int] | None = None) -> None:
        self.window = window
        self.left_padding = list(left_padding) if left_padding is not None and any(left_padding) else None
        self.buffers: tuple[mx.array, ...] = ()
        self.offset = 0  # tokens seen so far
        self.start = 0  # token that the first row of the buffers holds
        self.prompt = 0
        self.reading = 0
        self._wish = 0
        self._shown = (0, 0)  # rows of the buffers that the tokens written last may attend to

    @abstractmethod
    def write(self, heads: NewHeads, rotations: Sequence[Rotation]) -> mx.array: ...
    @abstractmethod
    def append(self, keys: mx.array, values: mx.array) -> None: ...
    @abstractmethod
    def attend(self, q: mx.array, scale: float, mask: str | mx.array | None, end: int | None = None) -> mx.array: ...
    @abstractmethod
    def attend_regions(self, q: mx.array, scale: float, borders: tuple[int, int]) -> mx.array: ...
    @abstractmethod
    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]: ...

    def announce(self, prompt: int) -> None:
        self.reading = prompt
        if self.offset == 0:
            self.prompt = prompt

    def reserve(self, tokens: int) -> None:
        """Make the next allocation large enough for `tokens` in all; a hint, nothing is allocated now."""
        self._wish = tokens

    @property
    def _capacity(self) -> int:
        return self.buffers[0].shape[2] if self.buffers else 0

    def _make_room(self, like: Sequence[mx.array]) -> None:
        """After this the buffers have room for `like[0].shape[2]` more tokens."""
        new = like[0].shape[2]
        held = self.offset - self.start
        if held + new <= self._capacity:
            return
        # one more than a query sees, so that the last token can be taken back
        keep = held if self.window is None else min(held, self.window)
        needed = keep + new
        if self.window is None:
            capacity = max(needed, self._capacity * 3 // 2, min(self._wish, needed * 4), FIRST_CAPACITY)
        else:
            # Room for as many tokens again as the window holds: one move of the tail per `window` tokens.
            capacity = max(needed, 2 * min(self.window, max(needed, FIRST_CAPACITY)))
        old = self.buffers or (None,) * len(like)
        self.buffers = tuple(self._moved(a, b, keep, capacity) for a, b in zip(old, like))
        self.start = self.offset - keep

    def _moved(self, old: mx.array | None, like: mx.array, keep: int, capacity: int) -> mx.array:
        batch, heads, _, size = like.shape
        rest = mx.zeros((batch, heads, capacity - keep, size), dtype=like.dtype)
        if old is None or keep == 0:
            return rest
        held = self.offset - self.start
        return mx.concatenate([old[:, :, held - keep : held], rest], axis=2)

    def _put(self, *rows: mx.array) -> None:
        """Append to each buffer (batch, kv_heads, length, size)."""
        self._make_room(rows)
        length = rows[0].shape[2]
        begin = self.offset - self.start
        for buffer, row in zip(self.buffers, rows):
            buffer[:, :, begin : begin + length] = row
        self._shown = self._first_visible() - self.start, begin + length
        self.prompt = self.prompt or length
        self.offset += length

    def _first_visible(self) -> int:
        """The oldest token that a query at `offset` sees."""
        if self.window is None:
            return 0
        return max(self.start, self.offset - self.window + 1)

    def visible(self, length: int) -> tuple[int, int]:
        """The range of tokens that the next `length` tokens will see."""
        return self._first_visible(), self.offset + length

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The tokens held, for saving and for `mx.eval`."""
        held = self.offset - self.start
        return tuple(buffer if held == self._capacity else buffer[:, :, :held] for buffer in self.buffers)

    @state.setter
    def state(self, arrays: tuple[mx.array, ...]) -> None:
        self.buffers = tuple(arrays)
        if not arrays:
            self.offset, self.start = 0, 0
            return
        self.offset = max(self.offset, self._capacity)
        self.start = self.offset - self._capacity

    @property
    def trims_freely(self) -> bool:
        return self.window is None

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be taken back, as mlx-lm asks before it speculates."""
        return self.start == 0

    def can_trim_to(self, offset: int) -> bool:
        """Whether the cache of only the first `offset` tokens is still in here."""
        if offset > self.offset or offset < 0:
            return False
        return self.start == 0 or (self.window is not None and offset - self.window + 1 >= self.start)

    def trim(self, count: int) -> int:
        """Forget the last `count` tokens; returns how many were forgotten (0 when that is not possible)."""
        count = min(count, self.offset)
        if not self.can_trim_to(self.offset - count):
            return 0
        self.offset -= count
        if self.offset == 0:
            self.prompt = 0
        return count

    def snapshot(self) -> tuple[int, int, tuple[mx.array, ...]]:
        """What `restore` needs to come back to this point. Free for a full cache; a window is kept as it is now."""
        return self.offset, self.start, () if self.window is None else self.buffers

    def restore(self, snapshot: tuple[int, int, tuple[mx.array, ...]]) -> None:
        """Back to the tokens held when `snapshot` was taken; a full cache must not have been cut shorter since."""
        self.offset, self.start, buffers = snapshot
        self.buffers = buffers or self.buffers

    def size(self) -> int:
        return self.offset - self.start

    def empty(self) -> bool:
        return self.offset == 0

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(buffer.nbytes for buffer in self.buffers)


class KVCache(_Plain, TokenCache):
    """Keys and values of one layer as they were computed."""

    @property
    def keys(self) -> mx.array | None:
        """The buffer (batch, kv_heads, capacity, head_dim); None before the first token."""
        return self.buffers[0] if self.buffers else None

    @property
    def values(self) -> mx.array | None:
        return self.buffers[1] if self.buffers else None

    def append(self, keys: mx.array, values: mx.array) -> None:
        self._put(keys, values)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append `keys` and `values` (batch, kv_heads, length, head_dim); return what this call may attend to.

        That is everything, or with a window the keys that at least one of the new queries sees, oldest first.
        """
        self.append(keys, values)
        return self.visible_now()

    def visible_now(self) -> tuple[mx.array, mx.array]:
        first, end = self._shown
        keys, values = self.buffers
        return keys[:, :, first:end], values[:, :, first:end]

    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        keys, values = self.buffers
        rows = slice(first - self.start, last - self.start)
        return keys[:, :, rows], values[:, :, rows]

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedKVCache:
        """The same tokens in a quantized cache, as mlx-lm's tools ask for; `group_size` can only be 64."""
        from qwen_mlx.models.quantized_cache import QuantizedKVCache

        if group_size != 64 or not self.buffers:
            raise ValueError("only a cache with tokens can be quantized, in groups of 64")
        return QuantizedKVCache.holding(self, bits)


class RecurrentCache:
    """The state of one DeltaNet layer after `offset` tokens: it has no past to go back to, only snapshots.

    `conv` (batch, kernel - 1, channels) are the last inputs of the convolution, `recurrent` (batch, value_heads,
    value_dim, key_dim) float32 is the state.
    """

    def __init__(self, left_padding: Sequence[int] | None = None) -> None:
        self.left_padding = list(left_padding) if left_padding is not None and any(left_padding) else None
        self.conv: mx.array | None = None
        self.recurrent: mx.array | None = None
        self.offset = 0
        self.prompt = 0
        self.reading = 0

    def announce(self, prompt: int) -> None:
        """Nothing depends on it here."""

    def update(self, conv: mx.array, recurrent: mx.array, length: int) -> None:
        """Move on by `length` tokens."""
        self.conv, self.recurrent = conv, recurrent
        self.offset += length

    def visible(self, length: int) -> tuple[int, int]:
        """The range of tokens that the next `length` tokens depend on."""
        return 0, self.offset + length

    def reserve(self, tokens: int) -> None:
        """Nothing to reserve: the size does not depend on the text."""

    @property
    def trims_freely(self) -> bool:
        return False

    @property
    def state(self) -> tuple[mx.array, ...]:
        return () if self.conv is None or self.recurrent is None else (self.conv, self.recurrent)

    @state.setter
    def state(self, arrays: tuple[mx.array, ...]) -> None:
        self.conv, self.recurrent = arrays if arrays else (None, None)

    def is_trimmable(self) -> bool:
        return False

    def can_trim_to(self, offset: int) -> bool:
        return offset in (0, self.offset)

    def trim(self, count: int) -> int:
        """Forget all tokens, or none; returns how many were forgotten."""
        if count < self.offset:
            return 0
        forgotten, self.offset, self.conv, self.recurrent = self.offset, 0, None, None
        return forgotten

    def snapshot(self) -> tuple[int, mx.array | None, mx.array | None]:
        """What `restore` needs to come back to this point; costs nothing, as states are replaced, not changed."""
        return self.offset, self.conv, self.recurrent

    def restore(self, snapshot: tuple[int, mx.array | None, mx.array | None]) -> None:
        self.offset, self.conv, self.recurrent = snapshot

    def size(self) -> int:
        return self.offset

    def empty(self) -> bool:
        return self.offset == 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.state)


def trim_all(caches: Sequence[LayerCache], offset: int) -> bool:
    """Cut every layer back to the first `offset` tokens; False, with nothing changed, if one of them cannot."""
    if not all(cache.can_trim_to(offset) for cache in caches):
        return False
    for cache in caches:
        cache.trim(cache.offset - offset)
    return True
