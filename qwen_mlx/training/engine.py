"""The arithmetic of a step: gradients of a batch, their sum over a window, one update; compiled, a graph per shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_map, tree_unflatten  # noqa: E402

from qwen_mlx.models import Decoder  # noqa: E402
from qwen_mlx.training.config import OptimSection  # noqa: E402
from qwen_mlx.training.optim import flat, global_norm, one_update, places, set_learning_rate  # noqa: E402
from qwen_mlx.training.stages.stage import Arrays, Loss, Stage  # noqa: E402

_AT_ONCE = 64 << 20  # bytes of weights that are updated between two evaluations


@dataclass
class Sums:
    """Over the batches of a window: gradients, and what the stage counts."""

    gradients: Any
    counted: Arrays


Numbers = tuple[float, float, dict[str, float]]
"""Sum of token losses, sum of weights, metrics."""


class Engine:
    """Computes for one decoder, stage and optimizer, none of which may be replaced afterwards.

    Args:
        compile: False computes eagerly.
    """

    def __init__(
        self, decoder: Decoder, stage: Stage, optimizer: optim.MultiOptimizer, section: OptimSection, compile: bool
    ) -> None:
        self.decoder, self.optimizer = decoder, optimizer
        self._section = section
        self._places = places(optimizer, decoder.trainable_parameters())
        random: Any = mx.random.state  # a container, whatever its type says

        def loss(trained: Any, arrays: Arrays) -> Loss:
            decoder.update(trained)
            return stage.loss(decoder, arrays)

        def add(a: Any, b: Any) -> Any:
            return tree_map(mx.add, a, b)

        def judge(arrays: Arrays) -> Loss:
            return stage.judge(decoder, arrays)

        self._window_start = lambda: stage.window_start(decoder)
        self._gradients: Callable[..., Any] = mx.value_and_grad(loss)
        self._judge: Callable[..., Any] = judge
        self._add: Callable[..., Any] = add
        self._norm: Callable[..., Any] = global_norm
        self._updates: list[Callable[..., Any]] = [one_update(member) for member in optimizer.optimizers]
        if compile:
            # Trained weights are arguments; frozen ones and the random state are read where they are.
            self._gradients = mx.compile(self._gradients, inputs=[decoder.state, random], outputs=[random])
            self._judge = mx.compile(judge, inputs=[decoder.state])
            self._add, self._norm = mx.compile(add), mx.compile(global_norm)
            self._updates = [mx.compile(update) for update in self._updates]

    def gradients(self, arrays: Arrays, sums: Sums | None) -> tuple[Sums, Numbers]:
        """Gradients of the sum of the token losses of a batch, added to `sums` where there are some."""
        self.decoder.train()
        trained = self.decoder.trainable_parameters()
        counted = self._window_start() if sums is None else sums.counted
        (loss, weight, metrics), gradients = self._gradients(trained, {**arrays, **counted})
        self.decoder.update(trained)  # tracing has left placeholders in their place
        counted = {name: held + metrics.pop(name) for name, held in counted.items()}
        if sums is not None:
            gradients = self._add(sums.gradients, gradients)
        # In one layout, whatever they came in: sums over them depend on it, and files have only this one.
        gradients = tree_map(mx.contiguous, gradients)
        mx.eval(loss, weight, metrics, gradients, counted, mx.random.state)
        return Sums(gradients, counted), _numbers(loss, weight, metrics)

    def norm(self, sums: Sums, weight: float) -> float:
        """The norm of the mean gradient, when `weight` is the sum of the weights of the whole window."""
        return _number(self._norm(sums.gradients)) / weight

    def update(self, sums: Sums, weight: float, norm: float, learning_rate: float) -> None:
        """One update with the mean gradient, clipped; a few arrays at a time, so that little is there twice.

        `sums` is emptied.
        """
        clip = self._section.clip
        size = 1 / weight
        if clip and norm > clip:
            size *= clip / (norm + 1e-6)
        factor = mx.array(size, dtype=mx.float32)
        set_learning_rate(self.optimizer, self._section, learning_rate)
        for member in self.optimizer.optimizers:
            member.state["step"] = member.state["step"] + 1
        gradients = flat(sums.gradients)
        sums.gradients = {}
        weights = flat(self.decoder.trainable_parameters())
        done: list[tuple[str, mx.array]] = []
        waiting = 0
        for name in list(gradients):
            number, state = self._places[name]
            member = self.optimizer.optimizers[number]
            new, changed = self._updates[number](
                gradients.pop(name), factor, weights.pop(name), dict(state), member.learning_rate, member.step
            )
            state.update(changed)
            done.append((name, new))
            waiting += new.nbytes
            if waiting >= _AT_ONCE or not gradients:
                mx.eval([array for _, array in done], self.optimizer.state)
                self.decoder.update(tree_unflatten(done), strict=False)
                done, waiting = [], 0

    def judge(self, arrays: Arrays) -> Numbers:
        """The loss of a batch of the evaluation set, without dropout."""
        self.decoder.eval()
        loss, weight, metrics = self._judge(arrays)
        mx.eval(loss, weight, metrics)
        return _numbers(loss, weight, metrics)


def _numbers(loss: mx.array, weight: mx.array, metrics: dict[str, mx.array]) -> Numbers:
    return _number(loss), _number(weight), {name: _number(value) for name, value in metrics.items()}


def _number(scalar: mx.array) -> float:
    return float(np.array(scalar))


def fingerprints(decoder: Decoder) -> dict[str, int]:
    """A number per trained weight that changes with any of its bits, for telling whether anything was learnt."""
    found = {}
    for name, array in flat(decoder.trainable_parameters()).items():
        kind = {4: mx.uint32, 2: mx.uint16}[array.dtype.size]
        bits = array.view(kind).astype(mx.uint32)
        place = mx.arange(bits.size, dtype=mx.uint32).reshape(bits.shape) * 2 + 1
        found[name] = int(np.array((bits * place).sum()))
    return found
