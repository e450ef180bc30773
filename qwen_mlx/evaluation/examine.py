"""What the models in the cache are: read from their configurations and the headers of their weights."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_mlx.errors import QwenError, UnsupportedModel
from qwen_mlx.evaluation import fitting
from qwen_mlx.hub.library import CachedModel


@dataclass(frozen=True)
class Examined:
    """One model of the cache.

    Attributes:
        format: how its weights are stored; None where it is not a model we know.
        foreign: it has to be imported before it can be used.
        bits: per weight.
        fits: the verdict of `hub.fit`.
        problem: "incomplete" or "damaged"; None for neither.
    """

    model: CachedModel
    family: str | None = None
    parameters: int | None = None
    format: str | None = None
    foreign: bool = False
    bits: float | None = None
    fits: str | None = None
    problem: str | None = None


def examine(model: CachedModel) -> Examined:
    """Read the configuration and the headers of the weights; one that cannot be read says so."""
    if any(model.folder.rglob("*.gguf")):
        return Examined(model, format="GGUF", foreign=True)
    if not (model.folder / "config.json").is_file():
        return Examined(model, problem=None if model.whole else "incomplete")
    try:
        return _described(model)
    except UnsupportedModel:
        return Examined(model)
    except QwenError:
        return Examined(model, problem="damaged" if model.whole else "incomplete")


def _described(model: CachedModel) -> Examined:
    from qwen_mlx.checkpoints.assemble import QuantizationTable, is_ignored
    from qwen_mlx.checkpoints.config import read_config
    from qwen_mlx.checkpoints.folder import find_weights
    from qwen_mlx.checkpoints.inventory import find_formats
    from qwen_mlx.models import read_spec

    config = read_config(model.folder)
    spec = read_spec(config)
    headers = find_weights(model.folder).headers()
    tensors = {name: tensor for header in headers.values() for name, tensor in header.tensors.items()}
    used = {name: tensor for name, tensor in tensors.items() if not is_ignored(name)}
    if spec.tied:
        used = {name: tensor for name, tensor in used.items() if "lm_head" not in name.split(".")}
    foreign = False
    try:
        form = find_formats(spec, used, QuantizationTable(config))[0].name
    except QwenError:  # AWQ and other formats that have to be imported first
        form, foreign = str(config.get("quantization_config", {}).get("quant_method", "unknown")), True
    size = sum(tensor.nbytes for tensor in used.values())
    found = fitting.judge(fitting.numbers_of_config(config, size))
    bits = round(8 * size / spec.parameters, 2)
    return Examined(model, spec.family, spec.parameters, form, foreign, bits, found.verdict)
