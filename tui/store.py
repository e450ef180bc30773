"""The conversation store as the event loop sees it: every call runs on one thread of its own, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from qwen_mlx.chat.history import History
from qwen_mlx.errors import QwenError

Result = TypeVar("Result")


class Store:
    """Wraps a `History`. `on_error` hears of failed calls that nobody waits for."""

    def __init__(self, history: History, on_error: Callable[[QwenError], None]) -> None:
        self.history = history
        self._on_error = on_error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._posted: set[asyncio.Task[None]] = set()

    async def call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """The result of `function(*arguments, **options)`, a method of `history` as a rule."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*arguments, **options))

    def post(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """As `call`, without waiting. Calls keep their order, posted or not."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, lambda: function(*arguments, **options))
        task = loop.create_task(self._watch(future))
        self._posted.add(task)
        task.add_done_callback(self._posted.discard)

    @property
    def waiting(self) -> int:
        """How many posted calls are not done."""
        return len(self._posted)

    async def settle(self) -> None:
        """Wait until everything posted is on disk."""
        while self._posted:
            await asyncio.wait(set(self._posted))

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def _watch(self, future: asyncio.Future[Any]) -> None:
        try:
            await future
        except QwenError as error:
            self._on_error(error)
