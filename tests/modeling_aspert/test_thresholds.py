"""Thresholds learnt from predictions are those with which the model itself scores best."""

from __future__ import annotations

import itertools

import pytest
from tiny import RECORDS, make_model, make_processor

from modeling_aspert import Extractor
from modeling_aspert.extraction import Sentence
from modeling_aspert.scoring import compute_scores
from modeling_aspert.thresholds import _ENTITY_THRESHOLDS, _RELATION_THRESHOLDS, learn_thresholds, loosest_fields

NOTHING = [{"tokens": ["a"], "entities": [], "relations": []}]


def predicted(model, processor, fields):
    before = {name: getattr(model.config, name) for name in fields}
    model.config.update(fields)
    annotations = Extractor(model, processor).annotate(Sentence(record["tokens"]) for record in RECORDS)
    records = [{**record, **annotation} for record, annotation in zip(RECORDS, annotations)]
    model.config.update(before)
    return records


def score(records, config, metric, references=RECORDS):
    return compute_scores(records, references, symmetric_relations=config.symmetric_relations)[metric]


@pytest.mark.parametrize("metric", ["re_boundaries_micro_f1", "ner_macro_f1"])
def test_no_choice_scores_better(metric):
    model, processor = make_model(), make_processor()
    config = model.config
    # gold records that a choice in the middle of the grid gives: only it, and what equals it, is right in all
    wanted = {"relation_threshold": 0.45, "entity_threshold": 0.5, "entity_overlap": "flat"}
    gold = predicted(model, processor, wanted)
    assert sum(len(record["relations"]) for record in gold) > 5
    found = predicted(model, processor, loosest_fields(config))
    assert score(found, config, metric, gold) < 100
    learnt = learn_thresholds(found, gold, config, metric)
    assert list(learnt) == ["relation_threshold", "entity_threshold", "entity_overlap"]
    assert score(predicted(model, processor, learnt), config, metric, gold) == 100

    # with other gold records, against a search that predicts anew for each choice
    learnt = learn_thresholds(found, RECORDS, config, metric)
    choices = itertools.product(_RELATION_THRESHOLDS[::4], _ENTITY_THRESHOLDS[::2], ("allow", "flat"))
    scores = [score(predicted(model, processor, dict(zip(learnt, choice))), config, metric) for choice in choices]
    assert score(predicted(model, processor, learnt), config, metric) >= max(scores)


def test_what_is_as_good_stays_as_it_is():
    model, processor = make_model(), make_processor()
    model.config.update({"relation_threshold": 0.07, "entity_threshold": 0.11})
    assert loosest_fields(model.config)["relation_threshold"] == 0.07
    now = {"relation_threshold": 0.07, "entity_threshold": 0.11, "entity_overlap": "allow"}
    gold = predicted(model, processor, now)
    found = predicted(model, processor, loosest_fields(model.config))
    assert learn_thresholds(found, gold, model.config, "re_strict_micro_f1") == now
    assert learn_thresholds(NOTHING, NOTHING, model.config, "ner_micro_f1") == now


def test_overlaps_that_are_constrained_stay_so():
    model, processor = make_model(), make_processor()
    gold = predicted(model, processor, {"entity_overlap": "allow", "entity_threshold": 0.0})
    found = predicted(model, processor, loosest_fields(model.config))
    assert learn_thresholds(found, gold, model.config, "ner_micro_f1")["entity_overlap"] == "allow"
    model.config.entity_overlap = "flat"
    assert learn_thresholds(found, gold, model.config, "ner_micro_f1")["entity_overlap"] == "flat"


def test_errors():
    model = make_model()
    with pytest.raises(ValueError, match="metric = 'f1' is not valid: choose one of ner_micro_precision"):
        learn_thresholds(NOTHING, NOTHING, model.config, "f1")
    model = make_model(relation_none_class=True)
    with pytest.raises(ValueError, match="relation_none_class"):
        learn_thresholds(NOTHING, NOTHING, model.config, "ner_micro_f1")
