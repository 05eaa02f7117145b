"""What is timed on our side: extraction from words, training steps, and the bare encoder over the same batches."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig

import modeling_aspert.extraction as library
import modeling_aspert.modeling_aspert as network
from benchmarks.timing import StageClock, patched
from modeling_aspert import (
    AspertConfig,
    AspertDataCollator,
    AspertForJointExtraction,
    AspertProcessor,
    JointExtractionDataset,
    saved_models,
)
from modeling_aspert.decoding import Predictions, decode
from modeling_aspert.encoders import resolve_encoder
from modeling_aspert.extraction import ExtractionOptions, Extractor, Sentence
from modeling_aspert.processing_aspert import EncodedSentence

# A random BERT base: the cost of 12 layers x 768 with no download.
RANDOM_BASE = "random-base"
# learning rate of timed steps: the arithmetic of a step, without a change that would alter the next one
_LEARNING_RATE = 1e-9


def load_processor(encoder: str, tokenizer: str) -> AspertProcessor:
    """The encoder's processor; a random encoder takes that of ``tokenizer``."""
    if encoder != RANDOM_BASE:
        return AspertProcessor.from_encoder_pretrained(encoder)
    return AspertProcessor(AutoTokenizer.from_pretrained(resolve_encoder(tokenizer)), max_tokens=512)


def build_model(encoder: str, processor: AspertProcessor, labels: dict[str, list[str]]) -> AspertForJointExtraction:
    """A model with fresh heads, or the trained one where ``encoder`` is the folder of one; in evaluation mode, fp32."""
    torch.manual_seed(0)
    if encoder == RANDOM_BASE:
        config = BertConfig(vocab_size=len(processor.tokenizer))
        return AspertForJointExtraction(AspertConfig.from_preset("paper", encoder_config=config, **labels)).eval()
    path = resolve_encoder(encoder)
    if is_trained(path):
        return AspertForJointExtraction.from_pretrained(path).eval()
    return AspertForJointExtraction.from_encoder_pretrained(path, **labels).eval()


def is_trained(path: str | Path) -> bool:
    """Whether a folder holds a trained ASpERT model."""
    return (Path(path) / "config.json").is_file() and saved_models.is_trained(str(path))


def bare_encoder(model: AspertForJointExtraction) -> nn.Module:
    """A copy of the model's encoder as transformers builds it, with its fastest attention (sdpa where it has one)."""
    encoder = copy.deepcopy(model.encoder)
    for module in encoder.modules():
        # packed weights are ours
        vars(module).pop("forward", None)
    _choose_fastest_attention(encoder)
    return encoder


def without_contribution(model: AspertForJointExtraction) -> AspertForJointExtraction:
    """The same weights less the columns that see the contribution, with the encoder's fastest attention.

    So both models predict much the same, and differ in nothing but what the contribution costs.
    """
    config = copy.deepcopy(model.config)
    config.attentional_contribution = False
    off = AspertForJointExtraction(config)
    off.encoder = copy.deepcopy(model.encoder)
    _choose_fastest_attention(off.encoder)
    weights = model.state_dict()
    for name, values in off.state_dict().items():
        if name.startswith("encoder."):
            continue
        given = weights[name]
        if given.shape != values.shape:
            given = given[:, ~_sees_contribution(model, name)]
        values.copy_(given)
    return off.to(model.device, model.dtype).eval()


def _sees_contribution(model: AspertForJointExtraction, name: str) -> Tensor:
    """Which columns of a weight see the contribution."""
    config, columns = model.config, model.config.contribution_size
    begin = config.encoder_config.hidden_size * (3 if config.span_boundaries else 1)
    sees = torch.zeros(model.get_parameter(name).shape[1], dtype=torch.bool)
    sees[begin : begin + columns] = True
    if name.startswith("relation_classifier."):
        tail = sum(model.relation_classifier.sizes[:2]) + begin
        sees[tail : tail + columns] = True
    return sees


def _choose_fastest_attention(encoder: nn.Module) -> None:
    try:
        encoder.set_attn_implementation("sdpa")
    except (ValueError, ImportError):
        encoder.set_attn_implementation("eager")


def attention_of(encoder: nn.Module) -> str:
    return encoder.config._attn_implementation


class Extraction:
    """Words to records with entities and relations, in the order of the input: the library's own `Extractor`.

    Args:
        model: in evaluation mode.
        processor: the model's.
        records: records in the SpERT format, of which only the words are used.
        batch_size: sentences a forward pass.
    """

    def __init__(
        self,
        model: AspertForJointExtraction,
        processor: AspertProcessor,
        records: Sequence[Mapping[str, Any]],
        batch_size: int,
    ) -> None:
        self.model, self.processor, self.records, self.batch_size = model, processor, records, batch_size
        self.extractor = Extractor(model, processor, ExtractionOptions(batch_size=batch_size))
        self.collator = self.extractor.collator
        self.words = [record["tokens"] for record in records]

    def __call__(self) -> list[dict[str, Any]]:
        return [
            {"tokens": words, **annotation}
            for words, annotation in zip(self.words, self.extractor.annotate(map(Sentence, self.words)))
        ]

    def in_whole_batches(self) -> list[dict[str, Any]]:
        """The annotations, batch by batch, with batches as large as was asked for: the library makes those of long
        sentences smaller."""
        annotations = []
        for _, batch in self.batches():
            output, word_spans, span_mask = self.forward(batch)
            decoded = library.decode(output, word_spans, span_mask, self.model.config)
            annotations += [
                prediction.annotation(self.model.config) for prediction in decoded.per_sentence(len(batch))
            ]
        return annotations

    def pieces(self) -> list[Extraction]:
        """Extractions of a batch each."""
        return [
            Extraction(self.model, self.processor, [self.records[position] for position in positions], self.batch_size)
            for positions, _ in self.batches()
        ]

    def batches(self) -> Iterator[tuple[list[int], list[EncodedSentence]]]:
        """Positions and sentences of each batch, the longest sentences first."""
        sentences = self.processor.encode(self.words)
        order = sorted(range(len(sentences)), key=lambda position: -sentences[position].num_tokens)
        for start in range(0, len(order), self.batch_size):
            positions = order[start : start + self.batch_size]
            yield positions, [sentences[position] for position in positions]

    def forward(self, sentences: Sequence[EncodedSentence]) -> tuple[Any, Tensor, Tensor]:
        tensors = self.collator.collate_candidates(sentences)
        device = self.model.device
        tensors = {name: values.to(device, non_blocking=True) for name, values in tensors.items()}
        word_spans = tensors.pop("word_spans")
        with torch.inference_mode():
            return self.model(**tensors), word_spans, tensors["span_mask"]

    def encoder_batches(self) -> list[dict[str, Tensor]]:
        """What the encoder sees in each batch, ready on its device."""
        collated = (self.collator.collate_candidates(batch) for _, batch in self.batches())
        names = ("input_ids", "attention_mask")
        return [{name: tensors[name].to(self.model.device) for name in names} for tensors in collated]

    def profile(self, synchronize: Callable[[], None] | None = None) -> dict[str, float]:
        """Seconds of one call by stage; `other` is what no stage holds."""
        clock = StageClock(synchronize)
        with patched(self.stages(clock.wrap)):
            clock.wrap("other", self.__call__)()
        return clock.seconds

    def stages(self, wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> list[tuple[Any, str, Any]]:
        """The parts of a call, wrapped stage by stage; parts that the library no longer has are left out."""
        model = self.model
        parts = [
            (self.processor, "encode", "tokenise"),
            (self.collator, "collate_candidates", "collate"),
            (model.encoder, "forward", "encode"),
            (network, "range_max_table", "pool"),
            (network, "range_max", "pool"),
            (network, "attentional_contribution", "contribute"),
            (model.span_classifier, "forward", "classify spans"),
            (network, "pairs_of_entities", "classify pairs"),
            (model, "_classify_pairs", "classify pairs"),
            (library, "decode", "decode"),
            (Predictions, "annotation", "records"),
        ]
        return [
            (owner, name, wrap(stage, getattr(owner, name))) for owner, name, stage in parts if hasattr(owner, name)
        ]


def forward_only(encoder: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Callable[[], None]:
    """The bare encoder's forward pass over batches."""

    def work() -> None:
        with torch.inference_mode():
            for batch in batches:
                encoder(**batch)

    return work


class _Replay(nn.Module):
    """Stands in for an encoder and returns what it once returned."""

    def __init__(self, encoder: nn.Module, outputs: list[Any]) -> None:
        super().__init__()
        self.config, self.outputs, self.position = encoder.config, outputs, 0

    def forward(self, **kwargs: Any) -> Any:
        output = self.outputs[self.position % len(self.outputs)]
        self.position += 1
        return output


def heads_only(extraction: Extraction) -> Callable[[], None]:
    """All that follows the encoder, with the encoder's output given: pooling, contribution, classifiers, decoding.

    The model keeps its encoder; the stand-in is there only while the work runs.
    """
    model = extraction.model
    collated = (extraction.collator.collate_candidates(batch) for _, batch in extraction.batches())
    batches = [{name: values.to(model.device) for name, values in batch.items()} for batch in collated]
    outputs: list[Any] = []
    encoder = model.encoder
    hook = encoder.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.inference_mode():
        for batch in batches:
            model(**{name: values for name, values in batch.items() if name != "word_spans"})
    hook.remove()
    stand_in = _Replay(encoder, outputs)

    def work() -> None:
        stand_in.position = 0
        model.encoder = stand_in
        try:
            with torch.inference_mode():
                for batch in batches:
                    inputs = {name: values for name, values in batch.items() if name != "word_spans"}
                    decode(model(**inputs), batch["word_spans"], batch["span_mask"], model.config)
        finally:
            model.encoder = encoder

    return work


class Training:
    """Training steps over fixed batches of sentences: sampling, collation, forward, backward, clipping, fused AdamW.

    Args:
        model: its weights hardly change, see the learning rate above.
        batches: positions of records by batch.
    """

    def __init__(
        self,
        model: AspertForJointExtraction,
        processor: AspertProcessor,
        records: Sequence[Mapping[str, Any]],
        batches: Sequence[Sequence[int]],
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = copy.deepcopy(model).train()
        self.batches, self.autocast = batches, autocast
        self.dataset = JointExtractionDataset(records, processor, model.config)
        self.collator = AspertDataCollator(processor, model.config)
        self.optimizer = fused_adamw(self.model)

    def pieces(self) -> list[Callable[[], None]]:
        """A step each."""
        return [functools.partial(self.step, batch) for batch in self.batches]

    def step(self, batch: Sequence[int]) -> None:
        tensors = self.collator([self.dataset[position] for position in batch])
        tensors.pop("index")
        tensors = {name: values.to(self.model.device) for name, values in tensors.items()}
        with _autocast(self.model.device, self.autocast):
            loss = self.model(**tensors).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def encoder_batches(self) -> list[dict[str, Tensor]]:
        names = ("input_ids", "attention_mask")
        collated = (self.collator([self.dataset[position] for position in batch]) for batch in self.batches)
        return [{name: tensors[name].to(self.model.device) for name in names} for tensors in collated]


def encoder_training(
    encoder: nn.Module, batches: Sequence[Mapping[str, Tensor]], autocast: torch.dtype | None = None
) -> list[Callable[[], None]]:
    """The bare encoder's forward, backward and fused AdamW step over each batch."""
    encoder = copy.deepcopy(encoder).train()
    optimizer = fused_adamw(encoder)
    device = next(encoder.parameters()).device

    def step(batch: Mapping[str, Tensor]) -> None:
        with _autocast(device, autocast):
            loss = encoder(**batch).last_hidden_state.float().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return [functools.partial(step, batch) for batch in batches]


def fused_adamw(module: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=0.0, fused=True)


def fit_span_classifier(extraction: Extraction) -> None:
    """Set an untrained MLP's output layer by least squares to the entities of the extraction's records.

    Random weights find their entities in a few sentences, which then hold hundreds of pairs; of a trained model's, each
    sentence has a few.
    """
    model = extraction.model
    output = model.span_classifier.output
    size, labels = output.in_features + 1, len(model.config.entity_types) + 1
    products, targets = torch.zeros(size, size), torch.zeros(size, labels)
    seen: list[Tensor] = []
    hook = output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for records, _, word_spans, mask in outputs(extraction):
        hidden = F.pad(torch.cat(seen, dim=1)[mask].float().cpu(), (0, 1), value=1.0)
        seen.clear()
        gold = [
            {(entity["start"], entity["end"]): entity["type"] for entity in record["entities"]} for record in records
        ]
        types = [
            entities.get(tuple(span))
            for entities, spans, real in zip(gold, word_spans.tolist(), mask.tolist())
            for span in itertools.compress(spans, real)
        ]
        places = [0 if name is None else model.config.entity_types.index(name) + 1 for name in types]
        products += hidden.T @ hidden
        targets += hidden.T @ F.one_hot(torch.tensor(places), labels).float()
    hook.remove()
    products.diagonal().add_(products.diagonal().mean() * 1e-3)
    weights = torch.linalg.solve(products, targets).T
    output.weight.data.copy_(weights[:, :-1])
    output.bias.data.copy_(weights[:, -1])


def calibrate(extraction: Extraction, entities: int, relations: int | None) -> dict[str, int]:
    """Shift the biases of untrained heads so that about so many entities and relations are predicted in all.

    So the work after the span classifier is that of a trained model, whatever the weights.

    Args:
        relations: None leaves the relation head alone.

    Returns:
        What is predicted afterwards.
    """
    model = extraction.model
    margins: list[Tensor] = []
    for _, output, _, mask in outputs(extraction):
        logits = output.span_logits.float()
        margins.append((logits[..., 1:].amax(-1) - logits[..., 0])[mask])
    none_bias = (model.span_classifier.output if model.span_classifier.is_mlp else model.span_classifier.input).bias
    _shift(none_bias.data[:1], torch.cat(margins), entities, sign=1.0)
    if relations is not None:
        limit = torch.logit(torch.tensor(model.config.relation_threshold))
        scores = [
            (output.relation_logits.float() - limit)[output.pair_mask][:, : len(model.config.relation_types)].flatten()
            for _, output, _, _ in outputs(extraction)
        ]
        _shift(model.relation_classifier.output.bias.data, torch.cat(scores), relations, sign=-1.0)
    return count_predicted(extraction())


def count_predicted(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Entities and relations of records in all."""
    return {part: sum(len(record[part]) for record in records) for part in ("entities", "relations")}


def outputs(extraction: Extraction) -> Iterator[tuple[Sequence[Mapping[str, Any]], Any, Tensor, Tensor]]:
    """Records, output, word spans and span mask of each batch."""
    for piece in extraction.pieces():
        yield piece.records, *piece.forward(piece.processor.encode(piece.words))


def _shift(bias: Tensor, margins: Tensor, wanted: int, sign: float) -> None:
    """Move a bias so that ``wanted`` of the margins come out positive."""
    if not len(margins):
        return
    ordered = margins.sort(descending=True).values
    wanted = min(max(wanted, 0), len(ordered))
    if wanted == 0:
        cut = ordered[0] + 1.0
    elif wanted == len(ordered):
        cut = ordered[-1] - 1.0
    else:
        cut = (ordered[wanted - 1] + ordered[wanted]) / 2
    bias += sign * cut.to(bias.dtype)


def sentences_of_length(
    records: Sequence[Mapping[str, Any]], processor: AspertProcessor, num_tokens: int, count: int
) -> list[dict[str, Any]]:
    """Sentences of exactly so many sub-words (special tokens included), made of the records' words in order."""
    pieces = [
        (word, size)
        for record, sentence in zip(records, processor.encode([record["tokens"] for record in records]))
        for word, size in zip(record["tokens"], (sentence.word_offsets[1:] - sentence.word_offsets[:-1]).tolist())
    ]
    short = next(word for word, size in pieces if size == 1)
    made, position = [], 0
    for _ in range(count):
        words, left = [], num_tokens - processor.num_special_tokens
        while left > 0:
            word, size = pieces[position % len(pieces)]
            position += 1
            if size > left:
                word, size = short, 1
            words.append(word)
            left -= size
        made.append({"tokens": words, "entities": [], "relations": []})
    return made


def _autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
