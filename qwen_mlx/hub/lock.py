"""One pull of a repository at a time. The lock belongs to a process: it is gone when the process is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from qwen_mlx.errors import QwenError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub.cache import Repository, writing

_POLL = 0.2  # seconds


def lock_file(repository: Repository) -> Path:
    """Beside the locks of huggingface_hub, which has one per blob."""
    return repository.home.parent / ".locks" / repository.home.name / "qwen-mlx.lock"


@contextlib.contextmanager
def locked(repository: Repository, cancel: CancelToken, wait: float = 2.0) -> Iterator[None]:
    """Hold the lock of `repository`.

    The kernel releases a lock (`flock`) with its process, however that ends, so none is ever stale; the process id
    inside is for the message. On a file system without locks the id decides: a process that is gone holds nothing.

    Raises:
        QwenError: another process has it, still after `wait` seconds.
        Cancelled: meanwhile.
    """
    path = lock_file(repository)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise writing(problem, path) from None
    try:
        end = time.monotonic() + wait
        while not _take(file):
            if time.monotonic() > end:
                raise QwenError(
                    f"another process (pid {_owner(file) or 'unknown'}) is downloading {repository.name}",
                    hint="Wait for it, or end it: what it has is kept.",
                )
            cancel.wait(_POLL)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        owner = _owner(file)
        return owner is None or owner == os.getpid() or not _alive(owner)
    return True


def _owner(file: int) -> int | None:
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and not ours
        pass
    return True
