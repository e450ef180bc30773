"""The tokenizer of a GGUF file gives the ids that the tokenizer it was made of gives, and the other way round."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import tokenizers

from qwen_mlx.checkpoints.formats.gguf import tokenizer as gguf_tokenizer
from qwen_mlx.checkpoints.formats.gguf.reader import read_header
from qwen_mlx.errors import CheckpointError, TemplateError, TokenizerError, UnsupportedModel
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.text.tokenizer import Tokenizer
from tests.checkpoints.formats.helpers import FIXTURES
from tests.text import tiny

ALPHABETS = (
    (32, 126),
    (0x4E00, 0x4E80),
    (0xC0, 0x17F),
    (0x300, 0x330),  # accents that combine
    (0x1F600, 0x1F640),
    (0x0, 0x20),
    (0x400, 0x450),
)
PIECES = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "e\u0301", "\r\n", "  ", "12345", "'ll")


def fuzz_strings(count=600, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        letters = [chr(rng.randint(*rng.choice(ALPHABETS))) for _ in range(rng.randint(0, 60))]
        for _ in range(rng.randint(0, 4)):
            letters.insert(rng.randint(0, len(letters)), rng.choice(PIECES))
        yield "".join(letters)


@pytest.fixture(scope="module")
def metadata():
    return read_header(FIXTURES / "reference.gguf").metadata


@pytest.fixture
def folder(tmp_path, metadata):
    """A model folder with the files of the GGUF file."""
    rows = len(metadata["tokenizer.ggml.tokens"])
    for name, content in gguf_tokenizer.read_files(metadata, rows, 4096).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_ids_are_those_of_the_original(folder):
    original = tokenizers.Tokenizer.from_file(str(FIXTURES / "tokenizer.json"))
    read = Tokenizer.from_folder(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))  # what transformers and mlx-lm load
    strings = list(fuzz_strings())
    for text in strings:
        ids = original.encode(text, add_special_tokens=False).ids
        assert read.encode(text) == ids
        assert library.encode(text, add_special_tokens=False).ids == ids
        assert read.decode(ids, skip_special=False) == original.decode(ids, skip_special_tokens=False)
    assert len(set(strings)) > 500


def test_special_tokens_and_the_end(folder):
    read = Tokenizer.from_folder(folder)
    special = {read.token(number) for number in read.special_ids}
    assert special == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert read.eos_ids == {read.token_id("<|im_end|>")}
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == read.token_id("<|im_end|>")
    assert generation["pad_token_id"] == read.token_id("<|endoftext|>")
    assert read.token_id("[PAD430]") is None  # unused ids are no tokens


def test_the_template_comes_along(folder):
    template = ChatTemplate.from_folder(folder)
    assert "tokenizer_config.json" in template.origin
    rendered = template.render([{"role": "user", "content": "hi"}])
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"


def test_there_and_back(folder, metadata):
    rows = len(metadata["tokenizer.ggml.tokens"])
    again = gguf_tokenizer.write_metadata(folder, rows, "qwen3")
    for key, value in again.items():
        expected = metadata[key]
        assert value == (expected.tolist() if isinstance(expected, np.ndarray) else expected), key
    keys = {key for key in metadata if key.startswith("tokenizer.")}
    assert keys == set(again)


def test_the_files_of_other_layouts_are_written_too(tmp_path, metadata):
    rows = len(metadata["tokenizer.ggml.tokens"])
    tiny.write_vocabulary(tmp_path)
    found = gguf_tokenizer.write_metadata(tmp_path, rows, "qwen2")
    assert found["tokenizer.ggml.tokens"] == metadata["tokenizer.ggml.tokens"]
    assert found["tokenizer.ggml.token_type"] == metadata["tokenizer.ggml.token_type"].tolist()
    assert "tokenizer.chat_template" not in found  # a built-in one is not the model's


def test_newer_models_cut_text_otherwise(tmp_path, metadata):
    rows = len(metadata["tokenizer.ggml.tokens"])
    for name, content in gguf_tokenizer.read_files(metadata | {"tokenizer.ggml.pre": "qwen35"}, rows, 64).items():
        (tmp_path / name).write_bytes(content)
    assert gguf_tokenizer.write_metadata(tmp_path, rows)["tokenizer.ggml.pre"] == "qwen35"
    assert r"\p{M}" in (tmp_path / "tokenizer.json").read_text()


def changed(metadata, **changes):
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


DAMAGED = {
    "sentencepiece": ({"model": "llama"}, UnsupportedModel, "'llama'.*--tokenizer"),
    "cuts as llama 3": ({"pre": "llama-bpe"}, UnsupportedModel, "llama-bpe"),
    "no name for how it cuts": ({"pre": None}, UnsupportedModel, "None"),
    "no tokens": ({"tokens": None}, TokenizerError, "lists of texts"),
    "tokens are numbers": ({"tokens": np.arange(5)}, TokenizerError, "lists of texts"),
    "kinds of other length": ({"token_type": np.ones(3, np.int32)}, TokenizerError, "kinds of"),
    "kinds are texts": ({"token_type": ["1"]}, TokenizerError, "kinds of"),
    "merge of three": ({"merges": ["a b c"]}, TokenizerError, "merges of two"),
    "merge of unknown tokens": ({"merges": ["qq zz"]}, TokenizerError, "cannot be used"),
    "end beyond the tokens": ({"eos_token_id": 10**6}, TokenizerError, "eos_token_id"),
    "end is a text": ({"eos_token_id": "x"}, TokenizerError, "eos_token_id"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_tokenizers_are_refused(name, metadata):
    changes, error, message = DAMAGED[name]
    with pytest.raises(error, match=message):
        gguf_tokenizer.read_files(changed(metadata, **changes), 10**6, 64)


def test_tokens_twice_or_too_many(metadata):
    tokens = list(metadata["tokenizer.ggml.tokens"])
    with pytest.raises(TokenizerError, match="at most 10 tokens"):
        gguf_tokenizer.read_files(metadata, 10, 64)
    tokens[5] = tokens[6]
    with pytest.raises(TokenizerError, match="every token once"):
        gguf_tokenizer.read_files(changed(metadata, tokens=tokens), len(tokens), 64)


def test_a_damaged_template_is_refused(metadata):
    with pytest.raises(TemplateError, match="chat template of the GGUF file"):
        gguf_tokenizer.read_files(metadata | {"tokenizer.chat_template": "{% for %}"}, 10**6, 64)
    with pytest.raises(CheckpointError, match="no text"):
        gguf_tokenizer.read_files(metadata | {"tokenizer.chat_template": 7}, 10**6, 64)


def test_tokenizers_that_gguf_cannot_name_are_not_exported(tmp_path):
    description = tiny.description()
    description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    tiny.write_tokenizer_json(tmp_path, description)
    with pytest.raises(UnsupportedModel, match="none that GGUF has a name for"):
        gguf_tokenizer.write_metadata(tmp_path, 1000, "qwen3")
    tiny.write_tokenizer_json(tmp_path)
    with pytest.raises(TokenizerError, match="more tokens than the embedding has rows"):
        gguf_tokenizer.write_metadata(tmp_path, 100, "qwen3")
