"""Chat templates: a conversation in, the text the model reads out.

A template comes with the model, from a stranger, and is a program. It runs in the sandbox of `sandbox.py`: it
reaches nothing but the conversation, and it is stopped when it takes too long or makes too much.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2.exceptions import SecurityError

from qwen_mlx.errors import TemplateError
from qwen_mlx.events import Message
from qwen_mlx.text.files import read_object, read_object_if_there, read_text, token_text, typed
from qwen_mlx.text.filters import plain
from qwen_mlx.text.limits import MAX_TEXT, Budget, LimitReached
from qwen_mlx.text.sandbox import BoundedEnvironment

Thinking = Literal["optional", "always", "never"]

MAX_SOURCE = 64_000
"""Characters of a template, several times the largest known ones: compiling may take the square of it."""
SECONDS = 2.0

_FOLDER = Path(__file__).parent / "templates"
_HERMES, _VISION = "hermes.jinja", "vision.jinja"
_BUILTIN: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "qwen2": (("qwen2.jinja",), {}),
    "qwen2_5": ((_HERMES, "qwen2_5.jinja"), {}),
    "qwen2_vl": ((_VISION, "qwen2_vl.jinja"), {}),
    "qwen3": ((_HERMES, "qwen3.jinja"), {"thinking": "'switch'"}),
    "qwen3_instruct_2507": ((_HERMES, "qwen3.jinja"), {"thinking": "'none'"}),
    "qwen3_nonthinking": ((_HERMES, "qwen3.jinja"), {"thinking": "'closed'"}),
    "qwen3_vl": ((_HERMES, _VISION, "qwen3_vl.jinja"), {}),
    "qwen3_5": (("qwen3_5.jinja",), {"thinks": "true", "keeps_thinking": "false", "json_arguments": "false"}),
    "qwen3_5_small": (("qwen3_5.jinja",), {"thinks": "false", "keeps_thinking": "false", "json_arguments": "false"}),
    "qwen3_6": (("qwen3_5.jinja",), {"thinks": "true", "keeps_thinking": "true", "json_arguments": "true"}),
}
BUILTIN_NAMES = tuple(_BUILTIN)

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_OPEN, _CLOSE = "<think>", "</think>"


class ChatTemplate:
    """A compiled template. Renders from any thread.

    Args:
        source: Jinja, as `transformers` understands it.
        tool_source: a second template for conversations with tools, for the few models that have one.
        variables: what every rendering sees beside the conversation, e.g. `{"eos_token": "<|im_end|>"}`.
        origin: where the template comes from, for messages.
        seconds: a rendering that takes longer is stopped.
        max_output: characters of a rendered conversation.

    Raises:
        TemplateError: the template is no valid Jinja or far too large.
    """

    def __init__(
        self,
        source: str,
        *,
        tool_source: str | None = None,
        variables: Mapping[str, Any] | None = None,
        origin: str = "the chat template",
        seconds: float = SECONDS,
        max_output: int = MAX_TEXT,
    ) -> None:
        self.source = source
        self.tool_source = tool_source
        self.origin = origin
        self.seconds = seconds
        self.max_output = max_output
        self._variables = dict(variables or {})
        self._environment = BoundedEnvironment()
        self._template = self._compile(source)
        self._tool_template = self._template if tool_source is None else self._compile(tool_source)

    @classmethod
    def from_folder(cls, folder: Path, model_type: str | None = None) -> ChatTemplate:
        """The template of a model folder, else the built-in one that fits the family best.

        Looks at `chat_template.jinja`, `chat_template.json` and `tokenizer_config.json`, in this order.

        Args:
            model_type: as in `config.json`, which is read when it is not given.

        Raises:
            TemplateError: a damaged file or template; the message names it.
        """
        folder = Path(folder)
        settings = read_object_if_there(folder / "tokenizer_config.json", TemplateError)
        variables = _special_tokens(folder, settings)
        found = _sources(folder, settings)
        if found is None:
            return builtin(_fitting(folder, model_type, settings), variables=variables)
        source, tool_source, path = found
        return cls(source, tool_source=tool_source, variables=variables, origin=f"the chat template in {path}")

    def render(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        enable_thinking: bool | None = None,
        **extra: Any,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: oldest first; dictionaries with `role` and `content`, or `Message` objects.
            tools: OpenAI-style function descriptions.
            add_generation_prompt: end with the beginning of the assistant's turn.
            enable_thinking: None leaves the variable undefined, so that the template's default holds.
            extra: further variables some templates know, such as `preserve_thinking` or `add_vision_id`.

        Raises:
            TemplateError: the template refuses the conversation, fails, or exceeds its limits.
        """
        variables: dict[str, Any] = {
            **self._variables,
            "documents": None,
            **plain(extra),
            "messages": [_as_mapping(message, index) for index, message in enumerate(messages)],
            "tools": plain(list(tools)) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        template = self._tool_template if tools else self._template
        pieces: list[str] = []
        length = 0
        with self._guarded("cannot render this conversation") as budget:
            for piece in template.generate(**variables):
                budget.tick()
                length += len(piece)
                if length > self.max_output:
                    raise LimitReached(f"writes more than {self.max_output:,} characters")
                pieces.append(piece)
        return "".join(pieces)

    @functools.cached_property
    def thinking(self) -> Thinking:
        """Whether the model thinks before it answers: "optional" if `enable_thinking` decides, as this template shows.

        "always": the template opens a thinking block, or removes thinking from past replies, without a switch.
        """
        question = {"role": "user", "content": "1+1?"}
        thought, answer = "one and one", "It is two."
        past = {"role": "assistant", "content": f"{_OPEN}\n{thought}\n{_CLOSE}\n\n{answer}"}
        try:
            prompts = [self.render([question], enable_thinking=choice) for choice in (None, True, False)]
            history = self.render([question, past, question])
        except TemplateError:
            return "never"
        if len(set(prompts)) > 1:
            return "optional"
        if self.opens_thinking(prompts[0]):
            return "always"
        if prompts[0].rstrip().endswith(_CLOSE):
            return "never"
        return "always" if answer in history and thought not in history else "never"

    @functools.cached_property
    def tools(self) -> bool:
        """Whether the template has a place for tools."""
        question = {"role": "user", "content": "1+1?"}
        name = "sum_of_two_numbers"
        tool = {"type": "function", "function": {"name": name, "description": "Adds.", "parameters": {}}}
        try:
            return name in self.render([question], tools=[tool])
        except TemplateError:
            return False

    @staticmethod
    def opens_thinking(prompt: str) -> bool:
        """Whether a rendered prompt ends inside a `<think>` block, so that the reply begins with thinking."""
        _, mark, after = prompt.rpartition(_OPEN)
        # A control token after it (`<|im_end|>`, `<｜Assistant｜>`) says that it belongs to an earlier turn.
        return bool(mark) and _CLOSE not in after and re.search(r"<[|｜]", after) is None

    # ------------------------------------------------------------------------------------------------ inside

    def _compile(self, source: str) -> jinja2.Template:
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                f"{self.origin} is too large",
                expected=f"at most {MAX_SOURCE:,} characters",
                found=f"{len(source):,}",
            )
        with self._guarded("is damaged"):
            return self._environment.from_string(source)

    @contextmanager
    def _guarded(self, failure: str) -> Iterator[Budget]:
        """Spend a new budget; turn whatever goes wrong into a `TemplateError`."""
        try:
            with self._environment.spending(Budget(self.seconds)) as budget:
                yield budget
        except LimitReached as problem:
            raise TemplateError(
                f"{self.origin} {problem} and was stopped",
                hint="It is broken or hostile; put a better one into chat_template.jinja of the model folder.",
            ) from None
        except SecurityError as problem:
            raise TemplateError(f"{self.origin} tries to leave its sandbox: {_short(problem)}") from None
        except RecursionError:
            raise TemplateError(f"{self.origin} {failure}: it is nested too deeply") from None
        except MemoryError:
            raise TemplateError(f"{self.origin} {failure}: it needs too much memory") from None
        except jinja2.TemplateSyntaxError as problem:
            raise TemplateError(f"{self.origin} is damaged: {_short(problem)} (line {problem.lineno})") from None
        except jinja2.UndefinedError as problem:
            raise TemplateError(f"{self.origin} {failure}: {_short(problem)}{_line(problem)}") from None
        except jinja2.TemplateError as problem:  # what raise_exception() in the template says
            raise TemplateError(f"{self.origin} refuses this conversation: {_short(problem)}") from None
        except Exception as problem:
            raise TemplateError(
                f"{self.origin} {failure}: {type(problem).__name__}: {_short(problem)}{_line(problem)}"
            ) from None


def builtin(name: str, *, variables: Mapping[str, Any] | None = None) -> ChatTemplate:
    """One of our own templates, which render as those published with the models do.

    Raises:
        TemplateError: an unknown name; the message lists `BUILTIN_NAMES`.
    """
    if name not in _BUILTIN:
        raise TemplateError(f"there is no built-in chat template {name[:60]!r}", expected=", ".join(BUILTIN_NAMES))
    files, settings = _BUILTIN[name]
    parts = [f"{{%- set {key} = {value} -%}}\n" for key, value in settings.items()]
    parts += [(_FOLDER / file).read_text(encoding="utf-8") for file in files]
    return ChatTemplate("".join(parts), variables=variables, origin=f"the built-in chat template {name}")


def _sources(folder: Path, settings: Mapping[str, Any]) -> tuple[str, str | None, Path] | None:
    """The template of a folder, that for tools if there is another, and the file they stand in."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        tools = folder / "additional_chat_templates" / "tool_use.jinja"
        return _read_source(path), _read_source(tools) if tools.is_file() else None, path
    path = folder / "chat_template.json"
    value = read_object(path, TemplateError).get("chat_template") if path.is_file() else None
    if value is None:
        path = folder / "tokenizer_config.json"
        value = settings.get("chat_template")
    if value is None:
        return None
    where = f"'chat_template' in {path}"
    if isinstance(value, str):
        return value, None, path
    named: dict[str, str] = {}
    for entry in typed(value, list, where, TemplateError):
        fields = typed(entry, dict, f"an entry of {where}", TemplateError)
        name, source = (
            typed(fields.get(key), str, f"{key!r} in {where}", TemplateError) for key in ("name", "template")
        )
        named[name] = source
    if not named:
        return None
    default = named.get("default") or next(iter(named.values()))
    return default, named.get("tool_use"), path


def _read_source(path: Path) -> str:
    return read_text(path, TemplateError, max_bytes=4 * MAX_SOURCE)


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token`, ...: templates of other makers print them."""
    found: dict[str, str] = {}
    path = folder / "special_tokens_map.json"
    for file, values in (
        (path, read_object_if_there(path, TemplateError)),
        (folder / "tokenizer_config.json", settings),
    ):
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            text = token_text(values.get(key), f"{key!r} in {file}", TemplateError)
            if text is not None:
                found[key] = text
    return found


def _fitting(folder: Path, model_type: str | None, settings: Mapping[str, Any]) -> str:
    """The name of the built-in template for a model that brings none."""
    config = read_object_if_there(folder / "config.json", TemplateError)
    kind = model_type or config.get("model_type")
    kind = kind if isinstance(kind, str) else ""
    if kind.startswith("qwen3_5"):
        text = config.get("text_config")
        width = (text if isinstance(text, dict) else config).get("hidden_size")
        # Of the dense models, 2B and smaller answer at once unless they are told to think.
        small = "moe" not in kind and isinstance(width, int) and width <= 2048
        return "qwen3_5_small" if small else "qwen3_5"
    if "vl" in kind.split("_"):
        return "qwen3_vl" if kind.startswith("qwen3") else "qwen2_vl"
    if kind in ("qwen3", "qwen3_moe"):
        return "qwen3"
    if kind in ("qwen", "qwen2", "qwen2_moe"):
        # Qwen2.5 is a qwen2 too; its tokenizer is the first with tool calls.
        added = settings.get("added_tokens_decoder")
        known = (
            (str(token.get("content")) for token in added.values() if isinstance(token, dict))
            if isinstance(added, dict)
            else ()
        )
        return "qwen2_5" if "<tool_call>" in known else "qwen2"
    return "qwen3_instruct_2507"  # ChatML that adds nothing of its own


def _as_mapping(message: Mapping[str, Any] | Message, index: int) -> dict[str, Any]:
    value = plain(message.for_template() if isinstance(message, Message) else message)
    if not isinstance(value, dict):
        raise TemplateError(
            f"message {index + 1} is not a message", expected="an object with role and content", found=str(value)[:60]
        )
    reasoning = next((value[key] for key in _REASONING_KEYS if value.get(key) is not None), None)
    return value if reasoning is None else {**value, "reasoning_content": reasoning}


def _short(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _line(problem: Exception) -> str:
    """Where in the template an exception arose."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == "<template>"]
    return f" (line {lines[-1]})" if lines else ""
