"""`qwen-mlx verify`: whether a model is still what was downloaded."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from qwen_mlx.cli.json_events import JsonWriter
from qwen_mlx.cli.pull import describe
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.errors import CheckpointError, QwenError
from qwen_mlx.events import Event, FileProblem, Progress, VerifyFinished

USAGE = "qwen-mlx verify MODEL [options]"
DESCRIPTION = """\
Compares every file with the checksum the hub gave when the model was downloaded, and reads the headers of its weights
and their index. No network is used. What is damaged is fetched again by the next pull."""
EPILOG = "Exit code 0: all is well; 6: something is not."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, name or repository")
    parser.add_argument("--deep", action="store_true", help="also look at every number for NaN and infinity")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but what is wrong")
    parser.add_argument("--json", action="store_true", help="every event as one line of JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub.references import resolve

    folder = resolve(args.model)
    err = Terminal(sys.stderr)
    status = StatusLine(err)
    json_writer = JsonWriter(sys.stdout) if args.json else None
    finished = None
    for event in events(folder, deep=args.deep):
        if json_writer:
            json_writer.show(event)
        elif isinstance(event, Progress) and not args.quiet:
            status.show(describe(event))
        if isinstance(event, VerifyFinished):
            finished = event
    status.clear()
    assert finished is not None
    if not args.json:
        for line in _report(args.model, finished, args.quiet):
            print(line)
    return CheckpointError.exit_code if finished.problems else 0


def events(folder: Path, *, deep: bool = False) -> Iterator[Event]:
    """The events of `hub.verify`, with what headers, index and (`deep`) values show in the final one."""
    from qwen_mlx.hub.verify import verify

    for event in verify(folder):
        if not isinstance(event, VerifyFinished):
            yield event
            continue
        problems = list(event.problems)
        bad = {problem.file for problem in problems}
        if not any(folder.rglob("*.gguf")):
            problems += [problem for problem in _structure(folder) if problem.file not in bad]
        if deep and not problems:
            from qwen_mlx.cli.finite import not_finite

            problems += yield from not_finite(folder)
        yield dataclasses.replace(event, problems=tuple(problems))


def _structure(folder: Path) -> list[FileProblem]:
    """What a loader would complain of before it read a number."""
    from qwen_mlx.checkpoints.folder import find_weights, read_json

    checks = [lambda: read_json(folder / "config.json"), lambda: find_weights(folder).headers()]
    problems = []
    for name, check in zip(("config.json", "the weights"), checks):
        try:
            check()
        except QwenError as problem:
            text = str(problem).replace(f"{folder}/", "").replace(str(folder), "the folder")
            file = next((each for each in _names(folder) if each in text), name)
            problems.append(FileProblem(file, f"cannot be used: {text}"))
    return problems


def _names(folder: Path) -> list[str]:
    return sorted((file.name for file in folder.iterdir()), key=len, reverse=True)


def _report(name: str, finished: VerifyFinished, quiet: bool) -> Iterator[str]:
    for problem in finished.problems:
        yield f"{problem.file} {problem.what}"
    if finished.problems:
        files = len(finished.checked) + len(finished.problems)
        yield f"{len(finished.problems)} of {files} files are not right. {_mend(name, finished)}"
    elif not quiet:
        words = f"{len(finished.checked)} files, {format_bytes(finished.size)}: every checksum is right"
        if finished.unknown and not finished.checked:
            words = f"no checksums are known of {finished.folder}; headers and index are right"
        elif finished.unknown:
            words += f"; of {', '.join(finished.unknown)} none is known"
        yield words


def _mend(name: str, finished: VerifyFinished) -> str:
    from qwen_mlx.hub.references import parse

    if isinstance(parse(name), Path):
        return "Get these files again from where they came."
    shown = name if re.fullmatch(r"[\w./:@+-]+", name) else repr(name)
    return f"`qwen-mlx pull {shown}` fetches only these again."
