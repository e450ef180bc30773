"""How many kernels one decoded token launches on a Metal device, and how many bytes it moves.

Ours, mlx-lm's, and the least. Counted in the graph of the model itself, so it works without a GPU. Run as
`python -m qwen_mlx.evaluation.launches '<json of Question>'` this module answers one question and prints one JSON line;
`launch_capture.like_metal` says why that is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation import random_model

if TYPE_CHECKING:
    from qwen_mlx.evaluation.launch_rules import Cost

_EXPERTS_30B: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "tie_word_embeddings": False,
    "num_experts": 128,
    "moe_intermediate_size": 768,
}
_NEXT_80B: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "intermediate_size": 5120,
    "tie_word_embeddings": False,
    "linear_num_value_heads": 32,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "moe_intermediate_size": 512,
}
# A name people know -> family and shape of `random_model`, and what is different in the published config.json.
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Qwen3-0.6B": ("qwen3", "0.6b", {}),
    "Qwen3-8B": ("qwen3", "8b", {}),
    "Qwen3-30B-A3B": ("qwen3_moe", "0.6b", _EXPERTS_30B),
    "Qwen3-Next-80B-A3B": ("qwen3_next", "0.6b", _NEXT_80B),
}
_SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.0}
_ROOM = 96  # tokens that the cache can still take


@dataclass(frozen=True)
class Question:
    """What to count.

    Attributes:
        model: a name of `PUBLISHED`, in 4 bits, or a folder.
        context: tokens in the cache.
        kv_bits: None, or "8" or "4" for a quantized cache.
        peer: count mlx-lm's model too.
    """

    model: str
    context: int = 4000
    kv_bits: str | None = None
    peer: bool = True


@dataclass(frozen=True)
class Count:
    """What one decoding step of a model costs.

    Attributes:
        layers: launches of each layer of one period of the model: one, or four where linear attention is mixed in;
            empty for a model of less than two periods.
        launches: of the whole step, logits included, sampling not.
        independent: more launches that wait for nothing.
        moved, least: bytes read and written, and bytes of weights and cache that a token cannot do without.
        sampling: launches from logits to the next token, with top-k 20 and top-p 0.8.
        by_name: launches of the whole step by operation.
        unlisted: operations counted as one launch because nobody looked them up.
    """

    engine: str
    layers: tuple[int, ...]
    launches: int
    independent: int
    moved: int
    least: int
    sampling: int
    by_name: dict[str, int]
    unlisted: tuple[str, ...]


def count(question: Question) -> list[Count]:
    """Ours, and mlx-lm's where that was asked for, is installed, and has such a model. Takes some seconds.

    Raises:
        QwenError: with the last line of what the counting process said.
    """
    command = [sys.executable, "-m", "qwen_mlx.evaluation.launches", json.dumps(asdict(question))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise QwenError(f"counting failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    return [Count(**{**a, "layers": tuple(a["layers"]), "unlisted": tuple(a["unlisted"])}) for a in answers]


def published_config(name: str) -> dict[str, Any]:
    """The `config.json` of a model of `PUBLISHED`, in 4 bits."""
    family, shape, changes = PUBLISHED[name]
    values = random_model.config(family, shape, 4) | changes
    table = values["quantization"]
    for layer in range(values["num_hidden_layers"] if "num_experts" in values else 0):
        for router in ("gate", "shared_expert_gate"):
            table[f"model.layers.{layer}.mlp.{router}"] = {"group_size": 64, "bits": random_model.ROUTER_BITS}
    return values


def _answer(question: Question) -> list[Count]:
    """Count, in this process, which can do nothing else any more."""
    from qwen_mlx.evaluation.launch_capture import like_metal

    with like_metal():
        counts = [_ours(question)]
        if question.peer and find_spec("mlx_lm") is not None:
            counts.append(_theirs(question))
        return counts


def _ours(question: Question) -> Count:
    import mlx.core as mx

    from qwen_mlx.generation.sampling import SamplingParams, make_sampler

    decoder = _decoder(question.model)
    layers = decoder.layers

    def costs(number: int) -> Cost:
        decoder.layers = layers[:number]
        cache = decoder.make_cache(kv_bits=question.kv_bits)[:number]
        for layer in cache:
            layer.reserve(question.context + _ROOM)
        return _step_cost(
            lambda ids: decoder.logits(decoder.hidden_states(ids, cache)[:, -1]), decoder, cache, question
        )

    hybrid = any(hasattr(layer, "linear_attn") for layer in layers)
    logits = mx.zeros((1, decoder.spec.vocab_size), mx.bfloat16)
    return _count("qwen-mlx", costs, len(layers), hybrid, make_sampler(SamplingParams(**_SAMPLING)), logits)


def _decoder(model: str) -> Any:
    """Our decoder: of a folder with its weights, of a published shape without."""
    if model not in PUBLISHED:
        from qwen_mlx.checkpoints.load import load

        return load(model, weights="quantized").decoder
    from qwen_mlx.models import Decoder, read_spec

    values = published_config(model)
    decoder = Decoder(read_spec({key: value for key, value in values.items() if key != "quantization"}))
    random_model.fill_with_zeros(decoder, values["quantization"]["bits"])
    decoder.eval()
    return decoder


def _theirs(question: Question) -> Count:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm import utils
    from mlx_lm.models import cache as caches
    from mlx_lm.sample_utils import make_sampler

    if question.model in PUBLISHED:
        values = published_config(question.model)
        table = values["quantization"]
        model_class, arguments = utils._get_classes(values)
        model = model_class(arguments.from_dict(values))
        model.set_dtype(mx.bfloat16)
        nn.quantize(
            model,
            table["group_size"],
            table["bits"],
            class_predicate=lambda path, module: table.get(path, hasattr(module, "to_quantized")),
        )
    else:
        model, values = utils.load_model(Path(question.model), lazy=True)
    model.eval()  # in training it takes a slower way through linear attention
    inner = (model.language_model if hasattr(model, "language_model") else model).model
    layers = inner.layers

    def costs(number: int) -> Cost:
        inner.layers = layers[:number]
        cache = caches.make_prompt_cache(model)[:number]
        if question.kv_bits is not None:
            cache = [
                caches.QuantizedKVCache(64, int(question.kv_bits)) if isinstance(c, caches.KVCache) else c
                for c in cache
            ]
        return _step_cost(lambda ids: model(ids, cache=cache)[:, -1], model, cache, question)

    def sample(logits: mx.array) -> mx.array:
        s = _SAMPLING
        sampler = make_sampler(temp=s["temperature"], top_k=s["top_k"], top_p=s["top_p"], min_p=s["min_p"])
        return sampler(logits - mx.logsumexp(logits, keepdims=True))

    logits = mx.zeros((1, values.get("vocab_size") or values["text_config"]["vocab_size"]), mx.bfloat16)
    hybrid = any(getattr(layer, "is_linear", False) for layer in layers)
    return _count("mlx-lm", costs, len(layers), hybrid, sample, logits)


def _step_cost(step: Callable[..., Any], model: Any, cache: Sequence[Any], question: Question) -> Cost:
    import mlx.core as mx

    from qwen_mlx.evaluation.launch_capture import fill, record
    from qwen_mlx.evaluation.launch_rules import cost

    fill(step, model, mx.zeros((1, question.context), mx.int32), cache)
    return cost(record(step, model, mx.zeros((1, 1), mx.int32), cache))


def _count(
    engine: str, costs: Callable[[int], Cost], layers: int, hybrid: bool, sample: Callable[..., Any], logits: Any
) -> Count:
    """Put together what `costs` says of the model with its first n layers."""
    import mlx.core as mx
    import mlx.nn as nn

    from qwen_mlx.evaluation.launch_capture import record
    from qwen_mlx.evaluation.launch_rules import cost

    mx.random.seed(0)  # and not what drawing initial weights has left of MLX's random state
    whole = costs(layers)
    period = 4 if hybrid else 1
    single: tuple[int, ...] = ()
    if layers >= 2 * period:
        launches = [costs(number).launches for number in range(period, 2 * period + 1)]
        single = tuple(b - a for a, b in itertools.pairwise(launches))
    return Count(
        engine=engine,
        layers=single,
        launches=whole.launches,
        independent=whole.independent,
        moved=whole.moved,
        least=whole.least,
        sampling=cost(record(sample, nn.Module(), logits)).launches,
        by_name=dict(whole.by_name.most_common()),
        unlisted=tuple(sorted(whole.unlisted)),
    )


def main(argv: Sequence[str]) -> None:
    counts = _answer(Question(**json.loads(argv[1])))
    sys.stdout.write("\n" + json.dumps([asdict(one) for one in counts]) + "\n")


if __name__ == "__main__":
    try:
        main(sys.argv)
    except QwenError as error:
        sys.exit(f"error: {error}")
