"""What is timed: our generator and mlx-lm's on the same folder, with the same token ids.

Both are asked the same question: read a context, then write on from it. Every token that is written is timed by
itself, so that a median can be taken.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

Clock = Callable[[], float]
PEER_DTYPES = ("bfloat16", "float32")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_LEAST_WRITTEN = 3  # tokens; the first interval is not counted where there are others
# mlx-lm reads 2,048 tokens at once. Where that is known to take longer than the limit, it reads smaller pieces, as
# many tokens as fit into half of the limit, until the limit is over. On a CPU its time per token is the same then: it
# multiplies row after row.
_PIECES = (8, 128)


@dataclass(frozen=True)
class Limits:
    """What one run may take: tokens to write, and seconds of reading and of writing after which it ends early.

    A limit of 0 seconds is none. Our own reading is never cut short.
    """

    tokens: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """One context, read and written on from.

    Attributes:
        read: tokens that were read in `read_seconds`, the choice of the first new token included unless the limit
            ended the reading earlier.
        intervals: seconds of every further token.
        memory: bytes that the process had at most, so far.
    """

    read: int
    read_seconds: float
    intervals: list[float]
    memory: int


class Contender(Protocol):
    """A loaded model."""

    vocab: int
    note: str

    def run(self, context: int, limits: Limits) -> Run:
        """Read `context` tokens, then write."""


def numbers(count: int, vocab: int, seed: int = 1) -> list[int]:
    """`count` token ids that are the same everywhere."""
    ids, state = [], seed
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        ids.append(1 + state % (vocab - 1))
    return ids


def peak_memory() -> int:
    """Bytes that this process had at most: resident, or, where that is more, in MLX's hands (on a GPU)."""
    import mlx.core as mx

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = size if sys.platform == "darwin" else size * 1024
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return size if on_cpu else max(size, mx.get_peak_memory())


class Stopwatch:
    """Times of tokens as they come; `enough` once there are some and the limit is over."""

    def __init__(self, limit: float, now: Clock) -> None:
        self._limit = limit
        self._now = now
        self.start = now()
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(self.seconds)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._now() - self.start

    @property
    def enough(self) -> bool:
        late = self._limit > 0 and len(self.times) > 1 and self.times[-1] - self.times[0] > self._limit
        return late and len(self.times) > _LEAST_WRITTEN

    @property
    def intervals(self) -> list[float]:
        """Seconds between tokens. The second token is in work while the first is waited for, so it is left out."""
        found = [after - before for before, after in pairwise(self.times)]
        return found[1:] if len(found) > 1 else found


class Ours:
    """qwen-mlx."""

    def __init__(self, folder: str, weights: str, now: Clock = time.perf_counter, kv_bits: str | None = None) -> None:
        from qwen_mlx import load

        self._now = now
        self._kv_bits = kv_bits
        self.model = load(folder, weights=weights)  # type: ignore[arg-type]
        self.vocab = self.model.spec.vocab_size
        self.note = f"weights {self.model.weights}" + (f", KV cache {kv_bits} bits" if kv_bits else "")

    def run(self, context: int, limits: Limits) -> Run:
        from contextlib import closing

        from qwen_mlx.generation.generate import Token, generate
        from qwen_mlx.generation.sampling import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=limits.tokens)
        watch = Stopwatch(limits.seconds, self._now)
        text, cache = numbers(context, self.vocab), self.model.decoder.make_cache(kv_bits=self._kv_bits)
        with closing(generate(self.model.decoder, text, params, cache=cache)) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Token):
                    watch.tick()
                    if watch.enough:
                        break
        return Run(context, watch.times[0], watch.intervals, peak_memory())

    def turns(self, history: int, turn: int) -> tuple[float, float]:
        """Seconds to the first token of a text of `history` tokens, and of `turn` more on top of it."""
        from qwen_mlx.events import PrefillProgress
        from qwen_mlx.generation.generate import Finished, Token, generate
        from qwen_mlx.generation.prefix_cache import PrefixCache
        from qwen_mlx.generation.sampling import SamplingParams

        prefixes = PrefixCache(self.model.decoder, 1 << 40, self._kv_bits)
        params = SamplingParams(temperature=0.0, max_tokens=2)

        def first_token(prompt: Sequence[int]) -> float:
            prefix = prefixes.take("chat", prompt)
            generated, seconds = [], 0.0
            for event in generate(self.model.decoder, prompt, params, cache=prefix.caches):
                if isinstance(event, Token):
                    generated.append(event.id)
                elif isinstance(event, Finished):
                    seconds = event.timing.first_token
                else:
                    assert isinstance(event, PrefillProgress)
            prefixes.put("chat", prefix, [*prompt, *generated])
            return seconds

        text = numbers(history, self.vocab, seed=2)
        cold = first_token(text)
        return cold, first_token(text + numbers(turn, self.vocab, seed=3))


class _LimitReachedError(Exception):
    """The seconds of reading are over."""


class Peer:
    """mlx-lm, its floating point weights cast to `dtype`."""

    def __init__(self, folder: str, dtype: str, now: Clock = time.perf_counter) -> None:
        import mlx.core as mx
        from mlx_lm.utils import load_model

        self._now = now
        self.model, config = load_model(Path(folder))
        self.model.set_dtype(getattr(mx, dtype))
        mx.eval(self.model.parameters())
        self.vocab = config.get("text_config", config)["vocab_size"]
        self.note = dtype
        self._seconds_per_token = 0.0

    def run(self, context: int, limits: Limits) -> Run:
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(self.model)
        long = limits.seconds > 0 and context * self._seconds_per_token > limits.seconds
        step = 2048
        if long:
            fitting = int(limits.seconds / 2 / self._seconds_per_token)
            step = min(max(fitting, _PIECES[0]), _PIECES[1])
        done = {"tokens": 0, "seconds": 0.0}

        def progress(processed: int, total: int) -> None:
            seconds = watch.seconds
            if long and processed and processed < total - 1 and seconds > limits.seconds:
                done.update(tokens=processed, seconds=seconds)
                raise _LimitReachedError

        watch = Stopwatch(limits.seconds, self._now)
        try:
            self._write(numbers(context, self.vocab), cache, limits.tokens, watch, step, progress)
            read, seconds = context, watch.times[0]
        except _LimitReachedError:
            read, seconds = int(done["tokens"]), done["seconds"]
            mx.eval(_fill(cache, context))
            watch = Stopwatch(limits.seconds, self._now)
            self._write([1], cache, limits.tokens, watch, step, lambda processed, total: None)
        self._seconds_per_token = seconds / read
        return Run(read, seconds, watch.intervals, peak_memory())

    def _write(
        self,
        prompt: Sequence[int],
        cache: Sequence[Any],
        tokens: int,
        watch: Stopwatch,
        step: int,
        progress: Callable[[int, int], None],
    ) -> None:
        import mlx.core as mx
        from mlx_lm.generate import generate_step
        from mlx_lm.sample_utils import make_sampler

        options: dict[str, Any] = {"prefill_step_size": step, "prompt_progress_callback": progress}
        ids, greedy = mx.array(list(prompt)), make_sampler(temp=0.0)
        for _ in generate_step(ids, self.model, max_tokens=tokens, sampler=greedy, prompt_cache=cache, **options):
            watch.tick()
            if watch.enough:
                break


def _fill(cache: Sequence[Any], context: int) -> list[Any]:
    """Bring mlx-lm's KV caches to `context` tokens with random keys and values; a state has no length.

    What is in them changes no time, and reading what was not timed would take hours on a CPU.
    """
    import mlx.core as mx

    for layer in cache:
        keys = getattr(layer, "keys", None)
        if keys is None:
            continue
        batch, heads, _, dims = keys.shape
        shape = (batch, heads, context - layer.offset, dims)
        layer.update_and_fetch(mx.random.normal(shape).astype(keys.dtype), mx.random.normal(shape).astype(keys.dtype))
    return [layer.state for layer in cache]
