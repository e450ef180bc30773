"""When Python may look for garbage: never in the middle of a streamed answer.

A full collection walks every widget on screen, a stall a person sees. Long-lived objects are therefore taken out
of the collector's sight (`gc.freeze`) once the screen stands, and while an answer streams only the young
generations are collected. The full collection comes when nothing moves.
"""

from __future__ import annotations

import gc
import sys

_STREAMING = (20_000, 20, 1_000_000)  # the last number keeps full collections away
_FULL_EVERY = 10  # times
_SWITCH_SECONDS = 0.001  # lets the interface have the interpreter sooner while the model thread computes


class GarbagePolicy:
    """Owned by the app; `close` puts everything back as it was."""

    def __init__(self) -> None:
        self._threshold = gc.get_threshold()
        self._switch = sys.getswitchinterval()
        self._streaming = False
        self._settled = 0

    @property
    def streaming(self) -> bool:
        return self._streaming

    def start_streaming(self) -> None:
        if not self._streaming:
            self._streaming = True
            gc.set_threshold(*_STREAMING)
            sys.setswitchinterval(_SWITCH_SECONDS)

    def stop_streaming(self) -> None:
        if self._streaming:
            self._streaming = False
            gc.set_threshold(*self._threshold)
            sys.setswitchinterval(self._switch)

    def settle(self) -> None:
        """Collect what is garbage and take the rest out of sight; call it when nothing moves.

        Only what came since the last time is looked through, which is quick; every now and then it is everything,
        since a widget that went may be part of a cycle that was out of sight.
        """
        if self._streaming:
            return
        self._settled += 1
        if self._settled % _FULL_EVERY == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        self.stop_streaming()
        gc.unfreeze()
