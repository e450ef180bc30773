"""Files are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qwen_mlx.paths import atomic_write, data_home, hf_cache


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.txt"
    with atomic_write(path) as file:
        file.write("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for name, private, expected in (("a", False, 0o644), ("b", True, 0o600)):
            with atomic_write(tmp_path / name, "wb", private=private) as file:
                file.write(b"x")
            assert mode(tmp_path / name) == expected
        (tmp_path / "a").chmod(0o640)
        with atomic_write(tmp_path / "a") as file:
            file.write("y")
        assert mode(tmp_path / "a") == 0o640
    finally:
        os.umask(before)


def test_places_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path / "mine"))
    assert data_home() == tmp_path / "mine"
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert hf_cache() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hf_cache() == tmp_path / "cache"
