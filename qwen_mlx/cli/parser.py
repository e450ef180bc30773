"""Reading the command line: argparse with our error type, and with help that looks the same on every Python."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from qwen_mlx.errors import UsageError


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """`-m, --model MODEL` on every Python (before 3.13 argparse repeats the value after each spelling)."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=32, **settings)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        if action.nargs == 0:
            return names
        return f"{names} {self._format_args(action, action.dest.upper())}"


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` where argparse would print its usage and exit.

    `usage` is written by hand: what argparse makes differs from one Python to the next, and docs/cli.md shows it.
    """

    def __init__(self, *, prog: str, usage: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self.color = False  # Python 3.14 would colour the help, also where NO_COLOR is not known

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"See `{self.prog} --help`")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Options and positional words in any order; what follows `--` is positional, whatever it looks like.

        argparse has both, but not together: its second look at the words has forgotten the `--`.
        """
        end = words.index("--") if "--" in words else len(words)
        args = self.parse_intermixed_args(words[:end])
        if after := list(words[end + 1 :]):
            many = [action for action in self._actions if not action.option_strings and action.nargs == "*"]
            if not many:
                self.error(f"unrecognized arguments: {' '.join(after)}")
            setattr(args, many[0].dest, [*getattr(args, many[0].dest), *after])
        return args
