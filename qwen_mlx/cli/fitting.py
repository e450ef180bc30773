"""Whether a model fits into memory, in words."""

from __future__ import annotations

from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation import fitting
from qwen_mlx.hub.fit import Estimate

_SURELY_FITS = 0.3  # of all memory: smaller weights need no closer look


def verdict_line(found: Estimate) -> str:
    """`fits: 6.1 GB at 8,192 tokens, with what is in use 11.9 of 34.4 GB`."""
    words = f"{found.verdict}: {format_bytes(found.need)} at {found.context:,} tokens"
    return f"{words}; with what is in use {format_bytes(found.used + found.need)} of {format_bytes(found.total)}"


def advice_lines(found: Estimate) -> list[str]:
    """What would make it fit, one thing per line; empty for a model that fits."""
    if found.verdict == "fits":
        return []
    if not found.advice:
        return ["it would not fit with fewer bits or a shorter context either: take a smaller model"]
    return ["it would fit with " + ", or with ".join(found.advice)]


def warning_before_loading(model: str) -> str | None:
    """What to say before a model is loaded that may not fit; None for all others, and after a look at sizes only."""
    from qwen_mlx import device
    from qwen_mlx.hub.references import resolve

    try:
        folder = resolve(model)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if size < _SURELY_FITS * device.memory_size():
            return None
        found = fitting.judge(fitting.numbers_of_folder(folder))
    except (QwenError, OSError):
        return None  # loading will say it
    if found.verdict == "fits":
        return None
    return "; ".join([f"memory: {verdict_line(found)}", *advice_lines(found)])
