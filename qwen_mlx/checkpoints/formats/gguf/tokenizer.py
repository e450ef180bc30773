"""The tokenizer and chat template in the metadata of a GGUF file <-> the files of a model folder.

GGUF tells tokens, their kinds and merges, but only by a name how text is cut before bytes are merged; the normalisation
to NFC, which all Qwens have, goes without saying.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.errors import TemplateError, TokenizerError, UnsupportedModel
from qwen_mlx.text import tokenizer_files
from qwen_mlx.text.files import read_object_if_there, token_text
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.text.tokenizer import Tokenizer

# How text is cut, by GGUF's name for it.
PATTERNS = {"qwen2": tokenizer_files.PATTERN, "qwen35": tokenizer_files.PATTERN_3_5}
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of tokens
_ADVICE = "Give the folder of the original model with --tokenizer."


# ---------------------------------------------------------------------------------------------------- GGUF -> files


def read_files(metadata: Mapping[str, Any], rows: int, context: int) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and `generation_config.json` of a GGUF file.

    Args:
        rows: of the embedding; no token may have a larger id.
        context: longest text in tokens.

    Raises:
        UnsupportedModel: a kind of tokenizer that no Qwen of these families has.
        TokenizerError: a damaged one.
    """
    description = read_description(metadata, rows)
    tokens = metadata["tokenizer.ggml.tokens"]
    named = {name: _token(metadata, name, len(tokens)) for name in ("eos", "padding", "bos", "eot", "unknown")}
    end, pad, begin = named["eos"], named["padding"], named["bos"]
    settings: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": context,
        "bos_token": None if begin is None else tokens[begin],
        "eos_token": None if end is None else tokens[end],
        "pad_token": None if pad is None else tokens[pad],
        "unk_token": None,
        "add_prefix_space": False,
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token") is True,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: token[key] for key in token if key != "id"} for token in description["added_tokens"]
        },
    }
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        if not isinstance(template, str):
            raise TokenizerError("the chat template of the GGUF file is no text")
        ChatTemplate(template, origin="the chat template of the GGUF file")  # refuses a damaged one
        settings["chat_template"] = template
    generation: dict[str, Any] = {}
    ends = [number for number in dict.fromkeys((end, named["eot"])) if number is not None]
    if ends:
        generation["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if begin is not None:
        generation["bos_token_id"] = begin
    if pad is not None:
        generation["pad_token_id"] = pad
    files = {"tokenizer.json": description, "tokenizer_config.json": settings, "generation_config.json": generation}
    return {name: json.dumps(value, ensure_ascii=False, indent=2).encode() for name, value in files.items()}


def read_description(metadata: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """What `tokenizer.json` will say. Raises as `read_files`."""
    model, cut = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2" or not isinstance(cut, str) or cut not in PATTERNS:
        raise UnsupportedModel(
            f"the tokenizer of the GGUF file, {quote(str(model), 40)} with {quote(str(cut), 40)}, is not known",
            expected="'gpt2' with " + " or ".join(map(repr, PATTERNS)),
            hint=_ADVICE,
        )
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges", [])
    kinds = metadata.get("tokenizer.ggml.token_type")
    if not _is_texts(tokens) or not _is_texts(merges):
        raise _damaged("lists of texts as tokens and merges", "something else")
    assert isinstance(tokens, list)
    if kinds is None:
        kinds = np.full(len(tokens), NORMAL)
    if not isinstance(kinds, np.ndarray) or kinds.dtype.kind not in "iu" or kinds.size != len(tokens):
        raise _damaged(f"the kinds of {len(tokens)} tokens", f"{np.size(kinds)} values")
    if len(tokens) > rows:
        raise _damaged(f"at most {rows} tokens, as the embedding has rows", str(len(tokens)))
    used = [(number, token) for number, token in enumerate(tokens) if kinds[number] != UNUSED]
    if len({token for _, token in used}) != len(used):
        raise _damaged("every token once", "a token twice")
    added_kinds = (CONTROL, USER)
    vocabulary = {token: number for number, token in used if kinds[number] not in added_kinds}
    pairs = [merge.split(" ") for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise _damaged("merges of two tokens", quote(next(m for m, p in zip(merges, pairs) if len(p) != 2), 40))
    description = tokenizer_files.byte_level(vocabulary, pairs, PATTERNS[cut])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    description["added_tokens"] = [
        {"id": number, "content": token, **flags, "special": bool(kinds[number] == CONTROL)}
        for number, token in used
        if kinds[number] in added_kinds
    ]
    _try(description)
    return description


def _try(description: Mapping[str, Any]) -> None:
    """Build the tokenizer once, from a copy: what is damaged shows now and not when the model is loaded."""
    vocabulary = dict(description["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in description["added_tokens"]}
    whole = {**description, "model": {**description["model"], "vocab": vocabulary}}
    Tokenizer(whole, origin="the tokenizer of the GGUF file")


def _token(metadata: Mapping[str, Any], name: str, count: int) -> int | None:
    """The id of a token with a purpose."""
    number = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if number is None or number == 2**32 - 1:  # some writers say "none" this way
        return None
    if type(number) is not int or not 0 <= number < count:
        raise _damaged(f"an id below {count} as {name}_token_id", quote(str(number), 40))
    return number


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _damaged(expected: str, found: str) -> TokenizerError:
    return TokenizerError(
        "the tokenizer of the GGUF file is damaged", expected=expected, found=found, hint="Download the file again."
    )


# ---------------------------------------------------------------------------------------------------- files -> GGUF


def write_metadata(folder: Path, rows: int, model_type: str | None = None) -> dict[str, Any]:
    """The keys `tokenizer.*` for the tokenizer and template in a model folder.

    Args:
        rows: of the embedding; ids without a token become unused ones, as other programs write them.

    Raises:
        UnsupportedModel: GGUF has no name for how this tokenizer cuts text.
        TokenizerError: no tokenizer, or a damaged one.
    """
    description = tokenizer_files.describe(folder, model_type)
    cut = next((name for name, pattern in PATTERNS.items() if _cuts_by(description, pattern)), None)
    model = description["model"]
    if cut is None or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise UnsupportedModel(
            f"the tokenizer in {folder} is none that GGUF has a name for", expected="a Qwen tokenizer"
        )
    added = {token["id"]: token for token in description["added_tokens"]}
    tokens = {number: token for token, number in model["vocab"].items()}
    tokens |= {number: token["content"] for number, token in added.items()}
    if max(tokens, default=-1) >= rows:
        raise TokenizerError(
            f"the tokenizer in {folder} has more tokens than the embedding has rows",
            expected=f"ids below {rows}",
            found=str(max(tokens)),
        )
    kinds = [
        (CONTROL if added[n]["special"] else USER) if n in added else NORMAL if n in tokens else UNUSED
        for n in range(rows)
    ]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut,
        "tokenizer.ggml.tokens": [tokens.get(number, f"[PAD{number}]") for number in range(rows)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.add_bos_token": False,
    }
    ids = {text: number for number, text in tokens.items()}
    settings = read_object_if_there(folder / "tokenizer_config.json", TokenizerError)
    for key, name in (("eos_token", "eos"), ("pad_token", "padding"), ("bos_token", "bos")):
        text = token_text(settings.get(key), f"{key!r} in tokenizer_config.json", TokenizerError)
        text = tokenizer_files.eos_token(folder) if key == "eos_token" and text is None else text
        if text is not None and text in ids:
            metadata[f"tokenizer.ggml.{name}_token_id"] = ids[text]
    if (template := _own_template(folder)) is not None:
        metadata["tokenizer.chat_template"] = template
    return metadata


def _cuts_by(description: Mapping[str, Any], pattern: str) -> bool:
    """Whether text is cut by this pattern, with nothing but bytes after it."""
    cutter = description.get("pre_tokenizer")
    steps: Sequence[Any] = cutter.get("pretokenizers", [cutter]) if isinstance(cutter, Mapping) else []
    kinds = [step.get("type") for step in steps if isinstance(step, Mapping)]
    if kinds != ["Split", "ByteLevel"]:
        return False
    inner = steps[0].get("pattern")
    return isinstance(inner, Mapping) and inner.get("Regex") == pattern


def _own_template(folder: Path) -> str | None:
    """The source of the folder's own template; None where a built-in one would be used."""
    names = ("chat_template.jinja", "chat_template.json")
    settings = read_object_if_there(folder / "tokenizer_config.json", TemplateError)
    if not any((folder / name).is_file() for name in names) and not settings.get("chat_template"):
        return None
    return ChatTemplate.from_folder(folder).source
