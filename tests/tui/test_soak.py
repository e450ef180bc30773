"""Random things done to the app, one after the other: whatever a person does, it goes on.

`SOAK=20x200 pytest tests/tui/test_soak.py` makes twenty runs of 200 actions; here there are fewer.
"""

import os
import random
from dataclasses import replace

import pytest

from qwen_mlx.events import SamplingOptions
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, failure, loading, reply
from tests.tui.test_models import KNOWN, FakeShelf
from tests.tui.test_tools import calling
from tui.bindings import KEYS
from tui.screens.chat import ChatScreen

RUNS, ACTIONS = (int(part) for part in os.environ.get("SOAK", "1x80").split("x"))
QUIT = {"ctrl+q", "ctrl+c", "super+c"}
KEYBOARD = sorted({name for key in KEYS for name in key.keys.split(",")} - QUIT)
ABLE = replace(DEMO, tools=True, parameters=600_000_000)
COMMANDS = (
    "/tools on",
    "/tools .",
    "/tag work",
    "/untag work",
    "/preset precise",
    "/attach soak.txt",
    "/detach",
    "/stats",
)
# Of the dialogs, which have their keys to themselves.
KEYBOARD += ["ctrl+g", "ctrl+x", "ctrl+t", "ctrl+d", "left", "right", "down", "enter", "escape"]
WORDS = (
    "/settings",
    "/kv 8",
    "/kv off",
    "/models",
    "/import nothing.json",
    *COMMANDS,
    "hello",
    "你好 世界",
    "/",
    "/export",
    "/new",
    "/think off",
    "a\nb",
    "`x`",
    "👩‍👩‍👧",
    "/nonsense",
    "",
)
TEXTS = (
    "short",
    "# Title\n\n- one\n- two\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "word " * 200,
    "一二三四五六七八九十" * 30,
)


CALLS = (
    ("calculator", {"expression": "2^10"}),
    ("clock", {}),
    ("read_file", {"path": "soak.txt"}),
    ("read_file", {"path": "../outside"}),
    ("nonsense", {"x": [1]}),
)


def scripts(rng):
    """Replies of all kinds, endless."""

    def one(job):
        kind = rng.random()
        if job.tools and kind < 0.6:
            return calling(rng.choice(CALLS), content=rng.choice(TEXTS))
        if kind < 0.1:
            return failure("something went wrong", expected=kind < 0.05, details="Traceback ...")
        thinking = rng.choice(("", "a thought", "long " * 40))
        gate = Gate() if kind < 0.3 else None
        return reply(rng.choice(TEXTS), thinking, gate=gate)

    return [one]


async def act(s, rng):
    """One thing a person may do."""
    choice = rng.random()
    if choice < 0.55:
        await s.press(rng.choice(KEYBOARD))
    elif choice < 0.75:
        await s.press(*rng.choice(WORDS).replace("\n", ""), "enter")
    elif choice < 0.82:
        await s.pilot.resize_terminal(rng.randrange(20, 160), rng.randrange(6, 60))
    elif choice < 0.92:
        width, height = s.app.size
        await s.pilot.click(offset=(rng.randrange(width), rng.randrange(height)))
    elif choice < 0.96:
        s.time.pass_by(rng.choice((0.3, 5, 90000)))
    else:
        for step in [step for handle in s.runtime.handles for step in handle._steps if isinstance(step, Gate)]:
            step.open()


@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.timeout(600)
async def test_whatever_is_done_the_app_goes_on(stage, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(seed)
    (tmp_path / "soak.txt").write_text("some text")
    # Quantizations fail, downloads wait: both are begun and stopped at any moment.
    runtime = FakeRuntime(*scripts(rng), model=ABLE, load=loading(ABLE), work=failure("not now"))
    s = stage(runtime=runtime, shelf=FakeShelf(Gate(), known=KNOWN), model="demo")
    async with s:
        for number in range(ACTIONS):
            await act(s, rng)
            assert s.app.is_running, f"it ended at action {number}"
        for _ in range(5):
            await s.press("escape")
        await s.pilot.resize_terminal(120, 40)
        await s.until(lambda: isinstance(s.app.screen, ChatScreen))
        for step in [step for handle in s.runtime.handles for step in handle._steps if isinstance(step, Gate)]:
            step.open()
        s.app.conductor.stop()  # it may wait for a person
        await s.idle()
        await s.chat.attaching.clear()
        await s.press("ctrl+n")
        await s.until(lambda: s.chat.conversation is None)
        s.prompt.clear()
        s.runtime._replies.clear()
        s.runtime._replies.append(reply("all is well"))
        await s.ask("is it?")
        await s.until(lambda: "all is well" in s.frame())
        asked = [job for job in s.runtime.asked if job.conversation != "title"][-1]
        assert asked.messages[-1].content == "is it?"
        assert isinstance(asked.sampling, SamplingOptions)
    from qwen_mlx.chat.history import History

    with History(tmp_path / "history.db") as history:
        for conversation in history.conversations(1000):
            for message in history.all_messages(conversation.id):
                assert message.status != "streaming"
