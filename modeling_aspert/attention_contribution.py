"""The attentional contribution degree (Algorithms 1 and 2 of the paper) of many spans at O(C) each.

The gate does not depend on the span, so all spans of a sentence share one gated attention map and the prefix sums
(or running maxima) over it. Notation: B sentences, S spans, n sub-words, L layers, H heads, C = L * H channels
ordered layer * H + head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .span_pooling import range_levels, range_max, range_max_table

# Layers are worked on together while their maps stay below this many values (64 MiB in fp32), else one by one.
_GROUP_VALUES = 2**24


def gate(attention: Tensor, threshold: float, keep: Tensor) -> Tensor:
    """Attention above the threshold, 0 elsewhere, in fp32 (Algorithm 2, lines 4-11).

    The gate is a constant: gradients flow through the kept values only. A threshold of 0 means no gate.

    Args:
        attention: [B, H, n, n], rows are queries.
        keep: bool [B, 1, n, n], False where the query or the key does not count.
    """
    attention = attention.float()
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
        attentions: L tensors [B, H, n, n], softmaxed, row = query, column = key.
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
    keep_from = (real[:, :, None] & other[:, None, :]).unsqueeze(1)

    starts, ends = spans[..., 0].long(), spans[..., 1].long()
    pool = _max_over if pooling == "max" else _sum_over
    directions = ("from_span", "to_span") if direction == "both" else (direction,)
    pieces: dict[str, list[Tensor]] = {name: [] for name in directions}
    for attention in _layer_groups(attentions):
        for name in directions:
            # to_span is from_span of the transposed map: the span's side is always made the row axis
            maps = attention if name == "from_span" else attention.transpose(-1, -2)
            pieces[name].append(pool(gate(maps, threshold, keep_from), starts, ends, scope))
    contribution = torch.cat([piece for name in directions for piece in pieces[name]], dim=-1)

    if pooling == "mean":
        width = ends - starts
        if scope == "span":
            size = width
        else:
            size = other.sum(-1, keepdim=True) - (width if scope == "context" else 0)
        contribution = contribution / (width * size).clamp(min=1).unsqueeze(-1)
    return contribution


def _layer_groups(attentions: Sequence[Tensor]) -> Iterator[Tensor]:
    """All layers joined along the heads where that is small, else layer by layer: the same values, fewer launches."""
    if sum(attention.numel() for attention in attentions) <= _GROUP_VALUES:
        yield torch.cat(tuple(attentions), dim=1)
    else:
        yield from attentions


def _sum_over(gated: Tensor, starts: Tensor, ends: Tensor, scope: str) -> Tensor:
    """Sums over rows in the span and columns in O: [B, H, n, n] and [B, S] offsets -> [B, S, H].

    The row strip comes from a 1-D prefix sum, the block s x s from a 2-D one.
    """
    batch_size, heads, length, _ = gated.shape

    def corner(prefix: Tensor, index: Tensor) -> Tensor:
        return prefix.gather(2, index.unsqueeze(1).expand(-1, heads, -1))

    total = 0.0
    if scope != "span":
        rows = F.pad(gated.sum(-1).cumsum(-1), (1, 0))
        total = corner(rows, ends) - corner(rows, starts)
    if scope != "sentence":
        blocks = F.pad(gated.cumsum(-1).cumsum(-2), (1, 0, 1, 0)).view(batch_size, heads, -1)
        side = length + 1
        block = (
            corner(blocks, ends * side + ends)
            - corner(blocks, starts * side + ends)
            - corner(blocks, ends * side + starts)
            + corner(blocks, starts * side + starts)
        )
        total = block if scope == "span" else total - block
    # prefix differences can fall a rounding error below 0
    return total.clamp(min=0).transpose(1, 2)


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
