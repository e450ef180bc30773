"""The line mode of `qwen-mlx chat`: a conversation in a plain terminal, without a screen to draw."""

from __future__ import annotations

import contextlib
import re
import sys
import uuid
from dataclasses import replace

from qwen_mlx.cli import jobs
from qwen_mlx.cli.line_input import ReadLine, read_message, readline_input
from qwen_mlx.cli.reply_writer import ReplyWriter, describe_stats
from qwen_mlx.cli.terminal import Terminal
from qwen_mlx.cli.tool_replies import ToolReplies, check
from qwen_mlx.errors import Cancelled, QwenError
from qwen_mlx.events import LoadModel, Message, ModelInfo, Reply, ReplyStats, Runtime, SamplingOptions

HELP = """\
/new               forget the conversation and begin another
/model [NAME]      show the model, or load another; the conversation stays
/think on|off|auto whether the model thinks before it answers (auto: as the model does by itself)
/system [TEXT]     show the system message, or set it; `/system none` removes it
/stats             numbers of the last reply
/help              this list
/quit              leave (also Ctrl-D)
More than one line: end a line with \\, or begin with \"\"\" and end with \"\"\".
A message that begins with a slash: write two of them.
Ctrl-C stops an answer. The conversation is kept until you leave, and not saved."""
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


class LineChat:
    """A conversation at a prompt.

    Args:
        runtime: who answers; closing it is left to the caller.
        model: the model to begin with.
        system: system message, or None.
        thinking: as in `Reply`.
        sampling: for every reply.
        stats: show the numbers after each reply.
        tools: answers with tools.
        read: asks for one line, like `input`; raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C.
    """

    def __init__(
        self,
        runtime: Runtime,
        model: LoadModel,
        system: str | None = None,
        thinking: bool | None = None,
        sampling: SamplingOptions | None = None,
        stats: bool = False,
        read: ReadLine | None = None,
        tools: ToolReplies | None = None,
    ) -> None:
        self._runtime = runtime
        self._model = model
        self._system = system
        self._thinking = thinking
        self._sampling = sampling or SamplingOptions()
        self._show_stats = stats
        self._out = Terminal(sys.stdout)
        self._err = Terminal(sys.stderr)
        self._read = read
        self._tools = tools
        self._turns: list[Message] = []
        self._conversation = uuid.uuid4().hex
        self._last: ReplyStats | None = None
        self._open = True

    def run(self) -> int:
        """Until Ctrl-D or /quit. Returns the exit code.

        Raises:
            QwenError: the first model cannot be loaded; later errors are shown and the conversation goes on.
        """
        info = self._load(self._model)
        if self._tools is not None:
            check(info)
        self._out.line(f"{describe_model(info)}; /help lists the commands", dim=True)
        with contextlib.ExitStack() as stack:
            read = self._read or stack.enter_context(readline_input(self._out))
            while self._open:
                try:
                    text = read_message(read)
                except EOFError:
                    self._out.line()
                    break
                except KeyboardInterrupt:
                    self._out.line()  # below what was typed
                    self._out.line("(Ctrl-D or /quit leaves)", dim=True)
                    continue
                self._take(text)
        return 0

    def _take(self, text: str) -> None:
        """One thing a person entered. Errors are shown, and the conversation goes on."""
        try:
            if text.startswith("//"):
                self._reply(text[1:])
            elif (match := _COMMAND.fullmatch(text.strip())) is not None:
                self._command(match[1], (match[2] or "").strip())
            elif text.strip():
                self._reply(text)
        except Cancelled:
            self._err.line("(stopped)", dim=True)
        except QwenError as error:
            self._err.line(f"error: {error}")

    # -------------------------------------------------------------------------------------------- replies

    def _reply(self, text: str) -> None:
        writer = ReplyWriter(self._out, self._err, "summarised", self._show_stats)
        system = [Message("system", self._system)] if self._system else []
        message = Message("user", text)
        job = Reply(self._conversation, (*system, *self._turns, message), self._sampling, self._thinking)
        said: list[Message] | None = None
        try:
            if self._tools is None:
                finished = jobs.reply(self._runtime, job, writer.show)
            else:
                finished, said = self._tools.reply(job, writer.show)
        finally:
            writer.close()
        self._last = finished.stats
        # A question that was stopped before any answer is as if it had not been asked.
        if finished.reason != "cancelled" or finished.message.content:
            self._turns += [message, *(said or [finished.message])]
        if finished.reason == "cancelled":
            self._err.line("(stopped)", dim=True)

    def _load(self, job: LoadModel) -> ModelInfo:
        writer = ReplyWriter(self._out, self._err)
        try:
            return jobs.load(self._runtime, job, writer.show)
        finally:
            writer.close()

    # -------------------------------------------------------------------------------------------- commands

    def _command(self, name: str, rest: str) -> None:
        commands = {
            "help": self._help,
            "new": self._new,
            "model": self._change_model,
            "think": self._set_thinking,
            "system": self._set_system,
            "stats": self._stats,
            "quit": self._quit,
        }
        if name not in commands:
            self._say(f"there is no command /{name}; /help lists them")
            return
        commands[name](rest)

    def _help(self, rest: str) -> None:
        self._say(HELP)

    def _new(self, rest: str) -> None:
        self._turns.clear()
        self._conversation = uuid.uuid4().hex
        self._last = None
        self._say("a new conversation")

    def _change_model(self, rest: str) -> None:
        if rest:
            self._say(describe_model(self._load(replace(self._model, model=rest))))
        elif self._runtime.model is not None:
            self._say(describe_model(self._runtime.model))

    def _set_thinking(self, rest: str) -> None:
        choices = {"on": True, "off": False, "auto": None}
        if rest in choices:
            self._thinking = choices[rest]
        elif rest:
            self._say("/think on, /think off or /think auto")
            return
        state = next(word for word, value in choices.items() if value is self._thinking)
        self._say(f"thinking: {state}")

    def _set_system(self, rest: str) -> None:
        if rest:
            self._system = None if rest == "none" else rest
        self._say(f"system message: {self._system}" if self._system else "no system message")

    def _stats(self, rest: str) -> None:
        self._say(describe_stats(self._last) if self._last else "no reply yet")

    def _quit(self, rest: str) -> None:
        self._open = False

    def _say(self, text: str) -> None:
        self._out.line(text, dim=True)


def describe_model(info: ModelInfo) -> str:
    """`Qwen3-0.6B: qwen3, 596 M parameters, 4.5 bits, 40960 tokens of context, metal`."""
    count = f"{info.parameters / 1e9:.1f} B" if info.parameters >= 1e9 else f"{info.parameters / 1e6:.1f} M"
    return (
        f"{info.name}: {info.family}, {count} parameters, {info.bits:g} bits, "
        f"{info.context} tokens of context, {info.backend}"
    )
