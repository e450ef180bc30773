"""The decode loop: token ids in, events out. It knows nothing of text, templates or conversations."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, FinishReason, PrefillProgress
from qwen_mlx.generation.penalties import PenaltyState
from qwen_mlx.generation.sampling import SamplingParams, make_sampler
from qwen_mlx.models import Decoder
from qwen_mlx.models.cache import LayerCache

# A piece of the prompt should take about this long: progress moves and a cancel is heard.
_PIECE_SECONDS = 0.4
_FIRST_PIECE, _SMALLEST_PIECE, _LARGEST_PIECE = 128, 16, 2048
# MLX keeps freed buffers for reuse; give them back now and then, as their sizes change with the cache.
_CLEAR_EVERY = 256


@dataclass(frozen=True)
class Token:
    """One generated token. A stop id is announced too, as the last one."""

    id: int


@dataclass(frozen=True)
class Timing:
    """Seconds spent on the prompt, until the first token, and on all tokens after it."""

    prefill: float
    first_token: float
    decode: float


@dataclass(frozen=True)
class Finished:
    """The last event. `reason` is "stop" for a stop id, "length" for `max_tokens`, or "cancelled"."""

    reason: FinishReason
    timing: Timing


GenerationEvent = PrefillProgress | Token | Finished


def generate(
    decoder: Decoder,
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    cache: Sequence[LayerCache] | None = None,
    stop_ids: Collection[int] = (),
    cancel: CancelToken | None = None,
    pause_at: int | None = None,
) -> Iterator[GenerationEvent]:
    """Continue `prompt`, one token ahead of its reader.

    While the reader looks at a token, the next one is computed already. So when the iterator ends, or is closed, the
    cache holds the prompt and every token that was yielded, the last one included unless `max_tokens` ended it.

    Args:
        prompt: the whole text; what `cache` holds must be its beginning, and is not computed again.
        cache: from `decoder.make_cache()`; extended in place.
        stop_ids: tokens that end the text.
        cancel: looked at before every step and every piece of the prompt.
        pause_at: a number of prompt tokens after which one piece ends, so that the reader of `PrefillProgress` can
            take a snapshot of the cache there.

    Raises:
        UsageError: the prompt is empty, has ids outside the vocabulary, or does not go beyond the cache.
    """
    started = time.perf_counter()
    cancel = cancel or CancelToken()
    caches = decoder.make_cache() if cache is None else list(cache)
    cached = caches[0].offset
    _check(prompt, decoder.spec.vocab_size, cached)
    for layer in caches:
        layer.announce(len(prompt))
        layer.reserve(len(prompt) + min(params.max_tokens, 1024))
    penalties = PenaltyState(prompt, decoder.spec.vocab_size, params)
    sample = make_sampler(params)

    def step(ids: mx.array) -> mx.array:
        """ids (1, length) -> the next token (1,), not computed yet."""
        hidden = decoder.hidden_states(ids, caches)[:, -1]
        token = sample(penalties.apply(decoder.logits(hidden)))
        penalties.update(token)
        return token

    count = 0
    first_token = decode = 0.0
    reason: FinishReason = "cancelled"
    yield PrefillProgress(cached, len(prompt), cached)
    for done in _prefill(decoder, prompt, caches, cancel, pause_at):
        yield PrefillProgress(done, len(prompt), cached)
    if not cancel.cancelled:
        token = step(mx.array([prompt[caches[0].offset :]]))
        mx.async_eval(token)
    while not cancel.cancelled:
        ahead = None
        if count + 1 < params.max_tokens:
            ahead = step(token[:, None])
            mx.async_eval(ahead)
        value = int(token.item())  # type: ignore[arg-type]
        count += 1
        decode = time.perf_counter() - started - first_token
        if count == 1:
            first_token, decode = decode, 0.0
            yield PrefillProgress(len(prompt), len(prompt), cached)
        yield Token(value)
        if value in stop_ids:
            reason = "stop"
            break
        if ahead is None:
            reason = "length"
            break
        token = ahead
        if count % _CLEAR_EVERY == 0:
            mx.clear_cache()
    prefill = first_token or time.perf_counter() - started
    yield Finished(reason, Timing(prefill, first_token, decode))


def _check(prompt: Sequence[int], vocab: int, cached: int) -> None:
    if len(prompt) == 0:
        raise UsageError("the prompt is empty", expected="at least one token")
    if cached >= len(prompt):
        raise UsageError(f"the cache holds {cached} tokens, the prompt only {len(prompt)}", expected="a longer prompt")
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocab:
        raise UsageError(
            "the prompt has a token that the model does not know",
            expected=f"0 to {vocab - 1}",
            found=str(max(high, -low)),
        )


def _prefill(
    decoder: Decoder,
    prompt: Sequence[int],
    caches: Sequence[LayerCache],
    cancel: CancelToken,
    pause_at: int | None,
) -> Iterator[int]:
    """Bring all of `prompt` but its last piece into the cache; yields how many tokens are in it.

    The last piece is left for the step that makes logits, which saves a pass over the weights. The size of the
    pieces follows the speed.
    """
    size = _FIRST_PIECE
    while not cancel.cancelled:
        at = caches[0].offset
        pause = pause_at if pause_at is not None and at < pause_at < len(prompt) else None
        if pause is None and len(prompt) - at <= size:
            return
        end = min(at + size, len(prompt) - 1, pause or len(prompt))
        start = time.perf_counter()
        # The head and the final norm are never evaluated here: only the caches are asked for.
        decoder.hidden_states(mx.array([prompt[at:end]]), caches)
        mx.eval([layer.state for layer in caches])
        mx.clear_cache()
        seconds = time.perf_counter() - start
        if end - at == size:
            fitting = int(size * _PIECE_SECONDS / max(seconds, 1e-6))
            size = max(_SMALLEST_PIECE, min(_LARGEST_PIECE, fitting, size * 2))
        yield end
