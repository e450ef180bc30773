"""Memory and time of quantizing a large model, ours and mlx-lm's, on random weights.

.venv/bin/python scripts/bench_quantize.py --gb 2 8 --folder /tmp

For each size: writes a random Qwen3 checkpoint in bfloat16 of about so many GB, quantizes it to 4 bits in groups of 64
with the rounding "mlx" and with "best", and with mlx_lm.convert, each in a process of its own; compares the tensors of
the first and the last; and deletes everything. A size needs about 1.9 times its bytes on the disk. Files are read once
before each run, so that none of them gains from the one before.

The targets: a peak below 200 MB whatever the size, and with the same rounding less than 0.7 of mlx-lm's time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 1024, 3072, 16, 8, 128, 32000
_LAYER = (2 * HEADS + 2 * KV_HEADS) * HEAD_DIM * HIDDEN + 3 * INTERMEDIATE * HIDDEN  # weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, nargs="+", default=[2.0], help="sizes of the models, in 10^9 bytes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on which disk")
    parser.add_argument("--runs", nargs="+", default=["ours-mlx", "ours-best", "peer"], help="what to run")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)  # inside a child: what to do
    args = parser.parse_args()
    if args.work:
        return WORK[args.work[0]](*args.work[1:])
    for size in args.gb:
        report = measure(size, args.folder, args.runs)
        print(json.dumps(report), flush=True)
    return 0


def measure(gb: float, folder: Path, runs: list[str]) -> dict[str, Any]:
    """The report of one size; this process stays small, since a child's peak begins with its parent's."""
    home = Path(tempfile.mkdtemp(prefix="bench-quantize-", dir=folder))
    try:
        source = home / "source"
        layers = max(1, round((gb * 1e9 / 2 - VOCABULARY * HIDDEN) / _LAYER))
        child("make", str(source), str(layers))
        size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        report: dict[str, Any] = {"bytes": size, "layers": layers}
        for name in runs:
            for file in source.glob("*.safetensors"):
                subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
            seconds, cpu, peak = child(name, str(source), str(home / name))
            report[name] = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": round(peak / 1e6)}
            line = f"{size / 1e9:.2f} GB {name}: {seconds:.1f} s ({cpu:.1f} s of CPU), peak {peak / 1e6:.0f} MB"
            print(line, file=sys.stderr, flush=True)
        if {"ours-mlx", "peer"} <= set(runs):
            for kind in ("seconds", "cpu_seconds"):
                report[f"ratio_of_{kind}"] = round(report["ours-mlx"][kind] / report["peer"][kind], 3)
            child("compare", str(home / "ours-mlx"), str(home / "peer"))
            report["tensors_equal"] = True
        return report
    finally:
        shutil.rmtree(home, ignore_errors=True)


def child(*words: str) -> tuple[float, float, int]:
    """Do one piece of work in a new process: seconds, seconds of CPU, and the peak of its resident memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--work", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{words[0]} failed with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ------------------------------------------------------------------------------------------- in a child


def make(target: str, layers: str) -> int:
    """A random Qwen3 in shards of a gigabyte, and a tokenizer that mlx-lm accepts."""
    import numpy as np

    from qwen_mlx import paths
    from qwen_mlx.checkpoints.layout import Output
    from qwen_mlx.checkpoints.stream import Plan, Step, side_files, write_checkpoint

    random = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> Step:
        def blocks() -> Any:
            for start in range(0, rows, 4096):
                block = random.standard_normal((min(4096, rows - start), columns), dtype=np.float32) * 0.02
                yield {name: (block.view(np.uint32) >> 16).astype(np.uint16)}

        return Step((Output(name, "BF16", (rows, columns)),), blocks, name)

    def norm(name: str, size: int) -> Step:
        return Step((Output(name, "BF16", (size,)),), lambda: [{name: np.full((size,), 0x3F80, np.uint16)}], name)

    steps = [matrix("model.embed_tokens.weight", VOCABULARY, HIDDEN), norm("model.norm.weight", HIDDEN)]
    for i in range(int(layers)):
        path = f"model.layers.{i}"
        for name, rows, columns in (
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ):
            steps.append(matrix(f"{path}.{name}.weight", rows, columns))
        for name, size in (
            ("input_layernorm", HIDDEN),
            ("post_attention_layernorm", HIDDEN),
            ("self_attn.q_norm", HEAD_DIM),
            ("self_attn.k_norm", HEAD_DIM),
        ):
            steps.append(norm(f"{path}.{name}.weight", size))
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": int(layers),
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    plan = Plan(steps, config, side_files(paths.demo_model()))
    for _ in write_checkpoint(plan, Path(target), shard_bytes=1 << 30):
        pass
    return 0


def ours(source: str, target: str, rounding: str) -> int:
    from qwen_mlx.cli.main import main as program

    words = ["--bits", "4", "--group-size", "64", "--rounding", rounding, "--quiet"]
    return program(["quantize", source, "-o", target, *words])


def peer(source: str, target: str) -> int:
    from mlx_lm.convert import convert

    convert(source, target, quantize=True, q_bits=4, q_group_size=64)
    return 0


def compare(one: str, other: str) -> int:
    """Fails unless both folders hold the same tensors, bit for bit."""
    import mlx.core as mx

    from qwen_mlx.checkpoints.folder import load_folder_tensors

    a, b = load_folder_tensors(Path(one)), load_folder_tensors(Path(other))
    if set(a) != set(b):
        raise SystemExit(f"names differ: {sorted(set(a) ^ set(b))[:5]}")
    for name in sorted(a):
        x, y = a.pop(name), b.pop(name)
        if x.dtype != y.dtype or x.shape != y.shape or not mx.array_equal(x.view(mx.uint8), y.view(mx.uint8)).item():
            raise SystemExit(f"{name} differs")
        del x, y
        mx.clear_cache()
    return 0


WORK = {
    "make": make,
    "ours-mlx": lambda source, target: ours(source, target, "mlx"),
    "ours-best": lambda source, target: ours(source, target, "best"),
    "peer": peer,
    "compare": compare,
}

if __name__ == "__main__":
    raise SystemExit(main())
