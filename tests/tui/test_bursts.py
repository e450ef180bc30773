"""Many keys at once, as a script or a slow connection brings them: each goes where the one before it led."""

import pytest
from textual import events
from textual.widgets._toast import Toast

from qwen_mlx.events import ReplyFinished
from tests.tui.fake_runtime import failure, reply
from tests.tui.test_messages import selected
from tui.widgets.composer import Composer

NAMED = {" ": "space", "[": "left_square_bracket", "]": "right_square_bracket"}


def burst(s, *keys):
    """All of them before any is handled."""
    for key in keys:
        name = NAMED.get(key, key)
        s.app.post_message(events.Key(name, key if len(key) == 1 else None))


async def two_answers(s):
    await s.ask("first")
    await s.ask("second")
    await s.press("ctrl+up")
    await s.until(lambda: selected(s) == ("model", "two"))


async def test_text_that_begins_on_a_message(stage):
    async with stage(reply("one"), reply("two")) as s:
        await two_answers(s)
        burst(s, *"hello [world], go")
        await s.until(lambda: len(s.prompt.text) == 17)
        assert s.prompt.text == "hello [world], go" and s.chat.commands.editing is None


async def test_moving_many_times(stage):
    async with stage(reply("one"), reply("two")) as s:
        await two_answers(s)
        burst(s, "up", "up", "up", "down", "up", "up")
        await s.until(lambda: selected(s) == ("user", "first"))
        burst(s, "down", "down", "down", "down")
        await s.until(lambda: s.prompt.has_focus)
        burst(s, "ctrl+up", "up", "up")
        await s.until(lambda: selected(s) == ("model", "one"))


async def test_editing_and_typing_on(stage):
    async with stage(reply("one"), reply("two"), reply("three")) as s:
        await two_answers(s)
        burst(s, "up", "e", *" thought")
        await s.until(lambda: s.prompt.text == "second thought")
        burst(s, "enter")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        assert [content for _, content, _ in s.stored()] == ["first", "one", "second thought", "three"]


async def test_a_command_is_done_once(stage):
    async with stage(reply("one"), reply("two"), reply("three")) as s:
        await two_answers(s)
        burst(s, "c", "c", "r", *"rest")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        await s.until(lambda: s.prompt.text == "rest")
        assert len(s.runtime.asked) == 3 and s.app.clipboard == "two"


async def test_versions_back_and_forth(stage):
    async with stage(reply("one"), reply("two"), reply("three")) as s:
        await s.ask("x")
        for count in (2, 3):
            await s.press("ctrl+r")
            await s.until(lambda: len(s.runtime.asked) == count)  # noqa: B023
            await s.idle()
        await s.press("ctrl+up")
        await s.until(lambda: selected(s) == ("model", "three"))
        burst(s, "[", "[", "]", "x")
        await s.until(lambda: s.prompt.text == "x")
        await s.until(lambda: "‹ 2/3 ›" in s.frame() and "two" in s.frame())


async def test_from_the_list(stage):
    s = stage(reply("ok"))
    for number in range(4):
        s.history.new_conversation(f"c{number}")
    async with s:
        s.chat.sidebar.listing.focus()
        await s.until(lambda: s.chat.sidebar.listing.has_focus)
        burst(s, "down", "down", "p", *"write this")
        await s.until(lambda: s.prompt.text == "write this")
        await s.until(lambda: sum(c.pinned for c in s.history.conversations()) == 1)


# ------------------------------------------------------------------------------- small screens, numbers, going on


@pytest.mark.parametrize("size", [(60, 20), (80, 24)])
async def test_what_is_told_covers_nothing(stage, size):
    async with stage(reply("an answer of some length " * 4), size=size, toasts_shown=True) as s:
        await s.ask("x")
        s.chat.notify("This answer is complete; g goes on with one that was stopped.")
        await s.until(lambda: s.chat.query(Toast) and s.chat.query_one(Toast).region.height)
        toast = s.chat.query_one(Toast).region
        await s.until(
            lambda: not any(toast.overlaps(w.region) for w in (s.log, s.chat.query_one(Composer), *s.answers))
        )
        assert "complete; g goes" in s.frame() and "an answer of some length" in s.frame()
        s.app.clear_notifications()
        await s.until(lambda: not s.chat.query(Toast) and s.frame().splitlines()[0].startswith("  ◆"))


async def test_the_numbers_of_an_answer(stage):
    script = reply("a b c d", "thought", prompt_tokens=1200)
    stats = script[-1].stats.__class__(
        **{**script[-1].stats.__dict__, "time_to_first_token": 0.42, "peak_memory": 3_100_000_000, "cached_tokens": 200}
    )
    script[-1] = ReplyFinished(script[-1].message, "stop", stats)
    async with stage(script) as s:
        await s.send("/stats")
        await s.until(lambda: any("no numbers yet" in text for text in s.toasts))
        await s.ask("x")
        await s.until(lambda: "84 tok/s · first token 0.42 s · read 10,000 tok/s · 3.1 GB memory" in s.frame())
        await s.send("/stats")
        await s.until(lambda: "Context: 1,205 tokens of 4,096" in s.toasts[-1])
        assert "Read: 1,200 tokens (200 of them known already), 10,000 tok/s" in s.toasts[-1]
        assert "Memory: 3.1 GB at most" in s.toasts[-1]
        await s.pilot.resize_terminal(44, 20)
        await s.until(lambda: "first token 0.42 s" in s.frame() and "3.1 GB" not in s.frame())


async def test_going_on_after_a_crash(stage):
    broken = [*reply("one two three")[:3], *failure("RuntimeError: the GPU went away", expected=False)]
    async with stage(broken, reply("one two rest")) as s:
        await s.ask("count")
        await s.until(lambda: "✗ Failed. RuntimeError: the GPU went away" in s.frame())
        assert "ctrl+r tries again · ctrl+↑ g goes" in " ".join(s.frame().split())
        await s.press("ctrl+up", "g")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].continuing and s.stored()[1][1:] == ("one two rest", "done")
        assert "Failed" not in s.frame()
