"""Streams of inputs from files of many kinds, and an output that can be resumed after a kill.

Memory does not grow with the size of the input (but for a JSON list, which is loaded whole). Nothing is skipped in
silence: each line is a record or an `InputError`, one sentence with file and line; only blank lines of JSONL are none.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .record_writer import Record, json_line, output_target

# A record is held in memory, and a file without line breaks is one line.
MAX_RECORD_BYTES = 64 * 2**20

_SUFFIXES = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
INPUT_FORMATS = ("text", "jsonl", "json", "csv", "tsv", "parquet")


class InputError(ValueError):
    """An input that cannot be read: one sentence with file, line and mend."""


@dataclass(frozen=True)
class InputRecord:
    """One input: either a text or words.

    id: the input's own ("id" or "orig_id"), for a file of a folder its name without suffix, else the number of the
    record over all inputs, from 0. source, line: where it comes from, line from 1 (a table's row where there are no
    lines; None for a whole file).
    """

    id: str | int
    text: str | None
    tokens: list[str] | None
    source: str
    line: int | None


def read_inputs(
    paths: Sequence[str | os.PathLike], column: str | None = None, format: str | None = None
) -> Iterator[InputRecord]:
    """The records of files, folders and standard input ("-"), in order.

    format: one of `INPUT_FORMATS`; by default by the suffix, text where that is unknown. A further `.gz` means
    gzip.

    - text: a record a line, blank lines too. A folder: a record a file of those named *.txt or *.txt.gz, by name.
    - jsonl: an object a line, with a text ("text", or `column`) or with words ("tokens").
    - json: a list of such objects, as SpERT's data files are.
    - csv, tsv, parquet: a record a row; `column` is the one with the texts, by default "text", or the only one. A
      column "id" gives the ids. In Parquet null is the empty text.

    Text is UTF-8, a byte-order mark is taken off. Raises InputError.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if format is not None and format not in INPUT_FORMATS:
        raise InputError(f"unknown input format {format!r}: choose one of {', '.join(INPUT_FORMATS)}")
    number = 0
    for path in map(str, paths):
        for own_id, text, tokens, line in _read_path(path, column, format):
            yield InputRecord(number if own_id is None else own_id, text, tokens, path, line)
            number += 1
