"""`datasets` builders for the public corpora and for folders in SpERT's format.

`datasets` 4 and later run no loading scripts, so the builders are used as classes: `Conll04().download_and_prepare()`,
or with one call through `load`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import datasets

from .corpora import ADE, CONLL04, FOLDS, SCIERC, Corpus
from .problems import DataError, Problem, summary
from .reading import read_records
from .schema import LabelSchema
from .sources import find_corpus_file, find_folder_files, fingerprint
from .validation import validate_records

logger = logging.getLogger(__name__)

QUICKSTART = Path(__file__).parent / "quickstart"
DEV_SHARE = 0.1  # of an ADE training fold

FEATURES = datasets.Features(
    {
        "tokens": datasets.List(datasets.Value("string")),
        "entities": datasets.List(
            {"type": datasets.Value("string"), "start": datasets.Value("int32"), "end": datasets.Value("int32")}
        ),
        "relations": datasets.List(
            {"type": datasets.Value("string"), "head": datasets.Value("int32"), "tail": datasets.Value("int32")}
        ),
        "orig_id": datasets.Value("string"),
    }
)


class SpertBuilder(datasets.GeneratorBasedBuilder):
    """Turns files in SpERT's format, one or several a split, into a data set.

    The cache's name holds a fingerprint of the files' content, so that a changed file is read anew; raise VERSION
    when the same files give other rows.
    """

    VERSION = datasets.Version("1.0.0")

    def __init__(
        self,
        name: str,
        config_name: str,
        files: Mapping[str, Sequence[Path]],
        types: Path,
        cache_dir: str | PathLike[str] | None = None,
    ):
        self.files = files
        self.types = types
        super().__init__(
            cache_dir=str(cache_dir) if cache_dir else None,
            dataset_name=name,
            config_name=config_name,
            config_id=f"{config_name}-{fingerprint({**files, 'types': [types]})}",
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As every builder's. Raises `OSError` that names the cache where that cannot be written."""
        try:
            super().download_and_prepare(*args, **kwargs)
        except (OSError, datasets.exceptions.DatasetGenerationError) as error:
            cause = error.__cause__ or error.__context__ or error
            if not isinstance(cause, OSError):
                raise
            problem = f"the data cannot be prepared ({cause.strerror or cause})"
            raise OSError(cause.errno, problem, self.cache_dir) from error

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        """Return the checked records of each split. Raises `DataError` with the problems of all files."""
        schema = LabelSchema.from_file(self.types)
        splits, errors = {}, []
        for split, path in ((split, path) for split, paths in self.files.items() for path in paths):
            try:
                records = read_records(path)
            except DataError as error:
                errors.extend(error.problems)
                continue
            report = validate_records(records, schema, str(path))
            errors.extend(report.errors)
            if report.warnings:
                logger.warning("%s", summary(report.warnings))
            splits.setdefault(split, []).extend(records)
        if errors:
            raise DataError(errors)
        return splits

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # The records are read here and not in _generate_examples, whose errors `datasets` wraps in one of its own.
        self._records = self._read()
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in self._records]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(self._records.pop(split)):
            entities = [{key: entity[key] for key in ("type", "start", "end")} for entity in record["entities"]]
            relations = [{key: relation[key] for key in ("type", "head", "tail")} for relation in record["relations"]]
            orig_id = record.get("orig_id")
            yield (
                index,
                {
                    "tokens": record["tokens"],
                    "entities": entities,
                    "relations": relations,
                    "orig_id": None if orig_id is None else str(orig_id),
                },
            )


class Folder(SpertBuilder):
    """A folder of files in SpERT's format: *train*.json, *dev*.json, *test*.json (or .jsonl) and *types*.json.

    `data_files` names the files where the names do not tell: `{"train": …, "dev": …, "test": …, "types": …}`.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        data_files: Mapping[str, str | PathLike[str]] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        name: str = "spert_folder",
    ):
        files, types = find_folder_files(folder, data_files)
        super().__init__(name, "default", {split: [path] for split, path in files.items()}, types, cache_dir)


class Quickstart(Folder):
    """The small corpus that comes with this package."""

    def __init__(self, cache_dir: str | PathLike[str] | None = None):
        super().__init__(QUICKSTART, cache_dir=cache_dir, name="quickstart")


class CorpusBuilder(SpertBuilder):
    """A public corpus: in `data_dir`, in the folder that the variable ASPERT_DATA names, or downloaded."""

    corpus: ClassVar[Corpus]

    def __init__(
        self,
        config_name: str | None = None,
        data_dir: str | PathLike[str] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        download: bool = True,
    ):
        name, configurations = self.corpus.name, self.corpus.splits
        config_name = config_name or next(iter(configurations))
        if config_name not in configurations:
            mend = f"use one of {', '.join(configurations)}"
            raise DataError([Problem(file=name, field="config_name", value=config_name, problem="unknown", mend=mend)])
        files = {
            split: [find_corpus_file(name, file_name, data_dir, cache_dir, download) for file_name in file_names]
            for split, file_names in configurations[config_name].items()
        }
        types = find_corpus_file(name, self.corpus.types, data_dir, cache_dir, download)
        super().__init__(name, config_name, files, types, cache_dir)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            features=FEATURES, description=self.corpus.description, homepage=self.corpus.homepage
        )


class Conll04(CorpusBuilder):
    """CoNLL04. Configurations: `default` (train, dev, test) and `train_dev` (both together as train, and test)."""

    corpus = CONLL04


class Scierc(CorpusBuilder):
    """SciERC. Configurations: `default` (train, dev, test) and `train_dev` (both together as train, and test)."""

    corpus = SCIERC


class Ade(CorpusBuilder):
    """ADE. Configurations: `split_0` … `split_9` (train, dev, test), `split_N_train_dev` (train, test), `full`.

    ADE has no dev data: `split_N` carves it out of the training fold, see `carve_dev`; the test fold is as it comes.
    """

    corpus = ADE

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        splits = super()._read()
        if self.config.name in FOLDS:
            train, dev = carve_dev(splits["train"], self.config.name)
            splits = {"train": train, "dev": dev, "test": splits["test"]}
        return splits


def carve_dev(records: list[dict[str, Any]], salt: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split records into train and dev (about `DEV_SHARE` of them), both in the old order.

    A hash of `salt` and the words decides, so that neither the order nor the other records matter, and sentences with
    the same words stay on one side.
    """
    train, dev = [], []
    for record in records:
        digest = hashlib.sha256("\n".join([salt, *record["tokens"]]).encode()).digest()
        (dev if int.from_bytes(digest[:8], "big") < DEV_SHARE * 2**64 else train).append(record)
    return train, dev
