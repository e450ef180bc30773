from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from qwen_mlx.text.detokenizer import Detokenizer, byte_alphabet
from qwen_mlx.text.tokenizer import Tokenizer
from tests.text import tiny
from tests.text.cutting import examples

HARD = ["😀", "👩‍👩‍👧‍👦", "🇨🇳", "你好世界", "é", "e\u0301", "ก็", "\u200d", "\ufffd", " ", "\n\n", "<think>", "a", "Ż"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny.description())


def streamed(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [*map(detokenizer.add, ids), detokenizer.finish()]


@given(st.lists(st.sampled_from(HARD), max_size=15).map("".join))
@examples(100)
def test_text_comes_out_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer.detokenizer(skip_special=False), ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=False)
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


@given(st.lists(st.integers(-2, 440), max_size=60), st.booleans())
@examples(300)
def test_any_tokens(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    """Random tokens are mostly broken UTF-8; the library's own decoder says what it should be."""
    library = tokenizers.Tokenizer.from_str(json.dumps(tiny.description()))
    known = [number for number in ids if 0 <= number < tokenizer.vocab_size]
    whole = library.decode(known, skip_special_tokens=skip)
    assert "".join(streamed(tokenizer.detokenizer(skip_special=skip), ids)) == whole
    # What is given out early is certain: more tokens never change it.
    detokenizer = tokenizer.detokenizer(skip_special=skip)
    assert whole.startswith("".join(map(detokenizer.add, ids)))


def test_characters_wait_for_their_last_byte(tokenizer: Tokenizer) -> None:
    character = {byte: char for char, byte in byte_alphabet().items()}
    ids = [tokenizer.token_id(character[byte]) for byte in "a😀é".encode()]
    detokenizer = tokenizer.detokenizer()
    assert [detokenizer.add(number) for number in ids if number is not None] == ["a", "", "", "", "😀", "", "é"]
    assert detokenizer.finish() == ""


def test_an_unfinished_character_becomes_a_replacement_at_the_end(tokenizer: Tokenizer) -> None:
    character = {byte: char for char, byte in byte_alphabet().items()}
    first = tokenizer.token_id(character["你".encode()[0]])
    assert first is not None
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.add(first) == ""
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.finish() == ""
    assert detokenizer.add(first) == ""  # may be used again


def test_special_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>a<think>b</think><tool_call><|im_end|>")
    assert "".join(streamed(tokenizer.detokenizer(), ids)) == "a<think>b</think><tool_call>"
    assert streamed(tokenizer.detokenizer(skip_special=False), ids)[0] == "<|im_start|>"


def test_added_tokens_are_written_as_they_are(tmp_path: Path) -> None:
    """Not read as letters of the byte alphabet, where "é" would stand for a lone byte."""
    value = tiny.description()
    value["added_tokens"].append({"id": 900, "content": "<｜é Ġ｜>", "special": False})
    tokenizer = Tokenizer.from_folder(tiny.write_tokenizer_json(tmp_path, value))
    number = tokenizer.token_id("<｜é Ġ｜>")
    assert number is not None
    assert tokenizer.decode([number]) == "<｜é Ġ｜>"


# -------------------------------------------------------------------------------------- vocabularies without byte level


def sentencepiece_like() -> Tokenizer:
    """As CodeQwen1.5: spaces are "▁", unknown bytes are tokens `<0xE4>`, and a space at the beginning is dropped."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab", "你", ".", "▁▁"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "▁")]
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<s>"])
    return Tokenizer(json.loads(library.to_str()))


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return sentencepiece_like()


@given(st.lists(st.integers(0, 267), max_size=30), st.booleans())
@example([0x00 + 1, 266, 0x80 + 1], True)  # bytes with a token between them that is not shown
@examples(300)
def test_any_tokens_of_a_vocabulary_without_byte_level(pieces: Tokenizer, ids: list[int], skip: bool) -> None:
    whole = pieces._tokenizer.decode(ids, skip_special_tokens=skip)
    assert pieces.decode(ids, skip_special=skip) == whole
    detokenizer = pieces.detokenizer(skip_special=skip)
    assert whole.startswith("".join(map(detokenizer.add, ids)))


@given(st.text(st.sampled_from("ab 你😀é."), max_size=30))
@examples(100)
def test_text_of_a_vocabulary_without_byte_level(pieces: Tokenizer, text: str) -> None:
    assert pieces.decode(pieces.encode(text)) == text


def test_spaces_between_words_stream(pieces: Tokenizer) -> None:
    ids = pieces.encode("ab ab. ab")
    assert streamed(pieces.detokenizer(), ids) == ["ab", " ab", ".", " ab", ""]
