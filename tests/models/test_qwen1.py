"""What only the first Qwen does: a rope that the length of the prompt decides, and how caches cope with it."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.generation.generate import Token, generate
from qwen_mlx.generation.prefix_cache import PrefixCache
from qwen_mlx.generation.sampling import SamplingParams
from qwen_mlx.models.rope import qwen1_theta
from qwen_mlx.models.spec import RopeSpec
from tests.models import tiny

import mlx.core as mx  # isort: skip

CONFIG: dict[str, Any] = {
    "model_type": "qwen",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "intermediate_size": 128,
    "vocab_size": 97,
    "seq_length": 16,
    "max_position_embeddings": 512,
    "layer_norm_epsilon": 1e-6,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "no_bias": True,
    "tie_word_embeddings": False,
}
MODEL = tiny.decoder(CONFIG)


def ids(length: int) -> list[int]:
    return mx.random.randint(0, 97, (length,), key=mx.random.key(length)).tolist()  # type: ignore[return-value]


def reply(prompt: list[int], cache: Any = None) -> list[int]:
    params = SamplingParams(temperature=0.0, max_tokens=4)
    return [e.id for e in generate(MODEL, prompt, params, cache=cache) if isinstance(e, Token)]


@pytest.mark.parametrize(("prompt", "alpha"), [(1, 1), (16, 1), (17, 3), (32, 3), (33, 7), (64, 7), (65, 15)])
def test_whole_doublings_count(prompt: int, alpha: int) -> None:
    rope = RopeSpec(16, 10000.0, "qwen1", max_positions=16)
    assert qwen1_theta(rope, prompt) == pytest.approx(10000.0 * alpha ** (16 / 14))


def test_a_prompt_in_pieces_is_stretched_by_its_whole_length(monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen_mlx.generation import generate as module

    prompt = ids(60)
    whole = reply(prompt)
    for name in ("_FIRST_PIECE", "_SMALLEST_PIECE", "_LARGEST_PIECE"):
        monkeypatch.setattr(module, name, 7)
    assert reply(prompt) == whole


def test_a_turn_that_needs_another_stretch_is_read_anew() -> None:
    store = PrefixCache(MODEL, 1 << 30)
    first = ids(20)
    prefix = store.take("a", first)
    answer = reply(first, prefix.caches)
    store.put("a", prefix, first + answer)
    near = [*first, *answer, 5]  # still within 32: the cache serves
    prefix = store.take("a", near)
    assert prefix.caches[0].offset > 0
    answer2 = reply(near, prefix.caches)
    assert answer2 == reply(near)
    store.put("a", prefix, near + answer2)
    far = near + ids(40)
    prefix = store.take("a", far)
    assert prefix.caches[0].offset == 0
    assert reply(far, prefix.caches) == reply(far)
