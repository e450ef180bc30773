"""`qwen-mlx chat`: one question and its answer on standard output, or a conversation line by line."""

from __future__ import annotations

import argparse
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, TextIO

from qwen_mlx.cli import jobs
from qwen_mlx.cli.json_events import JsonWriter
from qwen_mlx.cli.options import add_kv_bits, add_rope_scaling
from qwen_mlx.cli.reply_writer import ReplyWriter, Thinking
from qwen_mlx.cli.terminal import Terminal
from qwen_mlx.errors import UsageError
from qwen_mlx.events import LoadModel, Message, Reply, ReplyFinished, Runtime, SamplingOptions

if TYPE_CHECKING:
    from qwen_mlx.cli.tool_replies import ToolReplies

USAGE = "qwen-mlx chat [PROMPT ...] [options]"
DESCRIPTION = """\
With a prompt, or with text from a pipe: prints the answer and nothing else. With both, the piped text follows the
prompt after a blank line. With neither, in a terminal: a conversation line by line, kept until you leave; /help there
lists its commands. Ctrl-C stops an answer."""
EPILOG = """\
A prompt that begins with a dash goes after two of them: qwen-mlx chat -- "-1 + 3".
Sampling options that are not given are the model's own."""

_SAMPLING = (
    ("temperature", float, "T", "0 always takes the most likely token"),
    ("top-k", int, "N", "choose among the N most likely tokens; 0 is off"),
    ("top-p", float, "P", "choose among the most likely tokens that have probability P together"),
    ("min-p", float, "P", "drop tokens less than P times as likely as the most likely one"),
    ("repetition-penalty", float, "X", "divide the logits of tokens already in the text; 1 is off"),
    ("presence-penalty", float, "X", "subtract from the logits of tokens already in the reply; 0 is off"),
    ("frequency-penalty", float, "X", "the same for each time they occur; 0 is off"),
    ("seed", int, "N", "the same seed and prompt give the same text"),
    ("max-tokens", int, "N", "longest reply, thinking included"),
    ("thinking-budget", int, "N", "have it answer after N tokens of thinking"),
)
# How long a socket may stay silent before we believe that nothing will be piped through it.
_SOCKET_PATIENCE = 1.0
_CANCELLED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the question; several words are joined by spaces")
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help='folder, repository in the Hugging Face cache, or "demo" (the default)'
    )
    parser.add_argument("-s", "--system", metavar="TEXT", help="system message")
    thinking = parser.add_mutually_exclusive_group()
    thinking.add_argument(
        "--think", dest="thinking", action="store_true", default=None, help="have the model think first"
    )
    thinking.add_argument(
        "--no-think", dest="thinking", action="store_false", default=None, help="have it answer at once"
    )
    parser.add_argument(
        "--show-thinking", action="store_true", help="show the thinking: dimmed, or on standard error in a pipe"
    )
    for name, kind, metavar, text in _SAMPLING:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end the reply before TEXT; may be repeated")
    parser.add_argument(
        "--weights",
        choices=("auto", "quantized", "expanded"),
        default="auto",
        metavar="FORM",
        help="quantized weights: keep them (quantized), unpack them (expanded), or what is faster here (auto)",
    )
    add_rope_scaling(parser)
    add_kv_bits(parser)
    parser.add_argument(
        "--adapter", metavar="FOLDER", help="with an adapter for the model, as training, PEFT or mlx-lm writes it"
    )
    parser.add_argument(
        "--tools", action="store_true", help="let the model use a calculator and a clock, where it was taught to"
    )
    parser.add_argument(
        "--tools-folder",
        metavar="FOLDER",
        help="and read text files below FOLDER, one by one after you allow it (implies --tools)",
    )
    parser.add_argument("--stats", action="store_true", help="numbers of the reply on standard error")
    parser.add_argument("--json", action="store_true", help="every event as one line of JSON")


def run(args: argparse.Namespace, new_runtime: jobs.RuntimeFactory = jobs.thread_runtime) -> int:
    """One question when there is a prompt or a pipe, else the line mode."""
    sampling = sampling_options(args)
    prompt = " ".join(args.prompt)
    if args.prompt and not prompt.strip():
        raise UsageError("the prompt is empty")
    interactive = not prompt and _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
    if interactive and args.json:
        raise UsageError("--json needs a prompt or text from a pipe")
    if not interactive:
        prompt = _whole_prompt(prompt, sys.stdin)
    runtime = new_runtime()
    try:
        if interactive:
            from qwen_mlx.cli.line_chat import LineChat

            tools = _tools(runtime, args)
            return LineChat(
                runtime, load_job(args), args.system, args.thinking, sampling, args.stats, tools=tools
            ).run()
        return _answer(runtime, args, prompt, sampling)
    finally:
        runtime.close()


def _tools(runtime: Runtime, args: argparse.Namespace) -> ToolReplies | None:
    if not args.tools and args.tools_folder is None:
        return None
    from qwen_mlx.cli import tool_replies

    folder = tool_replies.folder_of(args.tools_folder)
    return tool_replies.ToolReplies(runtime, folder, tool_replies.ask_in_terminal(Terminal(sys.stderr)))


def load_job(args: argparse.Namespace) -> LoadModel:
    from qwen_mlx.hub.references import default_model

    model = default_model() if args.model is None else args.model
    return LoadModel(model, args.weights, args.rope_scaling, args.kv_bits, args.adapter)


def sampling_options(args: argparse.Namespace) -> SamplingOptions:
    """What was asked for, checked before a model is loaded.

    Raises:
        UsageError: a value outside its range.
    """
    from qwen_mlx.ranges import OPTION_RANGES

    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name, *_ in _SAMPLING}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        try:
            OPTION_RANGES[name].parse(value)
        except ValueError as error:
            raise UsageError(f"--{name.replace('_', '-')} cannot be {value}", expected=str(error)) from None
    if "" in (args.stop or ()):
        raise UsageError("--stop cannot be empty", expected="the text that ends the reply")
    return SamplingOptions(**given, stop=tuple(args.stop or ()))


def _answer(runtime: Runtime, args: argparse.Namespace, prompt: str, sampling: SamplingOptions) -> int:
    err = Terminal(sys.stderr)
    thinking: Thinking = "shown" if args.show_thinking else "hidden"
    text = None if args.json else ReplyWriter(Terminal(sys.stdout), err, thinking, args.stats)
    show = text.show if text else JsonWriter(sys.stdout).show
    system = (Message("system", args.system),) if args.system else ()
    tools = _tools(runtime, args)
    try:
        info = jobs.load(runtime, load_job(args), show)
        job = Reply("cli", (*system, Message("user", prompt)), sampling, args.thinking)
        if tools is None:
            finished = jobs.reply(runtime, job, show)
        else:
            from qwen_mlx.cli.tool_replies import check

            check(info)
            finished, _ = tools.reply(job, show)
    finally:
        if text:
            text.close()
    if text and not finished.message.content.strip():
        err.line(_why_empty(finished), dim=True)
    return _CANCELLED if finished.reason == "cancelled" else 0


def _why_empty(finished: ReplyFinished) -> str:
    if finished.reason == "cancelled":
        return "(stopped before the answer began)"
    if finished.reason == "length":
        return "(no answer had begun; --no-think skips the thinking)"
    return "(the model answered with nothing)"


# ------------------------------------------------------------------------------------------------ the prompt


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _whole_prompt(prompt: str, stdin: TextIO | None) -> str:
    """The prompt, and after a blank line what was piped in.

    Raises:
        UsageError: there is nothing, or the piped text is not UTF-8.
    """
    if stdin is None or (prompt and not _expects_pipe(stdin)):
        piped = ""
    else:
        piped = _read(stdin)
    whole = "\n\n".join(part for part in (prompt, piped) if part.strip())
    if not whole:
        raise UsageError(
            "there is no prompt: nothing on the command line, nothing on standard input",
            hint='Try `qwen-mlx chat "your question"`',
        )
    return whole


def _read(stdin: TextIO) -> str:
    data = getattr(stdin, "buffer", None)
    if data is None:
        return stdin.read().rstrip("\r\n")
    try:
        # Not the terminal's encoding: files are UTF-8, whatever LANG says.
        text: str = data.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            "what was piped in is not text",
            expected="UTF-8",
            found=f"byte {error.object[error.start]:#04x} at {error.start}",
        ) from None
    return text.rstrip("\r\n")


def _expects_pipe(stdin: TextIO) -> bool:
    """Whether to read standard input when there is a prompt already.

    A terminal: no. A file or a pipe: yes, to its end, however long the program before us takes. A socket, which
    some programs give their children and never close: only if something arrives.
    """
    if stdin.isatty():
        return False
    try:
        mode = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):  # not a file at all, as in a test
        return True
    if stat.S_ISSOCK(mode):
        return bool(select.select([stdin], [], [], _SOCKET_PATIENCE)[0])
    return True
