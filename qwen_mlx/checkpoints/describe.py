"""What a model folder says about its model: sizes, formats, memory, template. No weights are loaded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_mlx.checkpoints.assemble import QuantizationTable, is_ignored
from qwen_mlx.checkpoints.config import read_config
from qwen_mlx.checkpoints.folder import find_weights, model_folder, model_name, read_json
from qwen_mlx.checkpoints.inventory import Format, find_formats
from qwen_mlx.checkpoints.safetensors import Header, TensorInfo, check_types
from qwen_mlx.errors import TemplateError
from qwen_mlx.models import ModelSpec, read_spec
from qwen_mlx.models.spec import AttentionSpec, DeltaNetSpec, MLPSpec, MoESpec
from qwen_mlx.text import tokenizer_files
from qwen_mlx.text.template import ChatTemplate

# Lengths people ask about, beside the longest one.
_CONTEXTS = (4096, 32768)
_TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt", "qwen.tiktoken")
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True)
class Context:
    """How long a text may be, in tokens, and why.

    Attributes:
        length: the longest text.
        scaling: "default", "linear", "dynamic", "yarn", "qwen1" (the first Qwen's own), or "dual chunk".
        factor: of the scaling, 1 where it has none.
        trained: length that is stretched; `length` where nothing is.
        rope_theta: base of the rope.
        rotated: channels of a head that are rotated.
    """

    length: int
    scaling: str
    factor: float
    trained: int
    rope_theta: float
    rotated: int


@dataclass(frozen=True)
class Memory:
    """Bytes for a text of `context` tokens: weights as they are stored, and caches in `dtype`."""

    context: int
    weights: int
    cache: int
    dtype: str

    @property
    def total(self) -> int:
        return self.weights + self.cache


@dataclass(frozen=True)
class Vocabulary:
    """`tokens` is one more than the largest id; the embedding of a model often has more rows.

    `special` are the control tokens with their ids, in the order of the ids.
    """

    tokens: int
    special: Mapping[str, int]


@dataclass(frozen=True)
class Template:
    """`origin` says where the chat template was found; `thinking` is "optional", "always" or "never"."""

    origin: str
    thinking: str
    tools: bool


@dataclass(frozen=True)
class Description:
    """All facts about one model.

    Attributes:
        layers: number of layers by kind of mixer: "full", "window", "linear" and "dual chunk".
        window: tokens a sliding layer sees.
        attention: of the first layer that has one; likewise `linear`.
        intermediate: of the dense MLP, None where every layer has experts.
        experts: None for a dense model.
        sparse_layers: number of layers with experts.
        files: name -> bytes on disk.
        tensor_bytes: bytes of the tensors that are used; `ignored_bytes` of those that are not (vision, ...).
        bits: stored bits per parameter.
        cache_bytes_per_token: by type; layers with a window or a state do not grow.
        state_bytes: bytes of all DeltaNet states of one text, however long.
        embedding_rows: `vocab_size` of the configuration.
        vocabulary: None without a tokenizer.
        generation_config: as in the file, empty without one.
    """

    name: str
    folder: str
    family: str
    model_type: str
    parameters: int
    active_parameters: int
    hidden_size: int
    layers: Mapping[str, int]
    window: int | None
    attention: AttentionSpec | None
    linear: DeltaNetSpec | None
    intermediate: int | None
    experts: MoESpec | None
    sparse_layers: int
    tied: bool
    files: Mapping[str, int]
    tensor_bytes: int
    ignored_bytes: int
    bits: float
    dtype: str
    formats: tuple[Format, ...]
    context: Context
    cache_bytes_per_token: Mapping[str, int]
    state_bytes: int
    memory: tuple[Memory, ...]
    embedding_rows: int
    vocabulary: Vocabulary | None
    template: Template
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]

    def as_dictionary(self) -> dict[str, Any]:
        """Plain values; without the configuration, which is a file of its own."""
        values = dataclasses.asdict(self)
        del values["config"]
        for memory, own in zip(values["memory"], self.memory):
            memory["total"] = own.total
        return values


def describe(
    folder: str | Path, *, config: Mapping[str, Any] | None = None, rope_scaling: str | None = None
) -> Description:
    """Read everything but the weights of a model folder.

    Args:
        config, rope_scaling: as for `load`.

    Raises:
        NotFound, CheckpointError, UsageError: as `load`, for what can be seen without the weights.
        TokenizerError, TemplateError: a damaged tokenizer or chat template; a missing one is no error.
    """
    path = model_folder(Path(folder).expanduser().absolute())
    values = read_config(path, config, rope_scaling)
    spec = read_spec(values)
    headers = find_weights(path).headers()
    tensors, ignored = _used(headers, spec)
    formats = find_formats(spec, tensors, QuantizationTable(values))
    tensor_bytes = sum(tensor.nbytes for tensor in tensors.values())
    dtype = _run_type(tensors)
    generation = path / "generation_config.json"
    mixers = [layer.mixer for layer in spec.layers]
    mlps = [layer.mlp for layer in spec.layers]
    model_type = str(values.get("model_type"))
    return Description(
        name=model_name(path),
        folder=str(path),
        family=spec.family,
        model_type=model_type,
        parameters=spec.parameters,
        active_parameters=spec.active_parameters,
        hidden_size=spec.hidden_size,
        layers=dict(Counter(map(_kind, mixers))),
        window=next((m.window for m in mixers if isinstance(m, AttentionSpec) and m.window), None),
        attention=next((m for m in mixers if isinstance(m, AttentionSpec)), None),
        linear=next((m for m in mixers if isinstance(m, DeltaNetSpec)), None),
        intermediate=next((m.intermediate for m in mlps if isinstance(m, MLPSpec)), None),
        experts=next((m for m in mlps if isinstance(m, MoESpec)), None),
        sparse_layers=sum(isinstance(m, MoESpec) for m in mlps),
        tied=spec.tied,
        files={file.name: header.file_size for file, header in headers.items()},
        tensor_bytes=tensor_bytes,
        ignored_bytes=ignored,
        bits=round(8 * tensor_bytes / spec.parameters, 2),
        dtype=dtype,
        formats=formats,
        context=_context(spec),
        cache_bytes_per_token={"float16": spec.cache_bytes_per_token(2), "float32": spec.cache_bytes_per_token(4)},
        state_bytes=sum(m.state_bytes(_SIZES[dtype]) for m in mixers if isinstance(m, DeltaNetSpec)),
        memory=tuple(
            Memory(length, tensor_bytes, spec.cache_bytes(length, _SIZES[dtype]), dtype)
            for length in sorted({*_CONTEXTS, spec.max_positions})
            if length <= spec.max_positions
        ),
        embedding_rows=spec.vocab_size,
        vocabulary=_vocabulary(path, model_type),
        template=_template(path, model_type),
        config=values,
        generation_config=read_json(generation, "the generation settings") if generation.exists() else {},
    )


_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4}


def _used(headers: Mapping[Path, Header], spec: ModelSpec) -> tuple[dict[str, TensorInfo], int]:
    """The tensors that are read when the model is loaded, and the bytes of all others."""
    used: dict[str, TensorInfo] = {}
    ignored = 0
    for path, header in headers.items():
        check_types(path, header)
        for name, tensor in header.tensors.items():
            if is_ignored(name) or (spec.tied and "lm_head" in name.split(".")):
                ignored += tensor.nbytes
            else:
                used[name] = tensor
    return used, ignored


def _run_type(tensors: Mapping[str, TensorInfo]) -> str:
    """The type a GPU computes in: that of the embedding or its scales; see `load`."""
    names = {"F16": "float16", "BF16": "bfloat16"}
    floats = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype in ("F16", "BF16", "F32")}
    main = next((kind for name, kind in floats.items() if "embed_tokens" in name), next(iter(floats.values()), ""))
    return names.get(main, "float32")


def _kind(mixer: AttentionSpec | DeltaNetSpec) -> str:
    if isinstance(mixer, DeltaNetSpec):
        return "linear"
    if mixer.dual_chunk is not None:
        return "dual chunk"
    return "full" if mixer.window is None else "window"


def _context(spec: ModelSpec) -> Context:
    mixer = next((layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionSpec)), None)
    if mixer is None:
        return Context(spec.max_positions, "default", 1.0, spec.max_positions, 0.0, 0)
    rope, scaling, trained = mixer.rope, str(mixer.rope.type), spec.max_positions
    if scaling in ("yarn", "linear"):
        trained = rope.original_max_positions or int(spec.max_positions / rope.factor)
    elif scaling in ("dynamic", "qwen1"):
        trained = rope.max_positions
    if mixer.dual_chunk is not None:
        scaling, trained = "dual chunk", mixer.dual_chunk.original_max_positions or mixer.dual_chunk.chunk_size
    return Context(spec.max_positions, scaling, rope.factor, trained, rope.theta, rope.dims)


def _vocabulary(folder: Path, model_type: str) -> Vocabulary | None:
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return None
    description = tokenizer_files.describe(folder, model_type)
    added = {token["content"]: token["id"] for token in description["added_tokens"]}
    vocabulary = description["model"].get("vocab")
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary or ()))
    special = {token["content"] for token in description["added_tokens"] if token["special"]}
    ordered = sorted((number, text) for text, number in added.items() if text in special)
    return Vocabulary(max([*ids, *added.values()], default=-1) + 1, {text: number for number, text in ordered})


def _template(folder: Path, model_type: str) -> Template:
    template = ChatTemplate.from_folder(folder, model_type=model_type)
    origin = template.origin.replace(f"{folder}/", "")
    return Template(origin, template.thinking, _knows_tools(template))


def _knows_tools(template: ChatTemplate) -> bool:
    """Whether a tool that is offered reaches the prompt."""
    try:
        prompt = template.render([{"role": "user", "content": "?"}], tools=[_TOOL])
    except TemplateError:
        return False
    return _TOOL["function"]["name"] in prompt  # type: ignore[index]
