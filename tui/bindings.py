"""Every key of the app, once: the widgets take their bindings from here, the help screen and the palette too.

Each one has an id, so a person can give it another key (`App.set_keymap`). Nothing is on alt alone, which macOS
uses to type characters, and nothing on ctrl+i, ctrl+m or ctrl+[, which a terminal cannot tell from tab, enter and
escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

Owner = Literal["app", "chat", "prompt", "list", "thinking", "message", "chip", "choice"]


@dataclass(frozen=True)
class Key:
    """One binding.

    Attributes:
        id: "<owner>.<action>", stable across versions.
        keys: Textual key names, separated by commas; the first one is shown.
        action: the method `action_<action>` of the owner, or with a prefix of another node.
        title: what it does, as a command.
        group: the heading in the help; "" keeps it out.
        hint: more about it, for the palette.
        palette: the command palette offers it; its action must then be one of the chat screen or the app.
        priority: it goes before what the focused widget would do with the key.
    """

    id: str
    keys: str
    action: str
    title: str
    group: str = ""
    hint: str = ""
    palette: bool = False
    priority: bool = False

    @property
    def owner(self) -> str:
        return self.id.partition(".")[0]


GROUPS = ("Write", "Answer", "A selected message", "Conversations", "Look around")

KEYS: tuple[Key, ...] = (
    Key("prompt.send", "enter", "send", "Send", "Write"),
    Key("prompt.newline", "shift+enter,ctrl+j", "newline", "New line", "Write"),
    Key("prompt.older", "up", "older", "Earlier or queued prompt", "Write"),
    Key("prompt.newer", "down", "newer", "Later prompt", "Write"),
    Key("prompt.page_up", "pageup", "scroll_log('up')", "Scroll up", "Look around"),
    Key("prompt.page_down", "pagedown", "scroll_log('down')", "Scroll down", "Look around"),
    Key("prompt.copy_answer", "ctrl+y", "screen.copy_answer", "Copy the last answer"),
    Key(
        *("chat.thinking", "ctrl+t", "thinking", "Thinking: auto, on, off", "Write"),
        hint="For the next questions, if the model can do both",
        palette=True,
    ),
    Key(
        *("chat.stop", "escape", "stop", "Stop; twice: edit your last message", "Answer"),
        hint="What has arrived is kept; a queued message comes back into the prompt",
        palette=True,
    ),
    Key(
        *("chat.regenerate", "ctrl+r", "regenerate", "Answer again", "Answer"),
        hint="A new answer beside the last one, which is kept",
        palette=True,
    ),
    Key("chat.copy_answer", "ctrl+y", "copy_answer", "Copy the last answer", "Answer", "As Markdown", palette=True),
    Key(
        *("chat.fold", "ctrl+o", "fold", "Fold or unfold all thinking", "Answer"),
        palette=True,
    ),
    Key(
        *("chat.new", "ctrl+n", "new", "New conversation", "Conversations"),
        hint="The one you leave goes on answering",
        palette=True,
    ),
    Key(
        *("chat.sidebar", "ctrl+b", "sidebar", "Show or hide the conversations", "Conversations"),
        palette=True,
    ),
    Key(
        *("chat.search", "ctrl+s", "search", "Search all conversations", "Conversations"),
        hint="Every word you or a model wrote",
        palette=True,
    ),
    Key(
        *("chat.parameters", "f2", "parameters", "Parameters of the conversation", "Conversations"),
        hint="System prompt, temperature, length of an answer ...",
        palette=True,
    ),
    Key(
        *("chat.models", "ctrl+l", "models", "Models: use, download, make smaller", "Look around"),
        hint="The conversation goes on with the one you choose",
        palette=True,
    ),
    Key(
        *("chat.settings", "f3", "settings", "Settings", "Look around"),
        hint="Theme, model to begin with, thinking, KV cache, text only ...",
        palette=True,
    ),
    Key(
        *("app.training", "f5", "training", "Training: runs, a new one, its curves", "Look around"),
        hint="Fine-tune a model on examples of your own",
        palette=True,
    ),
    Key("chat.get_offered", "f4", "get_offered", "Download the model that the welcome offers"),
    Key(
        *("chat.tools", "f8", "tools", "Tools on or off", "Conversations"),
        hint="Calculator and clock, and files below a folder that you allow",
        palette=True,
    ),
    Key(
        *("chat.preset", "f9", "preset", "Presets: choose, save, rename", "Conversations"),
        hint="A system prompt, sampling parameters and thinking, under a name",
        palette=True,
    ),
    Key("list.open", "enter", "select", "Open the marked conversation", "Conversations"),
    Key("list.rename", "r", "screen.rename", "Rename the marked conversation", "Conversations"),
    Key("list.pin", "p", "screen.pin", "Pin it to the top, or not", "Conversations"),
    Key("list.tag", "t", "screen.tag", "Tags of the marked conversation", "Conversations"),
    Key("list.delete", "delete,backspace", "screen.delete", "Delete the marked conversation", "Conversations"),
    Key("list.undelete", "u,ctrl+z", "screen.undelete", "Bring back what was deleted", "Conversations"),
    Key(
        *("chat.message_above", "ctrl+up", "message_above", "Select the message above", "A selected message"),
        hint="Then e edits, r answers again, c copies, y copies code, [ and ] show other versions",
        palette=True,
    ),
    Key("chat.message_below", "ctrl+down", "message_below", "Select the message below", "A selected message"),
    Key("message.edit", "e", "want('edit')", "Edit your message, as a new version", "A selected message"),
    Key("message.again", "r", "want('again')", "Answer again, as a new version", "A selected message"),
    Key("message.go_on", "g", "want('go_on')", "Go on where it was stopped", "A selected message"),
    Key("message.copy", "c", "want('copy')", "Copy the message", "A selected message"),
    Key("message.copy_code", "y", "want('code')", "Copy its code; again: the next block", "A selected message"),
    Key(
        *("message.version_before", "left_square_bracket", "want('before')", "The version before"),
        "A selected message",
    ),
    Key(
        *("message.version_after", "right_square_bracket", "want('after')", "The version after"),
        "A selected message",
    ),
    Key("message.fold", "space,enter", "want('fold')", "Fold or unfold its thinking", "A selected message"),
    Key("message.above", "up", "screen.message_above", "The message above"),
    Key("message.below", "down", "screen.message_below", "The message below"),
    Key("chat.follow", "ctrl+end", "follow", "Back to the newest line", "Look around", palette=True),
    Key("thinking.toggle", "enter,space", "press", "Fold or unfold"),
    Key("chip.remove", "delete,backspace,enter", "remove", "Take a file away (tab goes to it)", "Write"),
    Key("choice.press", "enter,space", "press", "Answer the question"),
    Key("choice.next", "right,down", "other(1)", "The next answer"),
    Key("choice.previous", "left,up", "other(-1)", "The answer before"),
    Key(
        *("app.copy_or_stop", "ctrl+c,super+c", "copy_or_stop", "Copy the selection; else stop; twice: quit", "Answer"),
        priority=True,
    ),
    Key("app.palette", "ctrl+p", "command_palette", "All commands", "Look around", priority=True),
    Key("app.help", "f1", "help", "This help; also ? in an empty prompt", "Look around", palette=True),
    Key(
        "app.quit", "ctrl+q", "quit", "Quit", "Look around", "An answer that runs is kept as far as it came", True, True
    ),
    Key("app.focus_next", "tab", "focus_next", "Next part of the screen", "Look around"),
    Key("app.focus_previous", "shift+tab", "focus_previous", "Previous part of the screen", "Look around"),
)


def bindings(owner: Owner) -> list[BindingType]:
    """The bindings of one widget, screen or the app."""
    return [
        Binding(key.keys, key.action, key.title, show=False, priority=key.priority, id=key.id)
        for key in KEYS
        if key.owner == owner
    ]


def shown(keys: str) -> str:
    """The first of some Textual key names, as it is written in the interface."""
    names = {"escape": "esc", "pageup": "page up", "pagedown": "page down", "up": "↑", "down": "↓"}
    names |= {"left_square_bracket": "[", "right_square_bracket": "]"}
    parts = keys.split(",")[0].split("+")
    return "+".join(names.get(part, part) for part in parts)


def all_shown(keys: str) -> str:
    """All of some key names: "shift+enter, ctrl+j"."""
    return ", ".join(shown(key) for key in keys.split(",") if not key.startswith("super+"))
