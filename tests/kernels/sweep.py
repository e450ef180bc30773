"""Checks of which a part is enough every day: `QWEN_MLX_TEST_SWEEP=1 pytest tests/kernels` runs all of them."""

from __future__ import annotations

import os
from typing import Any

from tests.kernels.harness import mistakes

SWEEP = bool(os.environ.get("QWEN_MLX_TEST_SWEEP"))


def first_mistakes(count: int, *table: tuple[str, str]) -> Any:
    """As `mistakes`, for the first `count` of the table alone; each costs a compilation."""
    assert len(set(table)) == len(table) >= count
    return mistakes(*(table if SWEEP else table[:count]))
