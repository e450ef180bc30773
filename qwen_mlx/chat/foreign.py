"""Conversations of other programs, as one plain tree of messages. Nothing of what is read is trusted.

The formats, from what the programs write and their public sources say:

- ChatGPT's export, `conversations.json`: a list of conversations, each with a `mapping` of nodes (`message`, `parent`,
  `children`) and `current_node`, the end of the branch that was shown.
- Open WebUI's export: a list of rows whose `chat.history` has `messages` by id (`parentId`, `childrenIds`) and
  `currentId`; thinking is in the text, as `<details type="reasoning" duration="…">`.
- Our own export of a conversation (`qwen_mlx.chat.export`).

Pictures, sound, files and what tools wrote are left out.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, cast

OURS = "qwen-mlx conversation"  # `export.FORMAT`, which knows the store, which knows this module
MAX_MESSAGES = 50_000  # of one conversation
MAX_TEXT = 4_000_000  # characters of one message
MAX_TITLE = 300
Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class ForeignMessage:
    """One message: `key` is its own, `parent` that of the message it answers, None for a first one."""

    key: str
    parent: str | None
    role: Role
    content: str
    reasoning: str | None = None
    reasoning_seconds: float | None = None
    model: str | None = None
    created: float | None = None


@dataclass(frozen=True)
class ForeignConversation:
    """One conversation.

    Attributes:
        origin: what it is known by, such as "chatgpt:1234": the same each time the same conversation is read.
        messages: a parent before its children, siblings in their order.
        shown: the key of the last message of the branch that was shown.
        created, updated: seconds since 1970; None where nothing says so.
    """

    origin: str
    title: str
    messages: tuple[ForeignMessage, ...]
    shown: str | None = None
    model: str | None = None
    system: str | None = None
    created: float | None = None
    updated: float | None = None


def read(entry: Any) -> ForeignConversation | None:
    """A conversation of any program that is known here; None for what is none, or has no messages.

    Raises:
        ValueError: it is one, but larger than any that people write; the text says how.
    """
    if not isinstance(entry, Mapping):
        return None
    found: ForeignConversation | None = None
    if isinstance(entry.get("mapping"), Mapping):
        found = _chatgpt(entry)
    elif entry.get("format") == OURS:
        found = _ours(entry)
    elif isinstance(chat := entry.get("chat", entry), Mapping) and ("history" in chat or "messages" in chat):
        found = _open_webui(entry, chat)
    return found if found is not None and found.messages else None


def conversation(
    program: str, identity: Any, title: Any, messages: Iterable[ForeignMessage], **more: Any
) -> ForeignConversation:
    """Put together what was read; without an identity of its own, it is known by what was said first."""
    said = tuple(messages)
    if not isinstance(identity, (str, int)) or identity in ("", True, False):
        first = "\0".join(f"{message.role}:{message.content}" for message in said[:2])
        identity = hashlib.sha256(f"{title}\0{first}".encode("utf-8", "replace")).hexdigest()[:32]
    name = line(title) or line(next((message.content for message in said if message.role == "user"), ""))[:60]
    return ForeignConversation(f"{program}:{str(identity)[:100]}", name, said, **more)


# ---------------------------------------------------------------------------------------------------- the programs


def _chatgpt(entry: Mapping[str, Any]) -> ForeignConversation:
    nodes = entry["mapping"]
    _check_count(nodes)
    system: str | None = None
    thoughts: dict[str, str] = {}  # thinking that waits for the answer below it, by node
    raw: list[ForeignMessage] = []
    for key, parent, node in _walk(nodes, "parent", "children"):
        message = node.get("message")
        if not isinstance(message, Mapping):
            raw.append(_nothing(key, parent))
            continue
        author = _mapping(message.get("author"))
        role, meta = author.get("role"), _mapping(message.get("metadata"))
        content = _mapping(message.get("content"))
        waiting = thoughts.get(parent or "", "")
        said = _said_by_chatgpt(content)
        hidden = meta.get("is_visually_hidden_from_conversation") is True
        addressed = message.get("recipient") in (None, "all")
        if role == "system" and said and not hidden:
            system = system or said
        if content.get("content_type") == "thoughts":
            waiting = "\n\n".join(filter(None, [waiting, _thoughts(content)]))
        if role not in ("user", "assistant") or not said or hidden or not addressed:
            thoughts[key] = waiting
            raw.append(_nothing(key, parent))
            continue
        model = meta.get("model_slug") if role == "assistant" else None
        raw.append(
            ForeignMessage(
                *(key, parent, cast(Role, role), said),
                reasoning=(waiting or None) if role == "assistant" else None,
                model=line(model) or None,
                created=moment(message.get("create_time")),
            )
        )
    messages, shown = _tidy(raw, entry.get("current_node"))
    return conversation(
        *("chatgpt", entry.get("conversation_id") or entry.get("id"), entry.get("title"), messages),
        shown=shown,
        model=next((message.model for message in reversed(messages) if message.model), None),
        system=system,
        created=moment(entry.get("create_time")),
        updated=moment(entry.get("update_time")),
    )


def _said_by_chatgpt(content: Mapping[str, Any]) -> str:
    """The text of a message; "" for what a person never saw as one."""
    kind = content.get("content_type")
    if kind == "code":
        language = content.get("language")
        name = language if isinstance(language, str) and language.isalnum() and language != "unknown" else ""
        code = text(content.get("text"))
        return f"```{name}\n{code}\n```" if code else ""
    if kind not in ("text", "multimodal_text", None):
        return ""
    parts = content.get("parts")
    found = []
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping):  # of a picture, a sound, or what was said in one
            part = part.get("text")
        found.append(text(part))
    return "\n\n".join(filter(None, found))


def _thoughts(content: Mapping[str, Any]) -> str:
    thoughts = content.get("thoughts")
    found = []
    for thought in thoughts if isinstance(thoughts, list) else []:
        thought = _mapping(thought)
        summary, body = text(thought.get("summary")), text(thought.get("content"))
        found.append("\n\n".join(filter(None, [f"**{summary}**" if summary else "", body])))
    return "\n\n".join(filter(None, found))


_DETAILS = re.compile(r"<details\b([^>]{0,500})>\s*(?:<summary>[^<]{0,500}</summary>)?(.*?)</details>\s*", re.DOTALL)
_DURATION = re.compile(r'duration="(\d{1,6}(?:\.\d{1,6})?)"')


def _open_webui(entry: Mapping[str, Any], chat: Mapping[str, Any]) -> ForeignConversation:
    history = _mapping(chat.get("history"))
    shown = history.get("currentId")
    nodes: Mapping[str, Any] = _mapping(history.get("messages"))
    if not isinstance(history.get("messages"), Mapping):  # before it had branches
        nodes = _chain(chat.get("messages"))
        shown = next(reversed(nodes), None)
    _check_count(nodes)
    raw = [_webui_message(key, parent, node) for key, parent, node in _walk(nodes, "parentId", "childrenIds")]
    messages, last = _tidy(raw, shown)
    models = chat.get("models")
    parameters = _mapping(chat.get("params"))
    system = text(parameters.get("system")) or text(chat.get("system"))
    return conversation(
        *("open-webui", entry.get("id") or chat.get("id"), entry.get("title") or chat.get("title"), messages),
        shown=last,
        model=line(models[0]) or None if isinstance(models, list) and models else None,
        system=system or None,
        created=moment(entry.get("created_at")) or moment(chat.get("timestamp")),
        updated=moment(entry.get("updated_at")),
    )


def _chain(listed: Any) -> dict[str, Any]:
    """Messages in a row, as a tree without branches."""
    messages = listed if isinstance(listed, list) else []
    return {
        str(number): {**_mapping(message), "parentId": str(number - 1) if number else None, "childrenIds": []}
        for number, message in enumerate(messages)
    }


def _webui_message(key: str, parent: str | None, node: Mapping[str, Any]) -> ForeignMessage:
    role, content = node.get("role"), node.get("content")
    if isinstance(content, list):
        content = "\n\n".join(filter(None, (text(_mapping(part).get("text")) for part in content)))
    said = text(content)
    if role not in ("user", "assistant") or not said:
        return _nothing(key, parent)
    created, model = moment(node.get("timestamp")), line(node.get("modelName") or node.get("model")) or None
    if role == "user":
        return ForeignMessage(key, parent, "user", said, created=created)
    reasoning, seconds = [], None

    def take(found: re.Match[str]) -> str:
        nonlocal seconds
        attributes, body = found[1], found[2]
        if 'type="reasoning"' in attributes:
            lines = html.unescape(body).strip("\n").split("\n")
            reasoning.append("\n".join(line.removeprefix(">").removeprefix(" ") for line in lines).strip())
            if lasted := _DURATION.search(attributes):
                seconds = (seconds or 0.0) + float(lasted[1])
            return ""
        return "" if 'type="' in attributes else found[0]  # calls of tools and their results; other details are text

    said = _DETAILS.sub(take, said).strip()
    thought = "\n\n".join(filter(None, reasoning)) or None
    if not said and not thought:
        return _nothing(key, parent)
    return ForeignMessage(key, parent, "assistant", said, thought, seconds, model, created)


def _ours(entry: Mapping[str, Any]) -> ForeignConversation:
    listed = entry.get("messages")
    found = [_mapping(message) for message in listed] if isinstance(listed, list) else []
    nodes: dict[str, dict[str, Any]] = {str(node.get("id")): {**node, "children": []} for node in found}
    _check_count(nodes)
    for key, found_node in nodes.items():
        above = None if found_node.get("parent") is None else str(found_node["parent"])
        found_node["parent"] = above
        if above in nodes:
            nodes[above]["children"].append(key)
    raw = []
    for key, parent, node in _walk(nodes, "parent", "children"):
        role, said, thought = node.get("role"), text(node.get("content")), text(node.get("reasoning"))
        if role not in ("user", "assistant") or not (said or thought):
            raw.append(_nothing(key, parent))
            continue
        seconds = node.get("reasoning_seconds")
        raw.append(
            ForeignMessage(
                *(key, parent, cast(Role, role), said, thought or None),
                seconds if isinstance(seconds, float) and 0 <= seconds < 1e7 else None,
                *(line(node.get("model")) or None, moment(node.get("created"))),
            )
        )
    messages, shown = _tidy(raw, str(entry.get("shown")), merge=False)
    stamp = f"{entry.get('created')}\0{entry.get('title')}\0{messages[0].content if messages else ''}"
    return conversation(
        *("qwen-mlx", hashlib.sha256(stamp.encode("utf-8", "replace")).hexdigest()[:32], entry.get("title"), messages),
        shown=shown,
        model=line(entry.get("model")) or None,
        system=text(entry.get("system")) or None,
        created=moment(entry.get("created")),
        updated=moment(entry.get("updated")),
    )


# ---------------------------------------------------------------------------------------------------- trees


def _walk(nodes: Mapping[str, Any], above: str, below: str) -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
    """Every node that hangs on a root, a parent before its children: its key, its parent's, and what it is.

    A node is visited once, whatever the links say, so circles end; children that name no parent, or another one, follow
    the list they are in.
    """
    parents = {key: _mapping(node).get(above) for key, node in nodes.items()}
    roots = [key for key, parent in parents.items() if not isinstance(parent, str) or parent not in nodes]
    waiting: list[tuple[str, str | None]] = [(root, None) for root in reversed(roots)]
    seen: set[str] = set()
    below_of: dict[str, list[str]] = {}
    for key, parent in parents.items():  # also those that their parents do not list
        if isinstance(parent, str):
            below_of.setdefault(parent, []).append(key)
    while waiting:
        key, parent = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        node = _mapping(nodes[key])
        yield key, parent, node
        listed = node.get(below)
        children = [child for child in listed if isinstance(child, str)] if isinstance(listed, list) else []
        ordered = dict.fromkeys([*children, *below_of.get(key, [])])
        waiting += [(child, key) for child in reversed(ordered) if child in nodes and child not in seen]


def _nothing(key: str, parent: str | None) -> ForeignMessage:
    """A node that is no message here: what hangs on it moves up."""
    return ForeignMessage(key, parent, "user", "")


def _tidy(raw: list[ForeignMessage], shown: Any, merge: bool = True) -> tuple[list[ForeignMessage], str | None]:
    """Take nodes out that are no messages, and make one of answers that follow each other without a branch.

    Returns:
        The messages, and which of them stands for the node `shown`; the last one if that is not there.
    """
    stands_for: dict[str, str | None] = {}
    kept: dict[str, ForeignMessage] = {}
    for message in raw:
        parent = stands_for.get(message.parent) if message.parent is not None else None
        if not message.content and not message.reasoning:
            stands_for[message.key] = parent
        else:
            stands_for[message.key] = message.key
            kept[message.key] = replace(message, parent=parent)
    if merge:
        _merge_answers(kept, stands_for)
    last = stands_for.get(shown) if isinstance(shown, str) else None
    return list(kept.values()), last or next(reversed(kept), None)


def _merge_answers(kept: dict[str, ForeignMessage], stands_for: dict[str, str | None]) -> None:
    """Programs write what came before and after a call of a tool as two answers."""
    children: dict[str | None, int] = {}
    for message in kept.values():
        children[message.parent] = children.get(message.parent, 0) + 1
    moved: dict[str, str] = {}
    for key, message in list(kept.items()):
        parent = moved.get(message.parent, message.parent) if message.parent is not None else None
        above = kept.get(parent) if parent is not None else None
        if above is None or above.role != "assistant" or message.role != "assistant" or children[message.parent] != 1:
            kept[key] = replace(message, parent=parent)
            continue
        thought = "\n\n".join(filter(None, [above.reasoning, message.reasoning])) or None
        content = "\n\n".join(filter(None, [above.content, message.content]))
        assert parent is not None
        kept[parent] = replace(above, content=content, reasoning=thought, model=message.model or above.model)
        moved[key] = parent
        del kept[key]
    for key, target in stands_for.items():
        if target is not None:
            stands_for[key] = moved.get(target, target)


# ---------------------------------------------------------------------------------------------------- values


def _check_count(nodes: Mapping[str, Any]) -> None:
    if len(nodes) > MAX_MESSAGES:
        raise ValueError(f"a conversation has {len(nodes):,} messages, more than {MAX_MESSAGES:,}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str:
    """A text of the file, without NULs and the space around it; "" for anything else, cut where it is endless."""
    if not isinstance(value, str):
        return ""
    return value[:MAX_TEXT].replace("\0", "").strip()


def line(value: Any) -> str:
    """A text on one line: a title, a name."""
    return " ".join(text(value)[: 10 * MAX_TITLE].split())[:MAX_TITLE]


def moment(value: Any) -> float | None:
    """A time in seconds since 1970: from seconds, milliseconds and so on, or ISO 8601; None for no time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    while math.isfinite(seconds) and seconds > 1e11:
        seconds /= 1000
    return seconds if math.isfinite(seconds) and 0 < seconds < 4e9 else None
