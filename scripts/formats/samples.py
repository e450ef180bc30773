"""The tensors of tiny models, as AWQ, GPTQ, FP8, compressed-tensors and GGUF store them.

numpy only, and no code of `qwen_mlx`: what the tests compare must not come from what they test.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# name of a tensor -> (type in safetensors, array of that many bytes)
Stored = dict[str, tuple[str, np.ndarray]]

HIDDEN, VOCABULARY = 256, 96
COMMON: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "float16",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": COMMON | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": False},
    "qwen3": COMMON | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "qwen3_moe": COMMON
    | {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "tie_word_embeddings": False,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
}
PROMPT = (3, 14, 15, 92, 65, 35)
DEVIATION = 1.2  # of the weights, times the square root of the columns

HUB_FORMATS = (
    "awq",
    "gptq",
    "gptq_8bit",
    "gptq_3bit",
    "gptq_v2_asym",
    "gptq_desc_act",
    "fp8",
    "fp8_ue8m0",
    "ct_int4",
    "ct_int4_asym",
    "ct_int8",
)
GGUF_FORMATS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"),
    "Q4_K_M",  # a mixture, as llama.cpp makes it
)


def generator(*names: str) -> np.random.Generator:
    """A generator of its own for everything that has a name."""
    return np.random.default_rng(list("/".join(names).encode()))


def matrices(config: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Modules that these formats quantize on the hub, with rows and columns."""
    heads, head_dim, hidden = config["num_attention_heads"], config["head_dim"], config["hidden_size"]
    kv = config["num_key_value_heads"] * head_dim
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        yield f"{path}.self_attn.q_proj", heads * head_dim, hidden
        yield f"{path}.self_attn.k_proj", kv, hidden
        yield f"{path}.self_attn.v_proj", kv, hidden
        yield f"{path}.self_attn.o_proj", hidden, heads * head_dim
        experts = config.get("num_experts")
        size = config["moe_intermediate_size"] if experts else config["intermediate_size"]
        for place in [f"experts.{e}." for e in range(experts)] if experts else [""]:
            yield f"{path}.mlp.{place}gate_proj", size, hidden
            yield f"{path}.mlp.{place}up_proj", size, hidden
            yield f"{path}.mlp.{place}down_proj", hidden, size


def others(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What is never quantized: float32 tensors that float16 holds exactly."""
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCABULARY, hidden)
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{path}.{norm}.weight"] = (hidden,)
        if config["model_type"].startswith("qwen3"):
            shapes[f"{path}.self_attn.q_norm.weight"] = shapes[f"{path}.self_attn.k_norm.weight"] = (head_dim,)
        else:
            for name, heads in (("q", "attention"), ("k", "key_value"), ("v", "key_value")):
                shapes[f"{path}.self_attn.{name}_proj.bias"] = (config[f"num_{heads}_heads"] * head_dim,)
        if config.get("num_experts"):
            shapes[f"{path}.mlp.gate.weight"] = (config["num_experts"], hidden)
    return {name: _float(config["model_type"], name, shape) for name, shape in shapes.items()}


def _float(model: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = generator(model, name).standard_normal(shape)
    if "norm" in name:
        values = 1 + 0.2 * values
    elif len(shape) == 1:
        values *= 0.3
    else:
        values *= DEVIATION / math.sqrt(shape[-1])
    bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)  # bfloat16, which float16 holds, too
    return bits.view(np.float32).astype(np.float16).astype(np.float32)


# ------------------------------------------------------------------------------------------------ formats of the hub


@dataclass(frozen=True)
class Sample:
    """A model as its folder has it: `config.json` and the tensors of `model.safetensors`."""

    config: dict[str, Any]
    tensors: Stored = field(repr=False)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "model.safetensors").write_bytes(safetensors_bytes(self.tensors))
        return folder


def safetensors_bytes(tensors: Stored) -> bytes:
    """A file of tensors whose bytes are known."""
    header: dict[str, Any] = {}
    position = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(array).tobytes() for _, array in tensors.values())
    return struct.pack("<Q", len(text)) + text + data


def hub_sample(form: str, model: str) -> Sample:
    """A tiny model `model` of `CONFIGS` in the format `form` of `HUB_FORMATS`."""
    config = CONFIGS[model]
    settings = quantization_config(form)
    draw = {"awq": _awq, "gpt": _gptq, "fp8": _fp8, "ct_": _compressed}[form[:3]]
    tensors: Stored = {name: ("F16", array.astype(np.float16)) for name, array in others(config).items()}
    for module, rows, columns in matrices(config):
        parts = draw(settings, generator(form, model, module), rows, columns)
        tensors.update({f"{module}.{part}": value for part, value in parts.items()})
    return Sample(config | {"quantization_config": settings}, tensors)


def quantization_config(form: str) -> dict[str, Any]:
    """`quantization_config` as the published models of this format have it."""
    if form == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
    if form.startswith("gptq"):
        settings: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "damp_percent": 0.01}
        settings |= {"desc_act": form == "gptq_desc_act", "sym": form != "gptq_v2_asym", "true_sequential": True}
        if form == "gptq_v2_asym":
            settings["checkpoint_format"] = "gptq_v2"
        if form.endswith("bit"):
            settings["bits"] = int(form[-4])
        return settings
    if form.startswith("fp8"):
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": ["lm_head"],
            **({"scale_fmt": "ue8m0"} if form == "fp8_ue8m0" else {}),
        }
    bits = 8 if form == "ct_int8" else 4
    strategy = ("channel", None) if form == "ct_int8" else ("group", 128)
    weights = {"num_bits": bits, "type": "int", "symmetric": not form.endswith("asym"), "dynamic": False}
    weights |= {"strategy": strategy[0], "group_size": strategy[1], "observer": "minmax", "actorder": None}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
    }


def _words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.int32)


def _scales(rng: np.random.Generator, spread: float, columns: int, *shape: int) -> np.ndarray:
    """Halves that give weights of `DEVIATION` for codes that are spread like this."""
    return (rng.uniform(0.7, 1.3, shape) * DEVIATION / (spread * math.sqrt(columns))).astype(np.float16)


def _awq(settings: Mapping[str, Any], rng: np.random.Generator, rows: int, columns: int) -> Stored:
    groups = columns // settings["group_size"]
    return {
        "qweight": ("I32", _words(rng, columns, rows // 8)),
        "qzeros": ("I32", _words(rng, groups, rows // 8)),
        "scales": ("F16", _scales(rng, 6.5, columns, groups, rows)),
    }


def _gptq(settings: Mapping[str, Any], rng: np.random.Generator, rows: int, columns: int) -> Stored:
    bits, groups = settings["bits"], columns // settings["group_size"]
    order = np.arange(columns, dtype=np.int32) // settings["group_size"]
    if settings["desc_act"]:
        order = rng.permutation(order)
    if settings["sym"]:  # all zero points are the middle, minus one
        bit = np.tile(((1 << bits - 1) - 1) >> np.arange(bits) & 1, rows).astype(np.uint8)
        zeros = np.tile(np.packbits(bit, bitorder="little").view(np.int32), (groups, 1))
    else:
        zeros = _words(rng, groups, rows * bits // 32)
    spread = (0.29 if settings["sym"] else 0.41) * 2**bits
    return {
        "qweight": ("I32", _words(rng, columns * bits // 32, rows)),
        "qzeros": ("I32", zeros),
        "scales": ("F16", _scales(rng, spread, columns, groups, rows)),
        "g_idx": ("I32", order),
    }


def _fp8(settings: Mapping[str, Any], rng: np.random.Generator, rows: int, columns: int) -> Stored:
    high, wide = settings["weight_block_size"]
    codes = rng.integers(0, 2**8, (rows, columns), dtype=np.uint8)
    codes = np.where(codes & 0x78 == 0x78, codes ^ 0x40, codes)  # neither NaN nor the largest numbers
    grid = (-(-rows // high), -(-columns // wide))
    target = DEVIATION / (60 * math.sqrt(columns))
    if settings.get("scale_fmt") == "ue8m0":
        return {
            "weight": ("F8_E4M3", codes),
            "weight_scale_inv": ("F8_E8M0", (127 + round(math.log2(target)) + rng.integers(-1, 2, grid)).astype("u1")),
        }
    scales = (rng.uniform(0.7, 1.3, grid) * target).astype(np.float32)
    return {"weight": ("F8_E4M3", codes), "weight_scale_inv": ("F32", scales)}


def _compressed(settings: Mapping[str, Any], rng: np.random.Generator, rows: int, columns: int) -> Stored:
    weights = settings["config_groups"]["group_0"]["weights"]
    bits, groups = weights["num_bits"], columns // (weights["group_size"] or columns)
    spread = (0.29 if weights["symmetric"] else 0.41) * 2**bits
    parts: Stored = {
        "weight_packed": ("I32", _words(rng, rows, columns * bits // 32)),
        "weight_scale": ("F16", _scales(rng, spread, columns, rows, groups)),
        "weight_shape": ("I64", np.array([rows, columns], np.int64)),
    }
    if not weights["symmetric"]:
        parts["weight_zero_point"] = ("I32", _words(rng, rows * bits // 32, groups))
    return parts


# -------------------------------------------------------------------------------------------------------------- GGUF

# values and bytes of a block
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
# For weights of deviation 1: the scale d, and the minimum in d.
_LEVELS = {
    "Q4_0": (1 / 4.6, 0.0),
    "Q4_1": (1 / 4.6, -7.5),
    "Q5_0": (1 / 9.2, 0.0),
    "Q5_1": (1 / 9.2, -15.5),
    "Q8_0": (1 / 74, 0.0),
    "Q4_K": (1 / 200, 7.5),
    "Q5_K": (1 / 400, 15.5),
    "Q6_K": (1 / 1400, 0.0),
}
_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True)
class GGUFSampleTensor:
    """`hub`: the name of the module on the hub, one for every expert; `raw`: bytes (..., bytes of a row)."""

    hub: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    raw: np.ndarray


def gguf_sample(form: str, model: str) -> tuple[dict[str, Any], dict[str, GGUFSampleTensor]]:
    """Metadata and tensors of a tiny model, every matrix in the type `form` of `GGUF_FORMATS`."""
    config = CONFIGS[model]
    tensors: dict[str, GGUFSampleTensor] = {}
    for name, values in others(config).items():
        module, _, part = name.rpartition(".")
        own = _GGUF_ENDS.get(module) or "blk.0." + _GGUF_NAMES[module.removeprefix("model.layers.0.")]
        kind = "F32"
        if module in ("model.embed_tokens", "lm_head"):
            kind = {"Q4_K_M": "Q6_K"}.get(form, form)
        raw = values.view(np.uint8) if kind == "F32" else draw_rows(kind, generator(form, model, name), *values.shape)
        tensors[f"{own}.{part}"] = GGUFSampleTensor((name,), kind, values.shape, raw)
    stacks: dict[str, list[tuple[str, int, int]]] = {}
    for module, rows, columns in matrices(config):
        inner = module.removeprefix("model.layers.0.")
        if ".experts." in inner:
            kind = inner.rpartition(".")[2].removesuffix("_proj")
            stacks.setdefault(f"blk.0.ffn_{kind}_exps.weight", []).append((module, rows, columns))
        else:
            stacks[f"blk.0.{_GGUF_NAMES[inner]}.weight"] = [(module, rows, columns)]
    for own, parts in stacks.items():
        finer = form == "Q4_K_M" and own.split(".")[2] in ("attn_v", "ffn_down", "ffn_down_exps")
        kind = "Q6_K" if finer else {"Q4_K_M": "Q4_K"}.get(form, form)
        raws = [draw_rows(kind, generator(form, model, module), rows, columns) for module, rows, columns in parts]
        hub = tuple(f"{module}.weight" for module, _, _ in parts)
        shape = parts[0][1:] if "_exps" not in own else (len(parts), *parts[0][1:])
        tensors[own] = GGUFSampleTensor(hub, kind, shape, raws[0] if "_exps" not in own else np.stack(raws))
    return gguf_metadata(model), tensors


def gguf_metadata(model: str) -> dict[str, Any]:
    """Keys as llama.cpp's converter writes them."""
    config = CONFIGS[model]
    arch = {"qwen3_moe": "qwen3moe"}.get(model, model)
    keys: dict[str, Any] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
    }
    if config.get("num_experts"):
        keys["expert_count"] = config["num_experts"]
        keys["expert_used_count"] = config["num_experts_per_tok"]
        keys["expert_feed_forward_length"] = config["moe_intermediate_size"]
    metadata: dict[str, Any] = {"general.architecture": arch, "general.name": f"Tiny {model}", "general.file_type": 1}
    metadata |= {f"{arch}.{key}": value for key, value in keys.items()}
    return metadata | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*(chr(0x100 + i) for i in range(VOCABULARY - 2)), "<|endoftext|>", "<|im_end|>"],
        "tokenizer.ggml.token_type": [1] * (VOCABULARY - 2) + [3, 3],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": VOCABULARY - 1,
        "tokenizer.ggml.padding_token_id": VOCABULARY - 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def checksum(form: str, model: str) -> str:
    """Of all bytes of a sample, so that a numpy that draws other numbers is noticed."""
    digest = hashlib.sha256()
    if form in HUB_FORMATS:
        for _, array in hub_sample(form, model).tensors.values():
            digest.update(np.ascontiguousarray(array).tobytes())
    else:
        for tensor in gguf_sample(form, model)[1].values():
            digest.update(tensor.raw.tobytes())
    return digest.hexdigest()[:16]


def draw_rows(kind: str, rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random rows of a type, uint8 (..., bytes of a row): random bits, and scales for weights of `DEVIATION`."""
    values, nbytes = BLOCKS[kind]
    deviation = DEVIATION / math.sqrt(shape[-1])
    if values == 1:
        weights = (rng.standard_normal(shape) * deviation).astype(np.float32)
        if kind == "BF16":
            return np.ascontiguousarray((weights.view(np.uint32) >> 16).astype(np.uint16)).view(np.uint8)
        return np.ascontiguousarray(weights.astype({"F16": np.float16, "F32": np.float32}[kind])).view(np.uint8)
    count = math.prod(shape) // values
    raw = rng.integers(0, 256, (count, nbytes), dtype=np.uint8)
    level, minimum = _LEVELS[kind]
    d = (rng.uniform(0.7, 1.3, (count, 1)) * level * deviation).astype(np.float16)
    place = 208 if kind == "Q6_K" else 0
    raw[:, place : place + 2] = d.view(np.uint8)
    if minimum:
        raw[:, 2:4] = (d.astype(np.float32) * minimum).astype(np.float16).view(np.uint8)
    return raw.reshape(*shape[:-1], shape[-1] // values * nbytes)
