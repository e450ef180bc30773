from __future__ import annotations

import json
import os
from pathlib import Path

import mlx.core as mx
import pytest

from qwen_mlx.checkpoints.folder import (
    INDEX,
    find_weights,
    load_folder_tensors,
    model_folder,
    read_json,
)
from qwen_mlx.checkpoints.safetensors import save_tensors
from qwen_mlx.errors import CheckpointError, NotFound


def fill(folder: Path, files: dict[str, dict[str, float]], index: dict | None = None) -> Path:
    """Write files of one-element tensors, and an index with this weight_map."""
    for file, tensors in files.items():
        save_tensors(folder / file, {name: mx.array([value]) for name, value in tensors.items()})
    if index is not None:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def values(folder: Path) -> dict[str, float]:
    return {name: array.item() for name, array in load_folder_tensors(folder).items()}


ONE, TWO, THREE = (f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
SHARDS = {ONE: {"a": 1.0}, TWO: {"b": 2.0, "c": 3.0}, THREE: {"d": 4.0}}
MAP = {"a": ONE, "b": TWO, "c": TWO, "d": THREE}
ALL = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


# ------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    "files, index",
    [
        ({"model.safetensors": ALL}, None),
        ({"model.safetensors": ALL}, dict.fromkeys(ALL, "model.safetensors")),
        (SHARDS, MAP),
        (SHARDS, None),
        ({"weights.00.safetensors": {"a": 1.0}, "weights.01.safetensors": {"b": 2.0, "c": 3.0, "d": 4.0}}, None),
        ({"pytorch.safetensors": ALL, "adapters.safetensors": {"x": 0.0}}, None),
        ({"model.safetensors": ALL, ".model.safetensors.tmp.safetensors": {"x": 0.0}}, None),
        ({"model.safetensors": ALL, "consolidated.safetensors": {"a": 9.0}}, None),
        # an index that was left over from before the shards were merged
        ({"model.safetensors": ALL}, MAP),
        # the index does not have to name everything
        (SHARDS, {"a": ONE, "b": TWO, "d": THREE}),
    ],
)
def test_layouts(tmp_path, files, index):
    assert values(fill(tmp_path, files, index)) == ALL


def test_progress_counts_tensors(tmp_path):
    seen = []
    load_folder_tensors(fill(tmp_path, SHARDS, MAP), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (3, 4), (4, 4)]


def test_snapshot_of_the_hub_cache(tmp_path):
    repository = tmp_path / "models--Qwen--Qwen3-0.6B"
    snapshot = repository / "snapshots" / "0123"
    fill(repository / "blobs", {"4d7a": ALL})
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/4d7a")
    assert values(snapshot) == ALL
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").symlink_to(repository / "blobs" / "4d7a")
    assert values(elsewhere) == ALL


def test_links_inside_the_folder_and_to_the_folder(tmp_path):
    folder = fill(tmp_path / "model", {"real/4d7a": ALL})
    (folder / "model.safetensors").symlink_to("real/4d7a")
    (tmp_path / "link").symlink_to(folder)
    assert values(tmp_path / "link") == ALL


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "files, index, piece",
    [
        ({ONE: {"a": 1.0}, THREE: {"d": 4.0}}, MAP, f"{TWO} missing"),
        ({ONE: {"a": 1.0}, THREE: {"d": 4.0}}, None, f"{TWO} missing"),
        ({ONE: {"a": 1.0}, TWO: {"b": 2.0}}, None, f"{THREE} missing"),
        ({"model-1-of-999999999.safetensors": {"a": 1.0}}, None, "model-2-of-999999999"),
        ({**SHARDS, "model-00004-of-00003.safetensors": {"e": 5.0}}, None, "impossible numbers"),
        ({**SHARDS, "model-00000-of-00003.safetensors": {"e": 5.0}}, None, "impossible numbers"),
        ({**SHARDS, "model-00001-of-00004.safetensors": {"e": 5.0}}, None, "different models"),
        ({**SHARDS, TWO: {"a": 1.0, "b": 2.0}}, None, "tensor 'a' twice"),
        ({**SHARDS, TWO: {"a": 1.0, "b": 2.0, "c": 3.0}}, MAP, "tensor 'a' twice"),
        (SHARDS, {**MAP, "e": TWO}, "tensor 'e'"),
        (SHARDS, {**MAP, "c": THREE}, "tensor 'c'"),
        ({**SHARDS, "model.safetensors": ALL}, MAP, "two sets of weights"),
        ({"model.safetensors": {}}, None, "no tensors"),
        (SHARDS, {}, "weight_map"),
        (SHARDS, ["a"], "weight_map"),
        (SHARDS, {"a": 1}, "file name for tensor 'a'"),
        (SHARDS, {"a": [ONE]}, "file name for tensor 'a'"),
        (SHARDS, {"a": None}, "file name for tensor 'a'"),
        ({"adapters.safetensors": ALL}, None, "adapter"),
        ({"adapter_model.safetensors": ALL}, None, "adapter"),
    ],
)
def test_inconsistent_weights(tmp_path, files, index, piece):
    folder = fill(tmp_path, files, index)
    with pytest.raises(CheckpointError) as refusal:
        load_folder_tensors(folder)
    assert piece in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "..",
        "",
        ".",
        "/etc/passwd",
        "/secret.safetensors",
        "sub/model.safetensors",
        "..\\secret.safetensors",
        "C:secret.safetensors",
        ".hidden.safetensors",
        "a\0.safetensors",
        "a\n.safetensors",
        "a" * 300 + ".safetensors",
        "config.json",
        "\ud800.safetensors",
    ],
)
def test_names_in_the_index_stay_in_the_folder(tmp_path, name):
    fill(tmp_path, {"secret.safetensors": ALL, "model/.hidden.safetensors": ALL})
    folder = fill(tmp_path / "model", {ONE: {"a": 1.0}, "sub/model.safetensors": ALL}, {"a": ONE, "b": name})
    with pytest.raises(CheckpointError) as refusal:
        load_folder_tensors(folder)
    assert "is refused" in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_links_do_not_leave_the_folder(tmp_path):
    outside = fill(tmp_path / "outside", {"model.safetensors": ALL, "blobs/4d7a": ALL})
    for target in (outside / "model.safetensors", outside / "blobs" / "4d7a"):
        folder = tmp_path / f"model-{target.name}"
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(target)
        with pytest.raises(CheckpointError, match="leaves the model folder"):
            load_folder_tensors(folder)


def test_broken_and_circular_links_are_missing_files(tmp_path):
    for target in ("nowhere", TWO):
        folder = fill(tmp_path / target, {ONE: {"a": 1.0}, THREE: {"d": 4.0}}, MAP)
        (folder / TWO).symlink_to(target)
        with pytest.raises(CheckpointError, match=f"{TWO} missing"):
            find_weights(folder)


def test_damaged_shard_is_named(tmp_path):
    folder = fill(tmp_path, SHARDS, MAP)
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-2])
    with pytest.raises(CheckpointError, match=f"{TWO} is cut off"):
        load_folder_tensors(folder)


@pytest.mark.parametrize(
    "names, error, piece",
    [
        (["pytorch_model.bin"], CheckpointError, "only pickle weights (pytorch_model.bin); refused"),
        (["pytorch_model-00001-of-00002.bin", "x.json"], CheckpointError, "only pickle weights"),
        (["consolidated.00.pth"], CheckpointError, "only pickle weights"),
        (["qwen.gguf"], CheckpointError, "only GGUF weights (qwen.gguf)"),
        (["tokenizer.json"], NotFound, "holds no weights"),
        ([], NotFound, "holds no weights"),
    ],
)
def test_no_safetensors(tmp_path, names, error, piece):
    for name in names:
        (tmp_path / name).write_bytes(b"\x80\x02x")
    with pytest.raises(error) as refusal:
        find_weights(tmp_path)
    assert piece in str(refusal.value)


def test_index_of_pickles(tmp_path):
    folder = fill(tmp_path, {}, {"a": "pytorch_model-00001-of-00001.bin"})
    with pytest.raises(CheckpointError, match="never opened"):
        find_weights(folder)


# ------------------------------------------------------------------------------------------------ the folder


def test_model_folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert model_folder(str(tmp_path / "model")) == tmp_path / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_folder("~/model") == tmp_path / "model"


def test_what_is_not_a_model_folder(tmp_path):
    with pytest.raises(NotFound, match="there is no model folder"):
        model_folder(tmp_path / "gone")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"Give the folder it is in: {tmp_path}"):
        model_folder(file)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        model_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="an adapter, which needs its base model"):
        model_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="an empty folder"):
        model_folder(tmp_path / "empty")
    with pytest.raises((CheckpointError, NotFound)):
        model_folder("a\0b")


# ------------------------------------------------------------------------------------------------ JSON


def test_read_json(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": 32, "name": "千问", "nothing": null}', encoding="utf-8")
    assert read_json(path) == {"hidden_size": 32, "name": "千问", "nothing": None}
    path.write_bytes(b'\xef\xbb\xbf{"a": 1e30}')
    assert read_json(path) == {"a": 1e30}


@pytest.mark.parametrize(
    "content, piece",
    [
        (b"", "an empty file"),
        (b'{"a": 1', "invalid JSON at line 1"),
        (b"{'a': 1}", "invalid JSON"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "Infinity"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "a list at the top"),
        (b'"text"', "a string at the top"),
        (b"null", "null at the top"),
        (b"true", "true or false at the top"),
        (b"1.5", "a number at the top"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    ],
)
def test_damaged_json(tmp_path, content, piece):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refusal:
        read_json(path, "the configuration of the model")
    message = str(refusal.value)
    assert str(path) in message and piece in message
    assert "the configuration of the model" in message


def test_json_that_is_no_file(tmp_path):
    with pytest.raises(NotFound, match=r"config\.json is missing"):
        read_json(tmp_path / "config.json")
    with pytest.raises(NotFound, match="there is no folder"):
        read_json(tmp_path / "gone" / "config.json")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_json(tmp_path / "pipe")


def test_huge_json(tmp_path, monkeypatch):
    monkeypatch.setattr("qwen_mlx.checkpoints.folder.MAX_JSON", 100)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": "x" * 80}))
    assert read_json(path)["a"] == "x" * 80
    path.write_text(json.dumps({"a": "x" * 100}))
    with pytest.raises(CheckpointError, match="at most 100 bytes"):
        read_json(path)
