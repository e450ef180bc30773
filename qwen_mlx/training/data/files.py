"""Which files a name means: one file, or the files of a split in a Hugging Face dataset folder.

Three layouts of folders are known: what `datasets` writes with `save_to_disk`; a repository of the hub, whose card may
say which files belong to which split; and files or folders that are named after splits. Scripts are never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_mlx.errors import DataError, NotFound, UsageError
from qwen_mlx.text.files import read_object
from qwen_mlx.training.data.rows import COMPRESSED, KINDS, DataFile, data_file

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_MAX_FILES = 100_000


def find_files(name: str, split: str) -> list[DataFile]:
    """The files of `name`, sorted.

    Args:
        name: a file or a folder.
        split: which part of a folder is meant; "validation" also stands for its other names ("valid", "dev", "val").

    Raises:
        NotFound: there is no such file, folder or split.
        DataError: a file or folder of no known kind.
    """
    if "\0" in name or not name.strip():
        raise UsageError(f"{name!r} is not the name of a file")
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return [data_file(path)]
        if not path.is_dir():
            raise NotFound(f"there is no file or folder {name}", hint="Data to learn from is a file on this machine.")
        files = _of_folder(path, split)
    except OSError as problem:
        raise DataError(f"{name} cannot be read", found=problem.strerror or str(problem)) from None
    kinds = sorted({file.kind for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"{path}: the split {split!r} has files of several kinds",
            expected="one kind",
            found=", ".join(kinds),
            hint="If they are copies of each other, name one file.",
        )
    return files


def _of_folder(folder: Path, split: str) -> list[DataFile]:
    if (folder / "dataset_dict.json").is_file():
        splits = read_object(folder / "dataset_dict.json", DataError).get("splits")
        known = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
        return _saved(_inside(folder, _chosen(split, known, folder)))
    if (folder / "state.json").is_file():
        return _saved(folder)
    if (listed := _card(folder)) is not None:
        return [data_file(path) for path in listed[_chosen(split, list(listed), folder)]]
    return _by_name(folder, split)


def _chosen(split: str, known: list[str], folder: Path) -> str:
    """The name under which `known` has the split. Raises `NotFound`."""
    names = next((names for names in _SPLITS.values() if split in names), (split,))
    for name in (split, *names):
        if name in known:
            return name
    raise NotFound(f"{folder} has no split {split!r}", found=", ".join(known) or "none at all")


def _saved(folder: Path) -> list[DataFile]:
    """What `Dataset.save_to_disk` wrote."""
    state = read_object(folder / "state.json", DataError)
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / 'state.json'} names no data files", expected="what `save_to_disk` writes")
    return [data_file(_inside(folder, str(name))) for name in names]


def _inside(folder: Path, name: str) -> Path:
    """A name that a file of the folder gave, which may lead nowhere else."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder}: {name!r} leads out of the folder")
    return folder / name


# ------------------------------------------------------------------------------------------------- dataset cards


def _card(folder: Path) -> dict[str, list[Path]] | None:
    """Split -> files, as the YAML at the top of README.md says; None where it says nothing."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    from huggingface_hub.repocard import metadata_load

    try:
        about = metadata_load(card) or {}
    except Exception as problem:  # whatever its YAML reader raises
        raise DataError(f"{card}: its settings cannot be read", found=" ".join(str(problem).split())[:200]) from None
    configs = about.get("configs")
    if not isinstance(configs, list) or not configs:
        return None
    config = _default_config([entry for entry in configs if isinstance(entry, Mapping)], card)
    patterns = config.get("data_files")
    if patterns is None:
        return None
    base = _inside(folder, str(config.get("data_dir") or "."))
    found = {name: _matching(base, wanted, card) for name, wanted in _patterns(patterns, card).items()}
    return {name: paths for name, paths in found.items() if paths}


def _default_config(configs: list[Mapping[str, Any]], card: Path) -> Mapping[str, Any]:
    defaults = [config for config in configs if config.get("default") is True]
    defaults = defaults or [config for config in configs if config.get("config_name") == "default"]
    if len(configs) == 1 or defaults:
        return (defaults or configs)[0]
    names = ", ".join(str(config.get("config_name")) for config in configs)
    raise DataError(f"{card} describes several data sets, none of them the default", found=names, hint="Name a file.")


def _patterns(value: Any, card: Path) -> dict[str, list[str]]:
    if isinstance(value, str):
        return {"train": [value]}
    if isinstance(value, Mapping):
        value = [{"split": key, "path": item} for key, item in value.items()]
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return {"train": list(value)}
    found: dict[str, list[str]] = {}
    for entry in value if isinstance(value, list) else [None]:
        path = entry.get("path") if isinstance(entry, Mapping) else None
        paths = [path] if isinstance(path, str) else path
        if entry is None or not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
            raise DataError(
                f"{card}: 'data_files' cannot be followed", expected="split and path", found=repr(entry)[:80]
            )
        found.setdefault(str(entry.get("split", "train")), []).extend(paths)
    return found


def _matching(base: Path, patterns: list[str], card: Path) -> list[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        _inside(base, pattern)
        try:
            found.update(path for path in base.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError) as problem:
            raise DataError(f"{card}: {pattern!r} is no pattern of file names", found=str(problem)) from None
    return sorted(found)


# ------------------------------------------------------------------------------------------------- names of files


def _by_name(folder: Path, split: str) -> list[DataFile]:
    """Files whose names, or whose folders' names, say the split; where none says any, all are `train`."""
    found: dict[str, list[Path]] = {}
    for path in _known_files(folder):
        found.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if not found:
        raise NotFound(f"{folder} has no file to learn from", expected=f"files that end in {', '.join(KINDS)}")
    if set(found) == {""}:
        found = {"train": found[""]}
    found.pop("", None)
    return [data_file(path) for path in found[_chosen(split, list(found), folder)]]


def _known_files(folder: Path) -> Iterator[Path]:
    skipped = {"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json", "metadata.json"}
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number > _MAX_FILES:
            raise DataError(f"{folder} has too many files", expected=f"at most {_MAX_FILES:,}", hint="Name one file.")
        ending = (path.with_suffix("") if path.suffix.lower() == COMPRESSED else path).suffix.lower()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if ending in KINDS and not hidden and path.name not in skipped and path.is_file():
            yield path


def _split_of(path: Path) -> str:
    for part in (path.name, *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in _SPLITS.items():
            if any(name in words for name in names):
                return split
    return ""
