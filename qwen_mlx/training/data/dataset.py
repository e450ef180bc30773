"""From what a run says about its data to examples on the disk, as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from qwen_mlx.errors import DataError
from qwen_mlx.events import CancelToken, DataPrepared, Event, Notice, Progress
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.text.tokenizer import Tokenizer
from qwen_mlx.training.data.cache import CachedDataset, CacheWriter, cache_folder, open_cache
from qwen_mlx.training.data.config import DataConfig, FormatName
from qwen_mlx.training.data.contents import Remarks, exact_digest, normalised_digest
from qwen_mlx.training.data.encode import Encoder
from qwen_mlx.training.data.files import find_files
from qwen_mlx.training.data.formats import FormatFinder, read_content
from qwen_mlx.training.data.rows import DataFile, RawRow, read_rows

Part = Literal["train", "valid"]
Steps = Generator[Event, None, CachedDataset]

_VERSION = 1  # of everything here that decides what the tokens of a row are
_PIECE = 1 << 22  # bytes that are read between two looks at `cancel`
_STEP = 200  # rows between two events
_NAMED = 5  # rows that a warning names


def open_dataset(config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate, cancel: CancelToken) -> Steps:
    """The examples to learn from. They are tokenised once and then kept in `cache_folder()`.

    Yields:
        `Progress`; a `Notice` for each warning; `DataPrepared`.

    Returns:
        A `TokenDataset`. It is empty if no row has anything to learn.

    Raises:
        NotFound, DataError: files that are not there, or rows that cannot be meant; the text names file and line.
        UsageError: a name that cannot be meant.
        NoSpace: the disk of the cache is full.
        Cancelled: `cancel` was set; nothing is left behind.
    """
    share = config.valid if not isinstance(config.valid, str) else 0.0
    return (
        yield from _open(config, "train", find_files(config.train, config.split), share, tokenizer, template, cancel)
    )


def open_validation(
    config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate, cancel: CancelToken
) -> Generator[Event, None, CachedDataset | None]:
    """The examples to judge by, as `open_dataset`; None where `config.valid` is 0, or where no row can be kept back.

    A share is taken of the rows of `config.train` by what they say, so that equal rows are on one side, and a row stays
    where it is when others are added. It holds one row at least, if there are two that differ.
    """
    if not config.valid:
        return None
    if isinstance(config.valid, str):
        files = find_files(config.valid, config.valid_split)
        return (yield from _open(config, "valid", files, 0.0, tokenizer, template, cancel))
    files = find_files(config.train, config.split)
    dataset = yield from _open(config, "valid", files, config.valid, tokenizer, template, cancel)
    return dataset if len(dataset) else None


def _open(
    config: DataConfig,
    part: Part,
    files: list[DataFile],
    share: float,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    cancel: CancelToken,
) -> Steps:
    encoder = Encoder(config, tokenizer, template)
    fingerprint = yield from _fingerprint(files, cancel)
    key = _digest([_VERSION, fingerprint, encoder.digest, config.format, part if share else "all", share])
    folder = cache_folder() / key
    dataset = open_cache(folder)
    cached = dataset is not None
    if dataset is None:
        survey = yield from _survey(files, config, share, cancel)
        sides = survey.judged if part == "valid" else [not judged for judged in survey.judged]
        wanted = sides if share else [True] * len(sides)
        dataset = yield from _write(folder, files, survey, wanted, encoder, cancel)
    found = DataPrepared(**{**dataset.about["found"], "warnings": tuple(dataset.about["found"]["warnings"])})
    found = replace(found, part=part, cached=cached)
    for warning in found.warnings:
        yield Notice(warning)
    yield found
    return dataset


# ---------------------------------------------------------------------------------------------- what the files are


def _fingerprint(files: list[DataFile], cancel: CancelToken) -> Generator[Event, None, list[list[str]]]:
    """Names and checksums of files."""
    total = sum(file.path.stat().st_size for file in files)
    done = 0
    found = []
    for file in files:
        checksum = hashlib.blake2b(digest_size=16)
        try:
            with file.path.open("rb") as stream:
                while piece := stream.read(_PIECE):
                    cancel.raise_if_cancelled()
                    checksum.update(piece)
                    done += len(piece)
                    yield Progress("read", done, total, "bytes", file.path.name)
        except OSError as problem:
            raise DataError(f"{file.label} cannot be read", found=problem.strerror or str(problem)) from None
        found.append([file.path.name, file.kind, checksum.hexdigest()])
    return found


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


# ------------------------------------------------------------------------------------------------ what the rows say


@dataclass
class _Survey:
    """What one look at all rows has told.

    Attributes:
        judged: for each row, whether it is on the side of the validation set.
        repeated: for each row, whether one before it says the same.
        rows: digest of the exact contents of all rows, in order.
    """

    format: FormatName
    remarks: Remarks
    judged: list[bool] = field(default_factory=list)
    repeated: list[bool] = field(default_factory=list)
    rows: str = ""


def _survey(
    files: list[DataFile], config: DataConfig, share: float, cancel: CancelToken
) -> Generator[Event, None, _Survey]:
    """Look at every row: its format, whether it can be meant, and what it says."""
    name: FormatName | None = None if config.format == "auto" else config.format
    while True:
        finder = FormatFinder()
        seen: set[bytes] = set()
        digests: list[bytes] = []
        repeated: list[bool] = []
        exact = hashlib.blake2b(digest_size=16)
        survey = None
        for row in read_rows(files):
            cancel.raise_if_cancelled()
            if config.format == "auto":
                finder.add(row)
                name = name or finder.best
                if not finder.fits(name):
                    break  # earlier rows were read in a format that this one is not in
            survey = survey or _Survey(name or "text", Remarks())
            content = read_content(row, survey.format, survey.remarks)
            digest = normalised_digest(content)
            repeated.append(digest in seen)
            seen.add(digest)
            digests.append(digest)
            exact.update(exact_digest(content))
            if len(digests) % _STEP == 0:
                yield Progress("look", len(digests), None, "rows")
        else:
            assert survey is not None and name is not None  # `read_rows` refuses files without rows
            survey.repeated = repeated
            survey.judged = _sides(digests, share)
            survey.rows = exact.hexdigest()
            return survey
        name = finder.best


def _sides(digests: list[bytes], share: float) -> list[bool]:
    """Whether each row is on the side of the validation set, by what it says alone."""
    if not share or len(set(digests)) == 1:
        return [False] * len(digests)
    places = [
        int.from_bytes(hashlib.blake2b(digest, digest_size=7, person=b"valid").digest(), "big") for digest in digests
    ]
    limit = share * 2**56
    # Neither side is empty.
    limit = min(max(limit, min(places) + 1), max(places))
    return [place < limit for place in places]


# ------------------------------------------------------------------------------------------------------- tokenising


def _write(
    folder: Path, files: list[DataFile], survey: _Survey, wanted: list[bool], encoder: Encoder, cancel: CancelToken
) -> Steps:
    total = sum(wanted)
    rows = examples = tokens = longest = truncated = duplicates = 0
    supervised = 0.0
    left_out: list[str] = []
    remarks = Remarks()
    yield Progress("tokenise", 0, total, "rows")
    with CacheWriter(folder) as writer:
        for number, row in _again(files, wanted):
            cancel.raise_if_cancelled()
            rows += 1
            duplicates += survey.repeated[number]
            encoded = encoder.encode(read_content(row, survey.format, Remarks()), row.place, remarks)
            learnt = [example for example in encoded if example.is_learnt]
            longest = max([longest, *(example.whole for example in encoded)])
            if not learnt:
                left_out.append(row.source)
            for example in learnt:
                writer.add(example, row.source)
                examples += 1
                tokens += len(example.ids)
                supervised += float(example.weights.sum(dtype="float64"))
                truncated += example.whole > len(example.ids)
            if rows % _STEP == 0:
                yield Progress("tokenise", rows, total, "rows")
        found = DataPrepared(
            part="train",
            format=survey.format,
            rows=rows,
            examples=examples,
            tokens=tokens,
            supervised=supervised,
            longest=longest,
            truncated=truncated,
            left_out=len(left_out),
            duplicates=duplicates,
        )
        warnings = [*_warnings(found, left_out, encoder), *_remarks(survey.remarks), *_remarks(remarks)]
        digest = _digest([survey.rows, encoder.digest, wanted])
        yield Progress("tokenise", rows, total, "rows")
        return writer.finish({"digest": digest, "found": {**asdict(found), "warnings": warnings}})


def _again(files: list[DataFile], wanted: list[bool]) -> Iterator[tuple[int, RawRow]]:
    """The rows that are wanted, with their numbers. Raises `DataError` if there are more or fewer than before."""
    count = 0
    for number, row in enumerate(read_rows(files)):
        count += 1
        if number < len(wanted) and wanted[number]:
            yield number, row
    if count != len(wanted):
        raise DataError(f"{files[0].label} was changed while it was read", hint="Try again.")


def _warnings(found: DataPrepared, left_out: list[str], encoder: Encoder) -> Iterator[str]:
    longest = f"the longest has {found.longest:,} tokens"
    if found.truncated:
        yield f"{found.truncated:,} of {found.examples:,} examples are cut at data.max_len: {longest}"
    if left_out:
        names = ", ".join(left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
        yield f"{len(left_out):,} of {found.rows:,} rows are left out, because nothing in them would be learnt: {names}"
    if found.duplicates:
        yield f"{found.duplicates:,} of {found.rows:,} rows say the same as one before them"
    yield from sorted(encoder.warnings)


def _remarks(remarks: Remarks) -> Iterator[str]:
    for what, count in remarks.counts.items():
        yield f"{what} ({count:,} times)"
