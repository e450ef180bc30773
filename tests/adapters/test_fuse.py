"""Fusing: the new model computes what base and adapters did, and a loss is told before anything is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen_mlx.adapters import AdapterConfig, attach, load_adapter, save_adapter, set_mix
from qwen_mlx.adapters.fuse import fuse, iter_fuse
from qwen_mlx.adapters.retention import is_enough, retention
from qwen_mlx.checkpoints.load import load
from qwen_mlx.checkpoints.quantize import iter_quantize
from qwen_mlx.errors import Cancelled, QwenError, UsageError
from qwen_mlx.events import CancelToken, ConversionPlanned, FuseAdapter, Fused, Notice, QuantizeModel
from tests.adapters.recorded import Recorded
from tests.adapters.tools import IDS, shake
from tests.checkpoints import originals

import mlx.core as mx  # isort: skip

ONE = (("unused", 1.0),)


def adapter_of(model: Path, folder: Path, config: AdapterConfig, size: float = 0.1, seed: int = 3) -> str:
    decoder = load(model).decoder
    attach(decoder, config)
    shake(decoder, size=size, seed=seed)
    return str(save_adapter(decoder, folder))


def wanted(model: Path, *adapters: tuple[str, float]) -> mx.array:
    decoder = load(model).decoder
    for i, (folder, _) in enumerate(adapters):
        load_adapter(decoder, folder, str(i))
    set_mix(decoder, {str(i): weight for i, (_, weight) in enumerate(adapters)})
    return decoder(IDS)


def packed(model: Path, target: Path, bits: int = 4) -> Path:
    list(iter_quantize(QuantizeModel(str(model), str(target), bits=bits, group_size=32, rounding="mlx")))
    return target


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3", "qwen3_next", "qwen3_5", "qwen3_5_moe"])
def test_a_fused_model_computes_the_same(family: str, method: str, tmp_path: Path) -> None:
    """In float32 up to its rounding, from a plain and from a packed base; and mlx-lm's programs can load it."""
    source = originals.save(tmp_path / "base", originals.CONFIGS[family])
    if method == "lora":
        source = packed(source, tmp_path / "packed")
    adapter = adapter_of(source, tmp_path / "adapter", AdapterConfig(method, 3, modules_to_save=("lm_head",)))
    job = FuseAdapter(str(source), str(tmp_path / "fused"), ((adapter, 1.0),), dtype="float32")
    events = list(iter_fuse(job))
    assert isinstance(events[0], ConversionPlanned) and events[0].bits_after > 31.9
    last = events[-1]
    assert isinstance(last, Fused) and last.retention is not None and last.files == 1
    assert last.retention.cosine > 0.999999 and last.retention.same_top == 1 and last.retention.change > 0.1
    again = load(tmp_path / "fused")
    expected = wanted(source, (adapter, 1.0))
    assert mx.abs(again.decoder(IDS) - expected).max().item() < 2e-4
    utils = pytest.importorskip("mlx_lm.utils")
    model, _ = utils.load_model(tmp_path / "fused")
    assert mx.abs(model(IDS) - expected).max().item() < 2e-3


def test_weights_are_rounded_once_to_the_base_s_type(tmp_path: Path) -> None:
    """bfloat16(float32 sum), to the bit, for a LoRA and what it leaves alone."""
    source = originals.save(tmp_path / "base", originals.CONFIGS["qwen3"])
    adapter = adapter_of(source, tmp_path / "adapter", AdapterConfig(rank=2, alpha=3, targets=("o_proj",), layers=(1,)))
    fuse(FuseAdapter(str(source), str(tmp_path / "fused"), ((adapter, 0.5),)))
    before = mx.load(str(source / "model.safetensors"))
    after = mx.load(str(tmp_path / "fused" / "model.safetensors"))
    key = "base_model.model.model.layers.1.self_attn.o_proj.lora_{}.weight"
    a, b = (mx.load(f"{adapter}/adapter_model.safetensors")[key.format(one)] for one in "AB")
    for name, array in after.items():
        if name == "model.layers.1.self_attn.o_proj.weight":
            total = before[name].astype(mx.float32) + 0.5 * (1.5 * (b @ a))
            assert mx.array_equal(array, total.astype(mx.bfloat16)) and not mx.array_equal(array, before[name])
        else:
            assert array.dtype == mx.bfloat16 and mx.array_equal(array, before[name]), name


@pytest.mark.parametrize("name", ["qwen3_whole_embedding", "qwen3_whole_head", "qwen3_whole_tied", "qwen2_whole"])
def test_embedding_and_head_that_are_no_longer_one(name: str, tmp_path: Path) -> None:
    recorded = Recorded(name)
    recorded.decoder(tmp_path)
    adapter = recorded.folder(tmp_path / "adapter")
    fuse(FuseAdapter(str(tmp_path / "model"), str(tmp_path / "fused"), ((str(adapter), 1.0),)))
    again = load(tmp_path / "fused")
    assert again.spec.tied is (name == "qwen3_whole_tied")
    np.testing.assert_allclose(np.array(again.decoder(recorded.ids)), recorded.arrays["merged"], rtol=1e-4, atol=1e-4)


def test_several_adapters_with_weights(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "base", originals.CONFIGS["qwen3_moe"])
    first = adapter_of(source, tmp_path / "a", AdapterConfig(rank=2, modules_to_save=("embed_tokens",)), seed=1)
    second = adapter_of(source, tmp_path / "b", AdapterConfig("dora", 3), seed=2)
    both = ((first, 0.5), (second, 0.75))
    fuse(FuseAdapter(str(source), str(tmp_path / "fused"), both, dtype="float32"))
    assert mx.abs(load(tmp_path / "fused").decoder(IDS) - wanted(source, *both)).max().item() < 2e-4


def test_a_small_change_is_not_lost_silently_in_four_bits(tmp_path: Path) -> None:
    source = packed(originals.save(tmp_path / "base", originals.CONFIGS["qwen3"]), tmp_path / "packed")
    adapter = adapter_of(source, tmp_path / "adapter", AdapterConfig(rank=2), size=1e-3)
    job = FuseAdapter(str(source), str(tmp_path / "fused"), ((adapter, 1.0),), requantize=True)
    with pytest.raises(QwenError, match=r"keeps too little.*found cosine 0\.\d+, KL .* nats.*bfloat16") as told:
        fuse(job)
    assert "traceback" not in str(told.value).lower()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base", "packed"]
    *_, notice, last = iter_fuse(replace(job, accept_loss=True))
    assert isinstance(notice, Notice) and isinstance(last, Fused) and last.retention is not None
    assert last.retention.cosine < 0.9 and load(tmp_path / "fused").weights != "plain"
    plain = fuse(replace(job, target=str(tmp_path / "plain"), requantize=False))
    assert plain.retention is not None and is_enough(plain.retention)
    assert set(plain.plan.formats) == {"bfloat16"}


def test_a_large_change_fits_into_eight_bits(tmp_path: Path) -> None:
    source = packed(originals.save(tmp_path / "base", originals.CONFIGS["qwen3"]), tmp_path / "packed", bits=8)
    adapter = adapter_of(source, tmp_path / "adapter", AdapterConfig(rank=2))
    found = fuse(FuseAdapter(str(source), str(tmp_path / "fused"), ((adapter, 1.0),), requantize=True))
    assert found.retention is not None and found.retention.cosine > 0.99
    assert found.plan.bits_after < 10


def test_what_cannot_be_meant_writes_nothing(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "base", originals.CONFIGS["qwen3"])
    adapter = adapter_of(source, tmp_path / "adapter", AdapterConfig(rank=2))
    job = FuseAdapter(str(source), str(tmp_path / "fused"), ((adapter, 1.0),))
    for wrong, told in (
        (replace(job, adapters=()), "no adapter to fuse"),
        (replace(job, adapters=((adapter, float("nan")),)), "no number"),
        (replace(job, requantize=True), "not quantized"),
        (replace(job, requantize=True, check=False), "has to be checked"),
        (replace(job, target=str(source)), "is the model that is read"),
        (replace(job, dtype="int8"), "no type"),
    ):
        with pytest.raises(UsageError, match=told):
            fuse(wrong)
    token = CancelToken()
    steps = iter_fuse(job, token)
    next(steps)
    token.cancel()
    with pytest.raises(Cancelled):
        list(steps)
    dry = fuse(replace(job, dry_run=True))
    assert dry.files == 0 and dry.retention is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base"]
    unchecked = fuse(replace(job, check=False))
    assert unchecked.retention is None and (tmp_path / "fused" / "config.json").is_file()


def test_retention_of_known_distributions() -> None:
    rng = np.random.default_rng(0)

    def normal(x: np.ndarray) -> np.ndarray:
        return (x - np.log(np.exp(x).sum(axis=-1, keepdims=True))).astype(np.float32)

    base = normal(rng.normal(size=(50, 30)))
    change, other = rng.normal(size=(2, 50, 30)) * 0.5
    adapter = normal(base + change)
    assert retention([base], [adapter], [adapter]).cosine == pytest.approx(1)
    half = retention([base], [adapter], [normal(base + 0.5 * change)])
    assert half.cosine > 0.99 and 0.2 * half.change < half.kl < 0.35 * half.change and is_enough(half)
    lost = retention([base], [adapter], [base])
    assert lost.cosine == 0 and lost.kl == pytest.approx(lost.change) and not is_enough(lost)
    assert abs(retention([base], [adapter], [normal(base + other)]).cosine) < 0.1
    nothing = retention([base], [base], [base])
    assert nothing.cosine == 1 and nothing.change == 0 and nothing.same_top == 1 and is_enough(nothing)
    assert not is_enough(retention([base], [base], [normal(base + other)]))
    p, q = np.exp(adapter.astype(float)), np.exp(base.astype(float))
    assert lost.kl == pytest.approx(float((p * np.log(p / q)).sum(axis=-1).mean()), rel=1e-4)
