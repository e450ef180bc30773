"""The folder of a run: its configuration, checkpoints, events, and the lock that keeps a second process out.

run.toml                 the resolved configuration
events.jsonl             every event, one JSON object a line, only ever appended to
step-000100/ ...         checkpoints, each of which appears whole or not at all
latest, best             links to two of them
base/                    the quantized model, where the run made one
cache/                   tokenized data, which can be made again
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen_mlx.errors import CheckpointError, NotFound, QwenError, UsageError
from qwen_mlx.paths import atomic_write, sync_folder
from qwen_mlx.training.config import RunConfig, checked
from qwen_mlx.training.settings import read_section, read_table, to_toml

CONFIG, EVENTS, STATE = "run.toml", "events.jsonl", "state.json"
_ATTEMPTS = 5  # to take the lock
_CHECKPOINT = re.compile(r"step-(\d{6,})(?:-batch-(\d+))?(?:-(\d+))?$")
_HIDDEN = re.compile(r"\.(step-.*\.(partial|gone)|(latest|best)\.new)$")


class RunFolder:
    """The folder of one run. Making this object touches nothing on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - a link at the end stays one

    # ----------------------------------------------------------------------------------------- configuration

    @property
    def exists(self) -> bool:
        return (self.path / CONFIG).is_file()

    def create(self, config: RunConfig) -> None:
        """Begin a run here.

        Raises:
            UsageError: something else than an empty folder is here.
            QwenError: the disk cannot be written.
        """
        if self.exists:
            raise UsageError(
                f"{self.path} holds a run already",
                hint=f"`qwen-mlx train resume {self.path}` goes on with it; else give another folder (out).",
            )
        try:
            # A killed start leaves no more than what these words say.
            if self.path.exists() and any(
                entry.name not in (".lock", "cache", "base") for entry in self.path.iterdir()
            ):
                raise UsageError(f"{self.path} holds something else than a run", hint="Give another folder (out).")
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_config(config)
        except (OSError, ValueError) as problem:
            raise _cannot_write(self.path, problem) from None

    def write_config(self, config: RunConfig) -> None:
        with atomic_write(self.path / CONFIG) as file:
            file.write(to_toml(config.table()))

    def read_config(self) -> RunConfig:
        """Raises `NotFound` when no run is here, `UsageError` when its configuration was damaged."""
        if not self.exists:
            raise NotFound(f"{str(self.path)!r} is not the folder of a run", expected=f"a folder with {CONFIG}")
        table, origins = read_table(self.path / CONFIG)
        return checked(read_section(RunConfig, table, (), origins), origins)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here. Raises `UsageError` when one does."""
        import fcntl

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except (OSError, ValueError) as problem:
            raise _cannot_write(self.path, problem) from None
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt + 1 == _ATTEMPTS:
                        raise UsageError(
                            f"another process is training in {self.path}", hint="Wait for it, or stop it."
                        ) from None
                    time.sleep(0.02)  # it may only have asked whether anybody is `busy` here
                except OSError:
                    break  # a file system without locks: nobody else is the likely case
            yield
        finally:
            os.close(handle)

    @property
    def busy(self) -> bool:
        """Whether a process is training here now."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with self.locked():
                return False
        except UsageError:
            return True

    # ------------------------------------------------------------------------------------------- checkpoints

    def checkpoints(self) -> list[Path]:
        """Those that are whole, the oldest first."""
        found = []
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            match = _CHECKPOINT.match(entry.name)
            if match and (entry / STATE).is_file():
                found.append((tuple(int(number or 0) for number in match.groups()), entry))
        return [entry for _, entry in sorted(found)]

    def pointer(self, name: str) -> Path | None:
        """The checkpoint that `latest` or `best` leads to, if it is there."""
        try:
            target = self.path / (self.path / name).readlink()
        except OSError:
            return None
        return target if _CHECKPOINT.match(target.name) and (target / STATE).is_file() else None

    def latest(self) -> Path | None:
        """The checkpoint to go on from."""
        whole = self.checkpoints()
        return self.pointer("latest") or (whole[-1] if whole else None)

    def best(self) -> Path | None:
        """The checkpoint to use: the best one, else the latest."""
        return self.pointer("best") or self.latest()

    def checkpoint(self, name: str) -> Path:
        """`latest`, `best`, or the name of a folder. Raises `NotFound`."""
        found = self.latest() if name == "latest" else self.best() if name == "best" else self.path / name
        if found is None or not (found / STATE).is_file():
            names = ", ".join(entry.name for entry in self.checkpoints()) or "none yet"
            raise NotFound(f"{self.path} has no checkpoint {name!r}", expected=f"latest, best, or one of: {names}")
        return found

    @contextlib.contextmanager
    def new_checkpoint(self, step: int, batch: int = 0) -> Iterator[tuple[Path, Path]]:
        """A hidden folder to write into and the name it will have; it gets that name when the block ends well."""
        name = f"step-{step:06d}" + (f"-batch-{batch}" if batch else "")
        numbers = iter(range(2, 10**6))
        target = self.path / name
        while os.path.lexists(target):
            target = self.path / f"{name if batch else name + '-batch-0'}-{next(numbers)}"
        partial = self.path / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial, target
            _sync_tree(partial)
            partial.rename(target)
            sync_folder(self.path)
        except BaseException as problem:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(problem, OSError):
                raise _cannot_write(target, problem) from None
            raise

    def point(self, name: str, target: Path) -> None:
        """Let `latest` or `best` lead to a checkpoint, from one moment to the next."""
        link = self.path / f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(target.name)
        os.replace(link, self.path / name)
        sync_folder(self.path)

    def forget(self, keep: int) -> None:
        """Delete all checkpoints but the `keep` newest and those that are pointed to."""
        whole = self.checkpoints()
        kept = {*whole[len(whole) - keep :], self.pointer("latest"), self.pointer("best")}
        for entry in whole:
            if entry not in kept:
                gone = self.path / f".{entry.name}.gone"  # so that a half-deleted one is never taken for a whole one
                shutil.rmtree(gone, ignore_errors=True)
                entry.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed process left half-written. Only for the holder of the lock."""
        for entry in self.path.iterdir():
            if _HIDDEN.match(entry.name):
                shutil.rmtree(
                    entry, ignore_errors=True
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    # ------------------------------------------------------------------------------------------------ events

    def events(self) -> list[dict[str, Any]]:
        """What is written in events.jsonl, without what a killed process computed after its last checkpoint.

        A line that was cut off in the middle is left out.
        """
        found: list[dict[str, Any]] = []
        try:
            lines = (self.path / EVENTS).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return found
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if not isinstance(event, dict):
                continue
            if event.get("type") == "run_started":
                # What comes now is computed again from this step on.
                resumed = event.get("step", 0)
                found = [old for old in found if not _computed_after(old, resumed)]
            found.append(event)
        return found


def _computed_after(event: dict[str, Any], step: int) -> bool:
    return event.get("type") in ("step", "eval", "sample") and event.get("step", 0) > step


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The `state.json` of a checkpoint. Raises `CheckpointError` when it is damaged."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{checkpoint / STATE} cannot be read", found=str(problem)) from None
    if not isinstance(state, dict) or state.get("format") != 1:
        raise CheckpointError(f"{checkpoint / STATE} was not written by this version", found=str(state)[:60])
    return state


def _sync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _sync_tree(entry)
            continue
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(folder)


def _cannot_write(path: Path, problem: OSError | ValueError) -> QwenError:
    import errno

    from qwen_mlx.errors import NoSpace

    if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{path} cannot be written: the disk is full", hint="Make room; then `train resume` goes on.")
    return QwenError(f"{str(path)!r} cannot be written", found=getattr(problem, "strerror", None) or str(problem))
