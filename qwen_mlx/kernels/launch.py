"""Metal sources on their way to the GPU: the one place where kernels are built.

On Apple GPUs a `Program` is built by `mx.fast.metal_kernel`, on NVIDIA GPUs from the same text by `cuda.metal_kernel`.
On a CPU nothing can be built, unless somebody brings a builder of their own (`building_with`), as the tests do with
their simulator.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from qwen_mlx import device

Builder = Callable[..., Callable[..., list[mx.array]]]
"""Takes the constructor arguments of `mx.fast.metal_kernel`, returns what that returns."""

_own_builder: Builder | None = None
_bare = False
_gradients = True


class Program:
    """One Metal kernel: the body in `<name>.metal` of a folder, and what stands before it in `header`.

    Args:
        folder: where the sources are; `Path(__file__).parent` of the kernel's module.
        name: of the kernel and its file.
        inputs, outputs: names of the buffers, in the order in which `__call__` gets them.
        header: file name of helper functions shared by several programs, None for none.
        contiguous: whether inputs that are not row-contiguous are copied first; if not, the source goes by strides.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        header: str | None = None,
        contiguous: bool = True,
    ) -> None:
        self.name, self.contiguous = name, contiguous
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._source, self._header = folder / f"{name}.metal", folder / header if header else None
        self._built: tuple[Builder, Callable[..., list[mx.array]]] | None = None

    @functools.cached_property
    def source(self) -> str:
        """The body, as it goes to the compiler."""
        return self._source.read_text(encoding="utf-8")

    @functools.cached_property
    def header(self) -> str:
        """What the compiler sees before the signature."""
        return self._header.read_text(encoding="utf-8") if self._header else ""

    @property
    def digest(self) -> str:
        """Changes when the text does."""
        return hashlib.sha256(f"{self.header}\0{self.source}".encode()).hexdigest()[:16]

    def __call__(
        self,
        inputs: Sequence[Any],
        *,
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, Any]] = (),
    ) -> list[mx.array]:
        """Launch over `grid` threads; numbers among `inputs` become scalars. Lazy like everything in MLX.

        Raises:
            RuntimeError: there is no builder on this machine.
        """
        build = builder()
        if build is None:
            raise RuntimeError(f"{self.name}: no GPU to build a kernel for")
        if self._built is None or self._built[0] is not build:
            kernel = build(
                name=self.name,
                input_names=list(self.inputs),
                output_names=list(self.outputs),
                source=self.source,
                header=self.header,
                ensure_row_contiguous=self.contiguous,
            )
            self._built = build, kernel
        return self._built[1](
            inputs=[x if isinstance(x, mx.array) else scalar(x) for x in inputs],
            template=list(template),
            grid=grid,
            threadgroup=threadgroup,
            output_shapes=[tuple(shape) for shape in output_shapes],
            output_dtypes=list(output_dtypes),
        )


@functools.lru_cache(maxsize=4096, typed=True)  # typed: 1, 1.0 and True are different scalars
def scalar(value: int | float | bool) -> mx.array:
    """A number as a 0-d array (int32, float32 or bool), made once: MLX would make one for every launch."""
    kind = mx.bool_ if isinstance(value, bool) else mx.int32 if isinstance(value, int) else mx.float32
    array = mx.array(value, dtype=kind)
    mx.eval(array)  # so that any thread may use it
    return array


def builder() -> Builder | None:
    """What builds kernels here; None where only references can run."""
    if _own_builder is not None:
        return _own_builder
    backend = device.backend()
    if backend == "metal":
        return cast(Builder, mx.fast.metal_kernel)
    if backend == "cuda":
        from qwen_mlx.kernels import cuda

        return cuda.metal_kernel
    return None


def bare() -> bool:
    """Whether kernels are launched without a self-test and a gradient."""
    return _bare


def gradients() -> bool:
    """Whether kernels have the gradient of their reference now."""
    return _gradients


@contextlib.contextmanager
def no_gradients() -> Iterator[None]:
    """For decoding: kernels called in this block have no gradient, which takes a third of the time to call them.

    MLX complains when a gradient is asked for after all.
    """
    global _gradients
    before, _gradients = _gradients, False
    try:
        yield
    finally:
        _gradients = before


@contextlib.contextmanager
def building_with(build: Builder, bare: bool = False) -> Iterator[None]:
    """Build kernels with `build` in this block, whatever the machine; it must stay the same object all the time.

    Args:
        bare: kernels are launched without a self-test and have no gradient, for a builder that computes nothing.
    """
    global _own_builder, _bare
    before, (_own_builder, _bare) = (_own_builder, _bare), (build, bare)
    try:
        yield
    finally:
        _own_builder, _bare = before
