"""`qwen-mlx doctor`: what this machine offers, and what may be wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qwen_mlx import __version__, paths
from qwen_mlx.cli.reply_writer import format_bytes

Facts = dict[str, Any]
DeviceFacts = Callable[[], Mapping[str, Any]]

_PACKAGES = ("mlx", "numpy", "tokenizers", "jinja2", "textual", "mlx-lm")
_HF_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH")
_OWN_VARIABLES = "QWEN_MLX_"
_SECRET = ("TOKEN", "KEY", "SECRET")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace, device_facts: DeviceFacts | None = None) -> int:
    """Print the report. Returns 1 when something keeps models from running, else 0."""
    report = examine(device_facts or _device_facts)
    if args.json:
        print(json.dumps(report.as_dictionary(), ensure_ascii=False, indent=2, default=str))
    else:
        print("\n".join(report.lines()))
    return 1 if report.problems else 0


@dataclass(frozen=True)
class Report:
    """Sections of facts, each a name and a plain value; `problems` keep models from running, `advice` does not."""

    sections: Mapping[str, Facts]
    problems: tuple[str, ...]
    advice: tuple[str, ...]

    def as_dictionary(self) -> Facts:
        return {**self.sections, "problems": list(self.problems), "advice": list(self.advice)}

    def lines(self) -> Iterator[str]:
        for title, facts in self.sections.items():
            yield f"{title}:" if facts else f"{title}: none set"
            width = max((len(name) for name in facts), default=0) + 2
            for name, value in facts.items():
                yield f"  {_words(name):<{width}}{_shown(name, value)}"
        for word, texts in (("problem", self.problems), ("advice", self.advice)):
            for text in texts:
                yield f"{word}: {text}"
        if not self.problems:
            yield "No problem found."


def examine(device_facts: DeviceFacts) -> Report:
    """Look at everything. Never raises: what cannot be read is a problem of the report."""
    problems: list[str] = []
    advice: list[str] = []
    versions = _versions()
    try:
        device = dict(device_facts())
    except Exception as error:  # a damaged MLX fails in many ways, and to say which is what doctor is for
        device = {}
        problems.append(f"MLX does not start: {type(error).__name__}: {error}")
    if device.get("fast_blas") is False:
        advice.append(f"matrix products run in a slow BLAS: {device.get('blas')}")
    folders = {name: _folder(path) for name, path in _folders().items()}
    for name, facts in folders.items():
        if facts["writable"] is False and name in ("data", "cache"):
            problems.append(f"the {name} folder {facts['path']} is not writable; see QWEN_MLX_HOME and QWEN_MLX_CACHE")
    demo = paths.demo_model()
    if not (demo / "config.json").is_file():
        advice.append(f"the demo model is missing from {demo}")
    machine = {key: device.pop(key) for key in _MACHINE if key in device}
    kernels = device.pop("kernels", [])
    sections: dict[str, Facts] = {
        "versions": versions,
        "machine": {"system": platform.platform(), **machine, "processors": os.cpu_count()},
        "mlx": {"kernels": kernels, **{key: value for key, value in device.items() if key not in ("mlx", "mlx_lm")}},
        "folders": folders,
        "variables": _variables(),
        "terminal": _terminal(),
    }
    return Report(sections, tuple(problems), tuple(advice))


_MACHINE = ("backend", "device", "blas", "fast_blas", "compute_dtype", "memory_total", "memory_available")


def _device_facts() -> Mapping[str, Any]:
    from qwen_mlx import device
    from qwen_mlx.kernels import catalogue

    return {**device.describe(), "kernels": catalogue.in_use()}


def _versions() -> Facts:
    facts: Facts = {"qwen-mlx": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = None
    return facts


def _folders() -> dict[str, Path]:
    return {
        "data": paths.data_home(),
        "cache": paths.cache_home(),
        "Hugging Face cache": paths.hf_cache(),
        "demo model": paths.demo_model(),
    }


def _folder(path: Path) -> Facts:
    """Whether the folder is there and can be written to, found by writing; for one that is not there, its parent."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            writable = True
    except OSError:
        writable = False
    free = shutil.disk_usage(place).free if place.is_dir() else 0
    return {"path": str(path), "exists": path.is_dir(), "writable": writable, "free": free}


def _variables() -> Facts:
    """Environment variables that change what we do. Of secrets, only that they are set."""
    names = [*_HF_VARIABLES, *sorted(name for name in os.environ if name.startswith(_OWN_VARIABLES))]
    facts = {}
    for name in names:
        if name in os.environ:
            hidden = any(part in name for part in _SECRET) and not name.endswith("_PATH")
            facts[name] = "(set)" if hidden else os.environ[name]
    return facts


def _terminal() -> Facts:
    size = shutil.get_terminal_size(fallback=(0, 0))
    return {
        "is_terminal": bool(sys.stdout is not None and sys.stdout.isatty()),
        "size": f"{size.columns} x {size.lines}" if size.columns else "unknown",
        "TERM": os.environ.get("TERM"),
        "TERM_PROGRAM": os.environ.get("TERM_PROGRAM"),
        "COLORTERM": os.environ.get("COLORTERM"),
        "NO_COLOR": os.environ.get("NO_COLOR"),
        "encoding": getattr(sys.stdout, "encoding", None),
    }


# ------------------------------------------------------------------------------------------------ as text


def _words(name: str) -> str:
    return name if name.isupper() or "HF_" in name or name.startswith(_OWN_VARIABLES) else name.replace("_", " ")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and "writable" in value:
        state = "" if value["exists"] else ", not made yet"
        can = "writable" if value["writable"] else "NOT writable"
        return f"{value['path']} ({can}{state}, {format_bytes(value['free'])} free)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "-"
    if name == "kernels":
        return ", ".join(map(str, value)) if value else "none: pure MLX"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, (int, float)) and "memory" in name:
        return format_bytes(value)
    return str(value)
