"""Numbers, times and titles as words of the interface. Pure functions; widths are terminal cells."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from tui.clock import Clock
from tui.sanitize import sanitize

TITLE_WIDTH = 60
GROUPS = ("Pinned", "Today", "Yesterday", "Previous 7 days", "Older")


def shorten(text: str, width: int) -> str:
    """`text` on one line, without control characters, in at most `width` cells, with "…" where something is missing."""
    line = " ".join(sanitize(text).split())
    if cell_len(line) <= width:
        return line
    return set_cell_size(line, max(0, width - 1)).rstrip() + "…" if width > 0 else ""


def pad(text: str, width: int) -> str:
    """`text` shortened or filled up to exactly `width` cells."""
    return set_cell_size(shorten(text, width), max(0, width))


def title_of(text: str) -> str:
    """The title of a conversation that begins with `text`: its first line with something on it."""
    lines = (line.strip().lstrip("#>*- ").strip() for line in text.splitlines())
    return shorten(next((line for line in lines if line), "New conversation"), TITLE_WIDTH)


def sentence(error: object) -> str:
    """An error as a sentence: a large letter first, a full stop last."""
    text = str(error).strip() or type(error).__name__
    if "://" not in text.split(" ")[0]:
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def duration(seconds: float) -> str:
    """ "0.4 s", "12.4 s", "2 min 05 s"."""
    seconds = max(0.0, seconds)
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def tokens(count: int) -> str:
    """ "1 token", "1,204 tokens"."""
    return f"{count:,} token{'' if count == 1 else 's'}"


def brief(count: int) -> str:
    """A count in at most four characters: "834", "1.2k", "33k", "1.0M"."""
    if count < 1000:
        return str(count)
    for unit, size in (("k", 1000), ("M", 1000_000), ("G", 1000_000_000)):
        value = count / size
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{count / 1e12:.1f}T"


def size(count: int) -> str:
    """Bytes: "512 B", "1.2 GB"; a thousand at a time, as Apple counts."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def meter(part: float, width: int) -> str:
    """A bar of `width` cells; anything above nothing shows at least one full cell."""
    part = min(1.0, max(0.0, part))
    full = round(part * width)
    if part > 0:
        full = max(1, full)
    return "▰" * full + "▱" * (width - full)


def ago(then: float, now: float, clock: Clock) -> str:
    """A short relative time: "now", "5m", "3h", "Tue", "21 Nov", "2024"."""
    passed = max(0.0, now - then)
    if passed < 60:
        return "now"
    if passed < 3600:
        return f"{int(passed // 60)}m"
    moment, today = clock.local(then), clock.local(now)
    days = (today.date() - moment.date()).days
    if days == 0:
        return f"{int(passed // 3600)}h"
    if days < 7:
        return f"{moment:%a}"
    return f"{moment.day} {moment:%b}" if moment.year == today.year else f"{moment.year}"


def group_of(then: float, now: float, clock: Clock) -> str:
    """The heading of the conversation list under which a time belongs, by calendar days."""
    days = (clock.local(now).date() - clock.local(then).date()).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    return "Previous 7 days" if days <= 7 else "Older"
