"""PEFT's `adapter_model.safetensors` -> the arrays of our sites.

Experts come in two layouts. transformers 5 keeps the matrices of all experts as one parameter, and PEFT adapts that:
`experts.base_layer.lora_A` (experts * rank, columns) and `lora_B` (rows, rank * experts), where the expert is the last
axis, for gate and up, `experts.lora_A` and `.lora_B` for down (or for whichever is the only one). Before, every expert
had linear layers: `experts.3.gate_proj.lora_A`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from qwen_mlx.adapters.config import scale
from qwen_mlx.adapters.names import hub_name
from qwen_mlx.adapters.peft_config import PeftConfig
from qwen_mlx.adapters.sites import ROUTER, Site, sites
from qwen_mlx.adapters.stored import Arrays, Part, StoredAdapter, in_order, joined, nothing
from qwen_mlx.checkpoints.assemble import module_name
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models import ModelSpec

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEY = re.compile(r"(?P<module>.+?)\.(?P<kind>lora_A|lora_B|lora_magnitude_vector)(\.default)?(\.weight)?$")
_EXPERT = re.compile(r"(?P<path>layers\.\d+\.mlp\.experts)\.(?P<number>\d+)\.(?P<name>gate_proj|up_proj|down_proj)$")
_KINDS = ("lora_A", "lora_B", "lora_magnitude_vector")


@dataclass(frozen=True)
class _Module:
    """The keys of one adapted module, and its name in PEFT's model."""

    hub: str
    keys: dict[str, str]


def read(folder: Path, path: Path, tensors: dict[str, mx.array], said: PeftConfig, spec: ModelSpec) -> StoredAdapter:
    """The adapter in these tensors.

    Raises:
        CheckpointError: they are not those of an adapter of this model, or contradict the configuration; names the
            file and the keys.
    """
    reader = _Reader(Arrays(path, tensors, said.base), said, spec)
    return reader.read(folder)


class _Reader:
    def __init__(self, arrays: Arrays, said: PeftConfig, spec: ModelSpec) -> None:
        self._arrays, self._said, self._spec = arrays, said, spec
        self._sites = sites(spec)
        self._modules: dict[str, _Module] = {}
        self._ends: dict[str, str] = {}  # "embed_tokens", "lm_head" -> key
        for key in list(arrays.tensors):
            self._sort(key)

    def read(self, folder: Path) -> StoredAdapter:
        if not self._modules and not self._ends:
            raise CheckpointError(
                f"{self._arrays.path} holds no adapter",
                expected="tensors such as base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                found=", ".join(sorted(self._arrays.tensors)[:3]) or "no tensors",
            )
        self._check_complete()
        parts: dict[str, Part] = {}
        for name, site in self._sites.items():
            part = self._experts(site) if site.experts else self._plain(site)
            if part is not None:
                parts[name] = part
        matrices = self._matrices()
        self._arrays.finish()
        config = self._said.config
        own = {role for name in parts for role in self._sites[name].roles[:1]}
        config = replace(
            config,
            targets=tuple(sorted(own - {ROUTER})) or config.targets,
            layers=_layers([self._sites[name] for name in parts], self._spec),
            modules_to_save=tuple(matrices),
        )
        return StoredAdapter(folder, config, parts, matrices, self._said.base)

    # -------------------------------------------------------------------------------------------- which key is what

    def _sort(self, key: str) -> None:
        """Note what a key belongs to; keys nobody asks for stay in `tensors`, and are told at the end."""
        hub = key.removeprefix(_PREFIX)
        match = _KEY.fullmatch(hub)
        if match is not None:
            own = module_name(match["module"] + ".", self._spec.tensor_names).removesuffix(".")
            module = self._modules.setdefault(own, _Module(match["module"], {}))
            if match["kind"] in module.keys:
                self._arrays.problems.append(f"{key} is there twice, as {module.keys[match['kind']]} too")
            module.keys[match["kind"]] = key
            return
        hub = hub.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
        own = module_name(hub, self._spec.tensor_names)
        if own in ("embed_tokens.weight", "lm_head.weight"):
            self._ends[own.removesuffix(".weight")] = key

    def _check_complete(self) -> None:
        """Note the modules that the configuration names and the file lacks, where that can be told."""
        wrapped = any(module.hub.startswith("model.language_model.") for module in self._modules.values())
        for name, site in self._sites.items():
            hub = hub_name(self._spec, name, wrapped)
            if not site.experts and name not in self._modules and self._said.wants(hub):
                self._arrays.problems.append(f"{_PREFIX}{hub}.lora_A.weight is missing")

    # ----------------------------------------------------------------------------------------------------- the arrays

    def _plain(self, site: Site) -> Part | None:
        module = self._modules.get(site.name)
        if module is None:
            return None
        part = self._part(module, module.hub, site.rows, site.columns)
        return None if part is None else in_order(site, part)

    def _part(self, module: _Module, hub: str, rows: int, columns: int, experts: int = 1) -> Part | None:
        """One pair of matrices, as stored, whose rank is as the configuration says; `hub` is what patterns mean."""
        named = {kind: module.keys.get(kind) or f"{_PREFIX}{module.hub}.{kind}.weight" for kind in _KINDS}
        a = self._arrays.take(named["lora_A"], (None, columns))
        b = self._arrays.take(named["lora_B"], (rows, None if a is None else a.shape[0]))
        magnitude = None
        if self._said.config.method == "dora":
            magnitude = self._arrays.take(named["lora_magnitude_vector"], (rows,))
        if a is None or b is None:
            return None
        config, hub = self._said.config, self._said.pattern_name(hub)
        rank = config.rank_of(hub)
        if a.shape[0] != rank * experts:
            found = f"{named['lora_A']} has {a.shape[0]} rows"
            many = f" for each of {experts} experts" if experts > 1 else ""
            self._arrays.problems.append(f"{found}, but its rank is {rank}{many}")
            return None
        return Part(a, b, magnitude, scale(config.alpha_of(hub), rank, config.rslora))

    def _experts(self, site: Site) -> Part | None:
        path = site.name.rpartition(".")[0]
        if any(_EXPERT.fullmatch(own) and own.startswith(f"{path}.") for own in self._modules):
            return self._per_expert(site, path)
        module = self._fused(site, path)
        if module is None:
            return None
        if self._said.config.method == "dora":
            self._arrays.problems.append(f"{module.hub} has DoRA in a layout that PEFT does not write")
            return None
        count = site.experts
        hub = module.hub.removesuffix(".base_layer") + f".{site.leaf}"
        part = self._part(module, hub, site.rows, site.columns, count)
        if part is None:
            return None
        rank = part.a.shape[0] // count
        a = part.a.reshape(count, rank, site.columns)
        b = part.b.reshape(site.rows, rank, count).transpose(2, 0, 1)
        return replace(part, a=a, b=b)

    def _fused(self, site: Site, path: str) -> _Module | None:
        """PEFT nests one wrapper for each parameter: gate and up inside, down outside; a single one says by shape."""
        inner, outer = self._modules.get(f"{path}.base_layer"), self._modules.get(path)
        if inner is not None:
            return inner if site.leaf == "gate_up_proj" else outer
        if outer is None:
            return None
        a = self._arrays.tensors.get(outer.keys.get("lora_A", ""))
        b = self._arrays.tensors.get(outer.keys.get("lora_B", ""))
        if a is None or b is None or a.ndim != 2 or b.ndim != 2:
            return outer if site.leaf == "down_proj" else None  # told once
        gate_up = self._sites[f"{path}.gate_up_proj"]
        is_gate_up = (b.shape[0], a.shape[1]) == (gate_up.rows, gate_up.columns)
        return outer if is_gate_up == (site.leaf == "gate_up_proj") else None

    def _per_expert(self, site: Site, path: str) -> Part | None:
        """One pair for each expert, stacked; gate and up above each other. Experts without one stay as they are."""
        names = ("gate_proj", "up_proj") if site.leaf == "gate_up_proj" else ("down_proj",)
        rows = site.rows // len(names)
        present = [name for name in names if any(f"{path}.{e}.{name}" in self._modules for e in range(site.experts))]
        if not present:
            return None
        if self._said.config.method == "dora" and len(present) < len(names):
            self._arrays.problems.append(f"{path} has DoRA for {present[0]} alone; gate and up are one here")
        parts = {name: self._stacked(path, name, site, rows) for name in present}
        found = [part for part in parts.values() if part is not None]
        if len(found) < len(present):
            return None
        every = [parts.get(name) or nothing(site, rows, found[0].scale) for name in names]
        return joined(every[0], every[1]) if len(every) == 2 else every[0]

    def _stacked(self, path: str, name: str, site: Site, rows: int) -> Part | None:
        modules = [self._modules.get(f"{path}.{e}.{name}") for e in range(site.experts)]
        parts: list[Part] = []
        for e, module in enumerate(modules):
            if module is None:
                self._arrays.problems.append(f"{_PREFIX}model.{path}.{e}.{name}.lora_A.weight is missing")
                return None
            part = self._part(module, module.hub, rows, site.columns)
            if part is None:
                return None
            parts.append(part)
        if len({(part.rank, part.scale) for part in parts}) > 1:
            self._arrays.problems.append(f"{path} has adapters of {name} with different ranks or scales")
            return None
        lengths = [part.magnitude for part in parts if part.magnitude is not None]
        magnitude = mx.stack(lengths) if lengths else None
        return Part(mx.stack([p.a for p in parts]), mx.stack([p.b for p in parts]), magnitude, parts[0].scale)

    def _matrices(self) -> dict[str, mx.array]:
        """Embedding and head; the same object twice where the two are one."""
        shape = (self._spec.vocab_size, self._spec.hidden_size)
        found: dict[str, mx.array] = {}
        for name in ("embed_tokens", "lm_head"):
            if name in self._ends:
                matrix = self._arrays.take(self._ends[name], shape)
                if matrix is not None:
                    found[name] = matrix
        if self._spec.tied and found:
            both = list(found.values())
            if self._said.tied or (len(both) == 2 and mx.array_equal(both[0], both[1])):
                return dict.fromkeys(("embed_tokens", "lm_head"), both[0])
        return found


def _layers(adapted: list[Site], spec: ModelSpec) -> tuple[int, ...] | None:
    layers = tuple(sorted({site.layer for site in adapted}))
    return None if not layers or len(layers) == len(spec.layers) else layers
