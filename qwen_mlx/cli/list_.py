"""`qwen-mlx list`: the models on this machine."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qwen_mlx.cli.columns import table
from qwen_mlx.cli.reply_writer import format_bytes

if TYPE_CHECKING:
    from qwen_mlx.evaluation.examine import Examined
    from qwen_mlx.hub.library import CachedModel

USAGE = "qwen-mlx list [options]"
DESCRIPTION = "The models in the Hugging Face cache: what they are, what they take, and whether they fit into memory."
EPILOG = "`qwen-mlx ls` is the same. Some disks do not record when a file was last read; USED is then when it came."

_SORTS = ("name", "size", "used")
_NO_MODELS = "no models yet: `qwen-mlx pull qwen3:0.6b` gets a small one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sort", choices=_SORTS, default="name", metavar="BY", help="name (the default), size or used")
    parser.add_argument("-a", "--all", action="store_true", help="also what is not a Qwen model")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only; nothing is read but their folders")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.evaluation.examine import examine
    from qwen_mlx.hub.library import cached_models

    models = _sorted(cached_models(), args.sort)
    if args.quiet and not args.json:
        for model in models:
            print(model.name)
        return 0
    lines = [line for line in map(examine, models) if line.format is not None or line.problem or args.all]
    if args.json:
        print(json.dumps([_as_dictionary(line) for line in lines], ensure_ascii=False, indent=2))
    elif lines:
        print("\n".join(_shown(lines)))
    else:
        print(_NO_MODELS)
    return 0


def _as_dictionary(line: Examined) -> dict[str, Any]:
    return {
        "name": line.model.name,
        "repository": line.model.repository,
        "revisions": list(line.model.revisions),
        "commit": line.model.commit,
        "folder": str(line.model.folder),
        "size": line.model.size,
        "used": line.model.used,
        "whole": line.model.whole,
        "family": line.family,
        "parameters": line.parameters,
        "format": line.format,
        "bits": line.bits,
        "fits": line.fits,
        "problem": line.problem,
    }


def _sorted(models: list[CachedModel], by: str) -> list[CachedModel]:
    if by == "size":
        return sorted(models, key=lambda model: -model.size)
    if by == "used":
        return sorted(models, key=lambda model: -model.used)
    return models


def _shown(lines: list[Examined]) -> Iterator[str]:
    rows = [("NAME", "SIZE", "BITS", "FORMAT", "FITS", "USED")]
    for line in lines:
        rows.append(
            (
                line.model.name,
                format_bytes(line.model.size),
                f"{line.bits:.1f}" if line.bits else "-",
                (line.format or "-").removesuffix(" affine"),
                line.problem or line.fits or "-",
                _ago(line.model.used),
            )
        )
    yield from table(rows, right=(1, 2))


def _ago(when: float) -> str:
    """`5 min`, `3 h`, `12 d`."""
    seconds = max(time.time() - when, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"
