"""Two models transformers does not have, written from their specification in plain torch.

Qwen (v1) was published as code beside the weights (modeling_qwen.py of Qwen/Qwen-7B); Dual Chunk Attention of
Qwen2.5-1M (arXiv 2402.17463, 2501.15383) exists in vLLM.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import linear, silu

from scripts.parity.cases import Case, patched
from scripts.parity.configs import Config
from scripts.parity.engine import Engine, Transformers, largest
from scripts.parity.weights import Arrays

Cache = dict[str, Any]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def frequencies(head_dim: int, base: float) -> torch.Tensor:
    """(head_dim / 2,) radians per position."""
    return base ** -(torch.arange(0, head_dim, 2) / head_dim)


def rotate(x: torch.Tensor, positions: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Rope in halves: x (batch, heads, length, head_dim), positions (length,), inverse (..., head_dim / 2)."""
    angles = positions[:, None] * inverse
    cosine, sine = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


class PlainEngine(Engine):
    """Parameters in a dictionary, a cache of keys and values per layer; subclasses are one function `run`."""

    def __init__(self, case: Case, config: Config | None = None) -> None:
        self.case = case
        self.config = config or case.config
        self.vocabulary = self.config["vocab_size"]
        self.weights = {name: torch.zeros(shape) for name, shape in self.shapes().items()}

    def parameters(self) -> Mapping[str, torch.Tensor]:
        return self.weights

    def start(self) -> Cache:
        return {"layers": [None] * self.config["num_hidden_layers"], "length": 0}

    @abstractmethod
    def run(
        self, cache: Cache, ids: torch.Tensor, mask: torch.Tensor | None, stream: list[torch.Tensor]
    ) -> torch.Tensor:
        """The logits of `ids`, which extend the cache; the residual stream is appended to `stream`."""

    @torch.no_grad()
    def logits(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.run(self.start(), ids, mask, [])

    @torch.no_grad()
    def step(self, cache: Cache, ids: torch.Tensor) -> torch.Tensor:
        return self.run(cache, ids, None, [])

    @torch.no_grad()
    def layer_outputs(self, ids: torch.Tensor) -> torch.Tensor:
        stream: list[torch.Tensor] = []
        self.run(self.start(), ids, None, stream)
        return torch.stack([x[0] for x in stream])

    def project(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    @staticmethod
    def extend(cache: Cache, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to what the cache holds of a layer; all of it, (batch, heads, length, head_dim)."""
        if cache["layers"][layer] is not None:
            old_keys, old_values = cache["layers"][layer]
            keys, values = torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)
        cache["layers"][layer] = keys, values
        return keys, values


class Qwen1(PlainEngine):
    """Qwen 1.8B to 72B.

    One projection for q, k and v with a bias; the MLP is c_proj(w1(x) * silu(w2(x))). For texts longer than
    seq_length, the rope base is multiplied by alpha ** (d / (d - 2)), alpha = 2 ** ceil(log2(length / seq_length) + 1)
    - 1, which the prefill fixes; and the query at 0-based position p is multiplied by log(p + 1) / log(seq_length)
    where p + 1 > seq_length.
    """

    def shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        hidden, vocabulary = config["hidden_size"], config["vocab_size"]
        width, inner = config["kv_channels"] * config["num_attention_heads"], config["intermediate_size"] // 2
        shapes: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (vocabulary, hidden),
            "transformer.ln_f.weight": (hidden,),
            "lm_head.weight": (vocabulary, hidden),
        }
        for i in range(config["num_hidden_layers"]):
            layer = f"transformer.h.{i}."
            shapes |= {layer + "ln_1.weight": (hidden,), layer + "ln_2.weight": (hidden,)}
            shapes |= {layer + "attn.c_attn.weight": (3 * width, hidden), layer + "attn.c_attn.bias": (3 * width,)}
            for name, sizes in (
                ("attn.c_proj", (width, hidden)),
                ("mlp.w1", (inner, hidden)),
                ("mlp.w2", (inner, hidden)),
                ("mlp.c_proj", (hidden, inner)),
            ):
                shapes[f"{layer}{name}.weight"] = sizes
                if not config["no_bias"]:
                    shapes[f"{layer}{name}.bias"] = sizes[:1]
        return shapes

    def _alpha(self, length: int) -> float:
        if not self.config["use_dynamic_ntk"]:
            return 1.0
        return max(2.0 ** math.ceil(math.log2(length / self.config["seq_length"]) + 1) - 1, 1.0)

    def run(
        self, cache: Cache, ids: torch.Tensor, mask: torch.Tensor | None, stream: list[torch.Tensor]
    ) -> torch.Tensor:
        config, weights = self.config, self.weights
        heads, head_dim = config["num_attention_heads"], config["kv_channels"]
        eps, trained = config["layer_norm_epsilon"], config["seq_length"]
        past, total = cache["length"], cache["length"] + ids.shape[1]
        if "alpha" not in cache:
            # the original counts the real tokens of each row of a padded batch, but only past seq_length
            padded = mask is not None and total > trained
            cache["alpha"] = [self._alpha(int(n)) for n in mask.sum(-1)] if padded else [self._alpha(total)]
        bases = [config["rotary_emb_base"] * alpha ** (head_dim / (head_dim - 2)) for alpha in cache["alpha"]]
        inverse = torch.stack([frequencies(head_dim, base) for base in bases])[:, None, None, :]
        positions = torch.arange(past, total)
        allowed = (torch.arange(total) <= positions[:, None])[None, None]
        if mask is not None:
            allowed = allowed & mask[:, None, None, :].bool()
        stretch = torch.ones(len(positions), 1)
        if config["use_logn_attn"]:
            stretch = ((positions + 1).log() / math.log(trained)).clamp(min=1.0)[:, None]
        x = weights["transformer.wte.weight"][ids]
        stream.append(x)
        for i in range(config["num_hidden_layers"]):
            layer = f"transformer.h.{i}."
            y = rms_norm(x, weights[layer + "ln_1.weight"], eps)
            q, k, v = (
                part.view(*ids.shape, heads, head_dim).transpose(1, 2)
                for part in self.project(layer + "attn.c_attn", y).chunk(3, -1)
            )
            q, k = rotate(q, positions, inverse), rotate(k, positions, inverse)
            k, v = self.extend(cache, i, k, v)
            scores = (q * stretch) @ k.mT / math.sqrt(head_dim)
            y = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1) @ v
            x = x + self.project(layer + "attn.c_proj", y.transpose(1, 2).flatten(2))
            y = rms_norm(x, weights[layer + "ln_2.weight"], eps)
            gated = self.project(layer + "mlp.w1", y) * silu(self.project(layer + "mlp.w2", y))
            x = x + self.project(layer + "mlp.c_proj", gated)
            stream.append(x)
        cache["length"] = total
        return self.project("lm_head", rms_norm(x, weights["transformer.ln_f.weight"], eps))


class DualChunk(PlainEngine):
    """Qwen2 with Dual Chunk Attention.

    With s = chunk_size - local_size, the key at j is rotated by j mod s. The query at i meets keys of its own chunk
    (i // s) rotated by i mod s, keys of the chunk before by min(i mod s + s, chunk_size), older keys by
    min(2 s - 1, chunk_size). With original_max_position_embeddings M, queries and keys are both multiplied by
    max(1, 0.1 ln(length / M) + 1): queries with the present length, a key with the length when it was computed.
    """

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return Transformers(self.case, self._plain_config()).shapes()

    def _plain_config(self) -> Config:
        return patched(self.config, {"dual_chunk_attention_config": None})

    def run(
        self, cache: Cache, ids: torch.Tensor, mask: torch.Tensor | None, stream: list[torch.Tensor]
    ) -> torch.Tensor:
        config, weights = self.config, self.weights
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        head_dim, eps = config["hidden_size"] // heads, config["rms_norm_eps"]
        inverse = frequencies(head_dim, config["rope_theta"])
        total = cache["length"] + ids.shape[1]
        queries, keys = torch.arange(cache["length"], total), torch.arange(total)
        # which rotation of a query meets which key: 0 the same chunk, 1 the chunk before, 2 an older one
        distance, turns, key_turn, scale = torch.zeros(len(queries), total), [queries], queries, 1.0
        if chunks := config.get("dual_chunk_attention_config"):
            size, step = chunks["chunk_size"], chunks["chunk_size"] - chunks["local_size"]
            distance = (queries[:, None] // step - keys // step).clamp(0, 2)
            key_turn = queries % step
            oldest = torch.full_like(queries, min(2 * step - 1, size))
            turns = [key_turn, (key_turn + step).clamp(max=size), oldest]
            if trained := chunks.get("original_max_position_embeddings"):
                scale = max(1.0, 0.1 * math.log(total / trained) + 1.0)
        x = weights["model.embed_tokens.weight"][ids]
        stream.append(x)
        for i in range(config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            y = rms_norm(x, weights[layer + "input_layernorm.weight"], eps)
            q, k, v = (
                self.project(f"{layer}self_attn.{name}_proj", y).view(*ids.shape, count, head_dim).transpose(1, 2)
                for name, count in (("q", heads), ("k", groups), ("v", groups))
            )
            k, v = self.extend(cache, i, scale * rotate(k, key_turn, inverse), v)
            k, v = (part.repeat_interleave(heads // groups, 1) for part in (k, v))
            scores = torch.zeros(*q.shape[:3], total)
            for chunk, turn in enumerate(turns):
                meeting = scale * rotate(q, turn, inverse) @ k.mT / math.sqrt(head_dim)
                scores = torch.where(distance == chunk, meeting, scores)
            y = scores.masked_fill(keys > queries[:, None], -math.inf).softmax(-1) @ v
            x = x + self.project(layer + "self_attn.o_proj", y.transpose(1, 2).flatten(2))
            y = rms_norm(x, weights[layer + "post_attention_layernorm.weight"], eps)
            gated = silu(self.project(layer + "mlp.gate_proj", y)) * self.project(layer + "mlp.up_proj", y)
            x = x + self.project(layer + "mlp.down_proj", gated)
            stream.append(x)
        cache["length"] = total
        return self.project("lm_head", rms_norm(x, weights["model.norm.weight"], eps))

    def checks(self, arrays: Arrays, ids: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
        """Without chunks this has to be transformers' Qwen2, and so has a text shorter than one chunk."""
        plain = self._plain_config()
        theirs, ours = Transformers(self.case, plain), DualChunk(self.case, plain)
        theirs.load(arrays)
        ours.load(arrays)
        found = {"without chunks": largest(theirs.logits(ids) - ours.logits(ids))}
        chunks = self.config["dual_chunk_attention_config"]
        if ids.shape[1] <= chunks["chunk_size"] - chunks["local_size"]:
            found["shorter than a chunk"] = largest(theirs.logits(ids) - expected)
        return found
