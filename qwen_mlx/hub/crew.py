"""Work in threads while the one who asked can be interrupted: what they tell comes out as a stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen_mlx.events import CancelToken

_POLL = 0.1  # seconds between two looks at the cancel token
_FAREWELL = 0.7  # seconds a thread gets to end after it was told to


class Crew:
    """Runs tasks in daemon threads.

    Args:
        cancel: the token of whoever asked.
        stop: called once to make the threads return; what they do after that must leave no trace.
    """

    def __init__(self, cancel: CancelToken, stop: Callable[[], None]) -> None:
        self._cancel = cancel
        self._stop = stop
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tell(self, message: Any) -> None:
        """For a task: hand something to the one who listens."""
        self._told.put(message)

    def run(self, tasks: Sequence[Callable[[], Any]], workers: int = 1) -> Iterator[Any]:
        """Do all tasks; yields what they tell, and None whenever a moment passed.

        Raises:
            Cancelled: the token was set.
            Exception: the first one a task raised; the others are stopped.
        """
        waiting: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name="qwen-mlx pull", daemon=True)
            for _ in range(min(workers, len(tasks)))
        ]
        done = False
        try:
            for thread in threads:
                thread.start()
            left = len(threads)
            while left:
                self._cancel.raise_if_cancelled()
                try:
                    message = self._told.get(timeout=_POLL)
                except queue.Empty:
                    yield None
                    continue
                if isinstance(message, BaseException):
                    raise message
                if message is _ENDED:
                    left -= 1
                else:
                    yield message
            done = True
        finally:
            if not done:
                self._stop()
                end = time.monotonic() + _FAREWELL
                for thread in threads:
                    if thread.is_alive():
                        thread.join(max(0.0, end - time.monotonic()))

    def _work(self, waiting: queue.SimpleQueue[Callable[[], Any]]) -> None:
        try:
            while True:
                try:
                    task = waiting.get_nowait()
                except queue.Empty:
                    self.tell(_ENDED)
                    return
                task()
        except BaseException as problem:
            self.tell(problem)


_ENDED = object()
