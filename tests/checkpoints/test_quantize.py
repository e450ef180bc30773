"""Quantizing whole models: what is written, how good it is, what is refused, and that a killed run harms nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.folder import load_folder_tensors
from qwen_mlx.checkpoints.quantize import check_options, iter_quantize
from qwen_mlx.errors import CheckpointError, UsageError
from qwen_mlx.events import ConversionPlanned, Notice, Progress, QuantizeModel
from tests.checkpoints import originals
from tests.checkpoints.test_convert import convert, differences, quantize
from tests.models import tiny

import mlx.core as mx  # isort: skip
import numpy as np

IDS = mx.array([[1, 5, 9, 2, 60, 33]])
CONFIG = originals.CONFIGS["qwen3"] | {"intermediate_size": 256}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return originals.save(tmp_path_factory.mktemp("models") / "original", CONFIG)


def weight_error(original: Path, packed: Path, work: Path) -> float:
    """Root mean square of the changes of all weights, relative to that of the weights, read in float32."""
    convert(packed, work, dequantize=True, dtype="float32", force=True)
    before, after = load_folder_tensors(original), load_folder_tensors(work)
    pairs = [(np.array(before[n].astype(mx.float32)), np.array(after[n])) for n in before if before[n].ndim == 2]
    return float((sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs)) ** 0.5)


# ------------------------------------------------------------------------------------------------- quality


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.12), (3, 0.1), (4, 0.07), (6, 0.05), (8, 0.15)])
def test_the_default_rounding_is_better_than_that_of_mlx(
    bits: int, gain: float, original: Path, tmp_path: Path
) -> None:
    errors = {}
    for rounding in ("mlx", "best"):
        finished = quantize(original, tmp_path / rounding, bits=bits, rounding=rounding)
        errors[rounding] = weight_error(original, tmp_path / rounding, tmp_path / "work")
        sizes = {name: array.nbytes for name, array in load_folder_tensors(tmp_path / rounding).items()}
        assert sum(sizes.values()) == finished.plan.nbytes
    assert errors["best"] < (1 - gain) * errors["mlx"]
    assert finished.error == pytest.approx(errors["best"], rel=0.02)


def test_calibrated_rounding_keeps_the_outputs_closer(original: Path, tmp_path: Path) -> None:
    """The tiny model gets inputs of very different size, as large ones have; then the text tells what matters."""
    scales = mx.exp(1.5 * mx.random.normal((128,), key=mx.random.key(5)))
    tensors = load_folder_tensors(original)
    for name in list(tensors):
        if "layernorm" in name:
            tensors[name] = (tensors[name] * scales).astype(mx.bfloat16)
    source = tiny.save(tmp_path / "source", CONFIG, tensors)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (source / file).write_bytes((original / file).read_bytes())
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox. 你好，世界。 def main(x): return x + 1\n" * 40)
    expected = load(source).decoder(IDS)
    errors = {}
    for calibrate in ("none", "activations", "gptq"):
        options: dict[str, Any] = {"bits": 3, "calibrate": calibrate}
        if calibrate != "none":
            options["calibration_text"] = str(text)
        quantize(source, tmp_path / calibrate, **options)
        got = load(tmp_path / calibrate, weights="expanded").decoder(IDS)
        errors[calibrate] = float(mx.square(got - expected).mean())
    assert errors["activations"] < 0.8 * errors["none"]
    assert errors["gptq"] < 0.9 * errors["activations"]


@pytest.mark.parametrize("family", originals.CONFIGS)
def test_every_family_can_be_calibrated(family: str, tmp_path: Path) -> None:
    from qwen_mlx.checkpoints.calibrate import iter_mean_squares
    from qwen_mlx.checkpoints.rewrite import Original

    source = originals.save(tmp_path / "source", originals.CONFIGS[family])
    text = tmp_path / "text.txt"
    text.write_text("Hello hello world, 12 lazy dogs. 今天天气很好。\n" * 10)
    steps = iter_mean_squares(source, str(text))
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as finished:
            found = finished.value
            break
    assert [event.done for event in events] == [1, 2, 3] and {type(event) for event in events} == {Progress}
    with Original.open(source).source:
        for matrix in Original.open(source).matrices:
            if matrix.own != "embed_tokens":
                assert found[matrix.own].shape == (matrix.shape[-1],) and (found[matrix.own] > 0).all()


@pytest.mark.parametrize("family", ["qwen2", "qwen3_moe", "qwen3_next"])
def test_gptq_of_every_kind_of_layer(family: str, tmp_path: Path) -> None:
    """Dense, with experts, with DeltaNet: every matrix that reads something has a Hessian when its turn comes."""
    from qwen_mlx.checkpoints.calibrate import Hessians, iter_mean_squares
    from qwen_mlx.checkpoints.rewrite import Original

    source = originals.save(tmp_path / "source", originals.CONFIGS[family])
    text = tmp_path / "text.txt"
    text.write_text("Hello hello world, 12 lazy dogs. 今天天气很好。\n" * 10)
    steps = iter_mean_squares(source, str(text))
    try:
        while True:
            next(steps)
    except StopIteration as finished:
        squares = finished.value
    hessians = Hessians(source, str(text))
    original = Original.open(source)
    with original.source:
        for matrix in original.matrices:
            hessian = hessians.of(matrix.own)
            if matrix.own == "embed_tokens":
                assert hessian is None
                continue
            assert hessian is not None and hessian.shape == (matrix.shape[-1],) * 2
            expected = squares[matrix.own]
            assert np.allclose(np.maximum(np.diag(hessian), expected.min()), expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="passed already"):
        hessians.of(original.matrices[1].own)
    quantize(source, tmp_path / "packed", calibrate="gptq", calibration_text=str(text))
    assert mx.isfinite(load(tmp_path / "packed").decoder(IDS)).all()


def test_mean_squares_are_what_goes_in(original: Path, tmp_path: Path) -> None:
    """Against the inputs of the first and the last matrix, computed by hand."""
    from qwen_mlx.checkpoints.calibrate import WINDOW, iter_mean_squares

    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox doesn't jump over 12 lazy dogs. " * 100)
    model = load(original)
    ids = model.tokenizer.encode(text.read_text())
    count = len(ids) // WINDOW
    assert count >= 2
    windows = mx.array(ids[: count * WINDOW]).reshape(count, WINDOW)
    steps = iter_mean_squares(original, str(text))
    try:
        while True:
            next(steps)
    except StopIteration as finished:
        found = finished.value
    layer = model.decoder.layers[0]
    first = layer.input_layernorm(model.decoder.embed_tokens(windows)).reshape(-1, 128)
    last = model.decoder.hidden_states(windows).reshape(-1, 128)
    for name, x in (("layers.0.self_attn.v_proj", first), ("lm_head", last)):
        assert np.allclose(found[name], np.array(mx.square(x).mean(axis=0)), rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_modes_with_small_scales_are_as_mlx_makes_them(mode: str, original: Path, tmp_path: Path) -> None:
    quantize(original, tmp_path / "new", mode=mode)
    name = "model.layers.1.mlp.down_proj"
    weight = load_folder_tensors(original)[f"{name}.weight"]
    found = load_folder_tensors(tmp_path / "new")
    expected = mx.quantize(weight, mode=mode)
    parts = {f"{name}.{part}": array for part, array in zip(("weight", "scales"), expected)}
    assert differences(parts, {n: a for n, a in found.items() if n.startswith(name)}) == []
    assert json.loads((tmp_path / "new" / "config.json").read_text())["quantization"]["mode"] == mode


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scales_are_of_the_type_that_was_asked_for(dtype: str, original: Path, tmp_path: Path) -> None:
    quantize(original, tmp_path / "new", bits=4, dtype=dtype)
    kinds = {str(a.dtype).rpartition(".")[2] for n, a in load_folder_tensors(tmp_path / "new").items()}
    assert kinds == {dtype, "uint32"}


def test_aims_and_bits_per_weight(original: Path, tmp_path: Path) -> None:
    finished = quantize(original, tmp_path / "new", target_bits=5.5)
    plan = finished.plan
    assert plan.bits_before == 16 and 5.3 < plan.bits_after <= 5.5
    size = sum(array.nbytes for array in load_folder_tensors(tmp_path / "new").values())
    assert plan.bits_after == pytest.approx(8 * size / plan.parameters)
    assert sum(plan.formats.values()) == 15 and len(plan.formats) > 1


def test_columns_that_no_group_divides_are_listed(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"] | {"intermediate_size": 176})
    job = QuantizeModel(str(source), str(tmp_path / "new"), bits=4, group_size=64)
    events = list(iter_quantize(job))
    notice = next(event for event in events if isinstance(event, Notice) and "no group" in event.text)
    assert "model.layers.0.mlp.down_proj" in notice.text
    plan = next(event for event in events if isinstance(event, ConversionPlanned))
    assert plan.left_plain == tuple(f"model.layers.{i}.mlp.down_proj" for i in range(2))
    assert mx.isfinite(load(tmp_path / "new").decoder(IDS)).all()


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bits": 7}, "does not compute 7 bits"),
        ({"bits": 4, "group_size": 48}, "groups of 48"),
        ({"preset": "huge"}, "no preset"),
        ({"rounding": "up"}, "no rounding 'up'; expected best or mlx"),
        ({"calibrate": "xsq"}, "no calibration 'xsq'"),
        ({"calibrate": "awq"}, "mlx_lm.awq"),
        ({"calibrate": "activations", "rounding": "mlx"}, "guides the rounding 'best'"),
        ({"calibrate": "activations", "mode": "mxfp4"}, "needs the mode affine"),
        ({"calibrate": "gptq", "rounding": "mlx"}, "guides the rounding 'best'"),
        ({"target_bits": 4.5, "bits": 4}, "decides the bits of everything"),
        ({"overrides": ("x",)}, "REGEX=BITS"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """They are refused before any file is looked at."""
    with pytest.raises(UsageError, match=problem):
        check_options(QuantizeModel("nowhere", "nowhere else", **options))


def test_a_quantized_source_is_refused_and_says_how(original: Path, tmp_path: Path) -> None:
    quantize(original, tmp_path / "four", bits=4)
    with pytest.raises(UsageError, match=r"is quantized already \(4-bit g64 affine\).*--requantize"):
        quantize(tmp_path / "four", tmp_path / "three", bits=3)
    job = QuantizeModel(str(tmp_path / "four"), str(tmp_path / "three"), bits=3, requantize=True)
    events = list(iter_quantize(job))
    assert any(isinstance(event, Notice) and "rounding twice" in event.text for event in events)
    assert weight_error(original, tmp_path / "three", tmp_path / "work") < 0.3


def test_few_bits_for_a_small_model_are_warned_of(original: Path, tmp_path: Path) -> None:
    events = list(iter_quantize(QuantizeModel(str(original), str(tmp_path / "new"), preset="tiny")))
    assert any(isinstance(event, Notice) and "3 bits leave little" in event.text for event in events)


@pytest.mark.parametrize("rounding", ["best", "mlx"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"])
def test_numbers_that_are_none_are_named(
    name: str, value: float, rounding: str, original: Path, tmp_path: Path
) -> None:
    tensors = load_folder_tensors(original)
    tensors[name] = tensors[name] * mx.where(mx.arange(tensors[name].shape[-1]) == 17, value, 1).astype(mx.bfloat16)
    source = tiny.save(tmp_path / "source", CONFIG, tensors)
    with pytest.raises(CheckpointError, match="holds NaN or infinite numbers") as error:
        quantize(source, tmp_path / "new", bits=4, rounding=rounding)
    assert name.removesuffix(".weight") in str(error.value) and not (tmp_path / "new").exists()


def test_numbers_that_float16_cannot_hold(original: Path, tmp_path: Path) -> None:
    tensors = load_folder_tensors(original)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name] * 1e6
    source = tiny.save(tmp_path / "source", CONFIG, tensors)
    with pytest.raises(CheckpointError, match=r"up_proj holds NaN or infinite numbers in float16.*--dtype bfloat16"):
        convert(source, tmp_path / "new", dtype="float16")
    with pytest.raises(CheckpointError, match="float16"):
        quantize(source, tmp_path / "new", bits=4, dtype="float16")


def test_foreign_formats_are_named(original: Path, tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", CONFIG)
    (source / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(CheckpointError, match="awq"):
        quantize(source, tmp_path / "new", bits=4)


# ------------------------------------------------------------------------------------------------ kill -9

_CHILD = """
import sys
from qwen_mlx.checkpoints import source, stream
source.BLOCK = 4096
from qwen_mlx.cli.main import main
sys.exit(main(["quantize", sys.argv[1], "-o", sys.argv[2], "--bits", "4", "-q", *sys.argv[3:]]))
"""


def test_a_run_killed_at_any_moment_harms_nothing(original: Path, tmp_path: Path) -> None:
    """Killed while it writes, at moments drawn from a seed: the target is missing or as it was, never in between."""
    target, command = tmp_path / "new", [sys.executable, "-c", _CHILD, str(original)]
    draw = random.Random(11)
    partial = tmp_path / ".new.partial"
    killed_inside = 0
    for round_ in range(6):
        process = subprocess.Popen([*command, str(target)])
        deadline = time.monotonic() + 60
        while not partial.exists() and not target.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_inside += partial.exists()
        if target.exists():  # it was faster than we
            assert mx.isfinite(load(target).decoder(IDS)).all(), round_
            for file in target.iterdir():
                file.unlink()
            target.rmdir()
    assert killed_inside >= 1, "no kill hit the writing"
    assert subprocess.run([*command, str(target)], check=False).returncode == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new"]
    quantize(original, tmp_path / "undisturbed", bits=4)
    assert differences(load_folder_tensors(target), load_folder_tensors(tmp_path / "undisturbed")) == []
    assert mx.isfinite(load(target).decoder(IDS)).all()
