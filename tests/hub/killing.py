"""Killing a download at random moments and doing it again, until it is whole. Also a program for long runs:

.venv/bin/python -m tests.hub.killing [KILLS] [SEED]
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.hub.fake_hub import FakeHub

_MEGABYTE = 1_000_000
_SHARDS = 3


@dataclass(frozen=True)
class Outcome:
    """`size` bytes of files, of which `sent` were sent in all, over `kills` processes that were killed."""

    kills: int
    size: int
    sent: int
    whole: bool

    @property
    def twice(self) -> int:
        return self.sent - self.size


def kill_and_repeat(cache: Path, kills: int, seed: int, shard: int = 2 * _MEGABYTE) -> Outcome:
    """Start `qwen-mlx pull` and kill it after a random number of bytes, `kills` times; then let it end.

    Some are killed by a SIGINT and, half a moment later, SIGKILL, as an impatient person does.
    """
    moments = random.Random(seed)
    hub = FakeHub()
    hub.rate = 4e6
    names = [f"model-{number:05}-of-{_SHARDS:05}.safetensors" for number in range(1, _SHARDS + 1)]
    files = {name: random.Random(name).randbytes(shard) for name in names}
    hub.add("org/model", {"config.json": b"{}", **files})
    size = sum(map(len, files.values()))

    def sent() -> int:
        return sum(hub.sent(name) for name in names)

    done = 0
    try:
        for number in range(kills):
            process = _start(hub, cache)
            # The last ones are killed near the end, when files become blobs and links are made.
            goal = sent() + moments.random() * max(size - sent(), 0) / max(kills - number - 1, 1)
            while process.poll() is None and sent() < min(goal, size):
                time.sleep(0.002)
            if moments.random() < 0.3:
                process.send_signal(signal.SIGINT)
                time.sleep(moments.random() * 0.05)
            done += process.poll() is None
            process.kill()
            process.communicate()
        last = _start(hub, cache)
        _, errors = last.communicate(timeout=60)
        assert last.returncode == 0, errors
        time.sleep(0.1)
        folder = cache / "models--org--model" / "snapshots" / ("a" * 40)
        whole = all((folder / name).read_bytes() == content for name, content in files.items())
        return Outcome(done, size, sent(), whole)
    finally:
        hub.close()


def _start(hub: FakeHub, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "NO_PROXY": "*"}
    command = [sys.executable, "-m", "qwen_mlx.cli.main", "pull", "org/model", "--quiet"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_repeat(Path(folder), kills, seed, shard=20 * _MEGABYTE)
    print(f"{outcome}; {outcome.twice} bytes came twice, {outcome.twice / max(outcome.kills, 1):.0f} per kill")
    return 0 if outcome.whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
