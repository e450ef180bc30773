#!/usr/bin/env python
"""Run every kernel against its reference on the GPU of this machine, and time both.

    python scripts/check_kernels.py [--kernel NAME ...] [--repeat N]

Prints a table in the form of docs/kernels.md: the largest difference from the reference, and microseconds of the kernel
and of the reference, which is what runs without it, as MLX computes it on the GPU. Times are of one call out of many
that were asked for together, so that starting them is hidden as it is in a model; the shortest of several tries counts.

Exit code 1 if a kernel cannot be built or differs by more than the self-test allows, 77 on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen_mlx import device
from qwen_mlx.kernels import launch
from qwen_mlx.kernels.catalogue import all_kernels
from qwen_mlx.kernels.kernel import DTYPE_NAMES, TOLERANCE, Arrays, Kernel, difference

import mlx.core as mx  # isort: skip

NO_GPU = 77
_AT_ONCE = 20  # calls that are asked for together
_TYPES = ("bfloat16", "float16", "float32")

# What the published models ask for; "T" stands for each type.
_CONFIGURATIONS: dict[str, list[tuple[Any, ...]]] = {
    "add_rms_norm": [
        *(("T", "T", size) for size in (896, 1024, 2048, 2560, 4096, 5120)),
        ("T", "float32", 1024),  # zero-centred
        ("T", "float32", 2048),
    ],
    "router_topk": [("T", 128, 8, True), ("T", 60, 4, False), ("T", 512, 10, True), ("T", 256, 8, True)],
    "sample_topk": [("T",)],
    "swiglu_matvec": [("T", 1024, 3072), ("T", 2560, 9728), ("T", 4096, 12288), ("T", 2048, 768)],
    "expert_down": [("T", 768, 2048, 8), ("T", 512, 2048, 10)],
    # type, head_dim, rotated dimensions, types of the norms, tokens, heads, kv heads (and bits of keys and values)
    "qk_norm_rope": [
        ("T", 128, 128, ("T", "T"), 1, 16, 8),
        ("T", 128, 128, ("T", "T"), 1, 32, 8),
        ("T", 256, 64, ("float32", "float32"), 1, 16, 2),
        ("T", 128, 128, (), 1, 14, 2),
    ],
    "qk_norm_rope_pack": [
        ("T", 128, 128, ("T", "T"), 1, 32, 8, 8, 8),
        ("T", 128, 128, ("T", "T"), 1, 32, 8, 4, 4),
        ("T", 128, 128, ("T", "T"), 1, 32, 8, 8, 4),
    ],
    "quantized_kv_attention": [
        *(("T", 128, bits, bits, group, 1, 1) for bits in (8, 4) for group in (2, 4, 5, 8)),
        ("T", 256, 8, 8, 8, 1, 1),
    ],
    "quantized_kv_dequantize": [("T", 128, 8, 8), ("T", 128, 4, 4), ("T", 128, 8, 4), ("T", 256, 8, 8)],
}


def configurations(name: str) -> Iterator[tuple[Any, ...]]:
    """Those of a kernel, for every type, each once."""
    seen = set()
    for pattern in _CONFIGURATIONS.get(name, ()):
        for dtype in _TYPES:
            one = _replaced(pattern, dtype)
            if one not in seen:
                seen.add(one)
                yield one


def _replaced(pattern: Any, dtype: str) -> Any:
    if isinstance(pattern, tuple):
        return tuple(_replaced(part, dtype) for part in pattern)
    return dtype if pattern == "T" else pattern


def check(kernel: Kernel, configuration: tuple[Any, ...]) -> tuple[float, bool]:
    """How far the kernel is from its reference in an example, and whether the self-test would take that."""
    arrays, options = kernel.example(configuration)
    found, expected = kernel.run(*arrays, **options), kernel.reference(*arrays, **options)
    if kernel.compared is not None:
        found, expected = kernel.compared(found, expected, options)
    gaps = [difference(a, b) for a, b in zip(found, expected)]
    return max(gaps), all(gap <= TOLERANCE.get(b.dtype, 0.0) for gap, b in zip(gaps, expected))


def microseconds(compute: Callable[..., Arrays], arrays: Arrays, options: dict[str, Any], repeat: int) -> float:
    """Of one call."""
    tries = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        mx.eval([compute(*arrays, **options) for _ in range(_AT_ONCE)])
        mx.synchronize()
        tries.append((time.perf_counter() - start) / _AT_ONCE * 1e6)
    return min(tries[1:])  # the first compiles


def report(names: Sequence[str], repeat: int, say: Callable[[str], None]) -> int:
    """Check and time; returns how many configurations failed."""
    kernels = all_kernels()
    failed, ratios = 0, []
    say("| kernel | configuration | difference | kernel, us | reference, us |")
    say("|---|---|---|---|---|")
    for name in names:
        for configuration in configurations(name):
            label = " ".join(str(part) for part in configuration)
            try:
                gap, good = check(kernels[name], configuration)
            except Exception as error:  # whatever a compiler or driver may say
                failed += 1
                say(f"| {name} | {label} | FAILED: {(str(error).strip().splitlines() or [repr(error)])[0]} | | |")
                continue
            failed += not good
            arrays, options = kernels[name].example(configuration)
            ours = microseconds(kernels[name].run, arrays, options, repeat)
            plain = microseconds(kernels[name].reference, arrays, options, repeat)
            ratios.append(plain / ours)
            say(f"| {name} | {label} | {gap:.1e}{'' if good else ' TOO FAR'} | {ours:.1f} | {plain:.1f} |")
    if ratios:
        say(f"\n{len(ratios)} configurations, {failed} failed")
        say(f"reference / kernel: median {statistics.median(ratios):.2f}")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run every kernel against its reference on this GPU, and time both.")
    parser.add_argument(
        "--kernel", action="append", choices=sorted(all_kernels()), help="only this one; may be repeated"
    )
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="tries, of which the best counts")
    args = parser.parse_args(argv)
    if launch.builder() is None:
        print("no GPU on this machine: nothing was checked")
        return NO_GPU
    info = mx.device_info()
    name = info.get("device_name") or info.get("architecture")
    print(f"{device.backend()}, {name}, types {', '.join(DTYPE_NAMES.values())}")
    return 1 if report(args.kernel or sorted(all_kernels()), max(1, args.repeat), print) else 0


if __name__ == "__main__":
    sys.exit(main())
