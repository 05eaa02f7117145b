"""The attentional contribution degree (Algorithms 1 and 2 of the paper) of many spans at O(C) each.

The gate does not depend on the span, so all spans of a sentence share one gated attention map and the prefix sums
(or running maxima) over its rows and over the band around its diagonal.

Notation: B sentences, S spans, n sub-words, L layers, H heads, C = L * H channels ordered layer * H + head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .sentence_packing import Packing
from .span_pooling import range_levels, range_max, range_max_table, shifted

# Maps of fewer values a layer are joined: few large operations take less time than many small ones.
_SMALL = 2**16
# Whole numbers up to this, and its multiples up to its square, are the same in bf16.
_EXACT = 2**8


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
    packing: Packing | None = None,
    one_key: bool = False,
    offsets: Tensor | None = None,
    longest: int | None = None,
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
        packing: how the sentences share rows, where they do: the attentions are then [R, H, m, m], 0 between sentences,
            and all else is of the sentences.
        one_key: for inference: at most one key of a real row passes the gate, and it is not padding, as where
            theta >= 0.5 and rows sum to 1. The same values, faster; no gradients.
        offsets: [W], 0 to W - 1 where W is at least the widest span in sub-words. Default: from the spans, which an
            export cannot do.
        longest: for an export: the greatest n, which takes the place of the spans' own widths.

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
                "contribution_special_tokens=False needs special_tokens_mask [B, n] in the batch; AspertDataCollator "
                "adds it"
            )
        other = real & ~special_tokens_mask.bool()
    starts, ends = spans[..., 0].long(), spans[..., 1].long()
    width, size = ends - starts, other.sum(-1, keepdim=True)
    row = torch.arange(spans.shape[0], device=spans.device).unsqueeze(1)
    if packing is not None:
        packed = packing.pack_mask(real)
        real, other = packed, packed if other is real else packing.pack_mask(other)
        starts, ends, row = starts + packing.starts, ends + packing.starts, packing.row
    directions = ("from_span", "to_span") if direction == "both" else (direction,)
    parts = []
    # autocast would sum the rows in half precision
    with torch.autocast(spans.device.type, enabled=False):
        if attentions[0].numel() < _SMALL and longest is None:
            attentions = [torch.cat(list(attentions), dim=1)]
        for name in directions:
            if one_key and pooling != "max" and name == "from_span" and special_tokens:
                parts.append(_sums_of_one_key(attentions, row, starts, ends, real, threshold, scope, offsets))
                continue
            # to_span is from_span of the transposed maps: the span's side is always made the row axis
            maps = [_oriented(attention, name, real) for attention in attentions]
            if pooling == "max":
                parts.append(_maxima(maps, row, starts, ends, real, other, threshold, scope, longest))
            else:
                parts.append(_sums(maps, row, starts, ends, real, other, threshold, scope, offsets))
        contribution = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    if pooling == "mean":
        if scope != "sentence":
            size = width if scope == "span" else size - width
        contribution /= (width * size).clamp(min=1).unsqueeze(-1)
    return contribution


def _oriented(attention: Tensor, direction: str, real: Tensor) -> Tensor:
    """The map in fp32 with the span's side as rows."""
    if direction == "from_span":
        return attention.float()
    # padded queries may hold anything, NaN too; as rows they are left out later
    return attention.float().masked_fill(~real[:, None, :, None], 0.0).transpose(-1, -2)


def _sums(
    attentions: Sequence[Tensor],
    row: Tensor,
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    other: Tensor,
    threshold: float,
    scope: str,
    offsets: Tensor | None,
) -> Tensor:
    """Sums over rows in the span and columns in O, [B, S, C]: the row strip of the span, less the block s x s, which
    needs only the band around the diagonal that the widest span reaches."""
    length = attentions[0].shape[-1]
    if offsets is None:
        offsets = torch.arange(_widest(starts, ends, length) if scope != "sentence" else 1, device=starts.device)
    before = (torch.arange(length, device=starts.device).unsqueeze(1) - offsets).clamp(min=0)
    columns = other[:, None, :, None].float()
    rows, hooks = [], []
    for maps in attentions:
        gated = F.threshold(maps, threshold, 0.0)
        if scope != "span":
            rows.append(gated.matmul(columns).squeeze(-1))
        if scope != "sentence":
            hooks.append(_hooks(gated, before))
    return _strips_less_blocks(
        torch.cat(rows, dim=1).masked_fill(~real.unsqueeze(1), 0.0).transpose(1, 2) if rows else None,
        torch.cat(hooks, dim=1).permute(3, 0, 2, 1) if hooks else None,
        row,
        starts,
        ends,
        real,
        offsets,
    )


def _sums_of_one_key(
    attentions: Sequence[Tensor],
    row: Tensor,
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    threshold: float,
    scope: str,
    offsets: Tensor | None,
) -> Tensor:
    """As `_sums`, where at most one key a row passes the gate: few rows have their key near enough to be in a span.
    With offsets (an export) all rows are looked at, because how many they are may not depend on the values."""
    batch_size, length = real.shape
    # a gated row holds one value: the sum of the row is that value, and weighted by place it tells the key. Places count
    # from the first span: what is before it, such as [CLS], takes most rows and is in no span
    before = torch.where(ends > starts, starts, length).amin() - 1 if offsets is None and starts.numel() else -1
    places = (torch.arange(length, device=real.device) - before).clamp(min=0).float()
    weights = [torch.ones_like(places), places]
    if offsets is None and length > _EXACT:
        # a product may round to TF32 or bf16
        weights[1:] = places % _EXACT, places - places % _EXACT
    weights = torch.stack(weights)
    sums = torch.stack([F.linear(F.threshold(maps.float(), threshold, 0.0), weights) for maps in attentions])
    sums = sums.permute(4, 1, 3, 0, 2).flatten(3).masked_fill_(~real.unsqueeze(-1), 0.0)
    rows, *weighted = sums.unbind()
    if scope == "sentence":
        return _strips_less_blocks(rows, None, row, starts, ends, real, None)

    channels = rows.shape[-1]
    size = batch_size * length * channels
    values, weighted = rows.reshape(-1), sum(weighted[1:], weighted[0]).reshape(-1)
    if offsets is None:
        widest = _widest(starts, ends, length)
        place = weighted.nonzero().squeeze(-1)
        values, weighted = values[place], weighted[place]
        query = place // channels % length
    else:
        widest = offsets.shape[0]
        place = torch.arange(size, device=starts.device)
        query = torch.arange(length, device=starts.device).view(1, -1, 1).expand_as(rows).reshape(-1)
    # from the query to its key
    reach = (weighted / values.clamp(min=threshold)).round().long() + before - query
    # a hook lies where its later end is; those that reach further than any span share a place behind all others
    index = place + reach.clamp(min=0) * channels + reach.abs() * size
    hooks = rows.new_zeros(widest * size + 1)
    # from 0 on too: what is no number has no place
    hooks.scatter_add_(0, index.clamp(0, hooks.shape[0] - 1), values)
    return _strips_less_blocks(
        rows if scope == "context" else None,
        hooks[:-1].view(widest, batch_size, length, channels),
        row,
        starts,
        ends,
        real,
        offsets,
    )


def _widest(starts: Tensor, ends: Tensor, length: int) -> int:
    """Sub-words of the widest span; at least 1."""
    return max(1, min(int((ends - starts).max()), length)) if starts.numel() else 1


def _strips_less_blocks(
    rows: Tensor | None,
    hooks: Tensor | None,
    row: Tensor,
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    offsets: Tensor | None,
) -> Tensor:
    """The sums [B, S, C] over the row strips of the spans, less their blocks; or the one that is given.

    Args:
        rows: [B, n, C], the sum of each row over O.
        hooks: [W, B, n, C], what each position adds to a block that ends in it, see `_hooks`.
        offsets: [W], 0 to W - 1. None for inference: faster, and the hooks are lost.
    """
    total = None
    if rows is not None:
        prefix = F.pad(_running_sums(rows), (0, 0, 1, 0)).flatten(0, 1)
        before = row * (rows.shape[1] + 1)
        total = F.embedding(before + ends, prefix).sub_(F.embedding(before + starts, prefix))
    if hooks is not None:
        _, batch_size, length, channels = hooks.shape
        last = (ends - starts - 1).clamp(min=0)
        if offsets is None:
            blocks, position = _blocks_by_end(hooks), (ends - 1).clamp(min=0)
        else:
            blocks, position = _blocks_by_start(hooks, real, offsets), starts
        block = F.embedding((last * batch_size + row) * length + position, blocks.view(-1, channels))
        total = block if total is None else total.sub_(block)
    # differences of sums can fall a rounding error below 0
    return total.clamp_(min=0)


def _running_sums(rows: Tensor) -> Tensor:
    """The sums of [B, n, C] over all positions up to each."""
    if rows.is_cuda and torch.are_deterministic_algorithms_enabled():
        # CUDA's own would be refused
        return _doubled_sums(rows)
    return rows.cumsum(1)


def _doubled_sums(rows: Tensor) -> Tensor:
    """As `_running_sums`: what a sum reaches over doubles with each step."""
    reach = 1
    while reach < rows.shape[1]:
        rows = rows + F.pad(rows[:, :-reach], (0, 0, reach, 0))
        reach *= 2
    return rows


def _blocks_by_start(hooks: Tensor, real: Tensor, offsets: Tensor) -> Tensor:
    """The sums [W, B, n, C] over all blocks, of 1 to W positions, that start at each position. Has a gradient and can be
    exported."""
    reach, batch_size, length, channels = hooks.shape
    # running sums over the offsets; as a product they take a third of the time
    sums = (offsets.unsqueeze(1) >= offsets).to(hooks.dtype)
    blocks = sums.matmul(hooks.flatten(1)).view(-1, channels)
    # a block grows by one hook at a time: the hook of s + k that reaches back to s
    layer = torch.arange(reach * batch_size, device=hooks.device).view(reach, batch_size, 1) * length
    ending = torch.arange(length, device=hooks.device) + offsets.view(-1, 1, 1)
    # hooks of padding may be NaN and are never looked at
    ending = torch.minimum(ending, (real.sum(-1, keepdim=True) - 1).clamp(min=0))
    return sums.matmul(F.embedding(layer + ending, blocks).flatten(1)).view(hooks.shape)


def _blocks_by_end(hooks: Tensor) -> Tensor:
    """The sums [W, B, n, C] over all blocks, of 1 to W positions, that end in each position; takes the place of the
    hooks."""
    layers, without_first, without_last = (part.unbind() for part in (hooks, hooks[:, :, 1:], hooks[:, :, :-1]))
    # a position's own hooks, as far back as the block's start
    for width in range(1, len(layers)):
        layers[width].add_(layers[width - 1])
    # and the block without that position
    for width in range(1, len(layers)):
        without_first[width].add_(without_last[width - 1])
    return hooks


def _hooks(gated: Tensor, before: Tensor) -> Tensor:
    """What each position adds to a block that ends in it: its row and its column, as far back as the block's start.

    A span holds neither padding nor special tokens, so its block needs no mask.

    Args:
        gated: [B, H, n, n].
        before: [n, W], the position k before each.

    Returns:
        [B, H, n, W], the attention to the position k before and back; the diagonal counts once.
    """
    index = before.expand(*gated.shape[:2], *before.shape)
    column = gated.transpose(-1, -2).gather(-1, index[..., 1:])
    return gated.gather(-1, index) + F.pad(column, (1, 0))


def _maxima(
    attentions: Sequence[Tensor],
    row: Tensor,
    starts: Tensor,
    ends: Tensor,
    real: Tensor,
    other: Tensor,
    threshold: float,
    scope: str,
    longest: int | None,
) -> Tensor:
    """Maxima over rows in the span and columns in O, [B, S, C], layer by layer."""
    left_out = ~(real[:, :, None] & other[:, None, :]).unsqueeze(1)
    widest = _widest(starts, ends, real.shape[1]) if longest is None and scope == "context" else None
    maxima = []
    for maps in attentions:
        gated = F.threshold(maps, threshold, 0.0).masked_fill(left_out, 0.0)
        maxima.append(_max_over(gated, row, starts, ends, scope, widest, longest))
    return torch.cat(maxima, dim=-1)


def _max_over(
    gated: Tensor, row: Tensor, starts: Tensor, ends: Tensor, scope: str, widest: int | None, longest: int | None
) -> Tensor:
    """Maxima over rows in the span and columns in O: [R, H, n, n] and [B, S] offsets -> [B, S, H]."""
    batch_size, heads, length, _ = gated.shape
    batch_index = row.expand_as(starts)
    if scope == "sentence":
        return range_max(range_max_table(gated.amax(-1).transpose(1, 2), longest=longest), batch_index, starts, ends)
    if scope == "span":
        return _square_max(gated, batch_index, starts, ends, longest)

    # per row, the maximum up to each column and from each column on
    if longest is None:
        before, after = gated.cummax(-1).values, gated.flip(-1).cummax(-1).values.flip(-1)
    else:
        # ONNX has no running maximum: the reach doubles with each step
        reach, before, after = 1, gated, gated
        while reach < longest:
            before = torch.maximum(before, shifted(before, -reach, -1))
            after = torch.maximum(after, shifted(after, reach, -1))
            reach *= 2
    pooled = []
    for maxima, column in ((F.pad(before, (1, 0)), starts), (F.pad(after, (0, 1)), ends)):
        # channels last, so that one lookup in the table of [rows x columns] returns all heads of a span
        table = range_max_table(maxima.permute(0, 2, 3, 1).flatten(2), widest, longest)
        levels = table.shape[0]
        level, width = range_levels(ends - starts, levels)
        flat = table.reshape(-1, heads)
        base = (level * batch_size + batch_index) * length
        pooled += [
            F.embedding((base + first) * (length + 1) + column, flat)
            for first in (starts, (ends - width).clamp(min=0))
        ]
    return torch.stack(pooled).amax(0)


def _square_max(gated: Tensor, batch_index: Tensor, starts: Tensor, ends: Tensor, longest: int | None) -> Tensor:
    """Maxima over the squares s x s, from the maxima of all squares whose side is a power of two."""
    batch_size, heads, length, _ = gated.shape
    levels, width = [gated.permute(0, 2, 3, 1)], 1
    while 2 * width <= (longest or length):
        rows = torch.maximum(levels[-1], shifted(levels[-1], width, 1))
        levels.append(torch.maximum(rows, shifted(rows, width, 2)))
        width *= 2
    flat = torch.stack(levels).view(-1, heads)
    level, width = range_levels(ends - starts, len(levels))
    square = (level * batch_size + batch_index) * length
    offsets = (starts, (ends - width).clamp(min=0))
    corners = [F.embedding((square + row) * length + column, flat) for row in offsets for column in offsets]
    return torch.stack(corners).amax(0)
