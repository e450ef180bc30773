"""What a model may call: values, limits, and what is kept from it."""

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.chat import steps, tool_loop, tools
from qwen_mlx.chat.calculator import MAX_LENGTH, CalculatorError, calculate
from qwen_mlx.chat.steps import Call, Step, step_of
from qwen_mlx.chat.tools import Toolbox
from qwen_mlx.events import Message, Reply


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1 + 0.2", "0.3"),
        ("2 + 3 * 4", "14"),
        ("-2^2", "-4"),
        ("2^-2", "0.25"),
        ("2^3^2", "512"),
        ("2**10", "1024"),
        ("(1 + 2) × (3 − 1) ÷ 4", "1.5"),
        ("10 % 4 + 7 // 2", "5"),
        ("3! + 0!", "7"),
        ("1/3", "0.333333333333333"),
        ("sqrt(16) + √9", "7"),
        ("sqrt(2)", "1.4142135623731"),
        ("sin(pi / 2)", "1"),
        ("max(1, 2.5, -3)", "2.5"),
        ("round(2.5678, 2)", "2.57"),
        ("log(8, 2)", "3"),
        ("1e3", "1000"),
        ("12345678901234567890 * 98765432109876543210", "1219326311370217952237463801111263526900"),
        ("0^0", "1"),
        ("(-1)^1000001", "-1"),
        ("1^99999999999", "1"),
        ("gcd(12, 18)", "6"),
        ("--5", "5"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1/0", "division by zero"),
        ("0^-1", "division by zero"),
        ("9**9**9", "too large"),
        ("10^10000", "too large"),
        ("1e308 * 1e308 * 1e9 ^ 200", "too large"),
        ("600!", "factorial"),
        ("2.5!", "factorial"),
        ("sqrt(-1)", "no real value"),
        ("(-8)^(1/3)", "no real value"),
        ("", "nothing to calculate"),
        ("1 +", "ends too early"),
        ("(1", "parenthesis"),
        ("1 2", "'2' is not expected"),
        ("__import__('os')", "cannot be read"),
        ("exec(1)", "'exec' is not known"),
        ("().x", "not expected|cannot be read"),
        ("min()", "does not take 0"),
        ("sin 3", "needs parentheses"),
        ("(" * 200 + "1" + ")" * 200, "nested too deeply"),
        ("1+" * MAX_LENGTH + "1", "longer than"),
        ("round(1.5, 1000)", "100 digits"),
    ],
)
def test_what_has_no_value(expression, reason):
    with pytest.raises(CalculatorError, match=reason):
        calculate(expression)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*"0123456789.+-*/%^!(),", "**", "//", "e", "pi", "sqrt(", "1e300", "9^9"])).map("".join)
)
def test_any_text_has_a_value_or_a_reason_and_soon(expression):
    begun = time.process_time()
    try:
        assert isinstance(calculate(expression), str)
    except CalculatorError as reason:
        assert str(reason)
    assert time.process_time() - begun < 2


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1, 50))
def test_whole_numbers_agree_with_python(a, b, c):
    assert calculate(f"({a}) * ({b}) - ({a}) // {c}") == str(a * b - a // c)


def test_the_clock():
    box = Toolbox(now=lambda: datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc))
    assert box.run("clock", {}).text == "Saturday, 2026-11-21 12:00:00 UTC (UTC+00:00)"
    assert "21:00:00 JST (UTC+09:00)" in box.run("clock", {"timezone": "Asia/Tokyo"}).text
    for zone in ("Nowhere/Land", "../../etc/passwd", "/etc/passwd"):
        assert "no time zone" in box.run("clock", {"timezone": zone}).text
    assert Toolbox().run("clock", {}).ok


def test_unknown_tools_and_arguments():
    box = Toolbox()
    assert box.run("rm", {}).text == "There is no tool 'rm'; there are calculator, clock."
    assert not box.run("read_file", {"path": "x"}).ok, "no folder, no such tool"
    assert "needs an expression" in box.run("calculator", {}).text
    assert box.run("calculator", {"expression": 7}).text == "7"
    assert "division by zero" in box.run("calculator", {"expression": "1/0"}).text
    assert [tool["function"]["name"] for tool in box.described] == ["calculator", "clock"]
    assert not box.asks_first("calculator") and not box.asks_first("read_file")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "allowed"
    (folder / "inner").mkdir(parents=True)
    (folder / "notes.txt").write_text("one\ntwo\nthree\n")
    (folder / "inner" / "deep.txt").write_text("deep")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def read(folder, path, **more):
    return Toolbox(folder).run("read_file", {"path": str(path), **more})


def test_files_below_the_folder_are_read(folder):
    assert Toolbox(folder).asks_first("read_file")
    assert read(folder, "notes.txt").text == "one\ntwo\nthree\n"
    assert read(folder, folder / "inner" / "deep.txt").text == "deep"
    assert read(folder, "inner/../notes.txt", first_line=2).text == "two\nthree\n"
    assert read(folder, ".").text == "inner/\nnotes.txt"
    (folder / "link").symlink_to("notes.txt")
    assert read(folder, "link").ok, "a link that stays below"


@pytest.mark.parametrize(
    "path", ["../secret.txt", "inner/../../secret.txt", "/etc/passwd", "~/x", "..", "out", "outdir/secret.txt"]
)
def test_nothing_outside_is_read(folder, path):
    (folder / "out").symlink_to(folder.parent / "secret.txt")
    (folder / "outdir").symlink_to(folder.parent)
    result = read(folder, path)
    assert not result.ok and "secret" not in result.text.replace("secret.txt", "")


def test_a_link_that_is_put_in_meanwhile_leads_nowhere(folder, monkeypatch):
    real = tools._open_below

    def swapped(root, path):
        (folder / "notes.txt").unlink()
        (folder / "notes.txt").symlink_to(folder.parent / "secret.txt")
        return real(root, path)

    monkeypatch.setattr(tools, "_open_below", swapped)
    result = read(folder, "notes.txt")
    assert not result.ok and "cannot be opened" in result.text


def test_what_cannot_be_read(folder, monkeypatch):
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "zero").write_bytes(b"a\0b")
    (folder / "empty").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    assert "not text" in read(folder, "binary").text
    assert "not text" in read(folder, "zero").text
    assert read(folder, "empty").text == "The file is empty."
    assert "is no file" in read(folder, "pipe").text
    assert "no file 'none'" in read(folder, "none").text
    assert "cannot be reached" in read(folder, "a\0b").text or "no file" in read(folder, "a\0b").text
    assert "has 3 lines" in read(folder, "notes.txt", first_line=9).text
    assert "needs a path" in Toolbox(folder).run("read_file", {"path": 3}).text
    assert not read(Path("/no/such/folder"), "x").ok
    monkeypatch.setattr(tools, "MAX_FILE", 5)
    assert "at most 5 are read" in read(folder, "notes.txt").text


def test_a_long_file_is_cut_and_can_be_read_on(folder):
    lines = [f"line {n} {'x' * 90}\n" for n in range(1, 1001)]
    (folder / "long.txt").write_text("".join(lines))
    text = read(folder, "long.txt").text
    assert len(text) < tools.MAX_TEXT + 100 and "of 1,000. Go on with first_line.]" in text
    last = int(text.rsplit("line ", 1)[1].split(" ")[0].replace(",", ""))
    assert read(folder, "long.txt", first_line=last).text.startswith(f"line {last} ")


# --------------------------------------------------------------------------------------------------------- rounds


def called(*calls, content="", reasoning=None):
    made = tuple({"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls)
    return Message("assistant", content, reasoning, made)


def test_a_round_and_its_messages():
    step = step_of(called(("calculator", {"expression": "1+1"}), ("clock", {}), content="Let me see", reasoning="hm"))
    assert step.waiting
    done = tuple(tool_loop.completed(call, Toolbox()) for call in step.calls)
    step = Step(step.content, step.reasoning, done)
    assert not step.waiting and step.calls[0].result == "2"
    messages = steps.as_messages([step])
    assert [m.role for m in messages] == ["assistant", "tool", "tool"]
    assert messages[0].tool_calls[0]["function"] == {"name": "calculator", "arguments": {"expression": "1+1"}}
    assert messages[1] == Message("tool", "2")
    assert steps.from_json(json.loads(json.dumps(steps.to_json([step])))) == (step,)
    assert steps.from_json([{"calls": "x"}, 3, {"calls": [{"outcome": "?"}]}]) == (
        Step("", None, ()),
        Step("", None, (Call("", {}, "", "failed"),)),
    )


def test_a_call_that_was_stopped_is_told_to_the_model():
    assert "not run" in steps.as_messages([Step("", None, (Call("clock"),))])[1].content
    assert tool_loop.refused(Call("read_file")).outcome == "refused"


def test_the_next_reply_and_the_last_round():
    job = Reply("1", (Message("user", "q"),), tools=Toolbox().described)
    step = Step("", None, (Call("calculator", {"expression": "1"}, "1", "done"),))
    after = tool_loop.next_reply(job, [step])
    assert [m.role for m in after.messages] == ["user", "assistant", "tool"] and after.tools == job.tools
    after = tool_loop.next_reply(job, [step] * tool_loop.MAX_ROUNDS)
    assert after.tools == () and "No more tools" in after.messages[-1].content
    many = tool_loop.completed(Call("clock"), Toolbox(), tool_loop.MAX_CALLS)
    assert many.outcome == "failed" and "at most" in many.result
