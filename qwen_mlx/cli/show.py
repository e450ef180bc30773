"""`qwen-mlx show`: what a model is, from its small files and the headers of its weights."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qwen_mlx.cli.options import add_rope_scaling
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.terminal import clean
from qwen_mlx.events import SamplingOptions

if TYPE_CHECKING:
    from qwen_mlx.checkpoints.describe import Description

USAGE = "qwen-mlx show [MODEL] [options]"
DESCRIPTION = "What a model is: sizes, formats, memory, template. Its weights are not loaded."

_SHOWN_TOKENS = 4
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_OFF = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help='folder, repository in the Hugging Face cache, or "demo" (the default)',
    )
    add_rope_scaling(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.checkpoints.describe import describe
    from qwen_mlx.hub.references import default_model, resolve

    facts = describe(resolve(default_model() if args.model is None else args.model), rope_scaling=args.rope_scaling)
    generation = generation_defaults(facts)
    if args.json:
        report = {**facts.as_dictionary(), "generation": generation}
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_table(list(_rows(facts, generation)))))
    return 0


def generation_defaults(facts: Description) -> dict[str, Any]:
    """How the model is sampled when nobody says otherwise: `thinking` and `answering`, and the `end` tokens' ids.

    Raises:
        ConfigError: a value of generation_config.json that cannot be followed.
    """
    from qwen_mlx.generation import defaults

    found: dict[str, Any] = {"thinking": None, "answering": None}
    for name, thinking in (("thinking", True), ("answering", False)):
        if facts.template.thinking != ("never" if thinking else "always"):
            params = defaults.resolve(
                SamplingOptions(seed=0),
                generation_config=facts.generation_config,
                family=facts.family,
                thinking=thinking,
                name=facts.name,
            )
            values = asdict(params)
            found[name] = {key: values[key] for key in (*_SAMPLING, "max_tokens")}
    special = facts.vocabulary.special if facts.vocabulary else {}
    found["end"] = sorted(defaults.stop_ids(facts.generation_config, facts.config, _Tokens(special)))
    return found


@dataclass(frozen=True)
class _Tokens:
    special: Mapping[str, int]

    def token_id(self, text: str, /) -> int | None:
        return self.special.get(text)


# ------------------------------------------------------------------------------------------------ as text


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    """Aligned lines; folded where a person reads them, whole where a program does."""
    width = max(len(name) for name, _ in rows) + 2
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 16
    for name, text in rows:
        lines = textwrap.wrap(clean(text), max(columns - width, 20), break_on_hyphens=False) or [""]
        yield f"{name:<{width}}{lines[0]}"
        yield from (" " * width + line for line in lines[1:])


def _rows(facts: Description, generation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", facts.name
    yield "folder", facts.folder
    yield "family", facts.family if facts.family == facts.model_type else f"{facts.family} ({facts.model_type})"
    yield "parameters", _parameters(facts)
    yield "layers", _layers(facts)
    yield "hidden size", f"{facts.hidden_size:,}" + (", embedding and head tied" if facts.tied else "")
    if (attention := facts.attention) is not None:
        yield (
            "attention",
            f"{attention.heads} query heads and {attention.kv_heads} key/value heads of {attention.head_dim}",
        )
    if (linear := facts.linear) is not None:
        yield (
            "linear",
            f"{linear.value_heads} value heads of {linear.value_dim}, {linear.key_heads} key heads of {linear.key_dim}",
        )
    if facts.intermediate is not None:
        yield "MLP", f"{facts.intermediate:,}"
    if facts.experts is not None:
        yield "experts", _experts(facts)
    yield "files", _files(facts)
    yield (
        "weights",
        f"{facts.bits:g} bits per parameter: " + ", ".join(f"{form.name} ×{form.count}" for form in facts.formats),
    )
    yield "context", _context(facts)
    yield "KV cache", _cache(facts)
    if facts.state_bytes:
        yield "states", f"{format_bytes(facts.state_bytes)} per conversation"
    yield "memory", _memory(facts)
    yield "vocabulary", _vocabulary(facts)
    tools = "tools" if facts.template.tools else "no tools"
    origin = facts.template.origin.removeprefix("the chat template in ")
    yield "template", f"{origin}; thinking: {facts.template.thinking}; {tools}"
    sampling = {
        mode: _sampling(generation[mode], facts.context.length)
        for mode in ("answering", "thinking")
        if generation[mode] is not None
    }
    yield "sampling", next(iter(sampling.values()))
    if len(set(sampling.values())) == 2:
        yield "  thinking", sampling["thinking"]
    yield "ends with", _ends(facts, generation["end"])


def _parameters(facts: Description) -> str:
    text = _count(facts.parameters)
    if facts.active_parameters != facts.parameters:
        text += f", {_count(facts.active_parameters)} active"
    return text


def _count(number: int) -> str:
    """`8.19 B`, `596 M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _layers(facts: Description) -> str:
    names = {
        "full": "full attention",
        "window": f"attention with a window of {facts.window}",
        "linear": "linear attention (Gated DeltaNet)",
        "dual chunk": "dual chunk attention",
    }
    kinds = [f"{count} {names[kind]}" for kind, count in facts.layers.items()]
    total = sum(facts.layers.values())
    return kinds[0] if len(kinds) == 1 else f"{total}: {', '.join(kinds)}"


def _experts(facts: Description) -> str:
    experts = facts.experts
    assert experts is not None
    text = f"{experts.experts} of {experts.intermediate:,}, {experts.experts_per_token} per token"
    if experts.shared_intermediate is not None:
        text += f", and a shared one of {experts.shared_intermediate:,}"
    total = sum(facts.layers.values())
    return text if facts.sparse_layers == total else f"{text}, in {facts.sparse_layers} of {total} layers"


def _files(facts: Description) -> str:
    count = len(facts.files)
    text = f"{count} file{'s' if count > 1 else ''}, {format_bytes(sum(facts.files.values()))}"
    return f"{text}, {format_bytes(facts.ignored_bytes)} of it not used" if facts.ignored_bytes else text


def _context(facts: Description) -> str:
    context = facts.context
    text = f"{context.length:,} tokens"
    if context.scaling == "default":
        return f"{text}, rope theta {context.rope_theta:,.0f}"
    if context.scaling in ("dual chunk", "qwen1"):
        how = "Dual Chunk Attention" if context.scaling == "dual chunk" else "the first Qwen's own stretching"
        return f"{text}, by {how} from {context.trained:,}"
    return f"{text}, by {context.scaling} ×{context.factor:g} from {context.trained:,}"


def _cache(facts: Description) -> str:
    half, full = (format_bytes(facts.cache_bytes_per_token[name]) for name in ("float16", "float32"))
    text = f"{half} per token in 16 bits, {full} in 32 bits"
    return text + (", layers with a window not counted" if "window" in facts.layers else "")


def _memory(facts: Description) -> str:
    parts = [f"{format_bytes(memory.total)} at {memory.context:,}" for memory in facts.memory]
    return f"{', '.join(parts)} tokens (weights as stored, cache in {facts.dtype})"


def _vocabulary(facts: Description) -> str:
    rows = f"{facts.embedding_rows:,} rows"
    if facts.vocabulary is None:
        return f"{rows}; no tokenizer in the folder"
    special = list(facts.vocabulary.special)
    names = " ".join(special[:_SHOWN_TOKENS]) + (" ..." if len(special) > _SHOWN_TOKENS else "")
    return f"{facts.vocabulary.tokens:,} tokens in {rows}, {len(special)} special: {names}".rstrip(": ")


def _sampling(params: Mapping[str, Any], context: int) -> str:
    if params["temperature"] == 0:
        parts = ["greedy"]
    else:
        parts = [f"temperature {params['temperature']:g}"]
    for name in _SAMPLING[1:]:
        if params[name] != _OFF.get(name, 0.0) and (params["temperature"] or name.endswith("penalty")):
            parts.append(f"{name.replace('_', '-')} {params[name]:g}")
    if params["max_tokens"] < context:
        parts.append(f"at most {params['max_tokens']:,} tokens")
    return ", ".join(parts)


def _ends(facts: Description, ids: list[int]) -> str:
    names = {number: text for text, number in facts.vocabulary.special.items()} if facts.vocabulary else {}
    return " ".join(names.get(number, str(number)) for number in ids) or "nothing but its length"
