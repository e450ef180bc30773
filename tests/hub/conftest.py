"""Every test has a hub, a cache and an environment of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_mlx.events import CancelToken, Event, Notice, PullFinished, PullPlanned
from qwen_mlx.hub.pull import PullOptions, pull
from qwen_mlx.hub.transport import Patience
from tests.hub.fake_hub import FakeHub

# Long enough for a loaded machine, short enough for a test.
QUICK = Patience(connect=5, read=5, attempts=3, first_wait=0.01, longest_wait=0.05, longest_order=5)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "MODELSCOPE", "QWEN_MLX_")) or "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a test survives no power cut, and disks are slow
    return tmp_path / "hub"


@pytest.fixture
def cache(environment: Path) -> Path:
    return environment


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def model(size: int = 300_000, shards: int = 1) -> dict[str, bytes]:
    """The files of a repository as they are: what a model needs, and what it does not."""
    files = {
        ".gitattributes": b"*.safetensors filter=lfs",
        "README.md": b"# A model",
        "config.json": b'{"model_type": "qwen3"}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"model": {}}',
        "modeling_custom.py": b"print('never run')",
        "pytorch_model.bin": b"a pickle",
        "training_args.pt": b"a pickle",
    }
    for number in range(1, shards + 1):
        name = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
        files[name] = content(size, number)
    return files


def run(name: str = "org/model", cancel: CancelToken | None = None, **options: object) -> list[Event]:
    """All events of one pull."""
    options.setdefault("patience", QUICK)
    return list(pull(name, PullOptions(**options), cancel))  # type: ignore[arg-type]


def planned(events: list[Event]) -> PullPlanned:
    return next(event for event in events if isinstance(event, PullPlanned))


def finished(events: list[Event]) -> PullFinished:
    assert isinstance(events[-1], PullFinished)
    return events[-1]


def notices(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Notice))


def leftovers(cache: Path) -> list[str]:
    """Names of everything unfinished in the cache."""
    return sorted(file.name for file in cache.rglob("*") if ".part" in file.name or file.name.endswith(".tmp"))
