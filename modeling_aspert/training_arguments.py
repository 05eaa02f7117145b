"""The arguments of a training: the paper's settings as defaults, and what the Trainer offers that does not go with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import SchedulerType

from .scoring import SCORE_NAMES

logger = logging.getLogger(__name__)

_SCORE = "re_strict_micro_f1"
_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "adam_epsilon": 0.0,
    "seed": 0,
    "negative_entity_count": 0,
    "negative_relation_count": 0,
    "early_stopping_patience": 1,
    "head_learning_rate": 0.0,
}
# what the Trainer offers and this one cannot do: the values that there are, and why
_FIXED = {
    "eval_do_concat_batches": ((True,), "scores are of a whole split"),
    "batch_eval_metrics": ((False,), "scores are of a whole split"),
    "greater_is_better": ((None, True), "of every score the higher is the better"),
    "label_smoothing_factor": ((0.0,), "the losses of Eq. 10 know no smoothing"),
    "bf16_full_eval": ((False,), "the model itself would be rounded; bf16 = True evaluates in bf16, too"),
    "fp16_full_eval": ((False,), "the model itself would be rounded; fp16 = True evaluates in fp16, too"),
    "hub_strategy": (("end",), "checkpoints are not pushed, since the Trainer would publish the whole output folder"),
}


@dataclass
class AspertTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the paper's settings (Table 3) as defaults and the sampling of negatives.

    Args:
        negative_entity_count: negative spans drawn a sentence and epoch.
        negative_relation_count: negative pairs drawn a sentence and epoch.
        head_learning_rate: peak learning rate of everything but the encoder. Default: ``learning_rate``.
        adam_bias_correction: False for AdamW as in SpERT's code, whose first steps are larger.
        early_stopping_patience: evaluations without a better score after which training stops, from the first score above 0
            on. Default: never.
    """

    output_dir: str | None = field(default="output", metadata={"help": "Where the model and all results are written."})
    do_train: bool | None = field(
        default=None, metadata={"help": "Train. Default: where neither do_eval nor do_predict is asked for."}
    )
    negative_entity_count: int = field(default=150, metadata={"help": "Negative spans a sentence and epoch."})
    negative_relation_count: int = field(default=150, metadata={"help": "Negative pairs a sentence and epoch."})
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the classifiers. Default: learning_rate."}
    )
    adam_bias_correction: bool = field(
        default=True, metadata={"help": "False for AdamW as in SpERT's code, whose first steps are larger."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better score. Default: never."}
    )
    num_train_epochs: float = field(default=20.0, metadata={"help": "Epochs."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Sentences a training step and device."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Sentences an evaluation step and device."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "Decoupled; not on biases and layer norms."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps, or below 1 the share of all steps."})
    eval_strategy: str = field(default="epoch", metadata={"help": "no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "no, steps, epoch or best."})
    # with 1, the Trainer would delete the last checkpoint of a finished run where another one is the best
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints kept: the last ones, among them the best one."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the checkpoint that is best on dev."})
    metric_for_best_model: str | None = field(
        default=_SCORE, metadata={"help": "Score that chooses the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether a higher score is better."})
    # None: not said. transformers' own defaults, every 500 steps, would log no loss of a small training.
    logging_strategy: str | None = field(
        default=None,
        metadata={"help": "When the loss is logged: no, steps or epoch. Default: epoch, with logging_steps: steps."},
    )
    logging_steps: float | None = field(
        default=None, metadata={"help": "Log every so many steps, or below 1 after this share of all steps."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Off: a loss that is not finite stops the training."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Resume with the patience of early stopping that was left."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "true goes on from the newest complete checkpoint of output_dir, or begins where there is none; or the "
            "folder of a checkpoint."
        },
    )
    hub_strategy: str = field(default="end", metadata={"help": "end: push_to_hub pushes the final model."})
    # every weight has a gradient in every batch
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "True for an encoder with weights that a batch may leave without a gradient."}
    )
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "tensorboard, wandb, trackio, ... or none."}
    )

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} = {value} is not valid: it must be >= {least}")
        for name, (allowed, reason) in _FIXED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)} is not valid: {reason}; leave it out")
        if self.metric_for_best_model is None:
            self.metric_for_best_model = _SCORE
        # of several evaluation sets, NAME_SCORE: the trainer knows the names
        if self.score_for_best_model not in SCORE_NAMES:
            raise ValueError(
                f"metric_for_best_model = {self.metric_for_best_model!r} is not valid: choose one of "
                f"{', '.join(SCORE_NAMES)}"
            )
        if self.early_stopping_patience is not None and self.eval_strategy == "no":
            raise ValueError(
                f"early_stopping_patience = {self.early_stopping_patience} needs evaluations: set eval_strategy to epoch or "
                "steps, or leave it out"
            )
        if not self.adam_bias_correction and self.optim not in ("adamw_torch", "adamw_torch_fused"):
            raise ValueError(
                f"adam_bias_correction = False is a kind of AdamW and does not go with optim = {self.optim}: leave one out"
            )
        if self.logging_strategy is None:
            self.logging_strategy = "epoch" if self.logging_steps is None else "steps"
        if self.logging_steps is None:
            self.logging_steps = 500
        if self.do_train is None:
            # before an eval_strategy turns do_eval on
            self.do_train = not (self.do_eval or self.do_predict)
        super().__post_init__()
        for kwargs in (getattr(self, f"{name}_checkpointing_kwargs", None) for name in ("activation", "gradient")):
            if kwargs and kwargs.keys() - {"every_n_layers", "offload"}:
                # transformers' own default, which it leaves to torch where anything is said
                kwargs.setdefault("use_reentrant", False)
        installed = get_available_reporting_integrations()
        missing = [name for name in self.report_to if name not in installed]
        if missing:
            raise ValueError(
                f"report_to = {missing[0]!r} is not installed: pip install {missing[0]}, or choose one of "
                f"{', '.join(['none', *installed])}"
            )
        if self.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, "greedy"):
            # their own default waits for a loss
            self.lr_scheduler_kwargs = {"mode": "max", **(self.lr_scheduler_kwargs or {})}
        if not torch.cuda.is_available():
            # nothing to pin memory for; torch would warn at every epoch
            self.dataloader_pin_memory = False
        if self._n_gpu > 1:
            # the Trainer would take DataParallel, which neither our losses nor our decoding know
            logger.warning("one of %d GPUs is used: start with `accelerate launch` to use all of them", self._n_gpu)
            self._n_gpu = 1

    @property
    def evaluated_metric(self) -> str:
        """`metric_for_best_model` as an evaluation names it, with `eval_`."""
        return f"eval_{self.metric_for_best_model.removeprefix('eval_')}"

    @property
    def score_for_best_model(self) -> str:
        """`metric_for_best_model` as `compute_scores` names it, without `eval_` and the name of one of several sets."""
        metric = self.metric_for_best_model
        return next((name for name in SCORE_NAMES if f"_{metric}".endswith(f"_{name}")), metric)
