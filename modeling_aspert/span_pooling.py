"""Max-pooling over many token ranges at O(1) each, with a range-maximum (sparse) table.

Level k of the table holds the maxima of all windows of 2^k tokens; any range is the maximum of two of them.
No tensor of shape [spans x tokens x hidden] is built, whatever the length of the ranges.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def range_max_table(values: Tensor, widest: int | None = None, longest: int | None = None) -> Tensor:
    """Maxima of all windows whose width is a power of two.

    Args:
        values: [B, n, d].
        widest: the widest range that will be asked for; default: n.
        longest: build the levels that this n needs, whatever n is, by operations that can be exported.

    Returns:
        [K, B, n, d] with K = floor(log2 widest) + 1; entry [k, b, i] is the maximum of ``values[b, i : i + 2**k]``
        (cut at n).
    """
    levels = [values]
    width = 1
    if longest is not None:
        while 2 * width <= longest:
            levels.append(torch.maximum(levels[-1], shifted(levels[-1], width, 1)))
            width *= 2
        return torch.stack(levels)
    widest = values.shape[1] if widest is None else min(widest, values.shape[1])
    while 2 * width <= widest:
        previous = levels[-1]
        levels.append(
            torch.cat([torch.maximum(previous[:, :-width], previous[:, width:]), previous[:, -width:]], dim=1)
        )
        width *= 2
    return torch.stack(levels)


def shifted(values: Tensor, steps: int, dim: int) -> Tensor:
    """Each position holds what lies ``steps`` further along a dimension, or the value at its end, at any length."""
    length = values.shape[dim]
    return values.index_select(dim, (torch.arange(length, device=values.device) + steps).clamp(0, length - 1))


def range_levels(widths: Tensor, num_levels: int) -> tuple[Tensor, Tensor]:
    """The table level that covers each width with two windows, and that level's window width.

    Args:
        widths: integer tensor of any shape; widths below 1 are treated as 1.

    Returns:
        ``level`` and ``2**level``, both of the shape of ``widths``.
    """
    powers = 2 ** torch.arange(num_levels, device=widths.device)
    # as bucketize, which takes an export a search of some forty operations
    level = (widths.unsqueeze(-1) >= powers[1:]).sum(-1)
    return level, powers[level]


def range_max(table: Tensor, batch_index: Tensor, starts: Tensor, ends: Tensor, may_be_empty: bool = True) -> Tensor:
    """Maxima over the ranges [start, end) of sentence ``batch_index``.

    Args:
        table: [K, B, n, d] from :func:`range_max_table`.
        batch_index, starts, ends: integer tensors of one shape [...].
        may_be_empty: False saves a pass where it does not matter what an empty range gets.

    Returns:
        [..., d]; the zero vector for an empty range (end <= start), as SpERT sets the context of adjacent entities.
    """
    num_levels, batch_size, length, size = table.shape
    level, width = range_levels(ends - starts, num_levels)
    row = (level * batch_size + batch_index) * length
    flat = table.reshape(-1, size)
    first = F.embedding((row + starts).clamp(max=flat.shape[0] - 1), flat)
    second = F.embedding(row + (ends - width).clamp(min=0), flat)
    maxima = torch.maximum(first, second)
    return maxima.masked_fill_((ends <= starts).unsqueeze(-1), 0.0) if may_be_empty else maxima
