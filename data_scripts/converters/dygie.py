"""DyGIE's JSONL, the form in which SciERC is distributed: one document a line."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from os import PathLike
from typing import Any

from ..problems import DataError, Problem
from ..reading import read_records
from ..schema import LabelSchema
from .conversion import Conversion

# SciERC writes relations in capitals and brackets as the Penn Treebank does; SpERT's files do not. What is not listed
# stays as it is: SpERT's files keep SciERC's only -LCB-, too.
RELATION_NAMES = {
    "USED-FOR": "Used-for",
    "FEATURE-OF": "Feature-of",
    "HYPONYM-OF": "Hyponym-of",
    "EVALUATE-FOR": "Evaluate-for",
    "PART-OF": "Part-of",
    "COMPARE": "Compare",
    "CONJUNCTION": "Conjunction",
}
SYMMETRIC = ("Compare", "Conjunction")
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}
KEYS = ("doc_key", "sentences", "ner", "relations")


def read_dygie(path: str | PathLike[str]) -> Conversion:
    """Read documents with `doc_key`, `sentences`, `ner` and `relations`.

    Their offsets count the document's words, and the end is inclusive. A record is a sentence; its orig_id is
    `DOC_KEY_NUMBER`, the number counting the document's sentences from 0. A relation joins the first entities of its
    spans. Other keys, such as `clusters`, are counted in the warnings. Raises `DataError` with every problem of the
    file.
    """
    documents = read_records(path, lines=True)
    reader = _Reader(str(path))
    for index, document in enumerate(documents):
        reader.document(index, document)
    if reader.problems:
        raise DataError(reader.problems)
    schema = LabelSchema.from_records(reader.records)
    symmetric = tuple(name for name in schema.relation_types if name in SYMMETRIC)
    others = Counter(key for document in documents for key, value in document.items() if key not in KEYS and value)
    warnings = [
        Problem(
            file=str(path),
            field=key,
            problem=f"given for {count} of {len(documents)} documents, not converted",
            mend="SpERT's format has no place for it",
        )
        for key, count in others.items()
    ]
    return Conversion(reader.records, LabelSchema(schema.entity_types, schema.relation_types, symmetric), warnings)


class _Reader:
    """Collects the sentences of documents, and their problems."""

    def __init__(self, file: str):
        self.file = file
        self.records: list[dict[str, Any]] = []
        self.problems: list[Problem] = []

    def document(self, index: int, document: dict[str, Any]) -> None:
        """Add the sentences of one document."""
        key = document.get("doc_key")
        place = {"record": index, "orig_id": key if isinstance(key, (str, int)) else None}
        if place["orig_id"] is None:
            self._add(place, "doc_key", key, "not a string", "give the document a name")
        lists = [document.get(name) for name in KEYS[1:]]
        for name, value in zip(KEYS[1:], lists):
            if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
                self._add(place, name, value, "not a list of one list a sentence", "write [] for a sentence without")
                return
        sentences, ner, relations = lists
        lengths = (len(sentences), len(ner), len(relations))
        if len(set(lengths)) > 1:
            self._add(place, ", ".join(KEYS[1:]), lengths, "differ in length", "give each one item a sentence")
            return
        first_words = accumulate(map(len, sentences), initial=0)
        for number, (offset, words) in enumerate(zip(first_words, sentences)):
            entities = self._entities(place, f"ner[{number}]", ner[number], offset, len(words))
            spans = [(entity["start"], entity["end"]) for entity in entities]
            self.records.append(
                {
                    "tokens": [BRACKETS.get(word, word) if isinstance(word, str) else word for word in words],
                    "entities": entities,
                    "relations": self._relations(place, f"relations[{number}]", relations[number], offset, spans),
                    "orig_id": f"{key}_{number}",
                }
            )

    def _entities(
        self, place: dict[str, Any], field: str, items: list[Any], offset: int, words: int
    ) -> list[dict[str, Any]]:
        entities = []
        for i, item in enumerate(items):
            if not _has_form(item, 2):
                self._add(place, f"{field}[{i}]", item, "not [first word, last word, type]", "write it so")
                continue
            start, end = item[0] - offset, item[1] - offset + 1
            if not 0 <= start < end <= words:
                problem = f"not within its sentence, the words {offset} to {offset + words - 1} of the document"
                self._add(place, f"{field}[{i}]", item, problem, "move it to the sentence of its words")
            entities.append({"type": item[2], "start": start, "end": end})
        return entities

    def _relations(
        self, place: dict[str, Any], field: str, items: list[Any], offset: int, spans: list[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        relations = []
        for i, item in enumerate(items):
            if not _has_form(item, 4):
                form = "[first word, last word, first word, last word, type]"
                self._add(place, f"{field}[{i}]", item, f"not {form} of head and tail", "write it so")
                continue
            ends = [(item[k] - offset, item[k + 1] - offset + 1) for k in (0, 2)]
            if not all(span in spans for span in ends):
                mend = "add the missing entity to ner, or leave the relation out"
                self._add(place, f"{field}[{i}]", item, "joins a span that is no entity of the sentence", mend)
                continue
            head, tail = (spans.index(span) for span in ends)
            relations.append({"type": RELATION_NAMES.get(item[4], item[4]), "head": head, "tail": tail})
        return relations

    def _add(self, place: dict[str, Any], field: str, value: Any, problem: str, mend: str) -> None:
        self.problems.append(Problem(file=self.file, field=field, value=value, problem=problem, mend=mend, **place))


def _has_form(item: Any, offsets: int) -> bool:
    """Tell whether an item is a list of so many integers and a string."""
    return (
        isinstance(item, list)
        and len(item) == offsets + 1
        and all(type(value) is int for value in item[:-1])
        and isinstance(item[-1], str)
    )
