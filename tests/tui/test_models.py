"""The screen of the models."""

from textual.widgets import Input, OptionList

from qwen_mlx.errors import QwenError
from qwen_mlx.events import (
    JobCancelled,
    JobFailed,
    LoadModel,
    ModelEntry,
    Progress,
    PullFinished,
    PullModel,
    PullPlanned,
)
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, loading, reply
from tests.tui.stage import START
from tui.downloads import Download, describe
from tui.preferences import Preferences
from tui.screens.models import ModelsScreen

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


class FakeShelf:
    """Three models, and downloads that follow a script."""

    def __init__(self, *pulls):
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
