"""Output formats of graphs: RDF N-Triples, GraphML, and CSV files for Neo4j's import."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import escape

from .record_writer import SURROGATES, Record, TablesWriter, TextWriter


class NTriplesWriter(TextWriter):
    """RDF 1.1 N-Triples.

    Records, entities and relations are blank nodes, so that the graphs of two files can be put together without
    collisions. Entities are typed <urn:aspert:entity:TYPE>; a relation is one triple head <urn:aspert:relation:TYPE>
    tail, and a node with its score (<urn:aspert:vocabulary#...>). TYPE is percent-encoded.
    """

    def _encode(self, record: Record) -> str:
        node = f"_:r{self.n_records}"
        triples = [_triple(node, _RDF_TYPE, _iri("vocabulary#Record"))]
        if record.get("id") is not None:
            triples.append(_triple(node, _property("id"), self._literal(str(record["id"]))))
        triples.append(_triple(node, _property("text"), self._literal(record["text"])))
        for index, entity in enumerate(record["entities"]):
            subject = f"{node}e{index}"
            triples += [
                _triple(node, _property("entity"), subject),
                _triple(subject, _RDF_TYPE, _iri("entity:" + quote(self._holdable(entity["type"]), safe=""))),
                _triple(subject, _property("text"), self._literal(entity["text"])),
                _triple(subject, _property("start"), f'"{entity["start"]}"^^{_XSD}integer>'),
                _triple(subject, _property("end"), f'"{entity["end"]}"^^{_XSD}integer>'),
                *_score_triples(subject, entity),
            ]
        for index, relation in enumerate(record["relations"]):
            subject, predicate = (
                f"{node}l{index}",
                _iri("relation:" + quote(self._holdable(relation["type"]), safe="")),
            )
            head, tail = f"{node}e{relation['head']}", f"{node}e{relation['tail']}"
            triples += [
                _triple(head, predicate, tail),
                _triple(node, _property("relation"), subject),
                _triple(subject, _RDF_TYPE, predicate),
                _triple(subject, _property("head"), head),
                _triple(subject, _property("tail"), tail),
                *_score_triples(subject, relation),
            ]
        return "".join(triples)

    def _literal(self, text: str) -> str:
        return '"' + _NTRIPLES_ESCAPED.sub(_ntriples_escape, self._holdable(text)) + '"'


_RDF_TYPE = "<http://www.w3.org/1999/02/22-rdf-syntax-ns#type>"
_XSD = "<http://www.w3.org/2001/XMLSchema#"
# The grammar asks for the quote, the backslash and line breaks; the rest keeps one triple one line for every reader.
_NTRIPLES_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029]')


def _ntriples_escape(match: re.Match) -> str:
    character = match.group()
    return "\\" + character if character in '"\\' else f"\\u{ord(character):04X}"


def _iri(name: str) -> str:
    return f"<urn:aspert:{name}>"


def _property(name: str) -> str:
    return _iri(f"vocabulary#{name}")


def _triple(subject: str, predicate: str, value: str) -> str:
    return f"{subject} {predicate} {value} .\n"


def _score_triples(subject: str, item: dict[str, Any]) -> list[str]:
    if "score" not in item:
        return []
    return [_triple(subject, _property("score"), f'"{float(item["score"])!r}"^^{_XSD}double>')]


class GraphMLWriter(TextWriter):
    """GraphML: entities are nodes, relations are edges, each with its type; control characters become U+FFFD."""

    unholdable = "\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff" + SURROGATES
    end = "</graph>\n</graphml>\n"
    _keys: ClassVar = {
        "node": {"record": "int", "id": "string", "type": "string", "text": "string", "start": "int", "end": "int"},
        "edge": {"type": "string"},
    }

    @property
    def begin(self) -> str:
        keys = "".join(
            f'<key id="{domain}_{name}" for="{domain}" attr.name="{name}" attr.type="{kind}"/>\n'
            for domain, names in self._keys.items()
            for name, kind in (*names.items(), ("score", "double"))
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
            f'{keys}<graph edgedefault="directed">\n'
        )

    def _encode(self, record: Record) -> str:
        node = f"r{self.n_records}"
        parts = []
        for index, entity in enumerate(record["entities"]):
            values = {**entity, "record": self.n_records, "id": record.get("id")}
            parts.append(f'<node id="{node}e{index}">{self._data("node", values)}</node>\n')
        for index, relation in enumerate(record["relations"]):
            head, tail = f"{node}e{relation['head']}", f"{node}e{relation['tail']}"
            parts.append(
                f'<edge id="{node}l{index}" source="{head}" target="{tail}">{self._data("edge", relation)}</edge>\n'
            )
        return "".join(parts)

    def _data(self, domain: str, values: dict[str, Any]) -> str:
        # a parser turns a bare carriage return into a line feed
        return "".join(
            f'<data key="{domain}_{name}">{escape(self._holdable(str(values[name])), {chr(13): "&#13;"})}</data>'
            for name in (*self._keys[domain], "score")
            if values.get(name) is not None
        )


class Neo4jWriter(TablesWriter):
    """A folder with nodes.csv (entities) and relationships.csv for `neo4j-admin database import full`.

    Texts stand as they are, line breaks too (`--multiline-fields=true`), and so do those that a spreadsheet would take
    for a formula. A type must not hold the semicolon, which separates labels.
    """

    tables: ClassVar = {
        "nodes.csv": [
            *(":ID", "record:long", "recordId", "type", "text", "start:long", "end:long", "score:double", ":LABEL")
        ],
        "relationships.csv": [":START_ID", ":END_ID", ":TYPE", "score:double"],
    }

    @classmethod
    def check_types(cls, entity_types: Iterable[str], relation_types: Iterable[str]) -> None:
        for name in entity_types:
            if ";" in name:
                raise ValueError(f"entity type {name!r} holds ';', which separates labels in Neo4j: rename the type")

    def _entity_rows(self, record: Record) -> Iterable[list]:
        self.check_types([entity["type"] for entity in record["entities"]], ())
        for index, entity in enumerate(record["entities"]):
            kind = entity["type"]
            fields = (kind, entity["text"], entity["start"], entity["end"], entity.get("score"))
            yield [f"r{self.n_records}e{index}", self.n_records, record.get("id"), *fields, f"Entity;{kind}"]

    def _relation_rows(self, record: Record) -> Iterable[list]:
        for relation in record["relations"]:
            ends = [f"r{self.n_records}e{relation[end]}" for end in ("head", "tail")]
            yield [*ends, relation["type"], relation.get("score")]
