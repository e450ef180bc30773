#!/usr/bin/env python
"""How smooth the terminal app is: a heartbeat of 60 Hz in its event loop while answers stream in.

    scripts/measure_app.py                        # everything, about five minutes; be alone on the machine
    scripts/measure_app.py --markdown             # the same, as the tables of docs/tui-performance.md
    scripts/measure_app.py --rates 100 prose      # one document at one speed
    scripts/measure_app.py --json                 # for programs
    scripts/measure_app.py --elia ~/elia/bin/elia --oterm ~/oterm/bin/oterm     # other apps beside ours

Each run is a process of its own on a pseudo terminal of 120 x 40 cells, whose output is read and thrown away: the app
draws as it does for a person. Tokens come from a thread that keeps a rate; the run called `work` also holds Python's
lock for 2 ms per token, as building the graph of a model does: what the interface takes of that thread's speed is the
price of drawing. Other apps are started in the same way, with a history of the same 500 messages (`other_apps.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import resource
import statistics
import struct
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

SIZE = (120, 40)
BEAT = 1 / 60  # seconds
TOKENS = 1000
WORDS = "the model reads what was said before and answers one word after the other without any haste".split()
CODE = 'def step(x: int) -> int:\n    """One step."""\n    return x * 3 + 1  # and on\n\n'


def document(kind: str, tokens: int) -> list[str]:
    """About `tokens` pieces of a Markdown text, each as long as a token is on average."""
    if kind == "prose":
        text = "".join(" ".join(WORDS).capitalize() + (".\n\n" if i % 5 == 4 else ". ") for i in range(tokens // 16))
    elif kind == "list":
        text = "".join(f"- **Point {i}**: {' '.join(WORDS[:9])}\n" for i in range(tokens // 14))
    elif kind == "table":
        rows = "".join(f"| {i} | {' '.join(WORDS[:4])} | {i * i} |\n" for i in range(tokens // 14))
        text = "| n | words | square |\n|---:|---|---:|\n" + rows
    elif kind == "code":
        text = "```python\n" + CODE * (tokens // 25) + "```\n"
    else:
        parts = (("prose", 160), ("list", 90), ("code", 100), ("table", 90))
        part = [piece for kind, size in parts for piece in [*document(kind, size), "\n\n"]]
        text = "".join(part) * max(1, tokens // 440)
    return [text[i : i + 4] for i in range(0, min(len(text), 4 * tokens), 4)]


# ---------------------------------------------------------------------------------------------------- inside the app


class PacedRuntime:
    """A runtime whose answers come at a steady rate from a thread; sentences are not its business."""

    def __init__(self, pieces: list[str], rate: float, work: float) -> None:
        from qwen_mlx.events import ModelInfo

        self.model: Any = ModelInfo("paced", "/", "qwen3", 600_000_000, 4.5, 40960, "optional", "cpu", 0)
        self.seconds = 0.0
        self.pieces, self._rate, self._work = pieces, rate, work

    def submit(self, job: Any) -> Any:
        from qwen_mlx.runtime.jobs import Handle

        handle = Handle(job)
        threading.Thread(target=self._run, args=(handle,), daemon=True).start()
        return handle

    def _run(self, handle: Any) -> None:
        from qwen_mlx.events import AnswerDelta, Message, ReplyFinished, ReplyStats

        began = time.perf_counter()
        for number, piece in enumerate(self.pieces):
            if self._work:  # the lock is held for `work`, then a GPU would compute without it
                until = time.thread_time() + self._work
                while time.thread_time() < until:
                    pass
                time.sleep(max(0.0, 1 / self._rate - self._work))
            else:
                time.sleep(max(0.0, began + (number + 1) / self._rate - time.perf_counter()))
            handle.put(AnswerDelta(piece))
        self.seconds = time.perf_counter() - began
        text = "".join(self.pieces)
        handle.put(ReplyFinished(Message("assistant", text), "stop", ReplyStats(completion_tokens=len(self.pieces))))

    def close(self, timeout: float = 2.0) -> None:
        """Nothing to end."""


async def beat(lags: list[float], stop: asyncio.Event) -> None:
    """Wake up every 1/60 s and note how late it was."""
    loop = asyncio.get_running_loop()
    due = loop.time() + BEAT
    while not stop.is_set():
        await asyncio.sleep(max(0.0, due - loop.time()))
        now = loop.time()
        lags.append(now - due)
        due = max(due + BEAT, now)


def summary(lags: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(lags)
    if not ordered:
        return {}
    return {
        "p50": round(1000 * statistics.median(ordered), 2),
        "p99": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1),
        "max": round(1000 * ordered[-1], 1),
    }


def child(task: dict[str, Any]) -> dict[str, Any]:
    """Run the app for one task and measure."""
    from qwen_mlx.chat.history import History
    from tui.app import QwenApp

    folder = Path(tempfile.mkdtemp())
    history = History(folder / "history.db")
    if task["kind"] == "demo":
        from qwen_mlx.runtime.thread import ThreadRuntime

        runtime: Any = ThreadRuntime()
        app = QwenApp(runtime, history, model="demo", prompts=folder / "p", preferences=folder / "q")
    else:
        work = 0.002 if task.get("work") else 0.0
        runtime = PacedRuntime(document(task["kind"], task.get("tokens", TOKENS)), task.get("rate", 100), work)
        app = QwenApp(runtime, history, prompts=folder / "p", preferences=folder / "q")
    if task["kind"] == "open":
        conversation = history.new_conversation("long")
        for number in range(500):
            role = "user" if number % 2 == 0 else "assistant"
            history.add_message(conversation.id, role, "".join(document("mixed", 200)) if number % 2 else "go on")
    result: dict[str, Any] = {}

    async def drive() -> None:
        result["ready_seconds"] = round(time.time() - task["started"], 2)
        lags: list[float] = []
        stop = asyncio.Event()
        if task["kind"] == "open":
            began = time.perf_counter()
            await app.chat.open(1)
            result["open_seconds"] = round(time.perf_counter() - began, 3)
            await asyncio.sleep(2)
        else:
            while app.conductor.model is None:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            began, cpu = time.perf_counter(), time.thread_time()
            heart = asyncio.create_task(beat(lags, stop))
            for _ in range(task.get("questions", 1)):
                await app.chat.ask("How do I make a model smaller? What is 27 + 48?")
                while app.conductor.busy or app.chat.pump.running:
                    await asyncio.sleep(0.05)
            stop.set()
            await heart
            spent = time.perf_counter() - began
            result.update(
                summary(lags), cpu=round(100 * (time.thread_time() - cpu) / spent, 1), seconds=round(spent, 1)
            )
            if getattr(runtime, "seconds", 0):
                result["tokens_per_second"] = round(len(runtime.pieces) / runtime.seconds, 1)
        scale = 1 if sys.platform == "linux" else 1024  # kilobytes there, bytes on a Mac
        result["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / scale)

    async def run() -> None:
        async def watched() -> None:
            try:
                while not (app.is_running and app.screen_stack and app.chat.ready):
                    await asyncio.sleep(0.01)
                # as a worker, since widgets need to know their app
                await asyncio.wait_for(app.run_worker(drive()).wait(), 300)
            finally:
                app.exit()

        driver = asyncio.create_task(watched())
        await app.run_async()
        await driver

    asyncio.run(run())
    history.close()
    return result


def without_interface(tokens: int, rate: float) -> float:
    """Tokens per second of the working thread when nobody draws."""
    runtime = PacedRuntime(["word"] * tokens, rate, 0.002)
    for _ in runtime.submit(None):
        pass
    return tokens / runtime.seconds


# ------------------------------------------------------------------------------------------------------- from outside


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Run `child` on a pseudo terminal of its own."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        task = task | {"started": time.time(), "answer": answer.name}
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"], os.environ["COLORTERM"] = "xterm-256color", "truecolor"
            os.execv(sys.executable, [sys.executable, __file__, "--child", json.dumps(task)])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        shown = 0
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            shown += len(data)
        os.close(terminal)
        os.waitpid(pid, 0)
        text = answer.read()
        return json.loads(text) | {"kilobytes_drawn": shown // 1000} if text else {"failed": True}


def load() -> str:
    """What else the machine does: numbers measured beside it are rough."""
    try:
        return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} threads"
    except OSError:
        return "unknown"


def markdown(results: list[dict[str, Any]], alone: float | None, others: list[dict[str, Any]]) -> str:
    """The tables of docs/tui-performance.md."""
    lines = ["| text | tokens/s | lag p50 | p99 | max | CPU of the app |", "|---|---:|---:|---:|---:|---:|"]
    for result in results:
        if result["kind"] in (*KINDS, "demo") and not result.get("work") and "p50" in result:
            rate = result.get("tokens_per_second", "as fast as it is")
            numbers = " | ".join(f"{result[name]:.1f} ms" for name in ("p50", "p99", "max"))
            lines.append(f"| {NAMES[result['kind']]} | {rate} | {numbers} | {result['cpu']:.0f} % |")
    lines += ["", "| what | measured |", "|---|---:|"]
    by_kind = {result["kind"]: result for result in results}
    working = next((result for result in results if result.get("work")), None)
    if working and alone and "tokens_per_second" in working:
        speed = working["tokens_per_second"]
        lines.append(f"| tokens/s of a working thread, alone / with the app | {alone:.1f} / {speed:.1f} |")
        lines.append(f"| lost to the interface | {100 * (1 - speed / alone):.1f} % |")
    if "open" in by_kind and "open_seconds" in by_kind["open"]:
        opened = by_kind["open"]
        lines.append(f"| a conversation of 500 messages is open after | {1000 * opened['open_seconds']:.0f} ms |")
        lines.append(f"| memory with it | {opened['memory_mb']} MB |")
    for other in others:
        told = {"first_paint": "first paint", "quiet": "nothing moves any more", "opening": "500 messages opened"}
        parts = [f"{told[name]} {other[name]:.2f} s" for name in told if name in other]
        parts += [f"{other['memory_mb']} MB"] if "memory_mb" in other else []
        lines.append(f"| {other['app']} | {', '.join(parts) or other.get('failed', 'nothing')} |")
    lines += ["", f"Load at the start: {load()}. Python {sys.version.split()[0]}, {sys.platform}."]
    return "\n".join(lines)


def tasks(kinds: list[str], rates: list[float]) -> list[dict[str, Any]]:
    """What is measured by default."""
    found = [{"kind": kind, "rate": rate} for kind in kinds for rate in rates]
    if set(kinds) == set(KINDS):
        found += [
            {"kind": "mixed", "rate": 50},
            {"kind": "mixed", "rate": 100, "work": True},
            {"kind": "demo", "questions": 6},
            {"kind": "open"},
        ]
    return found


KINDS = ("prose", "mixed", "list", "table", "code")
NAMES = {
    "prose": "prose",
    "mixed": "mixed",
    "list": "one long list",
    "table": "one long table",
    "code": "one code block",
}
NAMES["demo"] = "the demo model answers"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--rates", default="100,200", help="tokens per second")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/tui-performance.md")
    parser.add_argument("--elia", type=Path, help="the program of elia, to be measured as well")
    parser.add_argument("--oterm", type=Path, help="the program of oterm, likewise")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        task = json.loads(args.child)
        Path(task["answer"]).write_text(json.dumps(child(task)))
        return 0
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if args.markdown else print
    results = []
    for task in tasks(args.kinds, [float(rate) for rate in args.rates.split(",")]):
        result = task | measure(task)
        results.append(result)
        if not args.json:
            say("  ".join(f"{key} {value}" for key, value in result.items()))
    alone = None
    if any(result.get("work") for result in results):
        alone = without_interface(TOKENS, 100)
        if not args.json:
            say(f"without an interface: {alone:.1f} tokens/s")
    others = []
    if set(args.kinds) == set(KINDS):
        from other_apps import elia, oterm, ours

        others.append(ours())
        others += [elia(args.elia)] if args.elia else []
        others += [oterm(args.oterm)] if args.oterm else []
        if not args.json:
            for other in others:
                say("  ".join(f"{key} {value}" for key, value in other.items()))
    if args.json:
        print(json.dumps([*results, {"kind": "no interface", "tokens_per_second": alone}, *others], indent=1))
    elif args.markdown:
        print(markdown(results, alone, others))
    return int(any(result.get("failed") for result in results))


if __name__ == "__main__":
    sys.exit(main())
