"""Which compiler there is, and how it is told to compile Metal.

The `ziglang` wheel carries a whole clang and lld for every platform, so nothing has to be installed on the machine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.metalsim.errors import ToolchainError

OLDEST_CLANG = 19  # whose __bf16 computes; older ones were not tried

# The address spaces of OpenCL are the only ones clang keeps apart in C++. On a CPU all of them are ordinary memory.
_MACROS = (
    "-Ddevice=__attribute__((opencl_global))",
    "-Dthreadgroup=__attribute__((opencl_local))",
    "-Dconstant=__attribute__((opencl_constant)) const",
    "-Dthread=",
)
_LANGUAGE = (
    *"-x c++ -std=c++14 -nostdinc -fPIC -fsigned-char -fno-exceptions -fno-rtti -fno-threadsafe-statics".split(),
    *"-fvisibility=hidden -fno-stack-protector -gline-tables-only -gdwarf-4".split(),
    "-fconvergent-functions",  # barriers stay where they are
    *"-Xclang -cl-single-precision-constant".split(),  # 1.0 is a float
    *"-Xclang -ffloat16-excess-precision=none -Xclang -fbfloat16-excess-precision=none".split(),  # round every time
    *"-ffp-contract=off -fno-math-errno".split(),
    # Branches stay branches: a store that the optimizer makes unconditional would look like a race, without a line.
    *"-mllvm -simplifycfg-merge-cond-stores=false -mllvm -simplifycfg-hoist-cond-stores=false".split(),
    *"-mllvm -simplifycfg-hoist-common=false -mllvm -simplifycfg-sink-common=false".split(),
    "-ftrivial-auto-var-init=pattern",  # uninitialised variables are NaN or far off
)
_WARNINGS = (
    *"-Wno-everything -Wimplicit-float-conversion -Werror=uninitialized -Werror=return-type".split(),
    *"-fno-caret-diagnostics -fno-color-diagnostics -ferror-limit=20".split(),
)
# The thread sanitizer only as an instrumentation pass: `runtime/memory.h` has the functions that it calls.
_CHECKS = (
    *"-Xclang -fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0 -mllvm -tsan-instrument-atomics=0".split(),
    *"-mllvm -tsan-compound-read-before-write=1".split(),
    *"-fsanitize=array-bounds,shift,integer-divide-by-zero,float-cast-overflow,alignment".split(),
    *"-fsanitize-minimal-runtime -fsanitize-recover=all".split(),
    "-DSIM_DECLARE(x)="
    "__sim_declare((const void*)&x,sizeof(x),__sim_element<__remove_reference_t(decltype(x))>::size,#x)",
)
_RUNTIME = (
    *"-x c++ -std=gnu++20 -O2 -fPIC -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-stack-protector".split(),
    *"-fvisibility=hidden -w".split(),
)


@dataclass(frozen=True)
class Toolchain:
    """Commands that compile and link, and what they take on this machine."""

    compiler: tuple[str, ...]
    linker: tuple[str, ...]
    identity: str  # of the compiler, for keys of the cache

    @property
    def _processor(self) -> tuple[str, ...]:
        return ("-mf16c", "-mfma", "-mavx2") if platform.machine() == "x86_64" else ()

    def preprocess(self, include: Sequence[Path]) -> list[str]:
        folders = [flag for folder in include for flag in ("-I", str(folder))]
        return [*self.compiler, *"-x c++ -std=c++14 -nostdinc -E -w".split(), *folders]

    def compile(self, checked: bool) -> list[str]:
        how = ("-O1", *_CHECKS) if checked else ("-O2", "-DSIM_DECLARE(x)=")
        return [*self.compiler, *_LANGUAGE, *self._processor, *_WARNINGS, *_MACROS, *how, "-c"]

    def compile_runtime(self) -> list[str]:
        return [*self.compiler, *_RUNTIME, *self._processor, "-c"]


@functools.lru_cache(maxsize=1)
def find() -> Toolchain:
    """The compiler of `$METALSIM_CLANG`, else of the ziglang wheel, else a clang of the system that is new enough.

    Raises:
        ToolchainError: there is none, or this is no Linux on x86-64 or aarch64.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ToolchainError(
            f"the simulator runs on Linux, x86-64 or aarch64, not on {sys.platform} {platform.machine()}"
        )
    if wish := os.environ.get("METALSIM_CLANG"):
        return _of_system(wish)
    spec = importlib.util.find_spec("ziglang")
    if spec and spec.origin:
        return _of_ziglang(Path(spec.origin).parent / "zig")
    for name in ("clang++", *(f"clang++-{version}" for version in range(30, OLDEST_CLANG - 1, -1))):
        if shutil.which(name) and _major_version(name) >= OLDEST_CLANG:
            return _of_system(name)
    raise ToolchainError(
        f"no clang to compile kernels with: pip install ziglang, or point METALSIM_CLANG to a clang {OLDEST_CLANG}"
    )


def _of_ziglang(zig: Path) -> Toolchain:
    if not zig.exists():
        raise ToolchainError(f"the ziglang package has no {zig}: install it again")
    target = f"{platform.machine()}-linux-gnu"
    identity = f"{zig} {zig.stat().st_size} {zig.stat().st_mtime_ns}"
    return Toolchain((str(zig), "clang", "-target", target), (str(zig), "ld.lld", "-shared"), identity)


def _of_system(name: str) -> Toolchain:
    version = run([name, "--version"])
    if version.returncode or "clang" not in version.stdout:
        raise ToolchainError(f"{name} is no clang: {(version.stderr or version.stdout).strip()}")
    return Toolchain((name,), (name, "-shared", "-nostdlib"), version.stdout)


def _major_version(name: str) -> int:
    digits = run([name, "-dumpversion"]).stdout.split(".")[0]
    return int(digits) if digits.isdigit() else 0


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; its output is text."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    except OSError as error:
        raise ToolchainError(f"{command[0]} cannot be run: {error}") from error
