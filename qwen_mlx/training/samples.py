"""What a model in training answers, greedily."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_mlx.checkpoints.load import LoadedModel
from qwen_mlx.errors import QwenError
from qwen_mlx.events import CancelToken
from qwen_mlx.generation import defaults
from qwen_mlx.generation.generate import Token, generate
from qwen_mlx.generation.sampling import SamplingParams


def answer(
    model: LoadedModel,
    messages: Sequence[dict[str, str]],
    max_tokens: int,
    cancel: CancelToken | None = None,
    thinking: bool | None = False,
) -> str:
    """The likeliest answer to a conversation, without special tokens; cut short when cancelled.

    Args:
        messages: as a chat template sees them, the question last.
        thinking: what the template is told, where it has a switch.
    """
    tokenizer = model.tokenizer
    text = model.template.render(
        tokenizer.disarmed(list(messages)), tools=(), add_generation_prompt=True, enable_thinking=thinking
    )
    return complete(model, tokenizer.encode_disarmed(text), max_tokens, cancel)


def complete(model: LoadedModel, prompt: Sequence[int], max_tokens: int, cancel: CancelToken | None = None) -> str:
    """The likeliest continuation of token ids, as text."""
    stop_ids = defaults.stop_ids(model.generation_config, model.config, model.tokenizer)
    room = model.spec.max_positions - len(prompt)
    params = SamplingParams(temperature=0.0, max_tokens=max(1, min(max_tokens, room)))
    was_training = model.decoder.training
    model.decoder.eval()
    try:
        ids = [
            event.id
            for event in generate(model.decoder, prompt, params, stop_ids=stop_ids, cancel=cancel)
            if isinstance(event, Token)
        ]
    finally:
        model.decoder.train(was_training)
    return model.tokenizer.decode([number for number in ids if number not in stop_ids]).strip()


def sample(model: LoadedModel, prompt: str, max_tokens: int, cancel: CancelToken | None = None) -> str:
    """The answer to one message, or the continuation of a text for a model without a chat template.

    An error of the template or of the prompt is the answer, in brackets: it must not end a run.
    """
    try:
        return answer(model, [{"role": "user", "content": prompt}], max_tokens, cancel)
    except QwenError as problem:
        return f"[{problem}]"
