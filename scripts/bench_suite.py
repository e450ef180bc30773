"""What `scripts/bench` runs: every kind of model beside mlx-lm, as a table or JSON, and into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qwen_mlx import device, paths
from qwen_mlx.errors import QwenError, UsageError
from qwen_mlx.evaluation import random_model, suite, tables
from qwen_mlx.evaluation.contenders import CLOCKS, PEER_DTYPES
from qwen_mlx.paths import atomic_write

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- scripts/bench --write: begin -->", "<!-- scripts/bench --write: end -->"
_WEIGHTS = ("auto", "quantized", "expanded")


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, suite.Plan]:
    """Options, checked. Raises `UsageError` for what cannot be meant."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Speed and memory beside mlx-lm's.")
    default = suite.Plan()
    parser.add_argument("--kinds", default="dense,moe,hybrid", help="of " + ", ".join(suite.KINDS))
    parser.add_argument("--sizes", default="tiny,0.6b", help="names of shapes (default: tiny,0.6b)")
    parser.add_argument("--contexts", default="1,128,2048", help="tokens that are read before writing")
    parser.add_argument("--weights", default=",".join(default.weights), help="of " + ", ".join(_WEIGHTS))
    parser.add_argument("--peer-dtypes", default=",".join(default.dtypes), help="types of mlx-lm; empty for no peer")
    parser.add_argument("--tokens", type=int, default=default.tokens, help="tokens to write (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=default.turns, help="at most, for a median (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=default.seconds,
        help="after which reading and writing end early, 0 for never (default: %(default)s)",
    )
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="wall, or cpu: the seconds of all threads, for a machine that others use too (default: wall)",
    )
    parser.add_argument("--bits", type=int, default=4, help="of the weights, 16 for bfloat16 (default: 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.parent.name}/{PAGE.name}")
    args = parser.parse_args(argv)
    plan = suite.Plan(
        tuple(sorted({_count(text, "--contexts") for text in args.contexts.split(",")})),
        _names(args.weights, _WEIGHTS, "--weights"),
        _names(args.peer_dtypes, PEER_DTYPES, "--peer-dtypes") if args.peer_dtypes else (),
        max(args.tokens, 2),
        max(args.turns, 1),
        args.seconds,
        args.clock,
    )
    args.kinds = _names(args.kinds, tuple(suite.KINDS), "--kinds")
    args.sizes = _names(args.sizes, tuple(random_model.SHAPES["qwen3"]), "--sizes")
    if args.bits not in (2, 3, 4, 5, 6, 8, 16):
        raise UsageError(f"--bits {args.bits} is not possible", expected="2, 3, 4, 5, 6, 8 or 16")
    return args, plan


def _names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.lower().split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name!r} is not possible", expected=", ".join(known))
    return names


def _count(text: str, option: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{option} {text!r} is not possible", expected="numbers of tokens, as 1,128,2048")
    return int(text)


def run(args: argparse.Namespace, plan: suite.Plan, say: Callable[[str], None]) -> list[suite.Comparison]:
    """Measure every family of the kinds in every size it has."""
    models = [(family, size) for size in args.sizes for kind in args.kinds for family in suite.KINDS[kind]]
    comparisons = []
    for family, size in models:
        if size not in random_model.SHAPES[family]:
            say(f"{family} has no shape {size}")
            continue
        bits = None if args.bits == 16 else args.bits
        folder = random_model.ensure(paths.cache_home() / "bench", size, bits, say, family)
        say(f"{family} {size}")
        for step in suite.compare(folder, family, size, plan):
            if isinstance(step, suite.Comparison):
                comparisons.append(step)
                continue
            say(
                f"  {step.context:5} tokens, {step.engine} {step.note}: prefill {tables.speed(step.prefill) or '-'}, "
                f"decode {tables.speed(step.decode)} tokens/s, {tables.size(step.memory)}; "
                f"{step.read} read, {step.written} written in {step.turns} turns"
            )
    return comparisons


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    about = device.describe()
    kept = ("backend", "device", "mlx", "mlx_lm", "blas", "memory_total")
    return {key: about[key] for key in kept} | {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.+)", text)
    return found.group(1) if found else platform.machine()


def page_part(comparisons: Sequence[suite.Comparison], about: dict[str, Any], options: Sequence[str]) -> str:
    """What goes between the marks of docs/benchmarks.md."""
    blas = Path(str(about["blas"])).name
    command = " ".join(["scripts/bench", *options])
    return (
        f"Measured on {about['date']} with `{command}`: {about['backend']} backend on {about['processor']}, "
        f"{about['cores']} cores, {about['memory_total'] / 1e9:.0f} GB, {about['system']}, load {about['load']} when "
        f"it began; mlx {about['mlx']}, mlx-lm {about['mlx_lm']}, BLAS for qwen-mlx {blas}.\n\n"
        + tables.of_comparisons(comparisons, in_markdown=True)
    )


def write_page(part: str, page: Path = PAGE) -> None:
    """Replace what is between the marks."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise UsageError(f"{page} has no place for the table", expected=f"the lines {BEGIN} and {END}")
    with atomic_write(page) as file:
        file.write(f"{before}{BEGIN}\n\n{part}\n\n{END}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args, plan = parse(argv)
        about = machine()
        comparisons = run(args, plan, lambda text: print(text, file=sys.stderr, flush=True))
        print(tables.of_comparisons(comparisons))
        if args.json:
            with atomic_write(args.json) as file:
                json.dump(suite.as_json(comparisons, plan, about), file, indent=1)
        if args.write:
            write_page(page_part(comparisons, about, sys.argv[1:] if argv is None else argv))
    except QwenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
