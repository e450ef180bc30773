"""Thinking: one line while it is folded, the text when it is not."""

from qwen_mlx.events import AnswerDelta, Message, ReasoningDelta, ReasoningEnd, ReplyFinished, ReplyStats
from tests.tui.fake_runtime import Call, Gate, reply
from tui.widgets.stream_markdown import StreamMarkdown
from tui.widgets.thinking import ThinkingBlock, ThinkingBody, ThinkingHeader

THOUGHT = "First the tens, then the ones."


def block(stage, number=-1):
    return list(stage.log.query(ThinkingBlock))[number]


def title(stage, number=-1):
    return block(stage, number).query(ThinkingHeader).first().content.plain


async def test_it_is_folded_and_its_text_is_not_even_mounted(stage):
    async with stage(reply("75", THOUGHT)) as s:
        await s.ask("What is 27 + 48?")
        assert title(s) == "▸ Thought for 12.4 s · 6 tokens"
        assert "First the tens" not in s.frame()
        assert not s.log.query(ThinkingBody)
        stored = s.history.messages(1)[1]
        assert (stored.reasoning, stored.reasoning_seconds, stored.reasoning_tokens) == (THOUGHT, 12.4, 6)


async def test_the_line_counts_while_it_thinks(stage):
    gate = Gate()
    s = stage()
    script = [
        *(ReasoningDelta("one "), Call(lambda: s.time.pass_by(12.4)), ReasoningDelta("two "), gate),
        *(ReasoningEnd(12.5, 3), AnswerDelta("done")),
        ReplyFinished(Message("assistant", "done", "one two "), "stop", ReplyStats(reasoning_tokens=3)),
    ]
    s.runtime._replies = [script]
    async with s:
        await s.send("x")
        await s.until(lambda: s.log.query(ThinkingBlock))
        s.time.pass_by(1)
        await s.until(lambda: title(s).endswith("· 2 tokens"))
        assert title(s).startswith("▸ Thinking… ")
        assert "Thinking" in s.frame().splitlines()[-1]
        gate.open()
        await s.idle()
        assert title(s) == "▸ Thought for 12.5 s · 3 tokens"
        await s.until(lambda: "▸ Thought for 12.5 s · 3 tokens" in s.frame())


async def test_a_click_or_a_key_unfolds_it(stage):
    async with stage(reply("75", THOUGHT)) as s:
        await s.ask("x")
        await s.pilot.click(ThinkingHeader)
        await s.until(lambda: THOUGHT in s.frame())
        assert title(s).startswith("▾ Thought for")
        await s.pilot.click(ThinkingHeader)
        await s.until(lambda: THOUGHT not in s.frame())
        block(s).query(ThinkingHeader).first().focus()
        await s.press("space")
        await s.until(lambda: THOUGHT in s.frame())
        await s.pilot.click(ThinkingBody, offset=(0, 0))
        await s.until(lambda: THOUGHT not in s.frame())


async def test_an_open_block_streams(stage):
    gate = Gate()
    async with stage([ReasoningDelta("one "), gate, *reply("75", "one two three")]) as s:
        await s.press("ctrl+o")
        await s.send("x")
        await s.until(lambda: s.log.query(ThinkingBody))
        await s.until(lambda: "one" in s.frame())
        gate.open()
        await s.idle()
        assert block(s).query_one(StreamMarkdown).source == "one two three"


async def test_all_of_them_at_once(stage):
    async with stage(reply("a", "thought one"), reply("b", "thought two")) as s:
        await s.ask("x")
        await s.ask("y")
        await s.press("ctrl+o")
        await s.until(lambda: "thought one" in s.frame() and "thought two" in s.frame())
        await s.press("ctrl+o")
        await s.until(lambda: "thought one" not in s.frame() and "thought two" not in s.frame())
        await s.pilot.click(block(s, 0).query(ThinkingHeader).first())
        await s.press("ctrl+o")
        await s.until(lambda: not any(b.unfolded for b in s.log.query(ThinkingBlock)), "one open: all are folded")


async def test_what_was_unfolded_stays_so_while_the_app_is_open(stage):
    async with stage(reply("a", "thought one"), reply("b", "thought two")) as s:
        await s.ask("x")
        await s.ask("y")
        await s.pilot.click(block(s, 0).query(ThinkingHeader).first())
        await s.until(lambda: "thought one" in s.frame())
        await s.press("ctrl+n")
        await s.chat.open(1)
        await s.until(lambda: "thought one" in s.frame())
        assert [b.unfolded for b in s.log.query(ThinkingBlock)] == [True, False]


async def test_folding_does_not_leave_the_end_of_the_answer(stage):
    thought = "because\n\n" * 40
    async with stage(reply("line\n\n" * 40, thought), reply("more\n\n " * 40, gate=(gate := Gate()))) as s:
        await s.ask("x")
        await s.press("ctrl+o")
        await s.send("y")
        await s.until(lambda: s.answers[-1].content)
        await s.press("ctrl+o")
        gate.open()
        await s.idle()
        await s.until(lambda: s.log.scroll_y == s.log.max_scroll_y)
        assert s.log.max_scroll_y > 40


async def test_stopped_while_thinking(stage):
    async with stage([ReasoningDelta("half a thought "), Gate()]) as s:
        await s.send("x")
        await s.until(lambda: s.log.query(ThinkingBlock))
        await s.press("escape")
        await s.idle()
        assert title(s).startswith("▸ Thought for")
        assert "■ Stopped" in s.frame()
        stored = s.history.messages(1)[1]
        assert (stored.content, stored.reasoning, stored.status) == ("", "half a thought ", "stopped")


async def test_a_long_thought_can_be_folded_from_its_end(stage):
    async with stage(reply("75", "because\n\n" * 20)) as s:
        await s.ask("x")
        await s.press("ctrl+o")
        await s.until(lambda: "▴ fold" in s.frame())
        await s.pilot.click(".end")
        await s.until(lambda: "▴ fold" not in s.frame())
        assert not block(s).unfolded


async def test_the_right_count_is_shown_after_a_restart(stage):
    async with stage(reply("75", THOUGHT)) as s:
        await s.ask("x")
    async with stage() as s:
        await s.chat.open(1)
        await s.until(lambda: s.log.query(ThinkingBlock))
        assert title(s) == "▸ Thought for 12.4 s · 6 tokens"
