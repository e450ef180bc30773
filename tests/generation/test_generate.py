"""The decode loop and the caches of conversations, on tiny random models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, PrefillProgress
from qwen_mlx.generation import generate as module
from qwen_mlx.generation.generate import Finished, Token, generate
from qwen_mlx.generation.prefix_cache import Prefix, PrefixCache, common_length
from qwen_mlx.generation.sampling import SamplingParams
from tests.models import tiny

import mlx.core as mx  # isort: skip

WINDOWED = tiny.QWEN2 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
MODELS = {
    "full": tiny.decoder(tiny.QWEN3),
    "window": tiny.decoder(WINDOWED),
    "delta": tiny.decoder(tiny.QWEN3_5),
}
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26]


def greedy(name: str, prompt: Sequence[int], count: int) -> list[int]:
    """The plain way: the whole text again for every token."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(MODELS[name](mx.array([text]))[0, -1].argmax()))
    return text[len(prompt) :]


def tokens(events: Any) -> list[int]:
    return [e.id for e in events if isinstance(e, Token)]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("length", [1, 2, 12])
def test_greedy_is_the_argmax_of_the_whole_text(name: str, length: int) -> None:
    events = list(generate(MODELS[name], PROMPT[:length], GREEDY))
    assert tokens(events) == greedy(name, PROMPT[:length], 12)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_pieces_of_the_prompt_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = PROMPT * 9
    expected = tokens(generate(MODELS[name], prompt, GREEDY))
    for size in (1, 5, 16):
        monkeypatch.setattr(module, "_FIRST_PIECE", size)
        monkeypatch.setattr(module, "_SMALLEST_PIECE", size)
        monkeypatch.setattr(module, "_LARGEST_PIECE", size)
        events = list(generate(MODELS[name], prompt, GREEDY, pause_at=41))
        assert tokens(events) == expected
        progress = [e.done for e in events if isinstance(e, PrefillProgress)]
        assert progress == sorted(progress)
        assert progress[0] == 0
        assert progress[-1] == len(prompt)
        assert 41 in progress


def test_a_stop_id_is_the_last_token() -> None:
    free = greedy("full", PROMPT, 12)
    stop = free[5]
    events = list(generate(MODELS["full"], PROMPT, GREEDY, stop_ids={stop}))
    assert tokens(events) == free[: free.index(stop) + 1]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_cache_holds_what_was_shown(name: str, count: int) -> None:
    """Also after the reader went away in the middle."""
    model = MODELS[name]
    cache = model.make_cache()
    steps = generate(model, PROMPT, SamplingParams(temperature=0.0, max_tokens=50), cache=cache)
    shown = []
    for event in steps:
        if isinstance(event, Token):
            shown.append(event.id)
            if len(shown) == count:
                break
    steps.close()
    text = PROMPT + shown
    assert cache[0].offset == len(text)
    more = list(generate(model, [*text, 7], GREEDY, cache=cache))
    assert tokens(more) == greedy(name, [*text, 7], 12)
    assert isinstance(more[0], PrefillProgress)
    assert more[0].cached == len(text)


def test_cancel_is_heard_at_the_next_step() -> None:
    cancel = CancelToken()
    seen = []
    for event in generate(MODELS["full"], PROMPT, SamplingParams(temperature=0.0, max_tokens=50), cancel=cancel):
        seen.append(event)
        if isinstance(event, Token):
            cancel.cancel()
    assert len(tokens(seen)) == 1
    assert seen[-1].reason == "cancelled"


def test_cancel_in_the_prompt_leaves_a_usable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_PIECE", "_SMALLEST_PIECE", "_LARGEST_PIECE"):
        monkeypatch.setattr(module, name, 10)
    model, prompt = MODELS["full"], PROMPT * 5
    cancel, cache = CancelToken(), MODELS["full"].make_cache()
    for event in generate(model, prompt, GREEDY, cache=cache, cancel=cancel):
        if isinstance(event, PrefillProgress) and event.done == 20:
            cancel.cancel()
    assert cache[0].offset == 20
    assert tokens(generate(model, prompt, GREEDY, cache=cache)) == greedy("full", prompt, 12)


def test_the_seed_decides() -> None:
    def run(seed: int) -> list[int]:
        params = SamplingParams(temperature=1.5, top_k=20, seed=seed, max_tokens=20)
        return tokens(generate(MODELS["full"], PROMPT, params))

    first = run(1)
    mx.random.normal((100,))  # global random state has no say
    assert run(1) == first
    assert run(2) != first


def test_no_tokens_wanted() -> None:
    events = list(generate(MODELS["full"], PROMPT, SamplingParams(temperature=0.0, max_tokens=1)))
    assert len(tokens(events)) == 1


@pytest.mark.parametrize("prompt", [[], [97], [-1], [1, 10**6]])
def test_prompts_that_cannot_be_are_refused(prompt: list[int]) -> None:
    with pytest.raises(UsageError):
        list(generate(MODELS["full"], prompt, GREEDY))


# ---------------------------------------------------------------------------------------------------- conversations


def turn(cache: PrefixCache, name: str, key: str, prompt: list[int], count: int = 4) -> tuple[list[int], int]:
    """One turn; returns the text it wrote and how many tokens it did not compute."""
    prefix = cache.take(key, prompt)
    cached = prefix.caches[0].offset
    params = SamplingParams(temperature=0.0, max_tokens=count)
    pause = len(prompt) - 1 if prefix.needs_checkpoint and len(prompt) > 1 else None
    out = []
    for event in generate(MODELS[name], prompt, params, cache=prefix.caches, pause_at=pause):
        if isinstance(event, Token):
            out.append(event.id)
        elif isinstance(event, PrefillProgress) and event.done == pause:
            prefix.take_checkpoint()
    cache.put(key, prefix, prompt + out)
    return out, cached


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_second_turn_computes_only_what_is_new(name: str) -> None:
    cache = PrefixCache(MODELS[name], 1 << 30)
    reply, cached = turn(cache, name, "a", PROMPT)
    assert cached == 0
    second = [*PROMPT, *reply, 1, 2, 3]
    again, cached = turn(cache, name, "a", second)
    assert cached == len(PROMPT) + len(reply) - 1
    assert again == greedy(name, second, 4)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_turn_whose_reply_was_rewritten_keeps_the_prompt(name: str) -> None:
    """A template drops earlier thinking: the next prompt has the old prompt, and then something else."""
    cache = PrefixCache(MODELS[name], 1 << 30)
    prompt = PROMPT * 3
    turn(cache, name, "a", prompt, count=10)
    second = [*prompt, 5, 6, 7, 8]
    again, cached = turn(cache, name, "a", second)
    assert cached in (len(prompt), len(prompt) - 1)
    assert again == greedy(name, second, 4)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.lists(st.integers(0, 96), max_size=25)),
        min_size=1,
        max_size=6,
    ),
)
def test_any_history_of_turns_gives_the_text_of_a_cold_start(
    name: str, turns: list[tuple[str, int, list[int]]]
) -> None:
    cache = PrefixCache(MODELS[name], 1 << 30)
    texts = {"a": list(PROMPT), "b": [1]}
    for key, keep, new in turns:
        prompt = [*texts[key][: max(keep, 1)], *new]
        reply, _ = turn(cache, name, key, prompt, count=3)
        assert reply == greedy(name, prompt, 3)
        texts[key] = prompt + reply


@pytest.mark.parametrize("bits", ["8", "4"])
def test_a_turn_over_a_quantized_cache(bits: str) -> None:
    """What was read before is as good as what would be read now; and it takes fewer bytes."""
    model = MODELS["full"]
    cache, plain = PrefixCache(model, 1 << 30, bits), PrefixCache(model, 1 << 30)
    prompt = PROMPT * 20
    reply, _ = turn(cache, "full", "a", prompt)
    turn(plain, "full", "a", prompt)
    assert cache.nbytes * 3 < plain.nbytes * (1.2 if bits == "8" else 0.75)
    second = [*prompt, *reply, 1, 2, 3]
    again, cached = turn(cache, "full", "a", second)
    assert cached == len(prompt) + len(reply) - 1
    assert again == turn(PrefixCache(model, 1 << 30, bits), "full", "b", second)[0]


def test_old_conversations_make_room() -> None:
    model = MODELS["full"]
    cache = PrefixCache(model, 1)
    turn(cache, "full", "a", PROMPT)
    turn(cache, "full", "b", PROMPT)
    assert turn(cache, "full", "b", [*PROMPT, 1])[1] == len(PROMPT)
    assert turn(cache, "full", "a", [*PROMPT, 1])[1] == 0


def test_a_prefix_is_out_while_it_is_used() -> None:
    cache = PrefixCache(MODELS["full"], 1 << 30)
    turn(cache, "full", "a", PROMPT)
    assert cache.take("a", [*PROMPT, 1]).caches[0].offset > 0
    assert cache.take("a", [*PROMPT, 1]).caches[0].offset == 0


def test_common_length() -> None:
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1, 2], [1, 2, 4]) == 2
    assert common_length([], [1]) == 0
    assert Prefix(MODELS["full"].make_cache()).nbytes == 0
