"""Tiny models decode with every kernel simulated, and write what they write without; kernels that fail are left out."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from qwen_mlx.kernels.catalogue import all_kernels
from qwen_mlx.kernels.quantized_kv_attention import ATTEND, quantized_kv_attention
from qwen_mlx.models import Decoder
from tests.kernels.harness import needs_simulator
from tests.kernels.test_quantized_kv_attention import case
from tests.metalsim.simulated import simulated_kernels
from tests.models import tiny

import mlx.core as mx  # isort: skip

CHUNKED = tiny.QWEN2 | {"dual_chunk_attention_config": {"chunk_size": 16, "local_size": 4}}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": tiny.QWEN3,
    "qwen3_moe": tiny.QWEN3_MOE,
    "qwen2, dual chunks": CHUNKED,
}
MODELS = {name: tiny.decoder(config) for name, config in CONFIGS.items()}


def greedy(model: Decoder, kv_bits: str | None, count: int) -> list[int]:
    """The first `count` tokens after a short prompt."""
    cache = model.make_cache(kv_bits=kv_bits)
    token = mx.argmax(model(mx.array([[3, 17, 60, 5, 5, 90, 41, 8, 22, 70, 1, 33]]), cache=cache)[:, -1:], axis=-1)
    tokens = []
    for _ in range(count):
        tokens.append(int(token.item()))
        token = mx.argmax(model(token, cache=cache)[:, -1:], axis=-1)
    return tokens


@needs_simulator
@pytest.mark.parametrize(
    ("name", "kv_bits"),
    [
        ("qwen3", None),
        ("qwen3", "8"),
        ("qwen3", "4"),
        ("qwen3_moe", None),
        ("qwen3_moe", "8"),
        ("qwen2, dual chunks", None),
        ("qwen2, dual chunks", "8/4"),
    ],
)
def test_every_kernel_simulated_writes_the_same(
    name: str, kv_bits: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = set()
    for kernel in all_kernels().values():

        def run(*arrays: mx.array, _name: str = kernel.name, _run: Any = kernel.run, **options: Any) -> Any:
            launched.add(_name)
            return _run(*arrays, **options)

        monkeypatch.setattr(kernel, "run", run)
        kernel._differentiable.cache_clear()
    expected = greedy(MODELS[name], kv_bits, 32)
    assert not launched
    with simulated_kernels(checked=False):
        found = greedy(MODELS[name], kv_bits, 32)
    for kernel in all_kernels().values():
        kernel._differentiable.cache_clear()
    assert found == expected
    if kv_bits is None:
        assert "qk_norm_rope" in launched
    else:
        assert {"qk_norm_rope_pack", "quantized_kv_attention", "quantized_kv_dequantize"} <= launched
        assert "qk_norm_rope" not in launched
    assert ("router_topk" in launched) == (name == "qwen3_moe")


# ------------------------------------------------------------------------------------- when a kernel may not run


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has never run the kernel."""
    monkeypatch.setattr(quantized_kv_attention, "_proved", {})


@needs_simulator
@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("weight_sum[r] * keep[r] + weight[r]", "weight_sum[r] * keep[r]"), "differs by"),
        (("int slice = ", "int slize = "), "undeclared identifier"),
    ],
)
def test_a_kernel_that_fails_is_left_out_with_one_line(
    mistake: tuple[str, str],
    said: str,
    unproved: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(ATTEND.__dict__, "source", ATTEND.source.replace(*mistake))
    monkeypatch.setattr(ATTEND, "_built", None)
    arrays, options = case(64, (8, 8), 2)
    expected = quantized_kv_attention.reference(*arrays, **options)
    with caplog.at_level(logging.INFO, "qwen_mlx.kernels"), simulated_kernels():
        for _ in range(3):
            found = quantized_kv_attention(*arrays, **options)
    assert all(mx.array_equal(a, b) for a, b in zip(found, expected))
    assert len(caplog.messages) == 1
    assert "quantized_kv_attention" in caplog.text
    assert said in caplog.text
    assert "plain MLX" in caplog.text


@needs_simulator
@pytest.mark.parametrize(
    ("wish", "runs"),
    [("off", False), ("", True), ("all", True), ("quantized_kv_attention", True), ("qk_norm_rope", False)],
)
def test_a_person_may_turn_it_off(wish: str, runs: bool, unproved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_MLX_KERNELS", wish)
    arrays, options = case(64, (8, 8), 2)
    with simulated_kernels():
        assert quantized_kv_attention.runs(*arrays, **options) is runs
    assert not quantized_kv_attention.runs(*arrays, **options)  # no GPU here
