"""Backend ``triton`` of bi-directional attention: one pass over the tokens forward and one backward.

Similarities are computed tile by tile and never written to memory, which holds O(N + M) numbers besides the
inputs: the results, a log-sum for every row and column, and partial sums over token ranges. The kernels are in
:mod:`.triton_attention_kernels`, which imports triton and is itself imported when the op runs.
"""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from . import triton_runtime
from .cpu_attention import heads_inside, in_rows
from .once import differentiates_once
from .triton_runtime import ceil_div, launch, power_of_2, readable

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_LATENTS = 256
MAX_WIDTH = 128
# Size in bytes of a chunk of latents, such that three chunks, their gradients and the tiles of tokens fit registers and
# shared memory. Float32 products are unrolled: at twice the size, the backward kernel took two minutes to compile.
CHUNK_BYTES = 16384
CHUNK_BYTES_FLOAT32 = 8192
MAX_CHUNK = 128


def why_not(
    latent_ref: Tensor | None = None,
    *others: Any,
    dropout_p: float = 0.0,
    training: bool = True,
    **options: Any,
) -> str | None:
    """Return why the kernels cannot run on these inputs, or None."""
    if training and dropout_p > 0:
        return "does not support dropout (dropout_p), since it stores no attention maps"
    tensors = checks.tensors_among((latent_ref, *others), options)
    for x in tensors:
        if x.dtype == torch.float64:
            return "takes float16, bfloat16 and float32, not float64"
        if x.shape[3] > MAX_WIDTH:
            return f"takes heads of at most {MAX_WIDTH} channels, got {x.shape[3]}"
    if latent_ref is not None and latent_ref.shape[2] > MAX_LATENTS:
        return f"takes at most {MAX_LATENTS} latents, got {latent_ref.shape[2]}"
    return triton_runtime.why_not(*tensors)


def attend(
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Attend in both directions at once, without second derivatives."""
    kind = token_ref.device.type
    inputs = [latent_ref, latent_val, token_ref, token_val]
    if torch.is_autocast_enabled(kind):
        inputs = [x.to(torch.get_autocast_dtype(kind)) for x in inputs]
    latents, tokens, latent_lse, _ = _attend(*inputs, scale)
    return latents, tokens, latent_lse.detach() if return_logsumexp else None


def _rows_in_one_piece(x: Tensor) -> Tensor:
    """Return ``x`` with a last axis of stride 1, as the kernels require. Other strides are free."""
    return in_rows(readable(x))


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Return the strides of batch, head and row. That of the batch is zero if all clouds share one entry."""
    return (0 if x.shape[0] == 1 else x.stride(0)), x.stride(1), x.stride(2)


class _Plan:
    """How the work is split: sizes, chunks of latents, ranges of tokens."""

    def __init__(self, latent_ref: Tensor, latent_val: Tensor, token_ref: Tensor, token_val: Tensor):
        self.batch, self.heads, self.num_tokens, self.ref_width = token_ref.shape
        self.num_latents = latent_ref.shape[2]
        self.latent_width, self.token_width = latent_val.shape[3], token_val.shape[3]
        self.ref, self.latent_val, self.token_val = (
            power_of_2(width, at_least=16) for width in (self.ref_width, self.latent_width, self.token_width)
        )
        size = token_ref.element_size()
        widest = max(self.ref, self.latent_val, self.token_val)
        chunk_bytes = CHUNK_BYTES if size < 4 else CHUNK_BYTES_FLOAT32
        fitting = min(MAX_CHUNK if size < 4 else MAX_CHUNK // 2, chunk_bytes // (widest * size))
        self.latents = min(power_of_2(self.num_latents, at_least=16), fitting)
        self.chunks = ceil_div(self.num_latents, self.latents)
        # With these tiles and warps, no kernel spills registers at the sizes of the configs
        # (tests/ops/test_triton_compiles.py).
        roomy = widest <= 64 and triton_runtime.multiplies_from_shared_memory(token_ref.device)
        self.tokens = 16 if size == 4 else 64 if roomy else 32
        self.num_warps = 8 if size == 4 or self.latents * widest >= 4096 else 4
        tiles = ceil_div(self.num_tokens, self.tokens)
        programs = self.batch * self.heads * self.chunks
        wanted = min(tiles, ceil_div(triton_runtime.programs_to_fill(token_ref.device), max(1, programs)))
        tiles_each = ceil_div(tiles, wanted)
        self.splits = ceil_div(tiles, tiles_each)  # so that no range is empty
        self.tokens_each = tiles_each * self.tokens

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.batch * self.heads, self.splits, self.chunks  # only the first axis may exceed 65,535

    @property
    def sizes(self) -> tuple[int, ...]:
        return (
            self.heads, self.num_latents, self.num_tokens, self.tokens_each,
            self.ref_width, self.latent_width, self.token_width,
        )  # fmt: skip

    @property
    def blocks(self) -> dict[str, int]:
        return {
            "LATENTS": self.latents,
            "TOKENS": self.tokens,
            "REF": self.ref,
            "LATENT_VAL": self.latent_val,
            "TOKEN_VAL": self.token_val,
            "num_warps": self.num_warps,
            "num_stages": 2,
        }


def _parts(x: Tensor, count: int, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    return x.new_empty((count, x.shape[0], x.shape[1], rows, width), dtype=dtype)


def _join(parts: Tensor, part_lse: Tensor, out: Tensor, lse: Tensor) -> None:
    from . import triton_attention_kernels as kernels

    num_parts, batch, heads, num_rows, width = parts.shape
    launch(
        kernels.join, (batch * heads * ceil_div(num_rows, 32),),
        parts, part_lse, out, lse, num_parts, heads, num_rows, width,
        *parts.stride()[:4], *out.stride()[:3], ROWS=32, WIDTH=power_of_2(width, at_least=16),
    )  # fmt: skip


@torch.library.custom_op("bixt3d::triton_bidirectional_attention", mutates_args=())
def _attend(
    latent_ref: Tensor, latent_val: Tensor, token_ref: Tensor, token_val: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return latents, tokens and the log-sums of the rows (B, H, M) and columns (B, H, N) of S."""
    from . import triton_attention_kernels as kernels

    dtype = token_ref.dtype
    inputs = tuple(_rows_in_one_piece(x) for x in (latent_ref, latent_val, token_ref, token_val))
    plan = _Plan(*inputs)
    token_ref = inputs[2]
    latents, tokens, latent_lse, token_lse = _empty_results(*inputs)
    if plan.batch * plan.heads == 0:
        return latents.to(dtype), tokens.to(dtype), latent_lse, token_lse
    # Results that one program completes are written in place, others as float32 parts to be joined.
    latent_parts, latent_part_lse = latents[None], latent_lse[None]
    if plan.splits > 1:
        latent_parts = _parts(token_ref, plan.splits, plan.num_latents, plan.token_width, torch.float32)
        latent_part_lse = latent_lse.new_empty(plan.splits, *latent_lse.shape)
    token_parts, token_part_lse = tokens[None], token_lse[None]
    if plan.chunks > 1:
        token_parts = _parts(token_ref, plan.chunks, plan.num_tokens, plan.latent_width, torch.float32)
        token_part_lse = token_lse.new_empty(plan.chunks, *token_lse.shape)
    launch(
        kernels.attend, plan.grid,
        *inputs, latent_parts, latent_part_lse, token_parts, token_part_lse, scale, *plan.sizes,
        *(stride for x in inputs for stride in _strides(x)),
        *latent_parts.stride()[:4], *token_parts.stride()[:4], **plan.blocks,
    )  # fmt: skip
    if plan.splits > 1:
        _join(latent_parts, latent_part_lse, latents, latent_lse)
    if plan.chunks > 1:
        _join(token_parts, token_part_lse, tokens, token_lse)
    return latents.to(dtype), tokens.to(dtype), latent_lse, token_lse


@_attend.register_fake
def _empty_results(
    latent_ref: Tensor, latent_val: Tensor, token_ref: Tensor, token_val: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    latents = heads_inside(token_ref, latent_ref.shape[2], token_val.shape[3])
    tokens = heads_inside(token_ref, token_ref.shape[2], latent_val.shape[3])
    latent_lse = token_ref.new_empty(latents.shape[:3], dtype=torch.float32)
    return latents, tokens, latent_lse, token_ref.new_empty(tokens.shape[:3], dtype=torch.float32)


@torch.library.custom_op("bixt3d::triton_bidirectional_attention_backward", mutates_args=())
def _attend_backward(
    latent_grad: Tensor,
    token_grad: Tensor,
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    latents: Tensor,
    tokens: Tensor,
    latent_lse: Tensor,
    token_lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the four inputs, contiguous."""
    from . import triton_attention_kernels as kernels

    originals = (latent_ref, latent_val, token_ref, token_val)
    if token_ref.shape[0] * token_ref.shape[1] == 0:
        latent_ref, latent_val, token_ref, token_val = (
            torch.zeros_like(x, memory_format=torch.contiguous_format) for x in originals
        )
        return latent_ref, latent_val, token_ref, token_val
    inputs = tuple(_rows_in_one_piece(x) for x in originals)
    plan = _Plan(*inputs)
    delta = (latent_grad.float() * latents.float()).sum(dim=-1)
    latent_grad, token_grad, tokens = (_rows_in_one_piece(x) for x in (latent_grad, token_grad, tokens))
    token_ref = inputs[2]
    wide = torch.float32
    token_dtype = token_ref.dtype if plan.chunks == 1 else wide
    parts = (
        _parts(token_ref, plan.splits, plan.num_latents, plan.ref_width, wide),
        _parts(token_ref, plan.splits, plan.num_latents, plan.latent_width, wide),
        _parts(token_ref, plan.chunks, plan.num_tokens, plan.ref_width, token_dtype),
        _parts(token_ref, plan.chunks, plan.num_tokens, plan.token_width, token_dtype),
    )
    launch(
        kernels.attend_backward, plan.grid,
        *inputs, tokens, latent_lse, token_lse, latent_grad, delta, token_grad, *parts, scale, *plan.sizes,
        *(stride for x in (*inputs, tokens, latent_grad, token_grad) for stride in _strides(x)),
        *(stride for x in parts for stride in x.stride()[:4]), WHOLE=plan.chunks == 1, **plan.blocks,
    )  # fmt: skip
    latent_ref, latent_val, token_ref, token_val = (
        _added_up(x, like) for x, like in zip(parts, originals, strict=True)
    )
    return latent_ref, latent_val, token_ref, token_val


def _added_up(parts: Tensor, like: Tensor) -> Tensor:
    """Sum (P, B, H, R, D) parts, also over the clouds if they share one entry."""
    if parts.shape[0] == 1 and parts.shape[1] == like.shape[0]:
        return parts[0].to(like.dtype)
    return parts.sum(dim=(0, 1) if like.shape[0] == 1 else 0).reshape(like.shape).to(like.dtype)


@_attend_backward.register_fake
def _(latent_grad: Tensor, token_grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:4])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.scale = inputs[4]
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.mark_non_differentiable(*output[2:])


def _differentiate(
    ctx: Any, latent_grad: Tensor, token_grad: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    return (*_attend_backward(latent_grad, token_grad, *ctx.saved_tensors, ctx.scale), None)


torch.library.register_autograd("bixt3d::triton_bidirectional_attention", _differentiate, setup_context=_keep)
differentiates_once("triton_bidirectional_attention_backward", "attention", "triton")
