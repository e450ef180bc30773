"""What every message of the log can do: be selected, take a key, and show which of its versions it is."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Literal

from textual import events
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message

from tui.bindings import bindings
from tui.widgets.still import Still

PATIENCE = 2.0  # seconds that other keys wait for a slow disk
Wish = Literal["edit", "again", "go_on", "copy", "code", "before", "after", "fold"]


class SelectableMessage(Vertical):
    """A message that ctrl+up and ctrl+down can reach.

    A click does not select it: whoever clicks and then types means the prompt.
    """

    BINDINGS = bindings("message")
    FOCUS_ON_CLICK = False
    can_focus = True

    @dataclass
    class Wanted(Message):
        """A person wants something of this message."""

        message_id: int
        wish: Wish
        done: asyncio.Event = field(default_factory=asyncio.Event)  # set when it is done, or cannot be

    def __init__(self, message_id: int, classes: str) -> None:
        super().__init__(classes=classes)
        self.message_id = message_id

    def want(self, wish: Wish) -> None:
        """As a key does, without waiting."""
        self.post_message(self.Wanted(self.message_id, wish))

    async def action_want(self, wish: Wish) -> None:
        """Wait until it is done: the next key of a burst may be meant for what comes of it."""
        wanted = self.Wanted(self.message_id, wish)
        self.post_message(wanted)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wanted.done.wait(), PATIENCE)


class VersionRow(Still):
    """`‹ 2/3 ›`: this message is the second of three answers (or questions) at this place. Each half is a button."""

    def __init__(self, position: int, siblings: int) -> None:
        super().__init__(classes="versions")
        self._text = f"‹ {position}/{siblings} ›"
        self.update(Content(self._text))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        offset = event.get_content_offset(self)
        if offset is not None and offset.x < len(self._text) and isinstance(self.parent, SelectableMessage):
            self.parent.want("before" if offset.x < len(self._text) // 2 else "after")
