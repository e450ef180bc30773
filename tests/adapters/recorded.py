"""Adapters that PEFT made, from `tests/fixtures/training`, on models of `tests/fixtures/parity`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qwen_mlx.adapters import load_adapter
from qwen_mlx.checkpoints.load import load
from qwen_mlx.models import Decoder
from tests.parity import ParityCase

import mlx.core as mx  # isort: skip

FIXTURES = Path(__file__).parents[1] / "fixtures" / "training"
CASES = sorted(
    path.stem.removeprefix("adapters_") for path in FIXTURES.glob("adapters_*.npz") if "mix" not in path.stem
)


def unpacked(array: np.ndarray) -> str:
    """Text that is stored as bytes."""
    return array.tobytes().decode()


@dataclass(frozen=True)
class Recorded:
    """One adapter; see scripts/make_training_fixtures/adapters.py for the arrays."""

    name: str

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FIXTURES / f"adapters_{self.name}.npz") as stored:
            return {key: stored[key] for key in stored}

    @property
    def ids(self) -> mx.array:
        return mx.array(self.arrays["ids"])

    @property
    def model(self) -> str:
        return unpacked(self.arrays["model"])

    def decoder(self, folder: Path) -> Decoder:
        return load(ParityCase(self.model).build(folder / "model")).decoder

    def folder(self, folder: Path, prefix: str = "") -> Path:
        """The two files as PEFT wrote them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(unpacked(self.arrays[f"{prefix}config"]))
        own = {
            key.removeprefix(f"{prefix}file/"): a for key, a in self.arrays.items() if key.startswith(f"{prefix}file/")
        }
        tensors = {key: mx.array(array) for key, array in own.items()}
        mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors, {"format": "pt"})
        return folder

    def loaded(self, tmp_path: Path, train: bool = False) -> Decoder:
        decoder = self.decoder(tmp_path)
        load_adapter(decoder, self.folder(tmp_path / "adapter"), train=train)
        return decoder

    @property
    def config(self) -> dict:
        return json.loads(unpacked(self.arrays["config"]))
