"""`qwen-mlx rm`: delete models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_mlx.cli.asking import confirm
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.errors import UsageError

if TYPE_CHECKING:
    from qwen_mlx.hub.references import Reference

USAGE = "qwen-mlx rm MODEL ... [options]"
DESCRIPTION = """\
Deletes models from the Hugging Face cache, with whatever of their downloads is left over. Files that other models
share stay. A folder of your own is never deleted."""
EPILOG = "REPOSITORY@REVISION deletes that revision, REPOSITORY all that are here."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="what to delete")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    parser.add_argument("--json", action="store_true", help="print what was deleted as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub.library import deletion

    if not args.models:
        raise UsageError("which model?", hint="See `qwen-mlx list`.")
    plan = deletion([_reference(name) for name in args.models])
    names = [model.name for model in plan.models] + sorted({part.repository for part in plan.parts})
    lines = [f"{model.name}  {format_bytes(model.size)}" for model in plan.models]
    lines += [f"a part of {part.repository}  {format_bytes(part.size)}" for part in plan.parts]
    if not args.quiet and not args.json:
        print("\n".join(lines))
    if not args.dry_run:
        confirm(f"Delete {'this' if len(lines) == 1 else 'these'} and free {format_bytes(plan.freed)}?", args.yes)
        plan.execute()
    if args.json:
        print(json.dumps({"deleted": list(dict.fromkeys(names)), "freed": plan.freed, "dry_run": args.dry_run}))
    elif not args.quiet:
        print(f"{'would free' if args.dry_run else 'freed'} {format_bytes(plan.freed)}")
    return 0


def _reference(name: str) -> Reference:
    from qwen_mlx.hub.references import parse

    found = parse(name)
    if isinstance(found, Path):
        raise UsageError(f"{name!r} is the folder {found}", hint="Only models of the cache are deleted; it is yours.")
    if found.quant:
        raise UsageError(
            f"{name!r} is one file of {found.repository}", hint=f"`qwen-mlx rm {found.repository}` deletes all of it."
        )
    return found
