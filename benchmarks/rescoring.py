"""What the predictions of finished runs tell beyond their scores; nothing is trained.

    python benchmarks/rescoring.py              writes benchmarks/results/runs/rescored.json
    python benchmarks/tables.py report          and its tables in docs/results.md

The predictions that were kept of a run (test split) are scored again: between the spans alone that are right, which tells
relations that were missed from spans that were; without the sentences that stand in the training data too; and, where the
run had no constraints, with relations only between the types of head and tail that the training data show, without
overlapping entities where the training data have none, and with both. Of runs that differ in their seed alone, what more
than half of them predicted is scored as well.

Beside the scores of each run stands the SHA-256 of the predictions that gave them: `tables.py report` refuses a file that
is not of the results that it shows.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

import data_scripts  # noqa: E402
from benchmarks.experiments import with_data_dir  # noqa: E402
from benchmarks.results import Result, launched_in, load_results, sentence_counts  # noqa: E402
from benchmarks.significance import SentenceCounts, bootstrap_difference  # noqa: E402
from modeling_aspert.configuration_aspert import AspertConfig  # noqa: E402
from modeling_aspert.decoding import Predictions, join_records, learn_constraints  # noqa: E402
from modeling_aspert.files import write_text  # noqa: E402
from modeling_aspert.scoring import SCORE_NAMES, compute_scores  # noqa: E402
from modeling_aspert.voting import vote  # noqa: E402

KIND = "predictions scored again"
RESCORED_FILE = "rescored.json"
RESULTS = ROOT / "benchmarks" / "results" / "runs"
# runs that are needed for a vote
VOTERS = 3
# fields of AspertConfig that a run may learn from its training data, by what they are called in the table
CONSTRAINTS = {
    "types": ("relation_type_constraints",),
    "overlaps": ("entity_overlap",),
    "both": ("relation_type_constraints", "entity_overlap"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    try:
        results = [result for result in load_results(arguments.results) if has_predictions(result)]
        # before they are scored: where a run is made again meanwhile, the file counts as old, not as new
        hashes = {result.content["id"]: predictions_hash(result) for result in results}
        runs, votes = rescored(results, arguments.data_dir)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = {
        "kind": KIND,
        "format": 1,
        "runs": dict(sorted(runs.items())),
        "votes": sorted(votes, key=lambda vote: vote["runs"]),
        "predictions": dict(sorted(hashes.items())),
    }
    write_text(arguments.results / RESCORED_FILE, json.dumps(content, indent=1) + "\n")
    print(f"{arguments.results / RESCORED_FILE}: {len(runs)} runs")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--data-dir", type=Path, help="where the corpora lie; default: as train.py finds them")
    return parser


def has_predictions(result: Result) -> bool:
    """Whether a run's predictions were kept."""
    return result.content.get("predictions") is not None


def predictions_hash(result: Result) -> str:
    """The SHA-256 of a run's predictions, however they are compressed.

    Raises:
        OSError: the file that the result names is missing, or no gzip file.
    """
    with gzip.open(result.path.with_name(result.content["predictions"])) as file:
        return hashlib.sha256(file.read()).hexdigest()


def is_free(result: Result) -> bool:
    """Whether a run had no constraints."""
    bound = ("learn_constraints", "learn_thresholds", "relation_type_constraints", "entity_overlap")
    return not any(result.content["settings"].get(name) for name in bound)


def rescored(
    results: Sequence[Result], data_dir: Path | None = None
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[dict[str, Any]]]:
    """What the predictions of runs tell, in percent.

    Returns:
        Of each run, by its id: `between_right_spans` ("spans"); where test sentences stand in the training data,
        `without_shared` ("unseen"); and of a run without constraints, its scores with each of ``CONSTRAINTS``
        ("constraints"). And of all ``VOTERS`` or more runs that differ in their seed alone, their ids ("runs"), the
        "scores" of their vote, and 95% intervals of the "gains" over their mean score, by bootstrap over test sentences.

    Raises:
        ValueError: predictions that do not fit the test data.
        OSError: no corpus.
    """
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    voters: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    corpora: dict[tuple[str, str | None, int | None], tuple[Any, ...]] = {}
    for result in results:
        fields = result.content["fields"]
        place = (fields["dataset"], fields.get("dataset_config"), fields.get("max_train_samples"))
        if place not in corpora:
            where = {"config_name": place[1], "data_dir": with_data_dir(fields, data_dir).get("data_dir")}
            data = data_scripts.load(place[0], **where)
            schema = data_scripts.load_schema(place[0], **where)
            train = list(data["train"])[: place[2]]
            train_words = {tuple(record["tokens"]) for record in train}
            corpora[place] = (schema, learn_constraints(train), list(data["test"]), train_words)
        schema, learnt, gold, train_words = corpora[place]
        with gzip.open(result.path.with_name(result.content["predictions"]), "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        scores: dict[str, dict[str, Any]] = {"spans": between_right_spans(records, gold, schema.symmetric_relations)}
        if unseen := without_shared(records, gold, train_words, schema.symmetric_relations):
            scores["unseen"] = unseen
        if is_free(result):
            predicted = Predictions.from_records(records, AspertConfig(**schema.labels))
            scores["constraints"] = {}
            for name, constraints in CONSTRAINTS.items():
                config = AspertConfig(**schema.labels, **{field: learnt[field] for field in constraints})
                kept = predicted.constrained(config).per_sentence(len(records))
                found = compute_scores(
                    join_records(gold, kept, config), gold, symmetric_relations=schema.symmetric_relations
                )
                scores["constraints"][name] = _f1(found)
        runs[result.content["id"]] = scores
        settings = result.content["settings"]
        alike = json.dumps({**settings, **launched_in(result.content, settings)}, sort_keys=True)
        voters[result.content["corpus"], place, alike][result.content["id"]] = records
    votes = []
    for (_, place, _), predictions in voters.items():
        if len(predictions) < VOTERS:
            continue
        schema, _, gold, _ = corpora[place]
        # predictions are in order: of a symmetric relation, the head is the entity that comes first
        found = [vote(records) for records in zip(*predictions.values(), strict=True)]
        scores = compute_scores(found, gold, symmetric_relations=schema.symmetric_relations)
        counts = [
            SentenceCounts([sentence_counts(*pair, schema.symmetric_relations) for pair in zip(records, gold)])
            for records in (found, *predictions.values())
        ]
        gains = {
            # of these very runs: other sentences, not other runs
            name: bootstrap_difference({"": counts[:1]}, {"": counts[1:]}, name, min_resampled=math.inf)
            for name in _f1(scores)
        }
        votes.append({"runs": sorted(predictions), "scores": _f1(scores), "gains": gains})
    return runs, votes


def between_right_spans(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], symmetric: Collection[str] = ()
) -> dict[str, float]:
    """How far relations fall with the spans of their arguments, and how far by themselves; entity types do not count.

    Returns:
        In percent: ``gold``, the share of the gold relations both of whose spans were predicted; ``predicted``, the share of
        the predicted relations both of whose spans are gold; ``precision``, ``recall`` and ``f1`` (micro) between these.

    Raises:
        ValueError: for lists of different lengths, or a record that is not in the SpERT format.
    """
    scores = compute_scores(
        [_within(*pair) for pair in zip(predictions, references, strict=True)],
        [_within(*pair) for pair in zip(references, predictions)],
        symmetric_relations=symmetric,
    )
    whole = compute_scores(predictions, references, symmetric_relations=symmetric)
    rows, all_rows = (list(one["per_type"]["re_boundaries"].values()) for one in (scores, whole))
    shares = {}
    for name, column in (("gold", "support"), ("predicted", "predicted")):
        part, total = (sum(row[column] for row in group) for group in (rows, all_rows))
        shares[name] = 100.0 * part / total if total else 0.0
    return {**shares, **{name: scores[f"re_boundaries_micro_{name}"] for name in ("precision", "recall", "f1")}}


def without_shared(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    train_words: Collection[tuple[str, ...]],
    symmetric: Collection[str] = (),
) -> dict[str, float] | None:
    """The F1 scores without the sentences whose words stand in train, and how many ``sentences`` these are; None for none."""
    pairs = list(zip(predictions, references, strict=True))
    kept = [pair for pair in pairs if tuple(pair[1]["tokens"]) not in train_words]
    if len(kept) == len(pairs):
        return None
    scores = compute_scores(*([pair[side] for pair in kept] for side in (0, 1)), symmetric_relations=symmetric)
    return {"sentences": len(pairs) - len(kept), **_f1(scores)}


def _f1(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: scores[name] for name in SCORE_NAMES if name.endswith("_f1")}


def _within(record: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A record with those of its relations both of whose spans the other has too."""
    shared = {(entity["start"], entity["end"]) for entity in other["entities"]}
    inside = [(entity["start"], entity["end"]) in shared for entity in record["entities"]]
    kept = [relation for relation in record["relations"] if inside[relation["head"]] and inside[relation["tail"]]]
    return {**record, "relations": kept}


def stale_runs(content: Mapping[str, Any], results: Sequence[Result]) -> dict[str, str]:
    """The runs in which a file of this script does not fit the results, by id, each with what is wrong; none if it fits.

    Corpus and settings, which decide the scores too, are part of the id.

    Raises:
        OSError: a result names predictions that are not there.
    """
    runs, hashes = content["runs"], content.get("predictions", {})
    kept = {result.content["id"]: result for result in results if has_predictions(result)}
    stale = {}
    for name, result in kept.items():
        if name not in runs:
            stale[name] = "is not in it"
        elif hashes.get(name) != predictions_hash(result):
            stale[name] = "was not scored from the predictions that are there now"
        elif ("constraints" in runs[name]) != is_free(result):
            stale[name] = "was scored by other code"
    return stale | {name: "is there no more, or without predictions" for name in runs if name not in kept}


def read_rescored(file: Path, results: Sequence[Result] | None = None) -> dict[str, Any]:
    """What `rescored` gave ("runs", "votes"), from a file of this script; nothing where there is no file.

    Args:
        results: all results of its folder, which it must fit; None to take the file as it is.

    Raises:
        ValueError: a file that cannot be read, or does not fit the results.
        OSError: a result names predictions that are not there.
    """
    if not file.is_file():
        return {}
    where = "" if file.parent.resolve() == RESULTS else f" --results {shlex.quote(str(file.parent))}"
    mend = f"run `python benchmarks/rescoring.py{where}`"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        votes = content.get("votes") if isinstance(content, dict) and content.get("kind") == KIND else None
        if votes is None or not all("gains" in one for one in votes):
            raise ValueError(f"it holds no {KIND}, or those of other code")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}; {mend}") from None
    if results is not None and (stale := stale_runs(content, results)):
        name, reason = next(iter(stale.items()))
        places = (f" ({result.path})" for result in results if result.content["id"] == name)
        count = f"{len(stale)} run{'s' if len(stale) > 1 else ''}"
        raise ValueError(
            f"{file} does not fit the results in {count}: the first, {name}{next(places, '')}, {reason}; {mend}"
        )
    return {"runs": content["runs"], "votes": content["votes"]}


if __name__ == "__main__":
    sys.exit(main())
