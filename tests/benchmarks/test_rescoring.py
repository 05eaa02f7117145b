"""What the predictions of finished runs tell beyond their scores, by figures that can be checked by hand."""

from __future__ import annotations

import pytest

from benchmarks.rescoring import between_right_spans, without_shared
from modeling_aspert.scoring import SCORE_NAMES


def record(spans: list[tuple[int, int]], *relations: tuple[str, int, int], kind: str = "Peop") -> dict:
    return {
        "tokens": ["w"] * 20,
        "entities": [{"type": kind, "start": start, "end": end} for start, end in spans],
        "relations": [{"type": name, "head": head, "tail": tail} for name, head, tail in relations],
    }


def test_relations_between_spans_that_both_have():
    gold = record([(0, 1), (2, 3), (4, 6)], ("Live_In", 0, 1), ("Live_In", 0, 2), ("Kill", 1, 2), ("Kill", 2, 0))
    # the last span is wrong, so of the gold relations one lies within, and of the four predicted ones three
    found = record(
        [(0, 1), (2, 3), (5, 6)],
        ("Live_In", 0, 1),
        ("Kill", 1, 0),
        ("Kill", 0, 1),
        ("Live_In", 0, 2),
        kind="Loc",  # entity types do not count
    )
    scores = between_right_spans([found, record([])], [gold, record([])])
    assert scores == pytest.approx({"gold": 25, "predicted": 75, "precision": 100 / 3, "recall": 100, "f1": 50})


def test_a_symmetric_relation_the_other_way_round_is_the_same():
    gold, found = record([(0, 1), (2, 3)], ("Kill", 0, 1)), record([(2, 3), (0, 1)], ("Kill", 0, 1))
    assert between_right_spans([found], [gold])["f1"] == 0
    assert between_right_spans([found], [gold], symmetric=["Kill"])["f1"] == 100


def test_nothing_found_and_nothing_to_find():
    nothing = {"gold": 0, "predicted": 0, "precision": 0, "recall": 0, "f1": 0}
    assert between_right_spans([record([])], [record([(0, 1), (2, 3)], ("Kill", 0, 1))]) == nothing
    assert between_right_spans([record([])], [record([])]) == nothing
    with pytest.raises(ValueError):
        between_right_spans([record([])], [])


def test_sentences_that_stand_in_train_are_left_out():
    gold = [record([(0, 1)]), record([(0, 1), (2, 3)])]
    gold[1]["tokens"] = ["v"] * 20
    found = [record([(0, 1)]), record([(0, 1)])]
    assert without_shared(found, gold, {("x",) * 20}) is None
    scores = without_shared(found, gold, {("w",) * 20})
    # of two entities one is found, where with the first sentence it would be two of three
    assert scores["sentences"] == 1 and scores["ner_micro_f1"] == pytest.approx(200 / 3)
    assert set(scores) == {"sentences", *(name for name in SCORE_NAMES if name.endswith("_f1"))}
