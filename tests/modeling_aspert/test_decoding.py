"""Logits to entities and relations against a loop over spans and pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert import AspertConfig, AspertOutput
from modeling_aspert.decoding import Predictions, decode, join_records, learn_constraints, without_overlaps
from modeling_aspert.modeling_aspert import pairs_of_entities

ENTITY_TYPES = ["Loc", "Org", "Per"]
RELATION_TYPES = ["based", "near", "kin"]
SYMMETRIC = ["near", "kin"]


def make_config(**fields) -> AspertConfig:
    return AspertConfig(
        entity_types=ENTITY_TYPES, relation_types=RELATION_TYPES, symmetric_relations=SYMMETRIC, **fields
    )


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability)) if 0 < probability < 1 else (-50.0 if probability == 0 else 50.0)


def hand_output(
    span_probabilities: list[list[float]], pairs: list[tuple[int, int]], relation_probabilities: list[list[float]]
) -> AspertOutput:
    """One sentence from probabilities."""
    outputs = len(relation_probabilities[0]) if relation_probabilities else 3
    return AspertOutput(
        span_logits=torch.tensor([span_probabilities]).log(),
        relation_logits=torch.tensor([[[logit(value) for value in row] for row in relation_probabilities]]).view(
            1, len(pairs), outputs
        ),
        pairs=torch.tensor([pairs]).view(1, len(pairs), 2),
        pair_mask=torch.ones(1, len(pairs), dtype=torch.bool),
    )


def decode_one(output: AspertOutput, spans: list[tuple[int, int]], config: AspertConfig, **options) -> Predictions:
    return decode(output, torch.tensor([spans]), torch.ones(1, len(spans), dtype=torch.bool), config, **options)


LOC, ORG, NONE = [0.1, 0.7, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.9, 0.05, 0.03, 0.02]


def test_by_hand():
    """Three candidates, one of them none; a directed relation, and a symmetric one found from its far end."""
    spans = [(0, 1), (0, 2), (3, 4)]
    output = hand_output([LOC, NONE, ORG], [(0, 2), (2, 0)], [[0.9, 0.1, 0.1], [0.1, 0.8, 0.39]])
    found = decode_one(output, spans, make_config())
    assert found.entities.tolist() == [[0, 0, 1, 0], [0, 3, 4, 1]]
    assert found.entity_scores.tolist() == pytest.approx([0.7, 0.6])
    assert found.relations.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert found.relation_scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.annotation(make_config()) == {
        "entities": [
            {"type": "Loc", "start": 0, "end": 1, "score": pytest.approx(0.7)},
            {"type": "Org", "start": 3, "end": 4, "score": pytest.approx(0.6)},
        ],
        "relations": [
            {"type": "based", "head": 0, "tail": 1, "score": pytest.approx(0.9)},
            {"type": "near", "head": 0, "tail": 1, "score": pytest.approx(0.8)},
        ],
    }


def test_papers_example_of_the_none_class():
    """Section 3.4, alpha 0.4: (0.43, 0.47, none 0.10) are two relations; (0.59, 0.00, none 0.41) is none."""
    config = AspertConfig(entity_types=["a"], relation_types=["Adverse-Effect", "Drug"], relation_none_class=True)
    spans, entity = [(0, 1), (2, 3)], [0.2, 0.8]
    output = hand_output([entity, entity], [(0, 1), (1, 0)], [[0.43, 0.47, 0.10], [0.59, 0.00, 0.41]])
    found = decode_one(output, spans, config)
    assert found.relations.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert found.relation_scores.tolist() == pytest.approx([0.43, 0.47])


def test_none_alone_is_never_an_output():
    config = AspertConfig(entity_types=["a"], relation_types=["r"], relation_none_class=True)
    found = decode_one(hand_output([[0.2, 0.8]] * 2, [(0, 1)], [[0.1, 0.9]]), [(0, 1), (2, 3)], config)
    assert len(found.relations) == 0


def test_threshold_is_met_where_equal():
    """p >= alpha: sigmoid(0) is 0.5 exactly."""
    output = hand_output([LOC, LOC], [(0, 1)], [[0.5, 0.1, 0.1]])
    for threshold, count in ((0.5, 1), (0.5001, 0), (0.0, 3), (1.0, 0)):
        found = decode_one(output, [(0, 1), (2, 3)], make_config(relation_threshold=threshold))
        assert len(found.relations) == count


def test_none_vetoes_where_equal():
    config = AspertConfig(entity_types=["a"], relation_types=["r"], relation_none_class=True, relation_threshold=0.5)
    for none, count in ((0.5, 0), (0.499, 1)):
        found = decode_one(hand_output([[0.2, 0.8]] * 2, [(0, 1)], [[0.9, none]]), [(0, 1), (2, 3)], config)
        assert len(found.relations) == count


@pytest.mark.parametrize(
    ("asked", "count"), [(None, 0), (0.5, 1), (0.4, 0), ({"r": 0.5}, 0)], ids=["model's", "higher", "same", "by type"]
)
def test_one_threshold_is_the_vetos_too(asked, count):
    config = AspertConfig(entity_types=["a"], relation_types=["r"], relation_none_class=True, relation_threshold=0.4)
    output = hand_output([[0.2, 0.8]] * 2, [(0, 1)], [[0.6, 0.45]])
    assert len(decode_one(output, [(0, 1), (2, 3)], config, relation_threshold=asked).relations) == count


@pytest.mark.parametrize("scores", [(0.6, 0.9), (0.9, 0.6)])
def test_symmetric_duplicates_keep_the_higher_score(scores):
    output = hand_output([LOC, ORG], [(0, 1), (1, 0)], [[0.1, scores[0], 0.1], [0.1, scores[1], 0.1]])
    found = decode_one(output, [(0, 1), (2, 3)], make_config())
    assert found.relations.tolist() == [[0, 0, 1, 1]]
    assert found.relation_scores.tolist() == pytest.approx([0.9])


def test_symmetric_order_of_nested_spans_with_equal_starts():
    """By (start, end): the shorter one is the head."""
    output = hand_output([LOC, ORG], [(1, 0)], [[0.1, 0.9, 0.1]])
    assert decode_one(output, [(0, 1), (0, 3)], make_config()).relations.tolist() == [[0, 0, 1, 1]]


def test_directed_relations_keep_both_directions():
    output = hand_output([LOC, ORG], [(0, 1), (1, 0)], [[0.6, 0.1, 0.1], [0.7, 0.1, 0.1]])
    found = decode_one(output, [(0, 1), (2, 3)], make_config())
    assert found.relations.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert found.relation_scores.tolist() == pytest.approx([0.6, 0.7])


def test_thresholds_by_type():
    """A missing type has the configuration's; a number is for all; an unknown type is an error."""
    output = hand_output([LOC, ORG], [(0, 1)], [[0.45, 0.45, 0.45]])
    spans, config = [(0, 1), (2, 3)], make_config(relation_threshold=0.4)

    def kinds(threshold):
        return decode_one(output, spans, config, relation_threshold=threshold).relations[:, 3].tolist()

    assert kinds(None) == [0, 1, 2]
    assert kinds({"near": 0.5}) == [0, 2]
    assert kinds({"near": 0.5, "based": 0.9, "kin": 0.1}) == [2]
    assert kinds(0.5) == []
    assert kinds(0.3) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"\['owns'\].*'based'"):
        kinds({"owns": 0.5})


def test_entity_threshold_drops_relations():
    """An entity below it goes, and so do its relations; the others count from the entities that stay."""
    output = hand_output(
        [LOC, ORG, LOC], [(0, 1), (0, 2), (2, 1)], [[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.7, 0.1, 0.1]]
    )
    spans = [(0, 1), (2, 3), (4, 5)]
    found = decode_one(output, spans, make_config(), entity_threshold=0.65)
    assert found.entities.tolist() == [[0, 0, 1, 0], [0, 4, 5, 0]]
    assert found.relations.tolist() == [[0, 0, 1, 0]]
    assert found.relation_scores.tolist() == pytest.approx([0.8])


def test_given_entities():
    """Types from outside: score 1, and only relations are predicted."""
    output = hand_output([NONE, NONE], [(0, 1), (1, 0)], [[0.9, 0.1, 0.1], [0.1, 0.1, 0.1]])
    found = decode_one(output, [(0, 1), (2, 3)], make_config(), span_labels=torch.tensor([[3, 1]]))
    assert found.entities.tolist() == [[0, 0, 1, 2], [0, 2, 3, 0]]
    assert found.entity_scores.tolist() == [1.0, 1.0]
    assert found.relations.tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("chunk", [1, 7, 2**22])
def test_too_many_relations_are_cut_to_the_highest_and_the_others_counted(monkeypatch, chunk):
    """An untrained relation classifier may relate everything; memory stays bounded."""
    spans = [(0, 1), (2, 3), (4, 5)]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    scores = [[0.9, 0.1, 0.1], [0.6, 0.1, 0.1], [0.8, 0.1, 0.1], [0.5, 0.1, 0.1], [0.7, 0.1, 0.1], [0.45, 0.1, 0.1]]
    output = hand_output([LOC, LOC, ORG], pairs, scores)
    monkeypatch.setattr("modeling_aspert.decoding.CHUNK_VALUES", chunk)
    whole = decode_one(output, spans, make_config())
    assert len(whole.relations) == 6 and whole.left_out == 0
    monkeypatch.setattr("modeling_aspert.decoding.MAX_RELATIONS", 3)
    found = decode_one(output, spans, make_config())
    assert found.relations.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 2, 0, 0]]
    assert found.relation_scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert found.left_out == 3
    assert decode_one(output, spans, make_config(), entity_overlap="flat").left_out == 3


def test_best_relations_of_each_sentence():
    """Two of three relations of the first sentence, both of the third, in their order; the second has none."""
    entities = np.array([[0, 0, 1, 0], [0, 2, 3, 1], [1, 0, 1, 0], [2, 0, 1, 0], [2, 1, 2, 0]])
    relations = np.array([[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [2, 0, 1, 0], [2, 1, 0, 0]])
    scores = np.array([0.5, 0.9, 0.7, 0.6, 0.8], dtype=np.float32)
    found = Predictions(entities, np.ones(5, dtype=np.float32), relations, scores, left_out=4).best_relations(2)
    assert found.entities.tolist() == entities.tolist()
    assert found.relations.tolist() == relations[1:].tolist()
    assert found.relation_scores.tolist() == scores[1:].tolist()
    assert found.left_out == 5


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_extreme_thresholds(threshold):
    """0 keeps the least likely relation, 1 what rounds to certainty."""
    output = hand_output([LOC, ORG], [(0, 1)], [[1.0, 0.5, 0.0]])
    found = decode_one(output, [(0, 1), (2, 3)], make_config(), relation_threshold=threshold)
    assert found.relations[:, 3].tolist() == ([0, 1, 2] if threshold == 0 else [0])


def test_padding_is_not_decoded():
    """The second sentence has one real span and no real pair; its padding would be entities and relations."""
    output = AspertOutput(
        span_logits=torch.tensor([[LOC, ORG], [LOC, ORG]]).log(),
        relation_logits=torch.full((2, 1, 3), 5.0),
        pairs=torch.tensor([[[0, 1]], [[0, 1]]]),
        pair_mask=torch.tensor([[True], [False]]),
    )
    spans = torch.tensor([[[0, 1], [2, 3]], [[0, 1], [0, 0]]])
    found = decode(output, spans, torch.tensor([[True, True], [True, False]]), make_config())
    assert found.entities.tolist() == [[0, 0, 1, 0], [0, 2, 3, 1], [1, 0, 1, 0]]
    assert found.relations[:, 0].tolist() == [0, 0, 0]


def test_outputs_with_gradient():
    """After a forward pass outside no_grad."""
    output = hand_output([LOC, ORG], [(0, 1)], [[0.9, 0.1, 0.1]])
    output.span_logits.requires_grad_()
    output.relation_logits.requires_grad_()
    assert len(decode_one(output, [(0, 1), (2, 3)], make_config()).relations) == 1


def test_half_precision_scores_are_fp32():
    output = hand_output([LOC, ORG], [(0, 1)], [[0.9, 0.1, 0.1]])
    output.span_logits, output.relation_logits = output.span_logits.bfloat16(), output.relation_logits.bfloat16()
    found = decode_one(output, [(0, 1), (2, 3)], make_config())
    assert found.entity_scores.dtype == found.relation_scores.dtype == np.float32


def random_output(rng, sizes, none_class=False):
    """Sentences of so many words: all spans of up to three, scored at random, and all pairs of entities."""
    sentences = [reference.candidate_spans(words, 3) for words in sizes]
    most = max(1, max(len(spans) for spans in sentences))
    word_spans = torch.zeros(len(sizes), most, 2, dtype=torch.long)
    mask = torch.zeros(len(sizes), most, dtype=torch.bool)
    for row, spans in enumerate(sentences):
        mask[row, : len(spans)] = True
        if spans:
            word_spans[row, : len(spans)] = torch.tensor(spans)
    span_logits = torch.from_numpy(rng.normal(0, 2, (len(sizes), most, 4)))
    pairs, pair_mask = pairs_of_entities((span_logits.argmax(-1) > 0) & mask)
    relation_logits = torch.from_numpy(rng.normal(-1, 1.5, (*pair_mask.shape, 3 + none_class)))
    # scores that differ by more than what fp32 can blur around the thresholds
    output = AspertOutput(span_logits=span_logits, relation_logits=relation_logits, pairs=pairs, pair_mask=pair_mask)
    return sentences, output, word_spans, mask


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_against_the_reference(data):
    """Random sentences with nested spans; with and without the none class, thresholds by type, entity threshold."""
    none_class = data.draw(st.booleans(), "none class")
    alpha = data.draw(st.sampled_from((0.2, 0.4, 0.6)), "alpha")
    config = make_config(relation_none_class=none_class, relation_threshold=alpha)
    requested = data.draw(
        st.sampled_from((None, 0.35, {"near": 0.7}, {"based": 0.1, "kin": 0.9})), "requested thresholds"
    )
    entity_threshold = data.draw(st.sampled_from((0.0, 0.5)), "entity threshold")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), "seed"))
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3), "words")

    sentences, output, word_spans, mask = random_output(rng, sizes, none_class)
    span_logits, relation_logits = output.span_logits, output.relation_logits
    pairs, pair_mask = output.pairs, output.pair_mask
    found = decode(output, word_spans, mask, config, requested, entity_threshold)

    thresholds = [alpha] * 3
    if isinstance(requested, float):
        thresholds = [requested] * 3
    for name, value in (requested if isinstance(requested, dict) else {}).items():
        thresholds[RELATION_TYPES.index(name)] = value
    sentences_found = found.per_sentence(len(sizes))
    assert len(sentences_found) == len(sizes)
    for row, (spans, ours) in enumerate(zip(sentences, sentences_found)):
        entities, relations = reference.decode(
            spans,
            span_logits[row, : len(spans)].tolist(),
            [tuple(pair) for pair in pairs[row][pair_mask[row]].tolist()],
            relation_logits[row][pair_mask[row]].tolist(),
            symmetric=[False, True, True],
            thresholds=thresholds,
            none_threshold=(requested if isinstance(requested, float) else alpha) if none_class else None,
            entity_threshold=entity_threshold,
        )
        assert ours.entities[:, 1:].tolist() == [list(entity[:3]) for entity in entities]
        assert ours.entity_scores.tolist() == pytest.approx([entity[3] for entity in entities], abs=1e-6)
        assert [tuple(relation) for relation in ours.relations[:, 1:].tolist()] == sorted(relations)
        assert ours.relation_scores.tolist() == pytest.approx([relations[key] for key in sorted(relations)], abs=1e-6)
        assert set(ours.entities[:, 0].tolist()) | set(ours.relations[:, 0].tolist()) <= {row}


@pytest.mark.parametrize("overlap", ["allow", "flat"])
@pytest.mark.parametrize("constraints", [None, {"based": [["Loc", "Org"]], "near": [["Per", "Loc"], ["Org", "Org"]]}])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_constraints_afterwards_are_those_of_decoding(overlap, constraints, seed):
    """Also of predictions that were written as records and read again."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 6, 3).tolist()
    _, output, word_spans, mask = random_output(rng, sizes)
    config = make_config(entity_overlap=overlap, relation_type_constraints=constraints, relation_threshold=0.2)
    expected = decode(output, word_spans, mask, config).per_sentence(len(sizes))
    free = decode(output, word_spans, mask, make_config(relation_threshold=0.2))
    records = [each.annotation(config) for each in free.per_sentence(len(sizes))]
    found = Predictions.from_records(records, config).constrained(config).per_sentence(len(sizes))
    assert [each.annotation(config) for each in found] == [each.annotation(config) for each in expected]


# -------------------------------------------------------------------------------------------- without overlaps


def predictions(
    entities: list[tuple[int, int, int, float]], relations: list[tuple[int, int, int, float]]
) -> Predictions:
    return Predictions(
        np.array([[0, *entity[:3]] for entity in entities], dtype=np.int64).reshape(-1, 4),
        np.array([entity[3] for entity in entities], dtype=np.float32),
        np.array([[0, *relation[:3]] for relation in relations], dtype=np.int64).reshape(-1, 4),
        np.array([relation[3] for relation in relations], dtype=np.float32),
    )


def test_without_overlaps_by_hand():
    """(0,3) 0.9 beats (1,2) and (2,5); (5,6) touches nothing. Relations follow their entities' new places."""
    before = predictions(
        [(0, 3, 0, 0.9), (1, 2, 1, 0.8), (2, 5, 1, 0.7), (5, 6, 2, 0.5)],
        [(0, 1, 0, 0.9), (0, 3, 0, 0.8), (3, 0, 1, 0.7), (2, 3, 0, 0.6)],
    )
    after = without_overlaps(before)
    assert after.entities[:, 1:].tolist() == [[0, 3, 0], [5, 6, 2]]
    assert after.relations[:, 1:].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert after.relation_scores.tolist() == pytest.approx([0.8, 0.7])


def test_without_overlaps_frees_what_a_loser_covered():
    """(1,4) loses against (0,2), so (3,5), which only it overlaps, stays."""
    after = without_overlaps(predictions([(0, 2, 0, 0.9), (1, 4, 0, 0.8), (3, 5, 0, 0.3)], []))
    assert after.entities[:, 1:3].tolist() == [[0, 2], [3, 5]]


def test_without_overlaps_ties():
    """Equal scores: what starts first, then the shorter one."""
    tied = predictions([(0, 2, 0, 0.5), (0, 3, 0, 0.5), (1, 2, 0, 0.5), (2, 3, 0, 0.5)], [])
    assert without_overlaps(tied).entities[:, 1:3].tolist() == [[0, 2], [2, 3]]


def test_without_overlaps_in_a_batch():
    """Sentences do not touch each other, and relations count the entities of their own sentence."""
    batch = Predictions(
        np.array([[0, 0, 2, 0], [0, 1, 3, 0], [2, 0, 1, 1], [2, 0, 4, 1], [2, 5, 6, 1]]),
        np.array([0.5, 0.6, 0.9, 0.8, 0.7]),
        np.array([[0, 0, 1, 0], [2, 0, 2, 1], [2, 1, 2, 1], [2, 2, 0, 0]]),
        np.array([0.9, 0.8, 0.7, 0.6]),
    )
    after = without_overlaps(batch)
    assert after.entities.tolist() == [[0, 1, 3, 0], [2, 0, 1, 1], [2, 5, 6, 1]]
    assert after.relations.tolist() == [[2, 0, 1, 1], [2, 1, 0, 0]]
    assert after.relation_scores.tolist() == [0.8, 0.6]


def test_overlaps_and_entity_threshold_of_the_configuration():
    """What the model's configuration says holds, unless the call says otherwise; given entities all stay."""
    spans, weak = [(0, 2), (1, 3)], [0.4, 0.45, 0.1, 0.05]
    output = hand_output([LOC, weak], [(0, 1), (1, 0)], [[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    for fields, options, kept in [
        ({}, {}, 2),
        ({"entity_overlap": "flat"}, {}, 1),
        ({"entity_overlap": "flat"}, {"entity_overlap": "allow"}, 2),
        ({"entity_threshold": 0.5}, {}, 1),
        ({"entity_threshold": 0.5}, {"entity_threshold": 0.0}, 2),
        ({"entity_overlap": "flat"}, {"span_labels": torch.tensor([[1, 2]])}, 2),
    ]:
        found = decode_one(output, spans, make_config(**fields), **options)
        assert (len(found.entities), len(found.relations)) == (kept, 2 if kept == 2 else 0)


def test_constraints_are_learnt_from_records():
    entities = [{"type": "Per", "start": 0, "end": 1}, {"type": "Org", "start": 1, "end": 3}]
    relation = {"type": "based", "head": 0, "tail": 1}
    apart = {"tokens": ["a"] * 4, "entities": entities, "relations": [relation]}
    nested = {"tokens": ["a"] * 4, "entities": [*entities, {"type": "Loc", "start": 2, "end": 3}], "relations": []}
    pairs = {"relation_type_constraints": {"based": [["Per", "Org"]]}}
    assert learn_constraints([apart]) == {**pairs, "entity_overlap": "flat"}
    assert learn_constraints([apart, nested]) == {**pairs, "entity_overlap": "allow"}


def test_without_overlaps_of_nothing():
    after = without_overlaps(predictions([], []))
    assert after.entities.shape == (0, 4) and after.relations.shape == (0, 4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_without_overlaps_is_greedy(data):
    spans = sorted(
        data.draw(
            st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), unique=True, max_size=8).map(
                lambda drawn: {(start, start + width) for start, width in drawn}
            )
        )
    )
    scores = [data.draw(st.sampled_from((0.2, 0.5, 0.9))) for _ in spans]
    pairs = [(head, tail) for head in range(len(spans)) for tail in range(len(spans)) if head != tail][:10]
    before = predictions(
        [(*span, 0, score) for span, score in zip(spans, scores)], [(*pair, 0, 0.5) for pair in pairs]
    )
    kept: list[int] = []
    for index in sorted(range(len(spans)), key=lambda i: (-scores[i], *spans[i])):
        if all(spans[index][1] <= spans[other][0] or spans[other][1] <= spans[index][0] for other in kept):
            kept.append(index)
    kept.sort()
    after = without_overlaps(before)
    assert after.entities[:, 1:3].tolist() == [list(spans[index]) for index in kept]
    expected = [[kept.index(head), kept.index(tail)] for head, tail in pairs if head in kept and tail in kept]
    assert after.relations[:, 1:3].tolist() == expected


# ------------------------------------------------------------------------------------------------------ records


def test_join_records():
    """Tokens and orig_id of the input; its gold annotation does not leak into the prediction."""
    records = [
        {
            "tokens": ["a", "b", "c"],
            "entities": [{"type": "Per", "start": 0, "end": 3}],
            "relations": [],
            "orig_id": 0,
        },
        {"tokens": ["d"]},
    ]
    found = predictions([(0, 1, 0, 0.75), (2, 3, 1, 0.5)], [(1, 0, 2, 0.5)])
    joined = join_records(records, [found, predictions([], [])], make_config())
    assert joined == [
        {
            "tokens": ["a", "b", "c"],
            "entities": [
                {"type": "Loc", "start": 0, "end": 1, "score": 0.75},
                {"type": "Org", "start": 2, "end": 3, "score": 0.5},
            ],
            "relations": [{"type": "kin", "head": 1, "tail": 0, "score": 0.5}],
            "orig_id": 0,
        },
        {"tokens": ["d"], "entities": [], "relations": []},
    ]
    with pytest.raises(ValueError):
        join_records(records, [found], make_config())
