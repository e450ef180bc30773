"""Starting points by name; a file and `--set` are laid over them."""

from __future__ import annotations

import difflib
from typing import Any

from qwen_mlx.errors import UsageError

_LORA: dict[str, Any] = {
    "adapter": {"method": "lora", "rank": 16, "alpha": 32.0, "targets": ["all-linear"]},
    "optim": {"name": "adamw", "lr": 1e-4, "schedule": "cosine", "warmup": 0.03, "weight_decay": 0.0},
}
_FULL: dict[str, Any] = {
    "adapter": {"method": "full"},
    "optim": {"name": "adamw", "lr": 1e-5, "schedule": "cosine", "warmup": 0.03, "weight_decay": 0.1},
}
PRESETS: dict[str, dict[str, Any]] = {
    "lora": _LORA,
    "rslora": _LORA | {"adapter": _LORA["adapter"] | {"rslora": True, "rank": 64, "alpha": 16.0}},
    "dora": _LORA | {"adapter": _LORA["adapter"] | {"method": "dora"}},
    "qlora": _LORA | {"model": {"quantize": "small"}},
    "full": _FULL,
    # Qwen2 technical report (arXiv 2407.10671), 4.1: two epochs, 32,768 tokens, 7e-6 to 7e-7, decay 0.1, clip 1.0.
    "qwen2-sft": {
        "adapter": {"method": "full"},
        "data": {"max_len": 32768},
        "loop": {"epochs": 2},
        "optim": {
            "name": "adamw",
            "lr": 7e-6,
            "min_lr": 7e-7,
            "schedule": "cosine",
            "weight_decay": 0.1,
            "clip": 1.0,
        },
    },
}


def preset(name: str, place: str = "") -> dict[str, Any]:
    """The table of a preset. Raises `UsageError` when there is none of this name."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    raise UsageError(
        f"{place}there is no preset {name!r}",
        expected=", ".join(PRESETS),
        hint=f"Did you mean {near[0]!r}?" if near else None,
    )
