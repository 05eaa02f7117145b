"""brat's standoff format: `X.txt` with the text and `X.ann` with the annotations, or a folder of such pairs."""

from __future__ import annotations

import os.path
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from ..problems import DataError, Problem, show
from ..reading import read_text
from ..schema import LabelSchema
from .conversion import Conversion, split_words, word_span

_ENTITY = re.compile(r"(\S+) ([0-9]{1,9}) ([0-9]{1,9})((?:;[0-9]+ [0-9]+)*)")
_RELATION = re.compile(r"(\S+) (\w+):(\S+) (\w+):(\S+)")
_OTHER = {"E": "events", "A": "attributes", "M": "attributes", "N": "normalizations", "#": "notes", "*": "sets"}


class _Entity(NamedTuple):
    type: str
    start: int  # characters of the text
    end: int
    line: int


def read_brat(path: str | PathLike[str]) -> Conversion:
    """Read entities (T lines) and binary relations (R lines; the head is Arg1, or the first of other arguments).

    Of a folder, the folders in it are read too; hidden files are not. The suffixes may be in capitals. A record is a
    line of the text that is not blank; its orig_id is `NAME_NUMBER`, the file's name from the folder on and the number
    of the line, from 0. Words are those of `split_words`, cut at the borders of entities. What has no place in a
    record is left out, with a warning that counts and names it: discontinuous entities, entities and relations across
    lines, relations whose arguments were left out, and lines of other kinds. Warnings also count entities that cut a
    word or hold white space at an end, and documents without an annotation. Raises `DataError` with every problem of
    the files.
    """
    conversion = Conversion([], LabelSchema(()))
    problems: list[Problem] = []
    documents: list[_Document] = []
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for text_path, annotation_path in brat_pairs(Path(path)):
        try:
            document = _Document(text_path, annotation_path, text_path.relative_to(folder).with_suffix("").as_posix())
        except DataError as error:
            problems.extend(error.problems)
        else:
            conversion.records.extend(document.records())
            conversion.warnings.extend(document.warnings())
            documents.append(document)
    if problems:
        raise DataError(problems)
    conversion.warnings.extend(_doubts(documents, str(path)))
    conversion.schema = LabelSchema.from_records(conversion.records)
    return conversion


def _doubts(documents: list[_Document], path: str) -> Iterator[Problem]:
    """Yield what hints at a slip of the whole conversion, one warning each: it often touches every file."""
    misplaced = [f"{document.file} {place}" for document in documents for place in document.misplaced()]
    if misplaced:
        entities = sum(len(document.entities) for document in documents)
        yield Problem(
            file=path,
            problem=f"{len(misplaced)} of {entities} entities begin or end within a word, or with white space, as do "
            f"entities whose offsets are wrong (the first: {misplaced[0]})",
            mend="check the offsets: they count characters (not bytes) of the .txt file from 0, the end is exclusive",
        )
    untouched = [document for document in documents if not document.entities and not document.left_out]
    if untouched:
        sentences = sum(len(document.records()) for document in untouched)
        yield Problem(
            file=path,
            problem=f"{len(untouched)} of {len(documents)} .ann files are empty, such as "
            f"{', '.join(f'{document.name}.ann' for document in untouched[:3])}: their {sentences} sentences are "
            "converted as sentences without entities",
            mend="leave out the documents that were not annotated",
        )


def brat_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of text and annotations of a folder and of the folders in it (no hidden ones), or one pair.

    Whether both files are there is left to their reader. Raises `DataError` where a folder holds neither.
    """
    if not path.is_dir():
        return [_pair(path, os.path.exists)]
    files = {file for file in path.rglob("*") if file.suffix.lower() in (".txt", ".ann")}
    files = {file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)}
    if not files:
        problem, mend = "holds no .txt and .ann files", "name the folder that does"
        raise DataError([Problem(file=str(path), problem=problem, mend=mend)])
    return sorted({_pair(file, files.__contains__) for file in files})


def _pair(file: Path, is_there: Callable[[Path], bool]) -> tuple[Path, Path]:
    """Return the text and the annotations of which `file` is one; the case of their suffixes may differ."""

    def find(suffix: str) -> Path:
        if file.suffix.lower() == suffix:
            return file
        paths = [file.with_suffix(suffix), file.with_suffix(suffix.upper())]
        if file.suffix.isupper():
            paths.reverse()
        return next(filter(is_there, paths), paths[0])

    return find(".txt"), find(".ann")


class _Document:
    """One text with its annotations. Raises `DataError` with every problem of the pair."""

    def __init__(self, text_path: Path, annotation_path: Path, name: str):
        self.name = name
        self.file = str(annotation_path)
        self.text = read_text(text_path)
        self.lines = self.text.split("\n")
        self.line_starts = list(accumulate((len(line) + 1 for line in self.lines[:-1]), initial=0))
        self.entities: dict[str, _Entity] = {}
        self.relations: list[tuple[str, _Entity, _Entity]] = []
        self.left_out: dict[str, list[str]] = defaultdict(list)  # reason → what
        self.problems: list[Problem] = []
        self._read_annotations()
        if self.problems:
            raise DataError(self.problems)

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each line that is not blank."""
        entities_of: dict[int, list[_Entity]] = defaultdict(list)
        for entity in self.entities.values():
            entities_of[entity.line].append(entity)
        relations_of: dict[int, list[tuple[str, _Entity, _Entity]]] = defaultdict(list)
        for relation in self.relations:
            relations_of[relation[1].line].append(relation)
        records = []
        for number, line in enumerate(self.lines):
            if not line.strip():
                continue
            offset = self.line_starts[number]
            entities = entities_of[number]
            words = split_words(
                line, (border - offset for entity in entities for border in (entity.start, entity.end))
            )
            spans = [word_span(words, entity.start - offset, entity.end - offset) for entity in entities]
            records.append(
                {
                    "tokens": [line[start:end] for start, end in words],
                    "entities": [
                        {"type": entity.type, "start": start, "end": end}
                        for entity, (start, end) in zip(entities, spans)
                    ],
                    "relations": [
                        {"type": kind, "head": entities.index(head), "tail": entities.index(tail)}
                        for kind, head, tail in relations_of[number]
                    ],
                    "orig_id": f"{self.name}_{number}",
                }
            )
        return records

    def warnings(self) -> list[Problem]:
        """Return a warning for each reason to leave something out."""
        mend = "records have no place for them"
        return [
            Problem(file=self.file, problem=f"left out {len(what)} {reason} ({show(', '.join(what))})", mend=mend)
            for reason, what in self.left_out.items()
        ]

    def misplaced(self) -> Iterator[str]:
        """Yield the entities that begin or end within a word or with white space: ID, and the text between bars."""
        words = split_words(self.text)

        def around(border: int) -> tuple[int, int]:
            """Return the word that the border cuts."""
            start, end = words[bisect_left(words, border, key=itemgetter(1), hi=len(words) - 1)]
            return (start, end) if start < border < end else (border, border)

        for identifier, (_, start, end, _) in self.entities.items():
            begin, found, stop = around(start)[0], self.text[start:end], around(end)[1]
            if begin < start or end < stop or found != found.strip():
                yield f"{identifier} {show(f'{self.text[begin:start]}|{found}|{self.text[end:stop]}')}"

    def _read_annotations(self) -> None:
        skipped: set[str] = set()
        relations: list[tuple[int, list[str]]] = []
        for number, line in enumerate(read_text(self.file).split("\n"), start=1):
            columns = line.rstrip("\r").split("\t")
            identifier, kind = columns[0], line[:1]
            if identifier in self.entities or identifier in skipped and kind in ("T", "E"):
                self._add(number, line, "the ID is given more than once", "give each annotation its own")
            elif kind == "T" and len(columns) > 1:
                if not self._read_entity(number, columns):
                    skipped.add(identifier)
            elif kind == "R" and len(columns) > 1:
                relations.append((number, columns))  # read later: their entities may come after them
            elif kind in _OTHER:
                self.left_out[_OTHER[kind]].append(identifier)
                skipped.add(identifier)
            elif line.strip():
                self._add(number, line, "an unknown kind of line", "write ID, tab, annotation")
        for number, columns in relations:
            self._read_relation(number, columns, skipped)

    def _read_entity(self, number: int, columns: list[str]) -> bool:
        """Note an entity. Returns whether it has a place in a record."""
        match = _ENTITY.fullmatch(columns[1])
        if not match:
            self._add(number, columns[1], "no entity", "write TYPE START END")
            return False
        kind, start, end = match[1], int(match[2]), int(match[3])
        if match[4]:
            self.left_out["discontinuous entities"].append(columns[0])
            return False
        found = self.text[start:end]
        if not found.strip():
            self._add(number, columns[1], "no word lies between these characters", "correct the offsets")
            return False
        problem = ""
        if len(columns) > 2 and columns[2] != re.sub("[\r\n]", " ", found):
            problem = f"the text has {show(found)} there, not {show(columns[2])}"
        elif end > len(self.text):
            problem = f"past the end of the {len(self.text)} characters of the text"
        if problem:
            self._add(number, columns[1], problem, "count characters (not bytes) of the .txt file from 0")
            return False
        line = bisect_right(self.line_starts, start) - 1
        if end > self.line_starts[line] + len(self.lines[line]):
            self.left_out["entities across lines"].append(columns[0])
            return False
        self.entities[columns[0]] = _Entity(kind, start, end, line)
        return True

    def _read_relation(self, number: int, columns: list[str], skipped: set[str]) -> None:
        match = _RELATION.fullmatch(columns[1].strip())
        if not match:
            self._add(number, columns[1], "no binary relation", "write TYPE Arg1:ID Arg2:ID")
            return
        kind, role, head_id, other_role, tail_id = match.groups()
        arguments = [head_id, tail_id]
        if (role, other_role) == ("Arg2", "Arg1"):
            arguments.reverse()
        unknown = [argument for argument in arguments if argument not in self.entities and argument not in skipped]
        if unknown:
            self._add(number, columns[1], f"there is no annotation {unknown[0]}", "correct the argument")
            return
        if skipped.intersection(arguments):
            self.left_out["relations with an argument that was left out"].append(columns[0])
            return
        head, tail = (self.entities[argument] for argument in arguments)
        if head.line != tail.line:
            self.left_out["relations across lines"].append(columns[0])
        else:
            self.relations.append((kind, head, tail))

    def _add(self, number: int, value: str, problem: str, mend: str) -> None:
        self.problems.append(Problem(file=self.file, field=f"line {number}", value=value, problem=problem, mend=mend))
