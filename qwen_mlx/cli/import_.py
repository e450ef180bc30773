"""`qwen-mlx import`: a model in another program's format becomes a folder that runs here and in mlx-lm."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qwen_mlx.cli.columns import table
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.terminal import clean
from qwen_mlx.cli.work import add_work_options, ask_before_replacing, follow
from qwen_mlx.events import Event, Imported, ImportModel, ImportPlanned

USAGE = "qwen-mlx import SOURCE -o FOLDER [options]"
DESCRIPTION = """\
Reads GGUF, AWQ, GPTQ, FP8 and compressed-tensors, and writes a model in MLX's format. Codes are moved, not computed,
wherever MLX has a format that holds them; only the rest is quantized anew. Nothing is written before the plan is
shown, memory does not grow with the model, and the new folder appears only when it is finished."""
EPILOG = """\
GGUF: Qwen2, Qwen2-MoE, Qwen3 and Qwen3-MoE in Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, F16, BF16 and F32.
docs/models.md says which of these are exact."""

_FATES = {
    "exact": "as they are",
    "floats": "as they are",
    "scales rounded": "scales rounded",
    "requantized": "quantized anew",
    "floats rounded": "rounded",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="a GGUF file, a folder, or a repository in the Hugging Face cache"
    )
    parser.add_argument(
        "--dtype", metavar="TYPE", help="of scales and floats: float16, bfloat16, float32 (default: the source's own)"
    )
    parser.add_argument(
        "--requantize", metavar="HOW", help="quantize everything anew: a preset of `quantize`, BITS or BITS:GROUP"
    )
    parser.add_argument("--dequantize", action="store_true", help="unpack everything into floats")
    parser.add_argument("--tokenizer", metavar="MODEL", help="a model that is here, to take the tokenizer from")
    add_work_options(parser)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.checkpoints.import_ import iter_import
    from qwen_mlx.hub.references import resolve

    job = ImportModel(
        str(find_source(args.source)),
        args.output,
        args.dtype,
        args.requantize,
        args.dequantize,
        None if args.tokenizer is None else str(resolve(args.tokenizer)),
        args.force,
        args.dry_run,
    )
    ask_before_replacing(args)
    follow(iter_import(job), args, show)
    return 0


def find_source(name: str) -> Path:
    """A path that exists; else what a name means: a folder, or the GGUF file in it. Raises as `references.resolve`."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    from qwen_mlx.hub.references import has_quant, parse, resolve

    folder, reference = resolve(name), parse(name)
    if isinstance(reference, Path) or not reference.quant:
        return folder
    files = (file for file in folder.rglob("*") if has_quant(file.relative_to(folder).as_posix(), reference.quant))
    return min(files)  # of several parts the first


def show(event: Event) -> None:
    """The plan and the end, on standard error; the folder alone on standard output."""
    if isinstance(event, ImportPlanned):
        for line in describe_plan(event):
            print(clean(line), file=sys.stderr)
    elif isinstance(event, Imported) and event.files:
        print(f"done in {event.seconds:.0f} s", file=sys.stderr)
        print(event.plan.folder)


def describe_plan(plan: ImportPlanned) -> list[str]:
    """What the source is, what it becomes, and what that costs."""
    rows = [("stored as", "becomes", "numbers", "tensors", "before", "after")]
    for share in plan.shares:
        becomes = plan.dtype if share.becomes == "floats" else share.becomes
        sizes = (format_bytes(share.source_bytes), format_bytes(share.nbytes))
        rows.append((share.stored, becomes, _FATES[share.fate], str(share.tensors), *sizes))
    kept = "every number is kept" if plan.exact else "not every number is kept"
    return [
        f"{plan.form}, {plan.model_type}: {format_bytes(plan.source_bytes)}, {plan.bits_before:.2f} bits per weight",
        f"becomes MLX: {format_bytes(plan.nbytes)}, {plan.bits_after:.2f} bits per weight; {kept}",
        *table(rows, right=(3, 4, 5)),
        *(f"note: {note}" for note in plan.notes),
        f"disk: {format_bytes(plan.disk)}",
    ]
