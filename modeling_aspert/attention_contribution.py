"""The attentional contribution degree (Algorithms 1 and 2 of the paper) of many spans at O(C) each.

The gate does not depend on the span, so all spans of a sentence share one gated attention map and the prefix sums
(or running maxima) over its rows and over the band around its diagonal. Notation: B sentences, S spans, n sub-words, L layers, H heads, C = L * H channels
ordered layer * H + head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .span_pooling import range_levels, range_max, range_max_table


def gate(attention: Tensor, threshold: float, keep: Tensor) -> Tensor:
    """Attention above the threshold, 0 elsewhere (Algorithm 2, lines 4-11).

    The gate is a constant: gradients flow through the kept values only. A threshold of 0 means no gate.

    Args:
        attention: fp32 [B, H, n, n], rows are queries.
        keep: bool [B, 1, n, n], False where the query or the key does not count.
    """
    return torch.where(keep & (attention > threshold), attention, 0.0)


def attentional_contribution(
    attentions: Sequence[Tensor],
    spans: Tensor,
    attention_mask: Tensor,
    special_tokens_mask: Tensor | None = None,
    *,
    threshold: float = 0.5,
    pooling: str = "mean",
    scope: str = "context",
    direction: str = "from_span",
    special_tokens: bool = True,
) -> Tensor:
    """The attentional contribution degree f_a(s) of every span.

    Args:
        attentions: L tensors [B, H, n, n], softmaxed, row = query, column = key. Rows of padding may hold anything,
            NaN too; what a real row holds for padded keys does not count, but must be finite.
        spans: [B, S, 2] sub-word offsets, end-exclusive. A span holds no padding and no special token.
        attention_mask: [B, n], 1 for real tokens.
        special_tokens_mask: [B, n], 1 for special tokens; needed for ``special_tokens=False`` only.
        threshold: theta; attention must be greater to count. 0 means no gate.
        pooling: ``mean`` divides the sum by |s| * |O|, gated zeros included; ``sum``; ``max``.
        scope: what O, the other side, is: ``context`` (real tokens outside s: Algorithm 1), ``sentence`` (all real
            tokens: the prose of Section 4.2) or ``span`` (s itself).
        direction: ``from_span`` (queries in s, keys in O), ``to_span`` (the reverse) or ``both`` side by side.
        special_tokens: whether special tokens count in O.

    Returns:
        fp32 [B, S, C], or [B, S, 2C] for ``both``. An empty O gives 0.

    Raises:
        ValueError: ``special_tokens=False`` without a ``special_tokens_mask``.

    The printed mask adds minus infinity to the span's own columns and then multiplies by the gate, which is NaN as
    written; here what is masked is 0, as the text means.
    """
    real = attention_mask.bool()
    other = real
    if not special_tokens:
        if special_tokens_mask is None:
            raise ValueError(
                "contribution_special_tokens=False needs special_tokens_mask [B, n] in the batch; AspertDataCollator adds it"
            )
        other = real & ~special_tokens_mask.bool()
    starts, ends = spans[..., 0].long(), spans[..., 1].long()
    pool = _maxima if pooling == "max" else _sums
    directions = ("from_span", "to_span") if direction == "both" else (direction,)
    contribution = torch.cat(
        [
            # to_span is from_span of the transposed maps: the span's side is always made the row axis
            pool([_oriented(maps, name, real) for maps in attentions], starts, ends, real, other, threshold, scope)
            for name in directions
        ],
        dim=-1,
    )

    if pooling == "mean":
        width = ends - starts
        if scope == "span":
            size = width
        else:
            size = other.sum(-1, keepdim=True) - (width if scope == "context" else 0)
        contribution = contribution / (width * size).clamp(min=1).unsqueeze(-1)
    return contribution


def _oriented(attention: Tensor, direction: str, real: Tensor) -> Tensor:
    """The map in fp32 with the span's side as rows."""
    if direction == "from_span":
        return attention.float()
    # padded queries may hold anything, NaN too; as rows they are left out later
    return attention.float().masked_fill(~real[:, None, :, None], 0.0).transpose(-1, -2)


def _sums(
    attentions: Sequence[Tensor],
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    other: Tensor,
    threshold: float,
    scope: str,
) -> Tensor:
    """Sums over rows in the span and columns in O, [B, S, C]: the row strip of the span, less the block s x s."""
    total: Tensor | float = 0.0
    if scope != "span":
        columns = other[:, None, :, None].float()
        rows = torch.cat([F.threshold(maps, threshold, 0.0).matmul(columns).squeeze(-1) for maps in attentions], dim=1)
        prefix = F.pad(rows.masked_fill(~real.unsqueeze(1), 0.0).cumsum(-1), (1, 0)).transpose(1, 2)
        total = _rows_at(prefix, ends) - _rows_at(prefix, starts)
    if scope != "sentence":
        block = _block_sums(attentions, starts, ends, threshold)
        total = block if scope == "span" else total - block
    # differences of sums can fall a rounding error below 0
    return total.clamp(min=0)


def _block_sums(attentions: Sequence[Tensor], starts: Tensor, ends: Tensor, threshold: float) -> Tensor:
    """Sums over the blocks s x s, [B, S, C], from the band that the widest span needs.

    A block grows by one hook at a time: row and column `last`, as far back as the block's start. A span holds neither
    padding nor special tokens, so its block needs no mask.
    """
    length = attentions[0].shape[-1]
    band = min(int((ends - starts).max()), length) if starts.numel() else 1
    positions, back = torch.arange(length, device=starts.device).unsqueeze(1), torch.arange(band, device=starts.device)
    before = (positions - back).clamp(min=0)
    hooks = torch.cat([_hooks(maps, before, threshold) for maps in attentions], dim=1)
    # [s, k] becomes the hook of s + k that reaches back to s
    along = (positions + back).clamp(max=length - 1).expand(hooks.shape)
    blocks = hooks.cumsum(-1).gather(2, along).cumsum(-1).permute(0, 2, 3, 1).flatten(1, 2)
    return _rows_at(blocks, starts * band + (ends - starts - 1).clamp(min=0))


def _hooks(attention: Tensor, before: Tensor, threshold: float) -> Tensor:
    """[B, H, n, W]: gated attention of each position to the one k before it and back; the diagonal counts once."""
    index = before.expand(*attention.shape[:2], *before.shape)
    row = F.threshold(attention.gather(-1, index), threshold, 0.0)
    column = F.threshold(attention.transpose(-1, -2).gather(-1, index[..., 1:]), threshold, 0.0)
    return row + F.pad(column, (1, 0))


def _rows_at(table: Tensor, index: Tensor) -> Tensor:
    """Rows [B, S, C] of a table [B, M, C]."""
    batch_size, size, channels = table.shape
    offset = torch.arange(batch_size, device=index.device).unsqueeze(1) * size
    return F.embedding(index + offset, table.reshape(-1, channels))


def _maxima(
    attentions: Sequence[Tensor],
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    other: Tensor,
    threshold: float,
    scope: str,
) -> Tensor:
    """Maxima over rows in the span and columns in O, [B, S, C], layer by layer."""
    keep = (real[:, :, None] & other[:, None, :]).unsqueeze(1)
    return torch.cat([_max_over(gate(maps, threshold, keep), starts, ends, scope) for maps in attentions], dim=-1)


def _max_over(gated: Tensor, starts: Tensor, ends: Tensor, scope: str) -> Tensor:
    """Maxima over rows in the span and columns in O: [B, H, n, n] and [B, S] offsets -> [B, S, H]."""
    batch_size, heads, length, _ = gated.shape
    batch_index = torch.arange(batch_size, device=gated.device).unsqueeze(1).expand_as(starts)
    if scope == "sentence":
        return range_max(range_max_table(gated.amax(-1).transpose(1, 2)), batch_index, starts, ends)
    if scope == "span":
        return _square_max(gated, batch_index, starts, ends)

    widest = int((ends - starts).max()) if starts.numel() else 1
    # per row, the maximum left of each column and from each column on
    before = F.pad(gated.cummax(-1).values, (1, 0))
    after = F.pad(gated.flip(-1).cummax(-1).values.flip(-1), (0, 1))
    pooled = []
    for maxima, column in ((before, starts), (after, ends)):
        # channels last, so that one lookup in the table of [rows x columns] returns all heads of a span
        table = range_max_table(maxima.permute(0, 2, 3, 1).reshape(batch_size, length, -1), widest)
        levels = table.shape[0]
        level, width = range_levels(ends - starts, levels)
        flat = table.view(-1, heads)
        row = (level * batch_size + batch_index) * length
        pooled += [
            F.embedding((row + first) * (length + 1) + column, flat) for first in (starts, (ends - width).clamp(min=0))
        ]
    return torch.stack(pooled).amax(0)


def _square_max(gated: Tensor, batch_index: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Maxima over the squares s x s, from the maxima of all squares whose side is a power of two."""
    batch_size, heads, length, _ = gated.shape
    levels, width = [gated.permute(0, 2, 3, 1)], 1
    while 2 * width <= length:
        previous = levels[-1]
        rows = torch.cat([torch.maximum(previous[:, :-width], previous[:, width:]), previous[:, -width:]], dim=1)
        levels.append(torch.cat([torch.maximum(rows[:, :, :-width], rows[:, :, width:]), rows[:, :, -width:]], dim=2))
        width *= 2
    flat = torch.stack(levels).view(-1, heads)
    level, width = range_levels(ends - starts, len(levels))
    square = (level * batch_size + batch_index) * length
    offsets = (starts, (ends - width).clamp(min=0))
    corners = [F.embedding((square + row) * length + column, flat) for row in offsets for column in offsets]
    return torch.stack(corners).amax(0)
