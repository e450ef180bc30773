"""Get a model: resolve the name, list its files, see that they fit on the disk, fetch what is missing.

`pull` is an iterator of events that any interface can read. It can be killed at any moment; the next one goes on.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from qwen_mlx.errors import CheckpointError, NetworkError, NoSpace, NotFound, QwenError, UsageError
from qwen_mlx.events import CancelToken, Event, FileProblem, Notice, Progress, PullFinished, PullPlanned, VerifyFinished
from qwen_mlx.hub import endpoint as endpoints
from qwen_mlx.hub.cache import Checksum, Repository, writing
from qwen_mlx.hub.crew import Crew
from qwen_mlx.hub.listing import Listing, RemoteFile, choose, read_listing
from qwen_mlx.hub.lock import locked
from qwen_mlx.hub.references import Reference, cached_repositories, parse, resolve
from qwen_mlx.hub.refusals import explain
from qwen_mlx.hub.transfer import FileTransfer, Limiter, Meter
from qwen_mlx.hub.transport import Patience, Refused, Transport
from qwen_mlx.hub.verify import verify

_SPARE = 1.02  # file systems keep a little for themselves
_EVERY = 0.2  # seconds between two Progress events
_WINDOW = 8.0  # seconds the speed is taken over
_MAX_CONFIG = 4_000_000  # bytes
Result = TypeVar("Result")


@dataclass(frozen=True)
class PullOptions:
    """How to pull.

    Attributes:
        revision: a branch, tag or commit, instead of the reference's own.
        include: patterns of file names: these instead of what a model needs.
        dry_run: only say what would be done.
        offline: do not use the network: succeed if the model is there.
        repair: verify what is there first, and fetch what is damaged.
        limit_rate: bytes per second, None for no limit.
        workers: files at a time.
        patience: None takes `Patience.from_environment()`.
    """

    revision: str | None = None
    include: Sequence[str] = ()
    dry_run: bool = False
    offline: bool = False
    repair: bool = False
    limit_rate: float | None = None
    workers: int = 4
    patience: Patience | None = None


def pull(name: str, options: PullOptions | None = None, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Bring a model into the Hugging Face cache.

    Args:
        name: anything `references.parse` takes for a repository.
        cancel: obeyed within a second.

    Yields:
        `Notice`s, one `PullPlanned`, `Progress` in bytes, and `PullFinished`.

    Raises:
        UsageError: the name is a folder, or cannot be meant.
        NotFound: no such repository, revision or file.
        NetworkError: the hub cannot be reached, or refuses.
        NoSpace: the disk is too small; nothing was fetched.
        CheckpointError: the hub sends something else than it lists; nothing of that was kept.
        QwenError: another process pulls the same model, or the cache cannot be written.
        Cancelled: what has arrived is kept.
    """
    return _Pull(name, options or PullOptions(), cancel or CancelToken()).run()


class _Pull:
    def __init__(self, name: str, options: PullOptions, cancel: CancelToken) -> None:
        self._options = options
        self._cancel = cancel
        self._reference = _reference(name, options.revision)
        self._repository = Repository(self._reference.repository)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def run(self) -> Iterator[Event]:
        if self._options.offline or endpoints.offline():
            yield from self._offline()
            return
        endpoint = endpoints.current(self._reference.source)
        if warning := endpoint.warning():
            yield Notice(warning)
        self._inner = CancelToken()
        self._transport = Transport(endpoint, self._inner, self._options.patience or Patience.from_environment())
        self._crew = Crew(self._cancel, self._transport.stop)
        try:
            if self._options.repair:
                yield from self._examine()
            listing = yield from self._in_background(self._listing)
            files = choose(listing, self._options.include)
            yield (yield from self._in_background(lambda: self._plan(listing, files)))
            if self._options.dry_run or self._complete(listing, files):
                yield self._finished(listing, files, (), 0)
                return
            yield from self._fetch(listing, files)
        except OSError as problem:
            raise writing(problem, self._repository.home) from None
        finally:
            self._transport.close()

    # -------------------------------------------------------------------------------------------- what is there

    def _offline(self) -> Iterator[Event]:
        """Succeed only if the model is whole, as far as its manifest tells."""
        try:
            folder = resolve(str(self._reference))
        except NotFound:
            have = ", ".join(cached_repositories())
            raise NotFound(
                f"offline, and {self._reference} is not downloaded", found=f"only {have}" if have else "no models"
            ) from None
        manifest = self._repository.manifest(folder.name)
        missing = [
            path for path, sum_ in manifest.items() if not self._there(folder.name, path, sum_.size or 0, sum_.etag)
        ]
        if missing:
            raise NotFound(
                f"offline, and {self._reference} is not complete", found=f"{', '.join(sorted(missing)[:3])} missing"
            )
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        seconds = time.monotonic() - self._began
        yield PullFinished(str(folder), self._reference.repository, folder.name, size, 0, (), seconds)

    def _listing(self) -> Listing:
        try:
            return read_listing(self._transport, self._reference, self._notice)
        except NetworkError as problem:
            if problem.hint and self._is_here():
                problem.hint += " The model is on this machine: --offline does without the network."
            raise

    def _is_here(self) -> bool:
        try:
            return resolve(str(self._reference)).is_dir()
        except QwenError:
            return False

    def _examine(self) -> Iterator[Event]:
        try:
            folder = resolve(str(self._reference))
        except NotFound:
            return  # nothing to repair
        for event in verify(folder, self._cancel):
            if isinstance(event, VerifyFinished):
                yield from (Notice(f"{problem.file} {problem.what}") for problem in _unique(event.problems))
            else:
                yield event

    def _there(self, commit: str, path: str, size: int, etag: str) -> bool:
        return etag not in self._repository.damaged() and self._repository.present(commit, path, size, etag)

    def _missing(self, listing: Listing, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        return [file for file in files if not self._there(listing.commit, file.path, file.size, file.etag)]

    def _complete(self, listing: Listing, files: Sequence[RemoteFile]) -> bool:
        """Whether nothing has to be written, so that a cache for reading only will do."""
        folder = self._repository.snapshot(listing.commit)
        named = listing.commit == self._reference.ref or self._repository.ref(self._reference.ref) == listing.commit
        links = all((folder / file.path).exists() for file in files)
        noted = self._repository.manifest(listing.commit).keys() >= {file.path for file in files}
        return named and links and noted and not self._missing(listing, files)

    def _left(self, files: Sequence[RemoteFile]) -> int:
        """Bytes of `files` that still have to come; two files with one content come once."""
        left = 0
        for file in {file.etag: file for file in files}.values():
            part = self._repository.part(file.etag)
            have = part.stat().st_size if part.is_file() else 0
            left += file.size - min(have, file.size)
        return left

    # -------------------------------------------------------------------------------------------- the plan

    def _plan(self, listing: Listing, files: Sequence[RemoteFile]) -> PullPlanned:
        reference = self._reference
        return PullPlanned(
            reference=reference.text,
            repository=reference.repository,
            revision=reference.revision,
            commit=listing.commit,
            source=reference.source,
            folder=str(self._repository.snapshot(listing.commit)),
            files={file.path: file.size for file in sorted(files, key=lambda file: file.path)},
            size=sum(file.size for file in files),
            missing=self._left(self._missing(listing, files)),
            config=self._config(files),
        )

    def _config(self, files: Sequence[RemoteFile]) -> dict[str, Any] | None:
        """`config.json`, for whoever wants to say whether the model fits; also the first file a gated hub refuses."""
        file = next((file for file in files if file.path == "config.json" and file.size <= _MAX_CONFIG), None)
        if file is None:
            return None
        blob = self._repository.blob(file.etag)
        try:
            found = json.loads(blob.read_bytes()) if blob.is_file() else self._transport.json(file.url, self._notice)[0]
        except Refused as refused:
            raise explain(refused, self._transport.endpoint, self._reference, file.path) from None
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _check_space(self, missing: Sequence[RemoteFile]) -> None:
        place = self._repository.home
        while not place.exists():
            place = place.parent
        need, free = int(self._left(missing) * _SPARE), shutil.disk_usage(place).free
        if need > free:
            raise NoSpace(
                f"the disk of {self._repository.home.parent} has too little space",
                expected=f"{need / 1e9:.1f} GB free",
                found=f"{free / 1e9:.1f} GB",
                hint="`qwen-mlx du` shows what is kept, `qwen-mlx prune` and `qwen-mlx rm` free space.",
            )

    # -------------------------------------------------------------------------------------------- the bytes

    def _fetch(self, listing: Listing, files: Sequence[RemoteFile]) -> Iterator[Event]:
        with locked(self._repository, self._cancel):
            missing = self._missing(listing, files)
            self._check_space(missing)
            sums = {file.path: Checksum(file.size, file.etag) for file in files}
            self._repository.write_manifest(listing.commit, self._reference.source, sums)
            meter = Meter()
            yield from self._transfer(listing, files, missing, meter)
            for file in files:
                self._repository.link(listing.commit, file.path, file.etag)
            self._repository.write_ref(self._reference.ref, listing.commit)
        yield self._finished(listing, files, [file.path for file in missing], meter.received)

    def _transfer(
        self, listing: Listing, files: Sequence[RemoteFile], missing: Sequence[RemoteFile], meter: Meter
    ) -> Iterator[Event]:
        """Fetch `missing` side by side, with a `Progress` every moment."""
        wanted = {file.etag: file for file in missing}
        for file in files:
            if file.etag not in wanted:
                meter.set(file.etag, file.size)
        total = sum({file.etag: file.size for file in files}.values())
        limiter = Limiter(self._options.limit_rate, self._inner)
        arguments = (self._reference, self._repository, self._transport, self._inner, meter, limiter, self._notice)
        tasks = [self._task(FileTransfer(file, *arguments), listing, file) for file in wanted.values()]
        speed = _Speed()
        shown = 0.0
        for told in self._crew.run(tasks, self._options.workers):
            if told is not None:
                yield told
            now = time.monotonic()
            if now - shown >= _EVERY:
                shown = now
                yield self._progress(meter, total, speed.of(meter.received, now))
        yield self._progress(meter, total, speed.of(meter.received, time.monotonic()))

    def _task(self, transfer: FileTransfer, listing: Listing, file: RemoteFile) -> Callable[[], None]:
        def fetch() -> None:
            transfer.run()
            self._repository.link(listing.commit, file.path, file.etag)
            self._forget_damage(file.etag)

        return fetch

    def _forget_damage(self, etag: str) -> None:
        with self._lock:  # several files may end at once
            damaged = self._repository.damaged()
            if etag in damaged:
                self._repository.set_damaged(damaged - {etag})

    @staticmethod
    def _progress(meter: Meter, total: int, speed: float | None) -> Progress:
        have = meter.have
        remaining = (total - have) / speed if speed else None
        return Progress("downloading", have, total, "bytes", speed=speed, remaining=remaining)

    # -------------------------------------------------------------------------------------------- small things

    def _notice(self, text: str) -> None:
        self._crew.tell(Notice(text))

    def _in_background(self, task: Callable[[], Result]) -> Generator[Event, None, Result]:
        """The result of `task`, done in a thread, so that a hub that is silent can be left at once."""
        results: list[Result] = []
        for told in self._crew.run([lambda: results.append(task())]):
            if told is not None:
                yield told
        return results[0]

    def _finished(
        self, listing: Listing, files: Sequence[RemoteFile], fetched: Sequence[str], received: int
    ) -> PullFinished:
        return PullFinished(
            folder=str(self._repository.snapshot(listing.commit)),
            repository=self._reference.repository,
            commit=listing.commit,
            size=sum(file.size for file in files),
            received=received,
            fetched=tuple(sorted(fetched)),
            seconds=time.monotonic() - self._began,
            dry_run=self._options.dry_run,
        )


class _Speed:
    """Bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, received: int, now: float) -> float | None:
        self._seen.append((now, received))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return (received - before) / (now - then) if now - then > 0.5 and received > before else None


def _reference(name: str, revision: str | None) -> Reference:
    """The repository `name` means. Raises `UsageError` for a folder."""
    found = parse(name)
    if isinstance(found, Path):
        raise UsageError(
            f"{name!r} is a folder on this machine: {found}", expected="a model of a hub, such as qwen3:8b"
        )
    if "/" not in found.repository:
        raise UsageError(f"{name!r} has no owner", expected="ORGANISATION/REPOSITORY, or a name such as qwen3:8b")
    if revision is None:
        return found
    plain = str(replace(found, revision="main" if found.source == "hf" else "master"))
    again = parse(f"{plain}@{revision}")
    if isinstance(again, Path):
        raise CheckpointError(f"there is a folder {again}, and so {plain} cannot be meant")
    return replace(again, text=found.text)


def _unique(problems: Sequence[FileProblem]) -> list[FileProblem]:
    return list({problem.file: problem for problem in problems}.values())
