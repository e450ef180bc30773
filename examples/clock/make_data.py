"""Makes train.jsonl, valid.jsonl and test.jsonl: times of the 24-hour clock, told with am and pm, and back.

A time is in one of the three files only, so the questions of test.jsonl were never learnt. Nothing here is taken from
anywhere; do with it what you like.

python examples/clock/make_data.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
TO_TWELVE = (
    "What is {} in am/pm?",
    "Write {} with am or pm.",
    "How do you say {} on a 12-hour clock?",
)
TO_TWENTY_FOUR = (
    "What is {} in 24-hour time?",
    "Write {} without am and pm.",
    "How do you say {} on a 24-hour clock?",
)


def twelve(hour: int, minute: int) -> str:
    """`17:05` -> "5:05 pm"; midnight is 12:00 am, noon 12:00 pm."""
    return f"{(hour - 1) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}"


def number(*words: object) -> int:
    """The same for the same words, on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=6).digest(), "big")


def part(hour: int, minute: int) -> str:
    """Which file a time is in: 80 % train, 5 % valid, 15 % test."""
    place = number("part", hour, minute) % 100
    return "train" if place < 80 else "valid" if place < 85 else "test"


def questions(hour: int, minute: int, which: str) -> Iterator[tuple[str, str]]:
    """Questions about a time and their answers: all wordings to learn from, one each way to be judged by."""
    long, short = f"{hour:02}:{minute:02}", twelve(hour, minute)
    for wordings, asked, answer in ((TO_TWELVE, long, short), (TO_TWENTY_FOUR, short, long)):
        if which != "train":
            wordings = (wordings[number("wording", hour, minute) % len(wordings)],)
        for wording in wordings:
            yield wording.format(asked), answer


def rows(which: str) -> list[str]:
    """The lines of one file, in an order that has nothing to do with the clock."""
    lines = []
    for hour in range(24):
        for minute in range(60):
            if part(hour, minute) == which:
                for question, answer in questions(hour, minute, which):
                    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                    lines.append(json.dumps({"messages": turns}))
    return sorted(lines, key=lambda line: number("order", line))


def main() -> None:
    for which, most in (("train", 1800), ("valid", 60), ("test", 200)):
        lines = rows(which)[:most]
        (HERE / f"{which}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{which}.jsonl: {len(lines)} rows")


if __name__ == "__main__":
    main()
