"""Learning rates step by step."""

from __future__ import annotations

import pytest

from qwen_mlx.training.config import OptimSection
from qwen_mlx.training.schedules import learning_rate, warmup_steps


def rates(total: int, peak: float | None = None, **settings) -> list[float]:
    section = OptimSection(**settings)
    return [learning_rate(section, step, total, peak) for step in range(1, total + 1)]


def test_linear_with_warm_up():
    got = rates(6, lr=1.0, min_lr=0.2, schedule="linear", warmup=2)
    assert got == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine():
    got = rates(8, lr=2.0, min_lr=1.0, schedule="cosine", warmup=0)
    assert got[3] == pytest.approx(1.5) and got[-1] == pytest.approx(1.0)
    assert got == sorted(got, reverse=True)


def test_constant_after_a_share_of_warm_up():
    got = rates(10, lr=1.0, schedule="constant", warmup=0.5)
    assert got == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6)


def test_the_end_is_a_tenth_unless_said():
    assert rates(5, lr=1.0, schedule="linear", warmup=0)[-1] == pytest.approx(0.1)
    assert rates(5, lr=1.0, min_lr=0.0, schedule="linear", warmup=0)[-1] == 0


def test_another_peak_scales_all():
    for schedule in ("constant", "linear", "cosine"):
        settings = {"lr": 1e-3, "min_lr": 1e-4, "schedule": schedule, "warmup": 3}
        assert rates(12, 5e-4, **settings) == pytest.approx([rate / 2 for rate in rates(12, **settings)])


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 0.03, 0.9, 1, 100])
def test_short_runs_reach_a_rate(total, warmup):
    """However long the warm-up was meant to be, it ends before the run does."""
    section = OptimSection(lr=1.0, schedule="constant", warmup=warmup)
    assert warmup_steps(section, total) < max(total, 1)
    assert learning_rate(section, total, total) == 1.0


def test_beyond_the_end_it_stays():
    section = OptimSection(lr=1.0, min_lr=0.1, warmup=0)
    assert learning_rate(section, 99, 10) == pytest.approx(0.1)
