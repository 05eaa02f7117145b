"""Splitting of annotated records."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts import read_records, shared_sentences, split_records
from data_scripts.splitting import untrained_types


def documents(*sizes: int) -> list[dict]:
    """Records of documents with so many sentences, each of them unlike all others."""
    return [
        {
            "tokens": [f"w{document}", f"x{number}"],
            "entities": [],
            "relations": [],
            "orig_id": f"d_{document}_{number}",
        }
        for document, size in enumerate(sizes)
        for number in range(size)
    ]


def places(splits: dict[str, list[dict]]) -> dict[tuple[str, ...], str]:
    return {tuple(record["tokens"]): name for name, part in splits.items() for record in part}


SIZES = st.lists(st.integers(1, 8), min_size=3, max_size=30)
SHARES = st.sampled_from([0, 0.05, 0.1, 0.2, 0.4])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(SIZES, SHARES, SHARES, st.sampled_from(["document", "sentence"]), st.integers(0, 5))
def test_every_record_is_in_one_split_and_none_is_empty(sizes, dev, test, by, seed):
    records = documents(*sizes)
    splits = split_records(records, dev=dev, test=test, by=by, seed=seed)
    assert list(splits) == ["train", *(["dev"] if dev else []), *(["test"] if test else [])]
    assert all(splits.values())
    numbers = {id(record): number for number, record in enumerate(records)}
    order = {name: [numbers[id(record)] for record in part] for name, part in splits.items()}
    assert all(part == sorted(part) for part in order.values())
    assert sorted(number for part in order.values() for number in part) == list(range(len(records)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 5))
def test_a_document_is_in_one_split(sizes, seed):
    splits = split_records(documents(*sizes), dev=0.2, test=0.2, seed=seed)
    where = Counter((name, document) for name, part in splits.items() for document in {r["tokens"][0] for r in part})
    assert len(where) == len(sizes)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_records_changes_nothing(sizes, seed, shuffler: random.Random):
    records = documents(*sizes)
    shuffled = shuffler.sample(records, len(records))
    assert places(split_records(records, seed=seed)) == places(split_records(shuffled, seed=seed))


def test_shares_are_met_as_well_as_documents_allow():
    splits = split_records(documents(*[5] * 200), dev=0.1, test=0.2)
    assert {name: len(part) for name, part in splits.items()} == {"train": 700, "dev": 100, "test": 200}
    # a document that is larger than the share is not taken while there are others
    for seed in range(20):
        splits = split_records(documents(80, 10, 10), seed=seed)
        assert {name: len(part) for name, part in splits.items()} == {"train": 80, "dev": 10, "test": 10}


def test_few_documents_leave_one_for_each_split():
    for seed in range(20):
        splits = split_records(documents(1, 1, 1), dev=0.4, test=0.5, seed=seed)
        assert [len(part) for part in splits.values()] == [1, 1, 1]


def test_another_seed_gives_other_splits():
    records = documents(*[1] * 50)
    assert len({tuple(places(split_records(records, seed=seed)).items()) for seed in range(5)}) == 5


@pytest.mark.parametrize("orig_ids", [[None] * 40, [*range(20), *range(20)], [f"{number}_0" for number in range(40)]])
def test_records_without_a_document_go_by_their_words(orig_ids):
    records = [{"tokens": [str(number // 4)], "orig_id": orig_id} for number, orig_id in enumerate(orig_ids)]
    splits = split_records(records, dev=0.3, test=0.3)
    assert not shared_sentences(splits)
    assert [len(part) for part in splits.values()] == [16, 12, 12]


def test_by_sentence_parts_documents_but_not_the_same_words():
    records = [{"tokens": [str(number // 2)], "orig_id": f"one_{number}"} for number in range(40)]
    splits = split_records(records, by="sentence")
    assert not shared_sentences(splits)
    assert {name: len(part) for name, part in splits.items()} == {"train": 32, "dev": 4, "test": 4}
    with pytest.raises(
        ValueError, match="40 records of 1 document cannot be split into 3 parts: split by sentence, or add"
    ):
        split_records(records)


def test_scierc_is_split_by_abstracts(corpora, tmp_path):
    from data_scripts import convert

    convert("dygie", corpora / "scierc" / "original" / "train.json", tmp_path / "all.json")
    splits = split_records(read_records(tmp_path / "all.json"))
    assert {name: round(len(part) / 1861, 2) for name, part in splits.items()} == {
        "train": 0.8,
        "dev": 0.1,
        "test": 0.1,
    }
    abstracts = [{record["orig_id"].rpartition("_")[0] for record in part} for part in splits.values()]
    assert sum(map(len, abstracts)) == len(set.union(*abstracts)) == 350


@pytest.mark.parametrize("shares", [{"dev": -0.1}, {"test": 1.0}, {"dev": 0.5, "test": 0.5}, {"dev": float("nan")}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="each must be >= 0, and their sum below 1"):
        split_records(documents(1, 1, 1), **shares)


def test_wrong_units_and_too_few_records_are_refused():
    with pytest.raises(ValueError, match="by = 'abstract' is not valid: use one of document, sentence"):
        split_records(documents(1, 1, 1), by="abstract")
    with pytest.raises(ValueError, match="2 records of 2 sentences cannot be split into 3 parts: add data$"):
        split_records(documents(1, 1), by="sentence")
    with pytest.raises(ValueError, match="0 records of 0 documents cannot be split into 2 parts"):
        split_records([], dev=0)


def test_types_that_train_lacks_are_named():
    def record(*types: str, relations: tuple[str, ...] = ()) -> dict:
        return {"entities": [{"type": name} for name in types], "relations": [{"type": name} for name in relations]}

    splits = {"train": [record("A")], "dev": [record("A", "B", relations=("A",))], "test": []}
    assert [str(problem) for problem in untrained_types(splits)] == [
        "dev: entities.type = 'B': does not occur in train, and cannot be learnt; annotate more of it, or split anew",
        "dev: relations.type = 'A': does not occur in train, and cannot be learnt; annotate more of it, or split anew",
    ]
