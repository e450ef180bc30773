"""HTTP as a hub needs it: redirects that do not carry the token away, retries, refusals, and stopping at once.

This module knows nothing of repositories; `listing.py` and `transfer.py` say what a refusal means. httpx2 does the
HTTP, as it does for huggingface_hub, with the proxies and certificates of the system.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import importlib.metadata
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2

from qwen_mlx.errors import NetworkError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub.endpoint import Endpoint
from qwen_mlx.hub.wrong_body import is_web_page

_REDIRECTS = 10
_FIRST_ATTEMPTS = 3  # to reach a hub before anything has come from it: a machine without a network should say so soon
_MAX_JSON = 50_000_000  # bytes; the listing of the largest repository has some hundred thousand
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a hub, in seconds.

    Attributes:
        connect: for a connection.
        read: for more bytes; then the connection is given up and made again.
        attempts: in a row that brought nothing, before it is an error.
        first_wait: before the second attempt; doubled every time, up to `longest_wait`.
        longest_order: the longest wait a hub may order with `Retry-After`.
    """

    connect: float = 15.0
    read: float = 30.0
    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0
    longest_order: float = 900.0

    @classmethod
    def from_environment(cls) -> Patience:
        """`HF_HUB_DOWNLOAD_TIMEOUT` is how long to wait for more bytes."""
        try:
            return cls(read=float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"]))
        except (KeyError, ValueError):
            return cls()


class Transient(Exception):
    """Something that may be over in a moment; `order` is the wait the hub asked for, in seconds."""

    def __init__(self, what: str, order: float | None = None) -> None:
        super().__init__(what)
        self.order = order


class Unreachable(Transient):
    """Nobody answered at all."""


class Refused(Exception):
    """An answer of the hub that is final: its status, and what its headers say about the reason."""

    def __init__(self, url: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"{status} from {without_query(url)}")
        self.url = url
        self.status = status
        self.code = headers.get("X-Error-Code", "")
        self.message = headers.get("X-Error-Message", "")


@dataclass(frozen=True)
class Answer:
    """A response whose body has not been read.

    Attributes:
        status: 200, 206 or 416.
        headers: of the answer that carries the body.
        hub_headers: of the first answer, before any redirect: what the hub itself says of the file.
    """

    status: int
    headers: httpx2.Headers
    hub_headers: httpx2.Headers
    response: httpx2.Response

    def chunks(self, *, decoded: bool = False) -> Iterator[bytes]:
        """The body as it comes in, `decoded` where a server compressed it against our will.

        Raises:
            Transient: the connection broke.
        """
        try:
            yield from self.response.iter_bytes() if decoded else self.response.iter_raw()
        except (httpx2.TransportError, httpx2.DecodingError) as problem:
            raise Transient(_reason(problem)) from None


class Transport:
    """Requests to one hub. May be used from several threads; `stop` makes all of them return at once."""

    def __init__(self, endpoint: Endpoint, cancel: CancelToken, patience: Patience) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self._cancel = cancel
        self._lock = threading.Lock()
        self._open: set[httpx2.Response] = set()
        try:
            self._client = httpx2.Client(
                headers={"User-Agent": f"qwen-mlx/{_version()}", "Accept-Encoding": "identity"},
                timeout=httpx2.Timeout(patience.read, connect=patience.connect),
                follow_redirects=False,
                verify=_certificates(),
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as problem:
            # What a proxy's address can be wrong with; ImportError is a kind of proxy that needs another package.
            raise NetworkError(f"the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: {problem}") from None

    def stop(self) -> None:
        """Break off every transfer that is under way, from another thread."""
        self._cancel.cancel()
        with self._lock:
            for response in self._open:
                _break_off(response)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close()

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Ask for `url`, follow redirects, and hand over the body unread.

        Raises:
            Transient: it may work in a moment.
            Refused: it will not.
            NetworkError: not the answer of a hub at all.
        """
        first: httpx2.Headers | None = None
        for _ in range(_REDIRECTS):
            response = self._send(url, headers or {})
            try:
                first = response.headers if first is None else first
                if response.is_redirect:
                    url = self._next(url, response)
                    continue
                self._check(url, response)
                yield Answer(response.status_code, response.headers, first, response)
                return
            finally:
                with self._lock:
                    self._open.discard(response)
                with contextlib.suppress(Exception):  # a connection that was broken off
                    response.close()
        raise NetworkError(f"{self.endpoint.name} redirects in a circle: {without_query(url)}")

    def json(self, url: str, notice: Callable[[str], None]) -> tuple[Any, httpx2.Headers]:
        """The JSON at `url`, with retries. Raises `Refused`, `NetworkError`, `Cancelled`."""
        return self.with_retries(lambda: self._json(url), notice)

    def with_retries(self, action: Callable[[], Result], notice: Callable[[str], None]) -> Result:
        """Do `action` until it does not raise `Transient`. Raises `NetworkError` when patience is at its end."""
        attempt = 0
        while True:
            self._cancel.raise_if_cancelled()
            try:
                return action()
            except Transient as problem:
                attempt += 1
                if isinstance(problem, Unreachable) and attempt >= _FIRST_ATTEMPTS:
                    attempt = max(attempt, self.patience.attempts)
                self.wait(problem, attempt, notice)

    def wait(self, problem: Transient, attempt: int, notice: Callable[[str], None]) -> None:
        """Wait before the next attempt, as long as the hub asked for or a little longer every time.

        Raises:
            NetworkError: that was the last one, or the hub asks for too long a wait.
            Cancelled: meanwhile.
        """
        patience = self.patience
        self._cancel.raise_if_cancelled()
        if attempt >= patience.attempts:
            raise NetworkError(
                f"{self.endpoint.name} cannot be used: {problem}", hint="Check the connection, and try again."
            )
        seconds = min(patience.first_wait * 2 ** (attempt - 1), patience.longest_wait)
        if problem.order is not None:
            seconds = problem.order
            if seconds > patience.longest_order:
                raise NetworkError(
                    f"{self.endpoint.name} asks to wait {seconds:.0f} seconds: {problem}", hint="Try again later."
                )
            notice(f"{problem}; it asks to wait {seconds:.0f} s")
        elif attempt > 1:
            notice(f"{problem}; trying again")
        self._cancel.wait(seconds)

    def _json(self, url: str) -> tuple[Any, httpx2.Headers]:
        with self.get(url) as answer:
            body = bytearray()
            for chunk in answer.chunks(decoded=True):
                self._cancel.raise_if_cancelled()
                body += chunk
                if len(body) > _MAX_JSON:
                    raise NetworkError(f"{self.endpoint.name} sends a listing that has no end")
        if is_web_page(bytes(body[:512]), answer.headers.get("Content-Type", "")):
            raise NetworkError(
                f"{self.endpoint.name} answered with a web page instead of data",
                hint="Perhaps a log-in page of this network is in between, or the address is wrong.",
            )
        try:
            return json.loads(bytes(body)), answer.headers
        except ValueError:
            raise NetworkError(
                f"{self.endpoint.name} does not speak the protocol of a model hub",
                expected="JSON",
                found=repr(bytes(body[:40]).decode("latin-1")),
            ) from None

    def _send(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        self._cancel.raise_if_cancelled()
        own = dict(headers)
        if self.endpoint.token and self.endpoint.owns(url):
            own["Authorization"] = f"Bearer {self.endpoint.token}"
        try:
            request = self._client.build_request("GET", url, headers=own)
            response = self._client.send(request, stream=True)
        except (httpx2.TransportError, httpx2.InvalidURL) as problem:
            self._cancel.raise_if_cancelled()
            raise self._no_connection(problem) from None
        with self._lock:
            self._open.add(response)
            if self._cancel.cancelled:
                _break_off(response)
        return response

    def _no_connection(self, problem: Exception) -> Exception:
        text = _reason(problem)
        if "CERTIFICATE" in text.upper():
            return NetworkError(
                f"the certificate of {self.endpoint.host} is not trusted: {text}",
                hint="Perhaps a log-in page of this network is in between.",
            )
        if isinstance(problem, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
            return NetworkError(f"{self.endpoint.name} leads to an address that cannot be used: {text}")
        return Unreachable(f"no answer from {self.endpoint.host}: {text}")

    def _next(self, url: str, response: httpx2.Response) -> str:
        target = urljoin(url, response.headers.get("Location", ""))
        if urlsplit(target).scheme not in ("http", "https"):
            raise NetworkError(f"{self.endpoint.name} redirects to {without_query(target)!r}", expected="a web address")
        if url.startswith("https://") and target.startswith("http://"):
            raise NetworkError(
                f"{self.endpoint.name} redirects to an unencrypted address: {without_query(target)}",
                hint="This is refused: anyone in between could change the model.",
            )
        return target

    def _check(self, url: str, response: httpx2.Response) -> None:
        status = response.status_code
        if status in (200, 206, 416):
            return
        if status in _RETRIED:
            words = "too many requests" if status == 429 else f"error {status}"
            raise Transient(f"{urlsplit(url).hostname} says: {words}", _order(response.headers))
        if not 400 <= status < 600:
            raise NetworkError(f"{self.endpoint.name} gave an answer we do not understand", found=f"status {status}")
        raise Refused(url, status, response.headers)


@functools.lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """The certificates of the system, which take a while to read."""
    return httpx2.create_ssl_context()


def _version() -> str:
    try:
        return importlib.metadata.version("qwen-mlx")
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def without_query(url: str) -> str:
    """An address for a message: signatures stay out of it."""
    return url.partition("?")[0]


def _order(headers: Mapping[str, str]) -> float | None:
    """The wait in `Retry-After` (seconds or a date) or in `RateLimit: "api";r=0;t=55`."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    if text:
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    match = re.search(r";\s*r=0\s*;\s*t=(\d{1,6})", headers.get("RateLimit", ""))
    return float(match[1]) if match else None


def _reason(problem: Exception) -> str:
    if isinstance(problem, httpx2.TimeoutException):
        return "it took too long"
    return str(problem) or type(problem).__name__


def _break_off(response: httpx2.Response) -> None:
    """Make a read in another thread return now."""
    stream = response.extensions.get("network_stream")
    with contextlib.suppress(Exception):
        connection = stream.get_extra_info("socket")  # type: ignore[union-attr]
        connection.shutdown(socket.SHUT_RDWR)
