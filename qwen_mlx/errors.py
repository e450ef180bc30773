"""Every error a user can cause or meet, as one small family.

A message says what happened, where, what was expected, what was found, and what to do. Interfaces print
`str(error)` and never a traceback; an exception that is not a `QwenError` is a bug of ours.
"""

from __future__ import annotations


class QwenError(Exception):
    """Something a person can understand and mend.

    Args:
        what: one sentence, without a full stop, that says what is wrong and where.
        expected: what would have been right.
        found: what was there instead.
        hint: what to do now.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        if self.hint is not None:
            text += f". {self.hint}"
        return text


class UsageError(QwenError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class NotFound(QwenError):
    """A model, file or conversation that is not there."""

    exit_code = 3


class NoSpace(QwenError):
    """A disk that is too full for what was asked."""

    exit_code = 4


class NetworkError(QwenError):
    """A hub that cannot be reached, does not answer as one, or does not let us in."""

    exit_code = 5


class CheckpointError(QwenError):
    """A file of a model folder that is damaged, hostile or inconsistent."""

    exit_code = 6


class ConfigError(CheckpointError):
    """A `config.json` that we cannot follow exactly."""


class UnsupportedModel(CheckpointError):
    """A model of another family, or of one we do not compute yet."""


class TokenizerError(CheckpointError):
    """A tokenizer that is missing or damaged."""


class TemplateError(QwenError):
    """A chat template that refuses the conversation, is damaged, or takes too long."""


class ContextFull(QwenError):
    """A prompt longer than what the model or the memory allows."""


class DataError(QwenError):
    """Rows to learn from that cannot be read, or whose meaning is not clear."""


class TrainingError(QwenError):
    """A training run whose numbers are beyond repair; what it had learnt is saved."""


class HistoryError(QwenError):
    """The conversation store cannot be read or written."""


class Cancelled(QwenError):
    """The person asked for it: not a failure."""

    exit_code = 130

    def __init__(self, what: str = "cancelled") -> None:
        super().__init__(what)
