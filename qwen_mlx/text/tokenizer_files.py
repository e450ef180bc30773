"""The tokenizer of a model folder as one description, in the form of `tokenizer.json`.

Three kinds of files exist: `tokenizer.json`; `vocab.json` with `merges.txt`; and, for the first Qwen, `qwen.tiktoken`.
All are a stranger's, so what is wrong with one is said with its name and place.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_mlx.errors import TokenizerError
from qwen_mlx.text.detokenizer import byte_alphabet
from qwen_mlx.text.files import read_object, read_object_if_there, read_text, token_text, typed

# How text is cut before bytes are merged; digits stand alone. Qwen3.5 counts marks (accents) as part of a word.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERN_3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MAX_ID = 2**31 - 1
_FIRST_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
_ADVICE = "The file may be damaged: get the model again."


def describe(folder: Path, model_type: str | None = None) -> dict[str, Any]:
    """What `tokenizer.json` says or would say.

    Args:
        model_type: as in `config.json`, which is read when it is not given.

    Raises:
        TokenizerError: no tokenizer, or a damaged one; the message names the file.
    """
    if (path := folder / "tokenizer.json").is_file():
        return _with_settings(_checked(read_object(path, TokenizerError), path), folder)
    if (folder / "vocab.json").is_file() or (folder / "merges.txt").is_file():
        return _from_vocabulary(folder, model_type)
    if (path := folder / "qwen.tiktoken").is_file():
        return _from_tiktoken(path)
    raise TokenizerError(
        f"there is no tokenizer in {folder}",
        expected="tokenizer.json, or vocab.json and merges.txt",
        hint="Get the model again.",
    )


def eos_token(folder: Path) -> str | None:
    """The token `tokenizer_config.json` or `special_tokens_map.json` names as the end."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        settings = read_object_if_there(path, TokenizerError)
        if (text := token_text(settings.get("eos_token"), f"'eos_token' in {path}", TokenizerError)) is not None:
            return text
    return None


def _checked(description: dict[str, Any], path: Path) -> dict[str, Any]:
    """`tokenizer.json`, whose parts that matter here have the right types and whose ids are unique."""
    model = typed(description.get("model"), dict, f"'model' in {path}", TokenizerError)
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        _check_ids(vocabulary, f"'vocab' in {path}")
    added = description.get("added_tokens")
    added = [] if added is None else typed(added, list, f"'added_tokens' in {path}", TokenizerError)
    tokens = [_added_token(entry, f"an entry of 'added_tokens' in {path}") for entry in added]
    description["added_tokens"] = []
    # The application sets lengths, not the tokenizer: these would cut long texts unseen.
    description["truncation"] = description["padding"] = None
    _add_tokens(description, tokens, path)
    return description


def _with_settings(description: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`tokenizer.json` plus what only the settings beside it know; where they differ, `tokenizer.json` is right."""
    vocabulary = description["model"].get("vocab")
    taken = {token["id"] for token in description["added_tokens"]}
    taken |= set(vocabulary.values()) if isinstance(vocabulary, dict) else set(range(len(vocabulary or ())))
    _add_tokens(description, [token for token in _added_tokens(folder) if token["id"] not in taken], folder)
    return description


def _check_ids(vocabulary: Mapping[str, Any], where: str) -> None:
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number <= _MAX_ID:
            raise TokenizerError(
                f"{where}: token {token[:40]!r} has no usable id",
                expected="a whole number from 0",
                found=repr(number)[:40],
                hint=_ADVICE,
            )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise TokenizerError(f"{where} gives the same id to two tokens", hint=_ADVICE)


def _added_token(entry: Any, where: str, number: Any = None) -> dict[str, Any]:
    """One added token with all its fields. `number` is its id where that stands outside the entry."""
    fields = typed(entry, dict, where, TokenizerError)
    number = typed(fields.get("id") if number is None else number, int, f"'id' of {where}", TokenizerError)
    if not 0 <= number <= _MAX_ID:
        raise TokenizerError(f"{where} has an impossible id", found=str(number)[:40], hint=_ADVICE)
    flags = {key: fields.get(key) is True for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    return {
        "id": number,
        "content": typed(fields.get("content"), str, f"'content' of {where}", TokenizerError),
        **flags,
    }


def _add_tokens(description: dict[str, Any], tokens: Iterable[dict[str, Any]], where: Path) -> None:
    """Put added tokens into the description; those it has already stay as they are.

    The library numbers added tokens itself, and wrongly where ids have gaps; it keeps the id of a token that the
    vocabulary holds. So each stands there too, where no merge leads to it.
    """
    present = {token["content"] for token in description["added_tokens"]}
    vocabulary = description["model"].get("vocab")
    is_mapping = isinstance(vocabulary, dict)
    owners = {number: token for token, number in vocabulary.items()} if is_mapping else {}
    for token in sorted(tokens, key=lambda token: token["id"]):
        content, number = token["content"], token["id"]
        if content in present or not content:
            continue
        if is_mapping and (owners.setdefault(number, content), vocabulary.setdefault(content, number)) != (
            content,
            number,
        ):
            raise TokenizerError(
                f"{where}: the added token {content[:40]!r} has an id that contradicts the vocabulary",
                found=f"id {number}",
                hint=_ADVICE,
            )
        description["added_tokens"].append(token)
        present.add(content)


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    """Added tokens of `tokenizer_config.json`, then of `added_tokens.json`."""
    path = folder / "tokenizer_config.json"
    settings = read_object_if_there(path, TokenizerError)
    where = f"'added_tokens_decoder' in {path}"
    decoder = typed(settings.get("added_tokens_decoder", {}), dict, where, TokenizerError)
    tokens = []
    for key, entry in decoder.items():
        if not (key.isascii() and key.isdigit() and len(key) < 11):
            raise TokenizerError(f"{where} has a key that is no id", found=repr(key[:40]), hint=_ADVICE)
        tokens.append(_added_token(entry, f"an entry of {where}", int(key)))
    known = {token["content"] for token in tokens}
    special = set(_special_texts(folder))
    path = folder / "added_tokens.json"
    for content, number in read_object_if_there(path, TokenizerError).items():
        if content not in known:
            is_special = content in special or (content.startswith("<|") and content.endswith("|>"))
            tokens.append(
                _added_token({"content": content, "special": is_special}, f"{content[:40]!r} in {path}", number)
            )
    return tokens


def _special_texts(folder: Path) -> list[str]:
    """Tokens that the settings name as special, without ids."""
    found: list[str] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        settings = read_object_if_there(path, TokenizerError)
        more = settings.get("additional_special_tokens") or []
        more = typed(more, list, f"'additional_special_tokens' in {path}", TokenizerError)
        named = [(key, settings.get(key)) for key in _SPECIAL_KEYS]
        named += [("additional_special_tokens", value) for value in more]
        for key, value in named:
            if text := token_text(value, f"{key!r} in {path}", TokenizerError):
                found.append(text)
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------- vocab.json, merges.txt


def _from_vocabulary(folder: Path, model_type: str | None) -> dict[str, Any]:
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise TokenizerError(
                f"the tokenizer in {folder} is not complete: {name} is missing", hint="Get the model again."
            )
    path = folder / "vocab.json"
    vocabulary = read_object(path, TokenizerError)
    _check_ids(vocabulary, str(path))
    merges = _merges(folder / "merges.txt", vocabulary)
    if model_type is None:
        kind = read_object_if_there(folder / "config.json", TokenizerError).get("model_type")
        model_type = kind if isinstance(kind, str) else ""
    description = byte_level(vocabulary, merges, PATTERN_3_5 if model_type.startswith("qwen3_5") else PATTERN)
    _add_tokens(description, _added_tokens(folder), folder)
    # Special tokens that are only named come after all others, the end of a document first.
    present = {token["content"] for token in description["added_tokens"]}
    for content in dict.fromkeys(("<|endoftext|>", *_special_texts(folder))):
        if content not in present:
            number = vocabulary.get(content, max(vocabulary.values(), default=-1) + 1)
            _add_tokens(description, [_added_token({"content": content, "special": True}, "", number)], folder)
    return description


def _merges(path: Path, vocabulary: Mapping[str, int]) -> list[list[str]]:
    merges = []
    for number, line in enumerate(read_text(path, TokenizerError).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise TokenizerError(
                f"{path} is damaged (line {number})", expected="two tokens", found=repr(line[:60]), hint=_ADVICE
            )
        for token in (*pair, "".join(pair)):
            if token not in vocabulary:
                raise TokenizerError(
                    f"{path}, line {number}: the token {token[:40]!r} is not in vocab.json",
                    hint="The two files belong to different models, or one is damaged: get the model again.",
                )
        merges.append(pair)
    return merges


def byte_level(vocabulary: dict[str, int], merges: list[list[str]], pattern: str) -> dict[str, Any]:
    """The description of Qwen's tokenizer: NFC, cut by the pattern, bytes merged."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


# ------------------------------------------------------------------------------------------------------ qwen.tiktoken


def _from_tiktoken(path: Path) -> dict[str, Any]:
    """The first Qwen: lines of `base64(bytes) rank`, where the rank is the id and tells the order of merges."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_text(path, TokenizerError).splitlines(), 1):
        if not line:
            continue
        try:
            encoded, digits = line.split()
            ranks[base64.b64decode(encoded, validate=True)] = int(digits)
        except (ValueError, binascii.Error):
            raise TokenizerError(
                f"{path} is damaged (line {number})",
                expected="a token in base64 and its number",
                found=repr(line[:60]),
                hint=_ADVICE,
            ) from None
    character = {byte: char for char, byte in byte_alphabet().items()}

    def written(token: bytes) -> str:
        return "".join(character[byte] for byte in token)

    vocabulary = {written(token): rank for token, rank in ranks.items()}
    _check_ids(vocabulary, str(path))
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _parts(ranks, token, rank)
            if len(parts) != 2:
                raise TokenizerError(f"{path}: token {rank} is not made of two others", hint=_ADVICE)
            merges.append([written(part) for part in parts])
    description = byte_level(vocabulary, merges, PATTERN)
    first = max(ranks.values(), default=-1) + 1
    specials = [
        _added_token({"content": content, "special": True}, "", first + index)
        for index, content in enumerate(_FIRST_QWEN_SPECIALS)
    ]
    _add_tokens(description, specials, path)
    return description


def _parts(ranks: Mapping[bytes, int], token: bytes, rank: int) -> list[bytes]:
    """What is left of `token` after all merges that come before its own."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [
            (ranks.get(left + right, rank), index) for index, (left, right) in enumerate(itertools.pairwise(parts))
        ]
        lowest, index = min(pairs)
        if lowest >= rank:
            break
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts
