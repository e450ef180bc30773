"""Whole screens as text, compared with files in `frames/`.

After a change that is meant, write them anew with `UPDATE_FRAMES=1 pytest tests/tui/test_frames.py` and read the
difference before it is committed.
"""

import contextlib
import os
from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui.fake_runtime import failure, reply
from tests.tui.stage import START
from tests.tui.test_models import KNOWN, FakeShelf, only_the_demo
from tui.screens.help import HelpScreen
from tui.screens.models import ModelsScreen
from tui.screens.parameters import ParametersScreen
from tui.screens.quantize import QuantizeScreen
from tui.screens.search import SearchScreen
from tui.screens.settings import SettingsScreen

FRAMES = Path(__file__).parent / "frames"
SIZES = ((80, 24), (120, 40), (200, 60))
ANSWER = """The command is `qwen-mlx quantize`. It packs the weights into 4 bits:

```bash
qwen-mlx quantize Qwen/Qwen3-8B --bits 4
```

1. **Choose** a model, 通义千问 for example 🙂
2. Run the command
   - `--group-size 64` is the default
3. Compare

| bits | size |
|---:|---|
| 16 | 16.4 GB |
| 4 | 4.6 GB |
"""
THOUGHT = "The person asks which command quantizes a model.\n\nThat is quantize; an example will help."
EARLIER = (
    ("Reverse the word planet", 1500),
    ("写一首关于春天的诗", 86400),
    ("A very long title that goes on and on past the edge of the list", 3 * 86400),
    ("Was ist Quantisierung?", 40 * 86400),
)


async def compare(s, name):
    """Wait until the screen is as its file says, or write the file."""
    path = FRAMES / f"{name}.txt"
    if os.environ.get("UPDATE_FRAMES"):
        await s.pilot.pause(0.3)
        FRAMES.mkdir(exist_ok=True)
        path.write_text(s.frame() + "\n", "utf-8")
    assert path.exists(), f"{path.name} is missing: run with UPDATE_FRAMES=1"
    expected = path.read_text("utf-8")
    with contextlib.suppress(AssertionError):
        await s.until(lambda: s.frame() + "\n" == expected)
    assert s.frame() + "\n" == expected, f"{path.name} differs from the screen"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_screens_look_as_they_did(stage, size):
    where = f"{size[0]}x{size[1]}"
    problem = "the prompt has 5,120 tokens; expected at most 4,096. Start a new conversation with ctrl+n."
    s = stage(reply("**75**"), reply(ANSWER, THOUGHT, prompt_tokens=612), failure(problem), size=size)
    for title, ago in EARLIER:
        conversation = s.history.new_conversation(title, now=START - ago)
        s.history.add_message(conversation.id, "user", title, now=START - ago)
    async with s:
        await s.until(lambda: "Try one of these" in s.frame())
        await compare(s, f"welcome-{where}")
        await s.ask("What is 27 + 48?")
        await s.ask("Which command checks my machine?")
        await s.until(lambda: s.log.scroll_y == s.log.max_scroll_y)
        await s.pilot.pause()
        await compare(s, f"folded-{where}")
        await s.press("ctrl+o")
        await s.until(lambda: s.log.query("ThinkingBody"))
        await s.pilot.pause()
        s.log.scroll_home(animate=False)
        await s.until(lambda: s.log.scroll_y == 0 and "What is 27 + 48?" in s.frame())
        await s.pilot.pause()
        await compare(s, f"open-{where}")
        await s.press("ctrl+o", "ctrl+end")
        await s.ask("And this very long question?")
        await s.until(lambda: "✗ Failed." in s.frame())
        await compare(s, f"failed-{where}")
        await s.press("f1")
        await s.until(lambda: isinstance(s.app.screen, HelpScreen) and "shift+enter, ctrl+j" in s.frame())
        await compare(s, f"help-{where}")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_screens_of_messages_look_as_they_did(stage, size):
    where = f"{size[0]}x{size[1]}"
    s = stage(
        reply(ANSWER, THOUGHT, prompt_tokens=612), reply("It is `doctor`."), size=size, shelf=FakeShelf(), model="demo"
    )
    for title, ago in EARLIER:
        conversation = s.history.new_conversation(title, now=START - ago)
        s.history.add_message(conversation.id, "user", title, now=START - ago)
    async with s:
        await s.ask("Which command checks my machine?")
        await s.press("ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        await s.press("ctrl+up")
        await s.until(lambda: "[ ] versions" in s.frame())
        await s.pilot.pause()
        await compare(s, f"selected-{where}")
        await s.press("up", "e")
        await s.until(lambda: "✎ Editing" in s.frame() and "ask this instead" in s.frame())
        await compare(s, f"editing-{where}")
        await s.press("escape", "ctrl+s")
        await s.until(lambda: isinstance(s.app.screen, SearchScreen) and s.app.screen.query(Input))
        s.app.screen.query_one(Input).value = "the"
        await s.until(lambda: "Reverse the word planet ·" in s.frame())
        await compare(s, f"search-{where}")
        await s.press("escape", "f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen) and "Temperature" in s.frame())
        await s.pilot.pause()
        await compare(s, f"parameters-{where}")
        await s.press("escape", "ctrl+l")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen) and "○ too big" in s.frame())
        await compare(s, f"models-{where}")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_screens_around_look_as_they_did(stage, size):
    where = f"{size[0]}x{size[1]}"
    async with stage(reply("It is `doctor`."), size=size, shelf=only_the_demo(), model="demo") as s:
        await s.until(lambda: "not now" in s.frame())
        await compare(s, f"first-run-{where}")
        await s.press("f3")
        await s.until(lambda: isinstance(s.app.screen, SettingsScreen) and "Theme" in s.frame())
        await s.pilot.pause()
        await s.press("down")
        await compare(s, f"settings-{where}")
        await s.press("escape")
        s.app._downloads.shelf.entries = FakeShelf().entries
        await s.press("ctrl+l")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen) and "Published" in s.frame())
        await s.press("down")
        await compare(s, f"published-{where}")
        await s.press("ctrl+t")
        await s.until(lambda: isinstance(s.app.screen, QuantizeScreen) and "~375 MB" in s.frame())
        await compare(s, f"quantize-{where}")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_text_only_looks_as_it_did(stage, size):
    where = f"{size[0]}x{size[1]}"
    shelf = FakeShelf(known=KNOWN)
    async with stage(reply(ANSWER, THOUGHT), size=size, text=True, shelf=shelf, model="demo") as s:
        await s.ask("Which command quantizes a model?")
        await s.until(lambda: s.log.scroll_y == s.log.max_scroll_y)
        await s.pilot.pause()
        await compare(s, f"text-{where}")
        await s.press("ctrl+l")
        await s.until(lambda: isinstance(s.app.screen, ModelsScreen) and "Qwen3-32B" in s.frame())
        await compare(s, f"text-models-{where}")
