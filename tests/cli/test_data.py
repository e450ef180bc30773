"""`qwen-mlx data inspect` as a person meets it, with the model that ships."""

from __future__ import annotations

import json

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.data import report
from qwen_mlx.cli.main import main
from qwen_mlx.cli.work import describe
from qwen_mlx.events import DataInspected, DataPrepared, Progress, ShownExample, ShownToken

pytestmark = pytest.mark.skipif(
    not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built"
)
ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! 😀"}]},
    {"messages": [{"role": "user", "content": "hi "}, {"role": "assistant", "content": "hello! 😀", "weight": 0.5}]},
    {"messages": [{"role": "user", "content": "a " * 300}, {"role": "assistant", "content": "b"}], "id": 3},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_what_is_learnt_stands_between_marks(file, capsys):
    code, out, err = run(capsys, "inspect", file, "--max-len", 100)
    assert code == 0
    _, first, second = out.split("--- rows.jsonl:")
    second, rest = second.split("---\n")
    assert first.startswith("1: ") and "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n" in first
    assert "⟦Hello! 😀<|im_end|>\n⟧" in first and first.count("⟦") == 1
    assert "⟦0.5: hello! 😀<|im_end|>\n⟧" in second
    lines = dict(line.split(maxsplit=1) for line in rest.splitlines() if not line.startswith(" "))
    assert lines["format"] == "messages" and lines["rows"].startswith("3") and lines["duplicates"] == "1"
    assert lines["cut"].startswith("0 at 100 tokens (the longest has ") and "%" in lines["packing"]
    assert rest.splitlines()[5] == "left out    1" and "up to" in rest
    assert "note: 1 of 3 rows are left out" in err and "rows.jsonl:3" in err and "'id' is not read" in err


def test_colours_only_in_a_terminal(file, capsys, terminal, monkeypatch):
    out, _ = terminal()
    assert main(["data", "inspect", str(file), "--rows", "2"]) == 0
    text = out.getvalue()
    assert "\x1b[32mHello! 😀<|im_end|>\x1b[0m\n" in text and "\x1b[33mhello! 😀<|im_end|>\x1b[0m" in text
    assert "\x1b[2m<|im_start|>user\x1b[0m\n\x1b[2mHi<|im_end|>\x1b[0m" in text and "⟦" not in text
    monkeypatch.setenv("NO_COLOR", "1")
    out, _ = terminal()
    assert main(["data", "inspect", str(file)]) == 0
    assert "\x1b" not in out.getvalue() and "⟦Hello" in out.getvalue()


def test_as_json(file, capsys):
    code, out, err = run(capsys, "inspect", file, "--json", "--rows", 1, "--max-len", 64)
    events = [json.loads(line) for line in out.splitlines()]
    last = events[-1]
    assert (code, err, last["type"]) == (0, "", "data_inspected")
    assert {event["type"] for event in events} == {"progress", "notice", "data_inspected"}
    assert last["data"]["format"] == "messages" and last["data"]["duplicates"] == 1 and last["max_len"] == 64
    (example,) = last["examples"]
    assert "".join(token["text"] for token in example["tokens"]).endswith("Hello! 😀<|im_end|>\n")
    assert {token["weight"] for token in example["tokens"]} == {0.0, 1.0}
    assert sum(count for _, count in last["lengths"]) == last["data"]["examples"] == 2


def test_options_reach_the_data(file, tmp_path, capsys):
    turns = [message for _ in range(2) for message in ROWS[0]["messages"]]
    file.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    for words, marks, examples in [
        ((), 2, "1\n"),
        (("--loss-on", "last"), 1, "1\n"),
        (("--history", "chat"), 2, "1, which make 2 examples\n"),
    ]:
        _, out, _ = run(capsys, "inspect", file, *words)
        assert out.count("⟦") == marks and f"rows        {examples}" in out
    _, out, _ = run(capsys, "inspect", file, "--empty-think", "learn", "--rows", 1)
    assert "⟦<think>\n\n</think>\n\nHello! 😀" in out
    file.write_text(json.dumps({"prompt": "Hi", "completion": "Ho"}) + "\n", encoding="utf-8")
    _, out, _ = run(capsys, "inspect", file, "--wrap", "plain")
    assert "Hi⟦Ho<|im_end|>⟧" in out
    code, _, err = run(capsys, "inspect", file, "--format", "text")
    assert code == 1 and "rows.jsonl:1: this row is not in the format text" in err
    code, _, err = run(capsys, "inspect", tmp_path, "--split", "test")
    assert code == 3 and "has no split 'test'" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "`qwen-mlx data ` cannot be meant; expected inspect FILE"),
        (("inspect",), "cannot be meant; expected inspect FILE"),
        (("inspekt", "a.jsonl"), "`qwen-mlx data inspekt a.jsonl` cannot be meant"),
        (("inspect", "a.jsonl", "--rows", "-1"), "--rows -1 cannot be meant; expected 0 or more"),
        (("inspect", "a.jsonl", "--max-len", "1"), "data.max_len cannot be used; expected 2 tokens or more"),
        (("inspect", ""), "data.train is empty; expected a file or a folder"),
        (("inspect", " "), "is not the name of a file"),
    ],
)
def test_what_cannot_be_meant(words, says, capsys):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and says in err and "Traceback" not in err


def test_progress_without_a_known_end():
    assert describe(Progress("look", 1000, None, "rows")) == "look: 1,000 rows"
    assert describe(Progress("tokenise", 500, 2000, "rows")) == "tokenise:  25 %  500 of 2,000 rows"


def test_text_of_rows_cannot_move_the_cursor():
    tokens = (ShownToken(1, "a\x1b[2J", 0.0), ShownToken(2, "b\x07", 1.0))
    data = DataPrepared("train", "text", 1, 1, 2, 1.0)
    found = DataInspected(data, 8, ((16, 1),), 0.25, (ShownExample("x\x1b:1", tokens, 2),))
    for colour in (True, False):
        text = "\n".join(report(found, colour=colour, marks=("[[", "]]")))
        assert "\x07" not in text and "\x1b[2J" not in text and "x:1: 2 tokens, 1 of them learnt" in text
    assert "a[2J[[b]]" in text
