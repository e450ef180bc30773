"""Templates that try to get out, or to take all time and memory: each ends soon, with one clear error."""

from __future__ import annotations

import threading
import traceback

import pytest

from qwen_mlx.errors import TemplateError
from qwen_mlx.text import limits
from qwen_mlx.text.limits import MAX_TEXT
from qwen_mlx.text.template import ChatTemplate

HI = [{"role": "user", "content": "Hi"}]


def refused(source: str, *, seconds: float = 0.3) -> str:
    """What the error says; the template is compiled and rendered within `seconds` each."""
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source, seconds=seconds).render(HI)
    message = str(caught.value)
    assert len(message) < 600
    return message


ESCAPES = {
    "class": "{{ ''.__class__ }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "item": "{{ ''['__class__'] }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "attribute in map": "{{ [''] | map(attribute='__class__') | list }}",
    "attribute in a format": "{{ '{0.__class__}'.format(1) }}",
    "attribute in format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format by another way": "{{ ('{0.__class__}' | attr('format'))(1) }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of a namespace": "{{ namespace.__init__.__globals__ }}",
    "environment of a macro": "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "context of self": "{{ self._TemplateReference__context.environment }}",
    "undefined": "{{ nothing.__class__ }}",
    "namespace attribute": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "namespace argument": "{{ namespace(__x=1) }}",
    "change of a list": "{% set x = [] %}{{ x.append(1) }}",
    "change of a message": "{{ messages[0].update({'role': 'system'}) }}",
    "encode": "{{ 'a'.encode('idna') }}",
    "translate": "{{ 'a'.translate({97: 'x'}) }}",
    "mro": "{{ dict.mro() }}",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_outside_is_reached(name: str) -> None:
    message = refused(ESCAPES[name])
    assert "sandbox" in message or "has no attribute 'mro'" in message


@pytest.mark.parametrize("tag", ["include", "import", "extends"])
def test_no_other_files(tag: str) -> None:
    assert "no loader" in refused(f"{{% {tag} '/etc/passwd' {'as x ' if tag == 'import' else ''}%}}")


@pytest.mark.parametrize("name", ["urlize", "striptags", "pprint", "wordwrap", "xmlattr", "random", "urlencode"])
def test_filters_for_web_pages_are_left_out(name: str) -> None:
    assert f"No filter named '{name}'" in refused(f"{{{{ 'a' | {name} }}}}")


ENDLESS = {
    "loops": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for a in range(90000) %}{% for b in range(90000) if false %}{% endfor %}{% endfor %}",
    "skipping loops": "{% for a in range(90000) %}{% for b in range(90000) %}{% continue %}{% endfor %}{% endfor %}",
    "loops with an index": "{% for a in range(90000) %}{% for b in range(90000) %}{% if loop.last %}{% endif %}"
    "{% endfor %}{% endfor %}",
    "loops in a macro": "{% macro m() %}{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}"
    "{% endmacro %}{{ m() }}",
    "loops in a block": "{% block x %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    "{% endblock %}",
    "loops in a call": "{% macro m() %}{% for a in range(90000) %}{{ caller() }}{% endfor %}{% endmacro %}"
    "{% call m() %}{% for b in range(90000) %}{% endfor %}{% endcall %}",
    "loops in a set": "{% set x %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    "{% endset %}",
    "loops in a generation": "{% generation %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}"
    "{% endfor %}{% endgeneration %}",
    "loops of filters": "{% for a in range(90000) %}{% set x = range(90000) | map('string') | list %}{% endfor %}",
    "tree of macros": "{% macro f(n) %}{% if n < 40 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "tree of loops": "{% for a in [1, 2] recursive %}{% if loop.depth < 40 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    "slow condition": "{% set a = 'a' * 9000000 %}{% for i in range(90000) if 'a' * 4000000 ~ 'b' in a %}{% endfor %}",
    "slow filter": "{% set a = 'aA' * 4000000 %}{% for i in range(90000) if a | upper == '' %}{% endfor %}",
    "slow method": "{% set a = 'aA' * 4000000 %}{% for i in range(90000) if a.find('b') > 0 %}{% endfor %}",
    "deeper and deeper": "{% set ns = namespace(x=[1]) %}{% for i in range(90000) %}{% for j in range(90000) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_templates_are_stopped(name: str) -> None:
    message = refused(ENDLESS[name])
    assert "takes longer than 0.3 seconds and was stopped" in message or "MiB of memory" in message


def test_endless_templates_are_stopped_in_any_thread() -> None:
    messages: list[str] = []
    threads = [threading.Thread(target=lambda: messages.append(refused(ENDLESS["loops"]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messages) == 3


def test_a_stopped_template_can_be_used_again() -> None:
    source = "{% for a in range(messages[0].n) %}{% for b in range(messages[0].n) %}{% endfor %}{% endfor %}done"
    template = ChatTemplate(source, seconds=0.3)
    with pytest.raises(TemplateError, match="takes longer"):
        template.render([{"role": "user", "n": 90_000}])
    assert template.render([{"role": "user", "n": 3}]) == "done"


def growing(step: str, start: str = "'A'") -> str:
    return f"{{% set ns = namespace(x={start}, y={start}) %}}{{% for i in range(60) %}}{step}{{% endfor %}}"


HUGE = {
    "range": "{% for i in range(1000000000) %}{% endfor %}",
    "repeated text": "{% set x = 'A' * 100000000 %}{% set y = x * 100 %}{{ y | length }}",
    "repeated text, number first": "{{ 1000000000 * 'A' }}",
    "repeated list": "{{ [1] * 1000000000 }}",
    "doubled by ~": growing("{% set ns.x = ns.x ~ ns.x %}"),
    "doubled by ~ in autoescape": "{% autoescape true %}"
    + growing("{% set ns.x = ns.x ~ ns.x %}")
    + "{% endautoescape %}",
    "doubled by +": growing("{% set ns.x = ns.x + ns.x %}"),
    "doubled by set": growing("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    "doubled by join": growing("{% set ns.x = [ns.x, ns.x] | join %}"),
    "doubled by str.join": growing("{% set ns.x = ''.join([ns.x, ns.x]) %}"),
    "doubled by %": growing("{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
    "doubled by a mapping in %": growing("{% set ns.x = '%(a)s%(a)s' % {'a': ns.x} %}"),
    "doubled by format": growing("{% set ns.x = '{0}{0}'.format(ns.x) %}"),
    "doubled by the format filter": growing("{% set ns.x = '%s%s' | format(ns.x, ns.x) %}"),
    "doubled by replace": growing("{% set ns.x = ns.x | replace('A', 'AA') %}"),
    "doubled by str.replace": growing("{% set ns.x = ns.x.replace('A', 'AA') %}"),
    "doubled by a macro": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + growing("{% set ns.x = m(ns.x) %}"),
    "doubled by a list": growing("{% set ns.x = ns.x + ns.x %}", "[1]"),
    "doubled by tojson": growing("{% set ns.x = ns.x | tojson | tojson %}", "'\"'"),
    "power": "{{ 9**9**9 }}",
    "power of a power": "{{ 9 ** (9 ** 9) }}",
    "negative power": "{{ (-9) ** 99999999 }}",
    "squares": growing("{% set ns.x = ns.x * ns.x %}", "3"),
    "int": "{{ ('9' * 1000000) | int }}",
    "hexadecimal int": "{{ ('f' * 1000000) | int(0, 16) }}",
    "float": "{{ ('9' * 1000000) | float }}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "join": "{{ range(90000) | join('A' * 100000) }}",
    "str.join": "{{ ('A' * 100000).join(range(90000) | map('string')) }}",
    "center filter": "{{ 'a' | center(1000000000) }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "width in %": "{{ '%1000000000d' % 1 }}",
    "precision in %": "{{ '%.1000000000f' % 1 }}",
    "width from an argument of %": "{{ '%*d' % (1000000000, 1) }}",
    "width in the format filter": "{{ '%1000000000d' | format(1) }}",
    "width in format": "{{ '{:1000000000}'.format(1) }}",
    "width from an argument of format": "{{ '{:{}}'.format(1, 1000000000) }}",
    "width in format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "indent": "{{ ('a\n' * 1000) | indent(1000000) }}",
    "indent by a text": "{{ ('a\n' * 1000) | indent('A' * 1000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "replace": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replace of nothing": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "sum": "{% set a = [1] * 100000 %}{{ ([a] * 1000) | sum(start=[]) | length }}",
    "tojson with a wide indent": "{{ [[1]] | tojson(indent=1000000000) }}",
    "tojson with a long indent": "{{ [[1]] | tojson(indent='A' * 10000000) }}",
    "tojson with long separators": "{{ [1, 2] | tojson(separators=('A' * 10000000, 'b')) }}",
    "split": "{{ ('a,' * 8000000).split(',') | length }}",
    "split at spaces": "{{ ('a ' * 8000000).split() | length }}",
    "splitlines": "{{ ('a\n' * 8000000).splitlines() | length }}",
    "list of characters": "{{ ('ab' * 8000000) | list | length }}",
    "title": "{{ ('a ' * 8000000) | title | length }}",
    "wordcount": "{{ ('a ' * 8000000) | wordcount }}",
    "rfind": "{{ ('a' * 9000000).rfind('b' ~ 'a' * 5000000) }}",
    "rsplit": "{{ ('a' * 9000000).rsplit('b' ~ 'a' * 5000000) }}",
    "strip": "{{ ('a' * 9000000).strip('b' * 5000000 ~ 'a') }}",
    "trim": "{{ ('a' * 9000000) | trim('b' * 5000000 ~ 'a') }}",
    "long text in a list": "{% set a = 'A' * 5000000 %}{{ 'A' * 4999999 ~ 'B' in [a] * 90000 }}",
    "strftime": "{{ strftime_now('%Y' * 100000) }}",
    "list of texts": "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}"
    "{% set ns.l = ns.l + ['A' * 1000000 ~ i] %}{% endfor %}",
    "list of slices": "{% set b = 'A' * 10000000 %}{% set ns = namespace(l=[]) %}{% for i in range(90000) %}"
    "{% set ns.l = ns.l + [b[1:]] %}{% endfor %}",
    "output": "{% for i in range(90000) %}{{ 'A' * 1000 }}{% endfor %}",
    "output of a macro": "{% macro m() %}{% for i in range(90000) %}{{ 'A' * 10000 }}{% endfor %}"
    "{% endmacro %}{{ m() }}",
    "output of one text": "{% set x = 'A' * 10000 %}{% macro m() %}{% for i in range(90000) %}{{ x }}{% endfor %}"
    "{% endmacro %}{{ m() }}",
    "macros in macros": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "calls in calls": "{% macro f() %}{{ caller() }}{% endmacro %}"
    "{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
    "block in itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "loop in itself": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "constant while compiling": "{% autoescape 'A' | center(1000000000) %}{% endautoescape %}",
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_steps_are_refused_before_they_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single step in C cannot be interrupted: with a minute to spend, only checks of sizes can stop these."""
    monkeypatch.setattr(limits, "MAX_ALLOCATED", 64 << 20)  # to fill half a gigabyte takes a second
    message = refused(HUGE[name], seconds=60)
    assert "was stopped" in message or "MAX_RANGE" in message or "sandbox" in message


# A list that holds the same list twice, sixty times over: small in memory, without end for whoever walks through it.
TWICE = growing("{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}", "[1]")
TUPLES = growing("{% set ns.x = (ns.x, ns.x) %}", "(1,)")
TANGLED = {
    "printed": TWICE + "{{ ns.x }}",
    "joined": TWICE + "{{ [ns.x] | join }}",
    "concatenated": TWICE + "{{ ns.x ~ '' }}",
    "string filter": TWICE + "{{ ns.x | string | length }}",
    "upper filter": TWICE + "{{ ns.x | upper }}",
    "safe filter": TWICE + "{{ ns.x | safe }}",
    "escape filter": TWICE + "{{ ns.x | e }}",
    "tojson": TWICE + "{{ ns.x | tojson }}",
    "%": TWICE + "{{ '%s' % ns.x }}",
    "% in a tuple": TWICE + "{{ '%s' % (ns.x,) }}",
    "format": TWICE + "{{ '{}'.format(ns.x) }}",
    "format with repr": TWICE + "{{ '{!r:.1}'.format(ns.x) }}",
    "raise_exception": TWICE + "{{ raise_exception(ns.x) }}",
    "in a macro": TWICE + "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(ns.x) }}",
    "compared": TWICE + "{{ ns.x == ns.y }}",
    "compared twice": TWICE + "{{ ns.x <= ns.y <= ns.x }}",
    "test": TWICE + "{{ ns.x is eq ns.y }}",
    "in test": TWICE + "{{ ns.x is in [ns.y] }}",
    "select": TWICE + "{{ [ns.x] | select('eq', ns.y) | list }}",
    "in": TWICE + "{{ ns.x in [ns.y] }}",
    "index": TWICE + "{{ [ns.y].index(ns.x) }}",
    "count": TWICE + "{{ [ns.y].count(ns.x) }}",
    "sort": TWICE + "{{ [ns.x, ns.y] | sort }}",
    "min": TWICE + "{{ [ns.x, ns.y] | min }}",
    "changed": TWICE + "{% for i in [1, 2] %}{{ loop.changed(ns.x if i == 1 else ns.y) }}{% endfor %}",
    "key of a dictionary": TUPLES + "{{ {ns.x: 1} }}",
    "looked up": TUPLES + "{{ {1: 1}[ns.x] }}",
    "get": TUPLES + "{{ {1: 1}.get(ns.x) }}",
    "in a dictionary": TUPLES + "{{ ns.x in {1: 1} }}",
    "dict": TUPLES + "{{ dict([(ns.x, 1)]) }}",
    "fromkeys": TUPLES + "{{ dict.fromkeys([ns.x]) }}",
    "unique": TUPLES + "{{ [ns.x] | unique | list }}",
    "groupby": TUPLES + "{{ [{'a': ns.x}, {'a': ns.x}] | groupby('a') }}",
    "views": TUPLES + "{% set d = {'a': ns.x} %}{{ d.items() - d.items() }}",
}


@pytest.mark.parametrize("name", TANGLED)
def test_values_without_end_are_not_walked_through(name: str) -> None:
    assert "a value that is too large and was stopped" in refused(TANGLED[name], seconds=60)


def test_chains_of_generators_do_not_pile_up() -> None:
    source = growing("{% set ns.x = ns.x | map('string') %}", "['a']").replace("range(60)", "range(5000)")
    assert ChatTemplate(source + "{{ ns.x }}", seconds=60).render(HI) == "['a']"


# ------------------------------------------------------------------------------------------------------- compiling


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ " + "-" * 50_000 + "1 }}",
        "{{ " + "+".join(["1"] * 20_000) + " }}",
        "{{ a" + "|upper" * 10_000 + " }}",
        "{% if a %}" * 2_500 + "{% endif %}" * 2_500,
        "{% for a in b %}" * 40 + "{% endfor %}" * 40,
        "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
        "{{ " + "9" * 50_000 + " }}",
        "{% if a %}" + "".join(f"{{% elif b %}}{{% set b{i} = 1 %}}" for i in range(1800)) + "{% endif %}",
    ],
    ids=["parentheses", "minus", "plus", "filters", "if", "for", "lists", "digits", "elif"],
)
def test_templates_that_are_hard_to_compile(source: str) -> None:
    assert "damaged" in (message := refused(source)) or "takes longer" in message


def test_nothing_is_computed_while_compiling() -> None:
    ChatTemplate("{{ 'A' * 1000000000 }}{{ 9 ** 9 ** 9 }}{{ 'a' | center(16000000) }}" * 50)


def test_the_output_is_limited() -> None:
    template = ChatTemplate("{{ messages[0].content }}", max_output=10)
    assert template.render([{"role": "user", "content": "x" * 10}]) == "x" * 10
    with pytest.raises(TemplateError, match="writes more than 10 characters"):
        template.render([{"role": "user", "content": "x" * 11}])
    assert MAX_TEXT > 4_000_000  # a million tokens fit


def test_an_error_shows_no_traceback_of_ours() -> None:
    try:
        ChatTemplate("{{ 1 / 0 }}").render(HI)
    except TemplateError as error:
        assert error.__suppress_context__
        assert "ZeroDivisionError: division by zero\n" not in "".join(traceback.format_exception(error))
