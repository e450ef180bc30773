"""Models as files: getting, checking, converting and judging them, and what is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from qwen_mlx.events import JobHandle


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


@dataclass(frozen=True)
class PullModel:
    """Download a model; `model` is any name that `hub.references` takes for a repository."""

    model: str


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
