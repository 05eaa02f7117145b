"""Result files: one JSON a finished run, and beside it the predictions with the counts that significance tests need.

A result file exists only when its run is finished, so it is also the mark that makes a driver skip the run. The
predictions hold no words: the corpora may not be passed on.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import data_scripts
from benchmarks.experiments import Run, switches_of, with_data_dir
from benchmarks.significance import SentenceCounts
from modeling_aspert.files import write_bytes, write_text
from modeling_aspert.model_card import processor_name
from modeling_aspert.scoring import VIEWS, compute_scores

KIND = "aspert training run"
FORMAT = 1
PREDICTIONS_SUFFIX = ".predictions.jsonl.gz"
# of run.json, decided by what starts train.py
LAUNCHED = ("processes", "mixed_precision")


@dataclass
class Result:
    """A finished run.

    Args:
        path: its file.
        content: what the file holds, see :func:`collect`.
    """

    path: Path
    content: dict[str, Any]

    def training(self) -> dict[str, Any]:
        """Settings outside the architecture, with what the launcher decided where that is not one process in fp32."""
        settings = self.content["settings"]
        switches = switches_of(settings)
        launched = launched_in(self.content, settings)
        return {name: value for name, value in settings.items() if name not in switches} | launched

    def score(self, name: str, split: str = "test") -> float | None:
        return self.content["scores"].get(split, {}).get(name)

    @functools.cached_property
    def sentence_counts(self) -> SentenceCounts | None:
        """Counts of each test sentence, or None where no predictions were kept.

        Raises:
            OSError: the file that the result names is missing.
        """
        name = self.content.get("predictions")
        if name is None:
            return None
        with gzip.open(self.path.with_name(name), "rt", encoding="utf-8") as file:
            return SentenceCounts([json.loads(line)["counts"] for line in file])


def load_results(folder: Path) -> list[Result]:
    """All results below a folder, by path; other JSON files are passed over.

    Raises:
        ValueError: a file that is no JSON, or of a later format.
    """
    results = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}; remove it and run again") from None
        if not isinstance(content, dict) or content.get("kind") != KIND:
            continue
        if content.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {content.get('format')!r}, not {FORMAT}: use the driver that wrote it"
            )
        results.append(Result(path, content))
    return results


def is_finished(run: Run, folder: Path) -> bool:
    """Whether the run's result is there, with the run's own identity."""
    try:
        content = json.loads((folder / run.path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("id") == run.id


def collect(run: Run, output_dir: Path, folder: Path, about: Mapping[str, Any], data_dir: Path | None = None) -> Path:
    """Write the result of a run from what train.py left, its predictions first.

    Args:
        about: what the driver knows: command, seconds, attempts.
        data_dir: where the corpora lie; else as `data_scripts` finds them.

    Raises:
        ValueError: the scores do not follow from the predictions, or the launcher did not do what the run's identity says.
        OSError: train.py left no scores.
    """
    described = _read(output_dir / "run.json")
    check_launched(run, described)
    scores = {}
    for split, prefix in (("dev", "eval"), ("test", "test")):
        file = output_dir / f"{prefix}_results.json"
        if file.is_file():
            scores[split] = _scores(_read(file), prefix)
    if not scores:
        raise FileNotFoundError(f"{output_dir} holds neither eval_results.json nor test_results.json")
    target = folder / run.path
    predictions = output_dir / "predictions_test.jsonl"
    kept = None
    if "test" in scores and predictions.is_file():
        lines = predictions.read_text(encoding="utf-8").splitlines()
        kept = target.stem + PREDICTIONS_SUFFIX
        fields = with_data_dir(run.fields, data_dir)
        rows = counted_predictions([json.loads(line) for line in lines], fields, scores["test"])
        write_bytes(target.with_name(kept), _gzipped(rows))
    train = output_dir / "train_results.json"
    content = {
        "kind": KIND,
        "format": FORMAT,
        "id": run.id,
        "corpus": run.corpus,
        "fold": run.fold,
        "seed": run.seed,
        "settings": run.settings,
        "scores": scores,
        "dev_history": _history(output_dir, run.fields.get("metric_for_best_model")),
        "train_seconds": _read(train).get("train_runtime") if train.is_file() else None,
        **about,
        "machine": describe_machine(),
        "versions": described.get("versions"),
        "commit": described.get("commit"),
        **{name: described.get(name) for name in LAUNCHED},
        "data": described.get("data"),
        "fields": run.fields,
        "predictions": kept,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return target


def counted_predictions(
    records: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], scores: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Predictions without words, each with its counts (gold, predicted, right) by view and type.

    Raises:
        ValueError: scores of all records that are not those of the run.
    """
    place = {"config_name": fields.get("dataset_config"), "data_dir": fields.get("data_dir")}
    gold = list(data_scripts.load(fields["dataset"], **place)["test"])
    schema = data_scripts.load_schema(fields["dataset"], **place)
    symmetric = list(schema.symmetric_relations)
    recomputed = compute_scores(records, gold, symmetric_relations=symmetric)
    for name, value in scores.items():
        if abs(recomputed[name] - value) > 1e-6:
            raise ValueError(
                f"the predictions give {name} = {recomputed[name]}, but the run reported {value}: "
                "were both made by the same run, on the same data?"
            )
    rows = []
    for record, reference in zip(records, gold, strict=True):
        rows.append(
            {
                "orig_id": record.get("orig_id"),
                "entities": [_rounded(entity) for entity in record["entities"]],
                "relations": [_rounded(relation) for relation in record["relations"]],
                "counts": sentence_counts(record, reference, symmetric),
            }
        )
    return rows


def sentence_counts(
    record: Mapping[str, Any], reference: Mapping[str, Any], symmetric: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Gold, predicted and right items of a sentence, by view and type."""
    per_type = compute_scores([record], [reference], symmetric_relations=symmetric)["per_type"]
    return {
        view: {name: [row["support"], row["predicted"], row["true_positives"]] for name, row in per_type[view].items()}
        for view in VIEWS
    }


def unusual(launched: Mapping[str, Any]) -> dict[str, Any]:
    """What a launcher decided, where it is not one process in fp32."""
    return {name: value for name, value in launched.items() if value not in (None, 1, "no")}


def launched_in(described: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a launcher decided, by run.json or a result."""
    # bf16 and fp16 are settings of the run already
    names = LAUNCHED[:1] if settings.get("bf16") or settings.get("fp16") else LAUNCHED
    return unusual({name: described.get(name) for name in names})


def check_launched(run: Run, described: Mapping[str, Any]) -> None:
    """Raise ValueError where a training is not what its run's identity says, by its run.json."""
    if (launched := launched_in(described, run.settings)) != run.launched:
        raise ValueError(
            f"the training is one with {launched or 'one process in fp32'}, but its run one with "
            f"{run.launched or 'one process in fp32'}: say --num_processes and --mixed_precision in --launcher"
        )


def describe_machine() -> dict[str, Any]:
    """What the timings of a result depend on."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "accelerator": accelerator,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _scores(entry: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The scores among the entries of a *_results.json, without its prefix and its timings."""
    named = {name.removeprefix(f"{prefix}_"): value for name, value in entry.items()}
    return {name: value for name, value in named.items() if name.startswith(tuple(VIEWS))}


def _history(output_dir: Path, metric: str | None) -> list[list[float]]:
    """[epoch, score that chooses the checkpoint] of each evaluation on dev during training."""
    file = output_dir / "trainer_state.json"
    if metric is None or not file.is_file():
        return []
    entries = {
        entry["epoch"]: entry[f"eval_{metric}"] for entry in _read(file)["log_history"] if f"eval_{metric}" in entry
    }
    return [[epoch, score] for epoch, score in sorted(entries.items())]


def _gzipped(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    # no time and no name in the header: equal rows give equal bytes
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
    return buffer.getvalue()


def _rounded(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "score": round(item["score"], 5)} if "score" in item else dict(item)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
