"""What can be done with one message: edit it, have it answered again, copy it, show another version of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history import StoredMessage
from qwen_mlx.errors import QwenError
from tui.code_blocks import code_blocks
from tui.conductor import Begun
from tui.notices import complain
from tui.widgets.composer import EditingRow
from tui.widgets.selectable import Wish

if TYPE_CHECKING:
    from tui.screens.chat import ChatScreen


class MessageCommands:
    """Belongs to a chat screen, which holds its lock while one of these runs."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._draft = ""  # what stood in the prompt before a message was edited
        self._draft_files: tuple[Attachment, ...] = ()
        self._copied = (-1, -1)  # message, and the block of its code that was copied last
        self.editing: int | None = None

    async def run(self, message_id: int, wish: Wish) -> None:
        """Do what a person wants of a message; one that is gone by now is left alone."""
        screen = self._screen
        message = screen.log_widget.known(message_id)
        if message is None:
            return
        if wish == "edit":
            self.edit(message)
        elif wish == "again":
            await self.again(message_id)
        elif wish == "go_on":
            await self._go_on(message)
        elif wish == "copy":
            screen.app.copy_to_clipboard(self._text_of(message))
            screen.notify("The message is copied.")
        elif wish == "code":
            self._copy_code(message)
        elif wish == "fold":
            await screen.log_widget.toggle(message_id)
        else:
            await self._show_version(message_id, -1 if wish == "before" else 1)

    # -------------------------------------------------------------------------------------------------- editing

    def edit(self, message: StoredMessage) -> None:
        """Take a question into the prompt; what is sent then is asked in its place."""
        screen = self._screen
        if message.role != "user":
            screen.notify("Only your own messages can be edited; r asks for another answer.")
            return
        if self.editing is None:
            self._draft = screen.prompt.text
            self._draft_files = screen.attaching.attachments
        self.editing = message.id
        screen.query_one(EditingRow).display = True
        screen.prompt.fill(message.content)
        screen.focus_prompt()
        self._put(message.attachments)

    def _put(self, files: tuple[Attachment, ...]) -> None:
        """These files are above the prompt now."""
        screen = self._screen
        if files != screen.attaching.attachments:
            screen.run_worker(screen.attaching.put(files), group="files")

    def edit_last(self) -> bool:
        """Edit the last question of the branch shown; False when there is none."""
        message = self._screen.log_widget.last_question
        if message is not None:
            self.edit(message)
        return message is not None

    def leave_editing(self) -> None:
        """The question stays as it was, and the draft comes back."""
        if self.editing is not None:
            self.editing = None
            self._screen.query_one(EditingRow).display = False
            self._screen.prompt.fill(self._draft)
            self._put(self._draft_files)

    async def send_edited(self, text: str, files: tuple[Attachment, ...] = ()) -> Begun | None:
        """Ask `text` in the place of the message that is edited; None when that is not possible now."""
        screen = self._screen
        editing, conversation = self.editing, screen.conversation
        if editing is None or conversation is None:
            return None
        if screen.conductor.busy:
            screen.prompt.fill(text)
            await screen.attaching.put(files)
            screen.notify("One answer at a time: stop the one that runs, or wait for it.")
            return None
        try:
            begun = await screen.conductor.edit(conversation.id, editing, text, files)
        except QwenError as error:
            screen.prompt.fill(text)
            await screen.attaching.put(files)
            complain(screen, error)
            return None
        self.leave_editing()
        await screen.log_widget.replace_from(editing, begun.question, begun.answer, turn=begun.turn)
        return begun

    # ------------------------------------------------------------------------------------------- other versions

    async def again(self, message_id: int | None = None) -> None:
        """Another answer to a question, or beside an answer; None means the last question."""
        screen = self._screen
        if screen.conversation is None or screen.conductor.busy:
            screen.notify("There is no answer to repeat." if screen.conversation is None else "One answer at a time.")
            return
        try:
            begun = await screen.conductor.regenerate(screen.conversation.id, message_id)
        except QwenError as error:
            complain(screen, error)
            return
        if begun is not None:
            await screen.log_widget.replace_after(begun.question.id, begun.answer, turn=begun.turn)
            screen.focus_prompt()
            await screen.began(begun)

    async def _go_on(self, message: StoredMessage) -> None:
        screen = self._screen
        cut = (
            message.status == "stopped"
            or (message.status == "failed" and message.content)
            or message.stats.get("finish_reason") == "length"
        )
        if message.role != "assistant" or not cut:
            screen.notify("This answer is complete; g goes on with one that was stopped.")
            return
        if screen.conductor.busy or screen.conversation is None:
            screen.notify("One answer at a time.")
            return
        try:
            begun = await screen.conductor.go_on(screen.conversation.id, message.id)
        except QwenError as error:
            complain(screen, error)
            return
        await screen.log_widget.replace_from(message.id, begun.answer, turn=begun.turn)
        screen.focus_prompt()
        await screen.began(begun)

    async def _show_version(self, message_id: int, step: int) -> None:
        screen, store, history = self._screen, self._screen.store, self._screen.history
        try:
            versions = await store.call(history.siblings, message_id)
            place = versions.index(message_id) + step
            if not 0 <= place < len(versions):
                screen.notify("There is no other version." if len(versions) == 1 else "There are no more versions.")
                return
            await store.call(history.show_branch, versions[place])
            messages = await store.call(history.branch_shown, message_id)
        except QwenError as error:
            complain(screen, error)
            return
        start = next(i for i, message in enumerate(messages) if message.id == versions[place])
        turn = screen.conductor.turn
        mine = turn if turn is not None and any(message.id == turn.message_id for message in messages) else None
        await screen.log_widget.replace_from(message_id, *messages[start:], turn=mine)
        screen.last = next((message for message in reversed(messages) if message.stats), None)
        await screen.log_widget.select(versions[place])

    # -------------------------------------------------------------------------------------------------- copying

    def _text_of(self, message: StoredMessage) -> str:
        """Its source; of an answer that still grows, what there is."""
        turn = self._screen.conductor.turn
        return turn.content if turn is not None and turn.message_id == message.id else message.content

    def _copy_code(self, message: StoredMessage) -> None:
        screen = self._screen
        blocks = code_blocks(self._text_of(message))
        if not blocks:
            screen.notify("There is no code in this message.")
            return
        known, last = self._copied
        place = (last + 1) % len(blocks) if known == message.id else 0
        self._copied = message.id, place
        screen.app.copy_to_clipboard(blocks[place])
        lines = blocks[place].count("\n") + 1
        which = "The code" if len(blocks) == 1 else f"Block {place + 1} of {len(blocks)}"
        screen.notify(f"{which} is copied ({lines} line{'' if lines == 1 else 's'}).")
