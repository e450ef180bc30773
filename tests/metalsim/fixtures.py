"""Pytest fixtures for tests that simulate kernels: import them in a `conftest.py`.

Where there is no compiler, tests that use them are skipped and say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.metalsim.errors import ToolchainError
from tests.metalsim.simulated import simulated_kernels
from tests.metalsim.toolchain import Toolchain, find


@pytest.fixture(scope="session")
def compiler() -> Toolchain:
    """The compiler that the simulator uses; skips the test where there is none."""
    try:
        return find()
    except ToolchainError as error:
        pytest.skip(str(error))


@pytest.fixture
def simulated(compiler: Toolchain) -> Iterator[None]:
    """The package's own kernels run in the simulator during the test, and every access is watched."""
    with simulated_kernels():
        yield


@pytest.fixture
def simulated_unchecked(compiler: Toolchain) -> Iterator[None]:
    """As `simulated`, in about half of the time and without checks: for whole models."""
    with simulated_kernels(checked=False):
        yield
