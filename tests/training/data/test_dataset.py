"""Rows -> examples on the disk: splits, cuts, counts, and a cache that no accident makes wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_mlx.errors import Cancelled, DataError, NoSpace, QwenError, UsageError
from qwen_mlx.events import CancelToken, DataPrepared, Notice, Progress
from qwen_mlx.text.template import ChatTemplate, builtin
from qwen_mlx.text.tokenizer import Tokenizer
from qwen_mlx.training.data import cache, dataset
from qwen_mlx.training.data.cache import CachedDataset, cache_folder, open_cache
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.data.dataset import open_dataset, open_validation
from tests.text import tiny

TOKENIZER = Tokenizer(tiny.description(), eos_token="<|im_end|>")
TEMPLATE = builtin("qwen3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here survives the test


def chat(question: str, answer: str = "hello") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prepared(
    config: DataConfig, *, valid: bool = False, template: ChatTemplate = TEMPLATE
) -> tuple[Any, DataPrepared, list]:
    """The set, its summary, and all events."""
    steps = (open_validation if valid else open_dataset)(config, TOKENIZER, template, CancelToken())
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return end.value, events[-1] if events else None, events


def shown(examples: CachedDataset) -> list[tuple[str, list[int], list[float]]]:
    return [(e.source, e.ids.tolist(), e.weights.tolist()) for e in (examples[i] for i in range(len(examples)))]


# ------------------------------------------------------------------------------------------------- what comes out


def test_examples_and_their_numbers(tmp_path):
    file = write(tmp_path / "train.jsonl", [chat("hello"), chat("x", "hello world"), chat("y" * 50)])
    examples, found, events = prepared(DataConfig(file))
    assert len(examples) == 3 and found == events[-1]
    assert [examples.source(index) for index in range(3)] == ["train.jsonl:1", "train.jsonl:2", "train.jsonl:3"]
    for index in range(3):
        example = examples[index]
        assert (example.ids.dtype, example.weights.dtype) == (np.int32, np.float32)
        assert len(example.ids) == len(example.weights) == examples.lengths[index]
        assert example.weights.sum() == examples.supervised[index] > 0 and example.weights[0] == 0
        text = TOKENIZER.decode(example.ids[example.weights > 0], skip_special=False)
        assert text == f"{['hello', 'hello world', 'hello'][index]}<|im_end|>\n"
    assert examples.lengths.dtype == np.int32
    assert found == DataPrepared(
        part="train",
        format="messages",
        rows=3,
        examples=3,
        tokens=int(examples.lengths.sum()),
        supervised=float(examples.supervised.sum()),
        longest=int(examples.lengths.max()),
    )
    assert {type(event) for event in events[:-1]} == {Progress}
    with pytest.raises(IndexError):
        examples[3]
    with pytest.raises(IndexError):
        examples[-1]


def test_long_rows_are_cut_and_rows_without_an_answer_left_are_left_out(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat("hello"), chat("x", "hello " * 30), chat("y " * 80), chat("z " * 90)])
    examples, found, events = prepared(DataConfig(file, max_len=40))
    assert [examples.source(index) for index in range(len(examples))] == ["a.jsonl:1", "a.jsonl:2"]
    assert (found.rows, found.examples, found.truncated, found.left_out) == (4, 2, 1, 2)
    assert examples.lengths.max() == 40 and examples.supervised.min() > 0
    assert examples.whole_lengths.max() > 40 and found.longest > examples.whole_lengths.max()
    assert [event.text for event in events if isinstance(event, Notice)] == list(found.warnings)
    cut, left = found.warnings
    assert cut == f"1 of 2 examples are cut at data.max_len: the longest has {found.longest} tokens"
    assert left == "2 of 4 rows are left out, because nothing in them would be learnt: a.jsonl:3, a.jsonl:4"


def test_nothing_to_learn_at_all(tmp_path):
    row = chat("a")
    row["messages"][1]["weight"] = 0
    examples, found, _ = prepared(DataConfig(write(tmp_path / "a.jsonl", [row])))
    assert len(examples) == len(examples.lengths) == found.tokens == 0 and found.left_out == 1


def test_several_examples_of_one_row(tmp_path):
    messages = [*chat("a")["messages"], *chat("b")["messages"]]
    file = write(tmp_path / "a.jsonl", [{"messages": messages}])
    examples, found, _ = prepared(DataConfig(file, history="chat"))
    assert [examples.source(index) for index in range(2)] == ["a.jsonl:1"] * 2
    assert (found.rows, found.examples) == (1, 2)
    assert prepared(DataConfig(file))[1].examples == 1


def test_rows_are_named_in_errors_before_anything_is_tokenised(tmp_path):
    rows = [chat(str(number)) for number in range(30)]
    rows[20]["messages"][1]["role"] = "robot"
    file = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=f"{file}:21, message 2: unknown role"):
        prepared(DataConfig(file))
    assert not cache_folder().exists()
    with pytest.raises(DataError, match=r"a.jsonl:1: this row is not in the format text"):
        prepared(DataConfig(file, format="text"))


def test_a_later_row_can_change_the_format(tmp_path):
    rows = [{**chat("a"), "text": "first"}, {**chat("b"), "text": "second"}, {"text": "third"}]
    examples, found, _ = prepared(DataConfig(write(tmp_path / "a.jsonl", rows)))
    assert found.format == "text"
    assert [TOKENIZER.decode(examples[index].ids) for index in range(3)] == ["first", "second", "third"]
    # The messages of two rows are not read then, and that is said.
    assert "the column 'messages' is not read (2 times)" in found.warnings


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"max_len": 1}, "data.max_len"),
        ({"max_len": True}, "data.max_len"),
        ({"valid": 1.0}, "data.valid"),
        ({"valid": float("nan")}, "data.valid"),
        ({"valid": -0.1}, "data.valid"),
        ({"loss_on": "all"}, "data.loss_on cannot be 'all'; expected assistant, last"),
        ({"format": "csv"}, "data.format"),
    ],
)
def test_options_that_cannot_be_meant(option, says):
    with pytest.raises(UsageError, match=says):
        DataConfig("a.jsonl", **option)


# --------------------------------------------------------------------------------------------- what is kept back


def rows_with_duplicates() -> list[dict[str, Any]]:
    rows = [chat(f"question {number}") for number in range(150)]
    return rows + [chat(f"QUESTION  {number}") for number in range(0, 150, 3)]


def test_a_share_is_kept_back_by_what_rows_say(tmp_path):
    file = write(tmp_path / "a.jsonl", rows_with_duplicates())
    config = DataConfig(file, valid=0.1)
    train, found, _ = prepared(config)
    valid, judged, _ = prepared(config, valid=True)
    sources = [[each.source(index) for index in range(len(each))] for each in (train, valid)]
    assert sorted(sources[0] + sources[1]) == sorted(f"a.jsonl:{number + 1}" for number in range(200))
    assert 5 < len({int(source.split(":")[1]) for source in sources[1]} & set(range(151))) < 30
    for number in range(0, 150, 3):
        pair = {f"a.jsonl:{number + 1}", f"a.jsonl:{151 + number // 3}"}
        assert pair <= set(sources[0]) or pair <= set(sources[1])
    assert (found.part, judged.part) == ("train", "valid")
    assert found.rows + judged.rows == 200 and found.duplicates + judged.duplicates == 50
    assert train.digest != valid.digest != prepared(DataConfig(file))[0].digest


def test_rows_stay_on_their_side_when_others_are_added(tmp_path):
    rows = rows_with_duplicates()
    sides = []
    for count in (100, 200):
        valid, _, _ = prepared(DataConfig(write(tmp_path / "a.jsonl", rows[:count]), valid=0.1), valid=True)
        sides.append({valid.source(index) for index in range(len(valid))})
    assert sides[0] == {source for source in sides[1] if int(source.split(":")[1]) <= 100}


@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_both_sides_have_a_row(tmp_path, share):
    config = DataConfig(write(tmp_path / "a.jsonl", [chat("a"), chat("b"), chat("b"), chat("c")]), valid=share)
    train, valid = prepared(config)[0], prepared(config, valid=True)[0]
    assert len(train) + len(valid) == 4 and len(train) and len(valid)


def test_nothing_can_be_kept_back(tmp_path):
    config = DataConfig(write(tmp_path / "a.jsonl", [chat("a"), chat("A")]), valid=0.5)
    assert len(prepared(config)[0]) == 2 and prepared(config, valid=True)[0] is None
    assert prepared(DataConfig(config.train), valid=True) == (None, None, [])


def test_a_file_to_judge_by(tmp_path):
    train = write(tmp_path / "a.jsonl", [chat("a"), chat("b")])
    valid = write(tmp_path / "b.jsonl", [chat("c")])
    config = DataConfig(train, valid=valid)
    assert len(prepared(config)[0]) == 2
    examples, found, _ = prepared(config, valid=True)
    assert examples.source(0) == "b.jsonl:1" and found.part == "valid"
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.jsonl", [chat("a")])
    write(folder / "valid.jsonl", [chat("b"), chat("c")])
    config = DataConfig(str(folder), valid=str(folder))
    assert (len(prepared(config)[0]), len(prepared(config, valid=True)[0])) == (1, 2)


# --------------------------------------------------------------------------------------------------------- the cache


def folder_of(examples: CachedDataset) -> Path:
    return examples.folder


def test_the_second_time_nothing_is_tokenised(tmp_path, monkeypatch):
    file = write(tmp_path / "a.jsonl", [chat("a"), chat("b", "x " * 50)])
    first, found, _ = prepared(DataConfig(file, max_len=30))
    monkeypatch.setattr(dataset, "read_rows", None)
    monkeypatch.setattr(dataset.Encoder, "encode", None)
    again, cached, events = prepared(DataConfig(file, max_len=30))
    assert shown(again) == shown(first) and again.digest == first.digest and found.warnings
    assert cached == DataPrepared(**{**vars(found), "cached": True})
    assert [event.text for event in events if isinstance(event, Notice)] == list(found.warnings)


def test_where_a_file_lies_does_not_matter_but_what_it_says(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat("a")])
    first = prepared(DataConfig(file))[0]
    (tmp_path / "other").mkdir()
    moved = shutil.move(file, tmp_path / "other" / "a.jsonl")
    _, found, _ = prepared(DataConfig(str(moved)))
    assert found.cached
    spaced = tmp_path / "a.jsonl"
    spaced.write_text(json.dumps(chat("a"), indent=None, separators=(" ,", " : ")) + "\n\n")
    again, found, _ = prepared(DataConfig(str(spaced)))
    assert not found.cached and again.digest == first.digest
    assert prepared(DataConfig(write(tmp_path / "a.jsonl", [chat("b")])))[0].digest != first.digest


@pytest.mark.parametrize(
    "change",
    [{"max_len": 77}, {"loss_on": "last"}, {"history": "chat"}, {"empty_think": "learn"}, {"wrap": "chat"}],
)
def test_options_are_part_of_the_digest(tmp_path, change):
    file = write(tmp_path / "a.jsonl", [chat("a"), chat("b")])
    first = prepared(DataConfig(file))[0]
    other, found, _ = prepared(DataConfig(file, **change))
    assert not found.cached and other.digest != first.digest
    assert prepared(DataConfig(file, packing=False))[1].cached
    assert prepared(DataConfig(file), template=builtin("qwen2_5"))[0].digest != first.digest


@pytest.mark.parametrize("name", [*cache._ARRAYS, cache._NAMES, cache._ABOUT])
@pytest.mark.parametrize("accident", ["gone", "shorter", "longer", "changed", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path, name, accident):
    file = write(tmp_path / "a.jsonl", [chat("a"), chat("b")])
    first = prepared(DataConfig(file))[0]
    expected, path = shown(first), folder_of(first) / name
    data = path.read_bytes()
    path.unlink()
    if accident != "gone":
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"shorter": data[:-1], "longer": data + b"\0", "changed": changed, "empty": b""}[accident])
    about_is_still_right = name == cache._ABOUT and open_cache(folder_of(first)) is not None
    again, found, _ = prepared(DataConfig(file))
    assert shown(again) == expected
    assert found.cached == about_is_still_right
    assert prepared(DataConfig(file))[1].cached
    assert [each.name for each in cache_folder().iterdir()] == [folder_of(again).name]


def test_open_examples_survive_that_their_cache_is_replaced(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat("a"), chat("b")])
    first = prepared(DataConfig(file))[0]
    expected = shown(first)
    shutil.rmtree(folder_of(first))
    prepared(DataConfig(file))
    assert shown(first) == expected


def test_a_place_that_is_taken_by_something_else(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat("a")])
    folder = folder_of(prepared(DataConfig(file))[0])
    shutil.rmtree(folder)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    assert len(prepared(DataConfig(file))[0]) == 1 and prepared(DataConfig(file))[1].cached


SCRIPT = """
import sys
from qwen_mlx.events import CancelToken
from qwen_mlx.training.data.config import DataConfig
from tests.training.data import test_dataset as here
steps = here.open_dataset(DataConfig(sys.argv[1]), here.TOKENIZER, here.TEMPLATE, CancelToken())
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        next(steps)
    except StopIteration as end:
        print(end.value.digest, len(end.value), end.value[199].ids.tolist())
        break
"""


def test_processes_that_make_the_same_cache_at_once(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat(str(number)) for number in range(200)])
    root = Path(__file__).parents[3]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for _ in range(3)
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    killed = runs.pop()
    killed.stdin.write("\n")
    killed.stdin.flush()
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    time.sleep(0.05)
    killed.kill()
    killed.communicate()
    results = [run.communicate(timeout=60) for run in runs]
    assert results[0] == results[1] and results[0][1] == "" and results[0][0].split()[1] == "200"
    assert prepared(DataConfig(file))[1].cached
    finished = [path for path in cache_folder().iterdir() if not path.name.startswith(".")]
    assert len(finished) == 1


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    folder = cache_folder()
    old, new, unused = folder / ".abc.1.tmp", folder / ".abc.2.tmp", folder / "abc"
    for path in (old, new, unused):
        path.mkdir(parents=True)
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(unused, (long_ago, long_ago))
    examples = prepared(DataConfig(write(tmp_path / "a.jsonl", [chat("a")])))[0]
    assert {path.name for path in folder.iterdir()} == {new.name, folder_of(examples).name}


def test_stopping_leaves_nothing(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat(str(number)) for number in range(1000)])
    cancel = CancelToken()
    steps = open_dataset(DataConfig(file), TOKENIZER, TEMPLATE, cancel)
    with pytest.raises(Cancelled):
        for event in steps:
            if isinstance(event, Progress) and event.stage == "tokenise" and event.done:
                cancel.cancel()
    assert list(cache_folder().iterdir()) == []
    steps = open_dataset(DataConfig(file), TOKENIZER, TEMPLATE, CancelToken())
    next(event for event in steps if isinstance(event, Progress) and event.stage == "tokenise" and event.done)
    steps.close()
    assert list(cache_folder().iterdir()) == []


def test_a_full_disk(tmp_path, monkeypatch):
    def full(self: Any, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write(tmp_path / "a.jsonl", [chat("a")])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="QWEN_MLX_CACHE"):
        prepared(DataConfig(file))
    assert list(cache_folder().iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "file"))
    with pytest.raises(QwenError, match="QWEN_MLX_CACHE moves the cache"):
        prepared(DataConfig(write(tmp_path / "a.jsonl", [chat("a")])))


def test_a_file_that_changes_while_it_is_read(tmp_path):
    file = write(tmp_path / "a.jsonl", [chat(str(number)) for number in range(10)])
    steps = open_dataset(DataConfig(file), TOKENIZER, TEMPLATE, CancelToken())
    next(event for event in steps if isinstance(event, Progress) and event.stage == "tokenise")
    write(Path(file), [chat("a")])
    with pytest.raises(DataError, match="was changed while it was read"):
        list(steps)
    assert list(cache_folder().iterdir()) == []
