"""The run that goes on in this app, whether somebody is looking or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_mlx.events import JobHandle, Runtime, TrainingControls, TrainModel
from tui.training.run_view import RunView


@dataclass
class LiveRun:
    """A run, its handle, and what may be asked of it."""

    name: str
    handle: JobHandle
    controls: TrainingControls
    view: RunView
    stopping: bool = False

    @property
    def paused(self) -> bool:
        return self.controls.paused and not self.stopping


class Trainer:
    """At most one run at a time. It runs where models answer: until it ends, nothing else can be asked of them."""

    def __init__(self, runtime: Runtime) -> None:
        self.current: LiveRun | None = None
        self.last: LiveRun | None = None  # the one that ended, for who still looks at it
        self._runtime = runtime

    def start(self, folder: str, changes: Sequence[str]) -> LiveRun:
        """Begin a run in a new folder. Raises RuntimeError when the runtime is closed."""
        controls = TrainingControls()
        job = TrainModel(None, (*changes, f'out="{_quoted(folder)}"'), controls=controls)
        return self._follow(folder, job, controls, RunView(Path(folder).name, folder=folder))

    def resume(self, folder: str, view: RunView | None = None) -> LiveRun:
        """Go on with a run from its latest checkpoint; `view` is what is known of it."""
        controls = TrainingControls()
        job = TrainModel(folder, resume=True, controls=controls)
        view = view or RunView(Path(folder).name, folder=folder)
        view.state, view.error = "waiting", ""
        return self._follow(folder, job, controls, view)

    def _follow(self, folder: str, job: TrainModel, controls: TrainingControls, view: RunView) -> LiveRun:
        if self.current is not None:
            raise RuntimeError("a run is going on already")
        self.current = LiveRun(Path(folder).name, self._runtime.submit(job), controls, view)
        return self.current

    def live(self, folder: str) -> LiveRun | None:
        """The run in a folder, if this app is at it or was at it last."""
        for run in (self.current, self.last):
            if run is not None and run.view.folder == folder:
                return run
        return None

    def stop(self) -> None:
        """Save and end; one that did not begin yet is forgotten."""
        if self.current is not None:
            self.current.stopping = True
            # Pausing ends as well; a step in the middle of an accumulation is kept by the checkpoint.
            self.current.controls.resume()
            self.current.handle.cancel()

    def poll(self) -> LiveRun | None:
        """Take what has happened; the run that ended, once."""
        current = self.current
        if current is None:
            return None
        for event in current.handle.drain():
            current.view.apply(event)
        if not current.view.ended:
            return None
        self.current, self.last = None, current
        return current


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
