"""A model hub on this machine that can be told to go wrong. It speaks Hugging Face's protocol, and ModelScope's.

Large files are redirected to a second host name, as to a CDN. Every request is remembered, with the bytes that were
sent for it.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", "tokenizer.json")
HTML = b"<!DOCTYPE html><html><body>Welcome to the hotel network</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@dataclass
class Trouble:
    """How one file goes wrong.

    Attributes:
        kind: "truncate" and "reset" end the connection after `at` bytes, "stall" falls silent there; "html",
            "pointer", "flip", "longer", "length", "gzip" send something else; "status" answers with `status` and
            `headers`; "no_range" ignores ranges; "bad_range" answers another one; "416"; "evil_redirect" goes where
            `headers` say.
        times: how often; after that `then`, or all is well.
        etag_after: the tag the server gives the file from then on.
    """

    kind: str
    at: int = 0
    times: int = 10**9
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    then: Trouble | None = None
    etag_after: str | None = None


@dataclass
class Repo:
    """One repository: content by path, and what its listing says instead of the truth."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    trouble: dict[str, Trouble] = field(default_factory=dict)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra: list[dict[str, Any]] = field(default_factory=list)
    gate: str = ""  # "gated", "private"
    server_etags: dict[str, str] = field(default_factory=dict)
    hub_headers: bool = True
    refs: dict[str, str] = field(default_factory=dict)

    def entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if path.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        return {**entry, **self.listed.get(path, {})}


@dataclass
class Request:
    path: str
    host: str
    start: int
    if_range: str | None
    authorization: str | None
    status: int = 0
    sent: int = 0


@functools.lru_cache(maxsize=256)
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=256)
def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub:
    """A server on 127.0.0.1; `url` is the endpoint. `rate` is bytes per second of one connection."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.token = "hf_secret"
        self.rate: float | None = None
        self.page_size = 1000
        self.api_status: list[tuple[int, dict[str, str]]] = []  # answered first, one by one
        self.api_body: bytes | None = None
        self.requests: list[Request] = []
        self.streams = 0  # now
        self.most_streams = 0  # at a time, so far
        self._lock = threading.Lock()
        hub = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that is killed is no error here."""

        self._server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes], **settings: Any) -> Repo:
        self.repos[name] = Repo(files, **settings)
        return self.repos[name]

    def remember(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        with self._lock:
            self.streams += 1
            self.most_streams = max(self.streams, self.most_streams)
        try:
            yield
        finally:
            with self._lock:
                self.streams -= 1

    def sent(self, path: str) -> int:
        """Bytes of `path` that were sent in all."""
        with self._lock:
            return sum(request.sent for request in self.requests if request.path == path)

    def asked(self, path: str) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if path.startswith("/api/v1/models/"):
            self._modelscope(path, {key: value[0] for key, value in parse_qs(parts.query).items()})
        elif path.startswith("/api/"):
            self._api(path, parts.query)
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._content(self.hub.repos[match[1]], match[2], {})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[3])
        else:
            self._status(404, {})

    # ---------------------------------------------------------------------------------------- listings

    def _api(self, path: str, query: str) -> None:
        if self.hub.api_status:
            status, headers = self.hub.api_status.pop(0)
            self._status(status, headers)
            return
        if self.hub.api_body is not None:
            self._send(200, self.hub.api_body, {"Content-Type": "text/html"})
            return
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
        repo = self.hub.repos.get(match[1]) if match else None
        if match is None or repo is None:
            self._status(401 if not self._known() else 404, {"X-Error-Code": "RepoNotFound"}, repo)
            return
        if self._denied(repo, listing=True):
            return
        if match[2] == "revision":
            commit = repo.refs.get(match[3], repo.commit if match[3] in ("main", repo.commit) else None)
            if commit is None:
                self._status(404, {"X-Error-Code": "RevisionNotFound"}, repo)
                return
            self._json({"id": match[1], "sha": commit}, repo)
            return
        entries = [repo.entry(name) for name in repo.files] + repo.extra
        cursor = int(parse_qs(query).get("cursor", ["0"])[0])
        page = entries[cursor : cursor + self.hub.page_size]
        headers = {}
        if cursor + len(page) < len(entries):
            following = f"{self.hub.url}{path}?recursive=true&cursor={cursor + len(page)}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._json(page, repo, headers)

    def _modelscope(self, path: str, query: dict[str, str]) -> None:
        match = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", path)
        repo = self.hub.repos.get(match[1]) if match else None
        if match is None or repo is None or query.get("Revision") not in ("master", *repo.refs):
            self._status(404, {})
        elif match[2]:
            files = [
                {"Path": name, "Name": name, "Type": "blob", "Size": len(content), "Sha256": sha256(content)}
                for name, content in repo.files.items()
            ]
            self._json({"Code": 200, "Data": {"Files": files}, "Success": True})
        else:
            self._content(repo, query["FilePath"], {})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _denied(self, repo: Repo, listing: bool) -> bool:
        if self.headers.get("Authorization") and not self._known():
            self._status(401, {"X-Error-Message": "Invalid credentials in Authorization header"}, repo)
        elif repo.gate == "gated" and not listing:
            self._status(403 if self._known() else 401, {"X-Error-Code": "GatedRepo"}, repo)
        elif repo.gate == "private" and not self._known():
            self._status(401, {"X-Error-Code": "RepoNotFound"}, repo)
        elif repo.gate == "forbidden":
            self._status(403, {"X-Error-Message": "Your token cannot read this"}, repo)
        else:
            return False
        return True

    # ---------------------------------------------------------------------------------------- files

    def _resolve(self, name: str, path: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or path not in repo.files:
            self._status(404, {"X-Error-Code": "EntryNotFound"}, repo)
            return
        if self._denied(repo, listing=False):
            return
        trouble = repo.trouble.get(path)
        if trouble and trouble.kind == "evil_redirect":
            self._status(302, trouble.headers, repo)
            return
        entry = repo.entry(path)
        if "lfs" in entry:
            headers = {"Location": f"{self.hub.cdn}/cdn/{name}/{quote(path)}?X-Signature=private"}
            headers["X-Linked-Etag"] = f'"{sha256(repo.files[path])}"'
            headers["X-Linked-Size"] = str(len(repo.files[path]))
            self._status(302, headers, repo)
            return
        self._content(repo, path, {"X-Repo-Commit": repo.commit} if repo.hub_headers else {})

    def _content(self, repo: Repo, path: str, headers: dict[str, str]) -> None:
        content = repo.files[path]
        etag = f'"{repo.server_etags.get(path, "tag-" + sha256(content)[:8])}"'
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        if_range = self.headers.get("If-Range")
        request = Request(path, self.headers.get("Host", ""), start, if_range, self.headers.get("Authorization"))
        self.hub.remember(request)
        trouble = repo.trouble.get(path)
        if trouble and trouble.times <= 0:
            trouble = trouble.then
        if trouble:
            trouble.times -= 1
            if trouble.etag_after:
                repo.server_etags[path] = trouble.etag_after
        kind = trouble.kind if trouble else ""
        if trouble and kind == "status":
            request.status = trouble.status
            self._status(trouble.status, trouble.headers)
            return
        if kind == "416" and start:
            request.status = 416
            self._status(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        if kind in ("html", "pointer"):
            body = HTML if kind == "html" else POINTER
            self._send(200, body, {"Content-Type": "text/html" if kind == "html" else "text/plain", "ETag": etag})
            request.status, request.sent = 200, len(body)
            return
        if kind == "gzip":
            self._send(200, gzip.compress(content), {"Content-Encoding": "gzip", "ETag": etag})
            return
        if (if_range and if_range != etag) or kind == "no_range":
            start = 0
        if kind == "flip":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if kind == "longer":
            content += b"more"
        body = content[start:]
        request.status = 206 if start else 200
        self.send_response(request.status)
        length = len(body) - 7 if kind == "length" else len(body)
        shown = {**headers, "ETag": etag, "Content-Length": str(length), "Content-Type": "application/octet-stream"}
        if start:
            first = start + 1 if kind == "bad_range" else start
            shown["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        for name, value in shown.items():
            self.send_header(name, value)
        self.end_headers()
        with self.hub.streaming():
            self._stream(body[:length], request, trouble)

    def _stream(self, body: bytes, request: Request, trouble: Trouble | None) -> None:
        began = time.monotonic()
        kind = trouble.kind if trouble else ""
        end = trouble.at if trouble and kind in ("truncate", "reset", "stall") else len(body)
        while request.sent < min(end, len(body)):
            chunk = body[request.sent : min(request.sent + 32768, end)]
            self.wfile.write(chunk)
            request.sent += len(chunk)
            if self.hub.rate:
                time.sleep(max(0.0, request.sent / self.hub.rate - (time.monotonic() - began)))
        if request.sent < len(body):
            if kind == "stall":
                time.sleep(20)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

    # ---------------------------------------------------------------------------------------- answers

    def _json(self, value: Any, repo: Repo | None = None, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _status(self, status: int, headers: dict[str, str], repo: Repo | None = None) -> None:
        plain = repo is not None and not repo.hub_headers
        self._send(status, b"", {} if plain else headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
