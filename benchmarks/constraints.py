"""What the constraints that training data show do to predictions that were made without them, of finished runs.

    python benchmarks/constraints.py            writes benchmarks/results/runs/constraints.json
    python benchmarks/tables.py report          and its table in docs/results.md

The predictions that were kept of a run (test split) are scored again with relations only between the types of head and
tail that the training data show, without overlapping entities where the training data have none, and with both. Nothing
is trained.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

from benchmarks.results import Result, load_results  # noqa: E402
from modeling_aspert.files import write_text  # noqa: E402

KIND = "constraints on predictions"
CONSTRAINTS_FILE = "constraints.json"
RESULTS = ROOT / "benchmarks" / "results" / "runs"
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
        results = [result for result in load_results(arguments.results) if is_free(result)]
        runs = {result.content["id"]: scores for result, scores in rescored(results, arguments.data_dir)}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = {"kind": KIND, "format": 1, "runs": dict(sorted(runs.items()))}
    write_text(arguments.results / CONSTRAINTS_FILE, json.dumps(content, indent=1) + "\n")
    print(f"{arguments.results / CONSTRAINTS_FILE}: {len(runs)} runs")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--data-dir", type=Path, help="where the corpora lie; default: as train.py finds them")
    return parser


def is_free(result: Result) -> bool:
    """Whether predictions were kept that were made without constraints."""
    settings = result.content["settings"]
    bound = ("learn_constraints", "learn_thresholds", "relation_type_constraints", "entity_overlap")
    return result.content.get("predictions") is not None and not any(settings.get(name) for name in bound)


def rescored(
    results: Sequence[Result], data_dir: Path | None = None
) -> Iterator[tuple[Result, dict[str, dict[str, float]]]]:
    """The test scores of each run with each of ``CONSTRAINTS``.

    Raises:
        ValueError: predictions that do not fit the test data.
        OSError: no corpus.
    """
    import data_scripts
    from modeling_aspert.configuration_aspert import AspertConfig
    from modeling_aspert.decoding import Predictions, join_records, learn_constraints
    from modeling_aspert.scoring import SCORE_NAMES, compute_scores

    corpora: dict[tuple[str, str | None], tuple[Any, ...]] = {}
    for result in results:
        fields = result.content["fields"]
        place = (fields["dataset"], fields.get("dataset_config"))
        if place not in corpora:
            data = data_scripts.load(place[0], config_name=place[1], data_dir=data_dir)
            schema = data_scripts.load_schema(place[0], config_name=place[1], data_dir=data_dir)
            corpora[place] = (schema, learn_constraints(data["train"]), list(data["test"]))
        schema, learnt, gold = corpora[place]
        types = {
            "entity_types": list(schema.entity_types),
            "relation_types": list(schema.relation_types),
            "symmetric_relations": list(schema.symmetric_relations),
        }
        with gzip.open(result.path.with_name(result.content["predictions"]), "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        predicted = Predictions.from_records(records, AspertConfig(**types))
        scores = {}
        for name, constraints in CONSTRAINTS.items():
            config = AspertConfig(**types, **{field: learnt[field] for field in constraints})
            kept = predicted.constrained(config).per_sentence(len(records))
            found = compute_scores(
                join_records(gold, kept, config), gold, symmetric_relations=schema.symmetric_relations
            )
            scores[name] = {score: found[score] for score in SCORE_NAMES if score.endswith("_f1")}
        yield result, scores


def read_constraints(file: Path) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """The scores in a file of this script, by id of the run and name of the constraints; none where there is no file."""
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
