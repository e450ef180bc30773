"""`qwen-mlx export`: a model for other programs, as one GGUF file or as plain safetensors."""

from __future__ import annotations

import argparse
import sys

from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.work import add_quiet_options, add_yes_option, ask_before_replacing, follow
from qwen_mlx.events import Event, Exported, ExportModel, ExportPlanned

USAGE = "qwen-mlx export MODEL -o TARGET [options]"
DESCRIPTION = """\
Writes a model for other programs: a GGUF file, with its tokenizer and template, where TARGET ends in .gguf; else a
folder of safetensors as on the hub. Packed weights are unpacked. What is written appears only when it is finished."""
EPILOG = "GGUF files have Qwen2, Qwen2-MoE, Qwen3 and Qwen3-MoE. K-quants are made from an F16 file by llama.cpp."

_GGUF, _PLAIN = "bf16", "bfloat16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo"')
    parser.add_argument("-o", "--output", metavar="TARGET", required=True, help="a new folder, or a .gguf file")
    parser.add_argument(
        "--type",
        metavar="TYPE",
        help="GGUF: f16, bf16 (default) or q8_0; safetensors: bfloat16 (default), float16 or float32",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there, once the new one is done")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    add_yes_option(parser)
    add_quiet_options(parser)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.checkpoints.export import iter_export
    from qwen_mlx.hub.references import resolve

    form = (args.type or (_GGUF if args.output.lower().endswith(".gguf") else _PLAIN)).lower()
    job = ExportModel(str(resolve(args.model)), args.output, form, args.force, args.dry_run)
    ask_before_replacing(args)
    follow(iter_export(job), args, show)
    return 0


def show(event: Event) -> None:
    """The plan and the end, on standard error; the target alone on standard output."""
    if isinstance(event, ExportPlanned):
        before, after = format_bytes(event.source_bytes), format_bytes(event.nbytes)
        print(
            f"{before}, {event.bits_before:.2f} bits per weight -> {event.form}: {after}, {event.bits_after:.2f} bits "
            "per weight",
            file=sys.stderr,
        )
        for note in event.notes:
            print(f"note: {note}", file=sys.stderr)
    elif isinstance(event, Exported) and event.written:
        print(f"done in {event.seconds:.0f} s", file=sys.stderr)
        print(event.plan.target)
