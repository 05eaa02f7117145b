"""Thresholds of a trained model, chosen on annotated data that it was not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from .configuration_aspert import ENTITY_OVERLAPS, AspertConfig
from .decoding import Predictions, join_records, without_overlaps
from .scoring import SCORE_NAMES, compute_scores

_RELATION_THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_ENTITY_THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7)


def check_learnable(config: AspertConfig, metric: str) -> None:
    """Raise ValueError for a metric that there is not, or a model with a none class of relations, whose veto is no
    threshold."""
    if config.relation_none_class:
        raise ValueError("learn_thresholds does not go with relation_none_class = true, whose veto depends on them")
    if metric not in SCORE_NAMES:
        raise ValueError(f"metric = {metric!r} is not valid: choose one of {', '.join(SCORE_NAMES)}")
    check_metric(config, metric, "metric")


def check_metric(config: AspertConfig, metric: str, name: str) -> None:
    """Raise ValueError for a score of relations of a model without relation types: it is 0 whatever is found."""
    if not config.relation_types and not metric.startswith("ner_"):
        raise ValueError(f"{name} = {metric} is 0 for a model without relation types: choose one such as ner_micro_f1")


def loosest_fields(config: AspertConfig) -> dict[str, Any]:
    """What the configuration must say while predictions are made, so that all choices can be told from them."""
    lowest = min(config.relation_threshold, *_RELATION_THRESHOLDS)
    return {"relation_threshold": lowest, "entity_threshold": 0.0, "entity_overlap": "allow"}


def learn_thresholds(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    config: AspertConfig,
    metric: str,
) -> dict[str, Any]:
    """The fields of :class:`AspertConfig` with the highest score, of a grid and of what the configuration says now;
    of equals those it says now, then the lowest thresholds. Where it says "flat", entities do not come to overlap.

    Args:
        predictions: records with scores, predicted with the fields of :func:`loosest_fields`.
        references: the gold records, in the same order.
        config: the model's, as it was before.
        metric: a score of `compute_scores`, such as "re_strict_macro_f1".

    Returns:
        ``relation_threshold``, ``entity_threshold`` and ``entity_overlap``.

    Raises as :func:`check_learnable`.
    """
    check_learnable(config, metric)
    predicted = Predictions.from_records(predictions, config)
    best = {name: getattr(config, name) for name in loosest_fields(config)}
    best_score = score_with(best, predicted, references, config, metric)
    overlaps = ENTITY_OVERLAPS[ENTITY_OVERLAPS.index(config.entity_overlap) :]
    for overlap, entity, relation in itertools.product(overlaps, _ENTITY_THRESHOLDS, _RELATION_THRESHOLDS):
        fields = {"relation_threshold": relation, "entity_threshold": entity, "entity_overlap": overlap}
        if (found := score_with(fields, predicted, references, config, metric)) > best_score:
            best, best_score = fields, found
    return best


def score_with(
    fields: Mapping[str, Any],
    predictions: Predictions,
    references: Sequence[Mapping[str, Any]],
    config: AspertConfig,
    metric: str,
) -> float:
    """The score of loosely made predictions, of which these thresholds and this overlap are then asked."""
    kept = predictions.of_entities(predictions.entity_scores >= fields["entity_threshold"])
    kept = without_overlaps(kept) if fields["entity_overlap"] == "flat" else kept
    kept = kept.of_relations(kept.relation_scores >= fields["relation_threshold"])
    records = join_records(references, kept.per_sentence(len(references)), config)
    return compute_scores(records, references, symmetric_relations=config.symmetric_relations)[metric]
