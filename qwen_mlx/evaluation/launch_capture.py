"""The graph of one decoding step as a Metal device would get it, on any machine and without computing anything.

`mx.export_function` hands over the operations of a function with the shapes of everything, and takes placeholders for
weights, so that no model has to be in memory. What differs on a Metal device is arranged in `like_metal`: operations
that are one kernel there but several on a CPU are recorded as one, what is inside `mx.compile` is bracketed, and
kernels are recorded without being compiled or run.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from qwen_mlx import device
from qwen_mlx.evaluation.launch_rules import Array, Graph, Node
from qwen_mlx.kernels import launch

# Kernels are recorded under the names that MLX makes of theirs: custom_kernel_NAME, template values, types.
_KERNEL = re.compile(
    r"^custom_kernel_(.*?)(?:__|_(?:u?int(?:8|16|32|64)_t|float(?:16_t)?|bfloat16_t|bool)[sc]?(?:_|$))"
)
_MARK = re.compile(r"^custom_kernel_recorded_(\d+)")
_marks: list[str] = []  # names of operations that are recorded as the kernel recorded_<place in this list>
_regions = itertools.count()
_recording = False


def record(step: Callable[[mx.array], Any], model: nn.Module, token: mx.array, cache: Sequence[Any] = ()) -> Graph:
    """The graph of `step(token)`, which runs `model` with `cache`; both are left as they were.

    Weights and everything in the cache become placeholders, so lazy arrays will do.
    """
    names, weights = _weights(model)
    places = [place for part in cache for place in _places(part)]
    held = [get() for get, _ in places]
    events: list[dict[str, Any]] = []

    def traced(token: mx.array, *roots: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(zip(names, roots))))
        for (_, put), array in zip(places, roots[len(names) :]):
            put(array)
        result = step(token)
        arrays = list(result) if isinstance(result, (list, tuple)) else [result]
        return arrays + [get() for part in cache for get, _ in _places(part)]

    try:
        _export(events.append, traced, token, *weights, *held)
    finally:
        model.update(tree_unflatten(list(zip(names, weights))))
        for (_, put), array in zip(places, held):
            put(array)
    return _graph(events)


def fill(step: Callable[[mx.array], Any], model: nn.Module, prompt: mx.array, cache: Sequence[Any]) -> None:
    """Bring `cache` to where it is after `step(prompt)`, with lazy zeros for what would be in it."""
    names, weights = _weights(model)

    def traced(prompt: mx.array, *roots: mx.array) -> mx.array:
        model.update(tree_unflatten(list(zip(names, roots))))
        step(prompt)
        return prompt

    try:
        _export(lambda _: None, traced, prompt, *weights)
    finally:
        model.update(tree_unflatten(list(zip(names, weights))))
    for part in cache:
        for get, put in _places(part):
            put(mx.zeros(get().shape, get().dtype))


def _weights(model: nn.Module) -> tuple[list[str], list[mx.array]]:
    """The parameters of a model: their names and themselves."""
    flat: Any = tree_flatten(model.parameters())
    return [name for name, _ in flat], [array for _, array in flat]


def _export(tell: Callable[[dict[str, Any]], None], function: Callable[..., Any], *inputs: mx.array) -> None:
    global _recording
    _recording = True
    try:
        mx.export_function(tell, function, *inputs)
    finally:
        _recording = False


def _places(part: Any) -> list[tuple[Callable[[], mx.array], Callable[[mx.array], None]]]:
    """Where an object keeps arrays, lists and tuples of arrays included: a getter and a setter for each."""
    found: list[tuple[Callable[[], mx.array], Callable[[mx.array], None]]] = []

    def visit(get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        value = get()
        if isinstance(value, mx.array):
            found.append((get, put))
        elif isinstance(value, (list, tuple)):
            for i in range(len(value)):
                visit(functools.partial(lambda i: get()[i], i), functools.partial(_put_item, get, put, i))

    for name in list(vars(part)):
        visit(functools.partial(getattr, part, name), functools.partial(setattr, part, name))
    return found


def _put_item(get: Callable[[], Any], put: Callable[[Any], None], index: int, array: mx.array) -> None:
    items = list(get())
    items[index] = array
    put(type(get())(items))


def _graph(events: Sequence[dict[str, Any]]) -> Graph:
    nodes: list[Node] = []
    outputs: tuple[Array, ...] = ()
    roots: frozenset[str] = frozenset()
    for event in events:
        if event["type"] == "inputs":
            roots = frozenset(name for name, _, _ in event["inputs"][1:])
        elif event["type"] == "outputs":
            outputs = tuple(_array(item) for item in event["outputs"])
        elif event["type"] == "primitive":
            inputs, made = (tuple(_array(item) for item in event[side]) for side in ("inputs", "outputs"))
            arguments = tuple(event["arguments"])
            nodes.append(Node(_name(event["name"], arguments), inputs, made, arguments))
    return Graph(tuple(nodes), outputs, roots)


def _array(item: tuple[str, Sequence[int], mx.Dtype]) -> Array:
    name, shape, dtype = item
    return Array(name, tuple(shape), dtype.size)


def _name(primitive: str, arguments: tuple[Any, ...]) -> str:
    if primitive != "CustomKernel":
        return primitive
    if mark := _MARK.match(arguments[0]):
        return _marks[int(mark[1])]
    kernel = _KERNEL.match(arguments[0])
    return f"kernel {kernel[1] if kernel else arguments[0]}"


# ------------------------------------------------------------------------------------------------ as on Metal


@contextlib.contextmanager
def like_metal() -> Iterator[None]:
    """Record as if MLX ran on a Metal device, and every kernel had proved itself.

    Only in a process of its own: mlx-lm decides while it is imported which kernels there are and what is compiled, so
    it must be imported in here, and what decides once in our own code has then decided for a device that is not there.
    """
    device.backend.cache_clear()
    with contextlib.ExitStack() as stack:
        for place, name, replacement in (
            (mx, "default_device", lambda: mx.Device(mx.gpu)),
            (mx.metal, "is_available", lambda: True),
            (mx, "compile", _compile),
            (mx, "quantize", _quantize),
            (mx, "dequantize", _dequantize),
            (mx, "contiguous", lambda x, *_, **__: _mark("Contiguous", [x], [(x.shape, x.dtype)])[0]),
            (mx.fast, "rms_norm", _rms_norm),
            (mx.fast, "rope", _rope),
            (mx.fast, "scaled_dot_product_attention", _attention),
            (mx.fast, "gated_delta_update", _gated_delta_update),
        ):
            stack.enter_context(mock.patch.object(place, name, replacement))
        stack.enter_context(launch.building_with(_build, bare=True))
        try:
            yield
        finally:
            device.backend.cache_clear()


def _build(**arguments: Any) -> Callable[..., list[mx.array]]:
    return cast(Callable[..., list[mx.array]], mx.fast.metal_kernel(**arguments))


def _mark(name: str, inputs: Sequence[mx.array], like: Sequence[tuple[Sequence[int], mx.Dtype]]) -> list[mx.array]:
    """An operation called `name` that makes arrays of these shapes and types out of `inputs`.

    While nothing is recorded, as when a model is built, there is nothing to call: zeros will do.
    """
    if not _recording:
        return [mx.zeros(shape, dtype) for shape, dtype in like]
    if name not in _marks:
        _marks.append(name)
    kernel = _build(
        name=f"recorded_{_marks.index(name)}",
        input_names=[f"in{i}" for i in range(len(inputs))],
        output_names=[f"out{i}" for i in range(len(like))],
        source="",
        ensure_row_contiguous=False,
    )
    return kernel(
        inputs=list(inputs),
        output_shapes=[tuple(shape) for shape, _ in like],
        output_dtypes=[dtype for _, dtype in like],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
    )


def _compile(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """In place of mx.compile: runs the function between two marks."""

    @functools.wraps(function)
    def marked(*arguments: Any, **named: Any) -> Any:
        region = next(_regions)
        given = _bracket(f"compiled begin {region}", (arguments, named))
        return _bracket(f"compiled end {region}", function(*given[0], **given[1]))

    return marked


def _bracket(name: str, tree: Any) -> Any:
    arrays: list[mx.array] = []
    tree_map(lambda x: arrays.append(x) if isinstance(x, mx.array) else None, tree)
    if not arrays:
        return tree
    marked = iter(_mark(name, arrays, [(a.shape, a.dtype) for a in arrays]))
    return tree_map(lambda x: next(marked) if isinstance(x, mx.array) else x, tree)


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float, **_: Any) -> mx.array:
    if weight is None:
        return _mark("RMSNorm", [x], [(x.shape, x.dtype)])[0]
    dtype = mx.result_type(x, weight)  # of both, and of the result
    return _mark("RMSNorm", [x.astype(dtype), weight.astype(dtype)], [(x.shape, dtype)])[0]


def _rope(x: mx.array, dims: int, *, offset: int | mx.array, freqs: mx.array | None = None, **_: Any) -> mx.array:
    inputs = [a for a in (x, offset, freqs) if isinstance(a, mx.array)]
    return _mark("RoPE", inputs, [(x.shape, x.dtype)])[0]


def _attention(q: mx.array, k: mx.array, v: mx.array, *, mask: Any = None, **_: Any) -> mx.array:
    inputs = [q, k, v, mask] if isinstance(mask, mx.array) else [q, k, v]
    return _mark("ScaledDotProductAttention", inputs, [((*q.shape[:-1], v.shape[-1]), q.dtype)])[0]


def _gated_delta_update(
    q: mx.array, k: mx.array, v: mx.array, gamma: mx.array, beta: mx.array, state: mx.array | None = None, **_: Any
) -> list[mx.array]:
    after = (v.shape[0], v.shape[2], v.shape[3], q.shape[3])
    inputs = [q, k, v, gamma, beta, *([] if state is None else [state])]
    return _mark("GatedDeltaUpdate", inputs, [(v.shape, v.dtype), (after, mx.float32)])


def _quantize(
    w: mx.array, group_size: int | None = None, bits: int | None = None, mode: str = "affine", **_: Any
) -> Any:
    group_size, bits = group_size or 64, bits or 4
    rows, columns = w.shape[:-1], w.shape[-1]
    groups = (*rows, columns // group_size)
    return tuple(
        _mark("Quantize", [w], [((*rows, columns * bits // 32), mx.uint32), (groups, w.dtype), (groups, w.dtype)])
    )


def _dequantize(
    w: mx.array, scales: mx.array, biases: mx.array | None = None, group_size: int | None = None, *_: Any, **__: Any
) -> mx.array:
    columns = scales.shape[-1] * (group_size or 64)
    inputs = [w, scales] if biases is None else [w, scales, biases]
    return _mark("Dequantize", inputs, [((*w.shape[:-1], columns), scales.dtype)])[0]
