"""What is set for one conversation by name: its preset, its tools, its tags."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qwen_mlx.chat.history import Conversation
from qwen_mlx.errors import QwenError, UsageError
from tui.conductor import Settings
from tui.notices import complain
from tui.presets import DEFAULT, Preset, Presets
from tui.screens.presets import PresetsScreen
from tui.screens.tags import TagsScreen
from tui.tool_runs import folder_of, why_not
from tui.widgets.ask_row import AskRow

if TYPE_CHECKING:
    from tui.screens.chat import ChatScreen


class TalkCommands:
    """Belongs to a chat screen."""

    def __init__(self, screen: ChatScreen, presets: Presets) -> None:
        self._screen = screen
        self.presets = presets
        self.preset_names: list[str] = []  # for completing; as of the last look
        self.tag_names: list[str] = []

    async def refresh_names(self) -> None:
        """Look again what presets and tags there are."""
        store = self._screen.store
        try:
            self.preset_names = [preset.name for preset in await store.call(self.presets.all)]
            self.tag_names = [name for name, _ in await store.call(store.history.tags)]
        except QwenError:
            return  # they are only for completing

    # ------------------------------------------------------------------------------------------------- settings

    @property
    def settings(self) -> Settings:
        """Of the conversation shown, or of the next one."""
        conversation = self._screen.conversation
        return self._screen.settings if conversation is None else settings_of(conversation)

    async def set(self, **changes: Any) -> None:
        """Change parameters of the conversation shown, or of the next one; None takes one away."""
        now = self.settings
        params = {name: value for name, value in {**now.params, **changes}.items() if value is not None}
        await self._screen.configure(self._screen.conversation, Settings(now.system, params))

    # -------------------------------------------------------------------------------------------------- presets

    async def preset(self, name: str) -> None:
        """Choose one by name; without a name, from the list."""
        screen = self._screen
        if not name:
            self.choose_preset()
            return
        try:
            preset = await screen.store.call(self.presets.find, name)
        except QwenError as error:
            complain(screen, error)
            return
        await self.use(preset)

    def choose_preset(self) -> None:
        """The list of presets."""
        screen = self._screen

        async def chosen(preset: Preset | None) -> None:
            await self.refresh_names()
            if preset is not None:
                await self.use(preset)

        screen.app.push_screen(PresetsScreen(self.presets, screen.store, self.settings), chosen)

    async def use(self, preset: Preset) -> None:
        """Set what it says for the conversation shown, or for the next one."""
        screen = self._screen
        before = screen.choices.new_settings() if preset == DEFAULT else self.settings
        if preset == DEFAULT:  # back to what new conversations begin with
            kept = {name: value for name, value in self.settings.params.items() if name.startswith(("tools", "files"))}
            before = Settings(None, {**before.params, **kept})
            await screen.configure(screen.conversation, before)
        else:
            await screen.configure(screen.conversation, preset.settings(before))
        where = "this conversation" if screen.conversation is not None else "the next conversation"
        screen.notify(f"{preset.name} is set for {where}.", markup=False)

    # ---------------------------------------------------------------------------------------------------- tools

    async def tools(self, written: str) -> None:
        """ "on", "off", a folder that files may be read from, or "" for the other way round."""
        screen, now = self._screen, self.settings.params
        choice = written.strip()
        if choice.lower() == "off" or (not choice and now.get("tools") is True):
            await self.set(tools=None)
            screen.notify("Tools are off.")
            return
        changes: dict[str, Any] = {"tools": True}
        if choice and choice.lower() != "on":
            try:
                changes["tools_folder"] = await asyncio.to_thread(folder_of, choice)
            except UsageError as error:
                complain(screen, error)
                return
            changes["files_always"] = None  # what was allowed was another folder
        await self.set(**changes)
        self.tell_tools()

    def tell_tools(self) -> None:
        """Say what the model may use now."""
        screen, params = self._screen, self.settings.params
        if (reason := why_not(screen.conductor.model)) is not None:
            screen.notify(f"{reason} Tools are on for models that can.", severity="warning", markup=False)
            return
        folder = params.get("tools_folder")
        files = f"files below {folder}, after asking" if folder else "no files: /tools FOLDER allows a folder"
        screen.notify(f"Tools are on: calculator, clock, {files}.", markup=False, timeout=8)

    def show_question(self) -> None:
        """Show the question that waits for a person, or take it away."""
        screen = self._screen
        row, asking = screen.query_one(AskRow), screen.conductor.tools.asking
        elsewhere = asking is not None and asking.conversation_id != screen.conversation_id
        known = screen.sidebar.known(asking.conversation_id) if asking is not None and elsewhere else None
        had_focus = row.has_focus_within
        if row.show(asking, known.title if known is not None else None):
            if asking is not None and screen.prompt.has_focus and not screen.prompt.text:
                row.take_focus()
            elif asking is None and had_focus:
                screen.prompt.focus()

    # ----------------------------------------------------------------------------------------------------- tags

    async def tag(self, name: str) -> None:
        """Give the conversation a tag; without a name, show all of them."""
        screen = self._screen
        subject = screen.sidebar.subject() or screen.conversation
        if not name:
            self.show_tags(subject)
        elif subject is None:
            screen.notify("There is no conversation to tag yet.")
        else:
            await self._change_tag(subject, name, True)

    async def untag(self, name: str) -> None:
        screen = self._screen
        subject = screen.sidebar.subject() or screen.conversation
        if subject is None or not name:
            self.show_tags(subject)
        else:
            await self._change_tag(subject, name, False)

    async def _change_tag(self, subject: Conversation, name: str, given: bool) -> None:
        screen, history = self._screen, self._screen.history
        try:
            changed = await screen.store.call(history.tag if given else history.untag, subject.id, name)
        except QwenError as error:
            complain(screen, error)
            return
        if not changed:
            screen.notify("It has that tag already." if given else "It does not have that tag.")
        await self.tags_changed()

    async def tags_changed(self) -> None:
        """Show them in the list, and know them for completing."""
        screen = self._screen
        await screen.sidebar.refresh_list()
        if screen.conversation is not None:
            screen.conversation = screen.sidebar.known(screen.conversation.id) or screen.conversation
        await self.refresh_names()

    def show_tags(self, subject: Conversation | None) -> None:
        """The list of tags."""
        screen = self._screen

        async def find(tag: str | None) -> None:
            await self.tags_changed()
            if tag is not None:
                screen.action_search(f"tag:{tag} ")

        screen.app.push_screen(TagsScreen(screen.store, subject), find)


def settings_of(conversation: Conversation) -> Settings:
    return Settings(conversation.system, dict(conversation.params))
