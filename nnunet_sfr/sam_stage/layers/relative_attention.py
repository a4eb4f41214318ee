"""Attention with decomposed relative positions that never holds a matrix of all pairs of tokens."""

from __future__ import annotations

import torch
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTH_UNIT = 8
"""Fused kernels on CUDA want vectors whose length is a multiple of this."""
_WIDEST_FLASH = 256
"""Longest vectors that the flash kernel on CUDA takes."""

_QUERIES_AT_A_TIME = 256
"""For which a bias is made: small enough to stay in the processor's cache."""


class RelativeAttention(nn.Module):
    """Computes what segment-anything's ``Attention`` does, with its parameters, in memory linear in the tokens.

    With decomposed relative positions (MViTv2, https://arxiv.org/abs/2112.01526) the logit of query i = (y, x) and key
    j = (y', x') is ``scale * q_i . k_j + q_i . H[y - y'] + q_i . W[x - x']``. The last two terms follow the query, so
    they are no bias that a fused kernel knows, and segment-anything adds them to a matrix of [B * heads, N, N]. But for
    a fixed query they depend on the row and on the column of the key alone, so the logit is one inner product of longer
    vectors::

        q'_i = [scale * q_i,  q_i . H[y - 0], q_i . H[y - 1], ...,  q_i . W[x - 0], q_i . W[x - 1], ...]
        k'_j = [k_j,          1 at position y', else 0,             1 at position x', else 0           ]

    and any fused kernel for ``softmax(q' k'^T) v`` applies. Without gradients, CPUs do less arithmetic with the vectors
    as they are and the last two terms as a bias that is made for a few queries at a time.

    Args:
        attention: its modules and parameters are taken over, under their names.

    Raises:
        ValueError: it has no relative positions.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        if not attention.use_rel_pos:
            raise ValueError("the attention has no relative positions")
        self.num_heads: int = attention.num_heads
        self.scale: float = attention.scale
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.rel_pos_h: nn.Parameter = attention.rel_pos_h
        self.rel_pos_w: nn.Parameter = attention.rel_pos_w

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over all tokens of an image or window.

        Args:
            tokens: [B, H, W, dim]; H and W are those that the tables of relative positions were made for.

        Returns:
            [B, H, W, dim].

        Raises:
            ValueError: the tables are for another H or W.
        """
        batch, height, width, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        # The tables in the query's precision: indexing them first would convert H * H vectors instead of 2 * H - 1.
        rows = _relative_positions(self.rel_pos_h.to(query.dtype), height)
        columns = _relative_positions(self.rel_pos_w.to(query.dtype), width)
        grid = query.unflatten(2, (height, width))
        to_rows = torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3)
        to_columns = torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3)
        # to_rows follows the query, so it tells whether anything wants a gradient
        if tokens.device.type == "cpu" and not to_rows.requires_grad:
            attended = _attend_with_bias(query, key, value, to_rows, to_columns, scale=self.scale)
        else:
            places = _row_and_column(height, width, like=key).expand(batch, self.num_heads, -1, -1)
            attended = _attend(
                torch.cat((query * self.scale, to_rows, to_columns), dim=-1), torch.cat((key, places), dim=-1), value
            )
        merged: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return merged


def _relative_positions(table: Tensor, size: int) -> Tensor:
    """From [2 * size - 1, C], one row for each distance, to [queries, keys, C]."""
    if len(table) != 2 * size - 1:
        raise ValueError(f"the relative positions are for {(len(table) + 1) // 2} tokens along a side, got {size}")
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places + (size - 1)]


def _row_and_column(height: int, width: int, *, like: Tensor) -> Tensor:
    """For each token of a grid, 1 at the number of its row and at height + the number of its column; [N, H + W]."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device)[:, None].expand(-1, width, -1)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def _attend_with_bias(
    query: Tensor, key: Tensor, value: Tensor, to_rows: Tensor, to_columns: Tensor, *, scale: float
) -> Tensor:
    """``softmax(scale * query key^T + bias) value``, where the bias of a query and a key at (y, x) is
    ``to_rows[..., y] + to_columns[..., x]``.

    Args:
        query: [B, heads, N, C], as key and value.
        to_rows: [B, heads, N, H].
        to_columns: [B, heads, N, W].

    Returns:
        [B, heads, N, C].
    """
    parts = []
    for part, rows, columns in zip(
        *(tensor.split(_QUERIES_AT_A_TIME, dim=2) for tensor in (query, to_rows, to_columns)), strict=True
    ):
        bias = (rows[..., None] + columns[..., None, :]).flatten(3)
        parts.append(F.scaled_dot_product_attention(part, key, value, attn_mask=bias, scale=scale))
    return torch.cat(parts, dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(query key^T) value`` with the vectors lengthened by zeros where a fused kernel needs that.

    Args:
        query: [B, heads, N, E].
        key: [B, heads, N, E].
        value: [B, heads, N, V] with V at most E.

    Returns:
        [B, heads, N, V].
    """
    on_cuda = query.device.type == "cuda"
    length = query.shape[-1]
    if on_cuda:
        length += -length % _WIDTH_UNIT
    # Flash kernels (the only fused ones on CPUs) want one length; the one for single precision on CUDA does not.
    on_flash = on_cuda and query.dtype != torch.float32 and length <= _WIDEST_FLASH
    value_length = length if on_flash or query.device.type == "cpu" else value.shape[-1]
    attended = F.scaled_dot_product_attention(
        _lengthen(query, length), _lengthen(key, length), _lengthen(value, value_length), scale=1.0
    )
    return attended[..., : value.shape[-1]]


def _lengthen(vectors: Tensor, length: int) -> Tensor:
    missing = length - vectors.shape[-1]
    return F.pad(vectors, (0, missing)) if missing else vectors
