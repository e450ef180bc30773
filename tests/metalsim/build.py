"""From Metal text to a loaded object, kept in a cache.

The cache is a folder, `$METALSIM_CACHE` or one of this user's under the system's temporary folder. A file is named for
a hash of everything that went into it and appears there complete, so any number of processes may share the folder, and
it may be deleted at any time. What cannot be compiled is remembered, too.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.metalsim import toolchain
from tests.metalsim.errors import CompileError, ToolchainError
from tests.metalsim.rewrite import rewrite

HERE = Path(__file__).parent
INCLUDE = HERE / "include"
RUNTIME = HERE / "runtime"
_METAL_WORDS = {
    "__global": "device",
    "__local": "threadgroup",
    "__constant": "constant",
    "__bf16": "bfloat",
    "_Float16": "half",
}
_NO_BFLOAT = re.compile(r"implicit conversion .* to '[^']*(?:bfloat|__bf16)")


@dataclass(frozen=True)
class Unit:
    """One kernel to compile.

    Attributes:
        name: what the compiler calls the text in its messages.
        text: Metal, with the include directives it needs.
        entry: C++ that calls the kernel; see `entry.py`.
        include: folders for `#include`, after the simulator's own.
        checked: whether accesses are watched.
        constants: values of function constants.
    """

    name: str
    text: str
    entry: str
    include: tuple[Path, ...] = ()
    checked: bool = True
    constants: Mapping[str | int, object] = field(default_factory=dict)


def build(unit: Unit) -> Path:
    """Compile a kernel, if it is not in the cache, and return the shared object.

    With `METALSIM_KEEP=1` the rewritten source lies beside it.

    Raises:
        CompileError: the kernel is wrong; lines are those of `unit.text`.
        ToolchainError: there is no compiler, or no place for the cache.
    """
    tools = toolchain.find()
    key = _digest(
        unit.name, unit.text, unit.entry, unit.include, unit.checked, sorted(unit.constants.items(), key=repr),
        _own_digest(), tools,
    )  # fmt: skip
    library = cache_folder() / f"{unit.name[:60]}-{key}.so"
    keep = os.environ.get("METALSIM_KEEP") == "1"
    rewritten, failed = library.with_suffix(".cpp"), library.with_suffix(".failed")
    if library.exists() and (rewritten.exists() or not keep):
        return library
    if failed.exists() and not keep:
        raise CompileError(failed.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="metalsim-") as folder:
        try:
            code = _compile(unit, Path(folder), tools)
        except CompileError as error:
            (Path(folder) / "error").write_text(str(error), encoding="utf-8")
            _publish(Path(folder) / "error", failed)
            raise
        finally:
            if keep and (Path(folder) / "rewritten.cpp").exists():
                _publish(Path(folder) / "rewritten.cpp", rewritten)
        linked = Path(folder) / "linked.so"
        result = toolchain.run([*tools.linker, str(code), str(_runtime(tools)), "-o", str(linked)])
        if result.returncode:
            raise ToolchainError(f"{unit.name} cannot be linked: {result.stderr.strip()}")
        _publish(linked, library)
    return library


def _compile(unit: Unit, folder: Path, tools: toolchain.Toolchain) -> Path:
    (folder / "kernel.metal").write_text(unit.text, encoding="utf-8")
    result = toolchain.run(
        [*tools.preprocess([INCLUDE, *unit.include]), "kernel.metal", "-o", "preprocessed.cpp"], folder
    )
    if result.returncode:
        raise CompileError(result.stderr.strip())
    text = (folder / "preprocessed.cpp").read_text(encoding="utf-8")
    (folder / "rewritten.cpp").write_text(rewrite(text, unit.constants) + unit.entry, encoding="utf-8")
    result = toolchain.run([*tools.compile(unit.checked), "rewritten.cpp", "-o", "kernel.o"], folder)
    said = result.stderr.splitlines()
    errors = [line for line in said if "warning:" not in line] if result.returncode else []
    # Nothing converts to bfloat implicitly in Metal; clang only warns.
    errors += [line.replace("warning:", "error:") for line in said if "warning:" in line and _NO_BFLOAT.search(line)]
    if errors:
        raise CompileError("\n".join(dict.fromkeys(errors)))
    return folder / "kernel.o"


@functools.lru_cache(maxsize=1)
def _runtime(tools: toolchain.Toolchain) -> Path:
    """The compiled runtime."""
    compiled = cache_folder() / f"runtime-{_digest(_own_digest(), tools)}.o"
    if not compiled.exists():
        with tempfile.TemporaryDirectory(prefix="metalsim-") as folder:
            made = Path(folder) / "runtime.o"
            result = toolchain.run([*tools.compile_runtime(), str(RUNTIME / "runtime.cpp"), "-o", str(made)])
            if result.returncode:
                raise ToolchainError(f"the simulator's runtime cannot be compiled: {result.stderr.strip()}")
            _publish(made, compiled)
    return compiled


def _publish(made: Path, place: Path) -> None:
    """Copy a file into the cache so that it is there completely or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    os.close(handle)
    shutil.copyfile(made, name)
    os.replace(name, place)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:20]


@functools.lru_cache(maxsize=1)
def _own_digest() -> str:
    """Changes when the simulator does."""
    files = [*sorted(INCLUDE.rglob("*")), *sorted(RUNTIME.iterdir()), HERE / "rewrite.py", HERE / "toolchain.py"]
    return _digest(*(file.read_bytes() for file in files if file.is_file()))


def cache_folder() -> Path:
    """Where compiled kernels are kept; made if it is not there, for its owner only.

    Raises:
        ToolchainError: others could put code of theirs into it.
    """
    wish = os.environ.get("METALSIM_CACHE")
    folder = Path(wish).expanduser() if wish else Path(tempfile.gettempdir()) / f"metalsim-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ToolchainError(f"no place for compiled kernels: {error}; METALSIM_CACHE names another") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ToolchainError(f"others may write to {folder}; METALSIM_CACHE names another folder for compiled kernels")
    return folder


def in_lines_of(message: str, file: str, describe: Callable[[int], str]) -> str:
    """A compiler's message with `file:12:5:` replaced by what `describe` says of line 12; in Metal's own words."""
    kept = [line for line in message.splitlines() if not line.startswith(("entry:", "In file included from"))]
    message = re.sub(r"\b_\w+", lambda m: _METAL_WORDS.get(m[0], m[0]), "\n".join(kept))
    return re.sub(rf"{re.escape(file)}:(\d+)(?::\d+)?", lambda m: describe(int(m[1])), message)
