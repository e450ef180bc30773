"""A loaded model as a partner in conversations: messages in, text events out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from qwen_mlx import device
from qwen_mlx.chat.history_window import DEFAULT_WINDOW, within_window
from qwen_mlx.checkpoints.load import LoadedModel
from qwen_mlx.errors import ConfigError, ContextFull, UsageError
from qwen_mlx.events import (
    AnswerDelta,
    CancelToken,
    Event,
    FinishReason,
    Message,
    PrefillProgress,
    ReasoningDelta,
    ReasoningEnd,
    Reply,
    ReplyFinished,
    ReplyStats,
)
from qwen_mlx.generation import defaults
from qwen_mlx.generation.generate import Finished, Token, generate
from qwen_mlx.generation.prefix_cache import Prefix, PrefixCache, common_length
from qwen_mlx.generation.sampling import SamplingParams
from qwen_mlx.ranges import OPTION_RANGES
from qwen_mlx.text.stopping import StopStrings
from qwen_mlx.text.thinking import ThinkingParser, soft_switch
from qwen_mlx.text.tool_calls import OPEN, split_tool_calls
from qwen_mlx.text.tool_stream import HeldCalls

# Families that were trained to follow /think and /no_think in a message.
_SOFT_SWITCH = ("qwen3", "qwen3_moe")
# Of the memory that is free when a model is loaded, what the caches of past conversations may keep.
_CACHE_SHARE = 0.15
_END_OF_THINKING = "\n</think>\n\n"  # as the model itself ends it


class ChatSession:
    """Replies to conversations with one model; keeps the KV cache of each between its turns."""

    def __init__(self, model: LoadedModel, kv_bits: str | None = None) -> None:
        """`kv_bits` as of `LoadModel`. Raises `UsageError` if this model cannot have such a cache."""
        self.model = model
        self.prefixes = PrefixCache(model.decoder, int(_CACHE_SHARE * device.memory_available()), kv_bits)
        self._stop_ids = defaults.stop_ids(model.generation_config, model.config, model.tokenizer)

    def prompt(self, job: Reply, *, generation_prompt: bool = True) -> str:
        """The text the model continues, for `Tokenizer.encode_disarmed`.

        Control tokens that stand in messages, typed or pasted, are broken: only the template opens and ends turns.
        """
        if not job.messages:
            raise UsageError("there is no message to answer")
        tokenizer = self.model.tokenizer
        shown: Sequence[Message] = job.messages
        begun: Message | None = None
        if job.continuing:
            *shown, begun = job.messages
            if begun.role != "assistant" or not shown:
                raise UsageError("there is no answer to go on with", expected="an assistant's message as the last one")
        if self.model.spec.family == "qwen":
            window = self.model.generation_config.get("max_window_size", DEFAULT_WINDOW)
            if type(window) is not int:
                raise ConfigError("generation_config.json: 'max_window_size' is not usable", expected="a whole number")
            shown = within_window(shown, lambda text: len(tokenizer.encode(text)), window)
        messages = tokenizer.disarmed([message.for_template() for message in shown])
        text = self.model.template.render(
            messages,
            tools=job.tools,
            add_generation_prompt=generation_prompt,
            enable_thinking=job.thinking,
        )
        return text + self._begun(text, begun) if begun is not None and generation_prompt else text

    def _begun(self, prompt: str, message: Message) -> str:
        """An unfinished answer as the model wrote it, to stand after `prompt`."""
        opened = self.model.template.opens_thinking(prompt)
        reasoning, content = self.model.tokenizer.disarmed([message.reasoning or "", message.content])
        if not reasoning and not opened:
            return str(content)
        head = ("" if opened else "<think>\n") + reasoning
        return head + _END_OF_THINKING + content if content else head

    def reply(self, job: Reply, cancel: CancelToken | None = None) -> Iterator[Event]:
        """Answer the last message, or go on with it; the last event is `ReplyFinished`.

        With tools, the message of that event has the calls the model made; no delta shows them.

        Raises:
            TemplateError: the template refuses the conversation.
            ContextFull: the conversation is longer than the model's context.
            UsageError: a sampling option is out of range, or there is nothing to answer or to go on with.
        """
        cancel = cancel or CancelToken()
        text = self.prompt(job)
        tokens = self.model.tokenizer.encode_disarmed(text)
        params = self._params(job, len(tokens))
        budget = _thinking_budget(job)
        prefix = self.prefixes.take(job.conversation, tokens)
        begun = job.messages[-1] if job.continuing else None
        held = HeldCalls() if job.tools else None
        writer = _Writer(self.model, text, params.stop, begun, held)
        generated: list[int] = []
        reason: FinishReason = "cancelled"
        watch = _Watch()
        cached = prefix.caches[0].offset
        stable = self._stable_length(job, tokens, prefix)
        mx.reset_peak_memory()
        while True:
            enough = False
            for event in generate(
                self.model.decoder,
                tokens + generated,
                replace(params, max_tokens=params.max_tokens - len(generated)),
                cache=prefix.caches,
                stop_ids=self._stop_ids,
                cancel=cancel,
                pause_at=stable,
            ):
                if isinstance(event, Token):
                    watch.token()
                    generated.append(event.id)
                    if event.id not in self._stop_ids:
                        yield from writer.add(event.id)
                    enough = budget is not None and writer.thinks and writer.reasoning_tokens >= budget
                    if writer.stopped or (enough and event.id not in self._stop_ids):
                        break
                elif isinstance(event, PrefillProgress):
                    if event.done == stable:
                        prefix.take_checkpoint()
                    if not generated:
                        yield event
                elif isinstance(event, Finished):
                    reason = event.reason
            closing = self.model.tokenizer.encode(_END_OF_THINKING) if enough else []
            if not closing or writer.stopped or cancel.cancelled or reason == "stop":
                break
            if len(generated) + len(closing) >= params.max_tokens:
                reason = "length"
                break
            for token in closing:  # it has thought enough: the answer is to come next
                generated.append(token)
                yield from writer.add(token)
            budget = None
        yield from writer.finish()
        if writer.stopped:
            reason = "stop"
        if job.keep:
            self.prefixes.put(job.conversation, prefix, tokens + generated)
        content, calls = writer.answer, list[dict[str, Any]]()
        if held is not None and reason == "cancelled":
            content = content.partition(OPEN)[0] if held.opened else content
        elif held is not None:
            content, calls, _ = split_tool_calls(content, job.tools)
            if not calls and (rest := held.finish()):  # it only looked like one
                yield AnswerDelta(rest)
        yield ReplyFinished(
            Message("assistant", content, writer.reasoning or None, tuple(calls)),
            reason,
            ReplyStats(
                prompt_tokens=len(tokens),
                cached_tokens=cached,
                completion_tokens=len(generated),
                reasoning_tokens=writer.reasoning_tokens,
                prefill_seconds=watch.prefill,
                decode_seconds=watch.decode,
                reasoning_seconds=writer.reasoning_seconds,
                time_to_first_token=watch.first_token,
                context=self.model.spec.max_positions,
                peak_memory=mx.get_peak_memory(),
            ),
        )

    def count(self, text: str) -> int:
        """How many tokens a text has, as part of a message."""
        tokenizer = self.model.tokenizer
        return len(tokenizer.encode_disarmed(tokenizer.disarmed(text)))

    def _params(self, job: Reply, prompt_length: int) -> SamplingParams:
        """The person's options, the model's defaults, and what fits into the context."""
        room = self.model.spec.max_positions - prompt_length
        if room < 1:
            raise ContextFull(
                f"the conversation has {prompt_length} tokens, and this model reads {self.model.spec.max_positions}",
                hint="Start a new conversation, or shorten this one.",
            )
        thinking = self._thinks(job)
        params = defaults.resolve(
            job.sampling,
            generation_config=self.model.generation_config,
            family=self.model.spec.family,
            thinking=thinking,
            name=self.model.name,
        )
        if params.max_tokens > room:
            params = replace(params, max_tokens=room)
        return params

    def _thinks(self, job: Reply) -> bool:
        if self.model.template.thinking != "optional":
            return self.model.template.thinking == "always"
        if job.thinking is False:
            return False
        if self.model.spec.family not in _SOFT_SWITCH:
            return True
        return soft_switch([message.for_template() for message in job.messages]) is not False

    def _stable_length(self, job: Reply, tokens: Sequence[int], prefix: Prefix) -> int | None:
        """How many tokens of the prompt will begin the next one too, whatever the template does to the reply.

        Only needed where layers cannot be trimmed at will.
        """
        if not prefix.needs_checkpoint:
            return None
        history = self.model.tokenizer.encode_disarmed(self.prompt(job, generation_prompt=False))
        return common_length(history, tokens)


def _thinking_budget(job: Reply) -> int | None:
    budget = job.sampling.thinking_budget
    if budget is None:
        return None
    try:
        return int(OPTION_RANGES["thinking_budget"].parse(budget))
    except ValueError as error:
        raise UsageError(f"the thinking budget cannot be {budget!r}", expected=str(error)) from None


class _Watch:
    """Seconds until the first token, and from there to the last one; also of a reply that is cut short."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.first_token = 0.0
        self.decode = 0.0

    def token(self) -> None:
        passed = time.perf_counter() - self._started
        if not self.first_token:
            self.first_token = passed
        self.decode = passed - self.first_token

    @property
    def prefill(self) -> float:
        return self.first_token or time.perf_counter() - self._started


class _Writer:
    """Token ids -> text events: whole characters, thinking apart from the answer, stop strings held back.

    `begun` is what there is of the answer already; no events are made of it. `held` keeps tool calls out of them.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompt: str,
        stops: Sequence[str],
        begun: Message | None = None,
        held: HeldCalls | None = None,
    ) -> None:
        self._detokenizer = model.tokenizer.detokenizer()
        opened = model.template.opens_thinking(prompt)
        if begun is not None and (begun.content or begun.reasoning):
            opened = not begun.content
        self._parser = ThinkingParser(opened, begun=opened and begun is not None and bool(begun.reasoning))
        self._stops = StopStrings(stops)
        self._held = held
        self.answer = begun.content if begun is not None else ""
        self.reasoning = (begun.reasoning or "") if begun is not None else ""
        self.stopped = False
        self.reasoning_tokens = 0
        self.reasoning_seconds = 0.0
        self._started = time.perf_counter()
        self._was_reasoning = self._parser.in_reasoning

    @property
    def thinks(self) -> bool:
        """Whether the next token belongs to the thinking."""
        return self._parser.in_reasoning

    def add(self, token: int) -> Iterator[Event]:
        if self._parser.in_reasoning:
            self.reasoning_tokens += 1
        yield from self._events(self._parser.feed(self._detokenizer.add(token)))

    def finish(self) -> Iterator[Event]:
        if not self.stopped:
            yield from self._events([*self._parser.feed(self._detokenizer.finish()), *self._parser.finish()])
            rest = self._stops.finish()
            if rest and not self.stopped:
                yield from self._answered(rest)
        if self._held is not None and not self._held.opened and (rest := self._held.finish()):
            yield AnswerDelta(rest)
        if self._was_reasoning:
            yield self._end_of_reasoning()

    def _events(self, segments: Sequence[Any]) -> Iterator[Event]:
        for segment in segments:
            if self.stopped:
                return
            if segment.kind == "reasoning":
                self._was_reasoning = True
                self.reasoning += segment.text
                yield ReasoningDelta(segment.text)
                continue
            if self._was_reasoning:
                yield self._end_of_reasoning()
            text, self.stopped = self._stops.feed(segment.text)
            if text:
                yield from self._answered(text)
        if self._was_reasoning and not self._parser.in_reasoning:
            yield self._end_of_reasoning()

    def _answered(self, text: str) -> Iterator[Event]:
        self.answer += text
        shown = text if self._held is None else self._held.feed(text)
        if shown:
            yield AnswerDelta(shown)

    def _end_of_reasoning(self) -> ReasoningEnd:
        self._was_reasoning = False
        self.reasoning_seconds = time.perf_counter() - self._started
        return ReasoningEnd(self.reasoning_seconds, self.reasoning_tokens)
