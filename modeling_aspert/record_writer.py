"""What the writers of all output formats share: checks, an output that appears when it is complete, clear errors.

A record is {"id" (optional), "text", "entities": [{"id", "type", "text", "start", "end", "score"}], "relations":
[{"type", "head", "tail", "score"}]}, as the pipeline returns it: offsets count characters and are end-exclusive, head
and tail are positions in entities. Scores are optional.

The output appears under its name when it is complete, not before: it is written beside it under a temporary name
(.NAME.PID.tmp) and renamed by `close()`. Where the `with` block ends in an exception, the temporary one is removed.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

logger = logging.getLogger(__name__)

Record = dict[str, Any]

SURROGATES = "\ud800-\udfff"


def json_line(record: Record) -> str:
    """The record as one line of JSON, without the line's end. Lone surrogates are escaped, so that they round-trip.

    Raises ValueError for NaN and infinite numbers, which JSON does not have.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return json.dumps(record, allow_nan=False) if re.search(f"[{SURROGATES}]", line) else line


def check_target(path: str | os.PathLike, directory: bool = False) -> Path:
    """Where an output goes: `path`, behind symbolic links.

    Raises FileExistsError for what must not be replaced: for a file anything but a file (a folder, /dev/null), for a
    folder anything but an empty folder.
    """
    target = Path(os.path.realpath(path))
    if directory and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{path} exists and is no empty folder: this format needs a new or empty folder")
    if not directory and target.exists() and not target.is_file():
        raise FileExistsError(f"{path} is no file: this format needs the name of a file")
    return target


def output_target(path: str | os.PathLike, directory: bool = False) -> Path:
    """:func:`check_target`, with its folder made."""
    target = check_target(path, directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def sync(path: str | os.PathLike) -> None:
    """Wait until a file's content has reached the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


class Output(AbstractContextManager):
    """What a `with` block closes, or aborts where an exception leaves it."""

    @abstractmethod
    def write(self, record: Record) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def abort(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class Writer(Output):
    """One output in one format. Subclasses say what is a file's beginning, a record, and a file's end.

    Characters that a format cannot hold (`unholdable`, a regular-expression class) are written as U+FFFD, one for one,
    so that offsets still hold; they are counted, and `close` logs how many there were and where the first was.
    """

    directory = False
    checked = True  # records are those of the pipeline, see `check_record`
    unholdable = SURROGATES

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.n_records = 0
        self._replaced = 0
        self._first_replaced = 0
        self._unholdable = re.compile(f"[{self.unholdable}]")
        self._target = output_target(path, self.directory)
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
        self._remove_temporary()
        try:
            self._open(self._temporary)
        except BaseException:
            self._remove_temporary()
            raise

    @classmethod
    def check_types(cls, entity_types: Iterable[str], relation_types: Iterable[str]) -> None:
        """Raises ValueError for a type that the format refuses: for a model's types before the work, not within it."""

    def write(self, record: Record) -> None:
        """Raises ValueError, with the record's number, for a record that is inconsistent or that the format refuses."""
        try:
            if self.checked:
                check_record(record)
            self._write(record)
        except KeyError as error:
            raise ValueError(
                f"record {self.n_records} has no {error}: this format takes records of the pipeline"
            ) from error
        except ValueError as error:
            raise ValueError(f"record {self.n_records} (id {record.get('id')!r}): {error}") from error
        except OSError as error:
            raise self._failure(error) from error
        self.n_records += 1

    def close(self) -> None:
        """Complete the output and give it its name."""
        try:
            self._finish()
            if self.directory and self._target.exists():
                # empty; Windows does not replace it
                self._target.rmdir()
            os.replace(self._temporary, self._target)
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        if self._replaced:
            logger.warning(
                "%s: %d characters that the format cannot hold were written as U+FFFD (the first in record %d)",
                self.path,
                self._replaced,
                self._first_replaced,
            )

    def abort(self) -> None:
        """Give up: remove what was written."""
        try:
            self._release()
        except OSError:  # the disk that is full for the record is full for the buffer
            pass
        self._remove_temporary()

    def _failure(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror or str(error), str(self.path))

    def _remove_temporary(self) -> None:
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary)
        else:
            self._temporary.unlink(missing_ok=True)

    def _holdable(self, text: str) -> str:
        text, replaced = self._unholdable.subn("\ufffd", text)
        if replaced:
            self._first_replaced = self._first_replaced if self._replaced else self.n_records
            self._replaced += replaced
        return text

    @abstractmethod
    def _open(self, temporary: Path) -> None: ...

    @abstractmethod
    def _write(self, record: Record) -> None: ...

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left and close the files."""

    @abstractmethod
    def _release(self) -> None:
        """Close the files, whatever is in them."""


def check_record(record: Record) -> None:
    """Raises ValueError for what would make a wrong file: offsets that miss the text, relations without entities."""
    text, entities = record["text"], record["entities"]
    for index, entity in enumerate(entities):
        if text[entity["start"] : entity["end"]] != entity["text"] or not 0 <= entity["start"] < entity["end"]:
            raise ValueError(
                f"entities[{index}] says {entity['start']}..{entity['end']} is {entity['text']!r}, but the text has "
                f"{text[entity['start'] : entity['end']]!r} there"
            )
    for index, relation in enumerate(record["relations"]):
        for end in ("head", "tail"):
            if not 0 <= relation[end] < len(entities):
                raise ValueError(
                    f"relations[{index}].{end} is {relation[end]}, but there are {len(entities)} entities"
                )
    for item in (*entities, *record["relations"]):
        if not math.isfinite(item.get("score", 0.0)):
            raise ValueError(f"the score of {item['type']!r} is {item['score']}: scores are finite numbers")


class TextWriter(Writer):
    """Formats of one UTF-8 file, written record by record."""

    begin = end = ""

    def _open(self, temporary: Path) -> None:
        self._file = open(temporary, "w", encoding="utf-8", newline="")
        self._file.write(self.begin)

    def _write(self, record: Record) -> None:
        self._file.write(self._encode(record))

    def _finish(self) -> None:
        self._file.write(self.end)
        self._file.close()
        sync(self._temporary)

    def _release(self) -> None:
        self._file.close()

    @abstractmethod
    def _encode(self, record: Record) -> str: ...


class TablesWriter(Writer):
    """A folder with two CSV files (RFC 4180, UTF-8), of entities and of relations. NUL becomes U+FFFD."""

    directory = True
    unholdable = "\x00" + SURROGATES
    tables: ClassVar[dict[str, list[str]]]

    def _open(self, temporary: Path) -> None:
        temporary.mkdir()
        self._files = [open(temporary / name, "w", encoding="utf-8", newline="") for name in self.tables]
        self._writers = [csv.writer(file) for file in self._files]
        for writer, columns in zip(self._writers, self.tables.values()):
            writer.writerow(columns)

    def _write(self, record: Record) -> None:
        entities, relations = self._writers
        entities.writerows(map(self._row, self._entity_rows(record)))
        relations.writerows(map(self._row, self._relation_rows(record)))

    def _row(self, values: list) -> list:
        return [self._holdable(value) if isinstance(value, str) else value for value in values]

    @abstractmethod
    def _entity_rows(self, record: Record) -> Iterable[list]: ...

    @abstractmethod
    def _relation_rows(self, record: Record) -> Iterable[list]: ...

    def _finish(self) -> None:
        for file in self._files:
            file.close()
            sync(file.name)

    def _release(self) -> None:
        for file in self._files:
            file.close()
