"""The folder of a run: whole checkpoints, pointers, the lock, and a process that is killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_mlx.errors import CheckpointError, NotFound, UsageError
from qwen_mlx.training.config import read_config
from qwen_mlx.training.run_folder import RunFolder, read_state

CONFIG = read_config(None, ["model.path=m", "data.train=d.jsonl"])
# Saves as fast as it can: four files of 40 kB that all say which checkpoint they belong to.
SAVER = """
import json, sys
from pathlib import Path
from qwen_mlx.training.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
with folder.locked():
    folder.sweep()
    latest = folder.latest()
    step = json.loads((latest / "state.json").read_text())["step"] if latest else 0
    print("ready", flush=True)
    while True:
        step += 1
        with folder.new_checkpoint(step, step % 3) as (partial, target):
            for name in "abcd":
                (partial / name).write_text(f"{step} " * 10000)
            (partial / "state.json").write_text(json.dumps({"format": 1, "step": step}))
        folder.point("latest", target)
        if step % 4 == 0:
            folder.point("best", target)
        folder.forget(2)
"""


def save(folder: RunFolder, step: int, batch: int = 0) -> Path:
    with folder.new_checkpoint(step, batch) as (partial, target):
        (partial / "state.json").write_text(json.dumps({"format": 1}))
    folder.point("latest", target)
    return target


def test_killed_at_any_moment(tmp_path):
    """After 20 kills the latest checkpoint is whole every time, none is lost, and nothing piles up."""
    moments = random.Random(5)
    folder = RunFolder(tmp_path / "run")
    last = 0
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(folder.path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        latest = folder.latest()
        if latest is None:
            continue
        step = json.loads((latest / "state.json").read_text())["step"]
        assert step >= last
        last = step
        for checkpoint in (latest, folder.best(), *folder.checkpoints()):
            assert checkpoint is not None
            own = json.loads((checkpoint / "state.json").read_text())["step"]
            assert all((checkpoint / name).read_text() == f"{own} " * 10000 for name in "abcd")
    assert last > 0
    folder.sweep()
    names = [entry.name for entry in folder.path.iterdir()]
    assert not [name for name in names if name.startswith(".step")] and len(names) <= 8


def test_pointers_and_keeping(tmp_path):
    folder = RunFolder(tmp_path)
    made = [save(folder, step) for step in (1, 2, 3, 4, 5)]
    folder.point("best", made[1])
    folder.forget(2)
    assert folder.checkpoints() == [made[1], made[3], made[4]]
    assert folder.latest() == made[4] and folder.best() == made[1]
    assert folder.checkpoint("step-000004") == made[3]
    with pytest.raises(NotFound, match="step-000005"):
        folder.checkpoint("step-000003")


def test_order_of_checkpoints_within_a_step(tmp_path):
    folder = RunFolder(tmp_path)
    for step, batch in ((10, 2), (9, 0), (10, 0), (10, 11), (10, 0)):
        save(folder, step, batch)
    assert [entry.name for entry in folder.checkpoints()] == [
        "step-000009",
        "step-000010",
        "step-000010-batch-0-2",
        "step-000010-batch-2",
        "step-000010-batch-11",
    ]


def test_without_pointers_the_newest_is_the_latest(tmp_path):
    folder = RunFolder(tmp_path)
    made = save(folder, 3)
    (tmp_path / "latest").unlink()
    (tmp_path / "step-000009").mkdir()  # without state.json: not one of ours
    assert folder.latest() == made == folder.best()
    (tmp_path / "latest").symlink_to("/etc")
    assert folder.latest() == made


def test_what_fails_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), folder.new_checkpoint(1) as (partial, _):
        (partial / "state.json").write_text("{}")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_kept_out(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.busy
    with folder.locked():
        assert folder.busy
        with pytest.raises(UsageError, match="another process"), folder.locked():
            pass
    assert not folder.busy


def test_creating(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(NotFound):
        folder.read_config()
    folder.create(CONFIG)
    assert folder.read_config() == CONFIG
    with pytest.raises(UsageError, match="train resume"):
        folder.create(CONFIG)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("")
    with pytest.raises(UsageError, match="something else"):
        RunFolder(tmp_path / "other").create(CONFIG)


def test_events_survive_a_kill(tmp_path):
    folder = RunFolder(tmp_path)
    lines = [
        {"type": "run_started", "step": 0},
        *({"type": "step", "step": step, "loss": 1} for step in (1, 2, 3)),
        {"type": "saved", "step": 1},
        {"type": "run_started", "step": 1},
        {"type": "step", "step": 2, "loss": 2},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"type": "st'
    (tmp_path / "events.jsonl").write_text(text)
    steps = [(event["step"], event["loss"]) for event in folder.events() if event["type"] == "step"]
    assert steps == [(1, 1), (2, 2)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}'])
def test_a_damaged_state_is_told(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_state(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Exception, match="cannot be written"):
        RunFolder(tmp_path / "run").create(CONFIG)
