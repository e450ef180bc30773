"""Facts about a model folder, found without loading the model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.describe import Description, describe
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.errors import CheckpointError, QwenError, TemplateError, TokenizerError
from qwen_mlx.models import read_spec
from qwen_mlx.models.cache import RecurrentCache
from tests.checkpoints.test_load import CONFIG, FORMATS, uniform
from tests.models import tiny
from tests.parity import ParityCase, parity_cases
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip

WINDOW = tiny.QWEN2 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
CHUNKED = tiny.QWEN2 | {"dual_chunk_attention_config": {"chunk_size": 64, "local_size": 16}}
CONFIGS = {
    "qwen2": tiny.QWEN2,
    "window": WINDOW,
    "qwen3": tiny.QWEN3,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3_moe": tiny.QWEN3_MOE,
    "qwen3_next": tiny.QWEN3_NEXT,
    "qwen3_5": tiny.QWEN3_5,
}


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "load", lambda *_, **__: pytest.fail("weights were loaded"))


def saved(folder: Path, config: dict[str, Any], form: Callable[[str], dict[str, Any] | None] | None = None) -> Path:
    return tiny.save(folder, config, hub_tensors(tiny.decoder(config)), form)


# ------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("case", parity_cases(), ids=lambda case: case.name)
def test_every_kind_of_model(case: ParityCase, tmp_path: Path, no_loading: None) -> None:
    facts = describe(case.build(tmp_path / "m"))
    weights = case.weights()
    used = [name for name in weights if not re.search(r"visual|^mtp|inv_freq", name)]
    if facts.tied:
        used = [name for name in used if "lm_head" not in name]
    assert facts.parameters == sum(weights[name].size for name in used)
    assert [(form.name, form.count) for form in facts.formats] == [("float32", len(used))]
    assert (facts.bits, facts.dtype) == (32.0, "float32")
    assert facts.tensor_bytes == 4 * facts.parameters
    assert facts.tensor_bytes + facts.ignored_bytes == sum(array.nbytes for array in weights.values())
    assert sum(facts.layers.values()) == len(read_spec(case.config()).layers)
    assert facts.model_type == case.config()["model_type"]
    json.dumps(facts.as_dictionary())


def test_experts_are_counted_apart(tmp_path: Path) -> None:
    facts = describe(saved(tmp_path, tiny.QWEN3_MOE))
    assert facts.experts is not None
    assert (facts.experts.experts, facts.experts.experts_per_token, facts.sparse_layers) == (5, 2, 1)
    assert facts.experts.shared_intermediate is None
    assert facts.intermediate == 192  # of the other layer
    assert facts.parameters - facts.active_parameters == 3 * 3 * 128 * 128
    shared = describe(saved(tmp_path / "shared", tiny.QWEN2_MOE))
    assert shared.experts is not None
    assert (shared.experts.shared_intermediate, shared.intermediate) == (64, None)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (tiny.QWEN3, {"full": 2}),
        (WINDOW, {"full": 1, "window": 1}),
        (CHUNKED, {"dual chunk": 2}),
        (tiny.QWEN3_5, {"linear": 1, "full": 1}),
    ],
)
def test_layers_by_kind(config: dict[str, Any], layers: dict[str, int], tmp_path: Path) -> None:
    facts = describe(saved(tmp_path, config))
    assert facts.layers == layers
    assert facts.window == (7 if config is WINDOW else None)


@pytest.mark.parametrize("name", CONFIGS)
def test_caches_take_what_is_said(name: str, tmp_path: Path) -> None:
    """Compared with the arrays that a text really leaves behind, in float32."""
    facts = describe(saved(tmp_path, CONFIGS[name]))
    decoder = load(tmp_path).decoder
    spec = decoder.spec
    sizes = {}
    for length in (5, 6):
        cache = decoder.make_cache()
        decoder(mx.arange(length)[None], cache=cache)
        sizes[length] = sum(array.nbytes for layer in cache for array in layer.state)
        assert spec.cache_bytes(length, 4) == sizes[length]
    if name != "window":  # whose second layer grows too, as long as its window is not full
        assert sizes[6] - sizes[5] == facts.cache_bytes_per_token["float32"]
        assert facts.cache_bytes_per_token["float32"] == 2 * facts.cache_bytes_per_token["float16"]
    assert facts.state_bytes == sum(a.nbytes for la in cache if isinstance(la, RecurrentCache) for a in la.state)
    assert spec.cache_bytes(1000, 4) - spec.cache_bytes(999, 4) == facts.cache_bytes_per_token["float32"]
    assert spec.cache_bytes(100, 2) < spec.cache_bytes(100, 4)


def test_memory_at_the_lengths_people_ask_for(tmp_path: Path) -> None:
    facts = describe(saved(tmp_path, tiny.QWEN3 | {"max_position_embeddings": 100_000}))
    assert [memory.context for memory in facts.memory] == [4096, 32768, 100_000]
    for memory in facts.memory:
        assert memory.weights == facts.tensor_bytes
        assert memory.cache == memory.context * facts.cache_bytes_per_token["float32"]
        assert memory.total == memory.weights + memory.cache
    short = describe(saved(tmp_path / "short", tiny.QWEN3))
    assert [memory.context for memory in short.memory] == [256]


@pytest.mark.parametrize(("dtype", "name"), [(mx.bfloat16, "bfloat16"), (mx.float16, "float16")])
def test_half_precision(dtype: mx.Dtype, name: str, tmp_path: Path) -> None:
    tensors = {key: array.astype(dtype) for key, array in hub_tensors(tiny.decoder(tiny.QWEN3)).items()}
    facts = describe(tiny.save(tmp_path, tiny.QWEN3, tensors))
    assert (facts.bits, facts.dtype, facts.memory[0].dtype) == (16.0, name, name)
    assert facts.memory[0].cache == 256 * facts.cache_bytes_per_token["float16"]


# ------------------------------------------------------------------------------------------------------ formats

NAMES = {
    "affine-4-g32": "4-bit g32 affine",
    "affine-8-g128": "8-bit g128 affine",
    "mxfp4": "4-bit g32 mxfp4",
    "mxfp8": "8-bit g32 mxfp8",
    "nvfp4": "4-bit g16 nvfp4",
    **{f"affine-{bits}": f"{bits}-bit g64 affine" for bits in (2, 3, 4, 5, 6, 8)},
}


@pytest.mark.parametrize("table", [True, False], ids=["as written", "config silent"])
@pytest.mark.parametrize("name", NAMES)
def test_packed_formats(name: str, table: bool, tmp_path: Path, no_loading: None) -> None:
    folder = saved(tmp_path, CONFIG, FORMATS[name])
    if not table:  # the shapes say it too
        (folder / "config.json").write_text(json.dumps(CONFIG))
    facts = describe(folder)
    assert [(form.name, form.count) for form in facts.formats] == [(NAMES[name], 15), ("float32", 9)]
    assert sum(form.nbytes for form in facts.formats) == facts.tensor_bytes
    packed = facts.formats[0]
    assert packed.bits is not None
    assert packed.bits < facts.bits < packed.bits + 4


def test_mixed_formats(tmp_path: Path) -> None:
    facts = describe(saved(tmp_path, CONFIG, FORMATS["mixed"]))
    found = {form.name: form.count for form in facts.formats}
    assert found == {
        "float32": 12,
        "4-bit g64 affine": 6,
        "4-bit g32 affine": 2,
        "6-bit g64 affine": 3,
        "8-bit g64 affine": 1,
    }


@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5"])
def test_packed_experts_and_states(name: str, stacked: bool, tmp_path: Path) -> None:
    def form(module: str) -> dict[str, Any] | None:
        small = module.endswith(("conv1d", "gate", "in_proj_ba", "in_proj_a", "in_proj_b"))
        return None if small else {"bits": 4, "group_size": 32}

    config = CONFIGS[name]
    folder = saved(tmp_path / "one", config, form)
    model = load(folder, weights="quantized")
    if stacked:
        folder = tiny.save(tmp_path / "stacked", config, hub_tensors(model.decoder))
    facts = describe(folder)
    assert [form.name for form in facts.formats] == ["4-bit g32 affine", "float32"]
    assert facts.bits == pytest.approx(model.info().bits, abs=0.01)


def test_what_is_not_used_is_not_counted(tmp_path: Path) -> None:
    tensors = hub_tensors(tiny.decoder(tiny.QWEN3))
    more = {
        "lm_head.weight": mx.ones((97, 128)),
        "model.visual.merger.weight": mx.ones((5, 5)),
        "mtp.layers.0.weight": mx.ones((3,)),
    }
    before = describe(tiny.save(tmp_path / "a", tiny.QWEN3, tensors))
    facts = describe(tiny.save(tmp_path / "b", tiny.QWEN3, tensors | more))
    assert facts.ignored_bytes == 4 * (97 * 128 + 25 + 3)
    assert (facts.bits, facts.formats, facts.memory) == (before.bits, before.formats, before.memory)


# ------------------------------------------------------------------------------------------------------ context


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("default", 1.0, 256, 256)),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ("linear", 2.0, 128, 256)),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ("dynamic", 2.0, 256, 256)),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}},
            ("yarn", 4.0, 256, 1024),
        ),
    ],
)
def test_how_far_the_model_reads(change: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path) -> None:
    context = describe(saved(tmp_path, tiny.QWEN3 | change)).context
    assert (context.scaling, context.factor, context.trained, context.length) == expected
    assert (context.rope_theta, context.rotated) == (10000.0, 32)


def test_a_scaling_that_is_asked_for(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.QWEN3)
    context = describe(folder, rope_scaling="yarn:4").context
    assert (context.scaling, context.factor, context.trained, context.length) == ("yarn", 4.0, 256, 1024)
    assert describe(folder, config={"max_position_embeddings": 77}).context.length == 77
    assert describe(folder).context.length == 256


# ------------------------------------------------------------------------------------------- tokenizer, template


def test_vocabulary(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.QWEN3 | {"vocab_size": 512})
    assert describe(folder).vocabulary is None
    tiny_text.write_tokenizer_json(folder)
    facts = describe(folder)
    assert facts.vocabulary is not None
    assert facts.embedding_rows == 512
    first = facts.vocabulary.special["<|endoftext|>"]
    assert facts.vocabulary.special == {"<|endoftext|>": first, "<|im_start|>": first + 1, "<|im_end|>": first + 2}
    assert facts.vocabulary.tokens == first + len(tiny_text.ADDED)


@pytest.mark.parametrize("gap", [0, 7])
def test_a_vocabulary_in_two_files(gap: int, tmp_path: Path) -> None:
    folder = tiny_text.write_vocabulary(saved(tmp_path, tiny.QWEN3), gap=gap)
    facts = describe(folder)
    assert facts.vocabulary is not None
    assert list(facts.vocabulary.special) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def template_of(folder: Path, source: str | None) -> Description:
    if source is not None:
        (folder / "chat_template.jinja").write_text(source)
    return describe(folder)


def test_template(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.QWEN3)
    assert template_of(folder, None).template.origin == "the built-in chat template qwen3"
    own = template_of(folder, "{{ messages[0].content }}").template
    assert (own.origin, own.thinking, own.tools) == ("the chat template in chat_template.jinja", "never", False)
    full = template_of(
        folder, "{{ tools }}{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}"
    ).template
    assert (full.thinking, full.tools) == ("optional", True)


def test_damaged_small_files_are_errors(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.QWEN3)
    (folder / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(TemplateError, match=r"chat_template\.jinja"):
        describe(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        describe(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        describe(folder)


# ------------------------------------------------------------------------------------------------------- errors


def _truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no folder": shutil.rmtree,
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no JSON": lambda folder: (folder / "config.json").write_text("{,}"),
    "other family": _edit(model_type="llama"),
    "wrong value": _edit(num_key_value_heads=3),
    "unknown key": _edit(logit_scale=2.0),
    "foreign format": _edit(quantization=None, quantization_config={"quant_method": "gptq", "bits": 4}),
    "half a file": _truncate,
    "a pointer": lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
    "a shard missing": lambda folder: (folder / "model.safetensors").rename(
        folder / "model-00001-of-00002.safetensors"
    ),
    "another size": _edit(intermediate_size=320),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_errors_are_those_of_loading(damage: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", CONFIG, uniform(4))
    DAMAGE[damage](folder)
    with pytest.raises(QwenError) as loading:
        load(folder)
    with pytest.raises(QwenError) as describing:
        describe(folder)
    assert type(describing.value) is type(loading.value)
    assert describing.value.exit_code == loading.value.exit_code
    if damage != "another size":  # which loading finds in more places
        assert str(describing.value) == str(loading.value)
    assert "\n" not in str(describing.value)


@pytest.mark.parametrize("part", ["weight", "scales", "biases"])
def test_a_damaged_packed_matrix_is_named(part: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, CONFIG, uniform(4))
    path = str(folder / "model.safetensors")
    tensors = dict(mx.load(path).items())
    mx.eval(tensors)
    name = f"model.layers.0.mlp.down_proj.{part}"
    tensors[name] = tensors[name][:, :-1]
    mx.save_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down_proj has"):
        describe(folder)
