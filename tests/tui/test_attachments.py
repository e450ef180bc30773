"""Files beside a message: attached by command and by dropping, shown, taken away, sent, kept."""

import json
from dataclasses import replace

import pytest
from textual import events

from qwen_mlx.chat import export
from qwen_mlx.chat.attachments import MAX_FILES, Attachment
from qwen_mlx.events import Message
from tests.tui.fake_runtime import DEMO, FakeRuntime, Gate, failure, reply
from tui.completing import common, completions
from tui.dropping import dropped_files
from tui.widgets.chips import Chip, estimate

SHOWN = '<file name="notes.md">\none two three\n</file>\n\nWhat is it?'
FILE = Attachment("notes.md", "one two three\n")


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "my notes"
    path.mkdir()
    path = path / "notes.md"
    path.write_text(FILE.text)
    return path


def chips(s):
    return [str(chip.content) for chip in s.chat.query(Chip)]


async def attach(s, *paths):
    count = len(chips(s))
    for path in paths:
        await s.send(f"/attach {path}")
        count += 1
        await s.until(lambda: len(chips(s)) == count)  # noqa: B023


async def test_a_file_goes_along_and_is_kept(stage, notes, tmp_path):
    async with stage(reply("text"), reply("again"), reply("instead")) as s:
        await attach(s, notes)
        await s.until(lambda: "▤ notes.md · 14 B · 3 tokens" in s.frame())
        await s.ask("What is it?")
        assert s.runtime.asked[0].messages == (Message("user", SHOWN),)
        assert chips(s) == [] and "▤ notes.md · 14 B" in s.frame(), "it is shown with the message now"
        notes.unlink()
        await s.press("ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].messages == (Message("user", SHOWN),)
        await s.press("escape", "escape")
        await s.until(lambda: chips(s) and s.prompt.text == "What is it?")
        s.prompt.insert("!")
        await s.press("enter")
        await s.until(lambda: len(s.runtime.asked) == 3)
        await s.idle()
        assert s.runtime.asked[2].messages == (Message("user", f"{SHOWN}!"),)
        assert [m.attachments for m in s.history.all_messages(1) if m.role == "user"] == [(FILE,), (FILE,)]
        assert "notes.md" in export.write(s.history, 1, "md", tmp_path).read_text()
    async with stage(reply("later")) as s:
        await s.chat.open(1)
        await s.ask("And now?")
        assert s.runtime.asked[0].messages[0].content == f"{SHOWN}!"


async def test_files_are_taken_away_by_mouse_and_by_key(stage, tmp_path):
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    async with stage(reply("ok")) as s:
        await attach(s, *paths)
        await s.pilot.click(s.chat.query(Chip)[0])
        await s.until(lambda: len(chips(s)) == 2)
        assert s.prompt.has_focus
        s.chat.query(Chip)[0].focus()
        await s.press("delete")
        await s.until(lambda: len(chips(s)) == 1)
        assert "c.txt" in chips(s)[0]
        await s.send("/detach")
        await s.until(lambda: not chips(s))
        await s.ask("x")
        assert s.runtime.asked[0].messages == (Message("user", "x"),)


async def test_dropped_files_are_attached_and_other_pastes_are_text(stage, notes):
    async with stage(reply("ok")) as s:
        s.prompt.post_message(events.Paste(f"'{notes}' "))
        await s.until(lambda: len(chips(s)) == 1)
        assert s.prompt.text == ""
        s.chat.sidebar.listing.focus()
        s.chat.sidebar.listing.post_message(events.Paste(str(notes).replace(" ", "\\ ")))
        s.prompt.post_message(events.Paste("/no/such/file"))
        await s.until(lambda: s.prompt.text == "/no/such/file")
        assert len(chips(s)) == 1, "the same file once"


async def test_a_drop_and_an_enter_in_one_burst(stage, notes):
    async with stage(reply("ok")) as s:
        s.prompt.insert("What is it?")
        s.app.post_message(events.Paste(str(notes)))
        s.app.post_message(events.Key("enter", "\r"))
        await s.until(lambda: s.runtime.asked)
        await s.idle()
        assert s.runtime.asked[0].messages == (Message("user", SHOWN),)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cat.png", b"\x89PNG\r\n", "they cannot see yet"),
        ("x.bin", b"\xff\xfe\x00\xd8x", "is not text"),
        ("none", None, "no file"),
    ],
)
async def test_what_cannot_be_attached_is_said(stage, tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    async with stage() as s:
        await s.send(f"/attach {tmp_path / name}")
        await s.until(lambda: any(said in text for text in s.toasts))
        assert chips(s) == []


async def test_too_many_files(stage, tmp_path):
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.txt").write_text(str(number))
    async with stage(size=(60, 20)) as s:
        paths = " ".join(str(tmp_path / f"{number}.txt") for number in range(MAX_FILES + 1))
        await s.send(f"/attach {paths}")
        await s.until(lambda: any(f"At most {MAX_FILES}" in text for text in s.toasts))
        assert len(chips(s)) == MAX_FILES and s.prompt.region.height == 1


async def test_what_will_not_fit_is_said_before(stage, tmp_path):
    (tmp_path / "long.txt").write_text("word " * 5000)
    runtime = FakeRuntime(failure("the conversation has 5004 tokens, and this model reads 4096"), model=replace(DEMO))
    async with stage(runtime=runtime) as s:
        await attach(s, tmp_path / "long.txt")
        await s.until(lambda: "✗ Too much for qwen-demo: 5.0k of 4.1k tokens" in s.frame())
        await s.pilot.click(s.chat.query(Chip)[0])
        await s.until(lambda: "Too much" not in s.frame())
        await attach(s, tmp_path / "long.txt")
        await s.ask("anyway")
        await s.until(lambda: "✗ Failed." in s.frame() and "ctrl+r tries again" in s.frame())


async def test_a_queued_message_keeps_its_files(stage, notes):
    gate = Gate()
    async with stage(reply("one two", gate=gate), reply("ok")) as s:
        await s.send("first")
        await s.until(lambda: s.answers)
        await attach(s, notes)
        await s.send("What is it?")
        await s.until(lambda: "What is it? (and 1 file)" in s.frame())
        assert chips(s) == []
        await s.press("up")
        await s.until(lambda: chips(s))
        assert s.prompt.text == "What is it?"
        await s.press("enter")
        await s.until(lambda: not chips(s))
        gate.open()
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.runtime.asked[1].messages[-1] == Message("user", SHOWN)


async def test_leaving_an_edit_brings_the_draft_and_its_files_back(stage, notes, tmp_path):
    (tmp_path / "other.txt").write_text("other")
    async with stage(reply("ok")) as s:
        await attach(s, notes)
        await s.ask("What is it?")
        await attach(s, tmp_path / "other.txt")
        s.prompt.insert("a draft")
        await s.press("ctrl+up", "up", "e")
        await s.until(lambda: chips(s) and "notes.md" in chips(s)[0])
        await s.press("escape")
        await s.until(lambda: "other.txt" in chips(s)[0] and len(chips(s)) == 1)
        assert s.prompt.text == "a draft"


async def test_a_refused_message_comes_back_with_its_files(stage, notes):
    async with stage() as s:
        s.runtime.closed = True
        await attach(s, notes)
        await s.send("What is it?")
        await s.until(lambda: s.prompt.text == "What is it?" and chips(s))


async def test_paths_are_completed(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report").mkdir()
    for name in ("report/alpha.txt", "report/alphabet.txt", "readme.md", ".hidden"):
        (tmp_path / name).write_text("x")
    async with stage() as s:
        await s.press(*"/attach re")
        await s.until(lambda: "readme.md" in s.frame() and "report/" in s.frame())
        await s.press("p", "tab")
        assert s.prompt.text == "/attach report/"
        await s.press("tab")
        assert s.prompt.text == "/attach report/alpha"
        await s.press("tab", "enter")
        await s.until(lambda: len(chips(s)) == 1)
        assert "alpha.txt" in chips(s)[0]


def test_completions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "shown").write_text("")
    assert [c.label for c in completions("/attach ")] == ["shown"]
    assert [c.text for c in completions("/attach .h")] == ["/attach .hidden"]
    assert completions("/attach shown") == [] == completions("/attach /no/such/") == completions("hello")
    assert [c.text for c in completions("/preset p", ["Precise", "Programmer", "Default"])] == [
        "/preset Precise",
        "/preset Programmer",
    ]
    assert [c.text for c in completions("/tag w", tags=["work", "home"])] == ["/tag work"]
    assert [c.text for c in completions("/export ")] == ["/export md", "/export json"]
    assert common(completions("/att"), "/att") == "/attach "
    assert common([], "x") == "x"


def test_dropped_files(tmp_path):
    plain, spaced = tmp_path / "a.txt", tmp_path / "b c.txt"
    for path in (plain, spaced):
        path.write_text("x")
    quoted = str(spaced).replace(" ", "\\ ")
    assert dropped_files(f"{plain}") == [plain]
    assert dropped_files(f"{plain} {quoted}\n") == [plain, spaced]
    assert dropped_files(f"{plain}\n{spaced}") == [plain, spaced]
    assert dropped_files(f"'{spaced}'") == [spaced] == dropped_files(f"file://{str(spaced).replace(' ', '%20')}")
    for text in ("", "hello", f"look at {plain}", f"{plain} and more", str(tmp_path), "/", "'", "a.txt", "x" * 30000):
        assert dropped_files(text) == []


def test_about_how_many_tokens():
    assert estimate("word " * 100) == 125
    assert estimate("你好世界") == 3
    assert json.dumps(estimate("")) == "0"
