"""How the model is asked to read long texts, and to remember them, reaches the runtime."""

from __future__ import annotations

import pytest

from qwen_mlx.events import LoadModel
from tests.tui.fake_runtime import FakeRuntime


@pytest.mark.parametrize("scaling", [None, "yarn:4"])
async def test_a_scaling_goes_with_the_model(scaling, stage):
    runtime = FakeRuntime(model=None)
    async with stage(runtime=runtime, model="org/one", rope_scaling=scaling) as s:
        await s.until(lambda: runtime.jobs)
    assert runtime.jobs[0] == LoadModel("org/one", rope_scaling=scaling)


@pytest.mark.parametrize("bits", [None, "8/4"])
async def test_the_bits_of_the_cache_go_with_the_model(bits, stage):
    runtime = FakeRuntime(model=None)
    async with stage(runtime=runtime, model="org/one", kv_bits=bits) as s:
        await s.until(lambda: runtime.jobs)
    assert runtime.jobs[0] == LoadModel("org/one", kv_bits=bits)
