"""`eval`: perplexity of a model over a text, and its divergence from another model, as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

from qwen_mlx import paths
from qwen_mlx.checkpoints.load import LoadedModel, WeightForm, iter_load
from qwen_mlx.errors import UsageError
from qwen_mlx.evaluation.divergence import Comparison
from qwen_mlx.evaluation.perplexity import Losses, window_losses
from qwen_mlx.events import CancelToken, Evaluated, EvaluateModel, Event, Progress
from qwen_mlx.text.corpus import read_text, windows


def iter_evaluate(job: EvaluateModel, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Read a text with a model, and with a reference if there is one.

    Yields:
        `Progress` of loading and in tokens, `Evaluated`.

    Raises:
        NotFound, CheckpointError, TokenizerError: as `load`; or the text cannot be read.
        UsageError: a context that cannot be meant, a text that is too short, a reference with other tokens.
        Cancelled: `cancel` was set.
    """
    started = time.perf_counter()
    cancel = cancel or CancelToken()
    if job.context < 2:
        raise UsageError(f"--ctx {job.context} is too small", expected="2 tokens or more")
    if job.limit is not None and job.limit < 2:
        raise UsageError(f"--limit {job.limit} is too small", expected="2 tokens or more")
    file = paths.sample_text("evaluation") if job.text is None else Path(job.text).expanduser()
    text = read_text(file)
    model = yield from _load(job.model, job.weights, cancel)
    context = min(job.context, model.spec.max_positions)
    cut = windows(model.tokenizer, text, context, job.limit)
    total = sum(len(window) - 1 for window in cut)
    name = "the bundled text" if job.text is None else str(file)
    if job.against is None:
        losses = Losses()
        for done in _alone(model, cut, losses, cancel):
            yield Progress("evaluate", done, total, "tokens")
        divergence = None
    else:
        reference = yield from _load(job.against, job.weights, cancel)
        _same_tokens(model, reference, cut, text, job.limit)
        comparison = Comparison()
        for done in _together(model, reference, cut, comparison, cancel):
            yield Progress("evaluate", done, total, "tokens")
        losses, divergence = comparison.losses, comparison.result()
    yield Evaluated(
        model=str(model.folder),
        perplexity=losses.perplexity,
        perplexity_error=losses.perplexity_error,
        tokens=losses.count,
        context=context,
        text=name,
        seconds=time.perf_counter() - started,
        divergence=divergence,
    )


def _load(folder: str, weights: WeightForm, cancel: CancelToken) -> Generator[Progress, None, LoadedModel]:
    return (yield from iter_load(folder, weights=weights, cancel=cancel))


def _alone(model: LoadedModel, cut: list[list[int]], losses: Losses, cancel: CancelToken) -> Iterator[int]:
    done = 0
    for window in cut:
        for part in window_losses(model.decoder, window):
            cancel.raise_if_cancelled()
            losses.add(part)
            done += part.shape[0]
            yield done


def _together(
    model: LoadedModel, reference: LoadedModel, cut: list[list[int]], comparison: Comparison, cancel: CancelToken
) -> Iterator[int]:
    done = 0
    for window in cut:
        for count in comparison.add(model.decoder, reference.decoder, window):
            cancel.raise_if_cancelled()
            done += count
            yield done


def _same_tokens(
    model: LoadedModel, reference: LoadedModel, cut: list[list[int]], text: str, limit: int | None
) -> None:
    """Raises `UsageError` where the two cut the text differently."""
    ids = [number for window in windows(reference.tokenizer, text, len(cut[0]), limit) for number in window]
    if ids != [number for window in cut for number in window]:
        raise UsageError(
            f"{model.folder} and {reference.folder} cannot be compared",
            expected="models with the same vocabulary",
            found="that they cut the text into different tokens",
        )
