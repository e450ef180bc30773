"""What a model did before it answered: rounds of tool calls, as they are kept with the answer and shown to the model.

One answer may take several rounds: the model calls tools, reads their results and goes on. All of them belong to one
message of the conversation, so that another answer to the same question is one sibling, whatever it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qwen_mlx.events import Message

Outcome = Literal["waiting", "done", "failed", "refused"]
_NOT_RUN = "This was not run: the person stopped it."


@dataclass(frozen=True)
class Call:
    """One tool call.

    Attributes:
        result: what the model reads; "" while it waits.
        outcome: "waiting" for its turn or for a person, "refused" by a person; "failed" has its reason as the result.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""
    outcome: Outcome = "waiting"


@dataclass(frozen=True)
class Step:
    """One round: what was thought and said, and the calls that followed."""

    content: str
    reasoning: str | None
    calls: tuple[Call, ...]

    @property
    def waiting(self) -> bool:
        """Whether a call has no result yet."""
        return any(call.outcome == "waiting" for call in self.calls)


def step_of(message: Message) -> Step:
    """The round that a finished message with tool calls begins."""
    calls = (call.get("function", call) for call in message.tool_calls)
    return Step(
        message.content,
        message.reasoning,
        tuple(Call(str(call.get("name", "")), dict(call.get("arguments") or {})) for call in calls),
    )


def as_messages(steps: Iterable[Step]) -> list[Message]:
    """What a chat template needs of finished rounds."""
    messages: list[Message] = []
    for step in steps:
        calls = tuple(
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in step.calls
        )
        messages.append(Message("assistant", step.content, step.reasoning, calls))
        messages += [Message("tool", call.result or _NOT_RUN) for call in step.calls]
    return messages


def to_json(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Plain values, for JSON."""
    return [
        {
            "content": step.content,
            "reasoning": step.reasoning,
            "calls": [
                {"name": call.name, "arguments": dict(call.arguments), "result": call.result, "outcome": call.outcome}
                for call in step.calls
            ],
        }
        for step in steps
    ]


def from_json(value: Any) -> tuple[Step, ...]:
    """What `to_json` made; anything else counts as nothing."""
    entries = value if isinstance(value, list) else []
    return tuple(_step(entry) for entry in entries if isinstance(entry, Mapping))


def _step(entry: Mapping[str, Any]) -> Step:
    calls = entry.get("calls")
    known = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    reasoning = entry.get("reasoning")
    return Step(str(entry.get("content") or ""), str(reasoning) if reasoning else None, tuple(map(_call, known)))


def _call(entry: Mapping[str, Any]) -> Call:
    arguments = entry.get("arguments")
    outcome: Any = entry.get("outcome")
    return Call(
        str(entry.get("name") or ""),
        dict(arguments) if isinstance(arguments, Mapping) else {},
        str(entry.get("result") or ""),
        outcome if outcome in get_args(Outcome) else "failed",
    )
