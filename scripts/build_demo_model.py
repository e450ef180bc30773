#!/usr/bin/env python3
"""Train the demo model that ships inside qwen-mlx, from nothing, on data made here.

    python scripts/build_demo_model.py --minutes 150 --out qwen_mlx/demo --work build/demo   # train, ship, score
    python scripts/build_demo_model.py --ship-only --out qwen_mlx/demo --work build/demo    # ship the last checkpoint
    python scripts/build_demo_model.py --evaluate-only --out qwen_mlx/demo                  # score a shipped folder

A run that was stopped goes on from its last checkpoint in --work. The data are the same on every machine; on one
machine and with --steps so is every update.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from demo_model import card, conversations, evaluation, network, training, vocabulary  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from qwen_mlx.checkpoints.load import load  # noqa: E402
from qwen_mlx.checkpoints.safetensors import save_tensors  # noqa: E402
from qwen_mlx.paths import atomic_write  # noqa: E402

VOCABULARY_EXAMPLES = 40_000


def main() -> int:
    """Command line."""
    arguments = parse_arguments()
    if not arguments.evaluate_only:
        work, seed = arguments.work, arguments.seed
        if arguments.start is not None and not (work / "tokenizer.json").exists():
            work.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(arguments.start / "tokenizer.json", work / "tokenizer.json")
        tokenizer = make_tokenizer(work / "tokenizer.json", seed)
        config = make_config(tokenizer)
        plan = training.Plan(arguments.steps, arguments.minutes, seed).at_rate(arguments.rate)
        state = training.State(network.build(config, seed), training.make_optimizer(plan))
        checkpoint = work / "checkpoint.safetensors"
        if arguments.start is not None:
            network.take_weights(state.decoder, load(arguments.start, weights="expanded").decoder)
            state.examples = conversations.STAGES[-1][0]
        if checkpoint.exists():
            state.load(checkpoint)
            if arguments.restart:
                state.restart()
            print(f"continuing after step {state.step}", flush=True)
        if arguments.average is not None:
            state.average_with(arguments.average)
        if not arguments.ship_only:
            run_training(state, tokenizer, plan, checkpoint)
        ship(state, tokenizer, config, arguments.out)
        about = {"steps": state.step, "examples": state.examples, "seconds": state.earlier + state.seconds}
        write_json(work / "run.json", about)
    score(arguments.out, arguments.work, arguments.questions, arguments.show_wrong, write=not arguments.evaluate_only)
    return 0


def parse_arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("qwen_mlx/demo"), help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of checkpoints")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="length of the training in steps of 32 conversations")
    length.add_argument("--minutes", type=float, help="length of the training in minutes of computing (150)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--restart", action="store_true", help="a new schedule from the weights of the checkpoint")
    parser.add_argument("--start", type=Path, help="begin with the weights of a finished folder, in the last stage")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rates, below 1 to --restart")
    parser.add_argument("--ship-only", action="store_true", help="quantize the last checkpoint, without training")
    parser.add_argument("--average", type=Path, help="ship the mean of the weights and those of this checkpoint")
    parser.add_argument("--evaluate-only", action="store_true", help="score the folder --out, without training")
    parser.add_argument("--questions", type=int, default=300, help="size of the larger question suites")
    parser.add_argument("--show-wrong", type=int, default=0, help="wrong answers to print for each suite")
    arguments = parser.parse_args()
    if arguments.average is not None and not arguments.ship_only:
        parser.error("--average goes with --ship-only")
    if arguments.steps is None and arguments.minutes is None:
        arguments.minutes = 150.0
    return arguments


def make_tokenizer(path: Path, seed: int) -> Tokenizer:
    """The vocabulary of this seed; learnt once from conversations that training does not use."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = (
            text
            for index in range(VOCABULARY_EXAMPLES)
            for text in conversations.example(seed, index + 1_000_000, conversations.EVERYTHING).plain_texts()
        )
        vocabulary.train_tokenizer(texts).save(str(path))
    return Tokenizer.from_file(str(path))


def make_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json without the quantization."""
    end, pad = (tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>"))
    return network.demo_config(tokenizer.get_vocab_size(), end, pad)


def run_training(state: training.State, tokenizer: Tokenizer, plan: training.Plan, checkpoint: Path) -> None:
    """Train with a line of progress every 20 steps."""
    for report in training.train(state, tokenizer, plan, checkpoint):
        print(
            f"step {report.step:5d}  {100 * report.progress:5.1f} %  loss {report.loss:.4f}  "
            f"{report.tokens_per_second:5.0f} tokens/s",
            flush=True,
        )


def ship(state: training.State, tokenizer: Tokenizer, config: dict[str, Any], folder: Path) -> None:
    """Write the folder that is loaded like any other model."""
    quantization = {"group_size": network.GROUP_SIZE, "bits": network.BITS, "mode": "affine"}
    # transformers reads the second key, mlx the first
    write_json(folder / "config.json", {**config, "quantization": quantization, "quantization_config": quantization})
    generation = {
        "bos_token_id": config["bos_token_id"],
        "do_sample": False,
        "eos_token_id": [config["eos_token_id"], config["pad_token_id"]],
        "pad_token_id": config["pad_token_id"],
    }
    write_json(folder / "generation_config.json", generation)
    write_json(folder / "tokenizer_config.json", vocabulary.tokenizer_config(tokenizer, network.CONTEXT))
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str())
    save_tensors(folder / "model.safetensors", network.quantized_weights(state.decoder))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Indented, in plain UTF-8."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def score(folder: Path, work: Path, questions: int, show_wrong: int, write: bool) -> None:
    """Ask a shipped folder everything, print the table, and write the model card if the folder is new."""
    model = load(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    outcomes = evaluation.run(model.decoder, tokenizer, questions)
    scores = evaluation.table(outcomes)
    for name, (right, asked) in scores.items():
        print(f"{name:42s} {right:4d} / {asked:4d}  {100 * right / max(asked, 1):5.1f} %")
        wrong = [outcome for outcome in outcomes if outcome.question.suite == name and not outcome.right]
        for outcome in wrong[:show_wrong]:
            print(f"      {outcome.question.conversation.questions()}  ->  {outcome.text!r}")
    if write:
        run = json.loads((work / "run.json").read_text(encoding="utf-8"))
        text = card.write_card(
            model.config, model.spec.parameters, scores, run["steps"], run["examples"], run["seconds"]
        )
        with atomic_write(folder / "README.md") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
