"""Gold annotation to arrays, sampling of negatives, batches and the order of the records."""

from __future__ import annotations

import logging
from collections import Counter

import datasets
import numpy as np
import pytest
import reference
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert import AspertConfig, AspertDataCollator, AspertProcessor
from modeling_aspert.data_collator import length_mask, pad, sample_training
from modeling_aspert.dataset import EpochSampler, JointExtractionDataset

TYPES, RELATIONS, SYMMETRIC = tiny.ENTITY_TYPES, tiny.RELATION_TYPES, set(tiny.SYMMETRIC_RELATIONS)
CONFIG = AspertConfig(
    entity_types=TYPES, relation_types=RELATIONS, symmetric_relations=tiny.SYMMETRIC_RELATIONS, max_span_width=4
)


def dataset_of(*records: dict) -> JointExtractionDataset:
    return JointExtractionDataset(records, tiny.make_processor(), CONFIG)


def record_of(num_words: int, spans: list[tuple[int, int]], relations: list[tuple[str, int, int]], types=None) -> dict:
    types = types or [TYPES[0]] * len(spans)
    return {
        "tokens": ["London"] * num_words,
        "entities": [{"type": kind, "start": start, "end": end} for kind, (start, end) in zip(types, spans)],
        "relations": [{"type": kind, "head": head, "tail": tail} for kind, head, tail in relations],
    }


def sample(record: dict, seed: int = 0, width: int = 4, spans: int = 150, pairs: int = 150):
    example = dataset_of(record)[0]["example"]
    return sample_training(example, np.random.default_rng(seed), width, spans, pairs)


def span_tuples(array: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(span) for span in array.tolist()]


def pair_tuples(drawn) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    spans = span_tuples(drawn.spans)
    return [(spans[head], spans[tail]) for head, tail in drawn.pairs.tolist()]


@st.composite
def records(draw) -> dict:
    """Up to 12 words, wide and nested entities, several on one span, relations of any kind between different spans."""
    num_words = draw(st.integers(1, 12))
    spans = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, num_words - 1))
        spans.append((start, draw(st.integers(start + 1, num_words))))
    types = [draw(st.sampled_from(TYPES)) for _ in spans]
    choices = [(h, t) for h in range(len(spans)) for t in range(len(spans)) if spans[h] != spans[t]]
    chosen = draw(st.lists(st.sampled_from(choices), max_size=6)) if choices else []
    return record_of(num_words, spans, [(draw(st.sampled_from(RELATIONS)), *pair) for pair in chosen], types)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(records(), st.integers(0, 40), st.integers(0, 8), st.integers(0, 10**6))
def test_samples_are_what_the_definition_allows(record, span_count, pair_count, seed):
    drawn = sample(record, seed, 4, span_count, pair_count)
    entities, relations = record["entities"], record["relations"]
    num_gold = len(entities)
    gold = [(entity["start"], entity["end"]) for entity in entities]
    assert span_tuples(drawn.spans)[:num_gold] == gold
    assert drawn.span_labels[:num_gold].tolist() == [TYPES.index(entity["type"]) + 1 for entity in entities]
    negatives = span_tuples(drawn.spans)[num_gold:]
    allowed = reference.negative_spans(len(record["tokens"]), 4, entities)
    assert len(negatives) == len(set(negatives)) == min(span_count, len(allowed))
    assert set(negatives) <= allowed
    assert not drawn.span_labels[num_gold:].any()

    positive = reference.positive_pairs(entities, relations, SYMMETRIC)
    pairs = pair_tuples(drawn)
    assert len(set(pairs[: len(positive)])) == len(positive)
    for pair, labels in zip(pairs[: len(positive)], drawn.pair_labels):
        assert {RELATIONS[kind] for kind in np.flatnonzero(labels)} == positive[pair]
    allowed = reference.negative_pairs(entities, relations, SYMMETRIC)
    negatives = pairs[len(positive) :]
    assert len(negatives) == len(set(negatives)) == min(pair_count, len(allowed))
    assert set(negatives) <= allowed
    assert not drawn.pair_labels[len(positive) :].any()
    assert drawn.pair_labels.dtype == np.float32
    # of several entities on one span, pairs use the first
    assert all(index == gold.index(gold[index]) for index in drawn.pairs.flatten())


def test_by_hand():
    """Three words, two entities and a relation: 4 free spans of up to 2 words, and the reverse as only negative."""
    record = record_of(3, [(0, 1), (2, 3)], [("works-for", 0, 1)])
    drawn = sample(record, width=2)
    assert span_tuples(drawn.spans)[:2] == [(0, 1), (2, 3)]
    assert sorted(span_tuples(drawn.spans)[2:]) == [(0, 2), (1, 2), (1, 3)]
    assert drawn.span_labels.tolist() == [1, 1, 0, 0, 0]
    assert drawn.pairs.tolist() == [[0, 1], [1, 0]]
    assert drawn.pair_labels.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_symmetric_relations_start_at_the_first_span():
    """Written tail first: turned round; its reverse is still a negative candidate, also for symmetric types."""
    drawn = sample(record_of(4, [(2, 3), (0, 1)], [("married-to", 0, 1)]))
    assert drawn.pairs.tolist() == [[1, 0], [0, 1]]
    assert drawn.pair_labels.tolist() == [[0, 0, 1], [0, 0, 0]]
    nested = sample(record_of(4, [(0, 3), (0, 1)], [("married-to", 0, 1)]))
    assert nested.pairs[0].tolist() == [1, 0]
    directed = sample(record_of(4, [(2, 3), (0, 1)], [("works-for", 0, 1)]))
    assert directed.pairs[0].tolist() == [0, 1]


def test_relations_of_one_pair_make_one_multi_hot_row():
    """Two types and a repetition on one ordered pair; a symmetric one written both ways."""
    relations = [
        ("works-for", 0, 1),
        ("lives-in", 0, 1),
        ("works-for", 0, 1),
        ("married-to", 0, 1),
        ("married-to", 1, 0),
    ]
    drawn = sample(record_of(4, [(0, 1), (2, 3)], relations))
    assert drawn.pairs.tolist() == [[0, 1], [1, 0]]
    assert drawn.pair_labels.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_both_directions_gold():
    drawn = sample(record_of(4, [(0, 1), (2, 3)], [("works-for", 0, 1), ("lives-in", 1, 0)]))
    assert drawn.pairs.tolist() == [[0, 1], [1, 0]]
    assert drawn.pair_labels.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_two_entities_on_one_span():
    """Both train as spans; relations of the second count for the first; no pair of a span with itself is drawn."""
    record = record_of(
        4, [(0, 1), (0, 1), (2, 3)], [("lives-in", 1, 2), ("works-for", 0, 2)], ["Person", "Company", "Place"]
    )
    drawn = sample(record)
    assert span_tuples(drawn.spans)[:3] == [(0, 1), (0, 1), (2, 3)]
    assert drawn.span_labels[:3].tolist() == [1, 3, 2]
    assert drawn.pairs.tolist() == [[0, 2], [2, 0]]
    assert drawn.pair_labels.tolist() == [[1, 1, 0], [0, 0, 0]]


def test_wide_entities_train_and_are_counted(caplog):
    """Wider than the limit: kept as positives, with one warning that has the numbers."""
    with caplog.at_level(logging.WARNING):
        dataset = dataset_of(record_of(9, [(0, 7), (1, 2), (3, 9)], []), record_of(3, [(0, 1)], []))
    assert [record.getMessage() for record in caplog.records].count(
        "2 of 4 entities are wider than max_span_width = 4 words (widest: 7): they train, but cannot be predicted"
    ) == 1
    drawn = sample_training(dataset[0]["example"], np.random.default_rng(0), 4, 500, 150)
    assert span_tuples(drawn.spans)[:3] == [(0, 7), (1, 2), (3, 9)]
    assert drawn.span_labels[:3].tolist() == [1, 1, 1]
    assert max(end - start for start, end in span_tuples(drawn.spans)[3:]) == 4


def test_no_entities_and_one_entity():
    for record in (record_of(3, [], []), record_of(3, [(0, 1)], [])):
        drawn = sample(record)
        assert drawn.pairs.shape == (0, 2)
        assert drawn.pair_labels.shape == (0, 3)
    assert len(sample(record_of(3, [], []), width=2).spans) == 5
    assert sample(record_of(1, [(0, 1)], [])).span_labels.tolist() == [1]


def chi_square(counts: Counter, outcomes: int, expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts.values()) + (outcomes - len(counts)) * expected


def test_negatives_are_uniform_and_without_replacement():
    """Each of 37 free spans, and each of 29 free pairs, is drawn equally often: chi-square within four deviations."""
    record = record_of(12, [(0, 1), (2, 4), (5, 6), (7, 8), (9, 10), (0, 6)], [("works-for", 0, 1)])
    example = dataset_of(record)[0]["example"]
    spans, pairs, draws, size = Counter(), Counter(), 4000, 5
    for seed in range(draws):
        drawn = sample_training(example, np.random.default_rng((11, seed)), 4, size, size)
        spans.update(span_tuples(drawn.spans)[6:])
        pairs.update(pair_tuples(drawn)[1:])
    free_spans = reference.negative_spans(12, 4, record["entities"])
    free_pairs = reference.negative_pairs(record["entities"], record["relations"], SYMMETRIC)
    assert (len(free_spans), len(free_pairs)) == (37, 29)
    for counts, free in ((spans, free_spans), (pairs, free_pairs)):
        assert set(counts) == free
        freedom = len(free) - 1
        statistic = chi_square(counts, len(free), draws * size / len(free))
        # without replacement the counts vary a little less than the statistic assumes
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5


# ------------------------------------------------------------------------------------------------ the collator


def collate(indices: list[int], seed: int = 0, dataset: JointExtractionDataset | None = None):
    dataset = dataset or dataset_of(*tiny.RECORDS)
    collator = AspertDataCollator(
        tiny.make_processor(), CONFIG, negative_entity_count=6, negative_relation_count=2, seed=seed
    )
    return collator([dataset[index] for index in indices])


def test_same_seed_epoch_and_record_give_the_same_sample():
    """Whatever the batch and the order; another epoch, seed or record gives another one."""
    count = len(tiny.RECORDS)
    alone, together = collate([0]), collate([1, 0])
    size = int(alone["span_mask"].sum())
    assert torch.equal(alone["spans"][0], together["spans"][1, :size])
    assert torch.equal(alone["pairs"][0], together["pairs"][1, : alone["pairs"].shape[1]])
    assert torch.equal(collate([0])["spans"], alone["spans"])
    for other in (collate([count]), collate([2 * count]), collate([0], seed=1)):
        assert other["index"].tolist() == [0]
        assert torch.equal(other["spans"][:, :3], alone["spans"][:, :3])
        assert not torch.equal(other["spans"], alone["spans"])
    twins = dataset_of(tiny.RECORDS[0], tiny.RECORDS[0])
    both = collate([0, 1], dataset=twins)
    assert not torch.equal(both["spans"][0], both["spans"][1])


def test_epochs_draw_anew():
    """Over 50 epochs all free spans have been drawn: no fixed set of negatives."""
    count = len(tiny.RECORDS)
    seen: set[tuple[int, int]] = set()
    dataset = dataset_of(*tiny.RECORDS)
    for epoch in range(50):
        batch = collate([epoch * count + 1], dataset=dataset)
        seen.update(span_tuples(batch["spans"][0][batch["span_mask"][0]][3:].numpy()))
    sentence = dataset[1]["example"].sentence
    free = reference.negative_spans(6, 4, tiny.RECORDS[1]["entities"])
    assert seen == {tuple(sentence.token_spans(np.array(span)).tolist()) for span in free}


def test_training_batch():
    """Sub-word offsets with the shift of the special token, widths in words, masks, zeros behind."""
    batch = collate([1, 2])
    dataset = dataset_of(*tiny.RECORDS)
    sentence = dataset[1]["example"].sentence
    expected = [sentence.word_offsets[[start, end]].tolist() for start, end in ((0, 1), (2, 3), (4, 5))]
    assert batch["spans"][0, :3].tolist() == expected
    assert batch["span_widths"][0, :3].tolist() == [1, 1, 1]
    assert batch["span_labels"][0, :3].tolist() == [1, 1, 2]
    assert batch["span_mask"].sum(-1).tolist() == [9, 3]
    assert batch["span_mask"].dtype == batch["pair_mask"].dtype == torch.bool
    # married-to was written from Pierre to Marie, and starts at Marie; two negatives
    assert batch["pairs"][0, :3].tolist() == [[0, 1], [0, 2], [1, 2]]
    assert batch["pair_labels"][0, :3].tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert batch["pair_mask"].sum(-1).tolist() == [5, 0]
    assert batch["input_ids"][0].tolist() == sentence.input_ids.tolist()
    assert batch["attention_mask"].sum(-1).tolist() == [sentence.num_tokens, dataset[2]["example"].sentence.num_tokens]
    padding = tiny.make_processor().tokenizer.pad_token_id
    assert (batch["input_ids"][batch["attention_mask"] == 0] == padding).all()
    assert "special_tokens_mask" not in batch


def test_pad_token_is_the_tokenizers():
    """RoBERTa's padding is not 0."""
    processor = tiny.make_processor("roberta")
    assert processor.tokenizer.pad_token_id == 1
    collator = AspertDataCollator(processor, CONFIG, training=False)
    batch = collator.collate_candidates(processor.encode([["Ada"], ["Ada", "London", "zebra"]]))
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()


def test_special_tokens_mask_where_it_is_needed():
    config = AspertConfig(entity_types=TYPES, relation_types=RELATIONS, contribution_special_tokens=False)
    processor = tiny.make_processor()
    sentences = processor.encode([["London"], ["London", "[CLS]", "London"]])
    batch = AspertDataCollator(processor, config, training=False).collate_candidates(sentences)
    assert batch["special_tokens_mask"].tolist() == [[1, 0, 1, 1, 1], [1, 0, 0, 0, 1]]


def test_candidates_for_inference():
    """Every span up to the limit, in words and sub-words; given spans in their place."""
    collator = AspertDataCollator(tiny.make_processor(), CONFIG, training=False)
    dataset = dataset_of(*tiny.RECORDS)
    batch = collator([dataset[1], dataset[2]])
    assert batch["index"].tolist() == [1, 2]
    assert not {"span_labels", "pairs", "pair_labels"} & set(batch)
    for row, record in enumerate(tiny.RECORDS[1:3]):
        words = reference.candidate_spans(len(record["tokens"]), 4)
        mask = batch["span_mask"][row]
        assert span_tuples(batch["word_spans"][row][mask].numpy()) == words
        sentence = dataset[1 + row]["example"].sentence
        assert batch["spans"][row][mask].tolist() == sentence.token_spans(np.array(words)).tolist()
        assert batch["span_widths"][row][mask].tolist() == [end - start for start, end in words]
    given_spans = [np.array([[0, 6], [1, 2]]), np.array([[1, 2]])]
    batch = collator.collate_candidates([dataset[row]["example"].sentence for row in (1, 2)], given_spans)
    assert batch["word_spans"].tolist() == [[[0, 6], [1, 2]], [[1, 2], [0, 0]]]
    assert batch["span_mask"].tolist() == [[True, True], [True, False]]


def test_pad_and_length_mask():
    padded = pad([np.array([[1, 2]]), np.zeros((0, 2), dtype=np.int64), np.array([[3, 4], [5, 6]])], 9)
    assert padded.tolist() == [[[1, 2], [9, 9]], [[9, 9], [9, 9]], [[3, 4], [5, 6]]]
    assert length_mask([1, 0, 2]).tolist() == [[True, False], [False, False], [True, True]]
    assert length_mask([0]).shape == (1, 0)


# ------------------------------------------------------------------------------------------------- the dataset


def test_unknown_types_are_named():
    record = record_of(2, [(0, 1)], [])
    record["entities"][0]["type"] = "Planet"
    record["orig_id"] = "s17"
    with pytest.raises(ValueError, match=r"record 1 \(orig_id 's17'\): entity type 'Planet'.*'Person'"):
        dataset_of(tiny.RECORDS[0], record)
    with pytest.raises(ValueError, match="relation type 'owns'"):
        dataset_of(record_of(3, [(0, 1), (1, 2)], [("owns", 0, 1)]))


@pytest.mark.parametrize(
    ("entities", "relations", "message"),
    [
        ([(2, 2)], [], "an entity from 2 to 2 in a sentence of 3 words"),
        ([(-2, 1)], [], "an entity from -2 to 1 in a sentence"),
        ([(2, 1)], [], "an entity from 2 to 1 in a sentence"),
        ([(0, 4)], [], "an entity from 0 to 4 in a sentence of 3 words"),
        ([(0, 1), (1, 2)], [("lives-in", -1, 0)], "a head -1 among 2 entities"),
        ([(0, 1), (1, 2)], [("lives-in", 0, 2)], "a tail 2 among 2 entities"),
    ],
)
def test_annotation_that_its_record_cannot_have_is_refused(entities, relations, message):
    with pytest.raises(ValueError, match=rf"record 1 \(orig_id None\): {message}.*: mend the record"):
        dataset_of(tiny.RECORDS[0], record_of(3, entities, relations))


def test_relations_that_the_constraints_forbid_are_counted(caplog):
    """A trained model that goes on with other data keeps what it learnt to be allowed."""
    fields = {"symmetric_relations": ["lives-in"], "relation_type_constraints": {"lives-in": [["Person", "Place"]]}}
    config = AspertConfig(entity_types=TYPES, relation_types=["lives-in", "works-for"], **fields)
    types, spans = ["Person", "Place", "Company"], [(0, 1), (1, 2), (2, 3)]
    allowed = [("lives-in", 0, 1), ("works-for", 1, 2)]
    with caplog.at_level(logging.WARNING):
        JointExtractionDataset([record_of(3, spans, allowed, types)], tiny.make_processor(), config)
        assert not caplog.records
        records = [record_of(3, spans, [("lives-in", 0, 2), ("lives-in", 0, 1), ("works-for", 0, 1)], types)] * 2
        JointExtractionDataset(records, tiny.make_processor(), config)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("2 of 6 relations join other types than relation_type_constraints allow")


def test_sentences_that_the_encoder_cannot_read_are_refused():
    """An error with the count and the first of them; never a silent cut."""
    processor = AspertProcessor(tiny.make_tokenizer(), max_tokens=6)
    records = [record_of(4, [], []), record_of(5, [], []), record_of(7, [], [])]
    with pytest.raises(ValueError, match="2 of 3 sentences.*limit of 6.*record 1 .*with 7.*split"):
        JointExtractionDataset(records, processor, CONFIG)
    assert len(JointExtractionDataset(records[:1], processor, CONFIG)) == 1


def test_items_know_their_epoch():
    dataset = dataset_of(*tiny.RECORDS)
    item = dataset[2 * len(tiny.RECORDS) + 3]
    assert (item["index"], item["epoch"]) == (3, 2)
    assert item["example"] is dataset[3]["example"]
    assert dataset.lengths[3] == dataset[3]["example"].sentence.num_tokens


def test_records_without_annotation_and_without_relation_types():
    config = AspertConfig(entity_types=TYPES)
    dataset = JointExtractionDataset([{"tokens": ["London", "Ada"]}], tiny.make_processor(), config)
    example = dataset[0]["example"]
    assert example.entity_spans.shape == (0, 2)
    assert example.pairs.shape == (0, 2)
    assert example.pair_types.shape == (0, 0)
    # and can be scored
    assert dataset.records == [{"tokens": ["London", "Ada"], "entities": [], "relations": []}]


# --------------------------------------------------------------------------------------------- order of records


def test_epoch_sampler_permutes():
    """Each epoch a permutation of all records, numbered behind the epochs before; another order each time."""
    dataset = dataset_of(*(record_of(1 + position % 7, [], []) for position in range(50)))
    sampler = EpochSampler(dataset, seed=3)
    assert len(sampler) == 50
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert order == list(sampler)
        assert sorted(order) == list(range(epoch * 50, epoch * 50 + 50))
        orders.append([index % 50 for index in order])
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != list(range(50))
    again = EpochSampler(dataset, seed=3)
    again.set_epoch(2)
    assert [index % 50 for index in again] == orders[2]
    other = EpochSampler(dataset, seed=4)
    assert [index % 50 for index in other] != orders[0]


def test_epoch_and_seed_are_not_interchangeable():
    dataset = dataset_of(*(record_of(1, [], []) for _ in range(30)))
    first, second = EpochSampler(dataset, seed=1), EpochSampler(dataset, seed=2)
    first.set_epoch(2)
    second.set_epoch(1)
    assert [index % 30 for index in first] != [index % 30 for index in second]


def test_epoch_sampler_does_not_touch_the_global_generators():
    dataset = dataset_of(*tiny.RECORDS)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(EpochSampler(dataset, seed=0))
    collate([0], dataset=dataset)
    assert torch.equal(torch.get_rng_state(), state)


def test_epoch_sampler_is_uniform():
    """Where each of 5 records ends up over 2,000 epochs."""
    dataset = dataset_of(*(record_of(1, [], []) for _ in range(5)))
    sampler, places = EpochSampler(dataset, seed=0), Counter()
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        places.update((place, index % 5) for place, index in enumerate(sampler))
    assert len(places) == 25
    assert chi_square(places, 25, 400.0) < 16 + 4 * 32**0.5


def test_grouping_by_length():
    """Still a permutation of every epoch; batches hold records of like lengths."""
    dataset = dataset_of(*(record_of(1 + position % 10, [], []) for position in range(400)))
    sampler = EpochSampler(dataset, seed=0, group_size=4)
    lengths = np.array(dataset.lengths)

    def spread(order: list[int]) -> float:
        return float(np.mean([np.ptp(lengths[order[start : start + 4]]) for start in range(0, 400, 4)]))

    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = [index - epoch * 400 for index in sampler]
        assert sorted(order) == list(range(400))
        orders.append(order)
    assert orders[0] != orders[1]
    plain = [index for index in EpochSampler(dataset, seed=0)]
    assert spread(orders[0]) < 0.3 * spread(plain)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"tokens": "Ann Lee"}, "tokens that are a str, not a list of words"),
        ({"entities": []}, "no tokens"),
        ({"tokens": ["Ann"], "entities": {"type": ["Person"], "start": [0], "end": [1]}}, "entities that are no list"),
        ({"tokens": ["Ann"], "entities": [{"type": "Person", "start": 0}]}, "one of its entities without 'end'"),
        ({"tokens": ["Ann"], "relations": ["x"]}, "relations that are no list of mappings"),
        ({"tokens": ["Ann", 5]}, "a token 5 that is no string"),
        (
            {"tokens": ["Ann"], "entities": [{"type": "Person", "start": "0", "end": 1}]},
            "one of its entities with start = '0'",
        ),
        (
            {"tokens": ["Ann"], "entities": [{"type": ["Person"], "start": 0, "end": 1}]},
            "one of its entities with type = ..Person..",
        ),
        (
            {"tokens": ["Ann"], "entities": [{"type": "Person", "start": False, "end": 1}]},
            "one of its entities with start = False",
        ),
        (record_of(3, [(0, 1)], [(RELATIONS[0], 0, 0)]), f"a relation '{RELATIONS[0]}' of entity 0 with itself"),
    ],
)
def test_records_of_another_form_are_refused(record: dict, problem: str):
    with pytest.raises(ValueError, match=f"record 1 .*: {problem}.*: mend the record"):
        dataset_of(record_of(2, [], []), record)


def test_a_record_must_be_a_mapping():
    with pytest.raises(ValueError, match="record 0 is a list: give mappings"):
        dataset_of(["Ann", "sings"])


def test_relations_within_one_span_do_not_train(caplog):
    dataset = dataset_of(record_of(4, [(0, 1), (0, 1), (2, 3)], [(RELATIONS[0], 0, 1), (RELATIONS[0], 1, 2)]))
    assert "1 relations join two entities on one span" in caplog.text
    assert dataset[0]["example"].pairs.tolist() == [[0, 2]]


@pytest.mark.parametrize("format", ["numpy", "torch"])
def test_a_formatted_dataset_is_read_as_plain_lists(format):
    config, processor = tiny.make_config(), tiny.make_processor()
    plain = JointExtractionDataset(tiny.RECORDS, processor, config)
    formatted = datasets.Dataset.from_list([dict(record) for record in tiny.RECORDS]).with_format(format)
    for ours, theirs in zip(
        JointExtractionDataset(formatted, processor, config).examples, plain.examples, strict=True
    ):
        assert ours.entity_spans.tolist() == theirs.entity_spans.tolist()
        assert ours.pair_types.tolist() == theirs.pair_types.tolist()
