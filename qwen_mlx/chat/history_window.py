"""How much of a conversation the first Qwen is shown: its `make_context` drops the oldest turns by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_mlx.events import Message

DEFAULT_WINDOW = 6144  # tokens, where `generation_config.json` has no `max_window_size`
_SYSTEM = "You are a helpful assistant."


def within_window(
    messages: Sequence[Message], count: Callable[[str], int], window: int = DEFAULT_WINDOW
) -> tuple[Message, ...]:
    """The system message, as many of the newest turns as fit, and the question.

    Turns are counted from the newest back, as long as they and the system message stay below `window` tokens; the
    question itself is always there.

    Args:
        count: number of tokens of a text, control tokens included.
    """
    system = [m for m in messages[:1] if m.role == "system"]
    rest = list(messages[len(system) :])
    asked = max((i for i, m in enumerate(rest) if m.role == "user"), default=0)
    turns: list[list[Message]] = []
    for message in rest[:asked]:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    size = count(_turn("system", system[0].content if system else _SYSTEM))
    kept: list[Message] = []
    for turn in reversed(turns):
        tokens = count("".join("\n" + _turn(m.role, m.content) for m in turn))
        if size + tokens >= window:
            break
        size += tokens
        kept[:0] = turn
    return (*system, *kept, *rest[asked:])


def _turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>"
