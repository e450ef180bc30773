"""What a run has made, loaded for use, and written for others."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402

from qwen_mlx.adapters import load_adapter  # noqa: E402
from qwen_mlx.checkpoints.load import LoadedModel, iter_load  # noqa: E402
from qwen_mlx.checkpoints.publish import check_space, check_target, publishing  # noqa: E402
from qwen_mlx.checkpoints.safetensors import load_tensors, save_tensors  # noqa: E402
from qwen_mlx.checkpoints.save import hub_tensors  # noqa: E402
from qwen_mlx.checkpoints.stream import config_text, side_files  # noqa: E402
from qwen_mlx.errors import CheckpointError, QwenError, UsageError  # noqa: E402
from qwen_mlx.events import CancelToken, Event, FuseAdapter  # noqa: E402
from qwen_mlx.paths import atomic_write  # noqa: E402
from qwen_mlx.training.checkpoint import TRAINABLE  # noqa: E402
from qwen_mlx.training.config import RunConfig  # noqa: E402
from qwen_mlx.training.model import ADAPTER, base_folder  # noqa: E402
from qwen_mlx.training.questions import read_questions  # noqa: E402

_TEXTS = 8  # rows that a fused model is compared over


def open_base(config: RunConfig, run: Path, cancel: CancelToken) -> Generator[Event, None, LoadedModel]:
    """The model that a run started from, as it trained on it."""
    full = config.adapter.method == "full"
    return (yield from iter_load(base_folder(config, run), weights="expanded" if full else "quantized", cancel=cancel))


def open_trained(
    config: RunConfig, run: Path, checkpoint: Path, cancel: CancelToken
) -> Generator[Event, None, LoadedModel]:
    """The model with what it had learnt at a checkpoint: an adapter beside its weights, or other weights.

    Raises:
        NotFound, CheckpointError: the model or the checkpoint is not there, or damaged.
    """
    model = yield from open_base(config, run, cancel)
    if config.adapter.method != "full":
        load_adapter(model.decoder, checkpoint, ADAPTER)
    else:
        saved = load_tensors(checkpoint / TRAINABLE)
        held = dict(tree_flatten(model.decoder.parameters()))
        for name, array in saved.items():
            if name not in held or held[name].shape != array.shape:
                raise CheckpointError(f"{checkpoint / TRAINABLE} does not fit the model", found=name)
        model.decoder.update(tree_unflatten(list(saved.items())), strict=False)
    mx.eval(model.decoder.parameters())
    model.decoder.eval()
    return model


def export_adapter(checkpoint: Path, target: Path, force: bool = False) -> Path:
    """Copy the adapter of a checkpoint, in PEFT's format, into a folder of its own.

    Raises:
        UsageError: something else is there, or an adapter and not `force`.
        QwenError: it cannot be written.
    """
    names = ("adapter_config.json", "adapter_model.safetensors")
    target = Path(target).expanduser().absolute()
    try:
        there = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is in the way", expected="a folder, or nothing", found="a file")
        if there and not (force and set(there) <= {*names, "README.md"}):
            hint = "--force replaces an adapter." if set(there) <= {*names, "README.md"} else "Give a new folder."
            raise UsageError(f"{target} is not empty", found=", ".join(there[:3]), hint=hint)
        for name in names:
            with atomic_write(target / name, "wb") as file, (checkpoint / name).open("rb") as source:
                shutil.copyfileobj(source, file)
    except (OSError, ValueError) as problem:
        raise QwenError(
            f"{str(target)!r} cannot be written", found=getattr(problem, "strerror", str(problem))
        ) from None
    return target


def export_model(
    config: RunConfig,
    run: Path,
    checkpoint: Path,
    target: Path,
    dtype: str | None = None,
    force: bool = False,
    cancel: CancelToken | None = None,
) -> Generator[Event, None, Path]:
    """Write the model that a run trained in full as a folder of its own.

    Args:
        dtype: "float32", "bfloat16" or "float16"; None keeps what was trained, to the bit.

    Raises:
        UsageError: the target cannot be meant. NoSpace, QwenError: it cannot be written.
    """
    target = check_target(target, force, (run,))
    model = yield from open_trained(config, run, checkpoint, cancel or CancelToken())
    tensors = hub_tensors(model.decoder)
    if dtype is not None:
        kind = getattr(mx, dtype)
        tensors = {name: a.astype(kind) if mx.issubdtype(a.dtype, mx.floating) else a for name, a in tensors.items()}
    floats = {str(a.dtype).removeprefix("mlx.core.") for a in tensors.values() if mx.issubdtype(a.dtype, mx.floating)}
    values = {key: value for key, value in model.config.items() if not key.startswith("quantization")}
    values["torch_dtype"] = dtype or ("float32" if len(floats) != 1 else floats.pop())
    check_space(target, sum(array.nbytes for array in tensors.values()))
    with publishing(target, force) as partial:
        for name, source in side_files(model.folder).items():
            shutil.copyfile(source, partial / name)
        (partial / "config.json").write_bytes(config_text(values))
        save_tensors(partial / "model.safetensors", tensors)
    return target


def fuse_job(
    config: RunConfig,
    run: Path,
    checkpoint: Path,
    target: Path,
    dtype: str | None = None,
    force: bool = False,
    requantize: bool = False,
    accept_loss: bool = False,
) -> FuseAdapter:
    """The job that adds the adapter of a checkpoint to the weights of its base; `adapters.fuse.iter_fuse` does it.

    What is lost is measured over a few rows that were learnt, besides the texts that are always read.
    """
    texts: tuple[str, ...] = ()
    with contextlib.suppress(QwenError):  # the data may have moved; then those other texts must do
        questions = read_questions(config.data.train, config.data.split, limit=_TEXTS)
        texts = tuple(f"{question.messages[-1]['content']}\n{question.expected}" for question in questions)
    return FuseAdapter(
        str(base_folder(config, run)),
        str(target),
        ((str(checkpoint), 1.0),),
        dtype,
        requantize,
        accept_loss=accept_loss,
        texts=texts,
        force=force,
    )
