"""Compiled kernels are kept: complete, shared by any number of processes, and outside of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from tests.metalsim import CompileError, ToolchainError, build, metal_kernel, toolchain
from tests.metalsim.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[3]
RUN = """
import mlx.core as mx
from tests.metalsim import metal_kernel
kernel = metal_kernel("shared", ["x"], ["out"], "uint i = thread_position_in_grid.x; out[i] = x[i] + 1;")
out = kernel(inputs=[mx.arange(9)], grid=(9, 1, 1), threadgroup=(9, 1, 1),
             output_shapes=[(9,)], output_dtypes=[mx.int32])[0]
assert out.tolist() == list(range(1, 10))
print("fine")
"""


@pytest.fixture
def cache(tmp_path, monkeypatch, compiler):
    folder = tmp_path / "cache"
    build._runtime(toolchain.find())  # in the other folder, as it takes a second
    monkeypatch.setenv("METALSIM_CACHE", str(folder))
    return folder


def launch_once(source: str = "out[0] = x + 1;") -> None:
    metal_kernel("kept", ["x"], ["out"], source)(
        inputs=[1], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)], output_dtypes=[mx.int32]
    )


def test_two_processes_compile_the_same_kernels_at_once(compiler, cache):
    cache.mkdir()
    shutil.copy(build._runtime(toolchain.find()), cache)
    environment = {**os.environ, "METALSIM_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        out, errors = process.communicate(timeout=100)
        assert out == b"fine\n", errors.decode()
    assert sorted(file.suffix for file in cache.iterdir()) == [".o", ".so"]


def test_what_is_compiled_once_is_not_compiled_again_and_another_source_is(compiler, cache, monkeypatch):
    launch_once()
    made = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    launch_once("out[0] = x + 2;")
    assert len(list(cache.glob("kept-*.so"))) == 2
    monkeypatch.setattr(toolchain, "run", lambda *a: pytest.fail("compiled again"))
    launch_once()
    assert made.items() <= {file: file.stat().st_mtime_ns for file in cache.iterdir()}.items()


def test_a_mistake_is_remembered(compiler, cache, monkeypatch):
    with pytest.raises(CompileError) as first:
        launch_once("out[0] = y;")
    monkeypatch.setattr(toolchain, "run", lambda *a: pytest.fail("compiled again"))
    with pytest.raises(CompileError) as second:
        launch_once("out[0] = y;")
    assert str(first.value) == str(second.value) and "source line 1 `out[0] = y;`" in str(first.value)


def test_the_rewritten_source_can_be_kept(compiler, cache, monkeypatch):
    launch_once()
    monkeypatch.setenv("METALSIM_KEEP", "1")
    launch_once()
    (kept,) = cache.glob("kept-*.cpp")
    assert "out[0] = x + 1;" in kept.read_text() and 'extern "C"' in kept.read_text()


def test_it_lies_outside_of_the_repository_and_belongs_to_its_owner(monkeypatch, tmp_path):
    monkeypatch.delenv("METALSIM_CACHE", raising=False)
    folder = build.cache_folder()
    assert ROOT not in folder.parents and folder.stat().st_mode & 0o22 == 0
    monkeypatch.setenv("METALSIM_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ToolchainError, match="others may write to"):
        build.cache_folder()


@pytest.fixture
def fresh_toolchain():
    toolchain.find.cache_clear()
    yield
    toolchain.find.cache_clear()


def test_without_a_compiler_it_says_what_to_install(fresh_toolchain, monkeypatch):
    monkeypatch.delenv("METALSIM_CLANG", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        toolchain.find()
    monkeypatch.setenv("METALSIM_CLANG", "/nowhere/clang++")
    with pytest.raises(ToolchainError, match="/nowhere/clang"):
        toolchain.find()


def test_on_another_system_it_says_so(fresh_toolchain, monkeypatch):
    monkeypatch.setattr(toolchain.sys, "platform", "darwin")
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "arm64")
    with pytest.raises(ToolchainError, match="not on darwin arm64"):
        toolchain.find()


def test_flags_for_the_other_processor(monkeypatch):
    tools = Toolchain(("clang",), ("ld",), "")
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    assert "-mavx2" not in tools.compile(checked=True)
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    assert "-mavx2" in tools.compile(checked=True)
