"""How the model is asked to read long texts reaches the runtime."""

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
