"""The models of this machine for an interface: a list, downloads in threads of their own, deleting."""

from __future__ import annotations

import threading
import traceback

from qwen_mlx import paths
from qwen_mlx.errors import Cancelled, QwenError, UsageError
from qwen_mlx.events import JobCancelled, JobFailed, ModelEntry, PullModel
from qwen_mlx.runtime.jobs import Handle


class LocalShelf:
    """Implements `events.Shelf` over the Hugging Face cache and the demo model."""

    def models(self) -> list[ModelEntry]:
        from qwen_mlx.evaluation.examine import examine
        from qwen_mlx.hub.library import cached_models

        found = [_demo()]
        for model in cached_models():
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

    def pull(self, name: str) -> Handle:
        handle = Handle(PullModel(name))
        threading.Thread(target=_pull, args=(name, handle), name="download", daemon=True).start()
        return handle

    def delete(self, name: str) -> int:
        from qwen_mlx.hub.library import deletion
        from qwen_mlx.hub.references import Reference, parse

        reference = parse(name)
        if not isinstance(reference, Reference):
            raise UsageError(f"{name} is a folder of your own", hint="Only models of the cache are deleted here.")
        plan = deletion([reference])
        plan.execute()
        return plan.freed


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
    folder = paths.demo_model()
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return ModelEntry("demo", size, fits="fits", removable=False)
