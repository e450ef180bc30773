"""`qwen-mlx chat` with a prompt: what goes to standard output, what goes beside it, and the exit code."""

from __future__ import annotations

import json
import re
import socket

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.events import LoadModel, Message
from tests.cli.fake_runtime import CTRL_C, FakeRuntime, answering, echoing, failing, never_begun


@pytest.fixture(autouse=True)
def nothing_piped(stdin):
    return stdin


def chat(runtime, *words):
    return main(["chat", *words], new_runtime=runtime)


def test_prints_the_answer_and_nothing_else(capsys):
    runtime = FakeRuntime(answering("Seventy", "-five", thinking=["hm"]))
    assert chat(runtime, "What is 27 + 48?") == 0
    out, err = capsys.readouterr()
    assert out == "Seventy-five\n"
    assert err == ""
    assert runtime.jobs[0] == LoadModel("demo", "auto")
    assert runtime.replies[0].messages == (Message("user", "What is 27 + 48?"),)
    assert runtime.closed


def test_an_answer_that_ends_its_line_gets_no_second_one(capsys):
    assert chat(FakeRuntime(answering("a\nb\n")), "x") == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_words_are_joined_also_around_options(capsys):
    runtime = FakeRuntime(echoing)
    assert chat(runtime, "What", "is", "--seed", "3", "it?") == 0
    assert capsys.readouterr().out == "1:What is it?\n"


@pytest.mark.parametrize("words", [["--", "-x is what?"], ["--", "--help"], ["--seed", "1", "--", "-1 + 3"]])
def test_a_prompt_may_begin_with_a_dash(words):
    runtime = FakeRuntime()
    assert chat(runtime, *words) == 0
    assert runtime.replies[0].messages[-1].content == words[-1]


def test_options_reach_the_jobs():
    runtime = FakeRuntime()
    words = ["-m", "Qwen/Qwen3-8B@v1", "--weights", "expanded", "-s", "Be brief.", "--no-think"]
    words += ["--temperature", "0.5", "--top-k", "7", "--top-p", "0.9", "--min-p", "0.1", "--seed", "11"]
    words += ["--repetition-penalty", "1.2", "--presence-penalty", "0.3", "--frequency-penalty", "-0.4"]
    words += ["--max-tokens", "50", "--stop", "END", "--stop", "\n\n", "hello"]
    assert chat(runtime, *words) == 0
    assert runtime.jobs[0] == LoadModel("Qwen/Qwen3-8B@v1", "expanded")
    reply = runtime.replies[0]
    assert reply.messages == (Message("system", "Be brief."), Message("user", "hello"))
    assert reply.thinking is False
    sampling = reply.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.5, 7, 0.9, 0.1)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.2, 0.3, -0.4)
    assert (sampling.seed, sampling.max_tokens, sampling.stop) == (11, 50, ("END", "\n\n"))


def test_longer_texts(capsys):
    runtime = FakeRuntime()
    assert chat(runtime, "--rope-scaling", "yarn:4:32768", "hello") == 0
    assert runtime.jobs[0] == LoadModel("demo", rope_scaling="yarn:4:32768")


@pytest.mark.parametrize("bits", ["8", "4", "8/4"])
def test_a_smaller_cache(bits):
    runtime = FakeRuntime()
    assert chat(runtime, "--kv-bits", bits, "hello") == 0
    assert runtime.jobs[0] == LoadModel("demo", kv_bits=bits)


def test_bits_that_cannot_be_meant_load_nothing(capsys):
    runtime = FakeRuntime()
    assert chat(runtime, "--kv-bits", "3", "hello") == 2
    assert runtime.jobs == []
    assert "--kv-bits" in capsys.readouterr().err


def test_a_scaling_that_cannot_be_meant_loads_nothing(capsys):
    runtime = FakeRuntime()
    assert chat(runtime, "--rope-scaling", "ntk:4", "hello") == 2
    out, err = capsys.readouterr()
    assert (out, runtime.jobs) == ("", [])
    assert "'ntk:4' cannot be read; expected none, linear:2, dynamic:2, yarn:4" in err and err.count("\n") == 1


def test_what_is_not_given_stays_with_the_model(monkeypatch):
    monkeypatch.setenv("QWEN_MLX_MODEL", "/models/mine")
    runtime = FakeRuntime()
    assert chat(runtime, "hello") == 0
    assert runtime.jobs[0] == LoadModel("/models/mine")
    reply = runtime.replies[0]
    assert reply.thinking is None
    assert all(value is None for name, value in vars(reply.sampling).items() if name != "stop")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "1.5"], "--top-p"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--thinking-budget", "-1"], "--thinking-budget"),
        (["--seed", "x"], "--seed"),
        (["--stop", ""], "stop"),
        (["--think", "--no-think"], "--no-think"),
        (["--weights", "fast"], "--weights"),
        (["--temp", "1"], "--temp"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_loaded(words, named, capsys):
    runtime = FakeRuntime()
    assert chat(runtime, *words, "hello") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qwen-mlx: error: ") and named in err and err.count("\n") == 1
    assert runtime.jobs == []


# ------------------------------------------------------------------------------------------------ standard input


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        ([], b"What is 1 + 1?\n", "What is 1 + 1?"),
        (["Review:"], b"line 1\n\n  line 2\r\n", "Review:\n\nline 1\n\n  line 2"),
        (["Only this"], b"", "Only this"),
        (["Only this"], b" \n", "Only this"),
        ([], "\ufeffgr\u00fc\u00df dich \u4f60\u597d".encode(), "gr\u00fc\u00df dich \u4f60\u597d"),
    ],
)
def test_prompt_and_pipe(words, piped, prompt, stdin):
    stdin(piped)
    runtime = FakeRuntime()
    assert chat(runtime, *words) == 0
    assert runtime.replies[0].messages[-1].content == prompt


def test_no_prompt_at_all(capsys):
    assert chat(FakeRuntime()) == 2
    assert "there is no prompt" in capsys.readouterr().err


def test_an_empty_prompt(capsys, stdin):
    stdin(b"text")
    assert chat(FakeRuntime(), "  ") == 2
    assert "the prompt is empty" in capsys.readouterr().err


def test_piped_bytes_that_are_not_text(capsys, stdin):
    stdin(b"ab\xff\xfe")
    assert chat(FakeRuntime(), "Describe") == 2
    assert "byte 0xff at 2" in capsys.readouterr().err


def test_a_closed_standard_input(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert chat(FakeRuntime(), "hello") == 0
    assert chat(FakeRuntime()) == 2


def test_a_silent_socket_is_not_waited_for(monkeypatch):
    """Some programs start their children with a socket as standard input and never close it."""
    monkeypatch.setattr("qwen_mlx.cli.chat._SOCKET_PATIENCE", 0.01)
    near, far = socket.socketpair()
    with near, far, near.makefile("r") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        runtime = FakeRuntime()
        assert chat(runtime, "hello") == 0
        assert runtime.replies[0].messages[-1].content == "hello"


def test_a_socket_that_speaks_is_read(monkeypatch):
    near, far = socket.socketpair()
    with near, near.makefile("r") as stream:
        far.sendall(b"piped")
        far.close()
        monkeypatch.setattr("sys.stdin", stream)
        runtime = FakeRuntime()
        assert chat(runtime, "hello") == 0
        assert runtime.replies[0].messages[-1].content == "hello\n\npiped"


# ------------------------------------------------------------------------------------------------ thinking, stats


def test_thinking_goes_to_standard_error_in_a_pipe(capsys):
    assert chat(FakeRuntime(answering("75", thinking=["carry ", "the one"])), "x", "--show-thinking") == 0
    out, err = capsys.readouterr()
    assert out == "75\n"
    assert err == "carry the one\n\n"


def test_thinking_is_dim_above_the_answer_in_a_terminal(terminal):
    out, err = terminal()
    assert chat(FakeRuntime(answering("75", thinking=["carry"])), "x", "--show-thinking") == 0
    assert out.getvalue() == "\x1b[2mcarry\x1b[0m\n\n75\n"
    assert "carry" not in err.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    out, _ = terminal()
    assert chat(FakeRuntime(answering("75", thinking=["carry"])), "x", "--show-thinking") == 0
    assert out.getvalue() == "carry\n\n75\n"


def test_an_empty_thinking_block_leaves_no_trace(capsys):
    assert chat(FakeRuntime(answering("75", thinking=["\n", "\n"])), "x", "--show-thinking") == 0
    assert capsys.readouterr() == ("75\n", "")


def test_control_characters_of_a_model_do_not_reach_a_terminal(terminal):
    out, _ = terminal()
    assert chat(FakeRuntime(answering("a\x1b]52;c;aGk=\x07b\x1b[2J", "\x9bc\td\r\n")), "x") == 0
    assert out.getvalue() == "a]52;c;aGk=b[2Jc\td\n"


def test_a_pipe_gets_the_text_as_it_is(capsys):
    assert chat(FakeRuntime(answering("a\x1bb\r\n")), "x") == 0
    assert capsys.readouterr().out == "a\x1bb\r\n"


def test_progress_is_erased_before_the_answer(terminal):
    out, err = terminal()
    assert chat(FakeRuntime(answering("75")), "x") == 0
    assert "loading: 50 %" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[K")
    assert out.getvalue() == "75\n"


def test_stats(capsys):
    assert chat(FakeRuntime(answering("75")), "x", "--stats") == 0
    out, err = capsys.readouterr()
    assert out == "75\n"
    assert "prompt 20 tokens (8 cached), 120 tok/s" in err
    assert "reply 11 tokens (4 thinking), 20.0 tok/s" in err
    assert "first token after 0.25 s" in err
    assert "1.5 MB" in err


def test_a_reply_that_was_cut_says_so_beside_the_answer(capsys):
    assert chat(FakeRuntime(answering("long te", reason="length")), "x") == 0
    out, err = capsys.readouterr()
    assert out == "long te\n"
    assert "--max-tokens" in err


def test_a_reply_of_nothing_but_thinking_is_explained(capsys):
    assert chat(FakeRuntime(answering(thinking=["hm"], reason="length")), "x") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "no answer had begun" in err


# ------------------------------------------------------------------------------------------------ JSON


def lines_of_json(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_every_event(capsys):
    assert chat(FakeRuntime(answering("7", "5 \u4f60", thinking=["hm"])), "x", "--json") == 0
    out, err = capsys.readouterr()
    events = lines_of_json(out)
    assert err == ""
    assert [event["type"] for event in events] == [
        "progress",
        "model_loaded",
        "prefill_progress",
        "reasoning_delta",
        "reasoning_end",
        "answer_delta",
        "answer_delta",
        "reply_finished",
    ]
    assert events[1]["info"]["family"] == "qwen3"
    assert events[5] == {"type": "answer_delta", "text": "7"}
    last = events[-1]
    assert last["message"] == {"role": "assistant", "content": "75 \u4f60", "reasoning": "hm", "tool_calls": []}
    assert last["reason"] == "stop"
    assert last["stats"]["completion_tokens"] == 11
    assert last["stats"]["decode_speed"] == pytest.approx(20)


def test_json_of_a_failure(capsys):
    assert chat(FakeRuntime(missing=["nix"]), "x", "--json", "-m", "nix") == 3
    out, err = capsys.readouterr()
    (event,) = lines_of_json(out)
    assert event["type"] == "job_failed" and event["exit_code"] == 3
    assert "there is no model 'nix'" in err


def test_json_needs_a_prompt(terminal, stdin):
    stdin(None)
    _, err = terminal()
    assert chat(FakeRuntime(), "--json") == 2
    assert "--json needs a prompt" in err.getvalue()


# ------------------------------------------------------------------------------------------------ failures, Ctrl-C


def test_a_model_that_is_not_there(capsys):
    runtime = FakeRuntime(missing=["nix"])
    assert chat(runtime, "x", "-m", "nix") == 3
    assert capsys.readouterr() == ("", "qwen-mlx: error: there is no model 'nix'\n")
    assert runtime.replies == [] and runtime.closed


def test_a_reply_that_fails(capsys):
    assert chat(FakeRuntime(failing("the context is full")), "x") == 1
    assert capsys.readouterr().err == "qwen-mlx: error: the context is full\n"


def test_a_bug_in_the_runtime(capsys):
    script = failing("KeyError: 'x'", expected=False, details="Traceback: in the thread")
    assert chat(FakeRuntime(script), "x") == 70
    err = capsys.readouterr().err
    assert "KeyError: 'x'" in err and "This is a bug in qwen-mlx" in err and "Traceback" not in err
    assert chat(FakeRuntime(script), "x", "--debug") == 70
    assert "Traceback: in the thread" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_printed(capsys):
    runtime = FakeRuntime(answering("one ", "two ", CTRL_C, "three"))
    assert chat(runtime, "count") == 130
    assert re.fullmatch(r"one two \n", capsys.readouterr().out)
    assert runtime.closed


def test_ctrl_c_before_the_answer(capsys):
    assert chat(FakeRuntime(never_begun), "x") == 130
    assert chat(FakeRuntime(load=never_begun), "x") == 130
    assert capsys.readouterr().out == ""


def test_ctrl_c_in_json_still_gives_the_last_event(capsys):
    assert chat(FakeRuntime(answering("one", CTRL_C, "two")), "x", "--json") == 130
    assert lines_of_json(capsys.readouterr().out)[-1]["reason"] == "cancelled"


def test_a_second_ctrl_c_does_not_wait(capsys):
    def stubborn(job, token):
        yield CTRL_C
        yield CTRL_C
        raise AssertionError("it went on")

    runtime = FakeRuntime(stubborn)
    assert chat(runtime, "x") == 130
    assert runtime.closed
