"""Several models: the vote against its definition, and models that vote over a stream."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import RECORDS, make_model, make_processor

from modeling_aspert import ExtractionOptions, Extractor, VotingExtractor, extraction
from modeling_aspert.extraction import Sentence
from modeling_aspert.voting import vote

TEXTS = [" ".join(record["tokens"]) for record in RECORDS] + ["", "Stop", "Ada met Marie. Pierre met Ada."]


def annotation(entities: list[tuple[int, int, str, float]], *relations: tuple[int, int, str, float]) -> dict:
    return {
        "entities": [{"type": t, "start": start, "end": end, "score": score} for start, end, t, score in entities],
        "relations": [{"type": t, "head": head, "tail": tail, "score": score} for head, tail, t, score in relations],
    }


@st.composite
def annotations(draw) -> dict:
    spans = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(3, 4)), unique=True, max_size=4))
    scores = st.floats(0.1, 1)
    entities = [(*span, draw(st.sampled_from("AB")), draw(scores)) for span in spans]
    pairs = [
        (head, tail, kind) for head in range(len(spans)) for tail in range(len(spans)) for kind in "XY" if head != tail
    ]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=5)) if pairs else []
    return annotation(entities, *((*pair, draw(scores)) for pair in chosen))


def by_definition(records: list[dict]) -> tuple[dict, dict]:
    """Entities by span, and relations by type and spans, with their scores: one count after the other."""
    all_spans = {(e["start"], e["end"]) for record in records for e in record["entities"]}
    entities, relations = {}, {}
    for span in all_spans:
        votes = [e for record in records for e in record["entities"] if (e["start"], e["end"]) == span]
        if len(votes) > len(records) / 2:
            of = {kind: [e["score"] for e in votes if e["type"] == kind] for kind in {e["type"] for e in votes}}
            kind = max(sorted(of), key=lambda kind: (len(of[kind]), math.fsum(of[kind])))
            entities[span] = kind, sum(of[kind]) / len(records)
    for kind in "XY":
        for head in all_spans:
            for tail in all_spans:
                scores = [
                    r["score"]
                    for record in records
                    for r in record["relations"]
                    for ends in [[record["entities"][r[end]] for end in ("head", "tail")]]
                    if r["type"] == kind and [(e["start"], e["end"]) for e in ends] == [head, tail]
                ]
                if len(scores) > len(records) / 2:
                    relations[kind, head, tail] = sum(scores) / len(records)
    return entities, relations


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(annotations(), min_size=1, max_size=6))
def test_the_vote_is_its_definition(records):
    voted = vote(records)
    entities, relations = by_definition(records)
    spans = [(e["start"], e["end"]) for e in voted["entities"]]
    assert spans == sorted(entities)
    for span, entity in zip(spans, voted["entities"]):
        assert (entity["type"], pytest.approx(entity["score"])) == entities[span]
    keys = [(r["type"], spans[r["head"]], spans[r["tail"]]) for r in voted["relations"]]
    assert len(set(keys)) == len(keys) and set(keys) == set(relations)
    assert [r["score"] for r in voted["relations"]] == pytest.approx([relations[key] for key in keys])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(annotations(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_the_models_does_not_count(records, shuffler: random.Random):
    assert vote(records) == vote(shuffler.sample(records, len(records)))


def test_models_that_agree_give_what_they_predict():
    record = annotation([(0, 1, "A", 0.9), (2, 3, "B", 0.8)], (0, 1, "X", 0.6))
    assert vote([record] * 4) == {
        "entities": [{**entity, "score": pytest.approx(entity["score"])} for entity in record["entities"]],
        "relations": [{**relation, "score": pytest.approx(relation["score"])} for relation in record["relations"]],
    }


def test_half_of_the_models_are_no_majority():
    record, nothing = annotation([(0, 1, "A", 0.9)]), annotation([])
    assert vote([record, nothing]) == vote([record, record, nothing, nothing]) == nothing
    assert vote([record, record, nothing]) == annotation([(0, 1, "A", pytest.approx(0.6))])


def test_entities_are_known_by_their_ids():
    """A record of characters may name its entities otherwise than by position; the vote numbers them anew."""

    def record(*names: str) -> dict:
        entities = [
            {"id": f"T{n}", "type": "A", "text": name, "start": ord(name), "end": ord(name) + 1, "score": 0.5}
            for n, name in enumerate(names)
        ]
        return {"entities": entities, "relations": [{"type": "X", "head": "T0", "tail": "T1", "score": 0.5}]}

    voted = vote([record("b", "a"), record("b", "a", "c"), record("a", "b")])
    assert [(entity["id"], entity["text"]) for entity in voted["entities"]] == [(0, "a"), (1, "b")]
    assert voted["relations"] == [{"type": "X", "head": 1, "tail": 0, "score": pytest.approx(1 / 3)}]


# -- models ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extractors() -> list[Extractor]:
    options = ExtractionOptions(entity_threshold=0.6, relation_threshold=0.45)
    return [Extractor(make_model(seed=seed), make_processor(), options) for seed in range(3)]


def test_models_vote_on_each_text_and_sentence(extractors):
    voting = VotingExtractor(extractors)
    each = [list(one.extract(TEXTS)) for one in extractors]
    results = list(voting.extract(TEXTS))
    assert results == [{"text": text, **vote(records)} for text, records in zip(TEXTS, zip(*each))]
    for part in ("entities", "relations"):
        kept = sum(len(result[part]) for result in results)
        assert 0 < kept < max(sum(len(record[part]) for record in records) for records in each)
    for result in results:
        for number, entity in enumerate(result["entities"]):
            assert entity["id"] == number and result["text"][entity["start"] : entity["end"]] == entity["text"]
    sentences = [Sentence(record["tokens"]) for record in RECORDS]
    each = [list(one.annotate(sentences)) for one in extractors]
    assert list(voting.annotate(iter(sentences))) == [vote(records) for records in zip(*each)]


def test_a_stream_is_read_once_and_not_far_ahead(extractors, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK_INPUTS", 4)
    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield "Ada met Marie."

    results = VotingExtractor(extractors).extract(stream())
    for count in range(1, 11):
        next(results)
        assert read < count + 4


def test_voters_need_company_and_the_same_labels(extractors):
    with pytest.raises(ValueError, match="the vote needs two extractors or more, not 1"):
        VotingExtractor(extractors[:1])
    other = make_model(entity_types=["Person", "Place"])
    with pytest.raises(ValueError, match=r"extractor 2 has the entity_types \['Person', 'Place'\], and the first"):
        VotingExtractor([*extractors[:2], Extractor(other, make_processor())])
    # the order of the labels is each model's own
    reversed_types = make_model(entity_types=list(reversed(extractors[0].model.config.entity_types)))
    VotingExtractor([extractors[0], Extractor(reversed_types, make_processor())])


def test_voters_see_the_same_words(extractors):
    """Of models that split texts differently none would vote for the other's spans."""
    first, second = extractors[0], copy.copy(extractors[1])
    second.word_splitter = "whitespace"
    with pytest.raises(ValueError, match=r"differ in their word_splitter \(rules and whitespace\): give one for all"):
        list(VotingExtractor([first, second]).extract(["Ada met Marie."]))
    assert list(VotingExtractor([first, second]).annotate([Sentence(["Ada"])]))


def test_what_voters_do_not_take(extractors):
    voting = VotingExtractor(extractors)
    entity = {"type": "Person", "start": 0, "end": 3}
    with pytest.raises(ValueError, match="input 1 has given entities"):
        list(voting.extract(["Ada", {"text": "Ada", "entities": [entity]}]))
    with pytest.raises(ValueError, match="sentence 0 has given entities"):
        list(voting.annotate([Sentence(["Ada"], [{**entity, "end": 1}])]))
    with pytest.raises(TypeError, match="the inputs are one str: give a list"):
        list(voting.extract("Ada"))
    with pytest.raises(TypeError, match="sentence 0 is str"):
        list(voting.annotate(["Ada"]))
