"""A look at rows as a model will read them, before anything is trained. Its weights are not loaded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from qwen_mlx.errors import ConfigError
from qwen_mlx.events import CancelToken, DataInspected, DataPrepared, Event, ShownExample, ShownToken
from qwen_mlx.text.files import read_object_if_there
from qwen_mlx.text.template import ChatTemplate
from qwen_mlx.text.tokenizer import Tokenizer
from qwen_mlx.training.data.batches import BatchShape, efficiency, plan_epoch
from qwen_mlx.training.data.cache import CachedDataset
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.data.dataset import open_dataset

_SHORTEST = 16  # tokens; the first bar of the histogram


def iter_inspect(config: DataConfig, model: Path, rows: int, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Tokenise rows and say what they became.

    Args:
        model: a folder, of which the tokenizer and the chat template are read.
        rows: how many examples are shown token by token.

    Yields:
        As `open_dataset`, and `DataInspected` at the end.

    Raises:
        As `open_dataset`; TokenizerError, TemplateError: files of the model are damaged.
    """
    tokenizer, template = Tokenizer.from_folder(model), ChatTemplate.from_folder(model)
    dataset, found = yield from _opened(config, tokenizer, template, cancel or CancelToken())
    shape = BatchShape(1, config.max_len)
    plan = plan_epoch(dataset.lengths, 0, 0, shape, packing=True)
    yield DataInspected(
        data=found,
        max_len=config.max_len,
        lengths=tuple(_histogram(dataset.whole_lengths)),
        filled=efficiency(dataset.lengths, plan, shape),
        examples=tuple(_shown(dataset, index, tokenizer) for index in range(min(rows, len(dataset)))),
    )


def longest_context(model: Path) -> int | None:
    """Tokens that a model can read, as its config.json says."""
    config = read_object_if_there(model / "config.json", ConfigError)
    text = config.get("text_config")
    value = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return value if isinstance(value, int) and value > 1 else None


def _opened(
    config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate, cancel: CancelToken
) -> Generator[Event, None, tuple[CachedDataset, DataPrepared]]:
    events = open_dataset(config, tokenizer, template, cancel)
    found = None
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            assert found is not None
            return end.value, found
        if isinstance(event, DataPrepared):
            found = event
        else:
            yield event


def _histogram(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """How many examples have up to 16, 32, 64, ... tokens and more than the bar before."""
    below, limit = 0, _SHORTEST
    while below < len(lengths):
        count = int(np.count_nonzero(lengths <= limit)) - below
        if count or below:
            yield limit, count
        below += count
        limit *= 2


def _shown(dataset: CachedDataset, index: int, tokenizer: Tokenizer) -> ShownExample:
    example = dataset[index]
    detokenizer = tokenizer.detokenizer(skip_special=False)
    texts = [detokenizer.add(number) for number in example.ids.tolist()]
    if rest := detokenizer.finish():
        texts[-1] += rest
    tokens = zip(example.ids.tolist(), texts, example.weights.tolist())
    return ShownExample(
        example.source, tuple(ShownToken(*token) for token in tokens), int(dataset.whole_lengths[index])
    )
