"""Precision, recall and F1 of joint entity and relation extraction: three views, micro, macro and per type.

- ``ner``: an entity is right where its span and its type are.
- ``re_strict``: a relation is right where its type, both spans and both entity types are ("with NER").
- ``re_boundaries``: a relation is right where its type and both spans are ("without NER").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import index
from typing import Any

VIEWS = {"ner": "NER", "re_strict": "RE strict", "re_boundaries": "RE boundaries"}
SCORE_NAMES = tuple(
    f"{view}_{average}_{name}"
    for view in VIEWS
    for average in ("micro", "macro")
    for name in ("precision", "recall", "f1")
)


def compute_scores(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    entity_types: Iterable[str] | None = None,
    relation_types: Iterable[str] | None = None,
    symmetric_relations: Collection[str] | None = None,
) -> dict[str, Any]:
    """Scores of a split, all in percent.

    A record is a mapping with ``entities`` (``type``, ``start``, ``end``) and ``relations`` (``type``, ``head``,
    ``tail``, both indices into ``entities``); other keys are ignored. Offsets may count words or characters, the same
    in both lists. What a sentence holds is a set: duplicates count once.

    Args:
        predictions: one record a sentence.
        references: the gold records, in the same order.
        entity_types: the order of the rows of ``per_type["ner"]``; a type never seen gets a row of zeros, a type
            missing here comes after, in alphabetical order. It changes no score.
        relation_types: the same for the relations.
        symmetric_relations: relation types without direction; both sides are compared with the argument that starts
            first (then ends first) as the head.

    Returns:
        ``{view}_{micro,macro}_{precision,recall,f1}`` for the views ``ner``, ``re_strict`` and ``re_boundaries``, and
        ``per_type[view][type]`` with ``precision``, ``recall``, ``f1`` and the counts ``support`` (gold),
        ``predicted`` and ``true_positives``. Macro is the mean over the types seen in gold or predictions (SpERT's
        rule), and macro F1 the mean of the types' F1. A ratio with nothing below the line is 0: so is every score of
        a split with neither gold nor predictions.

    Raises:
        ValueError: for lists of different lengths, a record that is not in this format, or words on one side and
            characters on the other.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions were given for {len(references)} references; give one prediction "
            "a sentence, in the order of the references."
        )
    words = [
        {"tokens" in one for one in records if isinstance(one, Mapping) and ("tokens" in one or "text" in one)}
        for records in (predictions, references)
    ]
    if words in ([{True}, {False}], [{False}, {True}]):
        raise ValueError(
            "one of predictions and references counts words (tokens), the other characters (text): predict words "
            "(Extractor.annotate, or inputs with tokens), or give both in characters."
        )
    symmetric = frozenset(symmetric_relations or ())
    gold, predicted, correct = ({view: Counter() for view in VIEWS} for _ in range(3))
    for number, (prediction, reference) in enumerate(zip(predictions, references)):
        predicted_items = _items(prediction, symmetric, f"predictions[{number}]")
        gold_items = _items(reference, symmetric, f"references[{number}]")
        for view in VIEWS:
            gold[view].update(item[0] for item in gold_items[view])
            predicted[view].update(item[0] for item in predicted_items[view])
            correct[view].update(item[0] for item in predicted_items[view] & gold_items[view])

    scores: dict[str, Any] = {}
    per_type: dict[str, dict[str, dict[str, float]]] = {}
    for view in VIEWS:
        order = list(dict.fromkeys((entity_types if view == "ner" else relation_types) or ()))
        seen = gold[view].keys() | predicted[view].keys()
        order += sorted(seen.difference(order))
        per_type[view] = {
            name: {
                **_ratios(correct[view][name], predicted[view][name], gold[view][name]),
                "support": gold[view][name],
                "predicted": predicted[view][name],
                "true_positives": correct[view][name],
            }
            for name in order
        }
        micro = _ratios(correct[view].total(), predicted[view].total(), gold[view].total())
        for name, value in micro.items():
            scores[f"{view}_micro_{name}"] = value
        for name in micro:
            values = [per_type[view][one][name] for one in order if one in seen]
            scores[f"{view}_macro_{name}"] = sum(values) / len(values) if values else 0.0
    scores["per_type"] = per_type
    return scores


def format_scores(scores: Mapping[str, Any]) -> str:
    """The result of :func:`compute_scores` as an aligned table for the terminal: the averages, then every type."""
    names = [name for rows in scores["per_type"].values() for name in rows]
    width = max(map(len, [*VIEWS.values(), *names]), default=0) + 2
    lines = [f"{'':{width}}{'':7}{'precision':>10}{'recall':>10}{'F1':>10}"]
    for view, title in VIEWS.items():
        for average in ("micro", "macro"):
            values = (scores[f"{view}_{average}_{name}"] for name in ("precision", "recall", "f1"))
            lines.append(f"{title:{width}}{average:7}" + "".join(f"{value:10.2f}" for value in values))
            title = ""
    header = f"{'precision':>10}{'recall':>10}{'F1':>10}{'gold':>8}{'found':>8}{'right':>8}"
    for view, title in VIEWS.items():
        lines += ["", f"{title:{width}}{'':7}{header}"]
        for name, row in scores["per_type"][view].items():
            values = "".join(f"{row[key]:10.2f}" for key in ("precision", "recall", "f1"))
            counts = "".join(f"{row[key]:8d}" for key in ("support", "predicted", "true_positives"))
            lines.append(f"  {name:{width + 5}}{values}{counts}")
    return "\n".join(lines)


def _ratios(correct: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        "precision": 100.0 * correct / predicted if predicted else 0.0,
        "recall": 100.0 * correct / gold if gold else 0.0,
        "f1": 200.0 * correct / (predicted + gold) if predicted + gold else 0.0,
    }


def _items(record: Mapping[str, Any], symmetric: frozenset[str], where: str) -> dict[str, set[tuple]]:
    """The record's items in the three views: sets of tuples whose first element is the type."""
    entities = []
    strict, boundaries = set(), set()
    place = "the record"
    try:
        given_entities, given_relations = record["entities"], record["relations"]
        place = "entities"
        for number, entity in enumerate(given_entities):
            place = f"entity {number}"
            entities.append((_name(entity["type"]), index(entity["start"]), index(entity["end"])))
        place = "relations"
        for number, relation in enumerate(given_relations):
            place = f"relation {number}"
            name, head, tail = _name(relation["type"]), index(relation["head"]), index(relation["tail"])
            if not (0 <= head < len(entities) and 0 <= tail < len(entities)):
                raise ValueError(f"head {head} or tail {tail} is not one of its {len(entities)} entities")
            first, second = entities[head], entities[tail]
            if name in symmetric and (*second[1:], second[0]) < (*first[1:], first[0]):
                first, second = second, first
            strict.add((name, *first, *second))
            boundaries.add((name, *first[1:], *second[1:]))
    except KeyError as error:
        raise ValueError(f"{where}: {place} has no {error}; give records in the SpERT format.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {place} cannot be read ({error}); give records in the SpERT format.") from None
    return {"ner": set(entities), "re_strict": strict, "re_boundaries": boundaries}


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"type {value!r} is not a string")
    return value
