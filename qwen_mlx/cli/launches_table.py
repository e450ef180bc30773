"""`qwen-mlx bench --launches`: kernels and bytes per token, counted in the graph, as a table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_mlx.evaluation.launches import Count

_CACHES = {None: "bfloat16", "8": "8 bits", "4": "4 bits"}


def show(args: argparse.Namespace) -> int:
    """Count for `--model`, or for published models in 4 bits, each with a plain and a quantized cache."""
    from qwen_mlx.evaluation.launches import PUBLISHED, Question, count
    from qwen_mlx.hub.references import resolve

    models = [str(resolve(args.model))] if args.model else list(PUBLISHED)
    peer = args.against == "mlx-lm"
    answers = []
    for model in models:
        for kv_bits in (None, "4"):
            print(f"counting {model}, cache {_CACHES[kv_bits]}", file=sys.stderr, flush=True)
            question = Question(model, kv_bits=kv_bits, peer=peer)
            answers.append((question, count(question)))
    if args.json:
        print(json.dumps([{**asdict(q), "counts": [asdict(c) for c in counts]} for q, counts in answers]))
        return 0
    print(f"one token on a Metal device, after {answers[0][0].context} tokens")
    columns = f"{'launches per layer':>19} {'in all':>7} {'sampling':>9} {'bytes':>9} {'least':>9}"
    print(f"{'model':20} {'cache':9} {'':9} {columns}")
    for question, counts in answers:
        for one in counts:
            name = question.model if question.model in PUBLISHED else question.model.rsplit("/", 1)[-1]
            print(f"{name:20.20} {_CACHES[question.kv_bits]:9} {_row(one)}")
    print(
        "bytes: read and written; least: weights and cache, each once. Launches without inputs, which wait for\n"
        "nothing, are not counted, nor is which launches a device runs side by side."
    )
    if unlisted := sorted({name for _, counts in answers for one in counts for name in one.unlisted}):
        print("counted as one launch, not looked up: " + ", ".join(unlisted))
    return 0


def _row(one: Count) -> str:
    layers = " ".join(map(str, one.layers)) if len(set(one.layers)) > 1 else str(one.layers[0]) if one.layers else "-"
    bytes_ = f"{one.moved / 1e9:6.3f} GB {one.least / 1e9:6.3f} GB"
    return f"{one.engine:9} {layers:>19} {one.launches:7} {one.sampling:9} {bytes_}"
