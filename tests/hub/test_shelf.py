"""The models of this machine, as the app sees them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, UsageError
from qwen_mlx.events import FINAL_EVENTS, JobCancelled, JobFailed, PullFinished
from qwen_mlx.runtime.shelf import LocalShelf
from tests.hub.conftest import content, model
from tests.hub.fake_hub import FakeHub


def run(shelf: LocalShelf, name: str) -> list[object]:
    return list(shelf.pull(name))


def demo_files() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in paths.demo_model().iterdir() if file.is_file()}


def test_a_model_comes_is_listed_and_goes(hub: FakeHub, cache: Path) -> None:
    hub.add("org/tiny", demo_files())
    shelf = LocalShelf()
    assert [entry.name for entry in shelf.models()] == ["demo"]
    events = run(shelf, "org/tiny")
    assert isinstance(events[-1], PullFinished)
    demo, tiny = shelf.models()
    assert not demo.removable and demo.size > 1_000_000
    assert (tiny.name, tiny.problem, tiny.fits) == ("org/tiny", None, "fits")
    assert tiny.parameters and 3_000_000 < tiny.parameters < 4_000_000 and tiny.bits and 8 < tiny.bits < 9.5
    assert shelf.delete("org/tiny") > 1_000_000
    assert [entry.name for entry in shelf.models()] == ["demo"]


def test_what_cannot_be_used_says_so(hub: FakeHub) -> None:
    hub.add("org/damaged", model(5000))
    hub.add("org/other", {"config.json": b'{"model_type": "llama"}', "model.safetensors": content(100)})
    shelf = LocalShelf()
    for name in ("org/damaged", "org/other"):
        run(shelf, name)
    found = {entry.name: entry.problem for entry in shelf.models()}
    assert found == {"demo": None, "org/damaged": "damaged"}, "models of other families are not ours to list"


def test_failures_are_events(hub: FakeHub) -> None:
    shelf = LocalShelf()
    failed = run(shelf, "org/nothing")[-1]
    assert isinstance(failed, JobFailed) and failed.expected and "org/nothing" in failed.error
    assert isinstance(run(shelf, "no such name")[-1], JobFailed)


def test_a_download_is_stopped(hub: FakeHub) -> None:
    hub.add("org/large", model(3_000_000))
    hub.rate = 200_000
    handle = LocalShelf().pull("org/large")
    while not handle.drain():
        time.sleep(0.02)
    handle.cancel()
    last = list(handle)[-1]
    assert isinstance(last, JobCancelled) and isinstance(last, FINAL_EVENTS)


def test_only_models_of_the_cache_are_deleted(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError):
        LocalShelf().delete(str(tmp_path / "mine"))
    with pytest.raises(NotFound):
        LocalShelf().delete("org/nothing")
    assert (tmp_path / "mine").exists()
