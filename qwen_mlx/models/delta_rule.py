"""The gated delta rule: `S = decay S; S = S + beta (v - S k) k^T; y = S q`, token after token.

A GPU runs MLX's kernel. MLX's CPU build walks through the tokens one by one; there, a prompt is computed in chunks,
within which everything is a matrix product (the WY form of Gated Delta Networks, arXiv:2412.06464, section 3.3).
"""

from __future__ import annotations

import mlx.core as mx

from qwen_mlx import device
from qwen_mlx.models.elementwise import exp

CHUNK = 32  # tokens; the products within a chunk grow with it, the steps between chunks shrink
_FEW = 8  # a chunk with fewer tokens is not worth its overhead


def delta_rule(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array,
    state: mx.array | None,
    starts: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """The outputs of all tokens, and the state after them; everything is float32.

    Args:
        q, k: (batch, length, key_heads, key_dim); value head h reads key head `h // (value_heads // key_heads)`.
        v: (batch, length, value_heads, value_dim).
        log_decay: (batch, length, value_heads), at most 0.
        beta: the same shape, 0 to 1.
        state: (batch, value_heads, value_dim, key_dim), None for zeros.
        starts: int32 (batch, length), where in its row the text of a token begins, for rows that hold several texts;
            each begins with a state of zeros. Then everything is computed in chunks, which has a gradient on every
            device (MLX's kernel has none), and takes memory in proportion to the length.

    Returns:
        (batch, length, value_heads, value_dim), and the new state.
    """
    if starts is not None:
        assert state is None
        return _chunks(q, k, v, log_decay, beta, None, starts)
    if device.backend() != "cpu":
        return _tokens(q, k, v, log_decay, beta, state)
    if q.shape[1] == 1:
        return _one_token(q, k, v, log_decay, beta, state)
    if q.shape[1] < _FEW:
        return _tokens(q, k, v, log_decay, beta, state)
    return _chunks(q, k, v, log_decay, beta, state)


def _tokens(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array | None
) -> tuple[mx.array, mx.array]:
    y, state = mx.fast.gated_delta_update(q, k, v, mx.exp(log_decay), beta, state)
    return y, state


def _one_token(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array | None
) -> tuple[mx.array, mx.array]:
    """The rule as it stands, but the state is decayed in the product with the key and in the update, not by itself."""
    batch, _, heads, size = v.shape
    if state is None:
        state = mx.zeros((batch, heads, size, k.shape[-1]))
    repeats = heads // k.shape[2]
    q, k = (x[:, 0, :, :, None] if repeats == 1 else mx.repeat(x[:, 0, :, :, None], repeats, axis=1) for x in (q, k))
    decay = mx.exp(log_decay).reshape(batch, heads, 1, 1)
    change = (v[:, 0, :, :, None] - decay * (state @ k)) * beta.reshape(batch, heads, 1, 1)
    state = state * decay + change * k.swapaxes(-1, -2)
    return (state @ q).reshape(batch, 1, heads, size), state


def _chunks(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array,
    state: mx.array | None,
    starts: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Within a chunk, with c the sum of log decays so far, the tokens that a token changes the state by are `U - W S`:

    A = beta_i (k_i . k_j) exp(c_i - c_j) for j < i,  U = (1 + A)^-1 (beta v),  W = (1 + A)^-1 (beta exp(c) k)

    Between tokens of two texts everything has decayed: there the exponentials are zero.
    """
    batch, length, heads, size = v.shape
    chunk = min(CHUNK, length)
    count = -(-length // chunk)

    def chunked(x: mx.array) -> mx.array:
        """(batch, length, heads, ...) -> (batch, heads, chunks, chunk, ...); padding changes nothing, as beta is 0."""
        if count * chunk > length:
            x = mx.concatenate([x, mx.zeros((batch, count * chunk - length, *x.shape[2:]))], axis=1)
        return mx.moveaxis(x.reshape(batch, count, chunk, *x.shape[2:]), 3, 1)

    q, k, v, c, beta = (chunked(x) for x in (q, k, v, log_decay, beta[..., None]))
    repeats = heads // k.shape[1]
    if repeats > 1:
        q, k = mx.repeat(q, repeats, axis=1), mx.repeat(k, repeats, axis=1)
    c = mx.cumsum(c, axis=-1)
    before = mx.tril(mx.ones((chunk, chunk), dtype=mx.bool_))
    # Between tokens in the wrong order the exponential would overflow, so it is taken of 0 there.
    between = mx.where(before, exp(mx.where(before, c[..., None] - c[..., None, :], 0.0)), 0.0)
    since_start = mx.exp(c)[..., None]
    to_end = mx.exp(c[..., -1:] - c)[..., None]
    if starts is not None:
        # What pads the last chunk is a text of its own, after all others.
        own = mx.pad(starts, [(0, 0), (0, count * chunk - length)], constant_values=length)
        own = own.reshape(batch, 1, count, chunk)
        between = mx.where(own[..., None] == own[..., None, :], between, 0.0)
        began = own < chunk * mx.arange(count)[:, None]  # before its chunk
        since_start = mx.where(began[..., None], since_start, 0.0)
        to_end = mx.where((own == own[..., -1:])[..., None], to_end, 0.0)
    keys, k_beta = k.swapaxes(-1, -2), k * beta
    inverse: mx.array = _inverse(mx.tril((k_beta @ keys) * between, -1))  # type: ignore[assignment]
    solved = inverse @ mx.concatenate([v * beta, k_beta * since_start], axis=-1)
    u, w = mx.split(solved, [size], axis=-1)
    within = (q @ keys) * between
    q, keys = q * since_start, (k * to_end).swapaxes(-1, -2)
    decay = since_start[..., -1:, :]
    # Here a state is (key_dim, value_dim).
    s = mx.zeros((batch, heads, k.shape[-1], size)) if state is None else state.swapaxes(-1, -2)
    outputs = []
    for n in range(count):
        change = u[:, :, n] - w[:, :, n] @ s
        outputs.append(q[:, :, n] @ s + within[:, :, n] @ change)
        s = s * decay[:, :, n] + keys[:, :, n] @ change
    y = mx.moveaxis(mx.stack(outputs, axis=1), 2, 3).reshape(batch, count * chunk, heads, size)
    return y[:, :length], s.swapaxes(-1, -2)


@mx.custom_function
def _inverse(a: mx.array) -> mx.array:
    """`(1 + a)^-1` of strictly lower triangular matrices (..., n, n), by substitution.

    Not by products of powers of `a`, which grow beyond all bounds before they vanish when keys are alike.
    """
    return mx.linalg.tri_inv(a + mx.eye(a.shape[-1]), stream=mx.cpu)


@_inverse.vjp
def _(primals: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    transposed = output.swapaxes(-1, -2)
    return -(transposed @ cotangent @ transposed)
