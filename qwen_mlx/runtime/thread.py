"""The one thread that owns MLX.

MLX streams, lazy arrays and random state belong to the thread that made them, so everything that computes happens
here, one job after the other. Interfaces submit jobs and read events; nothing else crosses.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_mlx.errors import Cancelled, NotFound, QwenError
from qwen_mlx.events import (
    CancelToken,
    ConvertModel,
    CountTokens,
    EvaluateModel,
    Event,
    Job,
    JobCancelled,
    JobFailed,
    LoadModel,
    ModelInfo,
    ModelLoaded,
    PlanTraining,
    QuantizeModel,
    Reply,
    TokensCounted,
    TrainModel,
)
from qwen_mlx.runtime.jobs import Handle

if TYPE_CHECKING:
    from qwen_mlx.chat.session import ChatSession
    from qwen_mlx.checkpoints.load import LoadedModel


class ThreadRuntime:
    """Implements `events.Runtime` with a daemon thread, which is started by the first job.

    MLX is imported inside the thread, so that making a runtime costs nothing and an interface can paint first.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Handle | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: list[Handle] = []
        self._thread: threading.Thread | None = None
        self._info: ModelInfo | None = None
        self._session: ChatSession | None = None  # touched by the runtime thread only
        self._adapted: LoadedModel | None = None  # the same model, when it has an adapter
        self._closed = False

    def submit(self, job: Job) -> Handle:
        """Queue a job. Raises RuntimeError after `close`."""
        handle = Handle(job)
        with self._lock:
            if self._closed:
                raise RuntimeError("the runtime is closed")
            self._open.append(handle)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="qwen-mlx runtime", daemon=True)
                self._thread.start()
            self._jobs.put(handle)
        return handle

    @property
    def model(self) -> ModelInfo | None:
        return self._info

    def close(self, timeout: float = 2.0) -> None:
        with self._lock:
            self._closed = True
            for handle in self._open:
                handle.cancel()
            self._jobs.put(None)
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    @property
    def running(self) -> bool:
        """False once the thread has ended, or was never needed."""
        return self._thread is not None and self._thread.is_alive()

    # ------------------------------------------------------------------------------------ inside the thread

    def _work(self) -> None:
        while (handle := self._jobs.get()) is not None:
            try:
                self._run(handle)
            except Cancelled:
                handle.put(JobCancelled())
            except QwenError as error:
                handle.put(JobFailed(str(error), expected=True, exit_code=error.exit_code))
            except MemoryError:
                handle.put(JobFailed("out of memory; use a smaller model or a shorter conversation", expected=True))
            except Exception as error:
                # A bug of ours, or of MLX: the job is lost, the app is not.
                summary = f"{type(error).__name__}: {error}"
                handle.put(JobFailed(summary, expected=False, exit_code=70, details=traceback.format_exc()))
            finally:
                with self._lock:
                    self._open.remove(handle)
        self._session = self._adapted = None
        _end_of_mlx()

    def _run(self, handle: Handle) -> None:
        handle.token.raise_if_cancelled()
        job = handle.job
        if isinstance(job, LoadModel):
            self._load(job, handle)
        elif isinstance(job, Reply):
            if self._session is None:
                raise NotFound("no model is loaded", hint="Choose a model first.")
            if self._adapted is not None:
                _use_adapter(self._adapted, not job.bare)
            for event in self._session.reply(job, handle.token):
                handle.put(event)
        elif isinstance(job, CountTokens):
            if self._session is None:
                raise NotFound("no model is loaded", hint="Choose a model first.")
            handle.put(TokensCounted(self._session.count(job.text)))
        elif isinstance(job, (ConvertModel, QuantizeModel, EvaluateModel)):
            for event in _write_or_judge(job, handle.token):
                handle.put(event)
        elif isinstance(job, (TrainModel, PlanTraining)):
            for event in _train(job, handle.token):
                handle.put(event)

    def _load(self, job: LoadModel, handle: Handle) -> None:
        started = time.perf_counter()
        from qwen_mlx import device

        device.prepare()  # before mlx is imported
        from qwen_mlx.chat.session import ChatSession
        from qwen_mlx.checkpoints.load import iter_load
        from qwen_mlx.hub.references import resolve

        folder = resolve(job.model)
        device.set_memory_limits()
        if self._session is not None and 2 * _weight_bytes(folder) > device.memory_available():
            # Both at once would not fit well; else the model before stays until the new one is there.
            self._session, self._info, self._adapted = None, None, None
        steps = iter_load(folder, weights=job.weights, rope_scaling=job.rope_scaling, cancel=handle.token)
        while True:
            try:
                handle.put(next(steps))
            except StopIteration as finished:
                model = finished.value
                break
        info = model.info()
        if job.adapter is not None:
            name = _give_adapter(model, Path(job.adapter))
            info = replace(info, name=f"{info.name} + {name}")
        self._session = ChatSession(model, job.kv_bits)
        self._adapted = model if job.adapter is not None else None
        self._info = info
        handle.put(ModelLoaded(self._info, time.perf_counter() - started))


def _write_or_judge(job: ConvertModel | QuantizeModel | EvaluateModel, cancel: CancelToken) -> Iterator[Event]:
    """Jobs that leave the loaded model alone."""
    from qwen_mlx import device

    device.prepare()  # before mlx is imported
    from qwen_mlx.hub.references import resolve

    if isinstance(job, EvaluateModel):
        from qwen_mlx.evaluation.evaluate import iter_evaluate

        against = None if job.against is None else str(resolve(job.against))
        return iter_evaluate(replace(job, model=str(resolve(job.model)), against=against), cancel)
    if isinstance(job, ConvertModel):
        from qwen_mlx.checkpoints.convert import iter_convert

        return iter_convert(replace(job, source=str(resolve(job.source))), cancel)
    from qwen_mlx.checkpoints.quantize import iter_quantize

    return iter_quantize(replace(job, source=str(resolve(job.source))), cancel)


def _train(job: TrainModel | PlanTraining, cancel: CancelToken) -> Iterator[Event]:
    """Training leaves the loaded model alone, too; when cancelled, it saves first."""
    from qwen_mlx import device

    device.prepare()  # before mlx is imported
    from qwen_mlx.training import run
    from qwen_mlx.training.config import read_config

    if isinstance(job, PlanTraining):
        return run.plan(read_config(None, job.changes, job.stage), cancel)
    if job.resume:
        assert job.config is not None
        return run.resume(Path(job.config), job.changes, job.allow_change, cancel, job.controls)
    file = None if job.config is None else Path(job.config)
    return run.train(read_config(file, job.changes, job.stage), cancel, job.controls)


def _give_adapter(model: LoadedModel, folder: Path) -> str:
    """Put the adapter in a folder beside the weights; what it is called."""
    from qwen_mlx.adapters import load_adapter

    load_adapter(model.decoder, folder)
    model.decoder.eval()
    # A checkpoint is named after its run.
    return folder.parent.name if folder.name.startswith("step-") else folder.name


def _use_adapter(model: LoadedModel, use: bool) -> None:
    from qwen_mlx.adapters import adapters, set_mix

    set_mix(model.decoder, dict.fromkeys(adapters(model.decoder), 1.0) if use else {})


def _end_of_mlx() -> None:
    """Stop the workers of this thread's streams; left to the end of the process they sometimes abort it."""
    if "mlx.core" in sys.modules:
        import mlx.core as mx

        mx.synchronize()
        mx.clear_streams()


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
