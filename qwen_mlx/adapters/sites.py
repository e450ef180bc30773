"""Where in a decoder an adapter can sit: every linear layer, by role, as other programs name them.

A site is what PEFT adapts as one: one matrix A, one matrix B. Where our decoder stacks projections, several sites
share a module; where a checkpoint stores several projections as one (the first Qwen's `c_attn`, Qwen3-Next's
`in_proj_qkvz`, the gate and up matrices of experts), one site covers several members of the module.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qwen_mlx.adapters.config import ALL_LINEAR, AdapterConfig
from qwen_mlx.errors import UsageError
from qwen_mlx.models.spec import AttentionSpec, DeltaNetSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec

ROLES = {
    "q_proj": "queries",
    "k_proj": "keys",
    "v_proj": "values",
    "o_proj": "what attention gives",
    "gate_proj": "gate of a dense MLP",
    "up_proj": "up projection of a dense MLP",
    "down_proj": "down projection of a dense MLP",
    "experts": "all matrices of all experts",
    "experts.gate_up_proj": "gate and up of all experts, as one",
    "experts.down_proj": "down projection of all experts",
    "shared_expert": "all matrices of the shared expert",
    "in_proj": "all inputs of linear attention",
    "in_proj_qkv": "queries, keys and values of linear attention (Qwen3.5)",
    "in_proj_z": "gate of linear attention (Qwen3.5)",
    "in_proj_b": "writing strength of linear attention (Qwen3.5)",
    "in_proj_a": "decay of linear attention (Qwen3.5)",
    "in_proj_qkvz": "queries, keys, values and gate of linear attention (Qwen3-Next)",
    "in_proj_ba": "writing strength and decay of linear attention (Qwen3-Next)",
    "out_proj": "what linear attention gives",
}
# Read where another program has trained it, never a target of ours: a router that moves unbalances its experts.
ROUTER = "router"


@dataclass(frozen=True)
class Site:
    """One place for an adapter.

    Attributes:
        name: inside the decoder as checkpoints name it, without prefix: "layers.0.self_attn.q_proj".
        module: path of the module that computes it: "layers.0.self_attn.qkv_proj".
        members: of a stacked module, those whose rows these are, in order; empty for a module of its own.
        roles: that mean it.
        rows, columns: of the matrix.
        experts: how many matrices there are, 0 where there is one.
        whole: roles that can only be adapted together, because they are stored as one.
        delta: of linear attention whose rows are stored in another order (`stored_order`).
    """

    name: str
    module: str
    members: tuple[str, ...]
    roles: tuple[str, ...]
    rows: int
    columns: int
    experts: int = 0
    whole: tuple[str, ...] = ()
    delta: DeltaNetSpec | None = None

    @property
    def layer(self) -> int:
        return int(self.name.split(".")[1])

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    def stored_order(self) -> list[int] | None:
        """The stored row of each row as it runs; None where they are the same."""
        if self.delta is None:
            return None
        return _stored_order(self.delta, self.leaf)


@functools.lru_cache(maxsize=16)
def _stored_order(delta: DeltaNetSpec, leaf: str) -> list[int]:
    return delta.rows_of_qkvz() if leaf == "in_proj_qkvz" else delta.rows_of_ba()


@functools.lru_cache(maxsize=64)
def sites(spec: ModelSpec) -> dict[str, Site]:
    """Every place for an adapter, by name, in the order of the layers; routers included."""
    return {site.name: site for i, layer in enumerate(spec.layers) for site in _layer(spec, layer, f"layers.{i}")}


def roles(spec: ModelSpec) -> list[str]:
    """The roles that parts of this model have."""
    present = {role for site in sites(spec).values() for role in site.roles}
    return [role for role in ROLES if role in present]


def select(spec: ModelSpec, config: AdapterConfig) -> list[Site]:
    """The sites that a configuration means.

    Raises:
        UsageError: a role that this model does not have, half of what is stored as one, or layers it does not have.
    """
    _check_layers(config.layers, len(spec.layers))
    known = roles(spec)
    for role in config.targets:
        if role != ALL_LINEAR and role not in known:
            raise UsageError(
                f"no part of this model has the role {role!r}",
                expected=f"{ALL_LINEAR}, {', '.join(known)}",
                hint="Routers are never adapted." if role in (ROUTER, "gate", "router", "shared_expert_gate") else None,
            )
    wanted = set(known) if ALL_LINEAR in config.targets else set(config.targets)
    chosen: list[Site] = []
    for site in sites(spec).values():
        if not wanted & set(site.roles) or (config.layers is not None and site.layer not in config.layers):
            continue
        if site.whole and not set(site.whole) <= wanted:
            raise UsageError(
                f"this model stores {', '.join(site.whole)} as one matrix, which has one adapter",
                expected="all of them among the targets",
                found=", ".join(role for role in site.whole if role in wanted),
            )
        chosen.append(site)
    if config.targets and not chosen:
        raise UsageError("no layer among those that were named has these targets", found=", ".join(config.targets))
    return chosen


def _check_layers(layers: Sequence[int] | None, count: int) -> None:
    for layer in layers or ():
        if type(layer) is not int or not 0 <= layer < count:
            raise UsageError(f"there is no layer {layer!r}", expected=f"numbers from 0 to {count - 1}")


def _layer(spec: ModelSpec, layer: LayerSpec, path: str) -> Iterator[Site]:
    if isinstance(layer.mixer, AttentionSpec):
        yield from _attention(spec, layer.mixer, f"{path}.self_attn")
    else:
        yield from _delta_net(spec, layer.mixer, f"{path}.linear_attn")
    if isinstance(layer.mlp, MLPSpec):
        yield from _mlp(layer.mlp, spec.hidden_size, f"{path}.mlp", ())
    else:
        yield from _moe(layer.mlp, spec.hidden_size, f"{path}.mlp")


def _attention(spec: ModelSpec, s: AttentionSpec, path: str) -> Iterator[Site]:
    inner, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    rows = {"q_proj": 2 * inner if s.gated else inner, "k_proj": kv, "v_proj": kv}
    module = f"{path}.qkv_proj"
    if spec.tensor_names:  # the first Qwen stores the three as one
        names = tuple(rows)
        yield Site(f"{path}.qkv", module, names, names, sum(rows.values()), spec.hidden_size, whole=names)
    else:
        for name, count in rows.items():
            yield Site(f"{path}.{name}", module, (name,), (name,), count, spec.hidden_size)
    yield Site(f"{path}.o_proj", f"{path}.o_proj", (), ("o_proj",), spec.hidden_size, inner)


def _delta_net(spec: ModelSpec, s: DeltaNetSpec, path: str) -> Iterator[Site]:
    values = s.value_heads * s.value_dim
    rows = {"in_proj_qkv": s.channels, "in_proj_z": values, "in_proj_b": s.value_heads, "in_proj_a": s.value_heads}
    module = f"{path}.in_proj"
    if s.interleaved:
        for name, members in (
            ("in_proj_qkvz", ("in_proj_qkv", "in_proj_z")),
            ("in_proj_ba", ("in_proj_b", "in_proj_a")),
        ):
            count = sum(rows[member] for member in members)
            yield Site(f"{path}.{name}", module, members, (name, "in_proj"), count, spec.hidden_size, delta=s)
    else:
        for name, count in rows.items():
            yield Site(f"{path}.{name}", module, (name,), (name, "in_proj"), count, spec.hidden_size)
    yield Site(f"{path}.out_proj", f"{path}.out_proj", (), ("out_proj",), spec.hidden_size, values)


def _mlp(s: MLPSpec, hidden: int, path: str, roles: Iterable[str]) -> Iterator[Site]:
    own = tuple(roles)
    for name in ("gate_proj", "up_proj"):
        yield Site(f"{path}.{name}", f"{path}.gate_up_proj", (name,), own or (name,), s.intermediate, hidden)
    yield Site(f"{path}.down_proj", f"{path}.down_proj", (), own or ("down_proj",), hidden, s.intermediate)


def _moe(s: MoESpec, hidden: int, path: str) -> Iterator[Site]:
    yield Site(f"{path}.gate", f"{path}.gate", (), (ROUTER,), s.experts, hidden)
    for name, rows, columns in (("gate_up_proj", 2 * s.intermediate, hidden), ("down_proj", hidden, s.intermediate)):
        full = f"{path}.experts.{name}"
        yield Site(full, full, (), ("experts", f"experts.{name}"), rows, columns, s.experts)
    if s.shared_intermediate is not None:
        yield from _mlp(MLPSpec(s.shared_intermediate), hidden, f"{path}.shared_expert", ("shared_expert",))
        yield Site(f"{path}.shared_expert_gate", f"{path}.shared_expert_gate", (), (ROUTER,), 1, hidden)
