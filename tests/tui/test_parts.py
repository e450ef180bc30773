"""The parts that need no screen: words, windows, cleaning, the prompt file, the collector, the store's thread."""

import ast
import asyncio
import gc
import itertools
import json
import subprocess
import sys
import threading
from datetime import timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import tui
from qwen_mlx.chat.history import History
from qwen_mlx.errors import HistoryError
from qwen_mlx.events import (
    AnswerDelta,
    JobFailed,
    Message,
    PrefillProgress,
    ReasoningDelta,
    ReasoningEnd,
    ReplyFinished,
    ReplyStats,
)
from tests.tui.fake_runtime import FakeHandle
from tests.tui.stage import START
from tui.clock import Clock
from tui.garbage import GarbagePolicy
from tui.prompts import KEPT, PromptFile, PromptHistory
from tui.sanitize import Sanitizer, sanitize
from tui.store import Store
from tui.turn import Turn
from tui.windowing import LIMIT, WINDOW, Window
from tui.wording import ago, brief, duration, group_of, meter, pad, sentence, shorten, size, title_of, tokens

CLOCK = Clock(lambda: START, lambda: 0.0, timezone.utc)


# ---------------------------------------------------------------------------------------------------------- words


def test_numbers_in_words():
    assert [duration(s) for s in (0, 0.04, 12.41, 99.9, 125, 3600)] == [
        *("0.0 s", "0.0 s", "12.4 s", "99.9 s", "2 min 05 s", "60 min 00 s")
    ]
    assert duration(-1) == "0.0 s"
    assert [tokens(n) for n in (0, 1, 834, 1204)] == ["0 tokens", "1 token", "834 tokens", "1,204 tokens"]
    assert [brief(n) for n in (0, 999, 1000, 1240, 9949, 9950, 32768, 999_499, 999_500, 1_048_576)] == [
        *("0", "999", "1.0k", "1.2k", "9.9k", "10k", "33k", "999k", "1.0M", "1.0M")
    ]
    assert [size(n) for n in (12, 2_420_000, 999_499, 4_600_000_000)] == ["12 B", "2.4 MB", "999 kB", "4.6 GB"]
    assert [meter(part, 4) for part in (0, 0.01, 0.5, 1, 7, -1)] == ["▱▱▱▱", "▰▱▱▱", "▰▰▱▱", "▰▰▰▰", "▰▰▰▰", "▱▱▱▱"]
    assert sentence("no model is loaded") == "No model is loaded."
    assert sentence(ValueError()) == "ValueError."
    assert sentence("Really?") == "Really?"


@given(st.integers(0, 10**15))
def test_brief_counts_are_short(number):
    assert len(brief(number)) <= 4 or number >= 10**12


def test_times_in_words():
    day = 86400
    cases = [
        (30, "now"),
        (59 * 60, "59m"),
        (2 * 3600, "2h"),
        (13 * 3600, "Fri"),
        (6 * day, "Sun"),
        (40 * day, "12 Oct"),
    ]
    assert [ago(START - passed, START, CLOCK) for passed, _ in cases] == [word for _, word in cases]
    assert ago(START - 400 * day, START, CLOCK) == "2025"
    assert ago(START + 100, START, CLOCK) == "now"
    groups = [group_of(START - passed, START, CLOCK) for passed in (-5, 0, 12 * 3600, 13 * 3600, 7 * day, 8 * day)]
    assert groups == ["Today", "Today", "Today", "Yesterday", "Previous 7 days", "Older"]


@given(st.text(), st.integers(0, 40))
def test_shortened_and_padded_text_has_its_width(text, width):
    short = shorten(text, width)
    assert cell_len(short) <= width
    assert "\n" not in short
    assert cell_len(pad(text, width)) == width


def test_titles():
    assert title_of("\n\n# What is\tthis?\nmore") == "What is this?"
    assert title_of("  \n ") == "New conversation"
    assert title_of("[b]x[/]\x1b[31m") == "[b]x[/]"
    assert cell_len(title_of("长" * 100)) <= 60


# ------------------------------------------------------------------------------------------------------- cleaning


@given(
    st.text(st.sampled_from("ab\n\r\x00\x07\x1b\\[]31;m\x9c\x85\u2028\u20290?x") | st.characters(), max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_cleaning_piece_by_piece_is_cleaning_the_whole(text, cuts):
    cleaner = Sanitizer()
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [cleaner.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    result = "".join(pieces) + cleaner.flush()
    assert result == sanitize(text)
    assert not set(result) & set("\r\x00\x07\x1b\x85\u2028\u2029\x9c")


def test_what_is_cleaned_away():
    assert sanitize("a\x1b[1;31mb\x1b[0m\x1b]0;title\x07c\x1b(Bd") == "abcd"
    assert sanitize("a\r\nb\rc\u2028d\x0be") == "a\nb\nc\nd\ne"
    assert sanitize("\ttab 你好 🙂 é") == "\ttab 你好 🙂 é"


def test_an_endless_sequence_is_not_held_back_for_ever():
    cleaner = Sanitizer()
    cleaner.feed("\x1b]0;")
    assert len(cleaner.feed("x" * 1000)) > 900


# -------------------------------------------------------------------------------------------------------- windows


@given(st.integers(0, 200), st.lists(st.sampled_from(["fill", "older", "grow", "prune"]), max_size=30))
def test_a_window_is_always_the_newest_end(total, steps):
    window = Window.open(total)
    for step in steps:
        before = window
        window = getattr(window, step)()
        assert 0 <= window.first <= window.total
        assert window.total == before.total + (step == "grow")
        if step == "fill":
            assert window.mounted <= max(WINDOW, before.mounted)
        if step == "prune":
            assert window.mounted <= LIMIT
    for _ in range(200):
        window = window.older()
    assert window.first == 0


def test_a_window_fills_up():
    window = Window.open(100)
    assert window.mounted < WINDOW
    while window != window.fill():
        window = window.fill()
    assert window.mounted == WINDOW


# -------------------------------------------------------------------------------------------------- earlier prompts


def test_the_prompt_file(tmp_path):
    file = PromptFile(tmp_path / "new" / "prompts.jsonl")
    assert file.load() == []
    for text in ("one", "two\nlines", "三"):
        file.add(text)
    assert file.load() == ["one", "two\nlines", "三"]
    with file.path.open("a") as stream:
        stream.write('broken\n{"a": 1}\n\n"four"\n')
    assert file.load() == ["one", "two\nlines", "三", "four"]


def test_a_long_prompt_file_is_cut(tmp_path):
    file = PromptFile(tmp_path / "prompts.jsonl")
    file.path.write_text("".join(json.dumps(f"p{n}") + "\n" for n in range(3 * KEPT)))
    expected = [f"p{n}" for n in range(2 * KEPT, 3 * KEPT)]
    assert file.load() == expected
    assert len(file.path.read_text().splitlines()) == KEPT
    assert file.load() == expected


def test_a_prompt_file_that_cannot_be_written_is_no_error(tmp_path):
    file = PromptFile(tmp_path)
    file.add("x")
    assert file.load() == []


def test_the_walk_through_prompts():
    walk = PromptHistory(["a", "b"])
    assert walk.newer() is None
    assert [walk.older("draft"), walk.older("b"), walk.older("a")] == ["b", "a", None]
    assert [walk.newer(), walk.newer(), walk.newer()] == ["b", "draft", None]
    walk.add("b")
    assert walk.older("") == "b"
    assert walk.older("") == "a", "the same prompt twice in a row is kept once"
    walk.leave()
    assert walk.older("new draft") == "b"
    assert walk.newer() == "new draft"


# ------------------------------------------------------------------------------------------------------ collector


def test_the_collector_while_streaming():
    before = gc.get_threshold(), sys.getswitchinterval()
    policy = GarbagePolicy()
    policy.settle()
    assert gc.get_freeze_count() > 0
    policy.start_streaming()
    policy.start_streaming()
    assert policy.streaming
    assert gc.get_threshold()[2] > before[0][2]
    frozen = gc.get_freeze_count()
    policy.settle()
    assert gc.get_freeze_count() == frozen, "never in the middle of an answer"
    policy.stop_streaming()
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
    policy.start_streaming()
    policy.close()
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
    assert gc.get_freeze_count() == 0


def test_cycles_that_were_frozen_are_found_in_the_end():
    class Node:
        pass

    alive = []
    policy = GarbagePolicy()
    node = Node()
    node.itself = node
    import weakref

    alive = weakref.ref(node)
    policy.settle()
    del node
    for _ in range(12):
        policy.settle()
    policy.close()
    assert alive() is None


# ------------------------------------------------------------------------------------------------ thread of the store


async def test_calls_of_the_store_run_in_order_off_the_loop(tmp_path):
    errors = []
    with History(tmp_path / "h.db") as history:
        store = Store(history, errors.append)
        order, threads = [], set()

        def work(number):
            order.append(number)
            threads.add(threading.get_ident())
            if number == 3:
                raise HistoryError("the disk is gone")

        for number in range(5):
            store.post(work, number)
        assert store.waiting == 5
        await store.call(work, 5)
        await store.settle()
        assert order == [0, 1, 2, 3, 4, 5]
        assert threads != {threading.get_ident()} and len(threads) == 1
        assert [str(error) for error in errors] == ["the disk is gone"]
        with pytest.raises(HistoryError):
            await store.call(work, 3)
        store.close()


async def test_the_loop_goes_on_while_the_store_waits(tmp_path):
    with History(tmp_path / "h.db") as history:
        store = Store(history, print)
        door = threading.Event()
        store.post(door.wait, 10)
        beats = 0
        while beats < 5:
            await asyncio.sleep(0)
            beats += 1
        assert store.waiting == 1
        door.set()
        await store.settle()
        store.close()


# ----------------------------------------------------------------------------------------------------------- turns


def turn():
    return Turn(1, 2, FakeHandle(None, None, []), "demo", 0.0)


def test_a_turn_from_start_to_end():
    t = turn()
    assert (t.phase, t.status, t.reasoning) == ("waiting", "streaming", None)
    t.apply(PrefillProgress(10, 20, 0), 1.0)
    assert (t.phase, t.context_used) == ("reading", 20)
    t.apply(ReasoningDelta("hm "), 2.0)
    assert t.phase == "thinking"
    assert t.reasoning_seconds(4.5) == 2.5
    t.apply(ReasoningEnd(3.0, 7), 5.0)
    assert (t.phase, t.reasoning_seconds(99), t.reasoning_tokens) == ("answering", 3.0, 7)
    for number in range(11):
        t.apply(AnswerDelta(f"{number} "), 5.0 + number / 10)
    assert t.speed(6.0) == pytest.approx(10)
    assert t.context_used == 20 + 12
    stats = ReplyStats(prompt_tokens=20, completion_tokens=21, decode_seconds=2.0)
    t.apply(ReplyFinished(Message("assistant", "final", "hm"), "stop", stats), 7.0)
    assert (t.ended, t.status, t.content, t.reasoning, t.context_used) == (True, "done", "final", "hm", 41)
    assert t.speed(99) == 10
    assert t.numbers()["finish_reason"] == "stop"


def test_a_turn_that_is_cut_short():
    t = turn()
    t.apply(ReasoningDelta("half"), 1.0)
    t.abandon(3.0)
    assert (t.status, t.reasoning, t.content, t.reasoning_seconds(9)) == ("stopped", "half", "", 2.0)
    t = turn()
    t.apply(AnswerDelta("half"), 1.0)
    t.apply(JobFailed("broken", True), 2.0)
    assert (t.status, t.error, t.content) == ("failed", "broken", "half")


def test_the_speed_is_that_of_the_last_moments():
    t = turn()
    for moment in (0.0, 0.1, 0.2, 10.0, 10.5):
        t.apply(AnswerDelta("x"), moment)
    assert t.speed(10.5) == pytest.approx(2)
    assert t.speed(20) == 0


# ---------------------------------------------------------------------------------------------------------- imports


def test_the_app_is_imported_without_anything_heavy():
    code = (
        "import sys, tui.app; "
        "heavy = {'mlx', 'mlx.core', 'numpy', 'tokenizers', 'jinja2', 'transformers', 'qwen_mlx.runtime.thread'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_app_knows_only_the_ground_floor_and_what_needs_no_model():
    ground = {"qwen_mlx", "qwen_mlx.events", "qwen_mlx.errors", "qwen_mlx.paths", "qwen_mlx.ranges"}
    # What of a conversation needs no model: the store and its tags, files, tools and what they said.
    modelless = ("history", "history_tags", "import_chats", "attachments", "steps", "tools", "tool_loop")
    allowed = ground | {"qwen_mlx.chat", *(f"qwen_mlx.chat.{name}" for name in modelless)}
    for file in Path(tui.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            ours = {name for name in names if name.startswith(("qwen_mlx", "mlx"))}
            assert ours <= allowed, file


def test_style_sheets_use_the_colours_of_the_theme():
    for file in Path(tui.__file__).parent.rglob("*.tcss"):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            words = line.split("/*")[0].split(":", 1)
            if len(words) == 2 and any(name in words[0] for name in ("color", "background", "border")):
                assert "rgb(" not in words[1] and "ansi_" not in words[1], (file, number)
                assert not any(part.startswith("#") for part in words[1].split()), (file, number)
