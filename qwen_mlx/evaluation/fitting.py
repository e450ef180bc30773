"""A model's numbers and this machine's, for `hub.fit`, which knows of neither."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_mlx.hub.fit import Estimate, Machine, Numbers, estimate

USUAL_CONTEXT = 8192  # tokens


def machine() -> Machine:
    """The memory of this machine, and what its GPU may hold."""
    from qwen_mlx import device

    limit = None
    if device.backend() == "metal":
        import mlx.core as mx

        limit = int(mx.device_info().get("max_recommended_working_set_size", 0)) or None
    return Machine(device.memory_size(), device.memory_available(), limit)


def numbers_of_config(config: Mapping[str, Any], weight_bytes: int) -> Numbers:
    """Numbers of a model whose weights are not here yet.

    Args:
        config: the content of its `config.json`.
        weight_bytes: size of its files of weights.

    Raises:
        ConfigError, UnsupportedModel: as `models.read_spec`.
    """
    from qwen_mlx.models import read_spec

    spec = read_spec(config)
    states = spec.cache_bytes(0)
    return Numbers(spec.parameters, weight_bytes, spec.cache_bytes, states, spec.max_positions)


def numbers_of_folder(folder: Path) -> Numbers:
    """Numbers of a model on this machine; only headers are read.

    Raises:
        NotFound, CheckpointError: it is not whole, or not one we know.
    """
    from qwen_mlx.checkpoints.config import read_config
    from qwen_mlx.checkpoints.folder import find_weights

    headers = find_weights(folder).headers()
    size = sum(tensor.nbytes for header in headers.values() for tensor in header.tensors.values())
    return numbers_of_config(read_config(folder), size)


def judge(numbers: Numbers, context: int | None = None, kv_bits: float = 16) -> Estimate:
    """The verdict for this machine; a context longer than the model's is cut to it."""
    return estimate(numbers, machine(), min(context or USUAL_CONTEXT, numbers.context), kv_bits, kv_option=True)
