"""The models of this machine for an interface: a list, what could be had, downloads in their own threads, deleting."""

from __future__ import annotations

import re
import shutil
import threading
import traceback
from pathlib import Path

from qwen_mlx import paths
from qwen_mlx.errors import Cancelled, NotFound, QwenError, UsageError
from qwen_mlx.events import JobCancelled, JobFailed, KnownModel, ModelEntry, PullModel
from qwen_mlx.runtime.jobs import Handle


class LocalShelf:
    """Implements `events.Shelf` over the Hugging Face cache, the models made here and the demo model."""

    def models(self) -> list[ModelEntry]:
        from qwen_mlx.evaluation.examine import examine
        from qwen_mlx.hub.library import cached_models, own_models

        found = [_demo()]
        for model in [*own_models(), *cached_models()]:
            seen = examine(model)
            if seen.format is None and seen.problem is None:
                continue  # not a Qwen model: other programs share the cache
            problem = seen.problem or (f"{seen.format}: import it first" if seen.foreign else None)
            found.append(
                ModelEntry(
                    *(model.name, model.size, seen.parameters, seen.format, seen.bits, seen.fits, problem, model.used)
                )
            )
        return found

    def known(self) -> list[KnownModel]:
        from qwen_mlx.evaluation.fitting import USUAL_CONTEXT, machine
        from qwen_mlx.hub import catalogue, fit, sizes

        here = machine()
        found = []
        for model in catalogue.table().values():
            for variant in sizes.listed(model):
                guess = fit.estimate(variant.numbers(), here, USUAL_CONTEXT)
                found.append(
                    KnownModel(
                        *(variant.name, variant.repository, variant.parameters, variant.bits, variant.size),
                        *(guess.need, guess.verdict, variant.default),
                    )
                )
        return found

    def new_folder(self, name: str, preset: str) -> str:
        stem = (
            re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name.rstrip('/').rpartition('/')[2]}-{preset}").strip(".-") or "model"
        )
        folder, number = paths.own_models() / stem[:90], 2
        while folder.exists():
            folder, number = folder.with_name(f"{stem[:90]}-{number}"), number + 1
        return str(folder)

    def pull(self, name: str) -> Handle:
        handle = Handle(PullModel(name))
        threading.Thread(target=_pull, args=(name, handle), name="download", daemon=True).start()
        return handle

    def delete(self, name: str) -> int:
        from qwen_mlx.hub.library import deletion
        from qwen_mlx.hub.references import Reference, parse

        reference = parse(name)
        if isinstance(reference, Reference):
            plan = deletion([reference])
            plan.execute()
            return plan.freed
        if reference.parent == paths.own_models().absolute():
            return _delete_folder(reference)
        raise UsageError(
            f"{name} is a folder of your own", hint="Only models that were pulled or made by this program are deleted."
        )


def _delete_folder(folder: Path) -> int:
    """Delete a model that was made here; returns its bytes."""
    if folder.is_symlink() or not (folder / "config.json").is_file():
        raise NotFound(f"{folder} is not a model that was made here", hint="Delete it by hand.")
    size = _size(folder)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise QwenError(f"{folder} cannot be deleted: {error.strerror or error}") from error
    return size


def _pull(name: str, handle: Handle) -> None:
    from qwen_mlx.hub.pull import pull

    try:
        for event in pull(name, cancel=handle.token):
            handle.put(event)
    except Cancelled:
        handle.put(JobCancelled())
    except QwenError as error:
        handle.put(JobFailed(str(error), True, error.exit_code))
    except Exception as error:  # the interface goes on, whatever happened
        handle.put(JobFailed(f"{type(error).__name__}: {error}", False, 70, traceback.format_exc()))


def _demo() -> ModelEntry:
    return ModelEntry("demo", _size(paths.demo_model()), fits="fits", removable=False)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
