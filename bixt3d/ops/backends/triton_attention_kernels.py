"""Triton kernels of bi-directional attention. Only :mod:`.triton_attention` imports this file.

One program holds a chunk of the latents of one cloud and head and iterates once over a range of its tokens. Each tile
of tokens meets the whole chunk, so the softmax over latents is complete within the tile, while the softmax over tokens
is rescaled from tile to tile (online softmax). Two results may be partial afterwards: those of the latents, for
several token ranges, and those of the tokens, for several chunks of latents. Parts are joined in a fixed order, and no
kernel uses atomics.

Products of float32 inputs are full float32 ("ieee": tf32 would cost ten bits of the result). Products of half-precision
inputs accumulate in float32, and softmax statistics are float32. Every tensor comes with strides of batch, head and
row, and a contiguous last axis. A batch stride of zero shares latents among all clouds.
"""

import triton
import triton.language as tl


@triton.jit
def _load(base, rows, num_rows, row_stride, width, BLOCK: tl.constexpr):
    """Load a (rows, width) block of a matrix, with zeros outside of it."""
    columns = tl.arange(0, BLOCK)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return tl.load(base + rows[:, None].to(tl.int64) * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store(base, value, rows, num_rows, row_stride, width, BLOCK: tl.constexpr):
    """Store the part of a (rows, width) block that lies inside the matrix."""
    columns = tl.arange(0, BLOCK)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    target = base + rows[:, None].to(tl.int64) * row_stride + columns[None, :]
    tl.store(target, value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def attend(
    latent_ref, latent_val, token_ref, token_val, latent_out, latent_lse, token_out, token_lse,
    scale, num_heads, num_latents, num_tokens, tokens_per_program, ref_width, latent_width, token_width,
    lr_b, lr_h, lr_m, lv_b, lv_h, lv_m, tr_b, tr_h, tr_n, tv_b, tv_h, tv_n,
    lo_s, lo_b, lo_h, lo_m, to_c, to_b, to_h, to_n,
    LATENTS: tl.constexpr, TOKENS: tl.constexpr,
    REF: tl.constexpr, LATENT_VAL: tl.constexpr, TOKEN_VAL: tl.constexpr,
):  # fmt: skip
    """Attend in both directions between a chunk of latents and a range of tokens.

    Grid: (B·H, token ranges S, latent chunks C). Reads the references and values of the chunk and of the range's tokens
    once. Writes latent results (S, B, H, M, D'') with log-sums (S, B, H, M) and token results (C, B, H, N, D') with
    log-sums (C, B, H, N). Tokens outside the cloud are loaded as zeros, so their similarity is zero. Their softmax over
    latents is not stored, and they are masked in the softmax over tokens.
    """
    split, chunk = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    num_pairs = tl.num_programs(0).to(tl.int64)
    pair = tl.program_id(0).to(tl.int64)
    b, h = pair // num_heads, pair % num_heads
    m = tl.program_id(2) * LATENTS + tl.arange(0, LATENTS)
    m_inside = (m < num_latents)[:, None]
    ref = _load(latent_ref + b * lr_b + h * lr_h, m, num_latents, lr_m, ref_width, REF)
    val = _load(latent_val + b * lv_b + h * lv_h, m, num_latents, lv_m, latent_width, LATENT_VAL)
    token_ref += b * tr_b + h * tr_h
    token_val += b * tv_b + h * tv_h
    token_out += chunk * to_c + b * to_b + h * to_h
    token_lse += (chunk * num_pairs + pair) * num_tokens
    largest = tl.full((LATENTS,), float("-inf"), tl.float32)
    total = tl.zeros((LATENTS,), tl.float32)
    result = tl.zeros((LATENTS, TOKEN_VAL), tl.float32)
    begin = tl.program_id(1) * tokens_per_program
    for first in range(begin, tl.minimum(begin + tokens_per_program, num_tokens), TOKENS):
        n = first + tl.arange(0, TOKENS)
        keys = _load(token_ref, n, num_tokens, tr_n, ref_width, REF)
        values = _load(token_val, n, num_tokens, tv_n, token_width, TOKEN_VAL)
        similarity = tl.dot(ref, tl.trans(keys), input_precision="ieee") * scale

        over_latents = tl.where(m_inside, similarity, float("-inf"))
        top = tl.max(over_latents, axis=0)
        weights = tl.exp(over_latents - top[None, :])
        mass = tl.sum(weights, axis=0)
        out = tl.dot(tl.trans(weights).to(val.dtype), val, input_precision="ieee") / mass[:, None]
        _store(token_out, out, n, num_tokens, to_n, latent_width, LATENT_VAL)
        tl.store(token_lse + n, top + tl.log(mass), mask=n < num_tokens)

        over_tokens = tl.where((n < num_tokens)[None, :], similarity, float("-inf"))
        risen = tl.maximum(largest, tl.max(over_tokens, axis=1))
        weights = tl.exp(over_tokens - risen[:, None])
        shrink = tl.exp(largest - risen)
        total = total * shrink + tl.sum(weights, axis=1)
        result = result * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        largest = risen
    latent_out += split * lo_s + b * lo_b + h * lo_h
    _store(latent_out, result / total[:, None], m, num_latents, lo_m, token_width, TOKEN_VAL)
    latent_lse += (split * num_pairs + pair) * num_latents
    tl.store(latent_lse + m, largest + tl.log(total), mask=m < num_latents)


@triton.jit
def join(
    parts, part_lse, out, lse, num_parts, num_heads, num_rows, width, p_p, p_b, p_h, p_r, o_b, o_h, o_r,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Join results over parts of a softmax: ``out = sum_p exp(part_lse[p] - lse) parts[p]``.

    Grid: (B·H times blocks of rows). Reads the parts (P, B, H, R, D) once and their log-sums (P, B, H, R) twice, in
    order. Writes the result (B, H, R, D) and ``lse = log sum_p exp(part_lse[p])``.
    """
    blocks = tl.cdiv(num_rows, ROWS)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    num_pairs = (tl.num_programs(0) // blocks).to(tl.int64)
    b, h = pair // num_heads, pair % num_heads
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    inside = rows < num_rows
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    for part in range(num_parts):
        known = tl.load(part_lse + (part * num_pairs + pair) * num_rows + rows, mask=inside, other=0.0)
        largest = tl.maximum(largest, known)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    parts += b * p_b + h * p_h
    for part in range(num_parts):
        known = tl.load(part_lse + (part * num_pairs + pair) * num_rows + rows, mask=inside, other=0.0)
        weight = tl.exp(known - largest)
        total += weight
        result += weight[:, None] * _load(parts, rows, num_rows, p_r, width, WIDTH)
        parts += p_p
    _store(out + b * o_b + h * o_h, result / total[:, None], rows, num_rows, o_r, width, WIDTH)
    tl.store(lse + pair * num_rows + rows, largest + tl.log(total), mask=inside)


@triton.jit
def attend_backward(
    latent_ref, latent_val, token_ref, token_val, token_out, latent_lse, token_lse,
    latent_grad, latent_delta, token_grad, d_latent_ref, d_latent_val, d_token_ref, d_token_val,
    scale, num_heads, num_latents, num_tokens, tokens_per_program, ref_width, latent_width, token_width,
    lr_b, lr_h, lr_m, lv_b, lv_h, lv_m, tr_b, tr_h, tr_n, tv_b, tv_h, tv_n,
    to_b, to_h, to_n, lg_b, lg_h, lg_m, tg_b, tg_h, tg_n,
    dlr_s, dlr_b, dlr_h, dlr_m, dlv_s, dlv_b, dlv_h, dlv_m,
    dtr_c, dtr_b, dtr_h, dtr_n, dtv_c, dtv_b, dtv_h, dtv_n,
    LATENTS: tl.constexpr, TOKENS: tl.constexpr,
    REF: tl.constexpr, LATENT_VAL: tl.constexpr, TOKEN_VAL: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Differentiate both directions in one pass over a range of tokens.

    With ``P = exp(S - latent_lse)``, the softmax over tokens, and ``Q = exp(S - token_lse)``, the softmax over latents,
    both recomputed from the saved log-sums::

        dP = latent_grad token_valᵀ        D_row = sum over D'' of latent_grad * latent_out  (latent_delta)
        dQ = latent_val token_gradᵀ        D_col = sum over M of Q * dQ = sum over D' of token_grad * token_out
        dS = P * (dP - D_row) + Q * (dQ - D_col)
        d token_val = Pᵀ latent_grad       d latent_val = Q token_grad
        d token_ref = scale dSᵀ latent_ref d latent_ref = scale dS token_ref

    Grid: (B·H, token ranges S, latent chunks C). Reads the tensors of the latents once per program and those of the
    tokens once per chunk. Writes latent gradients (S, B, H, M, ·) and token gradients (C, B, H, N, ·), to be summed
    over S and C. With all latents in one chunk (WHOLE), each tile computes D_col itself, with rounding that cancels
    exactly against dQ, and token_out is not read. Unlike in the forward pass, P and Q are masked to zero outside of the
    cloud, since sums over tokens run over them.
    """
    split, chunk = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    pair = tl.program_id(0).to(tl.int64)
    b, h = pair // num_heads, pair % num_heads
    m = tl.program_id(2) * LATENTS + tl.arange(0, LATENTS)
    ref = _load(latent_ref + b * lr_b + h * lr_h, m, num_latents, lr_m, ref_width, REF)
    val = _load(latent_val + b * lv_b + h * lv_h, m, num_latents, lv_m, latent_width, LATENT_VAL)
    grad = _load(latent_grad + b * lg_b + h * lg_h, m, num_latents, lg_m, token_width, TOKEN_VAL)
    row_lse = tl.load(latent_lse + pair * num_latents + m, mask=m < num_latents, other=0.0)
    row_delta = tl.load(latent_delta + pair * num_latents + m, mask=m < num_latents, other=0.0)
    token_ref += b * tr_b + h * tr_h
    token_val += b * tv_b + h * tv_h
    token_out += b * to_b + h * to_h
    token_grad += b * tg_b + h * tg_h
    token_lse += pair * num_tokens
    d_token_ref += chunk * dtr_c + b * dtr_b + h * dtr_h
    d_token_val += chunk * dtv_c + b * dtv_b + h * dtv_h
    d_ref = tl.zeros((LATENTS, REF), tl.float32)
    d_val = tl.zeros((LATENTS, LATENT_VAL), tl.float32)
    begin = tl.program_id(1) * tokens_per_program
    for first in range(begin, tl.minimum(begin + tokens_per_program, num_tokens), TOKENS):
        n = first + tl.arange(0, TOKENS)
        valid = (m < num_latents)[:, None] & (n < num_tokens)[None, :]
        keys = _load(token_ref, n, num_tokens, tr_n, ref_width, REF)
        values = _load(token_val, n, num_tokens, tv_n, token_width, TOKEN_VAL)
        out_grad = _load(token_grad, n, num_tokens, tg_n, latent_width, LATENT_VAL)
        column_lse = tl.load(token_lse + n, mask=n < num_tokens, other=0.0)
        similarity = tl.dot(ref, tl.trans(keys), input_precision="ieee") * scale

        p = tl.where(valid, tl.exp(similarity - row_lse[:, None]), 0.0)
        dp = tl.dot(grad, tl.trans(values), input_precision="ieee")
        ds = p * (dp - row_delta[:, None])
        dv = tl.dot(tl.trans(p).to(grad.dtype), grad, input_precision="ieee")
        _store(d_token_val, dv, n, num_tokens, dtv_n, token_width, TOKEN_VAL)

        q = tl.where(valid, tl.exp(similarity - column_lse[None, :]), 0.0)
        dq = tl.dot(val, tl.trans(out_grad), input_precision="ieee")
        if WHOLE:
            column_delta = tl.sum(q * dq, axis=0)
        else:
            out = _load(token_out, n, num_tokens, to_n, latent_width, LATENT_VAL)
            column_delta = tl.sum(out_grad.to(tl.float32) * out.to(tl.float32), axis=1)
        ds += q * (dq - column_delta[None, :])
        d_val += tl.dot(q.to(out_grad.dtype), out_grad, input_precision="ieee")

        ds = ds.to(keys.dtype)
        dk = tl.dot(tl.trans(ds), ref, input_precision="ieee") * scale
        _store(d_token_ref, dk, n, num_tokens, dtr_n, ref_width, REF)
        d_ref += tl.dot(ds, keys, input_precision="ieee")
    d_latent_ref += split * dlr_s + b * dlr_b + h * dlr_h
    d_latent_val += split * dlv_s + b * dlv_b + h * dlv_h
    _store(d_latent_ref, d_ref * scale, m, num_latents, dlr_m, ref_width, REF)
    _store(d_latent_val, d_val, m, num_latents, dlv_m, latent_width, LATENT_VAL)
