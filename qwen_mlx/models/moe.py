"""Mixture of experts: a router sends every token to a few of many small MLPs."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx import device
from qwen_mlx.models.mlp import MLP, swiglu
from qwen_mlx.models.spec import MLPSpec, MoESpec, QuantizationSpec

# From this many (token, expert) pairs on, pairs are sorted so that an expert's weights are read once.
_SORT_FROM = 64


class ExpertLinear(nn.Module):
    """One matrix per expert, stacked: weight (experts, rows, columns), or packed as MLX packs a matrix."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = mx.zeros((experts, rows, columns))
        self._quantization: QuantizationSpec | None = None

    def set_weights(self, weight: mx.array, scales: Any, biases: Any, quantization: QuantizationSpec | None) -> None:
        """Replace the matrices by plain floats, or by packed ones with their `quantization`."""
        self.weight, self._quantization = weight, quantization
        if quantization is not None:
            self.scales, self.biases = scales, biases

    @property
    def quantization(self) -> QuantizationSpec | None:
        return self._quantization

    def __call__(self, x: mx.array, expert: mx.array, sorted_indices: bool = False) -> mx.array:
        """x (..., 1, columns), expert int (...) or broadcast to it -> (..., 1, rows)."""
        q = self._quantization
        if q is None:
            if self.weight.dtype != mx.float32 and device.backend() == "cpu":
                return self._in_float32(x, expert)
            weight = self.weight.swapaxes(-1, -2)
            return mx.gather_mm(x, weight, rhs_indices=expert, sorted_indices=sorted_indices)
        return mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.biases,
            rhs_indices=expert,
            transpose=True,
            group_size=q.group_size,
            bits=q.bits,
            mode=q.mode,
            sorted_indices=sorted_indices,
        )

    def _in_float32(self, x: mx.array, expert: mx.array) -> mx.array:
        """On a CPU, MLX picks matrices in float32 only; models that do not fit in it still have to run."""
        wide = x.astype(mx.float32)
        if expert.size < self.weight.shape[0]:
            chosen = self.weight[expert].astype(mx.float32)
            return (wide @ chosen.swapaxes(-1, -2)).astype(x.dtype)
        weight = self.weight.astype(mx.float32).swapaxes(-1, -2)
        return mx.gather_mm(wide, weight, rhs_indices=expert).astype(x.dtype)


class Experts(nn.Module):
    """The MLPs of all experts; gate and up are one matrix, gate first."""

    def __init__(self, experts: int, intermediate: int, hidden_size: int) -> None:
        super().__init__()
        self.gate_up_proj = ExpertLinear(experts, 2 * intermediate, hidden_size)
        self.down_proj = ExpertLinear(experts, hidden_size, intermediate)

    def __call__(self, x: mx.array, experts: mx.array) -> mx.array:
        """x (tokens, hidden_size), experts int (tokens, k) -> (tokens, k, hidden_size)."""
        tokens, k = experts.shape
        if tokens * k < _SORT_FROM:
            return self._mlp(x[:, None, None], experts, False)[:, :, 0]
        flat = experts.flatten()
        order = mx.argsort(flat)
        y = self._mlp(x[order // k][:, None], flat[order], True)[:, 0]
        return y[mx.argsort(order)].reshape(tokens, k, -1)

    def _mlp(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        gate, up = mx.split(self.gate_up_proj(x, experts, sorted_indices), 2, axis=-1)
        return self.down_proj(swiglu(gate, up), experts, sorted_indices)


class MoE(nn.Module):
    """`sum_k w_k expert_k(x)`, plus `sigmoid(shared_gate(x)) * shared(x)` where the family has a shared expert.

    The router's softmax runs over all experts in float32, before the choice (Qwen's order).
    """

    def __init__(self, spec: MoESpec, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.gate = nn.Linear(hidden_size, spec.experts, bias=False)
        self.experts = Experts(spec.experts, spec.intermediate, hidden_size)
        if spec.shared_intermediate is not None:
            self.shared_expert = MLP(MLPSpec(spec.shared_intermediate), hidden_size)
            self.shared_expert_gate = nn.Linear(hidden_size, 1, bias=False)

    def route(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """logits of the router (tokens, experts) -> chosen experts int (tokens, k) and their weights (tokens, k)."""
        probabilities = mx.softmax(logits.astype(mx.float32), axis=-1)
        k = self.spec.experts_per_token
        # Which experts are chosen has no gradient; mlx wants to be told before it gathers by them.
        chosen = mx.argpartition(mx.stop_gradient(probabilities), kth=-k, axis=-1)[..., -k:]
        weights = mx.take_along_axis(probabilities, chosen, axis=-1)
        if self.spec.normalise:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return chosen, weights.astype(logits.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., hidden_size) -> the same shape."""
        return self.forward(x)[0]

    def forward(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x (..., hidden_size) -> the same shape, and the logits of the router (tokens, experts)."""
        flat = x.reshape(-1, x.shape[-1])
        logits = self.gate(flat)
        chosen, weights = self.route(logits)
        y = (self.experts(flat, chosen) * weights[..., None]).sum(axis=-2)
        if self.spec.shared_intermediate is not None:
            y = y + mx.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return y.reshape(x.shape), logits
