"""The screen of the models."""

import re

import pytest
from rich.cells import cell_len
from textual.widgets import Input, OptionList

from qwen_mlx.errors import QwenError
from qwen_mlx.events import (
    ConversionPlanned,
    Converted,
    JobCancelled,
    JobFailed,
    KnownModel,
    LoadModel,
    ModelEntry,
    Progress,
    PullFinished,
    PullModel,
    PullPlanned,
    QuantizeModel,
)
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, loading, reply
from tests.tui.stage import START
from tui.downloads import Download, describe
from tui.preferences import Preferences
from tui.quantizing import refusal
from tui.screens.models import ModelsScreen
from tui.screens.quantize import QuantizeScreen

GB = 1_000_000_000


class FakePull:
    """A download that follows a script."""

    def __init__(self, events):
        self.job = PullModel("x")
        self.events = list(events)
        self.cancelled = False
        self.finished = False

    def cancel(self):
        self.cancelled = True

    def drain(self):
        given = []
        if self.cancelled:
            return [JobCancelled()]
        while self.events and not (isinstance(self.events[0], Gate) and not self.events[0].is_open):
            event = self.events.pop(0)
            if not isinstance(event, Gate):
                given.append(event)
        return given


KNOWN = [
    KnownModel("qwen3:4b", "mlx-community/Qwen3-4B-4bit", 4 * GB, 4.5, 2_250_000_000, 4_460_000_000, "fits"),
    KnownModel("qwen3:8b", "mlx-community/Qwen3-8B-4bit", 8 * GB, 4.5, 4_500_000_000, 6_870_000_000, "tight"),
    KnownModel("qwen3:8b-bf16", "Qwen/Qwen3-8B", 8 * GB, 16, 16 * GB, 18 * GB, "too big", default=False),
    KnownModel("qwen3-coder:30b-a3b", "mlx-community/Qwen3-Coder-30B", 30 * GB, 4.5, 17 * GB, 20 * GB, "too big"),
]


class FakeShelf:
    """Three models, and downloads that follow a script."""

    def __init__(self, *pulls, known=()):
        self._known = list(known)
        self.entries = [
            ModelEntry("demo", 4_000_000, 3_480_000, "8-bit", 8.5, "fits", removable=False),
            ModelEntry("Qwen/Qwen3-0.6B", GB, 600_000_000, "bfloat16", 16.0, "fits", used=START - 3 * 3600),
            ModelEntry("Qwen/Qwen3-32B", 65 * GB, 32 * GB, "bfloat16", 16.0, "too big", used=START - 86400 * 3),
            ModelEntry("Qwen/Broken", 5, problem="incomplete"),
        ]
        self.pulls = list(pulls)
        self.asked = []
        self.deleted = []

    def models(self):
        return list(self.entries)

    def known(self):
        return list(self._known)

    def new_folder(self, name, preset):
        return f"/models/{name.rpartition('/')[2]}-{preset}"

    def pull(self, name):
        self.asked.append(name)
        return self.handle

    @property
    def handle(self):
        if not hasattr(self, "_handle"):
            self._handle = FakePull(self.pulls)
        return self._handle

    def delete(self, name):
        entry = next(entry for entry in self.entries if entry.name == name)
        if entry.problem:
            raise QwenError(f"{name} cannot be deleted now")
        self.entries.remove(entry)
        self.deleted.append(name)
        return entry.size


def rows(s):
    return [" ".join(option.prompt.plain.split()) for option in s.app.screen.query_one(OptionList).options]


def words(s):
    """The screen without its frames, as one line."""
    return " ".join(re.sub("[▕▌│]", " ", s.frame()).split())


async def open_models(s, count=4):
    await s.press("ctrl+l")
    await s.until(
        lambda: isinstance(s.app.screen, ModelsScreen) and s.app.screen.query(OptionList) and len(rows(s)) == count
    )


def finished(name):
    return PullFinished("/f", name, "c", GB, GB, ("a",), 3.0)


async def test_the_list_and_its_filter(stage):
    async with stage(shelf=FakeShelf(), model="demo") as s:
        await open_models(s)
        assert rows(s)[0] == "▌ demo 8.5 bits 4.0 MB ● fits"
        assert rows(s)[1] == "Qwen/Qwen3-0.6B 16.0 bits 1.0 GB ● fits 3h"
        assert "○ too big" in rows(s)[2] and "incomplete" in rows(s)[3]
        s.app.screen.query_one(Input).value = "32b"
        await s.until(lambda: len(rows(s)) == 1)
        s.app.screen.query_one(Input).value = "nothing/such"
        await s.until(lambda: "ctrl+g downloads nothing/such" in s.frame())
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)


async def test_another_model_goes_on_with_the_conversation(stage, tmp_path):
    import dataclasses

    other = dataclasses.replace(DEMO, name="Qwen3-0.6B")
    runtime = FakeRuntime(reply("one"), reply("two"), load=lambda job: loading(DEMO if job.model == "demo" else other))
    runtime.model = None
    async with stage(runtime=runtime, shelf=FakeShelf(), model="demo") as s:
        await s.until(lambda: s.app.conductor.model is not None)
        await s.ask("first")
        await open_models(s)
        await s.press("down", "enter")
        await s.until(lambda: s.app.conductor.model == other)
        assert isinstance(s.runtime.jobs[-1], LoadModel) and s.runtime.jobs[-1].model == "Qwen/Qwen3-0.6B"
        await s.ask("second")
        assert [message.content for message in s.runtime.asked[1].messages] == ["first", "one", "second"]
        assert s.history.messages(1)[-1].model == "Qwen3-0.6B"
        await s.until(lambda: Preferences(tmp_path / "preferences.json").model == "Qwen/Qwen3-0.6B")


async def test_a_broken_model_is_not_used(stage):
    async with stage(shelf=FakeShelf(), model="demo") as s:
        await open_models(s)
        await s.press("down", "down", "down", "down", "enter")
        await s.until(lambda: any("cannot be used: incomplete" in text for text in s.toasts))
        assert isinstance(s.app.screen, ModelsScreen)


async def test_a_download_and_its_progress(stage):
    gate = Gate()
    plan = PullPlanned("qwen3:0.6b", "Qwen/Qwen3-0.6B", "main", "c", "hf", "/f", {"a": GB}, GB, GB)
    shelf = FakeShelf(
        plan, Progress("downloading", GB // 4, GB, "bytes", speed=5e7, remaining=15.0), gate, finished("x")
    )
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s)
        s.app.screen.query_one(Input).value = "qwen3:4b"
        await s.press("ctrl+g")
        await s.until(lambda: "25 %  250 MB of 1.0 GB  50 MB/s  15 s left" in s.frame())
        assert shelf.asked == ["qwen3:4b"]
        await s.press("ctrl+g")
        await s.until(lambda: any("One download at a time" in text for text in s.toasts))
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)
        gate.open()
        await s.until(lambda: any("qwen3:4b is here" in text for text in s.toasts), "also when nobody looks")


async def test_a_download_is_stopped_or_fails(stage):
    shelf = FakeShelf(Gate())
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s)
        s.app.screen.query_one(Input).value = "qwen3:4b"
        await s.press("ctrl+g", "ctrl+x")
        await s.until(lambda: any("goes on from there" in text for text in s.toasts))
        assert shelf.handle.cancelled
        shelf._handle = FakePull([JobFailed("no answer from the hub", True, 5)])
        s.app.screen.query_one(Input).value = "qwen3:8b"
        await s.press("ctrl+g")
        await s.until(lambda: any("No answer from the hub." in text for text in s.toasts))


async def test_deleting_asks_first(stage):
    shelf = FakeShelf()
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s)
        await s.press("ctrl+d")
        await s.until(lambda: any("it is in use" in text for text in s.toasts))
        await s.press("down", "ctrl+d")
        await s.until(lambda: "Delete Qwen/Qwen3-0.6B and free 1.0 GB?" in s.frame())
        await s.press("down", "up")
        await s.until(lambda: "Delete Qwen" not in s.frame())
        await s.press("ctrl+d", "ctrl+d")
        await s.until(lambda: shelf.deleted == ["Qwen/Qwen3-0.6B"] and len(rows(s)) == 3)


async def test_leaving_the_app_stops_the_download(stage):
    shelf = FakeShelf(Gate())
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s)
        s.app.screen.query_one(Input).value = "qwen3:4b"
        await s.press("ctrl+g", "escape", "ctrl+q")
        await s.until(lambda: not s.app.is_running)
    assert shelf.handle.cancelled


def test_progress_in_words():
    download = Download("x", FakePull([]))
    assert describe(download) == "Looking for x…"
    download.progress = Progress("downloading", 0, 10 * GB, "bytes", remaining=3 * 3600)
    assert describe(download).endswith("0 %  0 B of 10.0 GB  3 h 00 min left")


# ------------------------------------------------------------------------------------------- published models


async def test_published_models_with_what_they_take(stage):
    shelf = FakeShelf(known=KNOWN)
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s, 8)
        assert rows(s)[5:] == [
            "↓ qwen3:4b 4.5 bits ~2.2 GB ● fits",
            "↓ qwen3:8b 4.5 bits ~4.5 GB ◐ tight",
            "↓ qwen3-coder:30b-a3b 4.5 bits ~17.0 GB ○ too big",
        ]
        s.app.screen.query_one(Input).value = "8b bf16"
        await s.until(lambda: len(rows(s)) == 2)
        assert rows(s)[-1] == "↓ qwen3:8b-bf16 16 bits ~16.0 GB ○ too big"
        await s.until(lambda: "Qwen/Qwen3-8B: about 16.0 GB to download" in s.frame())
        assert "too much for this machine" in words(s)


async def test_a_published_model_is_downloaded_by_key_and_by_mouse(stage):
    shelf = FakeShelf(Gate(), known=KNOWN)
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s, 8)
        s.app.screen.query_one(Input).value = "qwen3:4b"
        await s.until(lambda: "2.2 GB to download, 4.5 GB of memory" in s.frame())
        await s.press("enter")
        await s.until(lambda: "Download qwen3:4b, about 2.2 GB? enter again begins." in s.frame())
        assert shelf.asked == []
        await s.press("enter")
        await s.until(lambda: shelf.asked == ["qwen3:4b"])
        assert Preferences(s.folder / "preferences.json").download in (None, "qwen3:4b")
        await s.until(lambda: Preferences(s.folder / "preferences.json").download == "qwen3:4b")
        await click(s, "esc leave")
        await s.until(lambda: s.app.screen is s.chat)
    again = FakeShelf(finished("x"), known=KNOWN)
    async with stage(shelf=again, model="demo") as s:
        await open_models(s, 8)
        await s.until(lambda: "The download of qwen3:4b was not finished" in s.frame())
        await click(s, "ctrl+g download")
        await s.until(lambda: again.asked == ["qwen3:4b"])
        await s.until(lambda: any("qwen3:4b is here" in text for text in s.toasts))
        await s.until(lambda: Preferences(s.folder / "preferences.json").download is None)


async def test_an_unfinished_download_can_be_forgotten(stage, tmp_path):
    Preferences(tmp_path / "preferences.json").keep(download="org/large")
    async with stage(shelf=FakeShelf(), model="demo") as s:
        await open_models(s)
        await s.press("ctrl+x")
        await s.until(lambda: Preferences(tmp_path / "preferences.json").download is None)
        await s.until(lambda: "not finished" not in s.frame())


async def click(s, text):
    """Click on a text of the screen."""
    await s.until(lambda: text in s.frame(), text)
    lines = s.frame().splitlines()
    row = next(y for y, line in enumerate(lines) if text in line)
    await s.pilot.click(offset=(cell_len(lines[row][: lines[row].index(text)]) + 1, row))


# ------------------------------------------------------------------------------------------- making one smaller

PLAN = ConversionPlanned("/models/x", GB, GB // 3, GB // 3, 50 * GB, GB, 600_000_000, 16.0, 5.0, {"4-bit": 1})


@pytest.mark.parametrize("way", ["keys", "mouse"])
async def test_a_model_is_made_smaller(stage, way):
    gate = Gate()
    work = [PLAN, Progress("write", GB // 6, GB // 3, "bytes"), gate, Converted(PLAN, 1, 3.0)]
    shelf = FakeShelf()
    runtime = FakeRuntime(reply("ok"), work=work)
    async with stage(runtime=runtime, shelf=shelf, model="demo") as s:
        await open_models(s)
        await s.press("down")
        if way == "keys":
            await s.press("ctrl+t")
        else:
            await click(s, "ctrl+t shrink")
        await s.until(lambda: isinstance(s.app.screen, QuantizeScreen) and "~375 MB" in s.frame())
        assert "quality or max suit it best" in words(s)
        if way == "keys":
            await s.press("down", "enter")
        else:
            await click(s, "small ")
        await s.until(lambda: runtime.jobs and isinstance(runtime.jobs[-1], QuantizeModel))
        assert runtime.jobs[-1] == QuantizeModel("Qwen/Qwen3-0.6B", "/models/Qwen3-0.6B-small", "small")
        await s.until(lambda: "49 %  167 MB of 333 MB" in s.frame())
        await s.press("ctrl+t")
        await s.until(lambda: any("One at a time" in text for text in s.toasts))
        await s.press("escape")
        await s.until(lambda: "Making Qwen/Qwen3-0.6B smaller" in s.frame())
        await s.send("and meanwhile?")
        await s.until(lambda: "Waiting: making Qwen" in s.frame())
        await s.press("ctrl+l")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen))
        shelf.entries.append(ModelEntry("Qwen3-0.6B-small", GB // 3, 600_000_000, "4-bit", 4.8, "fits"))
        gate.open()
        await s.until(lambda: any("Qwen3-0.6B-small is made, 333 MB" in text for text in s.toasts))
        await s.until(lambda: any("Qwen3-0.6B-small" in row for row in rows(s)))
        await s.press("escape")
        await s.idle()


async def test_a_quantization_is_stopped_or_fails(stage):
    runtime = FakeRuntime(work=[PLAN, Gate()])
    async with stage(runtime=runtime, shelf=FakeShelf(), model="demo") as s:
        await open_models(s)
        await s.press("down", "ctrl+t")
        await s.until(lambda: isinstance(s.app.screen, QuantizeScreen) and "~375 MB" in s.frame())
        await s.press("escape")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen))
        assert runtime.jobs == []
        await s.press("ctrl+t")
        await s.until(lambda: isinstance(s.app.screen, QuantizeScreen) and "~375 MB" in s.frame())
        await s.press("enter")
        await s.until(lambda: "Beginning" in s.frame())
        await s.press("ctrl+x")
        await s.until(lambda: any("nothing is left of the smaller one" in text for text in s.toasts))
        runtime._work = [JobFailed("there is too little space", True, 4)]
        await s.press("ctrl+t")
        await s.until(lambda: isinstance(s.app.screen, QuantizeScreen) and "~375 MB" in s.frame())
        await s.press("enter", "escape")
        await s.until(lambda: any("was not made smaller: there is too little space." in text for text in s.toasts))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (ModelEntry("demo", 4, removable=False), "part of the program"),
        (ModelEntry("a/b", 4, problem="incomplete"), "cannot be used: incomplete"),
        (ModelEntry("a/b", 4, 1000, "4-bit", 4.5), "small already, 4.5 bits a weight"),
        (ModelEntry("a/b", 4, 1000, "8-bit", 8.5), "small already, 8.5 bits a weight"),
        (ModelEntry("a/b", 4, 1000, "bfloat16", 16.0), None),
    ],
)
def test_what_is_not_made_smaller(entry, why):
    reason = refusal(entry)
    assert reason is None if why is None else why in reason


async def test_a_refusal_is_polite(stage):
    shelf = FakeShelf(known=KNOWN)
    async with stage(shelf=shelf, model="demo") as s:
        await open_models(s, 8)
        await s.press("ctrl+t")
        await s.until(lambda: any("demo is part of the program, and tiny already" in text for text in s.toasts))
        await s.press("down", "down", "down", "down", "ctrl+t")
        await s.until(lambda: any("Only a model that is here can be made smaller" in text for text in s.toasts))


async def test_the_model_to_begin_with(stage):
    async with stage(shelf=FakeShelf(), model="demo") as s:
        await open_models(s)
        await s.press("down", "ctrl+s")
        await s.until(lambda: "Qwen/Qwen3-0.6B ★" in s.frame())
        await s.until(lambda: Preferences(s.folder / "preferences.json").default_model == "Qwen/Qwen3-0.6B")
        await click(s, "ctrl+s begin with it")
        await s.until(lambda: Preferences(s.folder / "preferences.json").default_model is None)
        assert "★" not in s.frame()


# ------------------------------------------------------------------------------------------- the first run


def only_the_demo(*pulls):
    shelf = FakeShelf(*pulls, known=KNOWN)
    shelf.entries = shelf.entries[:1]
    return shelf


@pytest.mark.parametrize("way", ["key", "mouse"])
async def test_the_first_run_offers_a_model_that_fits(stage, way):
    gate = Gate()
    progress = Progress("downloading", GB // 4, GB, "bytes", speed=5e7, remaining=15.0)
    shelf = only_the_demo(progress, gate, finished("x"))
    async with stage(shelf=shelf, model="demo") as s:
        await s.until(lambda: "qwen3:4b fits this machine" in s.frame())
        assert "~2.2 GB on disk, ~4.5 GB of memory" in words(s)
        if way == "key":
            await s.press("f4")
        else:
            await click(s, "download qwen3:4b")
        await s.until(lambda: shelf.asked == ["qwen3:4b"])
        await s.until(lambda: "25 %" in s.frame())
        shelf.entries.append(ModelEntry("mlx-community/Qwen3-4B-4bit", GB, 4 * GB, "4-bit", 4.5, "fits"))
        gate.open()
        await s.until(lambda: any("qwen3:4b is here" in text for text in s.toasts))
        await s.until(lambda: "fits this machine" not in s.frame() and "25 %" not in s.frame())


async def test_the_offer_is_turned_down_for_good(stage):
    async with stage(shelf=only_the_demo(), model="demo") as s:
        await click(s, "not now")
        await s.until(lambda: "fits this machine" not in s.frame())
        await s.until(lambda: Preferences(s.folder / "preferences.json").offer_dismissed)
        await s.press("f4")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen))
    async with stage(shelf=only_the_demo(), model="demo") as s:
        await s.pilot.pause(0.3)
        assert "fits this machine" not in s.frame()


async def test_no_offer_where_a_model_is_or_nothing_fits(stage):
    async with stage(shelf=FakeShelf(known=KNOWN), model="demo") as s:
        await s.pilot.pause(0.3)
        assert "fits this machine" not in s.frame()
    shelf = only_the_demo()
    shelf._known = KNOWN[1:]
    async with stage(shelf=shelf, model="demo") as s:
        await s.pilot.pause(0.3)
        assert "fits this machine" not in s.frame()


async def test_the_welcome_goes_on_with_a_download(stage, tmp_path):
    Preferences(tmp_path / "preferences.json").keep(download="qwen3:8b")
    shelf = only_the_demo(Gate())
    async with stage(shelf=shelf, model="demo") as s:
        await s.until(lambda: "The download of qwen3:8b was not finished" in s.frame())
        await s.press("f4")
        await s.until(lambda: shelf.asked == ["qwen3:8b"])


async def test_the_welcome_and_the_list_agree_about_the_demo(stage):
    """The same bytes on the disk in both; memory is another number, and says so."""
    import dataclasses

    from qwen_mlx import paths
    from qwen_mlx.runtime.shelf import LocalShelf
    from tui.wording import size

    info = dataclasses.replace(DEMO, folder=str(paths.demo_model()), memory=14_000_000)
    (demo,) = [model for model in LocalShelf().models() if model.name == "demo"]
    async with stage(runtime=FakeRuntime(model=info)) as s:
        assert f"{size(demo.size)} on disk · 14 MB in memory" in words(s)
