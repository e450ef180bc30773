"""Start terminal chat programs on a pseudo terminal and see how long they take: ours, elia and oterm.

Each gets a home of its own with one conversation of 500 messages, in its own store. What is measured is what a person
sees: when the first screen is painted, when nothing moves any more, and how long the terminal is busy after the key
that opens the conversation. No model answers, and nothing but this machine is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZE = (120, 40)
MESSAGES = 500
QUIET = 1.0  # seconds without output that count as rest
MUCH = 600  # bytes; less is a cursor that blinks
LATEST = 30.0  # seconds after a key in which something has to happen
PATIENCE = 120.0
_CODES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_TEXT = (
    "Quantization packs weights into fewer bits.\n\n- **Small**: 4 bits\n- **Better**: 6 bits\n\n"
    "```python\nmodel = load('qwen3')\nprint(model)\n```\n\nThat is all there is to it, more or less, as said above.\n"
)


class Program:
    """A program on a pseudo terminal that is being watched."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.started = time.monotonic()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.shown = b""
        self.last = self.started

    def read(self, seconds: float) -> bool:
        """Take what comes within some seconds; False when the program has ended."""
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            return False
        if data:
            self.shown += data
            self.last = time.monotonic()
        return bool(data)

    def painted(self, words: bytes) -> float:
        """Seconds from the start until `words` are on the screen. Raises RuntimeError when they never are."""
        end = self.started + PATIENCE
        while words not in _CODES.sub(b"", self.shown):
            if not self.read(0.2) or time.monotonic() > end:
                tail = _CODES.sub(b"", self.shown)[-300:].decode("utf-8", "replace")
                raise RuntimeError(f"it did not come up: {' '.join(tail.split())}")
        return self.last - self.started

    def rest(self) -> float:
        """Wait until nothing moves; the moment of the last output. A blinking cursor is no movement."""
        end = time.monotonic() + PATIENCE
        since, size = time.monotonic(), len(self.shown)
        while time.monotonic() < end and time.monotonic() - since < QUIET:
            if not self.read(0.1):
                break
            if len(self.shown) - size > MUCH:
                since, size = self.last, len(self.shown)
        return since

    def press(self, keys: bytes) -> float:
        """Seconds from some keys until nothing moves, whenever it begins to."""
        began, size = time.monotonic(), len(self.shown)
        os.write(self._terminal, keys)
        while len(self.shown) - size <= MUCH and time.monotonic() - began < LATEST:
            if not self.read(0.1):
                break
        return max(0.0, self.rest() - began)

    def memory(self) -> int:
        """Megabytes of the process, now."""
        done = subprocess.run(["ps", "-o", "rss=", "-p", str(self.pid)], capture_output=True, text=True, check=False)
        return round(int(done.stdout.split()[0]) / 1024) if done.stdout.split() else 0

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


def watch(
    app: str, command: list[str], folder: Path, more: dict[str, str], words: bytes, *keys: bytes
) -> dict[str, Any]:
    """Start a program and open the conversation: `keys` lead there, the last of them is timed."""
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    home |= {"XDG_CACHE_HOME": str(folder / "cache"), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment = (
        {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL")} | home | more
    )
    program = Program(command, environment, folder)
    result: dict[str, Any] = {"app": app}
    try:
        result["first_paint"] = round(program.painted(words), 2)
        result["quiet"] = round(program.rest() - program.started, 2)
        result["memory_mb"] = program.memory()
        for key in keys[:-1]:
            program.press(key)
        if keys:
            result["opening"] = round(program.press(keys[-1]), 2)
            result["memory_mb"] = program.memory()
    except RuntimeError as error:
        result["failed"] = str(error)
    finally:
        program.end()
    return result


@contextlib.contextmanager
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def ours() -> dict[str, Any]:
    """qwen-mlx, with its demo model."""
    sys.path.insert(0, str(ROOT))
    from qwen_mlx.chat.history import History

    with home() as folder:
        with History(folder / "own" / "history.db") as history:
            conversation = history.new_conversation("long")
            for number in range(MESSAGES):
                history.add_message(
                    conversation.id, "assistant" if number % 2 else "user", _TEXT if number % 2 else "go on"
                )
        command = [sys.executable, "-m", "qwen_mlx.cli.main"]
        own = {"QWEN_MLX_HOME": str(folder / "own"), "PYTHONPATH": str(ROOT), "HF_HUB_CACHE": str(folder / "hub")}
        # ctrl+b hides the list, and once more shows and enters it; down marks the first one, enter opens it.
        return watch("qwen-mlx", command, folder, own, b"qwen-mlx", b"\x02", b"\x02", b"\x1b[B", b"\r")


def elia(program: Path) -> dict[str, Any]:
    """elia, which imports ChatGPT's export itself."""
    with home() as folder:
        mapping: dict[str, Any] = {}
        for number in range(MESSAGES):
            role = "assistant" if number % 2 else "user"
            message = {
                "id": str(number),
                "author": {"role": role, "metadata": {}},
                "metadata": {"model_slug": "gpt-4"},
                "content": {"content_type": "text", "parts": [_TEXT if number % 2 else "go on"]},
                "create_time": 1.7e9 + number,
                "status": "finished_successfully",
                "recipient": "all",
                "weight": 1.0,
            }
            parent = str(number - 1) if number else None
            children = [str(number + 1)] if number + 1 < MESSAGES else []
            mapping[str(number)] = {"id": str(number), "message": message, "parent": parent, "children": children}
        entry = {"title": "long", "create_time": 1.7e9, "update_time": 1.7e9, "mapping": mapping, "current_node": "499"}
        (folder / "c.json").write_text(json.dumps([entry | {"id": "x", "moderation_results": []}]))
        own = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
        keys = {"OPENAI_API_KEY": "none"}
        watch("elia", [str(program)], folder, keys, b"Elia")  # it makes its store
        done = subprocess.run(
            *([str(program), "import", str(folder / "c.json")],),
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        result = watch("elia", [str(program)], folder, keys, b"Elia", b"\t", b"\r")
        return result if done.returncode == 0 else result | {"note": f"import failed: {done.stderr[-200:]}"}


def oterm(program: Path) -> dict[str, Any]:
    """oterm, whose store is a SQLite file."""
    with home() as folder:
        store = folder / "store"
        own = {"OTERM_DATA_DIR": str(store), "OLLAMA_HOST": "127.0.0.1:9", "OLLAMA_URL": "http://127.0.0.1:9"}
        watch("oterm", [str(program)], folder, own, b"oterm")  # it makes its store
        file = next(iter(store.rglob("store.db")), None)
        if file is None:
            return {"app": "oterm", "failed": "it made no store"}
        with contextlib.closing(sqlite3.connect(file)) as db, db:
            db.execute("INSERT INTO chat (id, name, model) VALUES (1, 'long', 'qwen3')")
            names = {row[1] for row in db.execute("PRAGMA table_info(message)")}
            authors = ("user", "assistant") if "author" in names else ("", "")
            rows = [(1, authors[number % 2], _TEXT if number % 2 else "go on") for number in range(MESSAGES)]
            db.executemany("INSERT INTO message (chat_id, author, text) VALUES (?, ?, ?)", rows)
        return watch("oterm", [str(program)], folder, own, b"long")
