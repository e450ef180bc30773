"""Titles that the model finds for conversations, in its idle time. Pure functions; `Conductor` runs them."""

from __future__ import annotations

import re

from qwen_mlx.chat.history import StoredMessage
from qwen_mlx.events import Message, ModelInfo, Reply, SamplingOptions
from tui.sanitize import sanitize
from tui.tool_runs import SMALLEST
from tui.wording import TITLE_WIDTH, shorten

IDLE_SECONDS = 2.0
"""After the end of an answer, with nothing else to do."""
TOKENS = 24
_SHOWN = 1200  # characters of a message
_TASK = (
    "Write a title for the conversation below: at most six words, in the language of the person, without quotation "
    "marks. Answer with the title alone."
)
_AROUND = " \t\"'`*_#“”„«»「」『』《》。.:：-–—"
_LABEL = re.compile(r"^(?:title|titel|titre|título|标题|題名)\s*[:：]\s*", re.IGNORECASE)


def can_write(model: ModelInfo) -> bool:
    """Whether a title of this model will be one. A model that always thinks would need many tokens for it."""
    return model.parameters >= SMALLEST and model.thinking != "always"


def title_job(messages: list[StoredMessage], model: ModelInfo) -> Reply | None:
    """What the model is asked; None while there is no answer to go by."""
    question = next((m for m in messages if m.role == "user"), None)
    answer = next((m for m in messages if m.role == "assistant" and m.status == "done" and m.content), None)
    if question is None or answer is None:
        return None
    files = "".join(f"\n(with the file {attachment.name})" for attachment in question.attachments)
    text = f"Person: {question.content[:_SHOWN]}{files}\n\nModel: {answer.content[:_SHOWN]}"
    return Reply(
        conversation="title",
        messages=(Message("user", f"{_TASK}\n\n{text}\n\n{_TASK}"),),
        sampling=SamplingOptions(temperature=0.0, max_tokens=TOKENS),
        thinking=False if model.thinking == "optional" else None,
        keep=False,
    )


def title_from(text: str) -> str | None:
    """The title in what the model wrote; None when there is none."""
    lines = [line.strip() for line in sanitize(text).splitlines() if line.strip()]
    if not lines or "<" in lines[0]:
        return None
    title = _LABEL.sub("", lines[0].strip(_AROUND)).strip(_AROUND)
    return shorten(title, TITLE_WIDTH) if any(character.isalnum() for character in title) else None
