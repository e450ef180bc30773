"""The system prompt and the numbers of a conversation."""

import pytest
from textual.widgets import Input, TextArea

from qwen_mlx.events import Message, SamplingOptions
from tests.tui.fake_runtime import reply
from tui.screens.parameters import FIELDS, ParametersScreen, parse


async def open_screen(s):
    await s.press("f2")
    await s.until(lambda: isinstance(s.app.screen, ParametersScreen))
    return s.app.screen


async def test_they_hold_for_the_next_conversation_and_are_kept_with_it(stage):
    async with stage(reply("ok"), reply("ok")) as s:
        screen = await open_screen(s)
        assert "of the next conversation" in s.frame()
        screen.query_one(TextArea).text = "Answer in one word."
        screen.query_one("#temperature", Input).value = "0,5"
        screen.query_one("#top_k", Input).value = "20"
        await s.press("ctrl+s")
        await s.until(lambda: s.app.screen is s.chat)
        await s.ask("x")
        asked = s.runtime.asked[0]
        assert asked.sampling == SamplingOptions(temperature=0.5, top_k=20)
        assert asked.messages[0] == Message("system", "Answer in one word.")
        await s.press("ctrl+n")
        await s.ask("y")
        assert s.runtime.asked[1].sampling == SamplingOptions()
        assert len(s.runtime.asked[1].messages) == 1
        stored = s.history.conversation(1)
        assert stored.system == "Answer in one word." and dict(stored.params) == {"temperature": 0.5, "top_k": 20}


async def test_they_change_an_open_conversation(stage):
    async with stage(reply("ok")) as s:
        await s.ask("x")
        screen = await open_screen(s)
        assert "of “x”" in s.frame()
        screen.query_one("#max_tokens", Input).value = "7"
        screen.query_one("#max_tokens", Input).focus()
        await s.press("enter")
        await s.until(lambda: s.app.screen is s.chat)
        await s.until(lambda: dict(s.history.conversation(1).params) == {"max_tokens": 7})
        await s.ask("y")
        assert s.runtime.asked[1].sampling.max_tokens == 7
        screen = await open_screen(s)
        assert screen.query_one("#max_tokens", Input).value == "7"
        screen.query_one("#max_tokens", Input).value = ""
        await s.press("ctrl+s")
        await s.until(lambda: dict(s.history.conversation(1).params) == {})


async def test_a_wrong_value_is_said_and_nothing_is_lost(stage):
    async with stage() as s:
        screen = await open_screen(s)
        screen.query_one("#top_p", Input).value = "1.5"
        await s.press("ctrl+s")
        await s.until(lambda: "Top-p must be a number above 0 and up to 1" in s.frame())
        assert screen.query_one("#top_p").has_focus
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)
        assert s.chat.settings.params == {}


def test_every_number_of_the_options_has_a_field():
    numbers = set(SamplingOptions.__dataclass_fields__) - {"stop"}
    assert {name for name, _, _ in FIELDS} == numbers


@pytest.mark.parametrize(("name", "text", "value"), [("seed", " 7 ", 7), ("min_p", "0.05", 0.05), ("top_k", "0", 0)])
def test_what_is_typed(name, text, value):
    assert parse(name, text) == value


@pytest.mark.parametrize(("name", "text"), [("seed", "1.5"), ("top_p", "0"), ("temperature", "warm"), ("min_p", "nan")])
def test_what_cannot_be_meant(name, text):
    with pytest.raises(ValueError, match=r"a (whole )?number"):
        parse(name, text)
