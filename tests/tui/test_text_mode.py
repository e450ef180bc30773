"""Text only, for screen readers, and the app without colours."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.widgets import OptionList

from tests.tui.fake_runtime import Gate, failure, reply
from tests.tui.test_frames import ANSWER, THOUGHT
from tests.tui.test_models import KNOWN, FakeShelf
from tui.preferences import Preferences
from tui.screens.help import HelpScreen
from tui.screens.models import ModelsScreen
from tui.screens.parameters import ParametersScreen
from tui.screens.search import SearchScreen
from tui.screens.settings import SettingsScreen
from tui.text_mode import plain

DRAWN = re.compile("[\u2500-\u259f\u25a0-\u25ff\u2800-\u28ff\u2713-\u2718❯›‹◆]")


def colours(s):
    """Every colour on screen."""
    return {
        colour
        for line in s.app.screen._compositor.render_strips()
        for segment in line
        if segment.style is not None
        for colour in (segment.style.color, segment.style.bgcolor)
        if colour is not None and not colour.is_default
    }


async def look(s, where):
    await s.pilot.pause(0.1)
    frame = s.frame()
    assert not DRAWN.search(frame), (where, DRAWN.findall(frame), frame)
    assert not colours(s), where


@pytest.mark.parametrize("size", [(60, 20), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_no_screen_draws_anything(stage, size):
    shelf = FakeShelf(known=KNOWN)
    shelf.entries = shelf.entries[:1]
    replies = (reply(ANSWER, THOUGHT), reply("one two", gate=(gate := Gate())), failure("it broke"))
    async with stage(*replies, size=size, text=True, shelf=shelf, model="demo") as s:
        await s.until(lambda: "fits this machine" in s.frame().replace("\n", " "))
        await look(s, "welcome")
        await s.ask("Which?")
        await look(s, "answer")
        await s.press("ctrl+o")
        await look(s, "unfolded")
        await s.send("more")
        await s.until(lambda: s.app.conductor.turn is not None and s.app.conductor.turn.content)
        await s.send("and this waits")
        await look(s, "streaming")
        gate.open()
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        await s.until(lambda: "Failed." in s.frame())
        await look(s, "failed")
        await s.press("ctrl+up", "e")
        await look(s, "editing")
        await s.press("escape", "/")
        await look(s, "slash")
        await s.press("escape")
        s.prompt.clear()
        for key, screen in (
            *(("f1", HelpScreen), ("f2", ParametersScreen), ("f3", SettingsScreen)),
            *(("ctrl+l", ModelsScreen), ("ctrl+s", SearchScreen)),
        ):
            await s.press(key)
            await s.until(lambda screen=screen: isinstance(s.app.screen, screen) and s.app.screen.query("Still"))
            await look(s, key)
            await s.press("escape")
            await s.until(lambda: s.app.screen is s.chat)
        await s.press("ctrl+b")
        await look(s, "list")
        await s.press("ctrl+p")
        await s.until(lambda: s.app.screen is not s.chat)
        await look(s, "palette")


async def test_one_thing_below_the_other_and_whose_it_is(stage):
    async with stage(reply("Hi there", "a thought"), size=(120, 40), text=True) as s:
        assert not s.chat.sidebar.display
        await s.ask("hello")
        lines = [line.strip() for line in s.frame().splitlines() if line.strip()]
        places = [lines.index(line) for line in ("You:", "hello", "qwen-demo:", "Hi there")]
        assert places == sorted(places)
        assert "Thought for 12.4 s" in s.frame()
        await s.press("ctrl+b")
        await s.until(lambda: s.chat.sidebar.display and "Hi there" not in s.frame())
        await s.press("enter")
        await s.until(lambda: "Hi there" in s.frame() and not s.chat.sidebar.display)


async def test_the_focus_is_said(stage):
    async with stage(reply("Hi", "a thought"), text=True) as s:
        await s.until(lambda: "Focus: prompt" in s.frame())
        await s.ask("hello")
        await s.press("ctrl+up")
        await s.until(lambda: "Focus: message 2 of 2, an answer" in s.frame())
        await s.press("up")
        await s.until(lambda: "Focus: message 1 of 2, yours" in s.frame())
        await s.press("escape")
        s.chat.query_one("ThinkingHeader").focus()
        await s.until(lambda: "Focus: thinking, folded" in s.frame())
        await s.press("ctrl+b")
        await s.until(lambda: "Focus: list of conversations" in s.frame())


async def test_nothing_moves_by_itself(stage):
    """A screen reader reads what changes: no spinner turns, no seconds run."""
    gate = Gate()
    async with stage(reply("a b", "t h", between=[gate]), text=True) as s:
        await s.send("x")
        await s.until(lambda: "Thinking" in s.frame() or s.app.conductor.turn)
        await s.until(lambda: s.app.conductor.turn is not None and s.app.conductor.turn.reasoning)
        await s.pilot.pause(0.2)
        before = s.frame()
        for _ in range(3):
            s.time.pass_by(1.3)
            await s.pilot.pause(0.15)
            assert s.frame() == before
        gate.open()
        await s.idle()


async def test_it_is_switched_on_and_off_and_kept(stage):
    async with stage(reply("Hi")) as s:
        await s.ask("hello")
        assert "╭" in s.frame() and "You:" not in s.frame()
        s.chat.choices.change("text", True)
        await s.until(lambda: "You:" in s.frame() and not DRAWN.search(s.frame()))
        s.chat.choices.change("text", False)
        await s.until(lambda: "╭" in s.frame() and "You:" not in s.frame())
        s.chat.choices.change("text", True)
        await s.until(lambda: Preferences(s.folder / "preferences.json").text)
    async with stage(reply("Hi")) as s:
        assert not DRAWN.search(s.frame())
    async with stage(reply("Hi"), text=False) as s:
        assert "╭" in s.frame(), "the option goes before the preference"


async def test_no_colour(stage, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with stage(reply(ANSWER, THOUGHT), shelf=FakeShelf(), model="demo") as s:
        await s.ask("Which?")
        assert "╭" in s.frame() and not colours(s)
        await s.press("ctrl+l")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen) and "Qwen3-32B" in s.frame())
        assert not colours(s)
        listing = s.app.screen.query_one(OptionList)
        listing.highlighted = 1
        await s.pilot.pause(0.1)
        underlined = [
            segment.text
            for line in s.app.screen._compositor.render_strips()
            for segment in line
            if segment.style is not None and segment.style.underline
        ]
        assert any("Qwen3-0.6B" in text for text in underlined), "what is marked shows without a colour"


@given(st.text())
def test_plain_text_has_the_same_width(text):
    assert len(plain(text)) == len(text)
    assert all(cell_len(a) == cell_len(b) for a, b in zip(text, plain(text)) if a != b)
    assert not DRAWN.search(plain("─│╭╯━┃█▌▁●○◐▸▾❯‹›✓✗◆⠋" + text)[:20])
