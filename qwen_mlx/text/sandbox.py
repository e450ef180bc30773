"""Jinja for templates from strangers: nothing outside the conversation can be reached, and nothing takes forever.

Jinja's own sandbox stops access to Python's internals, but not a loop in a loop. Here the code generated from a
template asks a `Budget` (see `limits.py`) at every turn of a loop, call, operator, comparison, subscript and output.
Names and options are those that `transformers` gives chat templates, so what renders there renders here, alike.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace, pass_context
from markupsafe import Markup

from qwen_mlx.text import limits
from qwen_mlx.text.filters import bounded_filters, bounded_tests
from qwen_mlx.text.limits import Budget, LimitReached

_METHODS: tuple[tuple[type, frozenset[str]], ...] = tuple(
    (kind, frozenset(names.split()))
    for kind, names in (
        (
            str,
            "capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal"
            " isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip"
            " partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split"
            " splitlines startswith strip swapcase title upper zfill",
        ),
        (dict, "copy get items keys values"),
        (list, "copy count index"),
        (tuple, "count index"),
        (int, "real imag bit_length is_integer"),
        (float, "real imag is_integer"),
        (complex, "real imag"),
        (bytes, ""),
    )
)
"""Attributes of plain values that a template may use; what is not here could be slow or odd."""

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


class _BoundedCode(CodeGenerator):
    """Writes the Python of a template, with a call to the environment wherever work could pile up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop_bodies: set[int] = set()

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.environment.budget.tick()  # type: ignore[attr-defined]
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        self._loop_bodies.add(id(node.body))
        super().visit_For(node, frame)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        if id(nodes) in self._loop_bodies:
            self.writeline("environment.budget.tick()")
        super().blockvisit(nodes, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        join = "markup_join if context.eval_ctx.autoescape else str_join"
        self.write(f"environment.joined({join}, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        # a < b < c is (a < b) and (b < c), but b is computed once.
        if len(node.ops) == 1:
            self.write(f"environment.compared({node.ops[0].op!r}, ")
            self.visit(node.expr, frame)
            self.write(", ")
            self.visit(node.ops[0].expr, frame)
            self.write(")")
            return
        self.write(f"environment.chained({tuple(operand.op for operand in node.ops)!r}, (lambda: ")
        for expression in (node.expr, *(operand.expr for operand in node.ops)):
            self.visit(expression, frame)
            self.write(", lambda: ")
        self.write("None))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.sliced(")
        self.visit(node.node, frame)
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            if bound is None:
                self.write("None")
            else:
                self.visit(bound, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self.write("{")
        for pair in node.items:
            self.write("environment.hashed(")
            self.visit(pair.key, frame)
            self.write("): ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what an assistant said, for training; here it is only a scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _TemplateNamespace(Namespace):
    """`namespace(...)`, whose attributes cannot begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, arguments = args[0], args[1:]
        attributes = dict(*arguments, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


class _Dict:
    """`dict(...)` for templates: the function, without the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _BoundedFormatter(SandboxedFormatter):
    """`str.format` whose fields are checked one by one."""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._env.budget.weigh(value)  # type: ignore[attr-defined]
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        budget: Budget = self._env.budget  # type: ignore[attr-defined]
        budget.tick()
        budget.weigh(value)
        budget.width(format_spec)
        result = super().format_field(value, format_spec)
        budget.charge(result)
        return result


class _BoundedEscapeFormatter(_BoundedFormatter, SandboxedEscapeFormatter):
    pass


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and renders templates; usable from any number of threads, each with a budget of its own."""

    code_generator_class = _BoundedCode
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        self._local = threading.local()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            optimized=False,  # the optimizer computes constants while compiling
            cache_size=0,
        )
        self.finalize = self._printed
        self.filters.clear()
        self.filters.update(bounded_filters(lambda: self.budget))
        self.tests.update(bounded_tests(lambda: self.budget))
        # lipsum is left out; what stays cannot be used to build large things unseen.
        self.globals = {
            "cycler": jinja2.utils.Cycler,
            "dict": _Dict(),
            "joiner": jinja2.utils.Joiner,
            "namespace": _TemplateNamespace,
            "raise_exception": _raise_exception,
            "range": self.globals["range"],
            "strftime_now": _strftime_now,
        }

    @property
    def budget(self) -> Budget:
        """The budget of the rendering in this thread."""
        return self._local.budget

    @contextlib.contextmanager
    def spending(self, budget: Budget) -> Iterator[Budget]:
        """All work of this thread inside the block is paid from `budget`."""
        previous = getattr(self._local, "budget", None)
        self._local.budget = budget
        try:
            yield budget
        finally:
            self._local.budget = previous

    # -------------------------------------------------------------------------------- called by template code

    def concat(self, pieces: Iterable[str]) -> str:
        """The text of a macro, block or `{% set %}`."""
        budget = self.budget
        length = 0
        collected = []
        for piece in pieces:
            length += len(piece)
            budget.text(length)
            collected.append(piece)
        result = "".join(collected)
        budget.charge(result)
        return result

    @pass_context
    def _printed(self, context: Context, value: Any) -> Any:
        budget = self.budget
        budget.tick()
        if not isinstance(value, str):
            budget.weigh(value)
        return value

    def joined(self, join: Callable[[Sequence[Any]], str], parts: Sequence[Any]) -> str:
        """`a ~ b`."""
        budget = self.budget
        budget.tick()
        budget.text(budget.weigh(*parts))
        result = join(parts)
        budget.charge(result)
        return result

    def compared(self, comparison: str, left: Any, right: Any) -> Any:
        """`left == right`, `left in right`, ..."""
        budget = self.budget
        budget.tick()
        if isinstance(left, limits.CONTAINERS) or (isinstance(left, str) and len(left) > 1000):
            budget.weigh(left)
            if not isinstance(right, str):
                budget.weigh(right)
        return _COMPARISONS[comparison](left, right)

    def chained(self, comparisons: Sequence[str], operands: Sequence[Callable[[], Any]]) -> Any:
        """`a < b < c`; an operand is computed only if all comparisons before it hold."""
        left = operands[0]()
        result: Any = True
        for comparison, operand in zip(comparisons, operands[1:]):
            right = operand()
            result = self.compared(comparison, left, right)
            if not result:
                break
            left = right
        return result

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        budget = self.budget
        budget.tick()
        result = value[start:stop:step]
        budget.charge(result)
        return result

    def hashed(self, key: Any) -> Any:
        """`key`, which becomes the key of a dictionary: a tuple of tuples may take very long to hash."""
        if isinstance(key, tuple):
            self.budget.weigh(key)
        return key

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        budget.operands(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        budget.charge(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = __self.budget
        budget.tick()
        if isinstance(__obj, (types.BuiltinMethodType, types.MethodType)):
            limits.method(budget, __obj.__self__, __obj.__name__, args, kwargs)
        elif not isinstance(__obj, jinja2.runtime.Macro):
            budget.weigh(*args, *kwargs.values())
        budget.enter()
        try:
            result = super().call(__context, __obj, *args, **kwargs)
        finally:
            budget.leave()
        budget.charge(result)
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.budget.tick()
        return super().getitem(obj, self.hashed(argument))

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.budget.tick()
        return super().getattr(obj, attribute)

    # ------------------------------------------------------------------------------------------- what is safe

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS:
            if isinstance(obj, kind):
                return attr in names
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        # Jinja's own answer is a value that prints as nothing: a broken template would go unnoticed.
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is out of bounds")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text: str = value.__self__
        mapped = value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> str:
            if isinstance(text, Markup):
                formatter: _BoundedFormatter = _BoundedEscapeFormatter(self, escape=text.escape)
            else:
                formatter = _BoundedFormatter(self)
            if len(text) > limits.MAX_FORMAT:
                raise LimitReached(f"formats with a text longer than {limits.MAX_FORMAT:,} characters")
            result = formatter.vformat(text, (), args[0]) if mapped else formatter.vformat(text, args, kwargs)
            return type(text)(result)

        return formatted


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200:
        raise LimitReached("formats the date with a very long text")
    return datetime.now().strftime(format)
