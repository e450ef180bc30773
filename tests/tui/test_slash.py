"""Commands that are written into the prompt."""

import pytest

from tests.tui.fake_runtime import reply
from tui.screens.help import HelpScreen
from tui.screens.search import SearchScreen
from tui.slash import COMMANDS, NotACommand, parse, suggestions
from tui.themes import LIGHT


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        " /new",
        "/etc/hosts is what?",
        "/no_think",
        "/no_think hi",
        "/new York, is it large?",
        "/new\nline",
        "/think/x",
    ],
)
def test_messages(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("/new", "new", ""),
        ("/NEW ", "new", ""),
        ("/think OFF", "think", "off"),
        ("/system Be  brief.", "system", "Be  brief."),
    ],
)
def test_commands(text, name, argument):
    command, given = parse(text)
    assert (command.name, given) == (name, argument)


def test_what_cannot_be_meant():
    with pytest.raises(NotACommand, match=r"Did you mean /export\?"):
        parse("/exprt")
    with pytest.raises(NotACommand, match="A / alone lists"):
        parse("/zzz")
    with pytest.raises(NotACommand, match="on or off or auto, not 'maybe'"):
        parse("/think maybe")


def test_suggestions():
    assert suggestions("/") == list(COMMANDS)
    assert [command.name for command in suggestions("/e")] == ["edit", "export"]
    assert suggestions("") == suggestions("/e x") == suggestions("e") == []


def test_every_command_can_be_run():
    import tui.app

    for command in COMMANDS:
        owner = tui.app.QwenApp if command.action.startswith("app.") else tui.app.ChatScreen
        assert hasattr(owner, "action_" + command.action.removeprefix("app."))


async def test_suggestions_are_shown_and_completed(stage):
    async with stage() as s:
        await s.press("/")
        await s.until(lambda: "/parameters" in s.frame() and "… " in s.frame())
        await s.press("e", "x")
        await s.until(lambda: "/export md|json" in s.frame() and "/edit" not in s.frame())
        await s.press("tab")
        assert s.prompt.text == "/export "
        await s.until(lambda: "Write the conversation" not in s.frame())


async def test_commands_do_what_they_say(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with stage(reply("one"), reply("two")) as s:
        await s.send("/system Be brief.")
        await s.send("/think off")
        await s.ask("first")
        assert s.runtime.asked[0].messages[0].content == "Be brief."
        assert s.runtime.asked[0].thinking is False
        await s.send("/rename A better title")
        await s.until(lambda: s.history.conversation(1).title == "A better title")
        await s.send("/export json")
        await s.until(lambda: (tmp_path / "A-better-title.json").exists())
        await s.send("/export")
        await s.until(lambda: (tmp_path / "A-better-title.md").exists())
        await s.send("/pin")
        await s.until(lambda: s.history.conversation(1).pinned)
        await s.send("/again")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        await s.send("/edit")
        await s.until(lambda: s.prompt.text == "first")
        await s.press("escape")
        await s.send("/theme")
        await s.until(lambda: s.app.theme == LIGHT.name)
        await s.send("/search better")
        await s.until(lambda: isinstance(s.app.screen, SearchScreen) and "A better title" in s.frame())
        await s.press("escape")
        await s.send("/new")
        await s.until(lambda: s.chat.conversation is None)
        await s.send("/help")
        await s.until(lambda: isinstance(s.app.screen, HelpScreen))
        await s.press("escape")
        assert len(s.runtime.asked) == 2, "no command was sent to the model"


async def test_a_wrong_command_comes_back(stage):
    async with stage() as s:
        await s.send("/exprt")
        await s.until(lambda: any("Did you mean /export" in text for text in s.toasts))
        assert s.prompt.text == "/exprt" and s.runtime.asked == []
