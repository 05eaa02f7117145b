"""Strict reading of JSON and JSONL files.

Python's `json` lets repeated keys, NaN and Infinity pass; here they are errors, named with their record and field.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from .problems import DataError, Problem

JSONL_SUFFIXES = (".jsonl", ".ndjson")
_WHITESPACE = re.compile(r"[ \t\r\n]*")


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Return the content of a file; raise `DataError` where it is missing, a directory or unreadable."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        problem, mend = "does not exist", "check the path"
    except IsADirectoryError:
        problem, mend = "is a directory, not a file", "name a file inside it"
    except PermissionError:
        problem, mend = "may not be read", "give yourself the permission to read it"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem, mend = f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the path"
    raise DataError([Problem(file=str(path), problem=problem, mend=mend)])


def read_text(path: str | PathLike[str]) -> str:
    """Return the text of a UTF-8 file. A UTF-8 byte order mark is accepted and left out; line ends stay as they are.

    Raises `DataError` where the file is missing, unreadable or not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"not UTF-8 (byte 0x{error.object[error.start]:02x} in line {line})"
        raise DataError([Problem(file=str(path), problem=problem, mend="save the file as UTF-8")]) from None


def read_json(path: str | PathLike[str]) -> Any:
    """Return the value of a JSON file. Raises `DataError` where it is not strict JSON."""
    text, decoder = _open(path)
    value, end = decoder.decode(_skip(text, 0), None)
    if end < len(text):
        raise decoder.syntax_error(end, None, "more text after the end")
    if decoder.problems:
        raise DataError(decoder.problems)
    return value


def read_records(path: str | PathLike[str], lines: bool | None = None) -> list[dict[str, Any]]:
    """Return the objects of a JSON file (one list) or of a JSONL file (one object a line; blank lines are skipped).

    `lines` tells whether it is JSONL; None goes by the name (`.jsonl`, `.ndjson`). Only the syntax is checked here;
    `validate_records` checks what the objects say. Raises `DataError`.
    """
    text, decoder = _open(path)
    if lines is None:
        lines = Path(path).suffix.lower() in JSONL_SUFFIXES
    records = []
    for index, value in (_lines if lines else _items)(text, decoder):
        records.append(value)
        if not isinstance(value, dict):
            decoder.problems.append(not_an_object(str(path), index, value))
    if decoder.problems:
        raise DataError(decoder.problems)
    return records


def json_type(value: Any) -> str:
    """Return JSON's name for the type of a value, with its article."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    for kind, name in (
        (dict, "an object"),
        (list, "a list"),
        (str, "a string"),
        (bool, "a boolean"),  # before int: True is an int to Python
        (int, "an integer"),
        (float, "a number with a fraction"),
        (type(None), "null"),
    ):
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"


def not_an_object(file: str, record: int, value: Any) -> Problem:
    """Return the problem of a record that is no JSON object."""
    problem, mend = f"{json_type(value)}, not an object", "write an object { }, or leave it out"
    return Problem(file=file, record=record, field="record", value=value, problem=problem, mend=mend)


def _open(path: str | PathLike[str]) -> tuple[str, _Decoder]:
    text = read_text(path)
    if _skip(text, 0) == len(text):
        problem, mend = "the file is empty", "write it again, or leave it out"
        raise DataError([Problem(file=str(path), problem=problem, mend=mend)])
    return text, _Decoder(str(path), text)


def _skip(text: str, position: int) -> int:
    """Return the position of the first character from `position` on that is not white space."""
    return _WHITESPACE.match(text, position).end()


def _items(text: str, decoder: _Decoder) -> Iterator[tuple[int, Any]]:
    """Yield the numbered items of a JSON list, one by one so that a syntax error can name its record."""
    position = _skip(text, 0)
    if text[position] != "[":
        value, _ = decoder.decode(position, None)
        problem = f"the top level is {json_type(value)}, not a list"
        mend = "put the records between [ and ], or name the file .jsonl if it has one object a line"
        raise DataError([Problem(file=decoder.file, problem=problem, mend=mend)])
    position = _skip(text, position + 1)
    index = 0
    while index or text[position : position + 1] != "]":
        value, position = decoder.decode(position, index)
        yield index, value
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            raise decoder.syntax_error(position, index, "expected , or ] after the record")
        position = _skip(text, position + 1)
        index += 1
    position = _skip(text, position + 1)
    if position < len(text):
        raise decoder.syntax_error(position, None, "more text after the end of the list")


def _lines(text: str, decoder: _Decoder) -> Iterator[tuple[int, Any]]:
    """Yield the numbered values of the lines that are not blank. A bad line is noted and does not hide the next."""
    index = 0
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON strings may hold U+2028
        if _skip(line, 0) == len(line):
            continue
        decoder.text, decoder.first_line = line, number
        try:
            value, end = decoder.decode(_skip(line, 0), index)
            if end < len(line):
                raise decoder.syntax_error(end, index, "more text after the end of the object")
        except DataError as error:
            decoder.problems.extend(error.problems)
        else:
            yield index, value
        index += 1


class _RepeatedKeys(dict):
    """A JSON object whose text gave some keys more than once."""

    repeated: list[str]


class _Decoder:
    """Decodes the JSON values of one text and collects the problems that `json` lets pass."""

    def __init__(self, file: str, text: str):
        self.file = file
        self.text = text
        self.first_line = 1
        self.problems: list[Problem] = []
        self._suspect = False
        self._json = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def decode(self, start: int, record: int | None) -> tuple[Any, int]:
        """Return the value that begins at `start`, and the position of the next character that is not white space.

        Raises `DataError` on bad syntax.
        """
        self._suspect = False
        try:
            value, end = self._json.raw_decode(self.text, start)
            if self._suspect:
                self.problems.extend(self._find_problems(value, record, ""))
        except json.JSONDecodeError as error:
            raise self.syntax_error(error.pos, record, error.msg) from None
        except RecursionError:
            raise self.syntax_error(start, record, "nested too deeply") from None
        except ValueError:  # Python refuses to convert more than 4300 digits
            raise self.syntax_error(start, record, "a number of more than 4300 digits") from None
        return value, _skip(self.text, end)

    def syntax_error(self, position: int, record: int | None, reason: str) -> DataError:
        """Return the error for bad syntax at a position of the text."""
        line = self.first_line + self.text.count("\n", 0, position)
        column = position - self.text.rfind("\n", 0, position)
        mend = "correct the file there"
        if position >= len(self.text.rstrip()) or reason.startswith("Unterminated string"):
            reason, mend = f"the text breaks off ({reason})", "write or download the whole file again"
        problem = f"not JSON at line {line}, column {column}: {reason}"
        return DataError([Problem(file=self.file, record=record, problem=problem, mend=mend)])

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self._suspect = True
        value = _RepeatedKeys(value)
        value.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        return value

    def _constant(self, name: str) -> float:
        self._suspect = True
        return float(name)

    def _find_problems(self, value: Any, record: int | None, path: str) -> Iterator[Problem]:
        if isinstance(value, dict):
            for key in getattr(value, "repeated", ()):
                problem, mend = "the key is given more than once", "keep one of them"
                yield Problem(file=self.file, record=record, field=_join(path, key), problem=problem, mend=mend)
            for key, item in value.items():
                yield from self._find_problems(item, record, _join(path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._find_problems(item, record, f"{path}[{index}]")
        elif isinstance(value, float) and not math.isfinite(value):
            problem, mend = "NaN and Infinity are not JSON", "write a finite number"
            yield Problem(file=self.file, record=record, field=path, value=value, problem=problem, mend=mend)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
