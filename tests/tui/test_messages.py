"""One message: selecting it, editing, answering again, its versions, copying."""

import dataclasses

import pytest

from qwen_mlx.events import Message
from tests.tui.fake_runtime import Gate, reply
from tests.tui.stage import START
from tui.code_blocks import code_blocks
from tui.widgets.composer import EditingRow
from tui.widgets.message import AssistantMessage, UserMessage
from tui.widgets.selectable import VersionRow
from tui.windowing import FIRST


def selected(s):
    """Role and text of the selected message."""
    message = s.log.selected
    return (
        None if message is None else ({UserMessage: "user", AssistantMessage: "model"}[type(message)], message.content)
    )


async def test_moving_through_the_messages(stage):
    async with stage(reply("one"), reply("two")) as s:
        await s.press("ctrl+up")
        assert selected(s) is None and s.prompt.has_focus, "there is nothing to select"
        await s.ask("first")
        await s.ask("second")
        await s.press("ctrl+up")
        await s.until(lambda: selected(s) == ("model", "two"))
        assert "r again" in s.frame() and "c copy" in s.frame()
        await s.press("up")
        await s.until(lambda: selected(s) == ("user", "second"))
        assert "e edit" in s.frame()
        await s.press("ctrl+up", "up", "up")
        await s.until(lambda: selected(s) == ("user", "first"))
        await s.press("down", "ctrl+down")
        await s.until(lambda: selected(s) == ("user", "second"))
        await s.press("escape")
        assert s.prompt.has_focus
        await s.press("ctrl+up", "down")
        await s.until(lambda: s.prompt.has_focus)
        await s.press("ctrl+up", "h", "i")
        assert s.prompt.text == "hi", "who types means the prompt"


async def test_older_messages_come_when_they_are_reached(stage):
    s = stage()
    conversation = s.history.new_conversation("long", now=START)
    for n in range(60):
        s.history.add_message(conversation.id, "user" if n % 2 == 0 else "assistant", f"m{n}")
    async with s:
        await s.chat.open(1)
        await s.until(lambda: s.log.window.mounted > FIRST)
        for _ in range(59):
            await s.press("ctrl+up")
        await s.until(lambda: selected(s) == ("user", "m1") or selected(s) == ("user", "m0") or s.log.window.first == 0)
        await s.press("ctrl+up", "ctrl+up")
        await s.until(lambda: selected(s) == ("user", "m0"))


async def test_a_click_does_not_select(stage):
    async with stage(reply("read it")) as s:
        await s.ask("x")
        await s.pilot.click(AssistantMessage)
        await s.press("r", "e")
        assert s.prompt.text == "re"
        assert len(s.runtime.asked) == 1


async def test_tab_goes_past_the_messages(stage):
    async with stage(reply("ok")) as s:
        await s.ask("x")
        for _ in range(4):
            await s.press("tab")
            assert s.log.selected is None


async def test_editing_makes_a_branch(stage):
    async with stage(reply("one"), reply("two"), reply("three")) as s:
        await s.ask("first")
        await s.ask("second")
        s.prompt.insert("a draft")
        await s.press("ctrl+up", "up", "up", "up")
        await s.until(lambda: selected(s) == ("user", "first"))
        await s.press("e")
        await s.until(lambda: s.prompt.text == "first")
        assert s.chat.query_one(EditingRow).display and "Editing" in s.frame()
        s.prompt.insert(" again")
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        assert s.runtime.asked[2].messages == (Message("user", "first again"),)
        assert s.prompt.text == "a draft" and not s.chat.query_one(EditingRow).display
        frame = s.frame()
        assert "first again" in frame and "three" in frame and "two" not in frame
        assert "‹ 2/2 ›" in frame
        assert [content for _, content, _ in s.stored()] == ["first again", "three"]


async def test_versions_by_key_and_by_click(stage):
    async with stage(reply("one"), reply("two"), reply("three")) as s:
        await s.ask("first")
        await s.ask("second")
        await s.press("ctrl+up", "up", "up", "up", "e")
        await s.until(lambda: s.prompt.text == "first")
        s.prompt.fill("changed")
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        await s.press("ctrl+up", "up", "[")
        await s.until(lambda: "‹ 1/2 ›" in s.frame())
        assert "two" in s.frame() and "changed" not in s.frame()
        await s.until(lambda: selected(s) == ("user", "first"))
        assert [content for _, content, _ in s.stored()] == ["first", "one", "second", "two"]
        await s.press("[")
        await s.until(lambda: any("no more versions" in text for text in s.toasts))
        row = s.log.query(VersionRow).first()
        await s.pilot.click(row, offset=(row.content_region.width - 1, 0))
        await s.until(lambda: "‹ 2/2 ›" in s.frame())
        assert [content for _, content, _ in s.stored()] == ["changed", "three"]


async def test_escape_leaves_the_message_as_it_was(stage):
    async with stage(reply("one")) as s:
        await s.ask("first")
        s.prompt.insert("a draft")
        await s.press("ctrl+up", "up", "e")
        await s.until(lambda: s.prompt.text == "first")
        await s.press("x", "escape")
        assert s.prompt.text == "a draft"
        assert not s.chat.query_one(EditingRow).display
        assert [content for _, content, _ in s.stored()] == ["first", "one"]


async def test_escape_twice_edits_the_last_message(stage):
    async with stage(reply("one"), reply("two")) as s:
        await s.press("escape", "escape")
        assert s.prompt.text == "", "nothing was asked yet"
        await s.ask("first")
        await s.press("escape")
        s.time.pass_by(5)
        await s.press("escape")
        assert s.prompt.text == "", "that was too slow"
        await s.press("escape")
        assert s.prompt.text == "first"


async def test_editing_waits_for_the_running_answer(stage):
    async with stage(reply("one two", gate=(gate := Gate())), reply("three")) as s:
        await s.send("first")
        await s.until(lambda: s.answers and s.answers[0].content)
        await s.press("ctrl+up", "up", "e")
        await s.until(lambda: s.prompt.text == "first")
        s.prompt.fill("other")
        await s.press("enter")
        await s.until(lambda: any("One answer at a time" in text for text in s.toasts))
        assert s.prompt.text == "other" and len(s.runtime.asked) == 1
        gate.open()
        await s.idle()
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert [content for _, content, _ in s.stored()] == ["other", "three"]


async def test_answering_again_in_the_middle(stage):
    async with stage(reply("one"), reply("two"), reply("other")) as s:
        await s.ask("first")
        await s.ask("second")
        await s.press("ctrl+up", "up", "up")
        await s.until(lambda: selected(s) == ("model", "one"))
        await s.press("r")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        assert s.runtime.asked[2].messages == (Message("user", "first"),)
        assert [content for _, content, _ in s.stored()] == ["first", "other"]
        assert "‹ 2/2 ›" in s.frame()


async def test_another_version_while_an_answer_grows(stage):
    async with stage(reply("one"), reply("two words", gate=(gate := Gate()))) as s:
        await s.ask("x")
        await s.press("ctrl+r")
        await s.until(lambda: s.answers and s.answers[-1].content == "two ")
        await s.press("ctrl+up", "[")
        await s.until(lambda: "‹ 1/2 ›" in s.frame())
        await s.press("]")
        await s.until(lambda: s.answers[-1].content == "two ")
        gate.open()
        await s.idle()
        assert s.answers[-1].content == "two words"
        assert [content for _, content, _ in s.stored()] == ["x", "two words"]


async def test_copying_a_message_and_its_code(stage):
    answer = "Look:\n\n```py\nx = 1\n```\n\n- and\n\n  ```sh\n  ls\n  pwd\n  ```"
    async with stage(reply(answer)) as s:
        await s.ask("write code")
        await s.press("ctrl+up", "c")
        await s.until(lambda: s.app.clipboard == answer)
        await s.press("y")
        await s.until(lambda: s.app.clipboard == "x = 1")
        assert "Block 1 of 2 is copied (1 line)" in s.toasts[-1]
        await s.press("y")
        await s.until(lambda: s.app.clipboard == "ls\npwd")
        await s.press("y")
        await s.until(lambda: s.app.clipboard == "x = 1")
        await s.press("up", "y")
        await s.until(lambda: any("no code in this message" in text for text in s.toasts))


async def test_space_unfolds_the_thinking_of_one_message(stage):
    async with stage(reply("one", "a thought"), reply("two", "another thought")) as s:
        await s.ask("first")
        await s.ask("second")
        await s.press("ctrl+up", "space")
        await s.until(lambda: "another thought" in s.frame())
        assert "a thought" not in s.frame().replace("another thought", "")
        await s.press("space")
        await s.until(lambda: "another thought" not in s.frame())


@pytest.mark.parametrize(
    ("markdown", "blocks"),
    [
        ("", []),
        ("no `code` here", []),
        ("```\na\n\nb\n```", ["a\n\nb"]),
        ("~~~py\nopen", ["open"]),
        ("> ```\n> quoted\n> ```", ["quoted"]),
        ("    indented\n", ["indented"]),
        ("````\n```\n````", ["```"]),
    ],
)
def test_code_blocks(markdown, blocks):
    assert code_blocks(markdown) == blocks


async def test_undo_opens_the_conversation_again(stage):
    async with stage(reply("one")) as s:
        await s.ask("first")
        s.chat.sidebar.listing.focus()
        await s.press("delete")
        await s.until(lambda: s.chat.conversation is None)
        await s.press("u")
        await s.until(lambda: "one" in s.frame() and s.chat.conversation is not None)


async def test_going_on_with_a_stopped_answer(stage):
    stopped = reply("one two three", "a thought", gate=Gate())
    whole = reply("four five")
    whole[-1] = dataclasses.replace(whole[-1], message=Message("assistant", "one two four five", "a thought"))
    async with stage(stopped, whole) as s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].content == "one two ")
        await s.press("escape")
        await s.idle()
        assert "■ Stopped" in s.frame()
        await s.press("ctrl+up", "g")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        job = s.runtime.asked[1]
        assert job.continuing and job.messages[-1] == Message("assistant", "one two ", "a thought")
        assert s.stored() == [("user", "count", "done"), ("assistant", "one two four five", "done")]
        assert s.answers[-1].content == "one two four five" and "■" not in s.frame()
        assert len(s.answers) == 1
        await s.press("ctrl+up", "g")
        await s.until(lambda: any("complete" in text for text in s.toasts))


async def test_going_on_and_stopping_again_keeps_both_parts(stage):
    async with stage(reply("one two", gate=Gate()), reply("three four", gate=Gate())) as s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].content == "one ")
        await s.press("escape")
        await s.idle()
        await s.press("ctrl+up", "g")
        await s.until(lambda: s.answers[-1].content == "one three ")
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
        assert s.stored()[1] == ("assistant", "one three ", "stopped")
