"""Scores to entities and relations, without Python objects per span or pair: only what is kept becomes a record."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .configuration_aspert import AspertConfig
from .modeling_aspert import AspertOutput

logger = logging.getLogger(__name__)

# Relations of one batch that are kept at most. Trained models are far below; an untrained one may relate everything.
MAX_RELATIONS = 2**20
# Relation logits looked at together; bounds memory, does not change results.
CHUNK_VALUES = 2**22


@dataclass
class Predictions:
    """What is kept of a batch, as flat arrays sorted by sentence.

    Args:
        entities: int64 [N, 4]: sentence, word start, word end, type (index into ``entity_types``); by (start, end).
        entity_scores: [N] softmax probability of the type.
        relations: int64 [M, 4]: sentence, head, tail (positions among the sentence's entities), type; in that order.
        relation_scores: [M] sigmoid probability of the type.
    """

    entities: np.ndarray
    entity_scores: np.ndarray
    relations: np.ndarray
    relation_scores: np.ndarray

    def per_sentence(self, count: int) -> list[Predictions]:
        """Split into the predictions of ``count`` sentences."""
        entity_cuts = np.searchsorted(self.entities[:, 0], np.arange(1, count))
        relation_cuts = np.searchsorted(self.relations[:, 0], np.arange(1, count))
        return [
            Predictions(*parts)
            for parts in zip(
                np.split(self.entities, entity_cuts),
                np.split(self.entity_scores, entity_cuts),
                np.split(self.relations, relation_cuts),
                np.split(self.relation_scores, relation_cuts),
            )
        ]

    def annotation(self, config: AspertConfig) -> dict[str, list[dict[str, Any]]]:
        """The "entities" and "relations" of a record in the SpERT format, with scores; for one sentence."""
        return {
            "entities": [
                {"type": config.entity_types[kind], "start": start, "end": end, "score": score}
                for (_, start, end, kind), score in zip(self.entities.tolist(), self.entity_scores.tolist())
            ],
            "relations": [
                {"type": config.relation_types[kind], "head": head, "tail": tail, "score": score}
                for (_, head, tail, kind), score in zip(self.relations.tolist(), self.relation_scores.tolist())
            ],
        }


@torch.no_grad()
def decode(
    output: AspertOutput,
    word_spans: Tensor,
    span_mask: Tensor,
    config: AspertConfig,
    relation_threshold: float | Mapping[str, float] | None = None,
    entity_threshold: float | None = None,
    overlap: str | None = None,
    span_labels: Tensor | None = None,
) -> Predictions:
    """The entities and relations of a batch.

    A span is an entity where its best type is not none; a relation is kept where its probability is >= its threshold
    (alpha) and, with a none class, p(none) < alpha. Symmetric relations are ordered by (start, end) of their spans
    and de-duplicated keeping the higher score.

    Args:
        output: the model's, for candidate spans.
        word_spans: [B, S, 2], words.
        span_mask: bool [B, S].
        config: the model's configuration.
        relation_threshold: one for all types, or one by type (missing types, and the veto of a none class: the
            configuration's).
        entity_threshold: least probability of an entity's type; default: the configuration's.
        overlap: "allow", or "flat" to keep the best of overlapping entities; default: the configuration's.
        span_labels: [B, S] types of given entities (1 ... T_e); then only relations are predicted, and the given
            entities have score 1.

    Raises:
        ValueError: a threshold for a type that the model does not have.
    """
    entity_threshold = config.entity_threshold if entity_threshold is None else entity_threshold
    if span_labels is None:
        probabilities = output.span_logits.float().softmax(-1)
        scores, types = probabilities.max(-1)
    else:
        types, scores = span_labels, torch.ones_like(span_labels, dtype=torch.float32)
    kept = (types > 0) & span_mask.bool() & (scores >= entity_threshold)
    batch_index, span = kept.nonzero(as_tuple=True)
    entities = torch.column_stack([batch_index, word_spans[batch_index, span], types[batch_index, span] - 1])

    # position of each kept span among its sentence's entities
    position = kept.cumsum(-1) - 1
    limits = _thresholds(config, relation_threshold).to(output.relation_logits.device)
    pair_index, pair, kind = _candidates(output, limits, config)
    relation_scores = output.relation_logits[pair_index, pair, kind].float().sigmoid()
    head, tail = output.pairs[pair_index, pair].long().unbind(-1)
    both = (relation_scores >= limits[kind]) & kept[pair_index, head] & kept[pair_index, tail]
    if config.relation_type_constraints:
        both &= _allowed(config).to(kind.device)[kind, types[pair_index, head] - 1, types[pair_index, tail] - 1]
    pair_index, kind, head, tail, relation_scores = (
        values[both] for values in (pair_index, kind, head, tail, relation_scores)
    )
    head, tail = position[pair_index, head], position[pair_index, tail]
    # entities are sorted by (start, end), so the order of positions is the order of spans
    symmetric = torch.tensor(config.symmetric_flags, device=kind.device, dtype=torch.bool)[kind]
    head, tail = (
        torch.where(symmetric, torch.minimum(head, tail), head),
        torch.where(symmetric, torch.maximum(head, tail), tail),
    )
    relations, relation_scores = _highest(
        torch.column_stack([pair_index, head, tail, kind]).cpu().numpy(), relation_scores.cpu().numpy()
    )
    predictions = Predictions(
        entities.cpu().numpy(), scores[batch_index, span].float().cpu().numpy(), relations, relation_scores
    )
    flat = (config.entity_overlap if overlap is None else overlap) == "flat" and span_labels is None
    return without_overlaps(predictions) if flat else predictions


def _candidates(output: AspertOutput, limits: Tensor, config: AspertConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Sentence, pair and type of the relations that may reach their threshold, without a probability for each pair.

    Logits are compared, a little below the threshold; the caller compares the probabilities of what is left.
    """
    logits, pair_mask = output.relation_logits, output.pair_mask.bool()
    # rounding moves a sigmoid by far less; large logits have the probability 1
    least = torch.logit(limits.float().clamp(max=1 - 1e-7)) - 1e-3
    count = 0
    kept = torch.empty(3, 0, dtype=torch.int64, device=logits.device)
    scores = logits.new_empty(0)
    step = max(1, CHUNK_VALUES // max(1, logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], step):
        part, related = logits[:, start : start + step], pair_mask[:, start : start + step]
        if config.relation_none_class:
            related = related & (part[..., -1].float().sigmoid() < config.relation_threshold)
            part = part[..., :-1]
        sentence, pair, kind = ((part >= least.to(part.dtype)) & related.unsqueeze(-1)).nonzero(as_tuple=True)
        count += len(sentence)
        scores = torch.cat([scores, part[sentence, pair, kind]])
        kept = torch.cat([kept, torch.stack([sentence, pair + start, kind])], dim=1)
        if len(scores) > MAX_RELATIONS:
            scores, best = scores.topk(MAX_RELATIONS)
            kept = kept[:, best]
    if count > MAX_RELATIONS:
        logger.warning(
            "%d relations in one batch reach their thresholds, as with an untrained model: the %d with the highest "
            "scores are kept; raise relation_threshold",
            count,
            MAX_RELATIONS,
        )
    sentence, pair, kind = kept
    return sentence, pair, kind


def _highest(relations: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by their columns, equal rows reduced to the one with the highest score."""
    order = np.lexsort((-scores, *relations.T[::-1]))
    relations, scores = relations[order], scores[order]
    first = np.ones(len(relations), dtype=bool)
    first[1:] = (relations[1:] != relations[:-1]).any(axis=1)
    return relations[first], scores[first]


def _allowed(config: AspertConfig) -> Tensor:
    """bool [T_r, T_e, T_e]: which relation may join which head and tail types."""
    entity_ids = {name: index for index, name in enumerate(config.entity_types)}
    allowed = torch.ones(len(config.relation_types), len(entity_ids), len(entity_ids), dtype=torch.bool)
    for index, relation in enumerate(config.relation_types):
        if relation in config.relation_type_constraints:
            allowed[index] = False
            for head, tail in config.relation_type_constraints[relation]:
                allowed[index, entity_ids[head], entity_ids[tail]] = True
                if relation in config.symmetric_relations:
                    allowed[index, entity_ids[tail], entity_ids[head]] = True
    return allowed


def _joined_types(records: Iterable[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """The (head, tail) entity types that each relation type joins in annotated records."""
    seen: dict[str, set[tuple[str, str]]] = {}
    for record in records:
        for relation in record["relations"]:
            ends = tuple(record["entities"][relation[end]]["type"] for end in ("head", "tail"))
            seen.setdefault(relation["type"], set()).add(ends)
    return {relation: [list(pair) for pair in sorted(pairs)] for relation, pairs in sorted(seen.items())}


def learn_constraints(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Fields of :class:`AspertConfig` that keep a model to what annotated records show: the head and tail types of
    each relation, and entities that do not overlap where none do."""
    records = list(records)
    overlap = any(
        end > start
        for record in records
        for (_, end), (start, _) in itertools.pairwise(
            sorted({(entity["start"], entity["end"]) for entity in record["entities"]})
        )
    )
    return {
        "relation_type_constraints": _joined_types(records),
        "entity_overlap": "allow" if overlap else "flat",
    }


def _thresholds(config: AspertConfig, requested: float | Mapping[str, float] | None) -> Tensor:
    if requested is None:
        requested = {}
    if not isinstance(requested, Mapping):
        requested = dict.fromkeys(config.relation_types, requested)
    unknown = set(requested) - set(config.relation_types)
    if unknown:
        raise ValueError(f"relation_threshold for {sorted(unknown)}, but the model has {config.relation_types}")
    return torch.tensor([requested.get(name, config.relation_threshold) for name in config.relation_types])


def without_overlaps(predictions: Predictions) -> Predictions:
    """Keep, of overlapping entities, the one with the highest score, and the relations among the kept.

    Equal scores: the entity that starts first, then the shorter one.
    """
    sentence, starts, ends = predictions.entities[:, :3].T
    kept = np.zeros(len(sentence), dtype=bool)
    taken = np.zeros((sentence.max(initial=-1) + 1, ends.max(initial=0)), dtype=bool)
    for index in np.lexsort((ends, starts, -predictions.entity_scores)).tolist():
        words = taken[sentence[index], starts[index] : ends[index]]
        if not words.any():
            words[:] = kept[index] = True
    # positions among a sentence's entities become positions among its kept ones
    relations = predictions.relations.copy()
    first = np.searchsorted(sentence, relations[:, 0])[:, None]
    ends_of_relations = first + relations[:, 1:3]
    before = np.concatenate([[0], kept.cumsum()])
    relations[:, 1:3] = before[ends_of_relations] - before[first]
    alive = kept[ends_of_relations].all(axis=1)
    return Predictions(
        predictions.entities[kept],
        predictions.entity_scores[kept],
        relations[alive],
        predictions.relation_scores[alive],
    )


def join_records(
    records: Sequence[Mapping[str, Any]], predictions: Sequence[Predictions], config: AspertConfig
) -> list[dict[str, Any]]:
    """Predicted records in the SpERT format: the input's tokens and orig_id with predicted entities and relations."""
    joined = []
    for record, prediction in zip(records, predictions, strict=True):
        out: dict[str, Any] = {"tokens": list(record["tokens"]), **prediction.annotation(config)}
        if record.get("orig_id") is not None:
            out["orig_id"] = record["orig_id"]
        joined.append(out)
    return joined
