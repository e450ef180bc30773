"""Real contenders: in processes of their own, and within their limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation import contenders, random_model
from qwen_mlx.evaluation.contenders import Limits, Ours, Stopwatch
from qwen_mlx.evaluation.speed import Process, Task

needs_peer = pytest.mark.skipif(sys.version_info < (3, 11), reason="mlx-lm needs Python 3.11")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model.ensure(tmp_path_factory.mktemp("models"), "tiny", 4, family="qwen3_next")


def test_a_process_reads_and_writes(folder: Path) -> None:
    with Process(Task("qwen-mlx", str(folder), "quantized", "cpu")) as process:
        assert process.note == "weights quantized"
        run = process.run(20, Limits(5))
        cold, second = process.turns(30, 4)
    assert run.read == 20 and run.read_seconds > 0
    assert len(run.intervals) == 3 and min(run.intervals) > 0  # five tokens, less the first two
    assert run.memory > 1 << 20
    assert cold > 0 and second > 0


def test_a_process_that_cannot_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(QwenError, match=r"qwen-mlx failed: .*nothing-here"):
        Process(Task("qwen-mlx", str(tmp_path / "nothing-here"), "auto"))


def test_writing_ends_with_the_limit_but_not_before_some_tokens(folder: Path) -> None:
    ours = Ours(str(folder), "auto")
    assert len(ours.run(4, Limits(50, seconds=1e-9)).intervals) < 5
    assert len(ours.run(4, Limits(6, seconds=100)).intervals) == 4


def test_a_stopwatch_leaves_the_first_interval_out() -> None:
    ticks = iter([0.0, 10.0, 11.0, 13.0, 16.0])
    watch = Stopwatch(0, lambda: next(ticks))
    for _ in range(4):
        watch.tick()
    assert watch.times[0] == 10 and watch.intervals == [2, 3] and not watch.enough


@needs_peer
def test_the_peer_reads_until_the_limit_and_writes_at_the_whole_context(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx_lm")
    cache = pytest.importorskip("mlx_lm.models.cache")
    made = []
    real = cache.make_prompt_cache
    monkeypatch.setattr(cache, "make_prompt_cache", lambda model: made.append(real(model)) or made[-1])  # type: ignore[func-returns-value]
    peer = contenders.Peer(str(folder), "float32")
    whole = peer.run(40, Limits(4))
    assert whole.read == 40 and len(whole.intervals) == 2
    part = peer.run(300, Limits(4, seconds=1e-9))
    assert 8 <= part.read < 300 and part.intervals
    lengths = {layer.offset for layer in made[-1] if hasattr(layer, "keys")}
    assert min(lengths) > 300
