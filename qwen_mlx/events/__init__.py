"""What flows between the floors: jobs go down, events come up.

Every long job (load, reply, and later pull, convert, train, evaluate) is described by a frozen *job*, and answers
with a stream of frozen *events*. The command line, the terminal app, a server and the tests all read the same
stream through the `Runtime` protocol. Nothing here imports MLX, so an interface never waits for it.

What has to do with models as files stands in `models.py`, what with fine-tuning in `training.py`; all of it is imported
from here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Union

from qwen_mlx.errors import Cancelled
from qwen_mlx.events.models import (
    ConversionPlanned,
    Converted,
    ConvertModel,
    Divergence,
    Evaluated,
    EvaluateModel,
    Exported,
    ExportModel,
    ExportPlanned,
    FileProblem,
    FuseAdapter,
    Fused,
    Imported,
    ImportModel,
    ImportPlanned,
    KnownModel,
    ModelEntry,
    PullFinished,
    PullModel,
    PullPlanned,
    QuantizeModel,
    Retention,
    Shelf,
    TensorShare,
    VerifyFinished,
)
from qwen_mlx.events.training import (
    Compared,
    ComparedAnswer,
    DataExamined,
    DataInspected,
    DataPrepared,
    DataReady,
    Eval,
    PlanTraining,
    RowsShown,
    RunCheckpoint,
    RunEntry,
    RunRecord,
    RunStarted,
    RunState,
    Sample,
    Saved,
    ShownExample,
    ShownRow,
    ShownToken,
    Step,
    TrainingControls,
    TrainingFinished,
    TrainingForecast,
    TrainingNotice,
    TrainingPlanned,
    TrainingStopped,
    TrainModel,
    Workshop,
)

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled"]
KVBits = Literal["8", "4", "8/4"]


class CancelToken:
    """Asks a job to stop; may be set from any thread, is read once per step by the job."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raises `Cancelled` once `cancel()` was called."""
        if self._event.is_set():
            raise Cancelled()

    def wait(self, seconds: float) -> None:
        """Do nothing for `seconds`; raises `Cancelled` as soon as `cancel()` is called."""
        self._event.wait(seconds)
        self.raise_if_cancelled()


# ---------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    `reasoning` is what stood between the thinking markers, `content` what came after them, without the blank lines
    a template puts between. `tool_calls` are OpenAI-style dictionaries.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    def for_template(self) -> dict[str, Any]:
        """The dictionary a chat template sees: keys that are empty are left out."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        return message


@dataclass(frozen=True)
class SamplingOptions:
    """What a person asked for; None means the model's own default (`generation_config.json`, then our table).

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_p, min_p: probabilities.
        repetition_penalty: as transformers: over prompt and output; 1 is off.
        presence_penalty, frequency_penalty: as OpenAI: over the output only; 0 is off.
        seed: the same seed and prompt give the same text on one machine.
        max_tokens: of the whole reply, thinking included.
        thinking_budget: tokens of thinking after which the model is made to answer; None lets it think on.
        stop: strings that end the reply; they are not part of it.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    thinking_budget: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What an interface shows of a loaded model.

    Attributes:
        name: short name for a title bar.
        folder: absolute path.
        family: "qwen2", "qwen3", ...
        parameters: number of weights, counted before quantization.
        bits: stored bits per weight, 32 or 16 when not quantized.
        context: longest text in tokens.
        thinking: "optional" (a switch exists), "always" or "never".
        backend: "metal", "cuda" or "cpu".
        memory: bytes held by the weights in the form they run.
        tools: its chat template has a place for tools.
    """

    name: str
    folder: str
    family: str
    parameters: int
    bits: float
    context: int
    thinking: Literal["optional", "always", "never"]
    backend: str
    memory: int
    tools: bool = False


@dataclass(frozen=True)
class ReplyStats:
    """Numbers of one reply. Times in seconds, memory in bytes, speeds are derived.

    `prompt_tokens` counts the whole prompt, of which `cached_tokens` were not computed again.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    reasoning_seconds: float = 0.0
    time_to_first_token: float = 0.0
    context: int = 0
    peak_memory: int = 0

    @property
    def prefill_speed(self) -> float:
        """Tokens per second of the part of the prompt that had to be computed."""
        computed = self.prompt_tokens - self.cached_tokens
        return computed / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_speed(self) -> float:
        """Tokens per second after the first token."""
        steps = self.completion_tokens - 1
        return steps / self.decode_seconds if self.decode_seconds > 0 and steps > 0 else 0.0


# ---------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Progress:
    """How far a job is. `total` is None while it is unknown. `unit` is "bytes", "tensors", "tokens", ...

    `speed` is in units per second, of late; `remaining` is how many seconds are left. Both are None while unknown.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    detail: str = ""
    speed: float | None = None
    remaining: float | None = None


@dataclass(frozen=True)
class ModelLoaded:
    """The last event of `LoadModel`."""

    info: ModelInfo
    seconds: float


@dataclass(frozen=True)
class PrefillProgress:
    """`done` of `total` prompt tokens are in the cache; `cached` of them were there before this reply."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True)
class ReasoningDelta:
    """More thinking. Never half a character, never part of a marker."""

    text: str


@dataclass(frozen=True)
class ReasoningEnd:
    """The model closed its thinking block (or stopped inside it)."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class AnswerDelta:
    """More of the answer. Never half a character, never part of a marker or stop string."""

    text: str


@dataclass(frozen=True)
class ReplyFinished:
    """The last event of `Reply`: the whole message and its numbers."""

    message: Message
    reason: FinishReason
    stats: ReplyStats


@dataclass(frozen=True)
class ToolRan:
    """A tool that the model had called was run, or was not, between two replies of one answer.

    `outcome` is "done", "failed" or "refused"; `result` is what the model reads.
    """

    name: str
    arguments: Mapping[str, Any]
    result: str
    outcome: str


@dataclass(frozen=True)
class TokensCounted:
    """The last event of `CountTokens`."""

    tokens: int


@dataclass(frozen=True)
class JobFailed:
    """The last event of any job that could not be done.

    Attributes:
        error: the text for a person.
        expected: True for a `QwenError`; False for a bug of ours, then `details` holds the traceback.
    """

    error: str
    expected: bool
    exit_code: int = 1
    details: str = ""


@dataclass(frozen=True)
class JobCancelled:
    """The last event of a job that was cancelled before it could answer (a reply says so in `ReplyFinished`)."""


@dataclass(frozen=True)
class Notice:
    """Something a person should know of while the job goes on."""

    text: str


@dataclass(frozen=True)
class ChatsImported:
    """The last event of an import of conversations.

    Attributes:
        source: the file; `program` wrote it.
        imported, messages: how many are new in the store.
        known: conversations that were imported before, and are left as they are.
        empty: entries without a message that could be kept.
    """

    source: str
    program: str
    imported: int
    known: int
    empty: int
    messages: int


Event = Union[
    Progress,
    ModelLoaded,
    PrefillProgress,
    ReasoningDelta,
    ReasoningEnd,
    AnswerDelta,
    ReplyFinished,
    ToolRan,
    TokensCounted,
    JobFailed,
    JobCancelled,
    Notice,
    PullPlanned,
    PullFinished,
    VerifyFinished,
    ConversionPlanned,
    Converted,
    ImportPlanned,
    Imported,
    ExportPlanned,
    Exported,
    Evaluated,
    ChatsImported,
    Fused,
    TrainingPlanned,
    RunStarted,
    DataPrepared,
    DataInspected,
    DataReady,
    Step,
    Eval,
    Sample,
    Saved,
    TrainingNotice,
    Compared,
    TrainingFinished,
    TrainingStopped,
    RowsShown,
    DataExamined,
]
FINAL_EVENTS = (
    ModelLoaded,
    ReplyFinished,
    TokensCounted,
    JobFailed,
    JobCancelled,
    PullFinished,
    VerifyFinished,
    Converted,
    Imported,
    Exported,
    Evaluated,
    ChatsImported,
    Fused,
    DataInspected,
    TrainingPlanned,
    TrainingFinished,
    TrainingStopped,
    Compared,
    DataExamined,
)


# ---------------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class LoadModel:
    """Load a model and make it the one that replies.

    Attributes:
        model: a folder, a name in the Hugging Face cache, or "demo".
        weights: "auto" measures which is faster, "quantized" keeps them packed, "expanded" unpacks them.
        rope_scaling: how to read texts longer than the model was trained on, such as "yarn:4" or "none"; None leaves
            it to the model.
        kv_bits: bits of keys and values in the KV cache, "8", "4", or "8/4" for keys of 8 and values of 4; None keeps
            them as they are computed.
        adapter: the folder of an adapter for it, as a training run or PEFT writes it; None is the model as it is.
    """

    model: str
    weights: Literal["auto", "quantized", "expanded"] = "auto"
    rope_scaling: str | None = None
    kv_bits: KVBits | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Reply:
    """Answer the last message of `messages`.

    Attributes:
        conversation: any key; replies with the same key share one KV cache.
        messages: the whole conversation so far, oldest first, system message included.
        thinking: None leaves it to the template's default.
        continuing: the last message is an answer that was stopped: go on where it ends. Events bring only what is
            new, the message of `ReplyFinished` is the whole answer.
        keep: keep the KV cache for the next reply of this conversation.
        bare: answer without the adapter that was loaded with the model.
    """

    conversation: str
    messages: tuple[Message, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    thinking: bool | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    continuing: bool = False
    keep: bool = True
    bare: bool = False


@dataclass(frozen=True)
class CountTokens:
    """Count the tokens of a text with the tokenizer of the loaded model."""

    text: str


Job = Union[
    LoadModel, PullModel, Reply, CountTokens, ConvertModel, QuantizeModel, EvaluateModel, TrainModel, PlanTraining
]


class JobHandle(Protocol):
    """A submitted job as its owner sees it. All methods may be called from any thread, by one reader."""

    def cancel(self) -> None:
        """Ask the job to stop; it ends within one step, with a final event."""

    def drain(self) -> list[Event]:
        """Take all events that have arrived, without waiting."""

    @property
    def finished(self) -> bool:
        """True once the final event has been taken by `drain` or iteration."""

    def __iter__(self) -> Iterator[Event]:
        """Wait for events, one after the other, up to and including the final one."""


class Runtime(Protocol):
    """Owner of the model. One job runs at a time, in the order of submission."""

    def submit(self, job: Job) -> JobHandle: ...

    @property
    def model(self) -> ModelInfo | None:
        """The loaded model, if any."""

    def close(self, timeout: float = 2.0) -> None:
        """Cancel everything and let the thread end; returns after `timeout` seconds at the latest."""
