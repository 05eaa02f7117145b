"""brat's standoff format: `X.txt` with the text and `X.ann` with the annotations, or a folder of such pairs."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from ..problems import DataError, Problem
from ..reading import read_text
from .annotated_text import AnnotatedText, Entity, SentenceSplitter, convert_texts
from .conversion import Conversion

_ENTITY = re.compile(r"(\S+) ([0-9]{1,9}) ([0-9]{1,9})((?:;[0-9]+ [0-9]+)*)")
_RELATION = re.compile(r"(\S+) (\w+):(\S+) (\w+):(\S+)")
_OTHER = {"E": "events", "A": "attributes", "M": "attributes", "N": "normalizations", "#": "notes", "*": "sets"}


def read_brat(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read entities (T lines) and binary relations (R lines; the head is Arg1, or the first of other arguments).

    Of a folder, the folders in it are read too; hidden files are not. The suffixes may be in capitals. A record is a
    line of the text that is not blank, or a sentence; its orig_id is `NAME_NUMBER`, the file's name from the folder on
    and the number of the line or sentence, from 0. Words are those of `split_words`, cut at the borders of entities.
    What has no place in a record is left out, with a warning that counts and names it: discontinuous entities, entities
    and relations across lines, relations whose arguments were left out, and lines of other kinds. Warnings also count
    entities that cut a word or hold white space at an end, and documents without an annotation. Raises `DataError` with
    every problem of the files.
    """
    problems: list[Problem] = []
    documents: list[_Document] = []
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for text_path, annotation_path in brat_pairs(Path(path)):
        try:
            name = text_path.relative_to(folder).with_suffix("").as_posix()
            documents.append(_Document(text_path, annotation_path, name))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(problems)
    return convert_texts(documents, str(path), split_sentences)


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


class _Document(AnnotatedText):
    """One text with its annotations. Raises `DataError` with every problem of the pair."""

    def __init__(self, text_path: Path, annotation_path: Path, name: str):
        super().__init__(name, str(annotation_path), read_text(text_path))
        self.problems: list[Problem] = []
        self._read_annotations()
        if self.problems:
            raise DataError(self.problems)

    def _read_annotations(self) -> None:
        relations: list[tuple[int, list[str]]] = []
        for number, line in enumerate(read_text(self.place).split("\n"), start=1):
            columns = line.rstrip("\r").split("\t")
            identifier, kind = columns[0], line[:1]
            if identifier in self.entities or identifier in self.skipped and kind in ("T", "E"):
                self._add(number, line, "the ID is given more than once", "give each annotation its own")
            elif kind == "T" and len(columns) > 1:
                self._read_entity(number, columns)
            elif kind == "R" and len(columns) > 1:
                relations.append((number, columns))  # read later: their entities may come after them
            elif kind in _OTHER:
                self.leave_out(identifier, _OTHER[kind])
            elif line.strip():
                self._add(number, line, "an unknown kind of line", "write ID, tab, annotation")
        for number, columns in relations:
            self._read_relation(number, columns)

    def _read_entity(self, number: int, columns: list[str]) -> None:
        identifier, annotation, *said = columns
        match = _ENTITY.fullmatch(annotation)
        if not match:
            self._add(number, annotation, "no entity", "write TYPE START END")
            self.skipped.add(identifier)
            return
        kind, start, end = match[1], int(match[2]), int(match[3])
        if match[4]:
            self.leave_out(identifier, "discontinuous entities")
        elif wrong := self.wrong_offsets(start, end, said[0] if said else None):
            self._add(number, annotation, *wrong)
            self.skipped.add(identifier)
        else:
            self.entities[identifier] = Entity(kind, start, end)

    def _read_relation(self, number: int, columns: list[str]) -> None:
        match = _RELATION.fullmatch(columns[1].strip())
        if not match:
            self._add(number, columns[1], "no binary relation", "write TYPE Arg1:ID Arg2:ID")
            return
        kind, role, head, other_role, tail = match.groups()
        if (role, other_role) == ("Arg2", "Arg1"):
            head, tail = tail, head
        unknown = [one for one in (head, tail) if one not in self.entities and one not in self.skipped]
        if unknown:
            self._add(number, columns[1], f"there is no annotation {unknown[0]}", "correct the argument")
        else:
            self.relations.append((columns[0], kind, head, tail))

    def _add(self, number: int, value: str, problem: str, mend: str) -> None:
        self.problems.append(Problem(file=self.place, field=f"line {number}", value=value, problem=problem, mend=mend))
