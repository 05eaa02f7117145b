"""The trainer: the loss over the effective batch, sampling, parameter groups, evaluation."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, RECORDS, WithStart, make_batch, make_model, make_processor
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy, SchedulerType

import modeling_aspert.trainer as trainer_module
from modeling_aspert import (
    AspertDataCollator,
    AspertForJointExtraction,
    AspertProcessor,
    AspertTrainer,
    AspertTrainingArguments,
    JointExtractionDataset,
)
from modeling_aspert.dataset import EpochSampler
from modeling_aspert.thresholds import check_learnable
from tests.training_corpus import empty_record, make_encoder, make_records
from tests.training_steps import LABELS, NO_DROPOUT, evaluate, make_trainer, save_evaluation, save_steps, take_steps
from tests.training_worker import run_together

ROOT = Path(__file__).resolve().parents[2]
SEED = 42


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without dropout."""
    return make_encoder(tmp_path_factory.mktemp("encoder"), dropout=0.0)


def permutation(size: int, epoch: int) -> list[int]:
    sampler = EpochSampler(range(size), SEED)
    sampler.set_epoch(epoch)
    return [index % size for index in sampler]


def single_entity_record(identifier: str) -> dict[str, Any]:
    return {
        "tokens": "Ada was late .".split(),
        "entities": [{"type": "Person", "start": 0, "end": 1}],
        "relations": [],
        "orig_id": identifier,
    }


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """16 sentences: in the first effective batch of 8 the second half has no pairs, the second batch has none at all."""
    records = [record for record in make_records(40, 5) if record["relations"]][:16]
    order = permutation(16, epoch=0)
    for number, position in enumerate(order[4:]):
        records[position] = (empty_record if number % 2 else single_entity_record)(f"without pairs {number}")
    return records


EVALUATE_BY_TWO = {"per_device_eval_batch_size": 2}
EIGHT = {"per_device_train_batch_size": 8}
FOUR_TWICE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
FOUR = {"per_device_train_batch_size": 4}


def assert_same_steps(one: tuple, other: tuple, tolerance: float = 1e-6) -> None:
    for first, second in zip(one[:2], other[:2]):
        assert first == pytest.approx(second, rel=1e-5, abs=tolerance)
    for step, (first, second) in enumerate(zip(one[2], other[2], strict=True)):
        for name in first:
            difference = (first[name] - second[name]).abs().max().item()
            assert difference <= tolerance, f"{name} differs by {difference} after step {step + 1}"


def steps_of_two_processes(folder: Path, *args: Any, **kwargs: Any) -> tuple:
    run_together(folder, 2, save_steps, folder, args, kwargs)
    one, other = (torch.load(folder / f"steps{rank}.pt") for rank in range(2))
    for first, second in zip(one[2], other[2], strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
    return one


# -- loss ----------------------------------------------------------------------------------------------------------


def reference_loss(trainer: AspertTrainer, items: list[dict[str, Any]], span_loss_weight: float) -> float:
    """lambda * L^s + L^r of an effective batch by loops over spans and pairs, one sentence at a time."""
    model = trainer.model.train()
    span_losses: list[float] = []
    pair_losses: list[float] = []
    for item in items:
        batch = trainer.collator([item])
        del batch["index"]
        with torch.no_grad():
            output = model(**batch)
        for span, label in enumerate(batch["span_labels"][0].tolist()):
            scores = [math.exp(value) for value in output.span_logits[0, span].double().tolist()]
            span_losses.append(-math.log(scores[label] / sum(scores)))
        for pair, labels in enumerate(batch["pair_labels"][0].tolist()):
            if model.config.relation_none_class:
                labels = [*labels, 0.0 if any(labels) else 1.0]
            probabilities = [1 / (1 + math.exp(-value)) for value in output.relation_logits[0, pair].double().tolist()]
            terms = [-math.log(p if target else 1 - p) for p, target in zip(probabilities, labels, strict=True)]
            pair_losses.append(sum(terms) / len(terms))
    relation_loss = sum(pair_losses) / len(pair_losses) if pair_losses else 0.0
    return span_loss_weight * sum(span_losses) / len(span_losses) + relation_loss


@pytest.mark.parametrize("fields", [{}, {"span_loss_weight": 0.25, "relation_none_class": True}])
def test_loss_is_the_definition_over_the_effective_batch(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path, fields: dict[str, Any]
) -> None:
    # a rate of 0, so that both steps see the weights of the start
    trainer = make_trainer(encoder, tmp_path, records, fields, learning_rate=0.0, num_train_epochs=1, **FOUR_TWICE)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    order = permutation(16, epoch=0)
    expected = [
        reference_loss(
            trainer,
            [trainer.train_dataset[index] for index in order[start : start + 8]],
            fields.get("span_loss_weight", 1.0),
        )
        for start in (0, 8)
    ]
    assert logged == pytest.approx(expected, rel=1e-5)


def test_accumulation_equals_one_batch(encoder: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = take_steps(encoder, tmp_path, records, **EIGHT, num_train_epochs=3)
    assert len(whole[0]) == 6 and len(set(whole[0])) == 6
    assert_same_steps(take_steps(encoder, tmp_path, records, **FOUR_TWICE, num_train_epochs=3), whole)


def test_accumulation_equals_one_batch_in_the_last_partial_batch(encoder: Path, tmp_path: Path) -> None:
    # 8 + 5: micro-batches of 4, 4 and 4, 1
    records = make_records(13, 5)
    whole = take_steps(encoder, tmp_path, records, **EIGHT)
    assert len(whole[0]) == 4
    assert_same_steps(take_steps(encoder, tmp_path, records, **FOUR_TWICE), whole)


def test_two_processes_equal_one(encoder: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = take_steps(encoder, tmp_path, records, **EIGHT, num_train_epochs=3)
    together = steps_of_two_processes(tmp_path, encoder, tmp_path, records, **FOUR, num_train_epochs=3)
    assert_same_steps(together, whole)


def test_two_processes_with_accumulation_equal_one(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    whole = take_steps(encoder, tmp_path, records, **EIGHT)
    spread = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    together = steps_of_two_processes(tmp_path, encoder, tmp_path, records, **spread)
    # each process takes every other batch of two, so the same eight sentences meet
    assert_same_steps(together, whole)


def test_two_processes_equal_one_in_the_last_partial_batch(encoder: Path, tmp_path: Path) -> None:
    # 8 + 5: the second process has one sentence, and no sentence may count twice to fill its batch
    records = make_records(13, 5)
    whole = take_steps(encoder, tmp_path, records, **EIGHT)
    assert_same_steps(steps_of_two_processes(tmp_path, encoder, tmp_path, records, **FOUR), whole)


def test_gradient_checkpointing_changes_nothing(encoder: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    plain = take_steps(encoder, tmp_path, records, **EIGHT)
    assert_same_steps(take_steps(encoder, tmp_path, records, **EIGHT, gradient_checkpointing=True), plain)


def test_gradient_checkpointing_with_other_settings_trains_the_same(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    """torch's default is the reentrant kind, transformers' where nothing is said is not."""
    plain = take_steps(encoder, tmp_path, records, **EIGHT)
    fields = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"preserve_rng_state": True}}
    assert_same_steps(take_steps(encoder, tmp_path, records, **EIGHT, **fields), plain)


def test_gradient_checkpointing_that_loses_the_attentions_gradient_is_refused(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    fields = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="set use_reentrant to False"):
        make_trainer(encoder, tmp_path, records, **EIGHT, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"relation_types": [], "symmetric_relations": []},
        {"relation_none_class": True, "relation_contribution": False, "contribution_threshold": 0.999},
        {"word_shapes": True, "span_boundaries": True, "relation_entity_types": True, "relation_classifier": "mlp"},
        {"attentional_contribution": False, "span_classifier": "linear"},
    ],
    ids=lambda fields: " ".join(fields) or "paper",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_has_a_gradient_in_every_batch(family: str, fields: dict[str, Any]) -> None:
    """So DistributedDataParallel need not look for weights without one."""
    assert AspertTrainingArguments(use_cpu=True).ddp_find_unused_parameters is False
    model = make_model(family, **fields).train()
    related, unrelated = RECORDS[:2], [{**record, "relations": []} for record in RECORDS]
    without_pairs = unrelated[2:]
    for records, count in ((related, 5), (related, 0), (unrelated, 5), (without_pairs, 5), (without_pairs, 0)):
        if records is related and not model.config.relation_types:
            continue
        model.zero_grad()
        counts = {"negative_entity_count": count, "negative_relation_count": count}
        model(**make_batch(model.config, family, records=records, **counts)).loss.backward()
        assert not [name for name, weights in model.named_parameters() if weights.grad is None]


# -- sampling ------------------------------------------------------------------------------------------------------


def test_loader_workers_change_nothing(encoder: Path, tmp_path: Path) -> None:
    records = make_records(9, 6)
    plain = take_steps(encoder, tmp_path, records, **FOUR)
    for workers in (2, 4):
        parallel = take_steps(encoder, tmp_path, records, **FOUR, dataloader_num_workers=workers)
        assert_same_steps(parallel, plain, tolerance=0.0)
    persistent = take_steps(
        encoder, tmp_path, records, **FOUR, dataloader_num_workers=2, dataloader_persistent_workers=True
    )
    assert_same_steps(persistent, plain, tolerance=0.0)


def test_workers_that_stay_evaluate_what_is_asked_for(encoder: Path, tmp_path: Path) -> None:
    """Not the data or the width of candidates of the evaluation before."""
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    trainer = make_trainer(encoder, tmp_path, make_records(5, 3), {"max_span_width": 1}, **workers)
    records = make_records(3, 4)
    first, second = (
        JointExtractionDataset(some, trainer.collator.processor, trainer.model.config)
        for some in (records[:2], records)
    )
    for dataset in (first, second, first):
        trainer.evaluate(dataset)
        assert [one["tokens"] for one in trainer.predicted_records] == [one["tokens"] for one in dataset.records]
    loader = trainer.get_eval_dataloader(first)
    assert trainer.get_eval_dataloader(first) is loader
    trainer.collator.config = trainer.model.config = copy.deepcopy(trainer.model.config)
    trainer.model.config.max_span_width = 3
    (batch,) = trainer.get_eval_dataloader(first)
    assert batch["span_widths"].max() == 3


def test_order_and_negatives_are_new_in_every_epoch(encoder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    records = make_records(9, 6)
    trainer = make_trainer(
        encoder, tmp_path, records, num_train_epochs=3, per_device_train_batch_size=1, negative_entity_count=3,
        negative_relation_count=1,
    )  # fmt: skip
    seen: list[tuple[int, set, set, set]] = []
    loss = AspertTrainer.compute_loss

    def spy(self: AspertTrainer, model: Any, inputs: dict[str, Any], **kwargs: Any) -> Any:
        pairs = zip(map(tuple, inputs["pairs"][0].tolist()), inputs["pair_labels"][0].sum(-1).tolist())
        spans = zip(map(tuple, inputs["spans"][0].tolist()), inputs["span_labels"][0].tolist())
        spans = list(spans)
        gold = {span for span in spans if span[1]}
        seen.append(
            (
                int(inputs["index"]),
                gold,
                {span for span in spans if not span[1]},
                {pair for pair, hot in pairs if not hot},
            )
        )
        return loss(self, model, inputs, **kwargs)

    monkeypatch.setattr(AspertTrainer, "compute_loss", spy)
    trainer.train()
    epochs = [seen[start : start + 9] for start in (0, 9, 18)]
    orders = [[index for index, *_ in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert orders == [permutation(9, epoch) for epoch in range(3)] and len(set(map(tuple, orders))) == 3
    by_record = [sorted(epoch, key=lambda entry: entry[0]) for epoch in epochs]
    for first, second in zip(by_record[0], by_record[1]):
        assert first[1] == second[1]
    changed = [
        sum(first[kind] != second[kind] for first, second in zip(by_record[one], by_record[other]))
        for kind in (2, 3)
        for one, other in ((0, 1), (1, 2))
    ]
    # of 9 records, most have more spans than are drawn, and a few more pairs
    assert min(changed[:2]) >= 7 and sum(changed[2:]) >= 2, changed


def test_negatives_depend_on_seed_epoch_and_record_alone(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(9, 6), negative_entity_count=4)
    dataset, collator = trainer.train_dataset, trainer.collator

    def spans(index: int, collate: AspertDataCollator = collator) -> list:
        return collate([dataset[index]])["spans"].tolist()

    alone = spans(9 + 4)
    np.random.seed(0)
    torch.manual_seed(0)
    assert spans(9 + 4) == alone
    together = collator([dataset[9 + 1], dataset[9 + 4]])
    assert together["spans"][1][together["span_mask"][1]].tolist() == alone[0]
    assert spans(4) != alone
    other_seed = AspertDataCollator(collator.processor, collator.config, negative_entity_count=4, seed=SEED + 1)
    assert spans(9 + 4, other_seed) != alone


def test_group_by_length_keeps_every_record_once(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(13, 6), train_sampling_strategy="group_by_length", **FOUR)
    indices = [index for batch in trainer.get_train_dataloader() for index in batch["index"].tolist()]
    assert sorted(indices) == list(range(13)) and indices != list(range(13))
    trainer.train()
    assert trainer.state.global_step == 8


@pytest.mark.parametrize("size", [1, 3])
def test_fewer_records_than_a_batch(encoder: Path, tmp_path: Path, size: int) -> None:
    losses, _, weights = take_steps(encoder, tmp_path, make_records(size, 6), **EIGHT)
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)


def test_corpus_without_any_entity(encoder: Path, tmp_path: Path) -> None:
    losses, norms, _ = take_steps(
        encoder, tmp_path, [empty_record("a"), empty_record("b")], **FOUR, num_train_epochs=4
    )
    assert all(math.isfinite(value) for value in losses + norms)
    assert losses[-1] < losses[0]


# -- optimiser -----------------------------------------------------------------------------------------------------


def groups_by_name(trainer: AspertTrainer) -> dict[str, dict[str, Any]]:
    """The group of each parameter; every parameter is in exactly one."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in groups
            groups[name] = group
    assert groups.keys() == set(names.values())
    return groups


@pytest.mark.parametrize("head_rate", [None, 3e-3])
def test_parameter_groups(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path, head_rate: float | None
) -> None:
    trainer = make_trainer(encoder, tmp_path, records, learning_rate=1e-4, head_learning_rate=head_rate)
    groups = groups_by_name(trainer)
    assert sum(not name.startswith("encoder.") for name in groups) == 7
    for name, group in groups.items():
        rate = 1e-4 if name.startswith("encoder.") or head_rate is None else head_rate
        assert group["lr"] == rate, name
        free = name.endswith("bias") or "LayerNorm" in name
        assert group["weight_decay"] == (0.0 if free else 0.01), name
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-4)
    assert sum(group["weight_decay"] == 0 for group in groups.values()) > 20


def test_an_optimizer_that_is_there_stays_as_it_is(
    encoder: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The Trainer asks for it again where it tries a smaller batch; a checkpoint with other groups could not be resumed."""
    trainer = make_trainer(encoder, tmp_path, records, learning_rate=1e-4, head_learning_rate=3e-3)
    before = groups_by_name(trainer)
    groups = [(len(group["params"]), group["lr"]) for group in trainer.optimizer.param_groups]
    assert groups_by_name(trainer) == before
    assert [(len(group["params"]), group["lr"]) for group in trainer.optimizer.param_groups] == groups


def test_head_learning_rate_follows_the_schedule(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        encoder,
        tmp_path,
        make_records(16, 5),
        learning_rate=0.0,
        head_learning_rate=1e-2,
        lr_scheduler_type="linear",
        warmup_steps=0.25,
        num_train_epochs=2,
        weight_decay=0.0,
        **FOUR,
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("encoder.") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"width_embedding", "span_classifier", "relation_classifier"}
    assert all(group["lr"] == 0.0 for group in trainer.optimizer.param_groups)


def test_learning_rate_warms_up_and_decays(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        encoder,
        tmp_path,
        make_records(20, 5),
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        num_train_epochs=4,
        **FOUR,
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    # 20 steps, 2 of them warm-up: the rate used in step k, from 0
    assert rates == pytest.approx([1e-2 * min(step / 2, (20 - step) / 18) for step in range(20)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"negative_relation_count": -2}, "negative_relation_count = -2"),
        ({"gradient_accumulation_steps": -1}, "gradient_accumulation_steps = -1 is not valid: it must be >= 1"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size = 0 is not valid: it must be >= 1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 is not valid: it must be >= 0"),
        ({"eval_do_concat_batches": False}, "eval_do_concat_batches = False is not valid: scores .*; leave it out"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics = True is not valid: scores .*; leave it out"),
        ({"greater_is_better": False}, "greater_is_better = False is not valid: of every score .*; leave it out"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor = 0.1 is not valid: the losses .*; leave it out"),
        ({"bf16_full_eval": True}, "bf16_full_eval = True is not valid: the model .*bf16 = True.*; leave it out"),
        ({"fp16_full_eval": True}, "fp16_full_eval = True is not valid: the model .*fp16 = True.*; leave it out"),
        ({"metric_for_best_model": "eval_dev_f1"}, "'eval_dev_f1' is not valid: choose one of ner_micro_precision"),
        (
            {"early_stopping_patience": 2, "eval_strategy": "no", "load_best_model_at_end": False},
            "early_stopping_patience = 2 needs evaluations: set eval_strategy",
        ),
        ({"hub_strategy": "every_save"}, "hub_strategy = every_save is not valid: checkpoints .*; leave it out"),
        ({"hub_strategy": "checkpoint"}, "hub_strategy = checkpoint is not valid: checkpoints .*; leave it out"),
    ],
)
def test_arguments_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AspertTrainingArguments(**fields, use_cpu=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("epoch", 500)),
        ({"logging_steps": 7}, ("steps", 7)),
        ({"logging_steps": 500}, ("steps", 500)),
        ({"logging_strategy": "steps"}, ("steps", 500)),
        ({"logging_strategy": "no", "logging_steps": 7}, ("no", 7)),
    ],
)
def test_the_loss_is_logged_every_epoch_unless_told_otherwise(fields: dict[str, Any], expected: Any) -> None:
    args = AspertTrainingArguments(use_cpu=True, **fields)
    assert (args.logging_strategy, args.logging_steps) == expected
    assert (replace(args).logging_strategy, replace(args).logging_steps) == expected


def test_the_arguments_that_are_refused_are_not_the_defaults() -> None:
    assert AspertTrainingArguments(use_cpu=True).hub_strategy == "end"
    for strategy in ("end", HubStrategy.END):
        assert AspertTrainingArguments(hub_strategy=strategy, use_cpu=True).hub_strategy is HubStrategy.END


def test_one_of_several_gpus_is_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a launcher the Trainer would take DataParallel."""
    set_up = TrainingArguments.__post_init__

    def with_four_gpus(self: TrainingArguments) -> None:
        set_up(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four_gpus)
    args = AspertTrainingArguments(per_device_train_batch_size=3, use_cpu=True)
    assert args.n_gpu == 1 and args.train_batch_size == 3
    assert "one of 4 GPUs is used: start with `accelerate launch`" in caplog.text


# -- evaluation ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts entities and relations."""
    folder = tmp_path_factory.mktemp("model")
    encoder = make_encoder(tmp_path_factory.mktemp("encoder"), dropout=0.0)
    fields = {**NO_DROPOUT, "span_classifier_size": 64}
    trainer = make_trainer(encoder, folder, make_records(29, 1), fields, num_train_epochs=6, adam_epsilon=1e-8, **FOUR)
    trainer.train()
    trainer.save_model()
    return folder


@pytest.fixture(scope="module")
def splits() -> list[list[dict[str, Any]]]:
    """11 sentences, one, and two of which one is far longer."""
    long = {"tokens": ["Ada", "married", "Bo", "and"] * 8, "entities": [], "relations": []}
    return [make_records(11, 3), make_records(1, 4), [empty_record("short"), long]]


def assert_same_evaluation(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first["scores"] == second["scores"]
        for record, twin in zip(first["records"], second["records"], strict=True):
            assert record["tokens"] == twin["tokens"] and record.get("orig_id") == twin.get("orig_id")
            for part in ("entities", "relations"):
                for item, again in zip(record[part], twin[part], strict=True):
                    assert {**item, "score": 0} == {**again, "score": 0}
                    assert item["score"] == pytest.approx(again["score"], abs=1e-5)


def test_evaluation_does_not_depend_on_the_batch_size(
    model_folder: Path, splits: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    one = evaluate(model_folder, tmp_path, splits, False, 1)
    assert sum(len(record["relations"]) for record in one[0]["records"]) > 3
    assert len(one[0]["scores"]) == 18
    assert_same_evaluation(evaluate(model_folder, tmp_path, splits, False, 16), one)


@pytest.mark.parametrize("quiet", [False, True])
def test_two_processes_evaluate_as_one(
    model_folder: Path, splits: list[list[dict[str, Any]]], tmp_path: Path, quiet: bool
) -> None:
    """Uneven splits, outputs of different lengths on the two, and nothing predicted at all."""
    one = evaluate(model_folder, tmp_path, splits, quiet, 3)
    run_together(tmp_path, 2, save_evaluation, tmp_path, model_folder, tmp_path, splits, quiet, 3)
    for rank in range(2):
        assert_same_evaluation(json.loads((tmp_path / f"evaluation{rank}.json").read_text()), one)
    predicted = sum(len(record["entities"]) for result in one for record in result["records"])
    assert (predicted == 0) == quiet
    if quiet:
        assert set(one[0]["scores"].values()) == {0.0}


def test_what_training_drops_is_evaluated(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        encoder, tmp_path, make_records(5, 1), num_train_epochs=1, **FOUR, **EVALUATE_BY_TWO, dataloader_drop_last=True
    )
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.args.dataloader_drop_last
    trainer.evaluate(trainer.train_dataset)
    assert len(trainer.predicted_records) == 5
    assert len(trainer.predict(trainer.train_dataset).label_ids) == 5


def test_evaluation_has_no_loss_and_leaves_the_training_collator(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(4, 3))
    metrics = trainer.evaluate(trainer.train_dataset)
    assert "eval_loss" not in metrics and metrics["eval_ner_micro_f1"] >= 0
    assert trainer.scores["per_type"]["ner"].keys() == {"Person", "Place", "Company"}
    assert "span_labels" in next(iter(trainer.get_train_dataloader()))


def test_an_untrained_model_is_scored_on_its_best_relations(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(6, 3), {"relation_threshold": 0.0}, **EVALUATE_BY_TWO)
    with torch.no_grad():
        trainer.model.span_classifier.output.bias[1] += 1000  # every span is an entity
    trainer.evaluate(trainer.train_dataset)
    whole = trainer.predicted_records
    assert not caplog.records
    monkeypatch.setattr(trainer_module, "MAX_SENTENCE_RELATIONS", 40)
    trainer.evaluate(trainer.train_dataset)
    for record, cut in zip(whole, trainer.predicted_records, strict=True):
        assert len(record["relations"]) > 40 and cut["entities"] == record["entities"]
        best = sorted((relation["score"] for relation in record["relations"]), reverse=True)[:40]
        assert sorted((relation["score"] for relation in cut["relations"]), reverse=True) == best
    [warning] = caplog.records
    left_out = sum(len(record["relations"]) - 40 for record in whole)
    assert warning.getMessage().startswith(f"{left_out} relations that reach their thresholds are left out")


def test_thresholds_that_cannot_be_learnt_are_refused_before_predicting(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(3, 3), {"relation_none_class": True})
    monkeypatch.setattr(trainer, "predict", None)
    with pytest.raises(ValueError, match="relation_none_class"):
        trainer.learn_thresholds(trainer.train_dataset)


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau", "greedy"])
def test_a_rate_that_waits_for_a_plateau_waits_for_a_score(tmp_path: Path, scheduler: str) -> None:
    if scheduler not in list(SchedulerType):
        pytest.skip("this version of transformers has no such scheduler")
    wanted = {"output_dir": str(tmp_path), "use_cpu": True, "lr_scheduler_type": scheduler}
    assert AspertTrainingArguments(**wanted).lr_scheduler_kwargs == {"mode": "max"}
    kwargs = {"patience": 1, "mode": "min"}
    assert AspertTrainingArguments(**wanted, lr_scheduler_kwargs=kwargs).lr_scheduler_kwargs == kwargs
    assert not AspertTrainingArguments(output_dir=str(tmp_path), use_cpu=True).lr_scheduler_kwargs


# -- a model for each training -------------------------------------------------------------------------------------


def test_a_model_for_each_training(encoder: Path, tmp_path: Path) -> None:
    """As a search of hyperparameters makes them: what is collated, decoded and learnt follows the model of the trial."""
    made = make_trainer(encoder, tmp_path, make_records(8, 3), num_train_epochs=1, **FOUR)
    models: list[AspertForJointExtraction] = []

    def model_init() -> AspertForJointExtraction:
        fields = {**NO_DROPOUT, "span_classifier_size": 16, "relation_threshold": 0.0}
        fields["max_span_width"] = 3 - len(models)
        models.append(AspertForJointExtraction.from_encoder_pretrained(encoder, **LABELS, **fields))
        with torch.no_grad():
            models[-1].span_classifier.output.bias[1] += 1000  # every span is an entity
        return models[-1]

    trainer = AspertTrainer(
        model_init=model_init,
        args=made.args,
        processing_class=made.processing_class,
        train_dataset=made.train_dataset,
        eval_dataset=made.train_dataset,
    )
    for width in (2, 1):
        trainer.args.negative_entity_count = trainer.args.seed = width
        trainer.train()
        assert trainer.collator.seed == trainer._train_sampler.seed == width
        batch = trainer.collator([trainer.train_dataset[0]])
        assert (batch["span_labels"] == 0).sum() == width
        assert trainer.model is models[-1] and trainer.state.global_step == 2
        trainer.evaluate()
        spans = [entity for record in trainer.predicted_records for entity in record["entities"]]
        assert {entity["end"] - entity["start"] for entity in spans} == set(range(1, width + 1))
    assert len(models) == 3
    learnt = trainer.learn_thresholds(made.train_dataset)
    assert {name: getattr(trainer.model.config, name) for name in learnt} == learnt
    assert models[1].config.relation_threshold == 0.0


def test_data_for_other_labels_are_refused(encoder: Path, tmp_path: Path) -> None:
    made = make_trainer(encoder, tmp_path, make_records(3, 3))
    labels = {**LABELS, "entity_types": LABELS["entity_types"][::-1]}
    other = AspertForJointExtraction.from_encoder_pretrained(encoder, **labels, **NO_DROPOUT)
    again = {"processing_class": made.processing_class, "args": made.args}
    said = "a data set for the entity_types .*, but the model has"
    for given in ({"train_dataset": made.train_dataset}, {"eval_dataset": {"one": made.train_dataset}}):
        with pytest.raises(ValueError, match=said):
            AspertTrainer(other, **again, **given)
        with pytest.raises(ValueError, match=said):
            AspertTrainer(model_init=lambda: other, **again, **given)
    with pytest.raises(ValueError, match=said):
        AspertTrainer(other, **again).evaluate(made.train_dataset)


def test_a_search_seeks_the_highest_score(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(3, 3))
    asked: list[tuple] = []
    monkeypatch.setattr(Trainer, "hyperparameter_search", lambda self, *args, **kwargs: asked.append((args, kwargs)))
    trainer.hyperparameter_search(n_trials=2, backend="optuna")
    trainer.hyperparameter_search(None, len, 2, "minimize")
    (_, objective, trials, direction), others = asked[0]
    metrics = {"eval_ner_micro_f1": 90.0, "eval_re_strict_micro_f1": 50.0, "eval_loss": 1.0}
    assert objective(metrics) == 50.0 and (trials, direction, others) == (2, "maximize", {"backend": "optuna"})
    assert asked[1][0] == (None, len, 2, "minimize")


def test_a_model_that_loses_the_attentions_gradient_is_refused_also_where_it_is_made(
    encoder: Path, tmp_path: Path
) -> None:
    made = make_trainer(encoder, tmp_path, make_records(3, 3))
    made.args.gradient_checkpointing_kwargs = {"use_reentrant": True}
    with pytest.raises(ValueError, match="set use_reentrant to False"):
        AspertTrainer(model_init=lambda: made.model, args=made.args, processing_class=made.processing_class)
    with pytest.raises(ValueError, match="give the model's AspertProcessor"):
        AspertTrainer(made.model, made.args)


def test_the_best_of_several_evaluation_sets(encoder: Path, tmp_path: Path) -> None:
    made = make_trainer(encoder, tmp_path, make_records(8, 3))
    args = AspertTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, metric_for_best_model=None, disable_tqdm=True, use_cpu=True
    )
    assert args.metric_for_best_model == "re_strict_micro_f1"
    several = {"near": made.train_dataset, "far": made.train_dataset}
    again = {"processing_class": made.processing_class, "train_dataset": made.train_dataset, "eval_dataset": several}
    for metric in ("re_strict_micro_f1", "eval_fra_re_strict_micro_f1"):
        args.metric_for_best_model = metric
        with pytest.raises(ValueError, match="no score of the evaluation: .* 'eval_near_re_strict_micro_f1'"):
            AspertTrainer(made.model, args, **again)
    args.metric_for_best_model = "far_re_strict_micro_f1"
    with pytest.raises(ValueError, match="no score of the evaluation: .* 'eval_re_strict_micro_f1'"):
        AspertTrainer(made.model, args, **{**again, "eval_dataset": made.train_dataset})
    trainer = AspertTrainer(made.model, args, **again)
    trainer.train()
    (evaluated,) = {
        entry["eval_far_re_strict_micro_f1"]
        for entry in trainer.state.log_history
        if "eval_far_re_strict_micro_f1" in entry
    }
    assert trainer.state.best_metric == evaluated
    assert set(trainer.learn_thresholds(made.train_dataset)) > {"relation_threshold"}


def test_without_dev_data_the_last_checkpoint_is_the_model(encoder: Path, tmp_path: Path, caplog: Any) -> None:
    made = make_trainer(encoder, tmp_path, make_records(4, 3))
    args = AspertTrainingArguments(output_dir=str(tmp_path), disable_tqdm=True, use_cpu=True)
    trainer = AspertTrainer(made.model, args, made.processing_class, train_dataset=made.train_dataset)
    assert (trainer.args.eval_strategy, trainer.args.load_best_model_at_end) == ("no", False)
    assert "there are no dev data: nothing chooses a checkpoint, the last one is the model" in caplog.messages
    caplog.clear()
    args = AspertTrainingArguments(
        output_dir=str(tmp_path), do_predict=True, early_stopping_patience=2, disable_tqdm=True, use_cpu=True
    )
    AspertTrainer(made.model, args, made.processing_class)
    assert not caplog.messages
    args = AspertTrainingArguments(output_dir=str(tmp_path), early_stopping_patience=2, use_cpu=True)
    with pytest.raises(ValueError, match=r"early_stopping_patience needs an eval_dataset \(dev data\)"):
        AspertTrainer(made.model, args, made.processing_class, train_dataset=made.train_dataset)


@pytest.mark.parametrize(
    ("asked", "trains"),
    [
        ({}, True),
        ({"do_train": False}, False),
        ({"do_eval": True}, False),
        ({"do_predict": True}, False),
        ({"do_train": True, "do_predict": True}, True),
    ],
)
def test_whether_to_train(asked: dict[str, bool], trains: bool, tmp_path: Path) -> None:
    assert AspertTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **asked).do_train is trains


def test_without_a_connection_nothing_is_trained_that_should_be_pushed(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise RuntimeError("no route\nto the host")

    monkeypatch.setattr(Trainer, "init_hf_repo", unreachable)
    with pytest.raises(OSError, match=r"the Hub gave no repository me/model \(no route to the host\): check the name"):
        make_trainer(encoder, tmp_path, make_records(2, 3), push_to_hub=True, hub_model_id="me/model")


def test_what_the_trainer_does_not_take_is_refused_by_name(encoder: Path, tmp_path: Path) -> None:
    made = make_trainer(encoder, tmp_path, make_records(4, 3))
    part = torch.utils.data.Subset(made.train_dataset, [0, 1])
    for fields in ({"train_dataset": part}, {"eval_dataset": part}, {"eval_dataset": {"dev": part}}):
        with pytest.raises(TypeError, match="a Subset is no JointExtractionDataset"):
            AspertTrainer(made.model, made.args, made.processing_class, **fields)
    with pytest.raises(TypeError, match="a Subset is no JointExtractionDataset"):
        made.evaluate(part)
    for name in ("data_collator", "compute_metrics", "compute_loss_func"):
        with pytest.raises(TypeError, match=f"{name} is the trainer's own"):
            AspertTrainer(made.model, made.args, made.processing_class, **{name: print})


# -- results -------------------------------------------------------------------------------------------------------


def test_patience_reaches_a_trainer_made_by_hand(encoder: Path, tmp_path: Path) -> None:
    given, trainers = TrainerCallback(), []
    made = make_trainer(encoder, tmp_path, make_records(4, 1))
    data = {"train_dataset": made.train_dataset, "eval_dataset": made.train_dataset}
    for patience in (3, None):
        args = AspertTrainingArguments(str(tmp_path), early_stopping_patience=patience, use_cpu=True)
        trainers.append(AspertTrainer(made.model, args, made.processing_class, callbacks=[given], **data))
    stopping = [
        [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, EarlyStoppingCallback)]
        for trainer in trainers
    ]
    assert [callback.early_stopping_patience for callback in stopping[0]] == [3] and not stopping[1]
    assert all(given in trainer.callback_handler.callbacks for trainer in trainers)


def test_patience_begins_when_something_is_found(encoder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The first scores of a training are 0, which is no sign that nothing is learnt."""
    made = make_trainer(encoder, tmp_path, make_records(4, 1))
    args = AspertTrainingArguments(
        str(tmp_path), early_stopping_patience=2, num_train_epochs=9, use_cpu=True, disable_tqdm=True
    )
    trainer = AspertTrainer(made.model, args, made.processing_class, made.train_dataset, made.train_dataset)
    scores = iter([0.0, 0.0, 0.0, 0.0, 5.0, 4.0, 5.0, 6.0, 7.0])
    monkeypatch.setattr(trainer, "_compute_metrics", None)
    monkeypatch.setattr(
        trainer, "evaluate", lambda *args, **kwargs: trainer.control and stub_evaluation(trainer, next(scores))
    )
    trainer.train()
    assert trainer.state.epoch == 7 and list(scores) == [6.0, 7.0]


def stub_evaluation(trainer: AspertTrainer, score: float) -> dict[str, float]:
    metrics = {trainer.args.evaluated_metric: score}
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def test_a_score_of_relations_chooses_nothing_where_there_are_none(encoder: Path, tmp_path: Path) -> None:
    records = [record | {"relations": []} for record in make_records(4, 1)]
    model = AspertForJointExtraction.from_encoder_pretrained(encoder, entity_types=LABELS["entity_types"])
    processor = AspertProcessor.from_encoder_pretrained(encoder)
    data = [JointExtractionDataset(records, processor, model.config)] * 2
    fields = {"output_dir": str(tmp_path), "use_cpu": True, "disable_tqdm": True, "num_train_epochs": 1}
    with pytest.raises(
        ValueError, match="metric_for_best_model = re_strict_micro_f1 is 0 for a model without relation"
    ):
        AspertTrainer(model, AspertTrainingArguments(**fields), processor, *data)
    args = AspertTrainingArguments(**fields, metric_for_best_model="ner_micro_f1")
    AspertTrainer(model, args, processor, *data)
    with pytest.raises(
        ValueError, match="metric = re_strict_micro_f1 is 0 for a model without relation types: choose"
    ):
        check_learnable(model.config, "re_strict_micro_f1")


def test_a_loop_over_a_dataset_is_one_epoch(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(encoder, tmp_path, make_records(3, 1))
    dataset = trainer.train_dataset
    assert [item["index"] for item in dataset] == [0, 1, 2] and {item["epoch"] for item in dataset} == {0}
    with pytest.raises(IndexError, match="index -1"):
        dataset[-1]
    nothing = JointExtractionDataset([], trainer.processing_class, dataset.config)
    assert list(nothing) == []
    with pytest.raises(IndexError, match="index 0: the data set has no sentence"):
        nothing[0]
    # nothing of the set before is left
    trainer.evaluate(dataset)
    assert len(trainer.predicted_records) == 3
    metrics = trainer.evaluate(nothing)
    assert trainer.predicted_records == [] and trainer.scores["ner_micro_f1"] == 0 == metrics["eval_ner_micro_f1"]
    trainer.learn_thresholds(nothing)


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("[enforce fail at inline_container.cc:595] . PytorchStreamWriter failed writing file"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("NCCL error"), False),
    ],
)
def test_only_a_file_that_cannot_be_written_is_called_so(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reported: bool
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(Trainer, "_save_checkpoint", fail)
    trainer = make_trainer(encoder, tmp_path, make_records(3, 1))
    with pytest.raises(OSError if reported else type(error)) as caught:
        trainer._save_checkpoint(trainer.model, None)
    assert ("is the disk full?" in str(caught.value)) is reported


def test_results_are_saved_as_the_trainers_own(encoder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(encoder, tmp_path / "ours", make_records(4, 5))
    trainer.state.log_history = [{"loss": 1.5, "step": 1}]
    for split, metrics in (("eval", {"eval_loss": 0.25, "epoch": 2.0}), ("test", {"test_b": 1.0, "test_a": 2})):
        trainer.save_metrics(split, metrics)
        trainer.args.output_dir = str(tmp_path / "theirs")
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Trainer.save_metrics(trainer, split, metrics)
        trainer.args.output_dir = str(tmp_path / "ours")
    trainer.save_state()
    trainer.args.output_dir = str(tmp_path / "theirs")
    Trainer.save_state(trainer)
    files = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert files == ["all_results.json", "eval_results.json", "test_results.json", "trainer_state.json"]
    for name in files:
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads(
            (tmp_path / "theirs" / name).read_text()
        )


# -- pushing --------------------------------------------------------------------------------------------------------


def test_a_subclass_is_pushed_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = WithStart(make_model().config)
    arguments = AspertTrainingArguments(
        output_dir=str(tmp_path), eval_strategy="no", save_strategy="no", load_best_model_at_end=False, use_cpu=True
    )
    trainer = AspertTrainer(model, arguments, make_processor())
    trainer.hub_model_id = "org/name"
    pushed = []
    for kind in (AspertForJointExtraction, AspertProcessor):
        monkeypatch.setattr(kind, "push_to_hub", lambda self, repo_id, **place: pushed.append((self, repo_id)))
    trainer.push_to_hub()
    (_, first), (weights, second) = pushed
    assert first == second == "org/name" and type(weights) is WithStart
    for name, values in model.state_dict().items():
        assert torch.equal(weights.state_dict()[name], values)
