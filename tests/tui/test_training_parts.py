"""The pure parts of training in the app: curves, forms, forecasts, and what a run says of itself."""

import math
import random
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len

from qwen_mlx.events import (
    JobCancelled,
    JobFailed,
    Notice,
    Progress,
    RunStarted,
    TrainingFinished,
    TrainingNotice,
    TrainingStopped,
)
from qwen_mlx.runtime.workshop import LocalWorkshop
from tests.tui.training_stage import CONFIG, FORECAST, TRAIN, VALID, beginning, course, ending, evaluation, step
from tui.training import paths
from tui.training.comparing import best_of, judged_alike, table_of
from tui.training.fields import BY_KEY, change_of, changes_of, method_of, more_changes, name_for, values_of
from tui.training.forecast import advice_of, lines_of, span, verdict
from tui.training.found import found_lines
from tui.training.plot import Curve, Frame, draw, frame_of, number, step_labels, value_labels
from tui.training.run_view import RunView, view_of
from tui.training.series import CAPACITY, Series, smoothed
from tui.training.watching import headline, outcome
from tui.widgets.keys import broken
from tui.widgets.masked_text import joined

# ----------------------------------------------------------------------------------------------------------- series


def test_a_long_series_stays_small_and_keeps_its_mean():
    series = Series((n, float(n)) for n in range(100_000))
    points = list(series)
    assert CAPACITY <= len(points) <= 2 * CAPACITY
    assert series.last == (99_999, 99_999.0)
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert all(step == pytest.approx(value) for step, value in points)


def test_a_short_series_is_exact():
    points = [(n, n * 0.5) for n in range(1, 100)]
    series = Series([*points, (100, math.nan), (101, math.inf)])
    assert list(series) == points and series.lowest == (1, 0.5)
    series.cut_after(40)
    assert list(series) == points[:40] and series.last == (40, 20.0)
    series.cut_after(0)
    assert list(series) == [] and series.last is None and series.lowest is None


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 0.99])
def test_smoothing_keeps_straight_lines_and_takes_noise(weight):
    chance = random.Random(1)
    flat = [(n, 2.0) for n in range(50)]
    assert [value for _, value in smoothed(flat, weight)] == pytest.approx([2.0] * 50)
    line = [(n, 3.0 * n) for n in range(400)]
    assert smoothed(line, weight)[200][1] == pytest.approx(600.0, abs=1.0), "it does not lag"
    noise = [(n, chance.gauss(0, 1)) for n in range(500)]
    spread = [sum(value**2 for _, value in points) for points in (noise, smoothed(noise, weight))]
    assert spread[1] <= spread[0] and (weight < 0.9 or spread[1] < 0.2 * spread[0])
    assert smoothed([], weight) == []


# ------------------------------------------------------------------------------------------------------------- plot


def dots(cells):
    """Set dots as (x, y), y from the bottom up."""
    table = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
    height = 4 * len(cells)
    return {
        (2 * column + x, height - 1 - (4 * row + y))
        for row, line in enumerate(cells)
        for column, (character, _) in enumerate(line)
        if 0x2800 <= ord(character) < 0x2900
        for x in (0, 1)
        for y in range(4)
        if (ord(character) - 0x2800) & table[x][y]
    }


def test_a_line_goes_from_corner_to_corner_without_gaps():
    curve = Curve("a", [(0, 0.0), (10, 1.0)], "train")
    found = dots(draw([curve], frame_of([curve]), 20, 5))
    assert {(0, 0), (39, 19)} <= found
    for x in range(40):
        ys = [y for a, y in found if a == x]
        assert ys, "every column has a dot"
        assert min(ys) - 1 <= max([y for a, y in found if a == max(0, x - 1)]), "and touches the one before"


def test_many_points_in_a_column_show_their_range():
    curve = Curve("a", [(n / 1000, float(n % 7)) for n in range(10_000)], "train")
    found = dots(draw([curve], frame_of([curve]), 10, 4))
    assert len(found) == 20 * 16


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (7, 3), (300, 90)])
def test_any_size_and_any_points(size):
    width, height = size
    for points in ([(5, 1.0)], [(0, -1.0), (1, 1e300), (2, math.nan)], [(n, 2.0) for n in range(9)]):
        curve = Curve("a", points, "train", "◆")
        for log in (False, True):
            frame = frame_of([curve], log)
            if frame is None:
                assert all(not (value > 0 and math.isfinite(value)) for _, value in points)
                continue
            cells = draw([curve], frame, width, height)
            assert len(cells) == height and all(len(line) == width for line in cells)
            assert all(cell_len(character) == 1 for line in cells for character, _ in line)
            assert cell_len(step_labels(frame, width)) == width
            assert set(value_labels(frame, height)) <= set(range(height))
    assert frame_of([Curve("a", [], "train")]) is None


def test_a_logarithmic_axis_is_straight_for_a_decay():
    points = [(n, 10.0 ** (-n / 10)) for n in range(31)]
    frame = frame_of([Curve("a", points, "x")], log=True)
    for place, value in points:
        assert frame.height_of(value) == pytest.approx(1 - place / 30)
    assert frame.height_of(0.0) is None and frame.value_at(0.5) == pytest.approx(10**-1.5)


def test_marks_tell_curves_apart_without_colours():
    a = Curve("a", [(n, 1.0) for n in range(100)], "1", "A", 10)
    b = Curve("b", [(n, 2.0) for n in range(100)], "2", "B", 10)
    text = ["".join(character for character, _ in line) for line in draw([a, b], frame_of([a, b]), 40, 6)]
    assert text[-1].count("A") == 4 + 1 and text[0].count("B") == 5


def test_the_axis_of_steps_reaches_the_end_of_the_run():
    frame = frame_of([Curve("a", [(1, 1.0), (10, 2.0)], "x")], right=100)
    assert (frame.left, frame.right) == (1, 100)
    assert step_labels(frame, 60).split()[0] == "1" and step_labels(frame, 60).split()[-1] == "100"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (1.2345, "1.234"), (12.345, "12.3"), (1234.5, "1234"), (0.00012, "1.2e-04"), (1e9, "1.0e+09")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_drawing_does_not_depend_on_the_length_of_the_run():
    curve = Curve("a", list(Series((n, math.sin(n)) for n in range(200_000))), "train")
    began = time.process_time()
    draw([curve], frame_of([curve]), 150, 45)
    assert time.process_time() - began < 0.3


# ------------------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("preset", sorted(LocalWorkshop([]).presets()))
def test_a_preset_comes_back_out_of_the_form(preset):
    workshop = LocalWorkshop([])
    config = workshop.presets()[preset]
    values = values_of(config) | {"preset": preset, "method": method_of(config), "data.train": "x.jsonl"}
    changes = changes_of(values)
    assert workshop.problems(changes) == {}
    from qwen_mlx.training.config import read_config

    made = read_config(None, changes).table()
    for section in ("adapter", "optim", "loop"):
        assert made[section] == config[section], section
    assert made["model"] == config["model"]


def test_every_field_of_ours_exists_in_the_configuration():
    config = LocalWorkshop([]).presets()["lora"]
    for key in BY_KEY:
        section, _, name = key.partition(".")
        assert not name or name in config[section], key


@pytest.mark.parametrize(
    ("key", "text", "change"),
    [
        ("adapter.rank", " 16 ", "adapter.rank=16"),
        ("loop.tokens_per_batch", "8,192", "loop.tokens_per_batch=8192"),
        ("optim.lr", "1e-4", "optim.lr=0.0001"),
        ("optim.lr", "0,001", "optim.lr=0.001"),
        ("optim.lr", "fast", 'optim.lr="fast"'),
        ("adapter.targets", "q_proj, v_proj", 'adapter.targets=["q_proj", "v_proj"]'),
        ("data.valid", "5%", "data.valid=0.05"),
        ("data.valid", "judge.jsonl", 'data.valid="judge.jsonl"'),
        ("data.train", 'a "b"\\c.jsonl', 'data.train="a \\"b\\"\\\\c.jsonl"'),
        ("log.samples", "Who, you?", 'log.samples=["Who, you?"]'),
        ("log.samples", " ", None),
        ("data.packing", "false", "data.packing=false"),
        ("name", "x", None),
    ],
)
def test_what_is_written_becomes_a_change(key, text, change):
    assert change_of(BY_KEY[key], text) == change


def test_more_changes_may_hold_spaces():
    text = 'a.b=1  c.d="two words" e.f=["x", "y z"] g.h={u = 1}'
    assert more_changes(text) == ["a.b=1", 'c.d="two words"', 'e.f=["x", "y z"]', "g.h={u = 1}"]
    assert more_changes(' x="open ') == ['x="open']
    assert more_changes("") == []


def test_full_training_says_nothing_of_the_adapter():
    values = values_of(CONFIG) | {"method": "full", "preset": "full"}
    assert not any(change.startswith("adapter.rank") for change in changes_of(values))
    assert 'adapter.method="full"' in changes_of(values)


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        ("poems.jsonl", "Qwen/Qwen3-0.6B", "poems-qwen3-0.6b-lora"),
        ("x/clock/train.jsonl.gz", "demo", "clock-demo-lora"),
        ("train.csv", "demo", "train-demo-lora"),
        ("", "demo", "demo-lora"),
    ],
)
def test_a_run_gets_a_name(data, model, name):
    assert name_for(data, model, "lora") == name


def test_paths_that_could_be_meant(tmp_path, monkeypatch):
    for name in ("a.jsonl", "b.txt", ".hidden.jsonl", "c.csv.gz", "Data.parquet"):
        (tmp_path / name).write_text("", "utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "d.json").write_text("", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert paths.candidates("") == ["Data.parquet", "a.jsonl", "c.csv.gz", "folder/"]
    assert paths.candidates("", ["/old.jsonl"])[0] == "/old.jsonl"
    assert paths.candidates("d") == ["Data.parquet"]
    assert paths.candidates("folder/") == ["folder/d.json"]
    assert paths.candidates(f"{tmp_path}/fo") == [f"{tmp_path}/folder/"]
    assert paths.candidates("a.jsonl") == [] and paths.candidates("no/such/") == []
    assert len(paths.candidates("", limit=2)) == 2
    assert "/tmp/" in paths.candidates("/tm")


# --------------------------------------------------------------------------------------------------------- forecast


def test_the_forecast_in_words():
    texts = [line.text for line in lines_of(FORECAST, 50)]
    assert texts[0].endswith("3.4 GB of 16.0 GB: fits")
    assert "120 steps, batches of 2 × 2,048 tokens" in texts
    assert all(cell_len(text) <= 56 for text in texts)
    assert "about 12 min" in [line.text for line in lines_of(replace(FORECAST, seconds=720.0), 50)]


def test_what_to_change():
    assert advice_of(FORECAST) is None
    over = replace(FORECAST, peak=20_000_000_000)
    assert verdict(over, 50).tone == "bad" and verdict(replace(FORECAST, peak=15_000_000_000), 50).tone == "tight"
    assert "1,024 tokens per batch" in advice_of(replace(over, longest=1024)) and "shorter" in advice_of(
        replace(over, longest=1024)
    )
    assert "model alone" in advice_of(replace(over, memory={"weights": 30_000_000_000}))
    assert "LoRA instead of full" in advice_of(replace(over, trainable=600_000_000))
    assert "Even one short row" in advice_of(over)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (600, "10 min"), (11_100, "3 h 05 min"), (200_000, "2 d 7 h")],
)
def test_spans_of_time(seconds, text):
    assert span(seconds) == text


def test_what_was_found_in_the_data():
    texts = [line.text for line in found_lines(TRAIN, VALID)]
    assert texts[0] == "812 examples of 820 rows, messages, 40 to judge by"
    assert "51,000 learnt (34%)" in texts[1] and texts[2] == "2 cut, 3 said twice, 8 left out"
    assert found_lines(TRAIN, None)[0].text.endswith("none to judge by")
    many = replace(TRAIN, warnings=tuple(f"warning {n}" for n in range(9)))
    assert found_lines(many, None)[-1].text == "· and 5 more"
    assert found_lines(None, None) == []


# ------------------------------------------------------------------------------------------------------------ a run


def test_a_view_follows_its_events():
    view = RunView("poems")
    assert headline(view, False, False)[0].startswith("○ waiting")
    view.apply(Progress("load", 1, 2, "layers"))
    assert headline(view, False, False)[0] == "◌ load 50%"
    for event in [*beginning(), evaluation(0, False), *course(1, 45)]:
        view.apply(event)
    assert (view.steps_done, view.steps, view.state) == (45, 120, "training")
    assert view.best.step == 40 and len(view.samples) == 2 and view.saved.step == 40
    assert view.gap == pytest.approx(view.evaluation.loss - view.train.last[1])
    view.apply(TrainingNotice("memory", "it is tight", "", 44))
    view.apply(Notice("hm"))
    assert list(view.notices) == [(44, "it is tight"), (45, "hm")]
    view.apply(step(46, skipped=True, loss=math.nan))
    assert view.train.last[0] == 45, "a step that was skipped has no loss"


def test_a_resumed_run_has_no_step_twice():
    view = view_of("poems", [*beginning(), *course(1, 30)])
    assert view.state == "failed" and "killed" in view.error
    for event in [RunStarted("/runs/poems", "sft", CONFIG, FORECAST, 20), *course(21, 40), ending()]:
        view.apply(event)
    assert [round(number) for number, _ in view.train] == list(range(1, 41))
    assert view.state == "finished" and not view.error


@pytest.mark.parametrize(
    ("event", "state", "words"),
    [
        (ending(), "finished", "is trained"),
        (TrainingFinished("/f", 9, "early stop", 1.0, None, None, 9, 9.0, "p"), "finished", "got no better"),
        (TrainingStopped("/f", 9, 120, "p", "x"), "stopped", "saved at step"),
        (JobFailed("the disk is full", True, 4), "failed", "The disk is full."),
        (JobCancelled(), "cancelled", "before it began"),
    ],
)
def test_how_a_run_ends(event, state, words):
    view = RunView("poems")
    view.apply(event)
    assert view.ended and view.state == state and words in outcome(view)
    assert headline(view, False, False)[0]


def test_comparing_says_what_differs():
    from tests.tui.training_stage import FakeWorkshop

    workshop = FakeWorkshop()
    records = [workshop.record(entry.folder) for entry in workshop.runs()[:2]]
    rows = dict(table_of(records))
    assert rows["adapter.method"] == ["lora", "dora"] and "optim.lr" not in rows
    assert best_of(records) == 0 and judged_alike(records)
    other = replace(records[1], config=records[1].config | {"data": {"train": "x", "valid": 0.05}})
    assert not judged_alike([records[0], other]) and best_of([records[0], other]) is None
    files = [replace(r, config={"data": {"train": t, "valid": "v"}}) for r, t in zip(records, "ab")]
    assert judged_alike(files), "the same file judges, whatever was learnt"
    assert best_of([records[0], replace(records[1], entry=workshop.runs()[2])]) is None


# ---------------------------------------------------------------------------------------------------------- widgets


def test_tokens_of_one_weight_are_one_piece():
    pieces = [("<|im_start|>", 0.0), ("us", 0.0), ("er", 0.0), ("", 1.0), ("a", 1.0), ("<|im_end|>", 1.0), ("b", 0.5)]
    assert joined(pieces) == [("<|im_start|>", 0.0), ("user", 0.0), ("a<|im_end|>", 1.0), ("b", 0.5)]


def test_keys_break_between_keys():
    keys = tuple((f"k{n}", "word", "") for n in range(9))
    lines = broken(keys, 30)
    assert [key for line in lines for key in line] == list(keys)
    assert all(cell_len(" · ".join(f"{key} {word}" for key, word, _ in line)) <= 30 for line in lines)
    assert broken(keys, 3)[0] == keys[:1]


def test_a_frame_of_one_value_has_room_around_it():
    frame = frame_of([Curve("a", [(3, 2.0)], "x")])
    assert isinstance(frame, Frame) and frame.low < 2.0 < frame.high and frame.left < frame.right
