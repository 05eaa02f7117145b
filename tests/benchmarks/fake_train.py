"""Stands in for train.py: reads the same arguments and leaves the same files, without a network.

The behaviour comes from the file named by FAKE_TRAIN_MODE: "ok", "fail" (exit code 3), "hang" (waits to be killed once
a checkpoint is there) or "wrong" (predictions that are not those of the scores).
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def load_scorer():
    """The library's scorer without the library, whose imports take seconds."""
    spec = importlib.util.spec_from_file_location("scoring", ROOT / "modeling_aspert" / "scoring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_scores


def main(argv: list[str]) -> int:
    config = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8"))
    options = dict(zip(argv[1::2], argv[2::2]))
    output = Path(options["--output_dir"])
    output.mkdir(parents=True, exist_ok=True)
    mode = Path(os.environ["FAKE_TRAIN_MODE"]).read_text(encoding="utf-8").strip()
    with open(output.parent / "calls", "a", encoding="utf-8") as calls:
        calls.write(
            f"{mode} resume={options['--resume_from_checkpoint']} found={(output / 'checkpoint-1').is_dir()}\n"
        )
    print("fake training of seed", config["seed"], "in", os.getcwd(), flush=True)
    if None in config.values():
        raise ValueError("a field is empty, which train.py refuses")
    if mode == "fail":
        print("error: the fake training fails as it was told", flush=True)
        return 3
    description = {"versions": {"torch": "0"}, "commit": "abc", "data": {}, "seed": config["seed"]}
    (output / "run.json").write_text(json.dumps(description), encoding="utf-8")
    (output / "checkpoint-1").mkdir(exist_ok=True)
    if mode == "hang":
        (output.parent / "hanging").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(60)

    compute_scores = load_scorer()
    folder = ROOT / "data_scripts" / "quickstart"
    gold = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    types = json.loads((folder / "quickstart_types.json").read_text(encoding="utf-8"))
    symmetric = [name for name, entry in types["relations"].items() if entry["symmetric"]]
    # SpERT loses a fifth of the relations, another model fewer: differences with a known sign
    loss = 0.3 if config["preset"] == "spert" else 0.1
    rng = random.Random(config["seed"])
    records = [
        {**record, "relations": [relation for relation in record["relations"] if rng.random() > loss]}
        for record in gold
    ]
    scores = compute_scores(records, gold, symmetric_relations=symmetric)
    scores = {name: value for name, value in scores.items() if name != "per_type"}
    if mode == "wrong":
        records = records[::-1]
    lines = [
        json.dumps({**record, "entities": [{**entity, "score": 0.987654321} for entity in record["entities"]]})
        for record in records
    ]
    (output / "predictions_test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for prefix, shift in (("eval", -1.0), ("test", 0.0)):
        entry = {f"{prefix}_{name}": value + shift for name, value in scores.items()}
        entry |= {f"{prefix}_runtime": 1.5, "epoch": 2.0}
        (output / f"{prefix}_results.json").write_text(json.dumps(entry), encoding="utf-8")
    (output / "train_results.json").write_text(json.dumps({"train_runtime": 12.5}), encoding="utf-8")
    history = [
        {"epoch": 2.0, "eval_re_strict_micro_f1": 61.0},
        {"epoch": 1.0, "eval_re_strict_micro_f1": 60.0},
        {"epoch": 1.0, "loss": 0.5},
    ]
    (output / "trainer_state.json").write_text(json.dumps({"log_history": history}), encoding="utf-8")
    model = {"encoder": config["encoder"], "preset": config["preset"], "span_classifier": None}
    data = {"dataset": "quickstart", "dataset_config": None, "data_dir": None, "max_train_samples": None}
    data |= {"card_examples": True, "language": None, "license": "mit"}
    training = {"seed": config["seed"], "num_train_epochs": float(config.get("num_train_epochs", 20))}
    training["per_device_train_batch_size"] = config.get("per_device_train_batch_size", 4)
    training |= {"learning_rate": config["learning_rate"], "metric_for_best_model": "re_strict_micro_f1"}
    description["arguments"] = {"model": model, "data": data, "training": training}
    (output / "run.json").write_text(json.dumps(description), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
