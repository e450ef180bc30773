"""Conversations as questions with an answer that is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qwen_mlx.errors import UsageError
from qwen_mlx.training.data.contents import Conversation, Remarks
from qwen_mlx.training.data.files import find_files
from qwen_mlx.training.data.formats import FormatFinder, read_content
from qwen_mlx.training.data.rows import read_rows


@dataclass(frozen=True)
class Question:
    """Messages up to the last answer of a conversation, and that answer without blank space at its ends."""

    messages: tuple[dict[str, Any], ...]
    expected: str


def read_questions(name: str, split: str = "test", limit: int | None = None) -> list[Question]:
    """The last question of every conversation in a file or folder, the first `limit` of them.

    Raises:
        NotFound, DataError: as reading any data; UsageError: there is no conversation in it.
    """
    files = find_files(name, split)
    finder = FormatFinder()
    rows = []
    for row in read_rows(files):
        finder.add(row)
        rows.append(row)
        if limit is not None and len(rows) >= limit:
            break
    questions = []
    for row in rows:
        content = read_content(row, finder.best, Remarks())
        if not isinstance(content, Conversation):
            continue
        answers = [number for number, message in enumerate(content.messages) if message["role"] == "assistant"]
        if answers and answers[-1] > 0:
            expected = str(content.messages[answers[-1]]["content"]).strip()
            questions.append(Question(content.messages[: answers[-1]], expected))
    if not questions:
        raise UsageError(f"{name!r} has no questions with answers", expected="conversations, to compare answers with")
    return questions
