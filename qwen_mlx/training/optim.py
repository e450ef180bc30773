"""Optimizers, and which weights get which: MLX's own where they compute what the papers and torch say.

The learning rate is set from outside before every update (`schedules.py`), so none of them knows a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from qwen_mlx.errors import CheckpointError  # noqa: E402
from qwen_mlx.training.config import OptimSection  # noqa: E402


class AdamW(optim.AdamW):
    """AdamW as torch computes it: with bias correction, which MLX leaves out by default.

    `1 - beta ** step` is computed as `-expm1(step * log(beta))`: in float32 the difference itself has lost four
    digits at the first steps when beta is 0.999.
    """

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The new parameter; `m` and `v` of the state are replaced. Shapes and types are those of the parameter."""
        rate = self.learning_rate.astype(mx.float32)
        step = self.step.astype(mx.float32)
        first, second = self.betas
        m = first * state["m"] + (1 - first) * gradient
        v = second * state["v"] + (1 - second) * mx.square(gradient)
        state["m"], state["v"] = m, v
        size = rate / _one_minus_power(first, step)
        scale = mx.rsqrt(_one_minus_power(second, step))
        kept = parameter * (1 - rate * self.weight_decay).astype(parameter.dtype)
        return kept - (size.astype(m.dtype) * m / (mx.sqrt(v) * scale.astype(v.dtype) + self.eps)).astype(kept.dtype)


def _one_minus_power(beta: float, step: mx.array) -> mx.array:
    return mx.array(1.0) if beta == 0 else -mx.expm1(step * math.log(beta))


class Muon(optim.Muon):
    """MLX's Muon, with decoupled weight decay as in AdamW; MLX adds it to the gradient."""

    def __init__(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        super().__init__(learning_rate, momentum=momentum, weight_decay=0.0)
        self.decoupled = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        kept = parameter * (1 - self.learning_rate * self.decoupled).astype(parameter.dtype)
        return super().apply_single(gradient, kept, state)


_NEVER_DECAYED = ("norm", "A_log", "dt_bias", "lora_", "magnitude")


def is_decayed(path: str, weight: mx.array, adapters: bool) -> bool:
    """Whether weight decay pulls at a weight: at matrices, but not at norms, and at adapters only when asked for."""
    leaf = path.lower()
    if weight.ndim < 2 or any(word.lower() in leaf for word in _NEVER_DECAYED[:3]):
        return False
    return adapters or not any(word in leaf for word in _NEVER_DECAYED[3:])


def is_hidden_matrix(path: str, weight: mx.array) -> bool:
    """Whether Muon may have it: matrices inside the layers; embeddings and the head are for AdamW."""
    return weight.ndim == 2 and "embed" not in path and "lm_head" not in path


def make_optimizer(section: OptimSection, parameters: Mapping[str, Any]) -> optim.MultiOptimizer:
    """The optimizer of a run, its state made for `parameters`, the trainable ones.

    Its groups are in the order of `group_rates`.
    """
    adapters = section.decay_adapters

    def adamw(rate: float, decay: float) -> optim.Optimizer:
        return AdamW(rate, list(section.betas), section.eps, decay, bias_correction=True)

    def main(decay: float) -> optim.Optimizer:
        if section.name == "lion":
            return optim.Lion(section.lr, list(section.betas), decay)
        if section.name == "adafactor":
            # A given rate instead of a relative one, as in transformers' Trainer.
            return optim.Adafactor(section.lr, weight_decay=decay, scale_parameter=False, relative_step=False)
        return adamw(section.lr, decay)

    def decayed(path: str, weight: mx.array) -> bool:
        return is_decayed(path, weight, adapters)

    def both(path: str, weight: mx.array) -> bool:
        return is_hidden_matrix(path, weight) and decayed(path, weight)

    members: list[optim.Optimizer] = []
    filters: list[Callable[[str, mx.array], bool]] = []
    if section.name == "muon":
        members += [Muon(section.lr, section.momentum, section.weight_decay), Muon(section.lr, section.momentum, 0.0)]
        filters += [both, is_hidden_matrix]
    if section.name == "muon":
        rate = other_rate(section)
        members += [adamw(rate, section.weight_decay), adamw(rate, 0.0)]
    else:
        members += [main(section.weight_decay), main(0.0)]
    filters.append(decayed)
    optimizer = optim.MultiOptimizer(members, filters)
    optimizer.init(dict(parameters))
    return optimizer


def other_rate(section: OptimSection) -> float:
    """The peak rate of what Muon leaves to AdamW; a tenth of Muon's, unless given."""
    return section.lr / 10 if section.other_lr is None else section.other_lr


def set_learning_rate(optimizer: optim.MultiOptimizer, section: OptimSection, rate: float) -> None:
    """Let the next update use `rate`; AdamW beside Muon keeps its ratio to it."""
    beside = rate * other_rate(section) / section.lr
    for i, member in enumerate(optimizer.optimizers):
        member.learning_rate = mx.array(beside if section.name == "muon" and i >= 2 else rate, dtype=mx.float32)


def load_state(optimizer: optim.MultiOptimizer, arrays: Mapping[str, mx.array], origin: str) -> None:
    """Put saved arrays in the places of a fresh state.

    Raises:
        CheckpointError: they are those of another optimizer, or of other weights.
    """
    places = flat(optimizer.state)
    if sorted(places) != sorted(arrays):
        odd = sorted(set(places) ^ set(arrays))
        raise CheckpointError(f"{origin} does not fit this optimizer", found=f"{len(odd)} names differ: {odd[0]}")
    for name, held in places.items():
        saved = arrays[name]
        if saved.shape != held.shape or saved.dtype != held.dtype:
            raise CheckpointError(
                f"{origin}: {name} has another form",
                expected=f"{held.shape} {held.dtype}",
                found=f"{saved.shape} {saved.dtype}",
            )
        parts = name.split(".")
        place: Any = optimizer.state
        for part in parts[:-1]:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[parts[-1]] = saved


def flat(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by their names, which are joined by points."""
    return dict(tree_flatten(tree))


def global_norm(gradients: Any) -> mx.array:
    """The Euclidean norm of all gradients together, in float32.

    Summed in the order of their names: that of a tree depends on how it was made, and a resumed run makes it otherwise.
    """
    arrays = flat(gradients)
    total = mx.array(0.0)
    for name in sorted(arrays):
        total = total + arrays[name].astype(mx.float32).square().sum()
    return mx.sqrt(total)


def places(optimizer: optim.MultiOptimizer, parameters: Mapping[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """By the name of a weight: which member of the optimizer has it, and where its state is kept."""
    found = {}
    for name, weight in flat(parameters).items():
        number = next(i for i, chosen in enumerate(optimizer.filters) if chosen(name, weight))
        place: Any = optimizer.optimizers[number].state
        for part in name.split("."):
            place = place[int(part)] if isinstance(place, list) else place[part]
        found[name] = number, place
    return found


def one_update(member: optim.Optimizer) -> Callable[..., tuple[mx.array, dict[str, Any]]]:
    """The update of one weight as a pure function, which may be compiled.

    It takes the gradient and a factor for it, the weight, its state, the learning rate and the step, and gives the new
    weight and state.
    """

    def update(
        gradient: mx.array, factor: mx.array, weight: mx.array, state: dict[str, Any], rate: mx.array, step: mx.array
    ) -> tuple[mx.array, dict[str, Any]]:
        held = member.state["learning_rate"], member.state["step"]
        member.state["learning_rate"], member.state["step"] = rate, step
        try:
            new = member.apply_single((gradient.astype(mx.float32) * factor).astype(weight.dtype), weight, state)
        finally:
            member.state["learning_rate"], member.state["step"] = held
        return new.astype(weight.dtype), state

    return update
