"""Asking before something is deleted."""

from __future__ import annotations

import sys

from qwen_mlx.errors import Cancelled, UsageError


def confirm(question: str, yes: bool) -> None:
    """Go on only after a "y"; `yes` is the option that answers beforehand.

    Raises:
        Cancelled: the answer is no.
        UsageError: there is nobody to ask.
    """
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is here to be asked", hint="Say -y to do it, or --dry-run to see what would be done.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if not sys.stdin.readline().strip().lower().startswith("y"):
        raise Cancelled()
