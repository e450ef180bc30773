"""Days, months and units: tables that a tiny model can hold completely."""

from __future__ import annotations

import random

from .tasks import Task, phrases, pick, roughen, split_phrasings

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
DAYS_ZH = "星期一 星期二 星期三 星期四 星期五 星期六 星期日".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()

AFTER_EN = phrases(
    """
    What day is after {d}? | What day comes after {d}? | Which day follows {d}? | What is the day after {d}? |
    If today is {d}, what day is tomorrow? | Today is {d}. What is tomorrow? | The day after {d}? |
    Tell me the day after {d}.
    """
)
BEFORE_EN = phrases(
    """
    What day is before {d}? | What day comes before {d}? | What is the day before {d}? |
    If today is {d}, what day was yesterday? | Today is {d}. What was yesterday? | Which day is right before {d}?
    """
)
AFTER_ZH = phrases(
    """
    {d}之后是星期几？ | {d}的后一天是星期几？ | 今天是{d}，明天是星期几？ | {d}后面是哪天？
    """
)
BEFORE_ZH = phrases(
    """
    {d}之前是星期几？ | {d}的前一天是星期几？ | 今天是{d}，昨天是星期几？ | {d}前面是哪天？
    """
)
LATER_EN = phrases(
    """
    What day is {n} days after {d}? | Today is {d}. What day is it in {n} days? |
    If today is {d}, what day is it in {n} days? | {n} days after {d} is what day? |
    What day comes {n} days after {d}?
    """
)
LATER_ZH = ["{d}过{n}天是星期几？", "今天是{d}，{n}天后是星期几？"]
MONTH_AFTER_EN = phrases(
    """
    What month comes after {m}? | Which month is after {m}? | What month follows {m}? | The month after {m}? |
    What is the next month after {m}?
    """
)
MONTH_BEFORE_EN = phrases(
    """
    What month comes before {m}? | Which month is before {m}? | The month before {m}?
    """
)
MONTH_DAYS_EN = phrases(
    """
    How many days are in {m}? | How many days does {m} have? | Days in {m}? | How many days has {m}? |
    Number of days in {m}? | How long is {m}? | How many days are there in {m}? | how many days in {m}
    """
)
MONTH_DAYS_ZH = phrases(
    """
    {m}有多少天？ | {m}有几天？ | {m}一共多少天？ | {m}是多少天？
    """
)
MONTH_NUMBER_EN = phrases(
    """
    What is the {o} month of the year? | Which month is the {o}? | {o} month of the year? |
    Which month is number {n}? | What is month number {n}? | Name the {o} month.
    """
)
DAY_NUMBER_EN = ["What is the {o} day of the week?", "Which day is the {o} day of the week?"]

UNITS = [
    ("hours", "minutes", 60, "小时", "分钟"),
    ("minutes", "seconds", 60, "分钟", "秒"),
    ("days", "hours", 24, "天", "小时"),
    ("weeks", "days", 7, "周", "天"),
    ("years", "months", 12, "年", "个月"),
    ("m", "cm", 100, "米", "厘米"),
    ("meters", "centimeters", 100, "米", "厘米"),
    ("km", "m", 1000, "千米", "米"),
    ("kilometers", "meters", 1000, "公里", "米"),
    ("kg", "g", 1000, "千克", "克"),
    ("kilograms", "grams", 1000, "公斤", "克"),
    ("cm", "mm", 10, "厘米", "毫米"),
    ("liters", "milliliters", 1000, "升", "毫升"),
    ("dozen", "pieces", 12, "打", "个"),
    ("feet", "inches", 12, "英尺", "英寸"),
    ("tons", "kg", 1000, "吨", "千克"),
    ("GB", "MB", 1024, "GB", "MB"),
    ("meters", "cm", 100, "米", "cm"),
    ("euros", "cents", 100, "欧元", "分"),
    ("dollars", "cents", 100, "美元", "美分"),
    ("centuries", "years", 100, "世纪", "年"),
]
SINGULAR = {
    "hours": "hour",
    "minutes": "minute",
    "days": "day",
    "weeks": "week",
    "years": "year",
    "meters": "meter",
    "kilometers": "kilometer",
    "kilograms": "kilogram",
    "liters": "liter",
    "feet": "foot",
    "tons": "ton",
    "euros": "euro",
    "dollars": "dollar",
    "centuries": "century",
}
UNIT_EN = phrases(
    """
    How many {s} are in {n} {b}? | How many {s} are {n} {b}? | How many {s} in {n} {b}? | Convert {n} {b} to {s}. |
    {n} {b} in {s}? | {n} {b} in {s} | What is {n} {b} in {s}? | How many {s} is {n} {b}? |
    {n} {b} is how many {s}? | {n} {b} to {s} | Please convert {n} {b} into {s}. |
    How many {s} are there in {n} {b}?
    """
)
UNIT_ZH = phrases(
    """
    {n}{b}等于多少{s}？ | {n}{b}是多少{s}？ | {n}{b}有多少{s}？ | 把{n}{b}换算成{s}。 | {n}{b}换算成{s} |
    {n}{b}多少{s}？
    """
)


def ask(rng: random.Random, wordings: list[str], **parts: object) -> str:
    """One wording, filled in and roughened."""
    return roughen(rng, pick(rng, split_phrasings(wordings, False)).format(**parts))


def day_step(rng: random.Random, language: str) -> Task:
    """The day after or before a day, or some days later."""
    index = rng.randrange(7)
    names = DAYS if language == "en" else DAYS_ZH
    kind = rng.choices(("after", "before", "later"), (5, 3, 3))[0]
    if kind == "later":
        steps = rng.randrange(2, 11)
        target = names[(index + steps) % 7]
        path = ", ".join(f"{step} {names[(index + step) % 7]}" for step in range(1, steps + 1))
        question = ask(rng, LATER_EN if language == "en" else LATER_ZH, d=names[index], n=steps)
        answer = (
            f"{steps} days after {names[index]} is {target}."
            if language == "en"
            else f"{names[index]}过{steps}天是{target}。"
        )
        return Task(
            "day", question, path + ".", answer, language, {"expected": target, "start": names[index], "steps": steps}
        )
    step = 1 if kind == "after" else -1
    target = names[(index + step) % 7]
    wordings = {("en", 1): AFTER_EN, ("en", -1): BEFORE_EN, ("zh", 1): AFTER_ZH, ("zh", -1): BEFORE_ZH}[language, step]
    question = ask(rng, wordings, d=names[index])
    if language == "zh":
        return Task(
            "day",
            question,
            f"{names[index]}{'后' if step > 0 else '前'}是{target}。",
            f"{target}。",
            "zh",
            {"expected": target, "start": names[index], "steps": step},
        )
    return Task(
        "day",
        question,
        f"{kind.capitalize()} {names[index]}: {target}.",
        f"{target}.",
        "en",
        {"expected": target, "start": names[index], "steps": step},
    )


def month_fact(rng: random.Random, language: str) -> Task:
    """Length and order of the months."""
    index = rng.randrange(12)
    which = rng.choices(("length", "after", "before", "number", "weekday"), (6, 3, 2, 3, 1))[0]
    if language == "zh":
        if which in ("length", "number", "weekday"):
            days = MONTH_DAYS[index]
            answer = f"{index + 1}月有 {days} 天。" if index != 1 else "2月有 28 天，闰年有 29 天。"
            return Task(
                "month",
                ask(rng, MONTH_DAYS_ZH, m=f"{index + 1}月"),
                f"{index + 1}月：{days}天。",
                answer,
                "zh",
                {"month": index + 1, "expected": str(days)},
            )
        step = 1 if which == "after" else -1
        target = f"{(index + step) % 12 + 1}月"
        question = f"{index + 1}月的{'下' if step > 0 else '上'}一个月是几月？"
        return Task(
            "month",
            question,
            f"{index + 1}月{'后' if step > 0 else '前'}是{target}。",
            f"{target}。",
            "zh",
            {"expected": target},
        )
    name = MONTHS[index]
    if which == "length":
        days = MONTH_DAYS[index]
        answer = f"{name} has {days} days." if index != 1 else "February has 28 days, 29 in a leap year."
        return Task(
            "month",
            ask(rng, MONTH_DAYS_EN, m=name),
            f"{name}: {days}.",
            answer,
            "en",
            {"month": index + 1, "expected": str(days)},
        )
    if which in ("after", "before"):
        target = MONTHS[(index + (1 if which == "after" else -1)) % 12]
        question = ask(rng, MONTH_AFTER_EN if which == "after" else MONTH_BEFORE_EN, m=name)
        return Task(
            "month", question, f"{which.capitalize()} {name}: {target}.", f"{target}.", "en", {"expected": target}
        )
    if which == "weekday":
        day = rng.randrange(7)
        return Task(
            "month",
            ask(rng, DAY_NUMBER_EN, o=ORDINALS[day]),
            f"{ORDINALS[day]}: {DAYS[day]}.",
            f"{DAYS[day]}.",
            "en",
            {"expected": DAYS[day]},
        )
    return Task(
        "month",
        ask(rng, MONTH_NUMBER_EN, o=ORDINALS[index], n=index + 1),
        f"Month {index + 1}: {name}.",
        f"{name}.",
        "en",
        {"expected": name},
    )


def unit_task(
    rng: random.Random, language: str, unit: int | None = None, count: int | None = None, question: str | None = None
) -> Task:
    """A count of a bigger unit in a smaller one. `question` replaces the wording (follow-ups)."""
    unit = rng.randrange(len(UNITS)) if unit is None else unit
    big, small, factor, big_zh, small_zh = UNITS[unit]
    count = (rng.randrange(1, 13) if rng.random() < 0.75 else rng.randrange(13, 31)) if count is None else count
    if factor == 1024:
        count = count % 4 + 1
    total = count * factor
    facts: dict[str, object] = {"unit": unit, "count": count, "factor": factor, "value": total}
    if language == "zh":
        question = question or ask(rng, UNIT_ZH, n=count, b=big_zh, s=small_zh)
        return Task(
            "unit",
            question,
            f"1{big_zh}={factor}{small_zh}；{count}*{factor}={total}。",
            f"{count} {big_zh} = {total} {small_zh}",
            "zh",
            facts,
        )
    name = SINGULAR.get(big, big) if count == 1 else big
    article = "an" if name == "hour" else "a"
    shown = pick(rng, [article, "1", "one"]) if count == 1 and name in SINGULAR.values() else str(count)
    question = question or ask(rng, UNIT_EN, n=shown, b=name, s=small)
    return Task(
        "unit",
        question,
        f"1 {SINGULAR.get(big, big)} = {factor} {small}; {count}*{factor}={total}.",
        f"{count} {name} = {total} {small}",
        "en",
        facts,
    )


def small_fact(rng: random.Random, language: str) -> Task:
    """How many days in a week, months in a year, and so on."""
    facts_en = [
        ("days", "a week", 7),
        ("days", "a year", 365),
        ("days", "a leap year", 366),
        ("months", "a year", 12),
        ("weeks", "a year", 52),
        ("hours", "a day", 24),
        ("minutes", "an hour", 60),
        ("seconds", "a minute", 60),
        ("eggs", "a dozen", 12),
        ("years", "a century", 100),
        ("years", "a decade", 10),
        ("letters", "the English alphabet", 26),
        ("seasons", "a year", 4),
    ]
    facts_zh = [
        ("天", "一周", 7),
        ("天", "一年", 365),
        ("天", "闰年", 366),
        ("个月", "一年", 12),
        ("周", "一年", 52),
        ("小时", "一天", 24),
        ("分钟", "一小时", 60),
        ("秒", "一分钟", 60),
        ("年", "一个世纪", 100),
        ("个季节", "一年", 4),
    ]
    if language == "zh":
        part, whole, count = pick(rng, facts_zh)
        return Task(
            "unit",
            pick(rng, [f"{whole}有多少{part}？", f"{whole}有几{part}？"]),
            f"{whole}：{count}{part}。",
            f"{whole}有 {count} {part}。",
            "zh",
            {"value": count},
        )
    part, whole, count = pick(rng, facts_en)
    question = pick(
        rng,
        [
            f"How many {part} are in {whole}?",
            f"How many {part} in {whole}?",
            f"How many {part} does {whole} have?",
            f"How many {part} are there in {whole}?",
            f"How many {part} has {whole}?",
        ],
    )
    return Task(
        "unit",
        roughen(rng, question),
        f"{whole}: {count}.",
        f"{whole[0].upper()}{whole[1:]} has {count} {part}.",
        "en",
        {"value": count},
    )


def draw(rng: random.Random, language: str) -> Task:
    """Any question about time or units."""
    return rng.choices((day_step, month_fact, unit_task, small_fact), (30, 26, 34, 10))[0](rng, language)
