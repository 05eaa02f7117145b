"""What ASpERT computes, slowly: loops over tokens, spans and pairs, written from the paper's definitions.

Everything is for one sentence. Tensors only carry values and gradients: which values enter is decided by Python
conditions. Equation and algorithm numbers are those of Ouyang, Zhang, Liu (2022).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Span = tuple[int, int]


# ------------------------------------------------------------------------------------------------ span pooling


def max_pool(hidden: Tensor, start: int, end: int) -> Tensor:
    """[d]: in each dimension the largest of the tokens start ... end - 1 of [n, d]; zeros where there are none."""
    if end <= start:
        return torch.zeros(hidden.shape[1], dtype=hidden.dtype)
    pooled = []
    values = hidden.tolist()
    for dimension in range(hidden.shape[1]):
        best = start
        for token in range(start, end):
            if values[token][dimension] > values[best][dimension]:
                best = token
        pooled.append(hidden[best, dimension])
    return torch.stack(pooled)


def context(hidden: Tensor, first: Span, second: Span) -> Tensor:
    """c(s1, s2) of Eq. 4: the max-pool of the tokens between two spans, whichever comes first."""
    between = []
    for token in range(hidden.shape[0]):
        behind_one = token >= first[1] and token < second[0]
        behind_other = token >= second[1] and token < first[0]
        if behind_one or behind_other:
            between.append(token)
    if not between:
        return torch.zeros(hidden.shape[1], dtype=hidden.dtype)
    return max_pool(hidden, between[0], between[-1] + 1)


# -------------------------------------------------------------------------------- attentional contribution degree


def contribution(
    attention: Tensor,
    span: Span,
    attention_mask: list[int],
    special_tokens_mask: list[int],
    *,
    threshold: float,
    pooling: str,
    scope: str,
    direction: str,
    special_tokens: bool,
) -> Tensor:
    """f_a(s) of Algorithms 1 and 2, [C] (or [2C] for "both"), from the attentions [C, n, n] of one sentence."""
    if direction == "both":
        halves = []
        for one in ("from_span", "to_span"):
            halves.append(
                contribution(
                    attention,
                    span,
                    attention_mask,
                    special_tokens_mask,
                    threshold=threshold,
                    pooling=pooling,
                    scope=scope,
                    direction=one,
                    special_tokens=special_tokens,
                )
            )
        return torch.cat(halves)

    inside = list(range(span[0], span[1]))
    other_side = []
    for token in range(attention.shape[1]):
        if attention_mask[token] == 0:
            continue
        if special_tokens_mask[token] == 1 and not special_tokens:
            continue
        if scope == "context" and token in inside:
            continue
        if scope == "span" and token not in inside:
            continue
        other_side.append(token)

    values = attention.tolist()
    degrees = []
    for channel in range(attention.shape[0]):
        kept = []
        for s in inside:
            for o in other_side:
                query, key = (s, o) if direction == "from_span" else (o, s)
                if threshold == 0 or values[channel][query][key] > threshold:
                    kept.append((query, key))
        if not kept:
            degrees.append(torch.zeros((), dtype=attention.dtype))
            continue
        if pooling == "max":
            query, key = max(kept, key=lambda pair: values[channel][pair[0]][pair[1]])
            degrees.append(attention[channel, query, key])
            continue
        queries, keys = [query for query, _ in kept], [key for _, key in kept]
        total = attention[channel, queries, keys].sum()
        degrees.append(total / (len(inside) * len(other_side)) if pooling == "mean" else total)
    return torch.stack(degrees)


# ------------------------------------------------------------------------------------------------ classifiers


def channels(attentions: tuple[Tensor, ...], sentence: int) -> Tensor:
    """[C, n, n]: all layers joined along the heads, channel = layer * H + head."""
    joined = []
    for layer in attentions:
        for head in range(layer.shape[1]):
            joined.append(layer[sentence, head])
    return torch.stack(joined)


class SlowAspert:
    """The two classifiers from their definition, on the hidden states and attentions of one sentence.

    Args:
        config: the model's configuration.
        weights: the model's state dict.
        hidden: [n, d].
        attention: [C, n, n], None where the contribution is off.
    """

    def __init__(
        self,
        config: Any,
        weights: dict[str, Tensor],
        hidden: Tensor,
        attention: Tensor | None,
        attention_mask: list[int],
        special_tokens_mask: list[int],
    ) -> None:
        self.config = config
        self.weights = weights
        self.hidden = hidden
        self.attention = attention
        self.attention_mask = attention_mask
        self.special_tokens_mask = special_tokens_mask

    def contribution(self, span: Span) -> Tensor:
        config = self.config
        return contribution(
            self.attention,
            span,
            self.attention_mask,
            self.special_tokens_mask,
            threshold=config.contribution_threshold,
            pooling=config.contribution_pooling,
            scope=config.contribution_scope,
            direction=config.contribution_direction,
            special_tokens=config.contribution_special_tokens,
        )

    def span_vector(self, span: Span, width: int, with_contribution: bool) -> Tensor:
        """E(s), Eq. 6."""
        parts = [max_pool(self.hidden, *span)]
        if self.config.span_boundaries:
            parts += [self.hidden[span[0]], self.hidden[span[1] - 1]]
        if with_contribution and self.config.attentional_contribution:
            parts.append(self.contribution(span))
        if self.config.width_embedding:
            table = self.weights["width_embedding.weight"]
            parts.append(table[min(width, len(table) - 1)])
        return torch.cat(parts)

    def span_logits(self, span: Span, width: int) -> Tensor:
        """Eq. 7-9, or Eq. 3 for the linear classifier, before the softmax."""
        vector = torch.cat([self.span_vector(span, width, True), self.hidden[0]])
        if self.config.span_classifier == "linear":
            return self.layer("span_classifier.input", vector)
        return self.mlp("span_classifier", vector)

    def layer(self, name: str, vector: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ vector + self.weights[f"{name}.bias"]

    def mlp(self, name: str, vector: Tensor) -> Tensor:
        hidden = self.layer(f"{name}.input", vector)
        active = torch.stack([value if value > 0 else torch.zeros(()) for value in hidden])
        return self.layer(f"{name}.output", active)

    def entity_vector(self, span: Span, width: int) -> Tensor:
        """E(s) as the relation classifier sees it."""
        vector = self.span_vector(span, width, self.config.relation_contribution)
        if self.config.relation_entity_types:
            powers = [math.exp(value) for value in self.span_logits(span, width).tolist()]
            vector = torch.cat([vector, torch.tensor([power / sum(powers) for power in powers])])
        return vector

    def relation_logits(self, head: Span, head_width: int, tail: Span, tail_width: int) -> Tensor:
        """Eq. 4-5 before the sigmoid."""
        vector = torch.cat(
            [
                self.entity_vector(head, head_width),
                context(self.hidden, head, tail),
                self.entity_vector(tail, tail_width),
            ]
        )
        if self.config.relation_classifier == "linear":
            return self.layer("relation_classifier.output", vector)
        return self.mlp("relation_classifier", vector)


# ------------------------------------------------------------------------------------------------------ loss


def loss(
    span_logits: list[list[float]],
    span_labels: list[int],
    relation_logits: list[list[float]],
    pair_labels: list[list[float]],
    *,
    span_loss_weight: float,
    none_class: bool,
    num_spans: int | None = None,
    num_pairs: int | None = None,
) -> tuple[float, float, float]:
    """(L, L^s, L^r) of Eq. 10 from the logits of all spans and pairs of a batch, padding already left out."""
    total = 0.0
    for logits, label in zip(span_logits, span_labels, strict=True):
        normaliser = math.log(sum(math.exp(value) for value in logits))
        total += normaliser - logits[label]
    span_loss = total / max(num_spans if num_spans is not None else len(span_labels), 1)

    total = 0.0
    for logits, labels in zip(relation_logits, pair_labels, strict=True):
        targets = list(labels)
        if none_class:
            targets.append(0.0 if any(label == 1 for label in labels) else 1.0)
        terms = 0.0
        for value, target in zip(logits, targets, strict=True):
            probability = 1 / (1 + math.exp(-value))
            terms -= math.log(probability) if target == 1 else math.log(1 - probability)
        total += terms / len(targets)
    relation_loss = total / max(num_pairs if num_pairs is not None else len(pair_labels), 1)
    return span_loss_weight * span_loss + relation_loss, span_loss, relation_loss


# ------------------------------------------------------------------------------------------------ sampling


def candidate_spans(num_words: int, max_width: int) -> list[Span]:
    """All word spans of 1 to ``max_width`` words, by (start, end)."""
    spans = []
    for start in range(num_words):
        for end in range(start + 1, num_words + 1):
            if end - start <= max_width:
                spans.append((start, end))
    return spans


def negative_spans(num_words: int, max_width: int, entities: list[dict]) -> set[Span]:
    """What may be drawn as a negative span: candidates that are no gold span."""
    gold = {(entity["start"], entity["end"]) for entity in entities}
    return {span for span in candidate_spans(num_words, max_width) if span not in gold}


def positive_pairs(
    entities: list[dict], relations: list[dict], symmetric: set[str]
) -> dict[tuple[Span, Span], set[str]]:
    """Gold relation types by (head span, tail span); a symmetric relation starts at the span that comes first."""
    pairs: dict[tuple[Span, Span], set[str]] = {}
    for relation in relations:
        head, tail = entities[relation["head"]], entities[relation["tail"]]
        head_span, tail_span = (head["start"], head["end"]), (tail["start"], tail["end"])
        if relation["type"] in symmetric and tail_span < head_span:
            head_span, tail_span = tail_span, head_span
        pairs.setdefault((head_span, tail_span), set()).add(relation["type"])
    return pairs


def negative_pairs(entities: list[dict], relations: list[dict], symmetric: set[str]) -> set[tuple[Span, Span]]:
    """What may be drawn as a negative pair: ordered pairs of different gold spans without a relation that way."""
    positive = positive_pairs(entities, relations, symmetric)
    spans = {(entity["start"], entity["end"]) for entity in entities}
    return {(head, tail) for head in spans for tail in spans if head != tail and (head, tail) not in positive}


# ------------------------------------------------------------------------------------------------ decoding


def decode(
    spans: list[Span],
    span_logits: list[list[float]],
    pairs: list[tuple[int, int]],
    relation_logits: list[list[float]],
    *,
    symmetric: list[bool],
    thresholds: list[float],
    none_threshold: float | None = None,
    entity_threshold: float = 0.0,
) -> tuple[list[tuple[int, int, int, float]], dict[tuple[int, int, int], float]]:
    """Entities (start, end, type, score) in the order of ``spans`` and relations {(head, tail, type): score}.

    Args:
        spans: candidate word spans by (start, end).
        pairs: (head, tail) indices into ``spans``.
        symmetric, thresholds: for each relation type.
        none_threshold: alpha of the none class, the last output; None where there is no such class.
    """
    entities: list[tuple[int, int, int, float]] = []
    position: dict[int, int] = {}
    for index, (span, logits) in enumerate(zip(spans, span_logits, strict=True)):
        normaliser = sum(math.exp(value) for value in logits)
        probabilities = [math.exp(value) / normaliser for value in logits]
        best = max(range(len(probabilities)), key=lambda kind: probabilities[kind])
        if best > 0 and probabilities[best] >= entity_threshold:
            position[index] = len(entities)
            entities.append((*span, best - 1, probabilities[best]))

    relations: dict[tuple[int, int, int], float] = {}
    for (head, tail), logits in zip(pairs, relation_logits, strict=True):
        if head not in position or tail not in position:
            continue
        probabilities = [1 / (1 + math.exp(-value)) for value in logits]
        if none_threshold is not None and probabilities[-1] >= none_threshold:
            continue
        for kind in range(len(symmetric)):
            if probabilities[kind] < thresholds[kind]:
                continue
            first, second = head, tail
            if symmetric[kind] and spans[second] < spans[first]:
                first, second = second, first
            key = (position[first], position[second], kind)
            relations[key] = max(relations.get(key, 0.0), probabilities[kind])
    return entities, relations
