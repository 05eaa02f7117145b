"""Annotated sentences, tokenised once and kept as arrays: what the sampler draws from and the collator pads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from .configuration_aspert import AspertConfig
from .decoding import allowed_types
from .processing_aspert import AspertProcessor, EncodedSentence, longest_input

logger = logging.getLogger(__name__)

_ENCODE_BATCH = 1000
# the lists of a record, and what their rows need
_FIELDS = {"entities": ("type", "start", "end"), "relations": ("type", "head", "tail")}


@dataclass(slots=True)
class EncodedExample:
    """A sentence and its gold annotation as arrays.

    Args:
        sentence: the sub-words.
        entity_spans: [E, 2] words, end-exclusive.
        entity_types: [E], 1 ... T_e.
        pairs: [R, 2] (head, tail) indices of entities, one row for all relations of an ordered pair.
        pair_types: float32 [R, T_r], multi-hot.
    """

    sentence: EncodedSentence
    entity_spans: np.ndarray
    entity_types: np.ndarray
    pairs: np.ndarray
    pair_types: np.ndarray


class JointExtractionDataset(Dataset):
    """Records in the SpERT format, encoded for a model.

    Items are dicts of ``example`` (:class:`EncodedExample`), ``index`` (the record's position) and ``epoch``. The
    index asked for may run past the end: record and epoch of index k are ``divmod(k, len(self))``, so a sampler can
    name the epoch and every loader worker draws the same negatives, without shared state.

    Args:
        records: mappings with "tokens", "entities" and "relations"; a `datasets.Dataset` is one such iterable.
        processor: the model's processor.
        config: the model's configuration: labels, symmetric relations, span limit.

    Raises:
        ValueError: a record of another form, a type that the configuration does not have, a span or an entity that its
            record does not have, a relation of an entity with itself, or a sentence longer than the encoder's limit.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], processor: AspertProcessor, config: AspertConfig) -> None:
        if hasattr(records, "with_format"):
            records = records.with_format(None)  # plain lists and numbers
        self.records = [_checked(position, record) for position, record in enumerate(records)]
        self.config = config
        sentences: list[EncodedSentence] = []
        for start in range(0, len(self.records), _ENCODE_BATCH):
            batch = self.records[start : start + _ENCODE_BATCH]
            sentences += processor.encode([record["tokens"] for record in batch])
        self._check_lengths(sentences, processor.max_tokens or longest_input(config.encoder_config))
        self.examples = [
            _encode_annotation(position, record, sentence, config)
            for position, (record, sentence) in enumerate(zip(self.records, sentences))
        ]
        self._report_wide_entities()
        self._report_relations_of_one_span()
        self._report_forbidden_relations()

    @property
    def lengths(self) -> list[int]:
        """Sub-words of each sentence, special tokens included."""
        return [example.sentence.num_tokens for example in self.examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # without it a loop would go on into the next epochs
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.examples:
            raise IndexError(f"index {index}: the data set has no sentence")
        if index < 0:
            raise IndexError(f"index {index}: count from the first sentence, 0")
        epoch, position = divmod(int(index), len(self.examples))
        return {"example": self.examples[position], "index": position, "epoch": epoch}

    def _check_lengths(self, sentences: list[EncodedSentence], limit: int | None) -> None:
        too_long = [
            position
            for position, sentence in enumerate(sentences)
            if limit is not None and sentence.num_tokens > limit
        ]
        if too_long:
            first = too_long[0]
            raise ValueError(
                f"{len(too_long)} of {len(sentences)} sentences are longer than the encoder's limit of {limit} "
                f"sub-words; the first is record {first} (orig_id {self.records[first].get('orig_id')!r}) with "
                f"{sentences[first].num_tokens}: split it into shorter sentences, or choose an encoder with a "
                "longer input"
            )

    def _report_wide_entities(self) -> None:
        limit = self.config.max_span_width
        widths = [int(end - start) for example in self.examples for start, end in example.entity_spans]
        wide = sum(width > limit for width in widths)
        if wide:
            logger.warning(
                "%d of %d entities are wider than max_span_width = %d words (widest: %d): they train, "
                "but cannot be predicted",
                wide,
                len(widths),
                limit,
                max(widths),
            )

    def _report_relations_of_one_span(self) -> None:
        count = 0
        for record in self.records:
            spans = [(entity["start"], entity["end"]) for entity in record["entities"]]
            count += sum(spans[relation["head"]] == spans[relation["tail"]] for relation in record["relations"])
        if count:
            logger.warning(
                "%d relations join two entities on one span: they are left out of training, and cannot be predicted",
                count,
            )

    def _report_forbidden_relations(self) -> None:
        if not self.config.relation_type_constraints:
            return
        allowed = allowed_types(self.config)
        forbidden = []
        for example in self.examples:
            pair, kind = example.pair_types.nonzero()
            head, tail = (example.entity_types[end] - 1 for end in example.pairs[pair].T)
            forbidden += (~allowed[kind, head, tail]).tolist()
        if any(forbidden):
            logger.warning(
                "%d of %d relations join other types than relation_type_constraints allow: they cannot be predicted; "
                "`aspert learn-constraints` learns from training data what is allowed",
                sum(forbidden),
                len(forbidden),
            )


def _encode_annotation(
    position: int, record: Mapping[str, Any], sentence: EncodedSentence, config: AspertConfig
) -> EncodedExample:
    entity_ids = {label: index for index, label in enumerate(config.entity_types, start=1)}
    relation_ids = {label: index for index, label in enumerate(config.relation_types)}
    entities, num_words = record["entities"], len(record["tokens"])
    spans = [(entity["start"], entity["end"]) for entity in entities]
    for start, end in spans:
        if not 0 <= start < end <= num_words:
            raise _wrong(position, record, f"an entity from {start} to {end} in a sentence of {num_words} words")
    types = [_known(entity_ids, entity["type"], "entity", position, record) for entity in entities]
    # two entities on one span both train; relations use the first
    first_on_span: dict[tuple[int, int], int] = {}
    for index, span in enumerate(spans):
        first_on_span.setdefault(span, index)
    multi_hot: dict[tuple[int, int], np.ndarray] = {}
    for relation in record["relations"]:
        for end in ("head", "tail"):
            if not 0 <= relation[end] < len(entities):
                raise _wrong(position, record, f"a {end} {relation[end]} among {len(entities)} entities")
        kind = _known(relation_ids, relation["type"], "relation", position, record)
        if relation["head"] == relation["tail"]:
            raise _wrong(position, record, f"a relation {relation['type']!r} of entity {relation['head']} with itself")
        head, tail = (first_on_span[spans[relation[end]]] for end in ("head", "tail"))
        if head == tail:
            continue
        if relation["type"] in config.symmetric_relations and spans[tail] < spans[head]:
            head, tail = tail, head
        hot = multi_hot.setdefault((head, tail), np.zeros(len(relation_ids), dtype=np.float32))
        hot[kind] = 1.0
    return EncodedExample(
        sentence=sentence,
        entity_spans=np.asarray(spans, dtype=np.int64).reshape(-1, 2),
        entity_types=np.asarray(types, dtype=np.int64),
        pairs=np.asarray(list(multi_hot), dtype=np.int64).reshape(-1, 2),
        pair_types=np.asarray(list(multi_hot.values()), dtype=np.float32).reshape(len(multi_hot), len(relation_ids)),
    )


def _checked(position: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with lists of entities and relations, which may be missing in it. Raises ValueError for another form."""
    if not isinstance(record, Mapping):
        raise ValueError(
            f"record {position} is a {type(record).__name__}: give mappings with tokens, entities and relations"
        )
    tokens = record.get("tokens")
    if tokens is None or isinstance(tokens, (str, bytes)):
        what = "no tokens" if tokens is None else f"tokens that are a {type(tokens).__name__}, not a list of words"
        raise _wrong(position, record, what)
    if odd := [token for token in tokens if not isinstance(token, str)]:
        raise _wrong(position, record, f"a token {odd[0]!r} that is no string")
    record = {**record, **{name: record.get(name) or [] for name in _FIELDS}}
    for name, needed in _FIELDS.items():
        if isinstance(record[name], Mapping) or not all(isinstance(row, Mapping) for row in record[name]):
            raise _wrong(position, record, f"{name} that are no list of mappings")
        for row in record[name]:
            if missing := [key for key in needed if key not in row]:
                raise _wrong(position, record, f"one of its {name} without {missing[0]!r}")
            for key, kind in ((key, str if key == "type" else Integral) for key in needed):
                if not isinstance(row[key], kind) or isinstance(row[key], bool):
                    raise _wrong(position, record, f"one of its {name} with {key} = {row[key]!r}")
    return record


def _known(ids: dict[str, int], label: str, kind: str, position: int, record: Mapping[str, Any]) -> int:
    if label not in ids:
        raise _wrong(
            position,
            record,
            f"{kind} type {label!r} is not one of the model's {list(ids)}",
            ", or give the model this label",
        )
    return ids[label]


def _wrong(position: int, record: Mapping[str, Any], what: str, mend: str = "") -> ValueError:
    return ValueError(f"record {position} (orig_id {record.get('orig_id')!r}): {what}: mend the record{mend}")


class EpochSampler(Sampler[int]):
    """A permutation of the records for each epoch, from (seed, epoch) alone; yields ``epoch * length + position``.

    Args:
        dataset: what is sampled.
        seed: of the permutations.
        group_size: records of like length per batch: 0 for none, else the batch size whose members should have
            like lengths (less padding, a little less random).
    """

    def __init__(self, dataset: JointExtractionDataset, seed: int, group_size: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        self.group_size = group_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        state = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        if self.group_size:
            order = get_length_grouped_indices(self.dataset.lengths, self.group_size, generator=generator)
        else:
            order = torch.randperm(size, generator=generator).tolist()
        return (self.epoch * size + position for position in order)
