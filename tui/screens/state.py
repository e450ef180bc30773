"""What the lines at the top and the bottom say about the state of the app. Pure functions."""

from __future__ import annotations

from typing import Literal

from qwen_mlx.chat.history import Conversation, StoredMessage
from qwen_mlx.events import ModelInfo, Progress, ReplyStats
from tui.conductor import Conductor, Settings
from tui.tool_runs import why_not
from tui.widgets.header import Facts
from tui.widgets.message import UserMessage
from tui.widgets.selectable import SelectableMessage
from tui.widgets.status_bar import SPINNER
from tui.wording import duration, shorten, size

Tone = Literal["muted", "busy", "failed"]


def facts(conductor: Conductor, conversation: Conversation | None, last: StoredMessage | None, now: float) -> Facts:
    """The header: the conversation, the model, and the numbers of the last reply shown."""
    model, turn = conductor.model, conductor.turn
    used, speed = 0, 0.0
    if turn is not None and conversation is not None and turn.conversation_id == conversation.id:
        used, speed = turn.context_used, turn.speed(now)
    elif last is not None and last.stats:
        stats = _stats(last)
        used, speed = stats.prompt_tokens + stats.completion_tokens, stats.decode_speed
    loading = conductor.loading
    return Facts(
        title=conversation.title if conversation else "",
        model=model.name if model else loading.name if loading else "no model",
        backend=model.backend if model else "",
        context_used=used,
        context=model.context if model else 0,
        speed=speed,
    )


def describe(
    conductor: Conductor, shown: int | None, now: float, work: str = "", *, plain: bool = False
) -> tuple[str, Tone]:
    """The left of the status line: what is going on, and how it should look.

    Args:
        shown: the conversation on screen.
        work: what the thread of the model does besides, in words.
        plain: words only, and none that change all the time.
    """
    text, tone = _describe(conductor, shown, now, work, plain)
    return (text.partition(" ")[2] if plain else text), tone


def _describe(conductor: Conductor, shown: int | None, now: float, work: str, plain: bool) -> tuple[str, Tone]:
    """As `describe`, with a symbol before it."""
    spinner = SPINNER[int(now * 10) % len(SPINNER)]
    loading, turn = conductor.loading, conductor.turn
    if loading is not None:
        return f"{spinner} Loading {loading.name}{_how_far(loading.progress)}", "busy"
    if turn is None or turn.ended:
        if conductor.model is None:
            return ("✗ No model" if conductor.load_error else "○ No model"), "failed"
        return (f"{spinner} {work}", "busy") if work else ("● Ready", "muted")
    if turn.stopping:
        return f"{spinner} Stopping", "busy"
    seconds = turn.reasoning_seconds(now)
    words = {
        "waiting": f"Waiting: {work[:1].lower()}{work[1:]}" if work else "Waiting",
        "reading": "Reading",
        "thinking": "Thinking" if plain else f"Thinking {duration(seconds or 0.0)}",
        "answering": "Answering",
        "calling": "Asking you" if conductor.tools.asking is not None else "Using tools",
    }[turn.phase]
    elsewhere = "" if turn.conversation_id == shown else " in another conversation"
    return f"{spinner} {words}{elsewhere}", "busy"


def hints(
    conductor: Conductor,
    selected: SelectableMessage | None = None,
    editing: bool = False,
    settings: Settings | None = None,
) -> tuple[tuple[str, str], ...]:
    """The right of the status line: keys that matter now, the most important ones first.

    `settings` are those of the conversation shown, or of the next one.
    """
    params = settings.params if settings is not None else {}
    if selected is not None:
        own = ("e", "edit") if isinstance(selected, UserMessage) else ("r", "again")
        return (own, ("c", "copy"), ("y", "copy code"), ("[ ]", "versions"), ("↑↓", "move"), ("esc", "back"))
    if editing:
        return (("enter", "ask this instead"), ("esc", "leave it"))
    found: list[tuple[str, str]] = []
    if conductor.turn is not None:
        found.append(("esc", "stop"))
    if conductor.tools.asking is not None:
        found.append(("⇧tab ←→ enter", "answer"))
    if conductor.model is not None and conductor.model.thinking == "optional":
        thinking = {None: "auto", True: "on", False: "off"}[conductor.thinks(params)]
        found.append(("^t", f"thinking {thinking}"))
    if params.get("tools") is True:
        found.append(("f8", "tools on" if why_not(conductor.model) is None else "tools: not this model"))
    if isinstance(params.get("preset"), str):
        found.append(("f9", shorten(params["preset"], 16)))
    found += [("^p", "commands"), ("f1", "help"), ("^n", "new"), ("^b", "list"), ("^q", "quit")]
    return tuple(found)


def numbers(conductor: Conductor, shown: int | None, last: StoredMessage | None, now: float) -> tuple[str, ...]:
    """Of the reply that runs in the conversation shown, else of the last one; the most important ones first."""
    turn = conductor.turn
    if turn is not None and turn.conversation_id == shown and not turn.ended:
        speed, read = turn.speed(now), turn.read
        reading = f"{read.done:,} of {read.total:,} tokens read" if read and turn.phase == "reading" else ""
        return tuple(part for part in (reading, f"{speed:.0f} tok/s" if speed else "") if part)
    if last is None or not last.stats:
        return ()
    return _parts(_stats(last))


def _parts(stats: ReplyStats) -> tuple[str, ...]:
    parts = []
    if stats.decode_speed:
        parts.append(f"{stats.decode_speed:.0f} tok/s")
    if stats.time_to_first_token:
        parts.append(f"first token {stats.time_to_first_token:.2f} s")
    if stats.prefill_speed:
        parts.append(f"read {stats.prefill_speed:,.0f} tok/s")
    if stats.peak_memory:
        parts.append(f"{size(stats.peak_memory)} memory")
    return tuple(parts)


def report(last: StoredMessage | None, model: ModelInfo | None) -> str:
    """The numbers of the last answer, one per line."""
    if last is None or not last.stats:
        return "There are no numbers yet: ask something first."
    stats = _stats(last)
    used = stats.prompt_tokens + stats.completion_tokens
    cached = f" ({stats.cached_tokens:,} of them known already)" if stats.cached_tokens else ""
    thought = f" ({stats.reasoning_tokens:,} of them thinking)" if stats.reasoning_tokens else ""
    lines = [
        f"Read: {stats.prompt_tokens:,} tokens{cached}, {stats.prefill_speed:,.0f} tok/s",
        f"First token: after {duration(stats.time_to_first_token)}",
        f"Written: {stats.completion_tokens:,} tokens{thought}, {stats.decode_speed:,.0f} tok/s",
        f"Context: {used:,} tokens" + (f" of {model.context:,}" if model is not None else ""),
        f"Memory: {size(stats.peak_memory)} at most" if stats.peak_memory else "",
        f"Model: {last.model}" if last.model else "",
    ]
    return "\n".join(line for line in lines if line)


def _how_far(progress: Progress | None) -> str:
    if progress is None:
        return "…"
    if not progress.total:
        return f" · {progress.stage}"
    part = f"{100 * progress.done // progress.total}%"
    amount = f" of {size(progress.total)}" if progress.unit == "bytes" else ""
    return f" · {progress.stage} {part}{amount}"


def _stats(message: StoredMessage) -> ReplyStats:
    """The numbers kept with a message, as far as this version knows their names."""
    known = ReplyStats.__dataclass_fields__
    return ReplyStats(**{name: value for name, value in message.stats.items() if name in known})
