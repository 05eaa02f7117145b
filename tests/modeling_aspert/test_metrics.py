"""The scores against a slow scorer with explicit loops, numbers worked out by hand, scikit-learn, and `evaluate`."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert import scoring
from modeling_aspert.scoring import compute_scores, format_scores

METRICS_FILE = Path(scoring.__file__).with_name("metrics.py")
RATIOS = ("precision", "recall", "f1")
SYMMETRIC = {"R0"}


# ---------------------------------------------------------------------------- a slow scorer, from the definition


def slow_items(record, view, symmetric):
    """The sentence's items as a list without repetitions."""
    items = []
    if view == "ner":
        for entity in record["entities"]:
            item = [entity["type"], entity["start"], entity["end"]]
            if item not in items:
                items.append(item)
        return items
    for relation in record["relations"]:
        head = record["entities"][relation["head"]]
        tail = record["entities"][relation["tail"]]
        if relation["type"] in symmetric:
            tail_first = [tail["start"], tail["end"], tail["type"]] < [head["start"], head["end"], head["type"]]
            if tail_first:
                head, tail = tail, head
        item = [relation["type"], head["start"], head["end"], tail["start"], tail["end"]]
        if view == "re_strict":
            item += [head["type"], tail["type"]]
        if item not in items:
            items.append(item)
    return items


def slow_ratios(right, found, gold):
    precision = 100 * right / found if found > 0 else 0
    recall = 100 * right / gold if gold > 0 else 0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0
    return [precision, recall, f1]


def slow_scores(predictions, references, symmetric):
    scores = {}
    for view in ("ner", "re_strict", "re_boundaries"):
        types = []
        for record in predictions + references:
            for item in slow_items(record, view, symmetric):
                if item[0] not in types:
                    types.append(item[0])
        all_right = all_found = all_gold = 0
        rows = []
        for name in types:
            right = found = gold = 0
            for prediction, reference in zip(predictions, references):
                found_here = [i for i in slow_items(prediction, view, symmetric) if i[0] == name]
                gold_here = [i for i in slow_items(reference, view, symmetric) if i[0] == name]
                found += len(found_here)
                gold += len(gold_here)
                for item in found_here:
                    if item in gold_here:
                        right += 1
            rows.append(slow_ratios(right, found, gold))
            all_right, all_found, all_gold = all_right + right, all_found + found, all_gold + gold
        micro = slow_ratios(all_right, all_found, all_gold)
        for column, ratio in enumerate(RATIOS):
            scores[f"{view}_micro_{ratio}"] = micro[column]
            scores[f"{view}_macro_{ratio}"] = sum(row[column] for row in rows) / len(rows) if rows else 0
    return scores


@st.composite
def records(draw):
    """Few offsets and types, so that duplicates, nested spans and hits are common."""
    offset = st.integers(0, 4)
    entities = [
        {"type": draw(st.sampled_from(["E0", "E1", "E2"])), "start": start, "end": start + draw(st.integers(1, 3))}
        for start in draw(st.lists(offset, max_size=5))
    ]
    relations = []
    if entities:
        one = st.integers(0, len(entities) - 1)
        for _ in range(draw(st.integers(0, 5))):
            relations.append({"type": draw(st.sampled_from(["R0", "R1"])), "head": draw(one), "tail": draw(one)})
    return {"entities": entities, "relations": relations}


@st.composite
def splits(draw):
    """Predictions and references; about half the predictions are the gold record with something changed."""
    references = draw(st.lists(records(), max_size=4))
    predictions = []
    for reference in references:
        if draw(st.booleans()):
            prediction = copy.deepcopy(reference)
            for relation in prediction["relations"]:
                if draw(st.booleans()):
                    relation["head"], relation["tail"] = relation["tail"], relation["head"]
            if prediction["entities"] and draw(st.booleans()):
                prediction["entities"][0]["type"] = "E2"
            predictions.append(prediction)
        else:
            predictions.append(draw(records()))
    return predictions, references


@settings(max_examples=300, deadline=None)
@given(splits(), st.sampled_from([frozenset(), frozenset(SYMMETRIC)]))
def test_equals_the_slow_scorer(split, symmetric):
    predictions, references = split
    scores = compute_scores(predictions, references, symmetric_relations=symmetric)
    expected = slow_scores(predictions, references, symmetric)
    assert set(scores) == {*expected, "per_type"}
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name


@settings(max_examples=50, deadline=None)
@given(splits())
def test_equals_scikit_learn(split):
    """SpERT's way: one label per item of gold ∪ predictions, "none" where the other side lacks it."""
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    predictions, references = split
    scores = compute_scores(predictions, references)
    for view in ("ner", "re_strict", "re_boundaries"):
        gold, found = [], []
        for prediction, reference in zip(predictions, references):
            gold_items = {tuple(item) for item in slow_items(reference, view, ())}
            found_items = {tuple(item) for item in slow_items(prediction, view, ())}
            for item in gold_items | found_items:
                gold.append(item[0] if item in gold_items else "none")
                found.append(item[0] if item in found_items else "none")
        labels = sorted({*gold, *found} - {"none"})
        if not labels:  # scikit-learn raises here
            assert scores[f"{view}_micro_f1"] == 0
            continue
        for average in ("micro", "macro"):
            values = sklearn_metrics.precision_recall_fscore_support(
                gold, found, labels=labels, average=average, zero_division=0
            )
            for ratio, value in zip(RATIOS, values):
                assert scores[f"{view}_{average}_{ratio}"] == pytest.approx(100 * value, abs=1e-9)


# ------------------------------------------------------------------------------------------------ numbers by hand


def record(entities, relations=()):
    return {
        "entities": [{"type": name, "start": start, "end": end} for name, start, end in entities],
        "relations": [{"type": name, "head": head, "tail": tail} for name, head, tail in relations],
    }


GOLD = [
    record([("Peop", 0, 2), ("Loc", 4, 5), ("Loc", 7, 8)], [("Live_In", 0, 1), ("Located_In", 1, 2)]),
    record([("Org", 0, 1), ("Loc", 0, 3)]),
]
FOUND = [
    # The second Loc has a wrong type: Located_In is right without, wrong with the entity types.
    record([("Peop", 0, 2), ("Loc", 4, 5), ("Org", 7, 8)], [("Live_In", 0, 1), ("Located_In", 1, 2), ("Kill", 0, 2)]),
    record([("Loc", 0, 3)]),
]


def test_hand_checked():
    scores = compute_scores(FOUND, GOLD)
    # NER: right Peop, Loc 4-5, Loc 0-3 of 4 found and 5 gold.
    assert scores["ner_micro_precision"] == 75
    assert scores["ner_micro_recall"] == 60
    assert scores["ner_micro_f1"] == pytest.approx(100 * 2 * 3 / 9)
    # Peop P 1 R 1 F 1; Loc P 2/2 R 2/3 F 0.8; Org P 0/1 R 0/1 F 0.
    assert scores["per_type"]["ner"]["Loc"] == {
        "precision": 100,
        "recall": pytest.approx(200 / 3),
        "f1": 80,
        "support": 3,
        "predicted": 2,
        "true_positives": 2,
    }
    assert scores["ner_macro_precision"] == pytest.approx(200 / 3)
    assert scores["ner_macro_recall"] == pytest.approx((100 + 200 / 3) / 3)
    assert scores["ner_macro_f1"] == pytest.approx(60)
    # Relations: 3 found, 2 gold; strict 1 right, boundaries 2 right; types Live_In, Located_In and the invented Kill.
    assert scores["re_strict_micro_f1"] == pytest.approx(40)
    assert scores["re_strict_macro_f1"] == pytest.approx(100 / 3)
    assert scores["re_boundaries_micro_precision"] == pytest.approx(200 / 3)
    assert scores["re_boundaries_micro_recall"] == 100
    assert scores["re_boundaries_macro_f1"] == pytest.approx(200 / 3)


def test_nothing_at_all_is_zero():
    for split in ([], [record([])]):
        scores = compute_scores(split, split)
        assert all(value == 0 for name, value in scores.items() if name != "per_type")


def test_a_type_that_never_occurs_gets_a_row_but_no_share_of_the_macro_average():
    plain = compute_scores(FOUND, GOLD)
    listed = compute_scores(FOUND, GOLD, entity_types=["Other", "Peop"], relation_types=["Live_In"])
    assert list(listed["per_type"]["ner"]) == ["Other", "Peop", "Loc", "Org"]
    assert listed["per_type"]["ner"]["Other"]["support"] == 0
    assert {k: v for k, v in plain.items() if k != "per_type"} == {k: v for k, v in listed.items() if k != "per_type"}


def test_symmetric_relations_have_no_direction():
    gold = [record([("A", 5, 6), ("B", 0, 1)], [("Same", 0, 1), ("To", 0, 1)])]
    found = [record([("B", 0, 1), ("A", 5, 6)], [("Same", 0, 1), ("To", 0, 1)])]
    assert compute_scores(found, gold)["re_strict_micro_f1"] == 0
    assert compute_scores(found, gold, symmetric_relations=["Same"])["re_strict_micro_f1"] == 50
    both_ways = [record([("B", 0, 1), ("A", 5, 6)], [("Same", 0, 1), ("Same", 1, 0)])]
    assert compute_scores(both_ways, gold, symmetric_relations=["Same"])["re_strict_micro_precision"] == 100


def test_every_span_predicted_takes_linear_time():
    spans = [("E", start, start + width) for start in range(2000) for width in range(1, 51)]
    found = [record(spans, [("R", 0, tail) for tail in range(1, len(spans))])]
    gold = [record([("E", 0, 1), ("E", 3, 5)], [("R", 0, 1)])]
    start = time.process_time()
    scores = compute_scores(found, gold)
    assert time.process_time() - start < 5  # 0.5 s; comparing lists would take hours
    assert scores["per_type"]["ner"]["E"]["predicted"] == 100_000
    assert scores["ner_micro_recall"] == 100


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"relations": []}, r"predictions\[0\]: the record has no 'entities'"),
        ({"entities": []}, r"predictions\[0\]: the record has no 'relations'"),
        (None, r"predictions\[0\]: the record cannot be read"),
        ({"entities": None, "relations": []}, r"predictions\[0\]: entities cannot be read"),
        (
            {"entities": [{"type": "A", "start": 0, "end": 1}], "relations": None},
            r"predictions\[0\]: relations cannot be read",
        ),
        ({"entities": [{"type": "A", "start": 0}], "relations": []}, r"entity 0 has no 'end'"),
        ({"entities": [{"type": "A", "start": 0.0, "end": 1}], "relations": []}, r"entity 0 cannot be read"),
        ({"entities": [{"type": None, "start": 0, "end": 1}], "relations": []}, r"type None is not a string"),
        (record([("A", 0, 1)], [("R", 0, -1)]), r"relation 0 .*tail -1 is not one of its 1 entities"),
    ],
)
def test_malformed_record(bad, message):
    with pytest.raises(ValueError, match=message):
        compute_scores([bad], [record([])])


def test_words_and_characters_are_not_compared():
    words = {"tokens": ["Ann"], "entities": [{"type": "Person", "start": 0, "end": 1}], "relations": []}
    characters = {"text": "Ann", "entities": [{"type": "Person", "start": 0, "end": 3}], "relations": []}
    for pair in ((words, characters), (characters, words)):
        with pytest.raises(ValueError, match=r"counts words \(tokens\), the other characters \(text\): predict words"):
            compute_scores(*([one] for one in pair))
    assert compute_scores([characters], [characters])["ner_micro_f1"] == 100


def test_length_mismatch():
    with pytest.raises(ValueError, match="1 predictions were given for 2 references"):
        compute_scores(GOLD[:1], GOLD)


def test_table():
    table = format_scores(compute_scores(FOUND, GOLD))
    assert table.splitlines()[:3] == [
        "                       precision    recall        F1",
        "NER            micro       75.00     60.00     66.67",
        "               macro       66.67     55.56     60.00",
    ]
    assert "  Loc                     100.00     66.67     80.00       3       2       2" in table.splitlines()
    assert format_scores(compute_scores([], [])).splitlines()[1].split() == ["NER", "micro", "0.00", "0.00", "0.00"]


# ---------------------------------------------------------------------------------------------------- evaluate


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Loaded by path, from another directory, as a user without this package would."""
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.chdir(tmp_path)
    return evaluate.load(str(METRICS_FILE), cache_dir=str(tmp_path), experiment_id="test")


def test_evaluate_by_path(metric):
    assert metric.name == "joint_extraction_metric"
    extra = [dict(record, tokens=["a"], orig_id=7) for record in FOUND]
    scored = [dict(one, entities=[dict(entity, score=0.5) for entity in one["entities"]]) for one in extra]
    assert metric.compute(predictions=scored, references=GOLD) == compute_scores(FOUND, GOLD)


def test_evaluate_in_batches_and_with_arguments(metric):
    expected = compute_scores(FOUND, GOLD, entity_types=["Org"], symmetric_relations=["Live_In"])
    for found, gold in zip(FOUND, GOLD):
        metric.add_batch(predictions=[found], references=[gold])
    assert metric.compute(entity_types=["Org"], symmetric_relations=["Live_In"]) == expected
    for found, gold in zip(FOUND, GOLD):
        metric.add(prediction=found, reference=gold)
    assert metric.compute() == compute_scores(FOUND, GOLD)


def test_evaluate_with_sentences_that_hold_nothing(metric):
    nothing = [record([]), record([])]
    assert metric.compute(predictions=nothing, references=nothing)["ner_micro_f1"] == 0


def test_evaluate_with_an_empty_split(metric):
    assert metric.compute(predictions=[], references=[])["ner_micro_f1"] == 0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FOUND[:1], "Mismatch"),
        (
            [FOUND[0], {"entities": []}],
            r"^record 1 is not in SpERT's format \(KeyError\('relations'\)\): give entities",
        ),
        (None, "^predictions or references are missing: give both$"),
    ],
)
def test_evaluate_refuses_bad_input(metric, found, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=found, references=GOLD)


def test_evaluate_from_the_package(tmp_path):
    pytest.importorskip("evaluate")
    from modeling_aspert.metrics import JointExtractionMetric

    metric = JointExtractionMetric(cache_dir=str(tmp_path))
    assert metric.compute(predictions=FOUND, references=GOLD) == compute_scores(FOUND, GOLD)


def test_scoring_does_not_import_evaluate():
    """`import evaluate` takes seconds and is not needed to score."""
    code = "import sys, modeling_aspert.scoring; sys.exit('evaluate' in sys.modules)"
    root = METRICS_FILE.parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300, check=True)
