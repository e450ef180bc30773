from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.events import Message
from qwen_mlx.text.thinking import Segment, ThinkingParser, soft_switch, split
from tests.text.cutting import cut, examples, texts

PIECES = ("<think>", "</think>", "\n", "\n\n", " ", "a", "<b>", "你好")


def parsed(pieces: Sequence[str], opened: bool) -> tuple[str, str]:
    parser = ThinkingParser(opened)
    segments = [segment for piece in pieces for segment in parser.feed(piece)] + parser.finish()
    assert all(segment.text for segment in segments)
    kinds = [segment.kind for segment in segments]
    assert kinds == sorted(kinds, reverse=True)  # reasoning, then answer
    reasoning = "".join(segment.text for segment in segments if segment.kind == "reasoning")
    return reasoning, "".join(segment.text for segment in segments if segment.kind == "answer")


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("", False, None, ""),
        ("Hello", False, None, "Hello"),
        ("  indented\n", False, None, "  indented\n"),
        ("<think>\nwhy\n</think>\n\nbecause", False, "why", "because"),
        ("\n <think>why</think>because", False, "why", "because"),
        ("<think>\n\n</think>\n\nHello", False, None, "Hello"),
        ("<think></think>Hello", False, None, "Hello"),
        ("<think> \n </think>\r\n\r\nHello\n", False, None, "Hello\n"),
        ("why\n</think>\n\nbecause", True, "why", "because"),
        ("\nwhy\n\nand\n</think>\n\n  because", True, "why\n\nand", "  because"),
        ("</think>\n\nHello", True, None, "Hello"),
        ("<think>\nwhy</think>because", True, "why", "because"),  # it opens the block once more
        ("still thinking\n", True, "still thinking", ""),
        ("<think>\nstill", False, "still", ""),
        ("<think>\nstill </thi", False, "still </thi", ""),
        ("<think>\n\n", False, None, ""),
        ("<thi", False, None, "<thi"),
        ("  ", False, None, "  "),
        ("Use <think> tags, then </think>.", False, None, "Use <think> tags, then </think>."),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
        ("<think>a\n</think>\n</think>\nb", False, "a", "</think>\nb"),
        ("<think>1 < 2 <x>\n\n\n- y</think>z", False, "1 < 2 <x>\n\n\n- y", "z"),
        ("<thinking>x", False, None, "<thinking>x"),
        ("<think>  code\n  more</think>\n  code", False, "  code\n  more", "  code"),
    ],
)
def test_whole_replies(text: str, opened: bool, reasoning: str | None, answer: str) -> None:
    assert split(text, opened) == (reasoning, answer)
    assert parsed(list(text), opened) == (reasoning or "", answer)


@given(cut(texts(PIECES)), st.booleans())
@examples(150)
def test_the_cuts_do_not_matter(pieces: list[str], opened: bool) -> None:
    text = "".join(pieces)
    expected = parsed([text], opened)
    assert parsed(pieces, opened) == expected
    assert parsed(list(text), opened) == expected
    reasoning, answer = split(text, opened)
    assert (reasoning or "", answer) == expected


@given(texts(PIECES), st.booleans())
@examples(150)
def test_nothing_is_lost_but_markers_and_newlines(text: str, opened: bool) -> None:
    reasoning, answer = split(text, opened)

    def bare(value: str) -> str:
        return "".join(value.replace("<think>", "").replace("</think>", "").split())

    assert bare((reasoning or "") + answer) == bare(text)
    assert reasoning is None or reasoning == reasoning.strip("\n") != ""
    if not text.lstrip().startswith("<think>") and not opened:
        assert (reasoning, answer) == (None, text)


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    parser = ThinkingParser()
    assert [
        parser.feed(piece) for piece in ("<th", "ink>", "\n", "I", " think\n", "so", "</", "think", ">\n", "\nYes")
    ] == [
        [],
        [],
        [],
        [Segment("reasoning", "I")],
        [Segment("reasoning", " think")],
        [Segment("reasoning", "\nso")],
        [],
        [],
        [],
        [Segment("answer", "Yes")],
    ]
    assert parser.feed("</think") == [Segment("answer", "</think")]
    assert parser.finish() == []


def test_one_piece_may_hold_both() -> None:
    assert ThinkingParser().feed("<think>a</think>b") == [Segment("reasoning", "a"), Segment("answer", "b")]


def test_where_the_reply_is() -> None:
    parser = ThinkingParser()
    states = []
    for piece in ("<think>", "a", "</think>", "\n", "b"):
        states.append(parser.in_reasoning)
        parser.feed(piece)
    assert [*states, parser.in_reasoning] == [False, True, True, False, False, False]
    assert ThinkingParser(opened=True).in_reasoning


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (["Hi"], None),
        (["Hi /think"], True),
        (["Hi /no_think"], False),
        (["/no_think"], False),
        (["a /think b /no_think"], False),
        (["a /no_think", "b /think"], True),
        (["a /no_think", "b"], False),
        (["Hi\n/no_think\n"], False),
        (["Hi /no_think."], False),
        (["see /usr/think or /thinking or x/think or /think/x"], None),
        ([[{"type": "text", "text": "Hi /no_think"}, {"type": "image", "image": "/think"}]], False),
        ([None], None),
    ],
)
def test_soft_switch(contents: list[Any], expected: bool | None) -> None:
    assert soft_switch([{"role": "user", "content": content} for content in contents]) is expected


def test_who_may_switch() -> None:
    messages = [Message("system", "Be brief. /no_think"), Message("user", "Hi"), Message("assistant", "Say /think")]
    assert soft_switch(messages) is False
    assert soft_switch([*messages, Message("user", "ok /think")]) is True
    assert soft_switch([*messages, Message("tool", "/think")]) is False
    assert soft_switch([]) is None
