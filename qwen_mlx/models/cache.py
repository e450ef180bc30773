"""KV caches: what attention has computed of a text, in the order of the text.

All follow one protocol, which is also mlx-lm's: `update_and_fetch`, `offset`, `state`, `trim`, `nbytes`. Positions in
here count padding: token i of row b of a left-padded batch has position `i - left_padding[b]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx

FIRST_CAPACITY = 256  # tokens


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


class KVCache:
    """Keys and values of one layer, all of them (`window` None) or at least those of the last `window` tokens.

    The buffers (batch, kv_heads, capacity, head_dim) are written in place and grow by half, so that n tokens cost
    O(n) copying in all. A window cache moves its tail to the front when the buffer is full.
    """

    def __init__(self, window: int | None = None, left_padding: Sequence[int] | None = None) -> None:
        self.window = window
        self.left_padding = list(left_padding) if left_padding is not None and any(left_padding) else None
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0  # tokens seen so far
        self.start = 0  # token that the first row of the buffers holds
        self.prompt = 0
        self.reading = 0
        self._wish = 0

    def announce(self, prompt: int) -> None:
        self.reading = prompt
        if self.offset == 0:
            self.prompt = prompt

    def reserve(self, tokens: int) -> None:
        """Make the next allocation large enough for `tokens` in all; a hint, nothing is allocated now."""
        self._wish = tokens

    @property
    def _capacity(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def _make_room(self, like_keys: mx.array, like_values: mx.array) -> None:
        """After this the buffers have room for `like_keys.shape[2]` more tokens."""
        new = like_keys.shape[2]
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
        self.keys = self._moved(self.keys, like_keys, keep, capacity)
        self.values = self._moved(self.values, like_values, keep, capacity)
        self.start = self.offset - keep

    def _moved(self, old: mx.array | None, like: mx.array, keep: int, capacity: int) -> mx.array:
        batch, heads, _, dims = like.shape
        rest = mx.zeros((batch, heads, capacity - keep, dims), dtype=like.dtype)
        if old is None or keep == 0:
            return rest
        held = self.offset - self.start
        return mx.concatenate([old[:, :, held - keep : held], rest], axis=2)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append `keys` and `values` (batch, kv_heads, length, head_dim); return what this call may attend to.

        That is everything, or with a window the keys that at least one of the new queries sees, oldest first.
        """
        self._make_room(keys, values)
        assert self.keys is not None and self.values is not None
        length = keys.shape[2]
        begin, end = self.offset - self.start, self.offset - self.start + length
        self.keys[:, :, begin:end] = keys
        self.values[:, :, begin:end] = values
        first = self._first_visible() - self.start
        self.prompt = self.prompt or length
        self.offset += length
        return self.keys[:, :, first:end], self.values[:, :, first:end]

    def _first_visible(self) -> int:
        """The oldest token that a query at `offset` sees."""
        if self.window is None:
            return 0
        return max(self.start, self.offset - self.window + 1)

    def visible(self, length: int) -> tuple[int, int]:
        """The range of tokens that the next `update_and_fetch` of `length` tokens will return."""
        return self._first_visible(), self.offset + length

    @property
    def state(self) -> tuple[mx.array, mx.array] | tuple[()]:
        """The tokens held, for saving and for `mx.eval`."""
        if self.keys is None or self.values is None:
            return ()
        held = self.offset - self.start
        if held == self._capacity:
            return self.keys, self.values
        return self.keys[:, :, :held], self.values[:, :, :held]

    @state.setter
    def state(self, arrays: tuple[mx.array, mx.array] | tuple[()]) -> None:
        if not arrays:
            self.keys, self.values, self.offset, self.start = None, None, 0, 0
            return
        self.keys, self.values = arrays
        self.offset = max(self.offset, self.keys.shape[2])
        self.start = self.offset - self.keys.shape[2]

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

    def snapshot(self) -> tuple[int, int, tuple[mx.array, mx.array] | None]:
        """What `restore` needs to come back to this point. Free for a full cache; a window is kept as it is now."""
        arrays = None if self.window is None or self.keys is None or self.values is None else (self.keys, self.values)
        return self.offset, self.start, arrays

    def restore(self, snapshot: tuple[int, int, tuple[mx.array, mx.array] | None]) -> None:
        """Back to the tokens held when `snapshot` was taken; a full cache must not have been cut shorter since."""
        self.offset, self.start, arrays = snapshot
        if arrays is not None:
            self.keys, self.values = arrays

    def size(self) -> int:
        return self.offset - self.start

    def empty(self) -> bool:
        return self.offset == 0

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        if self.keys is None or self.values is None:
            return 0
        return self.keys.nbytes + self.values.nbytes


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
