"""Words or running text to entities and relations: encode, batch by length, run the network, decode, put in order."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .configuration_aspert import ENTITY_OVERLAPS
from .data_collator import AspertDataCollator
from .decoding import Predictions, decode
from .documents import merge_windows, split_sentences, split_words, windows
from .modeling_aspert import AspertForJointExtraction, pairs_of_entities
from .processing_aspert import AspertProcessor, EncodedSentence

logger = logging.getLogger(__name__)

# Inputs that are worked on together, sorted by length. A run that is taken up again at a multiple of it sees the same
# batches, so the scores are the same to the last digit.
CHUNK_INPUTS = 256
# A batch's attention maps hold at most this many values a head: 16 sentences of 128 sub-words.
_MAP_BUDGET = 16 * 128**2


@dataclass
class ExtractionOptions:
    """How entities and relations are chosen.

    Args:
        relation_threshold: least probability of a relation, one for all types or by type; default: the model's.
        entity_threshold: least probability of an entity's type; default: the model's.
        overlap: "allow", or "flat" to keep the best of overlapping entities; default: the model's.
        batch_size: sentences a forward pass; long sentences are batched by fewer.
        stride: words by which the windows over a sentence that is longer than the encoder overlap.
        split_sentences: False takes each text as one sentence.

    Raises:
        ValueError: a value out of range.
    """

    relation_threshold: float | Mapping[str, float] | None = None
    entity_threshold: float | None = None
    overlap: str | None = None
    batch_size: int = 16
    stride: int = 64
    split_sentences: bool = True

    def __post_init__(self) -> None:
        thresholds = {"entity_threshold": self.entity_threshold} if self.entity_threshold is not None else {}
        if isinstance(self.relation_threshold, Mapping):
            thresholds |= {f"relation_threshold[{name!r}]": value for name, value in self.relation_threshold.items()}
        elif self.relation_threshold is not None:
            thresholds["relation_threshold"] = self.relation_threshold
        for name, value in thresholds.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value!r} is not valid: it must be a number in [0, 1]")
        if self.overlap not in (None, *ENTITY_OVERLAPS):
            raise ValueError(f"overlap = {self.overlap!r} is not valid: it must be allow or flat")
        for name, least in (("batch_size", 1), ("stride", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not valid: it must be >= {least}")


@dataclass(slots=True)
class Sentence:
    """A sentence to annotate.

    Args:
        words: its words.
        entities: given entities as word records ("type", "start", "end"), or None to predict them.
    """

    words: Sequence[str]
    entities: Sequence[Mapping[str, Any]] | None = None


@dataclass(slots=True)
class _Unit:
    """What one row of a batch holds: a sentence, or a window over a long one."""

    sentence: int
    encoded: EncodedSentence
    word_start: int
    word_end: int
    spans: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclass(slots=True)
class _Document:
    text: str
    sentences: list[Sentence] = field(default_factory=list)
    word_spans: list[list[tuple[int, int]]] = field(default_factory=list)


class Extractor:
    """Runs a model over a stream of sentences or texts. Results come in the order of the input.

    Args:
        model: in evaluation mode; its device and dtype are used as they are.
        processor: the model's.
        options: how entities and relations are chosen.
    """

    def __init__(
        self,
        model: AspertForJointExtraction,
        processor: AspertProcessor,
        options: ExtractionOptions | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.options = options or ExtractionOptions()
        self.collator = AspertDataCollator(processor, model.config, training=False)

    def annotate(self, sentences: Iterable[Sentence]) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """The "entities" and "relations" of each sentence, as a word record with scores.

        Raises:
            ValueError: a given entity has a type or span that the model or sentence does not have.
        """
        stream = iter(sentences)
        while chunk := list(itertools.islice(stream, CHUNK_INPUTS)):
            yield from self._annotate_chunk(chunk)

    def extract(self, inputs: Iterable[str | Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Character records of texts: "text", "entities" and "relations", offsets into the text as it was given.

        Args:
            inputs: strings, or mappings with "text" and optionally "entities" ("type", "start", "end" in characters),
                for which only relations are predicted; or mappings with "tokens" (and entities in words), whose text
                is the words joined by blanks.
        """
        stream = iter(inputs)
        while chunk := list(itertools.islice(stream, CHUNK_INPUTS)):
            yield from self._extract_chunk([self._document(given) for given in chunk])

    # -- texts --------------------------------------------------------------------------------------------------

    def _document(self, given: str | Mapping[str, Any]) -> _Document:
        if isinstance(given, str):
            given = {"text": given}
        if "tokens" in given:
            return _document_of_words(given)
        text, entities = given["text"], given.get("entities")
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, not {type(text).__name__}")
        if entities is not None:
            _check_spans(entities, len(text), "characters of the text")
        spans = [(entity["start"], entity["end"]) for entity in entities or ()]
        document = _Document(text)
        for start, end in self._sentences(text, spans):
            words = _cut_words(split_words(text[start:end], self.processor.word_splitter), start, spans)
            inside = None
            if entities is not None:
                inside = [_in_words(entity, words) for entity in entities if start <= entity["start"] < end]
            if words:
                document.sentences.append(Sentence([text[first:last] for first, last in words], inside))
                document.word_spans.append(words)
        placed = sum(len(sentence.entities or ()) for sentence in document.sentences)
        if entities is not None and placed != len(entities):
            raise ValueError(f"{len(entities) - placed} given entities hold nothing but white space: remove them")
        return document

    def _sentences(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Sentences; neighbours are joined where a given entity reaches over their boundary."""
        if not self.options.split_sentences:
            return [(0, len(text))]
        joined: list[tuple[int, int]] = []
        for start, end in split_sentences(text, self.processor.language):
            if joined and any(first < start and last > joined[-1][1] for first, last in spans):
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    def _extract_chunk(self, documents: Sequence[_Document]) -> Iterator[dict[str, Any]]:
        annotations = self.annotate([sentence for document in documents for sentence in document.sentences])
        for document in documents:
            record: dict[str, Any] = {"text": document.text, "entities": [], "relations": []}
            for words in document.word_spans:
                annotation = next(annotations)
                first_id = len(record["entities"])
                for entity in annotation["entities"]:
                    start, end = words[entity["start"]][0], words[entity["end"] - 1][1]
                    record["entities"].append(
                        {
                            "id": len(record["entities"]),
                            "type": entity["type"],
                            "text": document.text[start:end],
                            "start": start,
                            "end": end,
                            "score": entity["score"],
                        }
                    )
                for relation in annotation["relations"]:
                    head, tail = first_id + relation["head"], first_id + relation["tail"]
                    record["relations"].append({**relation, "head": head, "tail": tail})
            yield record

    # -- sentences ----------------------------------------------------------------------------------------------

    def _annotate_chunk(self, sentences: Sequence[Sentence]) -> list[dict[str, list[dict[str, Any]]]]:
        encoded = self.processor.encode([sentence.words for sentence in sentences])
        units = [
            unit
            for position, (sentence, encoding) in enumerate(zip(sentences, encoded))
            for unit in self._units(position, sentence, encoding)
        ]
        units_of: dict[int, list[int]] = {}
        for number, unit in enumerate(units):
            units_of.setdefault(unit.sentence, []).append(number)
        annotations: dict[int, dict[str, list[dict[str, Any]]]] = {}
        for batch in self._batches(units):
            predictions = self._predict([units[number] for number in batch])
            for number, prediction in zip(batch, predictions):
                annotations[number] = prediction.annotation(self.model.config)
        results = []
        for position in range(len(sentences)):
            numbers = units_of.get(position, [])
            if len(numbers) == 1 and numbers[0] in annotations:
                results.append(annotations[numbers[0]])
            else:
                parts = [annotations[number] for number in numbers]
                results.append(merge_windows(parts, [(units[n].word_start, units[n].word_end) for n in numbers]))
        return results

    def _units(self, position: int, sentence: Sentence, encoded: EncodedSentence) -> Iterator[_Unit]:
        """The sentence, or its windows; nothing for a sentence without words or with an empty list of entities."""
        if not encoded.num_words or (sentence.entities is not None and not sentence.entities):
            return
        limit = self.processor.max_tokens
        if limit is None or encoded.num_tokens <= limit:
            bounds = [(0, encoded.num_words)]
        else:
            counts = np.diff(encoded.word_offsets).tolist()
            bounds = windows(counts, limit - self.processor.num_special_tokens, self.options.stride)
        if sentence.entities is not None:
            _check_spans(sentence.entities, encoded.num_words, "words of the sentence")
        seen = 0
        for start, end in bounds:
            unit = _Unit(position, self.processor.window(encoded, start, end), start, end)
            if sentence.entities is not None:
                inside = [entity for entity in sentence.entities if start <= entity["start"] and entity["end"] <= end]
                inside.sort(key=lambda entity: (entity["start"], entity["end"]))
                seen = max(seen, len(inside))
                if not inside:
                    continue
                spans = [(entity["start"] - start, entity["end"] - start) for entity in inside]
                unit.spans = np.asarray(spans, dtype=np.int64)
                unit.labels = np.asarray([self._entity_label(entity["type"]) for entity in inside])
            yield unit
        if sentence.entities is not None and seen < len(sentence.entities):
            logger.warning(
                "a sentence of %d words is longer than the encoder's %s sub-words: relations are looked for within "
                "its %d windows only",
                encoded.num_words,
                limit,
                len(bounds),
            )

    def _entity_label(self, name: str) -> int:
        types = self.model.config.entity_types
        if name not in types:
            raise ValueError(f"a given entity has type {name!r}, but the model knows {types}")
        return types.index(name) + 1

    def _batches(self, units: Sequence[_Unit]) -> Iterator[list[int]]:
        """Units of like length, and of like kind: entities given or not."""
        order = sorted(range(len(units)), key=lambda n: (units[n].spans is not None, units[n].encoded.num_tokens))
        batch: list[int] = []
        for number in order:
            unit = units[number]
            full = len(batch) == self.options.batch_size or (len(batch) + 1) * unit.encoded.num_tokens**2 > _MAP_BUDGET
            if batch and (full or (unit.spans is None) != (units[batch[0]].spans is None)):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _predict(self, units: Sequence[_Unit]) -> list[Predictions]:
        given = units[0].spans is not None
        batch = self.collator.collate_candidates(
            [unit.encoded for unit in units], [unit.spans for unit in units] if given else None
        )
        batch = {name: values.to(self.model.device) for name, values in batch.items()}
        word_spans = batch.pop("word_spans")
        labels = None
        if given:
            labels = torch.zeros_like(batch["span_widths"])
            for row, unit in zip(labels, units):
                row[: len(unit.labels)] = torch.from_numpy(unit.labels)
            batch["pairs"], batch["pair_mask"] = pairs_of_entities(batch["span_mask"])
        with torch.inference_mode():
            output = self.model(**batch)
            predictions = decode(
                output,
                word_spans,
                batch["span_mask"],
                self.model.config,
                self.options.relation_threshold,
                self.options.entity_threshold,
                self.options.overlap,
                labels,
            )
        return predictions.per_sentence(len(units))


def _document_of_words(given: Mapping[str, Any]) -> _Document:
    words = list(given["tokens"])
    if not all(isinstance(word, str) for word in words):
        raise ValueError("tokens must be a list of strings")
    starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
    document = _Document(" ".join(words))
    if words:
        document.sentences.append(Sentence(words, given.get("entities")))
        document.word_spans.append([(start, start + len(word)) for start, word in zip(starts, words)])
    return document


def _cut_words(
    words: Sequence[tuple[int, int]], offset: int, spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Words at their place in the text, cut where a given entity begins or ends inside one."""
    cuts = sorted({edge for span in spans for edge in span})
    result = []
    for start, end in words:
        start, end = start + offset, end + offset
        for cut in cuts:
            if start < cut < end:
                result.append((start, cut))
                start = cut
        result.append((start, end))
    return result


def _in_words(entity: Mapping[str, Any], words: Sequence[tuple[int, int]]) -> dict[str, Any]:
    covered = [n for n, (start, end) in enumerate(words) if start < entity["end"] and entity["start"] < end]
    if not covered:
        raise ValueError(f"given entity {dict(entity)!r} holds nothing but white space: remove it")
    return {"type": entity["type"], "start": covered[0], "end": covered[-1] + 1}


def _check_spans(entities: Sequence[Mapping[str, Any]], length: int, what: str) -> None:
    for entity in entities:
        start, end = entity.get("start"), entity.get("end")
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= length:
            raise ValueError(f"given entity {dict(entity)!r} must have 0 <= start < end <= {length} ({what})")
