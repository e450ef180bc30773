"""Perplexity, divergence and the events of `eval`, against float64 and against models whose numbers are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load, paths
from qwen_mlx.checkpoints.convert import iter_convert
from qwen_mlx.checkpoints.folder import load_folder_tensors
from qwen_mlx.checkpoints.quantize import iter_quantize
from qwen_mlx.errors import Cancelled, NotFound, QwenError, UsageError
from qwen_mlx.evaluation.divergence import divergence
from qwen_mlx.evaluation.evaluate import iter_evaluate
from qwen_mlx.evaluation.perplexity import Losses, log_probabilities, log_sum_exp, pieces, sum_of_rows, window_losses
from qwen_mlx.events import CancelToken, ConvertModel, Evaluated, EvaluateModel, Progress, QuantizeModel
from qwen_mlx.text.corpus import windows
from qwen_mlx.text.tokenizer import Tokenizer
from tests.checkpoints import originals
from tests.models import tiny
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip
import numpy as np

CONFIG = originals.CONFIGS["qwen3_untied"]
TEXT = "The quick brown fox doesn't jump over 12 lazy dogs. 你好，世界。今天天气很好。 def main(x): return x + 1\n" * 6


def softmax64(logits: np.ndarray) -> np.ndarray:
    """log(softmax) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def evaluate(model: Path, **options: Any) -> Evaluated:
    *_, last = iter_evaluate(EvaluateModel(str(model), **options))
    assert isinstance(last, Evaluated)
    return last


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return originals.save(tmp_path_factory.mktemp("models") / "model", CONFIG, dtype="float32")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return str(file)


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("vocabulary", [5, 2047, 2048, 2049, 151936])
def test_sums_over_a_vocabulary_are_exact_to_six_digits(vocabulary: int) -> None:
    logits = (np.random.default_rng(0).standard_normal((3, vocabulary)) * 3).astype(np.float32)
    expected = np.log(np.exp(logits.astype(np.float64)).sum(axis=-1))
    assert np.abs(np.array(log_sum_exp(mx.array(logits))) - expected).max() < 4e-6
    p = np.exp(softmax64(logits)).astype(np.float32)
    assert np.abs(np.array(sum_of_rows(mx.array(p))) - 1).max() < 2e-6
    assert np.abs(np.array(log_probabilities(mx.array(logits))) - softmax64(logits)).max() < 1e-5


@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.3, 3.0, 30.0])
def test_divergence_is_that_of_float64(size: float) -> None:
    """Small ones too, which rounding would drown; and with tokens that one of the two thinks impossible."""
    random = np.random.default_rng(1)
    a = (random.standard_normal((8, 20000)) * 3).astype(np.float32)
    b = (a + size * random.standard_normal(a.shape)).astype(np.float32)
    a[0, :100] = -300
    p, q = softmax64(a), softmax64(b)
    expected = (np.exp(p) * (p - q)).sum(axis=-1)
    found = np.array(divergence(log_probabilities(mx.array(a)), log_probabilities(mx.array(b))))
    assert np.isfinite(found).all() and (found >= 0).all()
    assert np.allclose(found, expected, rtol=2e-3, atol=1e-9)


def test_no_divergence_from_itself() -> None:
    p = log_probabilities(mx.random.normal((4, 3000), key=mx.random.key(0)))
    assert np.array(divergence(p, p)).tolist() == [0, 0, 0, 0]


def test_pieces_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_mlx.evaluation.perplexity._LOGITS", 700)
    hidden = mx.arange(23)[:, None]
    found = list(pieces(hidden, 100))
    assert [start for start, _ in found] == [0, 7, 14, 21]
    assert mx.concatenate([piece for _, piece in found]).tolist() == hidden.tolist()


def test_losses() -> None:
    losses = Losses()
    losses.add(mx.array([1.0, 2.0]))
    losses.add(mx.array([6.0]))
    assert losses.count == 3 and losses.mean == 3 and losses.perplexity == pytest.approx(math.exp(3))
    deviation = np.std([1, 2, 6], ddof=1)
    assert losses.perplexity_error == pytest.approx(math.exp(3) * deviation / 3**0.5)
    hopeless = Losses()
    hopeless.add(mx.array([1e4]))
    assert hopeless.perplexity == math.inf


# ------------------------------------------------------------------------------------------------- models


def test_perplexity_of_a_model(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window is read from its own beginning, and each of its tokens but the first is predicted."""
    model = load(folder)
    ids = model.tokenizer.encode(TEXT)
    expected = []
    for start in range(0, len(ids), 50):
        window = ids[start : start + 50]
        if len(window) > 1:
            logits = softmax64(np.array(model.decoder(mx.array([window]))[0]))
            expected += [-logits[i, window[i + 1]] for i in range(len(window) - 1)]
    for budget in (1 << 24, 448 * 7):  # in one piece, and in several
        monkeypatch.setattr("qwen_mlx.evaluation.perplexity._LOGITS", budget)
        found = evaluate(folder, text=text, context=50)
        assert found.tokens == len(expected) and found.context == 50 and found.divergence is None
        assert found.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-5)
        assert found.perplexity_error == pytest.approx(
            found.perplexity * np.std(expected, ddof=1) / len(expected) ** 0.5, rel=1e-4
        )


def test_a_model_that_expects_everything_alike(tmp_path: Path, text: str) -> None:
    tensors = originals.published(CONFIG)
    tensors["lm_head.weight"] = mx.zeros_like(tensors["lm_head.weight"])
    model = tiny_text.write_tokenizer_json(tiny.save(tmp_path / "model", CONFIG, tensors))
    assert evaluate(model, text=text).perplexity == pytest.approx(CONFIG["vocab_size"], rel=1e-6)


def test_against_itself_and_against_a_quantized_one(folder: Path, text: str, tmp_path: Path) -> None:
    same = evaluate(folder, against=str(folder), text=text, context=64).divergence
    assert same is not None and same.kl == same.kl_max == 0 and same.same_top == 1
    found = {}
    for bits in (8, 4, 2):
        list(iter_quantize(QuantizeModel(str(folder), str(tmp_path / str(bits)), bits=bits, dtype="float32")))
        found[bits] = evaluate(tmp_path / str(bits), against=str(folder), text=text, context=64)
    kl = {bits: one.divergence.kl for bits, one in found.items() if one.divergence is not None}
    assert 0 < kl[8] < 0.02 < kl[4] < kl[2]
    divergence8 = found[8].divergence
    assert divergence8 is not None and divergence8.same_top > 0.9 and divergence8.kl < divergence8.kl_99
    assert divergence8.reference_perplexity == pytest.approx(evaluate(folder, text=text, context=64).perplexity)
    alone = evaluate(tmp_path / "4", text=text, context=64)
    assert found[4].perplexity == pytest.approx(alone.perplexity, rel=1e-5)


def test_divergence_of_models_by_hand(folder: Path, text: str, tmp_path: Path) -> None:
    tensors = load_folder_tensors(folder)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] * 0.5
    other = tiny_text.write_tokenizer_json(tiny.save(tmp_path / "other", CONFIG, tensors))
    ids = mx.array([load(folder).tokenizer.encode(TEXT)[:60]])
    p = softmax64(np.array(load(folder).decoder(ids)[0, :-1]))
    q = softmax64(np.array(load(other).decoder(ids)[0, :-1]))
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    found = evaluate(other, against=str(folder), text=text, context=60, limit=60).divergence
    assert found is not None and found.same_top == 1
    assert found.kl == pytest.approx(kl.mean(), rel=1e-3) and found.kl_max == pytest.approx(kl.max(), rel=1e-3)
    assert found.kl_error == pytest.approx(kl.std(ddof=1) / 59**0.5, rel=1e-3)


def test_events_and_cancelling(folder: Path, text: str) -> None:
    events = list(iter_evaluate(EvaluateModel(str(folder), text=text, context=32)))
    progress = [event for event in events if isinstance(event, Progress) and event.stage == "evaluate"]
    assert progress[-1].done == progress[-1].total == events[-1].tokens  # type: ignore[union-attr]
    token = CancelToken()
    steps = iter_evaluate(EvaluateModel(str(folder), text=text, context=32), token)
    next(steps)
    token.cancel()
    with pytest.raises(Cancelled):
        list(steps)


# ---------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("name", ["calibration", "evaluation"])
def test_bundled_texts_are_of_many_kinds(name: Any) -> None:
    words = paths.sample_text(name).read_text(encoding="utf-8")
    assert 10_000 < len(words.encode()) < 200_000
    for kind in (
        "def ",
        "<|im_start|>",
        "SELECT" if name == "calibration" else "CREATE TABLE",
        "，",
        "</think>",
        "|--",
    ):
        assert kind in words
    assert words.count("<|im_start|>") == words.count("<|im_end|>")


def test_bundled_texts_have_nothing_in_common() -> None:
    """Or a calibrated model would be judged by what it was made with."""
    lines = [
        {line.strip() for line in paths.sample_text(name).read_text(encoding="utf-8").splitlines() if len(line) > 40}
        for name in ("calibration", "evaluation")
    ]
    assert lines[0].isdisjoint(lines[1])


def test_windows() -> None:
    tokenizer = Tokenizer(tiny_text.description())
    ids = tokenizer.encode(TEXT)
    assert windows(tokenizer, TEXT, 10) == [ids[i : i + 10] for i in range(0, len(ids), 10) if len(ids) - i > 1]
    assert [len(window) for window in windows(tokenizer, TEXT, 10, limit=21)] == [10, 10], "one token predicts nothing"
    with pytest.raises(UsageError, match="too short; expected two tokens or more; found 0"):
        windows(tokenizer, "", 10)


def test_what_cannot_be_evaluated(folder: Path, text: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        evaluate(folder, text=str(tmp_path / "nothing.txt"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QwenError, match="is no text; expected a file in UTF-8"):
        evaluate(folder, text=str(tmp_path / "binary"))
    for options in ({"context": 1}, {"limit": 1}):
        with pytest.raises(UsageError, match="is too small; expected 2 tokens"):
            evaluate(folder, text=text, **options)
    other = originals.save(tmp_path / "other", CONFIG)
    description = json.loads((other / "tokenizer.json").read_text())
    description["model"]["merges"] = description["model"]["merges"][:20]
    (other / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="cannot be compared; expected models with the same vocabulary"):
        evaluate(folder, against=str(other), text=text)


def test_a_padded_vocabulary_is_compared_without_its_padding(folder: Path, text: str, tmp_path: Path) -> None:
    config = CONFIG | {"vocab_size": CONFIG["vocab_size"] + 64}
    tensors = load_folder_tensors(folder)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        tensors[name] = mx.concatenate([tensors[name], mx.zeros((64, tensors[name].shape[1]))])
    other = tiny_text.write_tokenizer_json(tiny.save(tmp_path / "other", config, tensors))
    found = evaluate(other, against=str(folder), text=text, context=64).divergence
    assert found is not None and found.kl < 1e-9


def test_the_last_window_may_be_short(folder: Path) -> None:
    decoder = load(folder).decoder
    assert [part.shape for part in window_losses(decoder, [3, 4])] == [(1,)]


def test_a_converted_model_diverges_nowhere(folder: Path, text: str, tmp_path: Path) -> None:
    list(iter_convert(ConvertModel(str(folder), str(tmp_path / "new"), dtype="float32")))
    found = evaluate(tmp_path / "new", against=str(folder), text=text, context=64).divergence
    assert found is not None and found.kl == 0
