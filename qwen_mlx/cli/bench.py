"""`qwen-mlx bench`: how fast a model runs here, and against mlx-lm on the same files."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_mlx import paths
from qwen_mlx.cli.options import add_kv_bits
from qwen_mlx.errors import QwenError, UsageError

if TYPE_CHECKING:
    from qwen_mlx.evaluation.speed import Process

_TURN = 32  # tokens of the second turn


@dataclass(frozen=True)
class _Result:
    """What came out for one contender: tokens per second, seconds, bytes."""

    engine: str
    load_seconds: float
    prefill_speed: float
    decode_speed: float
    memory: int
    cold_first_token: float = 0.0
    second_first_token: float = 0.0
    note: str = ""


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
    add_kv_bits(parser)
    parser.add_argument("--against", choices=["mlx-lm", "nothing"], default="mlx-lm", help="the peer (default: mlx-lm)")
    parser.add_argument("--peer-dtypes", default="float32,bfloat16", help="types the peer is run in; the faster counts")
    parser.add_argument(
        "--launches",
        action="store_true",
        help="time nothing: count the kernels and bytes of one token on a Metal device; needs no GPU and, without "
        "--model, no weights",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    if args.launches:
        from qwen_mlx.cli.launches_table import show

        return show(args)
    from qwen_mlx.evaluation import random_model

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
    ours = _measure("qwen-mlx", folder, args.weights, args, args.kv_bits)
    peers: list[_Result] = []
    if args.against == "mlx-lm":
        peers = _peers(folder, args)
    if args.json:
        print(json.dumps({"ours": asdict(ours), "peers": [asdict(p) for p in peers], "ratios": _ratios(ours, peers)}))
    else:
        _table(ours, peers, args)
    return 0


def _measure(engine: str, folder: Path, form: str, args: argparse.Namespace, kv_bits: str | None = None) -> _Result:
    from qwen_mlx.evaluation.speed import Process, Task

    with Process(Task(engine, str(folder), form, kv_bits=kv_bits)) as process:
        return _run(process, args)


def _run(process: Process, args: argparse.Namespace) -> _Result:
    from qwen_mlx.evaluation.contenders import Limits

    run = process.run(args.prompt, Limits(args.tokens))
    cold = second = 0.0
    if process.task.engine == "qwen-mlx" and args.history:
        cold, second = process.turns(args.history, _TURN)
    decode = 1 / statistics.median(run.intervals)
    return _Result(
        process.task.engine,
        process.load_seconds,
        run.read / run.read_seconds,
        decode,
        run.memory,
        cold,
        second,
        process.note,
    )


def _peers(folder: Path, args: argparse.Namespace) -> list[_Result]:
    from importlib.util import find_spec

    from qwen_mlx.evaluation.contenders import PEER_DTYPES

    if find_spec("mlx_lm") is None:
        _say("mlx-lm is not installed: only our own numbers (pip install 'qwen-mlx[peer]' to compare)")
        return []
    results = []
    for dtype in args.peer_dtypes.split(","):
        if dtype not in PEER_DTYPES:
            raise UsageError(f"--peer-dtypes {dtype!r} is not possible", expected=" or ".join(PEER_DTYPES))
        _say(f"mlx-lm in {dtype}; on a CPU this takes minutes")
        try:
            results.append(_measure("mlx-lm", folder, dtype, args))
        except QwenError as error:
            _say(str(error))
    return results


def _ratios(ours: _Result, peers: list[_Result]) -> dict[str, float]:
    """Ours over the faster of the peer's runs; above 1 is in our favour."""
    ratios = {}
    if peers:
        ratios["prefill"] = ours.prefill_speed / max(p.prefill_speed for p in peers)
        ratios["decode"] = ours.decode_speed / max(p.decode_speed for p in peers)
        ratios["memory"] = ours.memory / min(p.memory for p in peers)
    if ours.second_first_token:
        ratios["second_turn"] = ours.cold_first_token / ours.second_first_token
    return ratios


def _table(ours: _Result, peers: list[_Result], args: argparse.Namespace) -> None:
    from qwen_mlx.evaluation import tables

    head = (("", "<"), ("load", ">"), ("prefill", ">"), ("decode", ">"), ("memory", ">"))
    lines = [
        [
            f"{result.engine} ({result.note})",
            f"{result.load_seconds:.1f} s",
            f"{tables.speed(result.prefill_speed)} t/s",
            f"{tables.speed(result.decode_speed)} t/s",
            tables.size(result.memory),
        ]
        for result in [ours, *peers]
    ]
    print(tables.plain(head, lines))
    ratios = _ratios(ours, peers)
    if peers:
        print(
            f"\nagainst the faster mlx-lm: prefill of {args.prompt} tokens {tables.ratio(ratios['prefill'])}, "
            f"decode {tables.ratio(ratios['decode'])}, memory {tables.ratio(ratios['memory'])}"
        )
    if ours.second_first_token:
        print(
            f"first token of a second turn after {args.history} tokens: {ours.second_first_token:.3g} s, "
            f"cold {ours.cold_first_token:.3g} s: {tables.ratio(ratios['second_turn'])} sooner"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
