"""`qwen-mlx bench`: how fast a model runs here, and against mlx-lm on the same files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_mlx import paths
from qwen_mlx.errors import QwenError, UsageError

if TYPE_CHECKING:
    from qwen_mlx.evaluation.speed import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("-m", "--model", help="folder or name of a model; default: random weights of --shape")
    source.add_argument(
        "--shape", default="0.6b", help="tiny, 0.6b, 1.7b, 4b, 8b, 14b or 32b: a Qwen3 of that size (default: 0.6b)"
    )
    parser.add_argument("--bits", type=int, default=4, help="bits of the random weights, 16 for bfloat16 (default: 4)")
    parser.add_argument("--prompt", type=int, default=128, metavar="N", help="tokens to read (default: 128)")
    parser.add_argument("--tokens", type=int, default=16, metavar="N", help="tokens to write (default: 16)")
    parser.add_argument(
        "--history",
        type=int,
        default=2000,
        metavar="N",
        help="tokens before the second turn, 0 to skip it (default: 2000)",
    )
    parser.add_argument(
        "--weights", choices=["auto", "quantized", "expanded"], default="auto", help="form of quantized weights"
    )
    parser.add_argument("--against", choices=["mlx-lm", "nothing"], default="mlx-lm", help="the peer (default: mlx-lm)")
    parser.add_argument("--peer-dtypes", default="float32,bfloat16", help="types the peer is run in; the faster counts")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.evaluation import random_model
    from qwen_mlx.evaluation.speed import Task, measure

    for name, least in (("prompt", 1), ("tokens", 2), ("history", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name)} is too small", expected=f"{least} or more")
    if args.model:
        from qwen_mlx.hub.references import resolve

        folder = resolve(args.model)
    else:
        if args.bits not in (2, 3, 4, 5, 6, 8, 16):
            raise UsageError(f"--bits {args.bits} is not possible", expected="2, 3, 4, 5, 6, 8 or 16")
        bits = None if args.bits == 16 else args.bits
        folder = random_model.ensure(paths.cache_home() / "bench", args.shape.lower(), bits, _say)
    _say(f"qwen-mlx on {folder}")
    ours = measure(Task("qwen-mlx", str(folder), args.prompt, args.tokens, args.history, weights=args.weights))
    peers: list[Result] = []
    if args.against == "mlx-lm":
        peers = _peers(folder, args)
    if args.json:
        print(json.dumps({"ours": asdict(ours), "peers": [asdict(p) for p in peers], "ratios": _ratios(ours, peers)}))
    else:
        _table(ours, peers, args)
    return 0


def _peers(folder: Path, args: argparse.Namespace) -> list[Result]:
    from importlib.util import find_spec

    from qwen_mlx.evaluation.speed import PEER_DTYPES, Task, measure

    if find_spec("mlx_lm") is None:
        _say("mlx-lm is not installed: only our own numbers (pip install 'qwen-mlx[peer]' to compare)")
        return []
    results = []
    for dtype in args.peer_dtypes.split(","):
        if dtype not in PEER_DTYPES:
            raise UsageError(f"--peer-dtypes {dtype!r} is not possible", expected=" or ".join(PEER_DTYPES))
        _say(f"mlx-lm in {dtype}; on a CPU this takes minutes")
        try:
            results.append(measure(Task("mlx-lm", str(folder), args.prompt, args.tokens, dtype=dtype)))
        except QwenError as error:
            _say(str(error))
    return results


def _ratios(ours: Result, peers: list[Result]) -> dict[str, float]:
    """Ours over the faster of the peer's runs; above 1 is in our favour."""
    ratios = {}
    if peers:
        ratios["prefill"] = ours.prefill_speed / max(p.prefill_speed for p in peers)
        ratios["decode"] = ours.decode_speed / max(p.decode_speed for p in peers)
        ratios["memory"] = ours.memory / min(p.memory for p in peers)
    if ours.second_first_token:
        ratios["second_turn"] = ours.cold_first_token / ours.second_first_token
    return ratios


def _table(ours: Result, peers: list[Result], args: argparse.Namespace) -> None:
    print(f"{'':24} {'load':>8} {'prefill':>12} {'decode':>12} {'memory':>9}")
    for result in [ours, *peers]:
        name = f"{result.engine} ({result.note})"
        print(
            f"{name:24} {result.load_seconds:7.1f}s {result.prefill_speed:8.1f} t/s {result.decode_speed:8.2f} t/s "
            f"{result.memory / 2**30:6.2f} GB"
        )
    ratios = _ratios(ours, peers)
    if peers:
        print(
            f"\nagainst the faster mlx-lm: prefill of {args.prompt} tokens {ratios['prefill']:.1f}x, "
            f"decode {ratios['decode']:.1f}x, memory {ratios['memory']:.1f}x"
        )
    if ours.second_first_token:
        print(
            f"first token of a second turn after {args.history} tokens: {ours.second_first_token:.2f} s, "
            f"cold {ours.cold_first_token:.2f} s: {ratios['second_turn']:.1f}x sooner"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
