"""What the simulator compiles is, to the letter, what MLX itself would give to Metal's compiler."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.kernels import launch
from qwen_mlx.kernels.catalogue import all_kernels
from tests.kernels.harness import needs_simulator
from tests.metalsim import metal_kernel
from tests.metalsim.mlx_source import mlx_source

import mlx.core as mx  # isort: skip

# Configurations as a model asks for them.
CONFIGURATIONS = {
    "add_rms_norm": [("bfloat16", "bfloat16", 1024), ("float16", "float32", 2048)],
    "expert_down": [("bfloat16", 768, 8, 8)],
    "router_topk": [("bfloat16", 128, 8, True)],
    "sample_topk": [("bfloat16",)],
    "swiglu_matvec": [("float16", 128, 8)],
    "qk_norm_rope": [("bfloat16", 128, 128, ("bfloat16", "bfloat16"), 1, 4, 2), ("float16", 64, 64, (), 3, 2, 1)],
    "qk_norm_rope_pack": [("bfloat16", 256, 64, ("float32", "float32"), 1, 4, 2, 8, 4)],
    "quantized_kv_attention": [("bfloat16", 128, 8, 4, 4, 1, 1), ("float16", 64, 4, 4, 2, 3, 3)],
    "quantized_kv_dequantize": [("bfloat16", 80, 8, 4)],
}


@needs_simulator
@pytest.mark.parametrize(
    ("name", "configuration"), [(name, each) for name, several in CONFIGURATIONS.items() for each in several]
)
def test_the_text_is_mlxs_own(name: str, configuration: tuple[Any, ...]) -> None:
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def build(**constructor: Any) -> Any:
        simulated = metal_kernel(**constructor, checked=False)

        def call(**arguments: Any) -> list[mx.array]:
            calls.append((constructor, arguments))
            return simulated(**arguments)

        return call

    kernel = all_kernels()[name]
    arrays, options = kernel.example(configuration)
    with launch.building_with(build):
        kernel.run(*arrays, **options)
    assert len(calls) == kernel.launches
    for constructor, arguments in calls:

        def real(constructor: Any = constructor, arguments: Any = arguments) -> Any:
            return mx.fast.metal_kernel(**constructor)(**arguments, verbose=True)

        inputs, dtypes, template = (arguments[part] for part in ("inputs", "output_dtypes", "template"))
        ours = metal_kernel(**constructor).generate(inputs, dtypes, template).text
        assert mlx_source(real).strip() == ours.strip()
