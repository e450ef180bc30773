"""The bytes of one file: asked for from where the last attempt ended, hashed as they come, and kept only if right.

What arrives is appended to `<etag>.part`; a killed process leaves it as it is. The next attempt hashes what is there,
asks for the rest (`Range`, and `If-Range` with the server's own tag, so that a changed file comes from its start),
and renames the part to a blob when its checksum is the one of the listing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qwen_mlx.errors import CheckpointError, NetworkError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub.cache import Checksum, Digest, Repository, writing
from qwen_mlx.hub.listing import RemoteFile
from qwen_mlx.hub.references import Reference
from qwen_mlx.hub.refusals import explain
from qwen_mlx.hub.transport import Answer, Refused, Transient, Transport
from qwen_mlx.hub.wrong_body import instead_of_file
from qwen_mlx.paths import atomic_write

_BLOCK = 1 << 20  # bytes read at once when a part is hashed
_CHECKPOINT = 64 << 20  # bytes between two notes on the disk
_WORTH_A_NOTE = 4 << 20  # bytes; of a smaller file the checksum at the end says enough
_HEAD = 512
_MAX_RESTARTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Meter:
    """How much is there, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._have: dict[str, int] = {}
        self.received = 0  # over the network

    def set(self, etag: str, have: int, received: int = 0) -> None:
        with self._lock:
            self._have[etag] = have
            self.received += received

    @property
    def have(self) -> int:
        """Bytes of all files that are on the disk."""
        with self._lock:
            return sum(self._have.values())


class Limiter:
    """Bytes per second that all threads together may take; None is no limit."""

    def __init__(self, rate: float | None, cancel: CancelToken) -> None:
        self._rate = rate
        self._cancel = cancel
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, count: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() - 0.2) + count / self._rate
            wait = self._free_at - time.monotonic()
        if wait > 0:
            self._cancel.wait(wait)


class _Restart(Exception):
    """What is there is of no use; the file has to come from its start."""


@dataclass
class _State:
    """What the part holds: its length, the digest over it, and the tag of the server it came from."""

    have: int
    digest: Digest
    server_etag: str | None = None
    resumed: bool = False  # it was put together from several answers, perhaps of several processes
    noted: int = 0  # bytes the note on the disk speaks of


class FileTransfer:
    """Fetches one file into the cache.

    Args:
        notice: told what a person should know; never a failure.
    """

    def __init__(
        self,
        file: RemoteFile,
        reference: Reference,
        repository: Repository,
        transport: Transport,
        cancel: CancelToken,
        meter: Meter,
        limiter: Limiter,
        notice: Callable[[str], None],
    ) -> None:
        self._file = file
        self._reference = reference
        self._repository = repository
        self._transport = transport
        self._cancel = cancel
        self._meter = meter
        self._limiter = limiter
        self._notice = notice
        self._part = repository.part(file.etag)

    def run(self) -> None:
        """Leave the whole and checked file among the blobs.

        Raises:
            NetworkError: the hub does not give it.
            CheckpointError: what it gives is not what it listed; nothing of it is kept.
            NoSpace, QwenError: the cache cannot be written.
            Cancelled: what has arrived is kept.
        """
        try:
            self._repository.blobs.mkdir(parents=True, exist_ok=True)
            state = self._found()
            for _ in range(_MAX_RESTARTS):
                try:
                    self._complete(state)
                    self._check(state)
                    break
                except _Restart as why:
                    self._notice(f"{self._file.path}: {why}; it is fetched again from its start")
                    state = self._fresh()
            else:
                self._discard()
                raise NetworkError(
                    f"{self._file.path} cannot be downloaded from {self._transport.endpoint.name}: it changes"
                )
            self._repository.finish(self._file.etag)
        except OSError as problem:
            raise writing(problem, self._repository.blobs) from None

    # -------------------------------------------------------------------------------------------- what is there

    def _fresh(self) -> _State:
        self._discard()
        self._meter.set(self._file.etag, 0)
        return _State(0, Checksum(self._file.size, self._file.etag).digest())

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._repository.notes(self._file.etag).unlink(missing_ok=True)

    def _found(self) -> _State:
        """Hash the part an earlier attempt left; one that is damaged or too long is thrown away."""
        state = _State(0, Checksum(self._file.size, self._file.etag).digest(), resumed=True)
        notes = self._read_notes()
        checked, expected = notes.get("bytes"), notes.get("digest")
        try:
            with self._part.open("rb") as file:
                while block := file.read(_next_block(state.have, checked)):
                    self._cancel.raise_if_cancelled()
                    state.digest.update(block)
                    state.have += len(block)
                    self._meter.set(self._file.etag, min(state.have, self._file.size))
                    if state.have == checked and state.digest.copy().hexdigest() != expected:
                        self._notice(f"{self._file.path}: the part that was there is damaged; starting again")
                        return self._fresh()
                    if state.have > self._file.size:
                        return self._fresh()
        except FileNotFoundError:
            return self._fresh()
        tag = notes.get("server_etag")
        state.server_etag = tag if isinstance(tag, str) else None
        state.noted = state.have
        return state

    def _read_notes(self) -> dict[str, Any]:
        try:
            notes = json.loads(self._repository.notes(self._file.etag).read_text(encoding="utf-8"))
            return notes if isinstance(notes, dict) and notes.get("size") == self._file.size else {}
        except (OSError, ValueError):
            return {}

    def _write_notes(self, state: _State, file: IO[bytes]) -> None:
        """Put on the disk what has arrived, and then that it has."""
        os.fsync(file.fileno())
        notes = {
            "file": self._file.path,
            "size": self._file.size,
            "server_etag": state.server_etag,
            "bytes": state.have,
            "digest": state.digest.copy().hexdigest(),
        }
        with atomic_write(self._repository.notes(self._file.etag)) as out:
            json.dump(notes, out)
        state.noted = state.have

    # -------------------------------------------------------------------------------------------- the network

    def _complete(self, state: _State) -> None:
        """Append until the part has its full length."""
        attempt = 0
        if state.have == self._file.size == 0:
            self._part.touch()
        while state.have < self._file.size:
            self._cancel.raise_if_cancelled()
            before = state.have
            try:
                self._stream(state)
            except Transient as problem:
                self._cancel.raise_if_cancelled()  # a transfer that was broken off looks like a broken connection
                attempt = 1 if state.have > before else attempt + 1
                self._transport.wait(problem, attempt, lambda text: self._notice(f"{self._file.path}: {text}"))
            except Refused as refused:
                raise explain(refused, self._transport.endpoint, self._reference, self._file.path) from None

    def _stream(self, state: _State) -> None:
        headers = {}
        if state.have:
            headers["Range"] = f"bytes={state.have}-"
            if state.server_etag:
                headers["If-Range"] = state.server_etag
        with self._transport.get(self._file.url, headers) as answer:
            self._check_answer(state, answer)
            with self._opened(state) as file:
                if self._file.size >= _WORTH_A_NOTE:
                    self._write_notes(state, file)
                self._append(state, file, answer)

    def _check_answer(self, state: _State, answer: Answer) -> None:
        """Raises `_Restart` or an error where the answer is not the continuation of what is there."""
        linked = _plain(answer.hub_headers.get("X-Linked-Etag") or "")
        if linked and linked != self._file.etag and len(linked) == len(self._file.etag):
            self._discard()
            raise CheckpointError(
                f"{self._file.path} changed on the hub while the model was downloaded", hint="Pull again."
            )
        if answer.status == 416:
            raise _Restart("the server does not have the rest of it")
        if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise NetworkError(f"{self._transport.endpoint.name} sends {self._file.path} compressed ({encoding})")
        length = answer.headers.get("Content-Length", "")
        tag = _strong(answer.headers.get("ETag"))
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != state.have or int(match[3]) != self._file.size:
                raise _Restart("the server sends another part of it than it was asked for")
            if tag and state.server_etag and tag != state.server_etag:
                raise _Restart("it changed on the server")
            state.resumed = True
        elif state.have:
            state.server_etag = None
            raise _Restart("it changed on the server, or the server cannot continue it")
        elif length.isdigit() and int(length) != self._file.size:
            raise self._refuse_start(answer, int(length))
        state.server_etag = tag

    def _refuse_start(self, answer: Answer, length: int) -> Exception:
        head = next(answer.chunks(), b"")[:_HEAD]
        instead = instead_of_file(head, answer.headers.get("Content-Type", ""))
        if instead:
            return self._instead(instead)
        return CheckpointError(
            f"{self._transport.endpoint.name} lists {self._file.path} with {self._file.size} bytes",
            found=f"{length} bytes when it was asked for",
            hint="Nothing was kept. Try again later, or another HF_ENDPOINT.",
        )

    def _instead(self, instead: str) -> CheckpointError:
        return CheckpointError(
            f"{self._transport.endpoint.name} did not send {self._file.path}",
            found=instead,
            hint="Nothing was kept; try again when the connection is right.",
        )

    @contextlib.contextmanager
    def _opened(self, state: _State) -> Iterator[IO[bytes]]:
        with self._part.open("ab", buffering=0) as file:
            if file.tell() != state.have:  # a part is never longer than what was hashed
                file.truncate(state.have)
            yield file

    def _append(self, state: _State, file: IO[bytes], answer: Answer) -> None:
        kind = answer.headers.get("Content-Type", "")
        for chunk in answer.chunks():
            self._cancel.raise_if_cancelled()
            if state.have == 0 and (instead := instead_of_file(chunk[:_HEAD], kind)) and self._is_weights():
                file.close()
                self._discard()
                raise self._instead(instead)
            if state.have + len(chunk) > self._file.size:
                raise _Restart("the server sends more than the listing says")
            _write_all(file, chunk)
            state.digest.update(chunk)
            state.have += len(chunk)
            self._meter.set(self._file.etag, state.have, len(chunk))
            if state.have - state.noted >= _CHECKPOINT:
                self._write_notes(state, file)
            self._limiter.take(len(chunk))
        if state.have < self._file.size:
            raise Transient("the connection ended early")
        os.fsync(file.fileno())

    def _is_weights(self) -> bool:
        return self._file.path.endswith((".safetensors", ".gguf", ".json"))

    # -------------------------------------------------------------------------------------------- the end

    def _check(self, state: _State) -> None:
        if state.digest.hexdigest() == self._file.etag:
            return
        if state.resumed:
            raise _Restart("its checksum is wrong, perhaps by what was there before")
        instead = instead_of_file(_head(self._part))
        self._discard()
        if instead:
            raise self._instead(instead)
        raise CheckpointError(
            f"{self._file.path} has another checksum than {self._transport.endpoint.name} lists; it was deleted",
            expected=self._file.etag,
            found=state.digest.hexdigest(),
            hint="Pull again; if it stays, do not trust this endpoint.",
        )


def _next_block(have: int, checked: Any) -> int:
    """How much to read, so that a block ends where the note was made."""
    return min(_BLOCK, checked - have) if isinstance(checked, int) and checked > have else _BLOCK


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _plain(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')


def _strong(tag: str | None) -> str | None:
    """A tag that may stand in `If-Range`; a weak one may not."""
    return tag if tag and tag.startswith('"') else None
