"""The models of this machine for an interface: what is listed, made, and deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, QwenError, UsageError
from qwen_mlx.events import Converted, QuantizeModel
from qwen_mlx.hub.references import resolve
from qwen_mlx.runtime.shelf import LocalShelf
from qwen_mlx.runtime.thread import ThreadRuntime
from tests.checkpoints import originals


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_model_made_here_is_listed_used_and_deleted(tmp_path):
    source = str(originals.save(tmp_path / "Original", originals.CONFIGS["qwen3"]))
    shelf = LocalShelf()
    assert [model.name for model in shelf.models()] == ["demo"]
    folder = shelf.new_folder(source, "max")
    assert Path(folder) == paths.own_models() / "Original-max"
    runtime = ThreadRuntime()
    try:
        assert isinstance(list(runtime.submit(QuantizeModel(source, folder, "max")))[-1], Converted)
    finally:
        runtime.close(20)
    entry = {model.name: model for model in shelf.models()}["Original-max"]
    assert entry.removable and entry.problem is None and entry.fits == "fits" and entry.bits is not None
    assert resolve("Original-max") == Path(folder)
    assert shelf.new_folder("org/Original", "max").endswith("Original-max-2"), "nothing is ever written over"
    size = sum(file.stat().st_size for file in Path(folder).iterdir())
    assert shelf.delete("Original-max") == size == entry.size
    assert not Path(folder).exists() and [model.name for model in shelf.models()] == ["demo"]


@pytest.mark.parametrize("name", ["org/../..", "..", "/", "a b/ü", "", "x" * 300])
def test_new_folders_stay_in_their_place(name):
    folder = Path(LocalShelf().new_folder(name, "small"))
    assert folder.parent == paths.own_models() and not folder.name.startswith(".") and len(folder.name) <= 92


def test_what_is_never_deleted(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    paths.own_models().mkdir(parents=True)
    (paths.own_models() / "link").symlink_to(mine)
    (paths.own_models() / "notes").mkdir()
    shelf = LocalShelf()
    with pytest.raises(UsageError, match="folder of your own"):
        shelf.delete(str(mine))
    for name in ("link", "notes"):
        with pytest.raises(NotFound, match="not a model that was made here"):
            shelf.delete(name)
    with pytest.raises(QwenError):
        shelf.delete("org/nothing")
    assert (mine / "config.json").exists()


def test_what_could_be_had():
    known = {model.name: model for model in LocalShelf().known()}
    assert known["qwen3:0.6b"].repository and known["qwen3:8b"].default and not known["qwen3:8b-bf16"].default
    for model in known.values():
        assert model.fits in ("fits", "tight", "too big") and model.memory > model.size
    order = ["qwen3:0.6b", "qwen3:8b", "qwen3:32b", "qwen3:235b-a22b"]
    assert [known[name].memory for name in order] == sorted(known[name].memory for name in order)
