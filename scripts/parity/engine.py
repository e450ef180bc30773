"""What a reference implementation has to offer, and the one that asks Hugging Face transformers.

Needs torch and transformers; runs on the CPU, in float32, offline.
"""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from scripts.parity.cases import Case
from scripts.parity.configs import Config
from scripts.parity.weights import Arrays


class Engine(ABC):
    """A model whose logits are the reference.

    Ids are int64 (batch, length); logits float32 (batch, length, vocab).
    """

    vocabulary: int

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by name."""

    @abstractmethod
    def parameters(self) -> Mapping[str, torch.Tensor]:
        """The parameters themselves: writing into one changes the model."""

    @abstractmethod
    def logits(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """One forward over everything, without a cache. `mask` is 0 on left padding."""

    @abstractmethod
    def start(self) -> Any:
        """An empty cache."""

    @abstractmethod
    def step(self, cache: Any, ids: torch.Tensor) -> torch.Tensor:
        """Extend the cache by `ids`; the logits of these positions."""

    @abstractmethod
    def layer_outputs(self, ids: torch.Tensor) -> torch.Tensor:
        """(layers + 1, length, hidden): the embedding, then the residual stream after every layer."""

    def load(self, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(torch.from_numpy(arrays[name]))

    def greedy(self, ids: torch.Tensor, count: int) -> tuple[list[int], torch.Tensor]:
        """Continue one text: the tokens, and the logits (count, vocab) each of them is the argmax of."""
        cache = self.start()
        tokens: list[int] = []
        rows: list[torch.Tensor] = []
        while len(tokens) < count:
            rows.append(self.step(cache, ids)[0, -1])
            tokens.append(int(rows[-1].argmax()))
            ids = torch.tensor([tokens[-1:]])
        return tokens, torch.stack(rows)

    def generate(self, ids: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor | None:
        """What the library's own generation makes of a left-padded batch, (batch, count); None without one."""
        return None

    def router_margin(self, ids: torch.Tensor) -> float | None:
        """The smallest lead of a chosen expert over a refused one, in logits; None without routing."""
        return None

    def checks(self, arrays: Arrays, ids: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
        """Largest differences of `expected` to other ways of computing it, by name."""
        return {}


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


class Transformers(Engine):
    """A model of the transformers library."""

    def __init__(self, case: Case, config: Config | None = None, attention: str = "eager") -> None:
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        source = config or case.config
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(source))
            parsed = transformers.AutoConfig.from_pretrained(folder)
        parsed._attn_implementation = attention
        self.case = case
        self.model = getattr(transformers, source["architectures"][0])(parsed).float().eval()
        self.vocabulary = source.get("text_config", source)["vocab_size"]

    def parameters(self) -> Mapping[str, torch.Tensor]:
        return dict(self.model.named_parameters())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self.parameters().items()}

    def _forget(self) -> None:
        """Dynamic NTK remembers the longest text it has seen, Qwen3.5 the padding: start anew."""
        for module in self.model.modules():
            if getattr(module, "rope_deltas", None) is not None:
                module.rope_deltas = None
            if "dynamic" in getattr(module, "rope_type", "") and hasattr(module, "original_inv_freq"):
                module.register_buffer("inv_freq", module.original_inv_freq.clone(), persistent=False)
                module.max_seq_len_cached = module.original_max_seq_len

    @torch.no_grad()
    def logits(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        self._forget()
        return self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits

    def start(self) -> dict[str, Any]:
        self._forget()
        return {"past_key_values": None}

    @torch.no_grad()
    def step(self, cache: dict[str, Any], ids: torch.Tensor) -> torch.Tensor:
        out = self.model(input_ids=ids, use_cache=True, **cache)
        cache["past_key_values"] = out.past_key_values
        return out.logits

    @torch.no_grad()
    def generate(self, ids: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
        self._forget()
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        both = self.model.generate(ids, attention_mask=mask, pad_token_id=0, eos_token_id=None, **options)
        return both[:, ids.shape[1] :]

    def _watch(self, modules: list[torch.nn.Module], ids: torch.Tensor, see: Callable) -> None:
        """Run once and show `see(module, output)` what each module returns."""

        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            see(module, output[0] if isinstance(output, tuple) else output)

        handles = [module.register_forward_hook(hook) for module in modules]
        self.logits(ids)
        for handle in handles:
            handle.remove()

    def layer_outputs(self, ids: torch.Tensor) -> torch.Tensor:
        text = getattr(self.model.model, "language_model", self.model.model)
        seen: list[torch.Tensor] = []
        self._watch([text.embed_tokens, *text.layers], ids, lambda module, output: seen.append(output[0].clone()))
        return torch.stack(seen)

    def router_margin(self, ids: torch.Tensor) -> float | None:
        routers = [module for module in self.model.modules() if type(module).__name__.endswith("TopKRouter")]
        margins: list[float] = []

        def see(router: Any, scores: torch.Tensor) -> None:
            if scores.shape[-1] > router.top_k:
                top = scores.float().topk(router.top_k + 1, dim=-1).values
                margins.append(float((top[:, -2] - top[:, -1]).min()))

        self._watch(routers, ids, see)
        return min(margins, default=None)

    # ------------------------------------------------------------------------------------------ as files

    def saved(self) -> tuple[Arrays, Config]:
        """What `save_pretrained` writes: the tensors, and the configuration as transformers 5 spells it."""
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            tensors = load_file(Path(folder) / "model.safetensors")
        config.pop("transformers_version", None)
        return tensors, config

    def difference_when_loaded(
        self, tensors: Arrays, config: Config, ids: torch.Tensor, expected: torch.Tensor
    ) -> float:
        """The largest change of a logit when a model is loaded from files; raises if a tensor is left over."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            model, report = type(self.model).from_pretrained(
                folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
            )
        unexpected = [name for name in report["unexpected_keys"] if "inv_freq" not in name]
        if unexpected or report["missing_keys"] or report["mismatched_keys"]:
            raise ValueError(f"{self.case.name}: transformers does not take the files as they are: {report}")
        with torch.no_grad():
            return largest(model.eval()(input_ids=ids, use_cache=False).logits - expected)

    def checks(self, arrays: Arrays, ids: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
        other = Transformers(self.case, attention="sdpa")
        other.load(arrays)
        return {"sdpa": largest(other.logits(ids) - expected)}


def same_tensors(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
