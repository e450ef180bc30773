"""Whole screens as text, compared with files in `frames/`.

After a change that is meant, write them anew with `UPDATE_FRAMES=1 pytest tests/tui/test_frames.py` and read the
difference before it is committed.
"""

import os
from pathlib import Path

import pytest

from tests.tui.fake_runtime import failure, reply
from tests.tui.stage import START
from tui.screens.help import HelpScreen

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


def compare(name, frame):
    """Check a frame against its file, or write the file."""
    path = FRAMES / f"{name}.txt"
    if os.environ.get("UPDATE_FRAMES"):
        FRAMES.mkdir(exist_ok=True)
        path.write_text(frame + "\n", "utf-8")
    assert path.exists(), f"{path.name} is missing: run with UPDATE_FRAMES=1"
    assert frame + "\n" == path.read_text("utf-8"), f"{path.name} differs from the screen"


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
        compare(f"welcome-{where}", s.frame())
        await s.ask("What is 27 + 48?")
        await s.ask("Which command checks my machine?")
        await s.until(lambda: s.log.scroll_y == s.log.max_scroll_y)
        await s.pilot.pause()
        compare(f"folded-{where}", s.frame())
        await s.press("ctrl+o")
        await s.until(lambda: s.log.query("ThinkingBody"))
        await s.pilot.pause()
        s.log.scroll_home(animate=False)
        await s.until(lambda: s.log.scroll_y == 0 and "What is 27 + 48?" in s.frame())
        await s.pilot.pause()
        compare(f"open-{where}", s.frame())
        await s.press("ctrl+o", "ctrl+end")
        await s.ask("And this very long question?")
        await s.until(lambda: "✗ Failed." in s.frame())
        compare(f"failed-{where}", s.frame())
        await s.press("f1")
        await s.until(lambda: isinstance(s.app.screen, HelpScreen) and "shift+enter, ctrl+j" in s.frame())
        compare(f"help-{where}", s.frame())
