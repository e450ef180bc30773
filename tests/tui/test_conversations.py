"""The list on the left, and going from one conversation to another while an answer runs."""

from textual.widgets import Input

from tests.tui.fake_runtime import Gate, reply
from tests.tui.stage import START
from tui.screens.rename import RenameScreen
from tui.widgets.message import UserMessage
from tui.widgets.stream_markdown import StreamMarkdown
from tui.windowing import LIMIT, STEP, WINDOW

DAY = 86400


def add(history, title, ago=0.0, messages=()):
    conversation = history.new_conversation(title, now=START - ago)
    for number, text in enumerate(messages or (title, f"about {title}")):
        history.add_message(conversation.id, ("user", "assistant")[number % 2], text, now=START - ago)
    return conversation.id


def listed(stage):
    """The lines of the list."""
    listing = stage.chat.sidebar.listing
    options = [listing.get_option_at_index(place) for place in range(listing.option_count)]
    return [" ".join(str(option.prompt).split()) for option in options]


def mounted(stage):
    """How many messages are widgets."""
    return len(stage.log.query("UserMessage, AssistantMessage"))


async def test_conversations_are_grouped_by_day(stage, tmp_path):
    s = stage()
    for title, ago in (("now", 30), ("hours", 3 * 3600), ("night", 13 * 3600), ("week", 5 * DAY), ("old", 60 * DAY)):
        add(s.history, title, ago)
    s.history.pin(add(s.history, "kept", 400 * DAY))
    async with s:
        assert listed(s) == [
            *("Pinned", "kept 2025"),
            *("Today", "now now", "hours 3h"),
            *("Yesterday", "night Fri"),
            *("Previous 7 days", "week Mon"),
            *("Older", "old 22 Sep"),
        ]


async def test_the_list_hides_itself_on_a_narrow_screen_and_obeys(stage):
    for size, shown in (((100, 30), True), ((99, 30), False)):
        async with stage(size=size) as s:
            sidebar = s.chat.sidebar
            assert sidebar.display is shown
            await s.press("ctrl+b")
            assert sidebar.display is not shown
            await s.press("ctrl+b")
            assert sidebar.display is shown
            await s.pilot.resize_terminal(220 - size[0], 30)
            await s.pilot.pause()
            assert sidebar.display is shown, "who has chosen, keeps the choice"


async def test_pinned_ones_stay_at_the_top(stage):
    s = stage()
    for number, title in enumerate(("older", "newer")):
        add(s.history, title, 100 - 50 * number)
    async with s:
        await s.press("ctrl+b", "ctrl+b", "down", "down", "p")
        await s.until(lambda: listed(s)[:2] == ["Pinned", "older 1m"])
        await s.press("p")
        await s.until(lambda: listed(s)[0] == "Today")


async def test_open_by_key_and_by_mouse(stage):
    s = stage(reply("fresh"))
    add(s.history, "older one", 100)
    add(s.history, "newer one", 50)
    async with s:
        await s.press("ctrl+b", "ctrl+b")
        assert s.chat.sidebar.listing.has_focus
        await s.press("down", "enter")
        await s.until(lambda: "about newer one" in s.frame())
        assert s.prompt.has_focus
        await s.pilot.click("#conversations", offset=(5, 2))
        await s.until(lambda: "about older one" in s.frame())
        await s.ask("go on")
        assert [m.content for m in s.runtime.asked[0].messages] == ["older one", "about older one", "go on"]
        assert listed(s)[:2] == ["Today", "▌ older one now"], "the used one is first now"


async def test_a_new_conversation(stage):
    async with stage(reply("one"), reply("two")) as s:
        await s.ask("first")
        await s.press("ctrl+n")
        await s.until(lambda: "Try one of these" in s.frame())
        await s.ask("second")
        assert [c.title for c in s.history.conversations()] == ["second", "first"]
        assert s.runtime.asked[0].conversation != s.runtime.asked[1].conversation
        assert len(s.runtime.asked[1].messages) == 1


async def test_an_answer_goes_on_in_a_conversation_that_was_left(stage):
    gate, second = Gate(), Gate()
    script = [*reply("one two three four", gate=gate)[:3], second, *reply("one two three four", gate=gate)[3:]]
    s = stage(script)
    add(s.history, "elsewhere", 100)
    async with s:
        await s.send("count")
        await s.until(lambda: s.answers and s.answers[0].content == "one two ")
        await s.chat.open(1)
        await s.until(lambda: "about elsewhere" in s.frame())
        assert "in another conversation" in s.frame()
        assert any("● count" in line for line in listed(s))
        second.open()
        await s.until(lambda: s.app.conductor.turn.content == "one two three ")
        await s.chat.open(2)
        await s.until(lambda: "one two three" in s.frame())
        gate.open()
        await s.idle()
        assert s.answers[-1].query_one(StreamMarkdown).source == "one two three four"
        assert s.stored(2)[1] == ("assistant", "one two three four", "done")


async def test_an_answer_ends_while_another_conversation_is_shown(stage):
    gate = Gate()
    s = stage(reply("one two", gate=gate))
    add(s.history, "elsewhere", 100)
    async with s:
        await s.send("count")
        await s.until(lambda: s.answers)
        await s.chat.open(1)
        gate.open()
        await s.idle()
        assert "one two" not in s.frame()
        await s.chat.open(2)
        await s.until(lambda: "one two" in s.frame())


async def test_a_message_to_another_conversation_waits_for_its_turn(stage):
    gate = Gate()
    s = stage(reply("one two", gate=gate), reply("second"))
    add(s.history, "elsewhere", 100)
    async with s:
        await s.send("count")
        await s.until(lambda: s.answers)
        await s.chat.open(1)
        await s.send("and you?")
        await s.until(lambda: "takes it back · and you?" in s.frame())
        await s.chat.open(2)
        gate.open()
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        assert s.stored(1)[-2:] == [("user", "and you?", "done"), ("assistant", "second", "done")]
        assert "second" not in s.frame().replace("seconds", "")


async def test_delete_and_bring_back(stage):
    s = stage(reply("fresh"))
    for title in ("keep", "lose"):
        add(s.history, title)
    async with s:
        await s.chat.open(2)
        s.chat.sidebar.listing.focus()
        await s.press("delete")
        await s.until(lambda: listed(s) == ["Today", "keep now"])
        assert "“lose” is deleted" in s.toasts[-1]
        assert "Try one of these" in s.frame(), "the open one was deleted"
        assert s.chat.sidebar.listing.has_focus
        await s.press("u")
        await s.until(lambda: len(listed(s)) == 3)
        assert s.chat.sidebar.listing.marked == 2
        await s.press("u")
        assert "Nothing was deleted" in s.toasts[-1]


async def test_the_mark_goes_to_the_neighbour_of_what_was_deleted(stage):
    s = stage()
    for number in range(4):
        add(s.history, f"c{number}", ago=10 * number)
    async with s:
        s.chat.sidebar.listing.focus()
        await s.press("down", "down")
        assert s.chat.sidebar.listing.marked == 2
        await s.press("delete")
        await s.until(lambda: len(listed(s)) == 4)
        assert s.chat.sidebar.listing.marked == 3
        await s.press("down", "delete")
        await s.until(lambda: len(listed(s)) == 3)
        assert s.chat.sidebar.listing.marked == 3


async def test_deleting_the_conversation_that_is_answered_stops_the_answer(stage):
    async with stage(reply("one two", gate=Gate())) as s:
        await s.send("count")
        await s.until(lambda: s.answers)
        s.chat.sidebar.listing.focus()
        await s.press("backspace")
        await s.idle()
        assert s.runtime.handles[0].cancelled
        assert s.history.conversations() == []
        await s.press("ctrl+z")
        await s.until(lambda: len(s.history.conversations()) == 1)
        assert s.stored(1)[1] == ("assistant", "one ", "stopped")


async def test_rename(stage):
    s = stage()
    for title in ("first", "second"):
        add(s.history, title)
    async with s:
        s.chat.action_rename()
        await s.until(lambda: any("no conversation to rename" in text for text in s.toasts))
        await s.chat.open(1)
        s.chat.action_rename()
        await s.until(lambda: isinstance(s.app.screen, RenameScreen) and s.app.screen.query(Input))
        s.app.screen.query_one(Input).value = "  a better\ttitle "
        await s.press("enter")
        await s.until(lambda: any("a better title" in line for line in listed(s)))
        assert "a better title" in s.frame().splitlines()[0]
        s.chat.sidebar.listing.focus()
        await s.press("r")
        await s.until(lambda: isinstance(s.app.screen, RenameScreen))
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)
        assert {c.title for c in s.history.conversations()} == {"a better title", "second"}


async def test_only_a_window_of_a_long_conversation_is_mounted(stage):
    s = stage()
    texts = [f"message {n}" for n in range(57)]
    add(s.history, "long", messages=texts)
    async with s:
        await s.chat.open(1)
        await s.until(lambda: mounted(s) == WINDOW == s.log.window.mounted)
        await s.until(lambda: "message 56" in s.frame())
        hidden = len(texts) - WINDOW
        older = s.log.query_one(".older")
        await s.until(lambda: f"{hidden} older messages · show {STEP} more" in str(older.content))
        s.log.scroll_home(animate=False)
        await s.until(lambda: s.log.scroll_y == 0 and "older messages" in s.frame())
        first = s.log.children[1]
        above = first.region.y
        await s.pilot.click(".older")
        await s.until(lambda: mounted(s) == WINDOW + STEP)
        await s.until(lambda: s.log.scroll_y > 0 and first.region.y == above, "what was in view stays where it was")
        for _ in range(4):
            await s.log.show_older()
        await s.until(lambda: mounted(s) == len(texts))
        assert not older.display
        assert [w.query_one(StreamMarkdown).source for w in s.answers] == texts[1::2]


async def test_a_long_session_forgets_the_oldest_widgets_only(stage):
    s = stage(reply("ok"))
    add(s.history, "long", messages=[f"m{n}" for n in range(LIMIT + 10)])
    async with s:
        await s.chat.open(1)
        await s.until(lambda: mounted(s) == WINDOW == s.log.window.mounted)
        await s.log.show_older(LIMIT - WINDOW)
        s.chat.action_follow()
        await s.ask("one more")
        assert s.log.window.mounted == WINDOW
        assert mounted(s) == WINDOW
        await s.log.show_older(100)
        assert [w.content for w in s.log.query(UserMessage)][-1] == "one more"
        assert s.answers[-1].content == "ok"


async def test_a_crash_in_another_run_is_shown_as_stopped(stage, tmp_path):
    s = stage()
    conversation = s.history.new_conversation("crashed", now=START)
    s.history.add_message(conversation.id, "user", "x")
    reply_row = s.history.add_message(conversation.id, "assistant", status="streaming")
    s.history.update_message(reply_row.id, content="half an ans")
    s.history.close()
    async with stage() as s:
        await s.chat.open(1)
        await s.until(lambda: "half an ans" in s.frame())
        assert "■ Stopped" in s.frame()
