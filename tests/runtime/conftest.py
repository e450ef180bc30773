"""A tiny model on the disk, and the thread that is to run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_mlx.runtime.thread import ThreadRuntime
from tests.chat.partner import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def runtime() -> Iterator[ThreadRuntime]:
    runtime = ThreadRuntime()
    yield runtime
    runtime.close(30)
    assert not runtime.running
