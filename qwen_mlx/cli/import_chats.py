"""`qwen-mlx import-chats`: conversations of other programs become conversations of ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qwen_mlx.cli.work import add_quiet_options, follow
from qwen_mlx.events import ChatsImported, Event

USAGE = "qwen-mlx import-chats FILE [options]"
DESCRIPTION = """\
Reads ChatGPT's export (conversations.json, or the .zip as it is sent), Open WebUI's export (.json), oterm's store.db
and what `/export json` of the app writes. Branches are kept. What was imported before is left alone, so the same file,
or a newer one, can be imported again. Pictures, sound and the results of tools are left out."""
EPILOG = """\
oterm keeps its store in ~/.local/share/oterm/store.db, on a Mac in ~/Library/Application Support/oterm/store.db."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", help="what the other program wrote")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be imported")
    add_quiet_options(parser)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx import paths
    from qwen_mlx.chat.history import History
    from qwen_mlx.chat.import_chats import iter_import

    def show(event: Event) -> None:
        if isinstance(event, ChatsImported):
            print("\n".join(lines(event, args.dry_run)), file=sys.stderr)

    with History(paths.history_file()) as history:
        follow(iter_import(history, Path(args.source), dry_run=args.dry_run), args, show)
    return 0


def lines(event: ChatsImported, dry_run: bool = False) -> list[str]:
    """What a person wants to know of it."""
    verb = "would be imported" if dry_run else "imported"
    found = [f"{event.program}: {_count(event.imported, 'conversation')} {verb}, {_count(event.messages, 'message')}"]
    if event.known:
        found.append(f"{event.known:,} were here already")
    if event.empty:
        found.append(f"{_count(event.empty, 'entry', 'entries')} without a message")
    return found


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
