"""The settings screen, what its values do, and the file they are kept in."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, OptionList

from qwen_mlx.events import LoadModel
from tests.tui.fake_runtime import Gate, reply
from tests.tui.test_models import FakeShelf
from tui.announce import sequence
from tui.preferences import Preferences
from tui.screens.parameters import ParametersScreen
from tui.screens.settings import SettingsScreen
from tui.settings import settings
from tui.themes import DARK, LIGHT


async def open_settings(s):
    await s.press("f3")
    await s.until(lambda: isinstance(s.app.screen, SettingsScreen) and "Theme" in s.frame())
    await s.pilot.pause()


def marked(s):
    return s.app.screen.query_one(OptionList).highlighted_option.id


async def go_to(s, name):
    for _ in range(20):
        if marked(s) == name:
            return
        await s.press("down")
    raise AssertionError(f"{name} is not in the list")


def saved(s):
    """What is on disk."""
    return Preferences(s.folder / "preferences.json")


@pytest.mark.parametrize("way", ["key", "slash", "palette"])
async def test_the_ways_there(stage, way):
    async with stage() as s:
        if way == "key":
            await s.press("f3")
        elif way == "slash":
            await s.send("/settings")
        else:
            await next(c for c in s.app.get_system_commands(s.chat) if c.title == "Settings").callback()
        await s.until(lambda: isinstance(s.app.screen, SettingsScreen) and "Theme" in s.frame())
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)


async def test_by_key_and_by_mouse(stage):
    async with stage(shelf=FakeShelf(), model="demo") as s:
        await open_settings(s)
        assert marked(s) == "theme"
        await s.press("right")
        await s.until(lambda: s.app.theme == LIGHT.name and saved(s).theme == LIGHT.name)
        await s.press("left")
        await s.until(lambda: s.app.theme == DARK.name and saved(s).theme == DARK.name)
        await s.press("down", "down", "space")
        assert marked(s) == "list_width"
        await s.until(lambda: saved(s).list_width == "wide" and s.chat.sidebar.styles.width.value == 48)
        row = next(y for y, line in enumerate(s.frame().splitlines()) if "Width of the list" in line)
        x = s.frame().splitlines()[row].index("Width")
        await s.pilot.click(offset=(x, row))
        await s.until(lambda: saved(s).list_width == "narrow" and s.chat.sidebar.styles.width.value == 32)
        await go_to(s, "default_model")
        assert "Model to begin with" in s.frame() and "the one used last" in s.frame()
        await s.press("enter", "enter")
        await s.until(lambda: saved(s).default_model == "Qwen/Qwen3-0.6B")
        assert "Qwen/Broken" not in [value for value, _ in s.app.screen._named("default_model").choices]


async def test_every_setting_has_values_words_and_a_property(tmp_path):
    preferences = Preferences(tmp_path / "p.json")
    for _, group in settings([DARK.name], ["demo"]):
        for setting in group:
            assert hasattr(preferences, setting.name) and setting.title and setting.help
            values = [value for value, _ in setting.choices]
            assert len(set(values)) == len(values)
            if setting.choices and setting.name != "theme":
                assert getattr(preferences, setting.name) in values
                for value in values:  # every value that can be chosen is read back as it was
                    preferences.keep(**{setting.name: value})
                    assert getattr(Preferences(tmp_path / "p.json"), setting.name) == value
                assert setting.after(setting.after(values[0], 1), -1) == values[0]
            if setting.choices:
                assert setting.after("gone", 1) == values[0]


async def test_what_was_chosen_counts_after_a_restart(stage):
    async with stage(reply("a", "a thought")) as s:
        await open_settings(s)
        for name, presses in (("thinking_open", 1), ("thinking", 1), ("list_shown", 1), ("kv_bits", 1)):
            await go_to(s, name)
            await s.press(*["right"] * presses)
        await go_to(s, "sampling")
        await s.press("enter")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen) and "every new conversation" in s.frame())
        assert not s.app.screen.query("#system")
        s.app.screen.query_one("#temperature", Input).value = "0.3"
        await s.press("ctrl+s")
        await s.until(lambda: isinstance(s.app.screen, SettingsScreen) and "temperature 0.3" in s.frame())
        await s.press("escape")
        await s.ask("x")
        assert s.runtime.asked[0].sampling.temperature == 0.3 and s.runtime.asked[0].thinking is True
        assert s.answers[-1].unfolded
        await s.until(lambda: saved(s).kv_bits == "8" and saved(s).sampling == {"temperature": 0.3})
    async with stage(reply("a", "a thought")) as s:
        assert s.app.conductor.kv_bits == "8" and s.chat.sidebar.display is False
        await s.ask("y")
        assert s.runtime.asked[0].sampling.temperature == 0.3 and s.runtime.asked[0].thinking is True
        assert s.answers[-1].unfolded and "a thought" in s.frame()


async def test_kv_loads_the_model_again(stage):
    async with stage(reply("ok"), model="demo") as s:
        await s.send("/kv 8/4")
        await s.until(lambda: s.runtime.jobs and isinstance(s.runtime.jobs[-1], LoadModel))
        assert s.runtime.jobs[-1] == LoadModel("demo", kv_bits="8/4")
        await s.idle()
        await s.send("/kv")
        await s.until(lambda: any("in 8/4 bits" in text for text in s.toasts))
        await s.send("/kv off")
        await s.until(lambda: s.runtime.jobs[-1] == LoadModel("demo", kv_bits=None))
        await s.idle()
        await s.send("/kv 5")
        await s.until(lambda: any("takes 8 or 8/4 or 4 or off" in text for text in s.toasts))
        assert saved(s).kv_bits is None


async def test_kv_waits_for_the_answer(stage):
    gate = Gate()
    async with stage(reply("one two", gate=gate), model="demo") as s:
        await s.send("hello")
        await s.until(lambda: s.app.conductor.turn is not None)
        s.chat.action_set_kv("4")
        await s.until(lambda: any("next loading" in text for text in s.toasts))
        assert not [job for job in s.runtime.jobs if isinstance(job, LoadModel)]
        gate.open()
        await s.idle()


async def test_a_choice_of_thinking_never_reaches_a_model_without_one(stage):
    import dataclasses

    from tests.tui.fake_runtime import DEMO, FakeRuntime

    runtime = FakeRuntime(reply("ok"), model=dataclasses.replace(DEMO, thinking="never"))
    async with stage(runtime=runtime) as s:
        s.app.conductor.thinking = True
        await s.ask("x")
        assert runtime.asked[0].thinking is None


@pytest.mark.parametrize(
    ("how", "seconds", "rings"), [("bell", 11, 1), ("message", 11, 1), ("bell", 5, 0), ("off", 11, 0)]
)
async def test_the_end_of_a_long_answer(stage, how, seconds, rings, monkeypatch):
    gate = Gate()
    async with stage(reply("one two", gate=gate)) as s:
        rung, written = [], []
        monkeypatch.setattr(s.app, "bell", lambda: rung.append(1))
        monkeypatch.setattr(s.app, "write_to_terminal", written.append)
        s.app.preferences.choose(announce=how)
        await s.send("x")
        await s.until(lambda: s.app.conductor.turn is not None and s.app.conductor.turn.content)
        s.time.pass_by(seconds)
        gate.open()
        await s.idle()
        assert len(rung) == rings
        assert (len(written) == 1 and "The answer is there" in written[0]) == (how == "message")


def test_the_message_for_the_desktop():
    assert sequence("done", {}) == "\x1b]9;done\a"
    assert sequence("a\x1b]0;x\a b", {}) == "\x1b]9;a b\a"
    assert sequence("done", {"TMUX": "1"}) == "\x1bPtmux;\x1b\x1b]9;done\a\x1b\\"


# ------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"\xff\xfe\x00", b'{"theme": ' * 50_000, b" " * 1_000_001, b"null"])
async def test_a_broken_file_is_kept_aside_and_told(stage, tmp_path, damage):
    path = tmp_path / "preferences.json"
    path.write_bytes(damage)
    async with stage() as s:
        await s.until(lambda: any("are kept as preferences.broken.json" in text for text in s.toasts))
        assert (tmp_path / "preferences.broken.json").read_bytes() == damage
        s.app.action_other_theme()
        await s.until(lambda: saved(s).theme == LIGHT.name)
    path.write_bytes(damage)
    assert "broken-2" in (Preferences(path).problem or "")


def test_a_file_that_cannot_be_read_or_written(tmp_path):
    (tmp_path / "preferences.json").mkdir()
    preferences = Preferences(tmp_path / "preferences.json")
    assert "cannot be read" in (preferences.problem or "")
    preferences.keep(theme="x")
    assert preferences.theme == "x"


def test_two_windows_keep_both_choices(tmp_path):
    one, two = Preferences(tmp_path / "p"), Preferences(tmp_path / "p")
    one.keep(theme="a")
    two.keep(model="b", theme=None)
    assert (Preferences(tmp_path / "p").theme, Preferences(tmp_path / "p").model) == (None, "b")
    assert oct((tmp_path / "p").stat().st_mode)[-3:] == "600"


async def test_many_changes_at_once_end_with_the_last(tmp_path):
    preferences = Preferences(tmp_path / "p")
    writes = []
    for number in range(30):
        preferences.choose(theme=str(number), **{f"key{number % 3}": number})
        writes.append(asyncio.to_thread(preferences.save))
    await asyncio.gather(*reversed(writes))
    assert json.loads((tmp_path / "p").read_text())["theme"] == "29"


values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)
NAMES = ("theme", "list_shown", "list_width", "text", "model", "default_model", "kv_bits", "thinking", "thinking_open")
NAMES += ("sampling", "announce", "titles", "offer_dismissed", "download")


@given(st.dictionaries(st.sampled_from(NAMES), values | st.dictionaries(st.text(), values)))
def test_no_value_of_the_file_breaks_anything(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("any") / "p"
    path.write_text(json.dumps(found))
    preferences = Preferences(path)
    assert preferences.problem is None
    for name in NAMES:
        value = getattr(preferences, name)
        assert value is None or isinstance(value, (str, bool, dict))
    assert preferences.thinking in ("auto", "on", "off") and preferences.kv_bits in (None, "8", "4", "8/4")
