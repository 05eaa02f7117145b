"""Loading a data set by its name or folder."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import datasets

from .builders import QUICKSTART, Ade, Conll04, CorpusBuilder, Folder, Quickstart, Scierc
from .problems import DataError, Problem
from .schema import LabelSchema
from .sources import find_corpus_file, find_folder_files

CORPORA: dict[str, type[CorpusBuilder]] = {"conll04": Conll04, "scierc": Scierc, "ade": Ade}


def load(
    name_or_dir: str | PathLike[str],
    *,
    config_name: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    data_files: Mapping[str, str | PathLike[str]] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    download: bool = True,
) -> datasets.DatasetDict:
    """Load a data set: "conll04", "scierc", "ade", "quickstart", or a folder of files in SpERT's format.

    Args:
        name_or_dir: a name from the list, else a folder (write "./ade" for a folder called like a corpus).
        config_name: of conll04 and scierc `default` or `train_dev`; of ade `split_0` (default) … `split_9`, the same with
            `_train_dev`, or `full`.
        data_dir: where a public corpus lies; else the variable ASPERT_DATA tells, else it is downloaded.
        data_files: of a folder, the files of "train", "dev", "test" and "types" where their names do not tell.
        cache_dir: the place of the prepared data, and of downloads; by default that of `datasets`.
        download: False forbids the network, as does HF_HUB_OFFLINE=1.

    Returns:
        The splits (train, dev, test), with the columns `FEATURES`.

    Raises:
        DataError: the data cannot be found, downloaded or used; the message names file, record, field and mend.
    """
    if name_or_dir in CORPORA and data_files is None:
        builder = CORPORA[name_or_dir](config_name, data_dir, cache_dir, download)
    else:
        folder = _folder(name_or_dir, config_name, data_dir)
        embedded = folder == QUICKSTART and data_files is None
        builder = Quickstart(cache_dir) if embedded else Folder(folder, data_files, cache_dir)
    builder.download_and_prepare()
    return builder.as_dataset()


def load_schema(
    name_or_dir: str | PathLike[str],
    *,
    config_name: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    data_files: Mapping[str, str | PathLike[str]] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    download: bool = True,
) -> LabelSchema:
    """Load the types of a data set. Takes the arguments of `load` and raises the same errors."""
    if name_or_dir in CORPORA and data_files is None:
        corpus = CORPORA[name_or_dir].corpus
        return LabelSchema.from_file(find_corpus_file(corpus.name, corpus.types, data_dir, cache_dir, download))
    return LabelSchema.from_file(find_folder_files(_folder(name_or_dir, config_name, data_dir), data_files)[1])


def _folder(name_or_dir: str | PathLike[str], config_name: str | None, data_dir: str | PathLike[str] | None) -> Path:
    """Return the folder of a data set that is not a public corpus; raise `DataError` where there is none."""
    name = str(name_or_dir)
    folder = QUICKSTART if name == "quickstart" else Path(name_or_dir).expanduser()
    problem = None
    if not name or not folder.is_dir():
        problem, mend = "neither a data set nor a folder", f"use {', '.join(CORPORA)}, quickstart or a folder's path"
    elif data_dir is not None:
        problem, mend = "data_dir is for the public corpora", "give the folder in place of the data set's name"
    elif config_name not in (None, "default"):
        problem, mend = f"there is no configuration {config_name!r}", "leave config_name out"
    if problem:
        raise DataError([Problem(file=name or "''", problem=problem, mend=mend)])
    return folder
