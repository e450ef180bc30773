"""`metal_kernel`: called as `mx.fast.metal_kernel` is, runs on the CPU and says what is wrong."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metalsim import arrays, signature
from tests.metalsim.build import Unit, build, in_lines_of
from tests.metalsim.entry import entry
from tests.metalsim.errors import CompileError, KernelError
from tests.metalsim.launch import SCHEDULES, Buffer, Library, Order, Schedule, Statistics
from tests.metalsim.lint import lint

MOST_THREADS = 1024  # of a threadgroup
_mlx_metal_kernel = mx.fast.metal_kernel  # kept, as a test may put the simulator in its place
_PROLOGUE = '#include <metal_stdlib>\n#include "mlx/backend/metal/kernels/utils.h"\n'


class metal_kernel:  # noqa: N801 - named for the function it stands for
    """A Metal kernel that runs on the CPU.

    The first eight arguments are those of `mx.fast.metal_kernel`.

    Args:
        checked: watch every memory access. Without, a kernel takes about half of the time, and one that writes out of
            bounds may bring Python down.
        include: folders for `#include` in `header`.
        constants: values of function constants, by name or index, for kernels that were not written for
            `mx.fast.metal_kernel`.

    Raises:
        CompileError: the text has what Metal forbids; compiling, and more of these, comes with the first call.
        ValueError: as `mx.fast.metal_kernel`.
    """

    def __init__(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        compile_options: Mapping[str, str] | None = None,
        *,
        checked: bool = True,
        include: Sequence[Path | str] = (),
        constants: Mapping[str | int, object] | None = None,
    ) -> None:
        # MLX builds a kernel on any machine, and knows best which arguments it takes.
        self._real: Any = _mlx_metal_kernel(
            name, input_names, output_names, source, header, ensure_row_contiguous, atomic_outputs, compile_options
        )
        self.name, self.source, self.header = name, source, header
        self.input_names, self.output_names = tuple(input_names), tuple(output_names)
        self.contiguous, self.atomic = ensure_row_contiguous, atomic_outputs
        self.checked = checked
        self.include = (*(Path(folder) for folder in include), _mlx_include())
        self.constants = dict(constants or {})
        self.statistics = Statistics()
        self._libraries: dict[str, Library] = {}
        if problems := lint(header, source):
            raise CompileError(f"kernel {name}:\n" + "\n".join(f"  {problem}" for problem in problems))

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, Any]] | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
        schedule: Schedule = "forward",
        seed: int = 0,
        threads: int = 1,
        allow_unwritten: bool = False,
        allow_duplicate_writes: bool = False,
    ) -> list[mx.array]:
        """Run the kernel, now: nothing is lazy here, and inputs are evaluated.

        The arguments up to `stream`, which is ignored, are those of a call of `mx.fast.metal_kernel`.

        Args:
            schedule: order in which threads run, each until it must wait: "forward", "reverse", "random" (anew after
                every barrier, from `seed`), or "greedy" (one SIMD-group as far as it gets).
            threads: of the CPU, for a kernel that is not `checked`.
            allow_unwritten: that outputs are not written completely is no error.
            allow_duplicate_writes: that several threads write the same element of an output is no error.

        Raises:
            CompileError: the Metal compiler would refuse the kernel.
            KernelError: the checks found something.
            ValueError: as MLX, or an impossible grid or threadgroup.
        """
        self._let_mlx_check(
            inputs=list(inputs), output_shapes=output_shapes, output_dtypes=output_dtypes, grid=grid,
            threadgroup=threadgroup, template=template, init_value=init_value,
        )  # fmt: skip
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule {schedule!r} is none of {', '.join(SCHEDULES)}")
        if threads < 1 or (threads > 1 and self.checked):
            raise ValueError("several threads run only a kernel that is not checked")
        group = _threads_per_group(grid, threadgroup)
        operands = [arrays.operand(value, self.contiguous) for value in inputs]
        made = self._signature(operands, output_dtypes, template or ())
        if verbose:
            print(f"Generated source code for `{self.name}`:\n```\n{made.text}\n```")
        library = self._library(made)
        outputs = [
            arrays.empty(shape, dtype) if init_value is None else arrays.full(shape, init_value, dtype)
            for shape, dtype in zip(output_shapes, output_dtypes)
        ]
        written = functools.partial(
            Buffer,
            writable=True,
            initialised=init_value is not None,
            may_stay_unwritten=allow_unwritten,
            may_be_written_twice=allow_duplicate_writes,
        )
        buffers = [
            written(p.name, outputs[p.index])
            if p.content == "output"
            else Buffer(p.name, _about(operands[p.index], p.content))
            for p in made.parameters
        ]
        findings, self.statistics = library.run(grid, group, buffers, Order(schedule, seed, threads))
        if findings:
            raise KernelError(self.name, findings)
        return [arrays.result(array, dtype) for array, dtype in zip(outputs, output_dtypes)]

    def generate(
        self,
        inputs: Sequence[Any],
        output_dtypes: Sequence[mx.Dtype],
        template: Sequence[tuple[str, Any]] | None = None,
    ) -> signature.Signature:
        """The function that MLX would compile for a call with such arguments."""
        operands = [arrays.operand(value, self.contiguous) for value in inputs]
        return self._signature(operands, output_dtypes, template or ())

    def _let_mlx_check(self, **arguments: Any) -> None:
        """Call the real kernel, which complains of wrong arguments before it notices that there is no Metal.

        Where there is Metal, it returns lazy arrays, which are dropped.
        """
        try:
            self._real(**arguments)
        except RuntimeError as error:
            if "No Metal back-end" not in str(error):
                raise

    def _signature(
        self, operands: Sequence[arrays.Operand], dtypes: Sequence[mx.Dtype], template: Sequence[tuple[str, Any]]
    ) -> signature.Signature:
        return signature.generate(
            self.name,
            self.header,
            self.source,
            [signature.Input(n, x.type, x.array.ndim, x.array.size) for n, x in zip(self.input_names, operands)],
            [signature.Output(n, arrays.metal_type(d)) for n, d in zip(self.output_names, dtypes)],
            [_template_argument(name, value) for name, value in template],
            self.atomic,
        )

    def _library(self, made: signature.Signature) -> Library:
        if made.name not in self._libraries:
            file = f"{self.name}.metal"
            text = f'{_PROLOGUE}#line 1 "{file}"\n{made.definition}'
            describe = functools.partial(self._describe, made, file)
            unit = Unit(self.name, text, entry(made), self.include, self.checked, self.constants)
            try:
                path = build(unit)
            except CompileError as error:
                message = in_lines_of(str(error), file, functools.partial(describe, file))
                lines = "\n".join(f"  {line}" for line in message.splitlines())
                raise CompileError(f"kernel {self.name}:\n{lines}") from None
            self._libraries[made.name] = Library(path, self.checked, describe)
        return self._libraries[made.name]

    def _describe(self, made: signature.Signature, own_file: str, file: str, line: int) -> str:
        """A place in the compiled text, as a person finds it in `header` or `source`."""
        if file.rsplit("/", 1)[-1] != own_file:
            return f"{file} line {line}"
        if line >= made.source_line:
            part, number, lines = "source", line - made.source_line + 1, self.source.split("\n")
        elif line <= made.header_lines:
            part, number, lines = "header", line, self.header.split("\n")
        else:
            return f"generated signature, line {line - made.header_lines}"
        text = lines[number - 1].strip() if number <= len(lines) else ""
        return f"{part} line {number}" + (f" `{text}`" if text else "")


def _template_argument(name: str, value: Any) -> signature.TemplateArgument:
    if isinstance(value, bool):
        return signature.TemplateArgument(name, "bool", str(int(value)))
    if isinstance(value, int):
        return signature.TemplateArgument(name, "int", str(value))
    return signature.TemplateArgument(name, "typename", arrays.metal_type(value))


def _about(operand: arrays.Operand, content: signature.Content) -> np.ndarray:
    """An input's memory, or its shape, strides or number of axes as the kernel gets them."""
    if content == "shape":
        return np.array(operand.array.shape, np.int32)
    if content == "strides":
        return np.array(operand.strides, np.int64)
    if content == "ndim":
        return np.array(operand.array.ndim, np.int32)
    return operand.memory()


def _threads_per_group(grid: Sequence[int], threadgroup: Sequence[int]) -> tuple[int, ...]:
    """A threadgroup as MLX launches it, no larger than the grid along any axis."""
    if min(grid) < 1 or min(threadgroup) < 1:
        raise ValueError(f"an empty grid or threadgroup: {tuple(grid)}, {tuple(threadgroup)}")
    group = tuple(min(size, threads) for size, threads in zip(threadgroup, grid))
    if math.prod(group) > MOST_THREADS:
        raise ValueError(f"a threadgroup of {math.prod(group)} threads, of {MOST_THREADS} that there may be")
    return group


@functools.lru_cache(maxsize=1)
def _mlx_include() -> Path:
    """The folder of MLX's own headers, which come with its wheel on every platform."""
    spec = importlib.util.find_spec("mlx")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / "include/mlx/backend/metal/kernels/utils.h").exists():
            return Path(folder) / "include"
    raise FileNotFoundError("the installed mlx has no include/mlx/backend/metal/kernels/utils.h")
