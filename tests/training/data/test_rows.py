"""Files of rows: every format, and one clear error for everything that can be wrong with them."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import DataError, NotFound, QwenError
from qwen_mlx.training.data import rows as rows_module
from qwen_mlx.training.data.files import find_files
from qwen_mlx.training.data.rows import data_file, read_rows

ROWS = [{"text": "one"}, {"text": "zwei ü 二 😀"}, {"text": 'th"ree,\nlines'}]


def read(path: Path | str, split: str = "train") -> list[dict[str, Any]]:
    return [row.values for row in read_rows(find_files(str(path), split))]


def complaint(path: Path, split: str = "train") -> str:
    with pytest.raises(QwenError) as caught:
        read(path, split)
    return str(caught.value)


def written(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines(ROWS)),
        ("a.jsonl", "\ufeff" + lines(ROWS)),
        ("a.ndjson", "\n  \n" + lines(ROWS).replace("\n", "\r\n") + "\n"),
        ("a.jsonl", lines(ROWS).rstrip("\n")),
        ("a.json", lines(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.jsonl", "\n" + json.dumps(ROWS)),
        ("a.csv", 'text\none\nzwei ü 二 😀\n"th""ree,\nlines"\n'),
        ("a.CSV", '\ufefftext\r\none\r\nzwei ü 二 😀\r\n"th""ree,\nlines"\r\n'),
        ("a.tsv", 'text\none\nzwei ü 二 😀\n"th""ree,\nlines"\n'),
    ],
)
def test_rows_of_text_files(tmp_path, name, data):
    path = written(tmp_path / name, data)
    assert read(path) == ROWS
    packed = written(tmp_path / f"{name}.gz", gzip.compress(data.encode()))
    assert read(packed) == ROWS


def test_places_and_sources(tmp_path):
    path = written(tmp_path / "a.jsonl", "\n" + lines(ROWS[:2]))
    assert [(row.place, row.source) for row in read_rows([data_file(path)])] == [
        (f"{path}:2", "a.jsonl:2"),
        (f"{path}:3", "a.jsonl:3"),
    ]
    path = written(tmp_path / "a.json", json.dumps(ROWS[:1]))
    assert [row.source for row in read_rows([data_file(path)])] == ["a.json row 1"]
    path = written(tmp_path / "a.csv", 'text\n"two\nlines"\nnext\n')
    assert [row.source for row in read_rows([data_file(path)])] == ["a.csv:2", "a.csv:4"]


def test_empty_cells_are_absent(tmp_path):
    path = written(tmp_path / "a.csv", "prompt,completion,note\na,b,\nc,d,e\n")
    assert read(path) == [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d", "note": "e"}]


@given(
    st.lists(
        st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.none(), st.booleans())), min_size=1
    )
)
@settings(max_examples=60, deadline=None)
def test_any_json_comes_back(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("json")
    assert read(written(folder / "a.jsonl", lines(values))) == values
    assert read(written(folder / "a.json", json.dumps(values))) == values


@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_rows_or_one_clear_error(tmp_path_factory, data, name):
    path = written(tmp_path_factory.mktemp("bytes") / name, data)
    try:
        read(path)
    except QwenError as problem:
        assert name in str(problem) and len(str(problem)) < 600


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", "", "a.jsonl has no rows"),
        ("a.jsonl", "\n \n", "a.jsonl has no rows"),
        ("a.json", "[]", "a.json has no rows"),
        ("a.csv", "text\n", "a.csv has no rows"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "a.jsonl:2: this is not UTF-8 text; found the byte 0xff"),
        ("a.json", b'[{"text": "a"},\n{"text": "\xff"}]\n', "a.json:2: this is not UTF-8 text; found the byte 0xff"),
        ("a.csv", b"text\nb\n\xe4\n", "a.csv:3: this is not UTF-8 text; found the byte 0xe4"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl:2: this is no JSON; expected one JSON object per line"),
        ("a.jsonl", '{"text": "a"}{"text": "b"}\n', "a.jsonl:1: this is no JSON"),
        (
            "a.json",
            '{\n  "text": "a"\n}\n',
            "a.json:1: this is no JSON; expected one JSON object per line, or one JSON",
        ),
        ("a.json", '[{"text": "a"},\n{"text": }]', "a.json:2: this is no JSON"),
        ("a.jsonl", '{"text": "a"}\n["text"]\n', "a.jsonl:2: a row must be a JSON object; found a list"),
        ("a.jsonl", '{"text": "a"}\n3\n', "a.jsonl:2: a row must be a JSON object; found a number"),
        ("a.json", '[{"text": "a"}, "b"]', "a.json row 2: a row must be a JSON object; found a string"),
        ("a.jsonl", '{"text": NaN}\n', "a.jsonl:1: this is no proper JSON; found NaN"),
        ("a.jsonl", '{"weight": 1e999}\n', "a.jsonl:1: this is no proper JSON; found the number 1e999"),
        ("a.json", '[{"weight": -Infinity}]\n', "a.json is no proper JSON; found -Infinity"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "a.jsonl:1: this is no proper JSON; found the key 'text' twice"),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}\n", "a number with thousands of digits"),
        ("a.jsonl", '{"text": ' + "[" * 100_000 + "\n", "a.jsonl:1: lists or objects are nested too deeply"),
        ("a.csv", "text,more\na,b\nc\n", "a.csv:3: the row does not fit the line of column names; expected 2 cells"),
        ("a.csv", 'text\n"a\nb\nc\n', "a.csv:2: this is no proper CSV; found unexpected end of data"),
        ("a.csv", "text,text\na,b\n", "a.csv:1: two columns are named 'text'"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz is damaged; expected gzip data"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 1000)[:40], "a.jsonl.gz is damaged; expected gzip data"),
        ("a.txt", "text", "a.txt is of no known kind; expected a name that ends in .jsonl"),
        ("a", "text", "is of no known kind"),
        ("a.parquet.gz", "text", "Unpack it first"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, data, says):
    assert says in complaint(written(tmp_path / name, data))


def test_one_bad_line_far_down(tmp_path):
    text = '{"text": "fine"}\n' * 70_000 + '{"text": "broken}\n'
    assert f"{tmp_path}/a.jsonl:70001: this is no JSON" in complaint(written(tmp_path / "a.jsonl", text))


def test_a_huge_line(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_LINE", 1000)
    path = written(tmp_path / "a.jsonl", lines([{"text": "x"}, {"text": "x" * 1000}]))
    assert "a.jsonl:2: the line is too long; expected at most 1,000 bytes" in complaint(path)
    path = written(tmp_path / "a.csv", "text\n" + "x" * 2000)
    assert "a.csv:2: the line is too long" in complaint(path)
    monkeypatch.setattr(rows_module, "MAX_ARRAY", 1000)
    path = written(tmp_path / "a.json", json.dumps([{"text": "x"}] * 200, indent=1))
    assert "too large for one JSON array" in complaint(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="there is no file or folder"):
        find_files(str(tmp_path / "none.jsonl"), "train")
    with pytest.raises(QwenError, match="is not the name of a file"):
        find_files("a\0b", "train")
    file = data_file(written(tmp_path / "a.jsonl", "{}"))
    file.path.unlink()
    with pytest.raises(NotFound):
        list(read_rows([file]))


# ------------------------------------------------------------------------------------------------------ folders


def test_files_named_after_splits(tmp_path):
    written(tmp_path / "train.jsonl", lines(ROWS[:1]))
    written(tmp_path / "valid.jsonl", lines(ROWS[1:2]))
    written(tmp_path / "test.jsonl", lines(ROWS[2:]))
    written(tmp_path / "README.md", "# Nothing of use\n")
    assert read(tmp_path) == ROWS[:1]
    assert read(tmp_path, "validation") == read(tmp_path, "dev") == ROWS[1:2]
    assert read(tmp_path, "test") == ROWS[2:]
    assert "has no split 'other'; found test, train, validation" in complaint(tmp_path, "other")


def test_shards_in_folders(tmp_path):
    for number in (1, 0):
        written(tmp_path / "data" / f"train-0000{number}-of-00002.jsonl", lines(ROWS[number : number + 1]))
    written(tmp_path / "data" / ".hidden-train.jsonl", "broken")
    written(tmp_path / "training_data_dev" / "part.jsonl", lines(ROWS[2:]))
    assert read(tmp_path) == [*ROWS[:2], *ROWS[2:]]
    assert "has no split 'validation'; found train" in complaint(tmp_path, "validation")


def test_a_folder_without_splits_is_all_for_training(tmp_path):
    written(tmp_path / "b.jsonl", lines(ROWS[1:]))
    written(tmp_path / "a.jsonl", lines(ROWS[:1]))
    assert read(tmp_path) == ROWS
    assert "found train" in complaint(tmp_path, "validation")


def test_a_folder_with_nothing(tmp_path):
    written(tmp_path / "notes.txt", "x")
    assert "has no file to learn from" in complaint(tmp_path)


def test_two_kinds_in_one_split(tmp_path):
    written(tmp_path / "train.jsonl", lines(ROWS))
    written(tmp_path / "train.csv", "text\na\n")
    assert "has files of several kinds; expected one kind; found csv, json" in complaint(tmp_path)


CARD = """---
configs:
- config_name: other
  data_files: other.jsonl
- config_name: default
  data_files:
  - split: train
    path: "data/t*.jsonl"
  - split: validation
    path: [data/v.jsonl]
---
# A data set
"""


def test_a_card_says_which_files(tmp_path):
    written(tmp_path / "README.md", CARD)
    written(tmp_path / "data" / "t1.jsonl", lines(ROWS[:1]))
    written(tmp_path / "data" / "t2.jsonl", lines(ROWS[1:2]))
    written(tmp_path / "data" / "v.jsonl", lines(ROWS[2:]))
    written(tmp_path / "data" / "unused-train.jsonl", "broken")
    assert read(tmp_path) == ROWS[:2]
    assert read(tmp_path, "validation") == ROWS[2:]


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (
            "configs: [{config_name: a, data_files: a.jsonl}, {config_name: b, data_files: b.jsonl}]",
            "several data sets",
        ),
        ("configs: [{config_name: a, data_files: ../x.jsonl}]", "leads out of the folder"),
        ("configs: [{config_name: a, data_files: /etc/x.jsonl}]", "leads out of the folder"),
        ("configs: [{config_name: a, data_files: [{split: train, path: 3}]}]", "'data_files' cannot be followed"),
        ("configs: [{config_name: a, data_files: 3}]", "'data_files' cannot be followed"),
        ("configs: [{config_name: a, data_files: none.jsonl}]", "has no split 'train'; found none at all"),
    ],
)
def test_cards_that_cannot_be_followed(tmp_path, yaml, says):
    written(tmp_path / "a.jsonl", lines(ROWS))
    written(tmp_path / "README.md", f"---\n{yaml}\n---\n")
    assert says in complaint(tmp_path)


def test_states_that_lead_elsewhere(tmp_path):
    written(tmp_path / "state.json", json.dumps({"_data_files": [{"filename": "../../etc/x.arrow"}]}))
    assert "leads out of the folder" in complaint(tmp_path)
    written(tmp_path / "state.json", "{}")
    assert "names no data files" in complaint(tmp_path)
    written(tmp_path / "dataset_dict.json", json.dumps({"splits": ["train", 3]}))
    assert "names no data files" not in complaint(tmp_path, "test") and "found train" in complaint(tmp_path, "test")


# ---------------------------------------------------------------------------------------------- Parquet and Arrow


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("a.parquet", "a.arrow"):
        text = complaint(written(tmp_path / name, b"PAR1"))
        assert f"{name}: " in text and "pyarrow, which is not installed" in text and "qwen-mlx[train]" in text


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    call = {"function": {"name": "f", "arguments": '{"a": null}'}}
    rows = [
        {"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "b"}], "id": 3},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=None), tmp_path / "a.parquet")
    # An empty cell and a field that was never written are the same in a column.
    first = {"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "tool_calls": [call]}]}
    found = list(read_rows(find_files(str(tmp_path / "a.parquet"), "train")))
    assert [row.values["messages"] for row in found] == [first["messages"], rows[1]["messages"]]
    assert [row.source for row in found] == ["a.parquet row 1", "a.parquet row 2"]
    data = (tmp_path / "a.parquet").read_bytes()
    for damaged in (b"", b"PAR1", data[:-20], data[:100]):
        assert "a.parquet cannot be read as Parquet" in complaint(written(tmp_path / "a.parquet", damaged))


def test_arrow_as_datasets_saves_it(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(ROWS * 300)
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    written(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    written(folder / "dataset_info.json", "{}")
    written(tmp_path / "saved" / "dataset_dict.json", json.dumps({"splits": ["train"]}))
    assert read(folder) == read(tmp_path / "saved") == ROWS * 300
    with pyarrow.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "b.arrow") == ROWS * 300
    assert "cannot be read as Arrow" in complaint(written(tmp_path / "c.arrow", b"nothing"))
    data = (tmp_path / "b.arrow").read_bytes()
    assert "cannot be read as Arrow" in complaint(written(tmp_path / "c.arrow", data[: len(data) // 2]))


def test_errors_are_of_one_kind(tmp_path):
    with pytest.raises(DataError):
        read(written(tmp_path / "a.jsonl", "no"))
