"""The `config.json` of a model folder, with what a person wants to be different."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_mlx.checkpoints.folder import read_json
from qwen_mlx.errors import UsageError
from qwen_mlx.models.families.overrides import merge, parse_rope_scaling, scale_rope


def read_config(
    folder: Path, changes: Mapping[str, Any] | None = None, rope_scaling: str | None = None
) -> dict[str, Any]:
    """What `folder/config.json` says, changed; the file stays as it is.

    Args:
        changes: as `merge` takes them.
        rope_scaling: as `parse_rope_scaling` reads it; applied after `changes`.

    Raises:
        NotFound, CheckpointError: the file is missing or damaged.
        UsageError: the changes cannot be meant, or not for this model.
    """
    if changes is not None and not (isinstance(changes, Mapping) and all(isinstance(key, str) for key in changes)):
        raise UsageError("changes of config.json cannot be used", expected="a mapping of its keys", found=repr(changes))
    scaling = None if rope_scaling is None else parse_rope_scaling(rope_scaling)
    config = read_json(folder / "config.json", "the model's configuration")
    if changes:
        config = merge(config, changes)
    return config if scaling is None else scale_rope(config, scaling)
