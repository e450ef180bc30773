"""Learning rates as pure functions of the step: a run that is resumed needs no state for them."""

from __future__ import annotations

import math

from qwen_mlx.training.config import OptimSection


def warmup_steps(optim: OptimSection, total: int) -> int:
    """Steps of warm-up: a share of the run when below 1, else their number."""
    wanted = optim.warmup * total if optim.warmup < 1 else optim.warmup
    return min(round(wanted), max(total - 1, 0))


def learning_rate(optim: OptimSection, step: int, total: int, peak: float | None = None) -> float:
    """The rate of the update number `step`, counted from 1.

    Linear from `peak / warmup` to `peak` over the warm-up, then constant, or falling to `min_lr` at step `total`, in a
    line or along half a cosine.

    Args:
        peak: in place of `optim.lr`; the rate at the end scales with it.
    """
    top = optim.lr if peak is None else peak
    low = top / 10 if optim.min_lr is None else optim.min_lr * top / optim.lr
    warm = warmup_steps(optim, total)
    if step <= warm:
        return top * step / warm
    if optim.schedule == "constant":
        return top
    along = min(1.0, (step - warm) / max(total - warm, 1))
    share = 1 - along if optim.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * along))
    return low + (top - low) * share
