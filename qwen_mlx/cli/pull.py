"""`qwen-mlx pull`: download a model, or go on with it."""

from __future__ import annotations

import argparse
import re
import sys

from qwen_mlx.cli.json_events import JsonWriter
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.errors import Cancelled, QwenError, UsageError
from qwen_mlx.events import (
    CancelToken,
    Event,
    JobCancelled,
    JobFailed,
    Notice,
    Progress,
    PullFinished,
    PullPlanned,
)

USAGE = "qwen-mlx pull MODEL [options]"
DESCRIPTION = """\
Downloads a model into the Hugging Face cache, where other programs find it too. Ctrl-C, a lost connection or a crash
lose nothing: the same command goes on. Every file is compared with the checksum that the hub lists."""
EPILOG = """\
MODEL is a name such as qwen3:8b or qwen3:8b-4bit, a repository such as Qwen/Qwen3-8B[@REVISION],
hf.co/ORGANISATION/REPOSITORY:Q4_K_M for one file out of many, modelscope:ORGANISATION/REPOSITORY, or an alias.
HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean elsewhere."""

_INTERRUPTED = 130
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)i?B?(?:/s)?", re.IGNORECASE)
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what to download")
    parser.add_argument("--revision", metavar="R", help="a branch, tag or commit instead of the newest")
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help='these files instead of what a model needs, such as "*.gguf"; may be repeated',
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be downloaded")
    parser.add_argument("--limit-rate", type=_rate, metavar="RATE", help="at most so many bytes per second: 500k, 5M")
    parser.add_argument("--repair", action="store_true", help="first verify what is there, and replace what is damaged")
    parser.add_argument("--offline", action="store_true", help="do not use the network; fail unless the model is here")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the folder of the model")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before a model that is too big for memory")
    parser.add_argument("--json", action="store_true", help="every event as one line of JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub.pull import PullOptions, pull

    options = PullOptions(
        revision=args.revision,
        include=args.include,
        dry_run=args.dry_run,
        offline=args.offline,
        repair=args.repair,
        limit_rate=args.limit_rate,
    )
    writer = PullWriter(Terminal(sys.stderr), quiet=args.quiet or args.json)
    json_writer = JsonWriter(sys.stdout) if args.json else None
    asking = not (args.yes or args.quiet or args.json or args.dry_run)
    cancel = CancelToken()
    events = pull(args.model, options, cancel)
    try:
        for event in events:
            if json_writer:
                json_writer.show(event)
            writer.show(event)
            if isinstance(event, PullPlanned) and not writer.quiet:
                _say_whether_it_fits(event, writer, asking)
    except (KeyboardInterrupt, Cancelled):
        cancel.cancel()
        writer.interrupted()
        if json_writer:
            json_writer.show(JobCancelled())
        return _INTERRUPTED
    except QwenError as problem:
        if json_writer:
            json_writer.show(JobFailed(str(problem), True, problem.exit_code))
        raise
    finally:
        events.close()  # type: ignore[attr-defined]
        writer.close()
    if writer.folder and not args.json and not args.dry_run:
        print(writer.folder)
    return 0


class PullWriter:
    """A pull for people: the plan, a line that moves, notices, and the end. Where no line can move: every tenth."""

    def __init__(self, err: Terminal, quiet: bool = False) -> None:
        self.quiet = quiet
        self.folder: str | None = None
        self.err = err
        self._status = StatusLine(err)
        self._last: Progress | None = None
        self._tenth = 0

    def show(self, event: Event) -> None:
        if isinstance(event, PullFinished):
            self.folder = event.folder
        if self.quiet:
            return
        if isinstance(event, Progress):
            self._progress(event)
            return
        self._status.clear()
        if isinstance(event, Notice):
            self.err.line(f"note: {event.text}")
        elif isinstance(event, PullPlanned):
            self._plan(event)
        elif isinstance(event, PullFinished):
            self._finish(event)

    def close(self) -> None:
        self._status.clear()

    def interrupted(self) -> None:
        self._status.clear()
        if self.quiet:
            return
        if self._last is not None and self._last.total:
            have = f"{format_bytes(self._last.done)} of {format_bytes(self._last.total)} are here"
            self.err.line(f"stopped; {have}, and the same command goes on")
        else:
            self.err.line("stopped before anything was downloaded")

    def _plan(self, event: PullPlanned) -> None:
        where = "" if event.source == "hf" else "modelscope:"
        name = f"{where}{event.repository}"
        arrow = "" if event.reference == name else f"{event.reference} is "
        self.err.line(f"{arrow}{name} at {event.revision} ({event.commit[:8]})")
        files = f"{len(event.files)} file{'s' if len(event.files) != 1 else ''}, {format_bytes(event.size)}"
        if event.missing == 0:
            rest = "all here"
        elif event.missing < event.size:
            rest = f"{format_bytes(event.missing)} of it to download"
        else:
            rest = "to download"
        self.err.line(f"{files} {rest}" if rest == "to download" else f"{files}; {rest}")

    def _progress(self, event: Progress) -> None:
        self._last = event
        if self.err.movable:
            self._status.show(describe(event))
            return
        tenth = 10 * event.done // event.total if event.total else 0
        if event.stage == "downloading" and tenth > self._tenth:
            self._tenth = tenth
            self.err.line(describe(event))

    def _finish(self, event: PullFinished) -> None:
        if event.dry_run:
            return
        if not event.fetched:
            self.err.line("nothing to download")
            return
        speed = f", {format_bytes(event.received / event.seconds)}/s" if event.seconds > 1 else ""
        self.err.line(f"done: {format_bytes(event.received)} in {_time(event.seconds)}{speed}; every checksum is right")


def describe(event: Progress) -> str:
    """`downloading:  45 %  2.1 of 4.6 GB  85.2 MB/s  0:32 left`, in at most 72 characters."""
    total = event.total or 0
    share = f"{100 * event.done // total if total else 0:3d} %"
    parts = [f"{event.stage}: {share}", f"{format_bytes(event.done)} of {format_bytes(total)}"]
    if event.speed:
        parts.append(f"{format_bytes(event.speed)}/s")
    if event.remaining is not None:
        parts.append(f"{_time(event.remaining)} left")
    return "  ".join(parts)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _say_whether_it_fits(event: PullPlanned, writer: PullWriter, asking: bool) -> None:
    """Compare the model with this machine's memory, before the download. Raises `Cancelled` after a "no"."""
    from qwen_mlx.cli import fitting
    from qwen_mlx.evaluation.fitting import judge, numbers_of_config

    weights = sum(size for name, size in event.files.items() if name.endswith((".safetensors", ".gguf")))
    if event.config is None or not weights:
        return
    try:
        found = judge(numbers_of_config(event.config, weights))
    except QwenError as problem:
        writer.err.line(f"note: qwen-mlx may not be able to use it: {problem}")
        return
    writer.err.line(f"memory: {fitting.verdict_line(found)}")
    for line in fitting.advice_lines(found):
        writer.err.line(f"  {line}")
    if found.verdict == "too big" and asking and event.missing and sys.stdin.isatty() and writer.err.is_terminal:
        writer.err.write("Download it all the same? [y/N] ")
        if not sys.stdin.readline().strip().lower().startswith("y"):
            raise Cancelled()


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--limit-rate {text!r} is not a speed", expected="bytes per second, such as 500k or 5M")
    return float(match[1]) * _UNITS[match[2].lower()]
