"""`qwen-mlx quantize`: a model with fewer bits per weight."""

from __future__ import annotations

import argparse
import sys

from qwen_mlx.cli.convert import show
from qwen_mlx.cli.evaluate import report
from qwen_mlx.cli.work import add_work_options, ask_before_replacing, follow
from qwen_mlx.errors import UsageError
from qwen_mlx.events import Evaluated, EvaluateModel, QuantizeModel

USAGE = "qwen-mlx quantize MODEL -o FOLDER [options]"
DESCRIPTION = """\
Writes a model with fewer bits per weight. Memory does not grow with the model (but --calibrate and --evaluate run it),
and the new folder appears only when it is finished. mlx-lm reads what is written."""
EPILOG = """\
presets, with their bits per weight of an 8B model:
  tiny       4.3   3 bits, 6 where it matters; for large models only
  small      4.8   4 bits, 6 for embeddings and head
  balanced   5.0   4 bits, 6 where it matters (the default)
  quality    6.5   6 bits
  max        8.5   8 bits
Routers of experts always get 8 bits; --override has the last word."""
PRESETS = ("tiny", "small", "balanced", "quality", "max")
_BITS = (2, 3, 4, 5, 6, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo"')
    parser.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS)} (see below)")
    parser.add_argument("--bits", type=int, metavar="N", help="the same for all: " + ", ".join(map(str, _BITS)))
    parser.add_argument("--group-size", type=int, metavar="N", help="weights that share a scale: 32, 64 or 128")
    parser.add_argument(
        "--mode", default="affine", metavar="MODE", help="affine (default), or mxfp4, nvfp4, mxfp8 with 8-bit scales"
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="REGEX=BITS",
        help="other bits for matrices whose name matches, also BITS:GROUP; 16 leaves them alone; may be repeated",
    )
    parser.add_argument(
        "--target-bpw", type=float, metavar="X", help="bits per weight to aim at; decides the bits of everything"
    )
    parser.add_argument(
        "--rounding",
        default="best",
        metavar="HOW",
        help="best (default): search for the codes of least error; mlx: what mlx_lm.convert writes, to the bit",
    )
    parser.add_argument(
        "--calibrate",
        default="none",
        metavar="HOW",
        help="activations: weigh errors with what a text puts into each matrix; gptq: let columns make good for each "
        "other, slower and better; none (default)",
    )
    parser.add_argument("--calib-file", metavar="FILE", help="a text for --calibrate instead of the one that ships")
    parser.add_argument("--requantize", action="store_true", help="also from a model that is quantized already")
    parser.add_argument(
        "--dtype", metavar="TYPE", help="of scales and all that stays plain: bfloat16, float16, float32"
    )
    parser.add_argument("--evaluate", action="store_true", help="then compare it with the original; see `eval`")
    add_work_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.calib_file and args.calibrate == "none":
        raise UsageError("--calib-file is for --calibrate activations or gptq")
    from qwen_mlx.checkpoints.quantize import check_options, iter_quantize
    from qwen_mlx.hub.references import resolve

    source = str(resolve(args.model))
    job = QuantizeModel(
        source,
        args.output,
        args.preset,
        args.bits,
        args.group_size,
        args.mode,
        tuple(args.override),
        args.target_bpw,
        args.rounding,
        args.calibrate,
        args.calib_file,
        args.requantize,
        args.dtype,
        args.force,
        args.dry_run,
    )
    check_options(job)
    ask_before_replacing(args)
    follow(iter_quantize(job), args, show)
    if args.evaluate and not args.dry_run:
        from qwen_mlx.evaluation.evaluate import iter_evaluate

        last = follow(iter_evaluate(EvaluateModel(args.output, source)), args, lambda _: None)
        if isinstance(last, Evaluated) and not (args.quiet or args.json):
            print("\n".join(report(last)), file=sys.stderr)
    return 0
