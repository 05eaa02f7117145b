"""Training and evaluation on the `transformers` Trainer: the joint loss over the effective batch, decoded scores."""

from __future__ import annotations

import json
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from .configuration_aspert import AspertConfig
from .data_collator import AspertDataCollator
from .dataset import EpochSampler, JointExtractionDataset
from .decoding import Predictions, decode, join_records
from .files import whole_files, write_text
from .model_card import ModelCardData, hardware, write_model_card
from .modeling_aspert import AspertForJointExtraction, AspertOutput
from .optimization import UncorrectedAdamW
from .processing_aspert import AspertProcessor
from .scoring import compute_scores
from .thresholds import check_learnable, check_metric, learn_thresholds, loosest_fields
from .training_arguments import AspertTrainingArguments

logger = logging.getLogger(__name__)

# columns of what prediction_step returns
_FIELDS = 4
# Relations of a sentence that an evaluation takes at most. Trained models are far below; an untrained one may relate
# everything.
MAX_SENTENCE_RELATIONS = 1000


class AspertTrainer(Trainer):
    """A `Trainer` for :class:`AspertForJointExtraction`.

    Datasets are :class:`JointExtractionDataset`; ``processing_class`` is the :class:`AspertProcessor`. Span and pair
    losses are averaged over the effective batch (all processes and accumulation steps), each over its own count, so
    the same sentences give the same step however they are spread. Evaluation decodes all candidates; development
    data has no loss.

    ``model_card`` is what the card says of the run; a push writes it anew.

    After an evaluation, ``scores`` holds the result of :func:`compute_scores`, the table by type included, and
    ``predicted_records`` the predictions in the order of the data; of several sets, those of the last.

    Args:
        model: what is trained, or None with ``model_init``.
        args: default: all defaults.
        processing_class: the model's processor.
        train_dataset, eval_dataset: encoded for the model's configuration; the latter also several, by name. Without the
            latter, the last checkpoint is the model.
        callbacks: further ones.
        model_init: makes the model anew for each training, as for ``hyperparameter_search``; of no argument, or the trial.
        kwargs: as the Trainer's, but for `data_collator` and `compute_metrics`, which are this one's own.

    Raises:
        TypeError: a data set of another kind.
        ValueError: no processor, a data set for other labels than the model's, a score for the best checkpoint that names
            none of several evaluation sets or is one of relations where the model has none, early stopping without an
            evaluation set, or reentrant gradient checkpointing, through which the attentional contribution does not train.
    """

    args: AspertTrainingArguments

    def __init__(
        self,
        model: AspertForJointExtraction | None = None,
        args: AspertTrainingArguments | None = None,
        processing_class: AspertProcessor | None = None,
        train_dataset: JointExtractionDataset | None = None,
        eval_dataset: JointExtractionDataset | Mapping[str, JointExtractionDataset] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        model_init: Callable[..., AspertForJointExtraction] | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise ValueError("processing_class is missing: give the model's AspertProcessor")
        args = args or AspertTrainingArguments()
        for name in ("data_collator", "compute_metrics", "compute_loss_func"):
            if kwargs.pop(name, None) is not None:
                raise TypeError(f"{name} is the trainer's own: leave it out, or override it in a subclass")
        if eval_dataset is None and args.eval_strategy != "no":
            if train_dataset is not None:
                if args.early_stopping_patience is not None:
                    raise ValueError(
                        "early_stopping_patience needs an eval_dataset (dev data): give one, or leave it out"
                    )
                logger.warning("there are no dev data: nothing chooses a checkpoint, the last one is the model")
            args.eval_strategy, args.load_best_model_at_end = "no", False
        several = eval_dataset if isinstance(eval_dataset, Mapping) else {}
        self._given = (train_dataset, *(several.values() or [eval_dataset]))
        for dataset in self._given:
            _check_dataset(dataset, None if model is None else model.config)
        prefixes = [f"eval_{name}_" for name in several] or ["eval_"]
        metric = args.evaluated_metric
        if args.eval_strategy != "no" and not any(
            metric == f"{prefix}{args.score_for_best_model}" for prefix in prefixes
        ):
            raise ValueError(
                f"metric_for_best_model = {args.metric_for_best_model!r} is no score of the evaluation: take one such as "
                f"{f'{prefixes[0]}{args.score_for_best_model}'!r}"
            )
        if args.eval_strategy != "no" and model is not None:
            check_metric(model.config, args.score_for_best_model, "metric_for_best_model")
        # with `model_init`, the configuration comes with the model
        self.collator = AspertDataCollator(
            processing_class,
            None if model is None else model.config,
            negative_entity_count=args.negative_entity_count,
            negative_relation_count=args.negative_relation_count,
            seed=_data_seed(args),
        )
        self.scores: dict[str, Any] = {}
        self.model_card: ModelCardData | None = None
        self.predicted_records: list[dict[str, Any]] = []
        self._evaluated: JointExtractionDataset | None = None
        self._evaluation: tuple[Any, AspertConfig] | None = None
        self._left_out = 0
        callbacks = list(callbacks or ())
        if args.early_stopping_patience is not None:
            callbacks.append(_EarlyStopping(args.early_stopping_patience))
        args.remove_unused_columns = False
        super().__init__(
            model=model,
            args=args,
            data_collator=self.collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=self._compute_metrics,
            callbacks=callbacks,
            model_init=model_init,
            **kwargs,
        )
        reentrant = (args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
        if reentrant and self.collator.config.attentional_contribution:
            raise ValueError(
                "gradient_checkpointing_kwargs with use_reentrant = True give attentions without a gradient, which the "
                "attentional contribution trains through: set use_reentrant to False"
            )
        # our loss divides by the effective batch itself
        self.model_accepts_loss_kwargs = True
        self._train_sampler: EpochSampler | None = None
        self.add_callback(_SamplerEpoch(self))

    def hyperparameter_search(
        self,
        hp_space: Callable[..., Any] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "maximize",
        **kwargs: Any,
    ) -> Any:
        """As the Trainer's, but what is sought is by default the highest ``metric_for_best_model``; the Trainer's default is
        the least sum of all scores."""
        objective = compute_objective or operator.itemgetter(self.args.evaluated_metric)
        return super().hyperparameter_search(hp_space, objective, n_trials, direction, **kwargs)

    def call_model_init(self, trial: Any = None) -> AspertForJointExtraction:
        """As the Trainer's; from now on sentences are collated and decoded as the new model's configuration says."""
        model = super().call_model_init(trial)
        self.collator.config = model.config
        for dataset in self._given:
            _check_dataset(dataset, model.config)
        return model

    # -- data ---------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        # a search of hyperparameters changes the arguments
        self.collator.seed = _data_seed(self.args)
        self.collator.negative_entity_count = self.args.negative_entity_count
        self.collator.negative_relation_count = self.args.negative_relation_count
        return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset: JointExtractionDataset | None = None) -> Sampler[int]:
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            raise ValueError(f"train_sampling_strategy = {strategy!r} is not valid: use random or group_by_length")
        group_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self._train_sampler = EpochSampler(
            train_dataset or self.train_dataset,
            seed=self.collator.seed,
            group_size=group_size if strategy == "group_by_length" else 0,
        )
        return self._train_sampler

    def _get_eval_sampler(self, eval_dataset: JointExtractionDataset) -> list[int]:
        # from the longest sentence to the shortest: little padding, and too little memory shows at once
        return np.argsort(-np.asarray(eval_dataset.lengths), kind="stable").tolist()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        return self._evaluation_dataloader(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return self._evaluation_dataloader(super().get_test_dataloader, test_dataset)

    def _evaluation_dataloader(self, build: Any, dataset: Any) -> DataLoader:
        if not isinstance(dataset, str):  # the name of one of several
            _check_dataset(dataset, self.collator.config)
        # the Trainer keeps persistent workers for the next evaluation, whatever data or model that is of
        data = self.eval_dataset if dataset is None else dataset
        if (
            self._evaluation is None
            or self._evaluation[0] is not data
            or self._evaluation[1] is not self.collator.config
        ):
            self.__dict__.pop("_eval_dataloaders", None)
            self._evaluation = data, self.collator.config
        training = self.data_collator, self.args.dataloader_drop_last
        self.data_collator = AspertDataCollator(self.collator.processor, self.collator.config, training=False)
        # all sentences are scored
        self.args.dataloader_drop_last = False
        try:
            return build(dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = training

    # -- loss ---------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Spans and pairs of the effective batch: two counts, over all accumulation steps and processes."""
        if not batch_samples or "span_labels" not in batch_samples[0]:
            return None
        self._mask_repeated_records(batch_samples[-1])
        counts = sum(
            torch.stack([batch["span_mask"].sum(), batch["pair_mask"].sum()]).to(device) for batch in batch_samples
        )
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.unsqueeze(0)).sum(0)
        return counts

    def _mask_repeated_records(self, batch: dict[str, Tensor]) -> None:
        """Take out the records with which accelerate fills up the last batch of an epoch for several processes."""
        size = len(batch["span_mask"])
        # accelerate's own remainder is lost after a resume in mid-epoch
        left = len(self.train_dataset) % (size * self.args.world_size)
        filled = self.args.world_size > 1 and left and not self.args.dataloader_drop_last
        if filled and self.accelerator.gradient_state.end_of_dataloader:
            real = max(0, left - self.args.process_index * size)
            batch["span_mask"][real:] = False
            batch["pair_mask"][real:] = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, AspertOutput]:
        """lambda * L^s + L^r (Eq. 10).

        Raises:
            FloatingPointError: the loss is not finite; names the records of the batch.
        """
        index = inputs.pop("index", None)
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch, return_dict=True)
        loss = outputs["loss"]
        if not torch.isfinite(loss):
            records = index.tolist() if index is not None else "unknown"
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.state.global_step} on records {records} of the training "
                "data: look at these records, lower learning_rate, or train in fp32 instead of fp16"
            )
        # gradients are averaged over the processes, while our denominators are already global
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As the Trainer's, with a learning rate of its own for everything but the encoder."""
        if not self.args.adam_bias_correction:
            options = {
                "lr": self.args.learning_rate,
                "betas": (self.args.adam_beta1, self.args.adam_beta2),
                "eps": self.args.adam_epsilon,
                "fused": self.args.optim == "adamw_torch_fused",
            }
            self.optimizer_cls_and_kwargs = UncorrectedAdamW, options
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        rate = self.args.head_learning_rate
        if rate is None or not is_new:
            return optimizer
        encoder = {id(parameter) for parameter in self.accelerator.unwrap_model(self.model).encoder.parameters()}
        for group in list(optimizer.param_groups):
            heads = [parameter for parameter in group["params"] if id(parameter) not in encoder]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in encoder]
            if heads:
                options = {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
                optimizer.add_param_group({**options, "params": heads, "lr": rate})
        return optimizer

    # -- saving -------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer's, but nothing is pushed, with or without ``push_to_hub``: that would publish the whole output
        folder, which holds all arguments, predictions and pages of errors, and so the corpus. :meth:`push_to_hub` pushes
        model, processor and card.
        """
        super().save_model(output_dir, _internal_call=True)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # see `save_model`
        return

    def init_hf_repo(self, token: str | None = None, **kwargs: Any) -> None:
        """As the Trainer's, before the training begins.

        Raises:
            OSError: the Hub cannot be reached or gives no repository of this name.
        """
        try:
            super().init_hf_repo(token, **kwargs)
        except Exception as error:  # of an HTTP library that changes with the version of huggingface_hub
            name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            raise OSError(
                f"push_to_hub: the Hub gave no repository {name} ({' '.join(str(error).split())}): check the name and the "
                "connection, log in with `hf auth login`, or leave push_to_hub out"
            ) from error

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Saves model, processor and card to ``output_dir`` and pushes them, and nothing else that lies there.

        Args:
            commit_message, token, revision, private: as the Trainer's; default: those of the arguments.
            blocking: there is no other way.
            kwargs: as the Trainer's, for the card; ours needs none.

        Returns:
            The address of the repository, on the first process.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model()
        self.create_model_card()
        if not self.is_world_process_zero():
            return None
        place = {
            "commit_message": commit_message,
            "token": token,
            "revision": revision or self.args.hub_revision,
            "private": self.args.hub_private_repo if private is None else private,
        }
        # the weights as they were saved: those in memory may be a process's part of them
        kind = type(self.accelerator.unwrap_model(self.model))
        kind = kind if issubclass(kind, AspertForJointExtraction) else AspertForJointExtraction
        model = kind.from_pretrained(self.args.output_dir)
        # the processor first: its push leaves an empty card, which the model's push replaces
        self.processing_class.push_to_hub(self.hub_model_id, **place)
        return model.push_to_hub(self.hub_model_id, **place)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            super()._save(output_dir, state_dict)
            return
        with whole_files(output_dir or self.args.output_dir) as folder:
            super()._save(str(folder), state_dict)
            # a pickle that nothing reads
            (folder / "training_args.bin").unlink(missing_ok=True)

    def save_metrics(self, split: str, metrics: Mapping[str, float], combined: bool = True) -> None:
        """As the Trainer's, but each file is whole or not there."""
        self._save_json(f"{split}_results.json", metrics)
        if combined:
            file = Path(self.args.output_dir) / "all_results.json"
            known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            self._save_json(file.name, {**known, **metrics})

    def save_state(self) -> None:
        """As the Trainer's, but the file is whole or not there."""
        self._save_json("trainer_state.json", asdict(self.state))

    def _save_json(self, name: str, content: Mapping[str, Any]) -> None:
        if self.is_world_process_zero():
            write_text(Path(self.args.output_dir) / name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def learn_thresholds(self, dataset: JointExtractionDataset) -> dict[str, Any]:
        """Set the thresholds of the model's configuration that give its best ``metric_for_best_model`` on a dataset, and
        return them.

        Raises as `thresholds.learn_thresholds`.
        """
        config = self.collator.config
        metric = self.args.score_for_best_model
        check_learnable(config, metric)
        loosest = loosest_fields(config)
        before = {name: getattr(config, name) for name in loosest}
        config.update(loosest)
        try:
            self.predict(dataset)
        finally:
            config.update(before)
        learnt = learn_thresholds(self.predicted_records, dataset.records, config, metric)
        config.update(learnt)
        return learnt

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes the card of ``model_card``, or of what is known without it, instead of the Trainer's draft."""
        if self.is_world_process_zero():
            data = self.model_card or ModelCardData(
                self.collator.config,
                log_history=self.state.log_history,
                hardware=hardware(self.args.device, self.args.world_size),
            )
            write_model_card(self.args.output_dir, replace(data, repo_id=self.hub_model_id))

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # a score of 0 tells no model from another: of those the latest stands, not the first epoch's
        if self.state.best_metric == 0:
            self.state.best_metric = None
        return super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError) as error:
            # PyTorch's writer of files has no class of its own for what goes wrong
            if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(
                f"a checkpoint could not be written to {self.args.output_dir} ({error}): is the disk full? Make room "
                "and go on with --resume_from_checkpoint true"
            ) from error

    # -- evaluation ---------------------------------------------------------------------------------------------

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's. Of no sentences all scores are 0."""
        self._evaluated, self._left_out = dataloader.dataset, 0
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        if not len(self._evaluated):
            scores = self._score([])
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        if self._left_out:
            logger.warning(
                "%d relations that reach their thresholds are left out, as with an untrained model: of each sentence "
                "the %d with the highest scores are taken",
                self._left_out,
                MAX_SENTENCE_RELATIONS,
            )
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, tuple[Tensor, Tensor], Tensor]:
        """Decodes and returns what is kept: entities [B, K, 4] (start, end, type, score) and relations [B, K, 4] (head,
        tail, type, score), padded with -100, on the device.

        So the memory of an evaluation grows with what is predicted, not with the number of candidates.

        Raises:
            FloatingPointError: the scores are not finite; names the records of the batch.
        """
        inputs = self._prepare_inputs(inputs)
        index, word_spans = inputs.pop("index"), inputs.pop("word_spans")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**inputs, return_dict=True)
        if not torch.isfinite(output.span_logits).all():
            raise FloatingPointError(
                f"the scores of records {index.tolist()} are no numbers at step {self.state.global_step}: the training "
                "diverged; lower learning_rate, or train in fp32 instead of fp16"
            )
        predictions = decode(output, word_spans, inputs["span_mask"], self.collator.config)
        predictions = predictions.best_relations(MAX_SENTENCE_RELATIONS)
        self._left_out += predictions.left_out
        sentences = predictions.per_sentence(len(index))
        entities = [np.column_stack([part.entities[:, 1:], part.entity_scores]) for part in sentences]
        relations = [np.column_stack([part.relations[:, 1:], part.relation_scores]) for part in sentences]
        return None, (_padded(entities, index.device), _padded(relations, index.device)), index

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        dataset = self._evaluated
        entities, relations = prediction.predictions
        by_index = dict(zip(prediction.label_ids.tolist(), zip(entities, relations)))
        return self._score([_unpadded(*by_index[position]) for position in range(len(dataset))])

    def _score(self, predictions: Sequence[Predictions]) -> dict[str, float]:
        """Keeps the records and scores of what was evaluated; returns the scores."""
        dataset, config = self._evaluated, self.collator.config
        self.predicted_records = join_records(dataset.records, predictions, config)
        self.scores = compute_scores(
            self.predicted_records,
            dataset.records,
            config.entity_types,
            config.relation_types,
            config.symmetric_relations,
        )
        return {name: value for name, value in self.scores.items() if name != "per_type"}


def _data_seed(args: TrainingArguments) -> int:
    """What seeds the order of the records and their negatives."""
    return args.data_seed if args.data_seed is not None else args.seed


def _check_dataset(dataset: Any, config: AspertConfig | None) -> None:
    """Refuse what is no data set of ours, or one of a model with other labels than this configuration's."""
    if dataset is None:
        return
    if not isinstance(dataset, JointExtractionDataset):
        raise TypeError(
            f"a {type(dataset).__name__} is no JointExtractionDataset (nor is torch's Subset of one): make one of the "
            "records that you want"
        )
    for name in ("entity_types", "relation_types", "symmetric_relations") if config is not None else ():
        theirs, ours = getattr(dataset.config, name), getattr(config, name)
        if theirs != ours:
            raise ValueError(
                f"a data set for the {name} {theirs}, but the model has {ours}: make it with the model's configuration"
            )


class _EarlyStopping(EarlyStoppingCallback):
    """Is patient until anything was found: a score of 0 of the first epochs is no sign that nothing is learnt."""

    def check_metric_value(self, args: Any, state: TrainerState, control: Any, metric_value: float) -> None:
        if metric_value > 0 or state.best_metric:
            super().check_metric_value(args, state, control, metric_value)


class _SamplerEpoch(TrainerCallback):
    """Tells the sampler the epoch: after a resume in mid-epoch accelerate's wrappers hide it from `set_epoch`."""

    def __init__(self, trainer: AspertTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.trainer._train_sampler.set_epoch(int(state.epoch or 0))


def _padded(arrays: list[np.ndarray], device: torch.device) -> Tensor:
    """[B, longest, 4], rows of -100 behind each array; never 0 long, which no collective pads."""
    longest = max(1, *(len(array) for array in arrays))
    padded = np.full((len(arrays), longest, _FIELDS), -100.0, dtype=np.float32)
    for row, array in zip(padded, arrays):
        row[: len(array)] = array
    return torch.from_numpy(padded).to(device)


def _unpadded(entities: np.ndarray, relations: np.ndarray) -> Predictions:
    entities = entities[entities[:, 0] >= 0]
    relations = relations[relations[:, 0] >= 0]
    sentence = np.zeros((len(entities), 1), dtype=np.int64), np.zeros((len(relations), 1), dtype=np.int64)
    return Predictions(
        np.hstack([sentence[0], entities[:, :3].astype(np.int64)]),
        entities[:, 3],
        np.hstack([sentence[1], relations[:, :3].astype(np.int64)]),
        relations[:, 3],
    )
