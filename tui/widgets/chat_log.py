"""The messages of one conversation, the newest at the bottom; only a window of a long one is mounted."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events, on
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from qwen_mlx.chat.history import StoredMessage
from qwen_mlx.events import Event
from tui.turn import Turn
from tui.widgets.message import AssistantMessage, UserMessage
from tui.widgets.selectable import SelectableMessage
from tui.widgets.still import Still
from tui.widgets.thinking import ThinkingBlock
from tui.windowing import STEP, Window

COLUMN = 100  # cells; longer lines are tiring to read
_FILL_SECONDS = 0.03


class OlderRow(Still):
    """Stands for the messages that are not mounted; a click or enter brings some of them."""

    can_focus = True

    class Pressed(Message):
        """The person wants to see them."""

    def show(self, hidden: int) -> None:
        word = "message" if hidden == 1 else "messages"
        more = f" · show {min(STEP, hidden)} more" if hidden > STEP else " · show"
        self.update(Content(f"↑ {hidden} older {word}{more}"))
        self.display = hidden > 0

    def on_click(self) -> None:
        self.post_message(self.Pressed())

    def key_enter(self) -> None:
        self.post_message(self.Pressed())


class ChatLog(VerticalScroll):
    """Follows the end while the person does not scroll away from it."""

    BLANK = True  # children cover it; nothing to render for the container itself

    @dataclass
    class Followed(Message):
        """The end came into view, or left it."""

        at_end: bool

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.window = Window(0, 0)
        self.unfolded: dict[int, bool] = {}  # thinking blocks opened or closed by hand, by message
        self._unfold_all = False
        self._messages: list[StoredMessage] = []
        self._older = OlderRow(classes="older")
        self._turn: Turn | None = None
        self._at_end = True

    def render_lines(self, crop: Region) -> list[Strip]:
        """Blank lines are made without a look at the filters of the app, one of which takes colours away."""
        strips = super().render_lines(crop)
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, self.background_colors[1]) for strip in strips]
        return strips

    def update_node_styles(self, animate: bool = True) -> None:
        """Nothing here looks different with or without focus, so hundreds of blocks need not be asked."""

    def on_resize(self, event: events.Resize) -> None:
        self.fit()

    def fit(self) -> None:
        """Keep the column in the middle."""
        side = max(1, (self.outer_size.width - COLUMN) // 2)
        if self.styles.padding.left != side:
            self.styles.padding = (0, side, 1, side)

    def watch_virtual_size(self) -> None:
        self.call_next(self._hold_end)

    def _hold_end(self) -> None:
        """Follow the end as soon as there is more than fits.

        Before, an anchored container would push the few lines there are to its lower edge, by a negative scroll.
        """
        overflowing = self.max_scroll_y > 0
        if overflowing and not self.is_anchored:
            self.anchor()
        elif not overflowing and self.is_anchored:
            self._release()
        self._check_end()

    def _release(self) -> None:
        self.anchor(False)
        self.set_scroll(None, 0)

    # ----------------------------------------------------------------------------------------------- what is shown

    async def open(self, messages: list[StoredMessage], turn: Turn | None = None) -> None:
        """Show a conversation; `turn` is its reply that is still running, if it is."""
        self._messages = list(messages)
        self._turn = turn
        self.window = Window.open(len(messages))
        self._release()
        with self.app.batch_update():
            await self.remove_children()
            await self.mount_all([self._older, *self._widgets(self.window.first, len(messages))])
        self._older.show(self.window.first)
        self.call_after_refresh(self._hold_end)
        if self.window.first:
            self.set_timer(_FILL_SECONDS, self._fill)

    async def add(self, *messages: StoredMessage, turn: Turn | None = None) -> None:
        """New messages at the end; the last one is the reply `turn`."""
        self._messages += messages
        self._turn = turn
        first = self.window.total
        self.window = self.window.grow(len(messages))
        with self.app.batch_update():
            if not self._older.is_attached:
                await self.mount(self._older)
                self._older.show(self.window.first)
            await self.mount_all(self._widgets(first, self.window.total))
        self.follow()
        await self._prune()

    async def replace_after(self, message_id: int, *messages: StoredMessage, turn: Turn | None = None) -> None:
        """Another branch below `message_id`: what stood there goes."""
        await self._replace(self._place(message_id) + 1, messages, turn)

    async def replace_from(self, message_id: int, *messages: StoredMessage, turn: Turn | None = None) -> None:
        """Another branch in the place of `message_id`: it goes, and what stood below it."""
        await self._replace(self._place(message_id), messages, turn)

    def _place(self, message_id: int) -> int:
        return next(i for i, message in enumerate(self._messages) if message.id == message_id)

    async def _replace(self, kept: int, messages: tuple[StoredMessage, ...], turn: Turn | None) -> None:
        gone = {message.id for message in self._messages[kept:]}
        for widget in list(self.children):
            if isinstance(widget, SelectableMessage) and widget.message_id in gone:
                await widget.remove()
        self._messages = self._messages[:kept]
        self.window = Window(min(self.window.first, kept), kept)
        await self.add(*messages, turn=turn)

    async def show_older(self, count: int = STEP) -> None:
        """Mount older messages above; what is in view stays where it is."""
        window = self.window.older(count)
        widgets = self._widgets(window.first, self.window.first)
        if not widgets:
            return
        height, following = self.virtual_size.height, self._at_end
        self.window = window
        with self.app.batch_update():
            await self.mount_all(widgets, after=self._older)
            self._older.show(window.first)

        def keep_place() -> None:
            if not following:
                added = self.virtual_size.height - height
                self.scroll_to(y=self.scroll_y + added, animate=False, force=True)

        self.call_after_refresh(keep_place)

    async def _fill(self) -> None:
        wanted = self.window.fill()
        if wanted != self.window:
            await self.show_older(self.window.first - wanted.first)
            self.set_timer(_FILL_SECONDS, self._fill)

    async def _prune(self) -> None:
        window = self.window.prune()
        if window != self.window and self._at_end:
            widgets = [child for child in self.children if child is not self._older]
            with self.app.batch_update():
                for widget in widgets[: window.first - self.window.first]:
                    await widget.remove()
                self.window = window
                self._older.show(window.first)

    def _widgets(self, first: int, last: int) -> list[Widget]:
        found: list[Widget] = []
        for message in self._messages[first:last]:
            if message.role == "user":
                found.append(UserMessage(message))
            elif message.role == "assistant":
                mine = self._turn if self._turn and self._turn.message_id == message.id else None
                unfolded = self.unfolded.get(message.id, self._unfold_all)
                found.append(AssistantMessage(message, mine, unfolded=unfolded))
        return found

    # ---------------------------------------------------------------------------------------------- the running reply

    @property
    def answers(self) -> list[AssistantMessage]:
        return list(self.query(AssistantMessage).results())

    def answer_of(self, turn: Turn) -> AssistantMessage | None:
        """The widget of a reply, if it is mounted here."""
        return next((answer for answer in self.answers if answer.message_id == turn.message_id), None)

    async def apply(self, turn: Turn, events: list[Event], now: float) -> None:
        """Show what a reply brought, if it belongs to this conversation."""
        answer = self.answer_of(turn)
        if answer is None:
            return
        await answer.apply(turn, events, now)
        if turn.ended:
            await answer.finish(turn, now)

    def settle(self, message: StoredMessage) -> None:
        """A reply ended and is stored as `message`: what is shown if it is scrolled away and mounted again."""
        self._messages = [message if known.id == message.id else known for known in self._messages]
        if self._turn is not None and self._turn.message_id == message.id:
            self._turn = None

    # ------------------------------------------------------------------------------------------- the selected message

    @property
    def selected(self) -> SelectableMessage | None:
        """The message that has the focus."""
        focused = self.screen.focused
        return focused if isinstance(focused, SelectableMessage) and focused.parent is self else None

    def known(self, message_id: int) -> StoredMessage | None:
        """A message of the conversation shown, mounted or not."""
        return next((message for message in self._messages if message.id == message_id), None)

    @property
    def last_question(self) -> StoredMessage | None:
        """The newest message of the person."""
        return next((message for message in reversed(self._messages) if message.role == "user"), None)

    async def select_above(self) -> None:
        """Select the message above the selected one; the last one when there is none."""
        selected = self.selected
        if selected is not None and selected is self._mounted()[0] and self.window.first:
            await self.show_older()
        mounted = self._mounted()
        if selected is None:
            self._select(mounted[-1] if mounted else None)
        elif selected is not mounted[0]:
            self._select(mounted[mounted.index(selected) - 1])

    def select_below(self) -> bool:
        """Select the message below; False when the last one, or none, was selected."""
        mounted, selected = self._mounted(), self.selected
        if selected is None or selected is mounted[-1]:
            return False
        self._select(mounted[mounted.index(selected) + 1])
        return True

    async def select(self, message_id: int) -> None:
        """Select a message of the conversation shown, however far up it is."""
        if self.known(message_id) is None:
            return
        place = self._place(message_id)
        if place < self.window.first:
            await self.show_older(self.window.first - place)
        widget = next((found for found in self._mounted() if found.message_id == message_id), None)
        self._select(widget)
        self.call_after_refresh(self._select, widget)  # it may have no place before

    def _select(self, message: SelectableMessage | None) -> None:
        if message is not None and message.is_attached:
            self.release_anchor()
            self.screen.set_focus(message, scroll_visible=False)  # at once: the next key is for this message
            self.scroll_to_widget(message, animate=False, top=message.region.height > self.size.height, force=True)

    def _mounted(self) -> list[SelectableMessage]:
        return [child for child in self.children if isinstance(child, SelectableMessage)]

    # -------------------------------------------------------------------------------------------- folding, following

    def unfold_later(self, unfolded: bool) -> None:
        """How thinking is shown that is not mounted yet."""
        self._unfold_all = unfolded

    async def fold_all(self, unfolded: bool | None = None) -> None:
        """Unfold all thinking, or fold it; None folds if one is open. Later ones do the same."""
        answers = [answer for answer in self.answers if answer.has_thinking]
        is_open = any(answer.unfolded for answer in answers) if answers else self._unfold_all
        self._unfold_all = not is_open if unfolded is None else unfolded
        self.unfolded.clear()
        with self.app.batch_update():
            for answer in self.answers:
                await answer.fold(self._unfold_all)

    async def toggle(self, message_id: int) -> None:
        """Fold or unfold the thinking of one message."""
        answer = next((found for found in self.answers if found.message_id == message_id), None)
        if answer is not None and answer.has_thinking:
            self.unfolded[message_id] = not answer.unfolded
            await answer.fold(not answer.unfolded)

    @on(ThinkingBlock.Toggled)
    def remember(self, event: ThinkingBlock.Toggled) -> None:
        event.stop()
        answer = event.block.parent
        if isinstance(answer, AssistantMessage):
            answer.unfolded = event.unfolded
            self.unfolded[answer.message_id] = event.unfolded

    @on(OlderRow.Pressed)
    async def older_pressed(self, event: OlderRow.Pressed) -> None:
        event.stop()
        await self.show_older()

    def turn_page(self, direction: str) -> None:
        """Scroll one page "up" or "down"."""
        if direction == "up":
            self.scroll_page_up(animate=False)
        else:
            self.scroll_page_down(animate=False)

    def follow(self) -> None:
        """Go to the end and stay there."""
        if self.max_scroll_y > 0:
            self.anchor()
        self._check_end()

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self._check_end()

    def _check_end(self) -> None:
        at_end = self.scroll_target_y >= self.max_scroll_y - 1 or self.max_scroll_y == 0
        if at_end != self._at_end:
            self._at_end = at_end
            self.post_message(self.Followed(at_end))
