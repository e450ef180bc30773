"""Graphs small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.evaluation.launch_rules import RULES, Array, Graph, Node, cost, plain_strides, reshaped, rule


class Builder:
    """Makes graphs: `call` adds an operation and returns its result."""

    def __init__(self):
        self.nodes, self.roots = [], set()

    def root(self, *shape, itemsize=2):
        self.roots.add(f"root{len(self.roots)}")
        return Array(f"root{len(self.roots) - 1}", shape, itemsize)

    def call(self, name, inputs, shape, *arguments, itemsize=2, outputs=1):
        arrays = tuple(Array(f"{len(self.nodes)}.{i}", tuple(shape), itemsize) for i in range(outputs))
        self.nodes.append(Node(name, tuple(inputs), arrays, arguments))
        return arrays[0]

    def cost(self, *results):
        return cost(Graph(tuple(self.nodes), results, frozenset(self.roots)))


def test_a_matrix_product_reads_its_weights_once():
    b = Builder()
    x, w = Array("x", (1, 1, 64), 2), b.root(128, 64)
    c = b.cost(b.call("Matmul", [x, w], (1, 1, 128)))
    assert (c.launches, c.read, c.written, c.least) == (1, 2 * 64 + 2 * 128 * 64, 2 * 128, 2 * 128 * 64)


def test_views_cost_nothing_and_their_memory_is_that_of_their_input():
    b = Builder()
    w = b.root(8, 4, 16)
    half = b.call("Slice", [w], (8, 4, 8), (0, 0, 0), (8, 4, 8), (1, 1, 1))
    flipped = b.call("Transpose", [half], (4, 8, 8), (1, 0, 2))
    c = b.cost(b.call("Reduce", [flipped], (4, 8, 1)))
    assert c.launches == 1
    assert c.least == c.read == 2 * 8 * 4 * 8


@pytest.mark.parametrize(("shape", "launches"), [((1, 1, 32), 0), ((1, 5, 32), 1)])
def test_a_reshape_copies_where_strides_do_not_allow_it(shape, launches):
    """(batch, heads, length, size) -> (batch, length, heads * size): free for one token."""
    b = Builder()
    x = Array("x", (1, 4, shape[1], 8), 2)
    turned = b.call("Transpose", [x], (1, shape[1], 4, 8), (0, 2, 1, 3))
    c = b.cost(b.call("Reshape", [turned], shape))
    assert c.launches == launches
    assert sum(c.by_name.values()) == launches


def test_a_kernel_copies_inputs_that_are_not_in_plain_order():
    b = Builder()
    x = Array("x", (1, 1, 4, 16), 2)
    query = b.call("Slice", [x], (1, 1, 4, 8), (0, 0, 0, 0), (1, 1, 4, 8), (1, 1, 1, 1))
    c = b.cost(b.call("kernel rotate", [query], (1, 1, 4, 8)))
    assert c.by_name == {"copy for kernel rotate": 1, "kernel rotate": 1}


def test_elementwise_operations_are_one_launch_each_but_together_inside_compile():
    def chain(compiled):
        b = Builder()
        x = Array("x", (4, 8), 2)
        y = b.call("compiled begin 0", [x], (4, 8)) if compiled else x
        z = b.call("Multiply", [y, b.call("Sigmoid", [y], (4, 8))], (4, 8))
        return b.cost(b.call("compiled end 0", [z], (4, 8)) if compiled else z)

    alone, together = chain(False), chain(True)
    assert (alone.launches, together.launches) == (2, 1)
    assert alone.moved == 2 * 32 * (1 + 1 + 2 + 1)
    assert together.moved == 2 * 32 * 2


def test_a_reduction_parts_a_compiled_function():
    b = Builder()
    x = b.call("compiled begin 3", [Array("x", (4, 8), 2)], (4, 8))
    e = b.call("Exp", [x], (4, 8))
    total = b.call("Broadcast", [b.call("Reduce", [e], (4, 1))], (4, 8), (4, 8))
    z = b.call("Divide", [e, total], (4, 8))
    c = b.cost(b.call("compiled end 3", [z], (4, 8)))
    assert c.by_name == {"Reduce": 1, "compiled": 1}


def test_writing_into_a_cache_moves_the_new_part_only():
    b = Builder()
    cache, row = b.root(1, 2, 100, 8), Array("row", (1, 2, 1, 8), 2)
    after = b.call("SliceUpdate", [cache, row], (1, 2, 100, 8))
    seen = b.call("Slice", [after], (1, 2, 60, 8), (0, 0, 0, 0), (1, 2, 60, 8), (1, 1, 1, 1))
    q = Array("q", (1, 4, 1, 8), 2)
    c = b.cost(b.call("ScaledDotProductAttention", [q, seen, seen], (1, 4, 1, 8)), after)
    assert c.launches == 2
    assert c.written == 2 * 16 + 2 * 32
    assert c.least == 2 * 2 * 60 * 8


def test_of_experts_only_those_chosen_are_read():
    b = Builder()
    w, scales = b.root(16, 32, 8, itemsize=4), b.root(16, 32, 1)
    chosen = Array("chosen", (1, 4), 4)
    lhs = b.call("Arange", [], (1, 4), itemsize=4)
    c = b.cost(b.call("GatherQMM", [Array("x", (1, 1, 1, 64), 2), w, scales, lhs, chosen], (1, 4, 1, 32)))
    assert (c.launches, c.independent) == (1, 1)
    assert c.least == (16 * 32 * 8 * 4 + 16 * 32 * 2) // 4


def test_a_table_is_read_by_rows_or_as_a_whole():
    b = Builder()
    table = b.root(1000, 8)
    row = b.call("Gather", [table, Array("ids", (1, 1), 4)], (1, 1, 8))
    assert b.cost(row).least == 2 * 8
    head = b.call("Matmul", [row, b.call("Transpose", [table], (8, 1000), (1, 0))], (1, 1, 1000))
    assert b.cost(head).least == 2 * 8 * 1000


@pytest.mark.parametrize(("size", "launches"), [(128, 1), (2048, 1), (2049, 4), (151_936, 16)])
def test_long_sorts_are_merged(size, launches):
    b = Builder()
    assert b.cost(b.call("ArgSort", [Array("x", (1, size), 4)], (1, size), -1)).launches == launches


def test_what_nobody_looked_up_is_one_launch_and_named():
    b = Builder()
    c = b.cost(b.call("Novel", [Array("x", (4,), 4)], (4,)))
    assert (c.launches, c.unlisted) == (1, {"Novel"})


def test_every_rule_has_a_reason():
    assert all(reason for _, reason in RULES.values())
    assert rule("kernel anything") == ("launch", "one kernel, brought along")
    assert rule("Novel") is None


@st.composite
def views(draw):
    """A numpy view and a shape with as many elements."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    array = np.zeros([n * draw(st.integers(1, 2)) for n in shape], dtype=np.int8)
    array = array[tuple(slice(0, n) for n in shape)].transpose(draw(st.permutations(range(len(shape)))))
    sizes, rest = [], array.size
    while rest > 1:
        sizes.append(draw(st.sampled_from([n for n in range(2, rest + 1) if rest % n == 0])))
        rest //= sizes[-1]
    for _ in range(draw(st.integers(0, 2))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return array, tuple(sizes)


@settings(max_examples=150, deadline=None)
@given(views())
def test_reshaped_copies_exactly_when_numpy_does(view):
    array, shape = view
    copied = not np.shares_memory(array, array.reshape(shape))
    strides = reshaped(array.shape, array.strides, shape)
    assert (strides is None) == copied
    if strides is not None:
        wanted = [s for s, n in zip(array.reshape(shape).strides, shape) if n > 1]
        assert [s for s, n in zip(strides, shape) if n > 1] == wanted


def test_plain_strides():
    assert plain_strides((2, 3, 4)) == (12, 4, 1)
    assert plain_strides(()) == ()
