"""What the name of a model means, on a made-up Hugging Face cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, QwenError, UsageError
from qwen_mlx.hub.references import cached_repositories, default_model, resolve

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return folder


def put(cache, repository, commit=FIRST, config=True, **refs):
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    if config:
        (snapshot / "config.json").write_text("{}")
    for name, target in (refs or {"main": commit}).items():
        file = home / "refs" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(target)
    return snapshot


def test_demo_is_the_folder_in_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "demo_model", lambda: tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert resolve("demo") == tmp_path


def test_a_demo_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "demo_model", lambda: tmp_path / "gone")
    with pytest.raises(NotFound, match="demo model is missing"):
        resolve("demo")


def test_the_default_is_a_variable(monkeypatch):
    monkeypatch.delenv("QWEN_MLX_MODEL", raising=False)
    assert default_model() == "demo"
    monkeypatch.setenv("QWEN_MLX_MODEL", " org/mine ")
    assert default_model() == "org/mine"


@pytest.mark.parametrize("name", ["model", "./model", "deep/er/model", "with space", "~/model"])
def test_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = Path(name).expanduser()
    folder.mkdir(parents=True)
    assert resolve(name) == folder.absolute()
    assert resolve(str(folder.absolute())) == folder.absolute()


def test_a_folder_goes_before_a_repository(cache, tmp_path):
    put(cache, "org/model")
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert resolve("org/model") == tmp_path / "org" / "model"


def test_a_repository(cache):
    snapshot = put(cache, "Qwen/Qwen3-0.6B")
    assert resolve("Qwen/Qwen3-0.6B") == snapshot


def test_a_repository_without_an_owner(cache):
    snapshot = put(cache, "gpt2")
    assert resolve("gpt2") == snapshot


def test_the_cache_of_hf_home(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    snapshot = put(tmp_path / "hf" / "hub", "org/model")
    assert resolve("org/model") == snapshot


def test_revisions(cache):
    first = put(cache, "org/model", FIRST, main=FIRST, **{"v1.0": FIRST, "refs__pr__3": SECOND})
    second = put(cache, "org/model", SECOND, main=FIRST)
    assert resolve("org/model@main") == first
    assert resolve("org/model@v1.0") == first
    assert resolve(f"org/model@{SECOND}") == second
    assert resolve("org/model@refs/pr/3") == second


def test_a_ref_with_a_newline(cache):
    snapshot = put(cache, "org/model", main=FIRST + "\n")
    assert resolve("org/model") == snapshot


# ------------------------------------------------------------------------------------------------ what is not there


def test_says_where_it_looked_and_how_to_get_it(cache, tmp_path):
    with pytest.raises(NotFound) as caught:
        resolve("Qwen/Qwen3-8B")
    text = str(caught.value)
    assert str(tmp_path / "Qwen" / "Qwen3-8B") in text and str(cache) in text
    assert "models--Qwen--Qwen3-8B" in text
    assert "To download it: `qwen-mlx pull Qwen/Qwen3-8B`" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["Qwen3-0.6B", "qwen/qwen3-0.6b", "Qwen/Qwen3-0.6", "mlx-community/Qwen3-0.6B"])
def test_suggests_what_is_in_the_cache(cache, name):
    put(cache, "Qwen/Qwen3-0.6B")
    put(cache, "other/unlike")
    with pytest.raises(NotFound, match=r"Did you mean Qwen/Qwen3-0\.6B\?"):
        resolve(name)


def test_suggests_nothing_far_fetched(cache):
    put(cache, "Qwen/Qwen3-0.6B")
    with pytest.raises(NotFound) as caught:
        resolve("google/gemma-7b")
    assert "Did you mean" not in str(caught.value)


def test_a_revision_that_is_not_there_lists_those_that_are(cache):
    put(cache, "org/model", main=FIRST, v1=FIRST)
    with pytest.raises(NotFound) as caught:
        resolve("org/model@v2")
    text = str(caught.value)
    assert "revision 'v2'" in text and "found main, v1" in text
    assert "`qwen-mlx pull org/model@v2`" in text


def test_a_repository_without_its_main_lists_its_commits(cache):
    put(cache, "org/model", FIRST, v1=FIRST)
    put(cache, "org/model", SECOND, v1=FIRST)
    with pytest.raises(NotFound, match=f"found v1, {SECOND}"):
        resolve("org/model")


def test_downloads_that_did_not_finish(cache):
    put(cache, "org/half", config=False)
    with pytest.raises(NotFound, match="not complete"):
        resolve("org/half")
    (cache / "models--org--none" / "blobs").mkdir(parents=True)
    with pytest.raises(NotFound, match="no complete download"):
        resolve("org/none")


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "../nowhere", "~/nowhere", "a/b/c", "~nobody-here/x"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(NotFound, match="there is no folder /"):
        resolve(name)


def test_a_file(tmp_path):
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(UsageError, match=r"model\.gguf is a file; expected the folder of a model"):
        resolve("model.gguf")


# ------------------------------------------------------------------------------------------------ hostile names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a\0b",
        "org\\model",
        "..\\secret",
        "org/..",
        "org/.",
        "org/model@",
        "org/model@../../etc",
        "org/model@/etc",
        "org/model@a\\b",
        "org/model@.",
        "org/mo del",
        "org/model;rm",
        "-/model",
        "x" * 5000,
        "org/" + "y" * 300,
        "org/modèle",
    ],
)
def test_names_cannot_leave_the_cache(cache, tmp_path, name):
    put(cache, "org/model")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "config.json").write_text("{}")
    with pytest.raises(QwenError):
        resolve(name)


@pytest.mark.parametrize("target", ["../../../secret", "/etc", "", "a/b", "..", "x" * 100, "\xff"])
def test_a_ref_cannot_lead_out_of_the_snapshots(cache, tmp_path, target):
    put(cache, "org/model")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text("{}")
    (cache / "models--org--model" / "refs" / "main").write_bytes(target.encode("latin-1"))
    with pytest.raises(NotFound):
        resolve("org/model")


def test_listing(cache):
    assert cached_repositories() == []
    put(cache, "Qwen/Qwen3-8B")
    put(cache, "gpt2")
    (cache / "datasets--org--data").mkdir()
    (cache / "models--bad name").mkdir()
    (cache / "models--a-file").write_text("")
    assert cached_repositories() == ["Qwen/Qwen3-8B", "gpt2"]


def test_an_unreadable_cache_lists_nothing(cache, monkeypatch):
    Path(os.environ["HF_HUB_CACHE"]).write_text("a file")
    assert cached_repositories() == []
    with pytest.raises(NotFound):
        resolve("org/model")
