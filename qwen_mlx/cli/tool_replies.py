"""An answer that may call tools, in a terminal: what is run is said, and a person is asked before a file is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from qwen_mlx.chat.steps import Call, Step, step_of
from qwen_mlx.chat.tool_loop import completed, next_reply, refused
from qwen_mlx.chat.tools import Toolbox
from qwen_mlx.cli import jobs
from qwen_mlx.cli.terminal import Terminal
from qwen_mlx.errors import UsageError
from qwen_mlx.events import Message, ModelInfo, Reply, ReplyFinished, Runtime, ToolRan

Allowed = Literal["once", "always", "no"]
Ask = Callable[[Call], Allowed]
_ANSWERS: Mapping[str, Allowed] = {"y": "once", "yes": "once", "a": "always", "always": "always"}


def ask_in_terminal(err: Terminal) -> Ask:
    """Asks on standard error; without a terminal to answer in, nothing is allowed."""

    def ask(call: Call) -> Allowed:
        if not sys.stdin.isatty():
            err.line(f"({describe(call)} was not allowed: nobody could be asked)", dim=True)
            return "no"
        err.end_line()
        try:
            err.write(f"The model wants to {describe(call)}. Allow it? [y]es, [a]lways, [N]o: ")
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            err.line()
            return "no"
        return _ANSWERS.get(answer.strip().lower(), "no")

    return ask


def describe(call: Call) -> str:
    """The call as a person reads it: `read_file notes.txt`."""
    values = [value if isinstance(value, str) else json.dumps(value) for value in call.arguments.values()]
    text = " ".join(" ".join([call.name, *values]).split())
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable if len(printable) <= 200 else printable[:199] + "…"


class ToolReplies:
    """Answers with tools; what a person allowed for good holds for the life of this object.

    Args:
        folder: what files may be read from, after asking; None for none.
        ask: asks a person.
    """

    def __init__(self, runtime: Runtime, folder: Path | None, ask: Ask) -> None:
        self._runtime = runtime
        self._toolbox = Toolbox(folder)
        self._ask = ask
        self._always = False

    def reply(self, job: Reply, listen: jobs.Listener) -> tuple[ReplyFinished, list[Message]]:
        """The last reply, and every message of the answer: calls, results, and the text.

        Raises as `jobs.reply`.
        """
        job = replace(job, tools=self._toolbox.described)
        steps: list[Step] = []
        asked = job
        while True:
            finished = jobs.reply(self._runtime, asked, listen)
            if not finished.message.tool_calls:
                done = list(next_reply(job, steps).messages[len(job.messages) :])
                return finished, [*done, finished.message]
            step = step_of(finished.message)
            calls = tuple(self._run(call, place, listen) for place, call in enumerate(step.calls))
            steps.append(replace(step, calls=calls))
            asked = next_reply(job, steps)

    def _run(self, call: Call, place: int, listen: jobs.Listener) -> Call:
        allowed = True
        if self._toolbox.asks_first(call.name) and not self._always:
            answer = self._ask(call)
            self._always = answer == "always"
            allowed = answer != "no"
        done = completed(call, self._toolbox, place) if allowed else refused(call)
        listen(ToolRan(done.name, done.arguments, done.result, done.outcome))
        return done


def check(info: ModelInfo) -> None:
    """Raises `UsageError` for a model that was never taught to call tools."""
    if not info.tools:
        raise UsageError(f"{info.name} cannot call tools: its chat template has no place for them")


def folder_of(path: str | None) -> Path | None:
    """The folder of `--tools-folder`. Raises `UsageError` if there is none."""
    if path is None:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--tools-folder {path} is no folder")
    return folder.resolve()
