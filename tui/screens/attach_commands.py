"""The files that go along with the next message: attaching, taking away, and whether they will fit."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_mlx.chat import attachments
from qwen_mlx.chat.attachments import MAX_FILES, Attachment
from qwen_mlx.errors import QwenError
from tui.notices import complain
from tui.widgets.chips import Attached, Chips, estimate
from tui.wording import brief, sentence

if TYPE_CHECKING:
    from tui.screens.chat import ChatScreen

_ROOM = 256  # tokens, without which an answer is hardly one


class AttachCommands:
    """Belongs to a chat screen."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.files: list[Attached] = []

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(file.attachment for file in self.files)

    async def attach(self, written: str) -> None:
        """`/attach PATH`, or several paths as a shell takes them."""
        if not written:
            self._screen.notify("Write the path of a text file after /attach; tab completes it.")
            self._screen.prompt.fill("/attach ")
            return
        await self.add(_paths(written))

    async def add(self, paths: Sequence[Path]) -> None:
        """Read files, and show them above the prompt; what cannot be read is said."""
        wrong: list[QwenError] = []
        for path in paths:
            try:
                attachment = await asyncio.to_thread(attachments.read, path)
            except QwenError as error:
                wrong.append(error)
                continue
            if attachment in self.attachments:
                continue
            if len(self.files) >= MAX_FILES:
                self._screen.notify(f"At most {MAX_FILES} files go along with a message.", severity="warning")
                break
            self.files.append(Attached(attachment))
        self._complain(wrong)
        await self._show()

    def _complain(self, wrong: Sequence[QwenError]) -> None:
        """One notice, however many files could not be read."""
        if len(wrong) == 1:
            complain(self._screen, wrong[0])
        elif wrong:
            text = f"{sentence(wrong[0])} {len(wrong) - 1} more could not be attached either."
            self._screen.notify(text, severity="error", timeout=12, markup=False)

    async def remove(self, place: int) -> None:
        """Take one of them away."""
        if 0 <= place < len(self.files):
            del self.files[place]
            await self._show()
            self._screen.prompt.focus()

    async def clear(self) -> None:
        """Take all of them away."""
        await self.put(())

    async def put(self, files: Sequence[Attachment]) -> None:
        """These, in the place of what is there."""
        if tuple(files) != self.attachments:
            known = {id(file.attachment): file for file in self.files}
            self.files = [known.get(id(file)) or Attached(file) for file in files]
            await self._show()

    async def give_back(self, files: Sequence[Attachment]) -> None:
        """Of a message that was not sent, before what is there."""
        await self.put([*files, *(file for file in self.attachments if file not in files)][:MAX_FILES])

    async def _show(self) -> None:
        screen = self._screen
        await screen.query_one(Chips).show(self.files)
        for file in self.files:
            if file.tokens is None:
                self._count(file)
        screen.pump.start()
        self.weigh()

    def _count(self, file: Attached) -> None:
        def told(tokens: int) -> None:
            file.tokens = tokens
            for chips in self._screen.query(Chips):  # none while the app is being left
                chips.recount(self.files)
                self.weigh()

        try:
            self._screen.conductor.asides.count(file.attachment.text, told)
        except RuntimeError:
            return  # the runtime is closed: about is good enough

    def weigh(self) -> None:
        """Say so when the conversation and the files are more than the model can read."""
        screen = self._screen
        model, warning = screen.conductor.model, ""
        if model is not None and self.files:
            used = screen.tokens_used + sum(file.count for file in self.files) + estimate(screen.prompt.text)
            about = "" if all(file.tokens is not None for file in self.files) else "about "
            if used + _ROOM > model.context:
                warning = f"✗ Too much for {model.name}: {about}{brief(used)} of {brief(model.context)} tokens"
        screen.query_one(Chips).warn(warning)


def _paths(written: str) -> list[Path]:
    """One path with spaces in it, if there is such a file; else as a shell would read it."""
    whole = Path(written).expanduser()
    try:
        if whole.exists():
            return [whole]
        words = shlex.split(written)
    except (OSError, ValueError):
        return [whole]
    return [Path(word).expanduser() for word in words]
