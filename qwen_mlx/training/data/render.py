"""Contents -> spans of text, each with the weight its tokens have: what the model must write, and what it is given.

A template says how a conversation looks, not which part of it the model wrote. That is found by rendering as a chat
does: `prompt` is what the model reads before an answer (the generation prompt of the answer's mode included), `whole`
is the conversation up to and with the answer, and what `whole` has more than `prompt` is what the model must write. A
template for which this cannot be told exactly is refused.

Templates may rewrite what is past: Qwen3 leaves out the thinking of earlier turns, so that `whole` of one answer is no
beginning of the `prompt` of the next. Then, with `history="keep"`, the two are joined by what comes after the answer,
which is found with a marker in place of the answer and checked against the real prompt: a template that rewrites more
than thinking is refused. With `history="chat"`, they become two examples.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from qwen_mlx.errors import DataError, TemplateError
from qwen_mlx.text import thinking
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.data.contents import Conversation, PlainText, Remarks

_MARKER = "\ufdd1answer\ufdd1"  # code points that are never characters
# What a template may put between the generation prompt and an answer without thinking.
_BEFORE_ANSWER = re.compile(r"\s*(?:<think>)?\s*(?:</think>)?\s*")
_BLOCK = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_OPENED = re.compile(r"<think>\s*(?:</think>\s*)?\Z")  # the end of a generation prompt
_END_OF_THINKING = "\n</think>\n\n"  # as the models end it
_ADVICE = (
    "Put a template whose generation prompt ends where the answer begins into chat_template.jinja of the model folder, "
    'or write the rows as plain prompt and completion (data.wrap = "plain").'
)


@dataclass(frozen=True)
class Span:
    """A piece of an example; `weight` is that of all its tokens, 0 is not learnt."""

    text: str
    weight: float


Spans = list[Span]


@dataclass(frozen=True)
class _Answer:
    """One answer as a chat would have it: what the model reads, what it writes, and the two together."""

    prompt: str
    written: str
    thinks: bool | None

    @property
    def whole(self) -> str:
        return self.prompt + self.written


class Renderer:
    """Renders contents with one template.

    Args:
        disarm: breaks control tokens inside of messages, as `Tokenizer.disarmed`.
    """

    def __init__(self, template: ChatTemplate, config: DataConfig, disarm: Callable[[Any], Any]) -> None:
        self._template = template
        self._config = config
        self._disarm = disarm

    def plain(self, content: PlainText) -> Spans:
        """A text, or a completion after its prompt, without a template. What ends a text is not part of it."""
        spans = [Span(self._disarm(content.prompt), 0.0)] if content.prompt else []
        return [*spans, Span(self._disarm(content.completion), 1.0)]

    def conversation(self, content: Conversation, place: str, remarks: Remarks) -> list[Spans]:
        """The examples of a conversation; more than one only with `history="chat"`, none if nothing is to be learnt.

        Raises:
            DataError: the template refuses the conversation, or spans cannot be told; the message names `place`.
        """
        messages = self._disarm(self._without_reasoning(content, remarks))
        tools = list(content.tools)
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        if answers[-1] + 1 < len(messages):
            remarks.add("what comes after the last answer is left out")
        if self._config.loss_on == "last":
            answers = answers[-1:]
        if not any(content.weights[number] for number in answers):
            return []
        try:
            if tools and not self._template.tools:
                remarks.add("the chat template does not know tools: their descriptions are left out")
            found = [self._answer(messages, number, tools, place, remarks) for number in answers]
            weights = [content.weights[number] for number in answers]
            if self._config.history == "chat":
                examples = _chained(found, weights)
            else:
                examples = [self._kept(messages, answers, found, weights, tools, place)]
        except TemplateError as problem:
            raise DataError(f"{place}: {problem.what}", found=problem.found, hint=problem.hint) from None
        return [_joined(spans) for spans in examples if any(span.weight for span in spans)]

    def _without_reasoning(self, content: Conversation, remarks: Remarks) -> list[dict[str, Any]]:
        """The messages; for a model that never thinks, without what it would never write."""
        messages = list(content.messages)
        if self._template.thinking == "never" and any("reasoning_content" in message for message in messages):
            remarks.add("this model does not think: reasoning is left out")
            messages = [{key: message[key] for key in message if key != "reasoning_content"} for message in messages]
        return messages

    # -------------------------------------------------------------------------------------------------- one answer

    def _answer(
        self, messages: Sequence[dict[str, Any]], number: int, tools: Sequence[Any], place: str, remarks: Remarks
    ) -> _Answer:
        message = messages[number]
        _ = self.closing  # a template that does not tell answers apart is refused before anything else
        whole = self._render(messages[: number + 1], tools, prompt=False)
        for thinks in self._modes(messages, number):
            prompt = self._render(messages[:number], tools, prompt=True, thinks=thinks)
            written = self._written(prompt, whole, message)
            if written is not None:
                self._check(message, written, f"{place}, message {number + 1}", remarks)
                return _Answer(prompt, written, thinks)
        raise DataError(
            f"{place}, message {number + 1}: {self._template.origin} does not tell what the model writes",
            expected="the answer to follow the generation prompt",
            hint=_advice(messages[number]),
        )

    def _modes(self, messages: Sequence[dict[str, Any]], number: int) -> tuple[bool | None, ...]:
        """The values of `enable_thinking` under which a chat would have had this answer, the likeliest first."""
        if self._template.thinking != "optional":
            return (None, False)
        reasoning, _ = _parts(messages[number])
        if reasoning:
            return (None, True)
        # After "/no_think" the switch is on, and the model itself writes the empty block.
        written_by_model = self._follows_words and thinking.soft_switch(messages[:number]) is False
        if self._config.empty_think == "learn" or written_by_model:
            return (None, True, False) if written_by_model else (True, None, False)
        return (False, None)

    @staticmethod
    def _written(prompt: str, whole: str, message: dict[str, Any]) -> str | None:
        """What `whole` has more than `prompt`; None where one does not begin with the other."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        if not ChatTemplate.opens_thinking(prompt):
            return None
        # A template that opens the thinking, but takes it out of every answer: the models close it like this.
        before = prompt[: prompt.rindex(thinking.OPEN)]
        if not whole.startswith(before) or thinking.OPEN in whole[len(before) :]:
            return None
        reasoning = (_parts(message)[0] or "").strip("\n")
        return reasoning + _END_OF_THINKING + whole[len(before) :].lstrip("\n")

    def _check(self, message: dict[str, Any], written: str, where: str, remarks: Remarks) -> None:
        """Raises `DataError` where the template leaves out part of an answer."""
        reasoning, answer = _parts(message)
        calls = [call["function"]["name"] for call in message.get("tool_calls", ())]
        if not written.endswith(self.closing):
            raise DataError(
                f"{where}: {self._template.origin} ends this answer in another way than others",
                expected=repr(self.closing),
                found=repr(written[-40:]),
                hint=_ADVICE,
            )
        if answer.strip() not in written and message["content"].strip() not in written:
            raise DataError(f"{where}: {self._template.origin} leaves out part of the answer", hint=_advice(message))
        if missing := [name for name in calls if name not in written]:
            raise DataError(
                f"{where}: {self._template.origin} cannot write tool calls",
                found=f"a call of {missing[0][:60]!r}",
                hint="Use a model that knows tools, or leave these rows out.",
            )
        if reasoning and reasoning.strip() not in written:
            remarks.add("the chat template does not write reasoning: it is left out")

    # ------------------------------------------------------------------------------------------ all of a conversation

    def _kept(
        self,
        messages: Sequence[dict[str, Any]],
        numbers: Sequence[int],
        answers: Sequence[_Answer],
        weights: Sequence[float],
        tools: Sequence[Any],
        place: str,
    ) -> Spans:
        """All answers in one example, each as it was written."""
        spans = [Span(answers[0].prompt, 0.0), Span(answers[0].written, weights[0])]
        for index in range(1, len(answers)):
            before, answer = answers[index - 1], answers[index]
            if answer.prompt.startswith(before.whole):
                between = answer.prompt[len(before.whole) :]
            else:
                between = self._between(messages, numbers[index - 1], numbers[index], answer, spans, tools, place)
            spans += [Span(between, 0.0), Span(answer.written, weights[index])]
        return spans

    def _between(
        self,
        messages: Sequence[dict[str, Any]],
        before: int,
        number: int,
        answer: _Answer,
        spans: Spans,
        tools: Sequence[Any],
        place: str,
    ) -> str:
        """What stands between two answers, the generation prompt of the second included.

        Args:
            spans: all that stands before, what is read and what is written in turn; a chat must show the same, but for
                thinking and blank space.
        """
        marked = [*messages[:before], {"role": "assistant", "content": _MARKER}, *messages[before + 1 : number]]
        text = self._render(marked, tools, prompt=True, thinks=answer.thinks)
        _, marker, after = text.partition(_MARKER)
        between = after[len(self.closing) :]
        if (
            marker
            and _MARKER not in after
            and after.startswith(self.closing)
            and answer.prompt.endswith(after)
            and _shows(answer.prompt, [*(span.text for span in spans), between])
        ):
            return between
        raise DataError(
            f"{place}, message {number + 1}: {self._template.origin} rewrites what comes before this answer",
            hint='Set data.history = "chat": each answer is then learnt after exactly what a chat would show.',
        )

    # ------------------------------------------------------------------------------------------------ the template

    def _render(
        self, messages: Sequence[Any], tools: Sequence[Any], *, prompt: bool, thinks: bool | None = None
    ) -> str:
        return self._template.render(messages, tools=tools, add_generation_prompt=prompt, enable_thinking=thinks)

    @functools.cached_property
    def closing(self) -> str:
        """What the template writes after an answer, such as `<|im_end|>` and a newline.

        Raises:
            DataError: the generation prompt does not end where an answer begins.
        """
        question = {"role": "user", "content": "1+1?"}
        whole = self._render([question, {"role": "assistant", "content": _MARKER}], [], prompt=False)
        before, marker, closing = whole.partition(_MARKER)
        for thinks in (None, False):
            prompt = self._render([question], [], prompt=True, thinks=thinks)
            opened = prompt[: prompt.rindex(thinking.OPEN)] if ChatTemplate.opens_thinking(prompt) else prompt
            if marker and before.startswith(opened) and _BEFORE_ANSWER.fullmatch(before[len(opened) :]):
                return closing
        raise DataError(
            f"{self._template.origin} does not tell what the model writes",
            expected="a generation prompt that ends where the answer begins",
            found=f"{before[-60:]!r} before an answer",
            hint=_ADVICE,
        )

    @functools.cached_property
    def _follows_words(self) -> bool:
        """Whether "/no_think" may mean something: only where thinking is optional, and the model opens it itself."""
        prompt = self._render([{"role": "user", "content": "1+1?"}], [], prompt=True)
        return thinking.OPEN not in prompt


def _shows(prompt: str, texts: Sequence[str]) -> bool:
    """Whether a prompt is `texts`, what is read and what is written in turn, but for blank space and for the thinking
    in front of what is written, which may be there, empty, or missing."""
    text = _squeezed(_OPENED.sub("", prompt))
    position = 0
    for read, written in zip_longest(texts[::2], texts[1::2]):
        bare = _squeezed(_OPENED.sub("", read))
        if not text.startswith(bare, position):
            return False
        position += len(bare)
        if written is None:
            break
        block = _BLOCK.match(written) if written.lstrip().startswith(thinking.OPEN) else None
        if block is None and ChatTemplate.opens_thinking(read):
            block = _BLOCK.match(thinking.OPEN + written)
            written = thinking.OPEN + written
        answer = _squeezed(written[block.end() :] if block else written)
        thoughts = (_squeezed(block.group()) if block else "", thinking.OPEN + thinking.CLOSE, "")
        shown = next((each + answer for each in thoughts if text.startswith(each + answer, position)), None)
        if shown is None:
            return False
        position += len(shown)
    return position == len(text)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _advice(message: dict[str, Any]) -> str:
    if thinking.CLOSE in message["content"] or thinking.OPEN in message["content"]:
        return "An answer has one <think> block at most, at its beginning."
    return _ADVICE


def _parts(message: dict[str, Any]) -> tuple[str | None, str]:
    """Reasoning and answer, wherever the row has put the reasoning."""
    if reasoning := message.get("reasoning_content"):
        return reasoning, message["content"]
    return thinking.split(message["content"])


def _chained(answers: Sequence[_Answer], weights: Sequence[float]) -> list[Spans]:
    """As few examples as possible in which every answer follows exactly what a chat would show."""
    examples: list[Spans] = []
    previous: _Answer | None = None
    for answer, weight in zip(answers, weights):
        if previous is not None and answer.prompt.startswith(previous.whole):
            examples[-1].append(Span(answer.prompt[len(previous.whole) :], 0.0))
        else:
            examples.append([Span(answer.prompt, 0.0)])
        examples[-1].append(Span(answer.written, weight))
        previous = answer
    return examples


def _joined(spans: Spans) -> Spans:
    """Neighbours that are not learnt as one span: a chat reads them as one text. Empty ones are left out."""
    joined: Spans = []
    for span in spans:
        if not span.text:
            continue
        if joined and not span.weight and not joined[-1].weight:
            joined[-1] = Span(joined[-1].text + span.text, 0.0)
        else:
            joined.append(span)
    return joined
