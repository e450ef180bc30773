"""Training as the app has to do with it: its screens, the run in the background, chatting with what came out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from qwen_mlx.errors import QwenError
from qwen_mlx.events import JobHandle, PlanTraining, RunCheckpoint, RunEntry, RunRecord, Runtime, Shelf, Workshop
from tui.clock import Clock
from tui.notices import complain
from tui.screens.ask import AskScreen
from tui.screens.beside import BesideScreen
from tui.screens.compare import CompareScreen
from tui.screens.run_new import NewRunScreen
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen
from tui.training.fields import Config
from tui.training.plot import number
from tui.training.run_view import RunView, view_of
from tui.training.trainer import LiveRun, Trainer
from tui.training.watching import outcome
from tui.widgets.header import HeaderBar
from tui.wording import sentence

if TYPE_CHECKING:
    from tui.app import QwenApp

POLL_SECONDS = 0.25
SAVE_SECONDS = 60.0  # that a run may take to save before the app gives up on it
_RECENT = 6


class TrainingDesk:
    """Belongs to the app.

    Args:
        workshop: the runs of this machine.
        shelf: the models of this machine; None offers none.
    """

    def __init__(self, app: QwenApp, runtime: Runtime, workshop: Workshop, shelf: Shelf | None, clock: Clock) -> None:
        self.workshop = workshop
        self.clock = clock
        self.trainer = Trainer(runtime)
        self.draft: tuple[dict[str, str], set[str]] = ({}, set())
        self._app = app
        self._runtime = runtime
        self._shelf = shelf
        self._leaving = False

    # ------------------------------------------------------------------------------------------------ the screens

    async def open(self) -> None:
        """The list of runs; above it the run that goes on, if one does."""
        if isinstance(self._app.screen, (RunsScreen, NewRunScreen, WatchScreen, CompareScreen, BesideScreen)):
            return
        await self._app.push_screen(RunsScreen(self))
        if self.trainer.current is not None:
            await self._app.push_screen(WatchScreen(self, self.trainer.current.view))

    def new(self) -> None:
        self._app.push_screen(NewRunScreen(self))

    async def watch(self, folder: str) -> None:
        """Show a run: live, as it was, or as another process is at it."""
        live = self.trainer.live(folder)
        if live is not None:
            await self._app.push_screen(WatchScreen(self, live.view))
            return
        found = await self.read(folder)
        if found is not None:
            view, record = found
            await self._app.push_screen(WatchScreen(self, view, elsewhere=record.entry.state == "running"))

    async def read(self, folder: str) -> tuple[RunView, RunRecord] | None:
        """What the folder of a run says; None when it cannot be read, which is said."""

        def look() -> tuple[RunView, RunRecord]:
            record = self.workshop.record(folder)
            view = view_of(record.entry.name, record.events)
            view.folder, view.config = folder, record.config
            if record.entry.state == "running":
                view.state, view.error = "training", ""
            return view, record

        try:
            return await asyncio.to_thread(look)
        except QwenError as error:
            complain(self._app.screen, error)
            return None

    async def compare(self, folders: Sequence[str]) -> None:
        try:
            records = [await asyncio.to_thread(self.workshop.record, folder) for folder in folders]
        except QwenError as error:
            complain(self._app.screen, error)
            return
        await self._app.push_screen(CompareScreen(records))

    # -------------------------------------------------------------------------------------------- what a form needs

    def look(self) -> tuple[dict[str, Config], dict[str, int], list[str]]:
        """Presets, models with their sizes in bytes, and files that were learnt from before. For a thread."""
        models = self._shelf.models() if self._shelf is not None else []
        recent = dict.fromkeys(entry.data for entry in self.workshop.runs() if entry.data)
        sizes = {model.name: model.size for model in models if model.problem is None}
        return dict(self.workshop.presets()), sizes, list(recent)[:_RECENT]

    @property
    def model(self) -> str | None:
        """The name of the model that is chatted with."""
        return self._app.chat.models.model

    @property
    def answering(self) -> bool:
        return self._app.conductor.busy

    def ask_forecast(self, changes: Sequence[str]) -> JobHandle:
        return self._runtime.submit(PlanTraining(tuple(changes)))

    # ----------------------------------------------------------------------------------------------------- the run

    @property
    def busy_reason(self) -> str | None:
        """Why no run can begin now, as a sentence."""
        if self.trainer.current is not None:
            return f"{self.trainer.current.name} is being trained: one run at a time."
        return None

    def refusal(self) -> str | None:
        """Why the model cannot be asked anything now, as a sentence; None when it can."""
        current = self.trainer.current
        if current is None:
            return None
        if current.stopping:
            return f"{current.name} is being saved; ask again in a moment."
        return (
            f"{current.name} is being trained, and one model at a time is computed here. "
            "f5 shows it: x there saves and stops it, and it can go on later."
        )

    async def start(self, name: str, changes: Sequence[str]) -> None:
        """Begin a run, and show it in the place of its form."""
        try:
            folder = await asyncio.to_thread(self.workshop.new_folder, name)
            live = self.trainer.start(folder, changes)
        except (QwenError, RuntimeError) as error:
            self._app.notify(sentence(error), severity="error", markup=False)
            return
        self.draft = ({}, set())
        await self._show(live)

    async def resume(self, entry: RunEntry) -> None:
        if entry.state == "running":
            await self.watch(entry.folder)
        elif entry.state == "finished":
            self._app.notify(f"{entry.name} came to its end. A new run can learn more.", markup=False)
        elif entry.state == "new":
            self._app.notify(f"{entry.name} has not saved anything to go on from.", markup=False)
        else:
            await self.resume_folder(entry.folder)

    async def resume_folder(self, folder: str) -> None:
        """Go on with a run from its latest checkpoint."""
        if (reason := self.busy_reason) is not None:
            self._app.notify(reason, markup=False)
            return
        live = self.trainer.live(folder)
        found = None if live is not None else await self.read(folder)
        view = live.view if live is not None else found[0] if found is not None else None
        if view is None:
            return
        if view.state == "finished":
            self._app.notify(f"{view.name} came to its end. A new run can learn more.", markup=False)
            return
        try:
            again = self.trainer.resume(folder, view)
        except RuntimeError as error:
            self._app.notify(sentence(error), severity="error", markup=False)
            return
        await self._show(again)

    async def _show(self, live: LiveRun) -> None:
        screen = self._app.screen
        if isinstance(screen, WatchScreen) and screen.view is live.view:
            screen.look()
        elif isinstance(screen, (NewRunScreen, WatchScreen)):
            await self._app.switch_screen(WatchScreen(self, live.view))
        else:
            await self._app.push_screen(WatchScreen(self, live.view))

    def poll(self) -> None:
        """Take what has happened; say how a run ended, and show in the header that one goes on."""
        ended = self.trainer.poll()
        if ended is not None:
            failed = ended.view.state == "failed"
            text = outcome(ended.view)
            self._app.notify(text, severity="error" if failed else "information", markup=False, timeout=12)
        for header in self._app.chat.query(HeaderBar):  # none when the app is just ending
            header.training = self.note

    @property
    def note(self) -> str:
        """What the header says: `◉ 24 % 1.234`; "" when nothing is trained."""
        current = self.trainer.current
        if current is None:
            return ""
        view = current.view
        sign = "‖" if current.paused else "◐" if current.stopping else "◉"
        if not view.steps:
            return f"{sign} training"
        loss = f" {number(view.step.loss)}" if view.step is not None else ""
        return f"{sign} {100 * view.steps_done // view.steps} %{loss}"

    def ask_to_quit(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Ask whether the run is to be saved and stopped; then leave. Asked again meanwhile, leave at once."""
        current = self.trainer.current
        if self._leaving or current is None:
            self._app.call_later(leave)
            return

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._leaving = True
                self._app.run_worker(self._save_and(leave), group="quit")

        if not isinstance(self._app.screen, AskScreen):
            text = f"{current.name} is being trained. It is saved first, and can go on at the next start: f5, then r."
            self._app.push_screen(AskScreen("Save, stop and quit?", text, "save and quit"), answered)

    async def _save_and(self, leave: Callable[[], Awaitable[None]]) -> None:
        self.trainer.stop()
        self._app.notify("Saving; ctrl+q once more does not wait for it.", timeout=SAVE_SECONDS)
        waited = 0.0
        while self.trainer.current is not None and waited < SAVE_SECONDS:
            await asyncio.sleep(POLL_SECONDS)  # `poll` is called by the app's clock
            waited += POLL_SECONDS
        await leave()

    # ------------------------------------------------------------------------------------------ what came out of it

    async def chat_with(self, folder: str) -> None:
        """Load the base with the best adapter of a run, and go on chatting with it."""
        if (found := await self._usable(folder)) is None:
            return
        record, checkpoint = found
        for _ in range(len(self._app.screen_stack) - 1):
            await self._app.pop_screen()
        self._app.chat.models.model = record.base
        self._app.chat.load(record.base, checkpoint.path)
        # Who learns answers without thinking answers inside of it, when thinking is opened for him.
        self._app.conductor.thinking = False
        self._app.notify("Thinking is off, as in its samples; ctrl+t changes that.")

    async def beside(self, folder: str) -> None:
        """Ask base and adapter the same."""
        if (found := await self._usable(folder)) is not None:
            record, checkpoint = found
            await self._app.push_screen(BesideScreen(self._runtime, record, checkpoint, self._back_to_the_chat))

    async def _usable(self, folder: str) -> tuple[RunRecord, RunCheckpoint] | None:
        """The record of a run and its best checkpoint, if a chat can use it now; else says why not."""
        reason = self.refusal()
        if reason is None and self._app.conductor.busy:
            reason = "The model answers now: when that has ended, it can be changed."
        found = await self.read(folder) if reason is None else None
        record = found[1] if found is not None else None
        if record is not None:
            usable = next((one for one in record.checkpoints if one.best), None)
            if usable is None:
                reason = "It has not saved anything yet."
            elif not usable.adapter:
                reason = (
                    f"It trained the whole model: `qwen-mlx train export {record.entry.folder} -o FOLDER` writes it."
                )
            else:
                return record, usable
        if reason is not None:
            self._app.notify(reason, markup=False)
        return None

    def _back_to_the_chat(self) -> None:
        """The models that were compared are gone: the one of the chat comes back."""
        if self.model is not None and self.trainer.current is None:
            self._app.chat.load(self.model, self._app.chat.models.adapter)
