"""Whole runs with real parts: the demo model, rows of a file, adapters; begun, stopped, killed, resumed, exported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.adapters import load_adapter  # first: it prepares the BLAS
from qwen_mlx.checkpoints.load import load

import mlx.core as mx  # isort: skip
import numpy as np

from qwen_mlx.checkpoints.safetensors import load_tensors
from qwen_mlx.errors import NotFound, UsageError
from qwen_mlx.events import CancelToken, Compared, DataReady, Eval, Notice, RunStarted, Saved, Step, TrainingPlanned
from qwen_mlx.training.checkpoint import OPTIMIZER, TRAINABLE
from qwen_mlx.training.compare import compare
from qwen_mlx.training.config import RunConfig, read_config
from qwen_mlx.training.run import plan, resume, train
from qwen_mlx.training.run_folder import RunFolder
from qwen_mlx.training.trained import export_adapter, export_model

pytestmark = pytest.mark.skipif(
    not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built"
)
WORDS = ("red", "blue", "green", "black", "white", "brown", "grey", "pink")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_MLX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    turns = [({"role": "user", "content": f"Say {w}."}, {"role": "assistant", "content": f"{w}!"}) for w in WORDS]
    path.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    return path


def settings(out: Path, rows: Path, *changes: str) -> list[str]:
    return [
        "model.path=demo",
        f"data.train={rows}",
        f"out={out}",
        "data.max_len=96",
        "data.valid=0.3",
        "adapter.layers=[4]",
        "adapter.rank=4",
        "adapter.dropout=0.1",
        "optim.lr=0.01",
        "loop.tokens_per_batch=96",
        "loop.epochs=3",
        "loop.accumulate=2",
        *changes,
    ]


def configured(out: Path, rows: Path, *changes: str) -> RunConfig:
    return read_config(None, settings(out, rows, *changes))


def learnt(folder: RunFolder) -> dict[str, bytes]:
    """Weights and optimizer of the latest checkpoint, bit by bit."""
    latest = folder.latest()
    assert latest is not None
    return {
        f"{file} {name}": np.array(array).tobytes()
        for file in (TRAINABLE, OPTIMIZER)
        for name, array in load_tensors(latest / file).items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, rows):
    """A run that was never stopped, and its events."""
    config = configured(tmp_path_factory.mktemp("runs") / "whole", rows)
    return RunFolder(Path(config.out)), list(train(config))


def test_what_is_told(finished):
    folder, events = finished
    kinds = [type(event).__name__ for event in events if type(event).__name__ != "Progress"]
    assert kinds[:2] == ["DataPrepared", "DataPrepared"] and kinds[2:4] == ["DataReady", "RunStarted"]
    assert kinds[-1] == "TrainingFinished" and {"Step", "Eval", "Saved"} <= set(kinds)
    ready = next(event for event in events if isinstance(event, DataReady))
    assert ready.rows + ready.valid_rows == len(WORDS) and 0.5 < ready.filled <= 1
    started = next(event for event in events if isinstance(event, RunStarted))
    steps = [event for event in events if isinstance(event, Step)]
    assert len(steps) == started.forecast.steps and steps[-1].loss < steps[0].loss
    assert sum(step.tokens for step in steps) == started.forecast.tokens
    written = [event["type"] for event in folder.events()]
    assert written.count("step") == len(steps) and "progress" not in written
    # What was decided for this machine is part of the run.
    assert folder.read_config().loop.checkpoint_layers in (0, 1)


def test_stopped_and_resumed_is_as_never_stopped(finished, tmp_path, rows):
    config = configured(tmp_path / "run", rows)

    for looked in (3, 4):
        cancel = CancelToken()
        events = train(config, cancel) if looked == 3 else resume(Path(config.out), cancel=cancel)
        count = 0
        for event in events:
            if isinstance(event, Step):
                count += 1
            if count and looked == 3:
                cancel.cancel()
            if looked == 4 and isinstance(event, RunStarted):
                cancel.cancel()
    list(resume(Path(config.out)))
    assert learnt(RunFolder(Path(config.out))) == learnt(finished[0])


def test_killed_while_training(finished, tmp_path, rows):
    """kill -9 at some moments of a real run; what is resumed ends as the run that was never touched."""
    config = configured(tmp_path / "run", rows, "save.every=1", "save.keep=1")
    code = (
        "import sys\nfrom pathlib import Path\nfrom qwen_mlx.training.run import resume\n"
        "for event in resume(Path(sys.argv[1])):\n    print(type(event).__name__, flush=True)\n"
    )
    folder = RunFolder(Path(config.out))
    folder.create(config)
    for wanted in ("Step", "Saved"):
        with subprocess.Popen([sys.executable, "-c", code, config.out], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == wanted:
                    break
            time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    list(resume(folder.path))
    assert learnt(folder) == learnt(finished[0])


def test_a_run_is_not_begun_twice_nor_resumed_when_finished(finished, rows):
    folder, _ = finished
    with pytest.raises(UsageError, match="train resume"):
        list(train(configured(folder.path, rows)))
    with pytest.raises(UsageError, match="finished after"):
        list(resume(folder.path))
    with pytest.raises(NotFound):
        list(resume(folder.path / "nothing"))


def test_a_change_is_refused_unless_it_is_wanted(tmp_path, rows):
    copy = tmp_path / "rows.jsonl"
    copy.write_text(rows.read_text())
    config = configured(tmp_path / "run", copy, "loop.steps=1")
    list(train(config))
    with pytest.raises(UsageError, match=r"the configuration changed.*--allow-change"):
        list(resume(tmp_path / "run", ["optim.lr=0.02"]))
    copy.write_text(rows.read_text().replace("red", "rot"))
    with pytest.raises(UsageError, match="the configuration and the data changed"):
        list(resume(tmp_path / "run", ["loop.steps=2"]))
    with pytest.raises(Exception, match="trained other weights"):
        list(resume(tmp_path / "run", ["loop.steps=2", "adapter.layers=[3]"], allow_change=True))
    events = list(resume(tmp_path / "run", ["loop.steps=2"], allow_change=True))
    assert [event.step for event in events if isinstance(event, Step)] == [2]
    assert any(isinstance(event, Notice) and "the data" in event.text for event in events)


def test_the_adapter_of_a_checkpoint_is_what_was_trained(finished, tmp_path):
    """Exported, and loaded on the model as any program would, it gives the evaluation loss that was told."""
    folder, events = finished
    target = export_adapter(folder.checkpoint("best"), tmp_path / "adapter")
    assert sorted(entry.name for entry in target.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((target / "adapter_config.json").read_text())["r"] == 4
    best = min((event for event in events if isinstance(event, Eval) and event.best), key=lambda event: event.loss)
    from qwen_mlx.training.prepare import prepare

    steps = prepare(folder.read_config(), tmp_path, CancelToken())
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            run = stopped.value
            break
    model = load(paths.demo_model(), weights="quantized")
    load_adapter(model.decoder, target)
    model.decoder.eval()
    source, total, weight = run.stage.valid, 0.0, 0.0
    for batch in source.batches(0):
        loss, count, _ = run.stage.judge(model.decoder, source.arrays(batch))
        total, weight = total + float(loss), weight + float(count)
    assert total / weight == pytest.approx(best.loss, rel=1e-5)
    with pytest.raises(UsageError, match="--force"):
        export_adapter(folder.checkpoint("best"), target)
    export_adapter(folder.checkpoint("latest"), target, force=True)


def test_comparing(finished, rows):
    *_, last = compare(finished[0], str(rows), limit=2, max_tokens=4)
    assert isinstance(last, Compared) and last.questions == 2 and last.before <= 2
    assert [answer.expected for answer in last.answers] == ["red!", "blue!"]


def test_full_fine_tuning(tmp_path, rows):
    config = configured(tmp_path / "run", rows, "preset=full", "optim.lr=1e-4", "loop.steps=2", "data.valid=0")
    events = list(train(config))
    folder = RunFolder(Path(config.out))
    started = next(event for event in events if isinstance(event, RunStarted))
    assert started.forecast.trainable == started.forecast.parameters
    *_, saved = [event for event in events if isinstance(event, Saved)]
    list(export_model(folder.read_config(), folder.path, Path(saved.path), tmp_path / "model"))
    held = load_tensors(Path(saved.path) / TRAINABLE)
    model = load(tmp_path / "model")
    assert mx.array_equal(model.decoder.embed_tokens.weight, held["embed_tokens.weight"])
    assert mx.array_equal(
        model.decoder.layers[2].self_attn.qkv_proj.parts[0].weight, held["layers.2.self_attn.qkv_proj.parts.0.weight"]
    )


def test_planning_trains_nothing(tmp_path, rows):
    config = configured(tmp_path / "run", rows)
    *_, last = plan(config, probe=True)
    assert isinstance(last, TrainingPlanned) and not (tmp_path / "run").exists()
    assert last.forecast.measured and last.forecast.seconds is not None and last.forecast.fits
