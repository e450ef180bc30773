"""Which app is writing which reply: so that after a crash one app mends its rows and not another's.

An owner is a small file beside the database that its app keeps locked (`flock`). The kernel lets go of the
lock when the process ends, however it ends, so a lock that can be taken means a dead owner. No process id can
be reused into a wrong answer, no clock and no heartbeat is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path

_SUFFIX = "-owner-"
_TOKEN = re.compile(r"[0-9]+-[0-9a-f]+")


class Owner:
    """This app's mark beside `database`; alive until `close`, or the end of the process."""

    def __init__(self, database: Path) -> None:
        while True:
            self.token = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._path = owner_path(database, self.token)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            # Between creation and lock another app may take the file for a dead one, and remove it.
            if _lock(self._file) and self._path.exists():
                return
            self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            os.close(self._file)


def owner_path(database: Path, token: str) -> Path:
    return database.with_name(f"{database.name}{_SUFFIX}{token}")


def known_owners(database: Path) -> list[str]:
    """The tokens of all owner files beside `database`, dead or alive."""
    prefix = database.name + _SUFFIX
    names = (file.name for file in database.parent.iterdir())
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def is_dead(database: Path, token: str) -> bool:
    """Whether the app behind `token` has ended; the file of a dead one is removed."""
    if not _TOKEN.fullmatch(token):  # a hand-edited row
        return True
    path = owner_path(database, token)
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return not _process_exists(token)
    try:
        dead = _lock(file, fallback=not _process_exists(token))
        if dead:  # removed while locked, so that an app which starts right now notices it
            with contextlib.suppress(OSError):
                path.unlink()
        return dead
    finally:
        os.close(file)


def _lock(file: int, fallback: bool = True) -> bool:
    """Try to lock; `fallback` is the answer on a file system that has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return fallback
    return True


def _process_exists(token: str) -> bool:
    try:
        os.kill(int(token.split("-")[0]), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True
