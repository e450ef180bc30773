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
        max_positions: length at which "dynamic" and "qwen1" (the first Qwen's own stretching, which the length of
            the prompt decides for the whole text) begin.
        original_max_positions: training length that "yarn" stretches from (Peng et al., 2023, arXiv:2309.00071); for
            "linear" and "dynamic" as the config names it, 0 where it does not.
        attention_factor: what "yarn" multiplies cos and sin with.
        beta_fast, beta_slow: rotations over the training length between which "yarn" interpolates.
        truncate: whether the borders of that ramp are rounded to whole channels.
    """

    dims: int
    theta: float
    type: Literal["default", "linear", "dynamic", "yarn", "qwen1"] = "default"
    factor: float = 1.0
    max_positions: int = 0
    original_max_positions: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    @property
    def context(self) -> int:
        """Longest text in tokens: `max_positions`, or what the factor makes of the training length where it is more.

        Model cards advise to add a scaling to `config.json` and leave `max_position_embeddings` as it is.
        """
        return max(self.max_positions, int(self.factor * self.original_max_positions))


@dataclass(frozen=True)
class DualChunkSpec:
    """Dual Chunk Attention: chunks of `stride` tokens, distances up to `chunk_size`.

    `original_max_positions`, where not 0, is the length beyond which scores are scaled up.
    """

    chunk_size: int
    local_size: int
    original_max_positions: int = 0

    @property
    def stride(self) -> int:
        return self.chunk_size - self.local_size


@dataclass(frozen=True)
class AttentionSpec:
    """Grouped-query attention; query head h reads key/value head `h // (heads // kv_heads)`.

    `window` is the number of keys a query sees, itself included. `qk_norm` is an RMSNorm over each head of q and k,
    before rope. `gated` doubles the rows of q: per head first the query, then a gate whose sigmoid multiplies the
    output. `logn` is a training length: queries at later positions p are multiplied by `log(p + 1) / log(logn)`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    window: int | None = None
    gated: bool = False
    logn: int | None = None
    dual_chunk: DualChunkSpec | None = None


@dataclass(frozen=True)
class DeltaNetSpec:
    """Gated DeltaNet: linear attention over a state per value head, behind a causal convolution of `kernel` tokens.

    `interleaved` tells how the checkpoint stores the input projections: per key head (Qwen3-Next), or one block
    after the other (Qwen3.5), which is how they run.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    interleaved: bool = False

    @property
    def channels(self) -> int:
        """Channels of the convolution: q, k and v."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def state_bytes(self, bytes_per_value: int = 2) -> int:
        """Bytes of the state of one text, however long: the convolution's last inputs, and float32 per value head."""
        conv = (self.kernel - 1) * self.channels * bytes_per_value
        return conv + 4 * self.value_heads * self.value_dim * self.key_dim

    def rows_of_qkvz(self) -> list[int]:
        """Rows of an interleaved `in_proj_qkvz` (per key head: q, k, its v, its z) as blocks q, k, v, z."""
        per_head = self.value_heads // self.key_heads * self.value_dim
        sizes = [self.key_dim, self.key_dim, per_head, per_head]
        return _deinterleave(self.key_heads, sizes)

    def rows_of_ba(self) -> list[int]:
        """Rows of an interleaved `in_proj_ba` (per key head: its b, its a) as blocks b, a."""
        return _deinterleave(self.key_heads, [self.value_heads // self.key_heads] * 2)


@dataclass(frozen=True)
class MLPSpec:
    """`down(silu(gate(x)) * up(x))` (SwiGLU, Shazeer 2020, arXiv:2002.05202); only the first Qwen can have biases."""

    intermediate: int
    bias: bool = False


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

    mixer: AttentionSpec | DeltaNetSpec
    mlp: MLPSpec | MoESpec


@dataclass(frozen=True)
class QuantizationSpec:
    """How one matrix is stored: `bits` per value in groups of `group_size`, in one of MLX's modes."""

    bits: int
    group_size: int
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine"


@dataclass(frozen=True)
class ModelSpec:
    """A whole text decoder.

    `zero_centred_norms`: checkpoints store the weights of norms minus one (but not of those inside DeltaNet).
    `tensor_names`: pairs of a regular expression and what to put in its place, that turn the checkpoint's names into
    those of all other families.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    tied: bool
    max_positions: int
    zero_centred_norms: bool = False
    tensor_names: tuple[tuple[str, str], ...] = ()

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
            total += 2 * self.hidden_size + _mixer_size(layer.mixer, self.hidden_size)
            total += _mlp_size(layer.mlp, self.hidden_size, active)
        return total

    def cache_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes that one more token of context takes in the KV cache; layers with a window stop growing."""
        values = sum(
            2 * layer.mixer.kv_heads * layer.mixer.head_dim
            for layer in self.layers
            if isinstance(layer.mixer, AttentionSpec) and layer.mixer.window is None
        )
        return values * bytes_per_value

    def cache_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Bytes that one text of `tokens` tokens takes: keys and values, at most a window of them, and states."""
        total = 0
        for layer in self.layers:
            mixer = layer.mixer
            if isinstance(mixer, AttentionSpec):
                held = tokens if mixer.window is None else min(tokens, mixer.window)
                total += 2 * mixer.kv_heads * mixer.head_dim * held * bytes_per_value
            else:
                total += mixer.state_bytes(bytes_per_value)
        return total


def _deinterleave(heads: int, sizes: list[int]) -> list[int]:
    """Row numbers that turn head-major storage, each head with parts of these sizes, into part-major blocks."""
    width = sum(sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        head * width + start + i for start, size in zip(starts, sizes) for head in range(heads) for i in range(size)
    ]


def _mixer_size(mixer: AttentionSpec | DeltaNetSpec, hidden: int) -> int:
    if isinstance(mixer, DeltaNetSpec):
        values = mixer.value_heads * mixer.value_dim
        inputs = mixer.channels + values + 2 * mixer.value_heads
        return hidden * (inputs + values) + mixer.channels * mixer.kernel + 2 * mixer.value_heads + mixer.value_dim
    kv = mixer.kv_heads * mixer.head_dim
    out = mixer.heads * mixer.head_dim
    q = 2 * out if mixer.gated else out
    weights = hidden * (q + 2 * kv + out)
    return weights + (q + 2 * kv) * mixer.qkv_bias + hidden * mixer.out_bias + 2 * mixer.head_dim * mixer.qk_norm


def _mlp_size(mlp: MLPSpec | MoESpec, hidden: int, active: bool) -> int:
    if isinstance(mlp, MLPSpec):
        return 3 * hidden * mlp.intermediate + (2 * mlp.intermediate + hidden) * mlp.bias
    size = hidden * mlp.experts
    size += 3 * hidden * mlp.intermediate * (mlp.experts_per_token if active else mlp.experts)
    if mlp.shared_intermediate is not None:
        size += 3 * hidden * mlp.shared_intermediate + hidden
    return size
