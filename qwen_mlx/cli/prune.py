"""`qwen-mlx prune`: delete what downloads left over."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from qwen_mlx.cli.asking import confirm
from qwen_mlx.cli.columns import table
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.errors import UsageError

if TYPE_CHECKING:
    from qwen_mlx.hub.library import Kind

USAGE = "qwen-mlx prune [options]"
DESCRIPTION = """\
Deletes from the Hugging Face cache what no model needs: parts of downloads that did not end, files that belong to no
revision, and old revisions that no branch or tag names any more. A download that is running is left alone."""

_AGE = re.compile(r"(\d+)\s*(h|d|w)")
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_WORDS = {
    "partial": "part of a file",
    "unfinished": "unfinished download",
    "orphan": "file of no revision",
    "detached": "old revision",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--older", type=_age, default=0.0, metavar="AGE", help="only what is older: 12h, 30d, 8w")
    parser.add_argument("--partials", action="store_true", help="only downloads that did not end")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub import library

    kinds: tuple[Kind, ...] = ("partial", "unfinished") if args.partials else library.ALL_KINDS
    items = library.leftovers(kinds, args.older)
    size = sum(item.size for item in items)
    if not args.json and not args.quiet:
        rows = [("REPOSITORY", "SIZE", "WHAT")]
        rows += [(item.repository, format_bytes(item.size), _WORDS[item.kind]) for item in items]
        print("\n".join(table(rows, right=(1,))) if items else "nothing to prune")
    if items and not args.dry_run:
        confirm(f"Delete all of it ({format_bytes(size)})?", args.yes)
        library.prune(items)
        left = {item.path for item in library.leftovers(kinds, args.older)}
        items = [item for item in items if item.path not in left]
    if args.json:
        found = [
            {"kind": item.kind, "repository": item.repository, "path": str(item.path), "size": item.size}
            for item in items
        ]
        print(json.dumps({"items": found, "dry_run": args.dry_run}, indent=2))
    elif items and not args.quiet:
        print(f"{'would free' if args.dry_run else 'freed'} {format_bytes(sum(item.size for item in items))} at most")
    return 0


def _age(text: str) -> float:
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--older {text!r} is not an age", expected="hours, days or weeks, such as 12h, 30d or 8w")
    return int(match[1]) * _SECONDS[match[2]]
