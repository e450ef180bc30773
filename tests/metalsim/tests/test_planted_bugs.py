"""Mistakes that only show when a kernel runs: each is reported as what it is, with line, thread and threadgroup."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.metalsim import Finding, KernelError, metal_kernel
from tests.metalsim.tests import rms_norm
from tests.metalsim.tests.rms_norm import changed

pytestmark = pytest.mark.usefixtures("compiler")

BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
READ = "s = simd_sum(thread_index_in_simdgroup < TG / 32 ? buf[thread_index_in_simdgroup] : 0.0f);"
BEFORE_POINTER = (
    "threadgroup float buf_[TG / 32];\nthreadgroup float* first = buf_;\nthreadgroup float* buf = first - 1"
)
THROUGH_POINTER = "threadgroup float buf_[TG / 32];\nthreadgroup float* buf = buf_"

# what was done: the changed source, kind, part of the message, part of the line it must point to
IN_RMS_NORM = {
    "no barrier": (changed(BARRIER, ""), "data race", "buf[", "buf["),
    "barrier of the SIMD-group only": (
        changed(BARRIER, "simdgroup_barrier(mem_flags::mem_threadgroup);"), "data race", "buf[", "buf["),
    "barrier that orders nothing": (
        changed(BARRIER, "threadgroup_barrier(mem_flags::mem_none);"), "data race", "buf[", "buf["),
    "barrier for the other memory": (
        changed(BARRIER, "threadgroup_barrier(mem_flags::mem_device);"), "data race", "buf[", "buf["),
    "buffer reused without a barrier": (
        changed(READ, READ + "\nif (t == 0) { buf[0] = 1.0f; }"), "data race", "buf[0] is written", "buf[0] = 1.0f"),
    "threadgroup memory that nobody wrote": (
        changed("< TG / 32 ?", "< 32 ?", changed("buf[TG / 32];", "buf[32];")),
        "uninitialised read", "threadgroup memory buf[", "? buf["),
    "past the end of threadgroup memory": (
        changed("< TG / 32 ?", "< 32 ?"), "undefined behaviour", "array of fixed size", "? buf["),
    "past the end of threadgroup memory, by pointer": (
        changed("< TG / 32 ?", "< 32 ?", changed("threadgroup float buf[TG / 32]", THROUGH_POINTER)),
        "out of bounds", "past the end of buf_", "? buf["),
    "before threadgroup memory": (
        changed("threadgroup float buf[TG / 32]", BEFORE_POINTER), "out of bounds", "before buf_", "buf["),
    "past the end of an input": (changed("d < D ?", "d <= D ?"), "out of bounds", "read of 4 bytes at x[3000]", "x["),
    "past the end of the weight": (changed("if (d < D)", "if (d <= D)"), "out of bounds", "w[1000]", "w[d]"),
    "past the end of the output": (
        changed("out[base + d]", "out[base + d + 1]"), "out of bounds", "write of 4 bytes at out[3000]", "out["),
    "before the input": (
        changed("x[base + d]", "x[int(base) + d - 5]"), "out of bounds", "x[-5]; x has 3000", "x["),
    "threadgroups write the same elements": (changed("out[base + d]", "out[d]"), "data race", "out[", "out[d]"),
    "barrier not for all threads": (
        changed(BARRIER, f"if (t < 128) {{ {BARRIER} }}"), "divergence", "barrier divergence", BARRIER),
    "threads return before a barrier": (
        changed("float v[R];", "if (t >= 64 && x[0] != 12345) { return; }\nfloat v[R];"),
        "divergence", "has returned before any barrier", BARRIER),
    "different barriers": (
        changed(BARRIER, f"if (t < 128) {{ {BARRIER} }} else {{\n{BARRIER} }}"),
        "divergence", "barrier divergence", BARRIER),
    "SIMD operation not for all lanes": (
        changed("s = simd_sum(s);", "if (t % 2 == 0) { s = simd_sum(s); }"),
        "divergence", "SIMD-group divergence", "s = simd_sum(s)"),
    "elements not written": (
        changed("if (d < D)", "if (d < D - 1)"), "unwritten output", "3 of 3000 elements of the output out", ""),
    "past the end of an own array": (
        changed("for (int i = 0; i < R; i++) {\n    int d = t + i * TG;\n    v",
                "for (int i = 0; i < R + 1; i++) {\n    int d = t + i * TG;\n    v"),
        "undefined behaviour", "array of fixed size", "v[i]"),
    "too much threadgroup memory": (
        changed("buf[TG / 32]", "buf[8193]"), "threadgroup memory", "of 32768", ""),
}  # fmt: skip


def check(finding: Finding, part_of_line: str) -> None:
    if part_of_line:
        assert finding.where.startswith("source line ") and part_of_line in finding.where
        assert finding.thread is not None
        assert max(finding.thread.position) < 1024 and min(finding.thread.threadgroup) >= 0
    if finding.kind in ("data race", "divergence"):
        assert finding.other is not None and finding.other != finding.thread
        assert "returned before" in finding.message or finding.other_where.startswith("source line ")


@pytest.mark.parametrize("bug", IN_RMS_NORM)
def test_in_rms_norm(bug):
    source, kind, message, part_of_line = IN_RMS_NORM[bug]
    with pytest.raises(KernelError) as caught:
        rms_norm.compute(source)
    found = [f for f in caught.value.of_kind(kind) if message in f.message]
    assert found, str(caught.value)
    check(found[0], part_of_line)
    text = str(caught.value)
    assert text.startswith("kernel rms:") and f"[{kind}]" in text and message in text
    if part_of_line:
        assert "of threadgroup (" in text


# what was done: the source of a kernel out = f(x), kind, part of the message, part of the line
SMALL = {
    "input written": (
        "((device float*)x)[i] = 1.0f;\nout[i] = 1.0f;", "read-only memory", "the input x", "((device float*)x)[i]"),
    "output read before it was written": ("out[i] += 1.0f;", "uninitialised read", "out[", "out[i] += 1.0f"),
    "neighbour's result read": (
        "out[i] = x[i];\nif (out[(i + 1) % 64] > 5) { out[i] = 0; }", "uninitialised read", "out[", "if (out["),
    "all threads write one element": ("out[0] = x[i];", "data race", "out[0] is written after", "out[0] = x[i]"),
    "shift too far": ("out[i] = float(1 << (i + 1));", "undefined behaviour", "shift", "1 << (i + 1)"),
    "division by zero": ("out[i] = float(int(i + 5) / int(i / 64));", "undefined behaviour", "division", "int(i / 64)"),
    "number that no integer holds": (
        "out[i] = float(int(x[i] * 1e12f));", "undefined behaviour", "does not fit", "1e12f"),
    "misaligned access": (
        "out[i] = float(*(const device int*)((const device char*)x + i % 60 + 1));",
        "undefined behaviour", "misaligned", "(const device int*)"),
    "misaligned atomic": (
        "out[i] = float(atomic_load_explicit((const device atomic_int*)((const device char*)x + 2), "
        "memory_order_relaxed));", "undefined behaviour", "misaligned atomic", "atomic_load_explicit"),
    "shuffle from outside the group": (
        "out[i] = simd_shuffle(x[i], i + 1);", "undefined behaviour", "outside of the group", "simd_shuffle"),
    "shuffle from a thread that returned": (
        "out[i] = 0;\nif (i % 32 == 3) { return; }\nout[i] = simd_shuffle(x[i], 3);",
        "undefined behaviour", "has returned", "simd_shuffle"),
    "exchange inside a SIMD-group without a barrier": (
        "threadgroup float a[64];\na[i] = x[i];\nout[i] = a[i ^ 1];", "data race", "a[", "a[i"),
    "matrix stored and read without a barrier": (
        "threadgroup float a[64];\nsimdgroup_float8x8 m(1.0f);\nif (i < 32) { simdgroup_store(m, a); }\n"
        "if (i < 32) { out[i] = a[i]; out[i + 32] = a[63 - i]; }", "data race", "a[", "out[i] = a[i]"),
    "far outside of everything": (
        "out[i] = x[i * 1000000];", "out of bounds", "x[1000000]", "i * 1000000"),
    "another buffer, by an index that is too far": (
        "out[i] = (x + 200000000)[i];", "out of bounds", "at ", "200000000"),
    "atomic and plain access": (
        "device atomic_uint* a = (device atomic_uint*)out;\nif (i == 0) { out[0] = 1.0f; }\n"
        "atomic_fetch_add_explicit(a, 1, memory_order_relaxed);", "data race", "out[0]", "atomic_fetch_add"),
}  # fmt: skip


def run_small(source: str, **options: object) -> mx.array:
    kernel = metal_kernel("small", ["x"], ["out"], "uint i = thread_position_in_grid.x;\n" + source)
    x = mx.array(np.arange(1, 65, dtype=np.float32))
    arguments = {
        "grid": (64, 1, 1), "threadgroup": (64, 1, 1), "output_shapes": [(64,)], "output_dtypes": [mx.float32]
    }  # fmt: skip
    return kernel(inputs=[x], **{**arguments, **options})[0]


@pytest.mark.parametrize("bug", SMALL)
def test_in_a_small_kernel(bug):
    source, kind, message, part_of_line = SMALL[bug]
    with pytest.raises(KernelError) as caught:
        run_small(source, allow_unwritten=True)
    found = [f for f in caught.value.of_kind(kind) if message in f.message]
    assert found, str(caught.value)
    check(found[0], part_of_line)


def test_where_and_who():
    """The thread and line of a finding are the right ones, not just any."""
    with pytest.raises(KernelError) as caught:
        run_small("out[i] = 0;\nif (i == 37) {\n  out[i] = x[64];\n}", threadgroup=(16, 1, 1))
    (finding,) = caught.value.findings
    assert finding.where == "source line 4 `out[i] = x[64];`"
    assert finding.thread is not None
    assert (finding.thread.position, finding.thread.threadgroup) == ((5, 0, 0), (2, 0, 0))
    assert str(finding.thread) == "thread (5,0,0) of threadgroup (2,0,0)"


def test_both_sides_of_a_race():
    source = "threadgroup int a[1];\nif (i == 3) {\n  a[0] = 1;\n}\nif (i == 40) {\n  a[0] = 2;\n}\nout[i] = 0;"
    with pytest.raises(KernelError) as caught:
        run_small(source)
    (finding,) = caught.value.findings
    assert finding.where == "source line 7 `a[0] = 2;`" and finding.other_where == "source line 4 `a[0] = 1;`"
    assert finding.thread is not None and finding.other is not None
    assert (finding.thread.position, finding.other.position) == ((40, 0, 0), (3, 0, 0))


def test_in_the_header():
    header = "inline float get(const device float* p, uint i) {\n  return p[i + 1];\n}\n"
    kernel = metal_kernel("k", ["x"], ["out"], "uint i = thread_position_in_grid.x; out[i] = get(x, i);", header)
    with pytest.raises(KernelError, match=r"header line 2 `return p\[i \+ 1\];`"):
        kernel(
            inputs=[mx.zeros(64)], grid=(64, 1, 1), threadgroup=(64, 1, 1),
            output_shapes=[(64,)], output_dtypes=[mx.float32],
        )  # fmt: skip


def test_one_finding_for_many_threads():
    with pytest.raises(KernelError) as caught:
        run_small("out[i] += 1.0f;")
    assert [f.count for f in caught.value.findings] == [64]
    assert "(64 times)" in str(caught.value)


def test_what_is_allowed_on_request():
    assert run_small("if (i < 8) { out[i] = 1.0f; }", allow_unwritten=True)[:8].sum().item() == 8
    assert run_small("out[i / 2] = 1.0f;", allow_unwritten=True, allow_duplicate_writes=True)[:32].sum().item() == 32


def test_an_order_that_was_not_promised():
    """No access is wrong by itself, but the answer depends on who comes first."""
    source = """threadgroup atomic_uint next[1];
    if (i == 0) { atomic_store_explicit(next, 0, memory_order_relaxed); }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    out[i] = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);"""
    forward, reverse, greedy = (run_small(source, schedule=s).tolist() for s in ("forward", "reverse", "greedy"))
    assert forward == list(range(64)) and reverse == forward[::-1] and greedy == forward
    shuffled = [run_small(source, schedule="random", seed=seed).tolist() for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2] and sorted(shuffled[2]) == forward
