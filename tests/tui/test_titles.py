"""Titles that the model finds in its idle time."""

from dataclasses import replace

import pytest

from qwen_mlx.events import Message, ReplyFinished, ReplyStats
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, failure, reply
from tui.screens import chat
from tui.titles import TOKENS, can_write, title_from

ABLE = replace(DEMO, name="able", parameters=600_000_000)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(chat, "IDLE_SECONDS", 0.01)


def titles(*scripts, title="Sums of numbers", answers=("75",), model=ABLE):
    """A runtime whose answers are these, and whose titles are those."""
    waiting = [reply(answer) for answer in answers]
    found = list(scripts) or [reply(title)]

    def script(job):
        if job.conversation == "title":
            return found.pop(0) if len(found) > 1 else found[0]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return FakeRuntime(script, model=model)


def title_of(s):
    return s.history.conversation(1).title


async def test_a_title_is_found_after_the_first_answer(stage):
    async with stage(runtime=titles()) as s:
        await s.ask("What is 27 + 48?")
        await s.until(lambda: title_of(s) == "Sums of numbers")
        await s.until(lambda: "Sums of numbers" in s.frame().splitlines()[0])
        await s.until(lambda: any("Sums of numbers" in line[:34] for line in s.frame().splitlines()[1:]))
        job = s.runtime.asked[1]
        assert job.sampling.max_tokens == TOKENS and job.thinking is False and not job.keep and job.tools == ()
        assert "What is 27 + 48?" in job.messages[0].content and "75" in job.messages[0].content
        await s.ask("and more?")
        await s.pilot.pause(0.1)
        assert len(s.runtime.asked) == 3, "once is enough"


async def test_a_new_question_goes_first(stage):
    async with stage(runtime=titles([Gate()], reply("Late but good"), answers=("75", "76"))) as s:
        await s.send("one")
        await s.until(lambda: len(s.runtime.asked) == 2)
        assert title_of(s) == "one" and s.app.conductor.turn is None
        await s.send("two")
        await s.until(lambda: s.runtime.handles[1].cancelled)
        await s.until(lambda: title_of(s) == "Late but good", "it is tried again later")
        assert s.stored()[-1][1] == "76"


async def test_a_title_of_a_person_stays(stage):
    gate = Gate()
    async with stage(runtime=titles([gate, *reply("Theirs")])) as s:
        await s.send("one")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.send("/rename Mine")
        await s.until(lambda: title_of(s) == "Mine")
        gate.open()
        await s.until(lambda: not s.app.conductor.asides.active)
        await s.app.store.settle()
        assert title_of(s) == "Mine" and "Mine" in s.frame().splitlines()[0]


@pytest.mark.parametrize("model", [DEMO, replace(ABLE, thinking="always")])
async def test_models_that_cannot_are_not_asked(stage, model):
    async with stage(runtime=titles(model=model)) as s:
        await s.ask("one")
        await s.pilot.pause(0.2)
        assert len(s.runtime.asked) == 1 and title_of(s) == "one"


async def test_it_can_be_turned_off(stage):
    s = stage(runtime=titles())
    s.app.preferences.choose(titles=False)
    async with s:
        await s.ask("one")
        await s.pilot.pause(0.2)
        assert len(s.runtime.asked) == 1


@pytest.mark.parametrize(
    "script",
    [failure("out of memory"), reply("<think>"), [ReplyFinished(Message("assistant", ""), "stop", ReplyStats())]],
)
async def test_what_is_no_title_changes_nothing(stage, script):
    async with stage(runtime=titles(script)) as s:
        await s.ask("one")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.until(lambda: not s.app.conductor.active)
        assert title_of(s) == "one" and s.toasts == []


async def test_no_title_for_an_answer_that_failed_or_was_deleted(stage):
    async with stage(runtime=FakeRuntime(failure("no"), reply("ok"), model=ABLE)) as s:
        await s.ask("one")
        await s.pilot.pause(0.2)
        assert len(s.runtime.asked) == 1


async def test_quitting_while_a_title_is_found(stage):
    async with stage(runtime=titles([Gate()])) as s:
        await s.send("one")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
        assert s.runtime.handles[1].cancelled and title_of(s) == "one"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Sums of Numbers."', "Sums of Numbers"),
        ("Title: **Sums**\n\nBecause ...", "Sums"),
        ("标题：春天的诗", "春天的诗"),
        ("\n\n  # Heading\n", "Heading"),
        ("", None),
        ("...", None),
        ("<think>hm", None),
        ("word " * 40, "word " * 11 + "word…"),
    ],
)
def test_what_is_made_of_the_text(text, title):
    assert title_from(text) == title


def test_which_models():
    assert can_write(ABLE) and can_write(replace(ABLE, thinking="never"))
    assert not can_write(DEMO)
