"""Writing data sets as plain files that need nothing of this package."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from .builders import FEATURES
from .schema import LabelSchema
from .writing import atomic_path, write_records

logger = logging.getLogger(__name__)

FORMATS = ("jsonl", "parquet", "json")


def export(
    dataset_dict: datasets.DatasetDict,
    out_dir: str | PathLike[str],
    format: str = "jsonl",
    schema: LabelSchema | None = None,
) -> dict[str, Path]:
    """Write each split as `SPLIT.FORMAT` and the types as `types.json` into a folder, made if missing.

    `datasets.load_dataset` reads all three formats; "json" (SpERT's, one list a file) and "jsonl" are read by `load`
    as well. Without `schema` the types are those that occur, and no relation is symmetric.

    Returns:
        The path of each split's file, and of the types file under "types".

    Raises:
        ValueError: an unknown format, columns that the format has no place for, or a split that is no plain name.
        OSError: a file cannot be written; it is then left as it was.
    """
    if format not in FORMATS:
        raise ValueError(f"{format!r} is no export format; use one of {', '.join(FORMATS)}")
    for split, dataset in dataset_dict.items():
        if not re.fullmatch(r"\w+", split) or split == "types":
            raise ValueError(f"the split {split!r} cannot name a file; rename it to letters, digits and _")
        strangers = sorted(set(dataset.column_names) ^ set(FEATURES))
        if strangers:
            expected = ", ".join(FEATURES)
            raise ValueError(f"the split {split!r} has or lacks the columns {strangers}; make them {expected}")
    if schema is None:
        logger.warning("no schema given: types.json gets the types that occur, none of them symmetric")
        schema = LabelSchema.from_records(row for dataset in dataset_dict.values() for row in dataset)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {split: out_dir / f"{split}.{format}" for split in dataset_dict}
    for split, path in paths.items():
        if format == "parquet":
            with atomic_path(path) as temporary:
                dataset_dict[split].to_parquet(str(temporary))
        else:
            write_records(path, list(_plain(dataset_dict[split])))
    paths["types"] = out_dir / "types.json"
    schema.to_file(paths["types"])
    return paths


def _plain(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yield rows as records of SpERT's format, where a missing orig_id has no key."""
    for row in rows:
        yield {key: row[key] for key in FEATURES if row[key] is not None}
