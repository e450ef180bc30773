"""The translation of Metal sources for NVIDIA GPUs: its text, and that NVIDIA's compiler takes it, if there is one."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from qwen_mlx.kernels import cuda, launch

HEADER = """
template <typename U>
inline U square(U v) {
  return v * v;
}
"""
# A row's root mean square, with what kernels here use: shared memory, barriers, sums, shuffles, bits.
SOURCE = """
threadgroup float partial[THREADS / 32], other[2][4];
const uint lane = thread_index_in_simdgroup;
const uint t = thread_position_in_threadgroup.x;
const device T* row = x + size_t(threadgroup_position_in_grid.y) * SIZE;
float sum = 0.0f;
for (int i = t; i < SIZE; i += THREADS) {
  sum += square(float(row[i]));
}
sum = simd_sum(sum);
if (lane == 0) {
  partial[simdgroup_index_in_threadgroup] = sum;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
threadgroup float* parts = partial;
sum = simd_sum(lane < THREADS / 32 ? parts[lane] : 0.0f);
float largest = simd_max(simd_shuffle_xor(sum, ushort(1)));
float scale = metal::precise::rsqrt(sum / SIZE + eps) * (largest >= sum ? 1.0f : 0.0f);
uint bits = as_type<uint>(scale);
for (int i = t; i < SIZE; i += THREADS) {
  out[threadgroup_position_in_grid.y * SIZE + i] = static_cast<T>(float(row[i]) * as_type<float>(bits));
}
"""


def test_what_becomes_of_a_source():
    header, source = cuda.translate(HEADER, SOURCE, ["eps"])
    assert header == cuda.PRELUDE + HEADER
    assert "\n__shared__ threadgroup float partial[THREADS / 32], other[2][4];" in source
    assert "\nthreadgroup float* parts = partial;" in source  # a pointer is no variable
    assert source.count("__shared__") == 1
    before, after = source.split("\n__shared__")
    assert after == " " + SOURCE[1:]
    assert "const auto eps = *eps_pointer;" in before
    declared = re.findall(r"const uint3? (\w+) =", before)
    assert declared == [
        "qwen_index", "simdgroup_index_in_threadgroup", "thread_index_in_simdgroup", "thread_position_in_threadgroup",
        "threadgroup_position_in_grid",
    ]  # fmt: skip


def test_names_in_comments_are_not_attributes():
    _, source = cuda.translate("", "// thread_position_in_grid\nout[0] = 1;", [])
    assert "thread_position_in_grid =" not in source


def test_a_grid_with_ragged_edges():
    """Threads outside of it return at once, unless others would wait for them."""
    _, source = cuda.translate("", "out[thread_position_in_grid.x] = threads_per_grid.x;", [], ragged=True)
    assert "blockIdx.x * blockDim.x + threadIdx.x >= uint(qwen_threads[0])" in source
    assert "uint3 threads_per_grid = make_uint3(qwen_threads[0], qwen_threads[1], qwen_threads[2]);" in source
    with pytest.raises(ValueError, match="no multiple of the threadgroup: threadgroup_barrier"):
        cuda.translate(HEADER, SOURCE.replace("simd_sum", "float"), ["eps"], ragged=True)
    with pytest.raises(ValueError, match="simd_sum"):
        cuda.translate("inline float f(float v) { return simd_sum(v); }", "out[0] = f(x[0]);", [], ragged=True)


@pytest.mark.parametrize("word", ["atomic_fetch_add_explicit(&out[0], 1, memory_order_relaxed);", "simdgroup_load(a);"])
def test_what_has_no_translation_is_refused(word):
    with pytest.raises(ValueError, match="have no translation to CUDA"):
        cuda.translate("", word, [])


@pytest.fixture
def built(monkeypatch) -> list[dict[str, Any]]:
    """What `mx.fast.cuda_kernel` is asked to build, with the arguments of each call."""
    asked: list[dict[str, Any]] = []

    def cuda_kernel(**arguments: Any) -> Any:
        asked.append(arguments)
        arguments["calls"] = []

        def call(**options: Any) -> list[mx.array]:
            arguments["calls"].append(options)
            return [mx.zeros(shape, dtype) for shape, dtype in zip(options["output_shapes"], options["output_dtypes"])]

        return call

    monkeypatch.setattr(mx.fast, "cuda_kernel", cuda_kernel)
    return asked


def test_a_program_is_built_for_cuda(built, tmp_path):
    (tmp_path / "rms.metal").write_text(SOURCE)
    (tmp_path / "square.h").write_text(HEADER)
    program = launch.Program(tmp_path, "rms", ["x", "eps"], ["out"], header="square.h")
    call: dict[str, Any] = {
        "output_shapes": [(3, 100)], "grid": (64, 3, 1), "threadgroup": (64, 8, 1),
        "template": [("T", mx.float16), ("SIZE", 100), ("THREADS", 64)],
    }  # fmt: skip
    with launch.building_with(cuda.metal_kernel):
        for dtype in (mx.float16, mx.float16, mx.bfloat16):
            (out,) = program([mx.zeros((3, 100), dtype), 1e-6], output_dtypes=[dtype], **call)
            assert out.shape == (3, 100) and out.dtype == dtype
    assert [len(kernel["calls"]) for kernel in built] == [2, 1]
    assert built[0]["input_names"] == ["x", "eps_pointer"] and built[0]["output_names"] == ["out"]
    # MLX finds compiled kernels by name and template alone
    assert built[0]["name"] != built[1]["name"] and built[0]["name"].startswith("rms_")
    (first, _) = built[0]["calls"]
    assert first["threadgroup"] == (64, 3, 1) and first["grid"] == (64, 3, 1)
    assert first["template"] == call["template"]


def test_a_ragged_grid_brings_its_size(built):
    kernel = cuda.metal_kernel("k", ["x"], ["out"], "out[thread_position_in_grid.x] = x[0];")
    kernel(
        inputs=[mx.zeros(8)], grid=(100, 1, 1), threadgroup=(64, 1, 1), output_shapes=[(100,)],
        output_dtypes=[mx.float32],
    )  # fmt: skip
    assert built[0]["input_names"] == ["x", "qwen_threads"]
    (call,) = built[0]["calls"]
    assert call["inputs"][1].tolist() == [100, 1, 1]


def test_what_mlx_has_for_metal_only():
    with pytest.raises(ValueError, match="atomic outputs"):
        cuda.metal_kernel("k", ["x"], ["out"], "", atomic_outputs=True)


def _nvidia_folder() -> Path | None:
    """Where the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime put compiler and headers."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for found in Path(folder).glob("cu*/include/cuda_fp16.h"):
            if list(found.parents[1].glob("lib/libnvrtc.so.*")):
                return found.parents[1]
    return None


@pytest.mark.skipif(_nvidia_folder() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")
@pytest.mark.parametrize("dtype", ["__half", "__nv_bfloat16", "float"])
def test_nvidias_compiler_takes_it(dtype):
    header, source = cuda.translate(HEADER, SOURCE, ["eps"])
    text = (
        f"{header}\n__global__ void rms(const {dtype}* x, const float* eps_pointer, {dtype}* out) {{\n"
        f"  using T = {dtype};\n  constexpr int SIZE = 100;\n  constexpr int THREADS = 64;\n{source}}}\n"
    )
    status, log = _compile(text)
    assert status == 0, log


def _compile(text: str) -> tuple[int, str]:
    """Status and log of NVRTC for sm_90, with the option that MLX gives it."""
    folder = _nvidia_folder()
    assert folder
    nvrtc = ctypes.CDLL(str(sorted(folder.glob("lib/libnvrtc.so.*"))[0]))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"rms.cu", 0, None, None) == 0
    options = [
        "--gpu-architecture=sm_90", "--device-as-default-execution-space", f"--include-path={folder / 'include'}",
        f"--include-path={folder / 'include/cccl'}",
    ]  # fmt: skip
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return int(status), log.value.decode(errors="replace")
