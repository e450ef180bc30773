"""The training loop: examples made on the fly, batches of equal length, Muon, checkpoints that can be resumed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import network  # first: it loads a fast BLAS before mlx

import mlx.core as mx  # isort: skip
import mlx.nn as nn  # isort: skip
import mlx.optimizers as optim  # isort: skip
from mlx.utils import tree_flatten, tree_map, tree_unflatten  # isort: skip
from tokenizers import Tokenizer  # isort: skip

from . import conversations, cpu_math  # isort: skip

LONGEST = 512
"""Examples with more tokens are left out (about one in five thousand)."""
EXAMPLES_PER_STEP = 32
PIECE_TOKENS = 1280
"""A step is computed in pieces of about this many tokens and similar length, so that little is padding."""


@dataclass(frozen=True)
class Plan:
    """How to train."""

    steps: int | None
    minutes: float | None
    """The schedule runs over steps or, when given, over minutes of computing time."""
    seed: int = 1
    matrix_rate: float = 0.012
    other_rate: float = 2e-3
    warmup_steps: int = 40
    save_every: int = 100

    def at_rate(self, factor: float) -> Plan:
        """The same plan with both learning rates times `factor`."""
        return replace(self, matrix_rate=self.matrix_rate * factor, other_rate=self.other_rate * factor)


@dataclass(frozen=True)
class Piece:
    """Right-padded examples. ids (batch, length + 1); places and targets (supervised,)."""

    ids: mx.array
    places: mx.array
    targets: mx.array


def encode(tokenizer: Tokenizer, conversation: conversations.Conversation) -> tuple[list[int], int]:
    """Token ids of prompt and target, and where the target begins."""
    prompt = tokenizer.encode(conversation.prompt(), add_special_tokens=False).ids
    target = tokenizer.encode(conversation.target(), add_special_tokens=False).ids
    return prompt + target, len(prompt)


def make_piece(examples: list[tuple[list[int], int]]) -> Piece:
    """Pad to a multiple of 8 and list the positions whose next token is to be learnt."""
    longest = max(len(ids) for ids, _ in examples) - 1
    width = -(-longest // 8) * 8
    rows, places, targets = [], [], []
    for row, (ids, start) in enumerate(examples):
        rows.append(ids[:-1] + [0] * (width - len(ids) + 1))
        places += [row * width + position for position in range(start - 1, len(ids) - 1)]
        targets += ids[start:]
    return Piece(mx.array(rows), mx.array(places), mx.array(targets))


def batch(tokenizer: Tokenizer, seed: int, first: int) -> list[Piece]:
    """The examples of the step that begins with example `first`; nothing else decides what they are."""
    examples = []
    for index in range(first, first + EXAMPLES_PER_STEP):
        encoded = encode(tokenizer, conversations.example(seed, index))
        if len(encoded[0]) <= LONGEST:
            examples.append(encoded)
    examples.sort(key=lambda example: len(example[0]))
    pieces: list[list[tuple[list[int], int]]] = [[]]
    for example in examples:
        if len(example[0]) * (len(pieces[-1]) + 1) > PIECE_TOKENS:
            pieces.append([])
        pieces[-1].append(example)
    return [make_piece(piece) for piece in pieces if piece]


def make_optimizer(plan: Plan) -> optim.Optimizer:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    muon = optim.Muon(learning_rate=plan.matrix_rate, momentum=0.95, weight_decay=0.0)
    adam = optim.AdamW(learning_rate=plan.other_rate, betas=[0.9, 0.98], weight_decay=0.01, bias_correction=True)
    return optim.MultiOptimizer([muon, adam], [lambda path, weight: weight.ndim == 2 and "embed" not in path])


def rate_factor(plan: Plan, step: int, progress: float) -> float:
    """Warm-up, then a cosine from 1 to 0.01."""
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def piece_loss(decoder: network.Decoder, piece: Piece, share: float) -> mx.array:
    """Sum of the token losses times `share`. The logits of unsupervised positions are never computed."""
    hidden = decoder.hidden_states(piece.ids)
    rows = hidden.reshape(-1, hidden.shape[-1])[piece.places]
    return cpu_math.token_losses(decoder.logits(rows), piece.targets).sum() * share


@dataclass
class State:
    """Everything a run needs to go on."""

    decoder: network.Decoder
    optimizer: optim.Optimizer
    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    earlier: float = 0.0
    """Seconds of finished schedules that this one continues."""

    def restart(self) -> None:
        """Begin a new schedule from these weights."""
        self.earlier, self.seconds = self.earlier + self.seconds, 0.0

    def save(self, path: Path) -> None:
        """Write to a sibling, then rename: a killed run leaves the previous checkpoint."""
        arrays = {f"model.{name}": value for name, value in tree_flatten(self.decoder.parameters())}
        for name, value in tree_flatten(self.optimizer.state):
            arrays[f"optimizer.{name}"] = value
        path.parent.mkdir(parents=True, exist_ok=True)
        sibling = path.with_name(path.stem + ".partial.safetensors")
        about = {name: repr(getattr(self, name)) for name in ("step", "examples", "seconds", "earlier")}
        mx.save_safetensors(str(sibling), arrays, about)
        os.replace(sibling, path)

    def load(self, path: Path) -> None:
        """Continue from `save`."""
        arrays, about = mx.load(str(path), return_metadata=True)
        model = [(name.removeprefix("model."), value) for name, value in arrays.items() if name.startswith("model.")]
        rest = [(name.removeprefix("optimizer."), v) for name, v in arrays.items() if name.startswith("optimizer.")]
        self.decoder.load_weights(model)
        self.optimizer.state = tree_unflatten(rest)
        self.step, self.examples = int(about["step"]), int(about["examples"])
        self.seconds, self.earlier = float(about["seconds"]), float(about.get("earlier", 0))

    def average_with(self, path: Path) -> None:
        """Take the mean of these weights and those of another checkpoint of the same run."""
        arrays = mx.load(str(path))
        mean = [
            (name, (value + arrays[f"model.{name}"]) / 2) for name, value in tree_flatten(self.decoder.parameters())
        ]
        self.decoder.load_weights(mean)


def train_step(state: State, pieces: list[Piece], plan: Plan, progress: float) -> tuple[float, int]:
    """One update. Returns the mean loss of the supervised tokens and the number of tokens computed."""
    count = sum(piece.targets.size for piece in pieces)
    gradient_of = nn.value_and_grad(state.decoder, lambda piece: piece_loss(state.decoder, piece, 1 / count))
    total, gradients = 0.0, None
    for piece in pieces:
        loss, part = gradient_of(piece)
        if gradients is not None:
            part = tree_map(mx.add, gradients, part)
        mx.eval(loss, part)
        gradients, total = part, total + loss.item()
    gradients, _ = optim.clip_grad_norm(gradients, 1.0)
    factor = rate_factor(plan, state.step, progress)
    muon, adam = state.optimizer.optimizers
    muon.learning_rate, adam.learning_rate = plan.matrix_rate * factor, plan.other_rate * factor
    state.optimizer.update(state.decoder, gradients)
    mx.eval(state.decoder.parameters(), state.optimizer.state)
    return total, sum(piece.ids.size for piece in pieces)


@dataclass(frozen=True)
class Report:
    """One line of progress."""

    step: int
    progress: float
    loss: float
    tokens_per_second: float
    seconds: float


def train(
    state: State, tokenizer: Tokenizer, plan: Plan, checkpoint: Path, clock: Callable[[], float] = time.monotonic
) -> Iterator[Report]:
    """Train until the plan is done; yields a report every 20 steps and saves as it goes."""
    losses: list[float] = []
    tokens, window = 0, 0.0
    with network.fast_exponentials():
        while True:
            progress = state.seconds / (60 * plan.minutes) if plan.minutes else state.step / (plan.steps or 1)
            if progress >= 1:
                break
            began = clock()
            loss, count = train_step(state, batch(tokenizer, plan.seed, state.examples), plan, progress)
            spent = clock() - began
            state.examples += EXAMPLES_PER_STEP
            state.step, state.seconds = state.step + 1, state.seconds + spent
            losses, tokens, window = [*losses, loss], tokens + count, window + spent
            if state.step % 20 == 0:
                yield Report(state.step, progress, sum(losses) / len(losses), tokens / window, state.seconds)
                losses, tokens, window = [], 0, 0.0
            if state.step % plan.save_every == 0:
                state.save(checkpoint)
    state.save(checkpoint)
