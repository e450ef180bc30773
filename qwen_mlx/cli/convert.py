"""`qwen-mlx convert`: a model in mlx-lm's layout, in another type, or unpacked."""

from __future__ import annotations

import argparse
import sys

from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.work import add_work_options, ask_before_replacing, follow
from qwen_mlx.events import ConversionPlanned, Converted, ConvertModel, Event

USAGE = "qwen-mlx convert MODEL -o FOLDER [options]"
DESCRIPTION = """\
Rewrites a model in the layout that mlx-lm and this program read: experts stacked, names and norms as mlx-lm has them.
Memory does not grow with the model, and the new folder appears only when it is finished."""
EPILOG = "To make a model smaller: `qwen-mlx quantize`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo"')
    parser.add_argument("--dtype", metavar="TYPE", help="bfloat16, float16 or float32 (default: the model's own)")
    parser.add_argument("--dequantize", action="store_true", help="unpack quantized weights")
    add_work_options(parser)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.checkpoints.convert import iter_convert
    from qwen_mlx.hub.references import resolve

    job = ConvertModel(str(resolve(args.model)), args.output, args.dtype, args.dequantize, args.force, args.dry_run)
    ask_before_replacing(args)
    follow(iter_convert(job), args, show)
    return 0


def show(event: Event) -> None:
    """The plan and the end of a conversion, on standard error; the folder alone on standard output."""
    if isinstance(event, ConversionPlanned):
        for line in describe_plan(event):
            print(line, file=sys.stderr)
    elif isinstance(event, Converted) and event.files:
        rounding = "" if event.error is None else f"; rounding changed the weights by {100 * event.error:.2f} %"
        print(f"done in {event.seconds:.0f} s{rounding}", file=sys.stderr)
        print(event.plan.folder)


def describe_plan(plan: ConversionPlanned) -> list[str]:
    """What will be written, what it takes, and what it becomes."""
    formats = ", ".join(f"{name} ×{count}" for name, count in plan.formats.items())
    return [
        f"{format_bytes(plan.source_bytes)}, {plan.bits_before:.2f} bits per weight -> "
        f"{format_bytes(plan.nbytes)}, {plan.bits_after:.2f} bits per weight",
        f"matrices: {formats}",
        f"disk: {format_bytes(plan.disk)} of {format_bytes(plan.free)} free; memory: about {format_bytes(plan.memory)}",
    ]
