"""What the tensors of `samples.py` mean, by the programs these formats come from. Needs them; see the fixture maker."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gguf
import numpy as np
import torch
from gguf import quants

from scripts.formats import samples
from scripts.formats.samples import Stored

Weights = dict[str, np.ndarray]
Dequantizer = Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], torch.Tensor]
_TORCH = {"F32": torch.float32, "F16": torch.float16, "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu}


def torch_tensors(stored: Stored, module: str) -> dict[str, torch.Tensor]:
    """The tensors of one module."""
    found = {}
    for name, (dtype, array) in stored.items():
        if name.startswith(f"{module}."):
            tensor = torch.from_numpy(array.copy())
            found[name.rpartition(".")[2]] = tensor.view(_TORCH[dtype]) if dtype.startswith("F8") else tensor
    return found


class Programs:
    """AutoAWQ and GPTQModel, from their unpacked source distributions."""

    def __init__(self, autoawq: Path, gptqmodel: Path) -> None:
        self.awq = _module(autoawq / "awq" / "utils" / "packing_utils.py")
        self.awq_gemm = autoawq / "awq" / "modules" / "linear" / "gemm.py"
        os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"
        sys.path.insert(0, str(gptqmodel))
        from gptqmodel.nn_modules.qlinear.torch import TorchLinear
        from gptqmodel.utils.model import (
            convert_gptq_v1_to_v2_format_module,
            convert_gptq_v2_to_v1_format_module,
        )

        self.linear, self.to_v2, self.to_v1 = (
            TorchLinear,
            convert_gptq_v1_to_v2_format_module,
            convert_gptq_v2_to_v1_format_module,
        )

    def dequantize(self, form: str, parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> np.ndarray:
        """float32 (rows, columns)."""
        if form.startswith("awq"):
            scales = parts["scales"].float()
            matrix = self.awq.dequantize_gemm(parts["qweight"], parts["qzeros"], scales, 4, settings["group_size"]).T
        elif form.startswith("gptq"):
            matrix = self._gptq(parts, settings)
        elif form.startswith("fp8"):
            high, wide = settings["weight_block_size"]
            scale = parts["weight_scale_inv"].float().repeat_interleave(high, 0).repeat_interleave(wide, 1)
            weight = parts["weight"].float()
            matrix = weight * scale[: weight.shape[0], : weight.shape[1]]
        else:
            matrix = _compressed(parts, settings)
        return matrix.float().contiguous().numpy()

    def gptq_module(self, bits: int, group: int, sym: bool, desc_act: bool, columns: int, rows: int) -> Any:
        return self.linear(
            bits=bits,
            group_size=group,
            sym=sym,
            desc_act=desc_act,
            in_features=columns,
            out_features=rows,
            bias=False,
            pack_dtype=torch.int32,
        )

    def _gptq(self, parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
        bits, columns, rows = settings["bits"], parts["g_idx"].numel(), parts["qweight"].shape[1]
        module = self.gptq_module(bits, settings["group_size"], settings["sym"], settings["desc_act"], columns, rows)
        for name in ("qweight", "qzeros", "g_idx"):
            module.register_buffer(name, parts[name].clone())
        module.register_buffer("scales", parts["scales"].float())  # halves would be multiplied as halves
        if settings.get("checkpoint_format", "gptq") == "gptq":
            self.to_v2(module, bits=bits, pack_dtype=torch.int32)
        module.post_init()
        return module.dequantize_weight().T


def gptq_config(bits: int) -> SimpleNamespace:
    """What GPTQModel's converters look at."""
    return SimpleNamespace(bits=bits, pack_dtype=torch.int32)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compressed(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    scheme = QuantizationScheme(**settings["config_groups"]["group_0"])
    state = {name: tensor.clone() for name, tensor in parts.items()}
    state["weight_scale"] = state["weight_scale"].float()
    return PackedQuantizationCompressor.decompress(state, scheme)["weight"]


def hub_weights(programs: Programs, form: str, model: str) -> Weights:
    """All weights of a sample in float32, by the names of the hub."""
    sample = samples.hub_sample(form, model)
    weights = samples.others(sample.config)
    for module, _, _ in samples.matrices(sample.config):
        parts = {k: v for k, v in torch_tensors(sample.tensors, module).items() if k != "bias"}
        weights[f"{module}.weight"] = programs.dequantize(form, parts, sample.config["quantization_config"])
    return weights


def gguf_values(kind: str, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of rows of a GGUF type, float32."""
    if kind in ("F32", "F16"):
        return raw.view({"F32": np.float32, "F16": np.float16}[kind]).astype(np.float32).reshape(shape)
    return quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(shape)


def gguf_weights(form: str, model: str) -> Weights:
    """The same of a GGUF sample."""
    weights: Weights = {}
    for tensor in samples.gguf_sample(form, model)[1].values():
        values = gguf_values(tensor.kind, tensor.raw, tensor.shape)
        if len(tensor.hub) == 1:
            weights[tensor.hub[0]] = values
        else:
            weights.update(zip(tensor.hub, values))
    return weights


def logits(weights: Weights, model: str) -> np.ndarray:
    """What transformers computes with these weights in float32 for `samples.PROMPT`: (tokens, vocabulary)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {k: v for k, v in samples.CONFIGS[model].items() if k != "torch_dtype"}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval().float()
    state = {}
    for name, own in network.state_dict().items():
        path, _, last = name.rpartition(".")
        if last in ("gate_up_proj", "down_proj") and path.endswith(".experts"):
            parts = ("gate_proj", "up_proj") if last == "gate_up_proj" else ("down_proj",)
            count = own.shape[0]
            rows = [np.concatenate([weights[f"{path}.{e}.{p}.weight"] for p in parts]) for e in range(count)]
            state[name] = torch.from_numpy(np.stack(rows))
        elif name == "lm_head.weight" and name not in weights:
            state[name] = torch.from_numpy(weights["model.embed_tokens.weight"])
        else:
            state[name] = torch.from_numpy(np.ascontiguousarray(weights[name]))
    network.load_state_dict(state)
    with torch.no_grad():
        return network(torch.tensor([samples.PROMPT])).logits[0].numpy()
