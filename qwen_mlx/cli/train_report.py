"""A training run in words: a line that moves, lines that stay, and a summary of what is in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.cli.terminal import StatusLine, Terminal
from qwen_mlx.cli.work import describe
from qwen_mlx.events import (
    DataPrepared,
    DataReady,
    Eval,
    Event,
    Notice,
    Progress,
    RunStarted,
    Sample,
    Saved,
    Step,
    TrainingFinished,
    TrainingForecast,
    TrainingNotice,
    TrainingStopped,
)

_LINES = 20  # of steps, about, that stay in a whole run where lines cannot be erased


class TrainingWriter:
    """Shows the events of a run on a terminal, or as plain lines in a file."""

    def __init__(self, err: Terminal, status: StatusLine, silent: bool) -> None:
        self._err, self._status, self._silent = err, status, silent

    def show(self, event: Event) -> None:
        if self._silent:
            return
        if isinstance(event, Progress):
            self._status.show(describe(event))
        elif isinstance(event, Step):
            self._step(event)
        else:
            for line in _lines(event):
                self.say(line)

    def say(self, text: str) -> None:
        if not self._silent:
            self._status.clear()
            self._err.line(text)

    def clear(self) -> None:
        self._status.clear()

    def _step(self, event: Step) -> None:
        text = step_line(event)
        if self._err.movable:
            self._status.show(text)
        elif event.step == 1 or event.step == event.total or event.step % max(1, event.total // _LINES) == 0:
            self._err.line(text)


def step_line(event: Step) -> str:
    """`step 120/600  epoch 0.40  loss 1.234  lr 9.5e-05  1,234 tok/s  2:34 left  1.2 GB`."""
    loss = "skipped" if event.skipped else f"loss {event.loss:.4f}"
    left = "" if event.remaining is None else f"  {duration(event.remaining)} left"
    return (
        f"step {event.step}/{event.total}  epoch {event.epoch:.2f}  {loss}  lr {event.learning_rate:.2e}  "
        f"{event.tokens_per_second:,.0f} tok/s{left}  {format_bytes(event.peak)}"
    )


def _lines(event: Event) -> Iterator[str]:
    if isinstance(event, Notice):
        yield f"note: {event.text}"
    elif isinstance(event, TrainingNotice):
        yield f"note: {event.text}" + (f". {event.hint}" if event.hint else "")
    elif isinstance(event, DataPrepared):
        yield f"{event.part}: {event.rows:,} rows, {event.tokens:,} tokens, {event.supervised:,.0f} of them learnt"
    elif isinstance(event, DataReady):
        yield f"batches: {100 * event.filled:.0f} % of their positions hold a token"
    elif isinstance(event, RunStarted):
        yield from planned_lines(event.forecast)
        if event.step:
            yield f"going on after step {event.step} in {event.folder}"
    elif isinstance(event, Eval):
        best = "  (best so far)" if event.best else ""
        yield f"after step {event.step}: evaluation loss {event.loss:.4f}, perplexity {event.perplexity:.3g}{best}"
    elif isinstance(event, Sample):
        yield f"after step {event.step}: {event.prompt!r} -> {event.text!r}"
    elif isinstance(event, Saved) and event.why not in ("schedule", "best"):
        yield f"saved: {event.path}"
    elif isinstance(event, TrainingFinished):
        best = (
            "" if event.best_loss is None else f"; best evaluation loss {event.best_loss:.4f} at step {event.best_step}"
        )
        early = " (early stop)" if event.reason == "early stop" else ""
        loss = "" if event.loss is None else f", loss {event.loss:.4f}"
        yield f"done{early}: {event.step} steps, {event.tokens:,} tokens, {duration(event.seconds)}{loss}{best}"
        yield f"use: {event.path}"
    elif isinstance(event, TrainingStopped):
        yield f"stopped after step {event.step} of {event.total}; go on with: {event.resume}"


def planned_lines(forecast: TrainingForecast) -> list[str]:
    """A forecast, a line per matter."""
    share = 100 * forecast.trainable / max(forecast.parameters, 1)
    padding = forecast.padding / max(forecast.padding + forecast.tokens, 1)
    lines = [
        f"trained: {forecast.trainable:,} of {forecast.parameters:,} parameters ({share:.2g} %)",
        f"steps: {forecast.steps:,}, of {forecast.batches:,} batches of {forecast.rows} x {forecast.length:,} tokens; "
        f"{forecast.tokens:,} tokens read, {forecast.supervised:,.0f} learnt, {100 * padding:.0f} % padding",
        f"memory: {format_bytes(forecast.peak)} at the peak "
        f"({'measured' if forecast.measured else 'estimated'}), {format_bytes(forecast.available)} free: "
        + ", ".join(f"{name} {format_bytes(size)}" for name, size in forecast.memory.items() if size),
    ]
    if forecast.seconds is not None:
        lines.append(f"time: about {duration(forecast.seconds)}, evaluations not counted")
    if forecast.longest is None:
        lines.append("this does not fit: shorten data.max_len, or quantize the base (--preset qlora)")
    elif not forecast.fits:
        lines.append(f"this does not fit: loop.tokens_per_batch={forecast.longest} would")
    else:
        lines.append(f"fits; loop.tokens_per_batch could be {forecast.longest:,}")
    return lines


def duration(seconds: float) -> str:
    """`2:05`, `1:02:05`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def status_lines(folder: Any, config: Any) -> list[str]:
    """What is in the folder of a run."""
    from qwen_mlx.training.run_folder import read_state

    events = folder.events()
    latest = folder.latest()
    position = read_state(latest)["position"] if latest else {}
    started = [event for event in events if event["type"] == "run_started"]
    total = started[-1]["forecast"]["steps"] if started else None
    steps = [event for event in events if event["type"] == "step"]
    judged = [event for event in events if event["type"] == "eval"]
    if folder.busy:
        state = "training now"
    elif position.get("finished"):
        state = f"finished ({position['finished']})"
    else:
        state = "stopped" if latest else "not begun"
    lines = [f"{folder.path}: {config.stage} of {config.model.path} ({config.adapter.method}), {state}"]
    if steps:
        last = steps[-1]
        lines.append(
            f"step {last['step']} of {total}, epoch {last['epoch']:.2f}, loss {_number(last['loss'])}, "
            f"{last['tokens_per_second']:,.0f} tok/s, {duration(last['seconds'])} so far"
        )
    if judged:
        lines.append(f"evaluation loss {_number(judged[-1]['loss'])} after step {judged[-1]['step']}")
    if position.get("best_step") is not None:
        lines.append(f"best: {position['best_loss']:.4f} after step {position['best_step']}")
    names = [entry.name for entry in folder.checkpoints()]
    if names:
        best = folder.pointer("best")
        lines.append(
            f"checkpoints: {', '.join(names)}; latest: {latest.name}" + (f"; best: {best.name}" if best else "")
        )
    notices = [event for event in events if event["type"] == "training_notice" and event["code"] != "paused"]
    lines += [f"note: {event['text']}" for event in notices[-3:]]
    if not position.get("finished") and not folder.busy:
        lines.append(f"go on with: qwen-mlx train resume {folder.path}")
    return lines


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4f}"
