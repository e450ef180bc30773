"""Options that several commands have."""

from __future__ import annotations

import argparse


def add_rope_scaling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rope-scaling",
        type=_rope_scaling,
        metavar="HOW",
        help="read longer texts than the model was trained on: yarn:4, yarn:4:32768 (with the length it was trained "
        "on), linear:2, dynamic:2; none takes a scaling away",
    )


def add_kv_bits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kv-bits",
        choices=("8", "4", "8/4"),
        metavar="BITS",
        help="keep the KV cache in 8 or 4 bits a value, or keys in 8 and values in 4 (8/4): longer texts fit",
    )


def _rope_scaling(text: str) -> str:
    """`text`, checked before a model is loaded. Raises `UsageError`."""
    from qwen_mlx.models.families.overrides import parse_rope_scaling

    return str(parse_rope_scaling(text))
