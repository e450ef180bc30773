"""Token ids to text, one by one, without ever showing half a character.

It knows what bytes or text a token stands for, and nothing of where tokens come from.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_CONTEXT = 4  # tokens before a new one that are decoded with it, so that spaces come out right


def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: each byte has a printable character, bytes that print as themselves keep it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


class Detokenizer(Protocol):
    """Turns one stream of tokens into text; whatever `add` and `finish` return, joined, is `decode` of all ids."""

    def add(self, token: int) -> str:
        """The text that became certain with this token: whole characters, often none. Any id is allowed."""

    def finish(self) -> str:
        """The stream is over: what was held back, bytes that form no character as U+FFFD."""


class ByteDetokenizer:
    """For byte-level vocabularies: each token is a run of bytes, and all bytes together are UTF-8.

    Args:
        token_bytes: the bytes of an id, empty if there are none or they are not to be shown.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self._decoder.decode(self._token_bytes(token))

    def finish(self) -> str:
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class WindowDetokenizer:
    """For other vocabularies: decodes each new token together with the few before it.

    Args:
        decode: ids to text, as a whole; unknown ids are ignored.
        token: the token of an id; None if it is unknown or not to be shown.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], token: Callable[[int], str | None]) -> None:
        self._decode = decode
        self._token = token
        self._shown: list[int] = []  # context, already given out
        self._waiting: list[int] = []

    def add(self, token: int) -> str:
        text = self._token(token)
        if text is None:
            return ""
        self._waiting.append(token)
        # A run of byte tokens is a character only as a whole, and every byte is replaced if it is none.
        return "" if _BYTE_TOKEN.fullmatch(text) else self._flush(final=False)

    def finish(self) -> str:
        rest = self._flush(final=True)
        self._shown.clear()
        return rest

    def _flush(self, *, final: bool) -> str:
        if not self._waiting:
            return ""
        before = self._decode(self._shown)
        both = self._shown + self._waiting
        new = self._decode(both)[len(before) :]
        if new.endswith("\ufffd") and not final:
            return ""
        self._waiting.clear()
        # Context that decodes to nothing says nothing about spaces: keep enough to have some text.
        keep = _CONTEXT
        while keep < len(both) and not self._decode(both[-keep:]):
            keep += _CONTEXT
        self._shown = both[-keep:]
        return new


def decode_all(detokenizer: Detokenizer, ids: Iterable[int]) -> str:
    """The text of all ids."""
    return "".join([*map(detokenizer.add, ids), detokenizer.finish()])
