"""An app on a stage: a scripted runtime, a store in a temporary folder, a clock that is set by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from datetime import timezone
from pathlib import Path

from qwen_mlx.chat.history import History
from tests.tui.fake_runtime import FakeRuntime, Script
from tui.app import QwenApp
from tui.clock import Clock
from tui.screens.chat import ChatScreen
from tui.widgets.chat_log import ChatLog
from tui.widgets.message import AssistantMessage
from tui.widgets.prompt import Prompt

START = 1795262400.0  # a Saturday, 12:00 in UTC
PATIENCE = float(os.environ.get("PATIENCE", "20"))


class StageClock:
    """Stands still until `pass_by`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(lambda: START + self.seconds, lambda: 100.0 + self.seconds, timezone.utc)


class Stage:
    """Use as an async context manager; the app runs inside.

    Args:
        folder: for the store and the prompt file, which outlive the app.
        replies: scripts, see `FakeRuntime`.
        size: columns and lines.
        runtime: instead of `replies`.
        toasts_shown: put notifications on screen, too.
        options: of `QwenApp`.
    """

    def __init__(
        self,
        folder: Path,
        *replies: Script,
        size: tuple[int, int] = (120, 40),
        runtime: FakeRuntime | None = None,
        time_piece: StageClock | None = None,
        toasts_shown: bool = False,
        **options: object,
    ) -> None:
        self.folder = folder
        self.size = size
        self.runtime = runtime or FakeRuntime(*replies)
        self.time = time_piece or StageClock()
        self.toasts_shown = toasts_shown
        self.history = History(folder / "history.db")
        self.app = QwenApp(
            self.runtime,
            self.history,
            prompts=folder / "prompts.jsonl",
            preferences=folder / "preferences.json",
            clock=self.time.clock(),
            **options,
        )
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Stage:
        self._stack.callback(self.history.close)
        running = self.app.run_test(size=self.size, notifications=self.toasts_shown)
        self.pilot = await self._stack.enter_async_context(running)
        await self.until(lambda: self.app.chat.ready)
        await self.pilot.pause()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------------------------------------------- waiting

    async def until(self, true: Callable[[], object], what: str = "") -> None:
        """Wait for something that will happen; a test never waits for time to pass."""
        end = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"this never became true: {what or true}\n{self.frame()}")
            await asyncio.sleep(0.02)

    async def idle(self) -> None:
        """Until no answer runs and none waits."""
        conductor = self.app.conductor
        await self.until(lambda: not conductor.busy and conductor.queued is None and not self.chat.pump.running, "idle")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def send(self, text: str) -> None:
        """Write a text and send it."""
        self.prompt.insert(text)
        await self.press("enter")

    async def ask(self, text: str) -> None:
        """Send a text and wait for the whole answer."""
        asked = len(self.runtime.asked)
        await self.send(text)
        await self.until(lambda: len(self.runtime.asked) > asked, f"{text!r} is asked")
        await self.idle()

    # ------------------------------------------------------------------------------------------------- looking

    @property
    def chat(self) -> ChatScreen:
        return self.app.chat

    @property
    def prompt(self) -> Prompt:
        return self.chat.query_one(Prompt)

    @property
    def log(self) -> ChatLog:
        return self.chat.log_widget

    @property
    def answers(self) -> list[AssistantMessage]:
        return self.log.answers

    @property
    def toasts(self) -> list[str]:
        """The texts of the notifications, oldest first."""
        return [notification.message for notification in self.app._notifications]

    def stored(self, conversation_id: int | None = None) -> list[tuple[str, str, str]]:
        """Role, content and status of what is on disk."""
        conversation_id = conversation_id or self.history.conversations()[0].id
        return [(m.role, m.content, m.status) for m in self.history.messages(conversation_id)]

    def frame(self) -> str:
        """What is on screen, as text."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)
