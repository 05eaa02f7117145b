"""Writing of files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from .reading import JSONL_SUFFIXES


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, whose folder is made if missing, and rename it to `path` if the block ends
    without an exception.

    An interrupted writer leaves `path` as it was. Raises `OSError` that names `path` where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror or error})", str(path)) from error
    finally:
        with suppress(OSError):  # renamed, or never made
            temporary.unlink()


def check_writable(path: str | PathLike[str], target: Path | None = None) -> None:
    """Raise `OSError` for an output that cannot be written, before the work of making it.

    `target` is where it goes, if not `path` itself. Nothing is left behind, neither the folders above it.
    """
    target = Path(path) if target is None else target
    probe = target.with_name(f".{target.name}.{os.getpid()}.probe")
    missing = [folder for folder in target.parents if not os.path.exists(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): choose another output") from error
    finally:
        for folder in missing:
            with suppress(OSError):  # not made, or another run's too
                folder.rmdir()


def write_json(path: str | PathLike[str], value: Any) -> None:
    """Write one JSON value, indented. Raises `OSError`."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def write_records(path: str | PathLike[str], records: Sequence[dict[str, Any]]) -> None:
    """Write records as JSONL (`.jsonl`, `.ndjson`), else as a JSON list with one record a line. Raises `OSError`."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
    if Path(path).suffix.lower() in JSONL_SUFFIXES:
        text = "".join(line + "\n" for line in lines)
    else:
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
