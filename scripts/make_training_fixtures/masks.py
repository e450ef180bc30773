"""Writes tests/fixtures/training/masks.json: which tokens TRL and transformers say an assistant has written.

Needs a Python of its own: torch==2.13.0 trl==1.16.0 transformers==5.23.0 tokenizers

    python scripts/make_training_fixtures/masks.py

`trained` holds, for each of TRL's training templates and each conversation, the ids and `assistant_masks` of
`apply_chat_template`. `chats` holds, for each published template, what a chat reads before each answer, and what then
is written: of the two generation prompts (as it is, and with thinking switched off) the longer one that the
conversation up to the answer's end begins with, and the rest. The tokenizer is a tiny one, and is in the file.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "training" / "masks.json"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"

# Our template -> TRL's for training.
TRAINING = {
    "qwen2_5": "qwen2_5_training",
    "qwen3": "qwen3_training",
    "qwen3_instruct_2507": "qwen3_instruct_2507_training",
    "qwen3_5": "qwen3_5_think_training",
    "qwen3_6": "qwen3_6_training",
}
# Our template -> the published one.
PUBLISHED = {"qwen3": "qwen3", "qwen3_5": "qwen3_5_think"}

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(town: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"town": town}}}


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [user("What is two plus two?"), assistant("It is four.")]},
    "system and three turns": {
        "messages": [
            {"role": "system", "content": "You answer in one line."},
            user("Hello!"),
            assistant("Hello, how can I help?"),
            user("你好，世界"),
            assistant("你好！\n\n  - 一\n  - 二 😀"),
            user("Bye"),
            assistant("Bye."),
        ]
    },
    "thinking in every turn": {
        "messages": [
            user("2+2?"),
            assistant("Four.", reasoning_content="Two and two.\n\nThat is four."),
            user("And 3+3?"),
            assistant("Six.", reasoning_content="Three and three are six."),
        ]
    },
    "thinking in the text": {
        "messages": [
            user("2+2?"),
            assistant("<think>\nTwo and two.\n</think>\n\nFour."),
            user("So?"),
            assistant("Yes."),
        ]
    },
    "thinking in the first turn only": {
        "messages": [user("2+2?"), assistant("Four.", reasoning_content="Hm."), user("Thanks"), assistant("Welcome.")]
    },
    "tools": {
        "messages": [
            {"role": "system", "content": "Use tools."},
            user("Weather in Bern and Rome?"),
            assistant("", tool_calls=[call("Bern"), call("Rome")]),
            {"role": "tool", "content": "rain"},
            {"role": "tool", "content": "sun"},
            assistant("Rain in Bern, sun in Rome."),
            user("And Oslo?"),
            assistant("I look.", tool_calls=[call("Oslo")]),
            {"role": "tool", "content": "snow"},
            assistant("Snow."),
        ],
        "tools": [WEATHER],
    },
    "tools and thinking": {
        "messages": [
            user("Weather in Bern?"),
            assistant("", reasoning_content="I need the tool.", tool_calls=[call("Bern")]),
            {"role": "tool", "content": "rain"},
            assistant("Rain.", reasoning_content="It says rain."),
        ],
        "tools": [WEATHER],
    },
}


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE as Qwen has it, of some hundred tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = [message["content"] for case in CONVERSATIONS.values() for message in case["messages"]]
    tokenizer.train_from_iterator([*texts, "user assistant system\n\n", "\n\n"] * 3, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(MARKERS))
    return tokenizer


def main() -> None:
    tokenizer = tiny_tokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")

    def rendered(template: str, messages: list[dict[str, Any]], **options: Any) -> Any:
        fast.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
        return fast.apply_chat_template(messages, **options)

    trained: dict[str, Any] = {}
    for ours, theirs in TRAINING.items():
        for name, case in CONVERSATIONS.items():
            found = rendered(
                theirs,
                case["messages"],
                tools=case.get("tools"),
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            mask = "".join(map(str, found["assistant_masks"]))
            trained.setdefault(ours, {})[name] = {"ids": list(found["input_ids"]), "mask": mask}
    chats: dict[str, Any] = {}
    for ours, theirs in PUBLISHED.items():
        for name, case in CONVERSATIONS.items():
            answers = []
            for number, message in enumerate(case["messages"]):
                if message["role"] == "assistant":
                    before, to_here = case["messages"][:number], case["messages"][: number + 1]
                    options = {"tools": case.get("tools"), "tokenize": False}
                    prompts = [
                        rendered(theirs, before, add_generation_prompt=True, **options, **thinking)
                        for thinking in ({}, {"enable_thinking": False})
                    ]
                    whole = rendered(theirs, to_here, **options)
                    read = max((prompt for prompt in prompts if whole.startswith(prompt)), key=len)
                    answers.append([read, whole[len(read) :]])
            chats.setdefault(ours, {})[name] = answers
    versions = {name: metadata.version(name) for name in ("trl", "transformers", "tokenizers")}
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    value = {
        "made_with": versions,
        "tokenizer": json.loads(tokenizer.to_str()),
        "conversations": CONVERSATIONS,
        "trained": trained,
        "chats": chats,
    }
    FIXTURE.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"wrote {FIXTURE}: {FIXTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
