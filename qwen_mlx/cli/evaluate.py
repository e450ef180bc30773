"""`qwen-mlx eval`: how well a model predicts a text, and how far it is from another one."""

from __future__ import annotations

import argparse

from qwen_mlx.cli.work import add_quiet_options, follow
from qwen_mlx.events import Evaluated, EvaluateModel

USAGE = "qwen-mlx eval MODEL [options]"
DESCRIPTION = """\
Reads a text with a model and says how well it is predicted (perplexity: lower is better, comparable only for the same
text and vocabulary). With --against, also how far the two models' expectations are apart at every token."""
EPILOG = """\
The text that ships is short (some thousand tokens: prose, code, Chinese, chat); for numbers to publish, give your own.
KL divergence tells models apart that perplexity cannot: 0.001 is not noticed, 0.1 is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo"')
    parser.add_argument("--against", metavar="MODEL", help="the original, or another model with the same vocabulary")
    parser.add_argument("--text", metavar="FILE", help="a UTF-8 text instead of the one that ships")
    parser.add_argument("--ctx", type=int, default=512, metavar="N", help="tokens that are read at once (default: 512)")
    parser.add_argument("--limit", type=int, metavar="N", help="tokens to read at most")
    parser.add_argument(
        "--weights", choices=["auto", "quantized", "expanded"], default="auto", help="form of quantized weights"
    )
    add_quiet_options(parser)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.evaluation.evaluate import iter_evaluate
    from qwen_mlx.hub.references import resolve

    against = None if args.against is None else str(resolve(args.against))
    job = EvaluateModel(str(resolve(args.model)), against, args.text, args.ctx, args.limit, args.weights)
    last = follow(iter_evaluate(job), args, lambda _: None)
    if isinstance(last, Evaluated) and not args.json:
        print("\n".join(report(last)))
    return 0


def report(found: Evaluated) -> list[str]:
    """The numbers, for a person."""
    lines = [f"perplexity       {found.perplexity:.4g} ± {found.perplexity_error:.2g}"]
    if (d := found.divergence) is not None:
        lines[0] += f"   (the other: {d.reference_perplexity:.4g})"
        lines.append(
            f"KL divergence    {d.kl:.5f} ± {d.kl_error:.5f} nats   (99 % below {d.kl_99:.4g}, worst {d.kl_max:.4g})"
        )
        lines.append(f"same first choice {100 * d.same_top:.1f} %")
    lines.append(f"{found.tokens:,} tokens of {found.text} in windows of {found.context}, {found.seconds:.1f} s")
    return lines
