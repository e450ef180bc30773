"""What flows between the floors: jobs go down, events come up.

Every long job (load, reply, and later pull, convert, train, evaluate) is described by a frozen *job*, and answers
with a stream of frozen *events*. The command line, the terminal app, a server and the tests all read the same
stream through the `Runtime` protocol. This module imports no MLX, so an interface never waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Union

from qwen_mlx.errors import Cancelled

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


# ------------------------------------------------------------------------------------- getting and checking models


@dataclass(frozen=True)
class Notice:
    """Something a person should know of while the job goes on."""

    text: str


@dataclass(frozen=True)
class PullPlanned:
    """What a pull is about to do, before the first byte of the model.

    Attributes:
        reference: what was asked for; `repository` at `revision` is what it means, `commit` what that is today.
        source: "hf" or "modelscope".
        folder: where the model will be.
        files: name -> bytes of everything that belongs to it.
        size: their sum; `missing` bytes of it still have to come.
        config: `config.json` as the hub has it, None where there is none.
    """

    reference: str
    repository: str
    revision: str
    commit: str
    source: str
    folder: str
    files: Mapping[str, int]
    size: int
    missing: int
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PullFinished:
    """The last event of a pull: `received` bytes came over the network in `seconds`; `fetched` names their files."""

    folder: str
    repository: str
    commit: str
    size: int
    received: int
    fetched: tuple[str, ...]
    seconds: float
    dry_run: bool = False


@dataclass(frozen=True)
class FileProblem:
    """One file that is not as the hub described it; `what` is a sentence without the file's name and full stop."""

    file: str
    what: str


@dataclass(frozen=True)
class VerifyFinished:
    """The last event of a verification: `checked` files were equal to their checksums, `unknown` ones have none."""

    folder: str
    checked: tuple[str, ...]
    unknown: tuple[str, ...]
    problems: tuple[FileProblem, ...]
    size: int
    seconds: float


# --------------------------------------------------------------------------- converting, quantizing, evaluating


@dataclass(frozen=True)
class ConversionPlanned:
    """What a conversion is about to write, before the first byte.

    Attributes:
        folder: where the new model will be.
        source_bytes: bytes of the tensors that are read; `nbytes` of those that will be written.
        disk: bytes that the new folder takes, with its small files; `free` bytes are left on its disk.
        memory: bytes of memory the work takes, about.
        parameters: number of weights.
        bits_before, bits_after: stored bits per weight.
        formats: what the matrices will be stored as -> how many of them, such as "4-bit g64 affine" or "bfloat16".
        left_plain: matrices that no group size divides, and that are therefore not packed.
    """

    folder: str
    source_bytes: int
    nbytes: int
    disk: int
    free: int
    memory: int
    parameters: int
    bits_before: float
    bits_after: float
    formats: Mapping[str, int]
    left_plain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converted:
    """The last event of `ConvertModel` and `QuantizeModel`.

    Attributes:
        plan: as announced.
        files: of weights; 0 after a dry run, which writes nothing.
        error: root mean square of what rounding changed, relative to that of the packed weights, when it was measured.
    """

    plan: ConversionPlanned
    files: int
    seconds: float
    error: float | None = None


@dataclass(frozen=True)
class TensorShare:
    """Tensors of an import that are treated alike.

    Attributes:
        stored: how the source has them, such as "Q4_K"; `becomes` how the new folder will, such as "4-bit g32 affine".
        fate: "exact" and "floats": every number is kept; "scales rounded": codes are; "requantized"; "floats rounded".
        tensors: how many; `source_bytes` and `nbytes` are all of their bytes, before and after.
    """

    stored: str
    becomes: str
    fate: str
    tensors: int
    source_bytes: int
    nbytes: int


@dataclass(frozen=True)
class ImportPlanned:
    """What an import is about to write, before the first byte.

    Attributes:
        source: what is read; `form` is its format, such as "GGUF Q4_K, Q6_K"; `model_type` as on the hub.
        folder: where the new model will be.
        dtype: of floats, scales and biases.
        parameters: number of weights.
        source_bytes: of the tensors that are read; `nbytes` of those that will be written; `disk` of the whole folder.
        bits_before, bits_after: stored bits per weight.
        exact: whether every number is kept to the last bit.
        shares: what becomes of which tensors, those with most bytes first.
        notes: what a person should know, one sentence each.
    """

    source: str
    form: str
    model_type: str
    folder: str
    dtype: str
    parameters: int
    source_bytes: int
    nbytes: int
    disk: int
    bits_before: float
    bits_after: float
    exact: bool
    shares: tuple[TensorShare, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """The last event of `ImportModel`; `files` of weights were written, none by a dry run."""

    plan: ImportPlanned
    files: int
    seconds: float


@dataclass(frozen=True)
class ExportPlanned:
    """What an export is about to write: `form` is "GGUF Q8_0", "safetensors bfloat16"; the rest as `ImportPlanned`."""

    source: str
    form: str
    target: str
    parameters: int
    source_bytes: int
    nbytes: int
    bits_before: float
    bits_after: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """The last event of `ExportModel`; a dry run writes nothing, so `written` is False."""

    plan: ExportPlanned
    seconds: float
    written: bool = True


@dataclass(frozen=True)
class Divergence:
    """How one model's next-token distributions differ from those of a reference, over the same text.

    Attributes:
        kl: Kullback-Leibler divergence from the reference, mean over the tokens, in nats; `kl_error` is its standard
            error, `kl_99` the value below which 99 % of the tokens are, `kl_max` the largest.
        same_top: share of the tokens for which both think the same one the likeliest.
        reference_perplexity: of the reference.
    """

    kl: float
    kl_error: float
    kl_99: float
    kl_max: float
    same_top: float
    reference_perplexity: float


@dataclass(frozen=True)
class Evaluated:
    """The last event of `EvaluateModel`.

    Attributes:
        perplexity: exp of the mean negative log-likelihood of a token; `perplexity_error` is its standard error.
        tokens: tokens that were predicted.
        context: tokens a window holds.
        divergence: None unless there was a reference.
        text: what was read.
    """

    model: str
    perplexity: float
    perplexity_error: float
    tokens: int
    context: int
    text: str
    seconds: float
    divergence: Divergence | None = None


Event = Union[
    Progress,
    ModelLoaded,
    PrefillProgress,
    ReasoningDelta,
    ReasoningEnd,
    AnswerDelta,
    ReplyFinished,
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
]
FINAL_EVENTS = (
    ModelLoaded,
    ReplyFinished,
    JobFailed,
    JobCancelled,
    PullFinished,
    VerifyFinished,
    Converted,
    Imported,
    Exported,
    Evaluated,
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
    """

    model: str
    weights: Literal["auto", "quantized", "expanded"] = "auto"
    rope_scaling: str | None = None
    kv_bits: KVBits | None = None


@dataclass(frozen=True)
class PullModel:
    """Download a model; `model` is any name that `hub.references` takes for a repository."""

    model: str


@dataclass(frozen=True)
class Reply:
    """Answer the last message of `messages`.

    Attributes:
        conversation: any key; replies with the same key share one KV cache.
        messages: the whole conversation so far, oldest first, system message included.
        thinking: None leaves it to the template's default.
        continuing: the last message is an answer that was stopped: go on where it ends. Events bring only what is
            new, the message of `ReplyFinished` is the whole answer.
    """

    conversation: str
    messages: tuple[Message, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    thinking: bool | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    continuing: bool = False


@dataclass(frozen=True)
class ConvertModel:
    """Rewrite a model in mlx-lm's layout.

    Attributes:
        source, target: folders.
        dtype: "bfloat16", "float16" or "float32" of everything that is not packed; None keeps the model's.
        dequantize: unpack packed weights.
        force: replace a model that is at `target`.
        dry_run: only say what would be written.
    """

    source: str
    target: str
    dtype: str | None = None
    dequantize: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class QuantizeModel:
    """Write a model with fewer bits per weight.

    Attributes:
        source, target: folders.
        preset: "tiny", "small", "balanced", "quality" or "max"; None with neither bits nor a mode is "balanced".
        bits, group_size, mode: one format for all but the routers of experts; None is the mode's usual one.
        overrides: `regex=bits[:group]`, where the regex is searched in the new name of a matrix.
        target_bits: bits per weight to come close to; decides the bits of everything.
        rounding: "best" searches for the codes of least error, "mlx" writes what mlx-lm's `convert` does.
        calibrate: "activations" weighs the errors of "best" with what one pass over a text puts in; "none" does not.
        calibration_text: a file; None is the text that ships with the program.
        requantize: work on packed weights, too.
        dtype, force, dry_run: as of `ConvertModel`.
    """

    source: str
    target: str
    preset: str | None = None
    bits: int | None = None
    group_size: int | None = None
    mode: str = "affine"
    overrides: tuple[str, ...] = ()
    target_bits: float | None = None
    rounding: Literal["best", "mlx"] = "best"
    calibrate: Literal["none", "activations"] = "none"
    calibration_text: str | None = None
    requantize: bool = False
    dtype: str | None = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class ImportModel:
    """Turn a model in another program's format into a folder as MLX's programs have it.

    Attributes:
        source: a GGUF file, a folder with one, or a folder of the hub in AWQ, GPTQ, FP8 or compressed-tensors.
        target: the new folder.
        dtype: "bfloat16", "float16" or "float32" of floats, scales and biases; None is the source's own.
        requantize: a preset of `QuantizeModel`, or `bits[:group]`, in place of the source's formats.
        dequantize: unpack everything, into floats.
        tokenizer: a model folder to take the tokenizer from.
        force: replace a model that is at `target`.
        dry_run: only say what would be written.
    """

    source: str
    target: str
    dtype: str | None = None
    requantize: str | None = None
    dequantize: bool = False
    tokenizer: str | None = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class ExportModel:
    """Write a model for other programs.

    Attributes:
        source: a model folder.
        target: a GGUF file, or a new folder of safetensors.
        form: "f16", "bf16" or "q8_0" in GGUF; "bfloat16", "float16" or "float32" in safetensors.
        force: replace what is at `target`.
        dry_run: only say what would be written.
    """

    source: str
    target: str
    form: str
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class EvaluateModel:
    """Measure how well a model predicts a text, and how far it is from another model.

    Attributes:
        model: a folder; `against` is that of a reference with the same vocabulary, or None.
        text: a file; None is the text that ships with the program.
        context: tokens per window; each window is read from its own beginning.
        limit: tokens to read at most; None is all of the text.
        weights: the form in which they run; see `LoadModel`.
    """

    model: str
    against: str | None = None
    text: str | None = None
    context: int = 512
    limit: int | None = None
    weights: Literal["auto", "quantized", "expanded"] = "auto"


Job = Union[LoadModel, PullModel, Reply, ConvertModel, QuantizeModel, EvaluateModel]


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


@dataclass(frozen=True)
class ModelEntry:
    """One model on this machine, as an interface lists it.

    Attributes:
        name: what `LoadModel` takes.
        size: bytes on the disk.
        parameters: number of weights; None where they could not be read, as everything below.
        format: how the weights are stored, in words; `bits` per weight.
        fits: "fits", "tight" or "too big" for this machine's memory.
        problem: why it cannot be used, in a word or two; None when it can.
        used: when it was last used, seconds since 1970.
        removable: whether it can be deleted here.
    """

    name: str
    size: int
    parameters: int | None = None
    format: str | None = None
    bits: float | None = None
    fits: str | None = None
    problem: str | None = None
    used: float = 0.0
    removable: bool = True


class Shelf(Protocol):
    """The models of this machine. Every call may take a while; none needs the thread that owns MLX."""

    def models(self) -> list[ModelEntry]:
        """What is here, by name; a model that cannot be used is an entry that says so."""

    def pull(self, name: str) -> JobHandle:
        """Download a model, in a thread of its own; the last event is `PullFinished`, `JobFailed` or `JobCancelled`."""

    def delete(self, name: str) -> int:
        """Delete a model; returns the bytes that are free now. Raises `QwenError`."""
