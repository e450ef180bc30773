"""Short names for models: the table that ships with the package (`models.json`), and the user's own aliases.

In the table a name is `family:size`, or `family:size-variant` such as `qwen3:8b-4bit`. Every entry says which variant
is meant when none is named: 4 bits, but 8 or 16 for models under two billion parameters, which 4 bits hurt most.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, QwenError, UsageError

# No slash and no backslash: an alias is never a path and never a repository with its owner.
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")


@dataclass(frozen=True)
class Model:
    """One line of the table: variants such as "4bit" to repositories, and the one that is meant when none is named."""

    name: str
    default: str
    variants: Mapping[str, str]


@functools.lru_cache(maxsize=1)
def table() -> Mapping[str, Model]:
    """`qwen3:8b` -> its variants, in the order of the file."""
    text = Path(__file__).with_name("models.json").read_text(encoding="utf-8")
    return {name: Model(name, entry["default"], entry["variants"]) for name, entry in json.loads(text).items()}


def find(name: str) -> str | None:
    """The repository a short name stands for, None when it is not one of the table's.

    Raises:
        NotFound: the family is in the table, but not this size or variant; the message lists those that are.
    """
    known = table()
    wanted = name.lower()
    if wanted in known:
        model = known[wanted]
        return model.variants[model.default]
    stem, _, variant = wanted.rpartition("-")
    if stem in known:
        if repository := known[stem].variants.get(variant):
            return repository
        raise NotFound(
            f"{stem} has no variant {variant!r} in the table of names",
            expected=", ".join(f"{stem}-{each}" for each in known[stem].variants),
            hint="Any repository can be named in full: ORGANISATION/REPOSITORY",
        )
    family = wanted.partition(":")[0]
    sizes = [each for each in known if each.partition(":")[0] == family]
    if sizes:
        what = f"there is no size {wanted.partition(':')[2]!r} of {family}" if ":" in wanted else f"{family} has sizes"
        raise NotFound(what, expected=f"one of {', '.join(sizes)}")
    return None


def near(name: str) -> list[str]:
    """Up to three short names that may have been meant."""
    return difflib.get_close_matches(name.lower(), [*table(), *aliases()], n=3, cutoff=0.75)


# ------------------------------------------------------------------------------------------------ the user's own


def alias_file() -> Path:
    """Where the user's aliases are: a JSON object of names and what they stand for, which may be edited by hand."""
    return paths.data_home() / "aliases.json"


def aliases() -> dict[str, str]:
    """The user's aliases, sorted by name.

    Raises:
        QwenError: the file is damaged.
    """
    path = alias_file()
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise QwenError(f"{path} cannot be read", found=str(problem), hint="Mend it, or delete it.") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) and value for value in found.values()):
        raise QwenError(f"{path} cannot be read", expected="a JSON object of names and models", hint="Mend it.")
    return dict(sorted(found.items()))


def set_alias(name: str, target: str) -> None:
    """Let `name` stand for `target`; a table's name may be replaced, which is what an own table is for.

    Args:
        target: whatever a model can be named by; a folder with its whole path, as the alias works everywhere.

    Raises:
        UsageError: not a name an alias can have; or it would stand for itself.
    """
    if _ALIAS.fullmatch(name) is None or name == "demo":
        raise UsageError(
            f"{name!r} cannot be an alias", expected="letters, digits and . _ : + - in it, at most 64, and not demo"
        )
    known = {**aliases(), name: target}
    passed = [name]
    while (following := known.get(passed[-1])) is not None:
        if following == name:
            circle = " -> ".join([*passed, name])
            raise UsageError(f"the alias {name!r} would stand for itself", found=circle, hint="Name a model.")
        if following in passed:
            break  # a circle of others, which was there before
        passed.append(following)
    _write(known)


def remove_alias(name: str) -> str:
    """Forget an alias, and return what it stood for. Raises `NotFound`."""
    known = aliases()
    if name not in known:
        raise NotFound(f"there is no alias {name!r}", expected=", ".join(known) or "none is set")
    target = known.pop(name)
    _write(known)
    return target


def _write(known: Mapping[str, str]) -> None:
    alias_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with paths.atomic_write(alias_file(), private=True) as file:
        json.dump(dict(sorted(known.items())), file, ensure_ascii=False, indent=2)
        file.write("\n")
