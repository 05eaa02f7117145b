"""What a model got right and wrong, sentence by sentence, and a page that shows it.

Every gold item and every prediction belongs to exactly one outcome. Each is paired at most once, in this order:

entities
    ``correct``: same span, same type. ``wrong_type``: same span, other type. ``wrong_boundary``: overlapping spans,
    same type (the pairs with the largest overlap first). What remains is ``missed`` (gold) or ``invented`` (predicted).
relations
    ``correct``: type, both spans and both entity types agree (RE strict). ``wrong_entity``: same type and spans, but
    another entity type. ``wrong_type``: same spans, other type. ``wrong_entity`` again: same type, and both arguments
    overlap the gold ones (the largest overlap first). What remains is ``missed`` or ``invented``.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from .scoring import VIEWS, compute_scores
from .visualization import Page, character_record, render_page

OUTCOMES = {
    "entities": ("correct", "wrong_type", "wrong_boundary", "missed", "invented"),
    "relations": ("correct", "wrong_type", "wrong_entity", "missed", "invented"),
}
_BINS = 20


def error_analysis(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    path: str | os.PathLike | None = None,
    title: str = "Error analysis",
    entity_types: Iterable[str] | None = None,
    relation_types: Iterable[str] | None = None,
    symmetric_relations: Collection[str] = (),
) -> Page:
    """A page with the scores, a table per type, a confusion matrix, score histograms and every sentence drawn.

    Args:
        predictions: one record a sentence, with characters or words; scores are used where they are given.
        references: the gold records, in the same order and over the same text.
        path: where to write the page; None only returns it.
        title: shown on top and in the browser's tab.
        entity_types, relation_types, symmetric_relations: as for ``compute_scores``.

    Raises:
        ValueError: for lists of different lengths, texts that differ, or a malformed record.
    """
    scores = compute_scores(predictions, references, entity_types, relation_types, symmetric_relations)
    sentences = compare(predictions, references, symmetric_relations)
    types = {"entities": list(scores["per_type"]["ner"]), "relations": list(scores["per_type"]["re_strict"])}
    page = render_page(
        "error_analysis.html.jinja",
        title,
        sentences,
        symmetric_relations,
        views=VIEWS,
        scores=scores,
        outcomes=OUTCOMES,
        tables={part: _outcome_table(sentences, part, types[part]) for part in OUTCOMES},
        per_type={"entities": scores["per_type"]["ner"], "relations": scores["per_type"]["re_strict"]},
        confusion=_confusion(sentences, types["entities"]),
        histograms={part: _histogram(sentences, part) for part in OUTCOMES},
    )
    if path is not None:
        page.save(path)
    return page


def compare(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    symmetric_relations: Collection[str] = (),
) -> list[dict[str, Any]]:
    """One record a sentence whose items are gold and predicted ones together, each with its outcome.

    An item has ``kind`` (see above), ``gold`` and ``predicted`` (its type on that side, or None), ``label`` (what is
    drawn), ``type``, ``score``, and ``start`` and ``end`` in characters, or ``head`` and ``tail`` (positions in the
    sentence's ``entities``). A pair that agrees in its spans is one item, another pair two: the predicted one first.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions were given for {len(references)} references.")
    sentences = []
    for number, (prediction, reference) in enumerate(zip(predictions, references)):
        gold = character_record(reference, f"references[{number}]")
        found = character_record(prediction, f"predictions[{number}]")
        if found["text"] != gold["text"]:
            raise ValueError(
                f"predictions[{number}] and references[{number}] have different texts; give predictions in the order "
                "of the references."
            )
        sentences.append(_compare_sentence(found, gold, frozenset(symmetric_relations)))
    return sentences


def _compare_sentence(found: dict[str, Any], gold: dict[str, Any], symmetric: frozenset[str]) -> dict[str, Any]:
    found_entities, gold_entities = _entities(found), _entities(gold)
    entities: list[dict[str, Any]] = []
    # The position in `entities` where an entity of either side is drawn.
    found_places: dict[_Entity, int] = {}
    gold_places: dict[_Entity, int] = {}
    left_found, left_gold = dict(found_entities), dict(gold_entities)
    pairs = _pair_equal(left_found, left_gold, "correct", lambda entity: entity)
    pairs += _pair_equal(left_found, left_gold, "wrong_type", lambda entity: entity[:2])
    pairs += _pair_overlapping(left_found, left_gold, "wrong_boundary", lambda entity: entity[2], _overlap)
    for kind, one, other in [*pairs, *_unpaired(left_found, left_gold)]:
        together = one and other and one[:2] == other[:2]
        for item, (start, end, _) in _items(kind, one, other, together, lambda entity: entity[2], found_entities):
            entities.append({**item, "start": start, "end": end})
            if item["predicted"] is not None:
                found_places[one] = len(entities) - 1
            if item["gold"] is not None:
                gold_places[other] = len(entities) - 1

    found_relations, gold_relations = _relations(found, symmetric), _relations(gold, symmetric)
    relations: list[dict[str, Any]] = []
    left_found, left_gold = dict(found_relations), dict(gold_relations)
    pairs = _pair_equal(left_found, left_gold, "correct", lambda relation: relation)
    pairs += _pair_equal(left_found, left_gold, "wrong_entity", lambda relation: (relation[0], *_spans(relation)))
    pairs += _pair_equal(left_found, left_gold, "wrong_type", _spans)
    pairs += _pair_overlapping(left_found, left_gold, "wrong_entity", lambda relation: relation[0], _both_overlap)
    for kind, one, other in [*pairs, *_unpaired(left_found, left_gold)]:
        ends_found = one and (found_places[one[1]], found_places[one[2]])
        ends_gold = other and (gold_places[other[1]], gold_places[other[2]])
        together = one and other and ends_found == ends_gold
        for item, _ in _items(kind, one, other, together, lambda relation: relation[0], found_relations):
            head, tail = ends_gold if item["predicted"] is None else ends_found
            relations.append({**item, "head": head, "tail": tail})
    return {"id": gold["id"] or found["id"], "text": gold["text"], "entities": entities, "relations": relations}


# An entity is (start, end, type); a relation (type, head entity, tail entity). Both sides map them to their scores.
_Entity = tuple[int, int, str]
_Relation = tuple[str, _Entity, _Entity]


def _entities(record: dict[str, Any]) -> dict[_Entity, float | None]:
    return _best((entity["start"], entity["end"], entity["type"], entity["score"]) for entity in record["entities"])


def _relations(record: dict[str, Any], symmetric: frozenset[str]) -> dict[_Relation, float | None]:
    keys = [(entity["start"], entity["end"], entity["type"]) for entity in record["entities"]]
    relations = []
    for relation in record["relations"]:
        head, tail = keys[relation["head"]], keys[relation["tail"]]
        if relation["type"] in symmetric:
            head, tail = sorted((head, tail))
        relations.append((relation["type"], head, tail, relation["score"]))
    return _best(relations)


def _best(rows: Iterable[tuple]) -> dict[tuple, float | None]:
    """Duplicates collapse to their best score."""
    scores: dict[tuple, float | None] = {}
    for *key, score in rows:
        other = scores.get(tuple(key))
        scores[tuple(key)] = score if other is None else max(other, score or 0.0)
    return scores


def _spans(relation: _Relation) -> tuple[tuple[int, int], tuple[int, int]]:
    return relation[1][:2], relation[2][:2]


def _overlap(one: _Entity, other: _Entity) -> int:
    """In characters."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _both_overlap(one: _Relation, other: _Relation) -> int:
    heads, tails = _overlap(one[1], other[1]), _overlap(one[2], other[2])
    return heads + tails if heads and tails else 0


def _pair_equal(found: dict, gold: dict, kind: str, key: Callable[[tuple], Hashable]) -> list[tuple]:
    """Takes what has the same key out of both sides, in their order."""
    waiting = defaultdict(list)
    for item in reversed(gold):
        waiting[key(item)].append(item)
    pairs = [(kind, item, waiting[key(item)].pop()) for item in list(found) if waiting[key(item)]]
    _take_out(found, gold, pairs)
    return pairs


def _pair_overlapping(
    found: dict, gold: dict, kind: str, key: Callable[[tuple], Hashable], overlap: Callable[[tuple, tuple], int]
) -> list[tuple]:
    """Takes what has the same key and overlaps out of both sides, the largest overlap first."""
    same = defaultdict(list)
    for item in gold:
        same[key(item)].append(item)
    candidates = [(overlap(one, other), one, other) for one in found for other in same[key(one)]]
    candidates = [candidate for candidate in candidates if candidate[0]]
    pairs, used = [], set()
    for _, one, other in sorted(candidates, key=lambda candidate: -candidate[0]):
        if ("found", one) not in used and ("gold", other) not in used:
            used |= {("found", one), ("gold", other)}
            pairs.append((kind, one, other))
    _take_out(found, gold, pairs)
    return pairs


def _take_out(found: dict, gold: dict, pairs: list[tuple]) -> None:
    for _, one, other in pairs:
        del found[one], gold[other]


def _unpaired(found: dict, gold: dict) -> list[tuple]:
    return [("invented", one, None) for one in found] + [("missed", None, other) for other in gold]


def _items(
    kind: str, one: tuple | None, other: tuple | None, together: bool, name: Callable[[tuple], str], scores: dict
) -> list[tuple[dict[str, Any], tuple]]:
    """What is drawn for a pair of a prediction and a gold item (either may be None), with the item it stands for."""
    if one and other and not together:
        predicted = _items(kind, one, None, False, name, scores)
        gold = _items(kind, None, other, False, name, scores)
        gold[0][0]["label"] = f"gold: {name(other)}"
        return predicted + gold
    predicted, gold = one and name(one), other and name(other)
    shown = name(one or other)
    item = {
        "kind": kind,
        "type": shown,
        "label": f"{predicted} (gold: {gold})" if predicted and gold and predicted != gold else shown,
        "gold": gold,
        "predicted": predicted,
        "score": scores[one] if one else None,
    }
    return [(item, one or other)]


# ------------------------------------------------------------------------------------------------- numbers of the page


def _outcome_table(sentences: list[dict[str, Any]], part: str, types: list[str]) -> dict[str, dict[str, int]]:
    """Outcomes by type: of the gold item where there is one, else of the prediction."""
    counts: dict[str, Counter] = {name: Counter() for name in types}
    for sentence in sentences:
        for item in sentence[part]:
            if item["gold"] is not None:
                counts[item["gold"]][item["kind"]] += 1
            elif item["kind"] == "invented":
                counts[item["predicted"]][item["kind"]] += 1
    return {name: {kind: counter[kind] for kind in OUTCOMES[part]} for name, counter in counts.items()}


def _confusion(sentences: list[dict[str, Any]], types: list[str]) -> list[dict[str, Any]]:
    """Rows gold, columns predicted, None last in both; a wrong boundary counts as missed and as invented."""
    counts = Counter((item["gold"], item["predicted"]) for sentence in sentences for item in sentence["entities"])
    seen = {name for pair in counts for name in pair}
    names = [name for name in types if name in seen] + [None]
    rows = []
    for gold in names:
        total = sum(counts[gold, predicted] for predicted in names)
        cells = [
            {
                "predicted": predicted,
                "count": counts[gold, predicted],
                # A share of the row in four steps, for the shade; at least one where there is anything.
                "shade": -(-4 * counts[gold, predicted] // total) if total else 0,
            }
            for predicted in names
        ]
        rows.append({"gold": gold, "cells": cells})
    return rows


def _histogram(sentences: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Scores of right and wrong predictions in equal bins from 0 to 1: counts, and shares of each side."""
    counts = {True: [0] * _BINS, False: [0] * _BINS}
    for sentence in sentences:
        for item in sentence[part]:
            if item["predicted"] is not None and item["score"] is not None:
                counts[item["kind"] == "correct"][min(int(item["score"] * _BINS), _BINS - 1)] += 1
    totals = {side: sum(values) for side, values in counts.items()}
    bins = [
        {
            "low": number / _BINS,
            "high": (number + 1) / _BINS,
            "right": counts[True][number],
            "wrong": counts[False][number],
            "right_share": counts[True][number] / max(1, totals[True]),
            "wrong_share": counts[False][number] / max(1, totals[False]),
        }
        for number in range(_BINS)
    ]
    top = max(max(one["right_share"], one["wrong_share"]) for one in bins)
    return {"bins": bins, "right": totals[True], "wrong": totals[False], "top": top}
