"""Following a long job that runs in this process: a line that moves, notes, or every event as JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from qwen_mlx.cli.asking import confirm
from qwen_mlx.cli.json_events import JsonWriter
from qwen_mlx.cli.pull import describe as describe_bytes
from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.errors import Cancelled, QwenError
from qwen_mlx.events import Event, JobCancelled, JobFailed, Notice, Progress

Show = Callable[[Event], None]


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that writes a model."""
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the new model goes")
    parser.add_argument("--force", action="store_true", help="replace a model that is there, once the new one is done")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    add_yes_option(parser)
    add_quiet_options(parser)


def add_yes_option(parser: argparse.ArgumentParser) -> None:
    """For commands with `--force`, which is enough for a script: only a person at a terminal is asked."""
    parser.add_argument(
        "-y", "--yes", action="store_true", help="in a terminal, do not ask before --force replaces something"
    )


def add_quiet_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is printed."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="every event as one line of JSON")


def ask_before_replacing(args: argparse.Namespace) -> None:
    """Ask the person at the terminal, if there is one. Raises `Cancelled` after a "no"."""
    try:
        target = Path(args.output).expanduser()
        there = target.is_file() or (target / "config.json").is_file()
    except (OSError, ValueError, RuntimeError):
        return  # a name that cannot be: the job will say so
    somebody = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if args.force and there and somebody and not args.dry_run:
        confirm(f"Replace {args.output}?", args.yes)


def follow(events: Iterator[Event], args: argparse.Namespace, show: Show) -> Event:
    """Run a job to its end; the last event.

    Args:
        show: told of every event but progress and notes, unless `args` ask for quiet or JSON.

    Raises:
        Cancelled: Ctrl-C; the job has cleaned up behind itself.
        QwenError: whatever the job raised.
    """
    err = Terminal(sys.stderr)
    status = StatusLine(err)
    json_writer = JsonWriter(sys.stdout) if args.json else None
    silent = args.quiet or args.json
    last: Event | None = None
    try:
        for last in events:
            if json_writer:
                json_writer.show(last)
            if silent:
                continue
            if isinstance(last, Progress):
                status.show(describe(last))
                continue
            status.clear()
            if isinstance(last, Notice):
                err.line(f"note: {last.text}")
            else:
                show(last)
    except (KeyboardInterrupt, Cancelled):
        events.close()  # type: ignore[attr-defined]
        status.clear()
        if json_writer:
            json_writer.show(JobCancelled())
        elif not args.quiet:
            err.line("stopped; nothing was left behind")
        raise Cancelled() from None
    except QwenError as problem:
        if json_writer:
            json_writer.show(JobFailed(str(problem), True, problem.exit_code))
        raise
    finally:
        status.clear()
    assert last is not None
    return last


def describe(event: Progress) -> str:
    """`write:  45 %  2.1 GB of 4.6 GB  85.2 MB/s  0:32 left`, or a count of something else than bytes."""
    if event.unit == "bytes":
        return describe_bytes(event)
    share = f"{100 * event.done // event.total:3d} %  " if event.total else ""
    total = "" if event.total is None else f" of {event.total:,}"
    return f"{event.stage}: {share}{event.done:,}{total} {event.unit}"
