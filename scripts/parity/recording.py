"""Run a reference engine on one case, and refuse to record what could not tell right from wrong.

Greedy tokens and routing must not hang on rounding, so prompts are searched for clear margins; and every parameter
made trivial, and every misreading of the configuration, has to move some logit far beyond the tolerance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers

from scripts.parity.cases import Case, patched
from scripts.parity.configs import Config
from scripts.parity.engine import Engine, Transformers, largest, same_tensors
from scripts.parity.plain_engines import DualChunk, Qwen1
from scripts.parity.weights import Arrays, fingerprint, hub_layout, is_zero_centred, kind_of, random_weights

TOLERANCE = 2e-4  # of an implementation in float32, absolute; logits are of the order of 1 to 10
AGREEMENT = TOLERANCE / 4  # between two ways of computing the same thing in torch
DETECTION = 5e-3  # how far every mistake has to move some logit
GREEDY_MARGIN = 2e-2  # between the best and the second logit
ROUTER_MARGIN = 2e-3  # between the logits of the last chosen and the first refused expert
GREEDY_TOKENS = 16
BATCH_TOKENS = 8
ATTEMPTS = 200

ENGINES = {"transformers": Transformers, "qwen1": Qwen1, "dual_chunk": DualChunk}


class UnusableError(Exception):
    """A case that would make a bad fixture."""


@dataclasses.dataclass
class Recording:
    """What becomes one folder of fixtures.

    Attributes:
        arrays: input_ids (1, T), logits (1, T, V), greedy_ids (16,), greedy_logits (16, V); decode_logits (1, T, V)
            where they differ from logits; for a left-padded batch batch_input_ids, batch_attention_mask (B, Tb),
            batch_logits (B, Tb, V), zero on padding, and batch_greedy_ids (B, 8). Ids are int32.
        info: how to use them.
        configs: `config.json`, and `config_hf5.json` as transformers 5 spells it.
    """

    arrays: Arrays
    info: dict[str, Any]
    configs: dict[str, Config]


def build(case: Case, config: Config | None = None) -> tuple[Engine, Arrays]:
    """The engine of a case with its random weights, and these weights."""
    engine = ENGINES[case.engine](case, config)
    arrays = random_weights(engine.shapes(), case.seed, case.model_type, case.small_rows)
    engine.load(arrays)
    return engine, arrays


def record(case: Case) -> Recording:
    """Compute everything about one case.

    Raises:
        UnusableError: the case cannot detect a mistake, or two ways of computing it disagree.
    """
    engine, weights = build(case)
    ids, greedy_margin, router_margin = choose_prompt(case, engine)
    full = engine.logits(ids)
    tokens, rows = engine.greedy(ids, GREEDY_TOKENS)
    arrays = {"input_ids": ids, "logits": full, "greedy_ids": torch.tensor(tokens), "greedy_logits": rows}
    info: dict[str, Any] = {
        "case": case.name,
        "model_type": case.config["model_type"],
        "notes": case.notes,
        "tolerance": TOLERANCE,
        "engine": case.engine,
        "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
    }

    pieces = [case.length // 2, 3, *[1] * (case.length - case.length // 2 - 3)]
    decoded = decode(engine, ids, pieces)
    difference = largest(decoded - full)
    info |= {"decode_pieces": pieces, "decode_equals_full": case.decode_equals_full}
    if case.decode_equals_full:
        agree(case, "decoding through a cache", difference)
    else:
        arrays["decode_logits"] = decoded
        if difference < DETECTION:
            raise UnusableError(f"{case.name}: decoding was expected to differ from one forward")
    differences = {"decode": difference, **engine.checks(weights, ids, full)}

    if case.batch:
        batch, alone = record_batch(case, engine)
        info["padding_is_neutral"] = alone <= AGREEMENT
        differences["batch"] = alone
        arrays |= batch
    library = engine.generate(ids, torch.ones_like(ids), GREEDY_TOKENS)
    if library is not None and library[0].tolist() != tokens:
        raise UnusableError(f"{case.name}: generate() and stepwise decoding differ")

    published = hub_layout(weights, case.config, case.seed, case.extra, case.fused_experts)
    configs = {"config.json": case.config}
    if isinstance(engine, Transformers):
        configs["config_hf5.json"] = check_files(case, engine, weights, published, ids, full)
    info["differences"] = {name: rounded(value) for name, value in differences.items()}
    for name in differences.keys() - {"decode", "batch"}:
        agree(case, name, differences[name])

    mistake, effect = min(mistakes(case, engine, weights, ids, full), key=lambda pair: pair[1])
    if effect < DETECTION:
        raise UnusableError(f"{case.name}: a mistake in {mistake} moves no logit by more than {effect}")
    info |= {
        "weakest_detection": [mistake, rounded(effect)],
        "greedy_margin": rounded(greedy_margin),
        "router_margin": None if router_margin is None else rounded(router_margin),
        "weights": {
            "seed": case.seed,
            "model_type": case.model_type,
            "small_rows": case.small_rows,
            "extra": list(case.extra),
            "fused_experts": case.fused_experts,
            "fingerprint": fingerprint(published),
            "parameters": {name: list(shape) for name, shape in sorted(engine.shapes().items())},
        },
    }
    return Recording({name: plain(array) for name, array in arrays.items()}, info, configs)


# -------------------------------------------------------------------------------------------------- parts


def choose_prompt(case: Case, engine: Engine) -> tuple[torch.Tensor, float, float | None]:
    """A random prompt (1, T) whose greedy continuation and routing are clear, and both margins."""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([case.seed, 1000 + attempt])
        ids = torch.from_numpy(rng.integers(1, prompt_vocabulary(case), (1, case.length)))
        lead, routing = margins(engine, ids, GREEDY_TOKENS)
        if lead >= GREEDY_MARGIN and (routing is None or routing >= ROUTER_MARGIN):
            return ids, lead, routing
    raise UnusableError(f"{case.name}: no prompt with clear margins")


def margins(engine: Engine, ids: torch.Tensor, count: int) -> tuple[float, float | None]:
    """The smallest lead of a greedy token over the next best, and the smallest margin of a router."""
    tokens, rows = engine.greedy(ids, count)
    best, second = rows.topk(2).values.unbind(-1)
    return float((best - second).min()), engine.router_margin(torch.cat([ids, torch.tensor([tokens])], 1))


def prompt_vocabulary(case: Case) -> int:
    """Ids below this are text."""
    return case.config.get("image_token_id", case.text_config["vocab_size"])


def decode(engine: Engine, ids: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    """Feed the prompt through a cache, so many tokens at a time."""
    cache = engine.start()
    return torch.cat([engine.step(cache, piece) for piece in ids.split(pieces, 1)], 1)


def record_batch(case: Case, engine: Engine) -> tuple[dict[str, torch.Tensor], float]:
    """Three texts of different length, padded on the left; and the largest change of a logit by the padding."""
    width = min(case.length, 20) if case.engine == "transformers" else case.length
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([case.seed, 2000 + attempt])
        texts = [
            torch.from_numpy(rng.integers(1, prompt_vocabulary(case), (1, length)))
            for length in (width, max(width - 5, 1), max(width - 11, 2))
        ]
        found = [margins(engine, text, BATCH_TOKENS) for text in texts]
        if all(lead >= GREEDY_MARGIN and (routing or math.inf) >= ROUTER_MARGIN for lead, routing in found):
            break
    else:
        raise UnusableError(f"{case.name}: no batch with clear margins")
    ids, mask = (torch.zeros(len(texts), width, dtype=torch.int64) for _ in range(2))
    for row, text in enumerate(texts):
        ids[row, width - text.shape[1] :] = text
        mask[row, width - text.shape[1] :] = 1
    logits = engine.logits(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)) * mask[..., None]
    alone = max(largest(logits[row, mask[row] == 1] - engine.logits(text)[0]) for row, text in enumerate(texts))
    arrays = {"batch_input_ids": ids, "batch_attention_mask": mask, "batch_logits": logits}
    library = engine.generate(ids, mask, BATCH_TOKENS)
    if library is not None:
        agree(case, "a padded batch", alone)
        if library.tolist() != [engine.greedy(text, BATCH_TOKENS)[0] for text in texts]:
            raise UnusableError(f"{case.name}: padding changes what is generated")
        arrays["batch_greedy_ids"] = library
    return arrays, alone


def check_files(
    case: Case, engine: Transformers, weights: Arrays, published: Arrays, ids: torch.Tensor, full: torch.Tensor
) -> Config:
    """Check that both spellings of the configuration load with the published layout; the second spelling."""
    saved, config = engine.saved()
    ours = hub_layout(weights, case.config, case.seed, (), fused_experts=False)
    if not same_tensors(saved, ours):
        raise UnusableError(f"{case.name}: save_pretrained writes other tensors than our layout")
    for spelling in (case.config, config):
        agree(case, "loading the files", engine.difference_when_loaded(published, spelling, ids, full))
    return config


def mistakes(
    case: Case, engine: Engine, weights: Arrays, ids: torch.Tensor, full: torch.Tensor
) -> Iterator[tuple[str, float]]:
    """Everything that could be forgotten, and the largest change of a logit if it were."""
    for name, parameter in engine.parameters().items():
        if any(part in name for part in case.insensitive):
            continue
        keep = parameter.detach().clone()
        norm = kind_of(name, keep.dim()) in ("norm", "head norm") and not is_zero_centred(name, case.model_type)
        with torch.no_grad():
            parameter.fill_(1.0 if norm else 0.0)
            yield name, largest(engine.logits(ids) - full)
            parameter.copy_(keep)
    for label, patch in case.mistakes.items():
        careless = ENGINES[case.engine](case, patched(case.config, patch))
        careless.load(weights)
        yield f"the configuration: {label}", largest(careless.logits(ids) - full)


def agree(case: Case, what: str, difference: float) -> None:
    if not difference <= AGREEMENT:
        raise UnusableError(f"{case.name}: {what} changes a logit by {difference}")


def rounded(value: float) -> float:
    """Three digits: enough to read, and the same on every machine."""
    return float(f"{value:.2e}")


def plain(array: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(array.numpy(), dtype=np.float32 if array.is_floating_point() else np.int32)
