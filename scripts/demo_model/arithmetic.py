"""Arithmetic questions whose thinking goes digit by digit, the only way a tiny model gets them right."""

from __future__ import annotations

import random

from .numerals import chinese, english
from .tasks import Task, is_held_out, phrases, pick, roughen, split_phrasings

Step = tuple[str, str]  # English and Chinese wording of one line of thinking

ADD_EN = phrases(
    """
    What is {a} + {b}? | What's {a} + {b}? | what is {a}+{b} | whats {a} + {b} | {a} + {b} | {a}+{b} |
    {a} + {b} = ? | {a}+{b}= | {a} + {b} = | {a}+{b}=? | {a}+{b}? | {a} + {b}? | Calculate {a} + {b}. |
    Compute {a} + {b}. | Compute {a}+{b} | Add {a} and {b}. | Add {b} to {a}. | Add {a} to {b} |
    Please add {a} and {b}. | Can you add {a} and {b}? | Sum {a} and {b}. | What is the sum of {a} and {b}? |
    Sum of {a} and {b}? | How much is {a} + {b}? | How much is {a} plus {b}? | What is {a} plus {b}? |
    {a} plus {b} | {a} plus {b}? | What's {a} plus {b}? | {a} and {b} together make what? | Work out {a} + {b}. |
    Solve {a} + {b}. | Solve: {a} + {b} | Evaluate {a} + {b}. | Give me {a} + {b}. | Tell me {a} + {b}. |
    What does {a} + {b} equal? | What does {a} plus {b} make? | {a} + {b} equals what? |
    Can you work out {a} + {b}? | Find the sum of {a} and {b}. | What do you get if you add {a} and {b}? |
    I need {a} plus {b}. | Total of {a} and {b}? | Help me add {a} and {b}. |
    I have {a} apples and get {b} more. How many apples do I have? |
    There are {a} books and {b} pens. How many things are there? |
    Tom has {a} coins and finds {b} coins. How many coins has Tom? |
    A bus has {a} people. {b} more get on. How many people are on it? | Math question: {a} + {b} |
    Quick: {a} + {b}? | {a} added to {b}? | Question: what is {a} + {b}? | Do you know {a} + {b}? |
    Could you tell me {a} + {b}? | Let me know what {a} + {b} is. | Result of {a} + {b}? | {a} with {b} added? |
    Increase {a} by {b}.
    """
)
ADD_ZH = phrases(
    """
    {a}加{b}等于多少？ | {a}+{b}等于多少？ | {a}+{b}等于几？ | {a}加{b}是多少？ | {a}加{b} | {a}+{b}是多少？ |
    计算{a}+{b} | 计算{a}加{b}。 | 请计算{a}+{b}。 | 请问{a}加{b}等于多少？ | {a}和{b}的和是多少？ |
    求{a}与{b}的和。 | {a}加上{b}等于多少？ | {a}加上{b}是几？ | 算一下{a}+{b} | 帮我算{a}加{b}。 |
    帮我算一下{a} + {b} | {a} + {b} 等于多少 | {a}+{b}=多少？ | 我有{a}个苹果，又买了{b}个，一共有多少个？ |
    把{a}和{b}加起来。 | {a}加{b}得多少？ | 你知道{a}+{b}等于多少吗？ | 问一下，{a}+{b}是多少？
    """
)
SUB_EN = phrases(
    """
    What is {a} - {b}? | What's {a} - {b}? | what is {a}-{b} | whats {a} - {b} | {a} - {b} | {a}-{b} |
    {a} - {b} = ? | {a}-{b}= | {a} - {b} = | {a}-{b}=? | {a}-{b}? | {a} - {b}? | Calculate {a} - {b}. |
    Compute {a} - {b}. | Subtract {b} from {a}. | Take {b} from {a}. | Take {b} away from {a}. |
    What is {a} minus {b}? | {a} minus {b} | {a} minus {b}? | What's {a} minus {b}? | How much is {a} - {b}? |
    How much is {a} minus {b}? | What is the difference of {a} and {b}? | Difference between {a} and {b}? |
    Work out {a} - {b}. | Solve {a} - {b}. | Solve: {a} - {b} | Evaluate {a} - {b}. | Give me {a} - {b}. |
    Tell me {a} - {b}. | What does {a} - {b} equal? | {a} - {b} equals what? | Can you subtract {b} from {a}? |
    Please subtract {b} from {a}. | {a} less {b}? | What is {b} less than {a}? |
    I have {a} apples and eat {b}. How many are left? |
    There were {a} birds and {b} flew away. How many are left? |
    A bus has {a} people and {b} get off. How many stay? |
    Tom had {a} coins and lost {b}. How many coins has he now? | What is left if you take {b} from {a}? |
    Math question: {a} - {b} | Quick: {a} - {b}? | Do you know {a} - {b}? | Decrease {a} by {b}. |
    Could you tell me {a} - {b}? | Result of {a} - {b}? | I need {a} minus {b}. | Help me subtract {b} from {a}.
    """
)
SUB_ZH = phrases(
    """
    {a}减{b}等于多少？ | {a}-{b}等于多少？ | {a}-{b}等于几？ | {a}减{b}是多少？ | {a}减{b} | {a}-{b}是多少？ |
    计算{a}-{b} | 请计算{a}-{b}。 | 请问{a}减{b}等于多少？ | {a}减去{b}等于多少？ | {a}减去{b}是几？ |
    求{a}与{b}的差。 | {a}和{b}的差是多少？ | 算一下{a}-{b} | 帮我算{a}减{b}。 | {a} - {b} 等于多少 |
    {a}-{b}=多少？ | 我有{a}个苹果，吃了{b}个，还剩多少个？ | 从{a}里减去{b}。 | {a}减{b}得多少？ |
    你知道{a}-{b}等于多少吗？
    """
)
MUL_EN = phrases(
    """
    What is {a} * {b}? | What is {a} x {b}? | What's {a} times {b}? | What is {a} times {b}? | {a} times {b} |
    {a}*{b} | {a} * {b} | {a} x {b} | {a}x{b} | {a} × {b} | {a}*{b}=? | {a} * {b} = | Multiply {a} by {b}. |
    Multiply {a} and {b}. | Calculate {a} * {b}. | Compute {a} times {b}. | What is the product of {a} and {b}? |
    How much is {a} times {b}? | How much is {a} * {b}? | Solve {a} * {b}. | {a} multiplied by {b}? |
    {a} boxes with {b} pens each. How many pens? | Product of {a} and {b}? | Give me {a} times {b}. |
    Work out {a} x {b}.
    """
)
MUL_ZH = phrases(
    """
    {a}乘{b}等于多少？ | {a}乘以{b}等于多少？ | {a}×{b}等于多少？ | {a}*{b}等于几？ | {a}乘{b}是多少？ |
    {a}乘{b} | 计算{a}×{b} | {a}和{b}的积是多少？ | 算一下{a}乘{b} | 请计算{a}*{b}。 | {a}×{b}=？
    """
)
DIV_EN = phrases(
    """
    What is {a} / {b}? | What is {a} divided by {b}? | {a} / {b} | {a}/{b} | {a} divided by {b} | {a} ÷ {b} |
    Divide {a} by {b}. | Calculate {a} / {b}. | How much is {a} / {b}? | What's {a} divided by {b}? | {a}/{b}=? |
    Share {a} apples among {b} children. How many each? | Solve {a} / {b}.
    """
)
DIV_ZH = phrases(
    """
    {a}除以{b}等于多少？ | {a}÷{b}等于多少？ | {a}/{b}等于几？ | {a}除以{b}是多少？ | {a}除以{b} | 计算{a}÷{b} |
    算一下{a}除以{b}
    """
)
MORE_EN = phrases(
    """
    Which is {w}, {a} or {b}? | Which number is {w}: {a} or {b}? | What is {w}, {a} or {b}? |
    {a} or {b}, which is {w}? | Is {a} or {b} {w}? | Tell me which is {w}, {a} or {b}. |
    Of {a} and {b}, which is {w}? | Compare {a} and {b}: which is {w}?
    """
)
MORE_ZH = phrases(
    """
    {a}和{b}哪个{w}？ | {a}和{b}，哪个更{w}？ | {a}与{b}哪一个{w}？ | 比较{a}和{b}，哪个{w}？ |
    哪个{w}，{a}还是{b}？
    """
)
YESNO_EN = phrases(
    """
    Is {a} {w} than {b}? | Is {a} {w} than {b} | Do you think {a} is {w} than {b}?
    """
)

PHRASINGS = {"+": (ADD_EN, ADD_ZH), "-": (SUB_EN, SUB_ZH), "*": (MUL_EN, MUL_ZH), "/": (DIV_EN, DIV_ZH)}
SIGNS = set("+-*/x×÷=")
"""Characters of wordings that make no sense around number words."""


def pair_key(op: str, a: int, b: int) -> str:
    """The identity of a sum for the split; a + b and b + a are one, and so are a - b and b - a (same work)."""
    a, b = sorted((a, b))
    return f"{a}{op}{b}"


def pair_held_out(op: str, a: int, b: int) -> bool:
    """Whether training must never see this sum. 27 + 48 is the example of the documentation.

    Column arithmetic is made of sums up to 19 with one digit; those are the tables everyone must learn.
    """
    in_tables = max(a, b) <= 19 and min(a, b) <= 9
    key = pair_key(op, a, b)
    return key == "27+48" or (op in "+-" and not in_tables and is_held_out("pair:" + key))


def add_steps(a: int, b: int) -> Step:
    """Column addition from the ones up: 7+8=15, write 5 carry 1; 2+4+1=7."""
    en, zh, carry = [], [], 0
    columns = max(len(str(a)), len(str(b)))
    for column in range(columns):
        x, y = a // 10**column % 10, b // 10**column % 10
        total = x + y + carry
        line = f"{x}+{y}" + ("+1" if carry else "") + f"={total}"
        carry = int(total > 9)
        more = carry and column < columns - 1
        en.append(line + (f", write {total % 10} carry 1" if more else ""))
        zh.append(line + (f"，写{total % 10}进1" if more else ""))
    return "; ".join(en) + f"; so {a + b}.", "；".join(zh) + f"；得{a + b}。"


def subtract_steps(a: int, b: int) -> Step:
    """Column subtraction from the ones up: 13-8=5 borrow 1; 7-1-2=4. A negative result is turned round first."""
    if a < b:
        en, zh = subtract_steps(b, a)
        return f"{a}<{b}, so -({b}-{a}): {en[:-1]}, so -{b - a}.", f"{a}<{b}，所以-({b}-{a})：{zh[:-1]}，得-{b - a}。"
    english_lines, chinese_lines, borrow = [], [], 0
    for column in range(len(str(a))):
        x, y = a // 10**column % 10, b // 10**column % 10
        rest = x - borrow - y
        line = f"{x + 10 * (rest < 0)}" + ("-1" if borrow else "") + f"-{y}={rest % 10}"
        borrow = int(rest < 0)
        english_lines.append(line + (" borrow 1" if borrow else ""))
        chinese_lines.append(line + ("借1" if borrow else ""))
    return "; ".join(english_lines) + f"; so {a - b}.", "；".join(chinese_lines) + f"；得{a - b}。"


def multiply_steps(a: int, b: int) -> Step:
    """Up to two digits times one digit: split the tens off."""
    if a < 10 and b > 9:
        a, b = b, a
    if a < 10 or a % 10 == 0 or b > 9:
        return f"so {a * b}.", f"得{a * b}。"
    tens, ones = a // 10 * 10, a % 10
    line = f"{tens}*{b}={tens * b}; {ones}*{b}={ones * b}; {tens * b}+{ones * b}={a * b}"
    return line + f"; so {a * b}.", line.replace("; ", "；") + f"；得{a * b}。"


def divide_steps(a: int, b: int) -> Step:
    """Division by looking the product up, with a remainder if there is one."""
    whole, rest = divmod(a, b)
    line = f"{b}*{whole}={b * whole}" + (f"; {a}-{b * whole}={rest}" if rest else "")
    result = f"{whole}" + (f" remainder {rest}" if rest else "")
    result_zh = f"{whole}" + (f"余{rest}" if rest else "")
    return f"{line}; so {result}.", f"{line.replace('; ', '；')}；得{result_zh}。"


STEPS = {"+": add_steps, "-": subtract_steps, "*": multiply_steps, "/": divide_steps}


def solve(op: str, a: int, b: int) -> int:
    """The value (the quotient for a division)."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]


def operand_text(rng: random.Random, number: int, language: str, spoken: bool) -> str:
    """Digits, or the number in words."""
    if not spoken:
        return str(number)
    return english(number) if language == "en" else chinese(number)


def operation_task(
    rng: random.Random,
    op: str,
    a: int,
    b: int,
    language: str,
    question: str | None = None,
    spoken: bool = False,
    held_out_phrasing: bool = False,
) -> Task:
    """A question about one operation. `question` replaces the wording (follow-ups)."""
    english_steps, chinese_steps = STEPS[op](a, b)
    value = solve(op, a, b)
    rest = a % b if op == "/" else 0
    if question is None:
        wordings = split_phrasings(PHRASINGS[op][0 if language == "en" else 1], held_out_phrasing)
        if spoken:
            wordings = [wording for wording in wordings if not SIGNS & set(wording)]
        wording = pick(rng, wordings)
        question = wording.format(a=operand_text(rng, a, language, spoken), b=operand_text(rng, b, language, spoken))
        question = roughen(rng, question)
    sign = {"*": "×", "/": "÷"}.get(op, op)
    if language == "en":
        named = f"{english(a)}={a}, {english(b)}={b}. " if spoken else ""
        thinking = f"{named}{a}{op}{b}: {english_steps}"
        result = f"{value}" + (f" remainder {rest}" if rest else "")
        answer = f"{a} {sign} {b} = {result}"
    else:
        named = f"{chinese(a)}={a}，{chinese(b)}={b}。" if spoken else ""
        thinking = f"{named}{a}{op}{b}：{chinese_steps}"
        answer = f"{a} {sign} {b} = {value}" + (f" 余 {rest}" if rest else "")
    facts: dict[str, object] = {"op": op, "a": a, "b": b, "value": value}
    return Task("arithmetic", question, thinking, answer, language, facts)


def draw_pair(rng: random.Random, op: str, digits: int, held_out: bool = False) -> tuple[int, int]:
    """Operands of one side of the split. Half the subtractions keep the larger number first."""
    while True:
        low = 10 ** (digits - 1) if digits > 1 else 0
        a = rng.randrange(low, 10**digits)
        b = rng.randrange(low if held_out or rng.random() < 0.7 else 0, 10**digits)
        if rng.random() < 0.1 and not held_out:
            a, b = b, a
        if op == "-" and a < b and rng.random() < 0.8:
            a, b = b, a
        if pair_held_out(op, a, b) == held_out:
            return a, b


def basic(rng: random.Random, language: str) -> Task:
    """One of the four operations, mostly two-digit sums and differences."""
    op = rng.choices("+-*/", (40, 36, 16, 8))[0]
    if op in "+-":
        a, b = draw_pair(rng, op, rng.choices((1, 2, 3), (12, 68, 20))[0])
    elif op == "*":
        a, b = rng.randrange(0, 13), rng.randrange(0, 13)
        if rng.random() < 0.5:
            a, b = rng.randrange(11, 100), rng.randrange(2, 10)
            if rng.random() < 0.3:
                a, b = b, a
    else:
        b = rng.randrange(2, 11)
        a = b * rng.randrange(1, 13) + (rng.randrange(b) if rng.random() < 0.25 else 0)
    spoken = rng.random() < 0.18
    return operation_task(rng, op, a, b, language, spoken=spoken)


def compare(rng: random.Random, language: str) -> Task:
    """Which of two numbers is bigger or smaller."""
    digits = rng.choices((1, 2, 3), (2, 6, 3))[0]
    a, b = rng.randrange(10**digits), rng.randrange(10**digits)
    if rng.random() < 0.25:
        b = int(str(a)[::-1])
    if a == b:
        b = a + 1
    bigger = rng.random() < 0.6
    winner = max(a, b) if bigger else min(a, b)
    relation = f"{a}{'>' if a > b else '<'}{b}"
    facts: dict[str, object] = {"a": a, "b": b, "bigger": bigger, "value": winner}
    if language == "zh":
        word = "大" if bigger else "小"
        return Task(
            "compare",
            pick(rng, MORE_ZH).format(a=a, b=b, w=word),
            f"{relation}，{winner}更{word}。",
            f"{winner} 更{word}。",
            "zh",
            facts,
        )
    word = pick(rng, ["bigger", "larger", "greater"] if bigger else ["smaller", "less"])
    if rng.random() < 0.25:
        yes = (a > b) == bigger
        question = pick(rng, YESNO_EN).format(a=a, b=b, w=word)
        facts["yes"] = yes
        return Task(
            "compare",
            roughen(rng, question),
            f"{relation}, so {'yes' if yes else 'no'}.",
            f"{'Yes' if yes else 'No'}, {a} is {'' if yes else 'not '}{word} than {b}.",
            "en",
            facts,
        )
    question = roughen(rng, pick(rng, MORE_EN).format(a=a, b=b, w=word))
    return Task("compare", question, f"{relation}, so {winner} is {word}.", f"{winner} is {word}.", "en", facts)


def chain(rng: random.Random, language: str) -> Task:
    """Three small numbers added or subtracted in turn."""
    while True:
        a, b, c = rng.randrange(1, 40), rng.randrange(1, 30), rng.randrange(1, 30)
        first, second = pick(rng, "++-"), pick(rng, "++-")
        middle = solve(first, a, b)
        value = solve(second, middle, c)
        if middle >= 0 and value >= 0 and not (pair_held_out(first, a, b) or pair_held_out(second, middle, c)):
            break
    text = f"{a}{first}{b}{second}{c}"
    if rng.random() < 0.6:
        text = f"{a} {first} {b} {second} {c}"
    tidy = f"{a} {first} {b} {second} {c} = {value}"
    line = f"{a}{first}{b}={middle}; {middle}{second}{c}={value}"
    facts: dict[str, object] = {"expression": f"{a}{first}{b}{second}{c}", "value": value}
    if language == "zh":
        question = pick(rng, ["{t}等于多少？", "计算{t}", "{t}=?", "{t}是多少？"]).format(t=text)
        return Task("chain", question, line.replace("; ", "；") + f"；得{value}。", tidy, "zh", facts)
    question = pick(
        rng,
        phrases(
            """
        What is {t}? | {t} | {t} = ? | Calculate {t}. | {t}= | what's {t}? | Compute {t}.
        """
        ),
    ).format(t=text)
    return Task("chain", roughen(rng, question), line + f"; so {value}.", tidy, "en", facts)


def number_facts(rng: random.Random, language: str) -> Task:
    """Even or odd, the next number, double and half, a number in words."""
    n = rng.randrange(0, 200)
    which = rng.randrange(6)
    if which == 0:
        even = n % 2 == 0
        facts: dict[str, object] = {"n": n, "ask": "parity", "expected": "even" if even else "odd"}
        if language == "zh":
            word = "偶数" if even else "奇数"
            return Task(
                "number",
                pick(rng, [f"{n}是奇数还是偶数？", f"{n}是偶数吗？"]),
                f"{n}的末位是{n % 10}，是{word}。",
                f"{n} 是{word}。",
                "zh",
                {**facts, "expected": word},
            )
        word = "even" if even else "odd"
        question = pick(
            rng,
            [
                f"Is {n} even or odd?",
                f"Is {n} an even number?",
                f"Is {n} odd?",
                f"Is {n} odd or even?",
                f"{n}: even or odd?",
            ],
        )
        return Task(
            "number",
            roughen(rng, question),
            f"The last digit is {n % 10}, so it is {word}.",
            f"{n} is {word}.",
            "en",
            facts,
        )
    if which in (1, 2):
        step = 1 if which == 1 else -1
        n = max(n, 1)
        facts = {"n": n, "ask": "neighbour", "expected": str(n + step)}
        if language == "zh":
            question = pick(
                rng,
                [f"{n}后面的数是多少？", f"{n}的下一个数是几？"]
                if step > 0
                else [f"{n}前面的数是多少？", f"{n}的前一个数是几？"],
            )
            return Task("number", question, f"{n}{'+' if step > 0 else '-'}1={n + step}。", f"{n + step}", "zh", facts)
        side = "after" if step > 0 else "before"
        question = pick(
            rng,
            [
                f"What number comes {side} {n}?",
                f"Which number is right {side} {n}?",
                f"What comes {side} {n}?",
                f"The number {side} {n}?",
            ],
        )
        return Task(
            "number",
            roughen(rng, question),
            f"{n}{'+' if step > 0 else '-'}1={n + step}.",
            f"{n + step} comes {side} {n}.",
            "en",
            facts,
        )
    if which == 3:
        n = rng.randrange(1, 100)
        facts = {"n": n, "ask": "double", "expected": str(2 * n)}
        en, zh = multiply_steps(n, 2)
        if language == "zh":
            return Task(
                "number",
                pick(rng, [f"{n}的两倍是多少？", f"{n}的2倍是多少？"]),
                f"{n}*2：{zh}",
                f"{n} 的两倍是 {2 * n}。",
                "zh",
                facts,
            )
        question = pick(rng, [f"Double {n}.", f"What is double {n}?", f"What is twice {n}?", f"Twice {n}?"])
        return Task("number", roughen(rng, question), f"{n}*2: {en}", f"Double {n} is {2 * n}.", "en", facts)
    if which == 4:
        half = rng.randrange(1, 51)
        facts = {"n": 2 * half, "ask": "half", "expected": str(half)}
        if language == "zh":
            return Task(
                "number",
                f"{2 * half}的一半是多少？",
                f"{half}+{half}={2 * half}。",
                f"{2 * half} 的一半是 {half}。",
                "zh",
                facts,
            )
        question = pick(rng, [f"What is half of {2 * half}?", f"Half of {2 * half}?", f"Halve {2 * half}."])
        return Task(
            "number",
            roughen(rng, question),
            f"{half}+{half}={2 * half}.",
            f"Half of {2 * half} is {half}.",
            "en",
            facts,
        )
    n = rng.randrange(0, 1000) if rng.random() < 0.3 else rng.randrange(0, 100)
    if language == "zh":
        facts = {"n": n, "ask": "words", "expected": chinese(n)}
        return Task(
            "number",
            pick(rng, [f"{n}用中文怎么写？", f"{n}的中文数字是什么？"]),
            f"{n}是{chinese(n)}。",
            f"{n} 写作{chinese(n)}。",
            "zh",
            facts,
        )
    if rng.random() < 0.5:
        facts = {"n": n, "ask": "digits", "expected": str(n)}
        question = pick(
            rng, [f"Write {english(n)} in digits.", f"{english(n)} as a number?", f"What is {english(n)} in digits?"]
        )
        return Task("number", roughen(rng, question), f"{english(n)}={n}.", f"{n}", "en", facts)
    facts = {"n": n, "ask": "words", "expected": english(n)}
    question = pick(
        rng, [f"Write {n} in words.", f"{n} in words?", f"How do you write {n} in words?", f"Spell the number {n}."]
    )
    return Task("number", roughen(rng, question), f"{n} is {english(n)}.", f"{english(n)}", "en", facts)


def draw(rng: random.Random, language: str) -> Task:
    """Any arithmetic question."""
    maker = rng.choices((basic, compare, chain, number_facts), (78, 7, 7, 8))[0]
    return maker(rng, language)


def table_entry(rng: random.Random) -> tuple[str, int]:
    """One step of column arithmetic: 7+8, 2+4+1, 13-5, 15-1-6."""
    x, y, carry = rng.randrange(10), rng.randrange(10), rng.random() < 0.35
    if rng.random() < 0.5:
        return f"{x}+{y}" + ("+1" if carry else ""), x + y + carry
    top = x if x - carry >= y else x + 10
    return f"{top}" + ("-1" if carry else "") + f"-{y}", top - carry - y


def drill(rng: random.Random, language: str) -> Task:
    """Several small sums at once: the tables of column arithmetic, many to a page."""
    entries = [table_entry(rng) for _ in range(rng.randrange(6, 15))]
    listed = pick(rng, [", ", " ", "; "]).join(text for text, _ in entries)
    answer = "; ".join(f"{text}={value}" for text, value in entries)
    wordings = ["{l}", "Solve: {l}", "Calculate {l}"] if language == "en" else ["计算：{l}", "{l}"]
    thinking = "One by one." if language == "en" else "一个一个算。"
    return Task("drill", pick(rng, wordings).format(l=listed), thinking, answer, language, {"entries": entries})
