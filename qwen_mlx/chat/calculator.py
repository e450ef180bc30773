"""Arithmetic for the calculator tool: a parser of its own, so that nothing a model writes is ever run as code.

Decimal numbers are exact fractions (0.1 + 0.2 is 0.3) until a function such as `sqrt` makes a float of them. Length,
depth and the size of numbers are bounded, so that no expression takes noticeable time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Union

MAX_LENGTH = 1000
MAX_DEPTH = 50
MAX_BITS = 8192  # of a numerator or denominator
MAX_FACTORIAL = 500

Number = Union[Fraction, float]

_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|//|[-+*/%^(),!]))"
)
_SAME = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": " pi ", "√": " sqrt ", "²": "^2", "³": "^3"}
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}


class CalculatorError(ValueError):
    """Why an expression has no value, in words."""


def calculate(expression: str) -> str:
    """The value of an arithmetic expression, with up to 15 significant digits where it is not whole.

    Knows `+ - * / // % ^ ** !`, parentheses, pi, e, tau, and the functions of `FUNCTIONS`; angles are in radians.

    Raises:
        CalculatorError: it is no expression, has no value, or is too large.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculatorError(f"the expression is longer than {MAX_LENGTH} characters")
    for sign, meaning in _SAME.items():
        expression = expression.replace(sign, meaning)
    try:
        return _written(_Parser(expression).value())
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        if isinstance(error, CalculatorError):
            raise
        words: dict[type[Exception], str] = {
            ZeroDivisionError: "division by zero",
            OverflowError: "the result is too large",
        }
        raise CalculatorError(words.get(type(error), "it has no real value")) from None


class _Parser:
    """Precedence climbing: sum < product < sign < power < factorial < atom."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0

    def value(self) -> Number:
        value = self._sum()
        if self._next is not None:
            raise CalculatorError(f"{self._next!r} is not expected there")
        return value

    @property
    def _next(self) -> str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, *wanted: str) -> str | None:
        token = self._next
        if token is None or token not in wanted:
            return None
        self._place += 1
        return token

    def _sum(self) -> Number:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculatorError("it is nested too deeply")
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        self._depth -= 1
        return value

    def _product(self) -> Number:
        value = self._signed()
        while sign := self._take("*", "/", "//", "%"):
            value = _bounded(_OPERATORS[sign](value, self._signed()))
        return value

    def _signed(self) -> Number:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        value = self._power()
        return -value if negative else value

    def _power(self) -> Number:
        base = self._factorial()
        if not self._take("^", "**"):
            return base
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculatorError("it is nested too deeply")
        exponent = self._signed()
        self._depth -= 1
        return _raised(base, exponent)

    def _factorial(self) -> Number:
        value = self._atom()
        while self._take("!"):
            value = _factorial(value)
        return value

    def _atom(self) -> Number:
        token = self._next
        if token is None:
            raise CalculatorError("it ends too early")
        self._place += 1
        if token == "(":
            value = self._sum()
            self._close()
            return value
        if token[0].isdigit() or token[0] == ".":
            return _literal(token)
        name = token.lower()
        if name in FUNCTIONS:
            return self._call(name)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        raise CalculatorError(f"{token!r} is not known" if token[0].isalpha() else f"{token!r} is not expected there")

    def _call(self, name: str) -> Number:
        if not self._take("("):
            if name != "sqrt":
                raise CalculatorError(f"{name} needs parentheses")
            return _bounded(FUNCTIONS[name](self._atom()))  # √2
        values = [] if self._next == ")" else [self._sum()]
        while self._take(","):
            values.append(self._sum())
        self._close()
        try:
            return _bounded(FUNCTIONS[name](*values))
        except TypeError:
            raise CalculatorError(f"{name} does not take {len(values)} numbers") from None

    def _close(self) -> None:
        if not self._take(")"):
            raise CalculatorError("a closing parenthesis is missing")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CalculatorError(f"{text[place:].strip()[:12]!r} cannot be read")
        tokens.append(match[1] or match[2] or match[3])
        place = match.end()
    if not tokens:
        raise CalculatorError("there is nothing to calculate")
    return tokens


def _literal(token: str) -> Number:
    _, _, exponent = token.lower().partition("e")
    return float(token) if abs(int(exponent or 0)) > 300 else Fraction(token)


def _bounded(value: Number) -> Number:
    if isinstance(value, int):
        value = Fraction(value)
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise CalculatorError("the result is too large")
    elif not isinstance(value, float):  # a root of something negative
        raise CalculatorError("it has no real value")
    elif not math.isfinite(value):
        raise CalculatorError("the result is too large")
    return value


def _raised(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if base in (0, 1, -1):  # any power of these is small
            return base ** min(max(exponent.numerator, -1), 1) if base >= 0 and exponent else base ** (exponent % 2)
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent.numerator) > MAX_BITS:
            raise CalculatorError("the result is too large")
        return _bounded(base**exponent.numerator)
    return _bounded(float(base) ** float(exponent))


def _factorial(value: Number) -> Number:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise CalculatorError(f"a factorial needs a whole number from 0 to {MAX_FACTORIAL}")
    return Fraction(math.factorial(value.numerator))


def _whole(value: Number, name: str) -> int:
    if value != int(value):
        raise CalculatorError(f"{name} needs whole numbers")
    return int(value)


def _logarithm(value: Number, base: Number | None = None) -> float:
    return math.log(value) if base is None else math.log(value) / math.log(base)


def _root(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _rounded(value: Number, digits: Number = Fraction(0)) -> Number:
    places = _whole(digits, "round")
    if abs(places) > 100:
        raise CalculatorError("round takes at most 100 digits")
    return round(Fraction(value), places) if places else Fraction(round(value))


_OPERATORS: dict[str, Callable[[Number, Number], Number]] = {
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}
FUNCTIONS: dict[str, Callable[..., Number]] = {
    "sqrt": _root,
    "abs": abs,
    "round": _rounded,
    "floor": lambda x: Fraction(math.floor(x)),
    "ceil": lambda x: Fraction(math.ceil(x)),
    "min": lambda x, *more: min(x, *more) if more else x,
    "max": lambda x, *more: max(x, *more) if more else x,
    "gcd": lambda x, y: Fraction(math.gcd(_whole(x, "gcd"), _whole(y, "gcd"))),
    "exp": math.exp,
    "ln": math.log,
    "log": _logarithm,
    "log10": math.log10,
    "log2": math.log2,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "degrees": math.degrees,
    "radians": math.radians,
    "factorial": _factorial,
}


def _written(value: Number) -> str:
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return str(value.numerator)
        exact = _terminating(value)
        if exact is not None:
            return exact
        try:
            value = float(value)
        except OverflowError:
            raise CalculatorError("the result is too large") from None
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}"


def _terminating(value: Fraction) -> str | None:
    """A fraction as a decimal number, if 15 digits after the point hold all of it."""
    scaled = value * 10**15
    if scaled.denominator != 1:
        return None
    whole, part = divmod(abs(scaled.numerator), 10**15)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{part:015d}".rstrip("0")
