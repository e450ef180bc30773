"""How fast a model reads and writes, each contender in a process of its own.

A fresh process for each, because a fast BLAS, memory and caches of one would help or hurt the other. Run as
`python -m qwen_mlx.evaluation.speed '<json of Task>'` this module is one contender and prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qwen_mlx.errors import QwenError

PEER_DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class Task:
    """What one contender does.

    Attributes:
        engine: "qwen-mlx" or "mlx-lm".
        prompt, tokens: lengths, in tokens, of the prompt that is read and the greedy text that is written.
        history: tokens of an earlier turn before a second one of `turn` tokens; 0 leaves that part out.
        dtype: what the peer's floating point weights are cast to.
        weights: our form of quantized weights.
    """

    engine: str
    folder: str
    prompt: int
    tokens: int
    history: int = 0
    turn: int = 32
    dtype: str = ""
    weights: str = "auto"


@dataclass(frozen=True)
class Result:
    """What came out: tokens per second, seconds, bytes."""

    engine: str
    load_seconds: float
    prefill_speed: float
    decode_speed: float
    memory: int
    cold_first_token: float = 0.0
    second_first_token: float = 0.0
    note: str = ""


def measure(task: Task, timeout: float = 3600) -> Result:
    """Run `task` in a fresh process. Raises `QwenError` with the last line of what it said when it fails."""
    command = [sys.executable, "-m", "qwen_mlx.evaluation.speed", json.dumps(asdict(task))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise QwenError(f"{task.engine} was not done after {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise QwenError(f"{task.engine} failed: {last}")
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def numbers(count: int, vocab: int, seed: int = 1) -> list[int]:
    """`count` token ids that are the same everywhere."""
    ids, state = [], seed
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        ids.append(1 + state % (vocab - 1))
    return ids


def _peak_memory() -> int:
    """Bytes that this process had resident at most."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _run_ours(task: Task) -> Result:
    from qwen_mlx import load
    from qwen_mlx.events import PrefillProgress
    from qwen_mlx.generation.generate import Finished, Timing, Token, generate
    from qwen_mlx.generation.prefix_cache import PrefixCache
    from qwen_mlx.generation.sampling import SamplingParams

    start = time.perf_counter()
    model = load(task.folder, weights=task.weights)  # type: ignore[arg-type]
    loaded = time.perf_counter() - start
    vocab = model.spec.vocab_size
    prefixes = PrefixCache(model.decoder, 1 << 40)

    def run(key: str, prompt: Sequence[int], tokens: int) -> tuple[Timing, int]:
        prefix = prefixes.take(key, prompt)
        cached = prefix.caches[0].offset
        generated, timing = [], Timing(0, 0, 0)
        params = SamplingParams(temperature=0.0, max_tokens=tokens)
        for event in generate(model.decoder, prompt, params, cache=prefix.caches):
            if isinstance(event, Token):
                generated.append(event.id)
            elif isinstance(event, Finished):
                timing = event.timing
            else:
                assert isinstance(event, PrefillProgress)
        prefixes.put(key, prefix, [*prompt, *generated])
        return timing, len(prompt) - cached

    run("warm-up", numbers(8, vocab), 2)
    timing, computed = run("speed", numbers(task.prompt, vocab), task.tokens)
    cold = second = 0.0
    if task.history:
        history = numbers(task.history, vocab, seed=2)
        first, _ = run("chat", history, 2)
        cold = first.first_token
        again, _ = run("chat", history + numbers(task.turn, vocab, seed=3), 2)
        second = again.first_token
    return Result(
        "qwen-mlx",
        loaded,
        computed / timing.first_token,
        (task.tokens - 1) / timing.decode if timing.decode else 0.0,
        _peak_memory(),
        cold,
        second,
        f"weights {model.weights}",
    )


def _run_peer(task: Task) -> Result:
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    start = time.perf_counter()
    model, config = load_model(Path(task.folder))
    model.set_dtype(getattr(mx, task.dtype))
    mx.eval(model.parameters())
    loaded = time.perf_counter() - start
    vocab = config["vocab_size"]

    def run(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        begin = time.perf_counter()
        first = last = 0.0
        for _ in generate_step(mx.array(list(prompt)), model, max_tokens=tokens, sampler=make_sampler(temp=0.0)):
            last = time.perf_counter() - begin
            first = first or last
        return first, last - first

    run(numbers(8, vocab), 2)
    first, decode = run(numbers(task.prompt, vocab), task.tokens)
    return Result("mlx-lm", loaded, task.prompt / first, (task.tokens - 1) / decode, _peak_memory(), note=task.dtype)


def main(argv: Sequence[str]) -> None:
    task = Task(**json.loads(argv[1]))
    result: dict[str, Any] = asdict(_run_ours(task) if task.engine == "qwen-mlx" else _run_peer(task))
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    try:
        main(sys.argv)
    except QwenError as error:
        sys.exit(f"error: {error}")
