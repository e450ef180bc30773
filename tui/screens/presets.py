"""The presets: choose one, keep what is set now as one, rename and delete those of one's own."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from tui.conductor import Settings
from tui.presets import Preset, Presets, preset_of
from tui.screens.naming import NamingScreen
from tui.store import Store
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import pad, shorten

_KEYS = (
    ("enter", "choose", "choose"),
    ("s", "save what is set", "save"),
    ("r", "rename", "rename"),
    ("del", "delete", "delete"),
    ("esc", "leave", "leave"),
)


class PresetsScreen(NamingScreen[Preset | None]):
    """Gives the preset that was chosen.

    Args:
        presets: read and changed on the thread of `store`.
        now: what is set, for a new preset, and for the mark of the one that is chosen.
    """

    CSS_PATH = "dialog.tcss"
    LIST_KEYS = _KEYS
    BINDINGS = [
        Binding("escape", "leave", "Leave", show=False, id="presets.leave"),
        Binding("s", "save", "Save what is set", show=False, id="presets.save"),
        Binding("r", "rename", "Rename", show=False, id="presets.rename"),
        Binding("delete,backspace", "delete", "Delete", show=False, id="presets.delete"),
        Binding("u,ctrl+z", "undelete", "Bring back", show=False, id="presets.undelete"),
    ]

    def __init__(self, presets: Presets, store: Store, now: Settings) -> None:
        super().__init__(store)
        self._presets = presets
        self._now = now
        self._listed: list[Preset] = []
        self._deleted: list[Preset] = []
        self._naming: Preset | None = None  # what is renamed
        self._saving = False

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="presets"):
            yield Still("Presets", classes="heading")
            yield OptionList(id="hits", markup=False)
            yield Still("", id="about", markup=False)
            yield Input(id="title", compact=True)
            yield Still("", id="problem", markup=False)
            yield Hint(*_KEYS)

    async def on_mount(self) -> None:
        self._ask_name(None)
        await self._refresh(str(self._now.params.get("preset", "")))
        self.query_one(OptionList).focus()

    # ------------------------------------------------------------------------------------------------- the list

    async def _refresh(self, marked: str = "") -> None:
        self._listed = await self._store.call(self._presets.all)
        listing = self.query_one(OptionList)
        place = listing.highlighted or 0
        listing.clear_options()
        width = max(24, min(74, self.app.size.width - 14))
        chosen = str(self._now.params.get("preset", "")) or "Default"
        listing.add_options([Option(_row(preset, chosen, width)) for preset in self._listed])
        names = [preset.name.casefold() for preset in self._listed]
        wanted = names.index(marked.casefold()) if marked.casefold() in names else place
        listing.highlighted = min(wanted, len(names) - 1)

    @property
    def _marked(self) -> Preset | None:
        place = self.query_one(OptionList).highlighted
        return self._listed[place] if place is not None and place < len(self._listed) else None

    @on(OptionList.OptionHighlighted)
    def describe(self) -> None:
        preset = self._marked
        self.query_one("#about", Still).update(Content(_about(preset) if preset is not None else ""))

    @on(OptionList.OptionSelected)
    def action_choose(self) -> None:
        if self._marked is not None:
            self.dismiss(self._marked)

    # ------------------------------------------------------------------------------------------------- changing

    def action_save(self) -> None:
        self._saving, self._naming = True, None
        self._ask_name("", "name of the new preset")

    def action_rename(self) -> None:
        preset = self._marked
        if preset is not None and preset.own:
            self._saving, self._naming = False, preset
            self._ask_name(preset.name)
        elif preset is not None:
            self._say(f"“{preset.name}” is built in, and keeps its name.")

    @on(Input.Submitted)
    async def action_name(self) -> None:
        name = self.query_one(Input).value
        if self._saving:
            saved = await self._try(lambda: self._save(name))
            if saved is not None:
                self._now = Settings(self._now.system, {**self._now.params, "preset": saved.name})
        else:
            renamed = self._naming
            saved = await self._try(lambda: self._presets.rename(renamed.name if renamed else "", name))
        if saved is not None:
            self._ask_name(None)
            await self._refresh(saved.name)

    def _save(self, name: str) -> Preset:
        preset = preset_of(name, self._now)
        self._presets.save(preset)
        return preset

    async def action_delete(self) -> None:
        preset = self._marked
        if preset is None:
            return
        gone = await self._try(lambda: self._presets.delete(preset.name))
        if gone is not None:
            self._deleted.append(gone)
            await self._refresh()
            self._say(f"“{gone.name}” is deleted. Press u to bring it back.")

    async def action_undelete(self) -> None:
        if self._deleted:
            preset = self._deleted.pop()
            if await self._try(lambda: (self._presets.save(preset), preset)[1]) is not None:
                await self._refresh(preset.name)

    # ------------------------------------------------------------------------------------------------- inside

    def action_leave(self) -> None:
        if self.query_one(Input).display:
            self._ask_name(None)
        else:
            self.dismiss(None)


def _row(preset: Preset, chosen: str, width: int) -> Content:
    mark = "●" if preset.name.casefold() == chosen.casefold() else " "
    about = preset.about or ("yours" if preset.own else "")
    return Content.assemble((mark, "$primary"), f" {pad(preset.name, 18)} ", (shorten(about, width - 21), "$secondary"))


def _about(preset: Preset) -> str:
    """What it sets, in at most two lines."""
    numbers = [f"{name.replace('_', ' ')} {value}" for name, value in preset.params.items()]
    return " · ".join([*numbers, f"“{shorten(preset.system, 160)}”" if preset.system else "no system prompt"])
