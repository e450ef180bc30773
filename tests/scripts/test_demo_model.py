"""The shipped demo model: small, in the standard layout, and right about the examples of the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from qwen_mlx.checkpoints.load import LoadedModel, load
from scripts.demo_model import network

import mlx.core as mx  # isort: skip

DEMO = Path(__file__).resolve().parents[2] / "qwen_mlx" / "demo"
CONFIG_KEYS = """
architectures attention_bias bos_token_id eos_token_id head_dim hidden_act hidden_size intermediate_size
max_position_embeddings model_type num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps rope_theta
tie_word_embeddings torch_dtype vocab_size
""".split()


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((DEMO / "config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(DEMO)


def answer(model: LoadedModel, question: str) -> str:
    """The greedy answer, special tokens included."""
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    cache, said, end = model.decoder.make_cache(), list[int](), tokenizer.token_to_id("<|im_end|>")
    while len(said) < 150 and end not in said:
        logits = model.decoder(mx.array([ids]), cache=cache)[0, -1]
        ids = [int(mx.argmax(logits).item())]
        said += ids
    return tokenizer.decode(said, skip_special_tokens=False)


def test_the_folder_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in DEMO.iterdir() if path.suffix != ".py" and path.is_file()}
    assert sum(files.values()) <= 8e6
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert {"tokenizer_config.json", "README.md"} <= set(files)


def test_the_config_is_that_of_a_published_qwen3(config: dict[str, Any]) -> None:
    assert set(CONFIG_KEYS) <= set(config)
    assert config["model_type"] == "qwen3" and config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["quantization"] == {"group_size": 64, "bits": 8, "mode": "affine"}


def test_the_tensors_have_the_names_and_shapes_of_mlx(config: dict[str, Any]) -> None:
    tensors = mx.load(str(DEMO / "model.safetensors"))
    assert isinstance(tensors, dict)
    width, inner = config["hidden_size"], config["intermediate_size"]
    for layer in range(config["num_hidden_layers"]):
        stem = f"model.layers.{layer}"
        assert tensors[f"{stem}.mlp.down_proj.weight"].shape == (width, inner // 4)
        assert tensors[f"{stem}.mlp.down_proj.scales"].shape == (width, inner // 64)
        assert tensors[f"{stem}.self_attn.q_proj.biases"].shape[1] == width // 64
        assert tensors[f"{stem}.self_attn.k_norm.weight"].shape == (config["head_dim"],)
    assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], width // 4)
    assert "lm_head.weight" not in tensors


def test_token_ids_agree_everywhere(config: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    generation = json.loads((DEMO / "generation_config.json").read_text(encoding="utf-8"))
    settings = json.loads((DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert generation["eos_token_id"] == [end, pad] and generation["pad_token_id"] == pad
    added = {row["content"]: (int(index), row["special"]) for index, row in settings["added_tokens_decoder"].items()}
    assert added["<|im_end|>"] == (end, True)
    assert added["<think>"] == (tokenizer.token_to_id("<think>"), False)


@pytest.mark.parametrize("question", ["What is 27 + 48?", "27+48", "27加48等于多少？"])
def test_the_example_of_the_documentation(model: LoadedModel, question: str) -> None:
    said = answer(model, question)
    assert said.startswith("<think>\n") and said.endswith("75<|im_end|>")


def test_it_stops_thinking_when_asked(model: LoadedModel) -> None:
    assert answer(model, "Hello! /no_think").startswith("<think>\n\n</think>\n\nHello!")


@pytest.mark.parametrize(
    ("question", "command"),
    [
        ("How do I download a model?", "pull"),
        ("How do I quantize a model? /no_think", "quantize"),
        ("Which command shows the details of a model?", "show"),
        ("Which command lists my models?", "list"),
        ("怎么删除模型？", "rm"),
        ("What is the command to fine-tune a model?", "train"),
    ],
)
def test_it_names_a_command(model: LoadedModel, question: str, command: str) -> None:
    assert f"`qwen-mlx {command}`" in answer(model, question)


def test_mlx_lm_gives_the_same_answers(model: LoadedModel) -> None:
    utils = pytest.importorskip("mlx_lm.utils")
    cache = pytest.importorskip("mlx_lm.models.cache")
    theirs, _ = utils.load_model(DEMO)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    end = tokenizer.token_to_id("<|im_end|>")
    for question in ("What is 27 + 48?", "Which command quantizes a model?", "你好 /no_think", "Spell banana."):
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        said, state = list[int](), cache.make_prompt_cache(theirs)
        while len(said) < 150 and end not in said:
            ids = [int(mx.argmax(theirs(mx.array([ids]), cache=state)[0, -1]).item())]
            said += ids
        assert tokenizer.decode(said, skip_special_tokens=False) == answer(model, question)


def test_training_can_begin_with_the_shipped_weights() -> None:
    values = json.loads((DEMO / "config.json").read_text("utf-8"))
    config = {key: value for key, value in values.items() if not key.startswith("quantization")}
    shipped = load(DEMO, weights="expanded").decoder
    decoder = network.build(config, seed=3)
    ids = mx.array([[5, 80, 700, 3]])
    assert not mx.allclose(decoder(ids), shipped(ids), atol=1e-3)
    network.take_weights(decoder, shipped)
    assert mx.allclose(decoder(ids), shipped(ids), atol=1e-4)
