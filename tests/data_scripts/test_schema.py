"""The types file: reading, writing, inferring, and what can be wrong with it."""

from __future__ import annotations

import json

import pytest

from data_scripts import DataError, LabelSchema

TYPES = {
    "entities": {"Person": {"short": "Per", "verbose": "Human being"}, "Place": {}},
    "relations": {"Lives_In": {"short": "Lives"}, "Married_To": {"verbose": "Married to", "symmetric": True}},
}


def test_from_file_and_back(tmp_path):
    (tmp_path / "types.json").write_text(json.dumps(TYPES))
    schema = LabelSchema.from_file(tmp_path / "types.json")
    assert schema == LabelSchema(
        entity_types=("Person", "Place"),
        relation_types=("Lives_In", "Married_To"),
        symmetric_relations=("Married_To",),
        descriptions={"Person": "Human being", "Married_To": "Married to"},
    )
    assert schema.describe("Person") == "Human being" and schema.describe("Place") == "Place"
    schema.to_file(tmp_path / "copy.json")
    written = json.loads((tmp_path / "copy.json").read_text())
    assert list(written["entities"]) == ["Person", "Place"]
    assert written["relations"]["Married_To"] == {"short": "Married_To", "verbose": "Married to", "symmetric": True}
    copy = LabelSchema.from_file(tmp_path / "copy.json")
    assert (copy.entity_types, copy.relation_types, copy.symmetric_relations) == (
        schema.entity_types,
        schema.relation_types,
        schema.symmetric_relations,
    )
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["copy.json", "types.json"]


def test_from_records_keeps_the_order_of_first_appearance():
    def record(entities, relations):
        return {"entities": [{"type": kind} for kind in entities], "relations": [{"type": kind} for kind in relations]}

    records = [record("ZB", "r"), record("ABZ", "qr")]
    assert LabelSchema.from_records(records) == LabelSchema(("Z", "B", "A"), ("r", "q"))
    assert LabelSchema.from_records(records, ["q"]).symmetric_relations == ("q",)
    with pytest.raises(ValueError, match=r"\['x'\], which are not among"):
        LabelSchema.from_records(records, ["x"])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"relations": []}, "entities: the key is missing; add it with [] if there are none"),
        ({"entities": []}, "relations: the key is missing; add it with [] if there are none"),
        ({"entities": None, "relations": []}, "entities = None: null, not a list; write [] if there are none"),
        ({"entities": [3], "relations": []}, "entities[0] = 3: an integer, not an object; write an object with type"),
        ({"entities": [], "relations": [{}]}, "relations[0].type: the key is missing; add the type's name"),
        (
            {"entities": [{"type": "A"}, {"type": None}], "relations": []},
            "entities[1].type = None: null, not a string; write the type's name",
        ),
        ([], "record = []: a list, not an object; write an object { }, or leave it out"),
    ],
)
def test_records_without_types(record, expected):
    with pytest.raises(DataError) as caught:
        LabelSchema.from_records([{"entities": [], "relations": []}, record])
    assert str(caught.value) == f"records: record 1: {expected}"


def test_every_record_without_types_is_named():
    with pytest.raises(DataError) as caught:
        LabelSchema.from_records([{"orig_id": 7}, {"entities": [{}], "relations": []}])
    assert [(problem.record, problem.orig_id, problem.field) for problem in caught.value.problems] == [
        (0, 7, "entities"),
        (0, 7, "relations"),
        (1, None, "entities[0].type"),
    ]


def test_add_to_file_keeps_what_is_there(tmp_path):
    path = tmp_path / "types.json"
    path.write_text(json.dumps(TYPES))
    LabelSchema(("Place", "Firm"), ("Lives_In", "Near"), ("Lives_In", "Near")).add_to_file(path)
    assert json.loads(path.read_text()) == {
        "entities": {**TYPES["entities"], "Firm": {"short": "Firm", "verbose": "Firm"}},
        "relations": {
            **TYPES["relations"],
            "Lives_In": {"short": "Lives", "symmetric": True},
            "Near": {"short": "Near", "verbose": "Near", "symmetric": True},
        },
    }
    path.write_text("{}")
    with pytest.raises(DataError, match="entities: the key is missing"):
        LabelSchema(("A",)).add_to_file(path)
    assert path.read_text() == "{}"


def test_a_string_of_types_is_refused():
    with pytest.raises(
        TypeError, match=r"entity_types = 'Person' is a string, not a tuple of types; write \('Person',"
    ):
        LabelSchema("Person")
    with pytest.raises(TypeError, match="relation_types = 'R' is a string"):
        LabelSchema(("A",), "R")


def test_types_given_twice_are_refused():
    with pytest.raises(ValueError, match="entity_types holds a type more than once"):
        LabelSchema(("A", "A"))


MALFORMED = [
    ("[]", ["types: a list, not an object", "write an object"]),
    ('{"entities": {"A": {}}}', ["relations: the key is missing", 'add "relations"']),
    ('{"relations": {}}', ["entities: the key is missing", 'add "entities"']),
    ('{"entities": {}, "relations": {}}', ["entities: there is no entity type", "add one"]),
    ('{"entities": ["A"], "relations": {}}', ["entities: a list, not an object", "write an object"]),
    ('{"entities": {"A": "x"}, "relations": {}}', ["entities.A: a string, not an object", "write an object"]),
    ('{"entities": {"A": {}}, "relations": {}, "events": {}}', ["events: an unknown key", "leave it out"]),
    ('{"entities": {"": {}}, "relations": {}}', ["entities.: an empty name", "write the type's name"]),
    ('{"entities": {"A\\n": {}}, "relations": {}}', ["entities.A\\n: a name with characters", "leave them out"]),
    ('{"entities": {"none": {}}, "relations": {"none": {}}}', ["entities.none: a reserved name", "another name"]),
    ('{"entities": {"A": {}, "A": {}}, "relations": {}}', ["entities.A: the key is given more than once", "keep one"]),
    ('{"entities": {"A": {"symmetric": true}}, "relations": {}}', ["entities.A.symmetric: an unknown key", "verbose"]),
    (
        '{"entities": {"A": {}}, "relations": {"R": {"symetric": true}}}',
        ["relations.R.symetric", "short, verbose, sy"],
    ),
    ('{"entities": {"A": {}}, "relations": {"R": {"symmetric": 1}}}', ["relations.R.symmetric", "not a boolean"]),
    ('{"entities": {"A": {"verbose": null}}, "relations": {}}', ["entities.A.verbose: null, not a string"]),
    ('{"entities": {"A": {"verbose": "x"}}, "relations": {"A": {}}}', ["relations.A.verbose", "the same text"]),
    ('{"entities": {"A": {}}, "relations": {}} x', ["line 1, column 42", "more text after the end", "correct the"]),
    ("", ["the file is empty"]),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_malformed_types_file(tmp_path, text, expected):
    path = tmp_path / "types.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        LabelSchema.from_file(path)
    assert len(caught.value.problems) == 1
    for part in [f"{path}: ", *expected]:
        assert part in str(caught.value)


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "types.json"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\): '.*/types.json'"):
        LabelSchema(("A",)).to_file(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="cannot be written .*none/types.json"):
        LabelSchema(("A",)).to_file(tmp_path / "none" / "types.json")
    with pytest.raises(OSError, match="cannot be written .*types.json/types.json"):
        LabelSchema(("A",)).to_file(path / "types.json")
