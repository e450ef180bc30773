"""`qwen-mlx alias`: own names for models."""

from __future__ import annotations

import argparse
import json

from qwen_mlx.errors import UsageError

USAGE = "qwen-mlx alias [set NAME MODEL | rm NAME | ls] [options]"
DESCRIPTION = """\
Own names for models: whatever a model can be named by may stand behind one, a folder too. They go before the names
that come with qwen-mlx."""
_EXPECTED = "set NAME MODEL, rm NAME, or ls"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"{_EXPECTED} (the default)")
    parser.add_argument("--json", action="store_true", help="print the aliases as JSON")


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub import catalogue, references

    action, *words = args.words or ["ls"]
    if (action, len(words)) == ("set", 2):
        name, target = words
        if target != name:  # else it is refused for that
            references.parse(target)  # a target that cannot be meant is refused now
        catalogue.set_alias(name, references.absolute(target))
    elif (action, len(words)) == ("rm", 1):
        catalogue.remove_alias(words[0])
    elif (action, len(words)) != ("ls", 0):
        raise UsageError(f"`qwen-mlx alias {' '.join(args.words)}` cannot be meant", expected=_EXPECTED)
    if args.json:
        print(json.dumps(catalogue.aliases(), ensure_ascii=False, indent=2))
    elif action == "ls":
        known = catalogue.aliases()
        width = max(map(len, known), default=0)
        for name, target in known.items():
            print(f"{name:<{width}}  {target}")
    return 0
