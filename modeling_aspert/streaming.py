"""Streams of inputs from files of many kinds.

Memory does not grow with the size of the input (but for a JSON list, which is loaded whole, and bounded). Nothing is
skipped in silence: each line is a record or an `InputError`, one sentence with file, place and mend; blank lines of
JSONL and CSV are none.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import logging
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

# A record is held in memory, and a file without line breaks is one line.
MAX_RECORD_BYTES = 64 * 2**20
# A JSON list is held in memory as a whole, with several times this size.
MAX_LIST_BYTES = 512 * 2**20

_SUFFIXES = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
INPUT_FORMATS = ("text", "jsonl", "json", "csv", "tsv", "parquet")
_TEXT_FILE = re.compile(r"\.txt(\.gz)?\Z", re.IGNORECASE)

logger = logging.getLogger(__name__)

T = TypeVar("T")


class InputError(ValueError):
    """An input that cannot be read: one sentence with file, line and mend."""


@dataclass(frozen=True)
class InputRecord:
    """One input: either a text or words.

    id: the input's own ("id", else "orig_id"), for a file of a folder its name without suffix, else the number of the
    record over all inputs, from 0. source, line: where it comes from, line from 1 (the number of the record, from 0,
    where there are no lines; None for a whole file).
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
      column "id" gives the ids. A row of tsv is one line.

    Text is UTF-8, a byte-order mark is taken off. Raises InputError, at once for a file that does not exist, an
    unknown format or a column of text, and for the rest when it is met.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if format is not None and format not in INPUT_FORMATS:
        raise InputError(f"unknown input format {format!r}: choose one of {', '.join(INPUT_FORMATS)}")
    for path in paths:
        if str(path) != "-" and not os.path.exists(path):
            raise InputError(f"{path}: no such file or folder (a text itself is given with --text)")
        if column is not None and (os.path.isdir(path) or _format_of(str(path), format) == "text"):
            raise InputError(
                f"{path}: taken for text, but --column {column} goes with jsonl, json, csv, tsv or parquet: say "
                "--input-format, or leave out --column"
            )
    return _read_paths([str(path) for path in paths], column, format)


def _read_paths(paths: list[str], column: str | None, format: str | None) -> Iterator[InputRecord]:
    number = 0
    for path in paths:
        try:
            for own_id, text, tokens, source, line in _read_path(path, column, format):
                yield InputRecord(number if own_id is None else own_id, text, tokens, source, line)
                number += 1
        except OSError as error:
            where, reason = error.filename or path, error.strerror or error
            raise InputError(f"{where}: {reason}, check the path and its permissions") from error


# (id or None, text or None, tokens or None, source, line or None)
_Row = tuple[str | int | None, str | None, list[str] | None, str, int | None]


def _read_path(path: str, column: str | None, format: str | None) -> Iterator[_Row]:
    if path != "-" and os.path.isdir(path):
        if format not in (None, "text"):
            raise InputError(f"{path} is a folder: as input it holds .txt files, not {format}")
        yield from _read_folder(path)
        return
    guessed = format is None
    format = _format_of(path, format)
    if format == "parquet":
        yield from _read_parquet(path, column)
        return
    with _open(path) as file:
        if format == "json":
            yield from _read_json(file, path, column)
        elif format == "jsonl":
            yield from _read_jsonl(file, path, column)
        elif format == "text":
            for number, line in _lines(file, path):
                if guessed and line.strip():
                    _check_no_json(line, path)
                    guessed = False
                yield None, line.removesuffix("\n").removesuffix("\r"), None, path, number
        else:
            yield from _read_csv(file, path, column, delimiter="\t" if format == "tsv" else ",")


def _is_gzip(path: str) -> bool:
    return path.lower().endswith(".gz")


def _format_of(path: str, format: str | None) -> str:
    """`format`, or the one that the suffix of a file means."""
    return format or _SUFFIXES.get(Path(path[:-3] if _is_gzip(path) else path).suffix.lower(), "text")


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed: name a file")
        yield sys.stdin.buffer
    elif not _is_gzip(path):
        with open(path, "rb") as file:
            yield file
    else:
        try:
            if os.path.isfile(path) and not os.path.getsize(path):
                raise EOFError("it has no bytes")
            with gzip.open(path, "rb") as file:
                yield file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path}: no whole gzip file ({error}), write or download it again, or take off the .gz of a file "
                "that is not compressed"
            ) from error


def _lines(file: IO[bytes], path: str) -> Iterator[tuple[int, str]]:
    """Lines with their ends, numbered from 1. Only a line feed ends a line."""
    for number in itertools.count(1):
        line = file.readline(MAX_RECORD_BYTES + 1)
        if not line:
            return
        yield number, _decode(line, path, number)


def _check_no_json(line: str, path: str) -> None:
    """Raise InputError for a first line of JSON records: taken for a text, their ids and offsets would be wrong."""
    if re.match(r'\s*\[\s*(\{\s*("|\Z)|\Z)', line):
        raise InputError(f"{path}: looks like a JSON list: say --input-format json, or text where it is one")
    try:
        value = json.loads(line) if line.lstrip().startswith("{") else None
    except ValueError:
        return
    if isinstance(value, dict) and not value.keys().isdisjoint(("text", "tokens")):
        raise InputError(f"{path}: looks like JSON lines: say --input-format jsonl, or text where it is one")


def _decode(data: bytes, path: str, line: int) -> str:
    """The UTF-8 text of a record that begins on line `line`."""
    if len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{path}, line {line}: longer than {MAX_RECORD_BYTES} bytes, cut it into several records")
    if line == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        raise InputError(
            f"{path}, line {line + before.count(10)}: byte {error.start - before.rfind(10)} "
            f"(0x{data[error.start]:02x}) is not UTF-8, convert the file to UTF-8"
        ) from error


def input_files(paths: Iterable[str | os.PathLike]) -> Iterator[str]:
    """The files that `read_inputs` reads: of a folder the texts, by name; "-" is standard input."""
    for path in map(str, paths):
        if path != "-" and os.path.isdir(path):
            yield from (os.path.join(path, name) for name in _folder(path)[0])
        else:
            yield path


def _folder(path: str) -> tuple[list[str], list[str]]:
    """The names of a folder's texts, and of what else is in it; hidden files are neither."""
    texts, others = [], []
    for name in sorted(name for name in os.listdir(path) if not name.startswith(".")):
        is_text = _TEXT_FILE.search(name) and not os.path.isdir(os.path.join(path, name))
        (texts if is_text else others).append(name)
    return texts, others


def _read_folder(path: str) -> Iterator[_Row]:
    texts, others = _folder(path)
    if not texts:
        raise InputError(f"{path}: the folder holds no .txt file")
    if others:
        logger.warning(
            "%s: left out %d files or folders that are no .txt files, such as %r: name them too",
            path,
            len(others),
            others[0],
        )
    for name in texts:
        source = os.path.join(path, name)
        with _open(source) as file:
            text = _decode(file.read(MAX_RECORD_BYTES + 1), source, 1)
        yield _TEXT_FILE.sub("", name), text, None, source, None


def _read_jsonl(file: IO[bytes], path: str, column: str | None) -> Iterator[_Row]:
    for number, line in _lines(file, path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        yield *_fields(_parse(line, where), column, where), path, number


def _read_json(file: IO[bytes], path: str, column: str | None) -> Iterator[_Row]:
    data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise InputError(
            f"{path}: a JSON list of more than {MAX_LIST_BYTES} bytes, which would be loaded whole: write an object a "
            "line to a file *.jsonl, of which any size is read"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no JSON ({error}), convert the file to UTF-8") from error
    del data
    values = _parse(text, path)
    del text
    if not isinstance(values, list):
        raise InputError(f"{path}: expected a list of records, found {_json_type(values)}; name JSON lines *.jsonl")
    for number, value in enumerate(values):
        yield *_fields(value, column, f"{path}, record {number}"), path, number


class _Repeated(Counter):
    """How often a JSON object has each key, in place of an object that has one more than once."""


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON ({error}), correct it there or write the file again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _Repeated(Counter(key for key, _ in pairs))


def _fields(value: Any, column: str | None, where: str) -> tuple[str | int | None, str | None, list[str] | None]:
    """Id, text and tokens of a JSON object."""
    if not isinstance(value, dict):
        raise InputError(f'{where}: expected an object such as {{"text": "..."}}, found {_json_type(value)}')
    if isinstance(value, _Repeated):
        raise InputError(f"{where}: the key {value.most_common(1)[0][0]!r} is given more than once, keep one of them")
    own_id = value["id"] if value.get("id") is not None else value.get("orig_id")
    if own_id is not None and type(own_id) not in (str, int):
        raise InputError(f"{where}: the id is {_json_type(own_id)}, give a string or an integer")
    name = column or "text"
    if name in value:
        if not isinstance(value[name], str):
            raise InputError(f"{where}: {name!r} is {_json_type(value[name])}, give a string")
        return own_id, value[name], None
    if column is not None or "tokens" not in value:
        raise InputError(f"{where}: no field {name!r}, only {_listed(value)}")
    tokens = value["tokens"]
    if not isinstance(tokens, list):
        raise InputError(f"{where}: 'tokens' is {_json_type(tokens)}, give a list of words")
    for index, token in enumerate(tokens):
        if not isinstance(token, str) or not token:
            raise InputError(f"{where}: tokens[{index}] is {json.dumps(token)}, give a word")
    return own_id, None, tokens


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _text_column(names: list[str], column: str | None, path: str) -> str:
    chosen = column or ("text" if "text" in names or len(names) != 1 else names[0])
    if names.count(chosen) != 1:
        problem = "several columns" if chosen in names else "no column"
        raise InputError(
            f"{path}: {problem} {chosen!r}, choose the column of the texts; the columns are {_listed(names)}"
        )
    return chosen


def _check_delimiter(names: list[str], column: str | None, path: str, delimiter: str) -> None:
    """Raise InputError for a header that another delimiter divides: whole rows would be taken for texts."""
    mends = {",": "say --input-format csv", "\t": "say --input-format tsv", ";": "save the table with commas"}
    others = [mark for mark in mends if mark != delimiter and mark in names[0]]
    if len(names) == 1 and others and names[0] != column:
        raise InputError(
            f"{path}: the header {names[0]!r} is divided by {others[0]!r}, not by {delimiter!r}: {mends[others[0]]}"
        )


def _read_csv(file: IO[bytes], path: str, column: str | None, delimiter: str) -> Iterator[_Row]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    reader = csv.reader((line for _, line in _lines(file, path)), delimiter=delimiter, strict=True)
    tabs = delimiter == "\t"
    # most programs write TSV without quoting: a text that begins with a quotation mark would go on over many lines
    mend = ", put a field that begins with a quote in quotes and double those in it, or write JSONL" if tabs else ""
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1  # where the row begins
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: no CSV ({error}){mend}") from error
        if row is None:
            break
        if tabs and reader.line_num > line:
            raise InputError(f"{path}, line {line}: a quoted field that goes on in the next line{mend}")
        if not row:
            continue
        if names is None:
            names = row
            _check_delimiter(names, column, path, delimiter)
            text_at = names.index(_text_column(names, column, path))
            if len(names) == 1 and names[0] not in (column, "text"):
                logger.warning(
                    "%s: %r is taken for the name of the column; a file without one is read with --input-format text",
                    path,
                    names[0],
                )
            id_at = names.index("id") if "id" in names and names[text_at] != "id" else None
        elif len(row) != len(names):
            raise InputError(f"{path}, line {line}: {len(row)} fields, but the header has {len(names)}")
        else:
            own_id = row[id_at] if id_at is not None else None
            yield own_id or None, row[text_at], None, path, line
    if names is None:
        raise InputError(f"{path}: empty, a table begins with a line of column names")


def _read_parquet(path: str, column: str | None) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path == "-" or _is_gzip(path):
        raise InputError(f"{path}: Parquet is read from an uncompressed file, not from a stream")
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as table:
            names = table.schema_arrow.names
            chosen = _text_column(names, column, path)
            kind = table.schema_arrow.field(chosen).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise InputError(f"{path}: column {chosen!r} holds {kind}, not strings")
            id_column = ["id"] if names.count("id") == 1 and chosen != "id" else []
            number = -1
            for batch in table.iter_batches(batch_size=1000, columns=[chosen, *id_column]):
                ids = batch.column("id").to_pylist() if id_column else [None] * len(batch)
                for own_id, text in zip(ids, batch.column(chosen).to_pylist()):
                    number += 1
                    if text is None:
                        raise InputError(f"{path}, record {number}: {chosen!r} is null, give a string")
                    own_id = own_id if own_id is None or isinstance(own_id, int) else str(own_id)
                    yield own_id, text, None, path, number
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # what is damaged is an OSError without a number to pyarrow
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: no Parquet that can be read ({reason}): write or download it again") from error


def count_records(paths: Sequence[str | os.PathLike], format: str | None = None) -> int | None:
    """How many records inputs have at most, for the time left: lines, Parquet's rows, files of a folder.

    None where only reading all of it would tell: standard input, pipes, gzip, a JSON list, what cannot be read.
    """
    total = 0
    try:
        for path in map(str, paths):
            kind = _format_of(path, format)
            if path != "-" and os.path.isdir(path):
                total += len(list(input_files([path])))
            elif path == "-" or not os.path.isfile(path) or _is_gzip(path) or kind == "json":
                return None
            elif kind == "parquet":
                import pyarrow.parquet as pq

                total += pq.read_metadata(path).num_rows
            else:
                with open(path, "rb") as file:
                    block = b"\n"
                    while more := file.read(2**20):
                        block = more
                        total += block.count(b"\n")
                    total += not block.endswith(b"\n")
                    total -= kind in ("csv", "tsv")
    except (OSError, ValueError):  # pyarrow's errors are either
        return None
    return total
