"""Conversations made of tasks: turns, follow-ups, system prompts, the thinking switches, and their text."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from . import app_help, arithmetic, calendar_units, smalltalk, text_tasks
from .tasks import Task, phrases, pick, roughen

EMPTY_THINKING = "<think>\n\n</think>\n\n"
WORKED = frozenset(
    "arithmetic chain compare number unit reverse count_letter length upper lower end_letter sort_letters contains "
    "sort_words sort_numbers count_words".split()
)
"""Kinds whose thinking is work; without thinking it becomes the first line of the answer."""
MODEL_SIZE = ("3.5", 5)
"""Millions of parameters and layers, as the model tells them."""


@dataclass(frozen=True)
class Conversation:
    """Turns of which only the last answer is to be learnt."""

    tasks: tuple[Task, ...]
    system: str | None = None
    switches: tuple[str, ...] = ()
    """What stands after each question: '', ' /think' or ' /no_think'."""
    enable_thinking: bool = True

    @property
    def thinks(self) -> bool:
        """Whether the last answer begins with real thinking."""
        return self.thinks_at(len(self.tasks) - 1)

    def thinks_at(self, turn: int) -> bool:
        """Whether the answer of a turn begins with real thinking: the latest switch so far decides."""
        latest = [switch for switch in self.switches[: turn + 1] if switch]
        return self.enable_thinking and not (latest and latest[-1] == " /no_think")

    def answer(self, turn: int) -> str:
        """What the model says after its thinking. Work that was not thought is shown, or it could not be right."""
        task = self.tasks[turn]
        shown = task.kind in WORKED and not self.thinks_at(turn)
        return f"{task.thinking}\n{task.answer}" if shown else task.answer

    def questions(self) -> list[str]:
        """The user turns, with their switches."""
        return [task.question + switch for task, switch in zip(self.tasks, self.switches, strict=True)]

    def plain_texts(self) -> list[str]:
        """What people and the model write, without control tokens: the corpus of the vocabulary."""
        last = self.tasks[-1]
        return [*self.questions(), last.thinking, last.answer, *([self.system] if self.system else [])]

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages (without the answer to be learnt)."""
        messages = [{"role": "system", "content": self.system}] if self.system is not None else []
        for turn, question in enumerate(self.questions()):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": self.answer(turn)}]
        return messages[:-1]

    def prompt(self) -> str:
        """What the chat template makes of `messages()` (a test holds the two together; this is ten times faster)."""
        turns = [f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in self.messages()]
        return "".join(turns) + "<|im_start|>assistant\n" + ("" if self.enable_thinking else EMPTY_THINKING)

    def target(self) -> str:
        """What the model is to say, the end mark included."""
        answer = self.answer(len(self.tasks) - 1) + "<|im_end|>"
        if not self.enable_thinking:
            return answer
        return (f"<think>\n{self.tasks[-1].thinking}\n</think>\n\n" if self.thinks else EMPTY_THINKING) + answer


PLUS_EN = phrases(
    """
    and plus {b}? | And plus {b}? | plus {b} | plus {b}? | Now add {b}. | add {b} | And {b} more? |
    Add {b} to that. | now add {b} to it | + {b} | +{b} | and +{b}? | what about plus {b}?
    """
)
MINUS_EN = phrases(
    """
    and minus {b}? | And minus {b}? | minus {b} | minus {b}? | Now subtract {b}. | Subtract {b} from that. |
    - {b} | -{b} | take away {b} | and take {b} away? | now minus {b}
    """
)
TIMES_EN = phrases(
    """
    and times {b}? | times {b} | times {b}? | Now multiply by {b}. | Multiply that by {b}. | * {b} |
    multiply it by {b}
    """
)
MORE_ZH = {
    "+": phrases(
        """
    再加{b}呢？ | 再加{b} | 加{b}呢？ | 然后加{b}。 | 再加上{b}是多少？
    """
    ),
    "-": ["再减{b}呢？", "再减{b}", "减{b}呢？", "然后减去{b}。"],
    "*": ["再乘{b}呢？", "乘以{b}呢？", "再乘以{b}"],
}
MORE = {"+": PLUS_EN, "-": MINUS_EN, "*": TIMES_EN}
OTHER_EN = phrases(
    """
    And {a} {op} {b}? | and {a}{op}{b} | What about {a} {op} {b}? | and {a} {op} {b} | now {a} {op} {b} |
    How about {a} {op} {b}?
    """
)
OTHER_ZH = ["那{a}{op}{b}呢？", "{a}{op}{b}呢？"]
HOW_EN = phrases(
    """
    How did you get that? | Why? | Explain. | Show the steps. | How? | Show your work | Explain it step by step. |
    Are you sure? | Show me how.
    """
)
HOW_ZH = phrases(
    """
    怎么算的？ | 为什么？ | 请解释。 | 写出步骤。 | 你确定吗？ | 怎么得到的？
    """
)


def continue_sum(rng: random.Random, task: Task) -> Task | None:
    """Go on with the result, ask for another sum, or ask how it was done."""
    value = task.facts.get("value")
    op = task.facts.get("op")
    if not isinstance(value, int) or op is None:
        return None
    choice = rng.random()
    if choice < 0.2 and op in "+-":
        a, b = int(str(task.facts["a"])), int(str(task.facts["b"]))
        steps = arithmetic.STEPS[str(op)](a, b)[task.language == "zh"]
        questions = HOW_EN if task.language == "en" else HOW_ZH
        thinking = f"{a}{op}{b}."
        return Task(
            "steps",
            roughen(rng, pick(rng, questions)),
            thinking,
            steps[0].upper() + steps[1:],
            task.language,
            {"op": op, "a": a, "b": b},
        )
    if choice < 0.4:
        op = pick(rng, "+-")
        a, b = arithmetic.draw_pair(rng, op, 2)
        question = pick(rng, OTHER_EN if task.language == "en" else OTHER_ZH).format(a=a, b=b, op=op)
        return arithmetic.operation_task(rng, op, a, b, task.language, question=question)
    if not 0 <= value <= 999:
        return None
    op = rng.choices("+-*", (5, 4, 1))[0]
    b = rng.randrange(1, 10) if op == "*" or rng.random() < 0.5 else rng.randrange(1, 100)
    if (op == "*" and value > 99) or arithmetic.pair_held_out(op, value, b):
        return None
    question = pick(rng, MORE[op] if task.language == "en" else MORE_ZH[op]).format(b=b)
    return arithmetic.operation_task(rng, op, value, b, task.language, question=question)


AGAIN_EN = {
    text_tasks.spell: phrases(
        """
    Now spell it. | Spell it. | And how is it spelled? | spell that word
    """
    ),
    text_tasks.reverse: phrases(
        """
    And backwards? | Now reverse it. | Reverse it. | and in reverse?
    """
    ),
    text_tasks.upper: phrases(
        """
                In capitals? | Now in upper case. | Make it uppercase. | And in capital letters?
                """
    ),
    text_tasks.length: phrases(
        """
                How many letters does it have? | How many letters? | How long is it? |
                And how many letters has it?
                """
    ),
}
AGAIN_ZH = {
    text_tasks.spell: ["怎么拼写？", "拼写它。"],
    text_tasks.reverse: ["倒过来呢？", "反过来写。"],
    text_tasks.upper: ["大写呢？", "变成大写。"],
    text_tasks.length: ["有几个字母？", "它有多长？"],
}


def continue_word(rng: random.Random, task: Task) -> Task | None:
    """Another job on the same word."""
    word = task.facts.get("word")
    if not isinstance(word, str) or task.kind not in ("reverse", "spell", "length", "count_letter", "end_letter"):
        return None
    again = AGAIN_EN if task.language == "en" else AGAIN_ZH
    maker = pick(rng, [maker for maker in again if maker.__name__ != task.kind])
    return maker(rng, task.language, word).asking(pick(rng, again[maker]))


def continue_unit(rng: random.Random, task: Task) -> Task | None:
    """The same conversion of another count."""
    unit = task.facts.get("unit")
    if not isinstance(unit, int):
        return None
    count = rng.randrange(2, 20)
    big, _, _, big_zh, _ = calendar_units.UNITS[unit]
    if calendar_units.UNITS[unit][2] == 1024:
        return None
    question = (
        pick(
            rng,
            phrases(
                """
        And {n} {b}? | What about {n} {b}? | and {n} {b} | And {n}? | how about {n} {b}?
        """
            ),
        )
        if task.language == "en"
        else pick(rng, ["那{n}{b}呢？", "{n}{b}呢？"])
    )
    return calendar_units.unit_task(
        rng, task.language, unit, count, question.format(n=count, b=big if task.language == "en" else big_zh)
    )


def continue_any(rng: random.Random, task: Task, mix: Mix) -> Task:
    """A follow-up that needs the turn before it, or thanks."""
    if task.kind in ("command", "meaning") and rng.random() < 0.7:
        return app_help.command_task(rng, task.language, following=True)
    follower = {"arithmetic": continue_sum, "unit": continue_unit}.get(task.kind, continue_word)
    following = follower(rng, task)
    if following is not None:
        return following
    if rng.random() < 0.3:
        return draw_task(rng, task.language, mix)
    topics = {
        name: (thinking, questions, answers)
        for name, thinking, questions, answers in (smalltalk.ENGLISH if task.language == "en" else smalltalk.CHINESE)
    }
    name = pick(rng, ["thanks", "ok", "praise", "blame", "bye"])
    thinking, questions, answers = topics[name]
    return Task("talk", roughen(rng, pick(rng, questions)), thinking, answers[0], task.language, {"topic": name})


@dataclass(frozen=True)
class Mix:
    """How often each kind of question comes, and how conversations are shaped."""

    kinds: tuple[float, ...]
    """Sums, text tasks, time and units, small talk, questions about the app, drills."""
    turns: tuple[float, ...]
    """1, 2, 3, 4, 5, 6, 8 and 11 turns."""
    app: tuple[float, ...]
    """Commands, meanings of commands, facts."""
    thinking_off: float
    """Share of conversations with enable_thinking=false."""


DRILLS = Mix((34, 7, 4, 6, 14, 35), (84, 9, 4, 1.5, 0.6, 0.4, 0.3, 0.2), (66, 4, 30), 0.12)
FOCUS = Mix((38, 9, 4, 7, 38, 4), (80, 11, 4.5, 2, 1, 0.7, 0.5, 0.3), (76, 4, 20), 0.12)
POLISH = Mix((42, 6, 3, 6, 41, 2), (78, 11, 5, 3, 1, 0.8, 0.6, 0.6), (80, 3, 17), 0.12)
WORDS = Mix((34, 18, 5, 8, 33, 2), (78, 11, 5, 3, 1, 0.8, 0.6, 0.6), (82, 3, 15), 0.12)
COMMANDS = Mix((34, 12, 4, 7, 42, 1), (80, 10, 5, 3, 1, 0.5, 0.3, 0.2), (84, 3, 13), 0.12)
EVERYTHING = Mix((37, 15, 6, 9, 31, 2), (78, 11, 5, 3, 1, 0.8, 0.6, 0.6), (74, 4, 22), 0.12)
"""What the vocabulary is learnt from; not one of the training mixes, so that they can change without changing it."""
STAGES = ((0, DRILLS), (14_000, FOCUS), (56_000, POLISH), (87_200, WORDS), (120_000, COMMANDS))
"""From which example on each mix is used. The tables of column arithmetic come first: a network this small finds them
only when they are dense (a page of sums, not one in a conversation); everything else builds on them."""


def mix_of(index: int) -> Mix:
    """The mix of training example `index`."""
    return [mix for first, mix in STAGES if index >= first][-1]


def draw_task(rng: random.Random, language: str, mix: Mix) -> Task:
    """One question of any kind."""
    kind = rng.choices(("sum", "text", "time", "talk", "app", "drill"), mix.kinds)[0]
    if kind == "sum":
        return arithmetic.draw(rng, language)
    if kind == "drill":
        return arithmetic.drill(rng, language)
    if kind == "text":
        return text_tasks.draw(rng, language)
    if kind == "time":
        return calendar_units.draw(rng, language)
    return smalltalk.draw(rng, language, MODEL_SIZE) if kind == "talk" else app_help.draw(rng, language, mix.app)


def draw_turns(rng: random.Random, language: str, mix: Mix) -> list[Task]:
    """One to eleven turns, mostly one; a later turn follows up on the one before it in a good part of the cases."""
    count = rng.choices((1, 2, 3, 4, 5, 6, 8, 11), mix.turns)[0]
    if count > 1 and rng.random() < 0.06:
        told, asked = smalltalk.introduce(rng, language)
        return [told, *(draw_task(rng, language, mix) for _ in range(count - 2)), asked]
    turns = [draw_task(rng, language, mix)]
    while len(turns) < count:
        if rng.random() < 0.08:
            language = "zh" if language == "en" else "en"
        follows = rng.random() < 0.55
        turns.append(continue_any(rng, turns[-1], mix) if follows else draw_task(rng, language, mix))
    return turns


def draw_switches(rng: random.Random, count: int) -> tuple[str, ...]:
    """Most turns carry no switch; the last one carries it most often."""
    if rng.random() > 0.28:
        return ("",) * count
    switches = [""] * count
    for index in range(count):
        if index == count - 1 or rng.random() < 0.4:
            switches[index] = " /no_think" if rng.random() < 0.72 else " /think"
    if count > 1 and rng.random() < 0.3:
        switches[-1] = ""
    return tuple(switches)


SUM_IN_DIGITS = re.compile(r"(?=(?<!\d)(\d{1,4})\s*([+-])\s*(\d{1,4})(?!\d))")


def quotes_held_out_sum(text: str) -> bool:
    """Whether a kept-back sum stands anywhere in the text, also as a step of another calculation."""
    return any(arithmetic.pair_held_out(op, int(a), int(b)) for a, op, b in SUM_IN_DIGITS.findall(text))


def draw(rng: random.Random, mix: Mix) -> Conversation:
    """One training conversation, free of held-out sums."""
    while True:
        conversation = draw_freely(rng, mix)
        if not quotes_held_out_sum(conversation.prompt() + conversation.target()):
            return conversation


def draw_freely(rng: random.Random, mix: Mix) -> Conversation:
    """One conversation; it may touch held-out sums in its steps."""
    turns = draw_turns(rng, "zh" if rng.random() < 0.27 else "en", mix)
    system = pick(rng, smalltalk.SYSTEM_PROMPTS) if rng.random() < 0.12 else None
    switches = draw_switches(rng, len(turns))
    return Conversation(tuple(turns), system, switches, enable_thinking=rng.random() > mix.thinking_off)


def example(seed: int, index: int, mix: Mix | None = None) -> Conversation:
    """Training example `index`, of the mix of its stage or the one given; it can be made without the ones before it."""
    rng = random.Random(f"qwen-mlx demo {seed} {index}")
    return draw(rng, mix or mix_of(index))
