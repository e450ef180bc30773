"""A reply as plain text, while it streams."""

from __future__ import annotations

import json
from typing import Literal

from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.events import (
    AnswerDelta,
    Event,
    Notice,
    PrefillProgress,
    Progress,
    ReasoningDelta,
    ReasoningEnd,
    ReplyFinished,
    ReplyStats,
    ToolRan,
)

Thinking = Literal["hidden", "shown", "summarised"]


class ReplyWriter:
    """Shows events: the answer on `out`, everything else beside it.

    Args:
        out: where the answer goes.
        err: where notes and the status line go.
        thinking: "hidden"; "shown" writes it dimmed above the answer when `out` is a terminal, else to `err`;
            "summarised" does the same and adds how long it took.
        stats: write the numbers of the reply to `err` when it is finished.
    """

    def __init__(self, out: Terminal, err: Terminal, thinking: Thinking = "hidden", stats: bool = False) -> None:
        self._out = out
        self._err = err
        self._thinking = thinking
        self._stats = stats
        self._thoughts = out if out.is_terminal else err
        self._status = StatusLine(err)
        self._thought = False  # something was written into the thinking part

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._status.show(describe_progress(event))
            return
        if isinstance(event, PrefillProgress):
            if event.done < event.total:
                self._status.show(f"reading the prompt: {event.done} of {event.total} tokens")
            return
        if isinstance(event, ReasoningDelta) and self._thinking == "hidden":
            self._status.show("thinking ...")
            return
        self._status.clear()
        if isinstance(event, ReasoningDelta):
            # Nothing but blank lines is what a model writes that has been asked not to think.
            if self._thought or event.text.strip():
                self._thought = True
                self._thoughts.write(event.text, dim=True)
        elif isinstance(event, ReasoningEnd):
            self._end_thinking(event)
        elif isinstance(event, AnswerDelta):
            self._out.write(event.text)
        elif isinstance(event, ReplyFinished):
            self._finish(event)
        elif isinstance(event, ToolRan):
            self._err.end_line()
            self._err.line(_describe_tool(event), dim=True)
        elif isinstance(event, Notice):
            self._err.line(f"note: {event.text}")

    def close(self) -> None:
        """Leave both streams at the start of a line, also after a failure."""
        self._status.clear()
        self._out.end_line()
        self._err.end_line()

    def _end_thinking(self, event: ReasoningEnd) -> None:
        if not self._thought:
            return
        self._thoughts.end_line()
        if self._thinking == "summarised":
            self._thoughts.line(f"(thought for {event.seconds:.1f} s, {event.tokens} tokens)", dim=True)
        self._thoughts.line()

    def _finish(self, event: ReplyFinished) -> None:
        self._out.end_line()
        self._err.end_line()
        if event.reason == "length":
            self._err.line(f"(stopped after {event.stats.completion_tokens} tokens: --max-tokens)", dim=True)
        if self._stats:
            self._err.line(describe_stats(event.stats), dim=True)


def _describe_tool(event: ToolRan) -> str:
    """`(calculator 2 + 2 = 4)`, in one line."""
    values = [value if isinstance(value, str) else json.dumps(value) for value in event.arguments.values()]
    result = event.result if len(event.result) <= 60 and "\n" not in event.result else f"{len(event.result)} characters"
    line = " ".join(f"({event.name} {' '.join(values)} → {result})".split())
    return "".join(c if c.isprintable() else "?" for c in line)


def describe_progress(event: Progress) -> str:
    """`loading: 45 % model.safetensors`, or a count while the total is unknown."""
    amount = f"{event.done} {event.unit}"
    if event.total:
        amount = f"{100 * event.done // event.total} %"
    return f"{event.stage}: {amount} {event.detail}".rstrip()


def describe_stats(stats: ReplyStats) -> str:
    """The numbers of one reply in one line."""
    prompt = f"prompt {stats.prompt_tokens} tokens"
    if stats.cached_tokens:
        prompt += f" ({stats.cached_tokens} cached)"
    if stats.prefill_speed:
        prompt += f", {stats.prefill_speed:.0f} tok/s"
    answer = f"reply {stats.completion_tokens} tokens"
    if stats.reasoning_tokens:
        answer += f" ({stats.reasoning_tokens} thinking)"
    if stats.decode_speed:
        answer += f", {stats.decode_speed:.1f} tok/s"
    first = f"first token after {stats.time_to_first_token:.2f} s"
    return f"{prompt}; {answer}; {first}; peak memory {format_bytes(stats.peak_memory)}"


def format_bytes(count: float) -> str:
    """`1.5 GB`; decimal units, as disks and model cards use them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
