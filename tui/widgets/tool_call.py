"""What a model did before it answered: a line for each tool call, which unfolds to its arguments and its result."""

from __future__ import annotations

import json

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from qwen_mlx.chat.steps import Call, Step
from tui.sanitize import sanitize
from tui.tool_runs import brief_call
from tui.widgets.thinking import ThinkingBlock, ThinkingHeader
from tui.wording import shorten

_LINE = 90  # cells
_RESULT = 30
_SHOWN = 4000  # characters of a result
_OUTCOMES = {"waiting": "…", "failed": "✗ failed", "refused": "✗ not allowed"}


class ToolCallView(Widget):
    """`▸ calculator 2 + 2 → 4`; a click, enter or space unfolds."""

    def __init__(self, call: Call, *, unfolded: bool = False) -> None:
        super().__init__(classes="tool")
        self.call = call
        self.unfolded = unfolded
        self._header = ThinkingHeader(self._title(), markup=False)
        self._body = Static("", markup=False, classes="details")

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._body

    def on_mount(self) -> None:
        self._show()

    def show(self, call: Call) -> None:
        """It has a result now."""
        if call != self.call:
            self.call = call
            self._show()

    def fold(self, unfolded: bool) -> None:
        self.unfolded = unfolded
        self._show()

    @on(ThinkingHeader.Pressed)
    def toggle(self, event: ThinkingHeader.Pressed) -> None:
        event.stop()
        self.fold(not self.unfolded)

    def _show(self) -> None:
        self._header.update(self._title())
        if self.unfolded:
            self._body.update(Content(self._details()))
        self._body.display = self.unfolded

    def _title(self) -> Content:
        call = self.call
        name = shorten(call.name or "(no name)", 40)
        result = _OUTCOMES.get(call.outcome) or f"→ {shorten(call.result, _RESULT)}"
        room = max(8, _LINE - len(name) - len(result) - 4)
        line = f"{'▾' if self.unfolded else '▸'} {name} {shorten(brief_call(call), room)} {result}"
        return Content(" ".join(line.split()))

    def _details(self) -> str:
        call = self.call
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False, indent=1)
        result = sanitize(call.result)
        if len(result) > _SHOWN:
            result = f"{result[:_SHOWN]}\n… {len(result) - _SHOWN:,} more characters"
        return f"arguments: {sanitize(arguments)}\nresult: {result or '(none yet)'}"


class Steps(Vertical):
    """The rounds of one answer, in order."""

    def __init__(self) -> None:
        super().__init__(classes="steps")
        self._shown: tuple[Step, ...] = ()

    async def show(self, steps: tuple[Step, ...]) -> None:
        """These rounds; what is there already is only brought up to date."""
        if steps == self._shown:
            return
        before, self._shown = self._shown, steps
        views = list(self.query(ToolCallView))
        known = [call for step in steps[: len(before)] for call in step.calls]
        for view, call in zip(views, known):
            view.show(call)
        new: list[Widget] = []
        for step in steps[len(before) :]:
            if step.reasoning:
                new.append(ThinkingBlock(step.reasoning, live=False, unfolded=False))
            if step.content:
                new.append(Static(Content(sanitize(step.content)), classes="said"))
            new += [ToolCallView(call) for call in step.calls]
        if new:
            await self.mount_all(new)

    @property
    def calls(self) -> list[ToolCallView]:
        return list(self.query(ToolCallView))

    async def fold(self, unfolded: bool) -> None:
        """Open or close all of it."""
        for view in self.calls:
            view.fold(unfolded)
        for block in self.query(ThinkingBlock):
            await block.fold(unfolded)
