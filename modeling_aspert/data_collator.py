"""Sampling of negatives and padding: encoded examples to the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .configuration_aspert import AspertConfig
from .dataset import EncodedExample
from .processing_aspert import AspertProcessor, EncodedSentence, candidate_spans


@dataclass(slots=True)
class TrainingSample:
    """Spans and pairs of one sentence: the gold ones first, then the sampled negatives.

    Args:
        spans: [S, 2] words.
        span_labels: [S], 0 for none.
        pairs: [P, 2] (head, tail), indices into ``spans``.
        pair_labels: float32 [P, T_r].
    """

    spans: np.ndarray
    span_labels: np.ndarray
    pairs: np.ndarray
    pair_labels: np.ndarray


def sample_training(
    example: EncodedExample,
    rng: np.random.Generator,
    max_span_width: int,
    negative_entity_count: int,
    negative_relation_count: int,
) -> TrainingSample:
    """All gold spans and pairs of a sentence and strong negatives, drawn uniformly without replacement.

    Negative spans: word spans up to ``max_span_width`` words that are no gold span. Negative pairs: ordered pairs of
    gold entities whose spans differ and that hold no relation in that direction (Section 3.1; SpERT).
    """
    gold = example.entity_spans
    candidates = candidate_spans(example.sentence.num_words, max_span_width)
    base = example.sentence.num_words + 1
    free = np.flatnonzero(~np.isin(candidates @ (base, 1), gold @ (base, 1)))
    chosen = rng.choice(free, size=min(negative_entity_count, len(free)), replace=False, shuffle=False)
    spans = np.concatenate([gold, candidates[chosen]])
    span_labels = np.concatenate([example.entity_types, np.zeros(len(chosen), dtype=np.int64)])

    # of several entities on one span, pairs use the first
    first = np.sort(np.unique(gold, axis=0, return_index=True)[1]) if len(gold) else np.zeros(0, dtype=np.int64)
    related = np.zeros((len(gold), len(gold)), dtype=bool)
    related[example.pairs[:, 0], example.pairs[:, 1]] = True
    np.fill_diagonal(related, True)
    heads, tails = np.nonzero(~related[np.ix_(first, first)])
    chosen = rng.choice(len(heads), size=min(negative_relation_count, len(heads)), replace=False, shuffle=False)
    negatives = np.stack([first[heads[chosen]], first[tails[chosen]]], axis=1)
    pairs = np.concatenate([example.pairs, negatives])
    pair_labels = np.zeros((len(pairs), example.pair_types.shape[1]), dtype=np.float32)
    pair_labels[: len(example.pairs)] = example.pair_types
    return TrainingSample(spans, span_labels, pairs, pair_labels)


@dataclass
class AspertDataCollator:
    """Batches of :class:`JointExtractionDataset` items.

    In training, negatives are drawn from a generator seeded by (seed, epoch, record), so they are new every epoch
    and the same for any number of loader workers and processes; the epoch is what the items say, which are of epoch 0
    where no :class:`EpochSampler` chose them. Otherwise all candidate spans are batched, with
    ``word_spans`` and ``index`` for decoding; the model builds the pairs itself.

    Args:
        processor: the model's processor.
        config: the model's configuration.
        training: sample with labels, or enumerate candidates.
        negative_entity_count: negative spans a sentence.
        negative_relation_count: negative pairs a sentence.
        seed: of the sampling.
    """

    processor: AspertProcessor
    config: AspertConfig
    training: bool = True
    negative_entity_count: int = 150
    negative_relation_count: int = 150
    seed: int = 0

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of B items, padded to n sub-words, S spans and P pairs.

        Returns:
            What :class:`AspertForJointExtraction` takes: ``input_ids``, ``attention_mask`` int64 [B, n]; ``spans`` int64
            [B, S, 2], sub-words, ``span_widths`` int64 [B, S], words, ``span_mask`` bool [B, S]; where the configuration
            needs them ``word_shapes`` and ``special_tokens_mask`` int64 [B, n]. In training ``span_labels`` int64 [B, S],
            ``pairs`` int64 [B, P, 2], ``pair_mask`` bool [B, P], ``pair_labels`` float32 [B, P, T_r]; else ``word_spans``
            int64 [B, S, 2], words. And ``index`` int64 [B], the records' positions.
        """
        examples: list[EncodedExample] = [item["example"] for item in items]
        sentences = [example.sentence for example in examples]
        index = torch.tensor([item["index"] for item in items])
        if not self.training:
            return {**self.collate_candidates(sentences), "index": index}
        samples = [
            sample_training(
                item["example"],
                np.random.default_rng((self.seed, item["epoch"], item["index"])),
                self.config.max_span_width,
                self.negative_entity_count,
                self.negative_relation_count,
            )
            for item in items
        ]
        batch = self._encode_spans(sentences, [sample.spans for sample in samples])
        batch["span_labels"] = pad([sample.span_labels for sample in samples])
        batch["pairs"] = pad([sample.pairs for sample in samples])
        batch["pair_mask"] = length_mask([len(sample.pairs) for sample in samples])
        batch["pair_labels"] = pad([sample.pair_labels for sample in samples])
        batch["index"] = index
        return batch

    def collate_candidates(
        self, sentences: Sequence[EncodedSentence], word_spans: Sequence[np.ndarray] | None = None
    ) -> dict[str, Tensor]:
        """A batch for inference: every span up to the limit, or the given ones, and ``word_spans`` [B, S, 2]."""
        if word_spans is None:
            word_spans = [candidate_spans(sentence.num_words, self.config.max_span_width) for sentence in sentences]
        batch = self._encode_spans(sentences, word_spans)
        batch["word_spans"] = pad(word_spans)
        return batch

    def _encode_spans(
        self, sentences: Sequence[EncodedSentence], word_spans: Sequence[np.ndarray]
    ) -> dict[str, Tensor]:
        pad_id = self.processor.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": pad([sentence.input_ids for sentence in sentences], pad_id),
            "attention_mask": length_mask([sentence.num_tokens for sentence in sentences]).long(),
            "spans": pad([sentence.token_spans(spans) for sentence, spans in zip(sentences, word_spans)]),
            "span_widths": pad([spans[:, 1] - spans[:, 0] for spans in word_spans]),
            "span_mask": length_mask([len(spans) for spans in word_spans]),
        }
        if self.config.word_shapes:
            batch["word_shapes"] = pad([sentence.word_shapes for sentence in sentences])
        if not self.config.contribution_special_tokens:
            batch["special_tokens_mask"] = pad([sentence.special_tokens_mask for sentence in sentences], 1)
        return batch


def pad(arrays: Sequence[np.ndarray], value: int = 0) -> Tensor:
    """Arrays [length, ...] of one trailing shape and dtype stacked to a tensor [B, longest, ...]."""
    longest = max(len(array) for array in arrays)
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), value, dtype=arrays[0].dtype)
    for row, array in zip(stacked, arrays):
        row[: len(array)] = array
    return torch.from_numpy(stacked)


def length_mask(lengths: Sequence[int]) -> Tensor:
    """bool [B, longest], True within each length."""
    sizes = torch.tensor(list(lengths))
    return torch.arange(int(sizes.max())) < sizes.unsqueeze(1)
