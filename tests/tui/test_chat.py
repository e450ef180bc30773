"""Asking and answering: from the key to the screen, the model and the disk."""

from qwen_mlx.events import AnswerDelta, Message, PrefillProgress
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, loading, reply
from tui.widgets.status_bar import StatusBar
from tui.widgets.stream_markdown import StreamMarkdown


def state(stage):
    return stage.chat.query_one(StatusBar).state


async def test_a_question_is_answered_and_kept(stage):
    async with stage(reply("It is **75**.")) as s:
        await s.ask("What is 27 + 48?")
        assert "It is 75." in s.frame()
        assert s.prompt.text == ""
        assert s.stored() == [("user", "What is 27 + 48?", "done"), ("assistant", "It is **75**.", "done")]
        assert [c.title for c in s.history.conversations()] == ["What is 27 + 48?"]
        assert s.runtime.asked[0].messages == (Message("user", "What is 27 + 48?"),)
        answer = s.history.messages(1)[1]
        assert answer.model == DEMO.name
        assert answer.stats["completion_tokens"] == 3
        assert answer.stats["finish_reason"] == "stop"


async def test_the_next_question_brings_the_conversation_along(stage):
    async with stage(reply("Hello Ada", "a name"), reply("Ada")) as s:
        await s.ask("I am Ada")
        await s.ask("Who am I?")
        first, second = s.runtime.asked
        assert first.conversation == second.conversation
        assert second.messages == (
            Message("user", "I am Ada"),
            Message("assistant", "Hello Ada", "a name"),
            Message("user", "Who am I?"),
        )


async def test_the_answer_grows_on_screen_while_it_comes(stage):
    gate = Gate()
    async with stage(reply("one two three", gate=gate)) as s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].query_one(StreamMarkdown).source == "one two ")
        assert "one two" in s.frame()
        assert "three" not in s.frame()
        assert "Answering" in state(s)
        gate.open()
        await s.idle()
        assert "one two three" in s.frame()
        assert "Ready" in state(s)


async def test_the_header_shows_the_numbers_of_the_answer(stage):
    async with stage(reply("a b c d", prompt_tokens=1200)) as s:
        assert "4.1k context" in s.frame().splitlines()[0]
        await s.ask("x")
        line = s.frame().splitlines()[0]
        for part in ("qwen-demo", "cpu", "1.2k of 4.1k", "84 tok/s", "x"):
            assert part in line


async def test_reading_a_long_prompt_is_shown(stage):
    gate = Gate()
    script = [PrefillProgress(512, 2048, 0), gate, *reply("done")]
    async with stage(script) as s:
        await s.send("long")
        await s.until(lambda: "512 of 2,048" in s.frame())
        assert "Reading" in state(s)
        gate.open()
        await s.idle()
        assert "Reading" not in s.frame()


async def test_a_reply_is_checkpointed_while_it_streams(stage):
    gate, later = Gate(), Gate()
    script = [AnswerDelta("first "), gate, AnswerDelta("second "), later, *reply("first second third")]
    async with stage(script) as s:
        await s.send("go")
        await s.until(lambda: s.answers and s.answers[0].content)
        assert s.stored()[1] == ("assistant", "", "streaming")
        s.time.pass_by(1.5)
        gate.open()
        await s.until(lambda: s.stored()[1] == ("assistant", "first second ", "streaming"))
        later.open()
        await s.idle()
        assert s.stored()[1] == ("assistant", "first second third", "done")


async def test_the_screen_agrees_with_the_final_message(stage):
    """What a stop string or a template cut away at the end is taken off the screen too."""
    script = [*reply("the right text")[:-1], *reply("The right text.")[-1:]]
    async with stage(script) as s:
        await s.ask("x")
        assert s.answers[0].query_one(StreamMarkdown).source == "The right text."
        assert s.answers[0].content == "The right text."


async def test_the_limit_is_told(stage):
    async with stage(reply("cut o", reason="length")) as s:
        await s.ask("x")
        assert "token limit" in s.frame()


async def test_markup_and_control_characters_are_only_text(stage):
    text = "[red]x[/] [@click=app.quit]y[/] \x1b[31mz\x1b[0m"
    async with stage(reply(text)) as s:
        await s.ask("[b]bold?[/b] \x1b]0;title\x07")
        frame = s.frame()
        assert "[red]x[/] [@click=app.quit]y[/] z" in frame
        assert "[b]bold?[/b]" in frame
        assert "\x1b" not in frame and "\x07" not in frame


# ------------------------------------------------------------------------------------------- loading and queueing


async def test_a_model_loads_after_the_first_paint_and_a_question_waits_for_it(stage):
    gate = Gate()
    runtime = FakeRuntime(reply("hi"), load=loading(gate=gate), model=None)
    async with stage(runtime=runtime, model="demo") as s:
        await s.until(lambda: "reading tensors 42%" in s.frame())
        assert "Loading demo" in state(s)
        await s.send("hello")
        await s.until(lambda: "Queued" in s.frame())
        assert runtime.asked == []
        gate.open()
        await s.until(lambda: len(runtime.asked) == 1)
        await s.idle()
        assert "hi" in s.frame()
        assert "Queued" not in s.frame()
        assert "1.2M parameters" not in s.frame(), "the welcome is gone"


async def test_a_message_queues_while_an_answer_runs(stage):
    gate = Gate()
    async with stage(reply("one two", gate=gate), reply("second answer")) as s:
        await s.send("first")
        await s.until(lambda: s.answers)
        await s.send("second")
        assert "takes it back · second" in s.frame()
        await s.send("third")
        assert s.prompt.text == "third", "only one waits; the other stays in the prompt"
        assert "queued already" in s.toasts[-1]
        s.prompt.clear()
        gate.open()
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert [content for _, content, _ in s.stored()] == ["first", "one two", "second", "second answer"]


async def test_a_queued_message_can_be_taken_back(stage):
    gate = Gate()
    async with stage(reply("one two", gate=gate)) as s:
        await s.send("first")
        await s.until(lambda: s.answers)
        await s.send("second thought")
        await s.press("up")
        assert s.prompt.text == "second thought"
        assert "Queued" not in s.frame()
        s.prompt.clear()
        await s.send("third")
        await s.until(lambda: "takes it back · third" in s.frame())
        await s.pilot.click("#queued")
        assert s.prompt.text == "third"
        gate.open()
        await s.idle()
        assert len(s.runtime.asked) == 1


# ------------------------------------------------------------------------------------------------------- stopping


async def test_escape_stops_and_keeps_what_came(stage):
    async with stage(reply("one two three", gate=Gate()), reply("again")) as s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].content)
        await s.press("escape")
        await s.idle()
        assert "■ Stopped" in s.frame()
        assert s.stored()[1] == ("assistant", "one two ", "stopped")
        await s.ask("go on")
        assert s.runtime.asked[1].messages[1] == Message("assistant", "one two ")
        assert s.stored()[3] == ("assistant", "again", "done")


async def test_escape_brings_the_queued_message_back(stage):
    async with stage(reply("one two", gate=Gate())) as s:
        await s.send("first")
        await s.until(lambda: s.answers)
        await s.send("second")
        await s.press("escape")
        await s.idle()
        assert s.prompt.text == "second"
        assert len(s.runtime.asked) == 1


async def test_stop_before_the_first_word(stage):
    async with stage([Gate()], reply("later")) as s:
        await s.send("x")
        await s.until(lambda: "Waiting" in s.frame())
        await s.press("escape")
        await s.idle()
        assert s.stored()[1] == ("assistant", "", "stopped")
        await s.ask("y")
        assert [m.content for m in s.runtime.asked[1].messages] == ["x", "y"], "an empty answer is not sent"


# ---------------------------------------------------------------------------------------- again, copying, thinking


async def test_regenerate_makes_a_sibling(stage):
    async with stage(reply("first try"), reply("second try")) as s:
        await s.ask("x")
        await s.press("ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].messages == (Message("user", "x"),)
        assert "second try" in s.frame() and "first try" not in s.frame()
        assert "‹ 2/2 ›" in s.frame()
        assert [content for _, content, _ in s.stored()] == ["x", "second try"]
        first = s.history.siblings(s.history.messages(1)[1].id)[0]
        assert s.history.message(first).content == "first try"


async def test_regenerate_has_nothing_to_do(stage):
    async with stage(reply("x", gate=Gate())) as s:
        await s.press("ctrl+r")
        assert "no answer to repeat" in s.toasts[-1]
        await s.send("x")
        await s.until(lambda: s.answers)
        await s.press("ctrl+r")
        assert "One answer at a time" in s.toasts[-1]


async def test_the_last_answer_is_copied_as_markdown(stage):
    async with stage(reply("the **first**"), reply("the `second`")) as s:
        await s.press("ctrl+y")
        assert "no answer to copy" in s.toasts[-1]
        await s.ask("x")
        await s.ask("y")
        await s.press("ctrl+y")
        assert s.app.clipboard == "the `second`"


async def test_thinking_is_switched_for_the_next_turns(stage):
    async with stage(reply("a")) as s:
        assert "thinking auto" in s.frame()
        await s.ask("one")
        await s.press("ctrl+t")
        assert "thinking on" in s.frame()
        await s.ask("two")
        await s.press("ctrl+t")
        assert "thinking off" in s.frame()
        await s.ask("three")
        await s.press("ctrl+t")
        assert "thinking auto" in s.frame()
        assert [job.thinking for job in s.runtime.asked] == [None, True, False]


async def test_a_model_without_the_switch_says_so(stage):
    from dataclasses import replace

    for kind, word in (("always", "always thinks"), ("never", "does not think")):
        async with stage(runtime=FakeRuntime(model=replace(DEMO, thinking=kind))) as s:
            assert "thinking" not in s.frame()
            await s.press("ctrl+t")
            assert word in s.toasts[-1]
            assert s.app.conductor.thinking is None


async def test_examples_are_sent_by_mouse_and_by_key(stage):
    async with stage(reply("75")) as s:
        assert "Reverse the word planet" in s.frame()
        await s.pilot.click("#examples", offset=(4, 1))
        await s.until(lambda: len(s.runtime.asked) == 1)
        await s.idle()
        assert s.runtime.asked[0].messages[0].content == "Reverse the word planet"
        await s.press("ctrl+n")
        s.chat.query_one("#examples").focus()
        await s.press("down", "enter")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].messages[0].content == "Which command checks my machine?"
        assert s.prompt.has_focus
