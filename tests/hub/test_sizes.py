"""How large the models of the table are said to be, from their names."""

from __future__ import annotations

import pytest

from qwen_mlx.hub import catalogue
from qwen_mlx.hub.sizes import listed, parameters_of

# Keys and values of one token at 16 bits, from the published config.json: 2 x layers x heads x head size x 2 bytes.
CACHES = {
    "qwen3:0.6b": 2 * 28 * 8 * 128 * 2,
    "qwen3:4b": 2 * 36 * 8 * 128 * 2,
    "qwen3:8b": 2 * 36 * 8 * 128 * 2,
    "qwen3:14b": 2 * 40 * 8 * 128 * 2,
    "qwen3:32b": 2 * 64 * 8 * 128 * 2,
    "qwen3:30b-a3b": 2 * 48 * 4 * 128 * 2,
    "qwen2.5:72b": 2 * 80 * 8 * 128 * 2,
    "qwen1.5:7b": 2 * 32 * 32 * 128 * 2,
    "qwen1.5:72b": 2 * 80 * 64 * 128 * 2,
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3:8b", 8e9),
        ("qwen3:0.6b", 6e8),
        ("qwen3:30b-a3b", 3e10),
        ("qwen3-2507:4b-thinking", 4e9),
        ("qwen2:57b-a14b", 5.7e10),
        ("qwen1.5:moe-a2.7b", 1.43e10),
        ("qwen2.5-1m:14b", 1.4e10),
        ("something:large", None),
    ],
)
def test_what_a_name_says(name, parameters):
    assert parameters_of(name) == parameters


def test_every_model_of_the_table_has_a_size():
    for model in catalogue.table().values():
        found = listed(model)
        assert {entry.repository for entry in found} == set(model.variants.values())
        assert [entry.default for entry in found] == [True] + [False] * (len(found) - 1)
        for entry in found:
            assert catalogue.find(entry.name) == entry.repository, "the name can be pulled"
            assert 3e8 < entry.parameters < 1e12 and 0.2e9 < entry.size < 1e12


def test_the_size_on_the_disk():
    by_name = {entry.name: entry for entry in listed(catalogue.table()["qwen3:8b"])}
    assert by_name["qwen3:8b"].size == 8e9 * 4.5 / 8
    assert by_name["qwen3:8b-bf16"].size == 16e9


@pytest.mark.parametrize("name", CACHES)
def test_the_cache_is_guessed_from_above(name):
    numbers = listed(catalogue.table()[name])[0].numbers()
    assert CACHES[name] <= numbers.cache_bytes(1) <= 3 * CACHES[name]
    assert numbers.cache_bytes(8192) == 8192 * numbers.cache_bytes(1)
