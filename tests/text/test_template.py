from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx.errors import TemplateError
from qwen_mlx.events import Message
from qwen_mlx.text.template import BUILTIN_NAMES, ChatTemplate, builtin

HI = [{"role": "user", "content": "Hi"}]


def rendered(source: str, **arguments: Any) -> str:
    return ChatTemplate(source).render(arguments.pop("messages", HI), **arguments)


# ------------------------------------------------------------------------------------------- as transformers renders


FEATURES = [
    ("{% if true %}\n  a\n    {% endif %}\nb", "  a\nb"),  # trim_blocks, lstrip_blocks
    ("{{ messages[0].content }}{{ messages[0]['role'] }}", "Hiuser"),
    ("{{ messages[0].get('nothing') }}{{ messages[0].nothing }}", "None"),
    ("{{ tools is none }} {{ documents is none }} {{ enable_thinking is defined }}", "True True False"),
    ("{{ {'z': 'é<&>', 'a': [1, 2.5, true, none]} | tojson }}", '{"z": "é<&>", "a": [1, 2.5, true, null]}'),
    ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
    ("{{ [1, {'a': 2}] | tojson(indent=2) }}", '[\n  1,\n  {\n    "a": 2\n  }\n]'),
    ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
    ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
    ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
    ("{% for i in range(4) if i is odd %}{{ loop.index }}{{ i }}{% else %}none{% endfor %}", "1123"),
    ("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c", "abHic"),
    ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
    ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
    ("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 2 >= 2 }} {{ 1 != 1 }}", "True False True False"),
    ("{{ 'a' in 'abc' }} {{ 'x' not in ['a'] }} {{ 'role' in messages[0] }}", "True True True"),
    ("{{ (1, 2) in {(1, 2): 3} }} {{ {(1, 2): 3}[(1, 2)] }}", "True 3"),
    ("{{ 'abcdef'[1:3] }}{{ 'abc'[::-1] }}{{ [1, 2, 3][:-1] }}", "bccba[1, 2]"),
    ("{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 1 / 4 }} {{ -3 - 1 }}", "3 3 1024 0.25 -4"),
    ("{{ 'ab' * 2 }} {{ [1] + [2] }} {{ 'a' ~ 1 ~ none }}", "abab [1, 2] a1None"),
    ("{{ '%s-%03d' % ('a', 7) }} {{ '{}{x:>3}'.format('a', x=1) }} {{ '%s!' | format('b') }}", "a-007 a  1 b!"),
    ("{{ 'a,b'.split(',') | join('+') }} {{ ' x '.strip() }} {{ 'ab'.startswith('a') }}", "a+b x True"),
    ("{{ 'aXa'.replace('X', '') }} {{ 'aXa' | replace('X', 'YY') }} {{ '-'.join(['a', 'b']) }}", "aa aYYa a-b"),
    ("{{ ['b', 'a'] | sort | join }} {{ [1, 2, 2] | unique | list }}", "ab [1, 2]"),
    ("{{ [1, 2] | sum }} {{ [3, 1] | min }} {{ [[1], [2]] | sum(start=[]) }}", "3 1 [1, 2]"),
    ("{{ messages | map(attribute='role') | list }}", "['user']"),
    ("{{ messages | selectattr('role', 'eq', 'user') | list | length }}", "1"),
    ("{{ messages | groupby('role') | map('first') | join }}", "user"),
    ("{{ 'x' | upper }} {{ 'a b' | title }} {{ '  a' | trim }} {{ 'a\nb' | indent(2) }}", "X A B a a\n  b"),
    ("{{ '3' | int + 1 }} {{ '2.5' | float }} {{ 2.567 | round(1) }} {{ unknown | default('d') }}", "4 2.5 2.6 d"),
    ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
    ("{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}{{ dict(b=2).b }}", "a12"),
    ("{% macro m(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}{{ m(3, y=4) }}", "1234"),
    ("{% macro m() %}{{ caller() }}!{% endmacro %}{% call m() %}c{% endcall %}", "c!"),
    ("{% for a in [1, [2]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "12"),
    ("{% set x %}a{{ 1 }}{% endset %}{{ x | length }}{% filter upper %}b{% endfilter %}", "2B"),
    ("{{ '<b>' | safe }}{{ '<b>' }}{{ '<' | escape }}", "<b><b>&lt;"),
    ("{{ 'ab' | batch(1) | list }}{{ [1, 2, 3] | batch(2, 0) | list }}", "[['a'], ['b']][[1, 2], [3, 0]]"),
    (
        "{{ [3, 1, 2] | slice(2) | list }}{{ 'ab' | reverse }}{{ 'abcdefgh' | truncate(5, leeway=0) }}",
        "[[3, 1], [2]]baab...",
    ),
    (
        "{{ 'x' | center(3) }}|{{ 'a b c' | wordcount }}|{{ 'ab' | list }}|{{ 5 | string ~ 'a' }}",
        " x |3|['a', 'b']|5a",
    ),
]


@pytest.mark.parametrize(("source", "expected"), FEATURES)
def test_what_templates_may_use(source: str, expected: str) -> None:
    assert rendered(source) == expected


@pytest.mark.reference
@pytest.mark.parametrize(("source", "expected"), FEATURES)
def test_transformers_renders_the_same(source: str, expected: str) -> None:
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    assert utilities.render_jinja_template([HI], chat_template=source, add_generation_prompt=True)[0] == [expected]


def test_the_date() -> None:
    before = datetime.now().strftime("%Y-%m-%d")
    text = rendered("{{ strftime_now('%Y-%m-%d') }}")
    assert text in (before, datetime.now().strftime("%Y-%m-%d"))


def test_what_a_template_sees() -> None:
    source = "{{ tools | tojson }}|{{ enable_thinking }}|{{ add_generation_prompt }}|{{ keep }}"
    tool = {"type": "function", "function": {"name": "f"}}
    text = ChatTemplate(source).render(HI, tools=(tool,), enable_thinking=False, add_generation_prompt=False, keep=[1])
    assert text == f"{json.dumps([tool])}|False|False|[1]"


def test_messages_are_copied() -> None:
    """A template sees plain values: nothing of ours with methods, and nothing it could change."""

    class Picture:
        def secret(self) -> str:
            return "secret"

    messages = [{"role": "user", "content": [{"type": "image", "image": Picture()}]}]
    assert rendered("{{ messages[0].content[0].image }}", messages=messages) == "<Picture>"
    with pytest.raises(TemplateError):
        rendered("{{ messages[0].content[0].image.secret() }}", messages=messages)


def test_message_objects_and_dictionaries_are_alike() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [Message("user", "Hi"), Message("assistant", "x", reasoning="because", tool_calls=(call,))]
    dictionaries = [message.for_template() for message in messages]
    for name in BUILTIN_NAMES:
        assert builtin(name).render(messages) == builtin(name).render(dictionaries)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_several_names(key: str) -> None:
    messages = [*HI, {"role": "assistant", "content": "x", key: "because"}]
    assert "<think>\nbecause\n</think>\n\nx" in builtin("qwen3").render(messages)


def test_a_message_that_is_none() -> None:
    with pytest.raises(TemplateError, match="message 2 is not a message"):
        builtin("qwen3").render([*HI, "hello"])  # type: ignore[list-item]


def test_from_many_threads() -> None:
    template = builtin("qwen3")
    conversations = [[{"role": "user", "content": f"number {index}"}] * 20 for index in range(4)]
    expected = [template.render(messages) for messages in conversations]
    found: dict[int, list[str]] = {}

    def work(index: int) -> None:
        found[index] = [template.render(conversations[index]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [text] * 10 for index, text in enumerate(expected)}


def test_a_long_conversation_is_far_from_the_limits() -> None:
    messages = [{"role": ("user", "assistant")[index % 2], "content": "word " * 400} for index in range(601)]
    for name in BUILTIN_NAMES:
        assert builtin(name).render(messages).count("<|im_start|>") >= 602


# ---------------------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("qwen2", "never"),
        ("qwen2_5", "never"),
        ("qwen2_vl", "never"),
        ("qwen3", "optional"),
        ("qwen3_instruct_2507", "never"),
        ("qwen3_nonthinking", "never"),
        ("qwen3_vl", "never"),
        ("qwen3_5", "optional"),
        ("qwen3_5_small", "optional"),
        ("qwen3_6", "optional"),
    ],
)
def test_who_thinks(name: str, thinking: str) -> None:
    assert builtin(name).thinking == thinking


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("source", "thinking"),
    [
        (TURNS, "never"),
        (TURNS + "<think>\n", "always"),  # Qwen3-Thinking-2507
        (TURNS.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"), "always"),  # the first QwQ
        (TURNS + "{% if enable_thinking %}<think>\n{% endif %}", "optional"),
        ("{{ raise_exception('no') }}", "never"),
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "never"),
    ],
)
def test_thinking_is_seen_from_outside(source: str, thinking: str) -> None:
    assert ChatTemplate(source, seconds=0.3).thinking == thinking


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\nLet me", True),
        ("<｜User｜>Hi<｜Assistant｜><think>\n", True),
        ("<|im_start|>assistant\n", False),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>user\nwhat is <think>?<|im_end|>\n<|im_start|>assistant\n", False),
        ("<｜User｜>what is <think><｜Assistant｜>", False),
        ("", False),
    ],
)
def test_prompts_that_end_in_a_thinking_block(prompt: str, opens: bool) -> None:
    assert ChatTemplate.opens_thinking(prompt) is opens


@pytest.mark.parametrize(
    ("name", "choice", "opens"),
    [
        ("qwen3_5", None, True),
        ("qwen3_5", False, False),
        ("qwen3_5_small", None, False),
        ("qwen3_5_small", True, True),
        ("qwen3", True, False),
    ],
)
def test_built_in_prompts_that_open_a_block(name: str, choice: bool | None, opens: bool) -> None:
    assert ChatTemplate.opens_thinking(builtin(name).render(HI, enable_thinking=choice)) is opens


# ------------------------------------------------------------------------------------------------------- from a folder


def write(folder: Path, name: str, content: Any) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_where_a_template_is_looked_for(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"chat_template": "config"})
    assert ChatTemplate.from_folder(tmp_path).render(HI) == "config"
    write(tmp_path, "chat_template.json", {"chat_template": "json"})
    assert ChatTemplate.from_folder(tmp_path).render(HI) == "json"
    write(tmp_path, "chat_template.jinja", "jinja")
    assert ChatTemplate.from_folder(tmp_path).render(HI) == "jinja"


def test_a_template_for_tools(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": named})
    template = ChatTemplate.from_folder(tmp_path)
    assert (template.render(HI), template.render(HI, tools=[{"name": "f"}])) == ("plain", "tools")
    write(tmp_path, "chat_template.jinja", "file")
    write(tmp_path, "additional_chat_templates/tool_use.jinja", "file for tools")
    template = ChatTemplate.from_folder(tmp_path)
    assert (template.render(HI), template.render(HI, tools=[{"name": "f"}])) == ("file", "file for tools")


def test_special_tokens_are_variables(tmp_path: Path) -> None:
    write(tmp_path, "special_tokens_map.json", {"bos_token": None, "pad_token": "<pad>", "eos_token": "<old>"})
    write(
        tmp_path,
        "tokenizer_config.json",
        {"eos_token": {"content": "<end>"}, "chat_template": "{{ eos_token }}{{ pad_token }}{{ bos_token }}"},
    )
    assert ChatTemplate.from_folder(tmp_path).render(HI) == "<end><pad>"


@pytest.mark.parametrize(
    ("config", "settings", "name"),
    [
        ({"model_type": "qwen"}, {}, "qwen2"),
        ({"model_type": "qwen2"}, {}, "qwen2"),
        ({"model_type": "qwen2"}, {"added_tokens_decoder": {"5": {"content": "<tool_call>"}}}, "qwen2_5"),
        ({"model_type": "qwen2_moe"}, {}, "qwen2"),
        ({"model_type": "qwen2_vl"}, {}, "qwen2_vl"),
        ({"model_type": "qwen2_5_vl"}, {}, "qwen2_vl"),
        ({"model_type": "qwen3"}, {}, "qwen3"),
        ({"model_type": "qwen3_moe"}, {}, "qwen3"),
        ({"model_type": "qwen3_next"}, {}, "qwen3_instruct_2507"),
        ({"model_type": "qwen3_vl_moe"}, {}, "qwen3_vl"),
        ({"model_type": "qwen3_5", "text_config": {"hidden_size": 2048}}, {}, "qwen3_5_small"),
        ({"model_type": "qwen3_5", "text_config": {"hidden_size": 2560}}, {}, "qwen3_5"),
        ({"model_type": "qwen3_5_text", "hidden_size": 1024}, {}, "qwen3_5_small"),
        ({"model_type": "qwen3_5_moe", "text_config": {"hidden_size": 2048}}, {}, "qwen3_5"),
        ({"model_type": "llama"}, {}, "qwen3_instruct_2507"),
        ({}, {}, "qwen3_instruct_2507"),
    ],
)
def test_a_model_without_a_template(tmp_path: Path, config: Any, settings: Any, name: str) -> None:
    write(tmp_path, "config.json", config)
    write(tmp_path, "tokenizer_config.json", settings)
    assert ChatTemplate.from_folder(tmp_path).source == builtin(name).source
    assert ChatTemplate.from_folder(tmp_path, config.get("model_type")).source == builtin(name).source


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("chat_template.jinja", "{% for %}", r"chat_template\.jinja is damaged: .*line 1"),
        ("chat_template.jinja", "a\n{{ b", r"chat_template\.jinja is damaged: .*line 2"),
        ("chat_template.jinja", "{{ a | nothing }}", "No filter named 'nothing'"),
        ("chat_template.jinja", "x" * 100_000, "too large"),
        ("chat_template.jinja", "x" * 1_000_000, r"chat_template\.jinja is too large"),
        ("chat_template.json", "[]", r"chat_template\.json is of the wrong kind"),
        ("chat_template.json", "{", r"chat_template\.json is not JSON"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not JSON"),
        (
            "tokenizer_config.json",
            {"chat_template": 5},
            r"'chat_template' in .*tokenizer_config\.json is of the wrong kind",
        ),
        ("tokenizer_config.json", {"chat_template": ["x"]}, "an entry of 'chat_template'"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}, "'template'"),
        ("config.json", "[", r"config\.json is not JSON"),
    ],
)
def test_damaged_files(tmp_path: Path, file: str, content: Any, says: str) -> None:
    write(tmp_path, file, content)
    with pytest.raises(TemplateError, match=says):
        ChatTemplate.from_folder(tmp_path)


def test_a_template_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(TemplateError, match="not UTF-8"):
        ChatTemplate.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ raise_exception('Only users may speak') }}", "refuses this conversation: Only users may speak"),
        ("\n{{ 1 / 0 }}", r"cannot render this conversation: ZeroDivisionError.*line 2"),
        ("\n\n{{ nothing.at.all }}", r"'nothing' is undefined \(line 3\)"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{% include 'other' %}", "no loader"),
    ],
)
def test_errors_of_a_template_say_where(source: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        rendered(source)
