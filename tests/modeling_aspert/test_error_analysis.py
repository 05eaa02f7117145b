"""Outcomes worked out by hand, and counts that must agree with the scores on random records."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert.error_analysis import _confusion, _histogram, _outcome_table, compare, error_analysis
from modeling_aspert.scoring import compute_scores

TOKENS = "Ann Lee of Acme Corp met Bob in Rome".split()


def record(entities, relations=(), tokens=TOKENS):
    return {
        "tokens": list(tokens),
        "entities": [dict(zip(("type", "start", "end", "score"), entity, strict=False)) for entity in entities],
        "relations": [dict(zip(("type", "head", "tail", "score"), relation, strict=False)) for relation in relations],
    }


def outcomes(found, gold, part, symmetric=()):
    """Each item as (outcome, gold, predicted, the words or the arguments' words)."""
    (sentence,) = compare([found], [gold], symmetric)
    words = [sentence["text"][entity["start"] : entity["end"]] for entity in sentence["entities"]]
    if part == "relations":
        words = [f"{words[relation['head']]} > {words[relation['tail']]}" for relation in sentence["relations"]]
    return {
        (item["kind"], item["gold"], item["predicted"], where)
        for item, where in zip(sentence[part], words, strict=True)
    }


def test_entities():
    gold = record([("Peop", 0, 2), ("Org", 3, 5), ("Peop", 6, 7), ("Loc", 8, 9)])
    found = record([("Peop", 0, 2), ("Org", 3, 4), ("Loc", 6, 7), ("Peop", 5, 6)])
    assert outcomes(found, gold, "entities") == {
        ("correct", "Peop", "Peop", "Ann Lee"),
        ("wrong_boundary", None, "Org", "Acme"),
        ("wrong_boundary", "Org", None, "Acme Corp"),
        ("wrong_type", "Peop", "Loc", "Bob"),
        ("missed", "Loc", None, "Rome"),
        ("invented", None, "Peop", "met"),
    }


def test_a_gold_entity_is_paired_once_with_the_largest_overlap():
    gold = record([("Org", 2, 5)])
    found = record([("Org", 2, 3), ("Org", 3, 5)])
    assert outcomes(found, gold, "entities") == {
        ("wrong_boundary", None, "Org", "Acme Corp"),
        ("wrong_boundary", "Org", None, "of Acme Corp"),
        ("invented", None, "Org", "of"),
    }


def test_overlap_with_another_type_is_no_pair():
    assert outcomes(record([("Loc", 3, 4)]), record([("Org", 3, 5)]), "entities") == {
        ("missed", "Org", None, "Acme Corp"),
        ("invented", None, "Loc", "Acme"),
    }


def test_relations():
    people = [("Peop", 0, 2), ("Org", 3, 5), ("Peop", 6, 7), ("Loc", 8, 9)]
    gold = record(people, [("Work_For", 0, 1), ("Meet", 0, 2), ("Live_In", 2, 3), ("Live_In", 0, 3)])
    found = record(
        [("Peop", 0, 2), ("Org", 3, 4), ("Org", 6, 7), ("Loc", 8, 9)],
        [("Work_For", 0, 1), ("Kill", 0, 2), ("Live_In", 2, 3), ("Live_In", 3, 0)],
    )
    assert outcomes(found, gold, "relations") == {
        ("wrong_entity", None, "Work_For", "Ann Lee > Acme"),  # the boundary of an argument
        ("wrong_entity", "Work_For", None, "Ann Lee > Acme Corp"),
        ("wrong_type", "Meet", "Kill", "Ann Lee > Bob"),
        ("wrong_entity", "Live_In", "Live_In", "Bob > Rome"),  # the type of an argument
        ("missed", "Live_In", None, "Ann Lee > Rome"),
        ("invented", None, "Live_In", "Rome > Ann Lee"),  # the direction
    }


def test_symmetric_relations_have_no_direction():
    gold = record([("Peop", 0, 2), ("Peop", 6, 7)], [("Meet", 0, 1)])
    found = record([("Peop", 0, 2), ("Peop", 6, 7)], [("Meet", 1, 0)])
    assert outcomes(found, gold, "relations", ["Meet"]) == {("correct", "Meet", "Meet", "Ann Lee > Bob")}


def test_duplicates_keep_the_best_score():
    found = record([("Loc", 8, 9, 0.3), ("Loc", 8, 9, 0.9)])
    (sentence,) = compare([found], [record([("Loc", 8, 9), ("Loc", 8, 9)])])
    assert [(item["kind"], item["score"]) for item in sentence["entities"]] == [("correct", 0.9)]


def test_confusion_and_histogram():
    gold = record([("Peop", 0, 2), ("Org", 3, 5), ("Loc", 8, 9)])
    found = record([("Peop", 0, 2, 1.0), ("Loc", 3, 5, 0.52), ("Peop", 6, 7, 0.54)])
    sentences = compare([found], [gold])
    rows = {
        row["gold"]: [cell["count"] for cell in row["cells"]] for row in _confusion(sentences, ["Peop", "Org", "Loc"])
    }
    # columns: Peop, Org, Loc, none
    assert rows == {"Peop": [1, 0, 0, 0], "Org": [0, 0, 1, 0], "Loc": [0, 0, 0, 1], None: [1, 0, 0, 0]}
    histogram = _histogram(sentences, "entities")
    assert (histogram["right"], histogram["wrong"], histogram["top"]) == (1, 2, 1)
    assert (histogram["bins"][-1]["right"], histogram["bins"][10]["wrong"]) == (1, 2)


@st.composite
def records(draw):
    entities = [
        (draw(st.sampled_from("ABC")), start, min(9, start + draw(st.integers(1, 3))), draw(st.floats(0, 1)))
        for start in draw(st.lists(st.integers(0, 8), max_size=5))
    ]
    relations = []
    if entities:
        one = st.integers(0, len(entities) - 1)
        relations = draw(st.lists(st.tuples(st.sampled_from("RS"), one, one, st.floats(0, 1)), max_size=5))
    return record(entities, relations)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(records(), records()), min_size=1, max_size=3), st.sampled_from([(), ("R",)]))
def test_counts_agree_with_the_scores(pairs, symmetric):
    found, gold = zip(*pairs, strict=True)
    scores = compute_scores(found, gold, symmetric_relations=symmetric)["per_type"]
    sentences = compare(found, gold, symmetric)
    for part, rows in (("entities", scores["ner"]), ("relations", scores["re_strict"])):
        items = [item for sentence in sentences for item in sentence[part]]
        gold_count = Counter(item["gold"] for item in items)
        found_count = Counter(item["predicted"] for item in items)
        table = _outcome_table(sentences, part, list(rows))
        for name, row in rows.items():
            assert gold_count[name] == row["support"]
            assert found_count[name] == row["predicted"]
            assert table[name]["correct"] == row["true_positives"]
            assert sum(table[name].values()) - table[name]["invented"] == row["support"]


def test_page(tmp_path):
    gold = record([("<b>", 0, 2), ("Org", 3, 5)], [("Work_For", 0, 1)])
    found = record([("<b>", 0, 2, 0.9), ("Org", 3, 4, 0.6)], [("Work_For", 0, 1, 0.7)])
    page = error_analysis([found], [gold], tmp_path / "errors.html", title="A & B")
    assert (tmp_path / "errors.html").read_text(encoding="utf-8") == page.html
    assert "<title>A &amp; B</title>" in page.html
    assert "<b>" not in page.html
    assert "50.00" in page.html  # NER F1
    assert error_analysis([], []).html  # nothing at all is no exception


def test_bad_input():
    with pytest.raises(ValueError, match="1 predictions were given for 2 references"):
        error_analysis([record([])], [record([])] * 2)
    other = record([], tokens=["other"])
    with pytest.raises(ValueError, match=r"predictions\[0\] and references\[0\] have different texts"):
        compare([other], [record([])])
