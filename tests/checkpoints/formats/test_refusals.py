"""What cannot be right is refused by its name, before anything is written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen_mlx.checkpoints.load import load
from qwen_mlx.errors import CheckpointError, ConfigError, NotFound, UnsupportedModel, UsageError
from scripts.formats import samples
from tests.checkpoints.formats.helpers import run_import, write_gguf, write_sample


def refused(source, tmp_path, error, message, **options):
    with pytest.raises(error, match=message) as caught:
        run_import(source, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))
    assert str(caught.value).isprintable()


def with_settings(tmp_path, form, **changes):
    """A sample whose `quantization_config` is changed; None takes a key away."""
    sample = samples.hub_sample(form, "qwen3")
    settings = dict({**sample.config["quantization_config"], **changes}.items())
    return samples.Sample(sample.config | {"quantization_config": settings}, sample.tensors).write(tmp_path / "model")


def weights(**changes):
    """`config_groups` of compressed-tensors with other weights."""
    group = json.loads(json.dumps(samples.quantization_config("ct_int4")["config_groups"]["group_0"]))
    for key, value in changes.items():
        (group if key.endswith("activations") else group["weights"])[key] = value
    return {"config_groups": {"group_0": group}}


SETTINGS = {
    "awq gemv": ("awq", {"version": "gemv"}, UnsupportedModel, "'gemv'.*expected the layout 'gemm'"),
    "awq gemv_fast": ("awq", {"version": "gemv_fast"}, UnsupportedModel, "gemv_fast"),
    "awq marlin": ("awq", {"version": "marlin"}, UnsupportedModel, "marlin"),
    "llm-awq": ("awq", {"version": "llm-awq"}, UnsupportedModel, "llm-awq"),
    "awq of 8 bits": ("awq", {"bits": 8}, UnsupportedModel, "AWQ weights of 8 bits"),
    "awq without zero points": ("awq", {"zero_point": False}, ConfigError, "zero_point"),
    "awq with an unknown key": ("awq", {"rotation": "hadamard"}, ConfigError, "'rotation'.*could change the numbers"),
    "awq with odd groups": ("awq", {"group_size": 100}, CheckpointError, "groups of 100"),
    "awq with a text for a number": ("awq", {"group_size": "128"}, ConfigError, "group_size"),
    "gptq asym v1, nobody knows by whom": ("gptq", {"sym": False}, UnsupportedModel, "zero points may be damaged"),
    "gptq marlin": ("gptq", {"checkpoint_format": "marlin"}, UnsupportedModel, "'marlin'.*gptq or gptq_v2"),
    "gptq is_marlin": ("gptq", {"is_marlin_format": True}, ConfigError, "is_marlin_format"),
    "gptq of 5 bits": ("gptq", {"bits": 5}, UnsupportedModel, "GPTQ weights of 5 bits"),
    "gptq in words of 16 bits": ("gptq", {"pack_dtype": "int16"}, ConfigError, "pack_dtype"),
    "gptq with other modules otherwise": ("gptq", {"dynamic": {"-:mlp": {}}}, ConfigError, "dynamic"),
    "gptq that is not symmetric": (
        "gptq_v2_asym",
        {"sym": True, "checkpoint_format": "gptq"},
        CheckpointError,
        "symmetric",
    ),
    "gptq with an unknown key": ("gptq", {"hadamard": 1}, ConfigError, "'hadamard'"),
    "fp8 without blocks": ("fp8", {"weight_block_size": None}, UnsupportedModel, "without a scale per block"),
    "fp8 e5m2": ("fp8", {"fmt": "e5m2"}, ConfigError, "fmt"),
    "fp8 static": ("fp8", {"activation_scheme": "static"}, ConfigError, "activation_scheme"),
    "fp8 blocks of 0": ("fp8", {"weight_block_size": [0, 128]}, ConfigError, "weight_block_size"),
    "fp8 blocks of 64": ("fp8", {"weight_block_size": [64, 64]}, CheckpointError, "do not fit each other"),
    "ct float-quantized": ("ct_int4", {"format": "float-quantized"}, UnsupportedModel, "'float-quantized'"),
    "ct int-quantized": ("ct_int4", {"format": "int-quantized"}, UnsupportedModel, "'int-quantized'"),
    "ct two groups": ("ct_int4", {"config_groups": {"a": {}, "b": {}}}, UnsupportedModel, "several kinds"),
    "ct activations": ("ct_int4", weights(input_activations={"num_bits": 8}), UnsupportedModel, "activations"),
    "ct 3 bits": ("ct_int4", weights(num_bits=3), UnsupportedModel, "3 bits"),
    "ct floats": ("ct_int4", weights(type="float"), ConfigError, "type"),
    "ct by tensor": ("ct_int4", weights(strategy="tensor"), UnsupportedModel, "'tensor'"),
    "ct asymmetric without zero points": ("ct_int4", weights(symmetric=False), CheckpointError, "zero points"),
    "ct transformed": ("ct_int4", {"transform_config": {"r1": 1}}, ConfigError, "transform_config"),
    "bitsandbytes": ("awq", {"quant_method": "bitsandbytes"}, UnsupportedModel, "'bitsandbytes'.*awq, gptq, fp8"),
    "unknown method": ("awq", {"quant_method": "\x1b[2Jevil"}, UnsupportedModel, r"x1b\[2jevil"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name, tmp_path):
    form, changes, error, message = SETTINGS[name]
    if name == "gptq asym v1, nobody knows by whom":
        changes = changes | {"checkpoint_format": "gptq"}
    refused(with_settings(tmp_path, form, **changes), tmp_path, error, message)


def test_asymmetric_version_1_by_gptqmodel_is_imported(tmp_path):
    plan = run_import(
        with_settings(tmp_path, "gptq_v2_asym", checkpoint_format="gptq", meta={"quantizer": ["gptqmodel:7.7.0"]}),
        tmp_path / "new",
    )
    assert plan.form == "GPTQ 4-bit g128"


def changed_tensors(tmp_path, form, change):
    sample = samples.hub_sample(form, "qwen3")
    tensors = dict(sample.tensors)
    change(tensors)
    return samples.Sample(sample.config, tensors).write(tmp_path / "model")


LAYER = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("awq", lambda t: t.pop(f"{LAYER}.qzeros"), "expected a tensor qzeros"),
        ("awq", lambda t: t.update({f"{LAYER}.qzeros": ("I32", np.zeros((3, 3), np.int32))}), "do not fit each other"),
        ("awq", lambda t: t.update({f"{LAYER}.qweight": ("F32", np.zeros((256, 32), np.float32))}), "I32 or U32"),
        ("awq", lambda t: t.update({f"{LAYER}.qweight": ("I32", np.zeros((0, 32), np.int32))}), "not empty"),
        ("awq", lambda t: t.pop("model.norm.weight"), "norm.weight is missing"),
        ("awq", lambda t: t.update({"model.extra.weight": t["model.norm.weight"]}), "extra.weight is not part of"),
        (
            "awq",
            lambda t: t.update({"model.norm.weight": ("I32", np.zeros(256, np.int32))}),
            "nothing that this format",
        ),
        ("gptq", lambda t: t.update({f"{LAYER}.g_idx": ("I32", np.full(256, 99, np.int32))}), "groups from 0 to 1"),
        ("ct_int4", lambda t: t.update({f"{LAYER}.weight_shape": ("I64", np.array([9, 9]))}), "weight_shape of"),
        ("fp8", lambda t: t.pop(f"{LAYER}.weight_scale_inv"), "nothing that this format has.*F8_E4M3"),
    ],
)
def test_tensors_that_do_not_fit(form, change, message, tmp_path):
    refused(changed_tensors(tmp_path, form, change), tmp_path, CheckpointError, message)


def test_biases_that_the_model_does_not_have_must_be_zero(tmp_path):
    """Writers of GPTQ give one to every linear layer."""
    name = "model.layers.0.self_attn.o_proj.bias"
    source = changed_tensors(tmp_path, "gptq", lambda t: t.update({name: ("F16", np.zeros(256, np.float16))}))
    run_import(source, tmp_path / "new")
    load(tmp_path / "new")
    source = changed_tensors(tmp_path, "gptq", lambda t: t.update({name: ("F16", np.ones(256, np.float16))}))
    with pytest.raises(CheckpointError, match=r"o_proj\.bias is not part of this model"):
        run_import(source, tmp_path / "other")


@pytest.mark.parametrize("form", ["awq", "gptq", "ct_int4", "fp8"])
def test_scales_that_are_no_numbers(form, tmp_path):
    def damage(tensors):
        name = next(n for n in tensors if n.startswith(LAYER) and "scale" in n)
        dtype, array = tensors[name]
        array = array.copy()
        array[0, 0] = np.nan
        tensors[name] = (dtype, array)

    refused(changed_tensors(tmp_path, form, damage), tmp_path, CheckpointError, "NaN or infinity")


def test_codes_that_are_no_numbers(tmp_path):
    def damage(tensors):
        dtype, codes = tensors[f"{LAYER}.weight"]
        codes = codes.copy()
        codes[5, 5] = 0x7F  # E4M3's NaN
        tensors[f"{LAYER}.weight"] = (dtype, codes)

    refused(changed_tensors(tmp_path, "fp8", damage), tmp_path, CheckpointError, f"'{LAYER}.weight' holds NaN")


def test_numbers_that_float16_does_not_hold(tmp_path):
    metadata, tensors = samples.gguf_sample("F32", "qwen3")
    tensor = tensors["token_embd.weight"]
    values = tensor.raw.copy().view(np.float32)
    values[0, 0] = 1e6
    tensors["token_embd.weight"] = samples.GGUFSampleTensor(tensor.hub, "F32", tensor.shape, values.view(np.uint8))
    source = write_gguf(tmp_path / "x.gguf", metadata, tensors)
    refused(source, tmp_path, CheckpointError, "in float16.*--dtype bfloat16", dtype="float16")
    assert run_import(source, tmp_path / "new", dtype="bfloat16").dtype == "bfloat16"


# -------------------------------------------------------------------------------------------------------------- GGUF


def gguf(tmp_path, form="Q8_0", model="qwen3", drop=(), **keys):
    metadata, tensors = samples.gguf_sample(form, model)
    metadata |= {key.replace("__", "."): value for key, value in keys.items()}
    for name in drop:
        metadata.pop(name, None)
        tensors.pop(name, None)
    return write_gguf(tmp_path / "x.gguf", metadata, tensors)


@pytest.mark.parametrize("arch", ["qwen3next", "qwen35", "qwen35moe", "qwen2vl", "clip", "llama", "qwen"])
def test_other_architectures_are_named(arch, tmp_path):
    source = gguf(tmp_path, general__architecture=arch)
    refused(source, tmp_path, UnsupportedModel, f"architecture '{arch}' are not imported.*qwen2, qwen3, qwen2moe")


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"qwen3__attention__sliding_window": 4096}, ConfigError, "sliding_window"),
        ({"qwen3__some__new__key": 1}, ConfigError, "'qwen3.some.new.key' is not known and could change"),
        ({"qwen3__attention__value_length": 32}, ConfigError, "value_length"),
        ({"qwen3__rope__scaling__type": "longrope"}, ConfigError, "rope.scaling.type"),
        ({"qwen3__block_count": "2"}, ConfigError, "block_count"),
        ({"qwen3__attention__head_count": 0}, ConfigError, "head_count"),
        ({"qwen3__attention__head_count": 7}, ConfigError, "divisor of 256"),
        ({"qwen3__attention__head_count_kv": [1, 2]}, ConfigError, "a list of 2"),
        ({"qwen3__embedding_length": 512}, CheckpointError, "do not belong together"),
        ({"qwen3__block_count": 2}, CheckpointError, "layers.1.*missing"),
        ({"qwen3__block_count": 100_000}, ConfigError, "num_hidden_layers"),
    ],
)
def test_gguf_keys(keys, error, message, tmp_path):
    refused(gguf(tmp_path, **keys), tmp_path, error, message)


def test_gguf_tensors(tmp_path):
    refused(gguf(tmp_path, drop=["blk.0.attn_q.weight"]), tmp_path, CheckpointError, "q_proj.weight is missing")
    refused(gguf(tmp_path, drop=["token_embd.weight"]), tmp_path, CheckpointError, "no embedding")
    refused(gguf(tmp_path, drop=["general.architecture"]), tmp_path, CheckpointError, "does not say what it holds")
    refused(gguf(tmp_path, drop=["qwen3.block_count"]), tmp_path, ConfigError, "block_count")
    metadata, tensors = samples.gguf_sample("Q8_0", "qwen3")
    for name, message in (("rope_freqs.weight", "rope factors"), ("blk.0.ssm_a.weight", "not part of a qwen3")):
        more = {**tensors, name: tensors["output_norm.weight"]}
        refused(write_gguf(tmp_path / "x.gguf", metadata, more), tmp_path, CheckpointError, message)


@pytest.mark.parametrize("kind", ["IQ4_NL", "Q8_1", "I8"])
def test_gguf_types_that_mlx_has_no_form_for(kind, tmp_path):
    from qwen_mlx.checkpoints.formats.gguf.types import NUMBERS, TYPES

    metadata, tensors = samples.gguf_sample("Q8_0", "qwen3")
    size = TYPES[NUMBERS[kind]].nbytes * 256 * 256 // TYPES[NUMBERS[kind]].values
    own = samples.GGUFSampleTensor((), kind, (256, 256), np.zeros(size, np.uint8))
    source = write_gguf(tmp_path / "x.gguf", metadata, {**tensors, "blk.0.attn_q.weight": own})
    refused(source, tmp_path, UnsupportedModel, f"type {kind} are not imported.*Q4_K")


def test_a_gguf_without_a_known_tokenizer_takes_one_from_elsewhere(tmp_path):
    from tests.text import tiny

    source = gguf(tmp_path, tokenizer__ggml__pre="unknown-pre")
    refused(source, tmp_path, UnsupportedModel, "unknown-pre.*--tokenizer")
    other = tmp_path / "other"
    other.mkdir()
    refused(source, tmp_path, UsageError, "holds no tokenizer", tokenizer=str(other))
    tiny.write_tokenizer_json(other)
    run_import(source, tmp_path / "new", tokenizer=str(other))
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()


def test_a_template_that_never_ends_is_not_waited_for(tmp_path):
    """It is not run when it is imported, and has a budget when it is."""
    from qwen_mlx.errors import TemplateError
    from qwen_mlx.text.template import ChatTemplate

    loops = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    run_import(gguf(tmp_path, tokenizer__chat_template=loops), tmp_path / "new")
    with pytest.raises(TemplateError):
        ChatTemplate.from_folder(tmp_path / "new").render([{"role": "user", "content": "?"}])


# ------------------------------------------------------------------------------------------------------ what is there


def test_nothing_to_import(tmp_path):
    with pytest.raises(NotFound):
        run_import(tmp_path / "nowhere.gguf", tmp_path / "new")
    plain = samples.hub_sample("awq", "qwen3")
    config = {key: value for key, value in plain.config.items() if key != "quantization_config"}
    samples.Sample(config, plain.tensors).write(tmp_path / "plain")
    refused(tmp_path / "plain", tmp_path, UsageError, "needs no import: it is not quantized already")
    run_import(write_sample(tmp_path, "awq", "qwen3"), tmp_path / "imported")
    refused(tmp_path / "imported", tmp_path, UsageError, "in MLX format already")


def test_pickles_are_never_opened(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    refused(source, tmp_path, CheckpointError, "only pickle weights.*refused")
    (tmp_path / "x.gguf").write_bytes(b"\x80\x02}q\x00." + bytes(100))
    refused(tmp_path / "x.gguf", tmp_path, CheckpointError, "a Python pickle.*never opened")


def test_a_missing_shard_is_named(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, tmp_path, CheckpointError, "model-00002-of-00002.safetensors missing")
    index["weight_map"]["b"] = "../../etc/passwd.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, tmp_path, CheckpointError, "names a file that is refused")


def sharded(folder, swap=False, twice=False):
    """An AWQ model in two files with an index, which may be wrong."""
    sample = samples.hub_sample("awq", "qwen3")
    names = sorted(sample.tensors)
    files = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    weight_map = {name: file for file, own in files.items() for name in own}
    if swap:
        weight_map[names[0]], weight_map[names[-1]] = weight_map[names[-1]], weight_map[names[0]]
    folder.mkdir()
    for file, own in files.items():
        more = [names[0]] if twice and names[0] not in own else []
        data = samples.safetensors_bytes({name: sample.tensors[name] for name in [*own, *more]})
        (folder / file).write_bytes(data)
    (folder / "config.json").write_text(json.dumps(sample.config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_index_and_files_have_to_agree(tmp_path):
    refused(sharded(tmp_path / "a", swap=True), tmp_path, CheckpointError, "index.json and the weights disagree")
    refused(sharded(tmp_path / "b", twice=True), tmp_path, CheckpointError, "holds tensor .* twice")
    run_import(sharded(tmp_path / "c"), tmp_path / "new")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"<!doctype html><html>Log in</html>" * 9, "a web page.*log-in page"),
        (bytes(4096), "zeros, as an interrupted download"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "x.gguf"])
def test_files_that_are_something_else(name, content, message, tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3") if name != "x.gguf" else tmp_path
    (source / name).write_bytes(content)
    refused(source / name if name == "x.gguf" else source, tmp_path, CheckpointError, message)


def test_a_truncated_file_says_how_much_is_missing(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:-1000])
    refused(source, tmp_path, CheckpointError, f"cut off; expected {len(data)} bytes; found {len(data) - 1000}")


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    (tmp_path / "secret").write_text("{}")
    (source / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    refused(source, tmp_path, CheckpointError, "a link that leaves the model folder")


@pytest.mark.parametrize("kind", ["vision", "audio"])
def test_other_models_are_not_imported(kind, tmp_path):
    sample = samples.hub_sample("awq", "qwen3")
    name = {"vision": "qwen2_5_vl", "audio": "qwen2_audio"}[kind]
    samples.Sample(sample.config | {"model_type": name}, sample.tensors).write(tmp_path / "model")
    refused(
        tmp_path / "model", tmp_path, UnsupportedModel, f"{name}.*{'a ' if kind == 'vision' else 'an '}{kind} model"
    )


def test_code_of_a_repository_is_neither_run_nor_copied(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    config = json.loads((source / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling.Evil"}}
    (source / "config.json").write_text(json.dumps(config))
    (source / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run_import(source, tmp_path / "new")
    load(tmp_path / "new")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "new" / "modeling.py").exists()


# ------------------------------------------------------------------------------------------ loading without importing


@pytest.mark.parametrize("form", ["awq", "gptq", "fp8", "ct_int4"])
def test_load_says_that_import_is_what_is_needed(form, tmp_path):
    with pytest.raises(CheckpointError, match=f"stored as {samples.quantization_config(form)['quant_method']}.*import"):
        load(write_sample(tmp_path, form, "qwen3"))


def test_load_of_a_gguf_folder_says_so_too(tmp_path):
    source = gguf(tmp_path)
    with pytest.raises(CheckpointError, match=r"found GGUF files\. `qwen-mlx import`"):
        load(source.parent)
    (tmp_path / "config.json").write_text(json.dumps(samples.CONFIGS["qwen3"]))
    with pytest.raises(CheckpointError, match=r"only GGUF weights.*`qwen-mlx import`"):
        load(source.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "no type 'int8'"),
        ({"requantize": "huge"}, "--requantize 'huge'.*tiny, small, balanced"),
        ({"requantize": "7"}, "MLX does not compute 7 bits"),
        ({"requantize": "4:48"}, "groups of 48"),
        ({"requantize": "4", "dequantize": True}, "exclude each other"),
    ],
)
def test_options_that_cannot_be_meant(options, message, tmp_path):
    refused(write_sample(tmp_path, "awq", "qwen3"), tmp_path, UsageError, message, **options)
