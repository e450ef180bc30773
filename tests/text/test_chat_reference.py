"""Our built-in templates against what the originals write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx.errors import TemplateError
from qwen_mlx.text.template import BUILTIN_NAMES, ChatTemplate, builtin

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "text" / "chat_reference.json").read_text(encoding="utf-8")
)
CASES = [
    pytest.param(template, conversation, expected, id=f"{template}-{conversation}")
    for template, all_expected in REFERENCE["expected"].items()
    for conversation, expected in all_expected.items()
]
TEMPLATES: dict[str, ChatTemplate] = {}


def template(name: str) -> ChatTemplate:
    return TEMPLATES.setdefault(name, builtin(name))


def test_the_reference_is_whole() -> None:
    assert set(REFERENCE["expected"]) == set(BUILTIN_NAMES)
    texts = [case for case in CASES if isinstance(case.values[2], str)]
    assert (len(CASES), len(texts)) == (210, 201)


@pytest.mark.parametrize(("name", "conversation", "expected"), CASES)
def test_built_in_templates_write_what_the_originals_write(name: str, conversation: str, expected: Any) -> None:
    arguments = REFERENCE["conversations"][conversation]
    if isinstance(expected, str):
        assert template(name).render(**arguments) == expected
    else:
        with pytest.raises(TemplateError):
            template(name).render(**arguments)


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("name", "messages", "says"),
    [
        ("qwen3_5", [], "there is no message"),
        ("qwen3_5", [{"role": "assistant", "content": "x"}], "question of the user"),
        ("qwen3_5", [USER, {"role": "system", "content": "x"}], "must be the first"),
        ("qwen3_5", [USER, {"role": "robot", "content": "x"}], "role"),
        ("qwen3_5", [{"role": "system", "content": [{"type": "image"}]}, USER], "pictures"),
        ("qwen3_5", [{"role": "user", "content": [{"type": "smell"}]}], "part of a message"),
        ("qwen2_5", [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "text only"),
        ("qwen3", [], "no element 0"),
    ],
)
def test_conversations_a_template_refuses(name: str, messages: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        template(name).render(messages)


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_calls_without_type_or_arguments(name: str) -> None:
    """`tool_calls` may be null, and a call may come without the wrapper of OpenAI's format."""
    call = {"name": "now", "arguments": {}}
    messages = [USER, {"role": "assistant", "content": "So:", "tool_calls": [call, {"function": call}]}, USER]
    text = template(name).render(messages)
    assert text.count("now") == (0 if name in ("qwen2", "qwen2_vl") else 2)
    empty = [USER, {"role": "assistant", "content": "So:", "tool_calls": None}, USER]
    assert "So:<|im_end|>" in template(name).render(empty)


def test_scalar_arguments_differ_between_3_5_and_3_6() -> None:
    call = {"name": "f", "arguments": {"flag": True, "none": None, "many": [True, None], "text": "a\nb"}}
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}]
    older, newer = (template(name).render(messages) for name in ("qwen3_5", "qwen3_6"))
    assert "<parameter=flag>\nTrue\n</parameter>\n<parameter=none>\nNone\n</parameter>" in older
    assert "<parameter=flag>\ntrue\n</parameter>\n<parameter=none>\nnull\n</parameter>" in newer
    for text in (older, newer):
        assert "<parameter=many>\n[true, null]\n</parameter>\n<parameter=text>\na\nb\n</parameter>\n</function>" in text


def test_pictures_are_counted_over_the_conversation() -> None:
    picture = {"type": "image", "image": "a.png"}
    messages = [{"role": "user", "content": [picture, picture]}, {"role": "user", "content": [picture, {"video": "v"}]}]
    for name in ("qwen2_vl", "qwen3_vl", "qwen3_5"):
        text = template(name).render(messages, add_vision_id=True)
        places = [text.index(f"Picture {number}: <|vision_start|><|image_pad|><|vision_end|>") for number in (1, 2, 3)]
        assert places == sorted(places)
        assert "Video 1: <|vision_start|><|video_pad|><|vision_end|>" in text


def test_an_unknown_name() -> None:
    with pytest.raises(TemplateError, match=r"no built-in chat template 'gpt'.*qwen3_5_small"):
        builtin("gpt")
