"""Finding the files of a data set: on this machine, or at the public address."""

from __future__ import annotations

import functools
import hashlib
import http.client
import logging
import os
import re
import urllib.request
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import datasets

from . import corpora
from .problems import DataError, Problem
from .reading import JSONL_SUFFIXES, read_bytes
from .writing import atomic_path

logger = logging.getLogger(__name__)

MAX_BYTES = 8 * 2**20  # of one download; the largest corpus file has 2 MB
TIMEOUT = 20  # seconds without an answer
SPLITS = ("train", "dev", "test")
# words of a file's name; `datasets` calls dev validation
_ROLES = {**{role: role for role in (*SPLITS, "types")}, **dict.fromkeys(("validation", "valid", "val"), "dev")}


def find_corpus_file(
    corpus: str,
    file_name: str,
    data_dir: str | PathLike[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    download: bool = True,
) -> Path:
    """Return the path of one file of a public corpus.

    Looked for in `data_dir`, else in the folder that the variable ASPERT_DATA names, else in the cache, else
    downloaded into the cache. A folder may be the corpus's own, or hold one named like the corpus.

    Raises:
        DataError: the file is not in the folder that was named, or cannot be downloaded.
    """
    origin, folder = ("data_dir", data_dir) if data_dir else ("ASPERT_DATA", os.environ.get("ASPERT_DATA"))
    if folder:
        place = Path(folder).expanduser()
        for path in (place / corpus / file_name, place / file_name):
            if path.is_file():
                return path
        problem = f"holds neither {corpus}/{file_name} nor {file_name}"
        raise DataError([Problem(file=f"{origin} {folder}", problem=problem, mend="name the folder of the corpora")])
    cache = Path(cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser()
    target = cache / "downloads" / "aspert" / corpus / file_name
    name = f"{corpus}/{file_name}"
    if not (target.is_file() and _sha256(target.read_bytes()) == corpora.SHA256[name]):
        if not download or datasets.config.HF_HUB_OFFLINE:
            raise _not_downloaded(name, "may not be downloaded (offline)")
        _download(name, target)
    return target


def find_folder_files(
    folder: str | PathLike[str], data_files: Mapping[str, str | PathLike[str]] | None = None
) -> tuple[dict[str, Path], Path]:
    """Return the files of the splits of a folder in SpERT's format, by split, and its types file.

    Without `data_files`, a `.json` or `.jsonl` file belongs to the split whose name (train, dev, test; also validation,
    valid or val for dev) is a word of the file's name; the types file has the word `types`. A name with two of these
    words, as `x_train_dev.json`, or with none, belongs to no split, and a warning says so. With `data_files`, its keys
    are "types" and the splits, its values are paths below the folder.

    Raises:
        DataError: there is no such folder, no types file, no split, or two files for one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError([Problem(file=str(folder), problem="is no folder", mend="name the folder of the data files")])
    if data_files is not None:
        found = {key: [folder / name] for key, name in data_files.items()}
    else:
        found, unused = {}, []
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in (".json", *JSONL_SUFFIXES) or not path.is_file():
                continue
            roles = {_ROLES[word] for word in re.split(r"[\W_]+", path.stem.lower()) if word in _ROLES}
            if len(roles) == 1:
                found.setdefault(roles.pop(), []).append(path)
            else:
                unused.append(path.name)
        if unused:
            _say_not_read(str(folder), ", ".join(unused))
    problems = []
    for key, paths in found.items():
        if key not in (*SPLITS, "types"):
            problems.append((f"{key!r} is no split", "use train, dev, test and types as keys of data_files"))
        elif len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            problems.append((f"holds several files for {key} ({names})", "name one with data_files"))
    if "types" not in found:
        mend = "write one with LabelSchema.to_file, or name it with data_files"
        problems.append(("holds no file *types*.json", mend))
    if not set(found) & set(SPLITS):
        problems.append(("holds no file *train*.json, *dev*.json or *test*.json", "name them with data_files"))
    if problems:
        raise DataError([Problem(file=str(folder), problem=problem, mend=mend) for problem, mend in problems])
    return {split: found[split][0] for split in SPLITS if split in found}, found["types"][0]


@functools.cache  # said once, though types and records are looked for one after the other
def _say_not_read(folder: str, names: str) -> None:
    logger.warning("%s: these files are not read, because their names tell no single split: %s", folder, names)


def fingerprint(files: Mapping[str, Sequence[str | PathLike[str]]]) -> str:
    """Return 16 hexadecimal digits that change with the content of the files and with their roles (the keys)."""
    digests = [f"{role}={_sha256(read_bytes(path))}" for role, paths in sorted(files.items()) for path in paths]
    return _sha256("\n".join(digests).encode())[:16]


def _download(name: str, target: Path) -> None:
    url = f"{corpora.ADDRESS}/{name}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _not_downloaded(name, f"cannot be downloaded ({reason})") from error
    if len(content) > MAX_BYTES:
        raise _not_downloaded(name, f"is larger than {MAX_BYTES} bytes and was not kept")
    if _sha256(content) != corpora.SHA256[name]:
        raise _not_downloaded(name, f"came truncated or changed ({len(content)} bytes, wrong SHA-256), was not kept")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _not_downloaded(name: str, problem: str) -> DataError:
    mend = f"pass --data_dir FOLDER or set ASPERT_DATA=FOLDER, where FOLDER holds {name}"
    return DataError([Problem(file=f"{corpora.ADDRESS}/{name}", problem=problem, mend=mend)])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
