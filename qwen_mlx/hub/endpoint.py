"""Which hub is asked, and as whom: the `HF_*` variables that every Hugging Face tool knows.

The token goes to the endpoint's own host only, is never part of an address and never printed. ModelScope is asked
without one: its public models need none.
"""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qwen_mlx.errors import UsageError

_TRUE = {"1", "on", "yes", "true"}
_DEFAULT = {"hf": "https://huggingface.co", "modelscope": "https://modelscope.cn"}
_KNOWN_HOSTS = ("huggingface.co", "hf.co", "hf-mirror.com", "modelscope.cn", "modelscope.ai")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """The address of a hub and the token for it.

    Attributes:
        url: without a slash at the end.
        source: which protocol it speaks.
        variable: the environment variable it came from, None for the default.
    """

    url: str
    source: Literal["hf", "modelscope"]
    token: str | None = field(repr=False)
    variable: str | None = None

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def name(self) -> str:
        """For messages: the address, and the variable it came from."""
        return f"{self.url} ({self.variable})" if self.variable else self.url

    def owns(self, url: str) -> bool:
        """Whether the token may be sent to `url`: the same scheme, host and port."""
        return _origin(url) == _origin(self.url)

    def warning(self) -> str | None:
        """What is unsafe about sending a token there, if anything."""
        if self.token is None or self.host in _LOOPBACK:
            return None
        if not self.url.startswith("https://"):
            return f"your token goes over an unencrypted connection to {self.name}"
        if not any(self.host == known or self.host.endswith(f".{known}") for known in _KNOWN_HOSTS):
            return f"your token is sent to {self.name}, which is not a hub we know"
        return None


def current(source: Literal["hf", "modelscope"] = "hf") -> Endpoint:
    """The endpoint the environment asks for.

    Raises:
        UsageError: `HF_ENDPOINT` or `MODELSCOPE_DOMAIN` is not an address, or the token cannot be one.
    """
    variable = "HF_ENDPOINT" if source == "hf" else "MODELSCOPE_DOMAIN"
    wish = os.environ.get(variable, "").strip().rstrip("/")
    url = wish or _DEFAULT[source]
    if source == "modelscope" and "://" not in url:
        url = f"https://{url}"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{variable} is not an address", expected="https://...", found=repr(wish))
    if parts.username or parts.password:
        raise UsageError(f"{variable} holds a password", hint="Put the token into HF_TOKEN instead.")
    token = _hf_token() if source == "hf" else None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("your token (HF_TOKEN, or the stored one) holds characters that no token has")
    return Endpoint(url, source, token, variable if wish else None)


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`) forbids the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in names)


def _hf_token() -> str | None:
    """`HF_TOKEN`, else the one that `hf auth login` stored."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(name, "").strip():
            return token
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().lower() in _TRUE:
        return None
    try:
        return _token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _token_file() -> Path:
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(home).expanduser() / "token"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
