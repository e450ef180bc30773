"""The screens of training as text, compared with files in `frames/`; see `test_frames`."""

import pytest
from textual.widgets import Input

from qwen_mlx.events import TrainingNotice
from tests.tui.fake_runtime import Gate, reply
from tests.tui.test_frames import SIZES, compare
from tests.tui.test_models import FakeShelf
from tests.tui.training_stage import FakeWorkshop, TrainingRuntime, beginning, course, evaluation
from tui.screens.beside import BesideScreen
from tui.screens.compare import CompareScreen
from tui.screens.run_new import NewRunScreen
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen

NOTICE = TrainingNotice("loss-spike", "the loss went from 1.2 to 3.4: poems.jsonl:7", "A smaller rate may help.", 41)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_screens_of_training_look_as_they_did(stage, size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poems.jsonl").write_text("{}\n", "utf-8")
    where = f"{size[0]}x{size[1]}"
    run = [*beginning(), evaluation(0, False), *course(1, 41), NOTICE, *course(42, 75), Gate()]
    runtime = TrainingRuntime(reply("Rain is water that falls."), reply("Soft rain falls."), run=run)
    s = stage(runtime=runtime, shelf=FakeShelf(), workshop=FakeWorkshop(), model="demo", size=size)
    async with s:
        await s.press("f5")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen) and "✗ failed" in s.frame())
        await s.press("space", "space")
        await s.until(lambda: "2 runs are marked" in s.frame())
        await compare(s, f"runs-{where}")
        await s.press("c")
        await s.until(lambda: isinstance(s.app.screen, CompareScreen) and "best valid loss" in s.frame())
        await compare(s, f"runs-compared-{where}")
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, RunsScreen))
        await s.press("up", "up", "enter")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen) and "✓ finished" in s.frame())
        await s.press("b")
        await s.until(lambda: isinstance(s.app.screen, BesideScreen) and "Its answers come here" in s.frame())
        s.app.screen.query_one(Input).value = "A poem on rain"
        await s.press("enter")
        await s.until(lambda: "Soft rain falls." in s.frame())
        await compare(s, f"run-beside-{where}")
        await s.press("escape", "escape", "n")
        await s.until(lambda: isinstance(s.app.screen, NewRunScreen) and s.app.screen.query("#data-train"))
        s.app.screen.query_one("#data-train", Input).value = "poems.jsonl"
        await s.until(lambda: "16.0 GB: fits" in s.frame())
        s.app.screen.query_one("#adapter-rank", Input).value = "many"
        s.app.screen.query_one("#adapter-rank", Input).focus()
        await s.until(lambda: "Expected a whole number" in s.frame())
        await compare(s, f"run-new-{where}")
        if size[0] < 110:
            await s.press("ctrl+d")
            await s.until(lambda: "Soft rain falls" in s.frame())
            await compare(s, f"run-new-data-{where}")
        s.app.screen.query_one("#adapter-rank", Input).value = "16"
        await s.until(lambda: not s.app.screen.query_one("#row-adapter-rank").has_class("-wrong"))
        await s.press("ctrl+s")
        await s.until(lambda: isinstance(s.app.screen, WatchScreen) and "62 %" in s.frame())
        await compare(s, f"run-watch-{where}")
        if size[0] < 100:
            await s.press("t")
            await s.until(lambda: "Notices" in s.frame())
            await compare(s, f"run-watch-samples-{where}")
        await s.press("escape", "escape")
        await s.until(lambda: s.app.screen is s.chat and "◉ 62 %" in s.frame())
