"""A verification finds what changed, without the network, and the next pull mends only that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_mlx.errors import Cancelled, NotFound
from qwen_mlx.events import CancelToken, FileProblem, Progress, VerifyFinished
from qwen_mlx.hub.verify import verify
from tests.hub.conftest import finished, model, notices, run
from tests.hub.fake_hub import HTML, FakeHub, git_sha1, sha256

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(hub: FakeHub) -> Path:
    hub.add("org/model", model())
    return Path(finished(run()).folder)


def result(folder: Path) -> VerifyFinished:
    last = list(verify(folder))[-1]
    assert isinstance(last, VerifyFinished)
    return last


def flip(file: Path, position: int = 1000) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.resolve().write_bytes(data)


def test_a_model_that_is_right(folder: Path, hub: FakeHub) -> None:
    asked = len(hub.requests)
    events = list(verify(folder))
    assert isinstance(events[0], Progress) and events[0].unit == "bytes"
    last = result(folder)
    assert (last.problems, last.unknown) == ((), ())
    assert set(last.checked) == {file.name for file in folder.iterdir()}
    assert len(hub.requests) == asked


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_flipped_byte(folder: Path, name: str) -> None:
    flip(folder / name, 5)
    assert result(folder).problems == (FileProblem(name, "is not what the hub gave (its checksum is another)"),)


def test_a_pull_after_it_fetches_only_the_damaged_file(folder: Path, hub: FakeHub) -> None:
    flip(folder / WEIGHTS)
    assert finished(run()).fetched == ()  # a pull by itself does not read what is there
    result(folder)
    again = finished(run())
    assert again.fetched == (WEIGHTS,) and again.received == 300_000
    assert result(folder).problems == ()
    assert finished(run()).fetched == ()


def test_a_pull_can_look_for_damage_itself(folder: Path) -> None:
    flip(folder / WEIGHTS)
    events = run(repair=True)
    assert f"{WEIGHTS} is not what the hub gave" in notices(events)
    assert finished(events).fetched == (WEIGHTS,)
    assert finished(run(repair=True)).fetched == ()


def test_sizes_links_and_missing_files(folder: Path) -> None:
    (folder / WEIGHTS).resolve().write_bytes(HTML)
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").resolve().unlink()
    assert {problem.file: problem.what for problem in result(folder).problems} == {
        "config.json": "is missing",
        WEIGHTS: f"has {len(HTML)} bytes instead of 300000: a web page (HTML); perhaps a log-in page of this "
        "network is in between",
        "tokenizer.json": "is a link to nothing",
    }
    assert set(finished(run()).fetched) == {WEIGHTS, "tokenizer.json"}  # of config.json only the link was gone
    assert result(folder).problems == ()


def test_the_listing_of_huggingface_hub(folder: Path, cache: Path) -> None:
    """Its note is used where there is none of ours; the names of the blobs where there is neither."""
    home = cache / "models--org--model"
    (home / ".qwen-mlx" / f"{'a' * 40}.json").unlink()
    assert result(folder).unknown == ()
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(model()[WEIGHTS])  # a copy instead of a link, as on a disk without links
    assert result(folder).unknown == (WEIGHTS,)
    files = model()
    listing = {name: {"size": len(data), "blob_id": git_sha1(data)} for name, data in files.items()}
    listing[WEIGHTS]["lfs_sha256"] = sha256(files[WEIGHTS])
    (home / "trees").mkdir()
    (home / "trees" / f"{'a' * 40}.json").write_text(json.dumps({"format_version": 1, "files": listing}))
    assert (result(folder).unknown, result(folder).problems) == ((), ())
    (folder / WEIGHTS).write_bytes(model()[WEIGHTS][:-1] + b"x")
    assert [problem.file for problem in result(folder).problems] == [WEIGHTS]


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 9, "files": {}}', '{"format_version": 1, "files": 3}'])
def test_a_damaged_note_leaves_the_names_of_the_blobs(folder: Path, cache: Path, text: str) -> None:
    (cache / "models--org--model" / ".qwen-mlx" / f"{'a' * 40}.json").write_text(text)
    flip(folder / WEIGHTS)
    assert [problem.file for problem in result(folder).problems] == [WEIGHTS]


def test_a_folder_of_ones_own_has_no_checksums(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert result(tmp_path / "mine").unknown == ("config.json",)
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing")


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def broken(self: Path, *arguments: object, **options: object) -> object:
        if self.name == WEIGHTS:
            raise OSError(5, "Input/output error")
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", broken)
    assert result(folder).problems == (FileProblem(WEIGHTS, "cannot be read: Input/output error"),)


def test_it_can_be_stopped(folder: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(verify(folder, cancel))
