"""The screens of training: runs, a new one, watching, comparing, and what comes after."""

import asyncio
import time

import pytest
from textual.widgets import Input, OptionList

from qwen_mlx.events import (
    JobFailed,
    LoadModel,
    TrainingNotice,
    TrainingPlanned,
)
from tests.tui.fake_runtime import Gate, loading, reply
from tests.tui.test_models import FakeShelf
from tests.tui.training_stage import (
    CONFIG,
    FORECAST,
    FakeWorkshop,
    TrainingRuntime,
    beginning,
    course,
    ending,
    entry,
    evaluation,
    step,
)
from tui.screens.ask import AskScreen
from tui.screens.beside import BesideScreen
from tui.screens.compare import CompareScreen
from tui.screens.run_new import NewRunScreen
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen
from tui.widgets.chart import Chart
from tui.widgets.header import HeaderBar
from tui.widgets.prompt import Prompt


@pytest.fixture(autouse=True)
def a_folder_with_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poems.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "poems.txt").write_text("", "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letters.csv").write_text("", "utf-8")


@pytest.fixture
def training(stage):
    """An app with a workshop: `async with training(run=[...]) as s`."""

    def make(*replies, run=(), plan=None, workshop=None, size=(120, 40), **options):
        runtime = TrainingRuntime(*replies, run=run, plan=plan)
        workshop = workshop or FakeWorkshop()
        return stage(runtime=runtime, shelf=FakeShelf(), workshop=workshop, model="demo", size=size, **options)

    return make


def lines(s):
    return [" ".join(option.prompt.plain.split()) for option in s.app.screen.query_one("#runs", OptionList).options]


async def open_runs(s):
    await s.press("f5")
    await s.until(lambda: isinstance(s.app.screen, RunsScreen) and s.app.screen.query("#runs") and lines(s))


async def open_form(s):
    await open_runs(s)
    await s.press("n")
    await s.until(lambda: isinstance(s.app.screen, NewRunScreen) and s.app.screen.query("#row-data-train"))
    await s.until(lambda: s.app.screen.query_one("#data-train").has_focus)


def field(s, key):
    return s.app.screen.query_one(f"#{key.replace('.', '-')}")


async def write(s, key, text):
    field(s, key).focus()
    field(s, key).value = text
    await s.pilot.pause()


async def start(s):
    """Fill the form in and begin."""
    await open_form(s)
    await write(s, "data.train", "poems.jsonl")
    await s.until(lambda: "16.0 GB: fits" in s.frame())
    await s.press("ctrl+s")
    await s.until(lambda: isinstance(s.app.screen, WatchScreen))


# ------------------------------------------------------------------------------------------------------------ runs


async def test_the_list_of_runs(training):
    async with training() as s:
        await open_runs(s)
        assert lines(s)[0] == "poems demo LoRA 120/120 1.020 1.170 ● finished 1h"
        assert "DoRA 60/120" in lines(s)[1] and "◐ stopped" in lines(s)[1]
        assert "✗ failed" in lines(s)[2]
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)


async def test_an_empty_list_says_what_to_do(training):
    workshop = FakeWorkshop()
    workshop.entries = []
    async with training(workshop=workshop) as s:
        await s.press("f5")
        await s.until(lambda: "Nothing has been trained here yet" in s.frame())
        await s.press("enter", "r", "d", "c", "space")  # of nothing
        assert isinstance(s.app.screen, RunsScreen)


async def test_slash_and_palette_know_it(training):
    async with training() as s:
        await s.send("/train")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen))
        await s.press("escape")
        titles = [command.title for command in s.app.get_system_commands(s.app.screen)]
        assert any("Training" in title for title in titles)


async def test_without_a_workshop_it_says_so(stage):
    async with stage(reply("x")) as s:
        await s.press("f5")
        await s.until(lambda: any("cannot look at training runs" in text for text in s.toasts))


async def test_deleting_asks_first(training):
    workshop = FakeWorkshop()
    async with training(workshop=workshop) as s:
        await open_runs(s)
        await s.press("down", "d")
        await s.until(lambda: "Delete poems-dora with all it has learnt?" in s.frame())
        await s.press("up", "down")
        await s.until(lambda: "Delete poems-dora" not in s.frame())
        await s.press("d", "d")
        await s.until(lambda: workshop.deleted == ["/runs/poems-dora"] and len(lines(s)) == 2)


async def test_a_run_that_is_computed_elsewhere_is_not_deleted_nor_resumed(training):
    workshop = FakeWorkshop()
    workshop.entries = [entry("elsewhere", state="running", step=30)]
    async with training(workshop=workshop) as s:
        await open_runs(s)
        await s.press("d", "d")
        await s.until(lambda: any("stop it first" in text for text in s.toasts))
        assert not workshop.deleted
        await s.press("r")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen) and "by another process" in s.frame())
        assert not s.runtime.runs
        await s.press("x")
        await s.until(lambda: any("Only a run that this app computes" in text for text in s.toasts))


async def test_a_run_that_cannot_be_read(training):
    workshop = FakeWorkshop()
    workshop.entries = [entry("odd", state="failed", problem="run.toml:3: there is no key 'x'")]
    async with training(workshop=workshop) as s:
        await open_runs(s)
        await s.until(lambda: "there is no key 'x'" in s.frame())
        await s.press("enter")
        await s.until(lambda: any("cannot be read" in text for text in s.toasts))


async def test_comparing_marked_runs(training):
    async with training() as s:
        await open_runs(s)
        await s.press("c")
        await s.until(lambda: any("Mark two or more" in text for text in s.toasts))
        await s.press("space", "space", "c")
        await s.until(lambda: isinstance(s.app.screen, CompareScreen) and "best valid loss" in s.frame())
        frame = s.frame()
        assert "A poems ★" in frame and "B poems-dora" in frame
        assert "adapter.method" in frame and "lora" in frame and "dora" in frame
        assert "optim.lr" not in frame  # the same in both
        await s.press("g", "v")
        await s.until(lambda: "log scale" in s.frame())
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen))


async def test_the_mouse_opens_a_run(training):
    async with training() as s:
        await open_runs(s)
        await s.pilot.click("#runs", offset=(10, 1))
        await s.until(lambda: isinstance(s.app.screen, WatchScreen) and "poems-dora" in s.frame())


# --------------------------------------------------------------------------------------------------------- new run


async def test_a_form_with_a_forecast_beside_it(training):
    async with training() as s:
        await open_form(s)
        await s.until(lambda: "Memory, steps and time" in s.frame())
        await write(s, "data.train", "poems.jsonl")
        await s.until(lambda: "3.4 GB of 16.0 GB: fits" in s.frame())
        await s.until(lambda: "120 steps, batches of 2 × 2,048 tokens" in s.frame())
        await s.until(lambda: "812 examples of 820 rows, messages, 40 to judge" in s.frame())
        await s.until(lambda: "2 cut, 3 said twice, 8 left out" in s.frame())
        assert field(s, "name").value == "poems-demo-lora"
        assert s.runtime.plans[-1].changes.count('data.train="poems.jsonl"') == 1
        await write(s, "adapter.rank", "32")
        await s.until(lambda: "adapter.rank=32" in s.runtime.plans[-1].changes)
        assert len(s.app.desk.workshop.previews) == 1, "the rank does not change the data"
        await write(s, "data.max_len", "512")
        await s.until(lambda: len(s.app.desk.workshop.previews) == 2)


async def test_what_is_learnt_is_coloured_and_underlined(training):
    async with training() as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await s.until(lambda: "Soft rain falls" in s.frame())
        strips = s.app.screen._compositor.render_strips()
        styles = {part.text.strip(): part.style for strip in strips for part in strip if part.text.strip()}
        learnt = next(style for text, style in styles.items() if "Soft rain falls" in text)
        read = next(style for text, style in styles.items() if "A poem on rain" in text)
        assert learnt.underline and not read.underline
        assert learnt.color != read.color
        assert "雨×0.5" in s.frame().replace("雨 ", "雨")


async def test_in_text_mode_what_is_learnt_stands_in_brackets(training):
    async with training(text=True) as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await s.press("ctrl+d")
        await s.until(lambda: "[[Soft rain falls." in s.frame())


async def test_each_field_says_what_is_wrong_as_it_is_written(training):
    async with training() as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await write(s, "adapter.rank", "many")
        await s.until(lambda: 'Expected a whole number; found "many"' in s.frame())
        await write(s, "optim.lr", "0")
        await s.until(lambda: "Expected above 0" in s.frame())
        before = len(s.runtime.plans)
        await s.press("ctrl+s")
        await s.until(lambda: any("Not started" in text for text in s.toasts))
        assert not s.runtime.runs and len(s.runtime.plans) == before
        await write(s, "adapter.rank", "8")
        await write(s, "optim.lr", "1e-3")
        await s.until(lambda: "Expected" not in s.frame())
        await write(s, "more", "optim.nme=x")
        await s.until(lambda: "Did you mean 'name'?" in s.frame())


async def test_a_file_that_is_not_there_is_told_at_the_field(training):
    async with training() as s:
        await open_form(s)
        await write(s, "data.train", "missing.jsonl")
        await s.press("tab")
        await s.until(lambda: "There is no file missing.jsonl" in s.frame())
        assert s.app.screen.query_one("#row-data-train").has_class("-wrong")
        await s.press("ctrl+s")
        await s.until(lambda: any("Not started: There is no file" in text for text in s.toasts))
        assert not s.runtime.runs


async def test_without_data_nothing_begins(training):
    async with training() as s:
        await open_form(s)
        await s.press("ctrl+s")
        await s.until(lambda: any("What should it learn from?" in text for text in s.toasts))


async def test_paths_are_completed(training):
    async with training() as s:
        await open_form(s)
        await s.until(lambda: "data/" in s.frame())  # and what an earlier run has learnt from
        await s.press("p", "o")
        await s.until(lambda: "poems.jsonl" in s.frame() and "poems.txt" not in s.frame())
        await s.press("down", "enter")
        await s.until(lambda: field(s, "data.train").value == "poems.jsonl")
        field(s, "data.train").value = "da"
        await s.until(lambda: "data/" in s.frame())
        await s.press("down", "enter")
        await s.until(lambda: "data/letters.csv" in s.frame())
        await s.press("down", "enter", "enter")
        await s.until(lambda: field(s, "data.valid").has_focus)
        assert field(s, "data.train").value == "data/letters.csv"


async def test_models_can_be_picked(training):
    async with training() as s:
        await open_form(s)
        field(s, "model.path").focus()
        await s.until(lambda: "Qwen/Qwen3-0.6B" in s.frame())
        assert "Qwen/Broken" not in s.frame()
        await s.press("down", "enter")
        await s.until(lambda: field(s, "model.path").value == "Qwen/Qwen3-0.6B")


async def test_presets_and_methods_fill_in_what_was_not_written(training):
    async with training() as s:
        await open_form(s)
        await write(s, "adapter.rank", "64")
        field(s, "method").focus()
        await s.press("right", "right", "right")  # lora, rslora, dora, qlora
        assert field(s, "method").word == "QLoRA" and field(s, "adapter.rank").value == "64"
        await s.press("right")
        await s.until(lambda: field(s, "optim.lr").value == "1e-05")
        assert s.app.screen.query_one("#row-adapter-rank").has_class("-idle")
        field(s, "preset").focus()
        await s.press("right")
        await s.until(lambda: field(s, "preset").value == "qwen2-sft" and field(s, "loop.epochs").value == "2")
        await s.pilot.click("#data-packing", offset=(3, 0))
        await s.until(lambda: field(s, "data.packing").value == "false")


async def test_a_model_that_does_not_fit_says_what_to_change(training):
    import dataclasses

    large = dataclasses.replace(FORECAST, peak=22_000_000_000, longest=1024)
    async with training(plan=[TrainingPlanned(CONFIG, large)]) as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await s.until(lambda: "22.0 GB of 16.0 GB: does not fit" in s.frame())
        await s.until(lambda: "At most 1,024 tokens per batch fit" in s.frame())


async def test_a_forecast_that_is_old_is_called_off(training):
    gate = Gate()
    async with training(plan=[gate, TrainingPlanned(CONFIG, FORECAST)]) as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await s.until(lambda: len(s.runtime.plans) == 1)
        await write(s, "adapter.rank", "4")
        await s.until(lambda: len(s.runtime.plans) == 2)
        assert s.runtime.handles[0].cancelled or s.runtime.handles[-2].cancelled
        gate.open()
        await s.until(lambda: "16.0 GB: fits" in s.frame())


async def test_a_large_model_is_read_for_a_forecast_only_when_asked(training):
    async with training() as s:
        await open_form(s)
        await write(s, "model.path", "Qwen/Qwen3-32B")
        await write(s, "data.train", "poems.jsonl")
        await s.until(lambda: "ctrl+f computes it" in s.frame() and "65.0 GB" in s.frame())
        assert not s.runtime.plans
        await s.press("ctrl+f")
        await s.until(lambda: "16.0 GB: fits" in s.frame())
        assert len(s.runtime.plans) == 1


async def test_what_was_written_is_there_again(training):
    async with training() as s:
        await open_form(s)
        await write(s, "data.train", "poems.jsonl")
        await write(s, "loop.epochs", "7")
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen))
        await s.press("n")
        await s.until(lambda: isinstance(s.app.screen, NewRunScreen) and s.app.screen.query("#row-data-train"))
        await s.until(lambda: field(s, "loop.epochs").value == "7")


# -------------------------------------------------------------------------------------------------------- watching


async def test_a_run_from_its_form_to_its_end(training):
    gate = Gate()
    script = [*beginning(), evaluation(0, False), *course(1, 75), gate, *course(76, 120), ending()]
    async with training(run=script) as s:
        await start(s)
        job = s.runtime.runs[0]
        assert job.config is None and 'out="/runs/poems-demo-lora"' in job.changes and "adapter.rank=16" in job.changes
        await s.until(lambda: "75 of 120" in s.frame())
        for word in ("◉ training", "1.88 of 3", "62 %", "best so far", "peak 3.3 GB", "Rain, the 60th drop", "◆"):
            await s.until(lambda word=word: word in s.frame(), word)
        await s.press("escape", "escape")
        await s.until(lambda: s.app.screen is s.chat)
        await s.until(lambda: s.chat.query_one(HeaderBar).training.startswith("◉ 62 %"))
        assert "◉ 62 %" in s.frame()
        gate.open()
        await s.until(lambda: any("is trained. Its lowest valid loss is" in text for text in s.toasts))
        await s.until(lambda: s.chat.query_one(HeaderBar).training == "")


async def test_pause_save_rate_and_stop(training):
    gate = Gate()
    async with training(run=[*beginning("/runs/poems-demo-lora"), *course(1, 30), gate]) as s:
        await start(s)
        await s.until(lambda: "30 of 120" in s.frame())
        controls = s.runtime.runs[0].controls
        await s.press("space")
        assert controls.paused
        await s.until(lambda: "‖ paused" in s.frame() and "go on" in s.frame())
        await s.press("space")
        assert not controls.paused
        await s.press("s")
        assert controls.take_save()
        await s.press("l")
        await s.until(lambda: isinstance(s.app.screen, AskScreen))
        line = s.app.screen.query_one(Input)
        line.value = "2"
        await s.press("enter")
        await s.until(lambda: "above 0 and below 1" in s.frame())
        line.value = "3e-5"
        await s.press("enter")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen))
        assert controls.take_learning_rate() == pytest.approx(3e-5)
        await s.press("x")
        await s.until(lambda: "x again stops it" in s.frame())
        assert not s.runtime.handles[-1].cancelled
        await s.press("x")
        await s.until(lambda: "◐ stopped, saved" in s.frame())
        assert s.app.desk.trainer.current is None
        await s.until(lambda: "r resume" in s.frame())
        await s.press("r")
        await s.until(lambda: len(s.runtime.runs) == 2)
        assert s.runtime.runs[1].resume and s.runtime.runs[1].config == "/runs/poems"


async def test_the_hints_are_buttons(training):
    async with training(run=[*beginning(), *course(1, 10), Gate()]) as s:
        await start(s)
        await s.until(lambda: "space pause" in s.frame())
        await s.pilot.click(".keys", offset=(8, 0))
        await s.until(lambda: s.runtime.runs[0].controls.paused)


async def test_notices_and_failures_are_told(training):
    notice = TrainingNotice("loss-spike", "the loss went from 1 to 9", "A smaller learning rate may help.", 7)
    failed = JobFailed("3 steps in a row gave no number", True, 1)
    gate = Gate()
    run = [*beginning(), *course(1, 7), notice, step(8, skipped=True, loss=float("nan")), gate, failed]
    async with training(run=lambda job: run) as s:
        await start(s)
        await s.until(lambda: "The loss went from 1 to 9" in s.frame() and "skipped" in s.frame())
        gate.open()
        await s.until(lambda: "✗ failed" in s.frame() and "gave no number" in s.frame())
        await s.until(lambda: any("3 steps in a row" in text for text in s.toasts))


async def test_a_run_without_an_evaluation_set(training):
    async with training(run=[*beginning(), *(step(n) for n in range(1, 30)), Gate()]) as s:
        await start(s)
        await s.until(lambda: "29 of 120" in s.frame())
        assert "valid loss" not in s.frame()


async def test_scale_smoothing_and_reading_on_a_narrow_terminal(training):
    async with training(run=[*beginning(), evaluation(0, False), *course(1, 75), Gate()], size=(80, 24)) as s:
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame())
        assert not s.app.screen.query_one("#told").display
        await s.press("t")
        await s.until(lambda: "What it answers" in s.frame())
        await s.press("t", "g")
        await s.until(lambda: "log scale" in s.frame())
        await s.press("m")
        await s.until(lambda: "smoothing 0.9" in s.frame())


async def test_resizing_from_tiny_to_wide(training):
    async with training(run=[*beginning(), evaluation(0, False), *course(1, 75), Gate()], size=(60, 20)) as s:
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame() and "⣀" in s.frame())
        for width, height in ((60, 20), (200, 60), (80, 24), (30, 8), (120, 40)):
            await s.pilot.resize_terminal(width, height)
            await s.until(lambda width=width: s.app.screen.size.width == width)
            await s.pilot.pause()
            rows = s.frame().splitlines()
            assert len(rows) == height and "◆" in rows[0]
        await s.until(lambda: "120 of 120" in s.frame())
        assert s.app.screen.query_one("#rates", Chart).size.height > 3


# ----------------------------------------------------------------------------------------------- chat and training


async def test_nothing_is_asked_of_the_model_while_it_trains(training):
    async with training(reply("Hello"), run=[*beginning(), *course(1, 30), Gate()]) as s:
        await start(s)
        await s.press("escape", "escape")
        await s.until(lambda: s.app.screen is s.chat)
        await s.send("Hi")
        await s.until(lambda: any("is being trained" in text and "f5" in text for text in s.toasts))
        assert not s.runtime.asked and s.chat.query_one(Prompt).text == "Hi"
        await s.press("f5")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen), "f5 goes to the run that goes on")
        await s.press("x", "x")
        await s.until(lambda: s.app.desk.trainer.current is None)
        await s.press("escape", "escape")
        await s.until(lambda: s.app.screen is s.chat)
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 1)


async def test_one_run_at_a_time(training):
    async with training(run=[*beginning(), *course(1, 30), Gate()]) as s:
        await start(s)
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen))
        await s.press("down", "r")
        await s.until(lambda: any("one run at a time" in text for text in s.toasts))
        assert len(s.runtime.runs) == 1


async def test_quitting_asks_and_saves(training):
    async with training(run=[*beginning(), *course(1, 30), Gate()]) as s:
        await start(s)
        await s.until(lambda: "30 of 120" in s.frame())
        await s.press("ctrl+q")
        await s.until(lambda: isinstance(s.app.screen, AskScreen) and "Save, stop and quit?" in s.frame())
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen))
        assert s.app.desk.trainer.current is not None
        await s.press("ctrl+q")
        await s.until(lambda: isinstance(s.app.screen, AskScreen))
        await s.press("enter")
        await s.until(lambda: not s.app.is_running)
    assert s.app.desk.trainer.last.view.state == "stopped"


async def test_chatting_with_what_was_trained(training):
    async with training(reply("I am a poet.")) as s:
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame())
        await s.press("c")
        await s.until(lambda: s.app.screen is s.chat)
        await s.until(lambda: s.app.conductor.loading is None)
        load = [job for job in s.runtime.jobs if isinstance(job, LoadModel)][-1]
        assert load.model == "demo" and load.adapter == "/runs/poems/step-000120"
        await s.ask("Who are you?")
        assert not s.runtime.asked[0].bare


async def test_a_run_of_the_whole_model_is_exported_first(training):
    import dataclasses

    workshop = FakeWorkshop()
    record = workshop.record
    workshop.record = lambda folder: dataclasses.replace(
        record(folder), checkpoints=tuple(dataclasses.replace(c, adapter=False) for c in record(folder).checkpoints)
    )
    async with training(workshop=workshop) as s:
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame())
        await s.press("c")
        await s.until(lambda: any("train export /runs/poems" in text for text in s.toasts))
        await s.press("escape", "down", "down", "enter")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen) and "letters" in s.frame())
        await s.press("b")
        await s.until(lambda: any("has not saved anything" in text for text in s.toasts))


async def test_base_and_adapter_beside_each_other(training):
    gate = Gate()
    async with training(reply("Rain is water."), reply("Soft rain falls.", gate=gate)) as s:
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame())
        await s.press("b")
        await s.until(lambda: isinstance(s.app.screen, BesideScreen) and "Its answers come here" in s.frame())
        s.app.screen.query_one(Input).value = "A poem on rain"
        await s.press("enter")
        await s.until(lambda: "Rain is water." in s.frame() and "Soft rain" in s.frame())
        assert [job.bare for job in s.runtime.asked] == [True, False]
        assert all(job.sampling.temperature == 0 and not job.keep for job in s.runtime.asked)
        assert s.runtime.asked[0].conversation != s.runtime.asked[1].conversation
        gate.open()
        await s.until(lambda: "Soft rain falls." in s.frame())
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen))
        assert s.runtime.jobs[-1] == LoadModel("demo"), "the model of the chat comes back"


async def test_an_adapter_that_does_not_load(training):
    failed = lambda job: [JobFailed("it does not fit", True, 6)] if job.adapter else loading()  # noqa: E731
    async with training() as s:
        s.runtime._load = failed
        await open_runs(s)
        await s.press("enter")
        await s.until(lambda: "✓ finished" in s.frame())
        await s.press("b")
        await s.until(lambda: "It does not fit." in s.frame())
        await s.press("escape")


# ----------------------------------------------------------------------------------------------------------- speed


async def test_the_screen_never_waits_long(training):
    """The longest time between two turns of the event loop while a long run streams in, and the form is filled in."""
    many = [step(number, 1500) for number in range(1, 1501)]
    async with training(run=[*beginning(), *many, Gate()]) as s:
        await start(s)
        await s.until(lambda: "1,500 of 1,500" in s.frame())
        s.app.screen.view.apply(step(1500, 1500))
        s.app.screen.look()
        began = time.process_time()
        for _ in range(5):
            s.app.screen.view.apply(step(1500, 1500))
            s.app.screen.look()
            s.app.screen.query_one("#loss", Chart).render()
            await asyncio.sleep(0)
        assert (time.process_time() - began) / 5 < 0.1
