"""Ctrl-C while a library is being imported.

Some of them, numpy among them, take whatever goes wrong while they start for a broken installation, and raise an error
of their own. So the signal itself is noted, beside what Python makes of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import TracebackType


class Interruptions:
    """Notes SIGINT while its block runs; handlers stay as they are. Does nothing outside of the main thread."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            os.set_blocking(writer, False)
            before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            if before != -1:  # somebody else needs it
                signal.set_wakeup_fd(before)
            self._pipe = reader, writer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is None:
            return
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, self._pipe[1]):
            signal.set_wakeup_fd(current)
        for handle in self._pipe:
            os.close(handle)
        self._pipe = None

    def caused(self, error: BaseException) -> bool:
        """Whether Ctrl-C is behind an error: what it interrupted, or what an import made of it."""
        seen: BaseException | None = error
        importing = False
        while seen is not None:
            if isinstance(seen, KeyboardInterrupt):
                return True
            importing = importing or _in_an_import(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        return importing and self._came()

    def _came(self) -> bool:
        if self._pipe is None:
            return False
        with contextlib.suppress(OSError):  # nothing came
            return signal.SIGINT in os.read(self._pipe[0], 1 << 16)
        return False


def _in_an_import(trace: TracebackType | None) -> bool:
    """Whether it happened while the lines of a module ran for the first time; our own program has done that before."""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            return True
        trace = trace.tb_next
    return False
