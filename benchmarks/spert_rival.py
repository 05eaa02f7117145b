"""SpERT's own code (a checkout of lavis-nlp/spert), made to run with transformers 5, as the rival of the benchmarks.

Nothing of it is copied: the checkout is imported, and what today's transformers no longer has is supplied at run time:
an unfused AdamW in place of `transformers.AdamW`, a model that is built and then given its weights, no progress bars.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from modeling_aspert.optimization import UncorrectedAdamW

_LEARNING_RATE = 1e-9


class UnfusedAdamW(torch.optim.AdamW):
    """One parameter at a time, as the AdamW of transformers 4 that SpERT uses: for the time of a step only, since
    its ``correct_bias`` is ignored."""

    def __init__(self, params: Any, correct_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(params, eps=1e-6, foreach=False, fused=False, **kwargs)


class SpertRival:
    """SpERT with the weights of a checkpoint, or of an encoder alone, to be trained.

    Args:
        checkout: folder of SpERT's repository.
        weights: folder with config.json, model.safetensors and the tokenizer's files, of SpERT or of a BERT.
        types_file: SpERT's types file.
        work: a folder for files of its own.
        negatives: negative spans and pairs a sentence in training.

    Raises:
        FileNotFoundError: no SpERT in the checkout.
    """

    def __init__(self, checkout: Path, weights: Path, types_file: Path, work: Path, negatives: int = 150) -> None:
        if not (checkout / "spert" / "spert_trainer.py").is_file():
            raise FileNotFoundError(f"{checkout} is no checkout of SpERT: it has no spert/spert_trainer.py")
        self._import(checkout)
        self._work, self._types_file, self._negatives = work, types_file, negatives
        self.tokenizer = transformers.BertTokenizer.from_pretrained(weights)
        reader = self._reader()
        config = transformers.BertConfig.from_pretrained(weights)
        self.model = self._models.SpERT(
            config,
            cls_token=self.tokenizer.convert_tokens_to_ids("[CLS]"),
            relation_types=reader.relation_type_count - 1,
            entity_types=reader.entity_type_count,
            size_embedding=25,
            prop_drop=0.1,
            freeze_transformer=False,
            max_pairs=1000,
        )
        state = {name: tensor.float() for name, tensor in load_file(weights / "model.safetensors").items()}
        if not any(name.startswith("bert.") for name in state):
            state = {f"bert.{name}": tensor for name, tensor in state.items()}
            state |= {name: value for name, value in self.model.state_dict().items() if not name.startswith("bert.")}
        missing, _ = self.model.load_state_dict(state, strict=False)
        absent = [name for name in missing if "pooler" not in name and "position_ids" not in name]
        if absent:
            raise ValueError(f"{weights} lacks weights of SpERT: {', '.join(absent)}")
        self.model.eval()

    @property
    def attention(self) -> str:
        return self.model.bert.config._attn_implementation

    def evaluation(
        self, records: Sequence[Mapping[str, Any]], batch_size: int, workers: int = 0
    ) -> Callable[[], None]:
        """SpERT's evaluation loop over records that it has read: sampling, network, conversion, scores.

        Args:
            workers: processes that make the samples (its default is 4; 0 keeps to this process's threads).
        """
        reader = self._reader()
        dataset = self._quietly(lambda: reader.read(self._write(records), "test"))
        trainer = self._trainer(eval_batch_size=batch_size, sampling_processes=workers)
        trainer._init_eval_logging("test")
        return lambda: self._quietly(lambda: trainer._eval(self.model, dataset, reader))

    def sentence(self, record: Mapping[str, Any]) -> Callable[[], Any]:
        """One sentence from words to SpERT's predictions."""
        reader = self._reader()
        bare = {"tokens": list(record["tokens"]), "entities": [], "relations": []}

        def work() -> Any:
            dataset = self._entities.Dataset(
                "one", reader._relation_types, reader._entity_types, 0, 0, reader._max_span_size
            )
            document = reader._parse_document(bare, dataset)
            sample = self._sampling.create_eval_sample(document, reader._max_span_size)
            batch = self._sampling.collate_fn_padding([sample])
            with torch.no_grad():
                result = self.model(
                    encodings=batch["encodings"],
                    context_masks=batch["context_masks"],
                    entity_masks=batch["entity_masks"],
                    entity_sizes=batch["entity_sizes"],
                    entity_spans=batch["entity_spans"],
                    entity_sample_masks=batch["entity_sample_masks"],
                    inference=True,
                )
            return self._prediction.convert_predictions(*result, batch, 0.4, reader)

        return work

    def predictions(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """SpERT's predictions as records, to check that this is SpERT."""
        reader = self._reader()
        dataset = self._quietly(lambda: reader.read(self._write(records), "test"))
        target = self._work / "predictions.json"
        entities, relations = [], []
        dataset.switch_mode(self._entities.Dataset.EVAL_MODE)
        for position in range(len(records)):
            batch = self._sampling.collate_fn_padding([dataset[position]])
            with torch.no_grad():
                result = self.model(**batch, inference=True)
            found = self._prediction.convert_predictions(*result, batch, 0.4, reader)
            entities += found[0]
            relations += found[1]
        self._prediction.store_predictions(dataset.documents, entities, relations, target)
        return json.loads(target.read_text(encoding="utf-8"))

    def training(self, records: Sequence[Mapping[str, Any]], batches: Sequence[Sequence[int]]) -> Callable[[], None]:
        """SpERT's training steps over fixed batches: sampling, collation, forward, loss, backward, clipping, step."""
        reader = self._reader()
        dataset = self._quietly(lambda: reader.read(self._write(records), "train"))
        dataset.switch_mode(self._entities.Dataset.TRAIN_MODE)
        model = self._models.SpERT(
            self.model.config, self.model._cls_token, self.model._relation_types, self.model._entity_types, 25, 0.1,
            False, 1000,
        )  # fmt: skip
        model.load_state_dict(self.model.state_dict())
        trainer = self._trainer()
        optimizer = UnfusedAdamW(trainer._get_optimizer_params(model), lr=_LEARNING_RATE, weight_decay=0.01)
        loss = self._joint_loss(model, optimizer, transformers.get_constant_schedule(optimizer))

        def work() -> None:
            model.train()
            for positions in batches:
                batch = self._sampling.collate_fn_padding([dataset[position] for position in positions])
                entity_logits, relation_logits = model(
                    encodings=batch["encodings"],
                    context_masks=batch["context_masks"],
                    entity_masks=batch["entity_masks"],
                    entity_sizes=batch["entity_sizes"],
                    relations=batch["rels"],
                    rel_masks=batch["rel_masks"],
                )
                loss.compute(
                    entity_logits=entity_logits,
                    rel_logits=relation_logits,
                    rel_types=batch["rel_types"],
                    entity_types=batch["entity_types"],
                    entity_sample_masks=batch["entity_sample_masks"],
                    rel_sample_masks=batch["rel_sample_masks"],
                )

        return work

    def train(
        self, records: Sequence[Mapping[str, Any]], epochs: int, batch_size: int, learning_rate: float
    ) -> Iterator[int]:
        """Train on records by SpERT's own loop with its settings; yields the number of epochs after each."""
        reader = self._reader()
        dataset = self._quietly(lambda: reader.read(self._write(records), "train"))
        trainer = self._trainer(train_batch_size=batch_size, sampling_processes=0, train_log_iter=sys.maxsize)
        # SpERT: AdamW(..., correct_bias=False) of transformers 4
        optimizer = UncorrectedAdamW(trainer._get_optimizer_params(self.model), lr=learning_rate, eps=1e-6)
        steps = len(records) // batch_size
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0.1 * steps * epochs, steps * epochs)
        loss = self._joint_loss(self.model, optimizer, schedule)
        for epoch in range(epochs):
            self._quietly(partial(trainer._train_epoch, self.model, loss, optimizer, dataset, steps, epoch))
            yield epoch + 1
        self.model.eval()

    def _joint_loss(self, model: torch.nn.Module, optimizer: Any, schedule: Any) -> Any:
        relations = torch.nn.BCEWithLogitsLoss(reduction="none")
        entities = torch.nn.CrossEntropyLoss(reduction="none")
        return self._loss.SpERTLoss(relations, entities, model, optimizer, schedule, 1.0)

    def _import(self, checkout: Path) -> None:
        # transformers may have put another module in place of the one that was imported above
        current = sys.modules["transformers"]
        if not hasattr(current, "AdamW"):
            current.AdamW = UnfusedAdamW
        sys.path.insert(0, str(checkout))
        try:
            # its modules import each other in a circle, which only this one enters where it can be left again
            from spert import models  # isort: skip
            from spert import entities, input_reader, loss, prediction, sampling, spert_trainer
        finally:
            sys.path.remove(str(checkout))
        self._entities, self._reader_module, self._models = entities, input_reader, models
        self._loss, self._prediction, self._sampling, self._trainer_module = loss, prediction, sampling, spert_trainer
        # transformers 5 looks for it in init_weights; no weights are tied here
        models.SpERT.all_tied_weights_keys = {}
        for module in (input_reader, spert_trainer):
            module.tqdm = lambda iterable, **kwargs: iterable

    def _reader(self) -> Any:
        return self._reader_module.JsonInputReader(
            str(self._types_file), self.tokenizer, self._negatives, self._negatives, max_span_size=10
        )

    def _trainer(self, **options: Any) -> Any:
        """SpERT's trainer without its constructor, which would take over the root logger."""
        trainer = self._trainer_module.SpERTTrainer.__new__(self._trainer_module.SpERTTrainer)
        defaults = {
            "rel_filter_threshold": 0.4,
            "no_overlapping": False,
            "store_predictions": False,
            "store_examples": False,
            "example_count": None,
            "weight_decay": 0.01,
        }
        trainer._args = argparse.Namespace(**{**defaults, **options})
        trainer._tokenizer, trainer._device = self.tokenizer, torch.device("cpu")
        trainer._log_path, trainer._log_paths, trainer._summary_writer = str(self._work), {}, None
        trainer._best_results, trainer._logger = {}, logging.getLogger("benchmarks.spert")
        return trainer

    def _write(self, records: Sequence[Mapping[str, Any]]) -> str:
        path = self._work / "records.json"
        path.write_text(json.dumps([dict(record) for record in records]), encoding="utf-8")
        return str(path)

    @staticmethod
    def _quietly(work: Callable[[], Any]) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return work()
