"""Records that say something wrong: each error names the file, the record, the field, the value and the mend."""

from __future__ import annotations

import copy
import pickle
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts import (
    DataError,
    LabelSchema,
    Problem,
    read_records,
    shared_sentences,
    validate_records,
    validation,
)
from data_scripts.problems import folded

SCHEMA = LabelSchema(("Person", "Place"), ("Lives_In", "Married_To"), ("Married_To",))
GOOD = {
    "tokens": ["Ann", "lives", "in", "Rome"],
    "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 3, "end": 4}],
    "relations": [{"type": "Lives_In", "head": 0, "tail": 1}],
    "orig_id": 7,
}
DELETE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with another value at a path like `entities.0.end`, or without it."""
    record = copy.deepcopy(GOOD)
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    target: Any = record
    for key in parents:
        target = target[key]
    if value is DELETE:
        del target[last]
    elif isinstance(last, int) and last == len(target):
        target.append(value)
    else:
        target[last] = value
    return record


# name, path and value that replace one of GOOD, what the message must say
ERRORS = [
    ("no tokens", "tokens", DELETE, ["tokens: the key is missing", "add it with a list of words"]),
    ("no entities", "entities", DELETE, ["entities: the key is missing", "add it with []"]),
    ("no relations", "relations", DELETE, ["relations: the key is missing", "add it with []"]),
    ("tokens are a string", "tokens", "Ann lives", ["tokens = 'Ann lives'", "a string, not a list", "list of words"]),
    ("entities are an object", "entities", {}, ["entities = {}", "an object, not a list", "write []"]),
    ("relations are null", "relations", None, ["relations = None", "null, not a list", "write []"]),
    ("empty sentence", "tokens", [], ["tokens = []", "the sentence is empty", "leave the record out"]),
    ("word is a number", "tokens.1", 5, ["tokens[1] = 5", "an integer, not a string", "write the word"]),
    ("word is null", "tokens.1", None, ["tokens[1] = None", "null, not a string", "write the word"]),
    ("word is a list", "tokens.1", ["a"], ["tokens[1] = ['a']", "a list, not a string", "write the word"]),
    ("empty word", "tokens.1", "", ["tokens[1] = ''", "an empty word", "leave it out and shift"]),
    ("white space", "tokens.1", " \u00a0", ["tokens[1] = ' \\xa0'", "white space only", "leave it out and shift"]),
    ("NUL in a word", "tokens.1", "a\0b", ["tokens[1] = 'a\\x00b'", "character '\\x00'", "leave it out, or split"]),
    ("newline in a word", "tokens.1", "a\nb", ["tokens[1] = 'a\\nb'", "character '\\n'", "leave it out, or split"]),
    ("tab in a word", "tokens.1", "a\tb", ["tokens[1] = 'a\\tb'", "character '\\t'", "leave it out, or split"]),
    ("line separator", "tokens.1", "a\u2028", ["tokens[1] = 'a\\u2028'", "'\\u2028'", "leave it out, or split"]),
    ("lone surrogate", "tokens.1", "a\ud800", ["tokens[1] = 'a\\ud800'", "half of a surrogate", "whole character"]),
    ("entity is a list", "entities.1", ["Place", 3, 4], ["entities[1] = ['Place', 3, 4]", "a list, not an object"]),
    ("entity without a type", "entities.1.type", DELETE, ["entities[1].type: the key is missing", "add the entity"]),
    ("entity without an end", "entities.1.end", DELETE, ["entities[1].end: the key is missing", "add it with an int"]),
    ("type is a number", "entities.1.type", 3, ["entities[1].type = 3", "an integer, not a string", "type's name"]),
    ("type is empty", "entities.1.type", " ", ["entities[1].type = ' '", "an empty name", "write the type's name"]),
    ("type with a newline", "entities.1.type", "Pl\nace", ["entities[1].type = 'Pl\\nace'", "cannot be printed"]),
    (
        "unknown type",
        "entities.1.type",
        "Plce",
        ["entities[1].type = 'Plce': an unknown entity type;", "write 'Place', or add 'Plce' to the types file"],
    ),
    (
        "unknown type, none near",
        "entities.1.type",
        "Xyz",
        [
            "entities[1].type = 'Xyz': an unknown entity type;",
            "write one of Person, Place, or add it to the types file",
        ],
    ),
    (
        "type of another case",
        "entities.1.type",
        "PLACE",
        ["entities[1].type = 'PLACE'", "differs from 'Place' by case only", "write 'Place'"],
    ),
    ("relation type as entity type", "entities.1.type", "Lives_In", ["an unknown entity type", "Person, Place"]),
    (
        "start is a string",
        "entities.1.start",
        "3",
        ["entities[1].start = '3'", "a string, not an integer", "write an"],
    ),
    ("start is a boolean", "entities.1.start", True, ["entities[1].start = True", "a boolean, not an integer"]),
    ("start has a fraction", "entities.1.start", 3.0, ["entities[1].start = 3.0", "a number with a fraction"]),
    ("start is not finite", "entities.1.start", float("nan"), ["entities[1].start = nan", "not finite"]),
    ("end is null", "entities.1.end", None, ["entities[1].end = None", "null, not an integer", "write an integer"]),
    ("negative start", "entities.1.start", -1, ["entities[1].start = -1: negative; count from 0"]),
    ("end = start", "entities.1.end", 3, ["entities[1].end = 3: not greater than start = 3", "write 4 for a single"]),
    ("end < start", "entities.1.end", 2, ["entities[1].end = 2: not greater than start = 3", "end is exclusive"]),
    ("past the end", "entities.1.end", 5, ["entities[1].end = 5: past the end of the 4 words; write at most 4"]),
    ("huge end", "entities.1.end", 10**5000, ["entities[1].end = <int too large to print>: past", "at most 4"]),
    ("relation is null", "relations.0", None, ["relations[0] = None", "null, not an object", "type, head, tail"]),
    ("relation without a head", "relations.0.head", DELETE, ["relations[0].head: the key is missing", "an integer"]),
    ("head is a word", "relations.0.head", "Ann", ["relations[0].head = 'Ann'", "a string, not an integer"]),
    ("head is an entity", "relations.0.head", {}, ["relations[0].head = {}", "an object, not an integer"]),
    ("negative tail", "relations.0.tail", -1, ["relations[0].tail = -1: negative; count from 0"]),
    ("tail out of range", "relations.0.tail", 2, ["relations[0].tail = 2: no such entity", "record's 2 entities"]),
    ("relation to itself", "relations.0.tail", 0, ["relations[0].tail = 0: the relation joins an entity to itself"]),
    (
        "reserved type",
        "entities.1.type",
        "none",
        ["entities[1].type = 'none': a reserved name, of spans that are no entity; give the type another name"],
    ),
    ("unknown relation", "relations.0.type", "Lives_on", ["relations[0].type = 'Lives_on'", "write 'Lives_In'"]),
    ("relation of another case", "relations.0.type", "lives_in", ["differs from 'Lives_In' by case only"]),
    ("id is a list", "orig_id", [1], ["orig_id = [1]", "a list, not a string or integer", "write a string"]),
    ("id is a boolean", "orig_id", True, ["orig_id = True", "a boolean, not a string or integer"]),
    ("id is half a character", "orig_id", "\udc00", ["orig_id = '\\udc00'", "half of a surrogate pair"]),
]


@pytest.mark.parametrize(("path", "value", "expected"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_error(path, value, expected):
    report = validate_records([GOOD, changed(path, value)], SCHEMA, "train.json")
    assert len(report.errors) == 1
    message = str(report.errors[0])
    assert message.startswith("train.json: record 1" + ("" if path == "orig_id" else " (orig_id 7)") + ": ")
    for part in expected:
        assert part in message
    assert message.isprintable()
    with pytest.raises(DataError) as caught:
        report.raise_for_errors()
    assert str(caught.value) == message


def other(path: str, value: Any) -> dict[str, Any]:
    """`changed`, of another sentence than GOOD's."""
    return {**changed(path, value), "tokens": ["Bob", "lives", "in", "Rome"]}


WARNINGS = [
    (
        "the same entity twice",
        other("entities.2", {"type": "Place", "start": 3, "end": 4}),
        "t: record 1 (orig_id 7): entities[2]: the same entity as entities[1]: scored once; leave one out",
    ),
    (
        "two types on one span",
        other("entities.2", {"type": "Person", "start": 3, "end": 4}),
        "t: record 1 (orig_id 7): entities[2]: on the same span as entities[1], with another type (Person and Place): "
        "both are trained on, relations use the first; keep one type",
    ),
    (
        "the same relation twice",
        other("relations.1", {"type": "Lives_In", "head": 0, "tail": 1}),
        "t: record 1 (orig_id 7): relations[1]: the same relation as relations[0]; leave one out",
    ),
    (
        "unknown key",
        other("lemmas", []),
        "t: record: the unknown key 'lemmas' is ignored (records with it: 1, the first: 1); leave it out",
    ),
    (
        "unknown key of an entity",
        other("entities.0.score", 0.5),
        "t: entity: the unknown key 'score' is ignored (records with it: 1, the first: 1); leave it out",
    ),
    (
        "wide entity",
        {**GOOD, "tokens": ["a"] * 11, "entities": [{"type": "Place", "start": 0, "end": 11}], "relations": []},
        "t: entities: 1 of 3 entities are wider than 10 words: they are trained on and cannot be predicted; "
        "raise the span limit to predict them",
    ),
    (
        "long sentence",
        {**GOOD, "tokens": ["a"] * 351},
        "t: tokens: 1 of 2 sentences have more than 350 words (the longest 351): encoders like BERT take 512 sub-words, "
        "and longer sentences cannot be trained on; split them",
    ),
    (
        "the same sentence twice",
        changed("entities", [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 2, "end": 4}]),
        "t: tokens: 1 of 2 sentences stand in the file before (record 1 is as record 0); keep one of each",
    ),
]


@pytest.mark.parametrize(("record", "message"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS])
def test_warning(record, message):
    report = validate_records([GOOD, record], SCHEMA, "t")
    assert not report.errors
    assert [str(warning) for warning in report.warnings] == [message]


def test_warnings_about_relations():
    both_ways = [{"type": "Married_To", "head": h, "tail": t} for h, t in ((0, 1), (1, 0))]
    report = validate_records([changed("relations", both_ways)], SCHEMA, "t")
    assert [str(warning) for warning in report.warnings] == [
        "t: record 0 (orig_id 7): relations[1]: Married_To is symmetric and relations[0] is its other direction; "
        "keep one direction"
    ]
    directed = [{"type": "Lives_In", "head": h, "tail": t} for h, t in ((0, 1), (1, 0))]
    assert not validate_records([changed("relations", directed)], SCHEMA, "t").warnings
    record = changed("entities.1", {"type": "Place", "start": 0, "end": 1})
    messages = [str(warning) for warning in validate_records([record], SCHEMA, "t").warnings]
    assert messages[1] == (
        "t: record 0 (orig_id 7): relations[0]: head and tail (0 and 1) lie on one span: such a relation cannot be "
        "predicted; leave it out"
    )


def test_records_that_are_no_list_of_records():
    def only_error(records) -> str:
        (error,) = validate_records(records, SCHEMA, "t.json").errors
        return str(error)

    assert only_error([]) == "t.json: there is no record; add one, or leave the file out"
    assert only_error({}) == "t.json: an object, not a list of records; put the records in a list"
    assert "record 0: record = 3: an integer, not an object" in only_error([3])


def test_zero_width_words_and_missing_ids_are_sound():
    record = {**changed("orig_id", DELETE), "tokens": ["\u200b", "\ufeff", "New York", "🎈"]}
    report = validate_records([record, {**record, "orig_id": None, "tokens": list("abcd")}], SCHEMA, "t")
    assert report.errors == report.warnings == ()


def test_without_schema_types_are_not_checked():
    record = changed("entities.0.type", "Anything")
    assert not validate_records([record], None, "t").errors
    assert validate_records([record], SCHEMA, "t").errors


def test_types_that_differ_by_case_are_told():
    """Where no schema refuses them."""
    entities = [
        {"type": name, "start": n, "end": n + 1} for n, name in enumerate(["City", "Town", "city", "CITY", "city"])
    ]
    relations = [{"type": name, "head": 0, "tail": 1} for name in ("in", "City", "In")]
    record = {"tokens": list("abcde"), "entities": entities, "relations": relations}
    said = [str(warning) for warning in validate_records([record], None, "t").warnings]
    assert said == [
        "t: entity.type: types that differ by case only: 'City' (1), 'city' (2), 'CITY' (1); write one of them, if they "
        "mean the same",
        "t: relation.type: types that differ by case only: 'in' (1), 'In' (1); write one of them, if they mean the same",
    ]


def test_data_without_an_entity():
    bare = [{"tokens": [word], "entities": [], "relations": []} for word in "ab"]
    (warning,) = validate_records(bare, SCHEMA, "t").warnings
    assert str(warning) == "t: entities: no record has any; annotate some, if there are any in these sentences"
    assert not validate_records([*bare, GOOD], SCHEMA, "t").warnings


def test_a_relation_type_may_be_called_none():
    assert not validate_records([changed("relations.0.type", "none")], None, "t").errors


def test_records_of_text_are_told_the_way():
    """Those of doccano, or of `aspert predict`: one error of a record, whatever their entities look like."""
    records = [{"id": n, "text": "Ann", "entities": [[0, 3, "Person"]], "Comments": []} for n in range(2)]
    report = validate_records(records, SCHEMA, "t.jsonl")
    assert [str(error) for error in report.errors] == [
        f"t.jsonl: record {n}: tokens: the key is missing: the record holds a text, and not its words; convert it: "
        "aspert convert doccano, label-studio, or aspert for what `aspert predict` wrote"
        for n in range(2)
    ]
    assert not report.warnings


def test_problems_that_are_alike_are_folded():
    """The first of those that differ in place and offset; each type is named."""
    types = [changed("entities.1.type", name) for name in ("Xyz", "Xyz", "Uvw")]
    ends = [changed("entities.0.end", 7), changed("entities.1.end", 8)]
    said = folded(validate_records([*types, *ends, changed("tokens", DELETE)], SCHEMA, "t").errors)
    assert [line.partition(": ")[2] for line in said] == [
        "record 0 (orig_id 7): entities[1].type = 'Xyz': an unknown entity type; write one of Person, Place, or add it to "
        "the types file (2 such problems, this is the first)",
        "record 2 (orig_id 7): entities[1].type = 'Uvw': an unknown entity type; write one of Person, Place, or add it to "
        "the types file",
        "record 3 (orig_id 7): entities[0].end = 7: past the end of the 4 words; write at most 4; offsets count words "
        "from 0 and end is exclusive (2 such problems, this is the first)",
        "record 5 (orig_id 7): tokens: the key is missing; add it with a list of words",
    ]


def test_every_problem_is_found_and_the_message_stays_short():
    records = [changed("entities.1.end", 5) for _ in range(1000)]
    with pytest.raises(DataError) as caught:
        validate_records(records, SCHEMA, "t").raise_for_errors()
    assert len(caught.value.problems) == 1000
    lines = str(caught.value).splitlines()
    assert lines[0] == "1000 problems:" and lines[-1] == "… and 995 more" and len(lines) == 7
    assert caught.value.problems[999].record == 999
    copied = pickle.loads(pickle.dumps(caught.value))  # builders may run in other processes
    assert str(copied) == str(caught.value)


def test_messages_are_one_printable_line():
    hostile = Problem(file="a\nb\x1b[31m", field="\ud800", value="x" * 1000, problem="p", mend="m")
    assert str(hostile) == "a\\nb\\x1b[31m: \\ud800 = '" + "x" * 58 + "…: p; m"


def test_long_unknown_types_are_checked_in_time():
    records = [changed("entities.1.type", f"{i % 10}" * 100_000) for i in range(200)]
    start = time.perf_counter()
    assert len(validate_records(records, SCHEMA, "t").errors) == 200
    assert time.perf_counter() - start < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 6) | st.floats() | st.text(max_size=3) | st.sampled_from(["Person"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from("tokens entities relations orig_id type start end head tail x".split()), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from([row[1] for row in ERRORS]), value=JSON, top=JSON)
def test_nothing_is_raised_and_every_record_without_errors_is_sound(path, value, top):
    records = [changed(path, value), top]
    report = validate_records(records, SCHEMA, "t")
    assert all(str(problem).isprintable() for problem in report.errors + report.warnings)
    wrong = {problem.record for problem in report.errors}
    for index, record in enumerate(records):
        if index not in wrong:
            assert record["tokens"] and all(isinstance(word, str) and word for word in record["tokens"])
            for entity in record["entities"]:
                assert entity["type"] in SCHEMA.entity_types
                assert 0 <= entity["start"] < entity["end"] <= len(record["tokens"])
            for relation in record["relations"]:
                assert relation["type"] in SCHEMA.relation_types
                assert relation["head"] != relation["tail"]
                assert {relation["head"], relation["tail"]} <= set(range(len(record["entities"])))


def test_the_corpora_are_sound(corpora):
    warnings = {}
    for name in ("conll04", "scierc", "ade"):
        schema = LabelSchema.from_file(corpora / name / f"{name}_types.json")
        for path in sorted((corpora / name).glob("*.json")):
            if path.stem.endswith("_types"):
                continue
            report = validate_records(read_records(path), schema, path.name)
            assert report.errors == ()
            warnings[path.stem] = [str(warning) for warning in report.warnings]
    assert len(warnings) == 4 + 3 + 21
    assert warnings["conll04_train"] == [
        "conll04_train.json: entities: 2 of 3377 entities are wider than 10 words: they are trained on and cannot be "
        "predicted; raise the span limit to predict them",
        "conll04_train.json: tokens: 24 of 922 sentences stand in the file before (record 55 is as record 15); keep one "
        "of each",
    ]
    for split, repeated in (("dev", "3 of 231"), ("test", "1 of 288")):
        (warning,) = warnings[f"conll04_{split}"]
        assert f": tokens: {repeated} sentences stand in the file before " in warning
    assert sum("the same relation" in warning for warning in warnings["scierc_train"]) == 4
    assert len(warnings["scierc_train"]) == 5 and "13 of 5598 entities" in warnings["scierc_train"][4]
    assert "5 of 10839 entities" in warnings["ade_full"][0]


def test_sentences_in_two_splits():
    """Counted in the later one, by each earlier one; within a split they may stand twice."""
    train, dev, test = (
        [{"tokens": list(words)} for words in split] for split in (["ab", "ab", "c"], ["c"], ["ab", "c", "d"])
    )
    test[1]["orig_id"] = "c7"
    said = [str(problem) for problem in shared_sentences({"train": train, "dev": dev, "test": iter(test)})]
    assert said == [
        "dev: tokens: 1 of 1 sentences stand in train, too (record 0); leave them out of one of the two",
        "test: tokens: 2 of 3 sentences stand in train, too (record 0, orig_id 'c7'); leave them out of one of the two",
        "test: tokens: 1 of 3 sentences stand in dev, too (orig_id 'c7'); leave them out of one of the two",
    ]
    assert shared_sentences({}) == shared_sentences({"train": train}) == ()


def test_sentences_that_conll04_shares(corpora):
    splits = {split: read_records(corpora / "conll04" / f"conll04_{split}.json") for split in ("train", "dev", "test")}
    found = [problem.problem for problem in shared_sentences(splits)]
    assert all(re.search(r" \(orig_id \d+, orig_id \d+, orig_id \d+(, …)?\)$", problem) for problem in found)
    said = [problem.partition(" (")[0] for problem in found]
    # docs/data.md
    assert said == [
        "12 of 231 sentences stand in train, too",
        "18 of 288 sentences stand in train, too",
        "3 of 288 sentences stand in dev, too",
    ]


def test_the_search_for_what_was_meant_is_bounded(monkeypatch):
    """20,000 types: the first unknown ones are told what they were near to, the others a few of the types."""
    searched = []
    monkeypatch.setattr(validation, "nearest", lambda name, known: searched.append(name) or known[0])
    schema = LabelSchema(tuple(f"type{number}" for number in range(20_000)))
    entities = [{"type": f"typo{number}", "start": 0, "end": 1} for number in range(300)]
    report = validate_records([{"tokens": ["a"], "entities": entities, "relations": []}], schema, "x.json")
    assert searched == ["typo0", "typo1", "typo2"]
    assert len(report.errors) == 300
    assert report.errors[2].mend == "write 'type0', or add 'typo2' to the types file"
    assert report.errors[3].mend.startswith("write one of type0, type1, type2, ")


@pytest.mark.parametrize("width", [0, -3])
def test_a_span_width_below_1_is_refused(width):
    with pytest.raises(ValueError, match=f"^max_span_width = {width} is not valid: it must be >= 1$"):
        validate_records([GOOD], SCHEMA, "x.json", width)
