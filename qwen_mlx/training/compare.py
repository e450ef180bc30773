"""What a run has taught, on questions that were kept apart: exact answers before and after."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_mlx.adapters import mixed
from qwen_mlx.errors import Cancelled
from qwen_mlx.events import CancelToken, Compared, ComparedAnswer, Event, Progress
from qwen_mlx.training.config import RunConfig
from qwen_mlx.training.model import ADAPTER
from qwen_mlx.training.questions import Question, read_questions
from qwen_mlx.training.run_folder import RunFolder
from qwen_mlx.training.samples import answer
from qwen_mlx.training.trained import open_base, open_trained


def compare(
    folder: RunFolder,
    test: str,
    checkpoint: str = "best",
    limit: int | None = None,
    max_tokens: int = 64,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Let the model answer without and with what a run has taught it, greedily, without thinking.

    An answer is right when it is the expected one, character by character, but for blank space at its ends.

    Args:
        test: a file or folder of conversations; the last answer of each is what is expected.
        limit: conversations to ask at most.

    Yields:
        `Progress`, and `Compared` at the end.

    Raises:
        NotFound, UsageError, CheckpointError: the run, its checkpoint or the questions cannot be used.
        Cancelled: nothing was changed.
    """
    cancel = cancel or CancelToken()
    config: RunConfig = folder.read_config()
    questions = read_questions(test, limit=limit)
    where = folder.checkpoint(checkpoint)
    sides: dict[str, list[str]] = {"before": [], "after": []}
    model = yield from open_trained(config, folder.path, where, cancel)
    full = config.adapter.method == "full"
    for side, found in sides.items():
        if full and side == "after":
            model = yield from open_trained(config, folder.path, where, cancel)
        elif full:
            model = yield from open_base(config, folder.path, cancel)
        weights = {} if side == "before" else {ADAPTER: 1.0}
        for number, question in enumerate(questions):
            if cancel.cancelled:
                raise Cancelled()
            yield Progress(side, number, len(questions), "questions")
            if full:
                found.append(answer(model, question.messages, max_tokens, cancel))
            else:
                with mixed(model.decoder, weights):
                    found.append(answer(model, question.messages, max_tokens, cancel))
    answers = tuple(
        ComparedAnswer(_shown(question), question.expected, before, after)
        for question, before, after in zip(questions, sides["before"], sides["after"])
    )
    yield Compared(
        str(where),
        test,
        len(answers),
        sum(one.before == one.expected for one in answers),
        sum(one.after == one.expected for one in answers),
        answers,
    )


def _shown(question: Question) -> str:
    return str(question.messages[-1]["content"]) if question.messages else ""
