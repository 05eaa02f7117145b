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
        if not 0 <= start < end or not found.strip():
            return "no word lies between these characters", "correct the offsets"
        mend = "count characters (not bytes) of the text from 0"
        if said is not None and _one_line(said) != _one_line(found):
            return f"the text has {show(found)} there, not {show(said)}", mend
        if end > len(self.text):
            return f"past the end of the {len(self.text)} characters of the text", mend
        return None

    def records(self, split_sentences: SentenceSplitter | None = None) -> list[dict[str, Any]]:
        """Return a record for each line that is not blank, or for each sentence.

        Lines leave out the entities that cross them; two sentences of which an entity holds parts are one. Relations
        from one to another are left out.
        """
        kind, pieces = "lines", self._lines()
        if split_sentences is not None:
            kind, pieces = "sentences", self._sentences(split_sentences)
        starts = [start for start, _ in pieces]
        piece_of: dict[Any, int] = {}
        inside: dict[int, list[Any]] = defaultdict(list)
        for identifier, entity in self.entities.items():
            first, last = (bisect_right(starts, place) - 1 for place in self._ends(entity))
            if first != last:
                self.leave_out(identifier, f"entities across {kind}")
            else:
                piece_of[identifier] = first
                inside[first].append(identifier)
        relations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for identifier, relation, head, tail in self.relations:
            if self.skipped.intersection((head, tail)):
                self.leave_out(identifier, "relations with an argument that was left out")
            elif piece_of[head] != piece_of[tail]:
                self.leave_out(identifier, f"relations across {kind}")
            else:
                places = {one: position for position, one in enumerate(inside[piece_of[head]])}
                relations[piece_of[head]].append({"type": relation, "head": places[head], "tail": places[tail]})
        return [
            self._record(number, piece, [self.entities[one] for one in inside[number]], relations[number])
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


def _one_line(text: str) -> str:
    # as brat writes an entity that holds a line break
    return re.sub("[\r\n]", " ", text)
