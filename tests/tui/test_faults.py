"""What goes wrong is said in words, and the app goes on."""

import sqlite3

from qwen_mlx.errors import HistoryError
from qwen_mlx.events import AnswerDelta, JobCancelled, Message
from tests.tui.fake_runtime import FakeRuntime, Gate, failure, loading, reply
from tests.tui.test_conversations import add


async def test_a_failed_answer_is_shown_and_the_next_one_works(stage):
    text = "the prompt has 5000 tokens; expected at most 4096. Start a new conversation."
    async with stage([AnswerDelta("some "), *failure(text)], reply("fine")) as s:
        await s.ask("x")
        assert "✗ Failed. The prompt has 5000 tokens" in s.frame()
        assert "some" in s.frame()
        stored = s.history.messages(1)[1]
        assert (stored.status, stored.error, stored.content) == ("failed", text, "some ")
        await s.ask("y")
        assert "fine" in s.frame()


async def test_a_question_that_failed_does_not_poison_the_next_one(stage):
    async with stage(reply("hello"), failure("too long"), reply("fine")) as s:
        await s.ask("first")
        await s.ask("much too long")
        await s.ask("short")
        assert s.runtime.asked[2].messages == (
            Message("user", "first"),
            Message("assistant", "hello"),
            Message("user", "short"),
        )
        await s.press("ctrl+r")


async def test_a_failed_answer_can_be_asked_for_again(stage):
    async with stage(failure("out of memory"), reply("fine")) as s:
        await s.ask("x")
        await s.press("ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].messages == (Message("user", "x"),)
        assert "fine" in s.frame()
        assert "Failed" not in s.frame()


async def test_a_bug_of_ours_is_shown_without_its_traceback(stage):
    async with stage(failure("IndexError: 7", expected=False, details="Traceback ...\nsecret")) as s:
        await s.ask("x")
        assert "IndexError: 7" in s.frame()
        assert "Traceback" not in s.frame()


async def test_a_model_that_cannot_be_loaded(stage):
    script = failure("there is no model 'qwen9:1b'. Try `qwen-mlx list`.")
    s = stage(runtime=FakeRuntime(load=script, model=None), model="qwen9:1b")
    add(s.history, "from before")
    async with s:
        await s.until(lambda: "qwen9:1b could not be loaded. There is no model 'qwen9:1b'" in s.frame())
        assert "✗ No model" in s.frame()
        await s.chat.open(1)
        await s.until(lambda: "about from before" in s.frame())
        assert "could not be loaded" in s.frame()
        await s.send("hello?")
        await s.until(lambda: "No model is loaded" in s.toasts[-1])
        assert s.prompt.text == "hello?", "nothing is lost"
        assert s.stored(1)[-1][1] == "about from before", "nothing is stored"
        s.runtime._load = loading()
        s.app.action_reload()
        await s.until(lambda: "could not be loaded" not in s.frame())
        await s.press("enter")
        await s.until(lambda: s.runtime.asked)
        await s.idle()
        assert s.stored(1)[-1] == ("assistant", "Hello", "done")


async def test_a_question_that_waited_for_a_model_in_vain_comes_back(stage):
    gate = Gate()
    runtime = FakeRuntime(load=[gate, *failure("no space left")], model=None)
    async with stage(runtime=runtime, model="demo") as s:
        await s.send("hello?")
        await s.until(lambda: "Queued" in s.frame())
        gate.open()
        await s.until(lambda: "No space left" in s.frame())
        assert s.prompt.text == "hello?"
        assert s.history.conversations() == []


async def test_no_model_at_all(stage):
    async with stage(runtime=FakeRuntime(model=None)) as s:
        assert "○ No model" in s.frame()
        await s.send("x")
        await s.until(lambda: "Start qwen-mlx with the name" in s.toasts[-1])


async def test_a_cancelled_job_counts_as_stopped(stage):
    async with stage([JobCancelled()]) as s:
        await s.ask("x")
        assert "■ Stopped" in s.frame()


async def test_a_runtime_that_refuses(stage):
    async with stage() as s:
        s.runtime.closed = True
        await s.send("x")
        await s.until(lambda: s.toasts)
        assert "the runtime is closed" in s.toasts[-1]
        assert s.prompt.text == "x"
        assert s.stored()[1][2] == "failed", "no row is left streaming"


async def test_a_store_that_cannot_be_written(stage, monkeypatch):
    def full(*arguments, **options):
        raise HistoryError("there is no space left for history.db", hint="Free some disk space.")

    async with stage(reply("one two", gate=(gate := Gate()))) as s:
        monkeypatch.setattr(s.history, "add_message", full)
        await s.send("x")
        await s.until(lambda: s.toasts)
        assert "There is no space left" in s.toasts[-1]
        assert s.prompt.text == "x"
        monkeypatch.undo()
        await s.press("enter")
        await s.until(lambda: s.answers)
        monkeypatch.setattr(s.history, "finish_message", full)
        gate.open()
        await s.idle()
        await s.until(lambda: len(s.toasts) == 2)
        assert "one two" in s.frame(), "the answer is on screen at least"
        monkeypatch.undo()


async def test_a_damaged_store_is_told_while_the_app_runs(stage):
    s = stage()
    add(s.history, "doomed")
    async with s:
        with sqlite3.connect(s.folder / "history.db") as db:
            db.execute("DROP TABLE message_fts")
            db.execute("DROP TABLE message")
        await s.chat.open(1)
        await s.until(lambda: s.toasts)
        assert "history.db" in s.toasts[-1]
        await s.press("f1")


async def test_a_conversation_deleted_by_another_window(stage):
    s = stage()
    add(s.history, "shared")
    async with s:
        s.history.delete(1)
        await s.chat.open(1)
        await s.until(lambda: s.toasts)
        assert "There is no conversation 1" in s.toasts[-1]
