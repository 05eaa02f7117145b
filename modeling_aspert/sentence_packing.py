"""Several short sentences in one row of the encoder's input, so that a training batch holds little padding.

A row is as long as the longest sentence of the batch, so nothing grows. Sentences of a row do not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Encoders that take position ids and a mask of their own.
PACKABLE = ("albert", "bert", "camembert", "electra", "mpnet", "roberta", "xlm-roberta")


class Packing:
    """Where each sentence of a batch lies in the rows: the longest first, each in the first row with room.

    Args:
        lengths: B sub-words; each sentence is padded on its right to n.
        length: n.
        device: of the batch.

    Attributes:
        rows: R lists of the sentences in each row, in their order.
        row: [B, 1], the row of each sentence.
        starts: [B, 1], where it begins there.
    """

    def __init__(self, lengths: Sequence[int], length: int, device: torch.device) -> None:
        self.length = length
        self.row_length = max(lengths)
        self.rows: list[list[int]] = []
        room: list[int] = []
        self._ends = list(lengths)  # behind each sentence, in its row
        for sentence in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
            row = next((row for row, left in enumerate(room) if left >= lengths[sentence]), len(room))
            if row == len(room):
                room.append(self.row_length)
                self.rows.append([])
            self.rows[row].append(sentence)
            room[row] -= lengths[sentence]
            self._ends[sentence] = self.row_length - room[row]

        owner = torch.full((len(room), self.row_length), -1)
        source = torch.zeros_like(owner)
        place = torch.zeros(len(lengths), length, dtype=torch.long)
        for row, sentences in enumerate(self.rows):
            for sentence in sentences:
                size, end = lengths[sentence], self._ends[sentence]
                owner[row, end - size : end] = sentence
                source[row, end - size : end] = torch.arange(size) + sentence * length
                place[sentence, :size] = torch.arange(end - size, end) + row * self.row_length
        self._owner, self._source, self._place = (index.to(device) for index in (owner, source, place))
        first = self._place[:, :1]
        self.row, self.starts = first // self.row_length, first % self.row_length

    def pack(self, values: Tensor) -> Tensor:
        """[B, n, ...] to [R, m, ...]; what lies in a place that no sentence fills does not count."""
        return values.flatten(0, 1)[self._source]

    def pack_mask(self, mask: Tensor) -> Tensor:
        """bool [B, n] to [R, m]; False in a place that no sentence fills."""
        return self.pack(mask) & (self._owner >= 0)

    def unpack(self, values: Tensor) -> Tensor:
        """[R, m, d] to [B, n, d]; padding holds anything."""
        return F.embedding(self._place, values.flatten(0, 1))

    def positions(self) -> Tensor:
        """[R, m], each token's position in its sentence."""
        return self._source % self.length

    def mask(self, dtype: torch.dtype) -> Tensor:
        """[R, 1, m, m], what is added to attention scores: nothing within a sentence, else the least number."""
        together = self._owner.unsqueeze(2) == self._owner.unsqueeze(1)
        return (
            torch.zeros(together.shape, dtype=dtype, device=together.device)
            .masked_fill_(~together, torch.finfo(dtype).min)
            .unsqueeze(1)
        )
