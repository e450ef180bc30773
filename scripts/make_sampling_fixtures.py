"""Make tests/fixtures/sampling: what transformers makes of some logits, for tests/generation/test_sampling_parity.py.

Needs torch and transformers (torch 2.13.0 and transformers 5.23.0 made the committed files):

    python scripts/make_sampling_fixtures.py            # writes the files
    python scripts/make_sampling_fixtures.py --check    # makes them again and compares

The logits are not stored but made again from a seed, by additions and multiplications of uniform random numbers
only, which come out the same on every machine; a digest of each array is stored to be sure. Probabilities are
stored without their zeros. Cases in which rounding or an unstable sort would decide over a token are passed over.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "sampling"
# Distance that every filter's threshold keeps from every token, in probability (top-p) or ratio (min-p).
MARGIN = 2e-5

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 20},
    {"top_k": 300},
    {"top_k": 10**6},
    {"top_p": 0.8},
    {"top_p": 0.99},
    {"top_p": 0.01},
    {"min_p": 0.05},
    {"min_p": 0.5},
    {"min_p": 1.0},
    {"repetition_penalty": 1.1},
    {"repetition_penalty": 0.7},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 40, "min_p": 0.1},
    {"temperature": 0.9, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.03, "repetition_penalty": 1.3},
    {"temperature": 2.5, "top_k": 7, "top_p": 0.99, "min_p": 0.001, "repetition_penalty": 0.5},
]
KINDS = ("normal", "flat", "peaked", "masked", "negative", "tied")


def make_logits(kind: str, seed: int, vocab: int) -> np.ndarray:
    """Logits (vocab,) float32 of one kind: bell-shaped, flat, with few high peaks, half -inf, negative, coarse."""
    uniform = np.random.default_rng(seed).random((12, vocab))
    bell = uniform.sum(axis=0) - 6
    if kind == "flat":
        logits = 0.2 * uniform[0]
    elif kind == "peaked":
        logits = 25 * (uniform[0] * uniform[1]) ** 8 - 5
    elif kind == "masked":
        logits = np.where(uniform[1] < 0.5, -np.inf, 4 * bell)
    elif kind == "negative":
        logits = 3 * bell - 40
    elif kind == "tied":
        logits = np.round(3 * bell * 4) / 4
    else:
        logits = 3 * bell
    return logits.astype(np.float32)


def make_context(seed: int, vocab: int) -> list[int]:
    """Token ids of a prompt with its output: some of them twice, the first few likely to matter."""
    rng = np.random.default_rng(seed + 10**6)
    return [int(token) for token in (rng.random(24) * vocab).astype(np.int64)] + [0, vocab - 1, 0]


def digest(logits: np.ndarray) -> str:
    return hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest()[:16]


def processed(logits: np.ndarray, context: list[int], params: dict[str, Any]) -> tuple[np.ndarray, bool]:
    """Probabilities (vocab,) by transformers, and whether every threshold is clear of every token."""
    import torch
    from transformers.generation import logits_process as hf

    ids = torch.tensor([context])
    scores = torch.from_numpy(logits)[None]
    clear = True
    if params["repetition_penalty"] != 1:
        scores = hf.RepetitionPenaltyLogitsProcessor(params["repetition_penalty"])(ids, scores)
    if params["temperature"] != 1:
        scores = hf.TemperatureLogitsWarper(params["temperature"])(ids, scores)
    if params["top_k"] > 0:
        values = torch.sort(scores[0].double(), descending=True).values
        if params["top_k"] < len(values):
            kth = values[params["top_k"] - 1]
            others = values[(values != kth) & torch.isfinite(values)]
            clear &= bool(((others - kth).abs() > MARGIN).all())
            # Greedy takes one of tied tokens, transformers' top_k=1 all.
            clear &= params["top_k"] > 1 or int((values == kth).sum()) == 1
            clear &= int((values == kth).sum()) < 30 or not bool(torch.isfinite(kth))
        scores = hf.TopKLogitsWarper(params["top_k"])(ids, scores)
    if params["top_p"] < 1:
        values = torch.sort(scores[0].double()).values
        sums = values.softmax(-1).cumsum(-1)
        clear &= bool(((sums - (1 - params["top_p"])).abs() > MARGIN).all())
        before = scores
        scores = hf.TopPLogitsWarper(params["top_p"])(ids, scores)
        kept = before[torch.isfinite(scores)]
        gone = before[torch.isfinite(before) & ~torch.isfinite(scores)]
        clear &= len(gone) == 0 or bool(kept.min() - gone.max() > MARGIN)
    if params["min_p"] > 0:
        ratios = scores[0].double().softmax(-1)
        ratios = ratios / ratios.max()
        others = ratios[ratios != 1]
        clear &= bool(((others - params["min_p"]).abs() > MARGIN).all())
        scores = hf.MinPLogitsWarper(params["min_p"])(ids, scores)
    return scores.softmax(-1)[0].numpy(), clear


def make() -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """All cases, and the arrays they point into."""
    cases: list[dict[str, Any]] = []
    ids: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    start = 0
    wanted = [(kind, 1000, changes) for kind, changes in itertools.product(KINDS, COMBINATIONS)]
    wanted += [("normal", 257, changes) for changes in COMBINATIONS]
    # Wide enough for the search by blocks, with some tokens after the last whole block.
    wanted += [
        (kind, 20011, changes)
        for kind in ("normal", "masked", "tied")
        for changes in COMBINATIONS
        if 0 < changes.get("top_k", 0) < 10**6
    ]
    for number, (kind, vocab, changes) in enumerate(wanted):
        params = {**NEUTRAL, **changes}
        for attempt in range(400):
            seed = 1000 * number + attempt
            logits, context = make_logits(kind, seed, vocab), make_context(seed, vocab)
            result, clear = processed(logits, context, params)
            if clear:
                break
        else:
            print(f"no clear case of {kind} {vocab} {changes}")
            continue
        (nonzero,) = np.nonzero(result)
        # A distribution over everything is long; those of a few kinds are enough.
        if len(nonzero) > 600 and kind not in ("normal", "flat"):
            continue
        cases.append(
            {
                "kind": kind,
                "vocab": vocab,
                "seed": seed,
                "digest": digest(logits),
                "params": changes,
                "start": start,
                "stop": start + len(nonzero),
            }
        )
        start += len(nonzero)
        ids.append(nonzero.astype(np.uint16))
        probabilities.append(result[nonzero].astype(np.float32))
    return cases, {"ids": np.concatenate(ids), "probabilities": np.concatenate(probabilities)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    options = parser.parse_args()
    cases, arrays = make()
    if options.check:
        stored = np.load(FOLDER / "reference.npz")
        same = json.loads((FOLDER / "cases.json").read_text()) == cases
        same = same and all(np.array_equal(stored[name], array) for name, array in arrays.items())
        print("the same" if same else "different")
        return 0 if same else 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    (FOLDER / "cases.json").write_text(f"[\n{lines}\n]\n")
    np.savez_compressed(FOLDER / "reference.npz", **arrays)
    print(f"{len(cases)} cases, {arrays['ids'].size} probabilities")
    return 0


if __name__ == "__main__":
    sys.exit(main())
