"""Events as JSON: one object per line, `type` first, the fields named as in `qwen_mlx.events`."""

from __future__ import annotations

import json
from typing import TextIO

from qwen_mlx.event_json import as_dictionary, type_name
from qwen_mlx.events import Event, JobCancelled, JobFailed

__all__ = ["JsonWriter", "as_dictionary", "type_name"]


class JsonWriter:
    """Writes events to a stream, each as soon as it comes.

    Attributes:
        told_the_end: whether a failure or the end of a cancelled job was written, by any of them; `main` writes it for
            commands that have not.
    """

    told_the_end = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        self._ascii = encoding not in ("utf8", "utf8sig")

    def show(self, event: Event) -> None:
        if isinstance(event, (JobFailed, JobCancelled)):
            JsonWriter.told_the_end = True
        self._stream.write(json.dumps(as_dictionary(event), ensure_ascii=self._ascii) + "\n")
        self._stream.flush()
