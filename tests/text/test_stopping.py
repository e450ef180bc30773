from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.errors import UsageError
from qwen_mlx.text.stopping import StopStrings
from tests.text.cutting import cut, examples, texts


def streamed(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, bool]:
    watcher = StopStrings(stops)
    shown = ""
    for piece in pieces:
        safe, stopped = watcher.feed(piece)
        shown += safe
        assert stopped is watcher.stopped
    shown += watcher.finish()
    return shown, watcher.stopped


def whole(stops: Sequence[str], text: str) -> tuple[str, bool]:
    places = [text.find(stop) for stop in stops if stop in text]
    return (text[: min(places)], True) if places else (text, False)


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), cut(st.text("abc", max_size=20)))
@examples(150)
def test_the_reply_ends_where_the_first_stop_begins(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    assert streamed(stops, pieces) == streamed(stops, list(text)) == streamed(stops, [text]) == whole(stops, text)


@given(cut(texts(("</answer>", "\n\n", "User:", "<", "你"))))
@examples(150)
def test_usual_stops(pieces: list[str]) -> None:
    stops = ("</answer>", "User:", "\n\nUser", "你")
    assert streamed(stops, pieces) == whole(stops, "".join(pieces))


@given(st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3), st.text("ab", max_size=20))
@examples(150)
def test_what_is_shown_is_never_taken_back(stops: list[str], text: str) -> None:
    """Whatever comes next, what was given out before is part of the reply."""
    watcher = StopStrings(stops)
    shown = "".join(watcher.feed(character)[0] for character in text)
    for rest in ("", "a", "ab", "bbbbb", "aaaaa"):
        assert whole(stops, text + rest)[0].startswith(shown)


def test_only_the_beginning_of_a_stop_is_held_back() -> None:
    watcher = StopStrings(["END", "\n\n"])
    assert [watcher.feed(piece) for piece in ("a E", "N", "C", "\n", "b\n")] == [
        ("a ", False),
        ("", False),
        ("ENC", False),
        ("", False),
        ("\nb", False),
    ]
    assert watcher.finish() == "\n"
    assert not watcher.stopped


def test_after_the_stop_nothing_comes() -> None:
    watcher = StopStrings(["END"])
    assert watcher.feed("a END b") == ("a ", True)
    assert watcher.feed("more") == ("", True)
    assert watcher.finish() == ""
    assert watcher.stopped


def test_a_stop_inside_a_longer_one_waits_for_it() -> None:
    assert streamed(["abcd", "bc"], list("xabcd")) == ("x", True)
    assert streamed(["abcd", "bc"], list("xabcx")) == ("xa", True)
    assert streamed(["abcd", "bc"], list("xabc")) == ("xa", True)  # the reply ends before it is certain


def test_no_stops() -> None:
    watcher = StopStrings(())
    assert watcher.feed("abc") == ("abc", False)
    assert watcher.finish() == ""


def test_one_string_is_one_stop() -> None:
    assert StopStrings("END").feed("END") == ("", True)
    assert StopStrings("END").feed("xE") == ("x", False)


def test_an_empty_stop() -> None:
    with pytest.raises(UsageError, match="empty"):
        StopStrings(["a", ""])
