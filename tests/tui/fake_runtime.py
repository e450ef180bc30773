"""A runtime that follows a script: no model, no thread, no waiting.

Events of a job are handed out by `drain` up to the next closed gate; a job begins when the one before it has ended,
as in the real runtime. A script is a list of events and gates, or a function that makes one from the job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Union

from qwen_mlx.events import (
    FINAL_EVENTS,
    AnswerDelta,
    CountTokens,
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
    TokensCounted,
)

DEMO = ModelInfo(
    name="qwen-demo",
    folder="/models/demo",
    family="qwen3",
    parameters=1_210_000,
    bits=16.0,
    context=4096,
    thinking="optional",
    backend="cpu",
    memory=2_420_000,
)


class Gate:
    """Holds a script back until it is opened."""

    def __init__(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True


class Call:
    """Does something at this point of a script, such as moving a clock or raising a fault."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function


Step = Union[Event, Gate, Call]
Script = Union[Sequence[Step], Callable[[Job], Sequence[Step]]]


def reply(
    answer: str,
    thinking: str = "",
    *,
    seconds: float = 12.4,
    prompt_tokens: int = 32,
    gate: Gate | None = None,
    between: Sequence[Step] = (),
    reason: str = "stop",
) -> list[Step]:
    """A script of one reply, word by word. `gate` stands before the last word, `between` after the thinking."""
    steps: list[Step] = [PrefillProgress(prompt_tokens, prompt_tokens, 0)]
    thought = _words(thinking)
    if thought:
        steps += [ReasoningDelta(word) for word in thought]
        steps.append(ReasoningEnd(seconds, len(thought)))
    steps += between
    words = _words(answer)
    steps += [AnswerDelta(word) for word in words[:-1]]
    if gate is not None:
        steps.append(gate)
    steps += [AnswerDelta(word) for word in words[-1:]]
    count = len(thought) + len(words)
    stats = ReplyStats(
        prompt_tokens=prompt_tokens,
        completion_tokens=count,
        reasoning_tokens=len(thought),
        reasoning_seconds=seconds if thought else 0.0,
        prefill_seconds=0.1,
        decode_seconds=(count - 1) / 84 if count > 1 else 0.0,
    )
    steps.append(ReplyFinished(Message("assistant", answer, thinking or None), reason, stats))
    return steps


def loading(info: ModelInfo = DEMO, gate: Gate | None = None) -> list[Step]:
    """A script of a model that loads."""
    steps: list[Step] = [Progress("reading tensors", 1_040_000, 2_420_000, "bytes")]
    if gate is not None:
        steps.append(gate)
    return [*steps, ModelLoaded(info, 0.3)]


def failure(text: str, *, expected: bool = True, details: str = "") -> list[Step]:
    return [JobFailed(text, expected, 1, details)]


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:] if text else []


class FakeHandle:
    """Implements `JobHandle`."""

    def __init__(self, runtime: FakeRuntime, job: Job, steps: Sequence[Step]) -> None:
        self.job = job
        self.cancelled = False
        self.ended = False
        self.finished = False
        self._runtime = runtime
        self._steps = deque(steps)
        self._given: list[Event] = []

    def cancel(self) -> None:
        self.cancelled = True

    def drain(self) -> list[Event]:
        events: list[Event] = []
        while not self.ended and self._runtime.current is self:
            if self.cancelled:
                events.append(self._cancelled(events))
            elif not self._steps or (isinstance(self._steps[0], Gate) and not self._steps[0].is_open):
                break
            else:
                step = self._steps.popleft()
                if isinstance(step, Call):
                    step.function()
                    continue
                if isinstance(step, Gate):
                    continue
                events.append(step)
            if isinstance(events[-1], FINAL_EVENTS):
                self._end(events[-1])
        self._given += events
        self.finished = self.ended
        return events

    def __iter__(self) -> Iterator[Event]:
        while not self.finished:
            yield from self.drain()

    def _end(self, event: Event) -> None:
        self.ended = True
        if isinstance(event, ModelLoaded):
            self._runtime.model = event.info
        self._runtime.queue.popleft()

    def _cancelled(self, events: list[Event]) -> Event:
        given = [*self._given, *events]
        if not isinstance(self.job, Reply) or not given:
            return JobCancelled()
        answer = "".join(event.text for event in given if isinstance(event, AnswerDelta))
        thought = "".join(event.text for event in given if isinstance(event, ReasoningDelta))
        stats = ReplyStats(prompt_tokens=32, completion_tokens=len(given))
        return ReplyFinished(Message("assistant", answer, thought or None), "cancelled", stats)


class FakeRuntime:
    """Implements `Runtime`.

    Args:
        replies: scripts of the replies, in the order in which they are asked for; the last one is used again.
        load: script of every `LoadModel`.
        work: script of every job that makes a model.
        model: a model that is loaded already.
    """

    def __init__(
        self, *replies: Script, load: Script | None = None, model: ModelInfo | None = DEMO, work: Script = ()
    ) -> None:
        self.model = model
        self.jobs: list[Job] = []
        self.handles: list[FakeHandle] = []
        self.queue: deque[FakeHandle] = deque()
        self.closed = False
        self._replies = deque(replies or (reply("Hello"),))
        self._load = load if load is not None else loading()
        self._work = work

    @property
    def current(self) -> FakeHandle | None:
        return self.queue[0] if self.queue else None

    def submit(self, job: Job) -> FakeHandle:
        if self.closed:
            raise RuntimeError("the runtime is closed")
        script = self._load if isinstance(job, LoadModel) else self._work
        if isinstance(job, CountTokens):
            script = [TokensCounted(len(job.text.split()))]
        if isinstance(job, Reply):
            script = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        handle = FakeHandle(self, job, script(job) if callable(script) else script)
        self.jobs.append(job)
        self.handles.append(handle)
        self.queue.append(handle)
        return handle

    def close(self, timeout: float = 2.0) -> None:
        self.closed = True
        for handle in self.handles:
            handle.cancel()

    @property
    def asked(self) -> list[Reply]:
        """The replies that were asked for."""
        return [job for job in self.jobs if isinstance(job, Reply)]
