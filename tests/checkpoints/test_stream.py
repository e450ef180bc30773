"""The streaming writer: what it writes, and that it leaves either everything or nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.checkpoints import publish
from qwen_mlx.checkpoints.folder import find_weights, load_folder_tensors
from qwen_mlx.checkpoints.layout import Output, lay_out
from qwen_mlx.checkpoints.safetensors import DTYPE_BITS, read_header
from qwen_mlx.checkpoints.source import Source, Wanted
from qwen_mlx.checkpoints.stream import Plan, Step, Written, disk_need, write_checkpoint
from qwen_mlx.errors import Cancelled, CheckpointError, NoSpace, QwenError, UsageError
from qwen_mlx.events import CancelToken, Progress

import mlx.core as mx  # isort: skip
import numpy as np

CONFIG = {"model_type": "qwen3", "_name_or_path": "/home/someone", "vision_config": {}}


def arrays() -> dict[str, mx.array]:
    """Tensors of every width, and one that is empty."""
    key = mx.random.key(3)
    return {
        "codes": mx.random.randint(0, 1 << 30, (40, 6), key=key).astype(mx.uint32),
        "odd": mx.arange(7).astype(mx.uint8),
        "half": mx.random.normal((33, 5), key=key).astype(mx.bfloat16),
        "float16": mx.random.normal((3,), key=key).astype(mx.float16),
        "full": mx.random.normal((4, 3, 2), key=key),
        "nothing": mx.zeros((0, 4)),
        "number": mx.array(2.5),
    }


def types() -> dict[Any, str]:
    return {mx.uint32: "U32", mx.uint8: "U8", mx.bfloat16: "BF16", mx.float16: "F16", mx.float32: "F32"}


def plan(tensors: dict[str, mx.array], rows: int = 3, **options: Any) -> Plan:
    """Each tensor is a step of its own that yields some rows at a time."""

    def step(name: str, array: mx.array) -> Step:
        def blocks() -> Any:
            if array.ndim == 0:
                yield {name: array}
            for start in range(0, array.shape[0] if array.ndim else 0, rows):
                yield {name: array[start : start + rows]}

        return Step((Output(name, types()[array.dtype], tuple(array.shape)),), blocks, name)

    return Plan([step(name, array) for name, array in tensors.items()], CONFIG, **options)


def write(what: Plan, target: Path, **options: Any) -> Written:
    steps = write_checkpoint(what, target, **options)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def same(a: dict[str, mx.array], b: dict[str, mx.array]) -> bool:
    return set(a) == set(b) and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and bool(mx.array_equal(a[n], b[n])) for n in a
    )


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ------------------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("shard_bytes", [1 << 30, 700, 1])
def test_what_is_written_is_read_back(shard_bytes: int, tmp_path: Path) -> None:
    tensors = arrays()
    written = write(plan(tensors, files={"a.txt": b"hello"}), tmp_path / "new" / "model", shard_bytes=shard_bytes)
    folder = tmp_path / "new" / "model"
    assert written.folder == folder and written.files == len(find_weights(folder).files)
    assert same(load_folder_tensors(folder), tensors)
    assert (folder / "a.txt").read_text() == "hello"
    config = json.loads((folder / "config.json").read_text())
    assert config == {"model_type": "qwen3"}
    assert names(tmp_path / "new") == ["model"], "nothing may be left beside it"
    if shard_bytes == 700:
        assert find_weights(folder).files[0].name == "model-00001-of-00002.safetensors"
        assert json.loads((folder / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == sum(
            array.nbytes for array in tensors.values()
        )


def test_the_size_is_known_before(tmp_path: Path) -> None:
    what = plan(arrays(), parameters=12)
    need = disk_need(what, 700)
    write(what, tmp_path / "model", shard_bytes=700)
    assert need == sum(file.stat().st_size for file in (tmp_path / "model").iterdir())


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    total = sum(array.nbytes for array in arrays().values())
    events = list(write_checkpoint(plan(arrays()), tmp_path / "model"))
    assert [type(event) for event in events] == [Progress] * len(events)
    assert events[0].done == 0 and events[-1].done == total and {event.total for event in events} == {total}
    assert [event.done for event in events] == sorted(event.done for event in events)


@given(
    st.lists(
        st.tuples(st.sampled_from(["U8", "BF16", "F32", "U32", "U64"]), st.lists(st.integers(0, 5), max_size=3)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 400),
)
@settings(max_examples=60, deadline=None)
def test_every_layout_is_a_valid_header(tensors: list[tuple[str, list[int]]], shard_bytes: int) -> None:
    import tempfile

    outputs = [Output(f"t{i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(tensors)]
    layout = lay_out(outputs, shard_bytes=shard_bytes)
    assert layout.tensor_bytes == sum(output.nbytes for output in outputs)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for shard in layout.shards:
            path = Path(folder) / shard.file
            path.write_bytes(shard.head + bytes(shard.nbytes - len(shard.head)))
            header = read_header(path)
            assert header.file_size - header.data_start <= max(shard_bytes, *(o.nbytes for o in outputs))
            found.update(header.tensors)
    for output in outputs:
        info, place = found[output.name], layout.places[output.name]
        assert (info.dtype, info.shape, info.start) == (output.dtype, output.shape, place.start)
        assert info.start % (DTYPE_BITS[output.dtype] // 8) == 0, "some readers need aligned data"


def test_two_tensors_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="the name a"):
        lay_out([Output("a", "U8", (1,)), Output("a", "U8", (1,))])


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"a": mx.zeros((2, 2))}, "16 of 24 bytes"),
        ({"a": mx.zeros((4, 2))}, "too many rows"),
        ({"a": mx.zeros((3, 2), dtype=mx.float16)}, "planned as F32"),
        ({"a": np.zeros((3, 2), np.float64)}, "planned as F32"),
        ({"b": mx.zeros((3, 2))}, "b"),
    ],
)
def test_a_step_that_breaks_its_promise_leaves_nothing(block: Any, problem: str, tmp_path: Path) -> None:
    step = Step((Output("a", "F32", (3, 2)),), lambda: [block])
    with pytest.raises((ValueError, TypeError, KeyError), match=problem):
        write(Plan([step], CONFIG), tmp_path / "model")
    assert names(tmp_path) == []


# --------------------------------------------------------------------------------------- all or nothing


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    token = CancelToken()
    steps = write_checkpoint(plan(arrays()), tmp_path / "model", cancel=token)
    for _ in range(4):
        next(steps)
    assert names(tmp_path) == [".model.partial"]
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert names(tmp_path) == []


def test_dropping_the_job_leaves_nothing(tmp_path: Path) -> None:
    steps = write_checkpoint(plan(arrays()), tmp_path / "model")
    next(steps)
    steps.close()
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_refused_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5_000_000})
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        NoSpace, match=r"does not fit on its disk; expected [\d,]+ bytes free; found 5,000,000"
    ) as error:
        write(plan(arrays()), tmp_path / "model")
    assert error.value.exit_code == 4 and names(tmp_path) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_becomes_full_leaves_nothing(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = getattr(os, call), 0

    def failing(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(NoSpace, match="the disk is full; what was written has been removed"):
        write(plan(arrays()), tmp_path / "model", shard_bytes=1)
    assert names(tmp_path) == []


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(QwenError, match="model' cannot be written; found Read-only file system"):
        write(plan(arrays()), tmp_path / "model")
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".model.partial"
    (left / "deep").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (left / "deep" / "file").write_bytes(b"half")
    write(plan(arrays()), tmp_path / "model")
    assert same(load_folder_tensors(tmp_path / "model"), arrays()) and names(tmp_path) == ["model"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    first = write_checkpoint(plan(arrays()), tmp_path / "model")
    next(first)
    with pytest.raises(UsageError, match="another process is writing"):
        write(plan(arrays()), tmp_path / "model")
    for _ in first:  # unharmed by the second
        pass
    assert same(load_folder_tensors(tmp_path / "model"), arrays())


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    write(plan(arrays()), tmp_path / "model")
    assert names(tmp_path) == ["model"]


# ------------------------------------------------------------------------------------------------ target


def test_a_model_is_replaced_only_by_force_and_only_when_the_new_one_is_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write(plan({"old": mx.zeros((2,))}), target)
    with pytest.raises(UsageError, match="--force"):
        write(plan(arrays()), target)
    token = CancelToken()
    steps = write_checkpoint(plan(arrays()), target, force=True, cancel=token)
    next(steps)
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert set(load_folder_tensors(target)) == {"old"}
    write(plan(arrays()), target, force=True)
    assert same(load_folder_tensors(target), arrays()) and names(tmp_path) == ["model"]


def test_force_replaces_models_only(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="something else than a model"):
        write(plan(arrays()), tmp_path / "photos", force=True)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError, match="in the way"):
        write(plan(arrays()), tmp_path / "file", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(UsageError, match="in the way"):
        write(plan(arrays()), tmp_path / "link", force=True)
    (tmp_path / "empty").mkdir()
    write(plan(arrays()), tmp_path / "empty")  # nothing is lost


@pytest.mark.parametrize("where", [".", "inside", ".."])
def test_the_model_that_is_read_is_never_the_target(where: str, tmp_path: Path) -> None:
    source = tmp_path / "home" / "source"
    write(plan(arrays()), source)
    with pytest.raises(UsageError, match=r"is read"):
        write(plan(arrays()), source / where, force=True, sources=(source,))
    assert same(load_folder_tensors(source), arrays())


@pytest.mark.parametrize(("name", "reason"), [("n" * 300, "too long"), ("n" * 250, "too long"), ("a\0b", "null")])
def test_names_that_no_disk_takes(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(QwenError, match=f"cannot be written; found .*{reason}"):
        write(plan(arrays()), tmp_path / name)


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(QwenError, match=r"cannot be written; found (Not a directory|File exists)"):
        write(plan(arrays()), tmp_path / "file" / "model")


def test_a_disk_that_takes_capitals_for_small_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(plan(arrays()), tmp_path / "model")
    (tmp_path / "MODEL").symlink_to(tmp_path / "model")  # stands in for such a disk, where resolve() keeps the letters
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    with pytest.raises(UsageError, match="the model that is read"):
        write(plan(arrays()), tmp_path / "MODEL", force=True, sources=(tmp_path / "model",))


@pytest.mark.parametrize("new_is_there", [False, True])
def test_a_run_killed_between_the_two_renames(new_is_there: bool, tmp_path: Path) -> None:
    target = tmp_path / "model"
    if new_is_there:
        write(plan({"newer": mx.zeros((2,))}), target)
    write(plan({"old": mx.zeros((2,))}), tmp_path / ".model.replaced")
    steps = write_checkpoint(plan(arrays()), target, force=True)
    next(steps)
    steps.close()  # the next run, which does not even finish, has put the old one back where the new one is missing
    assert set(load_folder_tensors(target)) == {"newer" if new_is_there else "old"} and names(tmp_path) == ["model"]


# ------------------------------------------------------------------------------------------------ source


def test_rows_and_blocks_are_what_mlx_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = arrays()
    write(plan(tensors), tmp_path / "model", shard_bytes=500)
    with Source(tmp_path / "model") as source:
        for name, array in tensors.items():
            assert same({name: source.rows(name)}, {name: array})
            if array.ndim and array.size:
                monkeypatch.setattr("qwen_mlx.checkpoints.source.BLOCK", 32)
                assert same({name: mx.concatenate(list(source.blocks(name)))}, {name: array})
        assert bool(mx.array_equal(source.rows("codes", 7, 11), tensors["codes"][7:11]))
        flat = tensors["full"].reshape(12, 2)
        assert bool(mx.array_equal(source.rows("full", 5, 9, flat=True), flat[5:9]))
        monkeypatch.setattr("qwen_mlx.checkpoints.source.BLOCK", 16)
        for announced in (Wanted("codes", 3, 30, False), Wanted("odd", 0, None, False), None):
            parts = list(source.blocks("full", 1, 12, True, announced))
            assert len(parts) == 6 and bool(mx.array_equal(mx.concatenate(parts), flat[1:12]))
            codes = mx.concatenate(list(source.blocks("codes", 3, 30)))  # whether it was announced or not
            assert bool(mx.array_equal(codes, tensors["codes"][3:30]))
        with pytest.raises(IndexError):
            source.rows("codes", 39, 41)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write(plan(arrays()), tmp_path / "model")
    with Source(tmp_path / "model") as source:
        os.truncate(tmp_path / "model" / "model.safetensors", 1200)
        with pytest.raises(CheckpointError, match=r"shrank while it was read; expected at least \d+ bytes; found"):
            for name in source.tensors:
                source.rows(name)


def test_a_disk_that_goes_away_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An external one, for example: a sentence, and nothing half-made."""
    target = tmp_path / "source"
    write(plan(arrays()), target)

    def gone(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with Source(target) as source:
        monkeypatch.setattr(os, "preadv", gone)
        with pytest.raises(
            CheckpointError, match=r"cannot be read; found Input/output error \(was the disk unplugged\?\)"
        ):
            list(source.blocks(next(iter(source.tensors))))
