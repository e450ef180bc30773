"""The data of the demo model are right, repeatable, and never show what is kept for evaluation."""

from __future__ import annotations

import functools
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

from demo_model import (  # noqa: E402
    app_help,
    arithmetic,
    blind_wordings,
    calendar_units,
    conversations,
    evaluation,
    tasks,
    wordings,
    words,
)
from demo_model.numerals import chinese, english  # noqa: E402

DEMO = ROOT / "qwen_mlx" / "demo"
COUNT = 2500


@functools.cache
def template() -> Template:
    """The template file, with the options that other programs use."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    return environment.from_string((ROOT / "scripts/demo_model/chat_template.jinja").read_text(encoding="utf-8"))


def render(messages: list[dict[str, Any]], **options: Any) -> str:
    """What the template makes of messages."""
    return template().render(messages=messages, **options)


@pytest.fixture(scope="module")
def drawn() -> list[conversations.Conversation]:
    return [conversations.example(1, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def questions(drawn: list[conversations.Conversation]) -> list[tasks.Task]:
    """Every turn of every conversation."""
    return [task for conversation in drawn for task in conversation.tasks]


def test_examples_are_a_function_of_seed_and_index(drawn: list[conversations.Conversation]) -> None:
    again = [conversations.example(1, index) for index in (0, 17, COUNT - 1)]
    assert again == [drawn[0], drawn[17], drawn[-1]]
    assert conversations.example(2, 17) != drawn[17]


def test_every_kind_of_task_and_every_mode_occurs(drawn: list[conversations.Conversation]) -> None:
    kinds = Counter(conversation.tasks[-1].kind for conversation in drawn)
    assert len(kinds) >= 28
    modes = Counter((conversation.enable_thinking, conversation.thinks) for conversation in drawn)
    assert set(modes) == {(True, True), (True, False), (False, False)}
    assert max(len(conversation.tasks) for conversation in drawn) > 6


def test_held_out_sums_are_in_no_example(drawn: list[conversations.Conversation]) -> None:
    for conversation in drawn:
        text = conversation.prompt() + conversation.target()
        assert not conversations.quotes_held_out_sum(text)
        assert not re.search(r"(?<!\d)(27 ?\+ ?48|48 ?\+ ?27)(?!\d)", text)
    assert conversations.quotes_held_out_sum("What is 48 + 27?")


def test_held_out_words_and_phrasings_are_in_no_question(questions: list[tasks.Task]) -> None:
    kept_words = set(words.common(held_out=True))
    for task in questions:
        if isinstance(word := task.facts.get("word"), str):
            assert word.lower() not in kept_words
    asked = {task.question.rstrip("?.!？。！").lower() for task in questions if task.kind in ("fact", "talk")}
    for _, _, phrasings, _ in app_help.FACTS_EN:
        kept = tasks.split_phrasings(phrasings, held_out=True)
        if len(kept) < len(phrasings):
            assert not asked & {phrasing.rstrip("?.!").lower() for phrasing in kept}


def test_arithmetic_is_right_in_answer_and_in_every_step(questions: list[tasks.Task]) -> None:
    checked = 0
    for task in questions:
        if task.kind not in ("arithmetic", "steps", "chain"):
            continue
        for text in (task.thinking, task.answer):
            text = text.replace("×", "*").replace(" ", "")
            for left, right in re.findall(r"(?<![\d\-+*/÷])(\d[\d+\-*]*)=(-?\d+)", text):
                assert eval(left) == int(right), task
                checked += 1
        if task.kind == "arithmetic":
            a, b, op = (task.facts[key] for key in ("a", "b", "op"))
            assert isinstance(a, int) and isinstance(b, int)
            numbers = [int(number) for number in re.findall(r"(?<!\d)-?\d+", task.answer.split("=")[1])]
            expected = [*divmod(a, b)][: len(numbers)] if op == "/" else [{"+": a + b, "-": a - b, "*": a * b}[str(op)]]
            assert numbers == expected, task
            assert op != "/" or len(numbers) == 2 or a % b == 0
            assert str(numbers[-1]) in task.thinking
    assert checked > 1000


def test_text_tasks_are_right(questions: list[tasks.Task]) -> None:
    by_word = {
        "reverse": lambda word: word[::-1],
        "spell": lambda word: "-".join(word),
        "upper": lambda word: word.upper(),
        "lower": lambda word: word.lower(),
        "sort_letters": lambda word: "".join(sorted(word)),
    }
    for task in questions:
        word = str(task.facts.get("word"))
        if task.kind in by_word:
            assert task.answer == by_word[task.kind](word) and word.lower() in task.question.lower() + word.lower()
        elif task.kind == "count_letter":
            assert re.findall(r"\d+", task.answer) == [str(word.count(str(task.facts["letter"])))]
        elif task.kind == "length":
            assert re.findall(r"\d+", task.answer) == [str(len(word))]
        elif task.kind == "sort_numbers":
            listed = [int(number) for number in re.findall(r"\d+", task.question)]
            assert task.answer == ", ".join(map(str, sorted(listed)))
        elif task.kind == "sort_words":
            listed_words = task.facts["words"]
            assert isinstance(listed_words, list) and task.answer == ", ".join(sorted(listed_words))
            assert all(listed.lower() in task.question.lower() for listed in listed_words)
        elif task.kind == "extreme":
            listed = [int(number) for number in re.findall(r"\d+", task.question)]
            largest = any(name in task.question.lower() for name in ("larg", "bigg", "max", "high", "大"))
            assert int(re.findall(r"\d+", task.answer)[0]) == (max(listed) if largest else min(listed))


def test_comparisons_dates_and_units_are_right(questions: list[tasks.Task]) -> None:
    for task in questions:
        if task.kind == "compare":
            a, b = (int(number) for number in re.findall(r"\d+", task.question))
            if "yes" in task.facts:
                assert task.answer.startswith("Yes") == ((a > b) == task.facts["bigger"])
            else:
                assert int(re.findall(r"\d+", task.answer)[0]) == (max(a, b) if task.facts["bigger"] else min(a, b))
        elif task.kind == "day":
            names = calendar_units.DAYS if task.language == "en" else calendar_units.DAYS_ZH
            start, steps = names.index(str(task.facts["start"])), int(str(task.facts["steps"]))
            assert task.answer.rstrip(".。").endswith(names[(start + steps) % 7])
        elif task.kind == "unit" and "unit" in task.facts:
            count, factor = int(str(task.facts["count"])), int(str(task.facts["factor"]))
            assert str(count * factor) in task.answer and str(count * factor) in task.thinking


def test_commands_are_named_in_their_answers(questions: list[tasks.Task]) -> None:
    seen = Counter()
    for task in questions:
        if task.kind == "command":
            assert evaluation.names_command(task.answer, str(task.facts["command"]))
            seen[task.facts["command"]] += 1
    assert len(seen) == len(app_help.COMMANDS) == 17


def test_no_wish_belongs_to_two_commands() -> None:
    owners: dict[str, str] = {}
    for command in app_help.COMMANDS:
        for wish in {*command.wishes(), *command.wishes_zh()}:
            assert owners.setdefault(wish, command.line) == command.line, wish


@pytest.mark.parametrize(
    ("number", "words", "characters"),
    [(0, "zero", "零"), (14, "fourteen", "十四"), (27, "twenty-seven", "二十七"),
     (305, "three hundred and five", "三百零五"),
     (110, "one hundred and ten", "一百一十"), (-48, "minus forty-eight", "负四十八")],
)  # fmt: skip
def test_numbers_in_words(number: int, words: str, characters: str) -> None:
    assert (english(number), chinese(number)) == (words, characters)


def test_prompts_are_what_the_template_makes(drawn: list[conversations.Conversation]) -> None:
    for conversation in drawn[:500]:
        options = {"enable_thinking": conversation.enable_thinking, "add_generation_prompt": True}
        assert render(conversation.messages(), **options) == conversation.prompt()
        if conversation.enable_thinking:
            said = conversation.target().removesuffix("<|im_end|>")
            messages = [*conversation.messages(), {"role": "assistant", "content": said}]
            assert render(messages) == conversation.prompt() + conversation.target() + "\n"


def test_tokens_round_trip(drawn: list[conversations.Conversation]) -> None:
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    for conversation in drawn[:500]:
        for text in (conversation.prompt(), conversation.target()):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert len(tokenizer.encode("48", add_special_tokens=False).ids) == 2
    assert len(tokenizer.encode("<think></think><|im_end|>", add_special_tokens=False).ids) == 3


def test_evaluation_accepts_right_answers_and_no_others() -> None:
    asked = list(evaluation.suites(40))
    assert len({question.suite for question in asked}) > 20
    for question in asked:
        last = question.conversation.tasks[-1]
        if last.answer and "switch" not in question.suite:
            assert question.accept(f"<think>\n{last.thinking}\n</think>\n\n{last.answer}<|im_end|>"), question
        assert not question.accept("<think>\n\n</think>\n\n???<|im_end|>") or "switch" in question.suite
    for question in asked:
        if "addition" in question.suite or "subtraction" in question.suite:
            last = question.conversation.tasks[-1]
            a, b, op = (last.facts[key] for key in ("a", "b", "op"))
            assert arithmetic.pair_held_out(str(op), int(str(a)), int(str(b)))


def test_wordings_kept_for_evaluation_are_never_asked(questions: list[tasks.Task]) -> None:
    for task in questions:
        assert not wordings.is_kept(task.question), task.question
    for question, _ in (*wordings.WORDINGS_OF_COMMANDS, *blind_wordings.BLIND_WORDINGS_OF_COMMANDS):
        assert wordings.is_kept(question) and wordings.is_kept(question.upper() + "??")
    assert wordings.is_kept("Hi! which command removes a model I no longer use?")
    assert wordings.is_kept("which command removes a model I no longer use please")
    assert not wordings.is_kept("Which command removes a model?")


def test_the_lists_kept_for_evaluation_name_every_command_and_share_nothing() -> None:
    lines = {command.line for command in app_help.COMMANDS}
    apart, blind = wordings.WORDINGS_OF_COMMANDS, blind_wordings.BLIND_WORDINGS_OF_COMMANDS
    for rows in (apart, blind):
        assert {f"qwen-mlx {name}".strip() for _, name in rows} == lines
    texts = [wordings.plain(question) for question, _ in (*apart, *blind)]
    assert len(set(texts)) == len(texts) and len(blind) > 100


@pytest.mark.parametrize(
    ("wish", "third", "doing"),
    [
        ("quantize a model", "quantizes a model", "quantizing a model"),
        ("verify files", "verifies files", "verifying files"),
        ("display it", "displays it", "displaying it"),
        ("have a chat", "has a chat", "having a chat"),
        ("fetch weights", "fetches weights", "fetching weights"),
        ("run DPO", "runs DPO", "running DPO"),
        ("see details", "sees details", "seeing details"),
        ("be sure", "is sure", "being sure"),
        ("chat", "chats", "chatting"),
    ],
)
def test_wishes_are_inflected(wish: str, third: str, doing: str) -> None:
    assert (app_help.third_person(wish), app_help.progressive(wish)) == (third, doing)


def test_every_wish_becomes_a_clean_question_of_its_own_command() -> None:
    rng = random.Random(3)
    for command in app_help.COMMANDS:
        for language in ("en", "zh"):
            asked = {
                app_help.command_task(rng, language, held_out_phrasing=held_out, command=command).question
                for held_out in (False, True)
                for _ in range(60)
            }
            assert len(asked) > 60
            assert not any(mark in question for question in asked for mark in "{}|_")
        kept = {wish for side in app_help.wishes_of(command.line, "en", True) for wish in side}
        assert kept and not kept & {wish for side in app_help.wishes_of(command.line, "en", False) for wish in side}


def test_a_typing_slip_keeps_the_first_letter_and_most_of_the_word() -> None:
    rng = random.Random(4)
    for _ in range(50):
        slipped = app_help.mistyped(rng, "download")
        assert slipped[0] == "d" and 7 <= len(slipped) <= 9 and set(slipped) <= set("download")
