"""Scores to entities and relations, without Python objects per span or pair: only what is kept becomes a record."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .configuration_aspert import AspertConfig
from .modeling_aspert import AspertOutput

# Relations of one batch that are kept at most. Trained models are far below; an untrained one may relate everything.
MAX_RELATIONS = 2**18
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
        left_out: relations that reach their thresholds, but were too many to be kept.
    """

    entities: np.ndarray
    entity_scores: np.ndarray
    relations: np.ndarray
    relation_scores: np.ndarray
    left_out: int = 0

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]], config: AspertConfig) -> Predictions:
        """The predictions that records with scores were made of."""
        entity_types, relation_types = config.entity_types, config.relation_types
        entities = [(n, entity) for n, record in enumerate(records) for entity in record["entities"]]
        relations = [(n, relation) for n, record in enumerate(records) for relation in record["relations"]]
        return cls(
            np.array(
                [(n, each["start"], each["end"], entity_types.index(each["type"])) for n, each in entities],
                dtype=np.int64,
            ).reshape(-1, 4),
            np.array([each["score"] for _, each in entities], dtype=np.float32),
            np.array(
                [(n, each["head"], each["tail"], relation_types.index(each["type"])) for n, each in relations],
                dtype=np.int64,
            ).reshape(-1, 4),
            np.array([each["score"] for _, each in relations], dtype=np.float32),
        )

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
        ][:count]

    def of_entities(self, kept: np.ndarray) -> Predictions:
        """Some of the entities, by a mask [N], and the relations among them."""
        # positions among a sentence's entities become positions among its kept ones
        relations = self.relations.copy()
        first = np.searchsorted(self.entities[:, 0], relations[:, 0])[:, None]
        ends = first + relations[:, 1:3]
        before = np.concatenate([[0], kept.cumsum()])
        relations[:, 1:3] = before[ends] - before[first]
        alive = kept[ends].all(axis=1)
        return replace(
            self,
            entities=self.entities[kept],
            entity_scores=self.entity_scores[kept],
            relations=relations[alive],
            relation_scores=self.relation_scores[alive],
        )

    def of_relations(self, kept: np.ndarray) -> Predictions:
        """All entities, and some of the relations, by a mask [M]."""
        return replace(self, relations=self.relations[kept], relation_scores=self.relation_scores[kept])

    def constrained(self, config: AspertConfig, entity_overlap: str | None = None) -> Predictions:
        """What ``relation_type_constraints`` and ``entity_overlap`` (default: the configuration's) leave."""
        predictions = self
        if config.relation_type_constraints:
            first = np.searchsorted(self.entities[:, 0], self.relations[:, 0])
            head, tail = (self.entities[first + end, 3] for end in self.relations[:, 1:3].T)
            predictions = self.of_relations(allowed_types(config)[self.relations[:, 3], head, tail])
        flat = (config.entity_overlap if entity_overlap is None else entity_overlap) == "flat"
        return without_overlaps(predictions) if flat else predictions

    def best_relations(self, most: int) -> Predictions:
        """All entities, and of each sentence's relations the ``most`` with the highest scores; the others are left out."""
        order = np.lexsort((-self.relation_scores, self.relations[:, 0]))
        sentences = self.relations[order, 0]
        rank = np.arange(len(order)) - np.searchsorted(sentences, sentences)
        kept = np.sort(order[rank < most])
        return replace(self.of_relations(kept), left_out=self.left_out + len(order) - len(kept))

    def annotation(self, config: AspertConfig) -> dict[str, list[dict[str, Any]]]:
        """The "entities" and "relations" of a record in the SpERT format, with scores; for one sentence."""
        entity_types, relation_types = config.entity_types, config.relation_types
        return {
            "entities": [
                {"type": entity_types[kind], "start": start, "end": end, "score": score}
                for (_, start, end, kind), score in zip(self.entities.tolist(), self.entity_scores.tolist())
            ],
            "relations": [
                {"type": relation_types[kind], "head": head, "tail": tail, "score": score}
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
    entity_overlap: str | None = None,
    span_labels: Tensor | None = None,
) -> Predictions:
    """The entities and relations of a batch.

    A span is an entity where its best type is not none; a relation is kept where its probability is >= its threshold
    (alpha) and, with a none class, p(none) < alpha (the one for all types, else the configuration's). Symmetric relations
    are ordered by (start, end) of their spans and de-duplicated keeping the higher score. Of more than ``MAX_RELATIONS``
    those with the highest scores are kept, and the others counted as left out.

    Args:
        output: the model's, for candidate spans; its ``pairs`` are indices into the S of ``word_spans``.
        word_spans: [B, S, 2], words.
        span_mask: bool [B, S].
        config: the model's configuration.
        relation_threshold: one for all types, or one by type (missing types: the configuration's).
        entity_threshold: least probability of an entity's type; default: the configuration's.
        entity_overlap: "allow", or "flat" to keep the best of overlapping entities; default: the configuration's.
        span_labels: [B, S] types of given entities (1 ... T_e); then only relations are predicted, and the given
            entities have score 1.

    Returns:
        What is kept, with word offsets and the positions of heads and tails among the kept entities.

    Raises:
        ValueError: a threshold for a type that the model does not have.
    """
    entity_threshold = config.entity_threshold if entity_threshold is None else entity_threshold
    if span_labels is None:
        scores, types = output.span_logits.float().softmax(-1).max(-1)
    else:
        types, scores = span_labels, torch.ones_like(span_labels, dtype=torch.float32)
    # small arrays from here on: numpy takes a fraction of the time of tensors
    scores, types, span_mask, words = (values.cpu().numpy() for values in (scores, types, span_mask, word_spans))
    kept = (types > 0) & span_mask.astype(bool) & (scores >= entity_threshold)
    batch_index, span = kept.nonzero()
    entities = np.column_stack([batch_index, words[batch_index, span], types[batch_index, span] - 1])

    limits = _thresholds(config, relation_threshold)
    by_type = relation_threshold is None or isinstance(relation_threshold, Mapping)
    veto = (config.relation_threshold if by_type else relation_threshold) if config.relation_none_class else None
    (sentence, head, tail, kind), relation_scores, left_out = _candidates(output, limits, veto)
    both = (relation_scores >= limits.numpy()[kind]) & kept[sentence, head] & kept[sentence, tail]
    sentence, head, tail, kind = sentence[both], head[both], tail[both], kind[both]
    # position of each kept span among its sentence's entities; these are sorted by (start, end)
    position = kept.cumsum(-1) - 1
    head, tail = position[sentence, head], position[sentence, tail]
    swapped = np.asarray(config.symmetric_flags, dtype=bool)[kind] & (head > tail)
    head, tail = np.where(swapped, tail, head), np.where(swapped, head, tail)
    relations = np.column_stack([sentence, head, tail, kind])
    found = Predictions(entities, scores[batch_index, span], *_highest(relations, relation_scores[both]), left_out)
    return found.constrained(config, entity_overlap if span_labels is None else "allow")


def _candidates(output: AspertOutput, limits: Tensor, veto: float | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The relations that may reach their threshold, without a probability for each pair: int64 [4, M] (sentence, head
    and tail as spans, type), their probabilities [M] and how many more there are than ``MAX_RELATIONS``. With a none
    class, ``veto`` is the p(none) that forbids a pair.

    Logits are compared, a little below the threshold; the caller compares the probabilities of what is left.
    """
    logits, pair_mask = output.relation_logits, output.pair_mask.bool()
    # rounding moves a sigmoid by far less; large logits have the probability 1
    least = (torch.logit(limits.clamp(max=1 - 1e-7)) - 1e-3).to(logits)
    count = 0
    kept = torch.empty(3, 0, dtype=torch.int64, device=logits.device)
    scores = logits.new_empty(0)
    step = max(1, CHUNK_VALUES // max(1, logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], step):
        part, related = logits[:, start : start + step], pair_mask[:, start : start + step]
        if veto is not None:
            related = related & (part[..., -1].float().sigmoid() < veto)
            part = part[..., :-1]
        sentence, pair, kind = ((part >= least) & related.unsqueeze(-1)).nonzero(as_tuple=True)
        count += len(sentence)
        scores = torch.cat([scores, part[sentence, pair, kind]])
        kept = torch.cat([kept, torch.stack([sentence, pair + start, kind])], dim=1)
        if len(scores) > MAX_RELATIONS:
            scores, best = scores.topk(MAX_RELATIONS)
            kept = kept[:, best]
    sentence, pair, kind = kept
    head, tail = output.pairs[sentence, pair].unbind(-1)
    found = torch.stack([sentence, head, tail, kind]).cpu().numpy()
    return found, scores.float().sigmoid().cpu().numpy(), count - len(scores)


def _highest(relations: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by their columns, equal rows reduced to the one with the highest score."""
    order = np.lexsort((-scores, *relations.T[::-1]))
    relations, scores = relations[order], scores[order]
    first = np.ones(len(relations), dtype=bool)
    first[1:] = (relations[1:] != relations[:-1]).any(axis=1)
    return relations[first], scores[first]


def allowed_types(config: AspertConfig) -> np.ndarray:
    """bool [T_r, T_e, T_e]: which relation may join which head and tail types, by `relation_type_constraints`."""
    entity_ids = {name: index for index, name in enumerate(config.entity_types)}
    allowed = np.ones((len(config.relation_types), len(entity_ids), len(entity_ids)), dtype=bool)
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
    each relation that they show, and entities that do not overlap where none do. Other relations stay free."""
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
    return predictions.of_entities(kept)


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
