"""The machine under MLX: which backend runs, how large memory is, and on a CPU which BLAS multiplies matrices.

`prepare()` must run before `mlx.core` is imported for the first time; the packages that use MLX call it in their
`__init__`. On Linux, MLX's CPU wheel is linked to the slow reference BLAS; an OpenBLAS or MKL that is loaded into the
process first takes its place and makes float32 matrix products 20 to 30 times faster.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.metadata
import os
import platform
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import mlx.core as mx

Backend = Literal["metal", "cuda", "cpu"]

_LINUX_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/OpenBLAS/lib", "/opt/intel")
_LINUX_BLAS = (
    "*/openblas-pthread/libopenblas.so.0",
    "*/openblas-openmp/libopenblas.so.0",
    "*/openblas-serial/libopenblas.so.0",
    "*/libopenblas.so.0",
    "libopenblasp.so.0",
    "libopenblas.so.0",
    "oneapi/mkl/latest/lib/libmkl_rt.so.2",
    "*/libmkl_rt.so*",
    "libmkl_rt.so*",
)
_lock = threading.Lock()
_prepared = False
_blas: Path | None = None
_blas_note = "not looked for yet"


def prepare() -> None:
    """Load a fast BLAS, once, where MLX would use a slow one.

    `QWEN_MLX_BLAS` names a library to load instead, or is "off". Never raises: without a fast BLAS everything is
    right, only slower, and `describe()` says so.
    """
    global _prepared, _blas, _blas_note
    with _lock:
        if _prepared:
            return
        _prepared = True
        wish = os.environ.get("QWEN_MLX_BLAS", "")
        if sys.platform != "linux":
            _blas_note = "Accelerate" if sys.platform == "darwin" else "MLX's own"
            return
        if wish == "off":
            _blas_note = "MLX's own (QWEN_MLX_BLAS=off)"
            return
        if "mlx.core" in sys.modules:
            _blas_note = "MLX's own: mlx was imported before qwen_mlx"
            return
        for path in [Path(wish)] if wish else _blas_candidates():
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                _blas_note = f"MLX's own: {path} cannot be loaded ({error})"
                continue
            _blas, _blas_note = path, str(path)
            return
        if not wish and _blas is None and _blas_note == "not looked for yet":
            _blas_note = "MLX's own (slow); install an OpenBLAS, e.g. apt install libopenblas0-pthread"


def _blas_candidates() -> list[Path]:
    """Existing libraries in order of preference; Python environments (conda) first."""
    folders = [Path(sys.prefix) / "lib", *map(Path, _LINUX_LIBRARY_FOLDERS)]
    found: list[Path] = []
    for pattern in _LINUX_BLAS:
        for folder in folders:
            if folder.is_dir():
                found.extend(sorted(folder.glob(pattern)))
    return list(dict.fromkeys(found))


def fast_blas() -> bool:
    """True when a float32 matrix product on the CPU runs in an optimised library."""
    return sys.platform == "darwin" or _blas is not None


@functools.lru_cache(maxsize=1)
def backend() -> Backend:
    """Which kind of device MLX's default device is."""
    prepare()
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """The type activations run in: float32 on a CPU, where half precision is slow and inaccurate, else as stored."""
    import mlx.core as mx

    return mx.float32 if backend() == "cpu" or stored not in (mx.float16, mx.bfloat16) else stored


def memory_size() -> int:
    """Bytes of memory of this machine (on a Mac: of the GPU too, as they share it)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 << 30


def memory_available() -> int:
    """Bytes that can be taken without swapping, as far as the system tells."""
    if sys.platform == "linux":
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        except (OSError, ValueError):
            pass
    return memory_size() * 3 // 4


_limits_set = False


def set_memory_limits() -> None:
    """Let MLX keep the weights resident, once per process.

    The wired limit is raised a single time and never touched again: kernel panics were reported on macOS for
    programs that toggle it around every generation. A reserve of an eighth of memory, at least 2 GB, stays with the
    system. `QWEN_MLX_WIRED=off` leaves the limit alone.
    """
    global _limits_set
    if _limits_set or backend() != "metal":
        return
    _limits_set = True
    if os.environ.get("QWEN_MLX_WIRED") == "off":
        return
    import mlx.core as mx

    recommended = int(mx.device_info().get("max_recommended_working_set_size", 0))
    size = memory_size()
    limit = min(recommended, size - max(size // 8, 2 << 30))
    if limit > 0:
        mx.set_wired_limit(limit)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    """Everything `qwen-mlx doctor` says of the machine; plain values only."""
    prepare()
    import mlx.core as mx

    kind = backend()
    info = {str(k): v for k, v in mx.device_info().items()} if kind != "cpu" else {}
    return {
        "backend": kind,
        "device": info.get("device_name") or platform.processor() or platform.machine(),
        "device_info": info,
        "mlx": _version("mlx"),
        "mlx_lm": _version("mlx-lm"),
        "blas": _blas_note,
        "fast_blas": fast_blas(),
        "compute_dtype": "float32" if kind == "cpu" else "as stored",
        "memory_total": memory_size(),
        "memory_available": memory_available(),
        "mlx_active_memory": mx.get_active_memory(),
        "mlx_peak_memory": mx.get_peak_memory(),
    }
