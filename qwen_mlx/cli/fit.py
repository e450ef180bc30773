"""`qwen-mlx fit`: whether a model fits into the memory of this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.errors import NotFound, UsageError

if TYPE_CHECKING:
    from qwen_mlx.hub.fit import Estimate, Numbers

USAGE = "qwen-mlx fit MODEL [options]"
DESCRIPTION = """\
The memory a model needs for one text: weights, keys and values, states and what else there is, beside what is in use
now. "tight" from 75 % of all memory, "too big" from 85 %. A model that is not here is looked up on the hub."""


# What `chat --kv-bits` takes, and how many bits a number of the cache has then.
_KV_BITS = {"16": 16.0, "8": 8.0, "8/4": 6.0, "4": 4.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, name or repository")
    parser.add_argument("--ctx", type=int, metavar="N", help="tokens of the text (default: 8192)")
    parser.add_argument(
        "--kv-bits",
        choices=tuple(_KV_BITS),
        default="16",
        metavar="N",
        help="reckon with keys and values in 8, 4 or 8/4 bits instead of 16",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.evaluation.fitting import judge

    if args.ctx is not None and args.ctx < 1:
        raise UsageError("--ctx is a number of tokens", found=str(args.ctx))
    found = judge(_numbers(args.model), args.ctx, _KV_BITS[args.kv_bits])
    if args.json:
        print(json.dumps({**dataclasses.asdict(found), "need": found.need}, indent=2))
    else:
        print("\n".join(_lines(found)))
        if args.ctx is not None and args.ctx > found.context:
            print(f"this model reads at most {found.context:,} tokens")
    return 0


def _numbers(model: str) -> Numbers:
    """Of the model on this machine, or else of the one on the hub."""
    from qwen_mlx.evaluation.fitting import numbers_of_config, numbers_of_folder
    from qwen_mlx.hub.references import resolve

    try:
        return numbers_of_folder(resolve(model))
    except NotFound:
        from qwen_mlx.events import PullPlanned
        from qwen_mlx.hub.pull import PullOptions, pull

        for event in pull(model, PullOptions(dry_run=True)):
            if isinstance(event, PullPlanned) and event.config is not None:
                weights = sum(size for name, size in event.files.items() if name.endswith(".safetensors"))
                return numbers_of_config(event.config, weights)
        raise


def _lines(found: Estimate) -> list[str]:
    from qwen_mlx.cli import fitting

    parts = {
        "weights": found.weights,
        f"keys and values, {found.context:,} tokens": found.cache,
        "states": found.states,
        "everything else": found.overhead,
    }
    rows = {name: format_bytes(size) for name, size in parts.items() if size}
    width = max(map(len, rows))
    lines = [fitting.verdict_line(found)]
    lines += [f"  {name:<{width}}  {size:>9}" for name, size in rows.items()]
    return lines + fitting.advice_lines(found)
