"""The line mode: what a person types, what they see, and what the runtime is asked."""

from __future__ import annotations

import pytest

from qwen_mlx.cli.line_chat import LineChat
from qwen_mlx.cli.main import main
from qwen_mlx.errors import QwenError
from qwen_mlx.events import LoadModel, Message, SamplingOptions
from tests.cli.fake_runtime import CTRL_C, FakeRuntime, answering, echoing, failing, never_begun

CTRL_D = EOFError


def typing(*lines):
    """A `read` that gives these lines, then Ctrl-D; exceptions among them are raised."""
    left = [*lines, CTRL_D]

    def read(prompt):
        line = left.pop(0)
        if isinstance(line, str):
            return line
        raise line()

    return read


def converse(runtime, *lines, **options):
    return LineChat(runtime, LoadModel("demo"), read=typing(*lines), **options).run()


def asked(runtime):
    return [[message.content for message in reply.messages] for reply in runtime.replies]


def test_a_conversation_remembers_what_was_said(capsys):
    runtime = FakeRuntime(echoing)
    assert converse(runtime, "hello", "", "   ", "again") == 0
    out = capsys.readouterr().out
    assert "Tiny: qwen3, 1.2 M parameters, 4.5 bits, 2048 tokens of context, cpu" in out
    assert "1:hello\n" in out and "3:again\n" in out
    assert asked(runtime) == [["hello"], ["hello", "1:hello", "again"]]
    assert len({reply.conversation for reply in runtime.replies}) == 1


def test_new_forgets(capsys):
    runtime = FakeRuntime(echoing)
    converse(runtime, "hello", "/new", "again")
    assert asked(runtime) == [["hello"], ["again"]]
    assert len({reply.conversation for reply in runtime.replies}) == 2


def test_another_model_is_loaded_the_same_way():
    runtime = FakeRuntime(echoing)
    first = LoadModel("demo", "quantized", "yarn:2")
    LineChat(runtime, first, read=typing("/model other/one")).run()
    assert runtime.jobs == [first, LoadModel("other/one", "quantized", "yarn:2")]


def test_quit_leaves():
    runtime = FakeRuntime(echoing)
    assert converse(runtime, "/quit", "hello") == 0
    assert runtime.replies == []


def test_options_are_those_of_the_command_line():
    runtime = FakeRuntime()
    sampling = SamplingOptions(seed=4)
    converse(runtime, "hello", system="Be brief.", thinking=True, sampling=sampling)
    (reply,) = runtime.replies
    assert reply.messages[0] == Message("system", "Be brief.")
    assert reply.thinking is True and reply.sampling is sampling


def test_think(capsys):
    runtime = FakeRuntime()
    converse(runtime, "/think on", "a", "/think off", "b", "/think auto", "c", "/think", "/think maybe")
    assert [reply.thinking for reply in runtime.replies] == [True, False, None]
    out = capsys.readouterr().out
    assert "thinking: on" in out and "thinking: auto" in out
    assert out.rstrip().endswith("/think on, /think off or /think auto")


def test_system(capsys):
    runtime = FakeRuntime()
    converse(runtime, "/system", "/system You are a cat.", "a", "/new", "/system none", "b")
    assert asked(runtime) == [["You are a cat.", "a"], ["b"]]
    assert "no system message" in capsys.readouterr().out


def test_model(capsys):
    runtime = FakeRuntime(echoing, missing=["nix"])
    converse(runtime, "/model", "hello", "/model other/one", "/model nix", "again")
    out, err = capsys.readouterr()
    assert out.count("Tiny: qwen3") == 3
    assert "error: there is no model 'nix'" in err
    loaded = [job.model for job in runtime.jobs if isinstance(job, LoadModel)]
    assert loaded == ["demo", "other/one", "nix"]
    assert asked(runtime)[-1] == ["hello", "1:hello", "again"]


def test_stats(capsys):
    converse(FakeRuntime(), "/stats", "hello", "/stats")
    out = capsys.readouterr().out
    assert "no reply yet" in out and "reply 11 tokens" in out
    converse(FakeRuntime(), "hello", stats=True)
    assert "reply 11 tokens" in capsys.readouterr().err


def test_help_lists_every_command_and_says_that_nothing_is_saved(capsys):
    converse(FakeRuntime(), "/help", "/nonsense")
    out = capsys.readouterr().out
    for command in ("/new", "/model", "/think", "/system", "/stats", "/help", "/quit"):
        assert f"\n{command}" in out
    assert "not saved" in out
    assert "there is no command /nonsense" in out


def test_a_message_may_begin_with_a_slash():
    runtime = FakeRuntime()
    converse(runtime, "//new is a command?", "/usr/bin holds what?", "/ a lonely slash")
    assert [reply.messages[-1].content for reply in runtime.replies] == [
        "/new is a command?",
        "/usr/bin holds what?",
        "/ a lonely slash",
    ]


def test_thinking_is_folded_into_a_line(capsys):
    converse(FakeRuntime(answering("75", thinking=["carry the one\n"])), "27 + 48?")
    out, err = capsys.readouterr()
    assert "(thought for 2.1 s, 4 tokens)\n\n" in out + err
    assert out.endswith("75\n\n")


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(capsys):
    runtime = FakeRuntime(answering("one ", CTRL_C, "two "), echoing)
    assert converse(runtime, "count", "go on") == 0
    out, err = capsys.readouterr()
    assert "one \n" in out and "two" not in out
    assert "(stopped)" in err
    assert asked(runtime)[-1] == ["count", "one ", "go on"]


def test_ctrl_c_before_any_answer_takes_the_question_back(capsys):
    runtime = FakeRuntime(never_begun, answering(CTRL_C, "x"), echoing)
    assert converse(runtime, "count", "count again", "go on") == 0
    assert asked(runtime)[-1] == ["go on"]


def test_ctrl_c_at_the_prompt_stays(capsys):
    runtime = FakeRuntime()
    assert converse(runtime, KeyboardInterrupt, "hello") == 0
    assert len(runtime.replies) == 1
    assert "Ctrl-D" in capsys.readouterr().out


def test_a_failed_reply_is_told_and_taken_back(capsys):
    runtime = FakeRuntime(failing("the context is full"), echoing)
    assert converse(runtime, "long", "short") == 0
    assert "error: the context is full" in capsys.readouterr().err
    assert asked(runtime)[-1] == ["short"]


def test_the_first_model_must_load():
    with pytest.raises(QwenError, match="no model 'demo'"):
        converse(FakeRuntime(missing=["demo"]), "hello")


def test_a_terminal_without_a_prompt_is_the_line_mode(monkeypatch, stdin, terminal):
    stdin(None)
    out, _ = terminal()
    monkeypatch.setattr("builtins.input", typing("hello", "/quit"))
    runtime = FakeRuntime(echoing)
    assert main(["chat", "-s", "Be brief.", "--seed", "5"], new_runtime=runtime) == 0
    assert asked(runtime) == [["Be brief.", "hello"]]
    assert runtime.replies[0].sampling.seed == 5
    assert "2:hello\n" in out.getvalue()
    assert runtime.closed
