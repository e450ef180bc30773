"""`qwen-mlx`: finds the command, imports only what it needs, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from qwen_mlx import __version__
from qwen_mlx.cli.interruptions import Interruptions
from qwen_mlx.cli.parser import Parser
from qwen_mlx.errors import Cancelled, QwenError, UsageError

# Name, and what it does. The file of the same name has `add_arguments(parser)` and `run(args) -> exit code`.
COMMANDS = {
    "tui": "the terminal app (the same as `qwen-mlx` alone)",
    "chat": "ask one question, or talk line by line",
    "show": "what a model is, without loading it",
    "doctor": "what this machine offers, and what may be wrong with it",
    "bench": "measure how fast a model reads and writes",
    "pull": "download a model, or go on with it",
    "list": "the models on this machine",
    "fit": "whether a model fits into the memory of this machine",
    "verify": "whether a model is still what was downloaded",
    "rm": "delete models",
    "prune": "delete what downloads left over",
    "du": "how much room the models take",
    "alias": "own names for models",
    "convert": "rewrite a model as MLX likes it, or unpack it",
    "quantize": "make a model smaller",
    "import": "turn a GGUF, AWQ, GPTQ or FP8 model into one that runs here",
    "export": "write a model for other programs, as GGUF or plain safetensors",
    "import-chats": "take over the conversations of ChatGPT, Open WebUI or oterm",
    "eval": "how well a model predicts a text, and how far it is from another",
    "train": "fine-tune a model on your own rows; stop and resume at any moment",
    "data": "look at rows to learn from: which tokens are learnt, lengths, duplicates",
    "completion": "completion of the command line for bash, zsh or fish",
}
# Where the file has another name than the command, because Python has a use for the name.
MODULES = {"list": "list_", "eval": "evaluate", "import": "import_", "import-chats": "import_chats"}
ALIASES = {"ls": "list"}
# Commands that people look for and that are not built; the answer says so instead of "no such command".
PLANNED = ("serve",)
INTERRUPTED = 130  # as the shell says of a program that SIGINT ended
BROKEN_PIPE = 141  # the same for SIGPIPE
BUG = 70  # EX_SOFTWARE of sysexits.h
# Arguments that name a model, a file or a folder; an empty one, of an unset variable, must not mean the current folder.
_NAMES_OF_THINGS = ("model", "models", "source", "output", "text", "against", "tokenizer", "calib_file")
_OWN_OPTIONS = ("-h", "--help", "--version", "--debug")


def main(argv: Sequence[str] | None = None, **context: Any) -> int:
    """Run one command line.

    Args:
        argv: without the program's name; None means `sys.argv`.
        context: keyword arguments for the command's `run`, such as a runtime factory.

    Returns:
        The exit code: 0; the `exit_code` of a `QwenError`; 130 when interrupted; 70 for a bug of ours.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    options = words[: words.index("--")] if "--" in words else words
    _open_standard_streams()
    debug = bool(os.environ.get("QWEN_MLX_DEBUG")) or "--debug" in options
    with Interruptions() as interruptions:
        try:
            return _run(words, context, debug, "--json" in options)
        except Exception as error:
            if interruptions.caused(error):
                return INTERRUPTED
            return _bug(error, debug, "--json" in options)


def _run(words: Sequence[str], context: dict[str, Any], debug: bool, json: bool) -> int:
    """See `main`. Raises what is a bug of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character the terminal's encoding lacks must not end a reply.
            stream.reconfigure(errors="replace")
    try:
        module, args = parse(words)
        code = int(module.run(args, **context))
        sys.stdout.flush()
        return code
    except SystemExit as request:  # --help and --version
        return request.code if isinstance(request.code, int) else 0
    except (KeyboardInterrupt, Cancelled):
        if json:
            _tell_the_end(None)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _cannot_write(error)
    except QwenError as error:
        if debug:
            _complain(traceback.format_exc().rstrip())
        _complain(f"qwen-mlx: error: {error}")
        if json:
            _tell_the_end(error)
        return error.exit_code


def _tell_the_end(error: Exception | None) -> None:
    """The last line for who asked for JSON, on standard output, where the command has not written it itself."""
    from qwen_mlx.cli.json_events import JsonWriter
    from qwen_mlx.events import JobCancelled, JobFailed

    if not JsonWriter.told_the_end:
        code = error.exit_code if isinstance(error, QwenError) else BUG
        end = JobCancelled() if error is None else JobFailed(str(error), isinstance(error, QwenError), code)
        try:
            JsonWriter(sys.stdout).show(end)
        except (OSError, ValueError):
            pass  # nobody reads it
    JsonWriter.told_the_end = False


def _bug(error: Exception, debug: bool, json: bool) -> int:
    from qwen_mlx.cli.jobs import Bug

    details = error.details if isinstance(error, Bug) else traceback.format_exc()
    if debug:
        _complain(details.rstrip())
    what = str(error) if isinstance(error, Bug) else f"{type(error).__name__}: {error}"
    advice = "" if debug else "; --debug shows where"
    _complain(f"qwen-mlx: {what}\nThis is a bug in qwen-mlx, not a mistake of yours{advice}.")
    if json:
        _tell_the_end(error)
    return BUG


def _cannot_write(error: OSError) -> int:
    """The disk that the output goes to is full."""
    _complain(f"qwen-mlx: error: the output cannot be written: {error.strerror}")
    _silence_stdout()
    return QwenError.exit_code


def _open_standard_streams() -> None:
    """Where the caller closed standard input, output or error, put the null device in its place.

    Otherwise the next file to be opened, a model's perhaps, gets that number, and is taken for the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def parse(words: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The command's module and its arguments.

    Raises:
        UsageError: there is no such command or option.
        SystemExit: --help or --version was printed.
    """
    rest = list(words)
    own = []
    while rest and rest[0] in _OWN_OPTIONS:
        own.append(rest.pop(0))
    program_parser().parse_args(own)
    # No command, but perhaps options for the app: `qwen-mlx --model ...`
    name = "tui" if not rest or rest[0].startswith("-") else rest.pop(0)
    name = ALIASES.get(name, name)
    if name == "help":
        name = ALIASES.get(rest[0], rest[0]) if rest and not rest[0].startswith("-") else ""
        if not name or name in COMMANDS:
            (command_parser(name) if name else program_parser()).print_help()
            raise SystemExit(0)
    if name in PLANNED:
        raise UsageError(f"`qwen-mlx {name}` is planned, but not built yet")
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}", expected=", ".join(COMMANDS), hint=_hint(name))
    args = command_parser(name).parse_words(rest)
    for field in _NAMES_OF_THINGS:
        values = getattr(args, field, None)
        if any(value == "" for value in (values if isinstance(values, list) else [values])):
            raise UsageError(f"the name of the {field} is empty")
    return _module(name), args


def program_parser() -> Parser:
    """The parser of what stands before the command."""
    commands = "\n".join(f"  {name:<14}{text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="qwen-mlx",
        usage="qwen-mlx [COMMAND] [options]",
        description="Run Qwen models on this machine. Without a command: the terminal app.",
        epilog=f"commands:\n{commands}\n\n`qwen-mlx COMMAND --help`, or `qwen-mlx help COMMAND`, says more about one.",
    )
    version = f"qwen-mlx {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version and exit")
    _add_debug(parser)
    return parser


def command_parser(name: str) -> Parser:
    """The parser of what stands after the command `name`, which is one of `COMMANDS`."""
    module = _module(name)
    parser = Parser(
        prog=f"qwen-mlx {name}",
        usage=getattr(module, "USAGE", f"qwen-mlx {name} [options]"),
        description=getattr(module, "DESCRIPTION", COMMANDS[name][0].upper() + COMMANDS[name][1:] + "."),
        epilog=getattr(module, "EPILOG", None),
    )
    module.add_arguments(parser)
    _add_debug(parser)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"qwen_mlx.cli.{MODULES.get(name, name)}")


def _add_debug(parser: Parser) -> None:
    parser.add_argument("--debug", action="store_true", help="show where an error came from (also: QWEN_MLX_DEBUG=1)")


def _hint(name: str) -> str:
    import difflib

    if near := difflib.get_close_matches(name, COMMANDS, n=1):
        return f"Did you mean `qwen-mlx {near[0]}`?"
    return 'To ask a question: `qwen-mlx chat "your question"`'


def _complain(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def _silence_stdout() -> None:
    """Whoever read our output is gone; without this, Python complains once more when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass


if __name__ == "__main__":
    raise SystemExit(main())
