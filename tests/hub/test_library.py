"""What is in the cache, what it takes, and what may go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qwen_mlx.errors import NotFound, QwenError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub import library
from qwen_mlx.hub.cache import Repository
from qwen_mlx.hub.lock import locked
from qwen_mlx.hub.references import Reference, parse
from tests.hub.conftest import content, finished, model, run
from tests.hub.fake_hub import FakeHub, Trouble, sha256

WEIGHTS = "model.safetensors"


@pytest.fixture
def two(hub: FakeHub) -> FakeHub:
    """Two commits of one model that share their weights, and another model."""
    repo = hub.add("org/model", model())
    run()
    repo.files["config.json"] = b'{"changed": 1}'
    repo.commit = "b" * 40
    run()
    hub.add("org/other", model(1000))
    run("org/other")
    return hub


def reference(name: str) -> Reference:
    found = parse(name)
    assert isinstance(found, Reference)
    return found


def names() -> list[str]:
    return [each.name for each in library.cached_models()]


def test_models_in_the_cache(two: FakeHub) -> None:
    models = {each.name: each for each in library.cached_models()}
    assert list(models) == ["org/model", f"org/model@{'a' * 40}", "org/other"]
    newest = models["org/model"]
    assert newest.revisions == ("main",) and newest.whole
    assert newest.size == sum(file.stat().st_size for file in newest.folder.iterdir())
    assert abs(newest.used - time.time()) < 60


def test_an_empty_or_strange_cache(cache: Path) -> None:
    assert library.cached_models() == library.usage() == library.leftovers() == []
    (cache / "models--org--model" / "snapshots").mkdir(parents=True)
    (cache / "models--org--model" / "snapshots" / "a file").write_text("")
    (cache / "models--org--other").mkdir()
    assert library.cached_models() == []


def test_a_model_that_is_not_whole(hub: FakeHub) -> None:
    hub.add("org/model", model())
    folder = Path(finished(run()).folder)
    (folder / WEIGHTS).resolve().unlink()
    assert [each.whole for each in library.cached_models()] == [False]


def test_usage_counts_every_content_once(two: FakeHub, cache: Path) -> None:
    found = {each.repository: each for each in library.usage()}
    blobs = list((cache / "models--org--model" / "blobs").iterdir())
    assert found["org/model"].total == found["org/model"].models == sum(blob.stat().st_size for blob in blobs)


# ------------------------------------------------------------------------------------------------ deleting


def test_one_revision_keeps_what_it_shares(two: FakeHub) -> None:
    plan = library.deletion([reference(f"org/model@{'a' * 40}")])
    assert plan.freed == len(model()["config.json"])
    plan.execute()
    assert names() == ["org/model", "org/other"]
    assert (library.cached_models()[0].folder / WEIGHTS).read_bytes() == model()[WEIGHTS]


def test_a_whole_model(two: FakeHub, cache: Path) -> None:
    plan = library.deletion([reference("org/model")])
    blobs = list((cache / "models--org--model" / "blobs").iterdir())
    assert len(plan.models) == 2 and plan.freed >= sum(blob.stat().st_size for blob in blobs)
    plan.execute()
    assert names() == ["org/other"] and not (cache / "models--org--model").exists()


def test_two_models_of_one_commit(two: FakeHub) -> None:
    """Commits are unique on the hub, but not between a hub and its mirror: only what was named may go."""
    library.deletion([reference("org/other")]).execute()
    assert names() == ["org/model", f"org/model@{'a' * 40}"]


def test_deleting_is_left_to_huggingface_hub(two: FakeHub, cache: Path) -> None:
    """It keeps files that several repositories share in one place, and knows who else needs them."""
    blob = cache / "models--org--other" / "blobs" / sha256(model(1000)[WEIGHTS])
    xet = "c" * 64
    store = cache / "blobs" / xet[:2] / xet
    store.parent.mkdir(parents=True)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    second = cache / "models--org--model" / "blobs" / blob.name
    second.symlink_to(os.path.relpath(store, second.parent))
    (cache / "models--org--model" / "snapshots" / ("b" * 40) / "shared.bin").symlink_to(f"../../blobs/{blob.name}")
    lines = [path.relative_to(cache).as_posix() for path in (blob, second)]
    store.with_name(f"{xet}.refs").write_text("".join(f"{line}\n" for line in lines))
    plan = library.deletion([reference("org/other")])
    assert plan.freed < 1000
    plan.execute()
    assert store.is_file() and second.exists()


def test_what_is_not_there(two: FakeHub) -> None:
    with pytest.raises(NotFound, match=r"org/none is not on this machine; found only org/model, org/other"):
        library.deletion([reference("org/none")])
    with pytest.raises(NotFound, match="org/model@v7 is not on this machine"):
        library.deletion([reference("org/model@v7")])


def test_a_model_that_is_being_downloaded_is_not_deleted(two: FakeHub) -> None:
    plan = library.deletion([reference("org/other")])
    with locked(Repository("org/other"), CancelToken()), pytest.raises(QwenError, match="is downloading org/other"):
        plan.execute()
    assert "org/other" in names()


def test_a_cache_huggingface_hub_cannot_read(two: FakeHub, cache: Path) -> None:
    (cache / "models--org--other" / "refs" / "v1").write_text("d" * 40)  # a branch whose snapshot is gone
    with pytest.raises(QwenError, match="cannot read the cache of org/other, so nothing is deleted"):
        library.deletion([reference("org/other")])
    assert "org/other" in names()


def test_a_download_that_never_ended(cache: Path) -> None:
    part = cache / "models--org--model" / "blobs" / f"{'e' * 64}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(5000))
    part.with_name(part.name + ".json").write_text("{}")
    plan = library.deletion([reference("org/model")])
    assert plan.freed == 5000
    plan.execute()
    assert not (cache / "models--org--model").exists()


# ------------------------------------------------------------------------------------------------ pruning


def litter(cache: Path) -> dict[str, Path]:
    blobs = cache / "models--org--model" / "blobs"
    found = {
        "part": blobs / f"{'e' * 64}.part",
        "note": blobs / f"{'e' * 64}.part.json",
        "foreign": blobs / f"{'e' * 64}.1234.incomplete",
        "fresh": blobs / f"{'f' * 64}.incomplete",
        "orphan": blobs / ("d" * 64),
    }
    for file in found.values():
        file.write_bytes(content(1000))
    hours = time.time() - 7200
    os.utime(found["foreign"], (hours, hours))
    return found


def test_pruning(two: FakeHub, cache: Path) -> None:
    files = litter(cache)
    items = library.leftovers()
    assert sorted((item.kind, item.path.name) for item in items) == sorted(
        [
            ("partial", files["part"].name),
            ("partial", files["foreign"].name),
            ("orphan", files["orphan"].name),
            ("detached", "a" * 40),
        ]
    )
    library.prune(items)
    assert library.leftovers() == [] and names() == ["org/model", "org/other"]
    assert [name for name, file in files.items() if file.exists()] == ["fresh"]
    assert run()[-1] and finished(run()).fetched == ()


def test_only_what_is_old(two: FakeHub, cache: Path) -> None:
    files = litter(cache)
    assert [item.path for item in library.leftovers(older=3600)] == [files["foreign"]]
    assert {item.kind for item in library.leftovers(("partial",))} == {"partial"}


def test_a_download_that_runs_is_left_alone(two: FakeHub, cache: Path) -> None:
    files = litter(cache)
    with locked(Repository("org/model"), CancelToken()):
        library.prune(library.leftovers())
    assert files["part"].exists() and files["orphan"].exists()


def test_a_download_that_was_broken_off(hub: FakeHub, cache: Path) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("truncate", at=100_000, times=1, then=Trouble("status"))})
    with pytest.raises(QwenError):
        run()
    assert [(each.name, each.whole) for each in library.cached_models()] == [("org/model", False)]
    assert sorted(item.kind for item in library.leftovers()) == ["partial", "unfinished"]
    library.prune(library.leftovers())
    assert not (cache / "models--org--model").exists()
