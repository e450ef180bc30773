"""scripts/chat and scripts/test from a fresh clone: which Python, when .venv is made, and what is run.

Nothing is installed here: `uv` and the Pythons on PATH are small shell scripts that write down what they were asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from tests.scripts.fake_clone import make_clone


@pytest.fixture
def clone(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    return make_clone(tmp_path)


def test_the_first_run_installs_and_the_second_does_not(clone):
    code, out, err = clone.run("chat", "What is", "27 + 48?")
    assert (code, out) == (0, "qwen-mlx in /: chat What is 27 + 48?\n")
    assert "scripts/chat: first run: making .venv with Python 3.12.4" in err
    assert clone.asked() == ["venv", "."]
    assert clone.run("chat", "again") == (0, "qwen-mlx in /: chat again\n", "")
    assert clone.asked() == []


def test_the_programs_exit_code_is_the_scripts(clone):
    clone.variables["FAILING"] = "qwen-mlx"
    assert clone.run("chat", "x")[0] == 3


def test_without_words_a_pipe_is_the_prompt_and_a_terminal_the_app(clone):
    assert clone.run("chat")[1] == "qwen-mlx in /: chat\n"
    ours, theirs = os.openpty()
    process = clone.start("chat", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    assert os.read(ours, 1000) == b"qwen-mlx in /: \r\n"
    os.close(ours)


def test_through_a_symbolic_link(clone, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "first").symlink_to(clone.folder / "scripts" / "chat")
    (links / "qwen").symlink_to("first")
    result = subprocess.run(
        [str(links / "qwen"), "hi"], env={"PATH": str(clone.bin)}, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.stdout == f"qwen-mlx in {tmp_path}: chat hi\n"
    assert clone.venv.is_dir()


# ------------------------------------------------------------------------------------------------ which Python


def test_only_an_old_python(clone):
    (clone.bin / "python3.12").unlink()
    old = clone.add_python("python3", "3.9.6")
    code, out, err = clone.run("chat", "x")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith(f"qwen-mlx needs Python 3.10 or newer; found 3.9.6 ({old}). Install one")
    assert err.endswith("then run scripts/chat again.\n")
    assert not clone.venv.exists()


def test_no_python(clone):
    (clone.bin / "python3.12").unlink()
    code, _, err = clone.run("test")
    assert code == 1 and "found none" in err and "run scripts/test again" in err


def test_a_python_that_does_not_run_is_passed_over(clone):
    clone.add_python("python3.13", "broken")
    assert "Python 3.12.4" in clone.run("chat", "x")[2]


def test_every_python_of_one_name_is_tried(clone, tmp_path):
    """A version manager puts a shim before the real one."""
    (clone.bin / "python3.12").unlink()
    clone.add_python("python3.11", "broken")
    second = tmp_path / "second"
    second.mkdir()
    clone.bin, first = second, clone.bin
    clone.add_python("python3.11", "3.11.9")
    clone.bin = first
    clone.variables["PATH"] = f"{first}:{second}"
    assert "Python 3.11.9" in clone.run("chat", "x")[2]


def test_newer_goes_before_older(clone):
    clone.add_python("python3.10", "3.10.1")
    clone.add_python("python3.13", "3.13.2")
    assert "Python 3.13.2" in clone.run("chat", "x")[2]


def test_a_python_that_cannot_make_environments_needs_uv(clone):
    (clone.bin / "python3.12").unlink()
    clone.add_python("python3", "3.11.2", able="unable")
    assert clone.run("chat", "x")[0] == 0
    shutil.rmtree(clone.venv)
    (clone.bin / "uv").unlink()
    code, _, err = clone.run("chat", "x")
    assert code == 1 and "found 3.11.2 without its venv module" in err


def test_a_python_that_was_asked_for(clone, tmp_path):
    assert clone.run("chat", "x")[0] == 0
    clone.asked()
    own = clone.add_python("my own python", "3.10.2")
    clone.variables["QWEN_MLX_PYTHON"] = str(own)
    assert "QWEN_MLX_PYTHON has changed: making .venv with Python 3.10.2" in clone.run("chat", "x")[2]
    assert clone.asked() == ["venv", "."]
    assert clone.run("chat", "x")[2] == ""
    del clone.variables["QWEN_MLX_PYTHON"]
    assert clone.run("chat", "x")[2] == ""


@pytest.mark.parametrize("version", ["3.8.1", "broken"])
def test_a_python_that_was_asked_for_and_is_no_good(clone, version):
    own = clone.add_python("own", version)
    clone.variables["QWEN_MLX_PYTHON"] = str(own)
    code, _, err = clone.run("chat", "x")
    assert code == 1 and f"QWEN_MLX_PYTHON={own}" in err and err.count("\n") == 1
    assert not clone.venv.exists()


# ------------------------------------------------------------------------------------------------ on a Mac


@pytest.fixture
def mac(clone):
    """Answers as macOS on Apple silicon does, where the only Python is the stub that opens a dialog."""

    def become(version="15.3", arm="1"):
        for name, text in (
            ("uname", "echo Darwin"),
            ("sysctl", f"echo {arm}"),
            ("sw_vers", f"echo {version}"),
            ("xcode-select", "exit 2"),
        ):
            (clone.bin / name).unlink(missing_ok=True)
            clone.add(name, f"#!/bin/sh\n{text}\n")
        (clone.bin / "python3.12").unlink()
        return clone

    return become


def test_a_python_for_intel_is_passed_over(mac):
    clone = mac()
    clone.add_python("python3.13", "3.13.1", machine="x86_64")
    code, _, err = clone.run("chat", "x")
    assert code == 1 and "found 3.13.1 for Intel processors" in err and "brew install python" in err
    clone.add_python("python3.11", "3.11.7", machine="arm64")
    assert clone.run("chat", "x")[0] == 0


@pytest.mark.parametrize(
    ("version", "arm", "expected"), [("13.6.1", "1", "macOS 14 or newer"), ("15.0", "", "Apple silicon")]
)
def test_a_mac_that_mlx_does_not_run_on(mac, version, arm, expected):
    clone = mac(version, arm)
    clone.add_python("python3.11", "3.11.7", machine="arm64")
    code, _, err = clone.run("chat", "x")
    assert code == 1 and expected in err and err.count("\n") == 1
    assert not clone.venv.exists()


# ------------------------------------------------------------------------------------------------ .venv


def test_a_changed_pyproject_installs_into_what_is_there(clone):
    clone.run("chat", "x")
    clone.asked()
    (clone.folder / "pyproject.toml").write_text("[project]\nversion = '2'\n")
    code, _, err = clone.run("chat", "x")
    assert code == 0 and "what pyproject.toml asks for" in err
    assert clone.asked() == ["."]
    assert clone.run("chat", "x")[2] == ""


def test_tests_need_more_than_chat_and_chat_no_more_than_tests(clone):
    clone.run("chat", "x")
    clone.asked()
    assert clone.run("test")[0] == 0
    assert clone.asked() == [".[dev]"]
    assert clone.run("chat", "x")[2] == ""
    assert clone.asked() == []


def test_a_failed_installation_is_told_and_started_over(clone):
    clone.variables["UV_FAILS"] = "1"
    code, out, err = clone.run("chat", "x")
    assert (code, out) == (1, "")
    assert "no matching distribution" in err and "could not install qwen-mlx" in err
    clone.asked()
    del clone.variables["UV_FAILS"]
    code, out, err = clone.run("chat", "x")
    assert code == 0 and "the last installation did not finish" in err
    assert clone.asked() == ["venv", "."]


def test_an_installation_that_was_killed_is_started_over(clone):
    clone.variables["UV_SLOW"] = "60"
    process = clone.start("chat", "x", start_new_session=True)
    while not (clone.venv / "bin" / "python").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.communicate()
    clone.asked()
    del clone.variables["UV_SLOW"]
    (clone.venv / "rubbish").write_text("half a package")
    code, _, err = clone.run("chat", "x")
    assert code == 0 and "did not finish" in err
    assert clone.asked() == ["venv", "."]
    assert not (clone.venv / "rubbish").exists()


@pytest.mark.parametrize("gone", ["has-chat", "bin/python", "bin/qwen-mlx"])
def test_a_damaged_environment_is_made_again(clone, gone):
    clone.run("chat", "x")
    clone.asked()
    (clone.venv / gone).unlink()
    code, out, _ = clone.run("chat", "x")
    assert (code, out) == (0, "qwen-mlx in /: chat x\n")
    assert clone.asked() == ["venv", "."]


def test_an_environment_somebody_else_made_is_used(clone):
    (clone.venv / "bin").mkdir(parents=True)
    shutil.copy(clone.bin / "venv-python", clone.venv / "bin" / "python")
    (clone.venv / "theirs").write_text("")
    assert clone.run("chat", "x")[0] == 0
    assert clone.asked() == ["."]
    assert (clone.venv / "theirs").exists()


def test_a_repository_that_moved_gets_a_new_environment(clone, tmp_path):
    clone.run("chat", "x")
    clone.asked()
    clone.folder = clone.folder.rename(tmp_path / "elsewhere")
    assert "the repository was moved" in clone.run("chat", "x")[2]
    assert clone.asked() == ["venv", "."]


def test_several_first_runs_at_once_make_one_environment(clone):
    clone.variables["UV_SLOW"] = "0.3"
    processes = [clone.start("chat", str(i)) for i in range(3)]
    for i, process in enumerate(processes):
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"qwen-mlx in /: chat {i}\n")
    assert clone.asked() == ["venv", "."]


# ------------------------------------------------------------------------------------------------ scripts/test


def verdicts(out):
    """{"mypy": "ok", ...} from the lines that end in seconds."""
    lines = [line.split() for line in out.splitlines() if line.endswith(" s") and line.startswith(("ok ", "FAILED "))]
    return {" ".join(words[1:-2]): words[0] for words in lines}


def test_all_stages_run_in_the_repository(clone):
    code, out, _ = clone.run("test", cwd=clone.folder / "scripts")
    assert code == 0
    assert verdicts(out) == dict.fromkeys(["ruff format", "ruff check", "mypy", "lint-imports", "pytest"], "ok")
    assert f"pytest in {clone.folder.resolve()}: -n 2" in out
    assert "mypy in" not in out  # what passes is silent
    assert out.splitlines()[-1].startswith("all passed in ")


def test_words_go_to_pytest_only(clone):
    out = clone.run("test", "tests/text", "-k", "a b")[1]
    assert f"pytest in {clone.folder.resolve()}: tests/text -k a b\n" in out


@pytest.mark.parametrize("failing", ["mypy", "lint-imports", "pytest", "ruff"])
def test_a_stage_that_fails(clone, failing):
    clone.variables["FAILING"] = failing
    code, out, _ = clone.run("test")
    assert code == 3
    failed = [name for name, word in verdicts(out).items() if word == "FAILED"]
    assert failed == (["ruff format", "ruff check"] if failing == "ruff" else [failing])
    assert len(verdicts(out)) == 5
    assert f"{failing} in " in out  # what fails shows why
    assert out.splitlines()[-1].startswith(f"failed: {', '.join(failed)} (")
