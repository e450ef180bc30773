"""A runtime without a model: it plays the events it is given and remembers the jobs it got."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen_mlx.events import (
    FINAL_EVENTS,
    AnswerDelta,
    CancelToken,
    Event,
    Job,
    JobCancelled,
    JobFailed,
    LoadModel,
    Message,
    ModelInfo,
    ModelLoaded,
    PrefillProgress,
    Progress,
    ReasoningDelta,
    ReasoningEnd,
    Reply,
    ReplyFinished,
    ReplyStats,
)

CTRL_C = object()  # in a script: the person presses it while the reader waits for the next event
Script = Callable[[Job, CancelToken], Iterator[Any]]

INFO = ModelInfo(
    name="Tiny",
    folder="/models/tiny",
    family="qwen3",
    parameters=1_200_000,
    bits=4.5,
    context=2048,
    thinking="optional",
    backend="cpu",
    memory=700_000,
)
STATS = ReplyStats(
    prompt_tokens=20,
    cached_tokens=8,
    completion_tokens=11,
    reasoning_tokens=4,
    prefill_seconds=0.1,
    decode_seconds=0.5,
    reasoning_seconds=2.06,
    time_to_first_token=0.25,
    context=31,
    peak_memory=1_500_000,
)


class FakeHandle:
    def __init__(self, events: Iterator[Any], token: CancelToken) -> None:
        self._events = events
        self._token = token
        self._finished = False

    def cancel(self) -> None:
        self._token.cancel()

    def drain(self) -> list[Event]:
        return list(self)

    @property
    def finished(self) -> bool:
        return self._finished

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if event is CTRL_C:
                raise KeyboardInterrupt
            self._finished = isinstance(event, FINAL_EVENTS)
            yield event


class FakeRuntime:
    """Loads anything but names in `missing`; the replies are played one after the other, the last one for ever."""

    def __init__(self, *replies: Script, missing: Sequence[str] = (), load: Script | None = None) -> None:
        self.jobs: list[Job] = []
        self.closed = False
        self._replies = list(replies) or [answering("ok")]
        self._missing = missing
        self._load = load or self._load_anything
        self._model: ModelInfo | None = None

    def __call__(self) -> FakeRuntime:
        """The object is its own factory."""
        return self

    def submit(self, job: Job) -> FakeHandle:
        self.jobs.append(job)
        token = CancelToken()
        script = self._load
        if isinstance(job, Reply):
            script = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return FakeHandle(script(job, token), token)

    @property
    def model(self) -> ModelInfo | None:
        return self._model

    def close(self, timeout: float = 2.0) -> None:
        self.closed = True

    @property
    def replies(self) -> list[Reply]:
        return [job for job in self.jobs if isinstance(job, Reply)]

    def _load_anything(self, job: Job, token: CancelToken) -> Iterator[Any]:
        assert isinstance(job, LoadModel)
        if job.model in self._missing:
            yield JobFailed(f"there is no model {job.model!r}", expected=True, exit_code=3)
            return
        yield Progress("loading", 1, 2, "tensors", "model.safetensors")
        self._model = INFO
        yield ModelLoaded(INFO, 0.5)


def answering(*pieces: Any, thinking: Sequence[str] = (), reason: str = "stop") -> Script:
    """A reply in pieces; CTRL_C may be one of them. After a cancel it ends with what it had said."""

    def script(job: Job, token: CancelToken) -> Iterator[Any]:
        yield PrefillProgress(20, 20, 8)
        for text in thinking:
            yield ReasoningDelta(text)
        if thinking:
            yield ReasoningEnd(2.06, 4)
        said = ""
        for piece in pieces:
            if token.cancelled:
                yield ReplyFinished(Message("assistant", said), "cancelled", STATS)
                return
            if piece is CTRL_C:
                yield CTRL_C
                continue
            said += piece
            yield AnswerDelta(piece)
        message = Message("assistant", said, "".join(thinking) or None)
        yield ReplyFinished(message, "cancelled" if token.cancelled else reason, STATS)  # type: ignore[arg-type]

    return script


def failing(error: str, *, expected: bool = True, exit_code: int = 1, details: str = "") -> Script:
    def script(job: Job, token: CancelToken) -> Iterator[Any]:
        yield JobFailed(error, expected=expected, exit_code=exit_code, details=details)

    return script


def never_begun(job: Job, token: CancelToken) -> Iterator[Any]:
    """Ctrl-C before anything happened."""
    yield CTRL_C
    assert token.cancelled
    yield JobCancelled()


def echoing(job: Job, token: CancelToken) -> Iterator[Any]:
    """Answers with the last message and how many there were."""
    assert isinstance(job, Reply)
    text = f"{len(job.messages)}:{job.messages[-1].content}"
    yield AnswerDelta(text)
    yield ReplyFinished(Message("assistant", text), "stop", STATS)
