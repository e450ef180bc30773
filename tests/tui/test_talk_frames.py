"""The screens of a conversation's files, presets, tools and tags as text; see `test_frames.py`."""

import pytest

from qwen_mlx.chat import tools
from tests.tui.fake_runtime import FakeRuntime, reply
from tests.tui.test_frames import compare
from tests.tui.test_tools import ABLE, READ, calling
from tui.screens.parameters import ParametersScreen
from tui.screens.presets import PresetsScreen
from tui.screens.tags import TagsScreen
from tui.widgets.ask_row import AskRow

SIZES = ((60, 20), (80, 24), (120, 40))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_screens_look_as_they_did(stage, size, tmp_path, monkeypatch):
    where = f"{size[0]}x{size[1]}"
    monkeypatch.setattr(tools, "_open_below", lambda root, path: 1 / 0)  # nothing is read here
    monkeypatch.setattr("tui.tool_runs.folder_of", lambda written: written)
    monkeypatch.setattr("tui.screens.talk_commands.folder_of", lambda written: written)
    (tmp_path / "minutes.md").write_text("We agreed on everything. " * 20)
    first = calling(("calculator", {"expression": "(27 + 48) * 2"}), content="Let me compute that.")
    s = stage(runtime=FakeRuntime(first, reply("It is **150**."), READ, model=ABLE), size=size)
    s.app.preferences.choose(titles=False)
    async with s:
        await s.send("/tools /home/ada/notes")
        await s.send("/preset precise")
        await s.until(lambda: s.chat.settings.params.get("preset") == "Precise")
        await s.send(f"/attach {tmp_path / 'minutes.md'}")
        await s.until(lambda: "▤ minutes.md · 500 B · 80 tokens" in s.frame())
        s.prompt.insert("What is twice 27 + 48?")
        await compare(s, f"attached-{where}")
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        await s.send("/tag sums")
        await s.send("/tag work")
        await s.until(lambda: s.history.conversation(1).tags == ("sums", "work"))
        await s.until(lambda: "It is 150." in s.frame())
        await compare(s, f"called-{where}")
        await s.send("And the notes?")
        await s.until(lambda: s.chat.query_one(AskRow).display)
        s.log.follow()
        await compare(s, f"asked-{where}")
        await s.press("escape")
        await s.idle()
        await s.press("f9")
        await s.until(lambda: isinstance(s.app.screen, PresetsScreen) and "Translator" in s.frame())
        await compare(s, f"presets-{where}")
        await s.press("escape")
        await s.send("/tag")
        await s.until(lambda: isinstance(s.app.screen, TagsScreen) and "#work" in s.frame())
        await compare(s, f"tags-{where}")
        await s.press("escape", "f2")
        await s.until(lambda: isinstance(s.app.screen, ParametersScreen) and "Temperature" in s.frame())
        await compare(s, f"settings-of-one-{where}")
