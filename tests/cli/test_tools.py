"""`qwen-mlx chat --tools`: rounds of calls in a terminal, and what a person is asked."""

from dataclasses import replace

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.events import AnswerDelta, Message, ModelLoaded, Reply, ReplyFinished
from tests.cli.fake_runtime import INFO, STATS, FakeRuntime


def calling(*rounds):
    """A model that makes these calls, one round after the other, and then answers with all results."""

    def script(job, token):
        if not isinstance(job, Reply):
            yield ModelLoaded(replace(INFO, tools=True), 0.1)
            return
        results = [m.content for m in job.messages if m.role == "tool"]
        done = sum(1 for m in job.messages if m.tool_calls)
        if done < len(rounds) and job.tools:
            calls = tuple({"type": "function", "function": {"name": n, "arguments": a}} for n, a in rounds[done])
            yield ReplyFinished(Message("assistant", "", None, calls), "stop", STATS)
        else:
            text = f"results: {' | '.join(results)}"
            yield AnswerDelta(text)
            yield ReplyFinished(Message("assistant", text), "stop", STATS)

    return script


@pytest.fixture(autouse=True)
def nothing_piped(stdin):
    return stdin


def chat(script, *words):
    runtime = FakeRuntime(script, load=script)
    return runtime, main(["chat", *words], new_runtime=runtime)


def test_calls_are_run_and_their_results_go_back(capsys):
    rounds = [[("calculator", {"expression": "6*7"}), ("nonsense", {})], [("calculator", {"expression": "1/0"})]]
    runtime, code = chat(calling(*rounds), "--tools", "x")
    assert code == 0
    out, err = capsys.readouterr()
    assert out == "results: 42 | There is no tool 'nonsense'; there are calculator, clock. | Error: division by zero.\n"
    assert "(calculator 6*7 → 42)" in err
    assert len(runtime.replies) == 3
    assert {tool["function"]["name"] for tool in runtime.replies[0].tools} == {"calculator", "clock"}


def test_a_model_without_tools_says_so(capsys):
    def script(job, token):
        yield ModelLoaded(INFO, 0.1)

    _, code = chat(script, "--tools", "x")
    assert code == 2 and "cannot call tools" in capsys.readouterr().err


def test_files_are_not_read_when_nobody_can_be_asked(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("inside")
    _, code = chat(calling([("read_file", {"path": "a.txt"})]), "--tools-folder", str(tmp_path), "x")
    out, err = capsys.readouterr()
    assert code == 0 and "did not allow" in out and "inside" not in out and "nobody could be asked" in err
    assert chat(calling(), "--tools-folder", str(tmp_path / "none"), "x")[1] == 2


@pytest.mark.parametrize(
    ("typed", "results"),
    [("y\nn\n", ["inside", "did not allow"]), ("a\n", ["inside", "inside"]), ("\n\n", ["did not allow"] * 2)],
)
def test_a_person_is_asked_before_each_file(stdin, terminal, tmp_path, monkeypatch, typed, results):
    (tmp_path / "a.txt").write_text("inside")
    stdin(None)
    import sys

    sys.stdin.write(typed)
    sys.stdin.seek(0)
    out, err = terminal()
    rounds = [[("read_file", {"path": "a.txt"}), ("read_file", {"path": "./a.txt"})]]
    _, code = chat(calling(*rounds), "--tools-folder", str(tmp_path), "x")
    assert code == 0
    said = out.getvalue().split("results: ")[1].split(" | ")
    assert all(part in text for part, text in zip(results, said))
    assert err.getvalue().count("Allow it?") == (1 if typed == "a\n" else 2)


def test_rounds_have_an_end(capsys):
    runtime, code = chat(calling(*[[("clock", {})]] * 50), "--tools", "x")
    assert code == 0 and len(runtime.replies) == 9 and runtime.replies[-1].tools == ()
