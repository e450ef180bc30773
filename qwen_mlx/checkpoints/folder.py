"""A model folder: which of its files hold the weights, and what its JSON files say.

The layout is the hub's: `config.json`, and either `model.safetensors` or shards with an index. The names in
an index are a stranger's: they may only mean files of this folder. Nothing here knows about models.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.safetensors import Header, load_tensors, read_header
from qwen_mlx.checkpoints.strict_json import parse_object
from qwen_mlx.errors import CheckpointError, NotFound

MAX_JSON = 100_000_000  # bytes; the largest tokenizer.json of the family has 12 million
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PULL = "Download the model again (`qwen-mlx pull`)."
_MIXED = "The folder may mix two models; download the model again (`qwen-mlx pull`)."
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """Where the weights of a folder are.

    Attributes:
        folder: the model folder.
        files: the safetensors files, in the order of their names.
        index: tensor name to file name as the index claims, or None where there is no index.
    """

    folder: Path
    files: tuple[Path, ...]
    index: Mapping[str, str] | None

    def headers(self) -> dict[Path, Header]:
        """Read and check the header of every file, and that files and index agree with each other.

        Raises:
            CheckpointError: a damaged file, a tensor in two files, or an index that says otherwise.
        """
        headers = {file: read_header(file) for file in self.files}
        home: dict[str, Path] = {}
        for file, header in headers.items():
            for name in header.tensors:
                if name in home:
                    raise CheckpointError(
                        f"{self.folder} holds tensor {quote(name)} twice",
                        found=f"it in {home[name].name} and in {file.name}",
                        hint=_MIXED,
                    )
                home[name] = file
        for name, claimed in (self.index or {}).items():
            if name not in home or home[name].name != claimed:
                missing = name not in home
                raise CheckpointError(
                    f"{self.folder / INDEX} and the weights disagree",
                    expected=f"tensor {quote(name)} in {claimed}",
                    found="it in no file" if missing else f"it in {home[name].name}",
                    hint=_MIXED,
                )
        if not home:
            raise CheckpointError(f"{self.folder} holds no tensors", found="files without content", hint=_PULL)
        return headers


# ---------------------------------------------------------------------------------------------------- JSON


def read_json(path: Path, what: str = "a JSON object") -> dict[str, Any]:
    """Read a JSON file whose top is an object.

    Args:
        what: a noun phrase for messages, for example "the configuration of the model".

    Raises:
        NotFound: there is no such file.
        CheckpointError: not a file, too large, not UTF-8, not JSON, a key twice, NaN or Infinity, no object.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} cannot be read", expected=what, found="no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_JSON + 1)
    except FileNotFoundError:
        if not path.parent.exists():
            raise NotFound(f"there is no folder {path.parent}", hint="Check the path.") from None
        raise NotFound(f"{path} is missing", expected=what, hint=_PULL) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise CheckpointError(f"{path} cannot be read", expected=what, found=reason) from None
    if len(data) > MAX_JSON:
        raise CheckpointError(f"{path} is too large", expected=f"at most {MAX_JSON} bytes", found="more")
    return parse_object(data, str(path), what)


# ---------------------------------------------------------------------------------------------------- folder


def model_folder(path: Path | str) -> Path:
    """Check that `path` is a folder with a `config.json`, and return it (`~` expanded).

    Raises:
        NotFound: nothing is there.
        CheckpointError: a file, or a folder of something else.
    """
    folder = Path(path).expanduser()
    try:
        if not folder.exists():
            raise NotFound(
                f"there is no model folder {folder}",
                hint="Check the path, or download the model (`qwen-mlx pull`).",
            )
        if not folder.is_dir():
            hint = f"Give the folder it is in: {folder.parent}." if folder.suffix in (".safetensors", ".json") else None
            raise CheckpointError(
                f"{folder} is not a model", expected="a folder with a config.json", found="a file", hint=hint
            )
        if not (folder / "config.json").exists():
            raise CheckpointError(
                f"{folder} is not a model folder",
                expected="a config.json in it",
                found=_instead_of_config(folder),
                hint=_advice(folder),
            )
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise CheckpointError(f"{folder} cannot be read", found=reason) from None
    return folder


def model_name(folder: Path) -> str:
    """A short name: of the hub repository when the folder is a snapshot of one, else of the folder."""
    for part in reversed(folder.parts):
        if part.startswith("models--"):
            return part.split("--")[-1]
    return "Qwen-MLX demo" if folder.name == "demo" else folder.name


def _instead_of_config(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return "an adapter, which needs its base model"
    if any(folder.glob("*.gguf")):
        return "GGUF files"
    if (folder / "params.json").exists():
        return "a checkpoint in its maker's own format"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return ", ".join(quote(name, 40) for name in names[:5]) + (", …" if len(names) > 5 else "") or "an empty folder"


def _advice(folder: Path) -> str:
    """What to do about a folder without a config.json."""
    if any(folder.glob("*.gguf")):
        return "`qwen-mlx import` turns GGUF into a model that runs here."
    return "Give the folder of a whole model."


def find_weights(folder: Path) -> Weights:
    """Find the safetensors files of a model folder; nothing is read but the index.

    In this order: `model.safetensors`; what `model.safetensors.index.json` names; `model*.safetensors`; any
    other `*.safetensors` that is not an adapter. Numbered files (`-00002-of-00003`) have to be complete.

    Raises:
        NotFound: no weights at all.
        CheckpointError: a shard is missing, a name or link leaves the folder, only pickles, two sets of
            weights.
    """
    folder = Path(folder)
    try:
        index = _read_index(folder) if (folder / INDEX).exists() else None
        named = sorted(set(index.values())) if index is not None else []
        if (folder / SINGLE).exists() and SINGLE not in named:
            if named and all((folder / name).exists() for name in named):
                raise CheckpointError(
                    f"{folder} holds two sets of weights",
                    expected=f"either {SINGLE} or the files of {INDEX}",
                    found="both",
                    hint="Move one of them away.",
                )
            named, index = (
                [SINGLE],
                None,
            )  # the index was left over from a model that has been merged into one file
        if not named:
            named = _without_index(folder)
        missing = [name for name in named if not (folder / name).exists()]
        if missing:
            raise CheckpointError(
                f"{folder} is incomplete",
                expected=f"{len(named)} files of weights",
                found=f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} missing",
                hint=_PULL,
            )
        for name in named:
            check_inside(folder, name)
    except OSError as problem:
        raise CheckpointError(f"{folder} cannot be read", found=problem.strerror or str(problem)) from None
    return Weights(folder, tuple(folder / name for name in named), index)


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    weight_map = read_json(path, "the index of the weights").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path} cannot be followed", expected="a weight_map of tensor names to file names", hint=_PULL
        )
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise CheckpointError(
                f"{path} cannot be followed",
                expected=f"a file name for tensor {quote(name)}",
                found=reprlib.repr(file),
                hint=_PULL,
            )
    for file in sorted(set(weight_map.values())):
        _check_name(path, file)
    return weight_map


def _check_name(index: Path, name: str) -> None:
    """A name out of the index has to be a plain file name; it is about to be opened."""
    if name.endswith(_PICKLES):
        raise CheckpointError(
            f"{index} names pickled weights",
            expected="safetensors files",
            found=quote(name),
            hint="Pickles can run code and are never opened.",
        )
    plain = name.isprintable() and not re.search(r"[/\\:]", name) and not name.startswith(".") and len(name) <= 255
    if not plain or not name.endswith(".safetensors"):
        raise CheckpointError(
            f"{index} names a file that is refused",
            expected="plain names of safetensors files in the same folder",
            found=quote(name),
            hint="Do not use this folder unless you know who made it.",
        )


def check_inside(folder: Path, name: str) -> None:
    """Links may lead inside the folder or to the blobs of a Hugging Face cache, nowhere else."""
    path = folder / name
    real = path.resolve()
    if not _is_blob(real) and not real.is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{path} is a link that leaves the model folder",
            expected="a file in the folder or in a Hugging Face cache",
            found=f"{real}",
            hint="Copy the file into the folder if you trust it.",
        )


def _is_blob(real: Path) -> bool:
    """Whether this is content of a Hugging Face cache: of one repository, or shared by several (`blobs/ab/abcd...`)."""
    if real.parent.name == "blobs":
        return real.parent.parent.name.startswith("models--")
    store = real.parent.parent
    named = re.fullmatch(r"[0-9a-f]{64}", real.name) is not None and real.parent.name == real.name[:2]
    return named and store.name == "blobs" and (store / ".huggingface-shared-blobs").is_file()


def _without_index(folder: Path) -> list[str]:
    """The files mlx-lm would take: everything that begins with `model`, else everything but adapters."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    tensors = [name for name in names if name.endswith(".safetensors")]
    chosen = [name for name in tensors if name.startswith("model")]
    if not chosen:
        chosen = [
            name for name in tensors if not name.removesuffix(".safetensors").endswith(("adapters", "adapter_model"))
        ]
    if not chosen:
        raise _no_weights(folder, names)
    return _complete(folder, chosen)


def _no_weights(folder: Path, names: list[str]) -> CheckpointError | NotFound:
    def first(*suffixes: str) -> str | None:
        return next((name for name in names if name.endswith(suffixes)), None)

    if name := first(".safetensors"):
        return CheckpointError(f"{folder} holds only an adapter ({name})", hint="Give the folder of the base model.")
    if name := first(*_PICKLES):
        return CheckpointError(
            f"{folder} holds only pickle weights ({name}); refused",
            hint="Pickles can run code; take a repository with safetensors files.",
        )
    if name := first(".gguf"):
        return CheckpointError(
            f"{folder} holds only GGUF weights ({name})",
            hint="`qwen-mlx import` turns them into a model that runs here.",
        )
    return NotFound(f"{folder} holds no weights", expected=f"{SINGLE} or shards of it", hint=_PULL)


def _complete(folder: Path, names: list[str]) -> list[str]:
    """Check that files numbered `-i-of-n` belong together and are all there."""
    sets: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            numbers = sets.setdefault((match["stem"], int(match["count"])), {})
            numbers[int(match["number"])] = name
    if len(sets) > 1:
        found = " and ".join(next(iter(numbers.values())) for numbers in list(sets.values())[:2])
        raise CheckpointError(
            f"{folder} mixes shards of different models",
            expected="one set of shards",
            found=found,
            hint=_PULL,
        )
    for (stem, count), numbers in sets.items():
        # lazily: the count in a name can be anything
        gap = next((number for number in range(1, count + 1) if number not in numbers), None)
        if gap is not None:
            digits = len(next(_NUMBERED.fullmatch(name)["number"] for name in numbers.values()))  # type: ignore[index]
            raise CheckpointError(
                f"{folder} is incomplete",
                expected=f"{count} shards of {stem}",
                found=f"{stem}-{gap:0{digits}}-of-{count:0{digits}}.safetensors missing",
                hint=_PULL,
            )
        if len(numbers) != count:
            raise CheckpointError(
                f"{folder} holds shards with impossible numbers",
                expected=f"1 to {count}",
                found=", ".join(map(str, sorted(numbers)[:9])),
                hint=_PULL,
            )
    return names


def load_folder_tensors(folder: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, mx.array]:
    """Load every tensor of a model folder, lazily, names as in the files.

    Args:
        progress: called after each file with (tensors so far, tensors in all).

    Raises:
        NotFound, CheckpointError: as `find_weights`, `Weights.headers` and `load_tensors`. All headers are
            checked before the first file is loaded.
    """
    headers = find_weights(folder).headers()
    total = sum(len(header.tensors) for header in headers.values())
    arrays: dict[str, mx.array] = {}
    for file in headers:
        arrays.update(load_tensors(file))
        if progress is not None:
            progress(len(arrays), total)
    return arrays
