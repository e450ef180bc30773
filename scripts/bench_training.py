#!/usr/bin/env python3
"""Memory and speed of LoRA steps, ours and mlx-lm's, on the same model and the same texts.

    .venv/bin/python scripts/bench_training.py                        512 and 2,048 tokens, every variant
    .venv/bin/python scripts/bench_training.py --lengths 512 --variants ours mlx-lm

The model is a random Qwen3 with the vocabulary of the real ones (151,936) and few, narrow layers, in float32. Texts
have varied lengths, as conversations have; both programs are given the same, and every token is learnt. mlx-lm runs its
own `mlx_lm.tuner.trainer.train` with its own batches: so many texts, padded to the longest of them. Ours are packed
into rows. Tokens per second count the tokens of texts, not padding.

Every variant runs in a process of its own; variants take turns, and the best of the rounds counts. The first pass over
the texts warms up (compiles) and is not measured. Memory is the peak of MLX's allocations above what model, adapter and
optimizer take, and the peak of the resident set of the process above what it was then.

Variants: "ours", "ours-checkpoint" (all layers recomputed), "mlx-lm", "mlx-lm-checkpoint", all with the BLAS that
`qwen_mlx.device.prepare` finds, loaded into the peer's process too; "mlx-lm-as-installed" with the one it comes with.

The targets: 1.3 times the tokens per second, and half of the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("ours", "ours-checkpoint", "mlx-lm", "mlx-lm-checkpoint", "mlx-lm-as-installed")
RANK, SCALE = 8, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048], help="most tokens of a text")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--batch", type=int, default=4, help="texts in a batch of mlx-lm")
    parser.add_argument("--batches", type=int, default=3, help="batches of mlx-lm to measure")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)  # inside a child: the variant and its folder
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work[0], Path(args.work[1]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        model = Path(folder) / "model"
        child("make", folder, json.dumps([args.hidden, args.layers, args.vocabulary]))
        for length in args.lengths:
            texts = lengths_of_texts(args.batch * args.batches, length)
            plan = {"length": length, "texts": texts, "batch": args.batch, "vocabulary": args.vocabulary}
            (model / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
            report(length, texts, args, folder)
    return 0


def report(length: int, texts: list[int], args: argparse.Namespace, folder: str) -> None:
    """Measure all variants for texts of these lengths, and print a table."""
    print(
        f"\n{len(texts)} texts of {min(texts)} to {length} tokens, {sum(texts)} in all; batches of {args.batch} texts",
        flush=True,
    )
    best: dict[str, dict[str, float]] = {}
    for _ in range(args.rounds):
        for variant in args.variants:
            found = child(variant, folder)
            kept = best.setdefault(variant, found)
            for name, value in found.items():
                better = max if "tokens" in name else min
                kept[name] = better(kept[name], value)
            print(f"{variant}: {json.dumps(found)}", file=sys.stderr, flush=True)
    print(f"{'':22}{'tokens/s':>10}{'per CPU s':>10}{'peak MB':>10}{'RSS MB':>10}{'loss':>12}")
    for name, row in best.items():
        print(
            f"{name:22}{row['tokens_per_second']:10.1f}{row['tokens_per_cpu_second']:10.1f}"
            f"{row['peak'] / 1e6:10.0f}{row['resident'] / 1e6:10.0f}{row['loss']:12.5f}",
            flush=True,
        )


def lengths_of_texts(count: int, longest: int) -> list[int]:
    """Log-normal, as conversations are: half below a quarter of the longest; one is the longest."""
    draw = random.Random(longest)
    found = [min(longest, max(16, int(draw.lognormvariate(0, 0.8) * longest / 4))) for _ in range(count)]
    found[draw.randrange(count)] = longest
    return found


def child(variant: str, folder: str, *more: str) -> Any:
    """What a process of its own found out."""
    command = [sys.executable, __file__, "--work", variant, folder]
    environment = os.environ | {"BENCH_TRAINING": " ".join(more), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def work(variant: str, folder: Path) -> dict[str, float]:
    """Inside a child: run one variant."""
    if variant != "mlx-lm-as-installed":
        from qwen_mlx import device

        device.prepare()
        print(f"{variant}: BLAS {device.describe()['blas']}", file=sys.stderr, flush=True)
    model = folder / "model"
    if variant == "make":
        return make(model, *json.loads(os.environ["BENCH_TRAINING"]))
    plan = json.loads((model / "plan.json").read_text(encoding="utf-8"))
    draw = random.Random(1)
    texts = [[draw.randrange(plan["vocabulary"]) for _ in range(n)] for n in plan["texts"]]
    run = ours if variant.startswith("ours") else peer
    return run(model, texts, plan, variant.endswith("checkpoint"))


def make(folder: Path, hidden: int, layers: int, vocabulary: int) -> dict[str, float]:
    """Write a random checkpoint."""
    import mlx.core as mx

    heads, size = hidden // 32, 64
    folder.mkdir(parents=True)
    config = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": hidden,
        "intermediate_size": 3 * hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads // 2, "head_dim": size, "vocab_size": vocabulary, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (vocabulary, hidden), "norm": (hidden,)}
    for i in range(layers):
        own = f"layers.{i}"
        shapes |= {f"{own}.{name}_layernorm": (hidden,) for name in ("input", "post_attention")}
        shapes |= {f"{own}.self_attn.{name}_norm": (size,) for name in "qk"}
        shapes |= {f"{own}.self_attn.q_proj": (heads * size, hidden), f"{own}.self_attn.o_proj": (hidden, heads * size)}
        shapes |= {f"{own}.self_attn.{name}_proj": (heads // 2 * size, hidden) for name in "kv"}
        shapes |= {f"{own}.mlp.{name}_proj": (3 * hidden, hidden) for name in ("gate", "up")}
        shapes |= {f"{own}.mlp.down_proj": (hidden, 3 * hidden)}
    mx.random.seed(0)
    tensors = {
        f"model.{name}.weight": mx.ones(shape) if len(shape) == 1 else 0.02 * mx.random.normal(shape)
        for name, shape in shapes.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    return {}


class Meter:
    """Tokens, seconds and memory of steps, from `begin` on."""

    def begin(self) -> None:
        import mlx.core as mx

        mx.clear_cache()
        self._active, self._resident = mx.get_active_memory(), resident()
        mx.reset_peak_memory()
        Path("/proc/self/clear_refs").write_text("5")  # the highest resident set begins anew
        self.tokens, self.learnt, self.losses = 0, 0.0, 0.0
        self._cpu, self._begin = time.process_time(), time.perf_counter()

    def result(self) -> dict[str, float]:
        import mlx.core as mx

        seconds, cpu = time.perf_counter() - self._begin, time.process_time() - self._cpu
        return {
            "tokens_per_second": self.tokens / seconds,
            "tokens_per_cpu_second": self.tokens / cpu,
            "peak": mx.get_peak_memory() - self._active,
            "resident": resident("VmHWM") - self._resident,
            "loss": self.losses / self.learnt,
        }


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory, or the most there were."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(folder: Path, texts: list[list[int]], plan: dict[str, Any], checkpoint: bool) -> dict[str, float]:
    """Packed rows through our loss; as many rows in a step as hold the texts of a batch of the peer."""
    from qwen_mlx import load

    import mlx.core as mx  # isort: skip
    import mlx.optimizers as optim
    import numpy as np
    from mlx.utils import tree_map

    from qwen_mlx.adapters import AdapterConfig, attach
    from qwen_mlx.training.data.batches import Batch, BatchShape, plan_epoch
    from qwen_mlx.training.ops import batch_arrays, sft_loss

    decoder = load(folder).decoder
    attach(decoder, AdapterConfig(rank=RANK, alpha=RANK * SCALE, targets=("all-linear",)))
    decoder.train()
    steps = len(texts) // plan["batch"]
    rows = -(-sum(plan["texts"]) // (steps * plan["length"]))
    shape = BatchShape(rows, plan["length"])
    batches = []
    for batch in plan_epoch(plan["texts"], 0, 0, shape, True):
        size = (shape.rows, shape.length)
        ids, targets, positions = (np.zeros(size, np.int32) for _ in range(3))
        weights = np.zeros(size, np.float32)
        starts = np.tile(np.arange(shape.length, dtype=np.int32), (shape.rows, 1))
        real = 0
        for number, row in enumerate(batch):
            begin = 0
            for index in row:
                text, end = texts[index], begin + len(texts[index])
                ids[number, begin:end], targets[number, begin : end - 1] = text, text[1:]
                weights[number, begin : end - 1] = 1
                positions[number, begin:end], starts[number, begin:end] = np.arange(len(text)), begin
                begin, real = end, real + len(text)
        batches.append((batch_arrays(Batch(ids, targets, weights, positions, starts)), real))
    optimizer = optim.Adam(learning_rate=1e-5)
    optimizer.init(decoder.trainable_parameters())
    state = [decoder.state, optimizer.state]

    def loss(weights: Any, arrays: Any) -> Any:
        decoder.update(weights)
        return sft_loss(decoder, arrays, checkpoint_every=int(checkpoint), longest=max(plan["texts"]))[:2]

    def step(arrays: Any) -> Any:
        weights = decoder.trainable_parameters()
        (total, weight), gradients = mx.value_and_grad(loss)(weights, arrays)
        decoder.update(weights)
        optimizer.update(decoder, tree_map(lambda g: g / weight, gradients))
        return total

    compiled: Any = mx.compile(step, inputs=state, outputs=state)
    mx.eval(state)
    meter = Meter()
    for measured in (False, True):
        if measured:
            meter.begin()
        for arrays, real in batches:
            total = compiled(arrays)
            mx.eval(state, total)
            if measured:
                meter.tokens, meter.losses = meter.tokens + real, meter.losses + total.item()
                meter.learnt += arrays["weights"].sum().item()
    return meter.result()


def peer(folder: Path, texts: list[list[int]], plan: dict[str, Any], checkpoint: bool) -> dict[str, float]:
    """mlx-lm's own loop, batches and loss."""
    import mlx.core as mx
    import mlx.optimizers as optim
    import numpy as np
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": RANK, "scale": SCALE, "dropout": 0.0})
    mx.eval(model.parameters())
    optimizer = optim.Adam(learning_rate=1e-5)
    optimizer.init(model.trainable_parameters())
    mx.eval(optimizer.state)
    steps, meter = len(texts) // plan["batch"], Meter()
    real: list[int] = []

    def batches(**options: Any) -> Any:
        """Twice the same order, and the meter begins between."""
        for turn in range(2):
            np.random.seed(0)
            chosen = trainer.iterate_batches(**(options | {"loop": False}))
            for number, (batch, lengths) in enumerate(chosen):
                if turn == 1 and number == 0:
                    meter.begin()
                real.append(int(lengths[:, 1].sum().item()))
                yield batch, lengths

    class Callback:
        before = 0

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            if info["iteration"] > steps:
                meter.tokens += real[info["iteration"] - 1]
                learnt = info["trained_tokens"] - self.before  # as it counts them: one of padding for every text
                meter.learnt += learnt
                meter.losses += info["train_loss"] * learnt
            self.before = info["trained_tokens"]

        def on_val_loss_report(self, info: dict[str, Any]) -> None:
            pass

    with tempfile.TemporaryDirectory() as out:
        arguments = trainer.TrainingArgs(
            batch_size=plan["batch"],
            iters=2 * steps,
            max_seq_length=plan["length"],
            steps_per_report=1,
            steps_per_save=10**9,
            grad_checkpoint=checkpoint,
            adapter_file=str(Path(out) / "adapters.safetensors"),
        )
        data = [(text, 0) for text in texts]
        sys.stdout, kept = sys.stderr, sys.stdout
        try:
            trainer.train(
                model, optimizer, data, None, arguments, iterate_batches=batches, training_callback=Callback()
            )
        finally:
            sys.stdout = kept
        return meter.result()


if __name__ == "__main__":
    sys.exit(main())
