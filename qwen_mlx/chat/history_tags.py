"""Tags of conversations: words that a person gives, and looks for with `tag:word`."""

from __future__ import annotations

import sqlite3

from qwen_mlx.errors import UsageError

MAX_LENGTH = 40
PREFIX = "tag:"


def tag_name(text: str) -> str:
    """A tag as it is kept: one word, without the `#` in front.

    Raises:
        UsageError: nothing is left of it, or it is too long.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    name = "-".join(printable.replace(",", " ").split()).strip("#").removeprefix(PREFIX)
    if not name:
        raise UsageError("a tag needs a name", expected="a word, such as work")
    if len(name) > MAX_LENGTH:
        raise UsageError("this tag is too long", expected=f"at most {MAX_LENGTH} characters", found=str(len(name)))
    return name


def split_query(query: str) -> tuple[list[str], list[str]]:
    """The words of a search, and the tags that are asked for."""
    words, tags = [], []
    for word in query.replace("\0", " ").split():
        if word.lower().startswith(PREFIX):
            tags.append(word[len(PREFIX) :].strip("#"))
        else:
            words.append(word)
    return words, tags


def conditions(tags: list[str], conversation: str) -> tuple[list[str], list[object]]:
    """SQL that holds for conversations with all of these tags; a tag may be the beginning of one.

    `conversation` is the SQL name of the conversation's id.
    """
    found = [
        f"{conversation} IN (SELECT conversation_id FROM tag WHERE name LIKE ? ESCAPE '\\')" for tag in tags if tag
    ]
    if "" in tags:
        found.append(f"{conversation} IN (SELECT conversation_id FROM tag)")
    values: list[object] = ["".join("\\" + c if c in "%_\\" else c for c in tag) + "%" for tag in tags if tag]
    return found, values


def rename(db: sqlite3.Connection, before: str, after: str) -> int:
    """Another name for a tag, everywhere; one that is there already takes it in. Returns how many had it."""
    count = db.execute("SELECT count(*) FROM tag WHERE name = ?", (before,)).fetchone()[0]
    if before.casefold() == after.casefold():
        db.execute("UPDATE tag SET name = ? WHERE name = ?", (after, before))
    else:
        db.execute(
            "INSERT OR IGNORE INTO tag (conversation_id, name) SELECT conversation_id, ? FROM tag WHERE name = ?",
            (after, before),
        )
        db.execute("DELETE FROM tag WHERE name = ?", (before,))
    return int(count)
