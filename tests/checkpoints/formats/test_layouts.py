"""Every layout, block by block, against what its own program packed and unpacked (`make_format_fixtures.py`)."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_mlx.checkpoints.formats import awq, compressed_tensors, fp8, gptq
from qwen_mlx.checkpoints.formats.bfloat16 import bfloat16_bits
from qwen_mlx.checkpoints.formats.foreign_tensor import PackedRows, affine, dequantize, row_ranges, widest_group
from qwen_mlx.checkpoints.formats.gguf import blocks
from qwen_mlx.checkpoints.formats.gguf.encode import encode
from qwen_mlx.checkpoints.formats.gguf.reader import read_header
from qwen_mlx.checkpoints.formats.gguf.types import NUMBERS, TYPES
from qwen_mlx.checkpoints.quantizers.packing import pack, unpack
from qwen_mlx.models.spec import QuantizationSpec
from scripts.formats import samples
from tests.checkpoints.formats.helpers import FIXTURES

import mlx.core as mx  # isort: skip


def stored(name):
    with np.load(FIXTURES / name) as arrays:
        return {key: arrays[key] for key in arrays}


PACKERS, TABLES = stored("packers.npz"), stored("tables.npz")
GPTQ = sorted({key.split("/")[0] for key in PACKERS if key.startswith("gptq")})
COMPRESSED = sorted({key.split("/")[0] for key in PACKERS if key.startswith("ct")})


def case(name):
    return {key.split("/")[1]: value for key, value in PACKERS.items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("stored_minus_one", [True, False])
@pytest.mark.parametrize("name", GPTQ)
def test_gptq(name, stored_minus_one):
    parts, bits = case(name), int(name.split("_")[1])
    zeros = gptq.zero_points(parts["qzeros_v1" if stored_minus_one else "qzeros"], bits, stored_minus_one)
    codes, order = gptq.unpack_columns(parts["qweight"], bits), parts["g_idx"]
    values = (codes - zeros.T[:, order]) * parts["scales"].astype(np.float32).T[:, order]
    np.testing.assert_allclose(values, parts["values"], rtol=1e-6, atol=1e-9)
    assert gptq.is_in_order(order, 32) == ("sorted" not in name)


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_tensors(name):
    parts, bits = case(name), int(name.split("_")[1])
    codes = unpack(parts["weight_packed"].view(np.uint32), bits).astype(np.float32)
    scale = np.repeat(parts["weight_scale"].astype(np.float32), 32, axis=1)
    zero = np.full(scale.shape, 1 << bits - 1, np.float32)
    if "weight_zero_point" in parts:
        zero = np.repeat(compressed_tensors.zero_points(parts["weight_zero_point"], len(codes), bits), 32, axis=1)
    np.testing.assert_allclose((codes - zero) * scale, parts["values"], rtol=1e-6, atol=1e-9)


def test_awq_order_of_columns():
    """Eight codes of a word are columns 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits on (AutoAWQ's packer)."""
    word = sum(code << 4 * place for place, code in enumerate([0, 2, 4, 6, 1, 3, 5, 7]))
    assert awq.unpack_columns(np.array([[word, word]], np.uint32).view(np.int32)).tolist() == [[*range(8), *range(8)]]


def test_float8_tables():
    np.testing.assert_array_equal(fp8.E4M3, TABLES["e4m3"])
    np.testing.assert_array_equal(fp8.e8m0(np.arange(256)), TABLES["e8m0"])


@pytest.mark.parametrize("shape", [(256, 256), (192, 256), (130, 300), (5, 7)])
def test_float8_blocks_may_be_ragged(shape):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 120, shape, dtype=np.uint8)
    scales = rng.uniform(1, 2, (-(-shape[0] // 128), -(-shape[1] // 128))).astype(np.float32)
    whole = np.array([[fp8.E4M3[codes[i, j]] * scales[i // 128, j // 128] for j in range(shape[1])] for i in range(5)])
    np.testing.assert_array_equal(fp8.decode_rows(codes[:5], scales, 0, (128, 128)), whole)
    last = fp8.decode_rows(codes[-2:], scales, shape[0] - 2, (128, 128))
    assert last[1, -1] == fp8.E4M3[codes[-1, -1]] * scales[-1, -1]


@pytest.mark.parametrize("kind", samples.BLOCKS)
def test_gguf_blocks(kind):
    """Of a file that the gguf package wrote, the numbers that it reads."""
    header = read_header(FIXTURES / "reference.gguf")
    tensor = header.tensors[f"values.{kind}"]
    data = (FIXTURES / "reference.gguf").read_bytes()[tensor.start : tensor.start + tensor.nbytes]
    expected = stored("reference.npz")[kind]
    rows = blocks.read_rows(data, kind, tensor.kind.nbytes, 512)
    packing = blocks.packing_of(kind)
    assert isinstance(rows, PackedRows) == (packing is not None)
    values = dequantize(rows, packing) if isinstance(rows, PackedRows) else rows
    np.testing.assert_allclose(values, expected, rtol=0, atol=np.abs(expected).max() * 3e-7)
    if isinstance(rows, PackedRows):  # and MLX computes the same of it
        form = {"group_size": packing.group_size, "bits": packing.bits}
        parts = [mx.array(part) for part in (rows.weight, rows.scales, rows.biases)]
        found = np.array(mx.dequantize(*parts, **form))
        np.testing.assert_allclose(found, expected, rtol=0, atol=np.abs(expected).max() * 3e-7)


def test_block_sizes():
    for kind, (values, nbytes) in samples.BLOCKS.items():
        assert (TYPES[NUMBERS[kind]].values, TYPES[NUMBERS[kind]].nbytes) == (values, nbytes)


def test_halves_are_scales_that_float16_holds():
    for kind in blocks.HALF_SCALES:
        raw = samples.draw_rows(kind, samples.generator(kind), 4, 512)
        rows = blocks.read_rows(raw.tobytes(), kind, samples.BLOCKS[kind][1], 512)
        for part in (rows.scales, rows.biases):
            np.testing.assert_array_equal(part, part.astype(np.float16).astype(np.float32))


def test_q8_0_and_bfloat16_are_written_as_the_gguf_package_does():
    assert encode(TABLES["rows"], "Q8_0") == TABLES["q8_0"].tobytes()
    np.testing.assert_array_equal(bfloat16_bits(TABLES["rows"]), TABLES["bf16"])
    assert encode(TABLES["rows"], "BF16") == TABLES["bf16"].tobytes()
    assert encode(TABLES["rows"], "F32") == TABLES["rows"].tobytes()


def test_mxfp8_rows_are_unpacked_as_mlx_does():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 120, (4, 64), dtype=np.uint8)
    scales = rng.integers(120, 130, (4, 2), dtype=np.uint8)
    rows = PackedRows(pack(codes, 8), scales, None)
    found = dequantize(rows, QuantizationSpec(8, 32, "mxfp8"))
    expected = mx.dequantize(mx.array(rows.weight), mx.array(scales), mode="mxfp8", dtype=mx.float32)
    np.testing.assert_array_equal(found, np.array(expected))


@pytest.mark.parametrize(
    ("columns", "group", "width"),
    [(256, 128, 128), (256, 256, 128), (896, 896, 128), (96, 96, 32), (256, 64, 64), (256, 16, None), (48, 48, None)],
)
def test_a_group_is_held_by_smaller_ones(columns, group, width):
    assert widest_group(columns, group) == width


def test_affine_takes_the_group_that_fits():
    assert affine(256) == QuantizationSpec(8, 64)
    assert affine(96, 4, 128) == QuantizationSpec(4, 32)
    assert affine(48) is None


def test_row_ranges():
    assert list(row_ranges(1, 8, 10, 30)) == [(1, 4), (4, 7), (7, 8)]
    assert list(row_ranges(0, 2, 100, 30)) == [(0, 1), (1, 2)]
