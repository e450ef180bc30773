from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.text.template import builtin
from qwen_mlx.text.tool_calls import split_tool_calls
from tests.text.cutting import examples, texts


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tagged(inside: str) -> str:
    return f"<tool_call>\n{inside}\n</tool_call>"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ('{"name": "f", "arguments": {"city": "Paris", "days": 2}}', call("f", city="Paris", days=2)),
        ('{"name": "f", "arguments": {}}', call("f")),
        ('{"name": "f"}', call("f")),
        ('{"name": "f", "arguments": null}', call("f")),
        ('{"arguments": "{\\"a\\": [1, null]}", "name": "f"}', call("f", a=[1, None])),
        ('{"name": "f", "arguments": {"x": "</tool_call> é\\n"}}', call("f", x="</tool_call> é\n")),
        ('\n\n {\n "name": "f",\n "arguments": {"a": 1.5}\n}\n\n', call("f", a=1.5)),
    ],
)
def test_json_calls(inside: str, expected: dict[str, Any]) -> None:
    assert split_tool_calls(tagged(inside)) == ("", [expected], [])
    assert split_tool_calls(f"<tool_call>{inside}</tool_call>") == ("", [expected], [])
    assert split_tool_calls(f"<tool_call>\n{inside}") == ("", [expected], [])  # the model stopped too early


def test_text_around_and_between_calls() -> None:
    first, second = tagged('{"name": "f", "arguments": {}}'), tagged('{"name": "g", "arguments": {"a": 1}}')
    content, calls, errors = split_tool_calls(f"Let me look.\n{first}\n{second}\n")
    assert (content, calls, errors) == ("Let me look.", [call("f"), call("g", a=1)], [])
    assert split_tool_calls(f"{first}and{second}")[0] == "and"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (tagged("{name: f}"), "not JSON"),
        (tagged('{"name": "f", "arguments": {'), "not JSON"),
        (tagged('{"arguments": {}}'), "no name"),
        (tagged('{"name": 5, "arguments": {}}'), "no name"),
        (tagged('{"name": "f", "arguments": [1]}'), "not a JSON object"),
        (tagged('{"name": "f", "arguments": "x"}'), "not a JSON object"),
        (tagged('["f"]'), "not a JSON object"),
        (tagged('{"name": "f"} and more'), "does not follow"),
        (tagged("[" * 100_000), "nested too deeply"),
        (tagged(""), "not JSON"),
        ("see <tool_call>", "not JSON"),
        (tagged("<function=f>\n<parameter=a>\n1\n</function>"), "'a' does not end"),
        (tagged("<function=f>\n<parameter=a>\n1\n</parameter>"), "'a' does not end"),
        (tagged("<function=f>"), "</function> does not follow"),
    ],
)
def test_malformed_calls_stay_text(text: str, says: str) -> None:
    content, calls, errors = split_tool_calls(text)
    assert (content, calls) == (text, [])
    assert len(errors) == 1
    assert says in errors[0]


def test_one_bad_call_does_not_hide_a_good_one() -> None:
    text = f"{tagged('oops')}\n{tagged(json.dumps({'name': 'f', 'arguments': {}}))}"
    content, calls, errors = split_tool_calls(text)
    assert (content, calls, len(errors)) == (tagged("oops"), [call("f")], 1)


def test_an_answer_without_calls_is_untouched() -> None:
    assert split_tool_calls("  a\n\n") == ("  a\n\n", [], [])
    assert split_tool_calls("") == ("", [], [])


def xml(name: str, **values: str) -> str:
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, "null", "null"),
        ({"type": "string"}, "  two\n\nlines ", "  two\n\nlines "),
        ({"type": "string"}, "<b></parameter>x</b>", "<b></parameter>x</b>"),
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, " -5 ", -5),
        ({"type": "integer"}, "5.0", 5),
        ({"type": "integer"}, "5.5", "5.5"),
        ({"type": "integer"}, "five", "five"),
        ({"type": "integer"}, "true", "true"),
        ({"type": "number"}, "5", 5),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "False", False),
        ({"type": "boolean"}, "1", "1"),
        ({"type": "array"}, '[1, "a"]', [1, "a"]),
        ({"type": "array"}, '{"a": 1}', '{"a": 1}'),
        ({"type": "object"}, '{"a": [true]}', {"a": [True]}),
        ({"type": "object"}, "{broken", "{broken"),
        ({"type": "null"}, "null", None),
        ({"type": ["string", "null"]}, "None", None),
        ({"type": ["string", "null"]}, "x", "x"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"enum": [1, 2, 3]}, "2", 2),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({}, "5", "5"),
        (True, "5", "5"),
    ],
)
def test_values_in_xml_get_their_type_from_the_schema(schema: Any, text: str, value: Any) -> None:
    content, calls, errors = split_tool_calls(xml("f", a=text), [tool("f", a=schema)])
    assert (content, calls, errors) == ("", [call("f", a=value)], [])
    assert type(calls[0]["function"]["arguments"]["a"]) is type(value)


def test_xml_without_a_schema_is_text() -> None:
    for tools in ([], [tool("other", a={"type": "integer"})], [{"function": "f"}], [{}]):
        assert split_tool_calls(xml("f", a="5", b=""), tools)[1] == [call("f", a="5", b="")]


def test_xml_without_parameters() -> None:
    assert split_tool_calls(xml("f"))[1] == [call("f")]
    assert split_tool_calls("<tool_call><function=f></function></tool_call>")[1] == [call("f")]


TOOLS = [
    tool(
        "f",
        text={"type": "string"},
        number={"type": "number"},
        whole={"type": "integer"},
        yes={"type": "boolean"},
        many={"type": "array"},
        thing={"type": "object"},
    )
]
LINES = st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=20)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "text": LINES,
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "whole": st.integers(),
        "yes": st.booleans(),
        "many": st.lists(st.one_of(st.integers(), LINES, st.none())),
        "thing": st.dictionaries(LINES, st.one_of(st.booleans(), LINES)),
    },
)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_vl", "qwen3_5", "qwen3_6"])
@given(arguments=ARGUMENTS)
@examples(25)
def test_what_a_template_writes_is_read_back(name: str, arguments: dict[str, Any]) -> None:
    template = TEMPLATES.setdefault(name, builtin(name))
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So:", "tool_calls": [call("f", **arguments)] * 2},
    ]
    text = template.render(messages, tools=TOOLS, add_generation_prompt=False)
    answer = text.rpartition("<|im_start|>assistant\n")[2].rpartition("<|im_end|>")[0]
    answer = answer.rpartition("</think>\n\n")[2]
    assert split_tool_calls(answer, TOOLS) == ("So:", [call("f", **arguments)] * 2, [])


TEMPLATES: dict[str, Any] = {}


@given(
    texts(
        (
            "<tool_call>",
            "</tool_call>",
            '{"name": "f"}',
            "<function=f>",
            "</function>",
            "<parameter=a>",
            "</parameter>",
            "\n",
        )
    )
)
@examples(150)
def test_any_text_is_read_without_an_accident(text: str) -> None:
    content, calls, errors = split_tool_calls(text, TOOLS)
    assert text.count("<tool_call>") >= len(calls) + len(errors)
    if not calls:
        assert content == text
