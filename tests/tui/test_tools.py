"""Tool calls in the app: rounds, what is shown of them, what a person is asked, and how it all ends."""

from dataclasses import replace

import pytest
from textual import events

from qwen_mlx.chat.steps import Call
from qwen_mlx.events import Message, PrefillProgress, ReplyFinished, ReplyStats
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, reply
from tui.screens.parameters import ParametersScreen
from tui.tool_runs import why_not
from tui.widgets.ask_row import AskRow, Choice
from tui.widgets.tool_call import ToolCallView

ABLE = replace(DEMO, name="able", tools=True, parameters=600_000_000)


def calling(*calls, content="", thinking=None):
    """A script of a reply that calls tools."""
    made = tuple({"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls)
    message = Message("assistant", content, thinking, made)
    return [PrefillProgress(32, 32, 0), ReplyFinished(message, "stop", ReplyStats(32, 0, 12))]


def stage_of(stage, *scripts, **options):
    s = stage(runtime=FakeRuntime(*scripts, model=ABLE), **options)
    s.app.preferences.choose(titles=False)
    return s


def views(s):
    return [str(view._header.content) for view in s.chat.query(ToolCallView)]


def asks(s):
    return s.chat.query_one(AskRow).display


READ = calling(("read_file", {"path": "notes.txt"}))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "notes.txt").write_text("the secret is 7")
    return folder


async def test_off_by_default(stage):
    async with stage_of(stage, reply("ok")) as s:
        await s.ask("x")
        assert s.runtime.asked[0].tools == () and "tools" not in s.frame()


async def test_calls_are_run_shown_folded_and_go_back(stage):
    first = calling(("calculator", {"expression": "6*7"}), ("clock", {}), content="Let me see.", thinking="hm")
    async with stage_of(stage, first, calling(("calculator", {"expression": "1/0"})), reply("It is **42**.")) as s:
        await s.press("f8")
        await s.until(lambda: "f8 tools on" in s.frame())
        assert any("calculator, clock, no files" in text for text in s.toasts)
        await s.ask("6*7?")
        assert len(s.runtime.asked) == 3
        assert [tool["function"]["name"] for tool in s.runtime.asked[0].tools] == ["calculator", "clock"]
        last = s.runtime.asked[2].messages
        assert [m.role for m in last] == ["user", "assistant", "tool", "tool", "assistant", "tool"]
        assert last[2].content == "42" and last[1].reasoning == "hm" and "division by zero" in last[5].content
        await s.until(lambda: "It is 42." in s.frame())
        shown = views(s)
        assert shown[0] == "▸ calculator 6*7 → 42" and shown[2] == "▸ calculator 1/0 ✗ failed"
        assert "Let me see." in s.frame() and "arguments:" not in s.frame()
        await s.pilot.click(s.chat.query(ToolCallView)[0]._header)
        await s.until(lambda: '"expression": "6*7"' in s.frame() and "result: 42" in s.frame())
        await s.press("ctrl+up", "space")
        await s.until(lambda: s.frame().count("arguments:") == 3)
        assert len(s.answers) == 1, "all of it is one answer"
        kept = s.history.messages(1)[1]
        assert len(kept.steps) == 2 and kept.content == "It is **42**." and kept.status == "done"
        await s.press("escape", "ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 4)
        await s.idle()
        assert s.runtime.asked[3].messages == (Message("user", "6*7?"),), "again from the question"
    async with stage_of(stage, reply("ok")) as s:
        await s.chat.open(1)
        await s.until(lambda: "f8 tools on" in s.frame())
        await s.press("ctrl+up", "[")
        await s.until(lambda: views(s) and "It is 42." in s.frame())
        await s.press("escape")
        await s.ask("and?")
        assert [m.role for m in s.runtime.asked[0].messages[:7]] == [
            "user",
            "assistant",
            "tool",
            "tool",
            "assistant",
            "tool",
            "assistant",
        ]
        await s.press("f8")
        await s.until(lambda: "tools on" not in s.frame() and "tools" not in s.history.conversation(1).params)


async def ask_for_the_file(s, folder):
    await s.send(f"/tools {folder}")
    await s.until(lambda: s.chat.settings.params.get("tools_folder") == str(folder))
    await s.send("What does it say?")
    await s.until(lambda: asks(s) and "wants to read notes.txt" in s.frame())


@pytest.mark.parametrize(
    ("keys", "result", "outcome"),
    [(("enter",), "did not allow", "refused"), (("right", "enter"), "the secret is 7", "done")],
)
async def test_reading_a_file_asks_first(stage, folder, keys, result, outcome):
    async with stage_of(stage, READ, reply("ok")) as s:
        await ask_for_the_file(s, folder)
        assert isinstance(s.chat.focused, Choice) and s.chat.focused.allowed == "no"
        assert "Asking you" in s.frame() and str(folder)[:20] in s.frame()
        await s.press(*keys)
        await s.idle()
        assert not asks(s) and s.prompt.has_focus
        step = s.history.messages(1)[1].steps[0]
        assert result in step.calls[0].result and step.calls[0].outcome == outcome
        assert result in s.runtime.asked[1].messages[-1].content


async def test_always_holds_for_the_conversation_and_outlives_the_app(stage, folder):
    async with stage_of(stage, READ, READ, reply("ok")) as s:
        await ask_for_the_file(s, folder)
        await s.pilot.click("#allow-always")
        await s.idle()
        assert len(s.runtime.asked) == 3, "the second file was read without asking"
        assert s.history.conversation(1).params["files_always"] is True
    async with stage_of(stage, READ, reply("ok"), READ, reply("ok")) as s:
        await s.chat.open(1)
        await s.ask("again")
        assert s.history.messages(1)[-1].steps[0].calls[0].outcome == "done"
        await s.press("ctrl+n")
        await ask_for_the_file(s, folder)
        await s.press("escape")
        await s.idle()


async def test_who_types_allows_nothing(stage, folder):
    async with stage_of(stage, READ, reply("ok"), reply("fine")) as s:
        await s.send(f"/tools {folder}")
        s.prompt.insert("x")
        await s.press("enter")
        await s.press(*"yes a", "enter")
        await s.until(lambda: asks(s))
        await s.until(lambda: s.app.conductor.queued is not None)
        assert s.app.conductor.queued.text == "yes a", "it is a message, not an answer"
        assert s.app.conductor.tools.asking is not None


async def test_stopping_while_it_asks_and_going_on(stage, folder):
    async with stage_of(stage, READ, reply("done then"), reply("next")) as s:
        await ask_for_the_file(s, folder)
        await s.press("escape")
        await s.idle()
        assert not asks(s) and "■ Stopped" in s.frame()
        kept = s.history.messages(1)[1]
        assert kept.status == "stopped" and kept.steps[0].calls == (Call("read_file", {"path": "notes.txt"}),)
        await s.press("ctrl+up", "g")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        job = s.runtime.asked[1]
        assert not job.continuing and "not run" in job.messages[-1].content
        assert s.stored()[1] == ("assistant", "done then", "done") and len(s.answers) == 1
        await s.ask("more")
        assert [m.role for m in s.runtime.asked[2].messages] == ["user", "assistant", "tool", "assistant", "user"]


async def test_stopping_a_later_round_keeps_the_earlier_ones(stage):
    async with stage_of(stage, calling(("clock", {})), reply("one two", gate=Gate())) as s:
        await s.send("/tools on")
        await s.send("x")
        await s.until(lambda: s.answers and s.answers[0].content == "one ")
        await s.press("escape")
        await s.idle()
        kept = s.history.messages(1)[1]
        assert (kept.content, kept.status, len(kept.steps)) == ("one ", "stopped", 1)


async def test_quitting_while_it_asks_keeps_the_rounds(stage, folder):
    async with stage_of(stage, calling(("clock", {}), content="First."), READ) as s:
        await ask_for_the_file(s, folder)
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
        kept = s.history.messages(1)[1]
        assert kept.status == "stopped" and [step.waiting for step in kept.steps] == [False, True]


async def test_each_round_is_on_disk_before_the_next(stage, folder):
    async with stage_of(stage, READ, reply("one two", gate=Gate())) as s:
        await ask_for_the_file(s, folder)
        await s.until(lambda: s.history.messages(1)[1].steps)
        assert s.history.messages(1)[1].steps[0].waiting
        await s.press("right", "enter")
        await s.until(lambda: s.answers[0].content == "one ")
        await s.until(lambda: not s.history.messages(1)[1].steps[0].waiting)
        assert s.history.messages(1)[1].status == "streaming"


async def test_rounds_have_an_end(stage):
    def endless(job):
        return calling(("clock", {})) if job.tools else reply("enough")

    async with stage_of(stage, endless) as s:
        await s.send("/tools on")
        await s.ask("x")
        assert len(s.runtime.asked) == 9 and "enough" in s.frame()


async def test_a_question_of_another_conversation_says_so(stage, folder):
    async with stage_of(stage, READ, reply("ok")) as s:
        await ask_for_the_file(s, folder)
        await s.press("ctrl+n")
        await s.until(lambda: "Try one of these" in s.frame())
        assert asks(s), "it still waits"
        await s.pilot.click("#allow-once")
        await s.idle()
        assert s.history.messages(1)[1].content == "ok" and "Try one of these" in s.frame()


async def test_a_runtime_that_breaks_between_rounds(stage):
    async with stage_of(stage, calling(("clock", {})), reply("ok")) as s:
        await s.send("/tools on")
        submit = s.runtime.submit

        def broken(job):
            if len(s.runtime.asked) == 1:
                raise RuntimeError("the runtime is closed")
            return submit(job)

        s.runtime.submit = broken
        await s.ask("x")
        assert "✗ Failed. The runtime is closed" in s.frame() and "tries again" in s.frame()
        assert s.history.messages(1)[1].status == "failed"


async def test_models_that_cannot(stage):
    async with stage(reply("ok")) as s:
        await s.press("f8")
        await s.until(lambda: any("qwen-demo cannot call tools" in text for text in s.toasts))
        assert "f8 tools: not this model" in s.frame()
        await s.ask("x")
        assert s.runtime.asked[0].tools == ()
    assert "too small" in why_not(replace(DEMO, tools=True))
    assert why_not(None) and why_not(ABLE) is None


async def test_the_checkbox_and_wrong_folders(stage, tmp_path):
    async with stage_of(stage, reply("ok"), size=(80, 24)) as s:
        await s.press("f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen))
        box = s.app.screen.query_one("#tools")
        box.scroll_visible(animate=False)
        await s.pilot.pause()
        await s.pilot.click("#tools")
        await s.press("ctrl+s")
        await s.until(lambda: s.chat.settings.params.get("tools") is True)
        await s.send("/tools /no/such/folder")
        await s.until(lambda: any("is no folder" in text for text in s.toasts))
        await s.send("/tools off")
        await s.until(lambda: "tools" not in s.chat.settings.params)


async def test_arguments_are_only_text(stage):
    evil = calling(("calculator", {"expression": "[red]1[/]\x1b[31m\n+1"}))
    async with stage_of(stage, evil, reply("ok")) as s:
        await s.send("/tools on")
        await s.ask("x")
        s.chat.query_one(ToolCallView).fold(True)
        await s.pilot.pause()
        assert "\x1b" not in s.frame() and "[red]1[/]" in s.frame()
        s.app.post_message(events.Key("escape", None))
