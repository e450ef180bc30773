"""When the screen takes what the model's thread has brought.

Not per token: each hand-over between threads costs both of them. On a timer instead, and seldomer when painting takes
long, so that at least half of the time is left for keys and for the model.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from textual.message_pump import MessagePump

SHORTEST = 1 / 20
SHORTEST_FAST = 1 / 15  # above FAST tokens per second the model's thread needs the interpreter more
FAST = 150
LONGEST = 0.5


class Pump:
    """Calls `advance` again and again while it is needed.

    Args:
        node: on whose timers and messages it runs.
        advance: takes and paints what has come.
        needed: whether more will come.
        speed: tokens per second, now.
    """

    def __init__(
        self,
        node: MessagePump,
        advance: Callable[[], Awaitable[None]],
        needed: Callable[[], bool],
        speed: Callable[[], float],
    ) -> None:
        self.running = False
        self._node = node
        self._advance = advance
        self._needed = needed
        self._speed = speed

    def start(self) -> None:
        """Begin, if it does not run already."""
        if not self.running:
            self.running = True
            self._node.set_timer(SHORTEST, self._tick)

    async def _tick(self) -> None:
        started = time.perf_counter()
        await self._advance()
        self.running = self._needed()
        if self.running:
            self._node.call_after_refresh(self._next, started)

    def _next(self, started: float) -> None:
        shortest = SHORTEST_FAST if self._speed() > FAST else SHORTEST
        cost = time.perf_counter() - started
        self._node.set_timer(min(max(shortest, 2 * cost), LONGEST), self._tick)
