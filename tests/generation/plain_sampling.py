"""The filters in plain float64 numpy, one row at a time, with nothing clever: what the tests compare against."""

from __future__ import annotations

import numpy as np

from qwen_mlx.generation.sampling import SamplingParams


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def plain_distribution(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, float]:
    """Probabilities (vocab,), and the smallest distance of a threshold from a token that is not exactly on it.

    Where that distance is near the rounding of float32, the result is a matter of luck.
    """
    scores = logits.astype(np.float64)
    if params.greedy:
        result = np.zeros(len(scores))
        result[scores.argmax()] = 1
        return result, 1.0
    scores = scores / params.temperature
    margin = 1.0
    if 0 < params.top_k < len(scores):
        scores = np.where(scores < np.sort(scores)[-params.top_k], -np.inf, scores)
    if params.top_p < 1:
        order = np.lexsort((np.arange(len(scores)), -scores))
        before = np.cumsum(softmax(scores)[order]) - softmax(scores)[order]
        margin = min(margin, np.abs(before[1:] - params.top_p).min(initial=1.0))
        gone = before >= params.top_p
        gone[0] = False
        scores[order[gone]] = -np.inf
    if params.min_p > 0:
        ratios = softmax(scores) / softmax(scores).max()
        off = np.abs(ratios - params.min_p)
        margin = min(margin, off[ratios != params.min_p].min(initial=1.0))
        scores = np.where(ratios < params.min_p, -np.inf, scores)
    return softmax(scores), margin


def penalized(logits: np.ndarray, prompt: list[int], output: list[int], params: SamplingParams) -> np.ndarray:
    """Logits (vocab,) after the three penalties, token by token from their definitions."""
    result = logits.astype(np.float64)
    for token in {*prompt, *output}:
        if 0 <= token < len(result):
            if result[token] > 0:
                result[token] /= params.repetition_penalty
            else:
                result[token] *= params.repetition_penalty
    for token in set(output):
        result[token] -= params.presence_penalty + params.frequency_penalty * output.count(token)
    return result
