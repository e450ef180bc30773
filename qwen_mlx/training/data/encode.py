"""Contents -> token ids and weights, cut into tokens exactly as a chat with the model cuts them."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from qwen_mlx.errors import DataError, TemplateError
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.text.tokenizer import Tokenizer
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.data.contents import Content, Conversation, PlainText, Remarks
from qwen_mlx.training.data.render import Renderer, Spans

_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Encoded:
    """One example before it is stored; `whole` is how many tokens it had before it was cut to `max_len`."""

    ids: np.ndarray
    weights: np.ndarray
    whole: int

    @property
    def is_learnt(self) -> bool:
        return bool(self.weights.any())


class Encoder:
    """Turns contents into tokens, with a model's tokenizer and template and a run's options."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._template = template
        self._renderer = Renderer(template, config, tokenizer.disarmed)
        self.warnings: set[str] = set()

    @functools.cached_property
    def digest(self) -> str:
        """Of everything but the rows that decides what the tokens are."""
        template = [self._template.source, self._template.tool_source]
        question = [{"role": "user", "content": "1+1?"}]
        for prompt in (True, False):  # shows the variables a template is given, too
            try:
                template.append(self._template.render(question, add_generation_prompt=prompt))
            except TemplateError as problem:
                template.append(str(problem))
        c = self._config
        options = [c.max_len, c.loss_on, c.history, c.empty_think, c.wrap]
        text = json.dumps([self._tokenizer.digest, template, options])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def encode(self, content: Content, place: str, remarks: Remarks) -> list[Encoded]:
        """The examples of a row, none where nothing is to be learnt.

        Raises:
            DataError: as `Renderer.conversation`.
        """
        if isinstance(content, PlainText) and content.prompt is not None and self._wraps:
            content = _as_chat(content, place)
        if isinstance(content, PlainText):
            return [self._tokens(self._renderer.plain(content), end=self._end)]
        if not self.is_chat_model:
            self.warnings.add(
                "this is a base model: it has not learnt the tokens that begin and end turns, so train its embeddings "
                'and head as well (adapter.modules_to_save = ["embed_tokens", "lm_head"])'
            )
        examples = [self._tokens(spans) for spans in self._renderer.conversation(content, place, remarks)]
        if examples and not self._tokenizer.special_ids.intersection(self._tokenizer.encode(self._renderer.closing)):
            self.warnings.add("the chat template writes no token that ends an answer: the model does not learn to stop")
        return examples

    @functools.cached_property
    def is_chat_model(self) -> bool:
        """Whether the token that the tokenizer calls the end is the one that ends the template's turns."""
        try:
            closing = self._renderer.closing
        except (DataError, TemplateError):
            return False
        return not self._tokenizer.eos_ids or not self._tokenizer.eos_ids.isdisjoint(self._tokenizer.encode(closing))

    @property
    def _wraps(self) -> bool:
        if self._config.wrap == "auto":
            return self.is_chat_model
        return self._config.wrap == "chat"

    @functools.cached_property
    def _end(self) -> int | None:
        """What ends a text without turns."""
        end = min(self._tokenizer.eos_ids, default=self._tokenizer.token_id(_END_OF_TEXT))
        if end is None:
            self.warnings.add("the tokenizer has no end token: the model does not learn where texts end")
        return end

    def _tokens(self, spans: Spans, end: int | None = None) -> Encoded:
        """Each span is cut into tokens alone: a model that begins to write stands at the end of what it has read."""
        ids: list[int] = []
        weights: list[float] = []
        for span in spans:
            new = self._tokenizer.encode_disarmed(span.text)
            ids += new
            weights += [span.weight] * len(new)
        if end is not None:
            ids.append(end)
            weights.append(1.0)
        weights[:1] = [0.0]
        limit = self._config.max_len
        return Encoded(np.array(ids[:limit], np.int32), np.array(weights[:limit], np.float32), len(ids))


def _as_chat(content: PlainText, place: str) -> Conversation:
    if not (content.prompt or "").strip():
        raise DataError(
            f"{place}: 'prompt' is empty", expected="a question", hint='To learn texts: data.wrap = "plain", or `text`.'
        )
    messages = ({"role": "user", "content": content.prompt}, {"role": "assistant", "content": content.completion})
    return Conversation(messages, (0.0, 1.0))
