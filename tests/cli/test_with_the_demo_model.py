"""The whole way, from the command line to the model that ships with the package and back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from qwen_mlx import paths

pytestmark = pytest.mark.skipif(
    not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built"
)


def qwen_mlx(*words, stdin="", **options):
    command = [sys.executable, "-m", "qwen_mlx.cli.main", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100, **options)


def test_one_question():
    result = qwen_mlx("chat", "What is 27 + 48?", "--temperature", "0")
    assert result.returncode == 0, result.stderr
    assert "75" in result.stdout
    assert "Traceback" not in result.stderr


def test_thinking_and_numbers_stay_off_standard_output():
    result = qwen_mlx("chat", "--temperature", "0", "--stats", stdin="What is 27 + 48?\n")
    assert result.returncode == 0, result.stderr
    assert "75" in result.stdout and "<think>" not in result.stdout
    assert "tok/s" in result.stderr


def test_json():
    result = qwen_mlx("chat", "What is 27 + 48?", "--temperature", "0", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    types = [event["type"] for event in events]
    assert "model_loaded" in types and types[-1] == "reply_finished"
    said = "".join(event["text"] for event in events if event["type"] == "answer_delta")
    assert said == events[-1]["message"]["content"] and "75" in said
    assert events[-1]["stats"]["completion_tokens"] > 0


def test_a_model_that_is_not_there():
    result = qwen_mlx("chat", "-m", "Qwen/No-Such-Model", "hello")
    assert (result.returncode, result.stdout) == (3, "")
    assert "qwen-mlx pull Qwen/No-Such-Model" in result.stderr


def test_ctrl_c_ends_it_quietly():
    command = [sys.executable, "-m", "qwen_mlx.cli.main", "chat", "--json", "Tell me a long story."]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    with process:
        for line in process.stdout:
            if json.loads(line)["type"] in ("prefill_progress", "answer_delta", "reasoning_delta"):
                os.kill(process.pid, signal.SIGINT)
                break
        rest = process.stdout.read()
        errors = process.stderr.read()
    # The reply may have ended just before the signal came.
    reason = json.loads(rest.splitlines()[-1])["reason"] if rest else "cancelled"
    assert process.returncode == (130 if reason == "cancelled" else 0), errors
    assert errors == ""
