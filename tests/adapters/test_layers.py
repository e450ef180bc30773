"""Adapters on a decoder: what is computed, what is trained, and that nothing of it stays."""

from __future__ import annotations

import copy
import math

import pytest

from qwen_mlx.adapters import (
    AdapterConfig,
    adapter_arrays,
    adapters,
    attach,
    detach,
    dropout_keys,
    mix,
    mixed,
    set_adapter_arrays,
    set_mix,
)
from qwen_mlx.adapters.sites import ROLES, ROUTER, roles, sites
from qwen_mlx.errors import UsageError
from qwen_mlx.models import Decoder
from qwen_mlx.models.spec import QuantizationSpec
from tests.adapters.tools import FAMILIES, IDS, adapted, quantized, shake, unpacked
from tests.models import tiny

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import mlx.optimizers as optim
import mlx.utils
from mlx.utils import tree_flatten

METHODS = (AdapterConfig(rank=3, alpha=7), AdapterConfig("dora", 3, 7, rslora=True))


def flat(tree: dict) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))


def loss(decoder: Decoder) -> mx.array:
    return nn.losses.cross_entropy(decoder(IDS)[:, :-1], IDS[:, 1:]).mean()


def largest(a: mx.array, b: mx.array) -> float:
    return mx.abs(a - b).max().item()


# ----------------------------------------------------------------------------------------------------- what it computes


def dense_weight(decoder: Decoder, name: str) -> mx.array:
    """The matrix of a site, of floats."""
    site = sites(decoder.spec)[name]
    layer, path = decoder, site.module.split(".")
    for step in path:
        layer = layer[int(step)] if step.isdigit() else layer[step]
    if not site.members:
        return layer.weight
    weight, start, found = layer.parts[0].weight, 0, []
    for member, rows in layer.members.items():
        if member in site.members:
            found.append(weight[start : start + rows])
        start += rows
    return mx.concatenate(found)


@pytest.mark.parametrize("config", METHODS, ids=["lora", "dora+rslora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_changed_as_the_formula_says(family: str, config: AdapterConfig) -> None:
    """The adapted decoder computes what a decoder with the changed weights computes."""
    decoder = adapted(config, family)
    plain = tiny.decoder(FAMILIES[family])
    arrays = adapter_arrays(decoder)
    scale = config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
    assert {key.rpartition(".")[0] for key in arrays} == {
        name for name, site in sites(decoder.spec).items() if ROUTER not in site.roles
    }
    for name in dict.fromkeys(key.rpartition(".")[0] for key in arrays):
        site = sites(decoder.spec)[name]
        weight = dense_weight(plain, name)
        changed = weight + scale * arrays[f"{name}.lora_b"] @ arrays[f"{name}.lora_a"]
        if config.method == "dora":
            length = mx.linalg.norm(changed, axis=-1, keepdims=True)
            changed = arrays[f"{name}.magnitude"][..., None] * changed / length
        put(plain, site, changed)
    assert largest(decoder(IDS), plain(IDS)) < 1e-4
    assert largest(tiny.decoder(FAMILIES[family])(IDS), plain(IDS)) > 0.5


def put(decoder: Decoder, site: object, weight: mx.array) -> None:
    layer = decoder
    for step in site.module.split("."):
        layer = layer[int(step)] if step.isdigit() else layer[step]
    if not site.members:
        layer.weight = weight
        return
    rows, start, taken = [], 0, 0
    whole = layer.parts[0].weight
    for member, count in layer.members.items():
        if member in site.members:
            rows.append(weight[taken : taken + count])
            taken += count
        else:
            rows.append(whole[start : start + count])
        start += count
    layer.parts[0].weight = mx.concatenate(rows)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_decoding_prefill_and_training_agree(family: str, method: str) -> None:
    decoder = adapted(AdapterConfig(method, 3), family)
    decoder.eval()
    at_once = decoder(IDS)
    cache = decoder.make_cache()
    first = decoder(IDS[:, :3], cache)
    steps = [decoder(IDS[:, i : i + 1], cache) for i in range(3, IDS.shape[1])]
    assert largest(at_once, mx.concatenate([first, *steps], axis=1)) < 1e-4
    decoder.train()
    assert largest(at_once, decoder(IDS)) == 0


def test_many_tokens_go_to_experts_as_few_do() -> None:
    """From some tokens on the base sorts pairs, and on a CPU groups them by expert."""
    decoder = adapted(AdapterConfig(rank=3, targets=("experts.down_proj",)), "qwen3_moe")
    ids = mx.arange(90)[None] % 97
    cache = decoder.make_cache()
    steps = mx.concatenate([decoder(ids[:, i : i + 9], cache) for i in range(0, 90, 9)], axis=1)
    assert largest(decoder(ids), steps) < 1e-4


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", ["qwen3", "qwen2_moe", "qwen3_next"])
@pytest.mark.parametrize(
    "form",
    [
        QuantizationSpec(4, 32),
        QuantizationSpec(8, 64),
        QuantizationSpec(4, 32, "mxfp4"),
        QuantizationSpec(4, 16, "nvfp4"),
        QuantizationSpec(8, 32, "mxfp8"),
    ],
    ids=lambda form: f"{form.mode}-{form.bits}",
)
def test_on_packed_weights(family: str, form: QuantizationSpec, method: str) -> None:
    """As on the same numbers unpacked: logits, the lengths DoRA begins with, and gradients."""
    packed = quantized(family, form)
    plain = unpacked(packed)
    config = AdapterConfig(method, 3)
    for decoder in (packed, plain):
        attach(decoder, config)
    for key, array in adapter_arrays(plain).items():
        assert mx.allclose(array, adapter_arrays(packed)[key], rtol=1e-5, atol=1e-6), key
    shake(plain)
    set_adapter_arrays(packed, adapter_arrays(plain))
    assert largest(packed(IDS), plain(IDS)) < 2e-3
    a, b = (flat(nn.value_and_grad(decoder, loss)(decoder)[1]) for decoder in (packed, plain))
    assert a.keys() == b.keys() and len(a) == len(adapter_arrays(plain))
    assert max(largest(a[key], b[key]) / mx.abs(b[key]).max().item() for key in a) < 5e-3


def test_half_precision_stays_and_adapters_are_float32() -> None:
    decoder = tiny.decoder(FAMILIES["qwen2"])
    decoder.set_dtype(mx.bfloat16)
    attach(decoder, METHODS[1])
    shake(decoder)
    assert decoder(IDS).dtype == mx.bfloat16
    assert {array.dtype for array in adapter_arrays(decoder).values()} == {mx.float32}


def test_a_is_drawn_as_peft_draws_it_and_b_is_zero() -> None:
    decoder = tiny.decoder(FAMILIES["qwen3"])
    before = decoder(IDS)
    attach(decoder, AdapterConfig(rank=64), seed=5)
    arrays = adapter_arrays(decoder)
    a = arrays["layers.0.mlp.down_proj.lora_a"]
    bound = 192**-0.5
    assert mx.abs(a).max().item() <= bound and mx.abs(a).max().item() > 0.99 * bound
    assert abs(a.mean().item()) < 0.02 * bound and a.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all(not array.any() for key, array in arrays.items() if key.endswith("lora_b"))
    assert largest(before, decoder(IDS)) == 0


def test_a_seed_means_the_same_whatever_else_is_adapted() -> None:
    few, all_of_it, other = (tiny.decoder(FAMILIES["qwen3"]) for _ in range(3))
    attach(few, AdapterConfig(rank=3, targets=("v_proj",)), seed=8)
    attach(all_of_it, AdapterConfig(rank=3), seed=8)
    attach(other, AdapterConfig(rank=3), seed=9)
    key = "layers.1.self_attn.v_proj.lora_a"
    assert mx.array_equal(adapter_arrays(few)[key], adapter_arrays(all_of_it)[key])
    assert not mx.array_equal(adapter_arrays(few)[key], adapter_arrays(other)[key])


# ------------------------------------------------------------------------------------------------------ what is trained


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_adapter_is_trained(family: str) -> None:
    decoder = tiny.decoder(FAMILIES[family])
    attach(decoder, AdapterConfig("dora", 2, modules_to_save=("embed_tokens", "lm_head")))
    trained = flat(decoder.trainable_parameters())
    whole = 1 if decoder.spec.tied else 2
    assert len(trained) == len(adapter_arrays(decoder))
    assert sum(array.size for array in trained.values()) == sum(a.size for a in adapter_arrays(decoder).values())
    assert sum("adapters.default" in name for name in trained) == len(trained) - whole
    assert {array.dtype for array in trained.values()} == {mx.float32}
    assert not any(".mlp.gate." in name or "shared_expert_gate" in name for name in trained)


def test_a_compiled_step_with_dropout_equals_an_eager_one() -> None:
    """Of one layer: on a CPU, each operation that MLX fuses is a program that is compiled first."""
    x = mx.random.normal((5, 128), key=mx.random.key(1))

    def run(compiled: bool) -> tuple[list[float], dict[str, mx.array]]:
        decoder = adapted(AdapterConfig("dora", 3, dropout=0.2, targets=("q_proj", "v_proj"), layers=(0,)))
        layer = decoder.layers[0].self_attn.qkv_proj
        layer.train()
        mx.random.seed(4)
        state = [layer.state, mx.random.state]

        def step() -> mx.array:
            value, gradients = nn.value_and_grad(layer, lambda m: sum((y * y).mean() for y in m(x)))(layer)
            layer.update(mlx.utils.tree_map(lambda p, g: p - 0.01 * g, layer.trainable_parameters(), gradients))
            return value

        step_of = mx.compile(step, inputs=state, outputs=state) if compiled else step
        losses = []
        for _ in range(4):
            losses.append(step_of().item())
            mx.eval(state)
        return losses, adapter_arrays(decoder)

    (eager, arrays), (compiled, others) = run(False), run(True)
    assert eager == pytest.approx(compiled, rel=1e-5) and len(set(eager)) == 4
    assert max(largest(arrays[key], others[key]) for key in arrays) < 1e-5


def test_training_moves_what_an_evaluation_then_sees() -> None:
    """Between the steps nothing that was made of old arrays is used."""
    decoder = adapted(AdapterConfig("dora", 3), "qwen3")
    optimizer = optim.SGD(0.5)
    for _ in range(3):
        decoder.eval()
        before = decoder(IDS)
        decoder.train()
        _, gradients = nn.value_and_grad(decoder, loss)(decoder)
        optimizer.update(decoder, gradients)
        training = decoder(IDS)
        decoder.eval()
        assert largest(decoder(IDS), training) < 1e-5 and largest(before, training) > 1e-4


def test_dropout_is_of_the_given_share_and_only_while_training() -> None:
    decoder = adapted(AdapterConfig(rank=3, dropout=0.5, targets=("down_proj",), layers=(0,)))
    decoder.train()
    layer = decoder.layers[0].mlp.down_proj
    x = mx.random.normal((1, 192), key=mx.random.key(0))
    plain = layer.base(x)
    with mixed(decoder, {"default": 1.0}):
        mx.random.seed(0)
        several = mx.stack([layer(x) - plain for _ in range(400)])
    decoder.eval()
    whole = layer(x) - plain
    assert largest(layer(x) - plain, whole) == 0
    assert mx.linalg.norm(several.mean(axis=0) - whole).item() < 0.2 * mx.linalg.norm(whole).item()
    assert several.std(axis=0).mean().item() > 0.3 * mx.abs(whole).mean().item()


def test_dropout_drops_the_same_again_when_a_layer_is_recomputed() -> None:
    decoder = adapted(AdapterConfig(rank=3, dropout=0.4))
    decoder.train()
    layer = decoder.layers[0].mlp
    x = mx.random.normal((4, 128), key=mx.random.key(1))

    def total(x: mx.array) -> mx.array:
        return (layer(x) ** 2).sum()

    with dropout_keys(decoder, mx.random.key(5)):
        once = mx.value_and_grad(total)(x)
        again = mx.value_and_grad(mx.checkpoint(total))(x)
    with dropout_keys(decoder, mx.random.key(6)):
        other = total(x)
    assert once[0].item() == again[0].item() and mx.array_equal(once[1], again[1])
    assert other.item() != once[0].item() and total(x).item() != once[0].item()


# -------------------------------------------------------------------------------------------------------------- several


@pytest.mark.parametrize("family", FAMILIES)
def test_taken_off_nothing_stays(family: str) -> None:
    decoder = tiny.decoder(FAMILIES[family])
    decoder.layers[0].input_layernorm.freeze()
    before, trained = flat(decoder.parameters()), flat(decoder.trainable_parameters()).keys()
    modules = [id(module) for module in decoder.modules()]
    attach(decoder, AdapterConfig("dora", 2, modules_to_save=("lm_head",)))
    shake(decoder)
    attach(decoder, AdapterConfig(rank=2, targets=("o_proj",) if family != "qwen3_5" else ("out_proj",)), "second")
    decoder.eval()
    detach(decoder)
    after = flat(decoder.parameters())
    assert before.keys() == after.keys() and all(mx.array_equal(before[key], after[key]) for key in before)
    assert [id(module) for module in decoder.modules()] == modules
    assert flat(decoder.trainable_parameters()).keys() == trained
    assert not adapters(decoder) and not any(module.training for module in decoder.modules())


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen3_moe"])
def test_changes_are_weighted_and_added(family: str, method: str) -> None:
    """Mixing is linear in the weights: what a layer gives is `base + sum_i w_i (adapter_i - base)`."""
    decoder = tiny.decoder(FAMILIES[family])
    base = decoder(IDS)
    for name, seed in (("a", 1), ("b", 2)):
        attach(decoder, AdapterConfig(method, 2, modules_to_save=("lm_head",)), name, seed)
        shake(decoder, name, seed=seed)
    alone = {}
    for name in ("a", "b"):
        set_mix(decoder, {name: 1})
        alone[name] = decoder(IDS)
    assert largest(alone["a"], alone["b"]) > 0.1
    set_mix(decoder, {"a": 0.5, "b": -0.25})
    assert mix(decoder) == {"a": 0.5, "b": -0.25}
    x = mx.random.normal((3, 128), key=mx.random.key(0))
    layer = decoder.layers[0].self_attn.qkv_proj
    results = []
    for weights in ({}, {"a": 1}, {"b": 1}, {"a": 0.5, "b": -0.25}):
        set_mix(decoder, weights)
        results.append((mx.concatenate(layer(x), axis=-1), decoder.logits(x)))
    for plain, a, b, both in zip(*results):
        assert largest(both, plain + 0.5 * (a - plain) - 0.25 * (b - plain)) < 1e-4
    set_mix(decoder, {"a": 1, "b": 0})
    assert mx.array_equal(decoder(IDS), alone["a"])
    with mixed(decoder, {}):
        assert mx.array_equal(decoder(IDS), base)
    assert mx.array_equal(decoder(IDS), alone["a"])
    detach(decoder, "a")
    assert mx.array_equal(decoder(IDS), base) and list(adapters(decoder)) == ["b"]
    set_mix(decoder, {"b": 1})
    assert mx.array_equal(decoder(IDS), alone["b"])


def test_a_second_adapter_freezes_the_first() -> None:
    decoder = tiny.decoder(FAMILIES["qwen3"])
    attach(decoder, AdapterConfig(rank=2, modules_to_save=("embed_tokens",)), "a")
    attach(decoder, AdapterConfig(rank=2), "b")
    assert all(".adapters.b." in name for name in flat(decoder.trainable_parameters()))
    set_mix(decoder, {"a": 1, "b": 1})
    assert all(".adapters.b." in name for name in flat(decoder.trainable_parameters()))


def test_a_copy_has_adapters_of_its_own() -> None:
    decoder = adapted(AdapterConfig(rank=2))
    twin = copy.deepcopy(decoder)
    set_mix(twin, {})
    assert largest(decoder(IDS), twin(IDS)) > 0.1


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_tied_weights_stay_tied(family: str) -> None:
    decoder = tiny.decoder(FAMILIES[family])
    attach(decoder, AdapterConfig(rank=2, modules_to_save=("embed_tokens",)))
    names = [name for name in flat(decoder.trainable_parameters()) if "adapters" not in name]
    assert names == ["embed_tokens.weight"]
    shake(decoder)
    hidden = mx.random.normal((1, 128), key=mx.random.key(0))
    changed = mx.array_equal(decoder.logits(hidden), tiny.decoder(FAMILIES[family]).logits(hidden))
    assert changed != decoder.spec.tied


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("family", "values", "told"),
    [
        ("qwen3", {"targets": ("experts",)}, "no part of this model has the role 'experts'"),
        ("qwen3_moe", {"targets": ("gate",)}, "Routers are never adapted"),
        ("qwen3", {"layers": (2,)}, "there is no layer 2"),
        ("qwen3", {"layers": (-1,)}, "there is no layer -1"),
        ("qwen3_moe", {"targets": ("gate_proj",), "layers": (0,)}, "no layer among those"),
    ],
)
def test_what_cannot_be_meant_is_told(family: str, values: dict, told: str) -> None:
    decoder = tiny.decoder(FAMILIES[family])
    with pytest.raises(UsageError, match=told):
        attach(decoder, AdapterConfig(rank=2, **values))
    assert len(flat(decoder.trainable_parameters())) == len(flat(decoder.parameters()))


@pytest.mark.parametrize(
    "values",
    [
        {"method": "lokr"},
        {"rank": 0},
        {"rank": 2.0},
        {"rank": True},
        {"alpha": 0},
        {"alpha": float("nan")},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"targets": ()},
        {"rank_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"(": 3.0}},
        {"modules_to_save": ("norm",)},
    ],
)
def test_a_configuration_that_cannot_be_meant(values: dict) -> None:
    with pytest.raises(UsageError):
        AdapterConfig(**values)


def test_names_of_adapters() -> None:
    decoder = tiny.decoder(FAMILIES["qwen3"])
    for name in ("", "a.b", "x" * 101, 3):
        with pytest.raises(UsageError, match="no name"):
            attach(decoder, AdapterConfig(), name)
    attach(decoder, AdapterConfig(), "a")
    with pytest.raises(UsageError, match="already"):
        attach(decoder, AdapterConfig(), "a")
    for weights in ({"b": 1}, {"a": float("inf")}, {"a": True}, {"a": "1"}):
        with pytest.raises(UsageError):
            set_mix(decoder, weights)
    assert mix(decoder) == {"a": 1}
    with pytest.raises(UsageError, match="not the arrays"):
        set_adapter_arrays(decoder, {"x": mx.zeros(1)}, "a")
    detach(decoder)
    set_mix(decoder, {})
    with pytest.raises(UsageError, match="no adapters"):
        detach(decoder)


def test_patterns_of_ranks_and_alphas() -> None:
    config = AdapterConfig(
        rank=4,
        alpha=8,
        rank_pattern={"o_proj": 2, r"layers\.1\.mlp\..*": 3},
        alpha_pattern={"layers.0.self_attn.q_proj": 20},
    )
    decoder = tiny.decoder(FAMILIES["qwen3"])
    attach(decoder, config)
    ranks = {key: a.shape[0] for key, a in adapter_arrays(decoder).items() if key.endswith("lora_a")}
    assert ranks["layers.1.self_attn.o_proj.lora_a"] == 2 and ranks["layers.1.mlp.up_proj.lora_a"] == 3
    assert ranks["layers.0.mlp.up_proj.lora_a"] == 4
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 5 and config.scale_of("model.layers.10.x.q_proj") == 2
    assert AdapterConfig.from_dict(config.as_dict()) == config


def test_every_role_is_somewhere() -> None:
    first = tiny.decoder(FAMILIES["qwen3_next"]).spec
    present = {role for config in FAMILIES.values() for role in roles(tiny.decoder(config).spec)}
    assert present == set(ROLES) and "in_proj_qkv" not in roles(first)
