"""Commands that are written into the prompt: `/export json`. Only the first line counts, and only a whole one."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Slash:
    """One command.

    Attributes:
        name: without the slash.
        argument: what may follow, for people; "" for nothing.
        title: what it does.
        action: an action of the chat screen, or with a prefix of the app; the argument is given to it if it takes one.
        choices: the arguments that can be meant; empty for any text.
    """

    name: str
    argument: str
    title: str
    action: str
    choices: tuple[str, ...] = ()


COMMANDS: tuple[Slash, ...] = (
    Slash("new", "", "New conversation", "new"),
    Slash("search", "WORDS", "Search all conversations", "search"),
    Slash("system", "TEXT", "Set the system prompt; without a text: take it away", "set_system"),
    Slash("parameters", "", "Temperature and the like", "parameters"),
    Slash("models", "", "Use, download, shrink or delete a model", "models"),
    Slash("import", "FILE", "Take over the chats of ChatGPT, Open WebUI or oterm", "import_chats"),
    Slash("train", "", "Training runs: begin, watch, compare", "app.training"),
    Slash("settings", "", "Theme, model to begin with, text only and the like", "settings"),
    Slash("kv", "8|8/4|4|off", "Bits of the KV cache; the model is loaded again", "set_kv", ("8", "8/4", "4", "off")),
    Slash("preset", "NAME", "Choose a preset; without a name: the list of them", "preset"),
    Slash("attach", "PATH", "Send a text file along with the next message", "attach"),
    Slash("detach", "", "Take the attached files away", "detach"),
    Slash("tools", "on|off|FOLDER", "Let the model compute, tell the time, read files below FOLDER", "tools"),
    Slash("tag", "NAME", "Tag the conversation; without a name: all tags", "tag"),
    Slash("untag", "NAME", "Take a tag away", "untag"),
    Slash("stats", "", "Numbers of the last answer", "stats"),
    Slash("think", "on|off|auto", "Whether the model thinks first", "set_thinking", ("on", "off", "auto")),
    Slash("again", "", "Answer again, as a new version", "regenerate"),
    Slash("edit", "", "Edit your last message", "edit_last"),
    Slash("copy", "", "Copy the last answer", "copy_answer"),
    Slash("rename", "TITLE", "Rename the conversation", "set_title"),
    Slash("export", "md|json", "Write the conversation to a file", "export", ("md", "json")),
    Slash("pin", "", "Pin the conversation to the top, or not", "pin"),
    Slash("delete", "", "Delete the conversation", "delete"),
    Slash("theme", "", "The other one of our two themes", "app.other_theme"),
    Slash("help", "", "All keys", "app.help"),
    Slash("quit", "", "Leave", "app.quit"),
)
_BY_NAME = {command.name: command for command in COMMANDS}
# What Qwen3 itself follows inside of a message.
_SOFT_SWITCHES = ("no_think",)


class NotACommand(ValueError):
    """It begins like a command and is none; the text says what to do."""


def suggestions(text: str) -> list[Slash]:
    """The commands that what is being written may become; none once it is no single word any more."""
    if not text.startswith("/") or any(space in text for space in " \n\t"):
        return []
    return [command for command in COMMANDS if command.name.startswith(text[1:].lower())]


def parse(text: str) -> tuple[Slash, str] | None:
    """The command and its argument; None if the text is a message.

    A path (`/etc/hosts is what?`) and a text of several lines are messages.

    Raises:
        NotACommand: a single `/word` that is no command, or an argument that cannot be meant.
    """
    if not text.startswith("/") or "\n" in text.strip():
        return None
    word, _, argument = text.strip()[1:].partition(" ")
    argument = argument.strip()
    command = _BY_NAME.get(word.lower())
    if command is None:
        if argument or not word.isidentifier() or word in _SOFT_SWITCHES:
            return None
        near = get_close_matches(word.lower(), _BY_NAME, 1)
        hint = f"Did you mean /{near[0]}?" if near else "A / alone lists the commands."
        raise NotACommand(f"There is no command /{word}. {hint} To send it as it is, put a space before it.")
    if argument and not command.argument:
        return None  # "/new York is ..." was meant for the model
    if command.choices and argument.lower() not in (*command.choices, ""):
        raise NotACommand(f"/{command.name} takes {' or '.join(command.choices)}, not {argument!r}.")
    return command, argument.lower() if command.choices else argument
