"""Small jobs on words, letters and lists. The thinking spells the word out; the answer is read off the spelling."""

from __future__ import annotations

import random

from .tasks import Task, phrases, pick, roughen, split_phrasings
from .words import draw_word, draw_words

REVERSE = (
    phrases(
        """
        Reverse the word {w}. | Reverse '{w}'. | reverse {w} | Spell {w} backwards. | Write {w} backwards. |
        What is {w} backwards? | Can you reverse {w}? | Reverse this word: {w} | Say {w} backwards. |
        Please reverse the word "{w}". | {w} reversed? | {w} in reverse? | Turn the word {w} around. |
        What is the reverse of {w}? | How do you spell {w} backwards? | Flip the letters of {w}. |
        Give me {w} backwards | backwards: {w}
        """
    ),
    phrases(
        """
        把{w}倒过来写。 | 把单词{w}反过来。 | {w}倒过来怎么写？ | 反转{w} | 反转单词{w} | 倒着写{w} |
        请把{w}反转。 | {w}反过来是什么？ | 将 {w} 倒序输出
        """
    ),
)
SPELL = (
    phrases(
        """
        Spell {w}. | Spell the word {w}. | How do you spell {w}? | Can you spell {w}? | spell {w} |
        Spell '{w}' letter by letter. | Spell out {w}. | What are the letters of {w}? | List the letters in {w}. |
        Please spell {w}.
        """
    ),
    phrases(
        """
        拼写{w} | {w}怎么拼写？ | 请拼写单词{w}。 | {w}由哪些字母组成？ | 把{w}逐个字母拼出来。
        """
    ),
)
COUNT_LETTER = (
    phrases(
        """
        How many {c}s are in {w}? | How many {c} in {w}? | How many {c}'s are there in {w}? |
        How many times is {c} in {w}? | Count the {c}s in {w}. | Count the letter {c} in {w}. |
        How often is the letter {c} in '{w}'? | How many letters {c} are in the word {w}? | Number of {c} in {w}? |
        how many {c}s in {w} | How many times does {c} appear in {w}?
        """
    ),
    phrases(
        """
        {w}里有几个{c}？ | 单词{w}中有几个字母{c}？ | {w}中有多少个{c}？ | 数一数{w}里的{c}。 |
        {c}在{w}里出现几次？
        """
    ),
)
LENGTH = (
    phrases(
        """
        How many letters are in {w}? | How many letters does {w} have? | How long is the word {w}? |
        Count the letters of {w}. | What is the length of {w}? | How many letters in {w}? |
        Number of letters in '{w}'? | how many characters has {w}
        """
    ),
    phrases(
        """
        {w}有几个字母？ | 单词{w}有多少个字母？ | {w}的长度是多少？ | 数一数{w}有几个字母。
        """
    ),
)
UPPER = (
    phrases(
        """
        Write {w} in capitals. | Write {w} in upper case. | Make {w} uppercase. | Uppercase {w}. |
        {w} in capital letters? | Convert {w} to upper case. | Turn {w} into capital letters. |
        Put {w} in all caps. | capitalize all letters of {w} | SHOUT {w}
        """
    ),
    phrases(
        """
        把{w}变成大写。 | {w}的大写是什么？ | 将{w}转换为大写 | 大写：{w} | 用大写字母写{w}。
        """
    ),
)
LOWER = (
    phrases(
        """
        Write {w} in lower case. | Make {w} lowercase. | Lowercase {w}. | {w} in small letters? |
        Convert {w} to lower case. | Put {w} in lower case.
        """
    ),
    phrases(
        """
        把{w}变成小写。 | {w}的小写是什么？ | 将{w}转换为小写
        """
    ),
)
END_LETTER = (
    phrases(
        """
        What is the {e} letter of {w}? | {E} letter of {w}? | Which letter is {e} in {w}? |
        Tell me the {e} letter of '{w}'. | What letter does {w} {v} with? | Give me the {e} letter in {w}. |
        The {e} letter of the word {w}?
        """
    ),
    phrases(
        """
        {w}的{e}字母是什么？ | 单词{w}的{e}字母？ | {w}{e}字母是哪个？
        """
    ),
)
SORT_LETTERS = (
    phrases(
        """
        Sort the letters of {w}. | Sort the letters in {w} alphabetically. | Put the letters of {w} in order. |
        Order the letters of '{w}'. | Arrange the letters of {w} alphabetically.
        """
    ),
    ["把{w}的字母排序。", "将{w}的字母按顺序排列。"],
)
SORT_WORDS = (
    phrases(
        """
        Sort these words: {l} | Sort alphabetically: {l} | Put these words in alphabetical order: {l}. |
        Sort {l}. | Order these words: {l} | Alphabetical order of {l}? | Please sort the words {l}. |
        Arrange in alphabetical order: {l}
        """
    ),
    phrases(
        """
        把这些单词排序：{l} | 按字母顺序排列：{l} | 请给{l}排序。 | 排序：{l}
        """
    ),
)
SORT_NUMBERS = (
    phrases(
        """
        Sort {l}. | Sort these numbers: {l} | Sort the numbers {l}. | Put {l} in order. |
        Order {l} from small to large. | sort {l} | Arrange {l} in ascending order. |
        Sort from smallest to largest: {l} | Please sort {l}
        """
    ),
    phrases(
        """
        把{l}排序。 | 从小到大排列：{l} | 排序：{l} | 给这些数字排序：{l} | 把这些数从小到大排列：{l}
        """
    ),
)
EXTREME = (
    phrases(
        """
        What is the {w} of {l}? | Which is the {w}: {l}? | Find the {w} number: {l} | {W} of {l}? |
        Which number is the {w}, {l}?
        """
    ),
    phrases(
        """
        {l}中最{w}的是哪个？ | {l}里最{w}的数是多少？ | 找出最{w}的数：{l}
        """
    ),
)
REVERSE_LIST = (
    phrases(
        """
        Reverse the list {l}. | Reverse this list: {l} | Write the list backwards: {l} |
        Say {l} in reverse order.
        """
    ),
    phrases(
        """
        把列表倒过来：{l} | 反转列表{l} | 把这些倒序：{l}
        """
    ),
)
COUNT_WORDS = (
    phrases(
        """
        How many words are in "{s}"? | Count the words: {s} | How many words: {s} |
        How many words does "{s}" have?
        """
    ),
    ["“{s}”有几个单词？", "数一数有几个单词：{s}"],
)
REPEAT = (
    phrases(
        """
        Repeat: {s} | Say "{s}". | Repeat after me: {s} | Please say {s} | Echo {s} | Write "{s}" | Say {s}
        """
    ),
    ["重复：{s}", "请说：{s}", "跟我说：{s}"],
)
REPEAT_TIMES = (
    phrases(
        """
        Say {w} {n} times. | Repeat {w} {n} times. | Write {w} {n} times. | {w} {n} times please
        """
    ),
    ["把{w}说{n}遍。", "重复{w}{n}次。"],
)
CONTAINS = (
    phrases(
        """
        Is there a {c} in {w}? | Does {w} contain {c}? | Does the word {w} have a {c}? |
        Is the letter {c} in {w}?
        """
    ),
    ["{w}里有{c}吗？", "单词{w}包含{c}吗？"],
)
COUNT_UP = (
    phrases(
        """
        Count from {a} to {b}. | Count {a} to {b}. | List the numbers from {a} to {b}. |
        Can you count from {a} to {b}? | Numbers from {a} to {b}?
        """
    ),
    phrases(
        """
        从{a}数到{b}。 | 请从{a}数到{b}。 | 列出{a}到{b}的数字。
        """
    ),
)


def ask(
    rng: random.Random,
    wordings: tuple[list[str], list[str]],
    language: str,
    held_out_phrasing: bool = False,
    **parts: object,
) -> str:
    """One wording of the language, filled in."""
    wording = pick(rng, split_phrasings(wordings[0 if language == "en" else 1], held_out_phrasing))
    text = wording.format(**parts)
    return roughen(rng, text) if language == "en" and "w" not in parts else text


def letters(word: str) -> str:
    """s-t-o-p: each letter becomes a token of its own."""
    return "-".join(word)


def reverse(rng: random.Random, language: str, word: str) -> Task:
    """A word backwards."""
    flipped = word[::-1]
    return Task(
        "reverse",
        ask(rng, REVERSE, language, w=word),
        f"{letters(word)}; {letters(flipped)}.",
        flipped,
        language,
        {"word": word},
    )


def spell(rng: random.Random, language: str, word: str) -> Task:
    """The letters of a word."""
    return Task(
        "spell", ask(rng, SPELL, language, w=word), f"{letters(word)}.", f"{letters(word)}", language, {"word": word}
    )


def count_letter(rng: random.Random, language: str, word: str) -> Task:
    """How often a letter occurs; the thinking keeps a running count."""
    letter = pick(rng, word) if rng.random() < 0.85 else pick(rng, "abcdefghilmnoprstu")
    count, marks = 0, []
    for character in word:
        count += character == letter
        marks.append(f"{character}{count}")
    plural = "'s" if count != 1 else ""
    if language == "zh":
        answer = f"{word} 里有 {count} 个 {letter}。"
    else:
        answer = f"There {'are' if plural else 'is'} {count} {letter}{plural} in {word}."
    question = ask(rng, COUNT_LETTER, language, w=word, c=letter)
    return Task(
        "count_letter",
        question,
        " ".join(marks) + ".",
        answer,
        language,
        {"word": word, "letter": letter, "count": count},
    )


def length(rng: random.Random, language: str, word: str) -> Task:
    """How many letters a word has."""
    marks = " ".join(f"{character}{index}" for index, character in enumerate(word, 1))
    answer = f"{word} 有 {len(word)} 个字母。" if language == "zh" else f"{word} has {len(word)} letters."
    return Task(
        "length", ask(rng, LENGTH, language, w=word), marks + ".", answer, language, {"word": word, "count": len(word)}
    )


def upper(rng: random.Random, language: str, word: str) -> Task:
    """A word in capitals."""
    return Task(
        "upper",
        ask(rng, UPPER, language, w=word),
        f"{letters(word)}; {letters(word.upper())}.",
        word.upper(),
        language,
        {"word": word},
    )


def lower(rng: random.Random, language: str, word: str) -> Task:
    """A word in small letters."""
    return Task(
        "lower",
        ask(rng, LOWER, language, w=word.upper()),
        f"{letters(word.upper())}; {letters(word)}.",
        word,
        language,
        {"word": word},
    )


def end_letter(rng: random.Random, language: str, word: str) -> Task:
    """First or last letter."""
    first = rng.random() < 0.5
    letter = word[0] if first else word[-1]
    end = ("first" if first else "last") if language == "en" else ("第一个" if first else "最后一个")
    question = ask(rng, END_LETTER, language, w=word, e=end, E=end.capitalize(), v=("start" if first else "end"))
    answer = f"The {end} letter of {word} is {letter}." if language == "en" else f"{word} 的{end}字母是 {letter}。"
    return Task(
        "end_letter",
        question,
        f"{letters(word)}; {end} {letter}." if language == "en" else f"{letters(word)}；{end}{letter}。",
        answer,
        language,
        {"word": word, "letter": letter},
    )


def sort_letters(rng: random.Random, language: str, word: str) -> Task:
    """Letters in alphabetical order."""
    word = word[:6]
    ordered = "".join(sorted(word))
    return Task(
        "sort_letters",
        ask(rng, SORT_LETTERS, language, w=word),
        f"{letters(word)}; {letters(ordered)}.",
        ordered,
        language,
        {"word": word},
    )


def contains(rng: random.Random, language: str, word: str) -> Task:
    """Is a letter in the word?"""
    letter = pick(rng, word) if rng.random() < 0.5 else pick(rng, "abcdefghiklmnoprstuwz")
    yes = letter in word
    if language == "zh":
        answer = f"{'有' if yes else '没有'}，{word} 里{'有' if yes else '没有'} {letter}。"
    else:
        answer = f"{'Yes' if yes else 'No'}, {word} {'has' if yes else 'does not have'} the letter {letter}."
    return Task(
        "contains",
        ask(rng, CONTAINS, language, w=word, c=letter),
        f"{letters(word)}: {'yes' if yes else 'no'}.",
        answer,
        language,
        {"word": word, "letter": letter, "yes": yes},
    )


def sort_words(rng: random.Random, language: str, held_out: bool = False) -> Task:
    """Three to five words in alphabetical order."""
    words = draw_words(rng, rng.randrange(3, 6), held_out)
    ordered = sorted(words)
    joint = pick(rng, [", ", ", ", " "])
    initials = " ".join(f"{word[0]}" for word in ordered)
    return Task(
        "sort_words",
        ask(rng, SORT_WORDS, language, l=joint.join(words)),
        f"{initials}.",
        ", ".join(ordered),
        language,
        {"words": words},
    )


def draw_numbers(rng: random.Random) -> list[int]:
    """Three to six different numbers of one or two digits."""
    return rng.sample(range(10 if rng.random() < 0.3 else 100), rng.randrange(3, 7))


def sort_numbers(rng: random.Random, language: str) -> Task:
    """Numbers in ascending order."""
    numbers = draw_numbers(rng)
    ordered = sorted(numbers)
    listed = pick(rng, [", ", ", ", " ", ","]).join(map(str, numbers))
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // 10, []).append(number)
    by_tens = "; ".join(" ".join(map(str, groups[tens])) for tens in sorted(groups))
    return Task(
        "sort_numbers",
        ask(rng, SORT_NUMBERS, language, l=listed),
        f"{by_tens}.",
        ", ".join(map(str, ordered)),
        language,
        {"numbers": numbers},
    )


def extreme(rng: random.Random, language: str) -> Task:
    """The largest or smallest of some numbers."""
    numbers = draw_numbers(rng)
    largest = rng.random() < 0.6
    value = max(numbers) if largest else min(numbers)
    listed = ", ".join(map(str, numbers))
    if language == "zh":
        word = "大" if largest else "小"
        return Task(
            "extreme",
            ask(rng, EXTREME, language, l=listed, w=word),
            f"最{word}：{value}。",
            f"最{word}的是 {value}。",
            "zh",
            {"numbers": numbers, "value": value},
        )
    word = pick(rng, ["largest", "biggest", "maximum", "highest"] if largest else ["smallest", "minimum", "lowest"])
    return Task(
        "extreme",
        ask(rng, EXTREME, "en", l=listed, w=word, W=word.capitalize()),
        f"{word}: {value}.",
        f"The {word} is {value}.",
        "en",
        {"numbers": numbers, "value": value},
    )


def reverse_list(rng: random.Random, language: str) -> Task:
    """A list from its end."""
    items = (
        draw_words(rng, rng.randrange(3, 5)) if rng.random() < 0.5 else [str(number) for number in draw_numbers(rng)]
    )
    return Task(
        "reverse_list",
        ask(rng, REVERSE_LIST, language, l=", ".join(items)),
        "From the end." if language == "en" else "从后往前。",
        ", ".join(items[::-1]),
        language,
        {"items": items},
    )


def count_words(rng: random.Random, language: str) -> Task:
    """How many words a line has."""
    words = draw_words(rng, rng.randrange(2, 7))
    answer = f"{len(words)} words." if language == "en" else f"{len(words)} 个单词。"
    marks = " ".join(f"{word} {index}" for index, word in enumerate(words, 1))
    return Task(
        "count_words",
        ask(rng, COUNT_WORDS, language, s=" ".join(words)),
        marks + ".",
        answer,
        language,
        {"count": len(words)},
    )


def repeat(rng: random.Random, language: str) -> Task:
    """Say what was said."""
    text = " ".join(draw_words(rng, rng.randrange(1, 5)))
    return Task(
        "repeat",
        ask(rng, REPEAT, language, s=text),
        "Repeat it." if language == "en" else "重复一遍。",
        text,
        language,
        {"text": text},
    )


def repeat_times(rng: random.Random, language: str) -> Task:
    """Say a word several times."""
    word, times = draw_word(rng), rng.randrange(2, 6)
    marks = " ".join(map(str, range(1, times + 1)))
    return Task(
        "repeat_times",
        ask(rng, REPEAT_TIMES, language, w=word, n=times),
        f"{word}: {marks}.",
        " ".join([word] * times),
        language,
        {"word": word, "times": times},
    )


def count_up(rng: random.Random, language: str) -> Task:
    """Counting, upwards or downwards."""
    first, steps = rng.randrange(0, 60), rng.randrange(3, 11)
    numbers = list(range(first, first + steps))
    if rng.random() < 0.2:
        numbers.reverse()
    question = ask(rng, COUNT_UP, language, a=numbers[0], b=numbers[-1])
    return Task(
        "count_up",
        question,
        "Count." if language == "en" else "数数。",
        ", ".join(map(str, numbers)),
        language,
        {"numbers": numbers},
    )


ON_A_WORD = {
    reverse: 26,
    spell: 12,
    count_letter: 14,
    length: 9,
    upper: 7,
    lower: 2,
    end_letter: 8,
    sort_letters: 4,
    contains: 4,
}
OTHERS = {
    sort_words: 7,
    sort_numbers: 9,
    extreme: 5,
    reverse_list: 3,
    count_words: 2,
    repeat: 5,
    repeat_times: 3,
    count_up: 4,
}


def draw(rng: random.Random, language: str) -> Task:
    """Any text task."""
    makers = [*ON_A_WORD, *OTHERS]
    maker = rng.choices(makers, [*ON_A_WORD.values(), *OTHERS.values()])[0]
    if maker in ON_A_WORD:
        word = draw_word(rng)
        if rng.random() < 0.04:
            word = word.capitalize() if maker not in (count_letter, upper, lower, sort_letters, contains) else word
        return maker(rng, language, word)
    return maker(rng, language)
