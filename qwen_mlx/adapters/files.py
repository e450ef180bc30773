"""Folders of adapters: PEFT's, which are read and written, and mlx-lm's, which are read.

Nothing in them is trusted: headers are checked before MLX sees a file, every shape is compared with the model, and a
key that would change the numbers and is not followed is an error. Pickles (`.bin`) are never opened.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from qwen_mlx.adapters import mlx_lm, peft_config, peft_read, peft_write
from qwen_mlx.adapters.config import AdapterConfig
from qwen_mlx.adapters.registry import attached, install
from qwen_mlx.adapters.stored import Part, StoredAdapter
from qwen_mlx.checkpoints.folder import read_json
from qwen_mlx.checkpoints.publish import publishing
from qwen_mlx.checkpoints.safetensors import load_tensors, read_header, save_tensors
from qwen_mlx.checkpoints.strict_json import parse_object
from qwen_mlx.errors import CheckpointError, NotFound, QwenError, UsageError
from qwen_mlx.models import Decoder, ModelSpec
from qwen_mlx.paths import atomic_write

import mlx.core as mx  # isort: skip

_OURS = "qwen_mlx"  # under this name our own configuration stands beside the arrays


def read_adapter(folder: str | Path, spec: ModelSpec) -> StoredAdapter:
    """Read and check the adapter in `folder` for models of this spec.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors` (PEFT) or `adapters.safetensors` (mlx-lm).

    Raises:
        NotFound: there is no adapter.
        CheckpointError: damaged, hostile, of another model, or of a kind that is not computed here; names the file and
            the keys.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise NotFound(f"there is no folder {path}", expected="the folder of an adapter", hint="Check the path.")
    where = path / peft_config.CONFIG
    if not where.is_file():
        raise NotFound(
            f"{where} is missing",
            expected="an adapter of PEFT or mlx-lm",
            hint="That is a model, no adapter." if (path / "config.json").is_file() else "Check the path.",
        )
    values = read_json(where, "the configuration of an adapter")
    if mlx_lm.is_config(values):
        file = path / mlx_lm.WEIGHTS
        return mlx_lm.read(path, file, _tensors(file), values, spec)
    said = peft_config.read(values, where)
    file = path / peft_read.WEIGHTS
    found = peft_read.read(path, file, _tensors(file), said, spec)
    return StoredAdapter(path, _own_config(file, found), found.parts, found.matrices, found.base)


def _tensors(file: Path) -> dict[str, mx.array]:
    if not file.is_file():
        pickled = sorted(entry.name for entry in file.parent.glob("adapter*.bin"))
        raise NotFound(
            f"{file} is missing",
            found=pickled[0] if pickled else None,
            hint="Pickles can run code and are never opened; save the adapter as safetensors." if pickled else None,
        )
    return load_tensors(file)


def _own_config(file: Path, found: StoredAdapter) -> AdapterConfig:
    """The configuration that we wrote beside the arrays, where it agrees with PEFT's; else what PEFT's says."""
    text = read_header(file).metadata.get(_OURS)
    if text is None:
        return found.config
    try:
        own = AdapterConfig.from_dict(parse_object(text.encode(), str(file)))
    except QwenError:
        return found.config
    told = found.config
    same = (own.method, own.rank, own.alpha, own.rslora) == (told.method, told.rank, told.alpha, told.rslora)
    return own if same else told


def load_adapter(decoder: Decoder, folder: str | Path, name: str = "default", train: bool = False) -> StoredAdapter:
    """Give `decoder` the adapter in `folder`; it then counts alone, with weight 1 (`set_mix` says otherwise).

    Args:
        train: train it further: everything else is frozen, and `trainable_parameters()` are its arrays. Otherwise it
            is frozen itself.

    Returns:
        What was read; its configuration says with what it was made.

    Raises:
        NotFound, CheckpointError: as `read_adapter`; the decoder is as it was.
        UsageError: the name is taken or is none.
    """
    found = read_adapter(folder, decoder.spec)
    install(decoder, name, found.config, found.parts, found.matrices, train)
    return found


def save_adapter(
    decoder: Decoder, folder: str | Path, name: str = "default", base: str | None = None, wrapped: bool = False
) -> Path:
    """Write an adapter as PEFT does. A new folder appears whole or not at all; in one that is there, each file does.

    Args:
        base: what PEFT is to load the adapter on: a name on the hub, or a folder.
        wrapped: name tensors as inside a vision-language model (Qwen3.5's `ForConditionalGeneration`); the text model,
            which transformers' `AutoModelForCausalLM` gives, has shorter names.

    Raises:
        UsageError: there is no adapter of this name, or the folder cannot be meant.
        CheckpointError, NoSpace, QwenError: it cannot be written.
    """
    own = attached(decoder, name)
    parts = {
        site: Part(part.lora_a, part.lora_b, part.magnitude if part.dora else None, part.scale)
        for site, part in own.parts.items()
    }
    matrices = own.whole.matrices()
    if own.whole.embedding is not None and own.whole.embedding is own.whole.head:
        matrices["lm_head"] = matrices["embed_tokens"]
    values, tensors = peft_write.write(decoder.spec, own.config, parts, matrices, base, wrapped)
    text = json.dumps(values, indent=2) + "\n"
    path = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 - resolve() follows a link at the end
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is in the way", expected="a folder, or nothing", found="a file")
    try:
        if path.is_dir():
            _write(path, text, tensors, own.config)
        else:
            with publishing(path) as partial:
                _write(partial, text, tensors, own.config)
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be written", found=problem.strerror or str(problem)) from None
    return path


def _write(folder: Path, text: str, tensors: dict[str, mx.array], config: AdapterConfig) -> None:
    save_tensors(folder / peft_read.WEIGHTS, tensors, peft_write.metadata(config))
    with atomic_write(folder / peft_config.CONFIG) as file:
        file.write(text)
