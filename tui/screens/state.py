"""What the lines at the top and the bottom say about the state of the app. Pure functions."""

from __future__ import annotations

from typing import Literal

from qwen_mlx.chat.history import Conversation, StoredMessage
from qwen_mlx.events import Progress, ReplyStats
from tui.conductor import Conductor
from tui.widgets.header import Facts
from tui.widgets.message import UserMessage
from tui.widgets.selectable import SelectableMessage
from tui.widgets.status_bar import SPINNER
from tui.wording import duration, size

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


def describe(conductor: Conductor, shown: int | None, now: float) -> tuple[str, Tone]:
    """The left of the status line: what is going on, and how it should look."""
    spinner = SPINNER[int(now * 10) % len(SPINNER)]
    loading, turn = conductor.loading, conductor.turn
    if loading is not None:
        return f"{spinner} Loading {loading.name}{_how_far(loading.progress)}", "busy"
    if turn is None or turn.ended:
        if conductor.model is None:
            return ("✗ No model" if conductor.load_error else "○ No model"), "failed"
        return "● Ready", "muted"
    if turn.stopping:
        return f"{spinner} Stopping", "busy"
    seconds = turn.reasoning_seconds(now)
    words = {
        "waiting": "Waiting",
        "reading": "Reading",
        "thinking": f"Thinking {duration(seconds or 0.0)}",
        "answering": "Answering",
    }[turn.phase]
    elsewhere = "" if turn.conversation_id == shown else " in another conversation"
    return f"{spinner} {words}{elsewhere}", "busy"


def hints(
    conductor: Conductor, selected: SelectableMessage | None = None, editing: bool = False
) -> tuple[tuple[str, str], ...]:
    """The right of the status line: keys that matter now, the most important ones first."""
    if selected is not None:
        own = ("e", "edit") if isinstance(selected, UserMessage) else ("r", "again")
        return (own, ("c", "copy"), ("y", "copy code"), ("[ ]", "versions"), ("↑↓", "move"), ("esc", "back"))
    if editing:
        return (("enter", "ask this instead"), ("esc", "leave it"))
    found: list[tuple[str, str]] = []
    if conductor.turn is not None:
        found.append(("esc", "stop"))
    if conductor.model is not None and conductor.model.thinking == "optional":
        thinking = {None: "auto", True: "on", False: "off"}[conductor.thinking]
        found.append(("^t", f"thinking {thinking}"))
    found += [("^p", "commands"), ("f1", "help"), ("^n", "new"), ("^b", "list"), ("^q", "quit")]
    return tuple(found)


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
