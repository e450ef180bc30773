"""A model on its way to this machine, whether somebody is looking or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qwen_mlx.events import (
    JobCancelled,
    JobFailed,
    JobHandle,
    Notice,
    Progress,
    PullFinished,
    PullPlanned,
    Shelf,
)
from tui.wording import meter, sentence, size


@dataclass
class Download:
    """What is known of one."""

    name: str
    handle: JobHandle
    plan: PullPlanned | None = None
    progress: Progress | None = None
    note: str = ""
    stopping: bool = False


@dataclass(frozen=True)
class Ended:
    """How one ended: `error` is None when the model is here, "" when it was stopped by the person."""

    name: str
    error: str | None


class Downloads:
    """At most one at a time.

    Args:
        shelf: where models come from.
        remember: told of the name of a download that was begun, and of None once it is whole: one that the end of
            the app interrupts can go on at the next start.
    """

    def __init__(self, shelf: Shelf, remember: Callable[[str | None], None] = lambda name: None) -> None:
        self.shelf = shelf
        self.current: Download | None = None
        self._remember = remember

    def start(self, name: str) -> None:
        self.current = Download(name, self.shelf.pull(name))
        self._remember(name)

    def stop(self) -> None:
        """What has arrived is kept: the next one goes on from there."""
        if self.current is not None:
            self.current.stopping = True
            self.current.handle.cancel()

    def poll(self) -> Ended | None:
        """Take what has happened; how it ended, once."""
        current = self.current
        if current is None:
            return None
        for event in current.handle.drain():
            if isinstance(event, Progress):
                current.progress = event
            elif isinstance(event, PullPlanned):
                current.plan = event
            elif isinstance(event, Notice):
                current.note = event.text
            elif isinstance(event, (PullFinished, JobFailed, JobCancelled)):
                self.current = None
                if isinstance(event, PullFinished):
                    self._remember(None)
                error = None if isinstance(event, PullFinished) else getattr(event, "error", "")
                return Ended(current.name, error)
        return None


def describe(download: Download) -> str:
    """`▰▰▰▱▱▱ 45 %  2.1 GB of 4.6 GB  85.2 MB/s  3 min left`."""
    if download.stopping:
        return "Stopping…"
    progress = download.progress
    if progress is None or not progress.total:
        return f"Looking for {download.name}…" if download.plan is None else "Beginning…"
    part = progress.done / progress.total
    words = [f"{meter(part, 20)} {int(100 * part)} %", f"{size(progress.done)} of {size(progress.total)}"]
    if progress.speed:
        words.append(f"{size(int(progress.speed))}/s")
    if progress.remaining is not None:
        words.append(_left(progress.remaining))
    return "  ".join(words)


def _left(seconds: float) -> str:
    if seconds < 60:
        return f"{round(seconds)} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min left"


def message_of(ended: Ended) -> str:
    """How a download ended, as a sentence."""
    if ended.error is None:
        return f"{ended.name} is here. ctrl+l chooses it."
    return sentence(ended.error) if ended.error else f"{ended.name}: stopped; the next download goes on from there."
