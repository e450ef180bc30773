"""What a graph costs on a Metal device: which of its operations launch a kernel, and how many bytes they move.

The rules were read out of MLX's Metal backend (0.32), operation by operation; `RULES` gives the reasons. A *view* moves
nothing, unless it is asked for a layout that its input does not have, which is a copy and counted. The layout of every
array is followed for that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["view", "contiguous", "elementwise", "launch", "nothing", "independent", "each input", "sort"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """A value of the graph; `name` is its identity."""

    name: str
    shape: Shape
    itemsize: int


@dataclass(frozen=True)
class Node:
    """One operation."""

    name: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can run. `roots` are weights and caches, which live longer than a step."""

    nodes: tuple[Node, ...]
    outputs: tuple[Array, ...]
    roots: frozenset[str]


@dataclass
class Cost:
    """What a graph costs.

    Attributes:
        launches: kernels that wait for one another.
        independent: launches without inputs, which wait for nothing and run beside the others; not in `launches`.
        read, written: bytes, by all launches.
        least: bytes of weights and caches, each read once by what reads most of it.
        by_name: launches by operation.
        unlisted: operations that `RULES` does not know, counted as one launch each.
    """

    launches: int = 0
    independent: int = 0
    read: int = 0
    written: int = 0
    least: int = 0
    by_name: Counter[str] = field(default_factory=Counter)
    unlisted: set[str] = field(default_factory=set)

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


def _rules(kind: Kind, reason: str, names: str) -> dict[str, tuple[Kind, str]]:
    return dict.fromkeys(names.split(), (kind, reason))


RULES: dict[str, tuple[Kind, str]] = {
    **_rules("view", "another shape or stride on the same memory", "AsStrided Broadcast BroadcastAxes ExpandDims"),
    **_rules("view", "the same, but a copy where the strides do not allow it", "Flatten Reshape Squeeze Unflatten"),
    **_rules("view", "the same memory from elsewhere", "Slice Split Transpose View"),
    **_rules("nothing", "hands its inputs on", "Copy CustomTransforms Depends StopGradient NumberOfElements"),
    **_rules(
        "elementwise",
        "one launch, or together with its neighbours inside mx.compile",
        "Abs Add ArcTan ArcTan2 AsType BitwiseBinary BitwiseInvert Ceil Cos Cosh Divide DivMod Equal Erf ErfInv Exp "
        "Expm1 Floor FloorDivide Greater GreaterEqual Imag Less LessEqual Log Log1p LogAddExp LogicalAnd LogicalNot "
        "LogicalOr Maximum Minimum Multiply Negative NotEqual Power Real Reciprocal Remainder Round Rsqrt Select "
        "Sigmoid Sign Sin Sinh Sqrt Square Subtract Tan Tanh",
    ),
    **_rules("launch", "one matrix product", "AddMM GatherMM GatherQMM Matmul QQMatmul QuantizedMatmul"),
    **_rules("launch", "one kernel of mx.fast", "RMSNorm LayerNorm RoPE ScaledDotProductAttention GatedDeltaUpdate"),
    **_rules("launch", "one kernel", "ArgReduce Convolution Gather GatherAxis LogSumExp Reduce Scan Softmax"),
    **_rules("launch", "one kernel", "Dequantize DynamicSlice Full Pad Quantize SearchSorted"),
    **_rules("launch", "a copy of the new part; the rest stays in place", "DynamicSliceUpdate SliceUpdate"),
    **_rules("launch", "a copy, and the scatter", "Scatter ScatterAxis"),
    **_rules("contiguous", "a copy, unless its input is in plain order", "Contiguous"),
    **_rules("each input", "a copy per input", "Concatenate"),
    **_rules("sort", "up to 2,048 values one launch, else a merge sort", "ArgPartition ArgSort Partition Sort"),
    **_rules("independent", "no inputs: it waits for nothing and runs beside others", "Arange"),
    **_rules("launch", "one kernel", "RandomBits"),
    # A kernel of this package or of mlx-lm is named for itself: "kernel add_rms_norm". It is one launch, and a copy
    # more for every input that is not in plain order.
}
_SORTED_AT_ONCE = 2048
# Products with some of many stacked matrices, which are their second input: where the numbers of the chosen ones are.
_GATHERING = {"GatherQMM": -1, "GatherMM": -1, "kernel swiglu_matvec": 4, "kernel expert_down": 4}
# Operations that copy an input which is not in plain order, and which of their inputs.
_PLAIN_INPUTS = {"RMSNorm": (0,), "QuantizedMatmul": (0,), "GatherQMM": (0,), "Softmax": (0,)}


def rule(name: str) -> tuple[Kind, str] | None:
    """How an operation is counted, and why; None if nobody has looked it up."""
    if name.startswith("kernel "):
        return "launch", "one kernel, brought along"
    return RULES.get(name)


def cost(graph: Graph) -> Cost:
    """Count the launches and bytes of a graph."""
    return _Counting(graph).result


class _Counting:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._strides: dict[str, Shape] = {}
        # What an array is part of: a view of something, or a buffer that was written in place.
        self._origin: dict[str, str] = {}
        self._most_read: Counter[str] = Counter()
        self.result = Cost()
        self._groups = _fused(graph.nodes)
        for index, node in enumerate(graph.nodes):
            self._node(index, node)
        self._elementwise()
        self.result.least = sum(size for name, size in self._most_read.items() if name in graph.roots)

    def _node(self, index: int, node: Node) -> None:
        known = rule(node.name)
        if known is None and not _is_border(node):
            self.result.unlisted.add(node.name)
        kind = "nothing" if _is_border(node) else "launch" if known is None else known[0]
        if kind == "view":
            self._view(node)
        elif kind == "contiguous" and not _plain(node.inputs[0].shape, self._strides_of(node.inputs[0])):
            self._copied(node.inputs[0], node.name)
        elif kind in ("nothing", "contiguous"):
            for source, target in zip(node.inputs, node.outputs):
                self._same_memory(source, target)
        elif kind == "independent":
            self.result.independent += 1
        elif kind != "elementwise":
            self._copies_of_inputs(node)
            self._launched(node, self._launches(kind, node))

    def _launches(self, kind: Kind, node: Node) -> int:
        if kind == "each input":
            return len(node.inputs)
        if node.name.startswith("Scatter"):
            return 2
        if kind == "sort":
            axis = node.arguments[-1] if node.arguments and isinstance(node.arguments[-1], int) else -1
            blocks = -(-node.inputs[0].shape[axis] // _SORTED_AT_ONCE)
            # Blocks, then per round of merges where to cut and the merge, then a copy of the result.
            return 1 if blocks == 1 else 2 + 2 * math.ceil(math.log2(blocks))
        return 1

    def _launched(self, node: Node, launches: int) -> None:
        self.result.launches += launches
        self.result.by_name[node.name] += launches
        if "SliceUpdate" in node.name:
            whole, part = node.inputs[0], node.inputs[1]
            self._origin[node.outputs[0].name] = self._origin_of(whole)
            self._strides[node.outputs[0].name] = self._strides_of(whole)
            self._moves([part], [part])
            return
        if node.name in ("Gather", "GatherAxis"):
            self._moves([node.outputs[0], *node.inputs[1:]], node.outputs)
            self._reads(node.inputs[0], _size(node.outputs[0]), moved=False)
            return
        share = 1.0
        if node.name in _GATHERING:
            experts, chosen = node.inputs[1].shape[0], _elements(node.inputs[_GATHERING[node.name]].shape)
            share = min(1.0, chosen / experts)
        for array in node.inputs:
            stacked = share < 1 and array.shape[:1] == node.inputs[1].shape[:1] and len(array.shape) == 3
            self._reads(array, int(self._bytes(array) * (share if stacked else 1)))
        self.result.written += sum(_size(array) for array in node.outputs)

    def _copies_of_inputs(self, node: Node) -> None:
        wanted: Iterable[int] = _PLAIN_INPUTS.get(node.name, ())
        if node.name.startswith("kernel "):
            wanted = range(len(node.inputs))
        for i in wanted:
            if i < len(node.inputs) and not _plain(node.inputs[i].shape, self._strides_of(node.inputs[i])):
                self._copied(node.inputs[i], f"copy for {node.name}")

    def _copied(self, array: Array, why: str) -> None:
        self.result.launches += 1
        self.result.by_name[why] += 1
        self._moves([array], [array])

    # --------------------------------------------------------------------------------------------- elementwise

    def _elementwise(self) -> None:
        """Operations that run as one: what comes in from outside is read, what is used outside is written."""
        nodes = self._graph.nodes
        groups: dict[int, list[Node]] = {}
        for index, group in self._groups.items():
            groups.setdefault(group, []).append(nodes[index])
        used: dict[str, set[int]] = {}
        for index, node in enumerate(nodes):
            for array in node.inputs:
                used.setdefault(array.name, set()).add(self._groups.get(index, -1 - index))
        kept = {array.name for array in self._graph.outputs}
        for group, members in groups.items():
            self.result.launches += 1
            self.result.by_name[members[0].name if len(members) == 1 else "compiled"] += 1
            made = {array.name for node in members for array in node.outputs}
            read = {array.name: array for node in members for array in node.inputs if array.name not in made}
            for array in read.values():
                self._reads(array, self._bytes(array))
            for array in (array for node in members for array in node.outputs):
                if array.name in kept or used.get(array.name, set()) - {group}:
                    self.result.written += _size(array)

    # --------------------------------------------------------------------------------------------- memory

    def _moves(self, read: Sequence[Array], written: Sequence[Array]) -> None:
        for array in read:
            self._reads(array, _size(array))
        self.result.written += sum(_size(array) for array in written)

    def _reads(self, array: Array, size: int, moved: bool = True) -> None:
        origin = self._origin_of(array)
        self._most_read[origin] = max(self._most_read[origin], size)
        if moved:
            self.result.read += size

    def _origin_of(self, array: Array) -> str:
        return self._origin.get(array.name, array.name)

    def _strides_of(self, array: Array) -> Shape:
        return self._strides.get(array.name) or plain_strides(array.shape)

    def _same_memory(self, source: Array, target: Array, strides: Shape | None = None) -> None:
        self._origin[target.name] = self._origin_of(source)
        self._strides[target.name] = self._strides_of(source) if strides is None else strides

    def _bytes(self, array: Array) -> int:
        """Bytes that reading all of it touches: a broadcast value is read once."""
        strides = self._strides_of(array)
        return array.itemsize * math.prod(n for n, stride in zip(array.shape, strides) if stride or n == 1)

    def _view(self, node: Node) -> None:
        source, old = node.inputs[0], self._strides_of(node.inputs[0])
        for target in node.outputs:
            new: Shape | None
            if node.name == "Transpose":
                new = tuple(old[axis] for axis in node.arguments[0])
            elif node.name == "Slice":
                new = tuple(stride * step for stride, step in zip(old, node.arguments[2]))
            elif node.name.startswith("Broadcast"):
                padded = (0,) * (len(target.shape) - len(old)) + old
                before = (1,) * (len(target.shape) - len(old)) + source.shape
                new = tuple(0 if n != m else s for n, m, s in zip(before, target.shape, padded))
            elif node.name == "Split":
                new = old
            elif node.name in ("View", "AsStrided"):
                new = plain_strides(target.shape)
            else:
                new = reshaped(source.shape, old, target.shape)
                if new is None:
                    self._copied(source, f"copy for {node.name}")
                    continue
            self._same_memory(source, target, new)


def _is_border(node: Node) -> bool:
    return node.name.startswith(("compiled begin ", "compiled end "))


def _fused(nodes: Sequence[Node]) -> dict[int, int]:
    """For every elementwise operation, by its place, the group it runs with.

    Inside mx.compile, operations that hand values to one another are one kernel. What is inside is found backwards
    from where a compiled function ends to where it began.
    """
    made_by = {array.name: index for index, node in enumerate(nodes) for array in node.outputs}
    groups = {i: i for i, node in enumerate(nodes) if (rule(node.name) or ("", ""))[0] == "elementwise"}

    def find(index: int) -> int:
        while groups[index] != index:
            index = groups[index]
        return index

    for index, node in enumerate(nodes):
        if not node.name.startswith("compiled end "):
            continue
        begin = node.name.replace("end", "begin")
        inside: set[int] = set()
        waiting = [index]
        while waiting:
            for array in nodes[waiting.pop()].inputs:
                source = made_by.get(array.name)
                if source is not None and source not in inside and nodes[source].name != begin:
                    inside.add(source)
                    waiting.append(source)
        for member in inside & groups.keys():
            for array in nodes[member].inputs:
                source = made_by.get(array.name)
                while source is not None and nodes[source].name.startswith("Broadcast"):
                    source = made_by.get(nodes[source].inputs[0].name)
                if source in inside and source in groups:
                    groups[find(member)] = find(source)
    return {index: find(index) for index in groups}


def _elements(shape: Shape) -> int:
    return math.prod(shape)


def _size(array: Array) -> int:
    return _elements(array.shape) * array.itemsize


def plain_strides(shape: Shape) -> Shape:
    """Strides, in elements, of an array in row order without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _plain(shape: Shape, strides: Shape) -> bool:
    """Whether an array lies in row order without gaps; where a dimension has one element, its stride says nothing."""
    wanted = plain_strides(shape)
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, wanted))


def reshaped(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides of the same memory in another shape, or None where that needs a copy."""
    if math.prod(shape) == 0:
        return plain_strides(new)
    runs: list[list[int]] = []  # [elements, stride of the last dimension] of parts that lie without gaps
    for size, stride in zip(shape, strides):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = [runs[-1][0] * size, stride]
        else:
            runs.append([size, stride])
    result, left = [], 1  # backwards
    step = 0
    for size in reversed(new):
        if size == 1:
            result.append(step * left if left else 0)
            continue
        if left == 1:
            left, step = runs.pop()
        if left % size:
            return None
        result.append(step)
        step *= size
        left //= size
    return tuple(reversed(result))
