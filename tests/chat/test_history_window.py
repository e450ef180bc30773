"""The first Qwen's own way to shorten a conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.chat.history_window import within_window
from qwen_mlx.events import Message


def talk(turns: int, system: bool = True) -> tuple[Message, ...]:
    messages = [Message("system", "s")] if system else []
    for i in range(turns):
        messages += [Message("user", f"q{i}"), Message("assistant", f"a{i}")]
    return (*messages, Message("user", "now?"))


def tokens(text: str) -> int:
    """A marker is one token, and so is every other character."""
    return len(text.replace("<|im_start|>", "x").replace("<|im_end|>", "x"))


def test_a_short_conversation_stays_whole() -> None:
    for system in (True, False):
        assert within_window(talk(3, system), tokens) == talk(3, system)


def test_the_oldest_turns_go_first() -> None:
    # system: 1 + 7 + 1 + 1; a turn: (2 + 5 + 2 + 1) + (2 + 10 + 2 + 1)
    system, turn = 10, 25
    messages = talk(5)
    for kept in range(6):
        exactly = within_window(messages, tokens, window=system + kept * turn + 1)
        assert exactly == (messages[0], *messages[11 - 2 * kept :])
        reached = within_window(messages, tokens, window=system + kept * turn)
        assert reached == (messages[0], *messages[11 - 2 * max(kept - 1, 0) :])


@given(st.integers(0, 12), st.booleans(), st.integers(0, 400))
def test_the_question_and_the_system_message_are_always_there(turns: int, system: bool, window: int) -> None:
    messages = talk(turns, system)
    kept = within_window(messages, tokens, window)
    assert kept[-1] == messages[-1]
    assert kept[0] == messages[0] or not system
    assert kept[int(system) :] == messages[len(messages) - len(kept) + int(system) :]
