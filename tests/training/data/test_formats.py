"""What rows say: every format, found by looking at all rows, and one error per mistake."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qwen_mlx.errors import DataError
from qwen_mlx.training.data.contents import Conversation, PlainText, Remarks, exact_digest, normalised_digest
from qwen_mlx.training.data.formats import FORMATS, FormatFinder, read_content
from qwen_mlx.training.data.rows import RawRow

USER, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def found(values: dict[str, Any]) -> tuple[str, Any, Remarks]:
    """The format of one row, and what it says."""
    row, finder, remarks = RawRow("a.jsonl:1", "a.jsonl:1", values), FormatFinder(), Remarks()
    finder.add(row)
    return finder.best, read_content(row, finder.best, remarks), remarks


def chat(*messages: dict[str, Any], tools: tuple[Any, ...] = ()) -> Conversation:
    weights = tuple(float(message["role"] == "assistant") for message in messages)
    return Conversation(messages, weights, tools)


SYSTEM = {"role": "system", "content": "S"}
READ = [
    ("messages", {"messages": [USER, ANSWER]}, chat(USER, ANSWER)),
    ("messages", {"messages": '[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]'}, None),
    ("messages", {"conversations": [USER, ANSWER], "messages": None}, chat(USER, ANSWER)),
    ("messages", {"messages": [USER, ANSWER], "tools": [TOOL]}, chat(USER, ANSWER, tools=(TOOL,))),
    ("messages", {"messages": [USER, ANSWER], "tools": '[{"name": "f"}]'}, chat(USER, ANSWER, tools=({"name": "f"},))),
    ("messages", {"messages": [USER, ANSWER], "tools": "null", "text": "x"}, chat(USER, ANSWER)),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+"}, {"text": "2?"}]}, ANSWER]},
        chat(USER, ANSWER),
    ),
    ("messages", {"messages": [USER, ANSWER | {"reasoning": "hm"}]}, chat(USER, ANSWER | {"reasoning_content": "hm"})),
    ("messages", {"messages": [USER, ANSWER | {"thinking": " \n"}]}, chat(USER, ANSWER)),
    (
        "messages",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
                        {"name": "now"},
                    ],
                },
                {"role": "tool", "content": "5", "tool_call_id": "1", "name": "add"},
                ANSWER,
            ]
        },
        chat(
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [CALL, {"type": "function", "function": {"name": "now", "arguments": {}}}],
            },
            {"role": "tool", "content": "5"},
            ANSWER,
        ),
    ),
    (
        "messages",
        {"messages": [USER, {"role": "assistant", "function_call": {"name": "add", "arguments": {"a": 1}}}, USER]},
        chat(USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, USER),
    ),
    (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
            "system": "S",
            "tools": "[]",
        },
        chat(SYSTEM, USER, ANSWER),
    ),
    (
        "sharegpt",
        {
            "conversation": [
                {"from": "system", "value": "S"},
                {"from": "user", "value": "2+2?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": "{\\"a\\": 1}"}'},
                {"from": "observation", "value": "4"},
                {"from": "assistant", "value": "4"},
            ]
        },
        chat(
            SYSTEM,
            USER,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "4"},
            ANSWER,
        ),
    ),
    ("prompt-completion", {"prompt": "a", "completion": " b"}, PlainText(" b", "a")),
    ("prompt-completion", {"prompt": [USER], "completion": [ANSWER]}, chat(USER, ANSWER)),
    ("prompt-completion", {"prompt": [USER], "completion": "4"}, chat(USER, ANSWER)),
    (
        "prompt-completion",
        {"prompt": [USER, ANSWER, USER], "completion": [ANSWER], "tools": [TOOL]},
        Conversation((USER, ANSWER, USER, ANSWER), (0.0, 0.0, 0.0, 1.0), (TOOL,)),
    ),
    ("alpaca", {"instruction": "2+2?", "input": "", "output": "4"}, chat(USER, ANSWER)),
    (
        "alpaca",
        {"instruction": "Add", "input": "1", "output": "4", "system": "S", "history": [["2+2?", "4"]]},
        chat(SYSTEM, USER, ANSWER, {"role": "user", "content": "Add\n1"}, ANSWER),
    ),
    ("text", {"text": "some text", "id": 3}, PlainText("some text")),
]


@pytest.mark.parametrize(("name", "values", "expected"), READ)
def test_what_a_row_says(name, values, expected):
    assert found(values)[:2] == (name, chat(USER, ANSWER) if expected is None else expected)


def test_weights():
    messages = [
        USER,
        ANSWER | {"weight": 0},
        USER,
        ANSWER | {"loss": True},
        USER | {"loss": False},
        ANSWER | {"weight": 0.5},
    ]
    assert found({"messages": messages})[1].weights == (0.0, 0.0, 0.0, 1.0, 0.0, 0.5)
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "loss": 0.25}]
    assert found({"conversations": turns})[1].weights == (0.0, 0.25)


def test_what_is_not_read_is_said():
    remarks = found({"messages": [USER | {"wieght": 1, "name": "Ann"}, ANSWER], "idx": 4, "none": None})[2]
    assert remarks.counts == {"the column 'idx' is not read": 1, "the key 'wieght' of messages is not read": 1}


def row(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


WRONG = [
    ({}, "this row is in no known format; expected messages; conversations;"),
    ({"question": "a", "answer": "b"}, "found 'question', 'answer'"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "Preference pairs cannot be learnt"),
    ({"prompt": "a"}, "in no known format"),
    ({"messages": []}, "'messages' must be a list of messages; found an empty list"),
    ({"messages": {"role": "user"}}, "'messages' must be a list of messages; found an object"),
    ({"messages": 3}, "found a number (3)"),
    ({"messages": "[broken"}, "a.jsonl:1: 'messages' is no JSON"),
    (
        row(USER, "4"),
        "a.jsonl:1, message 2: this is no message; expected an object with role and content; found a text",
    ),
    (
        row(USER, {"role": "robot", "content": "x"}),
        "message 2: unknown role; expected system, user, assistant, tool; found 'robot'",
    ),
    (row({"content": "x"}, ANSWER), "message 1: unknown role; expected system, user, assistant, tool; found none"),
    (row({"role": ["user"], "content": "x"}, ANSWER), "message 1: unknown role"),
    (row({"role": "user"}, ANSWER), "message 1: 'content' must be a text; found nothing"),
    (row({"role": "user", "content": None}, ANSWER), "message 1: 'content' must be a text; found nothing"),
    (row({"role": "user", "content": math.nan}, ANSWER), "message 1: 'content' must be a text; found a number (nan)"),
    (row({"role": "user", "content": {"text": "a"}}, ANSWER), "'content' must be a text; found an object"),
    (row({"role": "user", "content": [{"type": "image_url"}]}, ANSWER), "only text can be learnt from; expected parts"),
    (row(USER, {"role": "assistant"}), "message 2: 'content' must be a text; found nothing"),
    (
        row(USER, {"role": "assistant", "content": ""}),
        "message 2: the answer is empty; expected content, or tool calls",
    ),
    (row(USER, {"role": "assistant", "content": None}), "message 2: the answer is empty"),
    (row(USER, {"role": "assistant", "content": " \n", "tool_calls": []}), "message 2: the answer is empty"),
    (row(USER), "there is nothing to learn; expected a message of the assistant"),
    (row(ANSWER, USER, ANSWER), "message 1: the conversation begins with an answer"),
    (row(USER, ANSWER | {"weight": -1}), "message 2: 'weight' cannot be used; expected a number from 0; found -1"),
    (row(USER, ANSWER | {"weight": math.nan}), "'weight' cannot be used"),
    (row(USER, ANSWER | {"loss": "yes"}), "'loss' cannot be used; expected a number from 0; found 'yes'"),
    (row(USER, ANSWER | {"loss": True, "weight": 1}), "both 'weight' and 'loss'"),
    (row(USER | {"weight": 1}, ANSWER), "message 1: only what the model writes can be learnt"),
    (row(USER | {"reasoning_content": "x"}, ANSWER), "only the assistant reasons"),
    (row(USER | {"tool_calls": [CALL]}, ANSWER), "only the assistant can call tools"),
    (row(USER, ANSWER | {"tool_calls": {}}), "'tool_calls' must be a list; found an object"),
    (row(USER, ANSWER | {"tool_calls": [{"function": {}}]}), "message 2, tool call 1: this is no call"),
    (row(USER, ANSWER | {"tool_calls": [{"name": "f", "arguments": "{a}"}]}), "tool call 1: 'arguments' is no JSON"),
    (
        row(USER, ANSWER | {"tool_calls": [{"name": "f", "arguments": "[1]"}]}),
        "'arguments' must be an object; found a list",
    ),
    (row(USER, ANSWER, tools={"name": "f"}), "'tools' must be a list; found an object"),
    (row(USER, ANSWER, tools=[{"type": "function"}]), "tool 1 is no description of a function"),
    ({"conversations": [{"from": "alien", "value": "x"}]}, "turn 1: unknown 'from'; expected system, human"),
    ({"conversations": ["x"]}, "turn 1: this is no turn; expected an object with 'from' and 'value'; found a text"),
    ({"conversations": []}, "'conversations' must be a list of turns"),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": 1}]}, "'content' must be a text"),
    ({"prompt": "a", "completion": "  "}, "'completion' is empty"),
    (
        {"prompt": 3, "completion": "b"},
        "'prompt' cannot be read; expected a text or a list of messages; found a number (3)",
    ),
    ({"prompt": [USER], "completion": [USER]}, "there is nothing to learn"),
    ({"prompt": [USER, ANSWER], "completion": [USER]}, "'completion' has no message of the assistant"),
    ({"prompt": "a", "completion": "b", "tools": [TOOL]}, "'tools' need 'prompt' and 'completion' that are lists"),
    ({"instruction": 1, "output": "x"}, "'instruction' must be a text; found a number (1)"),
    ({"instruction": "a", "output": ""}, "the answer is empty"),
    (
        {"instruction": "a", "output": "b", "history": [["x"]]},
        "pair 1 of 'history' is none; expected [question, answer]",
    ),
    ({"text": 1}, "'text' must be a text; found a number (1)"),
    ({"text": " \n"}, "'text' is empty"),
]


@pytest.mark.parametrize(("values", "says"), WRONG)
def test_one_error_per_mistake(values, says):
    with pytest.raises(DataError) as caught:
        found(values)
    text = str(caught.value)
    assert text.startswith("a.jsonl:1") and says in text


def test_the_format_is_found_by_looking_at_all_rows():
    """Rows may have more columns than one format needs; only what fits all of them is taken."""
    finder = FormatFinder()
    both = {"messages": [USER, ANSWER], "text": "rendered"}
    finder.add(RawRow("a:1", "a:1", both))
    assert finder.best == "messages"
    finder.add(RawRow("a:2", "a:2", {"text": "only text", "messages": None}))
    assert finder.best == "text"
    with pytest.raises(DataError) as caught:
        finder.add(RawRow("a:3", "a:3", {"messages": [USER, ANSWER]}))
    assert str(caught.value) == (
        "a:3: this row is in another format than those before it; expected text, as in a:1; found messages. "
        "Put rows of each format into a file of their own."
    )


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_was_asked_for(name):
    with pytest.raises(DataError, match=f"a:9: this row is not in the format {name}; expected '"):
        read_content(RawRow("a:9", "a:9", {"other": 1}), name, Remarks())


def test_what_counts_as_the_same():
    def say(text: str, **more: Any) -> Conversation:
        return found({"messages": [{"role": "user", "content": text}, ANSWER | more]})[1]

    same = [say("Hello  World"), say("hello world\n"), say("ＨＥＬＬＯ\tworld"), say("hello world", weight=2)]
    assert len({normalised_digest(each) for each in same}) == 1
    assert len({exact_digest(each) for each in same}) == 4
    others = [say("hello worlds"), say("hello world", reasoning_content="x"), PlainText("hello world"), same[0]]
    assert len({normalised_digest(each) for each in others}) == 4
    assert normalised_digest(say("\ud800")) != normalised_digest(say("\ud801"))
