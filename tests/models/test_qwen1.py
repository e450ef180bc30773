"""What only the first Qwen does: a rope that the length of the prompt decides, and how caches cope with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qwen_mlx.generation.generate import Token, generate
from qwen_mlx.generation.prefix_cache import PrefixCache
from qwen_mlx.generation.sampling import SamplingParams
from qwen_mlx.models import Decoder, read_spec
from qwen_mlx.models.rope import qwen1_theta
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, RopeSpec
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


# ------------------------------------------------------------------------------------------------------------- windows
# The report describes shorter windows in lower layers; the released code has none. The spec can say it.


def windowed(windows: list[int | None], parameters: Any) -> Decoder:
    spec = read_spec(CONFIG | {"num_hidden_layers": len(windows), "use_dynamic_ntk": False, "use_logn_attn": False})
    layers = []
    for layer, window in zip(spec.layers, windows):
        assert isinstance(layer.mixer, AttentionSpec)
        layers.append(LayerSpec(replace(layer.mixer, window=window), layer.mlp))
    model = Decoder(replace(spec, layers=tuple(layers)))
    model.update(parameters)
    return model


def masked(model: Decoder, text: mx.array, windows: list[int | None]) -> mx.array:
    """The same with one explicit mask per layer, and attention written out."""
    length = text.shape[1]
    apart = mx.arange(length)[:, None] - mx.arange(length)[None]
    x = model.embed_tokens(text)
    for layer, window in zip(model.layers, windows):
        visible = (apart >= 0) & (apart < (window or length))
        q, k, v = (
            part.reshape(1, length, 4, 16).transpose(0, 2, 1, 3)
            for part in layer.self_attn.qkv_proj(layer.input_layernorm(x))
        )
        q, k = (mx.fast.rope(t, 16, traditional=False, base=10000.0, scale=1.0, offset=0) for t in (q, k))
        scores = mx.where(visible, q @ k.swapaxes(-1, -2) / 4.0, -float("inf"))
        y = mx.softmax(scores, axis=-1) @ v
        x = x + layer.self_attn.o_proj(y.transpose(0, 2, 1, 3).reshape(1, length, 64))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.logits(model.norm(x))


@pytest.mark.parametrize("windows", [[4, None], [4, 9], [None, 3], [1, 1]])
def test_windows_by_layer_as_the_report_describes_them(windows: list[int | None]) -> None:
    model = windowed(windows, MODEL.parameters())
    text = mx.array([ids(40)])
    expected = masked(model, text, windows)
    assert mx.allclose(model(text), expected, atol=1e-4)
    cache = model.make_cache()
    steps = [model(text[:, :7], cache=cache)] + [model(text[:, i : i + 1], cache=cache) for i in range(7, 40)]
    assert mx.allclose(mx.concatenate(steps, axis=1), expected, atol=1e-4)
