"""One line of a form: what it is called, what is chosen or written, what is wrong with it, what could be picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from tui.training.fields import Field
from tui.widgets.choice import Choice
from tui.widgets.still import Still
from tui.wording import sentence


class FieldInput(Input):
    """A line of text; with something to pick below it, up and down mark, and enter takes what is marked."""

    BINDINGS = [
        Binding("down", "mark(1)", "Next", show=False, id="field.down"),
        Binding("up", "mark(-1)", "Previous", show=False, id="field.up"),
    ]

    @dataclass
    class Marked(Message):
        """The person moves through what can be picked, or through the fields."""

        step: int

    def action_mark(self, step: int) -> None:
        self.post_message(self.Marked(step))


class FormRow(Vertical):
    """`picks` is true for a field that offers something while it has the focus."""

    @dataclass
    class Changed(Message):
        """Something else is chosen or written."""

        row: FormRow
        value: str

        @property
        def control(self) -> FormRow:
            return self.row

    @dataclass
    class Left(Message):
        """The person is done with this line (1), or goes back to the one above (-1)."""

        row: FormRow
        step: int

    @dataclass
    class PicksWanted(Message):
        """The focus is here, or the text has changed: what could follow?"""

        row: FormRow

    def __init__(self, field: Field, value: str, picks: bool = False) -> None:
        super().__init__(id=f"row-{field.id}", classes="field")
        self.field = field
        self._initial = value
        self._offers = picks
        self._problem = ""

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Still(self.field.label, classes="label")
            if self.field.kind in ("choice", "flag"):
                yield Choice(self.field.choices, self._initial, id=self.field.id)
            else:
                yield FieldInput(
                    self._initial, placeholder=self.field.help, compact=True, id=self.field.id, select_on_focus=False
                )
        if self._offers:
            listing = OptionList(classes="picks", markup=False)
            listing.can_focus = False
            yield listing
        yield Still("", classes="problem")

    # ---------------------------------------------------------------------------------------------------- value

    @property
    def _widget(self) -> Choice | FieldInput:
        if self.field.kind in ("choice", "flag"):
            return self.query_one(Choice)
        return self.query_one(FieldInput)

    @property
    def value(self) -> str:
        return self._widget.value

    @value.setter
    def value(self, value: str) -> None:
        """Write something without telling anybody."""
        widget = self._widget
        if widget.value != value:
            if isinstance(widget, FieldInput):
                with widget.prevent(Input.Changed):
                    widget.value = value
                    widget.cursor_position = len(value)
            else:
                widget.value = value

    def take_focus(self) -> None:
        self._widget.focus()

    def show_problem(self, problem: str) -> None:
        """What is wrong with the value; "" for nothing."""
        if problem == self._problem:
            return
        self._problem = problem
        self.set_class(bool(problem), "-wrong")
        self.query_one(".problem", Still).update(Content(sentence(problem) if problem else ""))

    # ---------------------------------------------------------------------------------------------------- picking

    def show_picks(self, values: Sequence[str]) -> None:
        """Offer these; nothing is marked until the person goes down."""
        if not self._offers:
            return
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_options([Option(value, id=f"pick {value}") for value in values])
        listing.highlighted = None
        self.set_class(bool(values) and self._widget.has_focus, "-picking")

    @property
    def _picked(self) -> str | None:
        if not self.has_class("-picking"):
            return None
        option = self.query_one(OptionList).highlighted_option
        return str(option.prompt) if option is not None else None

    @on(FieldInput.Marked)
    def marked(self, event: FieldInput.Marked) -> None:
        event.stop()
        listing = self.query_one(OptionList) if self.has_class("-picking") else None
        now = listing.highlighted if listing is not None else None
        if listing is None or (event.step < 0 and now is None):
            self.post_message(self.Left(self, event.step))
        elif event.step < 0 and now == 0:
            listing.highlighted = None
        elif event.step > 0 and now == listing.option_count - 1:
            self.post_message(self.Left(self, 1))
        else:
            listing.highlighted = 0 if now is None else now + event.step

    @on(OptionList.OptionSelected)
    def clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._take(str(event.option.prompt))

    def _take(self, value: str) -> None:
        self.value = value
        self._widget.focus()
        self.post_message(self.Changed(self, value))
        if value.endswith("/"):
            self.post_message(self.PicksWanted(self))
        else:
            self.show_picks(())

    # ---------------------------------------------------------------------------------------------------- events

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if (picked := self._picked) is not None:
            self._take(picked)
        else:
            self.post_message(self.Left(self, 1))

    @on(Input.Changed)
    def written(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self, event.value))
        if self._offers:
            self.post_message(self.PicksWanted(self))

    @on(Choice.Changed)
    def chosen(self, event: Choice.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self, event.value))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if self._offers:
            self.post_message(self.PicksWanted(self))

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        self.remove_class("-picking")
