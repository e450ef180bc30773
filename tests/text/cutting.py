"""Texts cut into pieces, for parsers of streams, and how properties are checked here."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st


def examples(count: int) -> settings:
    """The same examples in every run, however slow the machine is."""
    return settings(max_examples=count, deadline=None, derandomize=True)


def texts(pieces: Sequence[str]) -> st.SearchStrategy[str]:
    """Texts made of `pieces` and now and then of one character of them, so that half markers are common."""
    characters = sorted(set("".join(pieces)))
    return st.lists(st.one_of(st.sampled_from(list(pieces)), st.sampled_from(characters)), max_size=12).map("".join)


@st.composite
def cut(draw: st.DrawFn, strategy: st.SearchStrategy[str]) -> list[str]:
    """A text as a list of pieces, some of them empty."""
    text = draw(strategy)
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)])]
