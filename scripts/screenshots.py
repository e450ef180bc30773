#!/usr/bin/env python
"""Take the pictures of the terminal app for the documentation: `docs/images/*.svg`, and `*.png` with rsvg-convert.

    scripts/screenshots.py                    # the demo model answers
    scripts/screenshots.py --model FOLDER     # another one does
    scripts/screenshots.py --scripted         # a written conversation, without any model

The app runs headless, on a store of its own; nothing of the person who runs this gets into a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["TEXTUAL_ANIMATIONS"] = "none"  # read when Textual is imported
os.environ.pop("NO_COLOR", None)

from qwen_mlx.chat.history import History  # noqa: E402
from qwen_mlx.events import Runtime, Shelf  # noqa: E402
from tui.app import QwenApp  # noqa: E402
from tui.themes import LIGHT  # noqa: E402
from tui.widgets.welcome import EXAMPLES  # noqa: E402

SIZE = (120, 34)
PATIENCE = 300.0
QUESTION = "How do I make a model smaller?"
THOUGHT = (
    "The person wants a smaller model on disk and in memory. That is quantization.\n\n"
    "I should name the command, show it once, and say what the numbers mean."
)
ANSWER = """Quantize it. The weights are packed into 4 bits, in groups of 64 that share a scale:

```bash
qwen-mlx quantize Qwen/Qwen3-8B --bits 4 --group-size 64
```

| bits | on disk | what it costs |
|---:|---:|---|
| 16 | 16.4 GB | nothing, it is the original |
| 8 | 8.7 GB | hardly measurable |
| 4 | 4.6 GB | a little, in long reasoning |

1. **Convert** the folder once
2. **Compare** with `qwen-mlx bench`
"""


@dataclass
class Picture:
    """One picture: a name, a theme, and how to get there."""

    name: str
    scene: Callable[[QwenApp, object], Awaitable[None]]
    theme: str | None = None
    text: bool = False
    only_demo: bool = False


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise SystemExit("the app did not get there")
        await asyncio.sleep(0.02)


async def ask(app: QwenApp, *questions: str) -> None:
    for question in questions:
        await app.chat.ask(question)
        await until(lambda: not app.conductor.busy and app.conductor.queued is None and not app.chat.pump.running)


async def welcome(app: QwenApp, pilot: object) -> None:
    """Nothing asked yet."""


def talk(questions: tuple[str, ...]) -> Callable[[QwenApp, object], Awaitable[None]]:
    async def scene(app: QwenApp, pilot: object) -> None:
        await ask(app, *questions)

    return scene


def unfolded(questions: tuple[str, ...]) -> Callable[[QwenApp, object], Awaitable[None]]:
    async def scene(app: QwenApp, pilot: object) -> None:
        await ask(app, *questions)
        await app.chat.action_fold()

    return scene


async def keys(app: QwenApp, pilot: object) -> None:
    await app.action_help()


def opened(action: str, words: str) -> Callable[[QwenApp, object], Awaitable[None]]:
    """A screen of its own, once `words` are on it."""

    async def scene(app: QwenApp, pilot: object) -> None:
        await app.run_action(f"screen.{action}")
        await until(lambda: words in text_of(app))
        await app.screen.run_action("mark(1)") if action == "models" else None

    return scene


def text_of(app: QwenApp) -> str:
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def first_run(app: QwenApp, pilot: object) -> None:
    await until(lambda: "not now" in text_of(app))


def pictures(questions: tuple[str, ...]) -> list[Picture]:
    return [
        Picture("welcome", welcome),
        Picture("first-run", first_run, only_demo=True),
        Picture("models", opened("models", "Published")),
        Picture("settings", opened("settings", "How it answers")),
        Picture("text", talk(questions), text=True),
        Picture("chat", talk(questions)),
        Picture("thinking", unfolded(questions)),
        Picture("light", talk(questions), LIGHT.name),
        Picture("keys", keys),
    ]


def scripted() -> Runtime:
    from tests.tui.fake_runtime import FakeRuntime, reply

    return FakeRuntime(reply("27 + 48 = **75**"), reply(ANSWER, THOUGHT, seconds=2.1, prompt_tokens=412))


def shelf(only_demo: bool) -> Shelf:
    """Models that are nobody's: those of this machine do not get into a picture."""
    from tests.tui.test_models import KNOWN, FakeShelf

    found = FakeShelf(known=KNOWN)
    found.entries = found.entries[: 1 if only_demo else 3]
    return found


def real() -> Runtime:
    from qwen_mlx.runtime.thread import ThreadRuntime

    return ThreadRuntime()


async def take(picture: Picture, runtime: Runtime, model: str | None, size: tuple[int, int]) -> str:
    """The SVG of one picture."""
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "history.db") as history:
        day = 86400.0
        for title, ago in (
            ("Explain rotary embeddings", 0.2),
            ("A poem about spring", 1.0),
            ("LoRA on 2,000 pairs", 4.0),
        ):
            conversation = history.new_conversation(title, now=time.time() - ago * day)
            history.add_message(conversation.id, "user", title, now=time.time() - ago * day)
        app = QwenApp(
            *(runtime, history),
            model=model,
            theme=picture.theme,
            prompts=Path(folder) / "prompts.jsonl",
            preferences=Path(folder) / "preferences.json",
            shelf=shelf(picture.only_demo),
            text=picture.text,
        )
        async with app.run_test(size=size) as pilot:
            await until(lambda: app.chat.ready and app.conductor.loading is None)
            if app.conductor.load_error:
                raise SystemExit(app.conductor.load_error)
            await picture.scene(app, pilot)
            await pilot.pause(0.5)
            return app.export_screenshot(title="qwen-mlx")


def rasterise(svg: str, path: Path) -> None:
    """Write a PNG. The font of the SVG comes from the web, which rsvg-convert does not ask: ours takes its place."""
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")
    svg = re.sub(r"font-size: 20px", "font-size: 20.27px", svg)  # the same advance as the font it replaces
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    subprocess.run(["rsvg-convert", "-o", str(path)], input=svg.encode(), check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="the model that answers")
    parser.add_argument("--scripted", action="store_true", help="no model: a written conversation")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="where to (default: docs/images)")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    questions = ("What is 27 + 48?", QUESTION) if options.scripted else EXAMPLES
    converter = shutil.which("rsvg-convert")
    for picture in pictures(questions):
        if options.only and picture.name not in options.only:
            continue
        runtime = scripted() if options.scripted else real()
        model = None if options.scripted else options.model
        svg = asyncio.run(take(picture, runtime, model, SIZE))
        (options.out / f"{picture.name}.svg").write_text(svg, "utf-8")
        print(options.out / f"{picture.name}.svg")
        if converter:
            rasterise(svg, options.out / f"{picture.name}.png")
            print(options.out / f"{picture.name}.png")
    if not converter:
        print("rsvg-convert is not installed: no PNG was written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
