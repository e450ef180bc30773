"""What a quantized KV cache costs and saves: quality of the demo model, bytes a token, memory of a prompt, speed.

    python -m scripts.measure_kv_cache [--texts 200] [--prompt 4096] [--speed]

Quality is measured on conversations of the kind the demo model was trained on, drawn from a seed of their own: every
token of an answer is predicted from the text before it, whose keys and values went through the cache.
"""

from __future__ import annotations

import argparse
import time

from qwen_mlx import load
from qwen_mlx.hub.references import resolve
from qwen_mlx.models import Decoder, read_spec
from qwen_mlx.models.quantized_cache import KV_BITS

import mlx.core as mx  # isort: skip
import numpy as np
from mlx.utils import tree_map

SEED = 990_001  # of texts that nothing was trained on
FORMS = (None, *KV_BITS)
# Attention as in Qwen3-0.6B; what surrounds it is small, so that attention decides the peak.
PROBE = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=200, help="conversations to measure quality on (default: 200)")
    parser.add_argument("--prompt", type=int, default=4096, help="tokens of the prompt (default: 4096)")
    parser.add_argument("--speed", action="store_true", help="time decoding too; wants a quiet machine")
    args = parser.parse_args()
    quality(args.texts)
    probe = Decoder(read_spec(PROBE))
    probe.update(tree_map(lambda x: mx.random.normal(x.shape, key=mx.random.key(x.size)) * 0.05, probe.parameters()))
    memory(probe, args.prompt)
    if args.speed:
        for length in (512, args.prompt):
            speed(probe, length)


def quality(count: int) -> None:
    """Perplexity of the answers, how often the likeliest token is the same, and the divergence of the distributions."""
    from scripts.demo_model.conversations import example

    model = load(resolve("demo")) if count else None
    losses: dict[str | None, list[np.ndarray]] = {form: [] for form in FORMS}
    same: dict[str | None, list[np.ndarray]] = {form: [] for form in FORMS}
    divergence: dict[str | None, list[np.ndarray]] = {form: [] for form in FORMS}
    for index in range(count):
        assert model is not None
        conversation = example(SEED, index)
        prompt = model.tokenizer.encode(conversation.prompt())
        text = (prompt + model.tokenizer.encode(conversation.target()))[:512]
        if len(text) - len(prompt) < 2:
            continue
        answers = mx.array(text[len(prompt) :])
        plain = None
        for form in FORMS:
            logits = model.decoder(mx.array([text[:-1]]), cache=model.decoder.make_cache(kv_bits=form))
            logs = logits[0, len(prompt) - 1 :].astype(mx.float32)
            logs = logs - mx.logsumexp(logs, axis=-1, keepdims=True)
            plain = logs if plain is None else plain
            losses[form].append(np.array(-mx.take_along_axis(logs, answers[:, None], axis=-1)[:, 0]))
            same[form].append(np.array(mx.argmax(logs, axis=-1) == mx.argmax(plain, axis=-1)))
            divergence[form].append(np.array((mx.exp(plain) * (plain - logs)).sum(axis=-1)))
    if not count:
        return
    print(f"demo model, {sum(len(x) for x in losses[None])} tokens of answers")
    for form in FORMS:
        loss, agree, kl = (np.concatenate(x[form]) for x in (losses, same, divergence))
        print(
            f"  {form or 'plain':6} perplexity {np.exp(loss.mean()):.5f}   same likeliest token {agree.mean():8.3%}   "
            f"KL {kl.mean():.2e} nats, 99% below {np.quantile(kl, 0.99):.2e}"
        )


def memory(probe: Decoder, length: int) -> None:
    """Bytes a token, and the most that a prompt takes at a time."""
    mixer = probe.spec.layers[0].mixer
    layers, heads, dims = len(probe.spec.layers), mixer.kv_heads, mixer.head_dim  # type: ignore[union-attr]
    text = mx.random.randint(0, 1024, (1, length), key=mx.random.key(0))
    print(f"prompt of {length} tokens, {layers} layers, {heads} KV heads of {dims}, {probe.embed_tokens.weight.dtype}")
    for form in FORMS:
        cache = probe.make_cache(kv_bits=form)
        for layer in cache:
            layer.reserve(length + 1)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        probe.hidden_states(text, cache)
        mx.eval([layer.state for layer in cache])
        mx.eval(probe.hidden_states(text[:, :1], cache))
        peak = mx.get_peak_memory() - before
        held = sum(layer.nbytes for layer in cache) / (layers * cache[0].size())
        bits = KV_BITS.get(form or "", (32, 32))
        expected = heads * (dims * sum(bits) // 8 + (8 * -(-dims // 64) if form else 0))
        print(
            f"  {form or 'plain':6} {expected} bytes a token and layer by the formula, {held:.0f} allocated; "
            f"peak {peak / 2**20:.0f} MiB"
        )


def speed(probe: Decoder, length: int) -> None:
    """Milliseconds a token on this machine, the best of twenty."""
    text = mx.random.randint(0, 1024, (1, length), key=mx.random.key(0))
    print(f"decoding after {length} tokens")
    for form in FORMS:
        cache = probe.make_cache(kv_bits=form)
        mx.eval(probe(text, cache=cache)[:, -1])
        times = []
        for _ in range(20):
            start = time.perf_counter()
            mx.eval(probe(text[:, :1], cache=cache))
            times.append(time.perf_counter() - start)
        print(f"  {form or 'plain':6} {1e3 * min(times):.2f} ms")


if __name__ == "__main__":
    main()
