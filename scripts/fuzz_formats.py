#!/usr/bin/env python3
"""Damages model files in thousands of ways, imports each, and prints what came of it.

    .venv/bin/python scripts/fuzz_formats.py                        10,000 files, about ten minutes on two cores
    .venv/bin/python scripts/fuzz_formats.py --count 500 --first 7000 --workers 1
    .venv/bin/python scripts/fuzz_formats.py --one 7123              one file, here, with the traceback

A file may be refused, by an error of `qwen_mlx.errors`, or imported, loaded and run. Anything else is a finding:
another exception, a process that dies, a file that takes more than 2 seconds, or memory that grows by more than
500 MB. Each file follows from its number. The tests run some hundreds of them in their own process.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from qwen_mlx.checkpoints.formats.gguf import writer  # noqa: E402
from scripts.formats import samples  # noqa: E402

SECONDS, MEMORY = 2.0, 500 << 20
PATIENCE = 20.0  # after which a process is ended, and its file is a hang
KINDS = ("safetensors", "gguf", "config", "index")
FORMS = ("awq", "gptq", "gptq_v2_asym", "fp8", "fp8_ue8m0", "ct_int4", "ct_int4_asym", "ct_int8")
_NAME = "fuzz"
# Small, so that an import that succeeds is quick; groups and blocks of 128 still fit.
_CONFIG = samples.CONFIGS["qwen3_moe"] | {
    "hidden_size": 128,
    "intermediate_size": 128,
    "moe_intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_INTEGERS = (0, 1, 2, 3, 7, 31, 32, 33, 127, 128, 255, 256, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40)
_WIDE = (*_INTEGERS, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES = (None, True, False, "", "x", "../../etc/passwd", "\x1b[2J", [], {}, [1], {"a": 1}, 1e308, -1, 0.5, "\ud800")


@dataclass(frozen=True)
class Outcome:
    """What came of one file: "refused" or "imported", else a finding; `detail` is the message."""

    number: int
    kind: str
    result: str
    detail: str
    seconds: float
    grown: int = 0


# ---------------------------------------------------------------------------------------------------------- damage


def healthy(kind: str, rng: random.Random) -> dict[str, bytes]:
    """The files of an undamaged model; the one of `kind` is the first."""
    return dict(_healthy(kind, rng.choice(("Q8_0", "Q4_0", "Q5_1", "F16", "BF16") if kind == "gguf" else FORMS)))


@functools.cache
def _healthy(kind: str, form: str) -> dict[str, bytes]:
    samples.CONFIGS[_NAME] = _CONFIG
    try:
        return _gguf_files(form) if kind == "gguf" else _folder_files(kind, form)
    finally:
        del samples.CONFIGS[_NAME]


def _gguf_files(form: str) -> dict[str, bytes]:
    metadata, tensors = samples.gguf_sample(form, _NAME)
    metadata = {k.replace("fuzz.", "qwen3moe."): v for k, v in metadata.items()}
    metadata |= {"general.architecture": "qwen3moe", "tokenizer.chat_template": "{{ messages[0].content }}"}
    outputs = [writer.GGUFOutput(n, t.kind, t.shape, lambda raw=t.raw: [raw.tobytes()]) for n, t in tensors.items()]
    return {"model.gguf": writer.head(metadata, outputs) + b"".join(data for _, data in writer.data(outputs))}


def _folder_files(kind: str, form: str) -> dict[str, bytes]:
    sample = samples.hub_sample(form, _NAME)
    config = json.dumps(sample.config).encode()
    if kind == "config":
        return {"config.json": config, "model.safetensors": samples.safetensors_bytes(sample.tensors)}
    if kind == "safetensors":
        return {"model.safetensors": samples.safetensors_bytes(sample.tensors), "config.json": config}
    names = list(sample.tensors)
    shards = {f"model-{i + 1:05d}-of-00002.safetensors": names[i::2] for i in range(2)}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, own in shards.items() for name in own}}
    files = {"model.safetensors.index.json": json.dumps(index).encode(), "config.json": config}
    for file, own in shards.items():
        files[file] = samples.safetensors_bytes({name: sample.tensors[name] for name in own})
    return files


def damaged(kind: str, rng: random.Random) -> dict[str, bytes]:
    """The files of a model of which the first has been damaged."""
    files = healthy(kind, rng)
    name = next(iter(files))
    content = files[name]
    if kind in ("config", "index"):
        change = rng.choice((change_json, change_json, change_json, change_bytes))
    elif kind == "safetensors":
        change = rng.choice((change_header, change_header, change_bytes, change_start))
    else:
        change = rng.choice((change_start, change_start, change_bytes, change_integers))
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = change(content, rng)
    return {**files, name: content}


def change_bytes(content: bytes, rng: random.Random, end: int | None = None) -> bytes:
    """Flip, insert, remove, repeat or cut somewhere before `end`."""
    end = len(content) if end is None else min(end, len(content))
    place = rng.randrange(end + 1)
    length = rng.choice((1, 1, 2, 4, 8, 64))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:place] + rng.randbytes(length) + content[place + length :]
    if kind == 1:
        return content[:place] + rng.randbytes(length) + content[place:]
    if kind == 2:
        return content[:place] + content[place + length :]
    if kind == 3:
        return content[:place] + content[max(0, place - length) : place] * rng.randrange(1, 4) + content[place:]
    if kind == 4:
        return content[:place]
    flipped = bytearray(content)
    if flipped:
        flipped[place % len(flipped)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def change_start(content: bytes, rng: random.Random) -> bytes:
    """The same, where headers are."""
    return change_bytes(content, rng, rng.choice((32, 256, 4096)))


def change_integers(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a count, a length, an axis or an offset by a number that is hard to get right."""
    place = rng.randrange(4, min(len(content), 6000))
    form, number = rng.choice((("<I", 2**32), ("<Q", 2**64)))
    value = struct.pack(form, rng.choice(_WIDE) % number)
    return content[:place] + value + content[place + len(value) :]


def change_json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove, rename or repeat something in a JSON text."""
    try:
        value = json.loads(content)
    except ValueError:
        return change_bytes(content, rng)
    if not isinstance(value, dict) or not value:
        return change_bytes(content, rng)
    where: Any = value
    while True:
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
        inner = where[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.75:
            where = inner
            continue
        break
    kind = rng.randrange(5)
    if kind == 0 and isinstance(where, dict):
        del where[key]
    elif kind == 1 and isinstance(where, dict):
        where[rng.choice(("x", str(key) + "_", str(key).upper()))] = inner
    elif kind == 2:
        where[key] = rng.choice(_INTEGERS) * rng.choice((1, 1, -1))
    else:
        where[key] = copy.deepcopy(rng.choice(_VALUES))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def change_header(content: bytes, rng: random.Random) -> bytes:
    """The same in the header of a safetensors file, with the length that belongs to it."""
    length = int.from_bytes(content[:8], "little")
    if 8 + length > len(content):
        return change_bytes(content, rng)
    text = change_json(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


# ------------------------------------------------------------------------------------------------------------- runs


def run_case(number: int, folder: Path) -> Outcome:
    """Damage, write, import, load and run one model; nothing is raised."""
    from qwen_mlx.errors import QwenError

    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    source = folder / "source"
    source.mkdir(parents=True)
    for name, content in damaged(kind, rng).items():
        (source / name).write_bytes(content)
    before, started = _peak(), time.perf_counter()
    try:
        _use(source / "model.gguf" if kind == "gguf" else source, folder / "target")
        result, detail = "imported", ""
    except QwenError as refusal:
        detail = str(refusal)
        result = "refused" if detail.isprintable() else "message with control characters"
    except BaseException:
        result, detail = "another exception", traceback.format_exc()
    seconds, grown = time.perf_counter() - started, _peak() - before
    if result in ("refused", "imported") and seconds > SECONDS:
        result = "slow"
    elif grown > MEMORY:
        result = "memory"
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(number, kind, result, detail, seconds, grown)


def _use(source: Path, target: Path) -> None:
    from qwen_mlx.checkpoints.import_ import iter_import
    from qwen_mlx.checkpoints.load import load
    from qwen_mlx.events import ImportModel

    for _ in iter_import(ImportModel(str(source), str(target))):
        pass
    import mlx.core as mx

    model = load(target, weights="expanded")
    np.array(model.decoder(mx.array([[1, 2]])).astype(mx.float32))


def _peak() -> int:
    """Most memory this process has used, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _quick_place() -> str | None:
    """Memory that is a file system, where there is one: thousands of small folders come and go."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _work(numbers: list[int], pipe: Connection) -> None:
    """In a process of its own: warm up, then one file after the other, each announced before it is tried."""
    with tempfile.TemporaryDirectory(dir=_quick_place()) as folder:
        for kind in KINDS:  # imports, and the memory they take
            rng = random.Random(0)
            source = Path(folder) / kind
            source.mkdir()
            for name, content in healthy(kind, rng).items():
                (source / name).write_bytes(content)
            _use(source / "model.gguf" if kind == "gguf" else source, Path(folder) / f"{kind}-target")
        # Whatever a file claims, so much more address space there is and no more.
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
        if pages:
            limit = pages * resource.getpagesize() + 2 * MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            pipe.send(number)
            pipe.send(run_case(number, Path(folder) / str(number)))
    pipe.send(None)


def run_all(numbers: list[int], workers: int) -> list[Outcome]:
    """All files, in processes that are replaced when they die or hang."""
    context = multiprocessing.get_context("spawn")
    queues = [numbers[i::workers] for i in range(workers)]
    running: dict[int, tuple[Any, Connection, int | None, float]] = {}
    found: list[Outcome] = []

    def start(i: int) -> None:
        ours, theirs = context.Pipe(False)
        process = context.Process(target=_work, args=(queues[i], theirs), daemon=True)
        process.start()
        theirs.close()
        running[i] = (process, ours, None, time.monotonic() + 60)

    def lost(i: int, number: int | None, result: str) -> None:
        process = running.pop(i)[0]
        process.kill()
        process.join()
        if number is None:
            raise SystemExit(f"a worker {result} before its first file (exit code {process.exitcode})")
        found.append(Outcome(number, KINDS[number % len(KINDS)], result, f"exit code {process.exitcode}", PATIENCE))
        queues[i] = queues[i][queues[i].index(number) + 1 :]
        if queues[i]:
            start(i)

    for i in range(workers):
        if queues[i]:
            start(i)
    while running:
        for i, (process, pipe, number, deadline) in list(running.items()):
            try:
                if pipe.poll(0.05):
                    message = pipe.recv()
                    if message is None:
                        process.join()
                        del running[i]
                    elif isinstance(message, Outcome):
                        found.append(message)
                        running[i] = (process, pipe, None, time.monotonic() + PATIENCE)
                    else:
                        running[i] = (process, pipe, message, time.monotonic() + PATIENCE)
                elif time.monotonic() > deadline:
                    lost(i, number, "hang")
            except EOFError:
                lost(i, number, "crash")
        if sys.stderr.isatty():
            print(f"\r{len(found):,} of {len(numbers):,}", end="", file=sys.stderr)
    return found


def report(found: list[Outcome]) -> list[str]:
    """A table of what came of the files, and the findings."""
    results = ["refused", "imported", *sorted({o.result for o in found} - {"refused", "imported"})]
    lines = [
        f"{'file':<12}{'files':>8}" + "".join(f"{name:>12}" for name in results) + f"{'slowest':>11}{'memory':>10}"
    ]
    for kind in (*KINDS, "all"):
        own = [o for o in found if kind in (o.kind, "all")]
        if not own:
            continue
        counts = Counter(o.result for o in own)
        row = f"{kind:<12}{len(own):>8,}" + "".join(f"{counts[name]:>{max(12, len(name))},}" for name in results)
        slowest, grown = max(o.seconds for o in own), max(o.grown for o in own)
        lines.append(f"{row}{slowest:>9.2f} s{grown / 1e6:>7.0f} MB")
    for outcome in found:
        if outcome.result not in ("refused", "imported"):
            lines.append(
                f"\n{outcome.number} ({outcome.kind}): {outcome.result}, {outcome.seconds:.1f} s\n{outcome.detail}"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int)
    args = parser.parse_args()
    if args.one is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(run_case(args.one, Path(folder) / "case"))
        return 0
    started = time.monotonic()
    found = run_all(list(range(args.first, args.first + args.count)), args.workers)
    print("\n".join(report(found)))
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(outcome.result not in ("refused", "imported") for outcome in found))


if __name__ == "__main__":
    raise SystemExit(main())
