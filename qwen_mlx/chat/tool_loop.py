"""An answer in several rounds: reply, run the tools that were called, reply again.

Without a thread or a model of its own: whoever asks a runtime for a `Reply` asks again with `next_reply`, when the
answer that came has tool calls. Running them, and asking a person before, is left to the interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen_mlx.chat.steps import Call, Step, as_messages
from qwen_mlx.chat.tools import Result, Toolbox
from qwen_mlx.events import Message, Reply

MAX_ROUNDS = 8
"""After so many rounds of calls the model has to answer with what it has."""
MAX_CALLS = 8
"""Of one round that are run; the others are told to be too many."""
_ENOUGH = "\n\n[No more tools can be called. Answer with what you have.]"
REFUSED = "The person did not allow this."


def completed(call: Call, toolbox: Toolbox, place: int = 0) -> Call:
    """Run a call that is allowed; it is number `place` (from 0) of its round."""
    if place >= MAX_CALLS:
        return replace(call, result=f"Error: at most {MAX_CALLS} calls at once are run.", outcome="failed")
    result: Result = toolbox.run(call.name, call.arguments)
    return replace(call, result=result.text, outcome="done" if result.ok else "failed")


def refused(call: Call) -> Call:
    """A person said no."""
    return replace(call, result=REFUSED, outcome="refused")


def next_reply(first: Reply, steps: Sequence[Step]) -> Reply:
    """The job that goes on after the rounds `steps`, whose calls all have results; `first` asked for the answer.

    After `MAX_ROUNDS` it offers no tools any more.
    """
    messages = list(first.messages[:-1] if first.continuing else first.messages)
    done = as_messages(steps)
    last = len(steps) >= MAX_ROUNDS
    if last and done:
        done[-1] = Message("tool", done[-1].content + _ENOUGH)
    tools = () if last else first.tools
    return replace(first, messages=(*messages, *done), tools=tools, continuing=False)
