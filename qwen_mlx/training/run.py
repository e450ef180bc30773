"""Beginning a run, going on with one, and only planning one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_mlx.errors import UsageError
from qwen_mlx.events import (
    CancelToken,
    Event,
    Notice,
    TrainingControls,
    TrainingPlanned,
)
from qwen_mlx.training.config import RunConfig, checked
from qwen_mlx.training.run_folder import RunFolder, read_state
from qwen_mlx.training.settings import changed, read_change, read_section


def train(
    config: RunConfig, cancel: CancelToken | None = None, controls: TrainingControls | None = None
) -> Iterator[Event]:
    """Begin a run in the folder `config.out`, which must not hold one yet.

    Yields:
        `Progress` and `Notice` while things are read, `DataReady`, `RunStarted`, then `Step`, `Eval`, `Sample`,
        `Saved` and `TrainingNotice`, and at the end `TrainingFinished`; or, when cancelled, `Saved` and
        `TrainingStopped`.

    Raises:
        UsageError: the folder is taken, or what is asked for cannot be meant.
        TrainingError: the numbers are beyond repair; what was learnt is saved.
        QwenError: model or data cannot be read, or the disk cannot be written.
        Cancelled: before the first step.
    """
    folder = RunFolder(Path(config.out))
    with folder.locked():
        folder.create(config)
        yield from _go(folder, config, cancel, controls)


def resume(
    path: Path,
    changes: Sequence[str] = (),
    allow_change: bool = False,
    cancel: CancelToken | None = None,
    controls: TrainingControls | None = None,
) -> Iterator[Event]:
    """Go on with the run in a folder, from its latest checkpoint; yields as `train`.

    Args:
        changes: `section.key=value`, laid over the run's configuration.
        allow_change: go on although data, model or configuration are not what they were.

    Raises:
        NotFound: no run is there.
        UsageError: something has changed; the run is finished; another process is at it.
        CheckpointError: the checkpoint is damaged.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    for text in changes:
        key, value = read_change(text)
        config = checked(read_section(RunConfig, changed(config.table(), key, value)))
    with folder.locked():
        folder.sweep()
        yield from _go(folder, config, cancel, controls, allow_change)


def _go(
    folder: RunFolder,
    config: RunConfig,
    cancel: CancelToken | None,
    controls: TrainingControls | None,
    allow_change: bool = False,
) -> Iterator[Event]:
    from qwen_mlx.training import checkpoint
    from qwen_mlx.training.loop import Loop
    from qwen_mlx.training.prepare import prepare
    from qwen_mlx.training.report import Report

    cancel, controls = cancel or CancelToken(), controls or TrainingControls()
    report = Report(folder.path, config.log.sinks)
    try:
        latest = folder.latest()
        if latest is not None:
            _refuse_finished(folder, latest, config)
        steps = prepare(config, folder.path, cancel)
        while True:
            try:
                event = next(steps)
            except StopIteration as finished:
                run = finished.value
                break
            report.write(event)
            yield event
        position, sums = checkpoint.Position(), None
        if latest is not None:
            differences = checkpoint.compare(latest, run.identity, allow_change)
            if differences:
                notice = Notice(f"not as when the run began: {', '.join(differences)}")
                report.write(notice)
                yield notice
            position, sums = checkpoint.load(latest, run.model.decoder, run.optimizer)
            position = checkpoint.continued(position, len(run.stage.train.batches(position.epoch)), run.forecast.steps)
        folder.write_config(run.config)  # with all that was decided for this machine
        for event in Loop(folder, run, cancel, controls, position, sums).events():
            report.write(event)
            yield event
    finally:
        report.close()


def _refuse_finished(folder: RunFolder, latest: Path, config: RunConfig) -> None:
    """A run that came to its end goes on only when it is given a later one."""
    position = read_state(latest).get("position", {})
    if position.get("finished") and config == folder.read_config():
        raise UsageError(
            f"the run in {folder.path} is finished after {position.get('step')} steps",
            hint="To train on: --set loop.epochs=N --allow-change. To use it: `qwen-mlx train export`.",
        )


def plan(config: RunConfig, cancel: CancelToken | None = None, probe: bool = False) -> Iterator[Event]:
    """Say what a run would take, and train nothing.

    Args:
        probe: compute one step to measure time and memory.

    Yields:
        `Progress`, `Notice`, `DataReady`, and `TrainingPlanned` at the end.
    """
    import tempfile

    from qwen_mlx.training.forecast import layered, measured
    from qwen_mlx.training.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="qwen-mlx-plan-") as scratch:
        run = yield from prepare(config, Path(scratch), cancel or CancelToken())
        forecast = measured(run) if probe else layered(run)
        yield TrainingPlanned(config.table(), forecast)
