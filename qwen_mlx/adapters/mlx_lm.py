"""mlx-lm's adapters, `adapters.safetensors` and its own `adapter_config.json`: read, not written.

Matrices are stored the other way round, `lora_a` (columns, rank) and `lora_b` (rank, rows), but for experts, which
have them as we do, one tensor for all experts of a projection; the scale is written as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.adapters.config import AdapterConfig
from qwen_mlx.adapters.sites import ROUTER, Site, sites
from qwen_mlx.adapters.stored import Arrays, Part, StoredAdapter, in_order, joined, nothing
from qwen_mlx.checkpoints.assemble import module_name
from qwen_mlx.errors import CheckpointError, UsageError
from qwen_mlx.models import ModelSpec

WEIGHTS = "adapters.safetensors"
_LEAVES = (".lora_a", ".lora_b", ".m")


def is_config(values: Mapping[str, Any]) -> bool:
    """Whether a configuration is mlx-lm's."""
    return "peft_type" not in values and ("lora_parameters" in values or "fine_tune_type" in values)


def read(
    folder: Path, path: Path, tensors: dict[str, mx.array], values: Mapping[str, Any], spec: ModelSpec
) -> StoredAdapter:
    """The adapter in these tensors.

    Raises:
        CheckpointError: they are not those of an adapter of this model, or contradict the configuration.
    """
    where = folder / "adapter_config.json"
    kind = values.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise CheckpointError(
            f"{where}: 'fine_tune_type' cannot be followed",
            expected="lora or dora",
            found=repr(kind)[:60],
            hint="Weights that were trained as a whole are a model, no adapter." if kind == "full" else None,
        )
    said = values.get("lora_parameters")
    scale = said.get("scale") if isinstance(said, Mapping) else None
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale == 0:
        raise CheckpointError(
            f"{where}: 'lora_parameters' cannot be followed", expected="a scale", found=repr(scale)[:60]
        )
    base = values.get("model")
    arrays = Arrays(path, tensors, base if isinstance(base, str) else None)
    parts = _Reader(arrays, spec, kind == "dora", float(scale)).read()
    config = _config(kind, float(scale), parts, spec, where)
    return StoredAdapter(folder, config, parts, {}, arrays.base)


def _config(kind: Any, scale: float, parts: Mapping[str, Part], spec: ModelSpec, where: Path) -> AdapterConfig:
    rank = max(part.rank for part in parts.values())
    own = {sites(spec)[name].roles[0] for name in parts} - {ROUTER}
    layers = tuple(sorted({sites(spec)[name].layer for name in parts}))
    try:
        return AdapterConfig(
            kind,
            rank,
            scale * rank,
            targets=tuple(sorted(own)) or ("all-linear",),
            layers=None if len(layers) == len(spec.layers) else layers,
        )
    except UsageError as problem:
        raise CheckpointError(f"{where}: {problem}") from None


class _Reader:
    def __init__(self, arrays: Arrays, spec: ModelSpec, dora: bool, scale: float) -> None:
        self._arrays, self._dora, self._scale = arrays, dora, scale
        self._sites = sites(spec)
        self._keys: dict[str, str] = {}  # module inside the decoder -> module in the file
        for key in arrays.tensors:
            leaf = next((leaf for leaf in _LEAVES if key.endswith(leaf)), None)
            if leaf is not None:
                stored = key.removesuffix(leaf)
                self._keys[module_name(f"{stored}.", spec.tensor_names).removesuffix(".")] = stored

    def read(self) -> dict[str, Part]:
        if not self._keys:
            raise CheckpointError(
                f"{self._arrays.path} holds no adapter",
                expected="tensors such as model.layers.0.self_attn.q_proj.lora_a",
                found=", ".join(sorted(self._arrays.tensors)[:3]) or "no tensors",
            )
        parts: dict[str, Part] = {}
        for name, site in self._sites.items():
            part = self._experts(site) if site.experts else self._plain(site)
            if part is not None:
                parts[name] = part
        self._arrays.finish()
        return parts

    def _plain(self, site: Site) -> Part | None:
        stored = self._keys.get(site.name)
        if stored is None:
            return None
        a = self._arrays.take(f"{stored}.lora_a", (site.columns, None))
        b = self._arrays.take(f"{stored}.lora_b", (None if a is None else a.shape[1], site.rows))
        magnitude = self._arrays.take(f"{stored}.m", (site.rows,)) if self._dora else None
        if a is None or b is None:
            return None
        return in_order(site, Part(mx.contiguous(a.T), mx.contiguous(b.T), magnitude, self._scale))

    def _experts(self, site: Site) -> Part | None:
        """One tensor for all experts of gate, up or down; gate and up above each other."""
        names = ("gate_proj", "up_proj") if site.leaf == "gate_up_proj" else ("down_proj",)
        path = site.name.rpartition(".experts.")[0]
        rows, count = site.rows // len(names), site.experts
        found: dict[str, Part] = {}
        present = [name for name in names if f"{path}.switch_mlp.{name}" in self._keys]
        for name in present:
            stored = self._keys[f"{path}.switch_mlp.{name}"]
            a = self._arrays.take(f"{stored}.lora_a", (count, None, site.columns))
            b = self._arrays.take(f"{stored}.lora_b", (count, rows, None if a is None else a.shape[1]))
            if a is not None and b is not None:
                found[name] = Part(a, b, None, self._scale)
        if not present or len(found) < len(present):
            return None
        every = [found.get(name) or nothing(site, rows, self._scale) for name in names]
        return joined(every[0], every[1]) if len(every) == 2 else every[0]
