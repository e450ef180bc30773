"""Tiny models of `scripts/formats/samples.py` on disk, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.gguf import writer
from qwen_mlx.checkpoints.import_ import iter_import
from qwen_mlx.checkpoints.load import load
from qwen_mlx.events import ImportModel, ImportPlanned
from scripts.formats import samples

import mlx.core as mx  # isort: skip

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, samples.GGUFSampleTensor]) -> Path:
    """A GGUF file of these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs = [
        writer.GGUFOutput(name, tensor.kind, tensor.shape, lambda raw=tensor.raw: [raw.tobytes()])
        for name, tensor in tensors.items()
    ]
    path.write_bytes(writer.head(metadata, outputs) + b"".join(data for _, data in writer.data(outputs)))
    return path


def write_sample(folder: Path, form: str, model: str) -> Path:
    """A sample as a folder of the hub, or as a GGUF file."""
    if form in samples.HUB_FORMATS:
        return samples.hub_sample(form, model).write(folder / f"{form}-{model}")
    return write_gguf(folder / f"{model}.{form}.gguf", *samples.gguf_sample(form, model))


def run_import(source: Path, target: Path, **options: Any) -> ImportPlanned:
    """Import and return the plan."""
    events = list(iter_import(ImportModel(str(source), str(target), **options)))
    assert isinstance(events[0], ImportPlanned)
    return events[0]


def logits(folder: Path, weights: str = "expanded") -> np.ndarray:
    """Logits of `samples.PROMPT`, (tokens, vocabulary)."""
    model = load(folder, weights=weights)  # type: ignore[arg-type]
    return np.array(model.decoder(mx.array([samples.PROMPT]))[0].astype(mx.float32))
