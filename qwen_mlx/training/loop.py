"""The one loop of every stage: batches in, updates made, events out, and nothing ever lost.

A run is a walk over *positions* (`checkpoint.Position`): epoch, batch of the epoch, and what was summed since the last
update. All that happens at a position is decided by it and by the configuration alone, and a position with the arrays
that belong to it can be saved after any batch. So a run that is stopped and resumed, even within an accumulation
window, is bitwise the run that never stopped.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402

from qwen_mlx.errors import TrainingError  # noqa: E402
from qwen_mlx.events import (  # noqa: E402
    CancelToken,
    Eval,
    Event,
    RunStarted,
    Sample,
    Saved,
    Step,
    TrainingControls,
    TrainingFinished,
    TrainingNotice,
    TrainingStopped,
)
from qwen_mlx.training import checkpoint  # noqa: E402
from qwen_mlx.training.checkpoint import Position, Window  # noqa: E402
from qwen_mlx.training.engine import Engine, Numbers, Sums, fingerprints  # noqa: E402
from qwen_mlx.training.model import ADAPTER, base_name  # noqa: E402
from qwen_mlx.training.prepare import Prepared  # noqa: E402
from qwen_mlx.training.run_folder import RunFolder  # noqa: E402
from qwen_mlx.training.samples import sample  # noqa: E402
from qwen_mlx.training.schedules import learning_rate  # noqa: E402

_BAD_STEPS = 3  # in a row, before a run gives up
_LOOK_AT = 5  # the step after which the weights must have changed
_SPIKE = 2.0  # a loss this many nats above what it was of late, and twice as large, is worth a word
_LATE = 20  # steps that speed is measured over


class Loop:
    """One process's part of a run. `events` can be iterated once.

    Args:
        position, sums: of the checkpoint that was loaded into `run`, or those of a beginning.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: Prepared,
        cancel: CancelToken,
        controls: TrainingControls,
        position: Position,
        sums: Sums | None,
    ) -> None:
        self.folder, self.run, self.cancel, self.controls = folder, run, cancel, controls
        self.position, self._sums = position, sums
        config = run.config
        self._engine = Engine(run.model.decoder, run.stage, run.optimizer, config.optim, config.loop.compile is True)
        self._begun = position.step
        self._before = fingerprints(run.model.decoder) if position == Position() else None
        self._late: deque[tuple[int, float]] = deque(maxlen=_LATE)  # tokens and seconds of a step
        self._step_seconds = 0.0
        self._last_save = time.monotonic()
        self._saved: tuple[Position, str] | None = None
        self._window_sources = self._earlier_batches()
        mx.reset_peak_memory()

    def events(self) -> Iterator[Event]:
        """Train until the end, or until somebody stops it.

        Raises:
            TrainingError: the numbers are beyond repair.
        """
        run = self.run
        yield RunStarted(str(self.folder.path), run.stage.name, run.config.table(), run.forecast, self.position.step)
        while True:
            if not self.position.window.batches:
                yield from self._at_a_border()
                if self.position.finished:
                    yield self._finished()
                    return
            if self.controls.paused:
                yield from self._pause()
            if self.cancel.cancelled or (self.controls.stopping and not self.position.window.batches):
                yield from self._stop()
                return
            if self.controls.take_save():
                yield self._save("asked")
            yield from self._one_batch()

    def _earlier_batches(self) -> list[tuple[float, Any]]:
        """Batches of the open window, which a process before this one computed, with what is known of their loss."""
        at = self.position
        if not at.window.batches:
            return []
        return [
            (0.0, batch) for batch in self.run.stage.train.batches(at.epoch)[at.batch - at.window.batches : at.batch]
        ]

    # ------------------------------------------------------------------------------------------ between steps

    def _at_a_border(self) -> Iterator[Event]:
        """All that is due after an update; does nothing that was done before the run was stopped."""
        run, at = self.run, self.position
        better = False
        if at.evaluated != at.step and self._evaluation_is_due():
            evaluation = self._evaluate()
            if evaluation is None:
                return  # cancelled in the middle of it: it will be made anew
            better = evaluation.best
            yield evaluation
        if at.sampled != at.step and self._samples_are_due():
            yield from self._samples()
        patience = run.config.loop.early_stop
        if self.position.step >= run.forecast.steps:
            self._set(finished="done")
        elif patience and self.position.worse >= patience:
            self._set(finished="early stop")
        if self.cancel.cancelled and not self.position.finished:
            if better:
                yield self._save("best")
            return
        if self.position.finished:
            yield self._save("finished")
        elif better:
            yield self._save("best")
        elif at.step and at.saved != at.step and self._save_is_due():
            yield self._save("schedule")

    def _evaluation_is_due(self) -> bool:
        at, loop = self.position, self.run.config.loop
        if self.run.stage.valid is None:
            return False
        if at.step == 0:
            return loop.eval_first
        return at.step >= self.run.forecast.steps or self._every(loop.eval_every)

    def _samples_are_due(self) -> bool:
        log = self.run.config.log
        if not log.samples:
            return False
        if log.sample_every:
            return self.position.step % log.sample_every == 0
        at = self.position
        return at.step == 0 or at.step == at.evaluated or at.step >= self.run.forecast.steps

    def _save_is_due(self) -> bool:
        save = self.run.config.save
        minutes = (time.monotonic() - self._last_save) / 60
        return self._every(save.every) or bool(save.every_minutes and minutes >= save.every_minutes)

    def _every(self, steps: int) -> bool:
        """Whether the step is a multiple of `steps`, or for 0, the last of an epoch."""
        if steps:
            return self.position.step % steps == 0
        return self.position.batch == 0

    def _evaluate(self) -> Eval | None:
        """The whole evaluation set, in its fixed order; None when cancelled."""
        source = self.run.stage.valid
        assert source is not None
        began = time.perf_counter()
        total = weight = 0.0
        with _random_state_kept():
            for batch in source.batches(0):
                if self.cancel.cancelled:
                    return None
                loss, count, _ = self._engine.judge(source.arrays(batch))
                total, weight = total + loss, weight + count
        mx.clear_cache()
        mean = total / weight if weight else math.nan
        at = self.position
        best = at.step > 0 and math.isfinite(mean) and (at.best_loss is None or mean < at.best_loss)
        if best:
            self._set(best_loss=mean, best_step=at.step, worse=0)
        elif at.step > 0:
            self._set(worse=at.worse + 1)
        self._set(evaluated=at.step)
        return Eval(at.step, mean, _exp(mean), weight, best, time.perf_counter() - began)

    def _samples(self) -> Iterator[Event]:
        log = self.run.config.log
        with _random_state_kept():
            for prompt in log.samples:
                text = sample(self.run.model, prompt, log.sample_tokens, self.cancel)
                if self.cancel.cancelled:
                    return
                yield Sample(self.position.step, prompt, text)
        mx.clear_cache()
        self._set(sampled=self.position.step)

    # ------------------------------------------------------------------------------------------------- a step

    def _one_batch(self) -> Iterator[Event]:
        """Compute one batch, and update the weights where it is the last of its window."""
        began = time.perf_counter()
        at, source = self.position, self.run.stage.train
        if (rate := self.controls.take_learning_rate()) is not None:
            self._set(peak_rate=rate)
            yield self._notice("learning-rate", f"the peak of the learning rate is {rate:g} from now on")
        plan = source.batches(at.epoch)
        batch = plan[at.batch]
        self._sums, numbers = self._engine.gradients(source.arrays(batch), self._sums)
        self._window_sources.append((numbers[0], batch))
        window = _added(at.window, numbers, source.tokens_of(batch))
        end_of_epoch = at.batch + 1 == len(plan)
        spent = time.perf_counter() - began
        self._step_seconds += spent
        self._set(
            window=window,
            epoch=at.epoch + 1 if end_of_epoch else at.epoch,
            batch=0 if end_of_epoch else at.batch + 1,
            seconds=at.seconds + spent,
        )
        if window.batches == self.run.config.loop.accumulate or end_of_epoch:
            yield from self._update(window)

    def _update(self, window: Window) -> Iterator[Event]:
        began = time.perf_counter()
        at, config, total = self.position, self.run.config, self.run.forecast.steps
        sums, self._sums = self._sums, None
        assert sums is not None
        step = at.step + 1
        rate = learning_rate(config.optim, step, total, at.peak_rate)
        loss = window.loss / window.weight if window.weight else 0.0
        norm = self._engine.norm(sums, window.weight) if window.weight else 0.0
        bad = not (math.isfinite(loss) and math.isfinite(norm))
        if not bad and window.weight:
            self._engine.update(sums, window.weight, norm, rate)
        sources, self._window_sources = self._window_sources, []
        seconds = time.perf_counter() - began
        self._late.append((window.tokens, self._step_seconds + seconds))
        self._step_seconds = 0.0
        before = at.recent
        recent = before if bad or not window.weight else loss if before is None else 0.9 * before + 0.1 * loss
        self._set(
            step=step,
            window=Window(),
            tokens=at.tokens + window.tokens,
            seconds=at.seconds + seconds,
            bad_steps=at.bad_steps + 1 if bad else 0,
            recent=recent,
            last_loss=at.last_loss if bad or not window.weight else loss,
        )
        yield self._step(window, loss, rate, norm, bad or not window.weight)
        if bad:
            yield from self._bad_step(sources)
        elif not window.weight:
            text = f"step {step} has no token to learn, and was skipped: {self._names(sources)}"
            yield self._notice("nothing-supervised", text, "Look at the data: `qwen-mlx data inspect`.")
        elif before is not None and loss > before + _SPIKE and loss > 2 * before:
            yield self._notice(
                "loss-spike",
                f"the loss went from about {before:.3g} to {loss:.3g}: {self._names(sources)}",
                "A smaller learning rate or a longer warm-up may help.",
            )
        yield from self._after_a_few_steps()

    def _step(self, window: Window, loss: float, rate: float, norm: float, skipped: bool) -> Step:
        at, total = self.position, self.run.forecast.steps
        spent = sum(seconds for _, seconds in self._late)
        speed = sum(tokens for tokens, _ in self._late) / spent if spent else 0.0
        remaining = (total - at.step) * spent / len(self._late)
        per_epoch = len(self.run.stage.train.batches(min(at.epoch, self.run.config.loop.epochs - 1)))
        return Step(
            at.step,
            total,
            at.epoch + at.batch / per_epoch,
            loss,
            rate,
            norm,
            window.tokens,
            window.weight,
            speed,
            mx.get_active_memory(),
            mx.get_peak_memory(),
            at.seconds,
            remaining,
            {name: value / window.batches for name, value in window.metrics.items()},
            skipped,
        )

    def _bad_step(self, sources: list[tuple[float, Any]]) -> Iterator[Event]:
        at = self.position
        text = f"step {at.step} was skipped: its loss or gradient is not a number: {self._names(sources)}"
        hint = 'Look at these rows; a smaller learning rate, or model.dtype = "float32", may help.'
        if at.bad_steps >= _BAD_STEPS:
            yield self._save("stopped")
            raise TrainingError(f"{at.bad_steps} steps in a row gave no number; the last: {text}", hint=hint)
        yield self._notice("not-a-number", text, hint)

    def _names(self, sources: list[tuple[float, Any]]) -> str:
        """The rows of the batches whose loss is no number, or of all, when none of them is to blame."""
        blamed = [batch for loss, batch in sources if not math.isfinite(loss)] or [batch for _, batch in sources]
        names = [name for batch in blamed for name in self.run.stage.train.sources(batch)]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def _after_a_few_steps(self) -> Iterator[Event]:
        at = self.position
        if at.step == _LOOK_AT and self._before is not None:
            now = fingerprints(self.run.model.decoder)
            same = [name for name, number in now.items() if number == self._before[name]]
            self._before = None
            if len(same) == len(now):
                raise TrainingError(
                    f"after {_LOOK_AT} steps no weight has changed",
                    hint="Nothing would be learnt: the learning rate is too small for the type of the weights, "
                    "or no token is supervised.",
                )
            if same:
                yield self._notice(
                    "unchanged",
                    f"{len(same)} of {len(now)} trained arrays have not changed in {_LOOK_AT} steps, such as {same[0]}",
                    "Experts that no token was sent to stay as they are; else try a larger learning rate.",
                )
        peak, available = mx.get_peak_memory(), self.run.forecast.available
        if peak > available and "memory" not in at.notices:
            self._set(notices=(*at.notices, "memory"))
            yield self._notice(
                "memory",
                f"{peak / 1e9:.1f} GB are in use, and {available / 1e9:.1f} GB were free at the start",
                "Fewer loop.tokens_per_batch need less; loop.accumulate makes up for them.",
            )

    def _notice(self, code: str, text: str, hint: str = "") -> TrainingNotice:
        return TrainingNotice(code, text, hint, self.position.step)

    # -------------------------------------------------------------------------------------- stopping and saving

    def _pause(self) -> Iterator[Event]:
        yield self._notice("paused", f"paused after {self.position.step} steps")
        while not self.controls.wait(0.2) and not self.cancel.cancelled:
            if self.controls.take_save():
                yield self._save("asked")
        yield self._notice("resumed", "going on")

    def _stop(self) -> Iterator[Event]:
        if self._saved is None or self._saved[0] != self.position:
            yield self._save("stopped")
        assert self._saved is not None
        yield TrainingStopped(
            str(self.folder.path),
            self.position.step,
            self.run.forecast.steps,
            self._saved[1],
            f"qwen-mlx train resume {shlex.quote(str(self.folder.path))}",
        )

    def _finished(self) -> TrainingFinished:
        at = self.position
        use = self.folder.best()
        return TrainingFinished(
            str(self.folder.path),
            at.step,
            at.finished,
            at.last_loss,
            at.best_step,
            at.best_loss,
            at.tokens,
            at.seconds,
            str(use),
        )

    def _save(self, why: str) -> Saved:
        """A checkpoint of this very position."""
        run = self.run
        self._set(saved=self.position.step)
        at = self.position
        with self.folder.new_checkpoint(at.step, at.window.batches) as (partial, target):
            checkpoint.save(partial, at, run.identity, run.model.decoder, run.optimizer, self._sums)
            if run.config.adapter.method != "full":
                save_adapter_beside(partial, run)
        self.folder.point("latest", target)
        if at.best_step == at.step and not at.window.batches and why in ("best", "finished"):
            self.folder.point("best", target)
        self.folder.forget(run.config.save.keep)
        self._last_save = time.monotonic()
        self._saved = at, str(target)
        return Saved(at.step, str(target), why)

    def _set(self, **values: Any) -> None:
        self.position = replace(self.position, **values)


def save_adapter_beside(folder: Path, run: Prepared) -> None:
    """Put the adapter, in PEFT's format, into the folder of a checkpoint."""
    from qwen_mlx.adapters import save_adapter

    save_adapter(run.model.decoder, folder, ADAPTER, base=base_name(run.config, run.model.folder))


def _added(window: Window, numbers: Numbers, tokens: int) -> Window:
    loss, weight, metrics = numbers
    return Window(
        window.batches + 1,
        window.loss + loss,
        window.weight + weight,
        window.tokens + tokens,
        {name: window.metrics.get(name, 0.0) + value for name, value in metrics.items()},
    )


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


class _random_state_kept:  # noqa: N801 - used like a function
    """Whatever draws random numbers in this block leaves those of the training alone."""

    def __enter__(self) -> None:
        self._key = checkpoint.random_key()

    def __exit__(self, *_: object) -> None:
        checkpoint.set_random_key(self._key)
