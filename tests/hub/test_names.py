"""Short names, aliases and the other ways to name a model of a hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.errors import NotFound, QwenError, UsageError
from qwen_mlx.hub import catalogue
from qwen_mlx.hub.references import Reference, has_quant, parse, resolve


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3:8b", Reference("qwen3:8b", "mlx-community/Qwen3-8B-4bit")),
        ("Qwen3:8B-8bit", Reference("Qwen3:8B-8bit", "mlx-community/Qwen3-8B-8bit")),
        ("qwen3:8b-bf16", Reference("qwen3:8b-bf16", "Qwen/Qwen3-8B")),
        ("qwen3:8b@v1", Reference("qwen3:8b@v1", "mlx-community/Qwen3-8B-4bit", "v1")),
        ("org/repo", Reference("org/repo", "org/repo")),
        ("org/repo@refs/pr/1", Reference("org/repo@refs/pr/1", "org/repo", "refs/pr/1")),
        ("hf.co/org/repo:Q4_K_M", Reference("hf.co/org/repo:Q4_K_M", "org/repo", quant="Q4_K_M")),
        ("https://huggingface.co/org/repo", Reference("https://huggingface.co/org/repo", "org/repo")),
        ("huggingface.co/org/repo@v2", Reference("huggingface.co/org/repo@v2", "org/repo", "v2")),
        ("modelscope:org/repo", Reference("modelscope:org/repo", "org/repo", "master", "modelscope")),
        ("modelscope:org/repo@v1", Reference("modelscope:org/repo@v1", "org/repo", "v1", "modelscope")),
    ],
)
def test_what_names_mean(name: str, expected: Reference) -> None:
    assert parse(name) == expected
    assert parse(str(expected)) == Reference(
        str(expected), expected.repository, expected.revision, expected.source, expected.quant
    )


@pytest.mark.parametrize(
    "name",
    ["hf.co/repo", "modelscope:repo", "org/repo:", "org/repo:a b", "org/repo:../x", "qwen3:", "hf.co/../x", "x:y"],
)
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises((UsageError, NotFound)):
        parse(name)


def test_the_table_is_sound() -> None:
    for name, model in catalogue.table().items():
        assert re.fullmatch(r"qw[a-z0-9.-]+:[a-z0-9.-]+", name)
        assert model.default in model.variants
        for variant, repository in model.variants.items():
            assert re.fullmatch(r"(Qwen|mlx-community)/Qw[A-Za-z0-9.-]+", repository)
            assert variant == "bf16" or repository.endswith(f"-{variant}")
            assert catalogue.find(f"{name}-{variant}") == repository
        assert catalogue.find(name) == model.variants[model.default]


def test_what_the_table_lacks_is_told_with_what_it_has() -> None:
    with pytest.raises(NotFound, match=r"qwen3:8b has no variant '7bit'.*qwen3:8b-4bit, qwen3:8b-6bit"):
        parse("qwen3:8b-7bit")
    with pytest.raises(NotFound, match=r"no size '9b' of qwen3; expected one of qwen3:0\.6b"):
        parse("qwen3:9b")
    with pytest.raises(NotFound, match=r"qwq has sizes; expected one of qwq:32b"):
        parse("qwq")


def test_what_a_short_name_means_is_said_when_it_is_not_here() -> None:
    with pytest.raises(NotFound, match=r"no model 'qwen3:8b', which is mlx-community/Qwen3-8B-4bit, on this machine"):
        resolve("qwen3:8b")
    with pytest.raises(NotFound, match="To download it: `qwen-mlx pull qwen3:8b`"):
        resolve("qwen3:8b")


def test_a_slip_of_the_keys() -> None:
    with pytest.raises(UsageError, match=r"Did you mean qwen3:8b"):
        parse("qwn3:8b")


def test_aliases(tmp_path: Path) -> None:
    catalogue.set_alias("work", "org/model@v1")
    catalogue.set_alias("best", "work")
    catalogue.set_alias("here", str(tmp_path))
    assert parse("best") == Reference("best", "org/model", "v1")
    assert parse("here") == tmp_path
    assert list(catalogue.aliases()) == ["best", "here", "work"]
    assert catalogue.remove_alias("work") == "org/model@v1"
    with pytest.raises(NotFound, match="no alias 'work'; expected best, here"):
        catalogue.remove_alias("work")


def test_an_alias_goes_before_the_table() -> None:
    catalogue.set_alias("qwen3:8b", "org/mine")
    assert parse("qwen3:8b") == Reference("qwen3:8b", "org/mine")


def test_aliases_in_a_circle() -> None:
    """None is made; one that was written into the file by hand is found when it is followed."""
    catalogue.set_alias("a", "b")
    for name, target, circle in (("b", "a", "b -> a -> b"), ("c", "c", "c -> c")):
        with pytest.raises(UsageError, match=f"would stand for itself; found {circle}"):
            catalogue.set_alias(name, target)
    assert catalogue.aliases() == {"a": "b"}
    catalogue.alias_file().write_text('{"a": "b", "b": "a"}')
    with pytest.raises(UsageError, match="leads in a circle"):
        parse("a")
    catalogue.set_alias("c", "a")  # is no worse
    catalogue.set_alias("b", "org/model")  # mends it
    assert parse("c") == Reference("c", "org/model")


def test_aliases_are_for_their_owner_only() -> None:
    catalogue.set_alias("a", "org/model")
    catalogue.alias_file().chmod(0o644)
    catalogue.set_alias("b", "org/model")
    assert catalogue.alias_file().stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "a/b", "..", "demo", "a b", "-x", "x" * 80, "a\\b", "a\nb"])
def test_names_no_alias_can_have(name: str) -> None:
    with pytest.raises(UsageError):
        catalogue.set_alias(name, "org/model")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": ""}', "\xff"])
def test_a_damaged_file_of_aliases(text: str) -> None:
    catalogue.alias_file().parent.mkdir(parents=True)
    catalogue.alias_file().write_bytes(text.encode("latin-1"))
    with pytest.raises(QwenError, match=r"aliases\.json cannot be read"):
        parse("mine")


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_an_error_and_stays_in_the_cache(name: str) -> None:
    try:
        found = parse(name)
    except QwenError:
        return
    if isinstance(found, Reference):
        assert re.fullmatch(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", found.repository)
        assert ".." not in found.repository.split("/") and ".." not in found.revision.split("/")


@pytest.mark.parametrize(
    ("file", "quant", "expected"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M", True),
        ("Qwen3-8B-Q4_K_M.gguf", "q4_k_m", True),
        ("Qwen3-8B.Q4_K_M.gguf", "Q4_K_M", True),
        ("Q4_K_M/Qwen3-00001-of-00002.gguf", "Q4_K_M", True),
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K", False),
        ("Qwen3-8B-IQ4_K_M.gguf", "Q4_K_M", False),
        ("Qwen3-8B-Q4_K_M.safetensors", "Q4_K_M", False),
    ],
)
def test_which_file_holds_a_quantization(file: str, quant: str, expected: bool) -> None:
    assert has_quant(file, quant) is expected
