"""Which tokens are learnt, against TRL's training templates and what transformers renders for a chat."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_mlx.text.template import builtin
from qwen_mlx.text.tokenizer import Tokenizer
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.data.contents import Remarks
from qwen_mlx.training.data.encode import Encoded, Encoder
from qwen_mlx.training.data.messages import conversation

FIXTURE: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "training" / "masks.json").read_text(encoding="utf-8")
)
TOKENIZER = Tokenizer(FIXTURE["tokenizer"], eos_token="<|im_end|>")
CONVERSATIONS = FIXTURE["conversations"]
# What TRL's templates learn although the generation prompt has it already: where the answer begins.
PROMPTED = {"qwen2_5": "\n", "qwen3": "", "qwen3_instruct_2507": "", "qwen3_5": "<think>\n", "qwen3_6": "<think>\n"}


def encoded(template: str, name: str, **options: Any) -> list[Encoded]:
    case = CONVERSATIONS[name]
    content = conversation(case["messages"], "row", Remarks(), tools=case.get("tools"))
    config = DataConfig("rows.jsonl", max_len=100_000, **options)
    return Encoder(config, TOKENIZER, builtin(template)).encode(content, "row", Remarks())


def learnt(example: Encoded) -> list[str]:
    """The texts that are learnt, one for each run of tokens with a weight."""
    runs = groupby(zip(example.ids.tolist(), example.weights.tolist()), key=lambda pair: pair[1] > 0)
    return [TOKENIZER.decode([number for number, _ in run], skip_special=False) for weight, run in runs if weight]


def theirs(template: str, name: str) -> tuple[list[int], np.ndarray]:
    found = FIXTURE["trained"][template][name]
    return found["ids"], np.array([digit == "1" for digit in found["mask"]])


THINKS = {name for name, case in CONVERSATIONS.items() if any("reasoning_content" in each for each in case["messages"])}
# TRL's template would have the 2507 model think, which it cannot.
CASES = [
    (template, name)
    for template in FIXTURE["trained"]
    for name in CONVERSATIONS
    if not (template == "qwen3_instruct_2507" and name in THINKS)
]


@pytest.mark.parametrize(("template", "name"), CASES)
def test_one_example_holds_what_trl_renders(template: str, name: str) -> None:
    """`keep` writes the text of the training templates, and learns what they do, but for what a prompt already has."""
    (example,) = encoded(template, name, history="keep", empty_think="learn")
    ids, mask = theirs(template, name)
    assert TOKENIZER.decode(example.ids, skip_special=False) == TOKENIZER.decode(ids, skip_special=False)
    runs = groupby(zip(ids, mask.tolist()), key=lambda pair: pair[1])
    texts = [TOKENIZER.decode([number for number, _ in run], skip_special=False) for on, run in runs if on]
    assert learnt(example) == [text.removeprefix(PROMPTED[template]) for text in texts]
    assert len(texts) == sum(message["role"] == "assistant" for message in CONVERSATIONS[name]["messages"])


@pytest.mark.parametrize(("template", "name"), [case for case in CASES if case[0] in ("qwen3", "qwen3_instruct_2507")])
def test_tokens_and_masks_are_those_of_trl(template: str, name: str) -> None:
    (example,) = encoded(template, name, history="keep", empty_think="learn")
    ids, mask = theirs(template, name)
    assert example.ids.tolist() == ids
    assert (example.weights > 0).tolist() == mask.tolist()


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5", "qwen3_6"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_an_empty_block_that_the_prompt_has_is_not_learnt(template: str, name: str) -> None:
    """With thinking switched off, the generation prompt ends with the whole block."""
    (masked,) = encoded(template, name, empty_think="mask")
    (learned,) = encoded(template, name, empty_think="learn")
    empty = ("<think>\n\n</think>\n\n", "\n</think>\n\n")
    expected = [text.removeprefix(empty[0]).removeprefix(empty[1]) for text in learnt(learned)]
    assert learnt(masked) == expected
    whole = [TOKENIZER.decode(example.ids, skip_special=False) for example in (masked, learned)]
    assert whole[0] == whole[1]


@pytest.mark.parametrize(
    ("template", "name"), [(template, name) for template in FIXTURE["chats"] for name in CONVERSATIONS]
)
def test_every_answer_follows_what_a_chat_shows(template: str, name: str) -> None:
    """`chat` gives, for every answer, exactly the tokens of the prompt that transformers renders, then the answer's."""
    examples = encoded(template, name, history="chat")
    answers = FIXTURE["chats"][template][name]
    found = []
    for example in examples:
        ids, on = example.ids.tolist(), (example.weights > 0).tolist()
        begins = [place for place in range(1, len(ids)) if on[place] and not on[place - 1]]
        for begin in begins:
            end = next((place for place in range(begin, len(ids)) if not on[place]), len(ids))
            found.append((ids[:begin], ids[begin:end]))
    assert found == [(TOKENIZER.encode(read), TOKENIZER.encode(written)) for read, written in answers]
    shared = sum(later[0].startswith(earlier[0] + earlier[1]) for earlier, later in pairwise(answers))
    assert len(examples) == len(answers) - shared


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_5"])
def test_the_last_answer_alone(template: str, name: str) -> None:
    (last,) = encoded(template, name, loss_on="last")
    chat = encoded(template, name, history="chat")[-1]
    assert last.ids.tolist() == chat.ids.tolist()
    assert learnt(last) == learnt(chat)[-1:]


def test_the_fixture_is_whole() -> None:
    assert len(CASES) == 5 * 7 - len(THINKS) and set(FIXTURE["chats"]) == {"qwen3", "qwen3_5"}
    multi = FIXTURE["chats"]["qwen3"]["thinking in every turn"]
    assert not multi[1][0].startswith(multi[0][0] + multi[0][1])  # the published template does rewrite what is past
