"""`qwen-mlx data inspect`: rows to learn from, as a model will read them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from qwen_mlx.cli.terminal import Terminal, clean
from qwen_mlx.cli.work import follow
from qwen_mlx.errors import UsageError
from qwen_mlx.events import DataInspected, DataPrepared, Event, ShownExample

USAGE = "qwen-mlx data inspect FILE [options]"
DESCRIPTION = """\
Reads rows to learn from (JSONL, JSON, CSV, Parquet, or a Hugging Face dataset folder) and shows what training would
make of them: the tokens that are learnt in colour, lengths, duplicates, what is cut and what is left out."""
EPILOG = """\
The formats are in docs/training-data.md. Nothing is trained, and no weights are loaded. Where there is no colour, what
is learnt stands between ⟦ and ⟧."""

_EXPECTED = "inspect FILE"
_DEFAULT_LENGTH = 2048
_BAR = 40  # characters
_LEARNT, _PARTLY, _READ, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help=_EXPECTED)
    parser.add_argument("-m", "--model", metavar="MODEL", help='whose tokenizer and template to use (default: "demo")')
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="examples to show (default: 3)")
    parser.add_argument("--max-len", type=int, metavar="N", help="tokens at which examples are cut (default: 2048)")
    parser.add_argument("--split", default="train", metavar="NAME", help="of a dataset folder (default: train)")
    parser.add_argument(
        "--format",
        choices=("auto", "messages", "sharegpt", "prompt-completion", "alpaca", "text"),
        default="auto",
        help="how rows are written (default: found out)",
    )
    parser.add_argument(
        "--loss-on", choices=("assistant", "last"), default="assistant", help="learn every answer, or the last one"
    )
    parser.add_argument(
        "--history",
        choices=("keep", "chat"),
        default="keep",
        help="one example per row, or every answer after exactly what a chat would show",
    )
    parser.add_argument(
        "--empty-think", choices=("mask", "learn"), default="mask", help="the empty block of answers without thinking"
    )
    parser.add_argument(
        "--wrap", choices=("auto", "chat", "plain"), default="auto", help="prompts and completions as a chat, or not"
    )
    parser.add_argument("--json", action="store_true", help="every event as one line of JSON")
    parser.set_defaults(quiet=False)


def run(args: argparse.Namespace) -> int:
    from qwen_mlx.hub.references import default_model, resolve
    from qwen_mlx.training.data.config import DataConfig
    from qwen_mlx.training.data.inspect import iter_inspect, longest_context

    action, *names = args.words or [""]
    if action != "inspect" or len(names) != 1:
        raise UsageError(f"`qwen-mlx data {' '.join(args.words)}` cannot be meant", expected=_EXPECTED)
    if args.rows < 0:
        raise UsageError(f"--rows {args.rows} cannot be meant", expected="0 or more")
    model = resolve(args.model or default_model())
    length = args.max_len
    if length is None:
        length = min(_DEFAULT_LENGTH, longest_context(model) or _DEFAULT_LENGTH)
    config = DataConfig(
        train=names[0],
        format=args.format,
        max_len=length,
        loss_on=args.loss_on,
        history=args.history,
        empty_think=args.empty_think,
        wrap=args.wrap,
        split=args.split,
    )
    follow(iter_inspect(config, model, args.rows), args, show)
    return 0


def show(event: Event) -> None:
    """The report, on standard output."""
    if isinstance(event, DataInspected):
        terminal = Terminal(sys.stdout)
        for line in report(event, colour=terminal.colour, marks=_marks()):
            print(line)


def _marks() -> tuple[str, str]:
    """What stands around learnt text where there is no colour."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    return ("⟦", "⟧") if encoding.startswith("utf") else ("[[", "]]")


def report(found: DataInspected, *, colour: bool, marks: tuple[str, str]) -> Iterator[str]:
    """Lines for a person."""
    data = found.data
    for example in found.examples:
        learnt = sum(token.weight > 0 for token in example.tokens)
        cut = f", cut from {example.whole:,}" if example.whole > len(example.tokens) else ""
        yield f"--- {clean(example.source)}: {len(example.tokens):,} tokens{cut}, {learnt:,} of them learnt"
        yield _coloured(example) if colour else _marked(example, marks)
    if found.examples:
        yield "---"
    yield f"format      {data.format}"
    yield f"rows        {data.rows:,}{_made(data)}"
    yield f"tokens      {data.tokens:,}, of which {_share(data)} are learnt"
    yield f"duplicates  {data.duplicates:,}"
    yield f"cut         {data.truncated:,} at {found.max_len:,} tokens (the longest has {data.longest:,})"
    yield f"left out    {data.left_out:,}"
    yield f"packing     {100 * found.filled:.1f} % of the positions of rows of {found.max_len:,} hold a token"
    most = max((count for _, count in found.lengths), default=1)
    for number, (limit, count) in enumerate(found.lengths):
        bar = "#" * -(-_BAR * count // most)
        yield f"{'lengths' if number == 0 else '':<11} up to {limit:>7,}  {count:>9,}  {bar}".rstrip()


def _made(data: DataPrepared) -> str:
    return f", which make {data.examples:,} examples" if data.examples + data.left_out != data.rows else ""


def _share(data: DataPrepared) -> str:
    return f"{data.supervised:,.0f} ({100 * data.supervised / data.tokens:.0f} %)" if data.tokens else "none"


def _coloured(example: ShownExample) -> str:
    """Learnt tokens green, those of another weight than 1 yellow, the rest dim."""
    pieces = []
    for weight, text in _runs(example):
        code = _READ if not weight else _LEARNT if weight == 1 else _PARTLY
        # Codes end before a line does: some terminals fill the rest of it.
        pieces.append("\n".join(f"{code}{line}{_PLAIN}" if line else "" for line in text.split("\n")))
    return "".join(pieces)


def _marked(example: ShownExample, marks: tuple[str, str]) -> str:
    begin, end = marks
    return "".join(
        text if not weight else f"{begin}{'' if weight == 1 else f'{weight:g}: '}{text}{end}"
        for weight, text in _runs(example)
    )


def _runs(example: ShownExample) -> Iterator[tuple[float, str]]:
    """Neighbours of one weight together, without anything that could move a cursor."""
    weight, text = 0.0, ""
    for token in example.tokens:
        if token.weight != weight and text:
            yield weight, clean(text)
            text = ""
        weight = token.weight
        text += token.text
    if text:
        yield weight, clean(text)
