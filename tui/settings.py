"""What can be chosen on the settings screen: names of preferences, words for their values, what they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tui.preferences import Preferences

Choice = tuple[Any, str]
"""A value of a preference, and the word for it."""


@dataclass(frozen=True)
class Setting:
    """One line of the screen.

    Attributes:
        name: of the property of `Preferences`.
        title: what it is called.
        help: what it does, in one short sentence.
        choices: what can be meant; empty for one that has a screen of its own.
    """

    name: str
    title: str
    help: str
    choices: tuple[Choice, ...] = ()

    def word(self, value: Any) -> str:
        """The word for a value; a value that is no choice any more is shown as it is."""
        return next((word for known, word in self.choices if known == value), str(value))

    def after(self, value: Any, step: int) -> Any:
        """The value `step` choices further, the first one after the last, and for what is no choice any more."""
        values = [known for known, _ in self.choices]
        return values[(values.index(value) + step) % len(values)] if value in values else values[0]


ON_OFF: tuple[Choice, ...] = ((True, "on"), (False, "off"))
LAST_USED: Choice = (None, "the one used last")


def settings(themes: Sequence[str], models: Sequence[str]) -> tuple[tuple[str, tuple[Setting, ...]], ...]:
    """The groups of the screen with their settings.

    Args:
        themes: names of all themes, in the order in which they are offered.
        models: names of the models that can be used here.
    """
    looks = (
        Setting("theme", "Theme", "The colours of everything", tuple((name, name) for name in themes)),
        Setting(
            *("list_shown", "List of conversations", "Beside the messages; ctrl+b shows and hides it"),
            ((None, "where there is room"), (False, "hidden")),
        ),
        Setting(
            *("list_width", "Width of the list", "A wide one shows more of the titles"),
            (("narrow", "narrow"), ("wide", "wide")),
        ),
        Setting(
            *("thinking_open", "Thinking is", "One line that unfolds, or all of its text"),
            ((False, "folded"), (True, "open")),
        ),
        Setting("text", "Text only", "No frames, no symbols, no colours: for screen readers", ON_OFF),
    )
    answers = (
        Setting(
            *("default_model", "Model to begin with", "Also ctrl+s on the screen of the models"),
            (LAST_USED, *((name, name) for name in models)),
        ),
        Setting(
            *("thinking", "Thinking first", "Of models that can do both; ctrl+t changes it for a while"),
            (("auto", "as the model likes"), ("on", "on"), ("off", "off")),
        ),
        Setting("sampling", "Parameters of new conversations", "Temperature, length of an answer and the like"),
        Setting(
            *("kv_bits", "KV cache", "Fewer bits let longer texts fit; the model is loaded again"),
            ((None, "as computed"), ("8", "8 bits"), ("8/4", "8 bits, values in 4"), ("4", "4 bits")),
        ),
        Setting("titles", "Titles by the model", "It names a new conversation after its first answer", ON_OFF),
        Setting(
            *("announce", "End of a long answer", "After ten seconds; a message comes from the desktop, if it can"),
            (("off", "nothing"), ("bell", "rings"), ("message", "rings, with a message")),
        ),
    )
    return ("How it looks", looks), ("How it answers", answers)


def word_of(setting: Setting, preferences: Preferences, now: Any) -> str:
    """What stands on the line: `now` is the value in use, which a start with options may have changed."""
    if setting.name == "sampling":
        chosen = preferences.sampling
        return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in chosen.items()) or "the model's own"
    return setting.word(now)
