"""The Metal text that MLX itself generates for a call of a kernel, on any machine.

Where there is no Metal device MLX refuses to call a kernel, except while a function is exported; and with
`verbose=True` it then prints what it would compile.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx


def mlx_source(call: Callable[[], object]) -> str:
    """What MLX prints while `call` calls an `mx.fast.metal_kernel` with `verbose=True`; returns its arrays.

    Redirects the standard output of the whole process for as long as it takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "printed"
        sys.stdout.flush()
        stdout = os.dup(1)
        with printed.open("w") as file:
            os.dup2(file.fileno(), 1)
        problem: Exception | None = None
        try:
            with contextlib.suppress(RuntimeError):  # the export fails after the text was printed
                mx.export_function(str(Path(folder) / "exported.mlxfn"), lambda x: call(), mx.zeros(1))
        except Exception as error:
            problem = error
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        text = printed.read_text()
    if "```\n" not in text:
        raise RuntimeError(f"MLX printed no Metal source: {problem or text or 'nothing at all'}")
    return text.split("```\n", 1)[1].rsplit("\n```", 1)[0]
