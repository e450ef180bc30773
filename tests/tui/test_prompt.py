"""Writing: lines, earlier prompts, pasting."""

import json

import pytest
from textual import events

from tests.tui.fake_runtime import Gate, reply
from tui.screens.help import HelpScreen


async def test_enter_sends_and_the_other_keys_begin_a_line(stage):
    async with stage() as s:
        await s.press("a", "shift+enter", "b", "ctrl+j", "c")
        assert s.prompt.text == "a\nb\nc"
        await s.press("enter")
        await s.until(lambda: s.runtime.asked)
        await s.idle()
        assert s.runtime.asked[0].messages[0].content == "a\nb\nc"


async def test_nothing_is_sent_from_an_empty_prompt(stage):
    async with stage() as s:
        await s.press("enter", "space", "enter", "ctrl+j", "enter")
        assert s.runtime.asked == []


async def test_the_prompt_grows_up_to_ten_lines(stage):
    async with stage() as s:
        heights = []
        for lines in (1, 2, 9, 10, 11, 30):
            s.prompt.text = "\n" * (lines - 1)
            await s.until(lambda: s.prompt.size.height == min(lines, 10))  # noqa: B023
            heights.append(s.prompt.size.height)
        assert heights == [1, 2, 9, 10, 10, 10]


async def test_a_long_line_wraps(stage):
    async with stage(size=(60, 20)) as s:
        s.prompt.insert("word " * 40)
        await s.pilot.pause()
        assert s.prompt.size.height >= 4


async def test_earlier_prompts_come_back_and_the_draft_is_kept(stage):
    async with stage(reply("ok")) as s:
        await s.ask("first")
        await s.ask("second\nwith two lines")
        s.prompt.insert("a draft")
        await s.press("up")
        assert s.prompt.text == "second\nwith two lines"
        await s.press("up")
        assert s.prompt.text == "second\nwith two lines", "the cursor moved up inside the text first"
        await s.press("up")
        assert s.prompt.text == "first"
        await s.press("up")
        assert s.prompt.text == "first"
        await s.press("down")
        assert s.prompt.text == "second\nwith two lines"
        await s.press("down")
        assert s.prompt.text == "a draft"
        await s.press("down")
        assert s.prompt.text == "a draft"


async def test_an_edited_earlier_prompt_is_a_new_draft(stage):
    async with stage(reply("ok")) as s:
        await s.ask("first")
        await s.press("up", "!", "up", "down")
        assert s.prompt.text == "first!"


async def test_earlier_prompts_outlive_the_app(stage, tmp_path):
    async with stage(reply("ok")) as s:
        await s.ask("from the first run")
    path = tmp_path / "prompts.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == ["from the first run"]
    assert path.stat().st_mode & 0o777 == 0o600
    async with stage(reply("ok")) as s:
        await s.press("up")
        assert s.prompt.text == "from the first run"


@pytest.mark.parametrize("pasted", ["line\n" * 4000, "x" * 60_000])
async def test_a_large_paste(stage, pasted):
    async with stage() as s:
        s.prompt.post_message(events.Paste(pasted))
        await s.until(lambda: s.prompt.text == pasted)
        assert s.prompt.size.height == 10
        await s.press("enter")
        await s.until(lambda: s.runtime.asked)
        await s.idle()
        assert s.runtime.asked[0].messages[0].content == pasted.strip("\n")


async def test_a_paste_brings_no_control_characters(stage):
    async with stage() as s:
        s.prompt.post_message(events.Paste("a\r\nb\rc\x1b[31m\x00d"))
        await s.until(lambda: s.prompt.text)
        assert s.prompt.text == "a\nb\ncd"


async def test_a_question_mark_alone_asks_for_help(stage):
    async with stage() as s:
        await s.press("?")
        await s.until(lambda: isinstance(s.app.screen, HelpScreen))
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)
        await s.press("w", "h", "y", "?")
        assert s.prompt.text == "why?"


async def test_pasting_anywhere_goes_to_the_prompt(stage):
    async with stage() as s:
        s.chat.sidebar.listing.focus()
        await s.until(lambda: s.chat.sidebar.listing.has_focus)
        s.chat.sidebar.listing.post_message(events.Paste("one\r\ntwo"))
        await s.until(lambda: s.prompt.text == "one\ntwo")
        assert s.prompt.has_focus


async def test_typing_anywhere_goes_to_the_prompt(stage):
    async with stage(reply("ok")) as s:
        await s.ask("x")
        s.log.focus()
        await s.press("h", "i")
        assert s.prompt.text == "hi"
        assert s.prompt.has_focus
        s.chat.sidebar.listing.focus()
        await s.press("y")
        assert s.prompt.text == "hiy"


async def test_fast_typing_from_the_list_loses_nothing(stage):
    async with stage() as s:
        s.chat.sidebar.listing.focus()
        await s.pilot.pause()
        for character in "go on, as if":
            key = "space" if character == " " else character
            s.app.post_message(events.Key(key, character))
        await s.until(lambda: len(s.prompt.text) == len("go on, as if"))
        assert s.prompt.text == "go on, as if"


async def test_wide_characters_keep_the_cursor_in_place(stage):
    async with stage() as s:
        s.prompt.insert("ab你好")
        await s.until(lambda: s.app.cursor_position.x == s.prompt.content_region.x + 6)
        await s.press("x")
        await s.until(lambda: s.app.cursor_position.x == s.prompt.content_region.x + 7)
        assert "ab你好x" in s.frame()


async def test_page_keys_scroll_the_log_from_the_prompt(stage):
    async with stage(reply("line\n\n" * 60), size=(80, 24)) as s:
        await s.ask("x")
        await s.until(lambda: s.log.scroll_y > 0)
        end = s.log.scroll_y
        await s.press("pageup")
        await s.until(lambda: s.log.scroll_y < end)
        await s.until(lambda: "newer text below" in s.frame())
        await s.press("ctrl+end")
        await s.until(lambda: s.log.scroll_y == s.log.max_scroll_y)
        await s.until(lambda: "newer text below" not in s.frame())
        assert s.prompt.has_focus


async def test_a_refused_message_comes_before_the_draft(stage):
    async with stage(reply("a b", gate=Gate())) as s:
        await s.send("first")
        await s.until(lambda: s.answers)
        await s.send("second")
        s.prompt.insert("draft")
        await s.pilot.click("#queued")
        assert s.prompt.text == "second\ndraft"
