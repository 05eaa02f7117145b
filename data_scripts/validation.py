"""Checks of records in SpERT's format.

An error makes a record unusable; a warning says what training or scoring will do with it. See docs/data.md.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .problems import Problem, ValidationReport, show
from .reading import json_type, not_an_object
from .schema import LabelSchema, label_problem, nearest

LONG_SENTENCE = 350  # words; words of English are about 1.4 sub-words each
MAX_COMPARED = 50_000  # pairs of an unknown and a known type, to say of a file's slips which was meant
RECORD_KEYS = ("tokens", "entities", "relations", "orig_id")
ENTITY_KEYS = ("type", "start", "end")
RELATION_KEYS = ("type", "head", "tail")
# The characters that split lines or end strings in other programs. Zero-width characters are left alone.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def validate_records(
    records: list[dict[str, Any]], schema: LabelSchema | None, source: str, max_span_width: int = 10
) -> ValidationReport:
    """Check records of words, entities and relations.

    Args:
        records: what `read_records` returns, or the same made in Python.
        schema: the types that may occur; None leaves the types unchecked.
        source: the file's name, for the messages.
        max_span_width: entities of more words can be trained on and cannot be predicted; they are counted.

    Returns:
        All errors and warnings; nothing is raised, whatever the records hold.

    Raises:
        ValueError: a `max_span_width` below 1.
    """
    if max_span_width < 1:
        raise ValueError(f"max_span_width = {max_span_width} is not valid: it must be >= 1")
    check = _Check(schema, str(source), max_span_width)
    if not isinstance(records, list):
        check.add_error("", f"{json_type(records)}, not a list of records", "put the records in a list")
    elif not records:
        check.add_error("", "there is no record", "add one, or leave the file out")
    else:
        for index, record in enumerate(records):
            check.record(index, record)
        check.counts()
    return ValidationReport(tuple(check.errors), tuple(check.warnings))


def shared_sentences(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> tuple[Problem, ...]:
    """Warnings of sentences that stand, word for word, in two splits: scores on them say less than they seem to.

    Args:
        splits: sound records by the name of their split or file; of two, the second is named first.
    """
    sentences = {
        name: [(tuple(record["tokens"]), record.get("orig_id")) for record in records]
        for name, records in splits.items()
    }
    known = {name: {words for words, _ in records} for name, records in sentences.items()}
    warnings = []
    for other, name in itertools.combinations(sentences, 2):
        shared = [
            f"record {number}" if orig_id is None else f"orig_id {show(orig_id)}"
            for number, (words, orig_id) in enumerate(sentences[name])
            if words in known[other]
        ]
        if shared:
            named = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            problem = f"{len(shared)} of {len(sentences[name])} sentences stand in {other}, too ({named})"
            warnings.append(
                Problem(file=name, field="tokens", problem=problem, mend="leave them out of one of the two")
            )
    return tuple(warnings)


class _Check:
    """The checks of one file, and what they found so far."""

    def __init__(self, schema: LabelSchema | None, source: str, max_span_width: int):
        self.source = source
        self.max_span_width = max_span_width
        self.symmetric = set(schema.symmetric_relations) if schema else set()
        types = {"entity": schema.entity_types, "relation": schema.relation_types} if schema else {}
        self.types = {kind: dict.fromkeys(names) for kind, names in types.items()}
        self.listed = {kind: textwrap.shorten(", ".join(names) or "(none)", 200) for kind, names in types.items()}
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.index: int | None = None
        self.orig_id: str | int | None = None
        self.entities = self.wide = 0
        self.sentences = self.long = self.longest = 0
        self.counted: dict[str, Counter[str]] = {"entity": Counter(), "relation": Counter()}  # type → how often
        self.first: dict[tuple[str, ...], int] = {}  # sentence → number of its first record
        self.repeated: list[tuple[int, int]] = []  # numbers of a record and of the first with its words
        self.unknown_keys: dict[tuple[str, Any], list[int]] = defaultdict(list)  # → numbers of the records
        self.nearest: dict[tuple[str, str], str | None] = {}  # a search takes long, and the same slip comes often
        self.compared = 0

    def record(self, index: int, record: Any) -> None:
        """Check one record."""
        self.index, self.orig_id = index, None
        if not isinstance(record, dict):
            self.errors.append(not_an_object(self.source, index, record))
            return
        self._orig_id(record)
        if "tokens" not in record and isinstance(record.get("text"), str):
            self.add_error(
                "tokens",
                "the key is missing: the record holds a text, and not its words",
                "convert it: aspert convert doccano, label-studio, or aspert for what `aspert predict` wrote",
            )
            return
        self._unknown_keys(record, "record", RECORD_KEYS)
        words = self._list(record, "tokens", "a list of words")
        entities = self._list(record, "entities", "[] if there are none")
        relations = self._list(record, "relations", "[] if there are none")
        if words is not None:
            self._words(words)
        if entities is not None:
            known = [self._entity(f"entities[{i}]", e, words) for i, e in enumerate(entities)]
            self._repeated_entities(known)
            if relations is not None:
                self._repeated_relations(
                    [self._relation(f"relations[{i}]", r, known) for i, r in enumerate(relations)]
                )

    def counts(self) -> None:
        """Add the warnings that stand once for the whole file."""
        self.index = self.orig_id = None
        if self.wide:
            self.add_warning(
                "entities",
                f"{self.wide} of {self.entities} entities are wider than {self.max_span_width} words: they are "
                "trained on and cannot be predicted",
                "raise the span limit to predict them",
            )
        if self.long:
            self.add_warning(
                "tokens",
                f"{self.long} of {self.sentences} sentences have more than {LONG_SENTENCE} words (the longest "
                f"{self.longest}): encoders like BERT take 512 sub-words, and longer sentences cannot be trained on",
                "split them",
            )
        if self.repeated:
            number, first = self.repeated[0]
            self.add_warning(
                "tokens",
                f"{len(self.repeated)} of {self.sentences} sentences stand in the file before (record {number} is as "
                f"record {first})",
                "keep one of each",
            )
        if not self.entities and not self.errors:
            self.add_warning("entities", "no record has any", "annotate some, if there are any in these sentences")
        for kind, names in self.counted.items():
            self._types_by_case(kind, names)
        for (place, key), records in self.unknown_keys.items():
            self.add_warning(
                place,
                f"the unknown key {show(key)} is ignored (records with it: {len(set(records))}, the first: "
                f"{records[0]})",
                "leave it out",
            )

    def _types_by_case(self, kind: str, counted: Counter[str]) -> None:
        folded = defaultdict(list)
        for name, count in counted.items():
            folded[name.casefold()].append(f"{show(name)} ({count})")
        for names in folded.values():
            if len(names) > 1:
                problem = f"types that differ by case only: {', '.join(names)}"
                self.add_warning(f"{kind}.type", problem, "write one of them, if they mean the same")

    def _orig_id(self, record: dict[str, Any]) -> None:
        value = record.get("orig_id")
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            self.add_error("orig_id", f"{json_type(value)}, not a string or integer", "write a string", value)
        elif isinstance(value, str) and _lone_surrogate(value):
            self.add_error("orig_id", "half of a surrogate pair", "write the whole character", value)
        else:
            self.orig_id = value

    def _unknown_keys(self, value: dict[str, Any], place: str, known: tuple[str, ...]) -> None:
        for key in value:
            if key not in known:
                self.unknown_keys[place, key].append(self.index)

    def _list(self, record: dict[str, Any], key: str, expected: str) -> list[Any] | None:
        if key not in record:
            self.add_error(key, "the key is missing", f"add it with {expected}")
        elif not isinstance(record[key], list):
            value = record[key]
            self.add_error(key, f"{json_type(value)}, not a list", f"write {expected}", value)
        else:
            return record[key]
        return None

    def _words(self, words: list[Any]) -> None:
        self.sentences += 1
        if not words:
            self.add_error("tokens", "the sentence is empty", "leave the record out", words)
        if len(words) > LONG_SENTENCE:
            self.long += 1
            self.longest = max(self.longest, len(words))
        if all(isinstance(word, str) for word in words):
            first = self.first.setdefault(tuple(words), self.index)
            if first != self.index:
                self.repeated.append((self.index, first))
        for i, word in enumerate(words):
            if not isinstance(word, str):
                problem, mend = f"{json_type(word)}, not a string", "write the word as a string"
            elif not word or word.isspace():
                problem = "a word of white space only" if word else "an empty word"
                mend = "leave it out and shift the entities behind it"
            elif _CONTROL.search(word):
                character = ascii(_CONTROL.search(word).group())
                problem, mend = f"a word with the control character {character}", "leave it out, or split the word"
            elif _lone_surrogate(word):
                problem, mend = "half of a surrogate pair", "write the whole character"
            else:
                continue
            self.add_error(f"tokens[{i}]", problem, mend, word)

    def _entity(self, place: str, entity: Any, words: list[Any] | None) -> tuple[str, int, int] | None:
        """Return (type, start, end) of a sound entity."""
        if not self._object(place, entity, "entity", ENTITY_KEYS):
            return None
        self.entities += 1
        sound = self._type(place, entity, "entity")
        sound = self._integer(place, entity, "start") and sound
        sound = self._integer(place, entity, "end") and sound
        if not sound:
            return None
        start, end = entity["start"], entity["end"]
        if end <= start:
            mend = f"end is exclusive: write {start + 1} for a single word"
            self.add_error(f"{place}.end", f"not greater than start = {start}", mend, end)
            return None
        if words and end > len(words):
            mend = f"write at most {len(words)}; offsets count words from 0 and end is exclusive"
            self.add_error(f"{place}.end", f"past the end of the {len(words)} words", mend, end)
            return None
        self.wide += end - start > self.max_span_width
        return entity["type"], start, end

    def _relation(
        self, place: str, relation: Any, entities: list[tuple[str, int, int] | None]
    ) -> tuple[str, int, int] | None:
        """Return (type, head, tail) of a sound relation."""
        if not self._object(place, relation, "relation", RELATION_KEYS):
            return None
        sound = self._type(place, relation, "relation")
        for key in ("head", "tail"):
            if not self._integer(place, relation, key):
                sound = False
            elif relation[key] >= len(entities):
                mend = f"write the position of one of the record's {len(entities)} entities, counted from 0"
                self.add_error(f"{place}.{key}", "no such entity", mend, relation[key])
                sound = False
        if not sound:
            return None
        head, tail = relation["head"], relation["tail"]
        if head == tail:
            problem, mend = "the relation joins an entity to itself", "name another entity, or leave the relation out"
            self.add_error(f"{place}.tail", problem, mend, tail)
            return None
        if entities[head] and entities[tail] and entities[head][1:] == entities[tail][1:]:
            problem = f"head and tail ({head} and {tail}) lie on one span: such a relation cannot be predicted"
            self.add_warning(place, problem, "leave it out")
        return relation["type"], head, tail

    def _object(self, place: str, value: Any, kind: str, keys: tuple[str, ...]) -> bool:
        if not isinstance(value, dict):
            mend = f"write an object with {', '.join(keys)}"
            self.add_error(place, f"{json_type(value)}, not an object", mend, value)
            return False
        self._unknown_keys(value, kind, keys)
        return True

    def _type(self, place: str, value: dict[str, Any], kind: str) -> bool:
        place = f"{place}.type"
        if "type" not in value:
            self.add_error(place, "the key is missing", f"add the {kind} type")
            return False
        name = value["type"]
        problem = label_problem(name, kind)
        if problem:
            self.add_error(place, *problem, name)
            return False
        self.counted[kind][name] += 1
        known = self.types.get(kind)
        if known is None or name in known:
            return True
        if (kind, name) not in self.nearest and self.compared < MAX_COMPARED:
            self.nearest[kind, name] = nearest(name, list(known))
            self.compared += len(known)
        near = self.nearest.get((kind, name))
        if near is None:
            problem = f"an unknown {kind} type"
            mend = f"write one of {self.listed[kind]}, or add it to the types file"
        else:
            by_case = near.casefold() == name.casefold()
            problem = f"an unknown {kind} type" + (f" that differs from {near!r} by case only" if by_case else "")
            mend = f"write {near!r}, or add {show(name)} to the types file"
        self.add_error(place, problem, mend, name)
        return False

    def _integer(self, place: str, value: dict[str, Any], key: str) -> bool:
        place = f"{place}.{key}"
        if key not in value:
            self.add_error(place, "the key is missing", "add it with an integer")
            return False
        number = value[key]
        if isinstance(number, bool) or not isinstance(number, int):
            self.add_error(place, f"{json_type(number)}, not an integer", "write an integer", number)
            return False
        if number < 0:
            self.add_error(place, "negative", "count from 0", number)
            return False
        return True

    def _repeated_entities(self, entities: list[tuple[str, int, int] | None]) -> None:
        first: dict[tuple[int, int], int] = {}
        for i, entity in enumerate(entities):
            if entity is None:
                continue
            other = first.setdefault(entity[1:], i)
            if other == i:
                continue
            if entity[0] == entities[other][0]:
                problem, mend = f"the same entity as entities[{other}]: scored once", "leave one out"
            else:
                problem = (
                    f"on the same span as entities[{other}], with another type ({entity[0]} and "
                    f"{entities[other][0]}): both are trained on, relations use the first"
                )
                mend = "keep one type"
            self.add_warning(f"entities[{i}]", problem, mend)

    def _repeated_relations(self, relations: list[tuple[str, int, int] | None]) -> None:
        first: dict[tuple[str, int, int], int] = {}
        for i, relation in enumerate(relations):
            if relation is None:
                continue
            kind, head, tail = relation
            other = first.setdefault(relation, i)
            if other != i:
                self.add_warning(f"relations[{i}]", f"the same relation as relations[{other}]", "leave one out")
            elif kind in self.symmetric and (kind, tail, head) in first:
                problem = f"{kind} is symmetric and relations[{first[kind, tail, head]}] is its other direction"
                self.add_warning(f"relations[{i}]", problem, "keep one direction")

    def add_error(self, field: str, problem: str, mend: str, *value: Any) -> None:
        """Note an error of the current record, with the wrong value if there is one to show."""
        self.errors.append(self._problem(field, problem, mend, *value))

    def add_warning(self, field: str, problem: str, mend: str) -> None:
        """Note a warning of the current record."""
        self.warnings.append(self._problem(field, problem, mend))

    def _problem(self, field: str, problem: str, mend: str, *value: Any) -> Problem:
        given = {"value": value[0]} if value else {}
        return Problem(
            file=self.source, record=self.index, orig_id=self.orig_id, field=field, problem=problem, mend=mend, **given
        )


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
