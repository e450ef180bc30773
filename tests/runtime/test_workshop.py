"""The training runs of a machine, without a model's thread."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_mlx.errors import NotFound, QwenError
from qwen_mlx.event_json import as_dictionary
from qwen_mlx.events import (
    DataExamined,
    DataPrepared,
    DataReady,
    Eval,
    JobCancelled,
    JobFailed,
    Notice,
    RowsShown,
    RunStarted,
    Sample,
    Saved,
    Step,
    TrainingFinished,
    TrainingForecast,
    TrainingNotice,
    TrainingStopped,
)
from qwen_mlx.runtime.workshop import LocalWorkshop
from qwen_mlx.training.config import read_config
from qwen_mlx.training.run_folder import RunFolder

FORECAST = TrainingForecast(8, 8, 1, 64, 400, 100.0, 12, 1000, 10, {"weights": 5}, 5, 100)
CHANGES = ('model.path="demo"', 'data.train="rows.jsonl"')


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return LocalWorkshop([tmp_path / "own", tmp_path / "runs"])


def step(number, loss=1.5):
    return Step(number, 8, number / 8, loss, 1e-4, 0.5, 50, 12.0, 900.0, 10, 20, float(number), 3.0, {"balance": 1.0})


def make(path, events=(), *changes, checkpoints=(), position=None):
    """The folder of a run with these events and checkpoints."""
    folder = RunFolder(path)
    folder.create(read_config(None, [*CHANGES, *changes, f'out="{path}"']))
    lines = [json.dumps({"time": 1.0, **as_dictionary(event)}) + "\n" for event in events]
    (path / "events.jsonl").write_text("".join(lines), "utf-8")
    for number in checkpoints:
        with folder.new_checkpoint(number) as (partial, _):
            state = {"format": 1, "position": {"step": number, **(position or {})}}
            (partial / "state.json").write_text(json.dumps(state), "utf-8")
    return folder


def started(path, at=0):
    return RunStarted(str(path), "sft", {"out": str(path)}, FORECAST, at)


def test_runs_of_all_folders_with_their_numbers(workshop, tmp_path):
    a, b, c, d = (tmp_path / "runs" / name for name in "abcd")
    done = TrainingFinished(str(a), 8, "done", 1.2, 4, 1.1, 400, 9.0, str(a / "step-000008"))
    make(a, [started(a), step(1), Eval(4, 1.1, 3.0, 10.0, True, 0.1), step(8, 1.2), done], checkpoints=[4, 8])
    stop = TrainingStopped(str(b), 3, 8, "p", "qwen-mlx train resume b")
    make(
        b,
        [started(b), step(3, float("nan")), stop],
        "model.quantize=small",
        checkpoints=[3],
        position={"last_loss": 2.0},
    )
    make(c, [started(c), step(5)])
    make(tmp_path / "own" / "d", [], 'adapter.method="full"')
    d = tmp_path / "own" / "d"
    (tmp_path / "own" / "something").mkdir()
    found = {entry.name: entry for entry in workshop.runs()}
    assert list(found) != [] and set(found) == {"a", "b", "c", "d"}
    first = found["a"]
    assert (first.step, first.total, first.state, first.method, first.model) == (8, 8, "finished", "lora", "demo")
    assert (first.train_loss, first.valid_loss, first.best_loss, first.best_step) == (1.2, 1.1, 1.1, 4)
    assert first.data == "rows.jsonl" or first.data.endswith("/rows.jsonl")
    assert (found["b"].state, found["b"].method, found["b"].train_loss) == ("stopped", "qlora", 2.0)
    assert found["c"].state == "failed" and found["c"].step == 5, "it ended without saying so"
    assert (found["d"].state, found["d"].method, found["d"].folder) == ("new", "full", str(d))


def test_a_run_that_another_process_computes(workshop, tmp_path):
    run = make(tmp_path / "runs" / "a", [started("a"), step(1)])
    code = "import fcntl,os,sys,time; h=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); fcntl.flock(h,fcntl.LOCK_EX)\n"
    code += "print('locked', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"locked\n"
        assert workshop.runs()[0].state == "running"
        with pytest.raises(QwenError, match="another process"):
            workshop.delete(str(run.path))
        assert run.exists
    finally:
        other.communicate()
    assert workshop.runs()[0].state == "failed"


def test_a_damaged_run_says_what_is_wrong(workshop, tmp_path):
    run = make(tmp_path / "runs" / "a")
    (run.path / "run.toml").write_text("[optim]\nnme = 'x'\n", "utf-8")
    assert "there is no key 'nme'" in workshop.runs()[0].problem or "missing" in workshop.runs()[0].problem
    (run.path / "run.toml").write_text("not toml", "utf-8")
    assert "is not TOML" in workshop.runs()[0].problem
    with pytest.raises(QwenError):
        workshop.record(str(run.path))


def test_a_record_has_its_events_again(workshop, tmp_path):
    path = tmp_path / "runs" / "a"
    happened = [
        DataPrepared("train", "messages", 9, 9, 400, 100.0, warnings=("one", "two")),
        DataReady(9, 2, 400, 100.0, 0.9),
        started(path),
        *(step(n) for n in range(1, 4)),
        Eval(2, 1.1, 3.0, 10.0, True, 0.1),
        Sample(2, "a", "b\nc"),
        Saved(2, "p", "best"),
        TrainingNotice("loss-spike", "oh", "so", 3),
        Notice("hm"),
    ]
    run = make(path, happened, checkpoints=[2, 3])
    run.point("best", run.path / "step-000002")
    record = workshop.record(str(path))
    assert list(record.events) == happened
    assert record.config["model"]["path"] == "demo" and record.base == "demo"
    assert [(c.name, c.step, c.best, c.latest, c.adapter) for c in record.checkpoints] == [
        ("step-000002", 2, True, False, True),
        ("step-000003", 3, False, True, True),
    ]


def test_what_was_computed_again_after_a_crash_is_there_once(workshop, tmp_path):
    path = tmp_path / "runs" / "a"
    make(path, [started(path), step(1), step(2), step(3), started(path, 1), step(2, 9.0)])
    steps = [(event.step, event.loss) for event in workshop.record(str(path)).events if isinstance(event, Step)]
    assert steps == [(1, 1.5), (2, 9.0)]


def test_lines_that_nobody_knows_are_left_out(workshop, tmp_path):
    path = tmp_path / "runs" / "a"
    run = make(path, [started(path), step(1, float("nan"))])
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"type": "from_the_future"}\n{"type": "eval"}\n[1]\nnot json\n{"type": "st')
    events = workshop.record(str(path)).events
    assert [type(event).__name__ for event in events] == ["RunStarted", "Step"]
    assert events[1].loss != events[1].loss, "a loss that is no number stays none"
    assert workshop.runs()[0].step == 1


def test_deleting(workshop, tmp_path):
    run = make(tmp_path / "runs" / "a", [started("a")], checkpoints=[1])
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert workshop.delete(str(run.path)) >= size > 0
    assert not run.path.exists() and workshop.runs() == []
    with pytest.raises(NotFound):
        workshop.delete(str(run.path))
    target = make(tmp_path / "elsewhere", [])
    (tmp_path / "runs" / "link").symlink_to(target.path)
    with pytest.raises(QwenError, match="is a link"):
        workshop.delete(str(tmp_path / "runs" / "link"))
    assert target.exists


@pytest.mark.parametrize("name", ["poems", "../../etc", "a/b", "", "..", "x" * 300, "千问 诗"])
def test_a_new_folder_stays_in_its_home(workshop, tmp_path, name):
    home = tmp_path / "own"
    folder = Path(workshop.new_folder(name))
    assert folder.parent == home and folder.name not in ("", ".", "..")
    folder.mkdir(parents=True)
    assert workshop.new_folder(name) not in (str(folder), str(home))


def test_what_is_wrong_is_told_by_key(workshop):
    assert workshop.problems(CHANGES) == {}
    found = workshop.problems([*CHANGES, "optim.lr=-1", 'adapter.rank="x"', "optim.nme=1", "loop.epochs=2"])
    assert set(found) == {"optim.lr", "adapter.rank", "optim.nme"}
    assert found["optim.lr"].startswith("'optim.lr' cannot be used")
    assert "Did you mean 'name'?" in found["optim.nme"]
    together = workshop.problems([*CHANGES, 'adapter.method="full"', 'model.quantize="4"'])
    assert set(together) == {""} and "cannot be trained in full" in together[""]
    assert set(workshop.problems(['model.path="demo"'])) == {""}


def test_presets_are_whole_configurations(workshop):
    presets = workshop.presets()
    assert presets["lora"]["adapter"]["rank"] == 16 and presets["full"]["adapter"]["method"] == "full"
    assert all({"model", "data", "optim", "loop"} <= set(preset) for preset in presets.values())


ROWS = (
    '{"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2, 通义 🙂"}]}\n'
    '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'
)


def test_a_look_at_data(workshop, tmp_path):
    (tmp_path / "rows.jsonl").write_text(ROWS * 2, "utf-8")
    events = list(workshop.preview([*CHANGES, "data.valid=0.3"], 1))
    shown = next(event for event in events if isinstance(event, RowsShown))
    assert len(shown.rows) == 1 and shown.rows[0].source == "rows.jsonl:1"
    pieces = shown.rows[0].pieces
    assert len(pieces) == shown.rows[0].tokens
    learnt = "".join(text for text, weight in pieces if weight)
    assert learnt.startswith("2, 通义 🙂<|im_end|>") and "1+1?" not in learnt
    last = events[-1]
    assert isinstance(last, DataExamined) and last.valid is not None
    assert last.train.rows + last.valid.rows == 4 and last.train.part == "train"
    assert events.index(shown) < next(n for n, event in enumerate(events) if isinstance(event, DataPrepared))


def test_a_look_at_data_that_goes_wrong(workshop, tmp_path):
    failed = list(workshop.preview(CHANGES, 3))[-1]
    assert isinstance(failed, JobFailed) and failed.expected and "rows.jsonl" in failed.error
    (tmp_path / "rows.jsonl").write_text(ROWS + '{"odd": 1}\n', "utf-8")
    failed = list(workshop.preview(CHANGES, 1))[-1]
    assert "rows.jsonl:3" in failed.error
    stages = [
        e.stage for e in workshop.preview(['model.path="no/such"', 'data.train="rows.jsonl"'], 3) if hasattr(e, "stage")
    ]
    assert stages == ["model"], "so that a form knows which of its fields is to blame"


def test_a_look_can_be_called_off(workshop, tmp_path):
    (tmp_path / "rows.jsonl").write_text(ROWS * 3000, "utf-8")
    handle = workshop.preview(CHANGES, 2)
    handle.cancel()
    assert isinstance(list(handle)[-1], JobCancelled)


def test_it_needs_no_mlx():
    code = (
        "import sys; from qwen_mlx.runtime.workshop import LocalWorkshop; w = LocalWorkshop(); w.runs(); w.presets();"
        "w.problems(['optim.lr=1']); sys.exit('mlx' in sys.modules or 'mlx.core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
