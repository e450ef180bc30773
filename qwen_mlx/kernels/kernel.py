"""What a kernel is, and when it runs: the choice between Metal source and pure-MLX reference.

A kernel runs when there is a GPU, nobody turned it off (`QWEN_MLX_KERNELS`), its arguments are of a kind it was written
for (`eligible`), and it has proved itself on this device: the first time a configuration comes up, kernel and reference
compute an example, and if they differ, or the kernel cannot be compiled, the reference is used from then on and the log
says so once. What was proved is remembered on disk for this device, MLX and source text.

A kernel has the gradient of its reference, but in `launch.no_gradients`.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx

from qwen_mlx import device, paths
from qwen_mlx.errors import UsageError
from qwen_mlx.kernels import launch
from qwen_mlx.kernels.launch import Program

log = logging.getLogger("qwen_mlx.kernels")

Arrays = tuple[mx.array, ...]
Compute = Callable[..., Arrays]
"""Arrays as positional arguments, everything else as keywords; returns a tuple of arrays."""

DTYPE_NAMES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}  # str() is slow
TOLERANCE = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 3e-2}  # of the self-test; integers must be equal
_kernels: dict[str, Kernel] = {}


@dataclass(eq=False)
class Kernel:
    """One kernel and its reference; calling it computes with the one that may run.

    Attributes:
        name: of its folder, and in `QWEN_MLX_KERNELS`.
        equals: the MLX expression it computes, for people.
        programs: the Metal sources it launches.
        run: launches the programs. Arguments and results as `reference`.
        reference: the same in plain MLX, accumulated in float32; also what runs on a CPU and in training.
        eligible: whether `run` was written for arguments of these shapes and types.
        configuration: what of the arguments decides which code is compiled; proved apart from any other.
        example: small arguments (arrays, options) of a configuration.
        launches: how many launches a call makes.
        compared: takes what `run` and `reference` gave for the example, and its options; returns what the self-test
            compares of them, where that is not all of it.
        experimental: off unless named.
    """

    name: str
    equals: str
    programs: Sequence[Program]
    run: Compute
    reference: Compute
    eligible: Callable[..., bool]
    configuration: Callable[..., tuple[Hashable, ...]]
    example: Callable[..., tuple[Arrays, dict[str, Any]]]
    launches: int = 1
    compared: Callable[[Arrays, Arrays, dict[str, Any]], tuple[Arrays, Arrays]] | None = None
    experimental: bool = False
    _proved: dict[Any, bool] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _kernels[self.name] = self
        # Options come again in every layer, so what is made for them is kept; it costs more than the launch.
        self._differentiable = functools.lru_cache(maxsize=64)(self._with_gradient)

    def __call__(self, *arrays: mx.array, **options: Any) -> Arrays:
        """Compute with the kernel where it may run, else with the reference."""
        if self.runs(*arrays, **options):
            if launch.bare() or not launch.gradients():
                return self.run(*arrays, **options)
            return self._differentiable(tuple(options.items()))(*arrays)
        return self.reference(*arrays, **options)

    def runs(self, *arrays: mx.array, **options: Any) -> bool:
        """Whether a call with these arguments would launch the kernel."""
        return (
            launch.builder() is not None
            and self.wanted
            and self.eligible(*arrays, **options)
            and self._is_proved(self.configuration(*arrays, **options))
        )

    @property
    def wanted(self) -> bool:
        """Whether the person at the machine lets it run."""
        names = _wanted_names(os.environ.get("QWEN_MLX_KERNELS", ""))
        return not self.experimental if names is None else self.name in names

    @property
    def digest(self) -> str:
        """Changes when one of the sources does."""
        return "-".join(program.digest for program in self.programs)

    def _with_gradient(self, items: tuple[tuple[str, Any], ...]) -> Compute:
        """`run`, which MLX cannot differentiate, with the derivative of `reference`."""
        run, reference, options = self.run, self.reference, dict(items)

        compute: Any = mx.custom_function(lambda *arrays: run(*arrays, **options))

        def vjp(primals: Any, cotangents: Any, _outputs: Any) -> Any:
            primals = primals if isinstance(primals, (tuple, list)) else (primals,)
            cotangents = cotangents if isinstance(cotangents, (tuple, list)) else (cotangents,)
            return _gradients(lambda *xs: reference(*xs, **options), primals, cotangents)

        compute.vjp(vjp)
        return cast(Compute, compute)

    # ------------------------------------------------------------------------------------------------ self-test

    def _is_proved(self, configuration: tuple[Hashable, ...]) -> bool:
        if launch.bare():
            return True
        key = launch.builder(), configuration
        if key not in self._proved:
            record = _Record.of_this_device()
            name = f"{self.name} {self.digest} {configuration}"
            if record is not None and name in record.proved:
                self._proved[key] = True
            else:
                self._proved[key] = self._prove(configuration)
                if self._proved[key] and record is not None:
                    record.add(name)
        return self._proved[key]

    def _prove(self, configuration: tuple[Hashable, ...]) -> bool:
        """Run the example of a configuration both ways."""
        try:
            arrays, options = self.example(configuration)
            results = self.run(*arrays, **options), self.reference(*arrays, **options)
            if self.compared is not None:
                results = self.compared(*results, options)
            self._compare(*results)
        except Exception as error:  # whatever a compiler or driver may say
            text = str(error).strip().splitlines() or [repr(error)]
            # Compilers say much; the first line is only that there is an error.
            said = next((line.strip() for line in text if "error:" in line), text[0])
            log.warning("%s %s: using plain MLX instead: %s", self.name, configuration, said)
            return False
        return True

    def _compare(self, got: Arrays, expected: Arrays) -> None:
        if len(got) != len(expected):
            raise ValueError(f"{len(got)} results instead of {len(expected)}")
        for index, (a, b) in enumerate(zip(got, expected)):
            if a.shape != b.shape or a.dtype != b.dtype:
                raise ValueError(f"result {index} is {a.dtype} {a.shape} instead of {b.dtype} {b.shape}")
            error = difference(a, b)
            if not error <= TOLERANCE.get(b.dtype, 0.0):
                raise ValueError(f"result {index} differs by {error:.2g}")


def _gradients(compute: Compute, primals: Sequence[mx.array], cotangents: Sequence[mx.array]) -> Any:
    """Of the floating point results with respect to the floating point arguments; zero for all others."""
    places = [i for i, x in enumerate(primals) if mx.issubdtype(x.dtype, mx.floating)]
    kept = [i for i, x in enumerate(cotangents) if mx.issubdtype(x.dtype, mx.floating)]

    def of_floats(*floats: mx.array) -> list[mx.array]:
        arguments = list(primals)
        for place, x in zip(places, floats):
            arguments[place] = x
        results = compute(*arguments)
        return [results[i] for i in kept]

    found = mx.vjp(of_floats, [primals[i] for i in places], [cotangents[i] for i in kept])[1]
    gradients = [mx.zeros_like(x) for x in primals]
    for place, gradient in zip(places, found):
        gradients[place] = gradient
    return tuple(gradients) if len(gradients) > 1 else gradients[0]


def difference(a: mx.array, b: mx.array) -> float:
    """The largest difference of two arrays, relative to the largest value of `b` or 1; integers must be equal."""
    if not mx.issubdtype(b.dtype, mx.floating):
        return 0.0 if mx.array_equal(a, b).item() else float("inf")
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    # where both are the same infinity there is no difference
    gap = mx.where(a == b, mx.zeros_like(a), mx.abs(a - b))
    size = mx.maximum(mx.where(mx.isinf(b), mx.zeros_like(b), mx.abs(b)).max(), 1.0) if b.size else mx.array(1.0)
    return float(cast(float, (gap.max() / size).item())) if b.size else 0.0


def registered() -> dict[str, Kernel]:
    """All kernels whose modules were imported, by name."""
    return dict(_kernels)


@functools.lru_cache(maxsize=8)
def _wanted_names(wish: str) -> frozenset[str] | None:
    """The names in `QWEN_MLX_KERNELS`; None for the default set.

    "" or "default": all but the experimental; "off": none; "all": all; else a list of names, where "default" may stand
    among them.
    """
    from qwen_mlx.kernels import catalogue

    kernels = catalogue.all_kernels()
    default = {name for name, kernel in kernels.items() if not kernel.experimental}
    words = [word.strip() for word in wish.split(",") if word.strip()]
    if words in ([], ["default"]):
        return None
    if words == ["off"]:
        return frozenset()
    if words == ["all"]:
        return frozenset(kernels)
    if unknown := sorted(set(words) - set(kernels) - {"default"}):
        raise UsageError(
            f"QWEN_MLX_KERNELS names {', '.join(unknown)}",
            expected=f"off, all, default, or names out of {', '.join(sorted(kernels))}",
        )
    return frozenset(words) - {"default"} | (default if "default" in words else set())


class _Record:
    """What was proved on this device, kept in a file that may be deleted at any time."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._path = paths.cache_home() / "kernels.json"
        self.proved = frozenset(self._read().get(key, ()))

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def of_this_device() -> _Record | None:
        """None where kernels are built by somebody else's builder, or there is no GPU."""
        if device.backend() == "cpu":
            return None
        import importlib.metadata

        info = mx.device_info()
        name = info.get("device_name") or info.get("architecture") or device.backend()
        return _Record(f"{name}, mlx {importlib.metadata.version('mlx')}")

    def _read(self) -> dict[str, list[str]]:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        good = isinstance(value, dict) and all(isinstance(names, list) for names in value.values())
        return value if good else {}

    def add(self, name: str) -> None:
        """Remember; that the disk cannot be written is no reason to stop."""
        self.proved |= {name}
        everything = self._read()
        everything[self._key] = sorted({*everything.get(self._key, ()), name})
        try:
            with paths.atomic_write(self._path) as file:
                json.dump(everything, file, indent=1)
        except OSError as error:
            log.info("cannot remember what was proved: %s", error)
