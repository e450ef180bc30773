"""Presets: chosen per conversation, made, renamed, deleted, and found again."""

import json

import pytest
from textual.widgets import Input, OptionList, TextArea

from qwen_mlx.errors import UsageError
from qwen_mlx.events import SamplingOptions
from tests.tui.fake_runtime import reply
from tui.conductor import Settings
from tui.presets import BUILT_IN, DEFAULT, MAX_NAME, Preset, Presets, preset_of
from tui.screens.parameters import ParametersScreen, PresetLine, Switch
from tui.screens.presets import PresetsScreen


@pytest.fixture
def presets(tmp_path):
    return Presets(tmp_path / "data" / "presets.json")


def test_own_presets_are_kept(presets):
    mine = preset_of("  My\tone ", Settings("Be kind.", {"temperature": 0.5, "tools": True, "thinking": "off"}))
    assert mine == Preset("My one", "Be kind.", {"temperature": 0.5, "thinking": "off"})
    assert presets.save(mine) is False and presets.save(mine) is True
    assert Presets(presets.path).all() == [*BUILT_IN, mine]
    assert presets.path.stat().st_mode & 0o777 == 0o600
    assert presets.rename("my one", "Other").name == "Other"
    assert presets.find("oth").system == "Be kind."
    assert presets.delete("other").name == "Other" and presets.all() == [*BUILT_IN]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda p: p.rename("none", "x"), "no preset “none” of yours"),
        (lambda p: p.rename("mine", "Precise"), "is built in"),
        (lambda p: p.rename("mine", "theirs"), "there is a preset “theirs” already"),
        (lambda p: p.delete("Precise"), "is built in"),
        (lambda p: preset_of(" ", Settings()), "needs a name"),
        (lambda p: preset_of("x" * (MAX_NAME + 1), Settings()), "too long"),
        (lambda p: p.find("pr"), "one of Precise, Programmer"),
        (lambda p: p.find(""), "there is no preset"),
    ],
)
def test_what_cannot_be_done(presets, act, reason):
    presets.save(Preset("mine"))
    presets.save(Preset("theirs"))
    with pytest.raises(UsageError, match=reason):
        act(presets)
    assert {p.name for p in presets.all() if p.own} == {"mine", "theirs"}


def test_a_damaged_file_is_put_aside(presets):
    presets.path.parent.mkdir()
    presets.path.write_text('{"presets": [{"name": "lost?"')
    assert presets.all() == [*BUILT_IN]
    presets.save(Preset("new"))
    assert "lost?" in (presets.path.parent / "presets.broken.json").read_text()
    presets.path.write_text(
        json.dumps({"presets": [{"name": "ok", "params": {"top_p": 7, "seed": 3, "x": 1}}, 3, {"name": "Precise"}]})
    )
    assert [p for p in presets.all() if p.own] == [Preset("ok", None, {"seed": 3})]


def test_two_windows_lose_nothing(presets):
    other = Presets(presets.path)
    presets.save(Preset("one"))
    other.save(Preset("two"))
    assert {p.name for p in presets.all() if p.own} == {"one", "two"}


def test_what_a_preset_knows_nothing_of_stays():
    before = Settings("old", {"temperature": 1.0, "tools": True, "thinking": "on", "preset": "x"})
    after = BUILT_IN[1].settings(before)
    assert after.params == {"tools": True, "temperature": 0.3, "top_p": 0.9, "preset": "Precise"}
    assert DEFAULT.settings(before) == Settings(None, {"tools": True})


async def test_by_command_for_the_next_conversation_and_for_an_open_one(stage):
    async with stage(reply("ok")) as s:
        await s.send("/preset trans")
        await s.until(lambda: "f9 Translator" in s.frame())
        await s.ask("x")
        job = s.runtime.asked[0]
        assert job.messages[0].role == "system" and "translator" in job.messages[0].content
        assert job.sampling == SamplingOptions(temperature=0.3) and job.thinking is False
        await s.press("ctrl+t")
        await s.until(lambda: "thinking auto" in s.frame())
        assert s.app.conductor.thinking is None and s.history.conversation(1).params["thinking"] == "auto"
        await s.send("/preset creative")
        await s.until(lambda: s.history.conversation(1).params.get("preset") == "Creative")
        await s.press("ctrl+n")
        await s.until(lambda: s.chat.conversation is None)
        assert "f9 " not in s.frame(), "a new conversation begins as ever"
        await s.send("/preset nonsense")
        await s.until(lambda: any("There is no preset “nonsense”" in text for text in s.toasts))
    async with stage(reply("ok")) as s:
        await s.chat.open(1)
        await s.until(lambda: "f9 Creative" in s.frame())
        await s.ask("y")
        assert s.runtime.asked[0].sampling.temperature == 1.1
        await s.send("/preset default")
        await s.until(lambda: dict(s.history.conversation(1).params) == {})
        assert s.history.conversation(1).system is None


async def test_the_list_by_key(stage):
    async with stage(reply("ok")) as s:
        await s.send("/system Be brief.")
        await s.press("f9")
        await s.until(lambda: isinstance(s.app.screen, PresetsScreen) and "Translator" in s.frame())
        await s.press("s")
        await s.until(lambda: s.app.screen.query_one(Input).has_focus)
        await s.press(*"Brief", "enter")
        await s.until(lambda: "yours" in s.frame() and s.app.screen.query_one(OptionList).has_focus)
        assert "“Be brief.”" in s.frame()
        await s.press("r")
        await s.until(lambda: s.app.screen.query_one(Input).has_focus)
        await s.press(*"Brief2", "enter")
        await s.until(lambda: "Brief2" in s.frame() and not s.app.screen.query_one(Input).display)
        await s.press("delete")
        await s.until(lambda: "“Brief2” is deleted" in s.frame())
        await s.press("delete")
        await s.until(lambda: "is built in" in s.frame())
        await s.press("u")
        await s.until(lambda: "Brief2" in s.frame())
        await s.press("enter")
        await s.until(lambda: s.app.screen is s.chat and "f9 Brief2" in s.frame())
        assert s.chat.settings == Settings("Be brief.", {"preset": "Brief2"})


async def test_the_list_by_mouse(stage):
    async with stage(reply("ok"), size=(60, 20)) as s:
        await s.press("f9")
        await s.until(lambda: isinstance(s.app.screen, PresetsScreen) and "Creative" in s.frame())
        await s.pilot.click("#hits", offset=(4, 2))
        await s.until(lambda: s.app.screen is s.chat)
        assert s.chat.settings.params["preset"] == "Creative"


async def test_from_the_parameters(stage):
    async with stage(reply("ok")) as s:
        await s.press("f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen))
        screen = s.app.screen
        await s.pilot.click(PresetLine)
        await s.until(lambda: isinstance(s.app.screen, PresetsScreen) and "Translator" in s.frame())
        await s.press("down", "down", "down", "enter")
        await s.until(lambda: s.app.screen is screen and screen.query_one("#temperature", Input).value == "0.3")
        assert "translator" in screen.query_one(TextArea).text
        assert screen.query_one("#thinking", Input).value == "off"
        screen.query_one("#temperature", Input).value = "0.4"
        screen.query_one("#tools", Switch).show(True)
        await s.press("ctrl+s")
        await s.until(lambda: s.app.screen is s.chat)
        params = dict(s.chat.settings.params)
        assert params == {"temperature": 0.4, "thinking": "off", "preset": "Translator", "tools": True}
        await s.press("f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen))
        s.app.screen.query_one("#thinking", Input).value = "maybe"
        await s.press("ctrl+s")
        await s.until(lambda: "Thinking must be on, off or auto" in s.frame())
        s.app.screen.query_one("#thinking", Input).value = ""
        s.app.screen.query_one("#tools_folder", Input).value = "/no/such"
        await s.press("ctrl+s")
        await s.until(lambda: "/no/such is no folder" in s.frame())
        await s.press("escape")


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_the_keys_of_the_parameters_are_never_cut(stage, size):
    async with stage(size=size) as s:
        await s.press("f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen) and "Temperature" in s.frame())
        for _ in range(16):
            await s.press("tab")
        assert "ctrl+s keep · tab next field · esc leave it" in s.frame()
