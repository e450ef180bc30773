"""Small jobs for the model beside the conversations: titles in its idle time, and counting tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qwen_mlx.chat.history import Conversation, StoredMessage
from qwen_mlx.events import CountTokens, Event, JobHandle, ReplyFinished, Runtime, TokensCounted
from tui.store import Store
from tui.titles import can_write, title_from, title_job


@dataclass
class _Titling:
    conversation_id: int
    handle: JobHandle


class Asides:
    """Belongs to a conductor, which calls `poll` with its own.

    Attributes:
        titles: whether titles are wanted.
        on_title: hears of a conversation that got one.
    """

    def __init__(self, runtime: Runtime, store: Store) -> None:
        self.titles: Callable[[], bool] = lambda: True
        self.on_title: Callable[[int], None] = lambda conversation_id: None
        self._runtime = runtime
        self._store = store
        self._titling: _Titling | None = None
        self._counting: list[tuple[JobHandle, Callable[[int], None]]] = []
        self._left: list[JobHandle] = []  # cancelled, and not ended yet

    @property
    def active(self) -> bool:
        """Whether something is under way."""
        return self._titling is not None or bool(self._counting or self._left)

    def count(self, text: str, told: Callable[[int], None]) -> None:
        """Count the tokens of a text; `told` hears how many, if the model can tell."""
        if self._runtime.model is not None:
            self._counting.append((self._runtime.submit(CountTokens(text)), told))

    async def find_title(self, conversation_id: int) -> bool:
        """Begin to find a title for a conversation that has none of its own; whether one was begun.

        Raises:
            QwenError: the store cannot be read, or there is no such conversation any more.
        """
        if not self._may_begin():
            return False
        history = self._store.history
        conversation: Conversation = await self._store.call(history.conversation, conversation_id)
        if conversation.titled_by != "line":
            return False
        messages: list[StoredMessage] = await self._store.call(history.messages, conversation_id)
        model = self._runtime.model
        job = title_job(messages, model) if model is not None and self._may_begin() else None
        if job is None:
            return False
        self._titling = _Titling(conversation_id, self._runtime.submit(job))
        return True

    def _may_begin(self) -> bool:
        model = self._runtime.model
        return self._titling is None and self.titles() and model is not None and can_write(model)

    def stop_title(self) -> None:
        """Somebody needs the model: the title can wait."""
        if self._titling is not None:
            self._titling.handle.cancel()
            self._left.append(self._titling.handle)
            self._titling = None

    def poll(self) -> None:
        """Take what has arrived."""
        for handle in self._left:
            handle.drain()
        self._left = [handle for handle in self._left if not handle.finished]
        counting, self._counting = self._counting, []
        for handle, told in counting:
            for event in handle.drain():
                if isinstance(event, TokensCounted):
                    told(event.tokens)
            if not handle.finished:
                self._counting.append((handle, told))
        titling = self._titling
        if titling is not None:
            events = titling.handle.drain()
            if titling.handle.finished:
                self._titling = None
                self._take_title(titling.conversation_id, events)

    def _take_title(self, conversation_id: int, events: list[Event]) -> None:
        last = events[-1] if events else None
        if isinstance(last, ReplyFinished) and last.reason != "cancelled":
            title = title_from(last.message.content)
            if title is not None:
                self._store.post(self._store.history.entitle, conversation_id, title)
                self.on_title(conversation_id)

    def leave(self) -> None:
        """The app ends."""
        self.stop_title()
        for handle, _ in self._counting:
            handle.cancel()
