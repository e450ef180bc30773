"""Numbers in English and Chinese words, 0 to 9999."""

from __future__ import annotations

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
CHINESE_DIGITS = "零一二三四五六七八九"


def english(number: int) -> str:
    """27 -> twenty-seven, 305 -> three hundred and five, -4 -> minus four."""
    if number < 0:
        return "minus " + english(-number)
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + ("-" + ONES[number % 10] if number % 10 else "")
    if number < 1000:
        return ONES[number // 100] + " hundred" + (" and " + english(number % 100) if number % 100 else "")
    rest = number % 1000
    joint = " and " if rest < 100 else " "
    return english(number // 1000) + " thousand" + (joint + english(rest) if rest else "")


def chinese(number: int) -> str:
    """27 -> 二十七, 305 -> 三百零五, -4 -> 负四."""
    if number < 0:
        return "负" + chinese(-number)
    text, pending_zero = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit == 0:
            pending_zero = bool(text)
            continue
        text += ("零" if pending_zero else "") + CHINESE_DIGITS[digit] + name
        pending_zero = False
    text = text or "零"
    return text[1:] if text.startswith("一十") else text
