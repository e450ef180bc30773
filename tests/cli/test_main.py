"""The program as a whole: what it imports, which command it finds, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from qwen_mlx import __version__
from qwen_mlx.cli import main as program
from qwen_mlx.cli.main import COMMANDS, PLANNED, main
from qwen_mlx.errors import Cancelled, NotFound, QwenError

HEAVY = ("mlx", "numpy", "textual", "tokenizers", "jinja2", "asyncio", "sqlite3", "qwen_mlx.runtime")


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["chat", "--help"], ["tui", "--help"], ["nonsense"]])
def test_nothing_heavy_is_imported_to_print_a_text(words):
    code = f"import sys; from qwen_mlx.cli.main import main; main({words!r}); print(sorted(sys.modules))"
    modules = eval(python(code).stdout.splitlines()[-1])
    assert "qwen_mlx.cli.main" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert name in out and text in out


def test_no_command_is_both_there_and_planned():
    assert set(PLANNED).isdisjoint(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: qwen-mlx {name}") and "--debug" in out


def test_help_as_a_command(capsys):
    for words, same in (
        (["help"], ["--help"]),
        (["help", "pull"], ["pull", "--help"]),
        (["help", "ls"], ["list", "--help"]),
    ):
        assert main(words) == 0
        first = capsys.readouterr().out
        assert main(same) == 0
        assert capsys.readouterr().out == first
    assert main(["help", "nonsense"]) == 2
    assert "there is no command 'nonsense'" in capsys.readouterr().err


_LIKE_NUMPY = """
import os, signal, time
if {interrupt}:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        pass
raise ImportError("Error importing it: you should not try to import it from its source directory") from None
"""


@pytest.mark.parametrize(("interrupt", "code"), [(True, 130), (False, 70)])
def test_ctrl_c_while_a_library_is_imported(interrupt, code, tmp_path):
    """numpy, for one, makes an error of its own of it; without a Ctrl-C such an error is what it says."""
    (tmp_path / "like_numpy.py").write_text(_LIKE_NUMPY.format(interrupt=interrupt))
    script = "import sys, qwen_mlx.cli.doctor as d\n"
    script += "def run(args): import like_numpy\n"
    script += "d.run = run\nfrom qwen_mlx.cli.main import main\nsys.exit(main(['doctor']))"
    found = python(script, env={**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{tmp_path}"})
    assert found.returncode == code
    assert ("bug" in found.stderr) == (code == 70) and "Traceback" not in found.stderr


def test_a_bug_after_ctrl_c_is_still_a_bug(command, capsys):
    """Only what is imported can make a bug of a Ctrl-C."""

    def run(args):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        [][0]

    command(run)
    assert main(["doctor"]) == 70


@pytest.mark.parametrize("error", [KeyError("lost"), KeyboardInterrupt()])
def test_the_end_as_json(error, command, capsys):
    def run(args):
        raise error

    command(run)
    monkey = types.SimpleNamespace(parse_words=lambda rest: types.SimpleNamespace(json=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "command_parser", lambda name: monkey)
        assert main(["doctor", "--json"]) == (70 if isinstance(error, KeyError) else 130)
    end = json.loads(capsys.readouterr().out)
    assert end["type"] == ("job_failed" if isinstance(error, KeyError) else "job_cancelled")
    assert end.get("expected") in (False, None)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qwen-mlx {__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chta", "hi"], "Did you mean `qwen-mlx chat`?"),
        (["What is 1 + 1?"], 'qwen-mlx chat "your question"'),
        (["serve", "--help"], "`qwen-mlx serve` is planned, but not built yet"),
        (["doctor", "--nix"], "unrecognized arguments: --nix. See `qwen-mlx doctor --help`"),
        (["doctor", "more"], "unrecognized arguments: more"),
        (["doctor", "--", "more"], "unrecognized arguments: more"),
        (["--nix"], "unrecognized arguments: --nix"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, expected, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qwen-mlx: error: ") and expected in err and err.count("\n") == 1


@pytest.fixture
def command(monkeypatch):
    """A command `doctor` that does what it is given."""

    def set_command(run):
        module = types.SimpleNamespace(add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(program.importlib, "import_module", lambda name: module)

    return set_command


@pytest.mark.parametrize(
    ("error", "code"), [(NotFound("no such model", hint="Look elsewhere."), 3), (QwenError("it failed"), 1)]
)
def test_our_errors_are_one_line_and_an_exit_code(error, code, command, capsys):
    def run(args):
        raise error

    command(run)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == f"qwen-mlx: error: {error}\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled()])
def test_an_interruption_is_quiet(error, command, capsys):
    def run(args):
        raise error

    command(run)
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_shows_its_traceback_only_when_asked(command, capsys, monkeypatch):
    def run(args):
        raise KeyError("lost")

    command(run)
    assert main(["doctor"]) == 70
    err = capsys.readouterr().err
    assert "KeyError: 'lost'" in err and "This is a bug" in err and "Traceback" not in err
    for words, variable in ((["doctor", "--debug"], ""), (["--debug", "doctor"], ""), (["doctor"], "1")):
        monkeypatch.setenv("QWEN_MLX_DEBUG", variable)
        assert main(words) == 70
        assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_exit_code_is_the_commands(command):
    command(lambda args: 5)
    assert main(["doctor"]) == 5


def test_a_reader_that_leaves_early_is_no_error():
    """`qwen-mlx doctor | head -n 0`: no traceback, and the code a pipe's end has everywhere."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys, qwen_mlx.cli.doctor as d; d._device_facts = dict; from qwen_mlx.cli.main import main; "
    code += "sys.exit(main(['doctor']))"
    with os.fdopen(writer, "w") as stdout:
        result = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_terminal_that_cannot_show_a_character_shows_another():
    code = (
        "import sys; from qwen_mlx.cli.main import main; from tests.cli.fake_runtime import *; "
        "sys.exit(main(['chat', 'x'], new_runtime=FakeRuntime(answering('75 \\u4f60'))))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path.cwd())}
    result = python(code, env=environment, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (0, "75 ?\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["show demo", "--version"])
def test_streams_the_caller_closed(command: str, closed: str) -> None:
    """No file that is opened later may take the place of a standard stream."""
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m qwen_mlx.cli.main {command} {closed}'], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("command", ["show demo", "doctor"])
def test_a_full_disk_is_no_bug_of_ours(command: str) -> None:
    line = f'"{sys.executable}" -m qwen_mlx.cli.main {command} >/dev/full'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("qwen-mlx: error: the output cannot be written")


def test_no_name_is_not_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", ""]) == 2
    assert "the name of the model is empty" in capsys.readouterr().err
