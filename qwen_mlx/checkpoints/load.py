"""A folder on disk -> a model that runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx

from qwen_mlx import device
from qwen_mlx.checkpoints.assemble import QuantizationTable, Tensors, assemble, is_ignored
from qwen_mlx.checkpoints.config import read_config
from qwen_mlx.checkpoints.folder import load_folder_tensors, model_folder, model_name, read_json
from qwen_mlx.checkpoints.stored import StoredMatrix
from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, ModelInfo, Progress
from qwen_mlx.models import Decoder, ModelSpec, read_spec

if TYPE_CHECKING:
    from qwen_mlx.text.template import ChatTemplate
    from qwen_mlx.text.tokenizer import Tokenizer

WeightForm = Literal["auto", "quantized", "expanded"]
# Of the memory that is free, how much expanded weights may take.
_EXPANDED_SHARE = 0.6


class LoadedModel:
    """A decoder with everything its folder says about it. Tokenizer and template are read when first used."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        decoder: Decoder,
        stored_bytes: int,
        weights: Literal["quantized", "expanded", "plain"],
    ) -> None:
        self.folder = folder
        self.config = config
        self.decoder = decoder
        self.stored_bytes = stored_bytes
        self.weights = weights

    @property
    def spec(self) -> ModelSpec:
        return self.decoder.spec

    @property
    def name(self) -> str:
        """A short name, for a title bar."""
        return model_name(self.folder)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        from qwen_mlx.text.tokenizer import Tokenizer

        return Tokenizer.from_folder(self.folder)

    @functools.cached_property
    def template(self) -> ChatTemplate:
        from qwen_mlx.text.template import ChatTemplate

        return ChatTemplate.from_folder(self.folder, model_type=str(self.config.get("model_type")))

    @functools.cached_property
    def generation_config(self) -> dict[str, Any]:
        """`generation_config.json`, or nothing."""
        path = self.folder / "generation_config.json"
        return read_json(path, "the generation settings") if path.exists() else {}

    def info(self) -> ModelInfo:
        """What an interface shows."""
        return ModelInfo(
            name=self.name,
            folder=str(self.folder),
            family=self.spec.family,
            parameters=self.spec.parameters,
            bits=round(8 * self.stored_bytes / self.spec.parameters, 2),
            context=self.spec.max_positions,
            thinking=self.template.thinking,
            backend=device.backend(),
            memory=_nbytes(self.decoder.parameters()),
            tools=self.template.tools,
        )


def load(
    folder: str | Path,
    *,
    weights: WeightForm = "auto",
    config: Mapping[str, Any] | None = None,
    rope_scaling: str | None = None,
) -> LoadedModel:
    """Load the model in `folder`; see `iter_load`."""
    steps = iter_load(folder, weights=weights, config=config, rope_scaling=rope_scaling)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def iter_load(
    folder: str | Path,
    *,
    weights: WeightForm = "auto",
    config: Mapping[str, Any] | None = None,
    rope_scaling: str | None = None,
    cancel: CancelToken | None = None,
) -> Generator[Progress, None, LoadedModel]:
    """Load the model in `folder`, telling how far it is; the generator's return value is the model.

    Args:
        folder: a checkpoint in the hub's or MLX's layout: config.json and safetensors.
        weights: "quantized" keeps packed weights packed, "expanded" unpacks them. "auto" keeps them on a GPU; on a
            CPU it measures which is faster and expands when that is, and the result fits in memory.
        config: keys that replace those of config.json; see `overrides.merge`.
        rope_scaling: for texts longer than the model was trained on, `yarn:4` for example; see
            `overrides.parse_rope_scaling`. Applied after `config`.
        cancel: looked at after every layer.

    Raises:
        NotFound: there is no such folder.
        UnsupportedModel: of another family or storage format.
        CheckpointError: damaged, incomplete or hostile; nothing was changed.
        UsageError: `weights` or `rope_scaling` cannot be meant, or not for this model.
    """
    if weights not in ("auto", "quantized", "expanded"):
        raise UsageError(f"weights={weights!r} is not a form", expected="auto, quantized or expanded")
    cancel = cancel or CancelToken()
    path = model_folder(Path(folder).expanduser().absolute())
    values = read_config(path, config, rope_scaling)
    spec = read_spec(values)
    table = QuantizationTable(values)
    arrays = load_folder_tensors(path)
    cancel.raise_if_cancelled()
    stored_bytes = sum(a.nbytes for name, a in arrays.items() if not is_ignored(name))
    dtype = _run_dtype(arrays)
    packed = any(name.endswith(".scales") for name in arrays)
    expand = packed and _should_expand(spec, arrays, weights, dtype)
    tensors = Tensors(arrays, table, spec.tensor_names)
    arrays.clear()  # so that each packed matrix is freed as soon as it is expanded

    def prepare(matrix: StoredMatrix) -> StoredMatrix:
        return matrix.expand(dtype) if expand else matrix.cast(dtype)

    decoder = Decoder(spec)
    decoder.compute_dtype = dtype
    for done, total in assemble(decoder, tensors, prepare):
        cancel.raise_if_cancelled()
        yield Progress("load", done, total, "layers")
    decoder.eval()
    return LoadedModel(
        path, values, decoder, stored_bytes, "plain" if not packed else "expanded" if expand else "quantized"
    )


def _run_dtype(arrays: Mapping[str, mx.array]) -> mx.Dtype:
    """One floating point type for everything: mixed types would silently promote to float32 on a GPU."""
    floats = {name: a for name, a in arrays.items() if mx.issubdtype(a.dtype, mx.floating)}
    if not floats:
        return device.compute_dtype(mx.float32)
    # The embedding (or its scales) was stored in the type the model was meant to run in.
    main = next((a for name, a in floats.items() if "embed_tokens" in name), next(iter(floats.values())))
    stored = main.dtype
    wanted = device.compute_dtype(stored)
    if wanted == mx.float32 and stored != mx.float32:
        growth = sum(2 * a.nbytes for a in floats.values())
        if growth > _EXPANDED_SHARE * device.memory_available():
            return stored  # slower and less exact on a CPU, but it fits
    return wanted


def _should_expand(spec: ModelSpec, arrays: Mapping[str, mx.array], weights: WeightForm, dtype: mx.Dtype) -> bool:
    if weights != "auto":
        return weights == "expanded"
    if device.backend() != "cpu":
        return False
    if spec.parameters * dtype.size > _EXPANDED_SHARE * device.memory_available():
        return False
    return _expanded_is_faster(arrays, dtype)


def _expanded_is_faster(arrays: Mapping[str, mx.array], dtype: mx.Dtype) -> bool:
    """Time one token through a sample of the model's largest matrix, packed and expanded (some milliseconds).

    Reading a prompt gains far more from expanded weights than decoding does, so a draw goes to them.
    """
    name = max((n for n in arrays if n.endswith(".scales")), key=lambda n: arrays[n].size).removesuffix(".scales")
    weight, scales, biases = (arrays.get(f"{name}.{part}") for part in ("weight", "scales", "biases"))
    assert weight is not None and scales is not None
    if weight.ndim != 2 or scales.ndim != 2 or biases is None:
        return True  # only affine codes have a tuned product on a CPU; assembling reports damage
    rows = min(1024, weight.shape[0])
    # Scales of any sane file fit one of these; a wrong guess of the columns only mistimes.
    for columns in sorted({scales.shape[1] * g for g in (32, 64, 128)}):
        bits, rest = divmod(weight.shape[1] * 32, columns)
        if rest or bits not in (2, 3, 4, 5, 6, 8):
            continue
        group = columns // scales.shape[1]
        w, s, b = (a[:rows].astype(t) for a, t in ((weight, mx.uint32), (scales, dtype), (biases, dtype)))
        plain = mx.dequantize(w, s, b, group_size=group, bits=bits)
        x = mx.ones((1, columns), dtype=dtype)
        mx.eval(w, s, b, plain, x)
        packed_time = _time(mx.quantized_matmul, x, w, s, b, transpose=True, group_size=group, bits=bits)
        plain_time = _time(mx.matmul, x, plain.T)
        return plain_time <= packed_time
    return True


def _time(compute: Callable[..., mx.array], *args: Any, **options: Any) -> float:
    """The shortest of some runs, in seconds."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(compute(*args, **options))
        best = min(best, time.perf_counter() - start)
    return best


def _nbytes(tree: Any) -> int:
    if isinstance(tree, mx.array):
        return tree.nbytes
    values = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    return sum(_nbytes(v) for v in values)
