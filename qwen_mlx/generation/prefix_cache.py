"""The KV caches of conversations, so that a turn computes only what is new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_mlx.models import Decoder
from qwen_mlx.models.cache import LayerCache, trim_all


@dataclass
class Prefix:
    """A cache and the tokens it holds.

    `checkpoint` is a place to go back to where the layers cannot be trimmed that far (windows, states): a number of
    tokens and one snapshot per layer.
    """

    caches: list[LayerCache]
    tokens: list[int] = field(default_factory=list)
    checkpoint: tuple[int, list[Any]] | None = None

    @property
    def needs_checkpoint(self) -> bool:
        """Whether some layer forgets, and so cannot be trimmed at will."""
        return not all(layer.trims_freely for layer in self.caches)

    def take_checkpoint(self) -> None:
        """Remember this point of the text."""
        if self.needs_checkpoint:
            self.checkpoint = (self.caches[0].offset, [layer.snapshot() for layer in self.caches])

    def cut(self, common: int) -> bool:
        """Go back to the longest beginning of at most `common` tokens; False when only nothing is left."""
        if trim_all(self.caches, common):
            del self.tokens[common:]
            return common > 0
        if self.checkpoint is not None and self.checkpoint[0] <= common:
            offset, snapshots = self.checkpoint
            for layer, snapshot in zip(self.caches, snapshots):
                layer.restore(snapshot)
            del self.tokens[offset:]
            return offset > 0
        return False

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.caches)


class PrefixCache:
    """The prefixes of the conversations used last, up to a number of bytes; the newest is always kept.

    `kv_bits` as of `Decoder.make_cache`, which raises `UsageError` here if this model cannot have such caches.
    """

    def __init__(self, decoder: Decoder, max_bytes: int, kv_bits: str | None = None) -> None:
        decoder.make_cache(kv_bits=kv_bits)  # nothing is allocated; better to fail now than at the first message
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._kv_bits = kv_bits
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()

    def take(self, key: str, prompt: Sequence[int]) -> Prefix:
        """The cache to continue `prompt` with: what conversation `key` has in common with it, often nearly all.

        At least the last token is left to compute. The prefix is out of the store until `put`, so that a failure in
        between cannot leave a cache that does not match its tokens.
        """
        prefix = self._prefixes.pop(key, None)
        if prefix is not None:
            common = common_length(prefix.tokens, prompt[:-1])
            if self._decoder.can_continue(prefix.caches, len(prompt)) and prefix.cut(common):
                return prefix
        return Prefix(self._decoder.make_cache(kv_bits=self._kv_bits))

    def put(self, key: str, prefix: Prefix, tokens: Sequence[int]) -> None:
        """Keep `prefix`, whose caches now hold the beginning of `tokens`."""
        prefix.tokens = list(tokens[: prefix.caches[0].offset])
        self._prefixes[key] = prefix
        while len(self._prefixes) > 1 and self.nbytes > self._max_bytes:
            self._prefixes.popitem(last=False)

    def forget(self, key: str) -> None:
        self._prefixes.pop(key, None)

    @property
    def nbytes(self) -> int:
        """Bytes that the kept caches have allocated."""
        return sum(prefix.nbytes for prefix in self._prefixes.values())


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return min(len(a), len(b))
