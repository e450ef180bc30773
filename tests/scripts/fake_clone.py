"""A clone of the repository whose `uv` and Pythons are small shell scripts that write down what they were asked."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TOOLS = (
    *("bash", "cat", "cksum", "cp", "dirname", "basename", "env", "find", "grep", "head", "ls", "mkdir", "mv"),
    *("readlink", "rm", "sed", "sh", "sleep", "tail", "touch", "uname"),
)

PYTHON = """\
#!/bin/sh
# A Python of version {version}: answers the question what it is; takes locks with a real one.
case "$2" in
    *fcntl*) exec "{real}" "$@" ;;
    *platform*) [ "{version}" = broken ] && exit 127; echo "{version} {machine} {able} $0" ;;
    *) exit 1 ;;
esac
"""

UV = """\
#!/bin/sh
# uv: `venv FOLDER` and `pip install ... .` or `.[dev]`.
[ "$1" = --version ] && exit 0
echo "$*" >>"{log}"
for last; do :; done
if [ "$1" = venv ]; then
    mkdir -p "$last/bin"
    cp "{bin}/venv-python" "$last/bin/python"
    exit 0
fi
sleep "${{UV_SLOW:-0}}"
[ -z "${{UV_FAILS:-}}" ] || {{ echo "no matching distribution"; exit 1; }}
touch .venv/has-chat
[ "$last" = ".[dev]" ] && touch .venv/has-dev
for name in qwen-mlx lint-imports; do cp "{bin}/venv-python" ".venv/bin/$name"; done
exit 0
"""

# .venv/bin/python, and the programs beside it.
VENV_PYTHON = """\
#!/bin/sh
name=$(basename "$0")
here=$(dirname "$0")/..
case "$name $1 $2" in
    "python -I -c")
        case "$3" in *version_info*) exit 0 ;; esac
        case "$*" in *pytest*) [ -e "$here/has-dev" ] || exit 1 ;; esac
        [ -e "$here/has-chat" ]
        exit ;;
    "python -m "*) shift; [ "$1" = -m ] && shift; name=$1 ;;
esac
[ "$name" = qwen-mlx ] || [ "$1" != "$name" ] || shift
echo "$name in $(pwd): $*"
case " ${FAILING:-} " in *" $name "*) exit 3 ;; esac
exit 0
"""


class Clone:
    """A repository with the real scripts and fake programs on PATH."""

    def __init__(self, folder: Path, log: Path, bin_folder: Path) -> None:
        self.folder = folder
        self.log = log
        self.bin = bin_folder
        self.variables: dict[str, str] = {}

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def add(self, name: str, text: str) -> Path:
        file = self.bin / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def add_python(self, name: str, version: str, able: str = "able", machine: str = platform.machine()) -> Path:
        return self.add(name, PYTHON.format(version=version, real=sys.executable, machine=machine, able=able))

    def start(self, script: str, *words: str, **options) -> subprocess.Popen:
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), **self.variables}
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [str(self.folder / "scripts" / script), *words]
        return subprocess.Popen(command, env=environment, **{**settings, "cwd": "/", **options})

    def run(self, script: str, *words: str, **options) -> tuple[int, str, str]:
        process = self.start(script, *words, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def asked(self) -> list[str]:
        """What uv was asked since the last time: "venv" or what was installed."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.split()[0] if line.startswith("venv") else line.split()[-1] for line in lines]


def make_clone(folder: Path) -> Clone:
    """A clone below `folder`, in a folder with a space and a quote in its name, with uv and Python 3.12.4."""
    clone = Clone(folder / "a fresh 'clone", folder / "log", folder / "programs")
    (clone.folder / "scripts").mkdir(parents=True)
    clone.bin.mkdir()
    for name in ("chat", "test", "lib.sh"):
        shutil.copy(SCRIPTS / name, clone.folder / "scripts" / name)
    (clone.folder / "pyproject.toml").write_text("[project]\n")
    for name in TOOLS:
        (clone.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    clone.add("venv-python", VENV_PYTHON)
    clone.add("uv", UV.format(log=clone.log, bin=clone.bin))
    clone.add_python("python3.12", "3.12.4")
    return clone
