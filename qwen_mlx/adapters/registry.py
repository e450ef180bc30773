"""Adapters on a decoder: put there, mixed, read out, and taken off again without a trace."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.adapters import whole
from qwen_mlx.adapters.config import AdapterConfig
from qwen_mlx.adapters.layers import Adapted, LowRank, Mix, wrap
from qwen_mlx.adapters.names import hub_name
from qwen_mlx.adapters.sites import ROUTER, Site, select, sites
from qwen_mlx.adapters.stored import Part
from qwen_mlx.errors import UsageError
from qwen_mlx.models import Decoder

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEPT_AT = "_adapters"  # where a decoder remembers what was done to it


@dataclass
class Attached:
    """One adapter of a decoder.

    Attributes:
        parts: by the name of the site.
        whole: matrices that take the place of the embedding ("embed_tokens") and the head ("lm_head").
    """

    config: AdapterConfig
    parts: dict[str, LowRank]
    whole: whole.Whole


@dataclass
class _State:
    """What a decoder remembers while it has adapters."""

    ends: whole.Ends
    mix: Mix = field(default_factory=Mix)
    attached: dict[str, Attached] = field(default_factory=dict)
    wrapped: dict[str, Adapted] = field(default_factory=dict)
    frozen: list[tuple[nn.Module, set[str]]] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------------------- putting on


def attach(decoder: Decoder, config: AdapterConfig, name: str = "default", seed: int = 0) -> None:
    """Give `decoder` a new adapter, which changes nothing yet, and make it the only thing that is trained.

    Everything else is frozen first, other adapters included; `decoder.trainable_parameters()` then are the new A and B
    (and the lengths of DoRA), and the matrices of `modules_to_save`, all in float32. The adapter counts alone, with
    weight 1. The same seed gives the same A, whatever else is adapted.

    Raises:
        UsageError: targets or layers that this model does not have, a name that is taken or is none.
    """
    chosen = select(decoder.spec, config)
    state = _prepare(decoder, name, train=True)
    own = Attached(config, {}, whole.copies(decoder, state.ends, config.modules_to_save))
    numbers = {site: i for i, site in enumerate(sites(decoder.spec))}
    keys = mx.random.split(mx.random.key(seed), len(numbers))
    for site in chosen:
        hub = hub_name(decoder.spec, site.name)
        rank, scale = config.rank_of(hub), config.scale_of(hub)
        layer = _wrapped(decoder, state, site)
        number = numbers[site.name]
        part = LowRank(site, layer.base, rank, scale, config.dropout, config.method == "dora", number)
        part.initialise(keys[number])
        _place(decoder, layer, own, name, site, part)
    mx.eval([part.parameters() for part in own.parts.values()])
    state.attached[name] = own
    set_mix(decoder, {name: 1.0})


def install(
    decoder: Decoder,
    name: str,
    config: AdapterConfig,
    parts: Mapping[str, Part],
    matrices: Mapping[str, mx.array],
    train: bool = False,
) -> None:
    """Give `decoder` an adapter that exists; shapes were checked before.

    Args:
        matrices: of "embed_tokens" and "lm_head", as `whole.Whole` has them.
        train: make it the only thing that is trained, as `attach` does, but for routers, which stay as they are.
    """
    state = _prepare(decoder, name, train)
    own = Attached(config, {}, whole.given(matrices))
    numbers = {site: i for i, site in enumerate(sites(decoder.spec))}
    for site_name, stored in parts.items():
        site = sites(decoder.spec)[site_name]
        layer = _wrapped(decoder, state, site)
        rank, dora = stored.a.shape[-2], stored.magnitude is not None
        part = LowRank(site, layer.base, rank, stored.scale, config.dropout, dora, numbers[site_name])
        part.lora_a, part.lora_b = stored.a, stored.b
        if stored.magnitude is not None:
            part.magnitude = stored.magnitude
        if not train or ROUTER in site.roles:
            part.freeze()
        _place(decoder, layer, own, name, site, part)
    if not train:
        own.whole.freeze()
    state.attached[name] = own
    set_mix(decoder, {name: 1.0})


def _prepare(decoder: Decoder, name: str, train: bool) -> _State:
    """Remember the decoder as it is, check the name, and freeze everything there is."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{str(name)[:60]!r} is no name of an adapter", expected="letters, digits, - and _")
    state: _State | None = vars(decoder).get(_KEPT_AT)
    if state is not None and name in state.attached:
        raise UsageError(f"there is an adapter {name!r} already", hint="Take it off first, or choose another name.")
    if state is None:
        state = _State(whole.Ends.of(decoder))
        state.frozen = [(module, set(module._no_grad)) for module in decoder.modules()]
        object.__setattr__(decoder, _KEPT_AT, state)
    if train or not state.attached:
        decoder.freeze()
        for other in state.attached.values():
            other.whole.freeze()
    return state


def _wrapped(decoder: Decoder, state: _State, site: Site) -> Adapted:
    """The module of a site, wrapped."""
    if site.module not in state.wrapped:
        layer = wrap(_get(decoder, site.module), state.mix)
        state.wrapped[site.module] = layer
        _set(decoder, site.module, layer)
    return state.wrapped[site.module]


def _place(decoder: Decoder, layer: Adapted, own: Attached, name: str, site: Site, part: LowRank) -> None:
    layer.adapters.setdefault(name, {})[site.leaf] = part
    layer.train(decoder.training)
    own.parts[site.name] = part


def detach(decoder: Decoder, name: str | None = None) -> None:
    """Take an adapter off, or all of them: then the decoder is what it was, the same modules, as frozen as before.

    Raises:
        UsageError: there is no adapter of this name.
    """
    state = _state(decoder)
    if name is not None:
        _known(state, name)
        set_mix(decoder, {other: weight for other, weight in state.mix.weights.items() if other != name})
        del state.attached[name]
        for layer in state.wrapped.values():
            layer.adapters.pop(name, None)
        if state.attached:
            return
    set_mix(decoder, {})
    for path, layer in state.wrapped.items():
        layer.base.train(decoder.training)
        _set(decoder, path, layer.base)
    for module, keys in state.frozen:
        module._no_grad = keys
    delattr(decoder, _KEPT_AT)


# --------------------------------------------------------------------------------------------------------------- mixing


def set_mix(decoder: Decoder, weights: Mapping[str, float]) -> None:
    """Say which adapters count, and how much; nothing of the base is computed anew.

    The changes that adapters make to the weights are multiplied and added, `W + sum_i w_i (W_i - W)`, where `W_i` are
    the weights with adapter i alone: the same for LoRA, DoRA, and matrices trained as a whole. So `{name: 1}` is that
    adapter exactly, and `{}` the base to the bit.

    A function compiled by `mx.compile` keeps the mix it was traced with.

    Raises:
        UsageError: an adapter that is not there, a weight that is no number.
    """
    if not weights and _maybe(decoder) is None:
        return
    state = _state(decoder)
    for name, weight in weights.items():
        _known(state, name)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise UsageError(f"the weight of adapter {name!r} is no number", found=repr(weight)[:40])
    counting = {name: float(weight) for name, weight in weights.items() if weight != 0}
    state.mix.weights = counting
    whole.use(decoder, state.ends, [(state.attached[name].whole, weight) for name, weight in counting.items()])


def mix(decoder: Decoder) -> dict[str, float]:
    """Which adapters count now, and how much."""
    state = _maybe(decoder)
    return {} if state is None else dict(state.mix.weights)


@contextlib.contextmanager
def mixed(decoder: Decoder, weights: Mapping[str, float]) -> Iterator[None]:
    """Another mix in this block; `{}` computes with the base alone, as preference training needs it."""
    before = mix(decoder)
    set_mix(decoder, weights)
    try:
        yield
    finally:
        set_mix(decoder, before)


@contextlib.contextmanager
def dropout_keys(decoder: Decoder, key: mx.array) -> Iterator[None]:
    """Dropout in this block follows from `key` and the place alone, not from the order of computation.

    A layer whose activations are computed again for the gradient (`mx.checkpoint`) then drops the same inputs again;
    with the keys of `mx.random.state` it would not. Use a new key for each batch; `mx.random.split` of the state makes
    one.
    """
    state = _maybe(decoder)
    if state is None:
        yield
        return
    state.mix.keys = mx.random.split(key, len(sites(decoder.spec)))
    try:
        yield
    finally:
        state.mix.keys = None


# -------------------------------------------------------------------------------------------------------------- looking


def adapters(decoder: Decoder) -> dict[str, AdapterConfig]:
    """The adapters of a decoder, by name, in the order they came."""
    state = _maybe(decoder)
    return {} if state is None else {name: own.config for name, own in state.attached.items()}


def attached(decoder: Decoder, name: str) -> Attached:
    """One adapter with its arrays. Raises `UsageError` where there is none of this name."""
    return _known(_state(decoder), name)


def adapter_arrays(decoder: Decoder, name: str = "default") -> dict[str, mx.array]:
    """All arrays of an adapter, float32: `layers.0.self_attn.q_proj.lora_a`, `.lora_b`, `.magnitude`,
    `embed_tokens.weight`, `lm_head.weight`, as they are trained. Files have other names; see `save_adapter`.

    Raises:
        UsageError: there is no adapter of this name.
    """
    own = attached(decoder, name)
    arrays = {f"{site}.{key}": part[key] for site, part in own.parts.items() for key in _keys(part)}
    return arrays | {f"{key}.weight": matrix for key, matrix in own.whole.matrices().items()}


def set_adapter_arrays(decoder: Decoder, arrays: Mapping[str, mx.array], name: str = "default") -> None:
    """Give an adapter the values that `adapter_arrays` once returned.

    Raises:
        UsageError: there is no adapter of this name, or the arrays are not its own.
    """
    own = attached(decoder, name)
    now = adapter_arrays(decoder, name)
    wrong = [key for key in {**now, **arrays} if key not in now or key not in arrays]
    wrong += [key for key in now if key in arrays and now[key].shape != arrays[key].shape]
    if wrong:
        raise UsageError(f"these are not the arrays of adapter {name!r}", found=", ".join(wrong[:3]))
    for site, part in own.parts.items():
        for key in _keys(part):
            part[key] = arrays[f"{site}.{key}"].astype(mx.float32)
    own.whole.set({key: arrays[f"{key}.weight"].astype(mx.float32) for key in own.whole.matrices()})


def _keys(part: LowRank) -> list[str]:
    return [key for key in ("lora_a", "lora_b", "magnitude") if key in part]


# --------------------------------------------------------------------------------------------------------------- inside


def _maybe(decoder: Decoder) -> _State | None:
    return vars(decoder).get(_KEPT_AT)


def _state(decoder: Decoder) -> _State:
    state = _maybe(decoder)
    if state is None:
        raise UsageError("this model has no adapters")
    return state


def _known(state: _State, name: str) -> Attached:
    if name not in state.attached:
        raise UsageError(f"there is no adapter {name!r}", expected=" or ".join(state.attached))
    return state.attached[name]


def _get(root: Any, path: str) -> Any:
    for step in path.split("."):
        root = root[int(step)] if step.isdigit() else root[step]
    return root


def _set(root: Any, path: str, value: Any) -> None:
    parent, _, name = path.rpartition(".")
    setattr(_get(root, parent), name, value)
