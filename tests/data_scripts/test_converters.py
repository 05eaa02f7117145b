"""Converters: the originals of SciERC and ADE give SpERT's files; small samples for the other formats."""

from __future__ import annotations

import json
import re
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_scripts import DataError, LabelSchema, convert, load_schema, read_records, validate_records
from data_scripts.converters.annotated_text import AnnotatedText, BrowserOffsets, Entity
from data_scripts.converters.conversion import split_words, word_span


def problems(source_format, path, tmp_path) -> list[str]:
    """Convert, which must fail and write nothing; return the messages without the folder's name."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError) as caught:
        convert(source_format, path, tmp_path / "out.json", tmp_path / "types.json")
    assert sorted(tmp_path.iterdir()) == before
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


# Words


@given(st.text(max_size=30), st.data())
def test_words_hold_every_character_and_no_word_crosses_a_boundary(text, data):
    boundaries = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    words = split_words(text, boundaries)
    assert "".join(text[start:end] for start, end in words) == "".join(text.split())
    assert all(start < end for start, end in words)
    assert all(left[1] <= right[0] for left, right in zip(words, words[1:], strict=False))
    assert not any(start < cut < end for start, end in words for cut in boundaries)


def test_words():
    text = "Dr. O'Neil-x (1,5%)"
    assert [text[start:end] for start, end in split_words(text)] == "Dr . O ' Neil - x ( 1 , 5 % )".split()
    assert [text[start:end] for start, end in split_words(text, [8])][:6] == "Dr . O ' Ne il".split()
    assert word_span([(0, 2), (3, 5), (5, 6)], 3, 6) == (1, 3)


# DyGIE


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_dygie_gives_the_files_of_scierc(corpora, tmp_path, split):
    """All but orig_id: SpERT's are random UUIDs, ours name the document and the sentence."""
    conversion = convert("dygie", corpora / "scierc" / "original" / f"{split}.json", tmp_path / "x.json")
    expected = read_records(corpora / "scierc" / f"scierc_{split}.json")
    written = read_records(tmp_path / "x.json")
    assert [{**record, "orig_id": None} for record in written] == [{**record, "orig_id": None} for record in expected]
    assert len({record["orig_id"] for record in written}) == len(written)
    schema = load_schema("scierc", data_dir=corpora)
    assert set(conversion.schema.relation_types) == set(schema.relation_types)
    assert set(conversion.schema.symmetric_relations) == set(schema.symmetric_relations)
    assert "clusters: given for" in str(conversion.warnings[0])


DYGIE = {
    "doc_key": "d",
    "sentences": [["a", "-LRB-"], ["b", "c", "d"]],
    "ner": [[], [[2, 3, "A"], [2, 3, "B"], [4, 4, "A"]]],
    "relations": [[], [[2, 3, 4, 4, "USED-FOR"], [4, 4, 2, 3, "PHYS"]]],
}


def test_dygie(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(DYGIE) + "\n\n" + json.dumps({**DYGIE, "doc_key": "e_f"}) + "\n")
    convert("dygie", tmp_path / "in.json", tmp_path / "out.jsonl", tmp_path / "types.json", ["PHYS"])
    assert read_records(tmp_path / "out.jsonl")[1:3] == [
        {
            "tokens": ["b", "c", "d"],
            "entities": [
                {"type": "A", "start": 0, "end": 2},
                {"type": "B", "start": 0, "end": 2},
                {"type": "A", "start": 2, "end": 3},
            ],
            "relations": [{"type": "Used-for", "head": 0, "tail": 2}, {"type": "PHYS", "head": 2, "tail": 0}],
            "orig_id": "d_1",
        },
        {"tokens": ["a", "("], "entities": [], "relations": [], "orig_id": "e_f_0"},
    ]
    assert LabelSchema.from_file(tmp_path / "types.json") == LabelSchema(
        ("A", "B"), ("Used-for", "PHYS"), ("PHYS",), {name: name for name in ("A", "B", "Used-for", "PHYS")}
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"doc_key": None}, "doc_key = None: not a string; give the document a name"),
        ({"ner": None}, "ner = None: not a list of one list a sentence; write [] for"),
        ({"ner": [[]]}, "sentences, ner, relations = (2, 1, 2): differ in length; give each one item"),
        ({"ner": [[], [[2, "A"]]], "relations": [[], []]}, "ner[1][0] = [2, 'A']: not [first word, last word, type]"),
        ({"ner": [[[1, 2, "A"]], []], "relations": [[], []]}, "ner[0][0] = [1, 2, 'A']: not within its sentence"),
        ({"relations": [[], [[2, 2, 4, 4, "R"]]]}, "relations[1][0] = [2, 2, 4, 4, 'R']: joins a span that is no"),
        ({"relations": [[], [[2, 3, 4, "R"]]]}, "relations[1][0] = [2, 3, 4, 'R']: not [first word, last word, fi"),
    ],
)
def test_bad_dygie(tmp_path, change, expected):
    document = {**DYGIE, **change}
    (tmp_path / "in.jsonl").write_text(json.dumps({**DYGIE, "doc_key": "x"}) + "\n" + json.dumps(document))
    (message,) = problems("dygie", tmp_path / "in.jsonl", tmp_path)
    place = "in.jsonl: record 1: " if document["doc_key"] is None else "in.jsonl: record 1 (orig_id 'd'): "
    assert message.startswith(place + expected)


# DRUG-AE


def in_characters(record) -> tuple[str, list, list]:
    """Return text, entities and relations of a record, counting characters without white space.

    SpERT's files have spaCy's words, ours those of a regular expression: "calcium-release" is one word or three. What
    both must agree on is the text and where in it the entities lie.
    """
    ends = [0]
    for word in record["tokens"]:
        ends.append(ends[-1] + len(word))
    entities = [(e["type"], ends[e["start"]], ends[e["end"]]) for e in record["entities"]]
    relations = [(r["type"], entities[r["head"]], entities[r["tail"]]) for r in record["relations"]]
    return "".join(record["tokens"]), entities, relations


def test_drug_ae_gives_the_file_of_ade(corpora, tmp_path):
    """Sentences, entities, relations and orig_ids, all in the same order; hence also the (drug, effect) triples."""
    conversion = convert("drug-ae", corpora / "ade" / "original" / "DRUG-AE.rel", tmp_path / "x.json")
    written, expected = read_records(tmp_path / "x.json"), read_records(corpora / "ade" / "ade_full.json")
    assert list(map(in_characters, written)) == list(map(in_characters, expected))
    assert [record["orig_id"] for record in written] == [record["orig_id"] for record in expected]
    assert sum(len(record["relations"]) for record in written) == 6821
    # the wide ones, and the sentence that stands in two folds
    assert [str(warning).split(": ")[1] for warning in conversion.warnings] == ["entities", "tokens"]
    assert conversion.schema.entity_types == load_schema("ade", data_dir=corpora).entity_types


def test_drug_ae(tmp_path):
    (tmp_path / "in.rel").write_text(
        "1|Aspirin-induced rash and itch.| rash|115|120|Aspirin|100|107\r\n"
        "1|Aspirin-induced rash and itch.|itch|125|129|Aspirin|100|107\r\n"
        "2|Rash, rash after X.|rash|6|10|X|17|18\r\n"
    )
    conversion = convert("drug-ae", tmp_path / "in.rel", tmp_path / "out.json")
    assert (
        read_records(tmp_path / "out.json")
        == conversion.records
        == [
            {
                "tokens": ["Aspirin", "-", "induced", "rash", "and", "itch", "."],
                "entities": [
                    {"type": "Adverse-Effect", "start": 3, "end": 4},
                    {"type": "Drug", "start": 0, "end": 1},
                    {"type": "Adverse-Effect", "start": 5, "end": 6},
                ],
                "relations": [
                    {"type": "Adverse-Effect", "head": 0, "tail": 1},
                    {"type": "Adverse-Effect", "head": 2, "tail": 1},
                ],
                "orig_id": 0,
            },
            {
                "tokens": ["Rash", ",", "rash", "after", "X", "."],
                "entities": [{"type": "Adverse-Effect", "start": 2, "end": 3}, {"type": "Drug", "start": 4, "end": 5}],
                "relations": [{"type": "Adverse-Effect", "head": 0, "tail": 1}],
                "orig_id": 1,
            },
        ]
    )
    assert conversion.warnings == []


def test_drug_ae_that_leaves_a_choice(tmp_path):
    (tmp_path / "in.rel").write_text("1|rash X rash X|rash|10|14|X|15|16")
    conversion = convert("drug-ae", tmp_path / "in.rel", tmp_path / "out.json")
    assert conversion.records[0]["entities"][0]["start"] == 2
    assert str(conversion.warnings[0]).endswith(
        "line 1 = 'rash X rash X': the offsets leave 2 ways to find the effect and the drug; the last one was taken; "
        "check the record"
    )


def test_bad_drug_ae(tmp_path):
    lines = [
        "1|A rash after X.|rash|2|6|X|13|14",
        "1|A rash after X.|rash|2|6|X|13",
        "1|A rash after X.|rash|a|6|X|13|14",
        "1|A rash after X.|rash|2|7|X|13|14",
        "2|A rash after X.|rash|2|6|X|12|13",
    ]
    (tmp_path / "in.rel").write_text("\n".join(lines))
    found = problems("drug-ae", tmp_path / "in.rel", tmp_path)
    assert [message.split(": ", 2)[::2] for message in found[:1]] == [
        ["in.rel", "7 columns, not 8; write ID|SENTENCE|EFFECT|START|END|DRUG|START|END"]
    ]
    assert "line 3 = " in found[1] and "the offsets 'a' and '6' are not both integers" in found[1]
    assert "line 4 = " in found[2] and "2 and 7 do not fit 'rash' with its 4 characters" in found[2]
    assert "line 5 = " in found[3] and "agree with no place of the sentence" in found[3]


# brat

TEXT = "Ann lives in New York.\n\nBob, Ann's brother,\nmoved.\n"
ANNOTATIONS = """\
T1\tPerson 0 3\tAnn
T2\tPlace 13 21\tNew York
T3\tPerson 24 27\tBob
T4\tPerson 29 32\tAnn
T5\tFamily 29 42\tAnn's brother
T6\tPlace 13 16;17 21\tNew York
T7\tPhrase 35 49\tbrother, moved
R1\tLives_In Arg1:T1 Arg2:T2
R2\tSiblings Arg1:T3 Arg2:T4\t
R3\tSame Arg1:T1 Arg2:T4
R4\tLives_In Arg1:T3 Arg2:T6
E1\tMove:T3 Who:T4
A1\tCertain R1
#1\tAnnotatorNotes T1\ta note
*\tEquiv T1 T4
"""


def write_brat(folder, name, annotations=ANNOTATIONS, text=TEXT):
    (folder / f"{name}.txt").write_text(text, newline="")
    (folder / f"{name}.ann").write_text(annotations)


def test_brat(tmp_path):
    (tmp_path / "in").mkdir()
    write_brat(tmp_path / "in", "doc")
    write_brat(tmp_path / "in", "windows", "T1\tPlace 6 10\tRome\n", "One.\r\nRome\r\n")
    conversion = convert("brat", tmp_path / "in", tmp_path / "out.json", tmp_path / "types.json", ["Siblings"])
    assert read_records(tmp_path / "out.json") == [
        {
            "tokens": ["Ann", "lives", "in", "New", "York", "."],
            "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 3, "end": 5}],
            "relations": [{"type": "Lives_In", "head": 0, "tail": 1}],
            "orig_id": "doc_0",
        },
        {
            "tokens": ["Bob", ",", "Ann", "'", "s", "brother", ","],
            "entities": [
                {"type": "Person", "start": 0, "end": 1},
                {"type": "Person", "start": 2, "end": 3},
                {"type": "Family", "start": 2, "end": 6},
            ],
            "relations": [{"type": "Siblings", "head": 0, "tail": 1}],
            "orig_id": "doc_2",
        },
        {"tokens": ["moved", "."], "entities": [], "relations": [], "orig_id": "doc_3"},
        {"tokens": ["One", "."], "entities": [], "relations": [], "orig_id": "windows_0"},
        {
            "tokens": ["Rome"],
            "entities": [{"type": "Place", "start": 0, "end": 1}],
            "relations": [],
            "orig_id": "windows_1",
        },
    ]
    mend = "; records have no place for them"
    assert [str(warning) for warning in conversion.warnings] == [
        f"{tmp_path}/in: {text}{mend}"
        for text in (
            "left out 1 discontinuous entities ('doc T6')",
            "left out 1 events ('doc E1')",
            "left out 1 attributes ('doc A1')",
            "left out 1 notes ('doc #1')",
            "left out 1 sets ('doc *')",
            "left out 1 entities across lines ('doc T7')",
            "left out 1 relations across lines ('doc R3')",
            "left out 1 relations with an argument that was left out ('doc R4')",
        )
    ]
    assert LabelSchema.from_file(tmp_path / "types.json").symmetric_relations == ("Siblings",)


def test_brat_entities_that_cut_a_word_are_counted(tmp_path):
    """Offsets that are off by one are no error where the .ann repeats the text that they name."""
    write_brat(tmp_path, "doc", "T1\tFood 2 9\t saffro\nT2\tFood 0 2\tof\nT3\tFood 16 19\tilk", "of saffron and milk")
    conversion = convert("brat", tmp_path / "doc.txt", tmp_path / "out.json")
    assert [str(warning) for warning in conversion.warnings] == [
        f"{tmp_path}/doc.txt: 2 of 3 entities begin or end within a word, or with white space, as do entities whose "
        f"offsets are wrong (the first: {tmp_path}/doc.ann T1 '| saffro|n'); check the offsets: they count characters "
        "(not bytes) of the text from 0, the end is exclusive"
    ]
    write_brat(tmp_path, "doc", "T1\tFood 16 19\tilk\nT2\tFood 3 11\tsaffron ", "of saffron and milk")
    said = [str(warning) for warning in convert("brat", tmp_path / "doc.txt", tmp_path / "out.json").warnings]
    assert len(said) == 1 and "2 of 2 entities" in said[0] and "T1 'm|ilk|'" in said[0]
    # a hyphen, an apostrophe and the ends of the text part words
    write_brat(tmp_path, "doc", "T1\tFood 0 7\tsaffron\nT2\tFood 8 12\tmilk", "saffron-milk")
    assert not convert("brat", tmp_path / "doc.txt", tmp_path / "out.json").warnings


def test_brat_documents_without_an_annotation_are_counted(tmp_path):
    (tmp_path / "in").mkdir()
    write_brat(tmp_path / "in", "done", "T1\tPlace 0 4\tRome\n", "Rome\nParis\n")
    write_brat(tmp_path / "in", "todo", "", "One\n\nTwo\n")
    write_brat(tmp_path / "in", "more", "\n", "Three\n")
    conversion = convert("brat", tmp_path / "in", tmp_path / "out.json")
    assert [str(warning) for warning in conversion.warnings] == [
        f"{tmp_path}/in: 2 of 3 texts have no annotation, such as more, todo: their 3 sentences are converted as "
        "sentences without entities; leave out the texts that were not annotated"
    ]


def test_brat_folders_in_folders(tmp_path):
    for folder in ("in", "in/more", "in/.cache"):
        (tmp_path / folder).mkdir()
        write_brat(tmp_path / folder, "doc", "T1\tPlace 0 4\tRome\n", "Rome")
    write_brat(tmp_path / "in", "._doc", "", "hidden")
    conversion = convert("brat", tmp_path / "in", tmp_path / "out.json")
    assert [record["orig_id"] for record in conversion.records] == ["doc_0", "more/doc_0"]
    with pytest.raises(ValueError, match="would be overwritten"):
        convert("brat", tmp_path / "in", tmp_path / "out.json", tmp_path / "in" / "more" / "doc.txt")


def test_a_types_file_grows(tmp_path):
    types = tmp_path / "types.json"
    write_brat(tmp_path, "doc")
    first = convert("brat", tmp_path / "doc.txt", tmp_path / "train.json", types, ["Siblings"]).schema
    write_brat(tmp_path, "other", "T1\tCity 6 10\tRome\nT2\tPerson 0 3\tAnn\n", "Ann   Rome\n")
    grown = convert("brat", tmp_path / "other.txt", tmp_path / "dev.json", types).schema
    assert LabelSchema.from_file(types).entity_types == grown.entity_types == (*first.entity_types, "City")
    assert grown.relation_types == first.relation_types and grown.symmetric_relations == ("Siblings",)
    types.write_text("[]")
    with pytest.raises(DataError):
        convert("brat", tmp_path / "doc.txt", tmp_path / "x.json", types)
    assert not (tmp_path / "x.json").exists()


def test_a_types_file_keeps_its_entries(tmp_path):
    types = tmp_path / "types.json"
    person = {"short": "Per", "verbose": "Human being"}
    old = {"entities": {"Person": person, "Family": {}, "Place": {}}, "relations": {"Siblings": {"short": "Sib"}}}
    types.write_text(json.dumps({**old, "relations": {**old["relations"], "Lives_In": {}}}))
    before = types.read_text()
    write_brat(tmp_path, "doc")
    convert("brat", tmp_path / "doc.txt", tmp_path / "out.json", types)
    assert types.read_text() == before  # nothing is new
    types.write_text(json.dumps(old))
    convert("brat", tmp_path / "doc.txt", tmp_path / "out.json", types)
    lives_in = {"short": "Lives_In", "verbose": "Lives_In", "symmetric": False}
    assert json.loads(types.read_text()) == {**old, "relations": {**old["relations"], "Lives_In": lives_in}}
    convert("brat", tmp_path / "doc.txt", tmp_path / "out.json", types, ["Siblings"])
    siblings = {"short": "Sib", "symmetric": True}
    assert json.loads(types.read_text()) == {**old, "relations": {"Siblings": siblings, "Lives_In": lives_in}}


@pytest.mark.parametrize("old", [None, '{"entities": {"Person": {}}, "relations": {}}'])
def test_without_the_records_the_types_are_not_written(tmp_path, old):
    types = tmp_path / "types.json"
    if old:
        types.write_text(old)
    write_brat(tmp_path, "doc")
    with pytest.raises(OSError, match="cannot be written .*doc.ann/out.json"):
        convert("brat", tmp_path / "doc.txt", tmp_path / "doc.ann" / "out.json", types)
    assert (types.read_text() if types.exists() else None) == old


@pytest.mark.parametrize("suffix", [".txt", ".ann"])
def test_brat_pair(tmp_path, suffix):
    write_brat(tmp_path, "doc")
    assert len(convert("brat", tmp_path / f"doc{suffix}", tmp_path / "out.json").records) == 3


def test_brat_suffixes_in_capitals(tmp_path):
    (tmp_path / "in").mkdir()
    for name, text, notes in (("ONE", ".TXT", ".ANN"), ("Two", ".TXT", ".ann"), ("three", ".txt", ".ANN")):
        (tmp_path / "in" / (name + text)).write_text("Rome")
        (tmp_path / "in" / (name + notes)).write_text("T1\tPlace 0 4\tRome\n")
    conversion = convert("brat", tmp_path / "in", tmp_path / "out.json")
    assert [record["orig_id"] for record in conversion.records] == ["ONE_0", "Two_0", "three_0"]
    assert [len(record["entities"]) for record in conversion.records] == [1, 1, 1]
    for name in ("ONE.TXT", "ONE.ANN", "Two.TXT", "Two.ann", "three.txt", "three.ANN"):
        (record,) = convert("brat", tmp_path / "in" / name, tmp_path / "out.json").records
        assert record["orig_id"] == f"{name.partition('.')[0]}_0" and len(record["entities"]) == 1
    for output in (tmp_path / "in" / "ONE.ANN", tmp_path / "in" / "Two.ann"):
        with pytest.raises(ValueError, match="would be overwritten"):
            convert("brat", output.with_suffix(".TXT"), tmp_path / "out.json", output)
    (tmp_path / "in" / "FOUR.TXT").touch()
    (found,) = problems("brat", tmp_path / "in", tmp_path)
    assert found == "in/FOUR.ANN: does not exist; check the path"


@pytest.mark.parametrize(
    ("relation", "head", "tail"),
    [
        ("Lives_In Arg1:T1 Arg2:T2", 0, 1),
        ("Lives_In Arg2:T2 Arg1:T1", 0, 1),
        ("Lives_In Place:T2 Person:T1", 1, 0),
        ("Lives_In Arg2:T2 Person:T1", 1, 0),
    ],
)
def test_brat_roles(tmp_path, relation, head, tail):
    write_brat(tmp_path, "doc", f"T1\tPerson 0 3\tAnn\nT2\tPlace 13 21\tNew York\nR1\t{relation}\n")
    records = convert("brat", tmp_path / "doc.txt", tmp_path / "out.json").records
    assert records[0]["relations"] == [{"type": "Lives_In", "head": head, "tail": tail}]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ("T1\tPerson 0 4\tAnn", "line 1 = 'Person 0 4': the text has 'Ann ' there, not 'Ann'; count characters"),
        ("T1\tPerson 0 99999\tAnn", "line 1 = 'Person 0 99999': the text has"),
        (
            "T1\tPerson 44 99",
            "line 1 = 'Person 44 99': past the end of the 51 characters of the text; count characters",
        ),
        ("T1\tPerson 3 3\t", "line 1 = 'Person 3 3': no word lies between these characters"),
        ("T1\tPerson zero 3\tAnn", "line 1 = 'Person zero 3': no entity; write TYPE START END"),
        ("T1\tPerson 0 3\tAnn\nT1\tPlace 13 21\tNew York", "line 2 = 'T1\\tPlace 13 21\\tNew York': the ID is given"),
        ("\nR1\tLives_In Arg1:T1 Arg2:T2", "line 2 = 'Lives_In Arg1:T1 Arg2:T2': there is no annotation T1"),
        ("R1\tLives_In T1 T2", "line 1 = 'Lives_In T1 T2': no binary relation; write TYPE Arg1:ID Arg2:ID"),
        ("what is this", "line 1 = 'what is this': an unknown kind of line; write ID, tab, annotation"),
    ],
)
def test_bad_brat(tmp_path, annotations, expected):
    write_brat(tmp_path, "doc", annotations)
    assert problems("brat", tmp_path / "doc.txt", tmp_path)[0].startswith(f"doc.ann: {expected}")


def test_brat_files_that_are_missing(tmp_path):
    assert problems("brat", tmp_path, tmp_path) == [
        f"{tmp_path}: holds no .txt and .ann files; name the folder that does"
    ]
    (tmp_path / "a.ann").touch()
    (tmp_path / "b.txt").touch()
    assert problems("brat", tmp_path, tmp_path) == [
        "a.txt: does not exist; check the path",
        "b.ann: does not exist; check the path",
    ]


# Texts with offsets, in JSON

CONTENT = "Ann lives in Rome. Bob moved to Oslo.\nCarla stayed."
DOCCANO = {
    "id": 7,
    "text": CONTENT,
    "entities": [
        {"id": 30, "label": "Person", "start_offset": 0, "end_offset": 3},
        {"id": 12, "label": "Place", "start_offset": 13, "end_offset": 17},
        {"id": 5, "label": "Person", "start_offset": 19, "end_offset": 22},
        {"id": 6, "label": "Person", "start_offset": 38, "end_offset": 43},
    ],
    "relations": [
        {"id": 1, "from_id": 30, "to_id": 12, "type": "Lives_In"},
        {"id": 2, "from_id": 30, "to_id": 5, "type": "Knows"},
        {"id": 3, "from_id": 5, "to_id": 6, "type": "Knows"},
    ],
    "Comments": [],
}
PREDICTED = {
    "id": "a",
    "text": CONTENT,
    "entities": [
        {"id": 0, "type": "Person", "text": "Ann", "start": 0, "end": 3, "score": 0.9},
        {"id": 1, "type": "Place", "text": "Rome", "start": 13, "end": 17, "score": 0.8},
    ],
    "relations": [{"type": "Lives_In", "head": 0, "tail": 1, "score": 0.7}],
}


def task(*results, text=CONTENT, **more):
    return {"id": 3, "data": {"text": text}, "annotations": [{"result": list(results)}], **more}


def label(identifier, start, end, *labels, said=None, text=CONTENT):
    value = {"start": start, "end": end, "text": text[start:end] if said is None else said, "labels": list(labels)}
    return {"id": identifier, "type": "labels", "value": value, "from_name": "label", "to_name": "text"}


def relation(head, tail, *labels, direction="right"):
    return {"type": "relation", "from_id": head, "to_id": tail, "direction": direction, "labels": list(labels)}


LABEL_STUDIO = task(label("x", 0, 3, "Person"), label("y", 13, 17, "Place"), relation("x", "y", "Lives_In"))


def lines(tmp_path, *records):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def mentions(record) -> list[str]:
    return [f"{one['type']} {' '.join(record['tokens'][one['start'] : one['end']])}" for one in record["entities"]]


def test_doccano(tmp_path):
    conversion = convert("doccano", lines(tmp_path, DOCCANO), tmp_path / "out.json")
    first, second = conversion.records
    assert first["tokens"] == "Ann lives in Rome . Bob moved to Oslo .".split() and first["orig_id"] == "7_0"
    assert mentions(first) == ["Person Ann", "Place Rome", "Person Bob"]
    assert first["relations"] == [
        {"type": "Lives_In", "head": 0, "tail": 1},
        {"type": "Knows", "head": 0, "tail": 2},
    ]
    assert mentions(second) == ["Person Carla"] and second["orig_id"] == "7_1"
    assert [str(warning) for warning in conversion.warnings] == [
        f"{tmp_path}/in.jsonl: left out 1 relations across lines ('7 relations[2]'); records have no place for them"
    ]
    assert conversion.schema == LabelSchema(("Person", "Place"), ("Lives_In", "Knows"))


def test_doccano_of_other_versions(tmp_path):
    """Sequence labeling without relations; and before 1.7, where the text is called data."""
    spans = {"id": 1, "text": "Ann sings.", "label": [[0, 3, "Person"]]}
    old = {"id": 2, "data": "Ann sleeps.", "label": {key: [] for key in ("entities", "relations")}}
    old["label"]["entities"] = [{"id": 0, "label": "Person", "start_offset": 0, "end_offset": 3}]
    conversion = convert("doccano", lines(tmp_path, spans, old), tmp_path / "out.json")
    assert [mentions(record) for record in conversion.records] == [["Person Ann"]] * 2 and not conversion.warnings


def test_doccano_of_intent_detection(tmp_path):
    example = {"id": 1, "text": "Ann sings.", "cats": ["music"], "entities": [[0, 3, "Person"]], "Comments": []}
    (record,) = convert("doccano", lines(tmp_path, example), tmp_path / "out.json").records
    assert mentions(record) == ["Person Ann"]


@pytest.mark.parametrize(("width", "counted"), [(2, "twice"), (1, "once")])
def test_doccano_with_an_emoji(tmp_path, width, counted):
    """doccano counts as a browser does, its early versions and scripts count characters."""
    wide = {"id": 1, "text": "💩 Ann lives in Rome.", "label": [[width + 1, width + 4, "Person"]]}
    wide["label"].append([width + 14, width + 18, "Place"])
    path = lines(tmp_path, {"id": 0, "text": "Bob sings 💩", "label": [[0, 3, "Person"]]}, wide)
    conversion = convert("doccano", path, tmp_path / "out.json")
    assert [mentions(record) for record in conversion.records] == [["Person Bob"], ["Person Ann", "Place Rome"]]
    assert [str(warning) for warning in conversion.warnings] == [
        f"{path}: 1 of 2 texts have entities behind an emoji or the like (the first: 1): offsets are taken to count it "
        f"{counted}; check their entities"
    ]


def test_predictions_that_were_corrected(tmp_path):
    """What `aspert predict` writes is training data again."""
    conversion = convert("aspert", lines(tmp_path, PREDICTED), tmp_path / "out.json")
    first, second = conversion.records
    assert mentions(first) == ["Person Ann", "Place Rome"] and first["orig_id"] == "a_0"
    assert first["relations"] == [{"type": "Lives_In", "head": 0, "tail": 1}]
    assert second == {"tokens": ["Carla", "stayed", "."], "entities": [], "relations": [], "orig_id": "a_1"}


def test_label_studio(tmp_path):
    conversion = convert("label-studio", lines(tmp_path, LABEL_STUDIO), tmp_path / "out.json")
    assert mentions(conversion.records[0]) == ["Person Ann", "Place Rome"]
    assert conversion.records[0]["relations"] == [{"type": "Lives_In", "head": 0, "tail": 1}]
    assert conversion.records[0]["orig_id"] == "3_0" and not conversion.warnings


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("right", [(0, 1)]), ("left", [(1, 0)]), ("bi", [(0, 1), (1, 0)]), (None, [(0, 1)])],
)
def test_label_studio_directions(tmp_path, direction, expected):
    example = task(
        label("x", 0, 3, "Person"), label("y", 13, 17, "Place"), relation("x", "y", "R", direction=direction)
    )
    record = convert("label-studio", lines(tmp_path, example), tmp_path / "out.json").records[0]
    assert [(one["head"], one["tail"]) for one in record["relations"]] == expected


def test_label_studio_leaves_out_and_says_so(tmp_path):
    annotated = task(
        label("x", 0, 3, "Person", "Author"),
        label("y", 13, 17, "Place"),
        {"id": "z", "type": "hypertextlabels", "value": {"hypertextlabels": ["Place"]}},
        {"id": "c", "type": "choices", "value": {"choices": ["good"]}},
        relation("x", "y"),
        relation("x", "z", "Near"),
        relation("x", "y", "Lives_In"),
    )
    cancelled = {"id": 4, "data": {"text": "x"}, "annotations": [{"was_cancelled": True, "result": []}]}
    twice = task(label("x", 0, 3, "Person"), id=5)
    twice["annotations"].append({"ground_truth": True, "result": [label("x", 38, 43, "Person")]})
    path = lines(tmp_path, annotated, cancelled, {"id": 6, "data": {"text": "x"}, "annotations": []}, twice)
    conversion = convert("label-studio", path, tmp_path / "out.json")
    assert mentions(conversion.records[0]) == ["Person Ann", "Author Ann", "Place Rome"]
    assert conversion.records[0]["relations"] == [{"type": "Lives_In", "head": 0, "tail": 2}]
    assert [mentions(record) for record in conversion.records[2:]] == [[], ["Person Carla"]]
    said = [str(warning).replace(f"{path}: ", "") for warning in conversion.warnings]
    assert said[:6] == [
        "2 of 4 tasks were not annotated and are left out (the first: 4, 6); annotate them, or go on without",
        "1 of 4 tasks were annotated more than once (the first: 5): the ground truth is taken, or the first annotation; "
        "mark the right one as ground truth",
        "left out 1 results of the type hypertextlabels; records have no place for them",
        "left out 1 results of the type choices; records have no place for them",
        "left out 1 relations without a label; records have no place for them",
        "left out 1 relations with an argument that was left out ('3 annotations[0].result[5]'); records have no place for "
        "them",
    ]
    assert sum("(Author and Person): both are trained on" in one for one in said) == 1


@given(st.text(st.sampled_from("a b\n😀é𝒳"), max_size=12))
def test_offsets_in_units_of_a_browser(text):
    """An emoji counts twice there, and nothing begins or ends within it."""
    counted = BrowserOffsets(text)
    borders = {len(text[:place].encode("utf-16-le")) // 2: place for place in range(len(text) + 1)}
    for offset in range(max(borders) + 1):
        assert counted.characters(offset) == borders.get(offset, -1)
    assert counted.characters("1") == "1" and counted.characters(True) is True


def test_label_studio_with_an_emoji(tmp_path):
    text = "💩 Ann lives in Rome."
    example = task(label("x", 3, 6, "Person", said="Ann"), label("y", 16, 20, "Place", said="Rome"), text=text)
    conversion = convert("label-studio", lines(tmp_path, example), tmp_path / "out.json")
    assert mentions(conversion.records[0]) == ["Person Ann", "Place Rome"] and not conversion.warnings


def test_label_studio_with_emojis_that_leave_a_choice(tmp_path):
    """By characters the first label would fit, too: the letter is there twice."""
    example = task(label("x", 5, 6, "P", said="a"), label("y", 9, 10, "Q", said="b"), text="😀😀 a a b")
    (record,) = convert("label-studio", lines(tmp_path, example), tmp_path / "out.json").records
    assert [(one["type"], one["start"]) for one in record["entities"]] == [("P", 2), ("Q", 4)]


@pytest.mark.parametrize(
    ("text", "said"), [("New\nYork.", r"New\nYork"), ("New\r\nYork.", r"New\n\nYork"), ("New \xa0York.", "New York")]
)
def test_label_studio_gives_white_space_of_its_own(tmp_path, text, said):
    """A browser's selection, with a backslash and an n for a line break."""
    path = lines(tmp_path, task(label("x", 0, len(text) - 1, "Place", said=said), text=text))
    (record,) = convert("label-studio", path, tmp_path / "out.json", split_sentences=by_full_stops).records
    assert mentions(record) == ["Place New York"]


def test_label_studio_regions_with_several_results(tmp_path):
    """Of another <Labels> tag, or of choices for each region: all of them have the region's ID."""
    choice = {"id": "x", "type": "choices", "value": {"start": 0, "end": 3, "text": ["Ann"], "choices": ["good"]}}
    results = [label("x", 0, 3, "Person"), choice, label("x", 0, 3, "Author"), label("y", 13, 17, "Place")]
    path = lines(tmp_path, task(*results, relation("x", "y", "Lives_In", direction=["right"])))
    conversion = convert("label-studio", path, tmp_path / "out.json")
    assert mentions(conversion.records[0]) == ["Person Ann", "Author Ann", "Place Rome"]
    assert conversion.records[0]["relations"] == [{"type": "Lives_In", "head": 0, "tail": 2}]
    assert "left out 1 results of the type choices" in str(conversion.warnings[0])
    assert "relations" not in "".join(map(str, conversion.warnings[:1]))


def test_label_studio_without_annotations(tmp_path):
    path = lines(tmp_path, {"id": 1, "data": {"text": "x"}, "annotations": [], "predictions": [{"result": []}]})
    assert problems("label-studio", path, tmp_path) == ["in.jsonl: no task was annotated; annotate some"]


def test_exports_in_a_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("all.jsonl", json.dumps(DOCCANO))
    for source_format in ("doccano", "label-studio", "aspert"):
        found = problems(source_format, tmp_path / "in.zip", tmp_path)
        assert found == ["in.zip: a zip archive; unpack it, and name the file in it"]


def test_texts_without_an_id_are_numbered(tmp_path):
    for source_format, record in (("aspert", PREDICTED), ("doccano", DOCCANO), ("label-studio", LABEL_STUDIO)):
        path = lines(tmp_path, {**record, "id": None}, {**record, "id": None})
        records = convert(source_format, path, tmp_path / "out.json").records
        assert [one["orig_id"] for one in records] == ["0_0", "0_1", "1_0", "1_1"]


def changed(record, path, value):
    record = json.loads(json.dumps(record))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    target = record
    for step in parents:
        target = target[step]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return record


@pytest.mark.parametrize(
    ("source_format", "record", "path", "value", "expected"),
    [
        (
            "doccano",
            DOCCANO,
            "text",
            None,
            "(orig_id 7): text = None: not a text; export the text with its annotations",
        ),
        ("aspert", {"tokens": ["a"]}, "tokens", ["a"], "text = None: not a text; this is SpERT's format already"),
        (
            "doccano",
            DOCCANO,
            "entities",
            None,
            "entities = None: the key is missing; write [] for a text without, or give",
        ),
        ("doccano", DOCCANO, "entities", {}, "entities = {}: an object, not a list; write [] if there are none"),
        ("doccano", DOCCANO, "entities.0", 3, "entities[0] = 3: an integer, not an object; write it as the others"),
        ("doccano", DOCCANO, "entities.0.label", None, "0, 'end_offset': 3}: an entity without a type; give it one"),
        (
            "doccano",
            DOCCANO,
            "entities.0.start_offset",
            "0",
            "its start and end are not both integers; give the offsets",
        ),
        (
            "doccano",
            DOCCANO,
            "entities.0.start_offset",
            3,
            "no word lies between these characters; correct the offsets",
        ),
        (
            "doccano",
            DOCCANO,
            "entities.0.start_offset",
            -9,
            "no word lies between these characters; correct the offsets",
        ),
        ("doccano", DOCCANO, "entities.3.end_offset", 99, "past the end of the 51 characters of the text; count"),
        (
            "doccano",
            DOCCANO,
            "entities.1.id",
            30,
            "its id is another entity's too, or no id; give each entity its own",
        ),
        ("doccano", DOCCANO, "relations.0.from_id", 99, "there is no entity with the id 99; correct the id"),
        ("doccano", DOCCANO, "relations.0.from_id", [], "there is no entity with the id None; correct the id"),
        (
            "doccano",
            DOCCANO,
            "relations.0.to_id",
            30,
            "it joins an entity to itself; name another entity, or delete it",
        ),
        (
            "doccano",
            DOCCANO,
            "relations.0.type",
            "a\n",
            "a name with characters that cannot be printed; leave them out",
        ),
        (
            "doccano",
            DOCCANO,
            "entities.0.label",
            "none",
            "a reserved name, of spans that are no entity; give the type",
        ),
        ("doccano", {"text": "a", "label": [0]}, "label.0", "a", "label[0] = 'a': not [start, end, type]; export the"),
        ("aspert", PREDICTED, "text", "Ann", "past the end of the 3 characters of the text; count characters (not"),
        ("doccano", DOCCANO, "relations.0.type", "", "a relation without a type; give it one, or delete it"),
        ("doccano", {"text": "a", "label": [["a"]]}, "text", "a", "label[0] = ['a']: not [start, end, type]; export"),
        ("aspert", PREDICTED, "entities.0.text", "Bob", "the text has 'Ann' there, not 'Bob'; count characters"),
        (
            "label-studio",
            LABEL_STUDIO,
            "annotations",
            None,
            "annotations = None: the key is missing; export as JSON (not",
        ),
        ("label-studio", LABEL_STUDIO, "annotations.0.result", None, "result = None: null, not a list; write []"),
        (
            "label-studio",
            LABEL_STUDIO,
            "annotations.0.result.0.value.text",
            "Bob",
            "the text has 'Ann' there, not 'Bob'",
        ),
        (
            "label-studio",
            LABEL_STUDIO,
            "annotations.0.result.0.value.labels",
            "P",
            "an entity without a type; give it",
        ),
        ("label-studio", LABEL_STUDIO, "annotations.0.result.0.value", None, "an entity without a type; give it one"),
        ("label-studio", LABEL_STUDIO, "annotations.0.result.2.to_id", "q", "there is no entity with the id 'q'"),
        ("label-studio", LABEL_STUDIO, "data", {"a": "x", "b": "y"}, "has 2 strings (a, b), none of them called text"),
    ],
)
def test_bad_texts_in_json(tmp_path, source_format, record, path, value, expected):
    found = problems(source_format, lines(tmp_path, changed(record, path, value)), tmp_path)
    assert found[0].startswith("in.jsonl: record 0") and expected in found[0]


def by_full_stops(text) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S[^.]*\.", text)]


def test_records_of_sentences(tmp_path):
    path = lines(tmp_path, DOCCANO)
    conversion = convert("doccano", path, tmp_path / "out.json", split_sentences=by_full_stops)
    assert [" ".join(record["tokens"]) for record in conversion.records] == [
        "Ann lives in Rome .",
        "Bob moved to Oslo .",
        "Carla stayed .",
    ]
    assert [record["orig_id"] for record in conversion.records] == ["7_0", "7_1", "7_2"]
    assert [len(record["relations"]) for record in conversion.records] == [1, 0, 0]
    assert "left out 2 relations across sentences ('7 relations[1], 7 relations[2]')" in str(conversion.warnings[0])
    # an entity is evidence against an end of a sentence in it
    joined = changed(DOCCANO, "entities.1.end_offset", 22)
    records = convert("doccano", lines(tmp_path, joined), tmp_path / "out.json", split_sentences=by_full_stops).records
    assert mentions(records[0])[1] == "Place Rome . Bob" and len(records) == 2
    with pytest.raises(ValueError, match="split_sentences does not go with dygie, whose sentences are given"):
        convert("dygie", path, tmp_path / "out.json", split_sentences=by_full_stops)


@given(st.data())
def test_no_entity_is_lost_between_sentences(data):
    """Whatever is taken for a sentence, each entity's characters are those of its words."""
    text = data.draw(st.text(st.sampled_from("ab. \n"), min_size=1, max_size=25).filter(str.strip))
    starts = sorted(data.draw(st.sets(st.integers(0, len(text) - 1))))
    annotated = AnnotatedText("x", "x", text)
    for number in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start + 1, len(text)))
        if annotated.wrong_offsets(start, end, None) is None:
            annotated.entities[number] = Entity("T", start, end)
    records = annotated.records(lambda _: list(zip(starts, [*starts[1:], len(text)])))
    found = ["".join(record["tokens"][one["start"] : one["end"]]) for record in records for one in record["entities"]]
    expected = ["".join(text[one.start : one.end].split()) for one in annotated.entities.values()]
    assert sorted(found) == sorted(expected) and not annotated.left_out
    assert "".join(word for record in records for word in record["tokens"]) == "".join(text.split())


# CoNLL04

CORP = """\
12 O 0 O DT The O O O
12 Org 1 O NNP/NNP Acme/COMMA O O O
12 O 2 O , COMMA O O O
12 Loc 3 O NNP Rome O O O
12 Other 4 O NN / O O O
12 O 5 O CD 1/2 O O O

1 3 OrgBased_In

13 O 0 O -LRB- -LRB- O O O


14 Peop 0 O NNP Bob O O O

"""


def test_corp(tmp_path):
    (tmp_path / "in.corp").write_text(CORP.replace(" ", "\t").replace("\n", "\r\n"), newline="")
    conversion = convert("corp", tmp_path / "in.corp", tmp_path / "out.json")
    assert read_records(tmp_path / "out.json") == [
        {
            "tokens": ["The", "Acme", ",", ",", "Rome", "/", "1/2"],
            "entities": [
                {"type": "Org", "start": 1, "end": 3},
                {"type": "Loc", "start": 4, "end": 5},
                {"type": "Other", "start": 5, "end": 6},
            ],
            "relations": [{"type": "OrgBased_In", "head": 0, "tail": 1}],
            "orig_id": 12,
        },
        {"tokens": ["("], "entities": [], "relations": [], "orig_id": 13},
        {"tokens": ["Bob"], "entities": [{"type": "Peop", "start": 0, "end": 1}], "relations": [], "orig_id": 14},
    ]
    assert conversion.schema == LabelSchema(("Org", "Loc", "Other", "Peop"), ("OrgBased_In",))


def test_bad_corp(tmp_path):
    (tmp_path / "in.corp").write_text(CORP.replace("1 3 Org", "1 2 Org").replace(" ", "\t") + "a\tb\n")
    assert problems("corp", tmp_path / "in.corp", tmp_path) == [
        "in.corp: line 8 = '1\\t2\\tOrgBased_In': head or tail is no entity; write lines of the sentence's entities "
        "(1, 3, 4)",
        "in.corp: line 15 = 'a\\tb': 2 columns; write 9 for a word, 3 for a relation, parted by tabs",
    ]


@pytest.mark.parametrize("kind", ["Loc", "O"])
def test_corp_with_a_line_number_twice(tmp_path, kind):
    text = CORP.replace("12 Loc 3", f"12 {kind} 1")
    (tmp_path / "in.corp").write_text(text.replace("1 3 OrgBased_In\n", "").replace(" ", "\t"))
    assert problems("corp", tmp_path / "in.corp", tmp_path) == [
        f"in.corp: line 4 = '12\\t{kind}\\t1\\tO\\tNNP\\tRome\\tO\\tO\\tO': the line number '1' "
        "is given more than once in the sentence; give each line of the sentence its own in the third column"
    ]


# All formats


def test_what_convert_refuses(tmp_path):
    with pytest.raises(ValueError, match="'Brat' is no format to convert from; did you mean 'brat'"):
        convert("Brat", tmp_path, tmp_path / "x.json")
    with pytest.raises(ValueError, match="use one of brat, doccano, label-studio, aspert, dygie, drug-ae, corp"):
        convert("xml", tmp_path, tmp_path / "x.json")
    with pytest.raises(ValueError, match="is neither .json nor .jsonl; rename it"):
        convert("brat", tmp_path, tmp_path / "x.csv")
    (tmp_path / "in.jsonl").write_text(json.dumps(DYGIE))
    symmetric = r"symmetric_relations \(--symmetric\) = '{}' is no relation type of the data; {} Used-for, PHYS$"
    for name, mend in (("X", "there are"), ("phys", r"did you mean 'PHYS'\? There are")):
        with pytest.raises(ValueError, match=symmetric.format(name, mend)):
            convert("dygie", tmp_path / "in.jsonl", tmp_path / "x.json", symmetric_relations=["PHYS", name])
    assert not (tmp_path / "x.json").exists()
    (tmp_path / "in.jsonl").write_text(json.dumps({**DYGIE, "sentences": [["a", "\0"], ["b", "c", "d"]]}))
    assert (
        "in.jsonl, converted: record 0 (orig_id 'd_0'): tokens[1] = '\\x00'"
        in problems("dygie", tmp_path / "in.jsonl", tmp_path)[0]
    )
    for source_format in ("dygie", "drug-ae", "brat", "corp"):
        assert "none.txt" in problems(source_format, tmp_path / "none.txt", tmp_path)[0]


def test_a_failed_conversion_leaves_the_old_output(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text(json.dumps(DYGIE))
    (tmp_path / "out.json").write_text("old")

    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert("dygie", tmp_path / "in.jsonl", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.json"]


def test_the_folders_of_the_outputs_are_made(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(DYGIE))
    convert("dygie", tmp_path / "in.jsonl", tmp_path / "a" / "b" / "out.json", tmp_path / "c" / "types.json")
    assert len(read_records(tmp_path / "a" / "b" / "out.json")) == 2
    assert LabelSchema.from_file(tmp_path / "c" / "types.json").entity_types == ("A", "B")


def test_converted_records_are_sound(tmp_path):
    write_brat(tmp_path, "doc")
    conversion = convert("brat", tmp_path / "doc.txt", tmp_path / "out.json")
    assert not validate_records(conversion.records, conversion.schema, "doc").errors
