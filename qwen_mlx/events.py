"""What flows between the floors: jobs go down, events come up.

Every long job (load, reply, and later pull, convert, train, evaluate) is described by a frozen *job*, and answers
with a stream of frozen *events*. The command line, the terminal app, a server and the tests all read the same
stream through the `Runtime` protocol. This module imports no MLX, so an interface never waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
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


class TrainingControls:
    """What a person may ask of a training run while it goes on; every method may be called from any thread.

    The run reads them once per batch. A learning rate that is set becomes the new peak: the schedule goes on from it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
        self._save = self._stop = False
        self._learning_rate: float | None = None

    def pause(self) -> None:
        """Compute nothing until `resume`; the run keeps its memory."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def save_now(self) -> None:
        """Write a checkpoint after the batch that is being computed."""
        with self._lock:
            self._save = True

    def stop_after_step(self) -> None:
        """Save and stop once the step that is being computed is done."""
        with self._lock:
            self._stop = True
        self._running.set()

    def set_learning_rate(self, rate: float) -> None:
        """Raises ValueError for a rate that is not a finite number above 0."""
        if not 0 < rate < float("inf"):
            raise ValueError(f"a learning rate of {rate}")
        with self._lock:
            self._learning_rate = float(rate)

    @property
    def stopping(self) -> bool:
        """Whether `stop_after_step` was called."""
        return self._stop

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        with self._lock:
            asked, self._save = self._save, False
            return asked

    def take_learning_rate(self) -> float | None:
        """The learning rate that was set since the last call."""
        with self._lock:
            rate, self._learning_rate = self._learning_rate, None
            return rate

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is paused, `seconds` at the most; whether it is so."""
        return self._running.wait(seconds)


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


@dataclass(frozen=True)
class Retention:
    """What of an adapter a fused model has kept, over the next-token distributions of a few texts.

    Attributes:
        cosine: between the change of the log-probabilities that the adapter makes and the one that the fused model
            makes, both from the base; 1 is all of it.
        kl: Kullback-Leibler divergence of the fused model from base and adapter, mean over the tokens, in nats.
        change: the same of the base from base and adapter: what there was to keep.
        same_top: share of the tokens for which fused model and adapter think the same one the likeliest.
        tokens: that were looked at.
    """

    cosine: float
    kl: float
    change: float
    same_top: float
    tokens: int


@dataclass(frozen=True)
class Fused:
    """The last event of `FuseAdapter`.

    Attributes:
        plan: as announced.
        files: of weights; 0 after a dry run, which writes nothing.
        retention: None where it was not measured.
    """

    plan: ConversionPlanned
    files: int
    seconds: float
    retention: Retention | None = None


# ------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class TrainingForecast:
    """What a run will take, before it starts.

    Attributes:
        steps: updates of the weights; `batches` are computed for them, each of `rows` x `length` tokens.
        tokens: that are read in all epochs; `supervised` of them are learnt, `padding` positions hold nothing.
        parameters: of the model; `trainable` of them are trained.
        memory: what takes how many bytes, by name, in words; `peak` is their sum.
        available: bytes of memory that this machine has to give.
        measured: whether a trial step has corrected `memory`.
        seconds: of the whole run, where a trial step has measured the speed; else None.
        longest: most tokens a batch of this run may hold before memory is full; None where even one is too many.
    """

    steps: int
    batches: int
    rows: int
    length: int
    tokens: int
    supervised: float
    padding: int
    parameters: int
    trainable: int
    memory: Mapping[str, int]
    peak: int
    available: int
    measured: bool = False
    seconds: float | None = None
    longest: int | None = None

    @property
    def fits(self) -> bool:
        return self.peak <= self.available


@dataclass(frozen=True)
class TrainingPlanned:
    """The last event of a plan: nothing was trained."""

    config: Mapping[str, Any]
    forecast: TrainingForecast


@dataclass(frozen=True)
class RunStarted:
    """A training run begins, or goes on from `step` of `forecast.steps`; `config` is the resolved one, by section."""

    folder: str
    stage: str
    config: Mapping[str, Any]
    forecast: TrainingForecast
    step: int = 0


@dataclass(frozen=True)
class DataPrepared:
    """One file or folder of rows is tokenised.

    Attributes:
        part: "train" or "valid".
        format: "messages", "sharegpt", "prompt-completion", "alpaca" or "text".
        rows: that were read for this part; `examples` were made of them, of `tokens` in all.
        supervised: sum of the weights of the tokens that are learnt.
        longest: tokens of the longest example, before any was cut.
        truncated: examples that were cut at the largest length.
        left_out: rows of which nothing would be learnt, cut or not.
        duplicates: rows that say the same as one before them, but for case, width and blank space.
        warnings: what a person should look at, a sentence each.
        cached: nothing was tokenised, because that was done before.
    """

    part: Literal["train", "valid"]
    format: str
    rows: int
    examples: int
    tokens: int
    supervised: float
    longest: int = 0
    truncated: int = 0
    left_out: int = 0
    duplicates: int = 0
    warnings: tuple[str, ...] = ()
    cached: bool = False


@dataclass(frozen=True)
class ShownToken:
    """One token of an example: its text is empty where it holds only part of a character, which the next one ends."""

    id: int
    text: str
    weight: float


@dataclass(frozen=True)
class ShownExample:
    """One example as a model will read it; `whole` is how many tokens it had before it was cut."""

    source: str
    tokens: tuple[ShownToken, ...]
    whole: int


@dataclass(frozen=True)
class DataInspected:
    """The last event of a look at rows.

    Attributes:
        data: what was found.
        max_len: tokens at which examples are cut.
        lengths: (up to so many tokens, so many examples), before any was cut.
        filled: share of the positions that hold a token when rows of `max_len` tokens are packed.
        examples: some of them.
    """

    data: DataPrepared
    max_len: int
    lengths: tuple[tuple[int, int], ...]
    filled: float
    examples: tuple[ShownExample, ...]


@dataclass(frozen=True)
class DataReady:
    """What a run learns from.

    Attributes:
        rows, valid_rows: examples to learn from and to judge by.
        tokens, supervised: of one epoch.
        filled: share of the positions of its batches that hold a token.
    """

    rows: int
    valid_rows: int
    tokens: int
    supervised: float
    filled: float


@dataclass(frozen=True)
class Step:
    """One update of the weights.

    Attributes:
        step: counted from 1, of `total`; `epoch` is how many epochs are done, with its fraction.
        loss: mean over the supervised tokens of the whole step, in nats.
        gradient_norm: of all gradients together, before clipping.
        tokens: real tokens of this step, without padding; `supervised` is the sum of their weights.
        tokens_per_second: of late.
        memory, peak: bytes that MLX holds now, and at most since the run began.
        seconds: computed so far, earlier parts of a resumed run included; `remaining` is None while unknown.
        metrics: what the stage tells besides, such as the balance of experts.
        skipped: the update was not made: loss or gradient was not a number.
    """

    step: int
    total: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    supervised: float
    tokens_per_second: float
    memory: int
    peak: int
    seconds: float
    remaining: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True)
class Eval:
    """The whole evaluation set after `step` steps; `best` when the loss was never lower."""

    step: int
    loss: float
    perplexity: float
    tokens: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class Sample:
    """What the model answers to `prompt` after `step` steps, greedily."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete at `path`; `why` is "schedule", "best", "asked", "stopped" or "finished"."""

    step: int
    path: str
    why: str


@dataclass(frozen=True)
class TrainingNotice:
    """Something about a run that a person should know.

    Attributes:
        code: a fixed word, such as "not-a-number" or "loss-spike".
        hint: what to do.
    """

    code: str
    text: str
    hint: str = ""
    step: int = 0


@dataclass(frozen=True)
class TrainingFinished:
    """The last event of a run that came to its end.

    Attributes:
        reason: "done", or "early stop".
        loss: of the last step; `best_loss` on the evaluation set at `best_step`, None without one.
        path: the checkpoint to use: the best one, or the last where nothing was evaluated.
    """

    folder: str
    step: int
    reason: str
    loss: float | None
    best_step: int | None
    best_loss: float | None
    tokens: int
    seconds: float
    path: str


@dataclass(frozen=True)
class ComparedAnswer:
    """One question, what was expected, and what the model said without and with what it was taught."""

    question: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Compared:
    """The last event of a comparison: how many of `questions` were answered exactly as expected, before and after."""

    checkpoint: str
    test: str
    questions: int
    before: int
    after: int
    answers: tuple[ComparedAnswer, ...]


@dataclass(frozen=True)
class TrainingStopped:
    """The last event of a run that was stopped, saved, and can go on with the command line `resume`."""

    folder: str
    step: int
    total: int
    path: str
    resume: str


@dataclass(frozen=True)
class ShownRow:
    """One example as it will be learnt.

    Attributes:
        source: where it was read, such as "train.jsonl:12".
        pieces: the text of each token and how much it counts; 0 is read, and not learnt.
        tokens: of the whole example; `pieces` may be fewer, because it is cut at the largest length.
    """

    source: str
    pieces: tuple[tuple[str, float], ...]
    tokens: int


@dataclass(frozen=True)
class RowsShown:
    """The first examples of what a run would learn from, in the order of the file."""

    rows: tuple[ShownRow, ...]


@dataclass(frozen=True)
class DataExamined:
    """The last event of a look at data; `valid` is None where nothing judges the run."""

    train: DataPrepared
    valid: DataPrepared | None


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
        calibrate: "activations" weighs the errors of "best" with what one pass over a text puts in; "gptq" also lets
            the columns of a matrix make good for each other; "none" reads no text.
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
    calibrate: Literal["none", "activations", "gptq"] = "none"
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
class FuseAdapter:
    """Write a model whose weights are those of another, changed as adapters change them.

    Attributes:
        source, target: folders of models.
        adapters: folders of adapters, each with its weight.
        dtype: "bfloat16", "float16" or "float32" of what is not packed; None keeps the model's.
        requantize: pack what the source has packed in the same format again; otherwise it is unpacked.
        check: compare the new model with base and adapters, and refuse it when too little was kept.
        accept_loss: keep it however little was kept.
        texts: to compare over, more like what the adapter was made for than those that are always read.
        force: replace a model that is at `target`.
        dry_run: only say what would be written.
    """

    source: str
    target: str
    adapters: tuple[tuple[str, float], ...]
    dtype: str | None = None
    requantize: bool = False
    check: bool = True
    accept_loss: bool = False
    texts: tuple[str, ...] = ()
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


@dataclass(frozen=True)
class TrainModel:
    """Fine-tune a model; when cancelled, it saves and ends with `TrainingStopped`.

    Attributes:
        config: a run's TOML file, or None for one that is all in `changes`; with `resume`, the folder of a run.
        changes: `section.key=value`, as `--set` on the command line.
        stage: "sft".
        resume: go on with the run in the folder `config`.
        allow_change: go on although data, model or configuration are not what they were.
        controls: to pause, save, stop, or change the learning rate.
    """

    config: str | None
    changes: tuple[str, ...] = ()
    stage: str = "sft"
    resume: bool = False
    allow_change: bool = False
    controls: TrainingControls = field(default_factory=TrainingControls, compare=False, repr=False)


@dataclass(frozen=True)
class PlanTraining:
    """Say what a run would take, and train nothing: the last event is `TrainingPlanned`.

    Attributes:
        changes: as of `TrainModel`.
        stage: "sft".
    """

    changes: tuple[str, ...]
    stage: str = "sft"


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


@dataclass(frozen=True)
class KnownModel:
    """A published model that a short name stands for, and what it would take here. All numbers are estimates.

    Attributes:
        name: the short name, such as "qwen3:8b-4bit"; `repository` is what it stands for.
        parameters: number of weights, as the name of the model says; `bits` per weight as stored.
        size: bytes to download and on the disk.
        memory: bytes it needs for a text of the usual length.
        fits: "fits", "tight" or "too big" for this machine's memory.
        default: it is the variant that its family and size alone mean.
    """

    name: str
    repository: str
    parameters: int
    bits: float
    size: int
    memory: int
    fits: str
    default: bool = True


class Shelf(Protocol):
    """The models of this machine. Every call may take a while; none needs the thread that owns MLX."""

    def models(self) -> list[ModelEntry]:
        """What is here, by name; a model that cannot be used is an entry that says so."""

    def known(self) -> list[KnownModel]:
        """The table of published models; the network is not asked."""

    def new_folder(self, name: str, preset: str) -> str:
        """Where a model goes that is made from model `name` with a preset of `QuantizeModel`; nothing is there yet."""

    def pull(self, name: str) -> JobHandle:
        """Download a model, in a thread of its own; the last event is `PullFinished`, `JobFailed` or `JobCancelled`."""

    def delete(self, name: str) -> int:
        """Delete a model; returns the bytes that are free now. Raises `QwenError`."""


RunState = Literal["new", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class RunEntry:
    """One training run as an interface lists it.

    Attributes:
        folder: where it is; `name` is the last part of it.
        data: what it learns from, as its configuration says.
        method: "lora", "rslora", "dora", "qlora" or "full".
        step, total: updates made, of those planned; 0 where nothing is known yet.
        train_loss, valid_loss: the latest; `best_loss` was the lowest on the evaluation set, at `best_step`.
        state: "new" has not saved anything yet; "running" is being computed now, by whatever process.
        changed: when it was last written to, seconds since 1970.
        problem: why it cannot be read, in a sentence; None as a rule.
    """

    folder: str
    name: str
    model: str = ""
    data: str = ""
    method: str = ""
    step: int = 0
    total: int = 0
    train_loss: float | None = None
    valid_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    state: RunState = "new"
    changed: float = 0.0
    problem: str | None = None


@dataclass(frozen=True)
class RunCheckpoint:
    """One checkpoint of a run; `adapter` when it is an adapter for the run's base, not a whole model."""

    name: str
    path: str
    step: int
    best: bool
    latest: bool
    adapter: bool


@dataclass(frozen=True)
class RunRecord:
    """All that is kept of a run.

    Attributes:
        config: as resolved, by section.
        events: what happened, without what was computed again after a crash.
        checkpoints: those that can be used, the oldest first.
        base: the folder or name of the model that an adapter of this run belongs to.
    """

    entry: RunEntry
    config: Mapping[str, Any]
    events: tuple[Event, ...]
    checkpoints: tuple[RunCheckpoint, ...]
    base: str


class Workshop(Protocol):
    """The training runs of this machine and what they learn from. Nothing here needs the thread that owns MLX.

    `changes` are `section.key=value`, as of `TrainModel`. But for `problems`, every call may take a while.
    """

    def runs(self) -> list[RunEntry]:
        """All runs that are known here, the latest first; one that cannot be read is an entry that says so."""

    def record(self, folder: str) -> RunRecord:
        """All that is kept of one run. Raises `QwenError`."""

    def delete(self, folder: str) -> int:
        """Delete a run with all it has learnt; returns the bytes that are free now. Raises `QwenError`."""

    def new_folder(self, name: str) -> str:
        """Where a run of this name goes; nothing is there yet."""

    def presets(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Name of a preset -> the whole configuration that it gives: section -> key -> value."""

    def problems(self, changes: Sequence[str]) -> dict[str, str]:
        """What is wrong with a configuration: `section.key` -> a sentence; "" for several keys together."""

    def preview(self, changes: Sequence[str], rows: int) -> JobHandle:
        """Look at the data of a run, in a thread of its own: `RowsShown` with the first `rows` examples, `Progress`,
        `Notice`, and at the end `DataExamined`, `JobFailed` or `JobCancelled`."""
