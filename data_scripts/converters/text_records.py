"""JSON records of a text with annotations at character offsets: doccano's exports, and what `aspert predict` writes."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple
from zipfile import is_zipfile

from ..problems import DataError, Problem
from ..reading import json_type, read_records
from ..schema import label_problem
from .annotated_text import AnnotatedText, BrowserOffsets, Entity, SentenceSplitter, convert_texts
from .conversion import Conversion


class Annotations(NamedTuple):
    """The annotations of a record, each with its place in the file.

    Args:
        entities: (field, value as it stands, ID, type, start, end, the text it is said to hold or None).
        relations: (field, value as it stands, ID, type, ID of the head, ID of the tail).
        skipped: IDs of annotations that no record has a place for.
    """

    entities: list[tuple[str, Any, Any, Any, Any, Any, str | None]]
    relations: list[tuple[str, Any, Any, Any, Any, Any]]
    skipped: set[Any]


class _Keys(NamedTuple):
    type: str
    start: str
    end: str
    head: str
    tail: str


_DOCCANO = _Keys("label", "start_offset", "end_offset", "from_id", "to_id")
_ASPERT = _Keys("type", "start", "end", "head", "tail")


def read_doccano(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read doccano's JSONL or JSON: the text in `text` (or `data`), `entities` and `relations`, or `label` or `entities`,
    a list of [start, end, type].

    A record is a line of the text, or a sentence, as of brat. An emoji counts twice in doccano's offsets, but once in
    those of early versions and of scripts: what makes fewer errors and cuts fewer words of the file is taken, and a
    warning says so. Raises `DataError` with every problem of the file.
    """
    reader = _read(path, _DOCCANO, as_browser=True)
    if reader.moved:
        by_characters = _read(path, _DOCCANO)
        chosen = min(reader, by_characters, key=lambda one: (len(one.problems), one.misplaced()))
        problem = (
            f"{len(reader.moved)} of {len(reader.texts)} texts have entities behind an emoji or the like (the first: "
            f"{reader.moved[0]}): offsets are taken to count it {'twice' if chosen is reader else 'once'}"
        )
        chosen.warnings.append(Problem(file=str(path), problem=problem, mend="check their entities"))
        reader = chosen
    return reader.conversion(split_sentences)


def read_aspert(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read the JSON lines or JSON of `aspert predict` for raw text, such as predictions that were corrected by hand.

    A record is a line of the text, or a sentence, as of brat. Scores are not kept. Raises `DataError` with every problem
    of the file.
    """
    return _read(path, _ASPERT).conversion(split_sentences)


def _read(path: str | PathLike[str], keys: _Keys, as_browser: bool = False) -> TextReader:
    reader = TextReader(str(path))
    for name, record in reader.records():
        text = next((record[key] for key in ("text", "data") if isinstance(record.get(key), str)), None)
        if text is None:
            mend = "this is SpERT's format already" if "tokens" in record else "export the text with its annotations"
            reader.add("text", record.get("text"), "not a text", mend)
            continue
        annotations = _annotations(reader, record, keys)
        if as_browser:
            counted = BrowserOffsets(text)
            entities = [
                (*one[:4], counted.characters(one[4]), counted.characters(one[5]), one[6])
                for one in annotations.entities
            ]
            if entities != annotations.entities:
                reader.moved.append(name)
            annotations = annotations._replace(entities=entities)
        reader.annotated(name, text, annotations)
    return reader


def _annotations(reader: TextReader, record: dict[str, Any], keys: _Keys) -> Annotations:
    """Return what a record holds, of those of its items that have the form of an annotation."""
    found = Annotations([], [], set())
    spans = record.get("label", record.get("labels")) if keys is _DOCCANO else None
    if isinstance(spans, dict):  # doccano 1.6
        record, spans = spans, None
    elif spans is not None:
        found.entities.extend(_triples(reader, "label", spans))
    elif "entities" not in record:
        mend = "write [] for a text without" + (", or give label" if keys is _DOCCANO else "")
        reader.add("entities", None, "the key is missing", mend)
    entities = record.get("entities", [])
    if keys is _DOCCANO and isinstance(entities, list) and any(isinstance(one, list) for one in entities):
        found.entities.extend(_triples(reader, "entities", entities))  # intent detection and slot filling
        entities = []
    for position, (field, item) in enumerate(reader.items("entities", entities, dict)):
        found.entities.append(
            (
                field,
                item,
                item.get("id", position),
                item.get(keys.type),
                item.get(keys.start),
                item.get(keys.end),
                item.get("text"),
            )
        )
    for field, item in reader.items("relations", record.get("relations", []), dict):
        found.relations.append((field, item, field, item.get("type"), item.get(keys.head), item.get(keys.tail)))
    return found


def _triples(reader: TextReader, key: str, spans: Any) -> Iterator[tuple[str, Any, Any, Any, Any, Any, None]]:
    for field, item in reader.items(key, spans, object):
        if isinstance(item, list) and len(item) == 3:
            start, end, kind = item
            yield field, item, field, kind, start, end, None
        else:
            reader.add(field, item, "not [start, end, type]", "export the labels of a sequence labeling project")


class TextReader:
    """Collects annotated texts of one file, and their problems; `place` is that of the record being read."""

    def __init__(self, file: str):
        self.file = file
        self.place: dict[str, Any] = {}
        self.texts: list[AnnotatedText] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.moved: list[str] = []  # names of the texts whose offsets were counted anew

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the records of the file with their names: the ID, or the number. Raises `DataError` for bad JSON."""
        if is_zipfile(self.file):
            problem, mend = "a zip archive", "unpack it, and name the file in it"
            raise DataError([Problem(file=self.file, problem=problem, mend=mend)])
        for index, record in enumerate(read_records(self.file)):
            given = (record.get(key) for key in ("id", "orig_id"))
            identifier = next((one for one in given if isinstance(one, (str, int))), index)
            self.place = {"record": index, "orig_id": identifier}
            yield str(identifier), record

    def misplaced(self) -> int:
        """Return how many entities begin or end within a word or with white space."""
        return sum(1 for text in self.texts for _ in text.misplaced())

    def add(self, field: str, value: Any, problem: str, mend: str) -> None:
        """Note a problem of the record being read."""
        self.problems.append(
            Problem(file=self.file, field=field, value=value, problem=problem, mend=mend, **self.place)
        )

    def items(self, field: str, value: Any, kind: type) -> Iterator[tuple[str, Any]]:
        """Yield the items of a list with their places; what is no list, or no item of this kind, is a problem."""
        if not isinstance(value, list):
            self.add(field, value, f"{json_type(value)}, not a list", "write [] if there are none")
            return
        for position, item in enumerate(value):
            if isinstance(item, kind):
                yield f"{field}[{position}]", item
            else:
                problem = f"{json_type(item)}, not {json_type(kind())}"
                self.add(f"{field}[{position}]", item, problem, "write it as the others")

    def annotated(self, name: str, content: str, annotations: Annotations) -> AnnotatedText:
        """Add a text with its annotations."""
        text = AnnotatedText(name, f"{self.file}: record {self.place['record']}", content)
        text.skipped |= annotations.skipped
        for field, item, identifier, kind, start, end, said in annotations.entities:
            if not isinstance(kind, str) or not kind:
                self.add(field, item, "an entity without a type", "give it one, or delete it")
            elif wrong := label_problem(kind, "entity"):
                self.add(field, item, *wrong)
            elif type(start) is not int or type(end) is not int:
                self.add(field, item, "its start and end are not both integers", "give the offsets of its characters")
            elif not isinstance(identifier, (str, int)) or identifier in text.entities:
                self.add(field, item, "its id is another entity's too, or no id", "give each entity its own")
            elif wrong := text.wrong_offsets(start, end, said if isinstance(said, str) else None):
                self.add(field, item, *wrong)
            else:
                text.entities[identifier] = Entity(kind, start, end)
                continue
            if isinstance(identifier, (str, int)):
                text.skipped.add(identifier)
        for field, item, identifier, kind, head, tail in annotations.relations:
            ends = [one if isinstance(one, (str, int)) else None for one in (head, tail)]
            unknown = [one for one in ends if one not in text.entities and one not in text.skipped]
            if not isinstance(kind, str) or not kind:
                self.add(field, item, "a relation without a type", "give it one, or delete it")
            elif wrong := label_problem(kind, "relation"):
                self.add(field, item, *wrong)
            elif unknown:
                self.add(field, item, f"there is no entity with the id {unknown[0]!r}", "correct the id, or delete it")
            elif head == tail:
                self.add(field, item, "it joins an entity to itself", "name another entity, or delete it")
            else:
                text.relations.append((identifier, kind, *ends))
        self.texts.append(text)
        return text

    def conversion(self, split_sentences: SentenceSplitter | None) -> Conversion:
        """Return the records of all texts. Raises `DataError` if there was a problem."""
        if self.problems:
            raise DataError(self.problems)
        conversion = convert_texts(self.texts, self.file, split_sentences)
        conversion.warnings[:0] = self.warnings
        return conversion
