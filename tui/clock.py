"""What time it is, for everything on screen: tests put in their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo


@dataclass(frozen=True)
class Clock:
    """Seconds since 1970 (`wall`), seconds that never jump (`monotonic`), and the zone of the person (None: local)."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    zone: tzinfo | None = None

    def local(self, seconds: float) -> datetime:
        """A time since 1970 as the person's wall clock shows it."""
        return datetime.fromtimestamp(seconds, self.zone)
