"""A pull that goes well: what is fetched, how it lies on the disk, and what it tells."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

from qwen_mlx.errors import CheckpointError, NetworkError, NoSpace, NotFound, QwenError, UsageError
from qwen_mlx.events import Progress
from qwen_mlx.hub import pull as pulling
from qwen_mlx.hub.references import resolve
from tests.hub.conftest import content, finished, leftovers, model, planned, run
from tests.hub.fake_hub import FakeHub, git_sha1, sha256

NEEDED = {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"}


def test_only_what_a_model_needs(hub: FakeHub, cache: Path) -> None:
    files = hub.add("org/model", model()).files
    events = run()
    folder = Path(finished(events).folder)
    assert {file.name for file in folder.iterdir()} == NEEDED
    assert all((folder / name).read_bytes() == files[name] for name in NEEDED)
    assert set(planned(events).files) == NEEDED
    assert planned(events).config == {"model_type": "qwen3"}
    assert finished(events).received == planned(events).size == sum(len(files[name]) for name in NEEDED)
    assert leftovers(cache) == []
    assert resolve("org/model") == folder


def test_the_layout_is_the_one_other_tools_read(hub: FakeHub, cache: Path) -> None:
    files = hub.add("org/model", model()).files
    folder = Path(finished(run()).folder)
    home = cache / "models--org--model"
    assert folder == home / "snapshots" / ("a" * 40)
    assert (home / "refs" / "main").read_text() == "a" * 40
    assert (folder / "config.json").readlink() == Path("../../blobs") / git_sha1(files["config.json"])
    assert (folder / "model.safetensors").readlink() == Path("../../blobs") / sha256(files["model.safetensors"])
    scanned = scan_cache_dir(cache)
    assert [repo.repo_id for repo in scanned.repos] == ["org/model"] and not scanned.warnings
    assert try_to_load_from_cache("org/model", "config.json", cache_dir=cache) == str(folder / "config.json")
    assert snapshot_download("org/model", cache_dir=cache, local_files_only=True) == str(folder)


def test_what_huggingface_hub_downloaded_is_not_fetched_again(hub: FakeHub, cache: Path) -> None:
    repo = hub.add("org/model", model())
    home = cache / "models--org--model"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / sha256(repo.files["model.safetensors"])).write_bytes(repo.files["model.safetensors"])
    events = run()
    assert "model.safetensors" not in finished(events).fetched
    assert hub.sent("model.safetensors") == 0


def test_a_second_pull_fetches_nothing(hub: FakeHub) -> None:
    hub.add("org/model", model())
    run()
    again = finished(run())
    assert (again.received, again.fetched) == (0, ())


def test_a_new_commit_fetches_only_what_changed(hub: FakeHub, cache: Path) -> None:
    repo = hub.add("org/model", model())
    first = Path(finished(run()).folder)
    repo.files["config.json"] = b'{"model_type": "qwen3", "changed": true}'
    repo.commit = "b" * 40
    events = run()
    assert finished(events).fetched == ("config.json",)
    assert resolve("org/model") == Path(finished(events).folder) != first
    assert first.is_dir()


def test_shards_come_side_by_side(hub: FakeHub) -> None:
    hub.add("org/model", model(100_000, shards=8))
    hub.rate = 2e6
    run()
    assert 2 <= hub.most_streams <= 4


def test_progress_counts_bytes_and_tells_speed_and_time(hub: FakeHub) -> None:
    files = hub.add("org/model", model(1_500_000)).files
    hub.rate = 1e6
    shown = [event for event in run() if isinstance(event, Progress)]
    total = sum(len(files[name]) for name in NEEDED)
    assert [event.done for event in shown] == sorted(event.done for event in shown)
    assert shown[-1].done == shown[-1].total == total and shown[-1].unit == "bytes"
    timed = [event for event in shown if event.speed]
    assert timed and all(0.4e6 < (event.speed or 0) < 1.6e6 for event in timed)
    assert all(event.remaining is not None and event.remaining < 3 for event in timed)


def test_a_limit_is_kept(hub: FakeHub) -> None:
    hub.add("org/model", model(500_000))
    began = time.monotonic()
    run(limit_rate=1e6)
    assert 0.25 < time.monotonic() - began < 3


def test_a_dry_run_leaves_nothing(hub: FakeHub, cache: Path) -> None:
    hub.add("org/model", model())
    events = run(dry_run=True)
    assert finished(events).dry_run and planned(events).missing == planned(events).size
    assert not cache.exists()


def test_revisions(hub: FakeHub, cache: Path) -> None:
    hub.add("org/model", model(), refs={"v1.0": "c" * 40, "refs/pr/3": "d" * 40})
    assert finished(run(revision="v1.0")).commit == "c" * 40
    assert finished(run("org/model@refs/pr/3")).commit == "d" * 40
    assert finished(run("org/model@" + "a" * 40)).commit == "a" * 40
    assert resolve("org/model@v1.0").name == "c" * 40
    with pytest.raises(NotFound):
        resolve("org/model")  # nobody pulled main


def test_include_takes_other_files_but_never_code(hub: FakeHub) -> None:
    hub.add("org/model", model())
    events = run(include=["README*", "*.py", "config*"])
    assert set(planned(events).files) == {"README.md", "config.json"}
    with pytest.raises(UsageError, match=r"never downloaded: modeling_custom\.py"):
        run(include=["*.py"])
    with pytest.raises(NotFound, match="no file that matches"):
        run(include=["*.onnx"])


def test_a_listing_of_many_pages(hub: FakeHub) -> None:
    hub.add("org/model", model(1000, shards=30))
    hub.page_size = 7
    assert len(planned(run()).files) == 33


def test_folders_of_a_repository(hub: FakeHub) -> None:
    files = {**model(), "additional_chat_templates/tool.jinja": b"{{ x }}", "onnx/config.json": b"{}"}
    hub.add("org/model", files)
    folder = Path(finished(run()).folder)
    assert (folder / "additional_chat_templates" / "tool.jinja").read_bytes() == b"{{ x }}"
    assert not (folder / "onnx").exists()


def test_an_empty_file(hub: FakeHub) -> None:
    hub.add("org/model", {**model(), "merges.txt": b""})
    assert (Path(finished(run()).folder) / "merges.txt").read_bytes() == b""


def test_two_names_of_one_content_come_once(hub: FakeHub) -> None:
    files = {
        **model(),
        "model-00001-of-00002.safetensors": content(9000),
        "model-00002-of-00002.safetensors": content(9000),
    }
    del files["model.safetensors"]
    hub.add("org/model", files)
    events = run()
    folder = Path(finished(events).folder)
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == content(9000)
    assert hub.sent("model-00001-of-00002.safetensors") + hub.sent("model-00002-of-00002.safetensors") == 9000


def test_one_gguf_out_of_many(hub: FakeHub) -> None:
    names = ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf")
    hub.add("org/model", {name: name.encode() for name in names})
    assert set(planned(run("hf.co/org/model:Q4_K_M")).files) == {"m-Q4_K_M.gguf"}
    assert set(planned(run("org/model:q6_k")).files) == set(names[2:])
    assert resolve("org/model:Q4_K_M").name == "a" * 40
    with pytest.raises(NotFound, match="no GGUF file of Q3_K_S; expected one of Q4_K_M, Q6_K, Q8_0"):
        run("org/model:Q3_K_S")
    with pytest.raises(NotFound, match="several quantizations; expected one of them: org/model:Q4_K_M"):
        run("org/model")


def test_modelscope(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub.url)
    files = hub.add("org/model", model()).files
    folder = Path(finished(run("modelscope:org/model")).folder)
    assert {file.name for file in folder.iterdir()} == NEEDED
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert resolve("modelscope:org/model") == folder
    with pytest.raises(NotFound):
        resolve("org/model")
    assert finished(run("modelscope:org/model")).received == 0
    with pytest.raises(NotFound, match="no repository org/other"):
        run("modelscope:org/other")


def test_offline_needs_the_model(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model())
    with pytest.raises(NotFound, match="offline, and org/model is not downloaded; found no models"):
        run(offline=True)
    folder = finished(run()).folder
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert finished(run()).folder == folder
    with pytest.raises(NotFound, match="org/other is not downloaded; found only org/model"):
        run("org/other")
    (Path(folder) / "model.safetensors").resolve().unlink()
    with pytest.raises(NotFound, match=r"not complete; found model\.safetensors missing"):
        run()
    assert len(hub.requests) == asked


def test_without_a_network_a_model_that_is_here_is_mentioned(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model())
    run()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(NetworkError, match="The model is on this machine: --offline does without"):
        run()
    with pytest.raises(NetworkError, match=r"and try again\.$"):
        run("org/other")


def test_short_names(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("mlx-community/Qwen3-8B-4bit", model())
    plan = planned(run("qwen3:8b"))
    assert (plan.reference, plan.repository) == ("qwen3:8b", "mlx-community/Qwen3-8B-4bit")
    assert resolve("qwen3:8b-4bit").is_dir()


@pytest.mark.parametrize(
    ("name", "message"), [("demo", "is a folder"), ("qwen", "has no owner"), ("a/b/c", "no folder")]
)
def test_names_that_cannot_be_pulled(name: str, message: str) -> None:
    with pytest.raises((UsageError, NotFound), match=message):
        run(name)


def test_too_little_space_is_said_before_the_first_byte(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = hub.add("org/model", model(300_000, shards=3)).files
    need = sum(len(content) for name, content in files.items() if name.endswith((".safetensors", ".json")))

    class Disk:
        free = int(need * 1.01)  # enough for the files, not for the two percent of the file system

    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda place: Disk)
    with pytest.raises(NoSpace, match="too little space") as caught:
        run()
    assert caught.value.exit_code == 4
    assert hub.sent("model-00001-of-00003.safetensors") == 0
    Disk.free = int(need * 1.03)
    assert finished(run()).received == need


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from qwen_mlx.hub import transfer

    hub.add("org/model", model(400_000))
    written = []

    def full(file: object, data: bytes) -> None:
        if sum(written) > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(len(data))
        real(file, data)  # type: ignore[arg-type]

    real = transfer._write_all
    monkeypatch.setattr(transfer, "_write_all", full)
    with pytest.raises(NoSpace, match=r"is full\. What has arrived is kept"):
        run()
    monkeypatch.setattr(transfer, "_write_all", real)
    assert 0 < finished(run()).received < 300_000


def test_a_cache_that_cannot_be_written(hub: FakeHub, cache: Path) -> None:
    hub.add("org/model", model())
    cache.write_text("a file where the cache should be")
    with pytest.raises(Exception, match="cannot be written") as caught:
        run()
    assert "HF_HUB_CACHE" in str(caught.value)


def test_the_note_of_a_pull_holds_every_checksum(hub: FakeHub, cache: Path) -> None:
    files = hub.add("org/model", model()).files
    run(include=["config.json"])
    run()
    note = json.loads((cache / "models--org--model" / ".qwen-mlx" / f"{'a' * 40}.json").read_text())
    assert note["files"]["model.safetensors"] == {"size": 300_000, "etag": sha256(files["model.safetensors"])}
    assert set(note["files"]) == NEEDED


def test_a_disk_without_links(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(self: Path, target: object, target_is_directory: bool = False) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    files = hub.add("org/model", model()).files
    folder = Path(finished(run()).folder)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not (folder / "model.safetensors").is_symlink()
    assert finished(run()).received == 0


def test_only_pickles(hub: FakeHub) -> None:
    hub.add("org/model", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(CheckpointError, match=r"only pickle weights \(pytorch_model\.bin\); refused"):
        run()


def test_a_cache_for_reading_only_will_do_for_a_model_that_is_there(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", model())
    folder = finished(run()).folder
    monkeypatch.setattr(pulling, "locked", None)  # whoever would write must lock first
    assert finished(run()).folder == folder


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("EROFS", "the disk is read-only"),
        ("EACCES", "you may not write there"),
        ("ENAMETOOLONG", "the path is longer than the disk allows"),
        ("EIO", "was it unplugged"),
        ("ENOENT", "the folder is gone"),
        ("EBADF", "Bad file descriptor"),
    ],
)
def test_what_a_disk_says_is_one_sentence(
    number: str, message: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    hub.add("org/model", model())
    code = getattr(errno, number)

    def refuse(self: object, etag: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("qwen_mlx.hub.cache.Repository.finish", refuse)
    with pytest.raises(QwenError, match=message) as caught:
        run()
    assert "cannot be written" in str(caught.value) and "HF_HUB_CACHE" in str(caught.value)
