"""Whatever happens to a file, it loads as what its bytes say or is refused; nothing else can come out."""

from __future__ import annotations

import json
import struct
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_mlx.checkpoints.safetensors import DTYPE_BITS, load_tensors
from qwen_mlx.errors import CheckpointError
from tests.checkpoints.hostile import pack

NUMPY = {
    "BF16": np.uint16,
    "BOOL": np.bool_,
    "C64": np.complex64,
    "F16": np.float16,
    "F32": np.float32,
    "F8_E4M3": np.uint8,
    "I16": np.int16,
    "I64": np.int64,
    "I8": np.int8,
    "U32": np.uint32,
    "U8": np.uint8,
}
quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def honest_files(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A valid header and its data."""
    header: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5)):
        dtype = draw(st.sampled_from(sorted(NUMPY)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = DTYPE_BITS[dtype] // 8 * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "pt"}
    data = np.random.default_rng(draw(st.integers(0, 1000))).integers(0, 2, position, dtype=np.uint8)
    return header, data.tobytes()


def check(path, content: bytes) -> bool:
    """Load the file if it can be; then compare with numpy. True if it loaded."""
    path.write_bytes(content)
    try:
        arrays = load_tensors(path)
        mx.eval(list(arrays.values()))
    except CheckpointError as refusal:
        assert str(path) in str(refusal)
        assert str(refusal).isprintable()
        return False
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    assert arrays.keys() == header.keys()
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        expected = np.frombuffer(content[begin:end], NUMPY[entry["dtype"]]).reshape(entry["shape"])
        array = arrays[name]
        if array.dtype == mx.bfloat16:
            found = np.array(array.flatten().view(mx.uint16)).reshape(array.shape)
        else:
            found = np.array(array)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    return True


@quick
@given(file=honest_files())
def test_honest_files_load(tmp_path, file):
    assert check(tmp_path / "f.safetensors", pack(*file))


@quick
@given(
    file=honest_files(),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4),
)
def test_changed_bytes(tmp_path, file, edits):
    content = pack(*file)
    for place, new, removed in edits:
        place %= len(content) + 1
        content = content[:place] + new + content[place + removed :]
    check(tmp_path / "f.safetensors", content)


NUMBERS = st.one_of(
    st.integers(-4, 20), st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63, 2**64 + 4, -(2**63)]), st.floats()
)
VALUES = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.lists(NUMBERS, max_size=4),
    st.sampled_from(list(DTYPE_BITS)),
)


@quick
@given(file=honest_files(), data=st.data())
def test_changed_header(tmp_path, file, data):
    header, content = file
    for name in [name for name in header if name != "__metadata__"]:
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "keep", "entry"]))
        if key == "entry":
            header[name] = data.draw(VALUES)
        elif key != "keep":
            header[name][key] = data.draw(VALUES)
    check(tmp_path / "f.safetensors", pack(header, content))


@quick
@given(content=st.binary(max_size=300))
def test_random_bytes(tmp_path, content):
    check(tmp_path / "f.safetensors", content)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_every_truncation_is_refused(tmp_path, cut):
    header = {"w": {"dtype": "F32", "shape": [16, 2], "data_offsets": [0, 128]}}
    content = pack(header, bytes(128))
    assert not check(tmp_path / "f.safetensors", content[:cut])
