from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from qwen_mlx.checkpoints.safetensors import (
    DTYPE_BITS,
    MAX_TENSORS,
    MLX_DTYPES,
    TensorInfo,
    load_tensors,
    read_header,
    save_tensors,
)
from qwen_mlx.errors import CheckpointError, NotFound
from tests.checkpoints.hostile import FILES, HONEST, pack


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read", [read_header, load_tensors])
def test_hostile_file_is_refused_and_named(tmp_path, name, read):
    content, piece = FILES[name]
    path = written(tmp_path, content)
    with pytest.raises(CheckpointError) as refusal:
        read(path)
    message = str(refusal.value)
    assert str(path) in message
    assert piece in message
    assert message.isprintable() and len(message) < 1000


def test_header_of_an_honest_file(tmp_path):
    content = pack({**HONEST, "__metadata__": {"format": "pt"}})
    header = read_header(written(tmp_path, content))
    start = len(content) - 80
    assert header.data_start == start
    assert header.file_size == len(content)
    assert header.metadata == {"format": "pt"}
    assert header.tensors == {
        "a": TensorInfo("a", "F32", (4, 4), start, start + 64),
        "b": TensorInfo("b", "BF16", (8,), start + 64, start + 80),
    }
    assert header.tensors["b"].nbytes == 16


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    swapped = {"first": HONEST["b"], "second": HONEST["a"]}
    assert list(read_header(written(tmp_path, pack(swapped))).tensors) == ["second", "first"]


def test_scalars_and_empty_tensors_are_valid(tmp_path):
    header = {
        "scalar": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]},
        "last": {"dtype": "I32", "shape": [1], "data_offsets": [4, 8]},
    }
    arrays = load_tensors(written(tmp_path, pack(header, struct.pack("<fi", 2.5, 7))))
    assert arrays["scalar"].item() == 2.5
    assert arrays["empty"].shape == (0, 3)
    assert arrays["last"].tolist() == [7]


def test_a_file_without_tensors_is_valid(tmp_path):
    assert load_tensors(written(tmp_path, pack({}, b""))) == {}
    assert read_header(written(tmp_path, pack({"__metadata__": None}, b""))).metadata == {}


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_of_the_format(tmp_path, dtype):
    data = bytes(range(DTYPE_BITS[dtype]))  # 8 elements
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, len(data)]}
    path = written(tmp_path, pack({"w": entry}, data))
    assert read_header(path).tensors["w"].nbytes == len(data)
    if dtype in MLX_DTYPES:
        assert load_tensors(path)["w"].dtype == MLX_DTYPES[dtype]
    else:
        with pytest.raises(CheckpointError, match=dtype):
            load_tensors(path)


def test_too_many_tensors(tmp_path):
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({str(i): entry for i in range(MAX_TENSORS + 1)}).encode()
    with pytest.raises(CheckpointError, match="at most 200000 tensors"):
        read_header(written(tmp_path, pack(text, b"")))


def test_missing_file_folder_and_pipe(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.safetensors is missing"):
        read_header(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="a folder"):
        load_tensors(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="special file"):
        load_tensors(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError):
        load_tensors(Path("a\0b"))


def test_a_file_may_have_any_extension(tmp_path):
    path = tmp_path / "0123abcd"  # a blob of the hub cache
    path.write_bytes(pack(HONEST))
    assert load_tensors(path)["a"].shape == (4, 4)


# ------------------------------------------------------------------------------------------------ writing


def test_saved_arrays_come_back(tmp_path):
    arrays = {
        "half": mx.array([[1.5, -2.0]], dtype=mx.bfloat16),
        "scalar": mx.array(3, dtype=mx.int64),
        "empty": mx.zeros((2, 0)),
        "turned": mx.arange(6).reshape(2, 3).T,
        "flags": mx.array([True, False]),
    }
    path = tmp_path / "deep" / "out.safetensors"
    save_tensors(path, arrays, {"made by": "a test"})
    again = load_tensors(path)
    assert read_header(path).metadata == {"made by": "a test"}
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert again[name].tolist() == array.tolist()
    save_tensors(path, {"w": mx.ones(3)})
    assert read_header(path).metadata == {"format": "mlx"}


def test_a_file_can_be_replaced_by_what_was_lazily_loaded_from_it(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"w": mx.arange(100)})
    save_tensors(path, {"w": load_tensors(path)["w"] + 1})
    assert load_tensors(path)["w"].tolist() == list(range(1, 101))


def test_a_failed_save_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"w": mx.arange(4)})
    before = path.read_bytes()
    with mx.stream(mx.cpu):
        wide = mx.array(np.ones(3), dtype=mx.float64)
    with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be written"):
        save_tensors(path, {"v": mx.ones(3), "w": wide})
    with pytest.raises(CheckpointError, match="__metadata__"):
        save_tensors(path, {"__metadata__": mx.ones(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_saving_into_a_file_as_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_tensors(tmp_path / "file" / "w.safetensors", {"w": mx.ones(3)})
