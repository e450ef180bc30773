"""Submitting a job and following its events from a terminal, where Ctrl-C means "stop this job"."""

from __future__ import annotations

from collections.abc import Callable

from qwen_mlx.cli.fitting import warning_before_loading
from qwen_mlx.errors import Cancelled, QwenError
from qwen_mlx.events import (
    FINAL_EVENTS,
    Event,
    Job,
    JobCancelled,
    JobFailed,
    LoadModel,
    ModelInfo,
    ModelLoaded,
    Notice,
    Reply,
    ReplyFinished,
    Runtime,
)

RuntimeFactory = Callable[[], Runtime]
Listener = Callable[[Event], None]


class JobError(QwenError):
    """A job that could not be done, for a reason a person can mend."""

    def __init__(self, event: JobFailed) -> None:
        super().__init__(event.error)
        self.exit_code = event.exit_code


class Bug(Exception):
    """A job that failed by a mistake of ours; `details` is the traceback of the thread it ran in."""

    def __init__(self, event: JobFailed) -> None:
        super().__init__(event.error)
        self.details = event.details


def thread_runtime() -> Runtime:
    """The real runtime. Importing it takes time, so it is done when a command needs it."""
    from qwen_mlx.runtime.thread import ThreadRuntime

    return ThreadRuntime()


def load(runtime: Runtime, job: LoadModel, listen: Listener) -> ModelInfo:
    """Load a model; every event, the last one too, goes to `listen`. A `Notice` comes first where it may not fit.

    Raises:
        JobError, Bug: it failed.
        Cancelled: Ctrl-C.
    """
    if warning := warning_before_loading(job.model):
        listen(Notice(warning))
    last = _follow(runtime, job, listen)
    if isinstance(last, ModelLoaded):
        return last.info
    raise Cancelled()


def reply(runtime: Runtime, job: Reply, listen: Listener) -> ReplyFinished:
    """Answer; every event, the last one too, goes to `listen`. After Ctrl-C the reason is "cancelled".

    Raises:
        JobError, Bug: it failed.
        Cancelled: Ctrl-C before the reply began.
    """
    last = _follow(runtime, job, listen)
    if isinstance(last, ReplyFinished):
        return last
    raise Cancelled()


def _follow(runtime: Runtime, job: Job, listen: Listener) -> Event:
    """The final event. The first Ctrl-C cancels the job and waits for it, the second does not wait."""
    handle = runtime.submit(job)
    events = iter(handle)
    cancelled = False
    while True:
        try:
            event = next(events, None)
            if event is None:
                if handle.finished:
                    # A Ctrl-C at just the wrong moment took the last event with it.
                    return JobCancelled()
                events = iter(handle)
                continue
            listen(event)
            if isinstance(event, JobFailed):
                raise JobError(event) if event.expected else Bug(event)
            if isinstance(event, FINAL_EVENTS):
                return event
        except KeyboardInterrupt:
            if cancelled:
                raise
            cancelled = True
            handle.cancel()
