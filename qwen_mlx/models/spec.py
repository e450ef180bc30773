"""What a model *is*, as frozen data: the decoder is built from it, and families only differ in how they fill it in.

Sizes are counts, rope angles are in radians per position, `None` means absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding, halves convention (Su et al., 2021, arXiv:2104.09864).

    Attributes:
        dims: how many channels of a head are rotated; the rest pass through.
        theta: base of the frequencies.
        type: how positions beyond the training length are treated.
        factor: extension factor of "linear", "dynamic" and "yarn".
        max_positions: length at which "dynamic" starts to stretch.
        original_max_positions: training length that "yarn" stretches from (Peng et al., 2023, arXiv:2309.00071).
        attention_factor: what "yarn" multiplies cos and sin with.
        beta_fast, beta_slow: rotations over the training length between which "yarn" interpolates.
        truncate: whether the borders of that ramp are rounded to whole channels.
    """

    dims: int
    theta: float
    type: Literal["default", "linear", "dynamic", "yarn"] = "default"
    factor: float = 1.0
    max_positions: int = 0
    original_max_positions: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class AttentionSpec:
    """Grouped-query attention; query head h reads key/value head `h // (heads // kv_heads)`.

    `window` is the number of keys a query sees, itself included. `qk_norm` is an RMSNorm over each head of q and k,
    before rope.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    window: int | None = None


@dataclass(frozen=True)
class MLPSpec:
    """`down(silu(gate(x)) * up(x))` without biases (SwiGLU, Shazeer 2020, arXiv:2002.05202)."""

    intermediate: int


@dataclass(frozen=True)
class MoESpec:
    """Mixture of experts, each an MLP of `intermediate`.

    `normalise` makes the weights of the chosen experts sum to one; `shared_intermediate` is the size of an expert
    that every token goes through, behind a sigmoid gate.
    """

    experts: int
    experts_per_token: int
    intermediate: int
    normalise: bool
    shared_intermediate: int | None = None


@dataclass(frozen=True)
class LayerSpec:
    """One pre-norm layer: `x + mixer(norm(x))`, then `x + mlp(norm(x))`."""

    mixer: AttentionSpec
    mlp: MLPSpec | MoESpec


@dataclass(frozen=True)
class QuantizationSpec:
    """How one matrix is stored: `bits` per value in groups of `group_size`, in one of MLX's modes."""

    bits: int
    group_size: int
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine"


@dataclass(frozen=True)
class ModelSpec:
    """A whole text decoder."""

    family: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    tied: bool
    max_positions: int

    @property
    def parameters(self) -> int:
        """Number of weights; a tied head counts once."""
        return self._count(active=False)

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token is multiplied with; less than all where there are experts."""
        return self._count(active=True)

    def _count(self, active: bool) -> int:
        total = self.vocab_size * self.hidden_size * (1 if self.tied else 2) + self.hidden_size
        for layer in self.layers:
            a = layer.mixer
            q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
            total += self.hidden_size * (2 * q + 2 * kv) + 2 * self.hidden_size
            total += (q + 2 * kv) * a.qkv_bias + self.hidden_size * a.out_bias + 2 * a.head_dim * a.qk_norm
            total += _mlp_size(layer.mlp, self.hidden_size, active)
        return total

    def cache_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes that one more token of context takes in the KV cache; layers with a window stop growing."""
        values = sum(
            2 * layer.mixer.kv_heads * layer.mixer.head_dim for layer in self.layers if layer.mixer.window is None
        )
        return values * bytes_per_value


def _mlp_size(mlp: MLPSpec | MoESpec, hidden: int, active: bool) -> int:
    if isinstance(mlp, MLPSpec):
        return 3 * hidden * mlp.intermediate
    size = hidden * mlp.experts
    size += 3 * hidden * mlp.intermediate * (mlp.experts_per_token if active else mlp.experts)
    if mlp.shared_intermediate is not None:
        size += 3 * hidden * mlp.shared_intermediate + hidden
    return size
