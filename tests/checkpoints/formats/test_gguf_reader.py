"""The metadata and the tensors of a GGUF file; and files that lie, each with what the refusal has to mention."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from qwen_mlx.checkpoints.formats.gguf import reader, writer
from qwen_mlx.checkpoints.formats.gguf.reader import read_header
from qwen_mlx.checkpoints.formats.gguf.splits import find_file, read_model
from qwen_mlx.errors import CheckpointError, NotFound, QwenError, UsageError
from scripts.formats import samples
from tests.checkpoints.formats.helpers import FIXTURES, write_gguf


def test_every_type_of_value_by_another_writer():
    found = read_header(FIXTURES / "reference.gguf").metadata
    assert found["general.architecture"] == "qwen3"
    numbers = {key.removeprefix("test."): value for key, value in found.items() if key.startswith("test.")}
    assert {name: numbers[name].tolist() for name in ("numbers", "floats")} == {
        "numbers": [1, -2, 3],
        "floats": [0.5, 0.25],
    }
    assert {name: value for name, value in numbers.items() if not isinstance(value, np.ndarray)} == {
        "uint8": 200,
        "int8": -100,
        "uint16": 60000,
        "int16": -30000,
        "uint32": 4_000_000_000,
        "int32": -2_000_000_000,
        "uint64": 2**63 + 1,
        "int64": -(2**62),
        "float32": float(np.float32(0.1)),
        "float64": 0.1,
        "bool": True,
        "string": "naïve 你好",
        "texts": ["a", "", "ü"],
    }


def test_tensors_by_another_writer():
    tensors = read_header(FIXTURES / "reference.gguf").tensors
    assert {tensor.kind.name: tensor.shape for tensor in tensors.values()} == dict.fromkeys(samples.BLOCKS, (2, 512))
    assert all(tensor.start % 32 == 0 for tensor in tensors.values())


# ---------------------------------------------------------------------------------------------------- hostile files

ONE = ("w", 0, (4, 2), 0)  # name, type, axes as in the file, offset


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, kind, payload):
    return text(name) + struct.pack("<I", kind) + payload


def file(keys=(), tensors=(ONE,), data=bytes(64), counts=None, version=3):
    """A GGUF file; `counts` is how many tensors and keys it claims to have."""
    counts = counts or (len(tensors), len(keys))
    out = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys)
    for name, number, axes, offset in tensors:
        out += text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, number, offset)
    return out + bytes(-len(out) % 32) + data


def array(kind, count, payload=b""):
    return struct.pack("<IQ", kind, count) + payload


HOSTILE = {
    "empty": (b"", "an empty file"),
    "three bytes": (b"GGU", "not a GGUF file"),
    "cut in the counts": (file()[:12], "ends inside"),
    "web page": (b"<!doctype html><html>Access denied</html>", "web page"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "safetensors": (struct.pack("<Q", 40) + b'{"a":{}}' + bytes(40), "expected the letters GGUF"),
    "version 1": (file(version=1), "version 1"),
    "version 4": (file(version=4), "version 4"),
    "big-endian version": (file(version=3 << 24), "big-endian"),
    "big-endian letters": (b"FUGG" + bytes(60), "big-endian"),
    "2^64 - 1 tensors": (file(counts=(2**64 - 1, 0)), "at most 200000 tensors"),
    "2^40 keys": (file(counts=(0, 2**40)), "65536 keys"),
    "more tensors than there are": (file(counts=(150_000, 0)), "damaged|ends inside"),
    "key of 2^63 bytes": (file([struct.pack("<Q", 2**63)]), "at most 65535 bytes"),
    "key twice": (file([key("a", 4, bytes(4))] * 2), "'a' twice"),
    "key of controls": (file([key("a\x1b[2J", 4, bytes(4))]), "printable"),
    "key not UTF-8": (file([key(b"\xff\xfe", 4, bytes(4))]), "UTF-8"),
    "value of type 13": (file([key("a", 13, bytes(8))]), "type 13"),
    "bool of 2": (file([key("a", 7, b"\x02")]), "true or false"),
    "text of 2^40 bytes": (file([key("a", 8, struct.pack("<Q", 2**40))]), "of at most"),
    "text not UTF-8": (file([key("a", 8, text(b"\xff"))]), "UTF-8"),
    "list of 2^60 numbers": (file([key("a", 9, array(4, 2**60))]), "at most 4194304 values"),
    "list of a million numbers that are not there": (file([key("a", 9, array(4, 10**6))]), "ends inside"),
    "list of 2^20 texts that are not there": (file([key("a", 9, array(8, 2**20))]), "ends inside"),
    "list of too many texts": (file([key("a", 9, array(8, 2**21))]), "texts in lists"),
    "list of lists": (file([key("a", 9, array(9, 1))]), "lists of lists"),
    "list of type 99": (file([key("a", 9, array(99, 1))]), "type 99"),
    "tensor without axes": (file(tensors=[("w", 0, (), 0)]), "1 to 4 axes"),
    "tensor of 5 axes": (file(tensors=[("w", 0, (1,) * 5, 0)]), "1 to 4 axes"),
    "axis of 0": (file(tensors=[("w", 0, (4, 0), 0)]), "axes of tensor 'w'"),
    "axis of 2^63": (file(tensors=[("w", 0, (2**63, 2), 0)]), "axes of tensor 'w'"),
    "2^30 squared": (file(tensors=[("w", 0, (2**30, 2**30), 0)]), "axes of tensor 'w'"),
    "2^32 bytes that are not there": (file(tensors=[("w", 0, (2**15, 2**15), 0)]), "cut off"),
    "type 4": (file(tensors=[("w", 4, (32,), 0)]), "type 4"),
    "type 2^32 - 1": (file(tensors=[("w", 2**32 - 1, (32,), 0)]), "type 4294967295"),
    "half a block": (file(tensors=[("w", 2, (33, 2), 0)]), "whole blocks of 32"),
    "offset not aligned": (file(tensors=[("w", 0, (4,), 4)]), "a multiple of 32"),
    "offset of 2^64 - 32": (file(tensors=[("w", 0, (4,), 2**64 - 32)]), "cut off"),
    "overlap": (file(tensors=[("v", 0, (16,), 0), ("w", 0, (4,), 32)]), "from byte"),
    "name twice": (file(tensors=[("w", 0, (4,), 0), ("w", 0, (4,), 32)]), "'w' twice"),
    "name of controls": (file(tensors=[("w\0", 0, (4,), 0)]), "printable"),
    "name of 1000 bytes": (file(tensors=[("w" * 1000, 0, (4,), 0)]), "at most 256 bytes"),
    "cut in the data": (file(data=bytes(8)), "cut off"),
    "alignment of 3": (file([key("general.alignment", 4, struct.pack("<I", 3))]), "power of two"),
    "alignment of 0": (file([key("general.alignment", 4, bytes(4))]), "power of two"),
    "alignment of 2^31": (file([key("general.alignment", 4, struct.pack("<I", 2**31))]), "power of two"),
    "alignment in words": (file([key("general.alignment", 8, text("32"))]), "power of two"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_lie_are_refused(name, tmp_path):
    content, message = HOSTILE[name]
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(tmp_path / "x.gguf")
    assert str(caught.value).isprintable() and "x.gguf" in str(caught.value)


def test_honest_files_are_read(tmp_path):
    (tmp_path / "x.gguf").write_bytes(file([key("a", 4, struct.pack("<I", 7))]))
    header = read_header(tmp_path / "x.gguf")
    assert header.metadata == {"a": 7}
    assert header.tensors["w"].shape == (2, 4)
    (tmp_path / "x.gguf").write_bytes(file(version=2))
    assert read_header(tmp_path / "x.gguf").tensors


def test_another_alignment_is_followed(tmp_path):
    key_ = key("general.alignment", 4, struct.pack("<I", 64))
    (tmp_path / "x.gguf").write_bytes(file([key_], data=bytes(128)))
    assert read_header(tmp_path / "x.gguf").tensors["w"].start % 64 == 0


@pytest.mark.parametrize("cut", range(0, 300, 11))
def test_every_truncation_is_refused(cut, tmp_path):
    whole = file([key("general.name", 8, text("a model")), key("b", 9, array(5, 3, bytes(12)))], data=bytes(32))
    (tmp_path / "x.gguf").write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(QwenError):
        read_header(tmp_path / "x.gguf")


def test_no_file_no_folder_no_pipe(tmp_path):
    with pytest.raises(NotFound):
        read_header(tmp_path / "x.gguf")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_header(tmp_path)


def test_limits_hold_what_the_family_has():
    """A vocabulary of 250 thousand tokens with its merges."""
    assert reader.MAX_TEXTS > 2 * 250_000 and reader.MAX_METADATA > 40_000_000


# --------------------------------------------------------------------------------------------------------- in parts


def parts(folder, count=3, **changes):
    """The sample in several files, as llama.cpp's gguf-split makes them."""
    metadata, tensors = samples.gguf_sample("Q8_0", "qwen3")
    names = list(tensors)
    written = []
    for i in range(count):
        own = {"split.no": i, "split.count": count, "split.tensors.count": len(names)} | changes.get(f"part_{i}", {})
        chosen = {name: tensors[name] for name in names[i::count]}
        path = folder / f"tiny-{i + 1:05d}-of-{count:05d}.gguf"
        written.append(write_gguf(path, (metadata if i == 0 else {}) | own, chosen))
    return written


@pytest.mark.parametrize("given", [0, 2, None])
def test_parts_are_one_model(given, tmp_path):
    files = parts(tmp_path)
    model = read_model(tmp_path if given is None else files[given])
    assert model.name == "tiny"
    assert set(model.tensors) == set(samples.gguf_sample("Q8_0", "qwen3")[1])
    assert model.files == tuple(files) and model.metadata["general.architecture"] == "qwen3"


def test_parts_that_do_not_belong_together(tmp_path):
    files = parts(tmp_path / "a")
    files[1].unlink()
    with pytest.raises(NotFound, match=r"expected 3 parts of tiny; found tiny-00002-of-00003.gguf missing"):
        read_model(files[0])
    files = parts(tmp_path / "b", part_1={"split.no": 2})
    with pytest.raises(CheckpointError, match="expected part 1 of 3; found part 2 of 3"):
        read_model(files[0])
    files = parts(tmp_path / "c", part_0={"split.tensors.count": 99})
    with pytest.raises(CheckpointError, match="expected 99 tensors"):
        read_model(files[0])
    files = parts(tmp_path / "d")
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(CheckpointError, match="another part than its name says"):
        read_model(files[0])
    lonely = parts(tmp_path / "e")[0].rename(tmp_path / "e" / "own-name.gguf")
    with pytest.raises(CheckpointError, match="one part of a model"):
        read_model(lonely)
    (tmp_path / "f").mkdir()
    with pytest.raises(CheckpointError, match="impossible name"):
        read_model(write_gguf(tmp_path / "f" / "m-00001-of-99999.gguf", {}, {}))


def test_a_folder_with_one_model_is_enough(tmp_path):
    with pytest.raises(NotFound, match="holds no GGUF file"):
        find_file(tmp_path)
    one = write_gguf(tmp_path / "a-Q4_0.gguf", {}, {})
    write_gguf(tmp_path / "mmproj-a.gguf", {}, {})
    assert find_file(tmp_path) == one
    write_gguf(tmp_path / "a-Q8_0.gguf", {}, {})
    with pytest.raises(UsageError, match=r"several GGUF models.*a-Q4_0.gguf, a-Q8_0.gguf"):
        find_file(tmp_path)


def test_what_is_written_is_read(tmp_path):
    metadata = {"general.architecture": "qwen3", "n": 5, "big": 2**40, "f": 0.5, "yes": True, "list": ["a", "b"]}
    metadata |= {"kinds": [1, 3, -4], "none": []}
    outputs = [writer.GGUFOutput("a", "F32", (3, 8), lambda: [np.ones((3, 8), "<f4").tobytes()])]
    outputs.append(writer.GGUFOutput("b", "Q8_0", (32,), lambda: [bytes(30), bytes(4)]))
    data = writer.head(metadata, outputs) + b"".join(block for _, block in writer.data(outputs))
    assert len(data) == writer.file_size(metadata, outputs)
    (tmp_path / "x.gguf").write_bytes(data)
    header = read_header(tmp_path / "x.gguf")
    assert header.metadata.pop("kinds").tolist() == [1, 3, -4]
    assert header.metadata == {k: v for k, v in metadata.items() if k != "kinds"}
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {"a": (3, 8), "b": (32,)}


def test_a_tensor_that_yields_too_little_is_a_bug():
    with pytest.raises(ValueError, match="4 of 34 bytes"):
        list(writer.data([writer.GGUFOutput("b", "Q8_0", (32,), lambda: [bytes(4)])]))
