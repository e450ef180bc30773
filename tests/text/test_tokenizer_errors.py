"""Damaged and hostile tokenizer files: one clear error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import TokenizerError
from qwen_mlx.text.tokenizer import Tokenizer
from tests.text import tiny
from tests.text.cutting import examples


def edited(**model: Any) -> dict[str, Any]:
    value = tiny.description()
    value["model"] |= model
    return value


def with_added(**fields: Any) -> dict[str, Any]:
    value = tiny.description()
    value["added_tokens"][0] |= fields
    return value


def broken_part(key: str, part: Any) -> dict[str, Any]:
    return tiny.description() | {key: part}


DAMAGED_JSON = {
    "empty": "",
    "cut": json.dumps(tiny.description())[:5000],
    "html": "<!doctype html><html></html>",
    "list": "[]",
    "null": "null",
    "no model": "{}",
    "model is a list": json.dumps(broken_part("model", [])),
    "model is empty": json.dumps(broken_part("model", {})),
    "unknown model": json.dumps(broken_part("model", {"type": "Telepathy", "vocab": {}, "merges": []})),
    "ids are texts": json.dumps(edited(vocab={"a": "0"})),
    "ids are fractions": json.dumps(edited(vocab={"a": 0.5})),
    "negative id": json.dumps(edited(vocab={"a": -1}, merges=[])),
    "enormous id": json.dumps(edited(vocab={"a": 2**40}, merges=[])),
    "two tokens, one id": json.dumps(edited(vocab={"a": 0, "b": 0}, merges=[])),
    "merges of unknown tokens": json.dumps(edited(merges=[["a", "unknown"]])),
    "merges are numbers": json.dumps(edited(merges=[1, 2])),
    "vocab is a text": json.dumps(edited(vocab="abc")),
    "added tokens are an object": json.dumps(broken_part("added_tokens", {})),
    "an added token is a text": json.dumps(broken_part("added_tokens", ["<|im_end|>"])),
    "an added token without id": json.dumps(with_added(id=None)),
    "an added token with a negative id": json.dumps(with_added(id=-3)),
    "an added token is true": json.dumps(with_added(id=True)),
    "an added token without text": json.dumps(with_added(content=None)),
    "an added token takes the id of another": json.dumps(with_added(id=5)),
    "bad expression": json.dumps(
        broken_part(
            "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
        )
    ),
    "unknown normalizer": json.dumps(broken_part("normalizer", {"type": "Magic"})),
    "too deep": "[" * 100_000,
    "huge number": '{"model": {"vocab": {"a": ' + "9" * 10_000 + "}}}",
}


@pytest.mark.parametrize("name", DAMAGED_JSON)
def test_damaged_tokenizer_json(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.json").write_text(DAMAGED_JSON[name], encoding="utf-8")
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b'{"model": "\xff"}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7031645\n")
    with pytest.raises(TokenizerError, match="LFS pointer"):
        Tokenizer.from_folder(tmp_path)


def test_a_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate(40 * 10**9)  # sparse: takes no space
    with pytest.raises(TokenizerError, match="too large"):
        Tokenizer.from_folder(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer in .*tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(TokenizerError, match="no tokenizer"):
        Tokenizer.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_half_a_vocabulary(tmp_path: Path, missing: str) -> None:
    (tiny.write_vocabulary(tmp_path) / missing).unlink()
    with pytest.raises(TokenizerError, match=missing):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("merges.txt", "#version: 0.2\n\nq unknown\n", r"merges\.txt, line 3.*'unknown' is not in vocab"),
        ("merges.txt", "#version: 0.2\n× ÷\n", r"merges\.txt, line 2.*'×÷' is not in vocab"),
        ("merges.txt", "h e l\n", r"merges\.txt is damaged \(line 1\)"),
        ("merges.txt", "h \n", r"merges\.txt is damaged \(line 1\)"),
        ("vocab.json", '{"a": 0, "b"', r"vocab\.json is not JSON"),
        ("vocab.json", '["a"]', r"vocab\.json is of the wrong kind; expected an object; found a list"),
        ("vocab.json", '{"a": null}', r"vocab\.json: token 'a' has no usable id"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "added_tokens_decoder"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}', "no id"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"0": {"content": "<|a|>"}}}', "contradicts"),
        ("tokenizer_config.json", '{"eos_token": 7}', "eos_token"),
        ("tokenizer_config.json", "{", "not JSON"),
        ("added_tokens.json", '{"<|a|>": "x"}', r"added_tokens\.json"),
        ("special_tokens_map.json", '{"additional_special_tokens": "x"}', "additional_special_tokens"),
        ("config.json", "no", r"config\.json is not JSON"),
    ],
)
def test_damaged_vocabulary_files(tmp_path: Path, name: str, content: str, says: str) -> None:
    tiny.write_vocabulary(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=says) as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["aGVsbG8= x", "aGVsbG8=", "!!! 0", "aA== 0\naQ== 1\naGk= 2\naGlqaw== 3"])
def test_damaged_tiktoken(tmp_path: Path, content: str) -> None:
    (tmp_path / "qwen.tiktoken").write_text(content)
    with pytest.raises(TokenizerError, match=r"qwen\.tiktoken"):
        Tokenizer.from_folder(tmp_path)


@given(st.data())
@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_an_error_or_a_tokenizer(tmp_path: Path, data: st.DataObject) -> None:
    """Overwrite a stretch of the file with anything: the outcome is a tokenizer that works, or a TokenizerError."""
    small = tiny.description()
    small["model"] |= {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    small["added_tokens"] = [small["added_tokens"][0] | {"id": 3}]
    original = json.dumps(small).encode()
    start = data.draw(st.integers(0, len(original)))
    junk = data.draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"null", b"[]", b"{}", b'"', b"-1", b"99999999999"]))
    )
    (tmp_path / "tokenizer.json").write_bytes(
        original[:start] + junk + original[start + data.draw(st.integers(0, 12)) :]
    )
    try:
        tokenizer = Tokenizer.from_folder(tmp_path)
    except TokenizerError:
        return
    assert isinstance(tokenizer.decode(tokenizer.encode("ab ba <|endoftext|>")), str)
