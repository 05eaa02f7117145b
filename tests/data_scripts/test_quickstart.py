"""The embedded corpus holds what its README promises, and its test split re-fills no training frames."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data_scripts" / "quickstart"
SPLITS = ("train", "dev", "test")
Frame = list[str]


def load(split: str) -> list[dict]:
    return json.loads((FOLDER / f"{split}.json").read_text(encoding="utf-8"))


RECORDS = {split: load(split) for split in SPLITS}
TYPES = json.loads((FOLDER / "quickstart_types.json").read_text(encoding="utf-8"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ALL = [record for split in SPLITS for record in RECORDS[split]]


def table_rows(columns: int) -> dict[str, list[str]]:
    """The rows of all README tables with that many columns, by first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows if len(row) == columns}


def nested_pairs(record: dict) -> list[tuple[dict, dict]]:
    """(outer, inner) for every entity that lies inside another one of the sentence."""
    return [
        (outer, inner)
        for outer in record["entities"]
        for inner in record["entities"]
        if outer is not inner and outer["start"] <= inner["start"] and inner["end"] <= outer["end"]
    ]


def multi_relation_pairs(record: dict) -> int:
    pairs = Counter((relation["head"], relation["tail"]) for relation in record["relations"])
    return sum(count > 1 for count in pairs.values())


def frame(record: dict) -> Frame:
    """The lower-cased words with every outermost entity replaced by its type: what a template would be."""
    outermost: dict[int, tuple[int, str]] = {}
    for entity in record["entities"]:
        candidate = (entity["end"], f"<{entity['type']}>")
        outermost[entity["start"]] = max(outermost.get(entity["start"], candidate), candidate)
    words, position = [], 0
    while position < len(record["tokens"]):
        end, word = outermost.get(position, (position + 1, record["tokens"][position].lower()))
        words.append(word)
        position = end
    return words


def trigrams(words: Frame) -> frozenset[tuple[str, str, str]]:
    padded = ["<s>", "<s>", *words, "</s>", "</s>"]
    return frozenset(zip(padded, padded[1:], padded[2:], strict=False))


def nearest(words: Frame, pool: list[Frame]) -> float:
    """The highest Jaccard similarity of the trigram set of `words` with one of the pool, in 0…1."""
    own = trigrams(words)
    return max(len(own & other) / len(own | other) for other in map(trigrams, pool))


def test_promised_sizes():
    assert len(RECORDS["train"]) >= 240 and len(RECORDS["dev"]) >= 40 and len(RECORDS["test"]) >= 60
    entities = Counter(entity["type"] for record in RECORDS["train"] for entity in record["entities"])
    relations = Counter(relation["type"] for record in RECORDS["train"] for relation in record["relations"])
    assert min(entities[name] for name in TYPES["entities"]) >= 80
    assert min(relations[name] for name in TYPES["relations"]) >= 50


@pytest.mark.parametrize("split", SPLITS)
def test_every_label_occurs_in_each_split(split):
    records = RECORDS[split]
    assert {entity["type"] for record in records for entity in record["entities"]} == set(TYPES["entities"])
    assert {relation["type"] for record in records for relation in record["relations"]} == set(TYPES["relations"])


def test_readme_counts_are_those_of_the_files():
    counted: dict[str, list[int]] = {
        "sentences": [len(RECORDS[split]) for split in SPLITS],
        "tokens": [sum(len(record["tokens"]) for record in RECORDS[split]) for split in SPLITS],
        "sentences without relations": [sum(not r["relations"] for r in RECORDS[split]) for split in SPLITS],
        "sentences without entities": [sum(not r["entities"] for r in RECORDS[split]) for split in SPLITS],
        "nested pairs": [sum(len(nested_pairs(record)) for record in RECORDS[split]) for split in SPLITS],
        "multi-relation pairs": [sum(map(multi_relation_pairs, RECORDS[split])) for split in SPLITS],
    }
    for key in ("entities", "relations"):
        counted[key] = [sum(len(record[key]) for record in RECORDS[split]) for split in SPLITS]
        for name in TYPES[key]:
            counted[name] = [sum(x["type"] == name for r in RECORDS[split] for x in r[key]) for split in SPLITS]
    rows = table_rows(columns=4)
    assert {name: [int(cell) for cell in rows[name]] for name in counted} == counted
    assert f"{len(ALL)} English sentences" in README


def test_type_signatures_and_symmetry_are_those_of_the_readme():
    signatures = {name: (row[0], row[1]) for name, row in table_rows(columns=5).items() if name in TYPES["relations"]}
    assert set(signatures) == set(TYPES["relations"])
    for name, row in table_rows(columns=5).items():
        if name in TYPES["relations"]:
            assert TYPES["relations"][name]["symmetric"] is (row[2] == "yes"), name
    for record in ALL:
        entities = record["entities"]
        for relation in record["relations"]:
            ends = (entities[relation["head"]]["type"], entities[relation["tail"]]["type"])
            assert ends == signatures[relation["type"]], record["orig_id"]


def test_offsets_and_indices_are_valid():
    for record in ALL:
        where, entities = record["orig_id"], record["entities"]
        assert 6 <= len(record["tokens"]) <= 40, where
        assert all(token and token == token.strip() for token in record["tokens"]), where
        for entity in entities:
            assert set(entity) == {"type", "start", "end"}, where
            assert 0 <= entity["start"] < entity["end"] <= len(record["tokens"]), where
            assert entity["end"] - entity["start"] <= 10, where
        assert len({(entity["start"], entity["end"]) for entity in entities}) == len(entities), where
        relations = [(relation["type"], relation["head"], relation["tail"]) for relation in record["relations"]]
        assert len(set(relations)) == len(relations), where
        for _, head, tail in relations:
            assert head != tail and 0 <= min(head, tail) and max(head, tail) < len(entities), where


def test_no_partial_overlap():
    for record in ALL:
        for first in record["entities"]:
            for second in record["entities"]:
                assert not first["start"] < second["start"] < first["end"] < second["end"], record["orig_id"]


def test_tokens_are_words_numbers_and_single_marks():
    token = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:-\w+)*|'s|[^\w\s]")
    assert {word for record in ALL for word in record["tokens"] if not token.fullmatch(word)} == set()


@pytest.mark.parametrize("split", SPLITS)
def test_one_record_a_line_with_stable_ids(split):
    lines = (FOLDER / f"{split}.json").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "[" and lines[-1] == "]"
    ids = [json.loads(line.rstrip(","))["orig_id"] for line in lines[1:-1]]
    assert ids == [f"quickstart-{split}-{number:04d}" for number in range(1, len(RECORDS[split]) + 1)]


def test_nested_entities_carry_the_relation_of_the_guidelines():
    """Guideline 6: Organization ⊃ Location is Based_In, Method ⊃ Task is Used_For, Organization ⊃ Person is free."""
    expected = {("Organization", "Location"): "Based_In", ("Method", "Task"): "Used_For"}
    for record in ALL:
        stated = {(relation["head"], relation["tail"]): relation["type"] for relation in record["relations"]}
        for outer, inner in nested_pairs(record):
            types = (outer["type"], inner["type"])
            if types != ("Organization", "Person"):
                pair = (record["entities"].index(outer), record["entities"].index(inner))
                assert stated.get(pair) == expected[types], record["orig_id"]


@pytest.mark.parametrize(("split", "nested", "multi"), [("train", 30, 10), ("dev", 5, 3), ("test", 8, 4)])
def test_hard_structures_in_each_split(split, nested, multi):
    records = RECORDS[split]
    assert sum(len(nested_pairs(record)) for record in records) >= nested
    assert sum(map(multi_relation_pairs, records)) >= multi
    # Three triples that share an entity, and relations in both textual directions.
    assert any(
        max(Counter(x for r in record["relations"] for x in (r["head"], r["tail"])).values(), default=0) >= 3
        for record in records
    )
    directions = {
        record["entities"][relation["head"]]["start"] <= record["entities"][relation["tail"]]["start"]
        for record in records
        for relation in record["relations"]
    }
    assert directions == {True, False}


def test_training_split_has_both_directions_of_every_directed_type():
    seen = {
        (
            relation["type"],
            record["entities"][relation["head"]]["start"] < record["entities"][relation["tail"]]["start"],
        )
        for record in RECORDS["train"]
        for relation in record["relations"]
    }
    directed = [name for name, spec in TYPES["relations"].items() if not spec["symmetric"]]
    assert all((name, forward) in seen for name in directed for forward in (True, False))


@pytest.mark.parametrize("split", SPLITS)
def test_symmetric_relations_are_annotated_once_from_left_to_right(split):
    found = 0
    for record in RECORDS[split]:
        for relation in record["relations"]:
            if TYPES["relations"][relation["type"]]["symmetric"]:
                head, tail = record["entities"][relation["head"]], record["entities"][relation["tail"]]
                assert head["start"] < tail["start"], record["orig_id"]
                found += 1
    assert found >= 5


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_without_relations_and_without_entities(split):
    records = RECORDS[split]
    share = sum(not record["relations"] for record in records) / len(records)
    assert 0.12 <= share <= 0.20
    assert any(not record["entities"] for record in records)


def test_no_sentence_and_no_frame_occurs_twice():
    sentences = Counter(" ".join(record["tokens"]).lower() for record in ALL)
    assert [sentence for sentence, count in sentences.items() if count > 1] == []
    frames = Counter(" ".join(frame(record)) for record in ALL)
    assert [words for words, count in frames.items() if count > 1] == []


def test_overlap_measure_recognises_a_refilled_frame():
    """A re-filled sentence scores 1; one changed word in a frame of 15 still leaves 14 of 20 trigrams."""
    train = [frame(record) for record in RECORDS["train"]]
    assert nearest(train[0], train) == 1.0
    words = [f"w{number}" for number in range(15)]
    assert nearest([*words[:7], "changed", *words[8:]], [words]) == pytest.approx(14 / 20)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_frames_are_no_refillings_of_training_frames(split):
    """Measured: the nearest training frame shares 0.117 (test) and 0.151 (dev) of the trigrams on average, mostly
    sentence borders around entities, and never more than 0.22 (test) and 0.32 (dev); training sentences among
    themselves have 0.138 and 0.36. A re-filled frame would score 1, a lightly edited one about 0.7 (see above).
    """
    train = [frame(record) for record in RECORDS["train"]]
    similarities = [nearest(frame(record), train) for record in RECORDS[split]]
    assert mean(similarities) < {"dev": 0.17, "test": 0.13}[split]
    assert max(similarities) < 0.35


def test_names_are_rarely_reused_in_the_test_split():
    def names(split: str) -> set[str]:
        return {
            " ".join(record["tokens"][entity["start"] : entity["end"]])
            for record in RECORDS[split]
            for entity in record["entities"]
            if entity["type"] in ("Person", "Organization", "Location")
        }

    shared = names("test") & (names("train") | names("dev"))
    assert 0 < len(shared) <= 0.1 * len(names("test"))
