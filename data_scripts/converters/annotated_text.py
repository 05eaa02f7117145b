"""A text with annotations at character offsets, cut into records of words."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from ..problems import Problem, show
from ..schema import LabelSchema
from .conversion import Conversion, split_words, word_span

SentenceSplitter = Callable[[str], Sequence[tuple[int, int]]]


class Entity(NamedTuple):
    """Characters of a text, end-exclusive, and their type."""

    type: str
    start: int
    end: int


class AnnotatedText:
    """A text, its entities and relations by their IDs, and what of them has no place in a record.

    Args:
        name: the start of its records' orig_id.
        place: where it stands, as problems name it.
        text: the text.
    """

    def __init__(self, name: str, place: str, text: str):
        self.name = name
        self.place = place
        self.text = text
        self.entities: dict[Any, Entity] = {}
        self.relations: list[tuple[Any, str, Any, Any]] = []  # ID, type, IDs of head and tail
        self.skipped: set[Any] = set()  # IDs of annotations that were left out
        self.left_out: dict[str, list[str]] = defaultdict(list)  # reason → what

    def leave_out(self, identifier: Any, reason: str) -> None:
        """Note an annotation that no record has a place for."""
        self.left_out[reason].append(str(identifier))
        self.skipped.add(identifier)

    def wrong_offsets(self, start: int, end: int, said: str | None) -> tuple[str, str] | None:
        """Return what is wrong with the offsets of an entity, and the mend. `said` is the text that they are said to hold."""
        found = self.text[start:end]
        mend = "count characters (not bytes) of the text from 0"
        past_the_end = f"past the end of the {len(self.text)} characters of the text", mend
        if start >= len(self.text):
            return past_the_end
        if not 0 <= start < end or not found.strip():
            return "no word lies between these characters", "correct the offsets"
        if said is not None and _one_line(said) != _one_line(found):
            return f"the text has {show(found)} there, not {show(said)}", mend
        return past_the_end if end > len(self.text) else None

    def records(self, split_sentences: SentenceSplitter | None = None) -> list[dict[str, Any]]:
        """Return a record for each line that is not blank, or for each sentence.

        Lines leave out the entities that cross them; two sentences of which an entity holds parts are one. Relations
        from one to another are left out.
        """
        kind, pieces = "lines", self._lines()
        if split_sentences is not None:
            kind, pieces = "sentences", self._sentences(split_sentences)
        starts = [start for start, _ in pieces]
        places: dict[Any, tuple[int, int]] = {}  # piece, and position among the entities of its record
        inside: dict[int, list[Entity]] = defaultdict(list)
        for identifier, entity in self.entities.items():
            first, last = (bisect_right(starts, place) - 1 for place in self._ends(entity))
            if first != last:
                self.leave_out(identifier, f"entities across {kind}")
            else:
                places[identifier] = first, len(inside[first])
                inside[first].append(entity)
        relations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for identifier, relation, head, tail in self.relations:
            if head not in places or tail not in places:
                self.leave_out(identifier, "relations with an argument that was left out")
            elif places[head][0] != places[tail][0]:
                self.leave_out(identifier, f"relations across {kind}")
            else:
                (number, first), (_, second) = places[head], places[tail]
                relations[number].append({"type": relation, "head": first, "tail": second})
        return [
            self._record(number, piece, inside[number], relations[number])
            for number, piece in enumerate(pieces)
            if self.text[slice(*piece)].strip()
        ]

    def _record(
        self, number: int, piece: tuple[int, int], entities: list[Entity], relations: list[dict[str, Any]]
    ) -> dict[str, Any]:
        offset, end = piece
        text = self.text[offset:end]
        words = split_words(text, (border - offset for entity in entities for border in entity[1:]))
        spans = [word_span(words, entity.start - offset, entity.end - offset) for entity in entities]
        return {
            "tokens": [text[start:end] for start, end in words],
            "entities": [
                {"type": entity.type, "start": start, "end": end} for entity, (start, end) in zip(entities, spans)
            ],
            "relations": relations,
            "orig_id": f"{self.name}_{number}",
        }

    def _ends(self, entity: Entity) -> tuple[int, int]:
        """Return the places of an entity's first and last characters that are not white space."""
        text = self.text[entity.start : entity.end]
        return entity.end - len(text.lstrip()), entity.start + len(text.rstrip()) - 1

    def _lines(self) -> list[tuple[int, int]]:
        lengths = [len(line) for line in self.text.split("\n")]
        starts = accumulate((length + 1 for length in lengths[:-1]), initial=0)
        return [(start, start + length) for start, length in zip(starts, lengths)]

    def _sentences(self, split: SentenceSplitter) -> list[tuple[int, int]]:
        """Return the sentences, each up to the next one; those that one entity holds parts of are one."""
        starts = sorted({start for start, _ in split(self.text)} - {0})
        for entity in self.entities.values():
            first, last = self._ends(entity)
            del starts[bisect_right(starts, first) : bisect_right(starts, last)]
        return list(pairwise([0, *starts, len(self.text)]))

    def misplaced(self) -> Iterator[str]:
        """Yield the entities that begin or end within a word or with white space: ID, and the text between bars."""
        words = split_words(self.text)

        def around(border: int) -> tuple[int, int]:
            """Return the word that the border cuts."""
            start, end = words[bisect_left(words, border, key=itemgetter(1), hi=len(words) - 1)]
            return (start, end) if start < border < end else (border, border)

        for identifier, (_, start, end) in self.entities.items():
            begin, found, stop = around(start)[0], self.text[start:end], around(end)[1]
            if begin < start or end < stop or found != found.strip():
                yield f"{identifier} {show(f'{self.text[begin:start]}|{found}|{self.text[end:stop]}')}"


def convert_texts(
    texts: Sequence[AnnotatedText], file: str, split_sentences: SentenceSplitter | None = None
) -> Conversion:
    """Return the records of texts, and warnings: of what was left out, and of what hints at a slip of them all."""
    conversion = Conversion([], LabelSchema(()))
    left_out: dict[str, list[str]] = defaultdict(list)
    untouched: list[str] = []
    negatives = 0
    for text in texts:
        records = text.records(split_sentences)
        conversion.records.extend(records)
        for reason, identifiers in text.left_out.items():
            left_out[reason].extend(f"{text.name} {identifier}" for identifier in identifiers)
        if not text.entities and not text.left_out:
            untouched.append(text.name)
            negatives += len(records)
    for reason, what in left_out.items():
        problem = f"left out {len(what)} {reason} ({show(', '.join(what))})"
        conversion.warnings.append(Problem(file=file, problem=problem, mend="records have no place for them"))
    misplaced = [f"{text.place} {entity}" for text in texts for entity in text.misplaced()]
    if misplaced:
        entities = sum(len(text.entities) for text in texts)
        problem = (
            f"{len(misplaced)} of {entities} entities begin or end within a word, or with white space, as do entities "
            f"whose offsets are wrong (the first: {misplaced[0]})"
        )
        mend = "check the offsets: they count characters (not bytes) of the text from 0, the end is exclusive"
        conversion.warnings.append(Problem(file=file, problem=problem, mend=mend))
    if untouched:
        problem = (
            f"{len(untouched)} of {len(texts)} texts have no annotation, such as {', '.join(untouched[:3])}: their "
            f"{negatives} sentences are converted as sentences without entities"
        )
        mend = "leave out the texts that were not annotated"
        conversion.warnings.append(Problem(file=file, problem=problem, mend=mend))
    conversion.schema = LabelSchema.from_records(conversion.records)
    return conversion


class BrowserOffsets:
    """Offsets that count the 16-bit units of a browser's strings, where a character beyond U+FFFF (an emoji) is two."""

    def __init__(self, text: str):
        wide = not text.isascii() and max(text) > "\uffff"
        self._units = [0, *accumulate(1 + (character > "\uffff") for character in text)] if wide else None

    def characters(self, offset: Any) -> Any:
        """Return an offset in characters: -1 if no character begins or ends there; what is no integer, as it is."""
        if self._units is None or type(offset) is not int:
            return offset
        place = bisect_left(self._units, offset)
        return place if self._units[place : place + 1] == [offset] else -1


def _one_line(text: str) -> str:
    # as brat writes an entity that holds a line break
    return re.sub("[\r\n]", " ", text)
