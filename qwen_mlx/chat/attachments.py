"""Text files that go along with a message: how they are read, kept, and put before the model.

A file is read once, when it is attached: what was asked about stays what it was, whatever happens to the file.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_mlx.errors import NotFound, UsageError

MAX_BYTES = 1_000_000
"""Of one file: some 250,000 tokens, the longest text any of the models reads."""
MAX_FILES = 10
"""With one message."""

# The longer mark first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".ico")
_IMAGE_STARTS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM\x36", b"II*\0", b"MM\0*")
_DOCUMENTS = {".pdf": "a PDF", ".docx": "a Word document", ".odt": "a document", ".xlsx": "a table of Excel"}
_DOCUMENTS |= {".pptx": "a presentation", ".epub": "an e-book", ".zip": "an archive", ".gz": "an archive"}


@dataclass(frozen=True)
class Attachment:
    """One file as it was when it was attached; `name` has no folder."""

    name: str
    text: str

    @property
    def nbytes(self) -> int:
        """In UTF-8."""
        return len(self.text.encode("utf-8", "replace"))


def read(path: str | os.PathLike[str]) -> Attachment:
    """The text of a file; line ends become "\\n".

    Raises:
        NotFound: there is no such file.
        UsageError: it is a folder, a picture, too large, empty, not text, or cannot be read.
    """
    path = Path(path).expanduser()
    try:
        data = _bytes(path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL in the name
        raise NotFound(f"there is no file {str(path)!r}") from None
    text = _decoded(path, data)
    if not text.strip():
        raise UsageError(f"{path.name} is empty")
    return Attachment(path.name, text)


def _bytes(path: Path) -> bytes:
    # Not blocking: a pipe would be waited for.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0))
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{path} is a folder", hint="Attach the files in it one by one.")
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is no file, but a device or a pipe")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if _is_image(path, data):
        raise UsageError(f"{path.name} is a picture", hint="The models here read text; they cannot see yet.")
    if path.suffix.lower() in _DOCUMENTS or data.startswith(b"%PDF-"):
        kind = _DOCUMENTS.get(path.suffix.lower(), "a PDF")
        raise UsageError(f"{path.name} is {kind}", expected="a text file", hint="Save it as text, and attach that.")
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{path.name} is too large",
            expected=f"at most {MAX_BYTES:,} bytes",
            found=f"{found.st_size:,}",
            hint="Attach the part of it that matters.",
        )
    return data


def _is_image(path: Path, data: bytes) -> bool:
    riff = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return path.suffix.lower() in _IMAGES or data.startswith(_IMAGE_STARTS) or riff


def _decoded(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path.name} is not text",
            expected="UTF-8",
            found=f"byte {error.object[error.start]:#04x} at {error.start:,}",
            hint="Save it as UTF-8, if it is a text of another encoding.",
        ) from None
    if "\0" in text:
        raise UsageError(f"{path.name} is not text", expected="UTF-8", found=f"a zero byte at {text.index(chr(0)):,}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def with_attachments(content: str, attachments: Sequence[Attachment]) -> str:
    """What the model reads: each file between tags that name it and do not occur in it, then the message."""
    blocks = [_block(attachment) for attachment in attachments]
    return "\n\n".join([*blocks, content] if content else blocks)


def _block(attachment: Attachment) -> str:
    tag, number = "file", 1
    while f"<{tag}" in attachment.text or f"</{tag}" in attachment.text:
        number += 1
        tag = f"file{number}"
    name = attachment.name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    name = " ".join(name.split())
    text = attachment.text.strip("\n")
    return f'<{tag} name="{name}">\n{text}\n</{tag}>'


def to_json(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """Plain values, for JSON."""
    return [{"name": attachment.name, "text": attachment.text} for attachment in attachments]


def from_json(value: Any) -> tuple[Attachment, ...]:
    """What `to_json` made; entries that are something else are left out."""
    entries = value if isinstance(value, list) else []
    return tuple(
        Attachment(entry["name"], entry["text"])
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str) and isinstance(entry.get("text"), str)
    )
