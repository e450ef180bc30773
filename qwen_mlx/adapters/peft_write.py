"""The arrays of our sites -> PEFT's two files.

Experts are written as transformers 5 and PEFT have them: the matrices of all experts are one parameter. DoRA, which
PEFT cannot compute for those, is written as one linear layer per expert, which only we and older programs read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from qwen_mlx.adapters.config import AdapterConfig, scale
from qwen_mlx.adapters.names import hub_name
from qwen_mlx.adapters.sites import Site, sites
from qwen_mlx.adapters.stored import Part, in_order
from qwen_mlx.models import ModelSpec
from qwen_mlx.models.spec import MoESpec

_PREFIX = "base_model.model."
# PEFT takes these names for the matrices of experts in some families, so that others need another way to be named.
_NAMES_OF_EXPERTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class _Written:
    """One adapted thing as PEFT knows it: a linear layer, or (`parameter`) a parameter of a module.

    `name` is that of the module or the parameter, `key` what its tensors are called, without the prefix.
    """

    name: str
    key: str
    parameter: bool
    part: Part


def write(
    spec: ModelSpec,
    config: AdapterConfig,
    parts: Mapping[str, Part],
    matrices: Mapping[str, mx.array],
    base: str | None = None,
    wrapped: bool = False,
) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """The values of `adapter_config.json`, and the tensors of `adapter_model.safetensors`.

    Args:
        matrices: that replace embedding and head; both names where one matrix is both.
        base: name of the base model.
        wrapped: see `hub_name`.
    """
    every = [thing for name, part in parts.items() for thing in _things(spec, sites(spec)[name], part, wrapped, parts)]
    tensors: dict[str, mx.array] = {}
    for thing in every:
        tensors[f"{_PREFIX}{thing.key}.lora_A.weight"] = thing.part.a
        tensors[f"{_PREFIX}{thing.key}.lora_B.weight"] = thing.part.b
        if thing.part.magnitude is not None:
            tensors[f"{_PREFIX}{thing.key}.lora_magnitude_vector"] = thing.part.magnitude
    for name, matrix in matrices.items():
        tensors[f"{_PREFIX}{hub_name(spec, name, wrapped)}.weight"] = matrix
    return _values(spec, config, every, matrices, base, wrapped), tensors


def _things(spec: ModelSpec, site: Site, part: Part, wrapped: bool, others: Mapping[str, Part]) -> Iterator[_Written]:
    hub = hub_name(spec, site.name, wrapped)
    if not site.experts:
        parameter = _needs_parameter(spec, site, part.magnitude is not None)
        yield _Written(f"{hub}.weight" if parameter else hub, hub, parameter, in_order(site, part, back=True))
        return
    path = hub.rpartition(".")[0]
    if part.magnitude is None:
        a = part.a.reshape(-1, part.a.shape[-1])
        b = part.b.transpose(1, 2, 0).reshape(part.b.shape[1], -1)
        # One wrapper for each parameter: gate and up inside that of down, where both are adapted.
        inside = site.leaf == "gate_up_proj" and site.name.replace("gate_up_proj", "down_proj") in others
        yield _Written(hub, f"{path}.base_layer" if inside else path, True, Part(a, b, None, part.scale))
        return
    names = ("gate_proj", "up_proj") if site.leaf == "gate_up_proj" else ("down_proj",)
    rows = site.rows // len(names)
    for i, name in enumerate(names):
        own = slice(i * rows, (i + 1) * rows)
        for e in range(site.experts):
            one = Part(part.a[e], part.b[e, own], part.magnitude[e, own], part.scale)
            yield _Written(f"{path}.{e}.{name}", f"{path}.{e}.{name}", False, one)


def _needs_parameter(spec: ModelSpec, site: Site, dora: bool) -> bool:
    """Whether a linear layer has to be named by its parameter, or PEFT would adapt experts instead."""
    has_experts = any(isinstance(layer.mlp, MoESpec) for layer in spec.layers)
    return has_experts and not dora and (site.leaf in _NAMES_OF_EXPERTS or "router" in site.roles)


def _values(
    spec: ModelSpec,
    config: AdapterConfig,
    every: Sequence[_Written],
    matrices: Mapping[str, mx.array],
    base: str | None,
    wrapped: bool,
) -> dict[str, Any]:
    layers = [thing for thing in every if not thing.parameter]
    parameters = [thing for thing in every if thing.parameter]
    all_layers, all_parameters = _all_names(spec, wrapped, any(part.part.magnitude is not None for part in every))
    ranks = {thing.name: _rank(thing, spec) for thing in every}
    alphas = {thing.name: _alpha(thing, ranks[thing.name], config.rslora) for thing in every}
    names = [*all_layers, *all_parameters]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": _plain(config.alpha),
        "lora_dropout": 0.0 if parameters else config.dropout,  # PEFT has none for parameters
        "use_rslora": config.rslora,
        "use_dora": config.method == "dora",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": _short([thing.name for thing in layers], all_layers),
        "target_parameters": _short([thing.name for thing in parameters], all_parameters) or None,
        "modules_to_save": [hub_name(spec, name).rpartition(".")[2] for name in matrices] or None,
        "rank_pattern": _pattern(ranks, config.rank, names),
        "alpha_pattern": {name: _plain(v) for name, v in _pattern(alphas, float(config.alpha), names).items()},
        "layers_to_transform": None,
        "layers_pattern": None,
    }


def _rank(thing: _Written, spec: ModelSpec) -> int:
    rows = thing.part.a.shape[0]
    if not thing.parameter or thing.name.endswith(".weight"):
        return rows
    layer = int(next(step for step in thing.name.split(".") if step.isdigit()))
    mlp = spec.layers[layer].mlp
    assert isinstance(mlp, MoESpec)
    return rows // mlp.experts


def _alpha(thing: _Written, rank: int, rslora: bool) -> float:
    exact = thing.part.scale * (math.sqrt(rank) if rslora else rank)
    rounded = round(exact, 9)
    return rounded if scale(rounded, rank, rslora) == thing.part.scale else exact


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _all_names(spec: ModelSpec, wrapped: bool, per_expert: bool) -> tuple[list[str], list[str]]:
    """The names of all linear layers, and of all parameters that an adapter could mean."""
    layers: list[str] = []
    parameters: list[str] = []
    for site in sites(spec).values():
        hub = hub_name(spec, site.name, wrapped)
        if not site.experts:
            layers.append(hub)
            parameters.append(f"{hub}.weight")
        elif not per_expert:
            parameters.append(hub)
        else:
            path, _, leaf = hub.rpartition(".")
            names = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
            layers += [f"{path}.{e}.{name}" for e in range(site.experts) for name in names]
    return [*layers, "lm_head"], parameters


def _short(chosen: Iterable[str], every: Sequence[str]) -> list[str]:
    """The shortest ends of names that mean these and no others: "q_proj" where every layer's is meant."""
    chosen = list(chosen)
    of_all, of_chosen = (Counter(tail for name in names for tail in _tails(name)) for names in (every, chosen))
    found = (next((t for t in _tails(name) if of_all[t] == of_chosen[t]), name) for name in chosen)
    return list(dict.fromkeys(found))


def _tails(name: str) -> list[str]:
    steps = name.split(".")
    return [".".join(steps[i:]) for i in range(len(steps) - 1, -1, -1)]


def _pattern(values: Mapping[str, Any], usual: Any, every: Sequence[str]) -> dict[str, Any]:
    """Those that are not as usual, by the shortest ends of names that mean them."""
    found: dict[str, Any] = {}
    for value in dict.fromkeys(values.values()):
        if value != usual:
            found |= dict.fromkeys(_short([name for name, own in values.items() if own == value], every), value)
    return found


def metadata(config: AdapterConfig) -> dict[str, str]:
    """What the file of the arrays says of them beside PEFT's configuration: ours, for an exact return."""
    return {"format": "pt", "qwen_mlx": json.dumps(config.as_dict())}
