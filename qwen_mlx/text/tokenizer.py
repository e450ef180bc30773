"""Text to token ids and back, for all Qwen models. Knows nothing of chat templates; adds no tokens of its own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_mlx.errors import TokenizerError
from qwen_mlx.text.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer, byte_alphabet, decode_all
from qwen_mlx.text.tokenizer_files import describe, eos_token

if TYPE_CHECKING:
    import tokenizers

_BREAK = "\ufdd0"  # a code point that is never a character, and free for use inside a program
_MAX_ID = 2**32 - 1


class Tokenizer:
    """A vocabulary, and how text is cut into it. All methods may be called from any thread.

    Args:
        description: what `tokenizer.json` says; see `tokenizer_files.describe`.
        origin: names the files in messages.
        eos_token: the token the model's settings call the end, if any.

    Attributes:
        vocab_size: one more than the largest id. The embedding of a model often has more rows.
        special_ids: control tokens, such as `<|im_end|>`; `<think>` and `<tool_call>` are none.
        eos_ids: ids of `eos_token`. Chats may end with further tokens, which `generation_config.json` names.

    Raises:
        TokenizerError: the description is damaged.
    """

    def __init__(self, description: Mapping[str, Any], *, origin: str = "the tokenizer", eos_token: str | None = None):
        import tokenizers  # only a loaded model pays for it

        with _library(f"{origin} cannot be used"):
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(description))
            self._added = {
                number: token.content for number, token in self._tokenizer.get_added_tokens_decoder().items()
            }
        self.special_ids = frozenset(
            number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        )
        vocabulary = description["model"].get("vocab")
        largest = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary or ()) - 1
        self.vocab_size = max(largest, *self._added, -1) + 1
        end = None if eos_token is None else self.token_id(eos_token)
        self.eos_ids = frozenset() if end is None else frozenset((end,))
        self._is_byte_level = _is_byte_level(description.get("decoder"))
        self._alphabet = byte_alphabet()
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_folder(cls, folder: Path, model_type: str | None = None) -> Tokenizer:
        """The tokenizer of a model folder, from `tokenizer.json`, `vocab.json` and `merges.txt`, or `qwen.tiktoken`.

        Args:
            model_type: as in `config.json`, which is read when it is not given.

        Raises:
            TokenizerError: no tokenizer, or a damaged file; the message names it.
        """
        folder = Path(folder)
        return cls(describe(folder, model_type), origin=f"the tokenizer in {folder}", eos_token=eos_token(folder))

    # ------------------------------------------------------------------------------------------------- tokens

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it, e.g. `<|im_end|>`."""
        return self._tokenizer.token_to_id(_encodable(token))

    def token(self, number: int) -> str | None:
        """The token of an id; None for ids outside the vocabulary, as padded embeddings have them."""
        return self._tokenizer.id_to_token(number) if 0 <= number <= _MAX_ID else None

    def is_special(self, number: int) -> bool:
        return number in self.special_ids

    @functools.cached_property
    def digest(self) -> str:
        """Equal for two tokenizers that cut every text alike into the same ids; hexadecimal."""
        parts = (self._tokenizer.to_str(), json.dumps(sorted(self.eos_ids)))
        return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    # --------------------------------------------------------------------------------------------- text to ids

    def encode(self, text: str, *, specials: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            specials: True reads `<|im_end|>` and other added tokens in the text as those tokens; False reads them
                as ordinary characters, so that text from outside cannot pretend to be a control token.
        """
        text = _encodable(text)
        if specials:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if self._added.keys().isdisjoint(ids):
            return ids
        # A vocabulary that makes a control token out of plain characters: keep them apart.
        return [
            number
            for piece in _cut(text, self._any_added)
            for number in self._plain.encode(piece, add_special_tokens=False).ids
        ]

    def disarmed(self, value: Any) -> Any:
        """`value`, a text or a conversation, with control tokens in it broken, for `encode_disarmed`.

        Meant for messages before a template renders them: what the template itself writes stays a control token.
        Markers such as `<think>` are left alone, since templates look for them.
        """
        if isinstance(value, str):
            return _BREAK.join(_cut(value.replace(_BREAK, ""), self._any_special))
        if isinstance(value, Mapping):
            return {key: self.disarmed(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.disarmed(item) for item in value]
        return value

    def encode_disarmed(self, text: str) -> list[int]:
        """The ids of a text that holds parts which `disarmed` returned; those become ordinary characters."""
        return [number for piece in text.split(_BREAK) if piece for number in self.encode(piece)]

    # --------------------------------------------------------------------------------------------- ids to text

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids. Unknown ids are nothing, bytes that form no character are U+FFFD."""
        return decode_all(self.detokenizer(skip_special=skip_special), ids)

    def detokenizer(self, *, skip_special: bool = True) -> Detokenizer:
        """A new stream of tokens to text."""
        if self._is_byte_level:
            return ByteDetokenizer(self._shown_bytes if skip_special else self._token_bytes)
        return WindowDetokenizer(
            lambda ids: self._tokenizer.decode(list(ids), skip_special_tokens=skip_special),
            lambda number: None if skip_special and number in self.special_ids else self.token(number),
        )

    # ------------------------------------------------------------------------------------------------- inside

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without added tokens; it shares the vocabulary."""
        import tokenizers

        plain = tokenizers.Tokenizer(self._tokenizer.model)
        for part in ("normalizer", "pre_tokenizer"):
            if (value := getattr(self._tokenizer, part)) is not None:
                setattr(plain, part, value)
        return plain

    @functools.cached_property
    def _any_added(self) -> re.Pattern[str]:
        return _any_of(self._added.values())

    @functools.cached_property
    def _any_special(self) -> re.Pattern[str]:
        return _any_of(self._added[number] for number in self.special_ids)

    def _token_bytes(self, number: int) -> bytes:
        known = self._bytes.get(number)
        if known is None:
            token = self.token(number)
            if token is None:
                known = b""
            elif number in self._added or any(character not in self._alphabet for character in token):
                known = token.encode("utf-8", "replace")
            else:
                known = bytes(self._alphabet[character] for character in token)
            self._bytes[number] = known
        return known

    def _shown_bytes(self, number: int) -> bytes:
        return b"" if number in self.special_ids else self._token_bytes(number)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches, without taking any characters, wherever one of the tokens begins."""
    return re.compile(f"(?={'|'.join(map(re.escape, tokens)) or '(?!)'})")


def _cut(text: str, tokens: re.Pattern[str]) -> list[str]:
    """`text` in pieces: cut after the first character of every token in it, so that no piece holds one."""
    ends = [match.start() + 1 for match in tokens.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)])]


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, Mapping):
        return False
    if decoder.get("type") == "Sequence":
        parts = decoder.get("decoders")
        kinds = [part.get("type") for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
        return "ByteLevel" in kinds and set(kinds) <= {"ByteLevel", "Fuse"}
    return decoder.get("type") == "ByteLevel"


def _encodable(text: str) -> str:
    """`text` with lone halves of surrogate pairs, which no encoding has, as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@contextlib.contextmanager
def _library(failure: str) -> Iterator[None]:
    """Turn whatever the tokenizers library raises, its panics included, into a `TokenizerError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as problem:  # a panic of the library is no Exception
        text = " ".join(str(problem).split())[:300]
        raise TokenizerError(failure, found=text, hint="The files may be damaged: get the model again.") from None
