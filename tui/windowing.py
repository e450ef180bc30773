"""Which messages of a conversation are on screen as widgets: a long one would make every frame slow."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 20  # mounted when a conversation is opened
FIRST = 6  # of which these at once, the others when there is time
BATCH = 4
STEP = 10  # more of them when a person asks for older ones
LIMIT = 40  # mounted at most while an answer is followed; then the oldest go, down to WINDOW


@dataclass(frozen=True)
class Window:
    """Messages `first` up to (not including) `total` are mounted."""

    first: int
    total: int

    @classmethod
    def open(cls, total: int) -> Window:
        """The few newest messages, with which a conversation appears."""
        return cls(max(0, total - FIRST), total)

    @property
    def mounted(self) -> int:
        return self.total - self.first

    def fill(self) -> Window:
        """The next batch on the way to `WINDOW` messages; the same window when it is reached."""
        return self.older(min(BATCH, max(0, WINDOW - self.mounted)))

    def older(self, count: int = STEP) -> Window:
        return Window(max(0, self.first - count), self.total)

    def grow(self, count: int = 1) -> Window:
        """After `count` new messages at the end."""
        return Window(self.first, self.total + count)

    def prune(self) -> Window:
        """Without the oldest ones, when there are more than `LIMIT`."""
        return Window(self.total - WINDOW, self.total) if self.mounted > LIMIT else self
