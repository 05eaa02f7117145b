"""Runs of train.py that this driver did not start, read back as results of the experiments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.experiments import Corpus, Run, make_run
from benchmarks.results import collect, launched_in
from modeling_aspert.model_card import TRAINING_SETTINGS
from modeling_aspert.training_arguments import AspertTrainingArguments


def adopt(output_dir: Path, corpus: Corpus, results: Path, data_dir: Path | None = None) -> Path:
    """Write the result file of a finished training from its output folder; the folder stays as it is.

    Args:
        output_dir: the ``output_dir`` of train.py.
        corpus: what it was trained on; the settings that it shares with the experiments come from here.
        results: folder of the results.
        data_dir: where the corpora lie.

    Raises:
        ValueError: another data set than the corpus's, or predictions that do not give the reported scores.
        OSError: the folder holds no finished run.
    """
    described = json.loads((output_dir / "run.json").read_text(encoding="utf-8"))
    run = _run(described, corpus, output_dir)
    train = output_dir / "train_results.json"
    seconds = json.loads(train.read_text(encoding="utf-8")).get("train_runtime") if train.is_file() else None
    return collect(run, output_dir, results, {"command": None, "seconds": seconds, "attempts": None}, data_dir)


def _run(described: Mapping[str, Any], corpus: Corpus, output_dir: Path) -> Run:
    arguments = described["arguments"]
    data = arguments["data"]
    if data["dataset"] != corpus.fields["dataset"]:
        raise ValueError(
            f"{output_dir} was trained on {data['dataset']!r}, but corpus {corpus.name!r} is "
            f"{corpus.fields['dataset']!r}: name another corpus"
        )
    fields = {name: value for name, value in arguments["model"].items() if value is not None}
    fields |= {name: value for name, value in data.items() if value is not None and name != "data_dir"}
    defaults = {field.name: field.default for field in dataclasses.fields(AspertTrainingArguments)}
    # what changes the scores; a run from before a field was added had its default
    for name in sorted({"eval_strategy", *TRAINING_SETTINGS} & arguments["training"].keys() - {"seed"}):
        value = arguments["training"][name]
        value = None if value == "None" else value
        if name in corpus.fields or str(value) != str(getattr(defaults.get(name), "value", defaults.get(name))):
            fields[name] = value
    fold = (data.get("dataset_config") or corpus.fields.get("dataset_config")) if corpus.folds else None
    if (data.get("dataset_config") or None) != (fold or corpus.fields.get("dataset_config")):
        raise ValueError(
            f"{output_dir} used dataset_config {data.get('dataset_config')!r}, but corpus {corpus.name!r} has "
            f"{corpus.fields.get('dataset_config')!r}: name another corpus"
        )
    run = make_run(dataclasses.replace(corpus, fields=fields), {}, arguments["training"]["seed"], fold)
    return dataclasses.replace(run, launched=launched_in(described, run.settings))
