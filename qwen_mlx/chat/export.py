"""A conversation as a file for people (Markdown: the branch shown) or for programs (JSON: everything)."""

from __future__ import annotations

import html
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from qwen_mlx.chat import attachments, steps
from qwen_mlx.chat.history import Conversation, History, StoredMessage
from qwen_mlx.errors import HistoryError
from qwen_mlx.paths import atomic_write

Kind = Literal["md", "json"]
FORMAT = "qwen-mlx conversation"
VERSION = 1
_TITLE = 60  # characters of the title that go into the name of the file


def markdown(conversation: Conversation, messages: list[StoredMessage]) -> str:
    """The messages in order, thinking folded as HTML allows it; what is within them stays as it is."""
    lines = [f"# {conversation.title or 'Conversation'}", ""]
    facts = [_time(conversation.created)] + ([conversation.model] if conversation.model else [])
    facts += [" ".join(f"#{tag}" for tag in conversation.tags)] if conversation.tags else []
    lines += [f"*{' · '.join(facts)}*", ""]
    if conversation.system:
        lines += ["## System", "", conversation.system, ""]
    for message in messages:
        name = {"user": "You", "assistant": message.model or "Assistant"}.get(message.role, message.role.title())
        lines += [f"## {name}", ""]
        for attachment in message.attachments:
            lines += _folded(f"File {attachment.name}", _fenced(attachment.text))
        for step in message.steps:
            lines += [step.content, ""] if step.content else []
            for call in step.calls:
                arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
                lines += _folded(f"Tool {call.name}", _fenced(arguments), _fenced(call.result or "(not run)"))
        if message.reasoning:
            seconds = f" for {message.reasoning_seconds:.1f} s" if message.reasoning_seconds is not None else ""
            lines += [f"<details><summary>Thought{seconds}</summary>", "", message.reasoning, "", "</details>", ""]
        lines += [message.content, ""]
        if message.status in ("stopped", "failed"):
            lines += [f"*({message.status}{': ' + message.error if message.error else ''})*", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def as_json(conversation: Conversation, messages: list[StoredMessage]) -> str:
    """Every message of every branch, with `parent` telling the tree; times are ISO 8601 in UTC."""
    value = {
        "format": FORMAT,
        "version": VERSION,
        "title": conversation.title,
        "model": conversation.model,
        "system": conversation.system,
        "params": dict(conversation.params),
        "tags": list(conversation.tags),
        "created": _iso(conversation.created),
        "updated": _iso(conversation.updated),
        "shown": conversation.leaf_id,
        "messages": [_message(message) for message in messages],
    }
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def write(history: History, conversation_id: int, kind: Kind, folder: Path | None = None) -> Path:
    """Write a conversation to a new file in `folder` (default: the current one), named after its title.

    Returns:
        The path of the file; an existing one is never replaced.

    Raises:
        NotFound: there is no such conversation.
        HistoryError: the file cannot be written.
    """
    conversation = history.conversation(conversation_id)
    if kind == "md":
        text = markdown(conversation, history.messages(conversation_id))
    else:
        text = as_json(conversation, history.all_messages(conversation_id))
    path = _free_name(folder or Path.cwd(), file_name(conversation.title), kind)
    try:
        with atomic_write(path, private=True) as file:
            file.write(text)
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written: {error.strerror or error}", hint="Start qwen-mlx in a folder you can write to."
        ) from error
    return path


def file_name(title: str) -> str:
    """A title as the stem of a file name that every system takes; letters of all scripts stay."""
    words = re.sub(r"[^\w\s.-]", " ", title).split()
    return "-".join(words)[:_TITLE].strip(".-_ ") or "conversation"


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    path, number = folder / f"{stem}.{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.{suffix}", number + 1
    return path


def _folded(summary: str, *parts: str) -> list[str]:
    lines = [f"<details><summary>{html.escape(summary)}</summary>", ""]
    for part in parts:
        lines += [part, ""]
    return [*lines, "</details>", ""]


def _fenced(text: str) -> str:
    """A code block that no fence within the text ends."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.strip(chr(10))}\n{fence}"


def _message(message: StoredMessage) -> dict[str, Any]:
    value = {
        "id": message.id,
        "parent": message.parent_id,
        "role": message.role,
        "content": message.content,
        "reasoning": message.reasoning,
        "reasoning_seconds": message.reasoning_seconds,
        "reasoning_tokens": message.reasoning_tokens,
        "model": message.model,
        "status": message.status,
        "error": message.error,
        "stats": dict(message.stats) or None,
        "created": _iso(message.created),
        "attachments": attachments.to_json(message.attachments) or None,
        "steps": steps.to_json(message.steps) or None,
    }
    return {key: entry for key, entry in value.items() if entry is not None or key == "parent"}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
