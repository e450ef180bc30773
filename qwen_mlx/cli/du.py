"""`qwen-mlx du`: how much room the models take."""

from __future__ import annotations

import argparse
import json
import shutil

from qwen_mlx import paths
from qwen_mlx.cli.columns import table
from qwen_mlx.cli.reply_writer import format_bytes

USAGE = "qwen-mlx du [options]"
DESCRIPTION = "What every model in the Hugging Face cache takes on the disk, and how much is free there."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub.library import usage

    found = usage()
    place = paths.hf_cache()
    disk = place
    while not disk.exists():
        disk = disk.parent
    free = shutil.disk_usage(disk).free
    total = sum(each.total for each in found)
    if args.json:
        rows = [
            {"repository": each.repository, "models": each.models, "partials": each.partials, "orphans": each.orphans}
            for each in found
        ]
        print(json.dumps({"cache": str(place), "repositories": rows, "total": total, "free": free}, indent=2))
        return 0
    lines = [("REPOSITORY", "SIZE", "LEFT OVER")]
    for each in found:
        rest = each.partials + each.orphans
        lines.append((each.repository, format_bytes(each.total), format_bytes(rest) if rest else "-"))
    if found:
        print("\n".join(table(lines, right=(1, 2))))
    print(f"{format_bytes(total)} in {place}, {format_bytes(free)} free")
    return 0
