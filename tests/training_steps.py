"""What the tests of the trainer run in this process and in several: a few steps, or an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from modeling_aspert import (
    AspertForJointExtraction,
    AspertProcessor,
    AspertTrainer,
    AspertTrainingArguments,
    JointExtractionDataset,
)
from tests.training_corpus import TYPES

LABELS = {
    "entity_types": list(TYPES["entities"]),
    "relation_types": list(TYPES["relations"]),
    "symmetric_relations": ["married-to"],
}
NO_DROPOUT = {"classifier_dropout": 0.0, "mlp_dropout": 0.0}


def make_trainer(
    encoder: Path,
    output: Path,
    records: Sequence[Mapping[str, Any]],
    fields: Mapping[str, Any] | None = None,
    **args: Any,
) -> AspertTrainer:
    """A trainer without evaluation that logs every step; ``fields`` are the model's."""
    set_seed(1)
    fields = {
        **NO_DROPOUT,
        "span_classifier_size": 16,
        "width_embedding_size": 4,
        "max_span_width": 3,
        **(fields or {}),
    }
    model = AspertForJointExtraction.from_encoder_pretrained(encoder, **LABELS, **fields)
    processor = AspertProcessor.from_encoder_pretrained(encoder)
    chosen = {
        "negative_entity_count": 8,
        "negative_relation_count": 10,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        # where a gradient is 0 in theory, its rounding must not become a step
        "adam_epsilon": 1e-4,
        "lr_scheduler_type": "constant",
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
        **args,
    }
    return AspertTrainer(
        model,
        AspertTrainingArguments(output_dir=str(output), **chosen),
        processor,
        train_dataset=JointExtractionDataset(records, processor, model.config),
    )


class _Snapshots(TrainerCallback):
    """Copies of the weights after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        state_dict = getattr(model, "module", model).state_dict()
        self.weights.append({name: value.clone() for name, value in state_dict.items()})


def take_steps(*trainer_args: Any, **kwargs: Any) -> tuple[list[float], list[float], list[dict[str, torch.Tensor]]]:
    """Train; the logged loss and gradient norm of each step, and the weights after each."""
    trainer = make_trainer(*trainer_args, **kwargs)
    snapshots = _Snapshots()
    trainer.add_callback(snapshots)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [step["loss"] for step in steps], [step["grad_norm"] for step in steps], snapshots.weights


def save_steps(result: Path, trainer_args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """`take_steps` in a process of its own; every rank saves its result."""
    import os

    torch.save(take_steps(*trainer_args, **kwargs), result / f"steps{os.environ['RANK']}.pt")


def evaluate(
    model_folder: Path, output: Path, splits: Sequence[Sequence[Mapping[str, Any]]], quiet: bool, batch_size: int
) -> list[dict[str, Any]]:
    """Scores and predicted records of each split; ``quiet`` makes none win for every span."""
    model = AspertForJointExtraction.from_pretrained(model_folder)
    if quiet:
        with torch.no_grad():
            model.span_classifier.output.bias[0] += 1000
    processor = AspertProcessor.from_pretrained(model_folder)
    args = AspertTrainingArguments(
        output_dir=str(output),
        per_device_eval_batch_size=batch_size,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = AspertTrainer(model, args, processor)
    results = []
    for records in splits:
        metrics = trainer.predict(JointExtractionDataset(records, processor, model.config)).metrics
        scores = {name: value for name, value in metrics.items() if name.endswith(("f1", "precision", "recall"))}
        results.append({"scores": scores, "records": trainer.predicted_records})
    return results


def save_evaluation(result: Path, *args: Any) -> None:
    """`evaluate` in a process of its own; every rank saves its result."""
    import os

    (result / f"evaluation{os.environ['RANK']}.json").write_text(json.dumps(evaluate(*args)))
