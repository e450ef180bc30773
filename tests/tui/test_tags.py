"""Tags: given, shown, looked for, renamed, deleted."""

from textual.widgets import Input, OptionList

from tests.tui.fake_runtime import reply
from tests.tui.test_conversations import add, listed
from tui.screens.search import SearchScreen
from tui.screens.tags import TagsScreen


async def test_by_command(stage):
    async with stage(reply("ok")) as s:
        await s.send("/tag work")
        await s.until(lambda: any("no conversation to tag" in text for text in s.toasts))
        await s.ask("x")
        await s.send("/tag Work")
        await s.until(lambda: listed(s)[1] == "▌ x now #Work")
        assert "#Work" in s.frame()
        await s.send("/tag two words")
        await s.until(lambda: s.history.conversation(1).tags == ("two-words", "Work"))
        await s.send("/tag work")
        await s.until(lambda: any("has that tag already" in text for text in s.toasts))
        await s.press(*"/untag w", "tab", "enter")
        await s.until(lambda: s.history.conversation(1).tags == ("two-words",))
        await s.send("/untag nothing")
        await s.until(lambda: any("does not have that tag" in text for text in s.toasts))
        await s.send(f"/tag {'x' * 50}")
        await s.until(lambda: any("too long" in text for text in s.toasts))


async def test_looking_for_a_tag(stage):
    s = stage()
    for title, tag in (("alpha", "work"), ("beta", "home"), ("gamma", "work")):
        s.history.tag(add(s.history, title), tag)
    async with s:
        await s.press("ctrl+s")
        await s.until(lambda: isinstance(s.app.screen, SearchScreen))
        hits = s.app.screen.query_one(OptionList)
        s.app.screen.query_one(Input).value = "tag:work"
        await s.until(lambda: hits.option_count == 2)
        assert {hit.prompt.plain for hit in hits.options} == {"alpha · now\n#work", "gamma · now\n#work"}
        s.app.screen.query_one(Input).value = "tag:work about"
        await s.until(lambda: hits.option_count == 2 and "about" in hits.options[0].prompt.plain)
        s.app.screen.query_one(Input).value = "tag:none"
        await s.until(lambda: "Nothing was found" in s.frame())


async def test_the_list_of_tags_by_key(stage):
    s = stage()
    for title in ("alpha", "beta"):
        add(s.history, title)
    s.history.tag(1, "work")
    s.history.tag(2, "work")
    async with s:
        await s.chat.open(1)
        s.chat.sidebar.listing.focus()
        await s.until(lambda: s.chat.sidebar.listing.has_focus)
        await s.press("t")
        await s.until(lambda: isinstance(s.app.screen, TagsScreen) and "● #work" in s.frame())
        assert "2 conversations" in s.frame()
        await s.press("enter")
        await s.until(lambda: "○ #work" in s.frame())
        await s.press("enter")
        await s.until(lambda: "● #work" in s.frame())
        await s.press("n")
        await s.until(lambda: s.app.screen.query_one(Input).has_focus)
        await s.press(*"new one", "enter")
        await s.until(lambda: "● #new-one" in s.frame())
        await s.press("r")
        await s.until(lambda: s.app.screen.query_one(Input).has_focus)
        await s.press(*"later", "enter")
        await s.until(lambda: "#later" in s.frame() and "new-one" not in s.frame().split("Tags of")[1][:400])
        await s.press("down", "delete")
        await s.until(lambda: "on 2 conversations. Press delete again" in s.frame())
        await s.press("delete")
        await s.until(lambda: s.history.tags() == [("later", 1)])
        await s.until(lambda: "Press delete" not in s.frame())
        await s.press("f")
        await s.until(lambda: isinstance(s.app.screen, SearchScreen))
        assert s.app.screen.query_one(Input).value == "tag:later "
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)
        assert any("#later" in line for line in listed(s))


async def test_the_list_of_tags_by_mouse(stage):
    s = stage(size=(60, 20))
    add(s.history, "alpha")
    s.history.tag(add(s.history, "beta"), "work")
    async with s:
        await s.chat.open(1)
        await s.send("/tag")
        await s.until(lambda: isinstance(s.app.screen, TagsScreen) and "○ #work" in s.frame())
        await s.pilot.click("#hits", offset=(4, 0))
        await s.until(lambda: s.history.conversation(1).tags == ("work",))
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)


async def test_no_tags_yet(stage):
    s = stage()
    add(s.history, "alpha")
    async with s:
        await s.send("/tag")
        await s.until(lambda: isinstance(s.app.screen, TagsScreen) and "no tags yet" in s.frame())
        await s.press("n")
        await s.until(lambda: "no conversation to tag" in s.frame())
        await s.press("escape")
        await s.chat.open(1)
        await s.send("/tag")
        await s.until(lambda: isinstance(s.app.screen, TagsScreen) and s.app.screen.query_one(Input).has_focus)
        await s.press(*"first", "enter")
        await s.until(lambda: s.history.conversation(1).tags == ("first",))
