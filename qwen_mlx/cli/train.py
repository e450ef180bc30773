"""`qwen-mlx train`: fine-tuning, from a plan to a comparison."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from qwen_mlx.cli.json_events import JsonWriter
from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.cli.train_report import TrainingWriter, planned_lines, status_lines
from qwen_mlx.cli.work import add_quiet_options, follow
from qwen_mlx.errors import Cancelled, QwenError, UsageError
from qwen_mlx.events import (
    CancelToken,
    Compared,
    Event,
    Fused,
    JobCancelled,
    JobFailed,
    Notice,
    Progress,
    TrainingPlanned,
    TrainingStopped,
)

USAGE = "qwen-mlx train ACTION [RUN] [options]"
DESCRIPTION = """\
Fine-tunes a model on rows of your own. A run can be stopped or killed at any moment and resumed to the very bit;
everything about it is in its folder RUN."""
EPILOG = """\
actions:
  sft           begin a run: from -c FILE, or from -m MODEL --data FILE -o RUN
  plan          what such a run would take: memory, steps, tokens; --probe computes one step to measure
  resume RUN    go on from its last checkpoint
  status RUN    how far it is, and its last numbers
  compare RUN   questions of --test, answered without and with what it learnt: how many exactly right
  export RUN    the adapter in PEFT's format, or the model of a full fine-tuning, into the folder -o
  fuse RUN      the model with the adapter added to its weights, into the folder -o

Ctrl-C saves and stops; a second one stops at once. docs/training.md explains every key of FILE."""
ACTIONS = ("sft", "plan", "resume", "status", "compare", "export", "fuse")
_BEGINS = ("sft", "plan")
_INTERRUPTED = 130  # as after any Ctrl-C, although nothing is lost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS) + " (see below)")
    parser.add_argument("run", nargs="?", metavar="RUN", help="the folder of a run")
    parser.add_argument("-c", "--config", metavar="FILE", help="a TOML file that describes the run")
    parser.add_argument("-m", "--model", metavar="MODEL", help="what to train (model.path)")
    parser.add_argument("--data", metavar="FILE", help="what to learn from (data.train)")
    parser.add_argument("--valid", metavar="FILE", help="what to judge by, or a share of --data (data.valid)")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="the new run's folder; of export and fuse, the result")
    parser.add_argument("--preset", metavar="NAME", help="lora (the default), rslora, dora, qlora, full, qwen2-sft")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="set a key of the configuration, such as optim.lr=1e-4; may be repeated",
    )
    parser.add_argument("--allow-change", action="store_true", help="resume although data, model or keys have changed")
    parser.add_argument("--probe", action="store_true", help="of plan: compute one step, and measure")
    parser.add_argument(
        "--checkpoint", default="best", metavar="NAME", help="best (default), latest, or a step-... folder"
    )
    parser.add_argument("--test", metavar="FILE", help="of compare: conversations that were kept apart")
    parser.add_argument("--limit", type=int, metavar="N", help="of compare: ask so many questions at most")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="of compare: the longest answer (64)")
    parser.add_argument("--dtype", metavar="TYPE", help="of export and fuse: bfloat16, float16 or float32")
    parser.add_argument("--force", action="store_true", help="of export and fuse: replace what is there")
    parser.add_argument("--requantize", action="store_true", help="of fuse: pack again what was packed; loses much")
    parser.add_argument("--accept-loss", action="store_true", help="of fuse: write it however little it kept")
    add_quiet_options(parser)


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.action in _BEGINS:
        return _begin(args)
    assert args.run is not None
    from qwen_mlx.training.run_folder import RunFolder

    folder = RunFolder(Path(args.run))
    if args.action == "resume":
        from qwen_mlx.training.run import resume

        return _train(lambda cancel: resume(folder.path, args.changes, args.allow_change, cancel), args)
    config = folder.read_config()
    if args.action == "status":
        for line in status_lines(folder, config):
            print(line)
        return 0
    if args.action == "compare":
        return _compare(folder, args)
    return _write(folder, config, args)


def _check(args: argparse.Namespace) -> None:
    """Raises `UsageError` for words that do not go together."""
    begins = args.action in _BEGINS
    if begins and args.run is not None:
        raise UsageError(
            f"`train {args.action}` takes no folder here", found=args.run, hint="The run goes to -o FOLDER."
        )
    if not begins and args.run is None:
        raise UsageError(
            f"`train {args.action}` needs the folder of a run", expected=f"qwen-mlx train {args.action} RUN"
        )
    if begins and args.config is None and (args.model is None or args.data is None):
        raise UsageError(
            f"`train {args.action}` needs to know what to train, and on what",
            expected="-c FILE, or -m MODEL and --data FILE",
        )
    if args.action in ("export", "fuse") and args.output is None:
        raise UsageError(f"`train {args.action}` needs a folder to write", expected="-o FOLDER")
    if args.action == "compare" and args.test is None:
        raise UsageError("`train compare` needs questions", expected="--test FILE")
    if args.dtype not in (None, "bfloat16", "float16", "float32"):
        raise UsageError("--dtype cannot be meant", expected="bfloat16, float16 or float32", found=args.dtype)
    for name in ("limit", "tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} cannot be {value}", expected="1 or more")


def _begin(args: argparse.Namespace) -> int:
    from qwen_mlx.training.config import read_config

    changes = list(args.changes)
    for key, value in (
        ("model.path", args.model),
        ("data.train", args.data),
        ("data.valid", args.valid),
        ("out", args.output),
        ("preset", args.preset),
    ):
        if value is not None:
            changes.append(f"{key}={_as_toml(value) if key != 'data.valid' else _share(value)}")
    stage = None if args.action == "plan" else args.action
    config = read_config(None if args.config is None else Path(args.config), changes, stage)
    from qwen_mlx.training import run as runs

    if args.action == "sft":
        return _train(lambda cancel: runs.train(config, cancel), args)
    last = follow(runs.plan(config, probe=args.probe), args, lambda _: None)
    assert isinstance(last, TrainingPlanned)
    if not args.json:
        print("\n".join(planned_lines(last.forecast)))
    return 0


def _as_toml(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _share(text: str) -> str:
    """A number is a share, anything else a file."""
    try:
        return str(float(text))
    except ValueError:
        return _as_toml(text)


def _train(begin: Callable[[CancelToken], Iterator[Event]], args: argparse.Namespace) -> int:
    """Follow a run; the first Ctrl-C asks it to save and stop, the second does not wait."""
    cancel = CancelToken()
    err = Terminal(sys.stderr)
    writer = TrainingWriter(err, StatusLine(err), silent=args.quiet or args.json)
    json_writer = JsonWriter(sys.stdout) if args.json else None
    events = begin(cancel)
    last: Event | None = None
    with _asking_to_stop(cancel, writer):
        try:
            for last in events:
                if json_writer:
                    json_writer.show(last)
                writer.show(last)
        except Cancelled:
            writer.clear()
            if json_writer:
                json_writer.show(JobCancelled())
            raise
        except QwenError as problem:
            if json_writer:
                json_writer.show(JobFailed(str(problem), True, problem.exit_code))
            raise
        finally:
            writer.clear()
            events.close()  # type: ignore[attr-defined]
    return _INTERRUPTED if isinstance(last, TrainingStopped) else 0


class _asking_to_stop:  # noqa: N801 - used like a function
    """In this block, Ctrl-C (and a polite kill) cancels; a second Ctrl-C interrupts as ever."""

    def __init__(self, cancel: CancelToken, writer: TrainingWriter) -> None:
        self._cancel, self._writer = cancel, writer
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals are for the main thread alone
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._cancel.cancelled:
            raise KeyboardInterrupt
        self._cancel.cancel()
        self._writer.say("saving, then stopping; once more stops at once")


def _compare(folder: Any, args: argparse.Namespace) -> int:
    from qwen_mlx.training.compare import compare

    events = compare(folder, args.test, args.checkpoint, args.limit, args.tokens)
    last = follow(events, args, lambda _: None)
    assert isinstance(last, Compared)
    if not args.json:
        total = last.questions
        for name, right in (("before", last.before), ("after", last.after)):
            print(f"{name:<7} {right:>5} of {total} exactly right  {100 * right / total:5.1f} %")
        if not args.quiet:
            for one in [a for a in last.answers if a.after != a.expected][:5]:
                print(f"  wrong: {one.question!r} -> {one.after!r}, expected {one.expected!r}")
    return 0


def _write(folder: Any, config: Any, args: argparse.Namespace) -> int:
    from qwen_mlx.training import trained

    checkpoint = folder.checkpoint(args.checkpoint)
    target = Path(args.output)
    full = config.adapter.method == "full"
    if args.action == "fuse" and full:
        raise UsageError(
            "this run trained the weights themselves; there is nothing to fuse", hint="Use `train export`."
        )
    if args.action == "export" and not full:
        if args.dtype:
            raise UsageError("--dtype is for models; an adapter stays in float32")
        written = trained.export_adapter(checkpoint, target, args.force)
    elif full:
        events = trained.export_model(config, folder.path, checkpoint, target, args.dtype, args.force)
        follow(_with_notice(events, target), args, lambda _: None)
        written = target
    else:
        from qwen_mlx.adapters.fuse import iter_fuse

        job = trained.fuse_job(
            config, folder.path, checkpoint, target, args.dtype, args.force, args.requantize, args.accept_loss
        )
        follow(iter_fuse(job), args, _show_fused)
        written = target
    if not args.json:
        print(written)
    return 0


def _show_fused(event: Event) -> None:
    if isinstance(event, Fused) and event.retention is not None:
        kept = event.retention
        print(
            f"kept: cosine {kept.cosine:.3f} with the adapter's changes, {kept.same_top:.1%} the same first choice",
            file=sys.stderr,
        )


def _with_notice(events: Iterator[Event], target: Path) -> Iterator[Event]:
    """The events, and one at the end, so that there is a last one."""
    yield Progress("load", 0, None, "layers")
    yield from events
    yield Notice(f"written: {target}")
