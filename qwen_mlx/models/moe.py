"""Mixture of experts: a router sends every token to a few of many small MLPs."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx import device
from qwen_mlx.kernels.router_topk import router_topk
from qwen_mlx.models import expert_groups, matvecs
from qwen_mlx.models.elementwise import sigmoid, swiglu
from qwen_mlx.models.mlp import MLP
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
        q, dtype = self._quantization, x.dtype
        if q is None:
            weight = self.weight
            if device.backend() == "cpu":  # which gathers matrices in float32 only
                x, weight = x.astype(mx.float32), weight.astype(mx.float32)
            y = mx.gather_mm(x, weight.swapaxes(-1, -2), rhs_indices=expert, sorted_indices=sorted_indices)
            return y.astype(dtype)
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


class Experts(nn.Module):
    """The MLPs of all experts; gate and up are one matrix, gate first."""

    def __init__(self, experts: int, intermediate: int, hidden_size: int) -> None:
        super().__init__()
        self.gate_up_proj = ExpertLinear(experts, 2 * intermediate, hidden_size)
        self.down_proj = ExpertLinear(experts, hidden_size, intermediate)

    def __call__(self, x: mx.array, experts: mx.array) -> mx.array:
        """x (tokens, hidden_size), experts int (tokens, k) -> (tokens, k, hidden_size)."""
        tokens, k = experts.shape
        if self._are_plain and expert_groups.worth_it(self.gate_up_proj, experts, x.shape[-1]):
            grouped = expert_groups.run(x, experts, self.gate_up_proj, self.down_proj)
            if grouped is not None:
                return grouped
        if tokens * k < _SORT_FROM:
            return self._mlp(x[:, None, None], experts, False)[:, :, 0]
        flat = experts.flatten()
        order = mx.argsort(flat)
        y = self._mlp(x[order // k][:, None], flat[order], True)[:, 0]
        return y[mx.argsort(order)].reshape(tokens, k, -1)

    def weighted(self, x: mx.array, experts: mx.array, shares: mx.array) -> mx.array:
        """What the experts give, times their shares (tokens, k), and summed: (tokens, hidden_size)."""
        if x.shape[0] > 1 or not matvecs.run_for_experts() or not self._are_plain:
            return (self(x, experts) * shares[..., None]).sum(axis=-2)
        hidden = matvecs.expert_swiglu(x, experts, self.gate_up_proj)
        if hidden is None:
            gate, up = mx.split(self.gate_up_proj(x[:, None, None], experts), 2, axis=-1)
            hidden = swiglu(gate, up)[0, :, 0]
        y = matvecs.expert_sum(hidden, experts, shares, self.down_proj)
        if y is not None:
            return y
        return (self.down_proj(hidden[None, :, None], experts)[:, :, 0] * shares[..., None]).sum(axis=-2)

    @property
    def _are_plain(self) -> bool:
        """Whether nobody wrapped the matrices (as adapters do) or trains them (a gradient wants them gathered)."""
        both = (self.gate_up_proj, self.down_proj)
        return all(type(one) is ExpertLinear and not (one.training and one.trainable_parameters()) for one in both)

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
        return router_topk(logits, self.spec.experts_per_token, self.spec.normalise)

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., hidden_size) -> the same shape."""
        return self.forward(x)[0]

    def forward(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x (..., hidden_size) -> the same shape, and the logits of the router (tokens, experts)."""
        flat = x.reshape(-1, x.shape[-1])
        logits = self.gate(flat)
        chosen, weights = self.route(logits)
        y = self.experts.weighted(flat, chosen, weights)
        if self.spec.shared_intermediate is not None:
            y = y + sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return y.reshape(x.shape), logits
