"""Stop strings: text that ends a reply and is not part of it, found in a stream."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_mlx.errors import UsageError


class StopStrings:
    """Watches a streamed reply for any of several strings.

    The reply ends where the first of them begins, however the text is cut into pieces; of two that begin at the
    same place the reply is the same. Text that may be the beginning of one is held back.

    Raises:
        UsageError: an empty stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str):
            stops = (stops,)
        if not all(stops):
            raise UsageError("a stop string is empty", hint="It would end every reply at once; leave it out.")
        self._stops = tuple(dict.fromkeys(stops))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> tuple[str, bool]:
        """The reply goes on with `text`.

        Returns:
            The text that is certainly part of the reply, and whether the reply is over. After that, nothing is.
        """
        if self.stopped:
            return "", True
        self._held += text
        end = self._first_stop()
        waits = self._first_beginning(len(self._held) if end is None else end)
        if end is not None and waits == end:
            return self._stop(end), True
        safe, self._held = self._held[:waits], self._held[waits:]
        return safe, False

    def finish(self) -> str:
        """The model ended the reply: what was held back. Sets `stopped` if a stop string was among it."""
        if self.stopped:
            return ""
        end = self._first_stop()
        if end is not None:
            return self._stop(end)
        rest, self._held = self._held, ""
        return rest

    def _stop(self, end: int) -> str:
        safe, self._held = self._held[:end], ""
        self.stopped = True
        return safe

    def _first_stop(self) -> int | None:
        places = [place for place in map(self._held.find, self._stops) if place >= 0]
        return min(places, default=None)

    def _first_beginning(self, limit: int) -> int:
        """The first place before `limit` where the held text ends inside a stop string, else `limit`."""
        for place in range(max(0, len(self._held) - self._longest + 1), limit):
            rest = self._held[place:]
            if any(stop.startswith(rest) for stop in self._stops):
                return place
        return limit
