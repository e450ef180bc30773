"""`list`, `verify`, `rm`, `prune`, `du`, `alias` and `fit`, over a library of small models."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_mlx.cli.main import main
from tests.cli.test_pull_command import CONTEXT, COUNT, NAME, SIZE, WEIGHTS, demo_files
from tests.hub.fake_hub import FakeHub

SHORT = "qwen3:0.6b"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    yield server
    server.close()


@pytest.fixture
def library(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> FakeHub:
    """The demo model under a name of the table, a model of another family, and one that is not whole."""
    hub.add(NAME, demo_files())
    hub.add("org/llama", {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(500)})
    hub.add("org/half", demo_files())
    for name in (NAME, "org/llama", "org/half"):
        assert main(["pull", name, "-q"]) == 0
    weights(hub, "org/half").unlink()
    capsys.readouterr()
    return hub


def weights(hub: FakeHub, name: str) -> Path:
    cache = Path(os.environ["HF_HUB_CACHE"])
    return (cache / f"models--{name.replace('/', '--')}" / "snapshots" / ("a" * 40) / WEIGHTS).resolve()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


# ------------------------------------------------------------------------------------------------ list


def test_list(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "SIZE", "BITS", "FORMAT", "FITS", "USED"]
    whole, half = (row.split() for row in rows)
    assert whole[:3] == [NAME, *SIZE.split()] and whole[-2:] == ["fits", "now"]
    assert half[0] == "org/half" and half[-2:] == ["incomplete", "now"]


def test_list_all_and_sorted(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--all", "--sort", "size", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [NAME, "org/half", "org/llama"]
    assert [row["whole"] for row in rows] == [True, False, True]
    assert rows[0]["fits"] == "fits" and rows[0]["family"] == "qwen3" and rows[0]["revisions"] == ["main"]
    assert [row["problem"] for row in rows] == [None, "incomplete", None]


def test_names_only(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "-q"]) == 0
    assert capsys.readouterr().out.split() == [NAME, "org/half", "org/llama"]


def test_an_empty_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "qwen-mlx pull qwen3:0.6b" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_narrow_terminal(library: FakeHub, terminal: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out, _ = terminal()  # type: ignore[operator]
    assert main(["list"]) == 0
    assert all(len(line) <= 60 for line in out.getvalue().splitlines())
    assert "…" in out.getvalue() and "0.6B-8bit" in out.getvalue()


def test_listing_names_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from qwen_mlx.cli.main import main; main(['list', '-q']); "
        "print([name for name in ('mlx', 'numpy', 'httpx2', 'huggingface_hub') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# ------------------------------------------------------------------------------------------------ verify


def test_verify(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    asked = len(library.requests)
    assert main(["verify", SHORT]) == 0
    assert capsys.readouterr().out == f"{COUNT}, {SIZE}: every checksum is right\n"
    flip(weights(library, NAME))
    assert main(["verify", SHORT]) == 6
    assert capsys.readouterr().out.splitlines() == [
        f"{WEIGHTS} is not what the hub gave (its checksum is another)",
        f"1 of {COUNT} are not right. `qwen-mlx pull {SHORT}` fetches only these again.",
    ]
    assert len(library.requests) == asked
    assert main(["pull", SHORT, "-q"]) == 0
    assert main(["verify", SHORT, "-q"]) == 0
    assert len(library.asked(WEIGHTS)) == 4  # the three pulls of the fixture, and the mended file


def test_verify_in_json(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "org/half", "--json"]) == 6
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["type"] == "verify_finished"
    assert {problem["file"] for problem in last["problems"]} == {WEIGHTS}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in demo_files().items():
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_of_ones_own(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(copy)]) == 0
    assert f"no checksums are known of {copy}; headers and index are right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (WEIGHTS, b"<!DOCTYPE html>", "a web page (HTML)"),
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (WEIGHTS, (10**9).to_bytes(8, "little") + b"{", "a header of at most"),
        ("config.json", b"{", "config.json"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../../x.safetensors"}}', "refused"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "b.bin"}}', "pickled weights"),
    ],
)
def test_headers_and_index_are_read(
    copy: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("index.json"):
        (copy / WEIGHTS).rename(copy / "model-00001-of-00001.safetensors")
    (copy / name).write_bytes(content)
    assert main(["verify", str(copy)]) == 6
    out = capsys.readouterr().out
    assert message in out and "Get these files again from where they came." in out


def test_a_missing_shard_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / WEIGHTS).rename(copy / "model-00001-of-00002.safetensors")
    assert main(["verify", str(copy)]) == 6
    assert "model-00002-of-00002.safetensors missing" in capsys.readouterr().out


def test_content_that_several_models_share(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """huggingface_hub 2.4 keeps it once, in `blobs/ab/abcd...` of the cache, with links to it."""
    blob = weights(library, NAME)
    cache = Path(os.environ["HF_HUB_CACHE"])
    store = cache / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    assert main(["verify", SHORT]) == 6
    assert "is a link that leaves the model folder" in capsys.readouterr().out
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert main(["verify", SHORT]) == 0
    flip(store)
    assert main(["verify", SHORT]) == 6
    assert main(["pull", SHORT, "-q"]) == 0
    assert main(["verify", SHORT]) == 0
    assert not blob.is_symlink()  # ours now; what others share stays as it is


def test_values_that_are_not_finite(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qwen_mlx.checkpoints.safetensors import read_header

    assert main(["verify", str(copy), "--deep"]) == 0
    header = read_header(copy / WEIGHTS)
    infinity = {"BF16": b"\x80\x7f", "F16": b"\x00\x7c", "F32": b"\x00\x00\x80\xff"}
    tensor = next(each for each in header.tensors.values() if each.dtype in infinity)
    with (copy / WEIGHTS).open("r+b") as file:
        file.seek(tensor.start)
        file.write(infinity[tensor.dtype])
    assert main(["verify", str(copy)]) == 0
    capsys.readouterr()
    assert main(["verify", str(copy), "--deep"]) == 6
    assert f"{WEIGHTS} holds 1 values that are not finite in {tensor.name}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ rm, prune, du


def test_rm_shows_asks_and_deletes(
    library: FakeHub, capsys: pytest.CaptureFixture[str], stdin: object, terminal: object
) -> None:
    assert main(["rm", SHORT, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{NAME}  {SIZE}\nwould free {SIZE}\n"
    assert main(["rm", SHORT]) == 2
    assert "nobody is here to be asked" in capsys.readouterr().err
    assert weights(library, NAME).is_file()
    assert main(["rm", SHORT, "org/llama", "-y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == [NAME, "org/llama"]
    assert main(["list", "-q"]) == 0
    assert capsys.readouterr().out == "org/half\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_rm_takes_no_for_an_answer(
    library: FakeHub, terminal: object, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    _, err = terminal()  # type: ignore[operator]
    typed = type(err)(answer)
    monkeypatch.setattr("sys.stdin", typed)
    assert main(["rm", SHORT]) == 130
    assert f"Delete this and free {SIZE}? [y/N]" in err.getvalue()
    assert weights(library, NAME).is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["rm"], 2, "which model?"),
        (["rm", "org/none", "-y"], 3, "org/none is not on this machine"),
        (["rm", "demo", "-y"], 2, "Only models of the cache are deleted"),
        (["rm", ".", "-y"], 2, "Only models of the cache are deleted"),
        (["rm", "org/model:Q4_K_M", "-y"], 2, "is one file of org/model"),
        (["rm", "../..", "-y"], 2, "Only models of the cache are deleted"),
        (["prune", "--older", "soon"], 2, "is not an age"),
        (["verify", "org/none"], 3, "To download it: `qwen-mlx pull org/none`"),
        (["alias", "set", "a"], 2, "expected set NAME MODEL"),
        (["alias", "rm", "a"], 3, "there is no alias 'a'"),
        (["fit", "demo", "--ctx", "0"], 2, "--ctx is a number of tokens"),
        (["list", "--sort", "colour"], 2, "invalid choice"),
    ],
)
def test_command_lines_that_fail(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], hub: FakeHub
) -> None:
    assert main(words) == code
    assert message in capsys.readouterr().err


def test_prune_and_du(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = weights(library, NAME).parent
    (blobs / f"{'e' * 64}.part").write_bytes(bytes(7_000_000))
    (blobs / ("d" * 64)).write_bytes(bytes(2_000_000))
    assert main(["du"]) == 0
    out = capsys.readouterr().out
    assert " 9.0 MB\n" in out and " free\n" in out
    assert main(["prune", "--partials", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "part of a file" in out and "would free 7.0 MB at most" in out
    assert main(["prune", "-y"]) == 0
    assert "freed 9.0 MB at most" in capsys.readouterr().out
    assert main(["prune", "-y"]) == 0
    assert capsys.readouterr().out == "nothing to prune\n"
    assert main(["du", "--json"]) == 0
    assert {row["partials"] + row["orphans"] for row in json.loads(capsys.readouterr().out)["repositories"]} == {0}
    assert main(["verify", SHORT]) == 0


# ------------------------------------------------------------------------------------------------ alias, fit


def test_alias(library: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alias", "set", "small", SHORT]) == 0
    assert main(["alias"]) == 0
    assert capsys.readouterr().out == f"small  {SHORT}\n"
    assert main(["verify", "small"]) == 0
    assert main(["alias", "rm", "small"]) == 0
    assert main(["alias", "ls", "--json"]) == 0
    assert capsys.readouterr().out.endswith("{}\n")


def test_an_alias_of_a_folder_works_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    assert main(["alias", "set", "own", "mine"]) == 0
    assert main(["alias", "set", "up", ".."]) == 0
    assert main(["alias", "set", "tiny", "demo"]) == 0
    assert main(["alias", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["own"], found["tiny"]) == (str(tmp_path / "models" / "mine"), "demo")
    assert Path(found["up"]).is_absolute() and Path(found["up"]).samefile(tmp_path)
    assert main(["alias", "set", "own", "own"]) == 2
    assert "would stand for itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["rm", "org/none", "-y"], 3),
        (["rm"], 2),
        (["fit", "org/none", "--ctx", "0"], 2),
        (["show", "org/none"], 3),
        (["verify", "org/none"], 3),
        (["alias", "rm", "none"], 3),
        (["prune", "--older", "soon"], 2),
        (["quantize", "org/none", "-o", "x"], 3),
        (["convert", "demo", "-o", "x", "--nonsense"], 2),
        (["pull", "a b"], 2),
    ],
)
def test_a_failure_as_json(words: list[str], code: int, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the command: the last line on standard output, and for people on standard error as ever."""
    assert main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in lines].count("job_failed") == 1
    last = lines[-1]
    assert (last["type"], last["expected"], last["exit_code"]) == ("job_failed", True, code)
    assert err == f"qwen-mlx: error: {last['error']}\n"


def test_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "demo"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"fits: 1.0 GB at {CONTEXT:,} tokens") and f"keys and values, {CONTEXT:,} tokens" in out
    assert main(["fit", "demo", "--ctx", "100", "--kv-bits", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["context"], found["verdict"], found["kv_bits"]) == (100, "fits", 8)


def test_fit_of_a_model_on_the_hub(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("org/model", demo_files())
    assert main(["fit", "org/model"]) == 0
    assert capsys.readouterr().out.startswith("fits: 1.0 GB")
    assert not hub.asked(WEIGHTS)


# ------------------------------------------------------------------------------------------------ completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    from qwen_mlx.cli.main import COMMANDS, command_parser

    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in COMMANDS:
        assert name in script
        for option in command_parser(name)._option_string_actions:
            assert (option if shell != "fish" else option.lstrip("-")) in script


def test_completion_in_bash(library: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import subprocess

    main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    program = tmp_path / "bin" / "qwen-mlx"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qwen_mlx.cli.main "$@"\n')
    program.chmod(0o755)

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = f". {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _qwen_mlx; "
        code += r'printf "%s\n" "${COMPREPLY[@]}"'
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("qwen-mlx", "pu") == ["pull"]
    assert complete("qwen-mlx", "pull", "--dry") == ["--dry-run"]
    assert complete("qwen-mlx", "verify", "mlx-c") == [NAME]
    assert complete("qwen-mlx", "completion", "z") == ["zsh"]


def test_a_warning_before_a_model_is_loaded_that_may_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stdin: object
) -> None:
    from qwen_mlx import device
    from qwen_mlx.evaluation import fitting
    from qwen_mlx.hub.fit import Machine
    from tests.cli.fake_runtime import FakeRuntime, answering

    words = ["chat", "hello", "--model", "demo"]
    assert main(words, new_runtime=lambda: FakeRuntime(answering("hi"))) == 0
    assert capsys.readouterr() == ("hi\n", "")
    monkeypatch.setattr(device, "memory_size", lambda: 10_000_000)
    monkeypatch.setattr(fitting, "machine", lambda: Machine(1_300_000_000, 1_300_000_000))
    assert main(words, new_runtime=lambda: FakeRuntime(answering("hi"))) == 0
    out, err = capsys.readouterr()
    assert out == "hi\n" and err.startswith("note: memory: tight: 1.0 GB at")
