"""Output formats: `open_writer(path, format)`, then `write(record)` for each record.

Records are those of the pipeline (see record_writer.py). JSON and tables are here, graphs in export_graphs.py,
annotations of documents in export_annotations.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from .export_annotations import BratWriter, SpacyWriter
from .export_graphs import GraphMLWriter, Neo4jWriter, NTriplesWriter
from .record_writer import Record, TablesWriter, TextWriter, Writer, json_line, sync


class JsonlWriter(TextWriter):
    """One JSON object a line, with all fields of the record. Holds every string."""

    checked = False

    def _encode(self, record: Record) -> str:
        return json_line(record) + "\n"


class JsonWriter(TextWriter):
    """A JSON list. Holds every string."""

    checked = False
    begin, end = "[", "\n]\n"

    def _encode(self, record: Record) -> str:
        return (",\n" if self.n_records else "\n") + json_line(record)


class ParquetWriter(Writer):
    """Parquet, by row groups of 1,000 records; ids are strings, entities and relations lists of structs."""

    _rows_per_group = 1000

    def _open(self, temporary: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        entity = {
            "id": pa.int32(),
            "type": pa.string(),
            "text": pa.string(),
            "start": pa.int64(),
            "end": pa.int64(),
            "score": pa.float64(),
        }
        relation = {"type": pa.string(), "head": pa.int32(), "tail": pa.int32(), "score": pa.float64()}
        self._schema = pa.schema(
            {
                "id": pa.string(),
                "text": pa.string(),
                "entities": pa.list_(pa.struct(entity)),
                "relations": pa.list_(pa.struct(relation)),
            }
        )
        self._table = pa.Table
        self._rows: list[Record] = []
        self._file = pq.ParquetWriter(temporary, self._schema)

    def _write(self, record: Record) -> None:
        self._rows.append(
            {
                "id": self._holdable(str(record["id"])) if record.get("id") is not None else None,
                "text": self._holdable(record["text"]),
                "entities": [
                    {
                        **entity,
                        "id": index,
                        "type": self._holdable(entity["type"]),
                        "text": self._holdable(entity["text"]),
                    }
                    for index, entity in enumerate(record["entities"])
                ],
                "relations": [
                    {**relation, "type": self._holdable(relation["type"])} for relation in record["relations"]
                ],
            }
        )
        if len(self._rows) == self._rows_per_group:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def _finish(self) -> None:
        if self._rows:
            self._flush()
        self._file.close()
        sync(self._temporary)

    def _release(self) -> None:
        self._file.close()


class CsvWriter(TablesWriter):
    """A folder with entities.csv and relations.csv, for spreadsheets.

    "record" counts the records from 0. A text that a spreadsheet would take for a formula (it begins with =, +, -, @,
    also full-width, a tab or a line break) has a single quote before it; take it off to get the text back.
    """

    tables: ClassVar = {
        "entities.csv": ["record", "id", "entity", "type", "text", "start", "end", "score"],
        "relations.csv": ["record", "id", "type", "head", "tail", "head_text", "tail_text", "score"],
    }

    def _entity_rows(self, record: Record) -> Iterable[list]:
        for index, entity in enumerate(record["entities"]):
            fields = (entity["type"], entity["text"], entity["start"], entity["end"], entity.get("score"))
            yield [self.n_records, record.get("id"), index, *fields]

    def _relation_rows(self, record: Record) -> Iterable[list]:
        for relation in record["relations"]:
            head, tail = relation["head"], relation["tail"]
            texts = [record["entities"][end]["text"] for end in (head, tail)]
            yield [self.n_records, record.get("id"), relation["type"], head, tail, *texts, relation.get("score")]

    def _row(self, values: list) -> list:
        return [
            "'" + value if isinstance(value, str) and value.startswith(tuple("=+-@＝＋－＠\t\r\n")) else value
            for value in super()._row(values)
        ]


FORMATS: dict[str, type[Writer]] = {
    "jsonl": JsonlWriter,
    "json": JsonWriter,
    "parquet": ParquetWriter,
    "csv": CsvWriter,
    "brat": BratWriter,
    "spacy": SpacyWriter,
    "ntriples": NTriplesWriter,
    "graphml": GraphMLWriter,
    "neo4j": Neo4jWriter,
}


_SUFFIXES = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".spacy": "spacy",
    ".nt": "ntriples",
    ".graphml": "graphml",
    ".ndjson": "jsonl",
}
_FILE_SUFFIXES = tuple(suffix for suffix, name in _SUFFIXES.items() if not FORMATS[name].directory)
# of what `aspert show` writes
PAGE_SUFFIXES = (".html", ".htm")
# read in some places, or written by others
_NOT_WRITTEN = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tsv", ".xlsx")


def choose_format(path: str | os.PathLike, format: str | None = None) -> str:
    """`format`, or the one that the suffix of `path` means; JSON lines without a suffix.

    Raises ValueError for a suffix that means another format or one that is not written, for one that means none where
    `format` does not tell, and for .csv, since that format makes a folder.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _NOT_WRITTEN and not (format and FORMATS[format].directory):
        raise ValueError(f"{path}: nothing is written as {suffix}: take one of {', '.join(_FILE_SUFFIXES)}")
    meant = _SUFFIXES.get(suffix)
    if meant is not None and format not in (None, meant):
        raise ValueError(f"{path}: the suffix {suffix} does not go with the format {format}: leave one of them out")
    if meant == "csv":
        raise ValueError(
            f"{path}: the format csv writes a folder with entities.csv and relations.csv: give the name of a folder, "
            "and the format csv"
        )
    if suffix and not (format or meant):
        page = " (`aspert show` draws pages)" if suffix in PAGE_SUFFIXES else ""
        raise ValueError(
            f"{path}: the suffix {suffix} means no format{page}: give --format jsonl or another, or one of "
            f"{', '.join(_FILE_SUFFIXES)}"
        )
    return format or meant or "jsonl"


def open_writer(path: str | os.PathLike, format: str) -> Writer:
    """A writer of records; use it in a `with` block.

    format: one of `FORMATS`. csv, neo4j and brat make a folder (new, or empty), the others a file (replaced if it
    exists). Memory does not grow with the number of records, but for spacy.

    Raises ValueError for an unknown format, FileExistsError for a path that does not fit the format.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown output format {format!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[format](path)
