#!/usr/bin/env python3
"""Write tests/fixtures/parity: tiny models, and the logits other code computes with them.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    reference/bin/python scripts/make_parity_fixtures.py                   everything, about half a minute
    reference/bin/python scripts/make_parity_fixtures.py qwen3_next        cases that begin with a name
    reference/bin/python scripts/make_parity_fixtures.py --check           compare with what is there, write nothing
    reference/bin/python scripts/make_parity_fixtures.py --layers DIR qwen3_yarn
                                                           also the output of every layer, to find where a new family
                                                           goes wrong; DIR is not part of the fixtures

A fixture is a folder with config.json (as published), config_hf5.json (as transformers 5 spells it), reference.json
and reference.npz; `scripts/parity/recording.py` says what is in them. Weights are not stored: they are drawn again
from their seed (`scripts/parity/weights.py`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from scripts.parity.cases import Case, all_cases  # noqa: E402
from scripts.parity.recording import AGREEMENT, Recording, UnusableError, build, record  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "parity"


def as_json(value: Any, indent: str = "") -> str:
    """One line per key; lists stay on their line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    entries = (f"{inner}{json.dumps(key)}: {as_json(entry, inner)}" for key, entry in value.items())
    return "{\n" + ",\n".join(entries) + "\n" + indent + "}"


def write(recording: Recording, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, config in recording.configs.items():
        (folder / name).write_text(as_json(config) + "\n", encoding="utf-8")
    (folder / "reference.json").write_text(as_json(recording.info) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "reference.npz", **recording.arrays)


def changes(recording: Recording, folder: Path) -> list[str]:
    """What is different in the fixture from what was just computed, beyond the noise of float32."""
    found = []
    for name, config in recording.configs.items():
        if json.loads((folder / name).read_text(encoding="utf-8")) != config:
            found.append(f"{name} differs")
    info = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    if info["weights"]["parameters"] != recording.info["weights"]["parameters"]:
        found.append("the parameters have other names or shapes")
    with np.load(folder / "reference.npz") as stored:
        if set(stored) != set(recording.arrays):
            return [*found, f"other arrays: {sorted(set(stored) ^ set(recording.arrays))}"]
        for name, array in recording.arrays.items():
            difference = np.abs(stored[name] - array).max() if stored[name].shape == array.shape else np.inf
            if difference > (AGREEMENT if array.dtype == np.float32 else 0):
                found.append(f"{name} differs by {difference}")
    return found


def chosen(names: list[str]) -> list[Case]:
    """The cases with these names and, for a name that is none, those that begin with it; all without names."""
    cases = all_cases()
    exact = {case.name for case in cases}
    for name in names:
        if not any(case.name.startswith(name) for case in cases):
            raise SystemExit(f"there is no case {name}; --list shows all")
    starts = tuple(name for name in names if name not in exact)
    return [case for case in cases if not names or case.name in names or (starts and case.name.startswith(starts))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("cases", nargs="*", help="names, or beginnings of names; all without")
    parser.add_argument("--out", type=Path, default=FIXTURES)
    parser.add_argument("--list", action="store_true", help="show the cases")
    parser.add_argument("--check", action="store_true", help="compare with --out instead of writing")
    parser.add_argument("--layers", type=Path, metavar="DIR", help="write the output of every layer to DIR/CASE.npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failures = 0
    for case in chosen(options.cases):
        if options.list:
            print(f"{case.name:24} {case.notes}")
            continue
        try:
            recording = record(case)
        except UnusableError as problem:
            failures += 1
            print(f"FAILED {problem}", flush=True)
            continue
        folder = options.out / case.name
        if options.layers:
            options.layers.mkdir(parents=True, exist_ok=True)
            ids = torch.from_numpy(recording.arrays["input_ids"]).long()
            layers = build(case)[0].layer_outputs(ids).numpy()
            np.savez_compressed(options.layers / f"{case.name}.npz", layer_outputs=layers, **recording.arrays)
        elif options.check:
            found = changes(recording, folder)
            failures += bool(found)
            print(f"{case.name:24} {'; '.join(found) or 'as before'}", flush=True)
            continue
        else:
            write(recording, folder)
        mistake, effect = recording.info["weakest_detection"]
        print(f"{case.name:24} weakest detection {effect:.3f} ({mistake})", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
