"""Adapters of a decoder: LoRA and its relatives, their files, several at once, and fusing them into the weights."""

from qwen_mlx import device

device.prepare()  # before anything imports mlx

from qwen_mlx.adapters.config import AdapterConfig  # noqa: E402
from qwen_mlx.adapters.files import load_adapter, read_adapter, save_adapter  # noqa: E402
from qwen_mlx.adapters.registry import (  # noqa: E402
    adapter_arrays,
    adapters,
    attach,
    detach,
    dropout_keys,
    mix,
    mixed,
    set_adapter_arrays,
    set_mix,
)

__all__ = [
    "AdapterConfig",
    "adapter_arrays",
    "adapters",
    "attach",
    "detach",
    "dropout_keys",
    "load_adapter",
    "mix",
    "mixed",
    "read_adapter",
    "save_adapter",
    "set_adapter_arrays",
    "set_mix",
]
