"""Greedy scores on held-out questions: unseen sums, unseen words, unseen wishes, and phrasings written apart."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # isort: skip
from tokenizers import Tokenizer  # isort: skip

from . import app_help, arithmetic, calendar_units, smalltalk, text_tasks  # isort: skip
from .blind_wordings import BLIND_WORDINGS_OF_COMMANDS  # isort: skip
from .conversations import Conversation  # isort: skip
from .tasks import Task, is_held_out, split_phrasings  # isort: skip
from .wordings import WORDINGS_OF_A_SUM, WORDINGS_OF_COMMANDS  # isort: skip
from .words import draw_word  # isort: skip

Accept = Callable[[str], bool]

BATCH = 64
MOST_TOKENS = 160


@dataclass(frozen=True)
class Question:
    """A prompt and the check of what the model says."""

    suite: str
    conversation: Conversation
    accept: Accept


@dataclass(frozen=True)
class Outcome:
    """What came of a question."""

    question: Question
    text: str
    right: bool


def answer_of(text: str) -> str:
    """What stands after the thinking, without the end mark."""
    return text.split("</think>")[-1].replace("<|im_end|>", "").strip()


def says_number(text: str, value: int) -> bool:
    """Whether the result, the last number of the answer, is `value`."""
    numbers = re.findall(r"-?\d+", answer_of(text).replace("- ", "-"))
    return bool(numbers) and int(numbers[-1]) == value


def names_command(text: str, line: str) -> bool:
    """Whether the first command the answer quotes is the expected one."""
    quoted = re.findall(r"`(qwen-mlx[^`]*)`", answer_of(text))
    return bool(quoted) and quoted[0] == line


Mode = tuple[str, str, bool]
MODES: tuple[Mode, ...] = (("", "", True), (" /no_think", ", no thinking", True), ("", ", no thinking", False))
"""What is added to the question, what to the name of the suite, and the template's enable_thinking."""


def ask(suite: str, task: Task, accept: Accept, mode: Mode = MODES[0]) -> Question:
    """A conversation of one question."""
    switch, suffix, thinking = mode
    return Question(suite + suffix, Conversation((task,), None, (switch,), thinking), accept)


def is_number(value: int) -> Accept:
    """The last number said is `value`."""
    return lambda text: says_number(text, value)


def is_command(line: str) -> Accept:
    """The first command quoted is `line`."""
    return lambda text: names_command(text, line)


def is_answer(expected: str) -> Accept:
    """Exactly this answer, after the work if that is shown."""
    return lambda text: answer_of(text).split("\n")[-1] == expected


def begins(expected: str) -> Accept:
    """The answer begins so."""
    return lambda text: answer_of(text).startswith(expected)


def switched(empty: bool) -> Accept:
    """The thinking block is empty, or it is not."""
    return lambda text: text.startswith("<think>\n") and text.startswith("<think>\n\n</think>\n\n") == empty


def language_of(index: int) -> str:
    """Every fourth question is Chinese."""
    return "zh" if index % 4 == 3 else "en"


def suites(count: int) -> Iterator[Question]:
    """All questions; `count` is the size of the larger suites."""
    rng = random.Random("qwen-mlx demo evaluation")
    yield from held_out_sums(rng, count)
    yield from other_sums(rng, count // 2)
    yield from commands(rng, count)
    yield from word_jobs(rng, count // 5)
    yield from tables_and_lists(rng, count // 2)
    yield from held_out_talk()
    for index in range(count // 2):
        task = smalltalk.outside_task(rng, language_of(index), held_out_phrasing=True)
        yield ask("out of scope, held-out questions", task, is_answer(task.answer))
    yield from followed_switches(rng, count // 2)
    yield from follow_ups(rng, count // 4)


def held_out_sums(rng: random.Random, count: int) -> Iterator[Question]:
    """Operand pairs that training never sees; a third also in a phrasing it never sees."""
    for op, name in (("+", "2-digit addition"), ("-", "2-digit subtraction")):
        for index in range(2 * count):
            a, b = arithmetic.draw_pair(rng, op, 2, held_out=True)
            task = arithmetic.operation_task(rng, op, a, b, language_of(index), held_out_phrasing=index % 3 == 0)
            mode = MODES[0] if index < count else MODES[1 + index % 2]
            yield ask(f"{name}, held-out pairs", task, is_number(arithmetic.solve(op, a, b)), mode)


def other_sums(rng: random.Random, count: int) -> Iterator[Question]:
    """Sums in words, longer sums, and the example of the documentation."""
    for index in range(count):
        op = "+-"[index % 2]
        a, b = arithmetic.draw_pair(rng, op, 2, held_out=True)
        task = arithmetic.operation_task(rng, op, a, b, language_of(index), spoken=True)
        yield ask("2-digit sums in words, held-out pairs", task, is_number(arithmetic.solve(op, a, b)))
    for index in range(count):
        op = "+-"[index % 2]
        a, b = arithmetic.draw_pair(rng, op, 3, held_out=True)
        task = arithmetic.operation_task(rng, op, a, b, language_of(index))
        yield ask("3-digit sums, held-out pairs", task, is_number(arithmetic.solve(op, a, b)))
    for mode in MODES:
        for wording in WORDINGS_OF_A_SUM:
            task = Task("arithmetic", wording.format(a=27, b=48), "", "")
            yield ask("27 + 48 in other words", task, is_number(75), mode)


def commands(rng: random.Random, count: int) -> Iterator[Question]:
    """Which command? Wishes of the generator that were kept back, and two lists that it rejects."""
    for index in range(count):
        task = app_help.command_task(rng, language_of(index), held_out_phrasing=True)
        yield ask("commands, held-out wishes", task, is_command(str(task.facts["command"])), MODES[index % 3])
    for suite, rows in (
        ("wordings written apart", WORDINGS_OF_COMMANDS),
        ("blind wordings", BLIND_WORDINGS_OF_COMMANDS),
    ):
        for index, (question, name) in enumerate(rows):
            for mode in (MODES[0], MODES[1 + index % 2]):
                task = Task("command", question, "", "")
                yield ask(f"commands, {suite}", task, is_command(f"qwen-mlx {name}".strip()), mode)


def word_jobs(rng: random.Random, count: int) -> Iterator[Question]:
    """Jobs on words that training never sees."""
    for maker in text_tasks.ON_A_WORD:
        for index in range(count):
            task = maker(rng, language_of(index), draw_word(rng, held_out=True))
            yield ask(f"{task.kind.replace('_', ' ')}, held-out words", task, is_answer(task.answer))


def tables_and_lists(rng: random.Random, count: int) -> Iterator[Question]:
    """Dates and units, which training has seen, and lists, which it most likely has not."""
    for index in range(count):
        task = calendar_units.draw(rng, language_of(index))
        yield ask("dates and units, seen facts", task, is_answer(task.answer))
    for maker in (text_tasks.sort_numbers, text_tasks.sort_words):
        for index in range(count // 2):
            task = maker(rng, language_of(index))
            yield ask(f"{task.kind.replace('_', ' ')}, random lists", task, is_answer(task.answer))


def held_out_talk() -> Iterator[Question]:
    """Facts and small talk asked in a way that was never seen."""
    rows = [(topic, topic[3]) for topic in (*app_help.FACTS_EN, *app_help.FACTS_ZH)]
    for (name, _, questions, _), answer in rows:
        for question in split_phrasings(questions, True) if any_held_out(questions) else []:
            yield ask(
                "the app, held-out questions", Task("fact", question, "", "", facts={"topic": name}), begins(answer)
            )
    for name, _, questions, answers in (*smalltalk.ENGLISH, *smalltalk.CHINESE):
        for question in split_phrasings(questions, True) if any_held_out(questions) else []:
            task = Task("talk", question, "", "", facts={"topic": name})
            yield ask("small talk, held-out questions", task, begins(answers[0].split("{")[0]))


def any_held_out(questions: Sequence[str]) -> bool:
    """Whether a topic spared a phrasing."""
    return any(is_held_out("phrasing:" + question) for question in questions)


def followed_switches(rng: random.Random, count: int) -> Iterator[Question]:
    """Does /no_think give an empty block, and /think or nothing a filled one?"""
    for index in range(count):
        a, b = arithmetic.draw_pair(rng, "+", 2, held_out=True)
        task = arithmetic.operation_task(rng, "+", a, b, language_of(index))
        mode = ((" /no_think", "", True), (" /think", "", True), ("", "", True))[index % 3]
        yield ask("thinking switch obeyed", task, switched(empty=index % 3 == 0), mode)


def follow_ups(rng: random.Random, count: int) -> Iterator[Question]:
    """'and plus 5?' after a sum, and a name asked for later."""
    for _ in range(count):
        a, b, c = rng.randrange(10, 60), rng.randrange(10, 40), rng.randrange(2, 10)
        first = arithmetic.operation_task(rng, "+", a, b, "en", question=f"What is {a} + {b}?")
        second = arithmetic.operation_task(rng, "+", a + b, c, "en", question=f"and plus {c}?")
        conversation = Conversation((first, second), None, ("", ""))
        yield Question("follow-up: and plus 5?", conversation, is_number(a + b + c))
    for _ in range(count):
        told, asked = smalltalk.introduce(rng, "en")
        conversation = Conversation((told, arithmetic.basic(rng, "en"), asked), None, ("",) * 3)
        yield Question("remembers a name", conversation, is_answer(asked.answer))


def generate(model: Any, prompts: Sequence[list[int]], end: int) -> list[list[int]]:
    """Greedy continuations of prompts of one length, computed together."""
    cache = model.make_cache()
    logits = model(mx.array(prompts), cache=cache)[:, -1]
    outputs: list[list[int]] = [[] for _ in prompts]
    alive = [True] * len(prompts)
    for _ in range(MOST_TOKENS):
        chosen = mx.argmax(logits, axis=-1)
        for index, token in enumerate(chosen.tolist()):
            if alive[index]:
                outputs[index].append(token)
                alive[index] = token != end
        if not any(alive):
            break
        logits = model(chosen[:, None], cache=cache)[:, -1]
    return outputs


def run(model: Any, tokenizer: Tokenizer, count: int = 300) -> list[Outcome]:
    """Ask everything. `model(ids, cache=...)` and `make_cache()` are all that is needed of the model."""
    end = tokenizer.token_to_id("<|im_end|>")
    by_length: dict[int, list[tuple[Question, list[int]]]] = {}
    for question in suites(count):
        ids = tokenizer.encode(question.conversation.prompt(), add_special_tokens=False).ids
        by_length.setdefault(len(ids), []).append((question, ids))
    outcomes = []
    for group in by_length.values():
        for start in range(0, len(group), BATCH):
            some = group[start : start + BATCH]
            for (question, _), output in zip(some, generate(model, [ids for _, ids in some], end), strict=True):
                text = tokenizer.decode(output, skip_special_tokens=False)
                outcomes.append(Outcome(question, text, question.accept(text)))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """Suite -> (right, asked), in the order of the suites."""
    counts: dict[str, tuple[int, int]] = {}
    for name in dict.fromkeys(question.suite for question in suites(60)):
        asked = [outcome.right for outcome in outcomes if outcome.question.suite == name]
        counts[name] = (sum(asked), len(asked))
    return counts
