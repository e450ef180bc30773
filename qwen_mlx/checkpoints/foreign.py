"""What a file really is when it is not what its name says.

A "corrupt" checkpoint is often a whole file of another kind: the log-in page of a hotel network, the pointer
that git leaves without git-lfs, a renamed pickle. Saying so is worth more than "invalid header".
"""

from __future__ import annotations

import string

from qwen_mlx.errors import CheckpointError

# How many bytes `recognise` wants to see.
HEAD = 512

_PULL_AGAIN = "Download the file again (`qwen-mlx pull --repair`)."
_NO_PICKLE = "Pickles can run code and are never opened; take the safetensors files of the model."
_OTHER_FORMAT = "Take the safetensors files of the model."
_IMPORT = "`qwen-mlx import` turns GGUF into a model that runs here."
_UNPACK = "Unpack it first."
_MAGIC = (
    (b"GGUF", "a GGUF file", _IMPORT),
    (b"PK\x03\x04", "a zip archive, as PyTorch pickles are", _NO_PICKLE),
    (b"\x80\x02", "a Python pickle", _NO_PICKLE),
    (b"\x80\x03", "a Python pickle", _NO_PICKLE),
    (b"\x80\x04", "a Python pickle", _NO_PICKLE),
    (b"\x80\x05", "a Python pickle", _NO_PICKLE),
    (b"\x93NUMPY", "a numpy array", _OTHER_FORMAT),
    (b"\x89HDF", "an HDF5 file", _OTHER_FORMAT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
)
_PRINTABLE = frozenset(string.printable.encode())


def recognise(head: bytes) -> tuple[str, str] | None:
    """Name the kind of file that starts with `head`, and what to do about it.

    Args:
        head: the first bytes of the file, up to `HEAD` of them.

    Returns:
        A noun phrase ("a git-lfs pointer, ...") and an advice, or None when nothing is recognised.
    """
    if not head:
        return "an empty file", _PULL_AGAIN
    if head.startswith(b"version https://git-lfs"):
        return (
            "a git-lfs pointer, not the file it points to",
            "Run `git lfs pull` in the folder, or download the model with `qwen-mlx pull`.",
        )
    for magic, kind, advice in _MAGIC:
        if head.startswith(magic):
            return kind, advice
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return (
            "a web page (HTML)",
            "A log-in page or a proxy answered instead of the server. " + _PULL_AGAIN,
        )
    if start.startswith((b"<?xml", b"<error")):
        return "an XML error message of a server", _PULL_AGAIN
    if not any(head):
        return "zeros, as an interrupted download leaves them", _PULL_AGAIN
    if all(byte in _PRINTABLE for byte in head):
        return f"a text that begins with {quote(head.decode('ascii').strip(), 60)}", _PULL_AGAIN
    return None


def refuse_foreign(where: str, wanted: str, head: bytes) -> None:
    """Raises `CheckpointError` when `head` belongs to a known kind of file that is not `wanted`."""
    if known := recognise(head):
        kind, advice = known
        raise CheckpointError(f"{where} is not {wanted}", expected=wanted, found=kind, hint=advice)


def quote(text: str, length: int = 100) -> str:
    """Text of a file for a message: short, on one line, control characters escaped."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")
