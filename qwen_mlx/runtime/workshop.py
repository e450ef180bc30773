"""The training runs of this machine for an interface: a list, all that is kept of one, a look at data before it begins.

Nothing here imports MLX: an interface asks from a thread of its own while the runtime is busy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_mlx import events, paths
from qwen_mlx.errors import Cancelled, NotFound, QwenError, UsageError
from qwen_mlx.event_json import kind_name
from qwen_mlx.events import (
    CancelToken,
    DataExamined,
    DataPrepared,
    Event,
    JobCancelled,
    JobFailed,
    Progress,
    RowsShown,
    RunCheckpoint,
    RunEntry,
    RunRecord,
    RunState,
    ShownRow,
    TrainingForecast,
    TrainModel,
)
from qwen_mlx.runtime.jobs import Handle

if TYPE_CHECKING:
    import numpy as np

    from qwen_mlx.text.template import ChatTemplate
    from qwen_mlx.text.tokenizer import Tokenizer
    from qwen_mlx.training.config import RunConfig
    from qwen_mlx.training.data.config import DataConfig
    from qwen_mlx.training.run_folder import RunFolder

_TAIL = 1 << 18  # bytes of the end of events.jsonl that a list looks at
_LONGEST_NAME = 60
# What a configuration cannot do without.
_NEEDED = {"model.path": 'model.path="demo"', "data.train": 'data.train="data.jsonl"'}
_KINDS: dict[str, type] = {
    kind_name(kind): kind
    for kind in (
        *(events.RunStarted, events.DataPrepared, events.DataReady, events.Step, events.Eval, events.Sample),
        *(events.Saved, events.TrainingNotice, events.TrainingFinished, events.TrainingStopped, events.Notice),
    )
}


class LocalWorkshop:
    """Implements `events.Workshop`.

    Args:
        folders: where runs are looked for; the first one is where new runs go. The default is the data folder of this
            person, and `runs` of the current folder, where the command line puts them.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._folders = list(folders) if folders is not None else [paths.data_home() / "runs", Path("runs")]

    # ------------------------------------------------------------------------------------------------- what is here

    def runs(self) -> list[RunEntry]:
        from qwen_mlx.training.run_folder import RunFolder

        found = {}
        for home in self._folders:
            with contextlib.suppress(OSError):
                for path in home.iterdir():
                    folder = RunFolder(path)
                    if folder.exists:
                        found[str(folder.path)] = _entry(folder)
        return sorted(found.values(), key=lambda entry: -entry.changed)

    def record(self, folder: str) -> RunRecord:
        run = _existing(folder)
        config = run.read_config()
        latest, best = run.latest(), run.best()
        checkpoints = tuple(
            RunCheckpoint(
                *(path.name, str(path), _step_of(path), path == best, path == latest),
                adapter=config.adapter.method != "full",
            )
            for path in run.checkpoints()
        )
        own = run.path / "base"
        base = str(own) if (own / "config.json").is_file() else config.model.path
        found = (_event(values) for values in run.events())
        happened = tuple(event for event in found if event is not None)
        return RunRecord(_entry(run), config.table(), happened, checkpoints, base)

    def delete(self, folder: str) -> int:
        run = _existing(folder)
        if run.path.is_symlink():
            raise UsageError(f"{run.path} is a link", hint="Delete it by hand.")
        with run.locked():  # nobody trains in it, nor begins to
            freed = sum(file.lstat().st_size for file in run.path.rglob("*") if file.is_file() or file.is_symlink())
            try:
                shutil.rmtree(run.path)
            except OSError as error:
                raise QwenError(f"{run.path} cannot be deleted", found=error.strerror or str(error)) from None
        return freed

    def new_folder(self, name: str) -> str:
        stem = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:_LONGEST_NAME] or "run"
        folder, number = self._folders[0] / stem, 2
        while os.path.lexists(folder):
            folder, number = self._folders[0] / f"{stem}-{number}", number + 1
        return str(folder)

    # --------------------------------------------------------------------------------------------- what could be done

    def presets(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        from qwen_mlx.training.config import read_config
        from qwen_mlx.training.presets import PRESETS

        return {name: read_config(None, [f'preset="{name}"', *_NEEDED.values()]).table() for name in PRESETS}

    def problems(self, changes: Sequence[str]) -> dict[str, str]:
        from qwen_mlx.training.config import read_config

        own = ((change.partition("=")[0].strip(), _problem_of(change)) for change in changes)
        found = {key: problem for key, problem in own if problem}
        try:
            if not found:
                read_config(None, changes)
        except QwenError as error:
            found[""] = _without_place(error)
        return found

    def preview(self, changes: Sequence[str], rows: int) -> Handle:
        handle = Handle(TrainModel(None, tuple(changes)))
        threading.Thread(target=_preview, args=(tuple(changes), rows, handle), name="preview", daemon=True).start()
        return handle


@functools.lru_cache(512)
def _problem_of(change: str) -> str:
    """What is wrong with one change, whatever the others are; "" for nothing."""
    from qwen_mlx.training.config import read_config

    key = change.partition("=")[0].strip()
    try:
        read_config(None, [*(text for name, text in _NEEDED.items() if name != key), change])
    except QwenError as error:
        return _without_place(error)
    return ""


def _without_place(error: QwenError) -> str:
    """The message of an error, without the `--set key=value:` that it begins with."""
    return re.sub(r"^--set .*?: (?=')", "", str(error))


def _existing(folder: str) -> RunFolder:
    from qwen_mlx.training.run_folder import RunFolder

    run = RunFolder(Path(folder))
    if not run.exists:
        raise NotFound(f"{folder} is not the folder of a run")
    return run


# --------------------------------------------------------------------------------------------------- a line of a list


def _entry(run: RunFolder) -> RunEntry:
    from qwen_mlx.training.run_folder import EVENTS, read_state

    changed = max((_modified(run.path / name) for name in (EVENTS, "run.toml")), default=0.0)
    entry = RunEntry(str(run.path), run.path.name, changed=changed)
    try:
        config = run.read_config()
        about: dict[str, Any] = {
            "model": _model_name(config),
            "data": config.data.train,
            "method": method_of(config.table()),
        }
        entry = dataclasses.replace(entry, **about)
        position: Mapping[str, Any] = {}
        if (latest := run.latest()) is not None:
            position = read_state(latest).get("position", {})
        return dataclasses.replace(entry, **_numbers(run.path / EVENTS, position), state=_state(run))
    except (QwenError, OSError, ValueError, TypeError, KeyError) as error:
        return dataclasses.replace(entry, state="failed", problem=str(error))


def _numbers(path: Path, position: Mapping[str, Any]) -> dict[str, Any]:
    """The latest numbers: of the events, and where they say nothing, of the latest checkpoint."""
    found: dict[str, Any] = {
        "step": position.get("step", 0),
        "train_loss": position.get("last_loss"),
        "best_loss": position.get("best_loss"),
        "best_step": position.get("best_step"),
    }
    for values in _tail(path):
        kind = values.get("type")
        if kind == "run_started":
            found |= {"step": values.get("step", 0), "total": values.get("forecast", {}).get("steps", 0)}
        elif kind == "step":
            found |= {"step": values["step"], "total": values["total"]}
            if values.get("loss") is not None and not values.get("skipped"):
                found["train_loss"] = values["loss"]
        elif kind == "eval":
            found["valid_loss"] = values.get("loss")
            if values.get("best"):
                found |= {"best_loss": values["loss"], "best_step": values["step"]}
    return found


def _state(run: RunFolder) -> RunState:
    from qwen_mlx.training.run_folder import EVENTS

    began, last = False, None
    for values in _tail(run.path / EVENTS):
        last = values.get("type")
        began = began or last in ("run_started", "step")
    if last in ("training_stopped", "training_finished"):
        return "stopped" if last == "training_stopped" else "finished"
    # Only now: to look whether somebody trains here takes the lock for a moment.
    if run.busy:
        return "running"
    return "failed" if began else "new"  # one that ended in order says so


def _tail(path: Path) -> Iterator[Mapping[str, Any]]:
    """The last events of a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()[1 if size > _TAIL else 0 :]
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict):
                yield values


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _model_name(config: RunConfig) -> str:
    return config.model.path.rstrip("/").rpartition("/")[2] or config.model.path


def method_of(config: Mapping[str, Any]) -> str:
    """ "lora", "rslora", "dora", "qlora" or "full", from the resolved configuration of a run."""
    adapter = config.get("adapter", {})
    method = str(adapter.get("method", "lora"))
    if method == "lora" and config.get("model", {}).get("quantize") is not None:
        return "qlora"
    return "rslora" if method == "lora" and adapter.get("rslora") else method


def _step_of(path: Path) -> int:
    found = re.search(r"\d+", path.name)
    return int(found[0]) if found else 0


# --------------------------------------------------------------------------------------------------- events from a file


def _event(values: Mapping[str, Any]) -> Event | None:
    """What `event_json.as_dictionary` wrote; None for what this version does not know."""
    kind = _KINDS.get(str(values.get("type")))
    if kind is None:
        return None
    try:
        return _made(kind, values)
    except (TypeError, ValueError):
        return None


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    known: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            value = values[field.name]
            if field.type in ("float", float) and value is None:
                value = float("nan")  # JSON has no word for it
            elif isinstance(value, list):
                value = tuple(value)
            known[field.name] = value
    if kind is events.RunStarted:
        known["forecast"] = _made(TrainingForecast, known["forecast"])
    return kind(**known)


# --------------------------------------------------------------------------------------------------- a look at data


def _preview(changes: tuple[str, ...], rows: int, handle: Handle) -> None:
    try:
        for event in _examined(changes, rows, handle.token):
            handle.put(event)
    except Cancelled:
        handle.put(JobCancelled())
    except QwenError as error:
        handle.put(JobFailed(str(error), True, error.exit_code))
    except Exception as error:  # the interface goes on, whatever happened
        handle.put(JobFailed(f"{type(error).__name__}: {error}", False, 70, traceback.format_exc()))


def _examined(changes: tuple[str, ...], rows: int, cancel: CancelToken) -> Iterator[Event]:
    from qwen_mlx.hub.references import resolve
    from qwen_mlx.text.template import ChatTemplate
    from qwen_mlx.text.tokenizer import Tokenizer
    from qwen_mlx.training.config import read_config
    from qwen_mlx.training.data.dataset import open_dataset, open_validation

    config = read_config(None, changes)
    yield Progress("model", 0, None, "")  # what goes wrong from here on is about it
    folder = resolve(config.model.path)
    tokenizer, template = Tokenizer.from_folder(folder), ChatTemplate.from_folder(folder)
    yield Progress("data", 0, None, "")
    yield RowsShown(tuple(itertools.islice(_first(config.data, tokenizer, template, cancel), rows)))
    found: dict[str, DataPrepared] = {}
    for opener in (open_dataset, open_validation):
        for event in opener(config.data, tokenizer, template, cancel):
            if isinstance(event, DataPrepared):
                found[event.part] = event
            yield event
    yield DataExamined(found["train"], found.get("valid"))


def _first(config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate, cancel: CancelToken) -> Iterator[ShownRow]:
    """The examples of the first rows, long before all rows are read."""
    from qwen_mlx.training.data.contents import Remarks
    from qwen_mlx.training.data.encode import Encoder
    from qwen_mlx.training.data.files import find_files
    from qwen_mlx.training.data.formats import FormatFinder, read_content
    from qwen_mlx.training.data.rows import read_rows

    encoder, finder = Encoder(config, tokenizer, template), FormatFinder()
    for row in read_rows(find_files(config.train, config.split)):
        cancel.raise_if_cancelled()
        finder.add(row)
        name = finder.best if config.format == "auto" else config.format
        for example in encoder.encode(read_content(row, name, Remarks()), row.place, Remarks()):
            yield ShownRow(row.source, _pieces(tokenizer, example.ids, example.weights), example.whole)


def _pieces(tokenizer: Tokenizer, ids: np.ndarray, weights: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The text that each token adds; what a character needs several tokens for is added by the last of them."""
    stream = tokenizer.detokenizer(skip_special=False)
    pieces = [(stream.add(number), weight) for number, weight in zip(ids.tolist(), weights.tolist())]
    if rest := stream.finish():
        pieces.append((rest, pieces[-1][1] if pieces else 0.0))
    return tuple(pieces)
