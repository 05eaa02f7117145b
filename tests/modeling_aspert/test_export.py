"""export.py: every format is read back with a parser that is not ours; nothing half-written, nothing injected."""

from __future__ import annotations

import csv
import json
import logging
import re
import resource
import signal
import subprocess
import sys
import urllib.parse
from pathlib import Path

import networkx
import pyarrow.parquet
import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert.export import FORMATS, open_writer

FOLDERS = ("csv", "brat", "neo4j")
HOSTILE = [
    'quotes "double" \'single\' `back`',
    "line\nfeed, carriage\rreturn, both\r\n, tab\t, NEL\x85, LS\u2028",
    "=cmd|' /C calc'!A0",
    "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "＋1", "－1", "＠a",
    "<script>alert(1)</script>", "]]>", "<![CDATA[", "&amp; &#0;", "-->",
    'http://a b/<c>"{d}|\\^`%20', "back\\slash \\n \\u0041",
    "\u202eright to left\u202c \u200f\ufeff", "👩\u200d👩\u200d👧 e\u0301 日本語", "../../etc/passwd", "a;b,c|d", "_:x <y> .",
]  # fmt: skip
UNHOLDABLE = ["nul\x00byte", "bell\x07 escape\x1b", "lone\ud83d", "\ufffe"]


def record_of(text: str, entity_type: str = "Drug", relation_type: str = "Causes", **fields) -> dict:
    """A record whose second entity is the whole hostile text."""
    full = f"Aspirin {text} end"
    return {
        **fields,
        "text": full,
        "entities": [
            {"id": 0, "type": "Drug", "text": "Aspirin", "start": 0, "end": 7, "score": 0.75},
            {"id": 1, "type": entity_type, "text": text, "start": 8, "end": 8 + len(text), "score": 0.5},
        ],
        "relations": [{"type": relation_type, "head": 0, "tail": 1, "score": 0.1}],
    }


RECORDS = [record_of(text, id=f"doc {index}") for index, text in enumerate(HOSTILE)]
RECORDS.append({"text": "", "entities": [], "relations": []})


def write(path: Path, format: str, records: list[dict]) -> Path:
    with open_writer(path, format) as writer:
        for record in records:
            writer.write(record)
    return path


# reading back, as (text of entity, type, start, end, score) and (relation type, head text, tail text, score)


def expected(records: list[dict]) -> tuple[list, list]:
    entities = [
        (entity["text"], entity["type"], entity["start"], entity["end"], entity["score"])
        for record in records
        for entity in record["entities"]
    ]
    relations = [
        (relation["type"], *(record["entities"][relation[end]]["text"] for end in ("head", "tail")), relation["score"])
        for record in records
        for relation in record["relations"]
    ]
    return sorted(entities), sorted(relations)


def as_written(format: str, text: str) -> str:
    """The text with U+FFFD for what the format cannot hold; XML 1.0 says what its characters are."""
    if format.startswith("json"):
        return text
    lost = {
        "graphml": "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]",
        "csv": "[\x00\ud800-\udfff]",
        "neo4j": "[\x00\ud800-\udfff]",
    }
    return re.sub(lost.get(format, "[\ud800-\udfff]"), "\ufffd", text)


def read_graphml(path: Path) -> tuple[list, list]:
    graph = networkx.read_graphml(path, force_multigraph=True)
    nodes = dict(graph.nodes(data=True))
    entities = [(n["text"], n["type"], n["start"], n["end"], n["score"]) for n in nodes.values()]
    edges = graph.edges(data=True)
    return sorted(entities), sorted((d["type"], nodes[h]["text"], nodes[t]["text"], d["score"]) for h, t, d in edges)


def read_ntriples(path: Path) -> tuple[list, list]:
    graph = rdflib.Graph()
    graph.parse(path, format="nt")
    vocabulary = rdflib.Namespace("urn:aspert:vocabulary#")

    def value(node, name):
        return graph.value(node, vocabulary[name], any=False).toPython()

    def kind(node, prefix):
        return urllib.parse.unquote(
            graph.value(node, rdflib.RDF.type, any=False).removeprefix(f"urn:aspert:{prefix}:")
        )

    entities = [
        (value(e, "text"), kind(e, "entity"), value(e, "start"), value(e, "end"), value(e, "score"))
        for e in graph.objects(None, vocabulary.entity)
    ]
    relations = []
    for relation in graph.objects(None, vocabulary.relation):
        head, tail = (graph.value(relation, vocabulary[end], any=False) for end in ("head", "tail"))
        assert (head, graph.value(relation, rdflib.RDF.type), tail) in graph
        relations.append(
            (kind(relation, "relation"), value(head, "text"), value(tail, "text"), value(relation, "score"))
        )
    return sorted(entities), sorted(relations)


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    return [dict(zip(rows[0], row)) for row in rows[1:]]


def read_csv(path: Path) -> tuple[list, list]:
    entities, relations = read_table(path / "entities.csv"), read_table(path / "relations.csv")

    def plain(text):
        return text.removeprefix("'")

    return (
        sorted((plain(e["text"]), e["type"], int(e["start"]), int(e["end"]), float(e["score"])) for e in entities),
        sorted((r["type"], plain(r["head_text"]), plain(r["tail_text"]), float(r["score"])) for r in relations),
    )


def read_neo4j(path: Path) -> tuple[list, list]:
    nodes = {node[":ID"]: node for node in read_table(path / "nodes.csv")}
    edges = read_table(path / "relationships.csv")
    assert all(node[":LABEL"] == f"Entity;{node['type']}" for node in nodes.values())
    entities = [
        (n["text"], n["type"], int(n["start:long"]), int(n["end:long"]), float(n["score:double"]))
        for n in nodes.values()
    ]
    relations = [
        (e[":TYPE"], nodes[e[":START_ID"]]["text"], nodes[e[":END_ID"]]["text"], float(e["score:double"]))
        for e in edges
    ]
    return sorted(entities), sorted(relations)


def read_brat(path: Path) -> tuple[list, list]:
    """brat's own way: columns by tabs, lines by str.splitlines, fragments by semicolons."""
    entities, relations = [], []
    for file in path.glob("*.ann"):
        text = file.with_suffix(".txt").read_bytes().decode("utf-8")
        found, arguments, scores = {}, {}, {}
        for line in file.read_bytes().decode("utf-8").splitlines():
            name, middle, *rest = line.split("\t")
            if name.startswith("T"):
                kind, offsets = middle.split(" ", 1)
                fragments = [tuple(map(int, fragment.split(" "))) for fragment in offsets.split(";")]
                (reference,) = rest
                assert reference == " ".join(text[start:end] for start, end in fragments)
                start, end = fragments[0][0], fragments[-1][1]
                found[name] = (text[start:end], kind, start, end)
            elif name.startswith("R"):
                arguments[name] = middle.split(" ")
            else:
                assert middle.split(" ")[0] == "AnnotatorNotes"
                scores[middle.split(" ")[1]] = float(rest[0].removeprefix("score "))
        entities += [(*entity, scores[name]) for name, entity in found.items()]
        for name, (kind, head, tail) in arguments.items():
            head, tail = head.removeprefix("Arg1:"), tail.removeprefix("Arg2:")
            relations.append((kind, found[head][0], found[tail][0], scores[name]))
    return sorted(entities), sorted(relations)


def read_parquet(path: Path) -> tuple[list, list]:
    return expected(pyarrow.parquet.read_table(path).to_pylist())


def read_json(path: Path) -> tuple[list, list]:
    return expected(json.loads(path.read_text(encoding="utf-8")))


def read_jsonl(path: Path) -> tuple[list, list]:
    return expected([json.loads(line) for line in path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")])


READERS = {
    "jsonl": read_jsonl,
    "json": read_json,
    "parquet": read_parquet,
    "csv": read_csv,
    "brat": read_brat,
    "ntriples": read_ntriples,
    "graphml": read_graphml,
    "neo4j": read_neo4j,
}


@pytest.mark.parametrize("format", READERS)
def test_hostile_strings_round_trip(tmp_path, format):
    records = RECORDS
    if format == "brat":  # an entity that begins or ends with a line break loses it: brat has no fragment for it
        records = [record for record in RECORDS if all(e["text"] == e["text"].strip() for e in record["entities"])]
        assert len(records) == len(RECORDS) - 3
    path = write(tmp_path / "out", format, records)
    assert READERS[format](path) == expected(records)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("format", ["ntriples", "graphml", "parquet", "csv"])
def test_hostile_types(tmp_path, format):
    records = [
        record_of("x", entity_type=text, relation_type=text) for text in HOSTILE if text[0] not in "=+-@＝＋－＠\t\r"
    ]
    path = write(tmp_path / "out", format, records)
    assert READERS[format](path) == expected(records)


@pytest.mark.parametrize("format", READERS)
def test_no_records(tmp_path, format):
    path = write(tmp_path / "out", format, [])
    if format == "jsonl":
        assert path.read_bytes() == b""
    else:
        assert READERS[format](path) == ([], [])


@pytest.mark.parametrize("format", READERS)
def test_what_a_format_cannot_hold_is_counted(tmp_path, format, caplog):
    records = [record_of("harmless"), *map(record_of, UNHOLDABLE)]
    with caplog.at_level(logging.WARNING):
        path = write(tmp_path / "out", format, records)
    for record in records:
        for entity in record["entities"]:
            entity["text"] = as_written(format, entity["text"])
    assert READERS[format](path) == expected(records)
    if not format.startswith("json"):
        assert "characters that the format cannot hold were written as U+FFFD (the first in record " in caplog.text
    else:
        assert not caplog.text


@given(st.text(st.characters(), min_size=1, max_size=20).filter(str.strip))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("format", ["ntriples", "graphml", "neo4j", "brat"])
def test_random_strings(tmp_path_factory, format, text):
    text = text.strip()
    record = record_of(text)
    path = write(tmp_path_factory.mktemp("random") / "out", format, [record])
    entities, relations = READERS[format](path)
    assert len(relations) == 1
    assert {(start, end) for _, _, start, end, _ in entities} == {(0, 7), (8, 8 + len(text))}
    for entity in record["entities"]:
        entity["text"] = as_written(format, entity["text"])
    assert (entities, relations) == expected([record])


def test_spacy(tmp_path):
    import spacy
    from spacy.tokens import DocBin

    path = write(tmp_path / "out.spacy", "spacy", [*RECORDS, record_of("lone\ud83d", id="id\ud83d")])
    docs = list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
    assert [doc.text for doc in docs[:-1]] == [record["text"] for record in RECORDS]
    assert docs[-1].text == "Aspirin lone\ufffd end"
    for doc, record in zip(docs, RECORDS):
        found = [(span.text.strip(), span.label_) for span in doc.spans["aspert"]]
        assert found == [(entity["text"].strip(), entity["type"]) for entity in record["entities"]]
        assert doc.spans["aspert"].attrs["scores"] == [entity["score"] for entity in record["entities"]]
        # what doc._.relations holds, or is made of where the component is imported
        assert list(doc.user_data["._.", "relations", None, None]) == record["relations"]
        assert len(doc._.relations) == len(record["relations"])
    assert docs[0].user_data["id"] == "doc 0" and docs[-1].user_data["id"] == "id\ufffd"


def test_without_spacy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match=r"the format 'spacy' needs spaCy: pip install 'aspert\[spacy\]'"):
        open_writer(tmp_path / "out", "spacy")
    assert not list(tmp_path.iterdir())


def test_csv_holds_no_formula(tmp_path):
    path = write(tmp_path / "out", "csv", [record_of(text, id=text) for text in HOSTILE])
    for name in ("entities.csv", "relations.csv"):
        for row in read_table(path / name):
            assert not any(cell.startswith(tuple("=+-@＝＋－＠\t\r")) for cell in row.values())


def test_csv_for_neo4j_holds_texts_unchanged(tmp_path):
    path = write(tmp_path / "out", "neo4j", [record_of(text) for text in ("=1+1", "＝1", "@a")])
    texts = {row["text"] for row in read_table(path / "nodes.csv")}
    assert {text[:1] for text in texts} >= {"=", "＝", "@"}


@pytest.mark.parametrize("number", [10**30, 2**64, -(2**63) - 1])
def test_spacy_refuses_ids_of_more_than_64_bits(tmp_path, number):
    message = re.escape(f"record 1 (id {number}): id: an integer of more than 64 bits, which a DocBin cannot hold")
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out.spacy", "spacy", [record_of("x", id=2**64 - 1), record_of("x", id=number)])


def test_brat_names(tmp_path):
    ids = ["a/b", "../up", "a/b", "", None, ".hidden", "x" * 300, 7, "ä b", 0, ""]
    path = write(tmp_path / "out", "brat", [record_of("x", id=name) for name in ids])
    names = {file.stem for file in path.glob("*.ann")}
    assert names == {
        "a%2Fb",
        "%2E%2E%2Fup",
        "a%2Fb.2",
        "3",
        "4",
        "%2Ehidden",
        "x" * 200 + ".6",
        "7",
        "%C3%A4%20b",
        "0",
        "10",
    }
    assert not [file for file in path.iterdir() if file.name.startswith(".")]


def test_parquet_row_groups(tmp_path):
    path = write(tmp_path / "out.parquet", "parquet", [record_of("x", id=index) for index in range(2500)])
    file = pyarrow.parquet.ParquetFile(path)
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [1000, 1000, 500]
    assert file.read().column("id").to_pylist() == [str(index) for index in range(2500)]


def change(path: str, value: object) -> dict:
    record = record_of("x", id="r")
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    target = record
    for key in keys:
        target = target[key]
    target[last] = value
    return record


@pytest.mark.parametrize(
    ("format", "record", "message"),
    [
        ("csv", change("entities.0.end", 6), "record 0 .id 'r'.: entities.0. says 0..6 is 'Aspirin', but the text has 'Aspiri'"),
        ("csv", change("entities.0.start", -1), "entities.0. says -1..7"),
        ("parquet", change("relations.0.tail", 2), "relations.0..tail is 2, but there are 2 entities"),
        ("ntriples", change("entities.1.score", float("nan")), "the score of 'Drug' is nan: scores are finite"),
        ("jsonl", change("entities.1.score", float("inf")), "record 0 .id 'r'.: Out of range float"),
        ("neo4j", change("entities.1.type", "A;B"), "'A;B' holds ';', which separates labels in Neo4j: rename the type"),
        ("brat", change("relations.0.type", "a b"), "type 'a b' is no name in brat"),
        ("graphml", {"tokens": ["a"], "entities": [], "relations": []}, "record 0 has no 'text': this format takes records"),
    ],
)  # fmt: skip
def test_refused_records(tmp_path, format, record, message):
    with pytest.raises(ValueError, match=message), open_writer(tmp_path / "out", format) as writer:
        writer.write(record)
    assert not list(tmp_path.iterdir())


def test_refused_outputs(tmp_path):
    with pytest.raises(ValueError, match="unknown output format 'xml': choose one of jsonl, json, "):
        open_writer(tmp_path / "out", "xml")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for path, format in [(tmp_path / "full", "csv"), (tmp_path / "full" / "file", "brat")]:
        with pytest.raises(FileExistsError, match="exists and is no empty folder"):
            open_writer(path, format)
    for path in (tmp_path / "full", "/dev/null"):
        with pytest.raises(FileExistsError, match="is no file"):
            open_writer(path, "jsonl")
    with pytest.raises(OSError, match="Not a directory|File exists"):
        open_writer(tmp_path / "full" / "file" / "out", "jsonl")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "full"]


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_under_its_name_before_it_is_complete(tmp_path, format):
    path = tmp_path / "new folder" / "out"
    if format not in FOLDERS:
        path.parent.mkdir()
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_writer(path, format) as writer:
        for index in range(1001):
            writer.write(record_of("x", id=index))
        assert not path.exists() or path.read_text() == "old"
        raise KeyboardInterrupt
    assert [file.name for file in path.parent.iterdir()] == ([] if format in FOLDERS else ["out"])
    write(path, format, [record_of("x")])
    assert not path.is_file() or path.read_bytes() != b"old"


def test_symbolic_links_stay(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write(tmp_path / "link", "jsonl", [record_of("x")])
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "target").read_text().splitlines()) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_an_output_that_cannot_be_finished(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    with pytest.raises(error), open_writer(tmp_path / "out.jsonl", "jsonl") as writer:
        writer.write(record_of("x"))
        monkeypatch.setattr(writer, "_finish", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv", "brat"])
def test_full_disk(tmp_path, light_package, format):
    """A limit on the size of files stands for the full disk: one clear error, and nothing is left."""
    script = """
import secrets, sys
from modeling_aspert.export import open_writer
with open_writer(sys.argv[1], sys.argv[2]) as writer:
    for n_bytes in [200] * 1001 + [200_000]:
        text = secrets.token_hex(n_bytes)
        entity = {"id": 0, "type": "T", "text": text, "start": 0, "end": len(text)}
        writer.write({"text": text, "entities": [entity], "relations": []})
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out"), format],
        cwd=light_package,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("OSError: [Errno 27] ")
    assert last_line.endswith(f"File too large: '{tmp_path / 'out'}'")
    assert result.returncode == 1
    assert not list(tmp_path.iterdir())


def test_no_heavy_imports(light_package):
    script = (
        "import sys, modeling_aspert.documents, modeling_aspert.export, modeling_aspert.streaming\n"
        "print([name for name in ('torch', 'transformers', 'pyarrow', 'pysbd', 'spacy', 'numpy') if name in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", script], cwd=light_package, text=True)
    assert output == "[]\n"
