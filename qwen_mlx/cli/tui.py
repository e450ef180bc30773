"""`qwen-mlx` and `qwen-mlx tui`: the terminal app."""

from __future__ import annotations

import argparse
import os
import sys

from qwen_mlx.cli import jobs
from qwen_mlx.cli.options import add_kv_bits, add_rope_scaling
from qwen_mlx.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo" (the default)'
    )
    add_rope_scaling(parser)
    add_kv_bits(parser)
    parser.add_argument("--theme", metavar="NAME", help="qwen-dark, qwen-light or a theme of Textual")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument(
        "--text", action="store_true", default=None, help="text only, for screen readers: no frames, symbols or colours"
    )


def run(args: argparse.Namespace, new_runtime: jobs.RuntimeFactory = jobs.thread_runtime) -> int:
    """Until the app is left. The app closes the runtime and the history."""
    # Told before anything is imported that takes time.
    for stream in (sys.stdin, sys.stdout):
        if stream is None or not stream.isatty():
            raise UsageError(
                "the terminal app needs a terminal, and this is a pipe or a file",
                hint='For one answer: `qwen-mlx chat "your question"`',
            )
    from qwen_mlx.runtime.shelf import LocalShelf
    from qwen_mlx.runtime.workshop import LocalWorkshop
    from tui import app

    return app.run(
        new_runtime(),
        shelf=LocalShelf(),
        workshop=LocalWorkshop(),
        model=args.model if args.model is not None else os.environ.get("QWEN_MLX_MODEL", "").strip() or None,
        rope_scaling=args.rope_scaling,
        kv_bits=args.kv_bits,
        theme=args.theme,
        mouse=not args.no_mouse,
        text=args.text,
    )
