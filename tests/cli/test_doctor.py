"""`qwen-mlx doctor`: every fact it is given or finds, as text and as JSON, also on a broken machine."""

from __future__ import annotations

import json
import platform

from qwen_mlx import __version__, paths
from qwen_mlx.cli.main import main

FACTS = {
    "backend": "metal",
    "device": "Apple M4",
    "device_info": {"max_buffer_length": 5},
    "mlx": "0.32.4",
    "blas": "Accelerate",
    "fast_blas": True,
    "compute_dtype": "as stored",
    "memory_total": 17_179_869_184,
    "memory_available": 8_000_000_000,
    "kernels": [],
}


def doctor(*words, **changes):
    return main(["doctor", *words], device_facts=lambda: {**FACTS, **changes})


def test_text(capsys):
    assert doctor() == 0
    out = capsys.readouterr().out
    for fact in ("metal", "Apple M4", "Accelerate", "17.2 GB", "8.0 GB", "none: pure MLX", "max_buffer_length=5"):
        assert fact in out, fact
    assert __version__ in out and platform.python_version() in out
    assert str(paths.history_file().parent) in out and str(paths.hf_cache()) in out
    assert "No problem found." in out


def test_kernels_in_use(capsys):
    doctor(kernels=["qk_norm_rope", "router_topk"])
    assert "qk_norm_rope, router_topk" in capsys.readouterr().out


def test_json(capsys):
    assert doctor("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["memory_total"] == FACTS["memory_total"]
    assert report["machine"]["backend"] == "metal"
    assert report["mlx"]["kernels"] == []
    assert report["versions"]["qwen-mlx"] == __version__
    assert report["folders"]["data"] == {
        "path": str(paths.data_home()),
        "exists": False,
        "writable": True,
        "free": report["folders"]["data"]["free"],
    }
    assert report["problems"] == []


def test_a_folder_that_cannot_be_written_is_a_problem(capsys, monkeypatch, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("QWEN_MLX_HOME", str(blocked / "home"))
    assert doctor() == 1
    out = capsys.readouterr().out
    assert "NOT writable" in out and "problem: the data folder" in out and "QWEN_MLX_HOME" in out
    assert "No problem found." not in out


def test_looking_leaves_nothing_behind(tmp_path):
    before = sorted(tmp_path.iterdir())
    doctor()
    assert sorted(tmp_path.iterdir()) == before


def test_an_mlx_that_does_not_start_is_told_and_the_rest_still_shown(capsys):
    def broken():
        raise ImportError("libmlx.so: cannot open shared object file")

    assert main(["doctor"], device_facts=broken) == 1
    out = capsys.readouterr().out
    assert "problem: MLX does not start: ImportError: libmlx.so" in out
    assert "Hugging Face cache" in out


def test_a_slow_blas_is_advice(capsys):
    assert doctor(fast_blas=False, blas="MLX's own (slow); install an OpenBLAS") == 0
    assert "advice: matrix products run in a slow BLAS: MLX's own (slow)" in capsys.readouterr().out


def test_secrets_stay_secret(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_private")
    monkeypatch.setenv("QWEN_MLX_API_KEY", "private_too")
    monkeypatch.setenv("QWEN_MLX_KERNELS", "off")
    for words in ([], ["--json"]):
        doctor(*words)
        out = capsys.readouterr().out
        assert "private" not in out.replace(str(paths.data_home()), "")
        assert "HF_TOKEN" in out and "QWEN_MLX_KERNELS" in out and "off" in out


def test_the_real_machine(capsys):
    assert main(["doctor", "--json"]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["backend"] in ("cpu", "metal", "cuda")
    assert report["machine"]["memory_total"] > 0
