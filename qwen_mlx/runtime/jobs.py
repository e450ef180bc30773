"""A submitted job while it waits, runs and is read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from qwen_mlx.events import FINAL_EVENTS, CancelToken, Event, Job


class Handle:
    """Implements `events.JobHandle`: one thread puts events, another takes them, on its own clock."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.token = CancelToken()
        self._events: deque[Event] = deque()
        self._arrived = threading.Condition()
        self._finished = False

    def cancel(self) -> None:
        self.token.cancel()

    def put(self, event: Event) -> None:
        """Called by the runtime thread; costs no more than an append when nobody waits."""
        with self._arrived:
            self._events.append(event)
            self._arrived.notify()

    def drain(self) -> list[Event]:
        with self._arrived:
            events = list(self._events)
            self._events.clear()
        if events and isinstance(events[-1], FINAL_EVENTS):
            self._finished = True
        return events

    @property
    def finished(self) -> bool:
        return self._finished

    def __iter__(self) -> Iterator[Event]:
        while not self._finished:
            with self._arrived:
                # A timeout, so that Ctrl-C is heard on every platform while nothing arrives.
                while not self._events:
                    self._arrived.wait(0.5)
                event = self._events.popleft()
            if isinstance(event, FINAL_EVENTS):
                self._finished = True
            yield event
