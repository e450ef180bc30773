"""Contenders in processes of their own, so that the BLAS, memory and caches of one do not help or hurt another.

A process loads one model and waits; it runs when it is told to, so that contenders can take turns. Run as
`python -m qwen_mlx.evaluation.speed '<json of Task>'` this module is one contender: one JSON line for every line
that it is sent.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation.contenders import CLOCKS, Contender, Limits, Ours, Peer, Run, peak_memory

ENGINES = ("qwen-mlx", "mlx-lm")


@dataclass(frozen=True)
class Task:
    """Who runs what.

    Attributes:
        engine: one of `ENGINES`.
        folder: the checkpoint.
        form: ours: the form of quantized weights; the peer's: the type its floating point weights are cast to.
        clock: "wall", or "cpu" for the seconds of all threads of the process: what is left to compare on a CPU that
            others use too.
        kv_bits: of our KV cache, as of `LoadModel`.
    """

    engine: str
    folder: str
    form: str
    clock: str = "wall"
    kv_bits: str | None = None


class Process:
    """A contender in a process of its own; a context manager that ends it.

    Raises:
        QwenError: from every method, with the last line of what the process said, when it failed or took too long.
    """

    def __init__(self, task: Task, timeout: float = 3600) -> None:
        self.task = task
        self._timeout = timeout
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = [sys.executable, "-m", "qwen_mlx.evaluation.speed", json.dumps(asdict(task))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            loaded = self._answer()
        except QwenError:
            self.close()
            raise
        self.load_seconds: float = loaded["seconds"]
        self.note: str = loaded["note"]
        self.loaded_memory: int = loaded["memory"]

    def run(self, context: int, limits: Limits) -> Run:
        """Read `context` tokens and write on; see `Contender.run`."""
        return Run(**self._ask({"do": "run", "context": context, "limits": asdict(limits)}))

    def turns(self, history: int, turn: int) -> tuple[float, float]:
        """See `Ours.turns`."""
        answer = self._ask({"do": "turns", "history": history, "turn": turn})
        return answer["cold"], answer["second"]

    def memory(self) -> int:
        """Bytes the process had at most, so far."""
        return int(self._ask({"do": "memory"})["memory"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._said):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                if line.startswith("{"):  # libraries may print
                    self._lines.put(line)
        self._lines.put("")

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said last is in the answer that does not come
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            raise QwenError(f"{self.task.engine} was not done after {self._timeout:.0f} s") from None
        if not line:
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or ["no message"])[-1]
            raise QwenError(f"{self.task.engine} failed: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _load(task: Task) -> Contender:
    if task.engine == "qwen-mlx":
        return Ours(task.folder, task.form, CLOCKS[task.clock], task.kv_bits)
    return Peer(task.folder, task.form, CLOCKS[task.clock])


def main(argv: Sequence[str]) -> None:
    def say(answer: Mapping[str, Any]) -> None:
        sys.stdout.write("\n" + json.dumps(answer) + "\n")
        sys.stdout.flush()

    start = time.perf_counter()
    contender = _load(Task(**json.loads(argv[1])))
    say({"seconds": time.perf_counter() - start, "note": contender.note, "memory": peak_memory()})
    contender.run(2, Limits(2))  # warm-up
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "run":
            say(asdict(contender.run(question["context"], Limits(**question["limits"]))))
        elif question["do"] == "turns":
            assert isinstance(contender, Ours)
            cold, second = contender.turns(question["history"], question["turn"])
            say({"cold": cold, "second": second})
        else:
            say({"memory": peak_memory()})


if __name__ == "__main__":
    try:
        main(sys.argv)
    except QwenError as error:
        sys.exit(f"error: {error}")
