"""The conversation: where the app starts and where most of its time is spent."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from functools import partial

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input, TextArea

from qwen_mlx.chat import export
from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history import Conversation, StoredMessage
from qwen_mlx.errors import QwenError
from tui.bindings import bindings
from tui.clock import Clock
from tui.completing import Completion, completions
from tui.conductor import Begun, Conductor, Queued
from tui.downloads import Downloads
from tui.dropping import dropped_files
from tui.garbage import GarbagePolicy
from tui.notices import complain
from tui.preferences import Preferences
from tui.presets import Presets
from tui.prompts import PromptFile
from tui.pump import Pump
from tui.quantizing import Quantizer
from tui.sanitize import sanitize
from tui.screens.attach_commands import AttachCommands
from tui.screens.calm import CalmScreen
from tui.screens.import_commands import ImportCommands
from tui.screens.message_commands import MessageCommands
from tui.screens.model_commands import ModelCommands
from tui.screens.parameters import ParametersScreen, Settings
from tui.screens.rename import RenameScreen
from tui.screens.search import SearchScreen
from tui.screens.setting_commands import SettingCommands
from tui.screens.state import describe, facts, hints, numbers, report
from tui.screens.talk_commands import TalkCommands, settings_of
from tui.slash import NotACommand, Slash, parse
from tui.text_mode import focus_name
from tui.titles import IDLE_SECONDS
from tui.turn import Turn
from tui.widgets.ask_row import AskRow
from tui.widgets.chat_log import ChatLog
from tui.widgets.chips import Chip
from tui.widgets.composer import BelowRow, Composer, NoticeRow, QueuedRow
from tui.widgets.header import HeaderBar
from tui.widgets.prompt import Prompt
from tui.widgets.selectable import SelectableMessage
from tui.widgets.sidebar import Sidebar
from tui.widgets.status_bar import StatusBar
from tui.widgets.welcome import Welcome
from tui.wording import sentence

WIDE = 100  # cells from which on the list stands beside the messages
SETTLE_SECONDS = 1.0
DOWNLOAD_SECONDS = 1.0  # between two looks at a download in the background
TWICE_SECONDS = 1.0  # within which the second escape edits the last message


class ChatScreen(CalmScreen):
    """Puts what the conductor brings on screen, and what the person does to the conductor."""

    BINDINGS = bindings("chat")
    CSS_PATH = "chat.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    AUTO_FOCUS = "#prompt"

    def __init__(
        self,
        conductor: Conductor,
        prompts: PromptFile,
        preferences: Preferences,
        clock: Clock,
        garbage: GarbagePolicy,
        model: str | None,
        downloads: Downloads | None = None,
        quantizer: Quantizer | None = None,
        text: bool = False,
    ) -> None:
        super().__init__()
        self.downloads = downloads
        self.text = text  # text only, see `tui.text_mode`
        self.choices = SettingCommands(self, preferences)
        self.importing = ImportCommands(self, conductor.store.history)
        self.models = ModelCommands(self, downloads, quantizer, preferences, self.choices.keep, model)
        self.conductor = conductor
        self.store = conductor.store
        self.history = conductor.store.history
        self.clock = clock
        self.conversation: Conversation | None = None
        self.last: StoredMessage | None = None  # the newest message shown that has numbers
        self.commands = MessageCommands(self)
        self.attaching = AttachCommands(self)
        self.talk = TalkCommands(self, Presets(preferences.path.with_name("presets.json")))
        conductor.asides.titles = lambda: preferences.titles
        conductor.asides.on_title = self._titled
        self.settings = self.choices.new_settings()  # of the next new conversation
        self._escaped = float("-inf")
        self._prompts = prompts
        self._garbage = garbage
        self.ready = False  # the conversations are read
        self.pump = Pump(self, self._advance, lambda: conductor.active, self._speed)
        # What changes the conversation waits in awaits; two of them must not run into each other.
        self._turn_of = asyncio.Lock()

    def compose(self) -> ComposeResult:
        yield HeaderBar()
        with Horizontal(id="body"):
            yield Sidebar(self.store, self.clock)
            with Vertical(id="stage"):
                yield Welcome()
                yield ChatLog()
                yield Composer()
        yield StatusBar()

    def on_mount(self) -> None:
        self.log_widget.display = False
        self.choices.begin()
        self.prompt.complete = self._complete
        self._paint_lines()
        self.set_interval(DOWNLOAD_SECONDS, self._follow_work)
        self.call_after_refresh(self._after_first_paint)

    async def _after_first_paint(self) -> None:
        if self.models.model is not None and self.conductor.model is None:
            self.load(self.models.model)
        self.query_one(Welcome).show(self.conductor.model)
        try:
            await self.store.call(self.history.recover)
            await self.store.call(self.history.purge)
            await self.sidebar.refresh_list()
        except QwenError as error:
            complain(self, error)
        self.prompt.earlier.load(await self.store.call(self._prompts.load))
        await self.talk.refresh_names()
        # Parsing and colouring Markdown takes a while to import: not before the first paint, nor with an answer.
        importlib.import_module("tui.widgets.stream_markdown")
        self.ready = True
        self._settle_soon()
        self.run_worker(self.models.offer(), group="offer")

    def on_unmount(self) -> None:
        self.importing.stop()

    def _follow_work(self) -> None:
        """What goes on besides answers is said, too."""
        self.models.follow()
        self._paint_lines()

    @property
    def _work(self) -> str:
        return self.models.work or self.importing.work

    # -------------------------------------------------------------------------------------------- parts of the screen

    @property
    def log_widget(self) -> ChatLog:
        return self.query_one(ChatLog)

    @property
    def sidebar(self) -> Sidebar:
        return self.query_one(Sidebar)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    @property
    def conversation_id(self) -> int | None:
        return self.conversation.id if self.conversation else None

    # ------------------------------------------------------------------------------------------------ model and pump

    def load(self, name: str, adapter: str | None = None) -> None:
        """Start to load a model, with an adapter perhaps; messages sent meanwhile wait for it."""
        self.query_one(NoticeRow).display = False
        self.models.adapter = adapter
        self.conductor.load(name, adapter)
        self._paint_lines()
        self.pump.start()

    async def _advance(self) -> None:
        async with self._turn_of:
            await self._take_news()

    async def _take_news(self) -> None:
        loading = self.conductor.loading
        news = self.conductor.poll()
        turn = self.conductor.turn
        if turn is not None:
            if turn.conversation_id == self.conversation_id:
                await self.log_widget.apply(turn, news, self.clock.monotonic())
            if turn.ended:
                await self._turn_ended(turn)
        if loading is not None and self.conductor.loading is None:
            self._loading_ended(loading.name)
        queued = self.conductor.queued
        if queued is not None and not self.conductor.busy and self.conductor.model is not None:
            self.conductor.queued = None
            await self._begin(queued)
        self.talk.show_question()
        self._paint_lines()

    def _loading_ended(self, name: str) -> None:
        error = self.conductor.load_error
        self.query_one(Welcome).show(self.conductor.model)
        if error is not None:
            self.query_one(NoticeRow).show(f"{name} could not be loaded.", sentence(error))
            self._take_queued_back()
        self._settle_soon()

    async def _turn_ended(self, turn: Turn) -> None:
        self.conductor.forget_turn()
        self._garbage.stop_streaming()
        self.choices.announce(turn)
        try:
            stored = await self.store.call(self.history.message, turn.message_id)
            if turn.conversation_id == self.conversation_id:
                self.log_widget.settle(stored)
                self.last = stored if stored.stats else self.last
            elif turn.status == "failed":
                self.notify(sentence(turn.error), title="An answer failed", severity="error", markup=False)
            await self.sidebar.refresh_list()
        except QwenError as error:
            complain(self, error)
        self.attaching.weigh()
        if turn.status == "done":
            self.set_timer(IDLE_SECONDS, partial(self._find_title, turn.conversation_id))
        self._settle_soon()

    async def _find_title(self, conversation_id: int) -> None:
        """In idle time; the next question ends it."""
        if self.conductor.busy or self.conductor.queued is not None:
            return  # the end of that answer asks again
        try:
            if await self.conductor.asides.find_title(conversation_id):
                self.pump.start()
        except QwenError:
            return  # it was deleted, or cannot be read: nobody asked for this

    def _titled(self, conversation_id: int) -> None:
        """The model found a title."""

        async def show() -> None:
            await self.sidebar.refresh_list()
            if conversation_id == self.conversation_id:
                self.conversation = self.sidebar.known(conversation_id) or self.conversation
            self._paint_lines()

        self.run_worker(show(), group="titles")

    def _settle_soon(self) -> None:
        self.set_timer(SETTLE_SECONDS, self._garbage.settle)

    def _speed(self) -> float:
        return self.conductor.turn.speed(self.clock.monotonic()) if self.conductor.turn else 0.0

    # -------------------------------------------------------------------------------------------- asking, answering

    @on(Prompt.Submitted)
    async def submitted(self, event: Prompt.Submitted) -> None:
        event.stop()
        try:
            command = parse(event.text)
        except NotACommand as problem:
            self.prompt.give_back(event.text)
            self.notify(str(problem), severity="warning", markup=False)
            return
        if command is not None:
            await self._command(*command)
            return
        self.store.post(self._prompts.add, event.text)
        files = self.attaching.attachments
        await self.attaching.clear()
        await self.ask(event.text, files)

    async def _command(self, command: Slash, argument: str) -> None:
        name, takes = command.action, bool(command.argument)
        if name.startswith("app."):
            await self.run_action(name)
            return
        result = getattr(self, f"action_{name}")(*([argument] if takes else []))
        if inspect.isawaitable(result):
            await result
        self._paint_lines()

    @on(Welcome.Picked)
    async def picked(self, event: Welcome.Picked) -> None:
        event.stop()
        self.prompt.focus()
        await self.ask(event.text)

    async def ask(self, text: str, files: tuple[Attachment, ...] = ()) -> None:
        """Send a message, or queue it; one that can be neither goes back into the prompt."""
        async with self._turn_of:
            conductor = self.conductor
            if self.commands.editing is not None:
                if (begun := await self.commands.send_edited(text, files)) is not None:
                    await self.began(begun)
            elif not conductor.busy:
                await self._begin(Queued(self.conversation_id, text, files))
            elif conductor.queued is None:
                conductor.queued = Queued(self.conversation_id, text, files)
            else:
                await self._give_back(text, files)
                self.notify("One message is queued already. Press ↑ in an empty prompt to take it back.")
        self._paint_lines()

    async def _give_back(self, text: str, files: tuple[Attachment, ...]) -> None:
        """A message that was not sent."""
        self.prompt.give_back(text)
        await self.attaching.give_back(files)

    async def _begin(self, message: Queued) -> None:
        conversation_id = message.conversation_id
        try:
            begun = await self.conductor.send(conversation_id, message.text, self.settings, message.attachments)
        except QwenError as error:
            await self._give_back(message.text, message.attachments)
            complain(self, error)
            return
        if conversation_id is None:
            self.settings = self.choices.new_settings()
        if conversation_id == self.conversation_id:
            self.conversation = begun.conversation
            self._show_log(True)
            await self.log_widget.add(begun.question, begun.answer, turn=begun.turn)
        await self.began(begun)

    async def began(self, begun: Begun) -> None:
        """A reply was started and is on screen: follow it."""
        self._garbage.start_streaming()
        self._paint_lines()
        self.pump.start()
        await self.sidebar.refresh_list()

    async def action_regenerate(self) -> None:
        async with self._turn_of:
            await self.commands.again()

    @on(SelectableMessage.Wanted)
    async def wanted(self, event: SelectableMessage.Wanted) -> None:
        event.stop()
        try:
            async with self._turn_of:
                await self.commands.run(event.message_id, event.wish)
        finally:
            event.done.set()
        self._paint_lines()

    async def action_message_above(self) -> None:
        await self.log_widget.select_above()

    def action_message_below(self) -> None:
        """Below the last message is the prompt."""
        if not self.log_widget.select_below():
            self.focus_prompt()
            self.log_widget.follow()

    def action_stop(self) -> None:
        """Leave what is going on: editing, the running answer, the list. Twice with nothing of it: edit."""
        now, before = self.clock.monotonic(), self._escaped
        self._escaped = float("-inf")
        if self.commands.editing is not None:
            self.commands.leave_editing()
        elif self.conductor.turn is not None or self.conductor.queued is not None:
            self.conductor.stop()
            self._take_queued_back()
        elif self.one_column and self.sidebar.display:
            self.show_sidebar(False)
        elif self.prompt.has_focus and not self.prompt.text:
            if now - before <= TWICE_SECONDS:
                self.commands.edit_last()
            else:
                self._escaped = now
        if self.log_widget.selected is not None:
            self.log_widget.follow()
        self.prompt.focus()
        self._paint_lines()

    @on(Prompt.UpWhenEmpty)
    @on(QueuedRow.Pressed)
    def _take_queued_back(self) -> None:
        if (queued := self.conductor.take_queued()) is not None:
            self.prompt.give_back(queued.text)
            if queued.attachments:
                self.run_worker(self.attaching.give_back(queued.attachments), group="files")
            self._paint_lines()

    async def action_thinking(self) -> None:
        await self.action_set_thinking("")
        self._paint_lines()

    # ---------------------------------------------------------------------------------- files, presets, tools, tags

    async def action_attach(self, path: str = "") -> None:
        await self.attaching.attach(path)
        self.prompt.focus()

    async def action_detach(self) -> None:
        await self.attaching.clear()

    @on(Prompt.Dropped)
    async def files_dropped(self, event: Prompt.Dropped) -> None:
        event.stop()
        await self.attaching.add(event.paths)

    @on(Chip.Removed)
    async def file_removed(self, event: Chip.Removed) -> None:
        event.stop()
        await self.attaching.remove(event.place)

    async def action_preset(self, name: str = "") -> None:
        await self.talk.preset(name)

    async def action_tools(self, choice: str = "") -> None:
        await self.talk.tools(choice)
        self._paint_lines()

    async def action_tag(self, name: str = "") -> None:
        await self.talk.tag(name)

    async def action_untag(self, name: str = "") -> None:
        await self.talk.untag(name)

    @on(AskRow.Answered)
    def question_answered(self, event: AskRow.Answered) -> None:
        event.stop()
        self.conductor.tools.answer(event.allowed)
        self.talk.show_question()
        self.prompt.focus()
        self._paint_lines()

    def action_stats(self) -> None:
        """The numbers of the last answer, in words."""
        self.notify(report(self.last, self.conductor.model), markup=False, timeout=15)

    def _complete(self, text: str) -> list[Completion]:
        return completions(text, self.talk.preset_names, self.talk.tag_names)

    @property
    def tokens_used(self) -> int:
        """Of the conversation shown, so far."""
        return facts(self.conductor, self.conversation, self.last, self.clock.monotonic()).context_used

    # ------------------------------------------------------------------------------------------------ conversations

    async def action_new(self) -> None:
        async with self._turn_of:
            await self._new()

    async def _new(self) -> None:
        self.commands.leave_editing()
        self.conversation = self.last = None
        self._show_log(False)
        await self.log_widget.open([])
        self.prompt.focus()
        self._paint_lines()

    @on(Sidebar.Chosen)
    async def chosen(self, event: Sidebar.Chosen) -> None:
        event.stop()
        await self.open(event.conversation_id)
        if self.one_column:
            self.show_sidebar(False)
        self.prompt.focus()

    async def open(self, conversation_id: int) -> None:
        """Show a conversation; its running answer, if it has one, goes on growing."""
        async with self._turn_of:
            try:
                messages = await self.store.call(self.history.messages, conversation_id)
                self.conversation = await self.store.call(self.history.conversation, conversation_id)
            except QwenError as error:
                complain(self, error)
                return
            self.commands.leave_editing()
            turn = self.conductor.turn
            mine = turn if turn is not None and turn.conversation_id == conversation_id else None
            self.last = next((message for message in reversed(messages) if message.stats), None)
            self._show_log(bool(messages))
            await self.log_widget.open(messages, mine)
        self._settle_soon()
        self._paint_lines()
        await self.sidebar.refresh_list()

    async def action_delete(self) -> None:
        subject = self.sidebar.subject()
        if subject is None:
            return
        async with self._turn_of:
            conductor = self.conductor
            if conductor.turn is not None and conductor.turn.conversation_id == subject.id:
                conductor.stop()
            if conductor.queued is not None and conductor.queued.conversation_id == subject.id:
                self._take_queued_back()
            in_list = self.sidebar.listing.has_focus
            if await self.sidebar.delete(subject) and subject.id == self.conversation_id:
                await self._new()
                if in_list:
                    self.sidebar.listing.focus()

    async def action_undelete(self) -> None:
        """Bring the last deleted conversation back; show it, unless another one is open."""
        identity = await self.sidebar.undelete()
        if identity is not None and self.conversation is None:
            await self.open(identity)

    async def action_pin(self) -> None:
        if (subject := self.sidebar.subject()) is not None:
            await self.sidebar.pin(subject)

    def action_search(self, words: str = "") -> None:
        """Look for words in everything that was said."""

        async def go(found: tuple[int, int | None] | None) -> None:
            if found is None:
                return
            conversation_id, message_id = found
            if message_id is not None:
                try:
                    await self.store.call(self.history.show_branch, message_id)
                except QwenError as error:
                    complain(self, error)
                    return
            await self.open(conversation_id)
            if message_id is not None:
                await self.log_widget.select(message_id)

        self.app.push_screen(SearchScreen(self.store, self.clock, words), go)

    def action_models(self) -> None:
        """Choose the model that goes on with the conversations."""
        self.models.open()

    def action_get_offered(self) -> None:
        """Download the model that the welcome offers."""
        self.models.take_offer()

    @on(Welcome.Wanted)
    def offer_answered(self, event: Welcome.Wanted) -> None:
        event.stop()
        self.models.take_offer() if event.wanted else self.models.dismiss_offer()
        self.prompt.focus()

    def action_set_kv(self, choice: str) -> None:
        """Bits of the KV cache: "8", "4", "8/4" or "off"; "" says what it is."""
        self.models.choose_kv(choice)

    async def action_settings(self) -> None:
        """What is found again at every start."""
        await self.choices.open()

    def action_import_chats(self, path: str = "") -> None:
        """Take over the conversations in a file of another program."""
        if path:
            self.run_worker(self.importing.begin(path), group="import")
        else:
            self.prompt.fill("/import ")
            self.prompt.focus()

    def action_parameters(self) -> None:
        """The system prompt and the numbers of this conversation, or of the next one."""
        conversation = self.conversation
        now = self.settings if conversation is None else settings_of(conversation)

        async def keep(settings: Settings | None) -> None:
            await self.talk.refresh_names()
            if settings is not None:
                await self.configure(conversation, settings)
                if settings.params.get("tools") and not now.params.get("tools"):
                    self.talk.tell_tools()

        title = conversation.title if conversation else None
        self.app.push_screen(ParametersScreen(now, title, presets=self.talk.presets, store=self.store), keep)

    async def configure(self, conversation: Conversation | None, settings: Settings) -> None:
        if conversation is None:
            self.settings = settings
            return
        try:
            arguments = {"system": settings.system, "params": settings.params}
            await self.store.call(self.history.configure, conversation.id, **arguments)
            if self.conversation_id == conversation.id:
                self.conversation = await self.store.call(self.history.conversation, conversation.id)
        except QwenError as error:
            complain(self, error)

    async def action_set_system(self, text: str) -> None:
        """Set the system prompt of this conversation, or of the next one; "" takes it away."""
        now, conversation = self.settings, self.conversation
        params = now.params if conversation is None else dict(conversation.params)
        await self.configure(conversation, Settings(text or None, params))
        self.notify("The system prompt is set." if text else "There is no system prompt now.")

    async def action_set_title(self, title: str) -> None:
        if self.conversation is None or not title:
            self.action_rename()
            return
        await self.sidebar.rename(self.conversation, title)
        self.conversation = self.sidebar.known(self.conversation.id) or self.conversation

    async def action_set_thinking(self, choice: str) -> None:
        """ "on", "off" or "auto"; "" is the next of them. For this conversation, if it has a setting of its own."""
        own = self.talk.settings.params.get("thinking")
        if own is None:
            reason = self.conductor.set_thinking(choice) if choice else self.conductor.cycle_thinking()
        else:
            reason = self.conductor.no_thinking_choice
            if reason is None:
                await self.talk.set(thinking=choice or {"auto": "on", "on": "off"}.get(own, "auto"))
        if reason is not None:
            self.notify(reason, markup=False)

    def action_edit_last(self) -> None:
        if not self.commands.edit_last():
            self.notify("There is no message of yours to edit yet.")

    async def action_export(self, kind: str) -> None:
        """Write the conversation to a file in the current folder: "md" (also "") or "json"."""
        kind = kind or "md"
        if self.conversation is None:
            self.notify("There is no conversation to export yet.")
            return
        try:
            path = await self.store.call(export.write, self.history, self.conversation.id, kind)
        except QwenError as error:
            complain(self, error)
            return
        self.notify(f"Exported to {path}", markup=False, timeout=10)

    def action_rename(self) -> None:
        subject = self.sidebar.subject()
        if subject is None:
            self.notify("There is no conversation to rename yet.")
            return

        async def rename(title: str | None) -> None:
            if title:
                await self.sidebar.rename(subject, title)
                if subject.id == self.conversation_id:
                    self.conversation = self.sidebar.known(subject.id) or self.conversation
                self._paint_lines()

        self.app.push_screen(RenameScreen(subject.title), rename)

    # --------------------------------------------------------------------------------------------- looking around

    def action_sidebar(self) -> None:
        """Show and enter the list, or hide it."""
        visible = self.sidebar.display
        self.show_sidebar(not visible)
        if not self.one_column:
            self.choices.keep(list_shown=False if visible else None)
        (self.prompt if visible else self.sidebar.listing).focus()

    def on_resize(self, event: events.Resize) -> None:
        """Where there is no room beside the messages, the list stays only if somebody is in it."""
        if event.size.width < WIDE and not self.sidebar.listing.has_focus:
            self.remove_class("-with-list")
        self.call_after_refresh(self._fit_column)

    def _fit_column(self) -> None:
        """The list may have come or gone with the new width, and Textual then tells the parts beside it too late."""
        self.query_one(Composer).fit()
        self.log_widget.fit()

    @property
    def one_column(self) -> bool:
        """Whether the list lies over the messages, not beside them."""
        return self.text or self.has_class("-narrow")

    def show_sidebar(self, visible: bool | None) -> None:
        """Show the list, hide it, or (None) leave it to the width of the terminal."""
        self.set_class(visible is True, "-with-list")
        self.set_class(visible is False, "-without-list")

    def tell_terminal(self, sequence: str) -> None:
        """Send the terminal a sequence that shows nothing."""
        self.app.write_to_terminal(sequence)  # type: ignore[attr-defined]

    async def show_as_text(self, text: bool) -> None:
        """Text only, or not any more."""
        async with self._turn_of:
            self.text = text
            self.app.set_text_mode(text)  # type: ignore[attr-defined]
            if self.conversation is not None:
                turn = self.conductor.turn
                mine = turn if turn is not None and turn.conversation_id == self.conversation.id else None
                messages = await self.store.call(self.history.messages, self.conversation.id)
                await self.log_widget.open(messages, mine)
        if self.query(HeaderBar):  # not after the end of the app
            self._paint_lines()

    async def action_fold(self) -> None:
        await self.log_widget.fold_all()

    @on(BelowRow.Pressed)
    def action_follow(self) -> None:
        self.log_widget.follow()

    @on(ChatLog.Followed)
    def followed(self, event: ChatLog.Followed) -> None:
        self.query_one(BelowRow).display = not event.at_end and self.log_widget.display

    @on(Prompt.ScrollLog)
    def scroll_log(self, event: Prompt.ScrollLog) -> None:
        self.log_widget.turn_page(event.direction)

    @on(Prompt.HelpAsked)
    async def help_asked(self) -> None:
        await self.run_action("app.help")

    def action_copy_answer(self) -> None:
        answers = [answer.content for answer in self.log_widget.answers if answer.content]
        if answers and self.conversation is not None:
            self.app.copy_to_clipboard(answers[-1])
            self.notify("The last answer is copied.")
        else:
            self.notify("There is no answer to copy yet.")

    @property
    def focus_chain(self) -> list[Widget]:
        """What tab goes through: the parts of the screen, not every message."""
        return [widget for widget in super().focus_chain if not isinstance(widget, SelectableMessage)]

    def focus_prompt(self) -> None:
        """At once, and not after the keys that wait already: they are meant for it."""
        self.set_focus(self.prompt)

    async def take_key(self, event: events.Key) -> bool:
        """Handle a key before any widget has seen it; whether that was possible.

        Outside of a field, each key of a burst is done with before the next one is looked at: it may move the focus,
        and the next one then belongs to what has it. Who types means the prompt, wherever the focus is.
        """
        active = self.active_bindings.get(event.key)
        if isinstance(self.focused, (Input, TextArea)) and not _leaves_prompt(active):
            return False
        if active is not None:
            return active.enabled and await self.app.run_action(active.binding.action, active.node)
        if not (event.is_printable and event.character):
            return False
        self.focus_prompt()
        if event.character == "?" and not self.prompt.text:
            self.prompt.post_message(Prompt.HelpAsked())
        else:
            self.prompt.insert(event.character)
        return True

    def on_paste(self, event: events.Paste) -> None:
        """So does who pastes."""
        if not isinstance(self.focused, (Input, TextArea)):
            event.stop()
            self.focus_prompt()
            if paths := dropped_files(event.text):
                self.prompt.post_message(Prompt.Dropped(paths))
            else:
                self.prompt.insert(sanitize(event.text))

    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def focus_moved(self) -> None:
        self.call_after_refresh(self._paint_lines)

    # ------------------------------------------------------------------------------------------------- painting

    def _show_log(self, visible: bool) -> None:
        self.log_widget.display = visible
        self.query_one(Welcome).display = not visible
        self.query_one(BelowRow).display = False

    def _paint_lines(self) -> None:
        now = self.clock.monotonic()
        self.query_one(HeaderBar).facts = facts(self.conductor, self.conversation, self.last, now)
        bar = self.query_one(StatusBar)
        bar.state, bar.tone = describe(self.conductor, self.conversation_id, now, self._work, plain=self.text)
        if self.text and (name := focus_name(self)):
            bar.state = f"{bar.state}. Focus: {name}"
        bar.hints = hints(
            self.conductor, self.log_widget.selected, self.commands.editing is not None, self.talk.settings
        )
        self.query_one(Composer).show_numbers(numbers(self.conductor, self.conversation_id, self.last, now))
        queued = self.conductor.queued
        self.query_one(QueuedRow).show(queued.text if queued else None, len(queued.attachments) if queued else 0)
        self.prompt.holds_queued = queued is not None
        turn = self.conductor.turn
        self.sidebar.show_state(self.conversation_id, turn.conversation_id if turn else None)


def _leaves_prompt(active: ActiveBinding | None) -> bool:
    """Whether a key selects a message: the next one is meant for that, and not for the prompt."""
    return active is not None and active.binding.action in ("message_above", "message_below")
