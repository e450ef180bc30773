"""Models as the chat screen has to do with them: their screen, what goes on in the background, the first offer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from qwen_mlx.errors import QwenError
from qwen_mlx.events import KnownModel, KVBits, ModelEntry
from tui import downloads, quantizing
from tui.downloads import Downloads
from tui.quantizing import Quantizer
from tui.screens.models import ModelsScreen
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from tui.preferences import Preferences
    from tui.screens.chat import ChatScreen

OFFERS = ("qwen3:8b", "qwen3:4b", "qwen3:1.7b", "qwen3:0.6b")  # the first one that fits is offered


class ModelCommands:
    """Belongs to a chat screen.

    Args:
        keep: writes preferences.
        model: the name of the model in use.
    """

    def __init__(
        self,
        screen: ChatScreen,
        shelf: Downloads | None,
        quantizer: Quantizer | None,
        preferences: Preferences,
        keep: Callable[..., None],
        model: str | None,
    ) -> None:
        self._screen = screen
        self._downloads = shelf
        self._quantizer = quantizer
        self._preferences = preferences
        self._keep = keep
        self.model = model
        self.adapter: str | None = None  # the folder of what was loaded with it
        self.offered: KnownModel | None = None

    # ------------------------------------------------------------------------------------------------- the screen

    def open(self) -> None:
        """Choose the model that goes on with the conversations."""
        if self._downloads is None or self._quantizer is None:
            self._screen.notify("This app cannot look at the models of this machine.")
            return
        self._screen.app.push_screen(
            ModelsScreen(
                *(self._downloads, self._quantizer, self._preferences, self._keep, self._screen.clock, self.model)
            ),
            self._use,
        )

    def _use(self, name: str | None) -> None:
        if name is None or (name == self.model and self.adapter is None):
            return
        if (reason := self._screen.conductor.refusal()) is not None:
            self._screen.notify(reason, markup=False)
            return
        if self._screen.conductor.busy:
            self._screen.notify("Another model can be used when this answer has ended.")
            return
        self.model = name
        self._screen.load(name)
        self._keep(model=name)

    def set_kv_bits(self, bits: KVBits | None) -> None:
        """Keys and values in so many bits; the model is loaded again with it."""
        conductor = self._screen.conductor
        if conductor.kv_bits == bits:
            return
        conductor.kv_bits = bits
        said = "as they are computed" if bits is None else f"in {bits.replace('/', ' and ')} bits"
        if self.model is None or conductor.busy:
            self._screen.notify(f"The KV cache is kept {said} from the next loading of a model on.")
            return
        self._screen.notify(f"The KV cache is kept {said}; the model is loaded again.")
        self._screen.load(self.model, self.adapter)

    def choose_kv(self, choice: str) -> None:
        """What follows `/kv`: "8", "4", "8/4" or "off"; "" says what it is."""
        if not choice:
            now = self._screen.conductor.kv_bits
            said = f"in {now} bits" if now else "as it is computed"
            self._screen.notify(f"The KV cache is kept {said}. /kv 8, 8/4, 4 or off changes it.")
            return
        bits = choice if choice in get_args(KVBits) else None
        self._keep(kv_bits=bits)
        self.set_kv_bits(bits)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------- in the background

    def follow(self) -> None:
        """Say how a download or a quantization ended while nobody was looking."""
        if self._downloads is None or self._quantizer is None or isinstance(self._screen.app.screen, ModelsScreen):
            return
        if (ended := self._downloads.poll()) is not None:
            self._tell(downloads.message_of(ended), bool(ended.error))
            self._screen.run_worker(self.offer(), group="offer")
        if (made := self._quantizer.poll()) is not None:
            self._tell(quantizing.message_of(made), bool(made.error))
        self._screen.query_one(Welcome).follow(self._downloads.current)

    def _tell(self, text: str, failed: bool) -> None:
        self._screen.notify(text, severity="error" if failed else "information", markup=False)

    @property
    def work(self) -> str:
        """What keeps the thread of the model busy besides answers, in words; "" for nothing."""
        work = self._quantizer.current if self._quantizer is not None else None
        return f"Making {work.name} smaller" if work is not None else ""

    # ------------------------------------------------------------------------------------------- the first real model

    async def offer(self) -> None:
        """Offer a model that fits this machine on the welcome, while there is none but the demo."""
        welcome = self._screen.query_one(Welcome)
        if self._downloads is None or self._preferences.offer_dismissed:
            welcome.offer(None)
            return
        try:
            here, known = await asyncio.to_thread(_look, self._downloads)
        except QwenError:
            return  # the screen of the models says what is wrong
        fitting = {model.name: model for model in known if model.fits == "fits"}
        self.offered = None
        if not any(model.removable and model.problem is None for model in here):
            self.offered = next((fitting[name] for name in OFFERS if name in fitting), None)
        unfinished = self._preferences.download if self._downloads.current is None else None
        welcome.offer(self.offered, unfinished)

    def take_offer(self) -> None:
        """Download what is offered; without an offer, show the screen of the models."""
        if self._downloads is None or (self.offered is None and self._preferences.download is None):
            self.open()
        elif self._downloads.current is not None:
            self._screen.notify(f"{self._downloads.current.name} is on its way already.", markup=False)
        else:
            name = self._preferences.download or (self.offered.name if self.offered else "")
            self._downloads.start(name)
            self._screen.notify(f"{name} is being downloaded; ctrl+l shows how far it is.", markup=False)
            self.follow()

    def dismiss_offer(self) -> None:
        """Do not offer it again."""
        self.offered = None
        self._keep(offer_dismissed=True)
        self._screen.query_one(Welcome).offer(None)


def _look(shelf: Downloads) -> tuple[list[ModelEntry], list[KnownModel]]:
    return shelf.shelf.models(), shelf.shelf.known()
