"""What a run is told: files, presets, changes, and errors that name the line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.errors import NotFound, UsageError
from qwen_mlx.training.config import RunConfig, read_config
from qwen_mlx.training.presets import PRESETS
from qwen_mlx.training.settings import read_section, to_toml, tomllib

LEAST = ["model.path=m", "data.train=d.jsonl"]


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_change_is_over_the_file_which_is_over_the_preset(write):
    path = write('preset = "qlora"\n[model]\npath = "demo"\n[data]\ntrain = "d.jsonl"\n[optim]\nlr = 3e-4\nclip = 2\n')
    config = read_config(path, ["optim.lr=5e-4"])
    assert (config.model.quantize, config.optim.lr, config.optim.clip) == ("small", 5e-4, 2.0)
    assert config.optim.schedule == "cosine" and config.adapter.rank == 16


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_used_and_written(name):
    config = read_config(None, [*LEAST, f"preset={name}"])
    assert read_section(RunConfig, tomllib.loads(to_toml(config.table()))) == config


def test_the_recipe_of_qwen2():
    config = read_config(None, [*LEAST, "preset=qwen2-sft"])
    o = config.optim
    assert (config.loop.epochs, config.data.max_len) == (2, 32768)
    assert (o.lr, o.min_lr, o.weight_decay, o.clip) == (7e-6, 7e-7, 0.1, 1.0)


@pytest.mark.parametrize(
    "line, words",
    [
        ("[optim]\nlearning_rate = 1\n", ("run.toml:6", "'learning_rate'", "[optim]")),
        ("[optim]\nlrr = 1\n", ("run.toml:6", "Did you mean 'lr'?")),
        ("[opitm]\nlr = 1\n", ("run.toml:5", "Did you mean 'optim'?")),
        ('[optim]\nlr = "fast"\n', ("run.toml:6", "'optim.lr'", "a number", '"fast"')),
        ("[optim]\nlr = -1\n", ("run.toml:6", "above 0")),
        ("[optim]\nbetas = [0.9]\n", ("run.toml:6", "'optim.betas'")),
        ('[optim]\nname = "adam"\n', ("run.toml:6", "Did you mean 'adamw'?")),
        ("[loop]\nepochs = 1.5\n", ("run.toml:6", "a whole number")),
        ("[loop]\ncompile = 1\n", ("run.toml:6", "true or false")),
        ('[log]\nsinks = ["wandb"]\n', ("run.toml:6", '"csv"', '"tensorboard"')),
        ('[adapter]\nmethod = "full"\n[model.x]\n', ("run.toml:7", "'x'")),
        ("[loop\n", ("run.toml is not TOML", "line 5")),
    ],
)
def test_errors_name_the_line(write, line, words):
    path = write(f'[model]\npath = "m"\n[data]\ntrain = "d.jsonl"\n{line}')
    with pytest.raises(UsageError) as caught:
        read_config(path)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ("optim.lr", "section.key=value"),
        ("optim.lr=", "'optim.lr'"),
        ("preset=qlra", "Did you mean 'qlora'?"),
        ("model=3", "[model]"),
        ("model.quantize=4", "'model.quantize'"),
        ("loop.checkpoint_layers=-1", "0 or more"),
        ("adapter.method=prefix", '"lora", "dora", "full"'),
        ("data.packing=maybe", "true or false"),
        ("seed=-1", "from 0"),
    ],
)
def test_errors_of_changes(change, words):
    with pytest.raises(UsageError) as caught:
        read_config(None, [*LEAST, change])
    assert words in str(caught.value)


def test_what_is_missing():
    with pytest.raises(UsageError, match=r"'data.train' is missing"):
        read_config(None, ["model.path=m"])
    with pytest.raises(NotFound):
        read_config(Path("/nowhere/run.toml"))


def test_packed_weights_are_not_trained_in_full():
    with pytest.raises(UsageError, match="packed"):
        read_config(None, [*LEAST, "preset=full", "model.quantize=small"])


def test_names_of_files_are_relative_to_who_names_them(write, tmp_path, monkeypatch):
    path = write('[model]\npath = "m"\n[data]\ntrain = "d.jsonl"\nvalid = "../v.jsonl"\n')
    (tmp_path / "m").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = read_config(path)
    assert config.data.train == str(tmp_path / "d.jsonl") and config.model.path == str(tmp_path / "m")
    assert config.data.valid == os.path.normpath(tmp_path / "../v.jsonl")
    assert read_config(path, ["data.train=o.jsonl"]).data.train == str(elsewhere / "o.jsonl")
    assert read_config(path, ["model.path=Qwen/Qwen3-0.6B"]).model.path == "Qwen/Qwen3-0.6B"
    assert read_config(path, ["data.valid=0.1"]).data.valid == 0.1


def test_the_digest_is_of_what_changes_numbers():
    base = read_config(None, LEAST)
    for change in ("out=other", "save.every=7", "log.sinks=['csv']", "loop.eval_first=false"):
        assert read_config(None, [*LEAST, change]).digest() == base.digest()
    for change in ("optim.lr=2e-4", "seed=2", "loop.accumulate=2", "data.max_len=77", "adapter.rank=4"):
        assert read_config(None, [*LEAST, change]).digest() != base.digest()


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
values = st.one_of(
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.lists(texts),
)


@given(st.dictionaries(texts.filter(bool), values, max_size=5))
def test_what_is_written_is_read_again(section):
    text = to_toml({"section": section})
    assert tomllib.loads(text) == {"section": section}
