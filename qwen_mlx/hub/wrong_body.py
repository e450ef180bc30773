"""What a server sent instead of a file: a web page, or the pointer that git-lfs keeps in its place."""

from __future__ import annotations

_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")


def is_web_page(head: bytes, content_type: str = "") -> bool:
    """Whether a body that begins with `head` is HTML."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(_PAGES) or (content_type.lower().startswith("text/html") and start.startswith(b"<"))


def instead_of_file(head: bytes, content_type: str = "") -> str | None:
    """A noun phrase for what came instead of a file of a model, None when nothing is recognised.

    Args:
        head: the first bytes of the body, some hundred of them.
    """
    if is_web_page(head, content_type):
        return "a web page (HTML); perhaps a log-in page of this network is in between"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer instead of what it points to"
    return None
