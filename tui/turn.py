"""One reply while it grows: what has arrived, how far it is, and how fast it comes."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, replace
from typing import Any, Literal

from qwen_mlx.chat.history import Status, StoredMessage
from qwen_mlx.chat.steps import Call, Step, step_of
from qwen_mlx.events import (
    AnswerDelta,
    Event,
    JobCancelled,
    JobFailed,
    JobHandle,
    PrefillProgress,
    Progress,
    ReasoningDelta,
    ReasoningEnd,
    ReplyFinished,
    ReplyStats,
)

Phase = Literal["waiting", "reading", "thinking", "answering", "calling", "ended"]
_SPEED_SECONDS = 2.0  # the speed shown is that of this last while


class Turn:
    """The state of one `Reply` job, advanced by its events. Knows neither the screen nor the disk.

    Attributes:
        conversation_id, message_id: where the reply belongs in the store.
        content, reasoning: all text so far.
        reasoning_tokens: counted from the deltas while it thinks, exact afterwards.
        status: "streaming" until the final event.
        steps: rounds of tool calls so far; `content` and `reasoning` are what came after them. In the phase
            "calling" the last one waits for results.

    Args:
        begun: the answer that this reply goes on with.
    """

    def __init__(
        self,
        conversation_id: int,
        message_id: int,
        handle: JobHandle,
        model: str,
        now: float,
        begun: StoredMessage | None = None,
    ) -> None:
        self.conversation_id = conversation_id
        self.message_id = message_id
        self.handle = handle
        self.model = model
        self.started = now
        self.phase: Phase = "waiting"
        self.status: Status = "streaming"
        self.error: str | None = None
        self.details = ""
        self.read: PrefillProgress | None = None
        self.stats: ReplyStats | None = None
        self.reason = ""
        self.stopping = False
        self.steps: tuple[Step, ...] = begun.steps if begun else ()
        self._counted_before = (begun.reasoning_tokens or 0) if begun else 0
        self.reasoning_tokens = self._counted_before
        self._reasoning: list[str] = [begun.reasoning] if begun and begun.reasoning else []
        self._answer: list[str] = [begun.content] if begun else []
        self._final: tuple[str, str | None] | None = None
        self._thinking_since: float | None = None
        self._reasoning_seconds: float | None = begun.reasoning_seconds if begun and begun.content else None
        self._thought_before = (begun.reasoning_seconds or 0.0) if begun and not begun.content else 0.0
        self._arrivals: deque[float] = deque(maxlen=512)
        self._completion = 0

    @property
    def content(self) -> str:
        return self._final[0] if self._final else "".join(self._answer)

    @property
    def reasoning(self) -> str | None:
        """None when the model has not thought."""
        if self._final and self._final[1] is not None:
            return self._final[1]
        return "".join(self._reasoning) if self._reasoning else None

    @property
    def ended(self) -> bool:
        return self.phase == "ended"

    def reasoning_seconds(self, now: float) -> float | None:
        """How long it has thought, or thought in all; None when it has not."""
        if self._reasoning_seconds is not None or self._thinking_since is None:
            return self._reasoning_seconds
        return self._thought_before + now - self._thinking_since

    def speed(self, now: float) -> float:
        """Tokens per second: of the last moments while it streams, of the whole reply afterwards. 0: not known."""
        if self.stats is not None:
            return self.stats.decode_speed
        recent = [moment for moment in self._arrivals if now - moment <= _SPEED_SECONDS]
        if len(recent) < 2 or recent[-1] <= recent[0]:
            return 0.0
        return (len(recent) - 1) / (recent[-1] - recent[0])

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far, this reply included; counted from the deltas until the end."""
        if self.stats is not None:
            return self.stats.prompt_tokens + self.stats.completion_tokens
        return (self.read.total if self.read else 0) + self._completion

    def numbers(self) -> dict[str, Any]:
        """What the store keeps of its statistics."""
        numbers: dict[str, Any] = asdict(self.stats) if self.stats else {}
        if self.reason:
            numbers["finish_reason"] = self.reason
        return numbers

    def apply(self, event: Event, now: float) -> None:
        """Advance by one event."""
        if isinstance(event, PrefillProgress):
            self.phase, self.read, self._completion = "reading", event, 0
        elif isinstance(event, ReasoningDelta):
            self._begin_thinking(now)
            self._reasoning.append(event.text)
            self.reasoning_tokens += 1
            self._arrived(now)
        elif isinstance(event, ReasoningEnd):
            self._begin_thinking(now)
            self._reasoning_seconds = self._thought_before + event.seconds
            self.reasoning_tokens = self._counted_before + event.tokens
            self.phase = "answering"
        elif isinstance(event, AnswerDelta):
            self._end_thinking(now)
            self.phase = "answering"
            self._answer.append(event.text)
            self._arrived(now)
        elif isinstance(event, ReplyFinished) and event.message.tool_calls:
            self._call(event)
        elif isinstance(event, ReplyFinished):
            self._end_thinking(now)
            self._final = (event.message.content, event.message.reasoning)
            self.stats, self.reason = event.stats, event.reason
            self._end("stopped" if event.reason == "cancelled" else "done")
        elif isinstance(event, JobFailed):
            self._end_thinking(now)
            self.error, self.details = event.error, event.details
            self._end("failed")
        elif isinstance(event, JobCancelled):
            self._end_thinking(now)
            self._end("stopped")
        elif isinstance(event, Progress):
            pass  # a reply may wait for something of its own; the phase says enough

    def _call(self, event: ReplyFinished) -> None:
        """A round ended with tool calls: what was said moves into it, and the answer begins anew."""
        self.steps = (*self.steps, step_of(event.message))
        self.phase = "calling"
        self._answer, self._reasoning = [], []
        self._thinking_since = self._reasoning_seconds = None
        self._thought_before, self._counted_before, self.reasoning_tokens = 0.0, 0, 0

    def call_done(self, place: int, call: Call) -> None:
        """A call of the last round has its result."""
        *before, last = self.steps
        calls = [*last.calls]
        calls[place] = call
        self.steps = (*before, replace(last, calls=tuple(calls)))

    def next_round(self, handle: JobHandle) -> None:
        """The results went back to the model, as another job."""
        self.handle = handle
        self.phase = "waiting"

    def fail(self, error: str) -> None:
        """Something broke between two rounds."""
        self.error = error
        self._end("failed")

    def abandon(self, now: float) -> None:
        """The app goes before the job ended: what there is, is what will be kept."""
        self._end_thinking(now)
        self._end("stopped")

    def _begin_thinking(self, now: float) -> None:
        self.phase = "thinking"
        if self._thinking_since is None:
            self._thinking_since = now

    def _end_thinking(self, now: float) -> None:
        if self._thinking_since is not None and self._reasoning_seconds is None:
            self._reasoning_seconds = self._thought_before + now - self._thinking_since

    def _end(self, status: Status) -> None:
        self.phase, self.status = "ended", status

    def _arrived(self, now: float) -> None:
        self._arrivals.append(now)
        self._completion += 1
