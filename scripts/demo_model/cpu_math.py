"""Exponentials that a CPU computes fast, for training only.

MLX's CPU backend evaluates `exp` one element at a time (9 ns each), which takes a third of a training step of a
model this small. A rational approximation of tanh needs only additions, multiplications and one division, which
`mx.compile` fuses into one vectorized loop: seven times faster, and accurate to 2e-7.
"""

from __future__ import annotations

import mlx.core as mx

NUMERATOR = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
DENOMINATOR = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
"""Minimax coefficients of tanh(x) = x * P(x^2) / Q(x^2) on [-7.9, 7.9] (the ones commonly used for float32)."""


def _tanh(x: mx.array) -> mx.array:
    x = mx.clip(x, -7.9, 7.9)
    square = x * x
    top: mx.array | float = NUMERATOR[-1]
    for coefficient in NUMERATOR[-2::-1]:
        top = top * square + coefficient
    bottom: mx.array | float = DENOMINATOR[-1]
    for coefficient in DENOMINATOR[-2::-1]:
        bottom = bottom * square + coefficient
    return x * top / bottom


@mx.compile
def _exp_negative(x: mx.array) -> mx.array:
    """exp(x) for x <= 0, absolute error below 3e-7."""
    t = _tanh(0.5 * x)
    return (1 + t) / (1 - t)


@mx.compile
def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return gate * (0.5 + 0.5 * _tanh(0.5 * gate)) * up


@mx.compile
def _swiglu_gradient(gate: mx.array, up: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    sigmoid = 0.5 + 0.5 * _tanh(0.5 * gate)
    silu = gate * sigmoid
    return cotangent * up * (sigmoid + silu * (1 - sigmoid)), cotangent * silu


@mx.custom_function
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up, any shape."""
    return _swiglu(gate, up)


@swiglu.vjp
def _swiglu_vjp(primals, cotangent, output):  # type: ignore[no-untyped-def]
    return _swiglu_gradient(primals[0], primals[1], cotangent)


@mx.custom_function
def softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis."""
    weights = _exp_negative(scores - mx.max(scores, axis=-1, keepdims=True))
    return weights / mx.sum(weights, axis=-1, keepdims=True)


@softmax.vjp
def _softmax_vjp(primals, cotangent, output):  # type: ignore[no-untyped-def]
    product = output * cotangent
    return product - output * mx.sum(product, axis=-1, keepdims=True)


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Causal attention of (batch, heads, length, head_dim); keys and values may have fewer heads."""
    batch, heads, length, width = queries.shape
    groups = keys.shape[1]
    grouped = (queries * scale).reshape(batch, groups, heads // groups * length, width)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, groups, heads // groups, length, length)
    future = mx.triu(mx.full((length, length), -1e9, dtype=scores.dtype), k=1)
    weights = softmax(scores + future).reshape(batch, groups, heads // groups * length, length)
    return (weights @ values).reshape(batch, heads, length, width)


@mx.custom_function
def token_losses(logits: mx.array, targets: mx.array) -> mx.array:
    """Cross-entropy of each row. logits (rows, vocabulary), targets (rows,)."""
    highest = mx.max(logits, axis=-1, keepdims=True)
    total = mx.sum(_exp_negative(logits - highest), axis=-1)
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.log(total) + highest[:, 0] - chosen


@token_losses.vjp
def _token_losses_vjp(primals, cotangent, output):  # type: ignore[no-untyped-def]
    logits, targets = primals
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)
    log_total = output[:, None] + chosen
    probabilities = _exp_negative(mx.minimum(logits - log_total, 0))
    hit = mx.arange(logits.shape[-1])[None] == targets[:, None]
    return (probabilities - hit) * cotangent[:, None], mx.zeros_like(targets)
