"""Tool calls held back from a stream."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.text.tool_calls import OPEN
from qwen_mlx.text.tool_stream import HeldCalls

PIECES = st.lists(st.sampled_from(["<", "<tool", "_call>", OPEN, "text ", "</tool_call>", "<tool_", "call", ">"]))


@given(PIECES)
def test_nothing_is_lost_and_no_call_is_shown(pieces):
    held = HeldCalls()
    shown = "".join(held.feed(piece) for piece in pieces)
    whole = "".join(pieces)
    assert OPEN not in shown
    assert held.opened == (OPEN in whole)
    assert shown + held.finish() == whole
    if held.opened:
        assert shown == whole[: whole.index(OPEN)]


def test_text_comes_at_once():
    held = HeldCalls()
    assert held.feed("a < b ") == "a < b "
    assert held.feed("and <tool") == "and "
    assert held.feed("box>") == "<toolbox>"
