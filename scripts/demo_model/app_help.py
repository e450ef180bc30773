"""Questions about qwen-mlx: which command does what, and how the terminal app works."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from .command import MODEL_NAMES, MODELS_EN, MODELS_ZH, Command, split
from .command_frames import (
    AFTER_TROUBLE_EN,
    AFTER_TROUBLE_ZH,
    AND_EN,
    AND_ZH,
    DOES_EN,
    DOING_EN,
    FRAMES_EN,
    FRAMES_ZH,
    KEYWORD_EN,
    MEANING_EN,
    MEANING_ZH,
    NOUN_EN,
    OPENINGS_EN,
    OPENINGS_ZH,
    PLACES_EN,
)
from .command_table import APP, CHAT, CONVERT, DOCTOR, EVAL, PULL, QUANTIZE, SERVE, TRAIN
from .command_table_files import BENCH, DATA, EXPORT, IMPORT, LIST, RM, SHOW, VERIFY
from .facts_en import FACTS_EN
from .facts_zh import FACTS_ZH
from .tasks import Task, is_held_out, pick, roughen, split_phrasings
from .wordings import is_kept

COMMANDS = [
    APP, CHAT, PULL, CONVERT, QUANTIZE, EVAL, TRAIN, SERVE, DOCTOR, BENCH, LIST, SHOW, VERIFY, RM, IMPORT, EXPORT, DATA,
]  # fmt: skip
DOUBLED = frozenset("get run cut put chat slim drop begin set let shut fit spot debug trim scan transfer quit".split())
"""Verbs that double their last letter before -ing."""
SMALL_WORDS = frozenset("a an the my this that to of in for on is are i do some one".split())
"""What people leave out when they type keywords."""


def third_person(wish: str) -> str:
    """'shrink a model' -> 'shrinks a model'."""
    verb, _, rest = wish.partition(" ")
    verb = {"have": "has", "do": "does", "go": "goes", "be": "is"}.get(verb) or add_s(verb)
    return f"{verb} {rest}".strip()


def add_s(verb: str) -> str:
    """A regular verb in the third person."""
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s")


def progressive(wish: str) -> str:
    """'shrink a model' -> 'shrinking a model'."""
    verb, _, rest = wish.partition(" ")
    if verb in DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith("ee") and verb != "be":
        verb = verb[:-1]
    return f"{verb}ing {rest}".strip()


@cache
def keywords() -> dict[str, list[str]]:
    """Command -> the single verbs that mean it and no other."""
    owners: dict[str, set[str]] = {}
    for command in COMMANDS:
        for verb in split(command.verbs):
            if verb.isalpha():
                owners.setdefault(verb, set()).add(command.line)
    vague = {"use", "open", "add", "see", "change", "turn", "drop", "grab", "time", "rate", "host", "make", "go", "cut"}
    return {
        command.line: [
            verb for verb in split(command.verbs) if owners.get(verb) == {command.line} and verb not in vague
        ]
        for command in COMMANDS
    }


@cache
def wishes_of(line: str, language: str, held_out: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The combined and the whole wishes of a command on one side of the split."""
    command = next(command for command in COMMANDS if command.line == line)
    everything = command.wishes() if language == "en" else command.wishes_zh()
    whole = {*split(command.free if language == "en" else command.free_zh)}
    side = split_phrasings(everything, held_out)
    return tuple(wish for wish in side if wish not in whole), tuple(wish for wish in side if wish in whole)


def draw_wish(rng: random.Random, command: Command, language: str, held_out: bool) -> str:
    """One wish: half of them a verb with an object, half a whole one, so that every word comes up often."""
    combined, whole = wishes_of(command.line, language, held_out)
    return pick(rng, whole if whole and (not combined or rng.random() < 0.5) else combined)


@cache
def for_training(table: str) -> tuple[str, ...]:
    """The entries of a table without its held-out ones."""
    return tuple(entry for entry in split(table) if not is_held_out("phrasing:" + entry))


JUMBLED_EN, JUMBLED_ZH = 0.14, 0.06
"""Shares of questions for a command that are a few words in any order."""
TELLING = 0.6
"""A word belongs to a command when at least this share of its use is for that command, all counting alike."""


@cache
def words_of(line: str, language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of what training says about a command: those that belong to it, and all (pairs of Chinese characters)."""
    shares: dict[str, dict[str, float]] = {}
    for command in COMMANDS:
        seen = [word for text in sayings(command, language) for word in words_in(text, language)]
        for word in seen:
            owners = shares.setdefault(word, {})
            owners[command.line] = owners.get(command.line, 0.0) + 1 / len(seen)
    own = [word for word, owners in shares.items() if line in owners]
    return tuple(word for word in own if shares[word][line] >= TELLING * sum(shares[word].values())), tuple(own)


def sayings(command: Command, language: str) -> list[str]:
    """Everything training may say about a command, each verb and each object once."""
    if language == "zh":
        tables = (command.verbs_zh, command.objects_zh, command.free_zh, command.troubles_zh)
    else:
        tables = (command.verbs, command.objects, command.free, command.nouns, command.troubles)
    return [text.replace("_", " ") for table in tables for text in for_training(table)]


def words_in(text: str, language: str) -> list[str]:
    """Lower-case words without the small ones; of Chinese every pair of neighbouring characters."""
    text = text.replace("{m}", " ").lower()
    if language == "zh":
        return [text[i : i + 2] for i in range(len(text) - 1) if not set(text[i : i + 2]) & set(" ，。？!！的了")]
    return [word for word in (part.strip(".,?!:;'\"") for part in text.split()) if word and word not in SMALL_WORDS]


def jumbled(rng: random.Random, command: Command, language: str) -> str:
    """A few words about a job in any order: what a question means stands in its words more than in its form."""
    telling, some = words_of(command.line, language)
    words = [pick(rng, telling) for _ in range(rng.choice((1, 2, 2, 3)))]
    words += [pick(rng, some) for _ in range(rng.choice((0, 1, 1, 2)))]
    if rng.random() < 0.35:
        words.append("{m}")
    words = list(dict.fromkeys(words))
    rng.shuffle(words)
    return ("" if language == "zh" else " ").join(words) + ("？" if language == "zh" else "?") * (rng.random() < 0.3)


def name_models(rng: random.Random, text: str, language: str) -> str:
    """Put a model, of any name, where the text leaves room for one."""
    if "{m}" not in text:
        return text
    names = MODEL_NAMES if rng.random() < 0.25 else MODELS_EN if language == "en" else MODELS_ZH
    return text.replace("{m}", pick(rng, names))


def worded_en(rng: random.Random, command: Command, held_out: bool) -> str:
    """An English question for a job, in one of many forms; a held-out one is always built on a wish."""
    if not held_out and rng.random() < JUMBLED_EN:
        return name_models(rng, jumbled(rng, command, "en"), "en")
    form = rng.random() * (0.72 if held_out else 1.0)
    wish = name_models(rng, draw_wish(rng, command, "en", held_out), "en")
    if form < 0.46:
        place = f" {pick(rng, PLACES_EN)}" if rng.random() < 0.08 else ""
        question = pick(rng, FRAMES_EN).format(w=wish + place)
    elif form < 0.60:
        question = pick(rng, DOES_EN).format(ws=third_person(wish))
    elif form < 0.72:
        question = pick(rng, DOING_EN).format(wing=progressive(wish))
    elif form < 0.84:
        question = pick(rng, NOUN_EN).format(n=pick(rng, for_training(command.nouns)))
    elif form < 0.96 or not keywords()[command.line]:
        question = pick(rng, for_training(command.troubles))
        if rng.random() < 0.4:
            question += f" {pick(rng, AFTER_TROUBLE_EN)}"
    else:
        question = pick(rng, KEYWORD_EN).format(k=pick(rng, keywords()[command.line]))
    question = name_models(rng, question, "en")
    if rng.random() < 0.08:
        question = f"{pick(rng, OPENINGS_EN)} {question}"
    return question


def worded_zh(rng: random.Random, command: Command, held_out: bool) -> str:
    """A Chinese question for a job."""
    if not held_out and rng.random() < JUMBLED_ZH:
        return name_models(rng, jumbled(rng, command, "zh"), "zh")
    if not held_out and rng.random() < 0.2:
        question = pick(rng, for_training(command.troubles_zh))
        if rng.random() < 0.4:
            question += pick(rng, AFTER_TROUBLE_ZH)
    else:
        question = pick(rng, FRAMES_ZH).format(w=draw_wish(rng, command, "zh", held_out))
    if rng.random() < 0.06:
        question = pick(rng, OPENINGS_ZH) + question
    return name_models(rng, question, "zh")


def scribble(rng: random.Random, question: str) -> str:
    """Type carelessly now and then: leave out the small words, or slip on a letter."""
    if rng.random() < 0.06:
        kept = [word for word in question.split() if word.lower() not in SMALL_WORDS]
        question = " ".join(kept) if len(kept) > 1 else question
    if rng.random() < 0.04:
        words = question.split()
        place = rng.randrange(len(words))
        if len(words[place]) > 4 and words[place].isalpha() and words[place].isascii():
            words[place] = mistyped(rng, words[place])
        question = " ".join(words)
    return question


def mistyped(rng: random.Random, word: str) -> str:
    """A word with two letters swapped, one left out or one doubled; the first letter stays."""
    place = rng.randrange(1, len(word) - 1)
    middle = (word[place + 1] + word[place], word[place + 1], word[place] * 2 + word[place + 1])[rng.randrange(3)]
    return word[:place] + middle + word[place + 2 :]


def command_answer(command: Command, language: str) -> tuple[str, str]:
    """Thinking and answer of 'which command'."""
    line = command.line
    name = "app" if line == "qwen-mlx" else line.removeprefix("qwen-mlx ")
    if language == "zh":
        extra = "（或源代码目录里的 `scripts/chat`）" if name == "app" else ""
        return f"命令是{name}。", f"用 `{line}`{extra}：{command.does_zh}。"
    extra = " (or `scripts/chat` in the source folder)" if name == "app" else ""
    return f"The command is {name}.", f"Use `{line}`{extra}: {command.does}."


def command_question(
    rng: random.Random, command: Command, language: str, held_out_phrasing: bool, following: bool
) -> str:
    """One way of asking for a command."""
    if following:
        wish = name_models(rng, draw_wish(rng, command, language, held_out_phrasing), language)
        question = pick(rng, AND_EN if language == "en" else AND_ZH).format(w=wish)
    else:
        question = (worded_en if language == "en" else worded_zh)(rng, command, held_out_phrasing)
    question = " ".join(question.split())
    question = roughen(rng, question if held_out_phrasing else scribble(rng, question))
    if language == "en" and rng.random() < 0.5:
        question = question[0].upper() + question[1:]
    return question


def command_task(
    rng: random.Random,
    language: str,
    held_out_phrasing: bool = False,
    following: bool = False,
    command: Command | None = None,
) -> Task:
    """Which command does what the user wants? A held-out question has a wish that training never uses."""
    command = command or pick(rng, COMMANDS)
    while True:
        question = command_question(rng, command, language, held_out_phrasing, following)
        if not is_kept(question):
            break
    thinking, answer = command_answer(command, language)
    return Task("command", question, thinking, answer, language, {"command": command.line})


def meaning_task(rng: random.Random, language: str) -> Task:
    """What does this command do?"""
    command = pick(rng, COMMANDS[1:])
    line = (
        command.line
        if rng.random() < 0.8
        else command.line.removeprefix("qwen-mlx ") + ("" if language == "zh" else " in qwen-mlx")
    )
    question = pick(rng, MEANING_EN if language == "en" else MEANING_ZH).format(c=line)
    if language == "zh":
        return Task(
            "meaning",
            question,
            f"解释命令{command.line.removeprefix('qwen-mlx ')}。",
            f"`{command.line}`：{command.does_zh}。",
            "zh",
            {"command": command.line},
        )
    return Task(
        "meaning",
        roughen(rng, question),
        f"Explain {command.line.removeprefix('qwen-mlx ')}.",
        f"`{command.line}`: {command.does}.",
        "en",
        {"command": command.line},
    )


def fact_task(rng: random.Random, language: str, held_out_phrasing: bool = False) -> Task:
    """How the app works and what it is."""
    topic, thinking, questions, answer = pick(rng, FACTS_EN if language == "en" else FACTS_ZH)
    question = roughen(rng, pick(rng, split_phrasings(questions, held_out_phrasing)))
    return Task("fact", question, thinking, answer, language, {"topic": topic, "answer": answer})


def draw(rng: random.Random, language: str, weights: Sequence[float]) -> Task:
    """Any question about qwen-mlx: a command, the meaning of one, or a fact, with these weights."""
    return rng.choices((command_task, meaning_task, fact_task), weights)[0](rng, language)
