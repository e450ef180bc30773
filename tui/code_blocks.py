"""The code in an answer, for copying."""

from __future__ import annotations


def code_blocks(markdown: str) -> list[str]:
    """The text of every fenced or indented block of code, in order, also of those inside lists and quotations.

    A fence that is still open, in an answer that was stopped, counts as well.
    """
    from markdown_it import MarkdownIt  # a moment to import, and only needed here

    tokens = MarkdownIt("commonmark").parse(markdown)
    return [token.content.rstrip("\n") for token in tokens if token.type in ("fence", "code_block")]
