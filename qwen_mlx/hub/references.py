"""What the name of a model means: a folder, a repository on a hub or in the local Hugging Face cache, or "demo".

Nothing here uses the network: `parse` says what a name means, `resolve` which folder on this machine it is, and a
model that is not here is an error that says how to get it.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, UsageError
from qwen_mlx.hub import catalogue

DEMO = "demo"

# One part of a repository's name as the hub allows it; it cannot be "..", and has no slash of either kind.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"({_PART})(?:/({_PART}))?")
# A branch, tag ("v1.0"), pull request ("refs/pr/3") or commit.
_REVISION = re.compile(rf"{_PART}(?:/{_PART}){{0,5}}")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_HUB_PREFIX = re.compile(
    r"(?:(?:https?://)?(?:hf\.co|huggingface\.co)/|modelscope:|https://(?:www\.)?modelscope\.cn/models/)", re.I
)
_LONGEST = 4096  # characters of a path
_MAX_ALIASES = 5  # an alias may stand for another one
_COMMIT = re.compile(r"[0-9A-Za-z_-]{1,64}")


def default_model() -> str:
    """The model that is meant when none is named: `QWEN_MLX_MODEL`, else the one that ships with the package."""
    return os.environ.get("QWEN_MLX_MODEL", "").strip() or DEMO


@dataclass(frozen=True)
class Reference:
    """A repository on a hub, and which part of it.

    Attributes:
        text: as it was asked for.
        repository: `organisation/name`.
        revision: a branch, tag or commit.
        source: which hub: Hugging Face or one that speaks its protocol (`HF_ENDPOINT`), or ModelScope.
        quant: of a repository of GGUF files, the one meant, such as "Q4_K_M".
    """

    text: str
    repository: str
    revision: str = "main"
    source: Literal["hf", "modelscope"] = "hf"
    quant: str | None = None

    @property
    def ref(self) -> str:
        """The name of the revision in the local cache, which keeps those of ModelScope apart."""
        return f"modelscope/{self.revision}" if self.source == "modelscope" else self.revision

    def __str__(self) -> str:
        prefix = "modelscope:" if self.source == "modelscope" else ""
        quant = f":{self.quant}" if self.quant else ""
        revision = "" if self.revision == _default_revision(self.source) else f"@{self.revision}"
        return f"{prefix}{self.repository}{quant}{revision}"


def resolve(name: str) -> Path:
    """The folder a model's name stands for. The network is not used.

    Args:
        name: "demo"; an existing folder; an alias of the user; a model made on this machine (`paths.own_models()`);
            a short name such as "qwen3:8b-4bit"; or `organisation/repository[@revision]`, also with `hf.co/` or
            `modelscope:` before it, looked up in the cache that `paths.hf_cache()` names. In this order: a folder goes
            before a repository of the same name.

    Returns:
        An absolute path of an existing folder. What is in it is not checked, only that a snapshot of a repository
        has a `config.json`, or the GGUF file that was named.

    Raises:
        NotFound: there is no such model on this machine.
        UsageError: it is a file, or neither a path nor a repository's name.
    """
    found = parse(name)
    return found if isinstance(found, Path) else _snapshot(found)


def parse(name: str) -> Path | Reference:
    """What a name means: an existing folder, or a repository that may or may not be on this machine.

    Raises:
        NotFound, UsageError: as `resolve`.
    """
    return _parse(name, _MAX_ALIASES)


def _parse(name: str, depth: int) -> Path | Reference:
    if not name.strip() or "\0" in name or len(name) > _LONGEST:
        raise UsageError(f"{reprlib.repr(name)} is not the name of a model", expected=_expected())
    if name == DEMO:
        return _demo()
    path = _as_path(name)
    kind = _kind(path)
    if kind == "folder":
        return path
    if kind == "file":
        raise UsageError(f"{path} is a file", expected="the folder of a model", hint=f"Name its folder: {path.parent}")
    if "/" not in name:
        target = catalogue.aliases().get(name)
        if target is not None:
            if depth == 0:
                raise UsageError(f"the alias {name!r} leads in a circle", hint="See `qwen-mlx alias ls`.")
            return _renamed(_parse(target, depth - 1), name)
        if _REPOSITORY.fullmatch(name) and _kind(paths.own_models() / name) == "folder":
            return (paths.own_models() / name).absolute()
        short, at, revision = name.partition("@")
        if (repository := catalogue.find(short)) is not None:
            return _reference(name, repository + at + revision, path)
    return _reference(name, name, path)


def _renamed(found: Path | Reference, text: str) -> Path | Reference:
    return found if isinstance(found, Path) else dataclasses.replace(found, text=text)


def _reference(text: str, name: str, path: Path) -> Reference:
    """`[modelscope:|hf.co/|https://huggingface.co/]repository[:quant][@revision]`."""
    source: Literal["hf", "modelscope"] = "hf"
    rest = name
    if prefix := _HUB_PREFIX.match(name):
        rest = name[prefix.end() :].removesuffix("/")
        source = "modelscope" if "modelscope" in prefix[0].lower() else "hf"
    repository, _, revision = rest.partition("@")
    repository, colon, quant = repository.partition(":")
    if _REPOSITORY.fullmatch(repository) is None or (prefix and "/" not in repository):
        if _looks_like_path(name) and not prefix:
            raise NotFound(f"there is no folder {path}", expected=_expected())
        raise UsageError(f"{name!r} is not the name of a model", expected=_expected())
    if colon and (_QUANT.fullmatch(quant) is None or "/" not in repository):
        raise UsageError(f"{name!r} is not the name of a model", expected=_expected(), hint=_did_you_mean(name))
    if "@" in rest and _REVISION.fullmatch(revision) is None:
        raise UsageError(
            f"{revision!r} in {name!r} is not a revision", expected="a branch, a tag or a commit after the @"
        )
    return Reference(text, repository, revision or _default_revision(source), source, quant or None)


def _default_revision(source: str) -> str:
    return "master" if source == "modelscope" else "main"


def cached_repositories() -> list[str]:
    """Names of the model repositories in the local Hugging Face cache, sorted."""
    try:
        folders = [entry.name for entry in paths.hf_cache().iterdir() if entry.is_dir()]
    except OSError:
        return []
    names = [name.removeprefix("models--").replace("--", "/", 1) for name in folders if name.startswith("models--")]
    return sorted(name for name in names if _REPOSITORY.fullmatch(name))


def absolute(name: str) -> str:
    """A name that means the same from any folder: that of a folder with its whole path, any other as it is."""
    path = _as_path(name)
    return str(path) if name != DEMO and _kind(path) == "folder" else name


def _demo() -> Path:
    folder = paths.demo_model()
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"the demo model is missing from {folder}",
            hint="Install qwen-mlx again, or name another model with --model",
        )
    return folder


def _as_path(name: str) -> Path:
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError:  # ~somebody, who does not exist
        return Path(name).absolute()


def _kind(path: Path) -> Literal["folder", "file"] | None:
    try:
        mode = path.stat().st_mode
    except OSError:  # not there, not ours to look at, or a name no file system takes
        return None
    return "folder" if stat.S_ISDIR(mode) else "file"


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _expected() -> str:
    return 'a folder, a name such as "qwen3:8b", a repository such as "Qwen/Qwen3-8B", or "demo"'


def snapshot_home(repository: str) -> Path:
    """The folder of a repository in the Hugging Face cache, whether it is there or not."""
    return paths.hf_cache() / f"models--{repository.replace('/', '--')}"


def _snapshot(reference: Reference) -> Path:
    repository, revision = reference.repository, reference.revision
    cache, home = paths.hf_cache(), snapshot_home(repository)
    if not home.is_dir():
        where = f"neither the folder {_as_path(reference.text)} nor, in the Hugging Face cache {cache}, {home.name}"
        meaning = "" if reference.text == str(reference) else f", which is {reference},"
        raise NotFound(
            f"there is no model {reference.text!r}{meaning} on this machine: {where}",
            hint=_how_to_get(reference, suggest=True),
        )
    commit = _commit(home, reference.ref)
    folder = home / "snapshots" / commit if commit else None
    if folder is None or not folder.is_dir():
        have = _revisions(home)
        raise NotFound(
            f"the Hugging Face cache {cache} has {repository}, but not its revision {revision!r}",
            found=", ".join(have) if have else "no complete download",
            hint=_how_to_get(reference),
        )
    complete = _has_gguf(folder, reference.quant) if reference.quant else (folder / "config.json").is_file()
    if not complete:
        lacks = f"GGUF file of {reference.quant}" if reference.quant else "config.json"
        raise NotFound(
            f"{repository} is not complete in the Hugging Face cache: {folder} has no {lacks}",
            hint=_how_to_get(reference),
        )
    return folder.absolute()


def has_quant(file: str, quant: str) -> bool:
    """Whether the name of a GGUF file says it holds `quant`: `a-Q4_K_M.gguf`, `Q4_K_M/a-00001-of-00002.gguf`."""
    pattern = rf"(?:^|[^A-Za-z0-9_]){re.escape(quant)}(?:[^A-Za-z0-9_]|$)"
    return file.lower().endswith(".gguf") and re.search(pattern, file, re.IGNORECASE) is not None


def _has_gguf(folder: Path, quant: str) -> bool:
    return any(has_quant(file.relative_to(folder).as_posix(), quant) for file in folder.rglob("*") if file.is_file())


def _commit(home: Path, revision: str) -> str | None:
    """The commit a branch or tag points to, a commit itself, or None."""
    try:
        commit = (home / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    # A damaged or hostile ref must not lead out of the snapshots.
    return commit if _COMMIT.fullmatch(commit) else None


def _revisions(home: Path) -> list[str]:
    """What can be named after the @: branches and tags first, then commits that none of them names."""
    refs = home / "refs"
    named = sorted(file.relative_to(refs).as_posix() for file in refs.rglob("*") if file.is_file())
    commits = {name: _commit(home, name) for name in named}
    snapshots = home / "snapshots"
    present = {entry.name for entry in snapshots.iterdir() if entry.is_dir()} if snapshots.is_dir() else set()
    usable = [name for name in named if commits[name] in present]
    return usable + sorted(present - set(commits.values()))


def _how_to_get(reference: Reference, *, suggest: bool = False) -> str:
    advice = _did_you_mean(reference.repository) if suggest and reference.text == reference.repository else None
    if advice and "/" not in reference.repository:
        return advice  # without its owner it cannot be downloaded anyway
    wanted = reference.text if "/" in reference.repository else f"ORGANISATION/{reference.repository}"
    return f"{advice + ' ' if advice else ''}To download it: `qwen-mlx pull {wanted}`"


def _did_you_mean(name: str) -> str | None:
    near = _near(name) or catalogue.near(name)
    return f"Did you mean {' or '.join(near)}?" if near else None


def _near(repository: str) -> list[str]:
    """Up to three cached repositories that may have been meant: the same without its owner, or a slip of the keys."""
    names = {name.lower(): name for name in [*cached_repositories(), DEMO]}
    wanted = repository.lower()
    tail = wanted.rpartition("/")[2]
    alike = [name for name in names if name.rpartition("/")[2] == tail]
    alike += difflib.get_close_matches(wanted, names, n=3, cutoff=0.75)
    tails = {name.rpartition("/")[2]: name for name in names}
    alike += [tails[match] for match in difflib.get_close_matches(tail, tails, n=3, cutoff=0.75)]
    return [names[name] for name in dict.fromkeys(alike)][:3]
