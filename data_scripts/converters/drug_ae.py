"""DRUG-AE.rel of the ADE corpus: one relation a line, in columns parted by `|`."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any, NamedTuple

from ..problems import DataError, Problem
from ..reading import read_text
from ..schema import LabelSchema
from .conversion import Conversion, split_words, word_span

SCHEMA = LabelSchema(entity_types=("Drug", "Adverse-Effect"), relation_types=("Adverse-Effect",))


class _Mention(NamedTuple):
    type: str
    text: str
    start: int  # characters of the document
    end: int


def read_drug_ae(path: str | PathLike[str]) -> Conversion:
    """Read sentences with adverse effects (the heads) and drugs (the tails).

    The lines of one sentence of one document make one record, in the order of the file; its orig_id counts the
    sentences from 0, as in SpERT's ade_full.json. Words are those of `split_words`, cut at the borders of entities.
    Raises `DataError` with every problem of the file.
    """
    file = str(path)
    sentences: dict[tuple[str, str], list[tuple[int, _Mention, _Mention]]] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        columns = line.rstrip("\r").split("|")
        try:
            pair = _mentions(columns)
        except ValueError as error:
            mend = "write ID|SENTENCE|EFFECT|START|END|DRUG|START|END"
            problems.append(Problem(file=file, field=f"line {number}", value=line, problem=str(error), mend=mend))
        else:
            sentences.setdefault((columns[0], columns[1]), []).append((number, *pair))
    records = []
    for (_, sentence), lines in sentences.items():
        place = {"file": file, "field": f"line {lines[0][0]}", "value": sentence}
        mentions = [mention for _, *pair in lines for mention in pair]
        shifts = _sentence_starts(sentence, mentions)
        if not shifts:
            problem = "the characters of the effects and drugs agree with no place of the sentence in the document"
            problems.append(Problem(problem=problem, mend="correct the offsets", **place))
            continue
        if len(shifts) > 1:
            problem = f"the offsets leave {len(shifts)} ways to find the effect and the drug; the last one was taken"
            warnings.append(Problem(problem=problem, mend="check the record", **place))
        records.append(_record(sentence, min(shifts), [pair for _, *pair in lines], len(records)))
    if problems:
        raise DataError(problems)
    return Conversion(records, SCHEMA, warnings)


def _mentions(columns: list[str]) -> tuple[_Mention, _Mention]:
    """Return effect and drug without white space around them. Raises `ValueError`."""
    if len(columns) != 8:
        raise ValueError(f"{len(columns)} columns, not 8")
    mentions = []
    for kind, (text, start, end) in (("Adverse-Effect", columns[2:5]), ("Drug", columns[5:8])):
        if not (start.strip().isdecimal() and end.strip().isdecimal()):
            raise ValueError(f"the offsets {start!r} and {end!r} are not both integers")
        word = text.strip()
        if not word or int(end) - int(start) != len(text):
            raise ValueError(f"the offsets {start} and {end} do not fit {text!r} with its {len(text)} characters")
        char_start = int(start) + text.index(word)
        mentions.append(_Mention(kind, word, char_start, char_start + len(word)))
    return tuple(mentions)


def _sentence_starts(sentence: str, mentions: list[_Mention]) -> set[int]:
    """Return where in the document the sentence can begin, so that every mention is found at its offset."""
    starts = [
        {mention.start - match.start() for match in re.finditer(f"(?={re.escape(mention.text)})", sentence)}
        for mention in mentions
    ]
    return set.intersection(*starts)


def _record(sentence: str, sentence_start: int, pairs: list[tuple[_Mention, _Mention]], number: int) -> dict[str, Any]:
    spans = {(mention.start, mention.end) for pair in pairs for mention in pair}
    words = split_words(sentence, (border - sentence_start for span in spans for border in span))
    entities: list[dict[str, Any]] = []
    relations: list[dict[str, Any]] = []
    for pair in pairs:
        ends = []
        for mention in pair:
            start, end = word_span(words, mention.start - sentence_start, mention.end - sentence_start)
            entity = {"type": mention.type, "start": start, "end": end}
            if entity not in entities:
                entities.append(entity)
            ends.append(entities.index(entity))
        relations.append({"type": "Adverse-Effect", "head": ends[0], "tail": ends[1]})
    tokens = [sentence[start:end] for start, end in words]
    return {"tokens": tokens, "entities": entities, "relations": relations, "orig_id": number}
