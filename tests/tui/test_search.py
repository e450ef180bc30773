"""Searching all conversations."""

from textual.widgets import Input, OptionList

from tests.tui.fake_runtime import reply
from tests.tui.stage import START
from tui.screens.search import SearchScreen


def fill(history):
    for number, (title, question, answer) in enumerate(
        [
            ("Paris", "Where is the tower?", "In Paris, by the river."),
            ("春天的诗", "写一首关于春天的诗", "春眠不觉晓"),
            ("A tower of cards", "How high?", "As high as you like."),
        ]
    ):
        conversation = history.new_conversation(title, now=START - 3600 * (number + 1))
        history.add_message(conversation.id, "user", question, now=START - 3600 * (number + 1))
        history.add_message(conversation.id, "assistant", answer, now=START - 3600 * (number + 1))


async def look(s, query):
    await s.until(lambda: isinstance(s.app.screen, SearchScreen))
    s.app.screen.query_one(Input).value = query
    await s.pilot.pause(0.3)


def hits(s):
    return [option.prompt.plain for option in s.app.screen.query_one(OptionList).options]


async def test_words_are_found_in_titles_and_messages(stage):
    s = stage()
    fill(s.history)
    async with s:
        await s.press("ctrl+s")
        await look(s, "tower")
        await s.until(lambda: len(hits(s)) == 2)
        assert hits(s)[0] == "A tower of cards · 3h\ntitle"
        assert hits(s)[1] == "Paris · you · 1h\nWhere is the tower?"
        await look(s, "春天")
        await s.until(lambda: any("写一首关于春天的诗" in hit for hit in hits(s)))
        await look(s, "tower nowhere")
        await s.until(lambda: "Nothing was found" in s.frame())
        await s.press("enter")
        assert isinstance(s.app.screen, SearchScreen), "there is nothing to open"
        await s.press("escape")
        await s.until(lambda: s.app.screen is s.chat)


async def test_a_hit_opens_the_conversation_at_the_message(stage):
    s = stage()
    fill(s.history)
    async with s:
        await s.press("ctrl+s")
        await look(s, "river")
        await s.until(lambda: len(hits(s)) == 1)
        await s.press("enter")
        await s.until(lambda: s.log.selected is not None)
        assert s.log.selected.content == "In Paris, by the river."
        assert s.chat.conversation.title == "Paris"


async def test_a_hit_on_a_hidden_branch_shows_that_branch(stage):
    async with stage(reply("first answer"), reply("second answer")) as s:
        await s.ask("x")
        await s.press("ctrl+r")
        await s.until(lambda: len(s.runtime.asked) == 2)
        await s.idle()
        await s.press("ctrl+s")
        await look(s, "first")
        await s.until(lambda: len(hits(s)) == 1)
        await s.press("enter")
        await s.until(lambda: s.log.selected is not None)
        assert "first answer" in s.frame() and "‹ 1/2 ›" in s.frame()


async def test_keys_move_through_the_hits(stage):
    s = stage()
    fill(s.history)
    async with s:
        await s.press("ctrl+s")
        await look(s, "tower")
        await s.until(lambda: len(hits(s)) == 2)
        listing = s.app.screen.query_one(OptionList)
        await s.press("down", "down", "up", "down")
        assert listing.highlighted == 1
        await s.pilot.click(OptionList, offset=(5, 1))
        await s.until(lambda: s.app.screen is s.chat)
        assert s.chat.conversation.title == "A tower of cards"
