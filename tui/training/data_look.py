"""A look at the data of a run that is not begun yet: asked for, called off, and what came of it."""

from __future__ import annotations

from qwen_mlx.events import (
    DataExamined,
    DataPrepared,
    JobCancelled,
    JobFailed,
    JobHandle,
    Progress,
    RowsShown,
    ShownRow,
    Workshop,
)
from tui.training.forecast import Line
from tui.training.found import found_lines

SHOWN_ROWS = 20


class DataLook:
    """Looks at the data of the configuration that was wanted last.

    Attributes:
        rows: the first examples.
        train, valid: what was found; None while that is not known, or where there is none.
        error: why it cannot be learnt from; `blamed` is the field of the form that says what is wrong.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.rows: tuple[ShownRow, ...] = ()
        self.train: DataPrepared | None = None
        self.valid: DataPrepared | None = None
        self.error = ""
        self.blamed = ""
        self._workshop = workshop
        self._handle: JobHandle | None = None
        self._changes: tuple[str, ...] = ()
        self._progress: Progress | None = None

    @property
    def busy(self) -> bool:
        return self._handle is not None

    @property
    def done(self) -> bool:
        """Whether all of it was read, and is in order."""
        return self._handle is None and self.train is not None

    def is_of(self, changes: tuple[str, ...]) -> bool:
        return changes == self._changes

    def want(self, changes: tuple[str, ...]) -> None:
        """Look, unless this is what was looked at last."""
        if not self.is_of(changes):
            self.forget()
            self._changes = changes
            self._handle = self._workshop.preview(changes, SHOWN_ROWS)

    def stop(self) -> None:
        """Call the look off."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._changes = ()

    def forget(self) -> None:
        """Call it off, and know nothing any more."""
        self.stop()
        self._changes, self._progress = (), None
        self.rows, self.train, self.valid, self.error, self.blamed = (), None, None, "", ""

    def poll(self) -> bool:
        """Take what has arrived; whether anything has."""
        events = self._handle.drain() if self._handle is not None else []
        for event in events:
            if isinstance(event, Progress):
                self._progress = event
            elif isinstance(event, RowsShown):
                self.rows = event.rows
            elif isinstance(event, DataPrepared) and event.part == "valid":
                self.valid = event
            elif isinstance(event, DataExamined):
                self.train, self.valid, self._handle = event.train, event.valid, None
            elif isinstance(event, JobFailed):
                at_model = self._progress is not None and self._progress.stage == "model"
                self.error, self.blamed = event.error, "model.path" if at_model else "data.train"
                self.rows, self.train, self.valid, self._handle = (), None, None, None
            elif isinstance(event, JobCancelled):
                self._handle = None
        return bool(events)

    def lines(self) -> list[Line]:
        """What was found, or how far it is."""
        if not self.busy:
            return found_lines(self.train, self.valid)
        progress, how_far = self._progress, ""
        if progress is not None and progress.total:
            how_far = f" {100 * progress.done // progress.total}%"
        elif progress is not None and progress.done:
            how_far = f" {progress.done:,} {progress.unit}"
        return [Line(f"Reading the data{how_far}…", "muted")]
