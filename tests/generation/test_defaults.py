import math

import pytest

from qwen_mlx.errors import ConfigError, UsageError
from qwen_mlx.events import SamplingOptions
from qwen_mlx.generation.defaults import recommended, resolve, stop_ids
from qwen_mlx.generation.sampling import SamplingParams

# As published with Qwen3-8B and Qwen2.5-7B-Instruct.
QWEN3_FILE = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.51.0",
}
BASE_FILE = {"do_sample": False, "eos_token_id": 151643, "max_new_tokens": 2048}


def resolved(generation_config=None, family="qwen3", thinking=False, name="", **options):
    return resolve(
        SamplingOptions(**options),
        generation_config=generation_config or {},
        family=family,
        thinking=thinking,
        name=name,
    )


# (family, thinking, name) -> temperature, top_p, top_k, repetition, presence
TABLE = [
    ("qwen", False, "Qwen-7B-Chat", (1.0, 0.8, 0, 1.0, 0.0)),
    ("qwen2", False, "Qwen1.5-7B-Chat", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen2", False, "Qwen2.5-7B-Instruct", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen2", False, "Qwen2.5-72B-Instruct", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen2", False, "Qwen/Qwen2.5-0.5B-Instruct", (0.7, 0.8, 20, 1.1, 0.0)),
    ("qwen2", False, "mlx-community/Qwen2.5-1.5B-Instruct-4bit", (0.7, 0.8, 20, 1.1, 0.0)),
    ("qwen2", False, "Qwen1.5-1.8B-Chat", (0.7, 0.8, 20, 1.1, 0.0)),
    ("qwen2", False, "Qwen1.5-14B-Chat", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen2_moe", False, "Qwen1.5-MoE-A2.7B-Chat", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen2", True, "Qwen/QwQ-32B", (0.6, 0.95, 40, 1.0, 0.0)),
    ("qwen2", False, "QwQ-32B-4bit", (0.6, 0.95, 40, 1.0, 0.0)),
    ("qwen3", True, "Qwen3-8B", (0.6, 0.95, 20, 1.0, 0.0)),
    ("qwen3", False, "Qwen3-8B", (0.7, 0.8, 20, 1.0, 0.0)),
    ("qwen3_moe", True, "Qwen3-30B-A3B-Thinking-2507", (0.6, 0.95, 20, 1.0, 0.0)),
    ("qwen3_next", False, "Qwen3-Next-80B-A3B-Instruct", (0.7, 0.8, 20, 1.0, 0.0)),
    ("qwen3_moe", False, "Qwen/Qwen3-Coder-30B-A3B-Instruct/", (0.7, 0.8, 20, 1.05, 0.0)),
    ("qwen3_5", True, "Qwen3.5-4B", (1.0, 0.95, 20, 1.0, 1.5)),
    ("qwen3_5", False, "Qwen3.5-4B", (0.7, 0.8, 20, 1.0, 1.5)),
    ("qwen3_5_moe_text", True, "", (1.0, 0.95, 20, 1.0, 1.5)),
]


@pytest.mark.parametrize(("family", "thinking", "name", "expected"), TABLE)
def test_without_a_file_the_authors_advice_holds(family, thinking, name, expected):
    params = resolved(family=family, thinking=thinking, name=name)
    found = (
        params.temperature,
        params.top_p,
        params.top_k,
        params.repetition_penalty,
        params.presence_penalty,
    )
    assert found == expected
    assert (params.min_p, params.frequency_penalty, params.stop) == (0.0, 0.0, ())
    assert params.max_tokens >= 2048


def test_thinking_gets_a_larger_budget():
    for family in ("qwen3", "qwen3_moe", "qwen3_next"):
        long, short = (recommended(family, thinking=thinking).max_tokens for thinking in (True, False))
        assert (long, short) == (38912, 16384)


def test_a_person_comes_before_the_file_and_the_file_before_the_table():
    params = resolved({**QWEN3_FILE, "repetition_penalty": 1.2}, temperature=0.3, top_k=5, seed=9)
    assert (params.temperature, params.top_k, params.seed) == (0.3, 5, 9)
    assert (params.top_p, params.repetition_penalty) == (0.95, 1.2)
    assert params.max_tokens == 16384


def test_everything_a_person_sets_is_taken_over():
    options = {
        "temperature": 0.1,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.2,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.4,
        "seed": 0,
        "max_tokens": 7,
        "stop": ("END",),
    }
    busy = {**QWEN3_FILE, "min_p": 0.1, "repetition_penalty": 1.3, "max_new_tokens": 99}
    assert resolved(busy, family="qwen3_5", **options) == SamplingParams(**options)


def test_all_keys_of_the_file_are_read():
    file = {
        "do_sample": True,
        "temperature": 0.9,
        "top_k": 11,
        "top_p": 0.66,
        "min_p": 0.05,
        "repetition_penalty": 1.15,
        "max_new_tokens": 123,
    }
    params = resolved(file, seed=1)
    assert params == SamplingParams(0.9, 11, 0.66, 0.05, 1.15, seed=1, max_tokens=123)


def test_null_in_the_file_says_nothing():
    nothing = dict.fromkeys(["do_sample", "temperature", "top_k", "top_p", "min_p", "max_new_tokens"])
    assert resolved(nothing, seed=1) == resolved({}, seed=1)


def test_do_sample_false_is_greedy_and_plain():
    params = resolved({**BASE_FILE, "temperature": 0.8}, family="qwen2", name="Qwen2.5-7B")
    assert params.temperature == 0 and params.greedy
    assert params.repetition_penalty == 1.0
    assert params.max_tokens == 2048
    assert resolved(BASE_FILE, family="qwen3_5").presence_penalty == 0
    assert resolved({**BASE_FILE, "repetition_penalty": 1.2}).repetition_penalty == 1.2


def test_do_sample_false_gives_way_to_a_temperature():
    params = resolved({**BASE_FILE, "top_p": 0.5}, family="qwen2", temperature=0.8)
    assert (params.temperature, params.top_p, params.top_k) == (0.8, 0.5, 20)
    assert params.repetition_penalty == 1.05


def test_a_person_who_asks_for_greedy_gets_no_penalty_nobody_asked_for():
    assert resolved({}, family="qwen3_5", temperature=0).presence_penalty == 0
    assert resolved({}, family="qwen3_5", temperature=0, presence_penalty=1.0).presence_penalty == 1
    assert resolved({}, family="qwen2", top_k=1).repetition_penalty == 1


def test_without_a_seed_every_reply_gets_its_own():
    seeds = {resolved().seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_sample", "false"),
        ("do_sample", 0),
        ("temperature", "0.6"),
        ("temperature", -1),
        ("temperature", math.nan),
        ("temperature", True),
        ("top_k", 20.5),
        ("top_k", "20"),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.2),
        ("top_p", [0.9]),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("repetition_penalty", {}),
        ("max_new_tokens", 0),
        ("max_new_tokens", "many"),
    ],
)
def test_a_damaged_file_is_named_with_its_key(key, value):
    with pytest.raises(ConfigError) as caught:
        resolved({**QWEN3_FILE, key: value})
    message = str(caught.value)
    assert key in message and "generation_config.json" in message and "expected" in message


def test_a_damaged_file_can_be_overruled():
    assert resolved({**QWEN3_FILE, "top_p": "x"}, top_p=0.5).top_p == 0.5


def test_a_file_that_is_no_object():
    with pytest.raises(ConfigError, match=r"generation_config\.json"):
        resolved(["temperature"])


@pytest.mark.parametrize(("field", "value"), [("temperature", -1), ("top_p", 7), ("seed", -3), ("stop", "END")])
def test_bad_options_are_the_persons_fault(field, value):
    with pytest.raises(UsageError, match=field):
        resolved(QWEN3_FILE, **{field: value})


# ------------------------------------------------------------------------------------------------------- stop ids


class Tokenizer:
    def token_id(self, text):
        return {"<|im_end|>": 151645, "<|endoftext|>": 151643, "<|im_start|>": 151644}.get(text)


class Wordless:
    def token_id(self, text):
        return None


def test_stop_ids_come_from_all_places():
    config = {"eos_token_id": 4, "text_config": {"eos_token_id": [5, 6]}}
    assert stop_ids({"eos_token_id": [1, 2]}, config, Wordless()) == {1, 2, 4, 5, 6}
    assert stop_ids({"eos_token_id": [1, 2]}, config, Tokenizer()) == {1, 2, 4, 5, 6, 151643, 151645}


def test_a_config_that_names_the_wrong_token_is_mended():
    found = stop_ids({}, {"eos_token_id": 151643}, Tokenizer())
    assert found == {151643, 151645} and isinstance(found, frozenset)


def test_id_zero_counts():
    class Zero:
        def token_id(self, text):
            return 0 if text == "<|im_end|>" else None

    assert stop_ids({}, {"text_config": None}, Zero()) == {0}
    assert stop_ids({"eos_token_id": 0}, {}, Wordless()) == {0}


def test_nothing_known():
    assert stop_ids({"eos_token_id": None}, {"eos_token_id": []}, Wordless()) == frozenset()


@pytest.mark.parametrize("value", ["151645", [1, "2"], 1.0, True, -1, {"id": 3}, [None]])
def test_an_eos_that_is_no_id_is_refused(value):
    with pytest.raises(ConfigError, match=r"eos_token_id of generation_config\.json"):
        stop_ids({"eos_token_id": value}, {}, Tokenizer())
    with pytest.raises(ConfigError, match=r"eos_token_id of config\.json"):
        stop_ids({}, {"eos_token_id": value}, Tokenizer())
    with pytest.raises(ConfigError, match="text_config"):
        stop_ids({}, {"text_config": {"eos_token_id": value}}, Tokenizer())


@pytest.mark.parametrize("value", ["text", 3, [1]])
def test_a_text_config_that_is_no_object_is_refused(value):
    with pytest.raises(ConfigError, match="text_config"):
        stop_ids({}, {"text_config": value}, Tokenizer())
