"""The model of a run: read, quantized where asked for, and exactly those weights trainable that are to be trained."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from pathlib import Path

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_map  # noqa: E402

from qwen_mlx.adapters.config import AdapterConfig  # noqa: E402
from qwen_mlx.checkpoints.folder import find_weights, model_folder, read_json  # noqa: E402
from qwen_mlx.checkpoints.load import LoadedModel, iter_load  # noqa: E402
from qwen_mlx.errors import UsageError  # noqa: E402
from qwen_mlx.events import CancelToken, Event, Notice, QuantizeModel  # noqa: E402
from qwen_mlx.hub.references import resolve  # noqa: E402
from qwen_mlx.models import Decoder  # noqa: E402
from qwen_mlx.training.config import AdapterSection, RunConfig  # noqa: E402
from qwen_mlx.training.optim import flat  # noqa: E402

ADAPTER = "default"
_SAMPLES, _SAMPLE = 64, 1 << 16  # what a digest reads of each file of weights


def open_model(config: RunConfig, run: Path, cancel: CancelToken) -> Generator[Event, None, LoadedModel]:
    """The model of a run, ready to be trained.

    Args:
        run: the run's folder, where a quantized base is kept.

    Yields:
        `Progress`, and the events of a quantization.

    Raises:
        NotFound, CheckpointError, UsageError: as `load` and `iter_quantize`; or nothing would be trained.
    """
    source = base_folder(config, run)
    if config.model.quantize is not None and source == run / "base" and not (source / "config.json").is_file():
        yield from _quantize(resolve(config.model.path), source, config.model.quantize, cancel)
    full = config.adapter.method == "full"
    model = yield from iter_load(source, weights="expanded" if full else "quantized", cancel=cancel)
    _cast(model.decoder, config)
    make_trainable(model.decoder, config.adapter, config.seed)
    mx.eval(model.decoder.parameters())
    return model


def base_folder(config: RunConfig, run: Path) -> Path:
    """Where the weights are that the run starts from: its own quantized copy, or the model's folder."""
    source = model_folder(resolve(config.model.path))
    if config.model.quantize is None or "quantization" in read_json(source / "config.json"):
        return source
    return run / "base"


def base_name(config: RunConfig, folder: Path) -> str:
    """What an adapter says it belongs to: the name on the hub, or else the folder of the weights."""
    name = config.model.path
    local = name == "demo" or folder.name == "base" or Path(name).expanduser().exists()
    return str(folder) if local else name


def _quantize(source: Path, target: Path, wish: str, cancel: CancelToken) -> Generator[Event, None, None]:
    from qwen_mlx.checkpoints.quantize import iter_quantize

    numbers = re.fullmatch(r"(?:q|int)?(\d+)(?:bit)?(?::(\d+))?", wish.strip().lower())
    if numbers:
        job = QuantizeModel(
            str(source), str(target), bits=int(numbers[1]), group_size=int(numbers[2]) if numbers[2] else None
        )
    else:
        job = QuantizeModel(str(source), str(target), preset=wish)
    yield Notice(f"the base is quantized first, and kept in {target}")
    yield from iter_quantize(job, cancel)


def _cast(decoder: Decoder, config: RunConfig) -> None:
    if config.model.dtype == "auto":
        return
    dtype = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}[config.model.dtype]

    def cast(array: mx.array) -> mx.array:
        return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array

    decoder.update(tree_map(cast, decoder.parameters()))
    decoder.compute_dtype = dtype


def adapter_config(section: AdapterSection) -> AdapterConfig:
    """The adapter that a run trains. Raises `UsageError`."""
    assert section.method != "full"
    return AdapterConfig(
        method=section.method,
        rank=section.rank,
        alpha=section.alpha,
        dropout=section.dropout,
        rslora=section.rslora,
        targets=section.targets,
        layers=section.layers or None,
        rank_pattern=section.rank_pattern,
        alpha_pattern=section.alpha_pattern,
        modules_to_save=section.modules_to_save,
    )


def make_trainable(decoder: Decoder, section: AdapterSection, seed: int) -> None:
    """Let all weights be trained, or freeze them and put an adapter beside them, drawn from `seed`."""
    if section.method == "full":
        decoder.unfreeze()
        packed = [name for name, array in flat(decoder.parameters()).items() if array.dtype == mx.uint32]
        if packed:
            raise UsageError(
                f"{packed[0]} is packed and cannot be trained in full", hint='Use adapter.method = "lora".'
            )
    else:
        from qwen_mlx.adapters import attach

        attach(decoder, adapter_config(section), ADAPTER, seed=seed)
    if not flat(decoder.trainable_parameters()):
        raise UsageError("nothing would be trained", expected="adapter.targets that the model has")


def model_digest(folder: Path) -> str:
    """Changes when the model does: of config.json, and of every header and many samples of the weights.

    Not of every byte: a model of 100 GB would take minutes to read.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(find_weights(folder).files):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header, size)))
            for number in range(_SAMPLES):
                file.seek(max(0, (size - _SAMPLE) * number // (_SAMPLES - 1)))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
