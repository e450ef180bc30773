"""mlx-lm's tools run on our decoder, and mlx-lm's models on what we save."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.generation.generate import Token, generate
from qwen_mlx.generation.parameters import SamplingParams
from qwen_mlx.models import Decoder
from qwen_mlx.text.tokenizer import Tokenizer
from tests.models import tiny
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip
import numpy as np

if sys.version_info < (3, 11):
    pytest.skip("mlx-lm needs Python 3.11", allow_module_level=True)
pytest.importorskip("mlx_lm")

from mlx_lm.generate import generate_step, speculative_generate_step, stream_generate
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.perplexity import eval_ppl
from mlx_lm.utils import load_model

# mlx-lm asks for keys that have defaults, and knows no `layer_types`.
SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
HALF = {"full_attention_interval": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
WINDOW = tiny.QWEN2 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": tiny.QWEN2,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3": tiny.QWEN3,
    "qwen3_moe": tiny.QWEN3_MOE | SPARSE,
    "qwen3_next": tiny.QWEN3_NEXT | SPARSE | HALF,
    "qwen3_next, some layers dense": tiny.QWEN3_NEXT | SPARSE | HALF | {"mlp_only_layers": [1]},
    "qwen3_5": tiny.QWEN3_5 | HALF | {"model_type": "qwen3_5", "rope_parameters": ROPE},
    "qwen3_5_moe": tiny.QWEN3_NEXT
    | HALF
    | {"model_type": "qwen3_5_moe", "rope_parameters": ROPE, "mlp_only_layers": []},
}
every_family = pytest.mark.parametrize("family", CONFIGS)
PROMPT = [3, 17, 60, 5, 5, 90, 41, 8, 22, 70, 1, 33]
COUNT = 24


@pytest.fixture(scope="module")
def decoders() -> dict[str, Decoder]:
    return {name: tiny.decoder(config) for name, config in {**CONFIGS, "window": WINDOW}.items()}


def ours(decoder: Decoder, prompt: list[int], count: int = COUNT) -> list[int]:
    """Greedy tokens of our own generator."""
    params = SamplingParams(temperature=0, max_tokens=count)
    return [event.id for event in generate(decoder, prompt, params) if isinstance(event, Token)]


# ------------------------------------------------------------------------------------- their tools, our decoder


@pytest.mark.parametrize("step", [5, 2048])
@pytest.mark.parametrize("family", [*CONFIGS, "window"])
def test_their_loop_writes_what_ours_does(family: str, step: int, decoders: dict[str, Decoder]) -> None:
    decoder = decoders[family]
    cache = make_prompt_cache(decoder)
    steps = generate_step(mx.array(PROMPT), decoder, max_tokens=COUNT, prompt_cache=cache, prefill_step_size=step)
    assert [int(token) for token, _ in steps] == ours(decoder, PROMPT)
    assert {layer.size() for layer in cache if layer.trims_freely} <= {len(PROMPT) + COUNT}


def test_their_stream_of_text(decoders: dict[str, Decoder], tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tiny_text.write_tokenizer_json(tmp_path)
    own = Tokenizer.from_folder(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")
    decoder = tiny.decoder(tiny.QWEN3 | {"vocab_size": own.vocab_size}, seed=4)
    prompt = own.encode("Hello world")
    responses = list(stream_generate(decoder, theirs, prompt, max_tokens=COUNT))
    written = ours(decoder, prompt)
    end = next((i for i, token in enumerate(written) if token in own.eos_ids), COUNT)
    assert end > 3
    assert "".join(response.text for response in responses) == own.decode(written[:end], skip_special=False)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen3_moe"])
def test_their_speculation(family: str, decoders: dict[str, Decoder]) -> None:
    """With a draft model that is often wrong, so that the caches are cut back."""
    decoder, draft = decoders[family], tiny.decoder(CONFIGS[family], seed=1)
    steps = speculative_generate_step(mx.array(PROMPT), decoder, draft, num_draft_tokens=3, max_tokens=COUNT)
    tokens = [(int(token), drafted) for token, _, drafted in steps]
    assert [token for token, _ in tokens] == ours(decoder, PROMPT)
    assert not all(drafted for _, drafted in tokens)


def test_their_way_to_cut_and_copy_a_cache(decoders: dict[str, Decoder]) -> None:
    decoder = decoders["qwen3"]
    cache = make_prompt_cache(decoder)
    text = mx.array([PROMPT])
    decoder(text, cache=cache)
    kept = copy.deepcopy(cache)
    assert can_trim_prompt_cache(cache)
    assert trim_prompt_cache(cache, 4) == 4
    assert mx.allclose(decoder(text[:, 8:], cache=cache), decoder(text)[:, 8:], atol=1e-4)
    assert {layer.offset for layer in kept} == {len(PROMPT)}
    more = mx.array([[4, 9]])
    whole = mx.concatenate([text, more], axis=1)
    assert mx.allclose(decoder(more, cache=kept), decoder(whole)[:, -2:], atol=1e-4)


@pytest.mark.parametrize("family", ["window", "qwen3_next", "qwen3_5"])
def test_a_cache_that_cannot_go_back_says_so(family: str, decoders: dict[str, Decoder]) -> None:
    decoder = decoders[family]
    cache = make_prompt_cache(decoder)
    for start in range(0, 60, 4):
        decoder(mx.arange(start, start + 4)[None], cache=cache)
    assert not can_trim_prompt_cache(cache)
    assert trim_prompt_cache(cache, 9) == 0


@every_family
def test_their_perplexity(family: str, decoders: dict[str, Decoder], capsys: pytest.CaptureFixture[str]) -> None:
    decoder = decoders[family]
    data = mx.random.randint(0, 97, (5, 20), key=mx.random.key(2))
    found, error = eval_ppl(decoder, data, batch_size=2)
    logits = np.array(decoder(data[:, :-1])).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(logs, np.array(data[:, 1:])[..., None], axis=-1)
    assert found == pytest.approx(np.exp(losses.mean()), rel=1e-4)
    assert error == pytest.approx(found * losses.std(ddof=1) / losses.size**0.5, rel=1e-3)


# ------------------------------------------------------------------------------------- their model, our files


def plain(module: str) -> dict[str, Any] | None:
    return None


def packed(module: str) -> dict[str, Any] | None:
    """4 bits, routers at 8, as mlx-lm packs them; what it leaves alone stays."""
    if module.endswith("conv1d"):
        return None
    return {"bits": 8 if module.endswith(("mlp.gate", "shared_expert_gate")) else 4, "group_size": 32}


@pytest.mark.parametrize("form", [plain, packed], ids=["float32", "4-bit"])
@every_family
def test_their_model_computes_the_same_from_our_files(
    family: str, form: Callable[[str], dict[str, Any] | None], decoders: dict[str, Decoder], tmp_path: Path
) -> None:
    config = CONFIGS[family]
    first = tiny.save(tmp_path / "first", config, hub_tensors(decoders[family]), form)
    model = load(first, weights="quantized")
    assert model.weights == ("plain" if form is plain else "quantized")
    # Saved again from what was loaded: packed matrices go back as they came.
    folder = tiny.save(tmp_path / "again", config | quantization(first), hub_tensors(model.decoder))
    theirs, _ = load_model(folder)
    for length in (1, 12, 50):
        ids = mx.random.randint(0, 97, (2, length), key=mx.random.key(length))
        expected, found = model.decoder(ids), theirs(ids)
        assert mx.abs(found - expected).max() < 1e-4 * mx.maximum(mx.abs(expected).max(), 1)


def quantization(folder: Path) -> dict[str, Any]:
    import json

    values = json.loads((folder / "config.json").read_text())
    return {"quantization": {"bits": 4, "group_size": 32}} if "quantization" in values else {}
