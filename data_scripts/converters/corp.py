"""Roth and Yih's `.corp`, the form in which CoNLL04 is distributed."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any

from ..problems import DataError, Problem, show
from ..reading import read_text
from ..schema import LabelSchema
from .conversion import Conversion

# The corpus writes these characters as names. What is not listed stays as it is: SpERT's files keep -LCB-, too.
WORDS = {"COMMA": ",", "-LRB-": "(", "-RRB-": ")"}


def read_corp(path: str | PathLike[str]) -> Conversion:
    """Read sentences of nine tab-separated columns a line, each followed by its relations.

    Of the columns count the sentence's number (the orig_id), the entity type (`O` for none), the line's number in the
    sentence and, sixth, the word; an entity is one line, its words joined by `/`. A relation is a line of three
    columns: the line numbers of head and tail, and the type. Blank lines part sentences and relations. All sentences
    are read, also those without relations, which the usual split leaves out. Raises `DataError` with every problem.
    """
    records: list[dict[str, Any]] = []
    problems: list[Problem] = []
    rows: set[str] = set()  # line numbers in the sentence
    entities: dict[str, int] = {}  # those of entities → entity
    in_sentence = False
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        columns = line.rstrip("\r").split("\t")
        problem = None
        if not line.strip():
            in_sentence = False
        elif len(columns) == 9:
            sentence, kind, row, _, _, word = columns[:6]
            orig_id = int(sentence) if re.fullmatch(r"[0-9]{1,9}", sentence) else sentence
            if not in_sentence or records[-1]["orig_id"] != orig_id:
                records.append({"tokens": [], "entities": [], "relations": [], "orig_id": orig_id})
                rows, entities = set(), {}
            in_sentence = True
            if row in rows:
                problem = f"the line number {show(row)} is given more than once in the sentence"
                mend = "give each line of the sentence its own in the third column"
            rows.add(row)
            tokens = records[-1]["tokens"]
            words = word.split("/") if kind != "O" and word.strip("/") else [word]  # "/" itself is a word
            if kind != "O":
                entities[row] = len(entities)
                records[-1]["entities"].append({"type": kind, "start": len(tokens), "end": len(tokens) + len(words)})
            tokens.extend(WORDS.get(part, part) for part in words)
        elif len(columns) == 3:
            head, tail, kind = columns
            if head in entities and tail in entities:
                records[-1]["relations"].append({"type": kind, "head": entities[head], "tail": entities[tail]})
            else:
                known = ", ".join(entities) or "none"
                problem, mend = "head or tail is no entity", f"write lines of the sentence's entities ({known})"
        else:
            problem, mend = f"{len(columns)} columns", "write 9 for a word, 3 for a relation, parted by tabs"
        if problem:
            place = {"file": str(path), "field": f"line {number}", "value": line}
            problems.append(Problem(problem=problem, mend=mend, **place))
    if problems:
        raise DataError(problems)
    return Conversion(records, LabelSchema.from_records(records))
