"""One question for two: the base, and the base with what it has learnt. Their answers, as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from qwen_mlx.events import (
    AnswerDelta,
    Event,
    JobCancelled,
    JobFailed,
    JobHandle,
    LoadModel,
    Message,
    ModelLoaded,
    ReasoningDelta,
    Reply,
    ReplyFinished,
    Runtime,
    SamplingOptions,
)

Side = Literal["base", "adapter"]
SIDES: tuple[Side, Side] = ("base", "adapter")
_LONGEST = 400  # tokens of an answer: it is about the difference


@dataclass
class Answer:
    """What one of them says. `state` is "waiting", "answering", "done" or "failed"."""

    text: str = ""
    thinking: str = ""
    state: str = "waiting"
    error: str = ""
    seconds: float = 0.0


@dataclass
class Round:
    """One question and its two answers."""

    question: str
    answers: dict[Side, Answer] = field(default_factory=lambda: {side: Answer() for side in SIDES})


class Duel:
    """Asks greedily, so that what differs comes from the adapter alone.

    Args:
        base: what the adapter belongs to.
        adapter: its folder.
    """

    def __init__(self, runtime: Runtime, base: str, adapter: str) -> None:
        self.rounds: list[Round] = []
        self.error = ""
        self.loaded = False
        self.changes = 0
        self._runtime = runtime
        self._loading: JobHandle | None = runtime.submit(LoadModel(base, adapter=adapter))
        self._asked: list[tuple[JobHandle, Answer]] = []

    @property
    def busy(self) -> bool:
        return self._loading is not None or bool(self._asked)

    def ask(self, question: str) -> None:
        """Ask both, one after the other; each question stands alone."""
        new = Round(question)
        self.rounds.append(new)
        sampling = SamplingOptions(temperature=0.0, max_tokens=_LONGEST)
        for side in SIDES:
            job = Reply(
                conversation=f"beside {side} {len(self.rounds)}",
                messages=(Message("user", question),),
                sampling=sampling,
                thinking=False,
                keep=False,
                bare=side == "base",
            )
            self._asked.append((self._runtime.submit(job), new.answers[side]))
        self.changes += 1

    def stop(self) -> None:
        for handle, _ in self._asked:
            handle.cancel()
        if self._loading is not None:
            self._loading.cancel()

    def poll(self) -> bool:
        """Take what has arrived; whether anything has."""
        before = self.changes
        if self._loading is not None:
            for event in self._loading.drain():
                self.changes += 1
                if isinstance(event, (ModelLoaded, JobFailed, JobCancelled)):
                    self._loading = None
                    self.loaded = isinstance(event, ModelLoaded)
                    self.error = getattr(event, "error", "")
        for handle, answer in list(self._asked):
            for event in handle.drain():
                self.changes += 1
                _apply(answer, event)
            if answer.state in ("done", "failed"):
                self._asked.remove((handle, answer))
        return self.changes != before


def _apply(answer: Answer, event: Event) -> None:
    if isinstance(event, AnswerDelta):
        answer.text += event.text
        answer.state = "answering"
    elif isinstance(event, ReasoningDelta):
        answer.thinking += event.text
        answer.state = "answering"
    elif isinstance(event, ReplyFinished):
        answer.text, answer.state = event.message.content, "done"
        answer.seconds = event.stats.prefill_seconds + event.stats.decode_seconds
    elif isinstance(event, JobFailed):
        answer.state, answer.error = "failed", event.error
    elif isinstance(event, JobCancelled):
        answer.state, answer.error = "failed", "stopped"
