"""`fuse`: adapters added to the weights of a model, which then needs them no more.

Sums are float32 and rounded once. Weights are read, changed and written some rows at a time, so memory does not grow
with the model, except to measure what the rounding has lost (`retention.py`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

import mlx.core as mx

from qwen_mlx.adapters.files import read_adapter
from qwen_mlx.adapters.registry import install, set_mix
from qwen_mlx.adapters.retention import LEAST_COSINE, Distributions, is_enough, log_probabilities, probes, retention
from qwen_mlx.adapters.sites import Site, sites
from qwen_mlx.adapters.stored import Part, StoredAdapter, in_order
from qwen_mlx.checkpoints.layout import Output
from qwen_mlx.checkpoints.load import iter_load
from qwen_mlx.checkpoints.mlx_names import Matrix, Vector
from qwen_mlx.checkpoints.publish import check_target, publishing
from qwen_mlx.checkpoints.rewrite import Original, Rewriting
from qwen_mlx.checkpoints.safetensors import MLX_DTYPES
from qwen_mlx.checkpoints.stream import Blocks, Plan, Step, Written, write_checkpoint
from qwen_mlx.errors import QwenError, UsageError
from qwen_mlx.events import CancelToken, Event, FuseAdapter, Fused, Notice, Progress, Retention
from qwen_mlx.models import ModelSpec
from qwen_mlx.models.spec import QuantizationSpec

_TINY = 1e-30
_INSIDE = "model"  # the folder inside the unfinished one that is written and looked at
_ROWS = 1 << 22  # numbers changed at a time


def fuse(job: FuseAdapter, cancel: CancelToken | None = None) -> Fused:
    """Do it and tell nothing on the way; see `iter_fuse`."""
    *_, last = iter_fuse(job, cancel)
    assert isinstance(last, Fused)
    return last


def iter_fuse(job: FuseAdapter, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Write a model with adapters fused into its weights, in mlx-lm's layout.

    A quantized model is unpacked: rounding again into few bits loses most of what an adapter does. `requantize` packs
    it all the same. Unless `check` is off, the result is compared with base and adapters before it gets its name.

    Yields:
        `Progress`, `ConversionPlanned`, `Notice`, `Fused`.

    Raises:
        NotFound, CheckpointError: the model or an adapter cannot be read, or they do not belong together.
        UsageError: a target, type or weight that cannot be meant.
        QwenError: too little of the adapters was kept; with the numbers. Nothing was written.
        NoSpace: the disk is too small, or became full.
        Cancelled: nothing is left of it.
    """
    started = time.perf_counter()
    cancel = cancel or CancelToken()
    _check(job)
    source = Path(job.source)
    target = check_target(Path(job.target), job.force, (source, *(Path(folder) for folder, _ in job.adapters)))
    original = Original.open(source, job.dtype)
    with original.source:
        if job.requantize and not original.packed:
            raise UsageError(f"{original.folder} is not quantized; there is nothing to pack again")
        given = [(read_adapter(folder, original.spec), weight) for folder, weight in job.adapters]
        changes = _changes(original.spec, given)
        formats: dict[str, QuantizationSpec | None] = {
            m.module: m.quantization if job.requantize else None for m in original.matrices
        }
        packed = [form for form in formats.values() if form is not None]
        work = Rewriting(original, formats, max(packed, key=packed.count) if packed else None)
        plan = _untied(_changed_plan(work, changes), original, given)
        announced = work.announce(plan, target)
        yield announced
        if job.dry_run:
            yield Fused(announced, 0, time.perf_counter() - started)
            return
        before: _Before | None = None
        if job.check:
            before = yield from _before(original.folder, given, job.texts, cancel)
        with publishing(target, job.force) as partial:
            inside = partial / _INSIDE
            written: Written = yield from write_checkpoint(plan, inside, cancel=cancel, stage="fuse")
            kept = None
            if before is not None:
                kept = yield from _kept(before, inside, cancel)
                if not is_enough(kept):
                    _judge(job, kept)
                    yield Notice(f"the fused model keeps little of the adapter: {_numbers(kept)}")
            for entry in list(inside.iterdir()):
                entry.rename(partial / entry.name)
            inside.rmdir()
        yield Fused(announced, written.files, time.perf_counter() - started, kept)


def _check(job: FuseAdapter) -> None:
    if not job.adapters:
        raise UsageError("there is no adapter to fuse", expected="one folder or more")
    for folder, weight in job.adapters:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) < float("inf"):
            raise UsageError(f"the weight of {folder} is no number", found=repr(weight)[:40])
    if job.requantize and not job.check and not job.accept_loss:
        raise UsageError(
            "packing a fused model again can lose all of the adapter, and has to be checked",
            hint="Leave the check on, or accept the loss.",
        )


def _judge(job: FuseAdapter, kept: Retention) -> None:
    """Raises `QwenError` unless the loss was accepted."""
    if job.accept_loss:
        return
    advice = "Fuse into bfloat16 or float32, without packing the weights again" if job.requantize else "Fuse in float32"
    raise QwenError(
        f"{job.target} is not written: the fused model keeps too little of the adapter",
        expected=f"predictions that change as the adapter changes them, with a cosine of {LEAST_COSINE} or more",
        found=_numbers(kept),
        hint=f"{advice}, or keep the adapter as it is.",
    )


def _numbers(kept: Retention) -> str:
    return (
        f"cosine {kept.cosine:.3f}, KL {kept.kl:.2e} of {kept.change:.2e} nats that the adapter changes, "
        f"same likeliest token {kept.same_top:.1%}"
    )


# ------------------------------------------------------------------------------------------------------------- changing


@dataclass(frozen=True)
class _Rows:
    """What one adapter does to the rows of one matrix, or of those of all experts one after the other.

    `part` has its rows in the order in which they are stored; `each` counts the rows of one expert, 0 without experts.
    """

    part: Part
    weight: float
    each: int

    def change(self, plain: mx.array, start: int) -> mx.array:
        """What is to be added to the rows from `start` on, float32 (rows, columns); of one expert only."""
        part, stop = self.part, start + plain.shape[0]
        a, b, length = part.a, part.b, part.magnitude
        if self.each:
            expert = start // self.each
            a, b, length = a[expert], b[expert], None if length is None else length[expert]
            start, stop = start - expert * self.each, stop - expert * self.each
        delta = part.scale * (b[start:stop] @ a)
        if length is not None:
            whole = plain + delta
            norm = mx.sqrt(mx.maximum((whole * whole).sum(axis=-1, keepdims=True), _TINY))
            delta = length[start:stop, None] / norm * whole - plain
        return self.weight * delta


@dataclass(frozen=True)
class _Replaced:
    """A matrix that an adapter replaces as a whole."""

    matrix: mx.array
    weight: float
    each: int = 0

    def change(self, plain: mx.array, start: int) -> mx.array:
        return self.weight * (self.matrix[start : start + plain.shape[0]] - plain)


Change = Union[_Rows, _Replaced]


def _changed_plan(work: Rewriting, changes: Mapping[str, list[Change]]) -> Plan:
    """The plan of `work`, but with other steps for what changes; `changes` by the name inside the decoder."""
    plan = work.plan()
    steps = {step.what: step for step in plan.steps}
    for item in work.original.items:
        if isinstance(item, Matrix) and item.own in changes:
            steps[item.module] = _matrix_step(work, item, steps[item.module], changes[item.own])
        elif isinstance(item, Vector) and item.change == "add one":
            steps[item.name] = _norm_step(work.original, item, steps[item.name])
    return replace(plan, steps=list(steps.values()))


def _matrix_step(work: Rewriting, matrix: Matrix, step: Step, changes: Sequence[Change]) -> Step:
    """The step that writes the same tensors, changed; packed as `mx.quantize` packs them."""
    form, dtype = work.formats[matrix.module], MLX_DTYPES[work.original.dtype]
    names = [output.name for output in step.outputs]

    def blocks() -> Blocks:
        start = 0
        for stored in work.floats(matrix):
            rows = changed(stored.astype(mx.float32), start, changes).astype(dtype)
            if not mx.isfinite(rows).all().item():
                raise QwenError(f"{matrix.module} with its adapters has numbers that {dtype} cannot hold")
            parts = [rows] if form is None else mx.quantize(rows, form.group_size, form.bits, form.mode)
            start += rows.shape[0]
            yield dict(zip(names, parts))

    return replace(step, blocks=blocks)


def _norm_step(original: Original, norm: Vector, step: Step) -> Step:
    """Zero-centred norms get their one in float32, as `load` adds it, and are rounded once."""
    (output,) = step.outputs

    def blocks() -> Blocks:
        yield {output.name: (original.source.rows(norm.source).astype(mx.float32) + 1).astype(MLX_DTYPES[output.dtype])}

    return replace(step, blocks=blocks)


def changed(rows: mx.array, start: int, changes: Sequence[Change]) -> mx.array:
    """Rows from `start` on of a matrix with all its changes, float32; each is a change of the weights as they were."""
    step = max(1, _ROWS // rows.shape[-1])
    each = changes[0].each
    pieces: list[mx.array] = []
    first = 0
    while first < rows.shape[0]:
        last = min(first + step, rows.shape[0])
        if each:  # no further than the expert goes
            last = min(last, first + each - (start + first) % each)
        plain = rows[first:last]
        total = plain
        for change in changes:
            total = total + change.change(plain, start + first)
        mx.eval(total)
        pieces.append(total)
        first = last
    return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces)


def _changes(spec: ModelSpec, given: list[tuple[StoredAdapter, float]]) -> dict[str, list[Change]]:
    """What happens to which matrix, by its name inside the decoder."""
    found: dict[str, list[Change]] = {}
    for adapter, weight in given:
        for name, part in adapter.parts.items():
            site = sites(spec)[name]
            for own, rows in _matrices(site, in_order(site, part, back=True), weight):
                found.setdefault(own, []).append(rows)
        for name, matrix in adapter.matrices.items():
            if name == "embed_tokens" or not spec.tied:
                found.setdefault(name, []).append(_Replaced(matrix, weight))
    return found


def _matrices(site: Site, part: Part, weight: float) -> Iterator[tuple[str, _Rows]]:
    """The matrices of one site; mlx-lm's files have gate and up of the experts apart."""
    if not site.experts:
        yield site.name, _Rows(part, weight, 0)
        return
    path = site.name.rpartition(".experts.")[0]
    names = ("gate_proj", "up_proj") if site.leaf == "gate_up_proj" else ("down_proj",)
    each = site.rows // len(names)
    for i, name in enumerate(names):
        own = slice(i * each, (i + 1) * each)
        length = None if part.magnitude is None else part.magnitude[:, own]
        yield f"{path}.switch_mlp.{name}", _Rows(replace(part, b=part.b[:, own], magnitude=length), weight, each)


def _untied(plan: Plan, original: Original, given: list[tuple[StoredAdapter, float]]) -> Plan:
    """The plan with a head of its own, where an adapter has changed embedding and head of a tied model differently."""
    if not original.spec.tied or all(_is_one(adapter.matrices) for adapter, _ in given):
        return plan
    embedding = next(matrix for matrix in original.matrices if matrix.own == "embed_tokens")
    heads = [_Replaced(a.matrices["lm_head"], weight) for a, weight in given if "lm_head" in a.matrices]
    output = Output(_head_name(embedding.module), original.dtype, embedding.shape)

    def blocks() -> Blocks:
        start = 0
        for rows in Rewriting(original, {}).floats(embedding):
            wide = rows.astype(mx.float32)
            yield {output.name: (changed(wide, start, heads) if heads else wide).astype(MLX_DTYPES[output.dtype])}
            start += rows.shape[0]

    config = dict(plan.config) | {"tie_word_embeddings": False}
    if isinstance(config.get("text_config"), Mapping):
        config["text_config"] = dict(config["text_config"]) | {"tie_word_embeddings": False}
    return replace(plan, steps=[*plan.steps, Step((output,), blocks, output.name)], config=config)


def _is_one(matrices: Mapping[str, mx.array]) -> bool:
    return matrices.get("embed_tokens") is matrices.get("lm_head")


def _head_name(embedding: str) -> str:
    """The name of a head: "model.embed_tokens" -> "lm_head.weight", with the prefix that the family has."""
    return f"{embedding.removesuffix('embed_tokens').removesuffix('model.')}lm_head.weight"


# ------------------------------------------------------------------------------------------------------------ comparing


@dataclass(frozen=True)
class _Before:
    texts: list[list[int]]
    base: Distributions
    wanted: Distributions


def _before(
    folder: Path, given: list[tuple[StoredAdapter, float]], texts: tuple[str, ...], cancel: CancelToken
) -> Generator[Progress, None, _Before]:
    """What base and adapters say of some texts."""
    model = yield from iter_load(folder, cancel=cancel)
    read = probes(model, texts)
    base = log_probabilities(model.decoder, read)
    for i, (adapter, _) in enumerate(given):
        install(model.decoder, f"adapter-{i}", adapter.config, adapter.parts, adapter.matrices)
    set_mix(model.decoder, {f"adapter-{i}": weight for i, (_, weight) in enumerate(given)})
    found = _Before(read, base, log_probabilities(model.decoder, read))
    del model
    mx.clear_cache()
    return found


def _kept(before: _Before, folder: Path, cancel: CancelToken) -> Generator[Progress, None, Retention]:
    """What the fused model says of them."""
    model = yield from iter_load(folder, cancel=cancel)
    found = retention(before.base, before.wanted, log_probabilities(model.decoder, before.texts))
    del model
    mx.clear_cache()
    return found
