"""Keys, the palette, the help, copying, themes, and the way out."""

import gc
import sys
import time

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.dom import DOMNode

import tui.app
from qwen_mlx.errors import UsageError
from tests.tui.fake_runtime import FakeRuntime, Gate, reply
from tui import clipboard
from tui.bindings import GROUPS, KEYS, all_shown, shown
from tui.screens.help import HelpScreen
from tui.themes import DARK, LIGHT
from tui.widgets.composer import Composer
from tui.widgets.message import UserMessage


def own_bindings():
    """Every binding written in our own classes."""
    seen = set()
    waiting = [DOMNode]
    while waiting:
        node = waiting.pop()
        waiting += node.__subclasses__()
        if node.__module__.startswith("tui.") and node not in seen:
            seen.add(node)
            for binding in vars(node).get("BINDINGS", ()):
                yield node, binding


def test_every_binding_has_an_id_of_its_own():
    found = [binding for _, binding in own_bindings()]
    assert len(found) >= len(KEYS)
    assert all(isinstance(binding, Binding) and binding.id for binding in found)
    assert len({binding.id for binding in found}) == len(found)


def test_every_action_exists():
    for node, binding in own_bindings():
        prefix, _, action = binding.action.rpartition(".")
        owner = {"": node, "screen": tui.app.ChatScreen, "app": tui.app.QwenApp}[prefix]
        assert hasattr(owner, "action_" + action.partition("(")[0]), (node, binding.action)


def test_no_key_that_a_terminal_or_macos_takes():
    for key in KEYS:
        for name in key.keys.split(","):
            assert not name.startswith("alt+")
            assert name not in ("ctrl+i", "ctrl+m", "ctrl+h", "ctrl+left_square_bracket")


def test_key_names_for_people():
    assert shown("escape") == "esc"
    assert shown("ctrl+up") == "ctrl+↑"
    assert all_shown("shift+enter,ctrl+j") == "shift+enter, ctrl+j"
    assert all_shown("ctrl+c,super+c") == "ctrl+c"


@pytest.mark.parametrize("size", [(120, 40), (60, 20)])
async def test_help_shows_every_key_of_every_group(stage, size):
    async with stage(size=size) as s:
        await s.press("f1")
        await s.until(lambda: isinstance(s.app.screen, HelpScreen))
        tables = "\n".join(str(table.content) for table in s.app.screen.query(".group"))
        for key in KEYS:
            if key.group:
                assert key.group in GROUPS
                assert all_shown(key.keys) in tables and key.title in tables
        await s.press("f1")
        await s.until(lambda: s.app.screen is s.chat)


async def test_every_command_is_in_the_palette(stage):
    async with stage() as s:
        commands = {command.title: command for command in s.app.get_system_commands(s.chat)}
        assert {key.title for key in KEYS if key.palette} <= set(commands)
        await s.press("ctrl+p")
        await s.until(lambda: isinstance(s.app.screen, CommandPalette))
        await s.pilot.press(*"new conv")
        await s.until(lambda: "New conversation" in s.frame())
        await s.press("escape")


async def test_a_command_of_the_palette_runs(stage):
    async with stage(reply("ok"), reply("again")) as s:
        await s.ask("x")
        command = next(c for c in s.app.get_system_commands(s.chat) if c.title == "Answer again")
        await command.callback()
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        await s.until(lambda: "again" in s.frame())


async def test_a_key_can_be_changed(stage):
    async with stage(reply("ok")) as s:
        s.app.set_keymap({"chat.new": "f5"})
        await s.ask("x")
        await s.press("f5")
        await s.until(lambda: "Try one of these" in s.frame())


async def test_themes(stage):
    async with stage() as s:
        assert s.app.theme == DARK.name
        s.app.action_other_theme()
        await s.pilot.pause()
        assert s.app.theme == LIGHT.name
        assert s.chat.styles.background.hex.lower() == LIGHT.background
    async with stage(theme="qwen-light") as s:
        assert s.app.theme == LIGHT.name
    async with stage(theme="nonsense") as s:
        assert s.app.theme == LIGHT.name, "the one that was chosen before"


async def test_what_was_chosen_is_there_again(stage, tmp_path):
    async with stage() as s:
        await s.press("ctrl+b")
        s.app.theme = "nord"
        await s.until(lambda: s.app.preferences.theme == "nord" and s.app.preferences.list_shown is False)
    async with stage() as s:
        assert s.app.theme == "nord" and not s.chat.sidebar.display
        await s.press("ctrl+b")
        await s.until(lambda: s.app.preferences.list_shown is None)
    (tmp_path / "preferences.json").write_text("[not a preference")
    async with stage() as s:
        assert s.app.theme == DARK.name and s.chat.sidebar.display


async def test_a_theme_reaches_the_messages(stage):
    async with stage(reply("`code`")) as s:
        await s.ask("x")
        before = s.log.query_one(UserMessage).styles.background
        s.app.theme = LIGHT.name
        await s.until(lambda: s.log.query_one(UserMessage).styles.background != before)


@pytest.mark.parametrize("theme", ["nord", "ansi-light"])
async def test_themes_of_textual_work(stage, theme):
    async with stage(reply("`code`\n\n```py\nx = 1\n```", "hm"), theme=theme) as s:
        await s.ask("x")
        await s.press("ctrl+o")
        assert "x = 1" in s.frame()


async def test_without_colour(stage, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with stage(reply("ok")) as s:
        await s.ask("x")
        assert s.app.no_color
        assert "▌ x" in s.frame(), "the open conversation is marked by a sign, not by colour only"


@pytest.mark.parametrize("size", [(60, 20), (200, 60), (20, 6)])
async def test_any_size_can_be_used(stage, size):
    async with stage(reply("an **answer** " * 30, "because"), size=size) as s:
        await s.ask("x " * 50)
        await s.press("ctrl+o", "ctrl+b", "f1", "escape")
        await s.pilot.resize_terminal(90, 30)
        await s.press("escape")
        await s.until(lambda: "answer" in s.frame())


async def test_a_list_that_was_beside_the_messages_never_hides_them(stage):
    async with stage(reply("an answer"), size=(120, 30)) as s:
        await s.ask("x")
        await s.press("ctrl+b", "ctrl+b")
        s.prompt.focus()
        await s.pilot.resize_terminal(70, 30)
        await s.until(lambda: "an answer" in s.frame() and not s.chat.sidebar.display)


async def test_the_text_column_is_centred_on_a_wide_screen(stage):
    async with stage(reply("word " * 100), size=(200, 40)) as s:
        await s.ask("x")
        lines = [line for line in s.frame().splitlines() if "word word" in line]
        assert all(len(line.split("▕")[1].strip()) <= 100 for line in lines)
        assert s.log.query_one(UserMessage).region.x == s.chat.query_one(Composer).query_one("#frame").region.x + 1


# -------------------------------------------------------------------------------------------------------- copying


async def test_ctrl_c_copies_the_selection_first(stage):
    async with stage(reply("one two", gate=Gate())) as s:
        await s.send("select me")
        await s.until(lambda: s.answers and s.answers[0].content)
        region = s.log.query_one(UserMessage).content_region
        await s.pilot.mouse_down(offset=(region.x, region.y))
        await s.pilot.hover(offset=(region.x + 6, region.y))
        await s.pilot.mouse_up(offset=(region.x + 6, region.y))
        await s.press("ctrl+c")
        assert s.app.clipboard.startswith("select")
        assert s.app.conductor.turn is not None and not s.app.conductor.turn.stopping
        await s.press("ctrl+c")
        await s.idle()
        assert "■ Stopped" in s.frame()


async def test_ctrl_c_copies_what_is_selected_in_the_prompt(stage):
    async with stage() as s:
        s.prompt.insert("hello world")
        await s.press("f7", "ctrl+c")
        assert s.app.clipboard == "hello world"
        assert s.app.is_running


async def test_a_selection_leaves_the_interface_out(stage):
    async with stage(reply("the answer", "a thought")) as s:
        await s.ask("the question")
        await s.pilot.mouse_down(offset=(s.log.region.x, s.log.region.y))
        await s.pilot.hover(offset=(s.log.region.right - 2, s.log.region.bottom - 1))
        await s.pilot.mouse_up(offset=(s.log.region.right - 2, s.log.region.bottom - 1))
        selected = s.app.screen.get_selected_text()
        assert "the question" in selected and "the answer" in selected
        for chrome in ("qwen-demo", "Thought for", "Today", "thinking auto", "❯"):
            assert chrome not in selected


def test_which_clipboard_tool():
    def has(*names):
        return lambda name: name if name in names else None

    find = clipboard.find_tool
    assert find("darwin", {}, has("pbcopy")) == ["pbcopy"]
    assert find("darwin", {"SSH_CONNECTION": "x"}, has("pbcopy")) is None
    assert find("linux", {"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}, has("wl-copy", "xclip")) == ["wl-copy"]
    assert find("linux", {"DISPLAY": ":0"}, has("xclip"))[0] == "xclip"
    assert find("linux", {"DISPLAY": ":0"}, has("xsel"))[0] == "xsel"
    assert find("linux", {"DISPLAY": ":0"}, has()) is None
    assert find("linux", {}, has("xclip")) is None


def test_the_terminal_sequence():
    assert clipboard.sequence("hé", {}) == "\x1b]52;c;aMOp\a"
    assert clipboard.sequence("hé", {"TMUX": "x"}) == "\x1bPtmux;\x1b\x1b]52;c;aMOp\a\x1b\\"


def test_a_clipboard_tool_that_fails(tmp_path):
    target = tmp_path / "copied"
    assert clipboard.run_tool(["sh", "-c", f"cat > {target}"], "你好") is True
    assert target.read_text() == "你好"
    assert clipboard.run_tool(["false"], "x") is False
    assert clipboard.run_tool(["/no/such/tool"], "x") is False


async def test_without_a_working_tool_the_terminal_is_asked(stage, monkeypatch):
    monkeypatch.setattr(clipboard, "tool", lambda: ["false"])
    written = []
    async with stage() as s:
        monkeypatch.setattr(s.app._driver, "write", written.append)
        s.app.copy_to_clipboard("abc")
        await s.until(lambda: any("]52;c;YWJj" in text for text in written))


# -------------------------------------------------------------------------------------------------------- the end


async def test_ctrl_c_twice_quits(stage):
    async with stage() as s:
        await s.press("ctrl+c")
        assert "again to quit" in s.toasts[-1]
        s.time.pass_by(5)
        await s.press("ctrl+c")
        assert s.app.is_running, "that was too late to be the second one"
        s.time.pass_by(1)
        await s.press("ctrl+c")
        await s.until(lambda: not s.app.is_running)
    assert s.runtime.closed


async def test_quitting_keeps_what_has_arrived(stage):
    s = stage(reply("one two three", "a thought", gate=Gate()))
    async with s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].content)
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
        assert s.stored()[1] == ("assistant", "one two ", "stopped")
        assert s.history.messages(1)[1].reasoning == "a thought"
    assert s.runtime.closed
    assert s.runtime.handles[0].cancelled


async def test_quitting_while_the_model_loads(stage):
    runtime = FakeRuntime(load=[Gate()], model=None)
    async with stage(runtime=runtime, model="demo") as s:
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
    assert runtime.handles[0].cancelled


async def test_quitting_does_not_wait_for_a_slow_model(stage):
    class Slow(FakeRuntime):
        def close(self, timeout=2.0):
            time.sleep(timeout)
            super().close()

    async with stage(runtime=Slow()) as s:
        await s.press("ctrl+q")
        await s.until(lambda: not s.app.is_running)
        assert not s.runtime.closed, "the screen is gone while the model's thread still ends"
    s.app.closing.join()
    assert s.runtime.closed


async def test_the_collector_is_as_before(stage):
    before = gc.get_threshold(), sys.getswitchinterval()
    async with stage(reply("one two", gate=(gate := Gate()))) as s:
        await s.send("x")
        await s.until(lambda: s.answers)
        assert gc.get_threshold()[2] > 10_000
        gate.open()
        await s.idle()
        assert (gc.get_threshold(), sys.getswitchinterval()) == before
        await s.send("y")
        await s.until(lambda: len(s.runtime.asked) == 2)
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
    assert gc.get_freeze_count() == 0


def test_run_needs_a_terminal(monkeypatch):
    runtime = FakeRuntime()
    with pytest.raises(UsageError, match="needs a terminal"):
        tui.app.run(runtime)


@pytest.mark.parametrize(("kept", "loaded"), [(None, "demo"), ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B")])
def test_the_model_that_was_used_last_is_loaded(tmp_path, monkeypatch, kept, loaded):
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path))
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    if kept:
        tui.app.Preferences(tmp_path / "preferences.json").keep(model=kept)
    models = []
    monkeypatch.setattr(tui.app.QwenApp, "run", lambda self, **options: models.append(self._model))
    tui.app.run(FakeRuntime())
    tui.app.run(FakeRuntime(), model="org/other")
    assert models == [loaded, "org/other"]


def test_run_closes_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path))
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    ran = []
    monkeypatch.setattr(tui.app.QwenApp, "run", lambda self, **options: ran.append(options))
    runtime = FakeRuntime()
    assert tui.app.run(runtime, mouse=False) == 0
    assert ran == [{"mouse": False}]
    assert runtime.closed
    assert (tmp_path / "history.db").exists()
    assert not (tmp_path / "history.db-wal").exists(), "the store was closed"
