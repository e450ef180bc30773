"""The text that `mx.fast.metal_kernel` of MLX 0.32 compiles: the caller's source inside a generated function.

`test_signature.py` compares it with what MLX itself prints, byte for byte. The rules that surprise: an input of fewer
than 8 elements lies in `constant` memory, and a 0-d one is a reference; `<input>_shape`, `_strides` and `_ndim`, and
the attributes of Metal, are declared only if their names occur in `source` (not in `header`), be it in a comment. With
several outputs, no attribute, and a shape, strides or ndim, the text is no valid Metal: it is not made better here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ATTRIBUTES = {
    "dispatch_quadgroups_per_threadgroup": "uint",
    "dispatch_simdgroups_per_threadgroup": "uint",
    "dispatch_threads_per_threadgroup": "uint3",
    "grid_origin": "uint3",
    "grid_size": "uint3",
    "quadgroup_index_in_threadgroup": "uint",
    "quadgroups_per_threadgroup": "uint",
    "simdgroup_index_in_threadgroup": "uint",
    "simdgroups_per_threadgroup": "uint",
    "thread_execution_width": "uint",
    "thread_index_in_quadgroup": "uint",
    "thread_index_in_simdgroup": "uint",
    "thread_index_in_threadgroup": "uint",
    "thread_position_in_grid": "uint3",
    "thread_position_in_threadgroup": "uint3",
    "threadgroup_position_in_grid": "uint3",
    "threadgroups_per_grid": "uint3",
    "threads_per_grid": "uint3",
    "threads_per_simdgroup": "uint",
    "threads_per_threadgroup": "uint3",
}
CONSTANT_BELOW = 8  # elements

Content = Literal["input", "shape", "strides", "ndim", "output"]


@dataclass(frozen=True)
class Input:
    """What of an input array decides its declaration; `type` is its name in Metal."""

    name: str
    type: str
    ndim: int
    size: int


@dataclass(frozen=True)
class Output:
    name: str
    type: str


@dataclass(frozen=True)
class TemplateArgument:
    """`kind` is int, bool or typename; `value` as it is written in the text."""

    name: str
    kind: str
    value: str


@dataclass(frozen=True)
class Parameter:
    """One buffer of the function: its C type and name, and what of the `index`-th input or output it holds."""

    type: str
    name: str
    content: Content
    index: int


@dataclass(frozen=True)
class Signature:
    """The generated function.

    Attributes:
        name: of the function; differs for every combination of template values and types.
        text: all that MLX compiles after its own utilities: header, function, instantiation.
        definition: `text` without the instantiation of the template.
        instance: the function with its template arguments, to be called.
        parameters: its buffers, in order.
        attributes: names of the attributes that follow them.
        header_lines: how many lines of `text` stand before the function.
        source_line: line of `text` on which the caller's source begins, counted from 1.
    """

    name: str
    text: str
    definition: str
    instance: str
    parameters: tuple[Parameter, ...]
    attributes: tuple[str, ...]
    header_lines: int
    source_line: int


def generate(
    name: str,
    header: str,
    source: str,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    template: Sequence[TemplateArgument] = (),
    atomic_outputs: bool = False,
) -> Signature:
    """The function that MLX generates around `source`."""
    function = _function_name(name, inputs, outputs, template)
    parameters = _parameters(source, inputs, outputs, atomic_outputs)
    attributes = tuple(attribute for attribute in ATTRIBUTES if attribute in source)
    declared = [f"  {p.type} {p.name} [[buffer({i})]]" for i, p in enumerate(parameters)]
    declared += [f"  {ATTRIBUTES[attribute]} {attribute} [[{attribute}]]" for attribute in attributes]
    separators = [",\n"] * (len(declared) - 1) + [") {\n"]
    if not attributes:  # MLX takes an output for the last one by counting buffers, shapes and strides among them
        last = len(inputs) + len(outputs) - 1
        for i, parameter in enumerate(parameters):
            if parameter.content == "output" and i >= last:
                separators[i] = ") {\n"
    before = header
    if template:
        before += "template <" + ", ".join(f"{a.kind} {a.name}" for a in template) + ">\n"
    before += f"[[kernel]] void {function}(\n" + "".join(a + b for a, b in zip(declared, separators))
    definition = before + source + "\n}\n"
    instance, instantiation = function, ""
    if template:
        instance += "<" + ", ".join(a.value for a in template) + ">"
        instantiation = f'\ntemplate [[host_name("{function}")]] [[kernel]] decltype({instance}) {instance};\n'
    return Signature(
        name=function,
        text=definition + instantiation,
        definition=definition,
        instance=instance,
        parameters=tuple(parameters),
        attributes=attributes,
        header_lines=header.count("\n"),
        source_line=before.count("\n") + 1,
    )


def _function_name(
    name: str, inputs: Sequence[Input], outputs: Sequence[Output], template: Sequence[TemplateArgument]
) -> str:
    parts = ["custom_kernel", name]
    if template:
        parts.append("_" + "_".join(a.value.replace("-", "_") for a in template))
    for array in inputs:
        parts.append(array.type + ("s" if array.ndim == 0 else "c" if array.size < CONSTANT_BELOW else ""))
    return "_".join(parts + [array.type for array in outputs])


def _parameters(
    source: str, inputs: Sequence[Input], outputs: Sequence[Output], atomic_outputs: bool
) -> list[Parameter]:
    found: list[Parameter] = []
    for i, array in enumerate(inputs):
        space = "constant" if array.size < CONSTANT_BELOW else "device"
        mark = "&" if array.ndim == 0 else "*"
        found.append(Parameter(f"const {space} {array.type}{mark}", array.name, "input", i))
        about: tuple[tuple[str, Content], ...] = (
            ("const constant int*", "shape"),
            ("const constant int64_t*", "strides"),
            ("const constant int&", "ndim"),
        )
        for ctype, content in about if array.ndim else ():
            if f"{array.name}_{content}" in source:
                found.append(Parameter(ctype, f"{array.name}_{content}", content, i))
    for i, out in enumerate(outputs):
        ctype = f"atomic<{out.type}>" if atomic_outputs else out.type
        found.append(Parameter(f"device {ctype}*", out.name, "output", i))
    return found
