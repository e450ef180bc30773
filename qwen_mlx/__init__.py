"""qwen-mlx: run and fine-tune Qwen models on a Mac.

    from qwen_mlx import load
    model = load("path/to/model")
    logits = model.decoder(ids)            # (batch, length, vocab)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_mlx.checkpoints.load import LoadedModel, load

__all__ = ["LoadedModel", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from qwen_mlx.checkpoints import load as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
