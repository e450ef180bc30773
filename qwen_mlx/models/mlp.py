"""The dense MLP."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models.elementwise import swiglu
from qwen_mlx.models.matvecs import dense_swiglu
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.spec import MLPSpec


class MLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, spec: MLPSpec, hidden_size: int) -> None:
        super().__init__()
        size = spec.intermediate
        self.gate_up_proj = FusedLinear(hidden_size, {"gate_proj": size, "up_proj": size}, bias=spec.bias)
        self.down_proj = nn.Linear(size, hidden_size, bias=spec.bias)

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., hidden_size) -> the same shape."""
        hidden = dense_swiglu(x, self.gate_up_proj)
        if hidden is None:
            gate, up = self.gate_up_proj(x)
            hidden = swiglu(gate, up)
        return self.down_proj(hidden)
