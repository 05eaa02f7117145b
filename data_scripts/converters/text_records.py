"""JSON records of a text with annotations at character offsets: doccano's exports, and what `aspert predict` writes."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple

from ..problems import DataError, Problem
from ..reading import json_type, read_records
from .annotated_text import AnnotatedText, Entity, SentenceSplitter, convert_texts
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
    """Read doccano's JSONL or JSON: the text in `text` (or `data`), `entities` and `relations`, or `label`, a list of
    [start, end, type].

    A record is a line of the text, or a sentence, as of brat. Raises `DataError` with every problem of the file.
    """
    return _read(path, _DOCCANO, split_sentences)


def read_aspert(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read the JSON lines or JSON of `aspert predict` for raw text, such as predictions that were corrected by hand.

    A record is a line of the text, or a sentence, as of brat. Scores are not kept. Raises `DataError` with every problem
    of the file.
    """
    return _read(path, _ASPERT, split_sentences)


def _read(path: str | PathLike[str], keys: _Keys, split_sentences: SentenceSplitter | None) -> Conversion:
    reader = TextReader(str(path))
    for index, record in enumerate(read_records(path)):
        identifier = record.get("id", record.get("orig_id", index))
        reader.place = {"record": index, "orig_id": identifier if isinstance(identifier, (str, int)) else None}
        text = next((record[key] for key in ("text", "data") if isinstance(record.get(key), str)), None)
        if text is None:
            mend = "this is SpERT's format already" if "tokens" in record else "export the text with its annotations"
            reader.add("text", record.get("text"), "not a text", mend)
            continue
        reader.annotated(str(identifier), text, _annotations(reader, record, keys))
    return reader.conversion(split_sentences)


def _annotations(reader: TextReader, record: dict[str, Any], keys: _Keys) -> Annotations:
    """Return what a record holds, of those of its items that have the form of an annotation."""
    found = Annotations([], [], set())
    spans = record.get("label", record.get("labels")) if keys is _DOCCANO else None
    if isinstance(spans, dict):  # doccano 1.6
        record, spans = spans, None
    elif spans is not None:
        for field, item in reader.items("label", spans, list):
            if len(item) != 3:
                reader.add(field, item, "not [start, end, type]", "export the labels of a sequence labeling project")
                continue
            start, end, kind = item
            found.entities.append((field, item, field, kind, start, end, None))
    elif "entities" not in record:
        mend = "write [] for a text without" + (", or give label" if keys is _DOCCANO else "")
        reader.add("entities", None, "the key is missing", mend)
    for position, (field, item) in enumerate(reader.items("entities", record.get("entities", []), dict)):
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


class TextReader:
    """Collects annotated texts of one file, and their problems; `place` is that of the record being read."""

    def __init__(self, file: str):
        self.file = file
        self.place: dict[str, Any] = {}
        self.texts: list[AnnotatedText] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

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
            elif unknown:
                self.add(field, item, f"there is no entity with the id {unknown[0]!r}", "correct the id, or delete it")
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
