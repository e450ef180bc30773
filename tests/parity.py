"""Tiny models with known logits, rebuilt from `tests/fixtures/parity`.

Weights are not stored: they are drawn again from their seed. `scripts/make_parity_fixtures.py` made the numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from scripts.parity.weights import Arrays, fingerprint, hub_layout, random_weights

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
# The two ways a configuration is spelled: by those who published the model, and by transformers 5.
SPELLINGS = ("config.json", "config_hf5.json")


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """One fixture. See `scripts/parity/recording.py` for the arrays and `info`."""

    name: str

    @property
    def folder(self) -> Path:
        return FIXTURES / self.name

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        return json.loads((self.folder / "reference.json").read_text(encoding="utf-8"))

    @property
    def tolerance(self) -> float:
        """How far a float32 logit may be off."""
        return self.info["tolerance"]

    @property
    def spellings(self) -> tuple[str, ...]:
        return tuple(name for name in SPELLINGS if (self.folder / name).exists())

    def config(self, spelling: str = "config.json") -> dict[str, Any]:
        return json.loads((self.folder / spelling).read_text(encoding="utf-8"))

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The recorded numbers; `decode_logits` are there even where they equal `logits`."""
        with np.load(self.folder / "reference.npz") as stored:
            arrays = {name: stored[name] for name in stored}
        return {"decode_logits": arrays["logits"], **arrays}

    def weights(self) -> Arrays:
        """float32 tensors by the names of a published checkpoint."""
        recipe = self.info["weights"]
        shapes = {name: tuple(shape) for name, shape in recipe["parameters"].items()}
        drawn = random_weights(shapes, recipe["seed"], recipe["model_type"], recipe["small_rows"])
        extra = tuple(recipe["extra"])
        tensors = hub_layout(drawn, self.config(), recipe["seed"], extra, recipe["fused_experts"])
        found = fingerprint(tensors)
        if not math.isclose(found, recipe["fingerprint"], rel_tol=1e-6):
            raise ValueError(f"{self.name}: numpy draws other weights than those of the fixture ({found})")
        return tensors

    def build(self, folder: Path, spelling: str = "config.json") -> Path:
        """Write the model as a hub checkpoint: config.json and model.safetensors in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(spelling)), encoding="utf-8")
        tensors = {name: mx.array(array) for name, array in self.weights().items()}
        mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
        return folder


def parity_cases() -> list[ParityCase]:
    return [ParityCase(folder.name) for folder in sorted(FIXTURES.iterdir()) if folder.is_dir()]
