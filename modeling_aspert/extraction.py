"""Words or running text to entities and relations: encode, batch by length, run the network, decode, put in order."""

from __future__ import annotations

import copy
import itertools
import logging
import operator
import reprlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch

from .configuration_aspert import ENTITY_OVERLAPS
from .data_collator import AspertDataCollator, pad
from .decoding import MAX_RELATIONS, Predictions, decode
from .documents import (
    check_language,
    check_word_splitter,
    merge_windows,
    split_sentences,
    split_words,
    windows,
)
from .modeling_aspert import AspertForJointExtraction, pairs_of_entities
from .processing_aspert import AspertProcessor, EncodedSentence, longest_input

logger = logging.getLogger(__name__)

# Inputs that are worked on together, sorted by length. A run that is taken up again at the end of a chunk sees the same
# batches, so the scores are the same to the last digit.
CHUNK_INPUTS = 256
CHUNK_CHARACTERS = 1_000_000
# Where the contribution is on, a sentence is no longer than this many sub-words, and a batch's attention maps hold at
# most this many values a head: 1 sentence of 512 sub-words, or 16 of 128. Without maps memory grows with the sub-words
# alone: 16 sentences of 512.
_LONGEST_MAPPED = 512
_MAP_BUDGET = _LONGEST_MAPPED**2
_TOKEN_BUDGET = 16 * 512


T = TypeVar("T")


def chunks(inputs: Iterable[T], length: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The inputs in lists. A list ends with its input number ``most``, or with the one by which it reaches
    ``CHUNK_CHARACTERS``, so that few long inputs are worked on at a time; no list depends on what comes after it.

    Args:
        inputs: of any kind.
        length: characters of an input.
        most: inputs in a list.
    """
    chunk, characters = [], 0
    for given in inputs:
        chunk.append(given)
        characters += length(given)
        if len(chunk) == most or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def refuse_single(inputs: Any) -> None:
    """Raise TypeError for one text in place of the texts: a loop over it would be one over its letters or keys."""
    if isinstance(inputs, (str, bytes, Mapping)):
        raise TypeError(f"the inputs are one {type(inputs).__name__}: give a list of texts, such as [text]")


@dataclass
class ExtractionOptions:
    """How entities and relations are chosen.

    Args:
        relation_threshold: least probability of a relation, one for all types or by type; default: the model's.
        entity_threshold: least probability of an entity's type; default: the model's.
        entity_overlap: "allow", or "flat" to keep the best of overlapping entities; default: the model's.
        batch_size: sentences a forward pass; long sentences are batched by fewer.
        stride: words by which the windows over a sentence that is longer than the encoder takes overlap.
        split_sentences: False takes each text as one sentence.
        language: of the texts, for their sentences, an ISO 639-1 code; default: the processor's.
        word_splitter: how texts are split into words, see `documents.split_words`; default: the processor's.

    Raises:
        TypeError: a threshold that is not a number, or a switch that is neither True nor False.
        ValueError: a value out of range.
    """

    relation_threshold: float | Mapping[str, float] | None = None
    entity_threshold: float | None = None
    entity_overlap: str | None = None
    batch_size: int = 16
    stride: int = 64
    split_sentences: bool = True
    language: str | None = None
    word_splitter: str | None = None

    def __post_init__(self) -> None:
        thresholds = {"entity_threshold": self.entity_threshold} if self.entity_threshold is not None else {}
        if isinstance(self.relation_threshold, Mapping):
            thresholds |= {f"relation_threshold[{name!r}]": value for name, value in self.relation_threshold.items()}
        elif self.relation_threshold is not None:
            thresholds["relation_threshold"] = self.relation_threshold
        for name, value in thresholds.items():
            problem = f"{name} = {value!r} is not valid: it must be a number in [0, 1]"
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TypeError(problem)
            if not 0 <= value <= 1:
                raise ValueError(problem)
        if self.entity_overlap not in (None, *ENTITY_OVERLAPS):
            raise ValueError(f"entity_overlap = {self.entity_overlap!r} is not valid: it must be allow or flat")
        for name, least in (("batch_size", 1), ("stride", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} = {value!r} is not valid: it must be an integer >= {least}")
        if not isinstance(self.split_sentences, bool):
            raise TypeError(f"split_sentences = {self.split_sentences!r} is not valid: it must be True or False")
        if self.word_splitter is not None:
            check_word_splitter(self.word_splitter)
        if self.language is not None and self.split_sentences:
            check_language(self.language)


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
    given: Sequence[int] = ()  # which of the sentence's given entities it holds, sorted by their spans
    spans: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclass(slots=True)
class _Document:
    text: str
    sentences: list[Sentence] = field(default_factory=list)
    word_spans: list[list[tuple[int, int]]] = field(default_factory=list)
    # which of the text's given entities each sentence holds; None where entities are predicted
    given: list[Sequence[int] | None] = field(default_factory=list)


class Extractor:
    """Runs a model over a stream of sentences or texts. Results come in the order of the input, which is read up to
    CHUNK_INPUTS ahead: a source that waits for results would wait for ever.

    A sentence that is longer than the encoder takes is worked on in overlapping windows; with the attentional
    contribution so is one of more than 512 sub-words, since attention maps grow with the square of the length.

    Args:
        model: in evaluation mode; its device and dtype are used as they are.
        processor: the model's.
        options: how entities and relations are chosen; its language and word splitter go before the processor's.
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
        self.language = self.options.language or processor.language
        self.word_splitter = self.options.word_splitter or processor.word_splitter
        self.collator = AspertDataCollator(processor, model.config, training=False)
        self._windower = copy.copy(processor)
        if processor.max_tokens is None:
            self._windower.max_tokens = longest_input(model.config.encoder_config)
        if model.config.attentional_contribution:
            self._windower.max_tokens = min(self._windower.max_tokens or _LONGEST_MAPPED, _LONGEST_MAPPED)

    def annotate(self, sentences: Iterable[Sentence]) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """The "entities" and "relations" of each sentence, as a word record with scores.

        Given entities come back in the order in which they were given.

        Raises:
            TypeError: what is no sentence, or words that are no strings.
            ValueError: a given entity has a type or span that the model or sentence does not have.
        """
        stream = map(self._checked, itertools.count(), sentences)
        for chunk in chunks(stream, lambda sentence: sum(map(len, sentence.words)), CHUNK_INPUTS):
            yield from self._annotate_chunk(chunk)

    def extract(self, inputs: Iterable[str | Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Character records of texts: "text", "entities" and "relations", offsets into the text as it was given.

        Args:
            inputs: strings, or mappings with "text" and optionally "entities" ("type", "start", "end" in characters),
                for which only relations are predicted; or mappings with "tokens" and no "text" (and entities in
                words), whose text is the words joined by blanks. Given entities come back in the order in which they
                were given, with the position in that order as "id", whatever "id" they had; white space at their ends
                is left out.

        Raises:
            TypeError: a single text in place of the texts.
            ValueError: an input of another form, or a given entity whose type or span the model or text does not have.
        """
        refuse_single(inputs)
        warned = False
        for chunk in chunks(self._documents(inputs), lambda item: len(item[1].text), CHUNK_INPUTS):
            apart = [number for number, document in chunk if sum(map(bool, document.given)) > 1]
            if apart and not warned:
                logger.warning(
                    "input %d: its given entities are in several sentences, and no relation is looked for between "
                    "sentences: choose split_sentences=False, or give the words of one sentence (said once)",
                    apart[0],
                )
                warned = True
            yield from self._extract_chunk([document for _, document in chunk])

    # -- texts --------------------------------------------------------------------------------------------------

    def _documents(self, inputs: Iterable[str | Mapping[str, Any]]) -> Iterator[tuple[int, _Document]]:
        warned = False
        for number, given in enumerate(inputs):
            if not warned and isinstance(given, Mapping) and {"entities", "relations"} <= given.keys():
                logger.warning(
                    "input %d: an annotated record, whose entities are taken as given; to predict them, give its text or "
                    "tokens alone (said once)",
                    number,
                )
                warned = True
            yield number, self._document(given, f"input {number}")

    def _document(self, given: str | Mapping[str, Any], where: str) -> _Document:
        if isinstance(given, str):
            given = {"text": given}
        if not isinstance(given, Mapping) or not given.keys() & {"text", "tokens"}:
            what = f"has the fields {list(given)}" if isinstance(given, Mapping) else f"is {type(given).__name__}"
            raise ValueError(
                f'{where} {what}: give a string, a mapping with "text" or "tokens", or a list of words with '
                "is_split_into_words=True"
            )
        if "text" not in given:
            return self._document_of_words(given, where)
        text, entities = given["text"], given.get("entities")
        if not isinstance(text, str):
            raise ValueError(f"{where}: text is {type(text).__name__}, give a string")
        text = _plain(text)
        if entities is not None:
            entities = self._checked_entities(entities, len(text), "characters of the text", where)
            entities = [_without_blanks(entity, text, f"{where}, entities[{n}]") for n, entity in enumerate(entities)]
        spans = [(entity["start"], entity["end"]) for entity in entities or ()]
        cuts = sorted({edge for span in spans for edge in span})
        order = sorted(range(len(spans)), key=spans.__getitem__)
        firsts = [spans[number][0] for number in order]
        document = _Document(text)
        for start, end in self._sentences(text, spans):
            words = _cut_words(split_words(text[start:end], self.word_splitter), start, cuts)
            inside = given_here = None
            if entities is not None:
                given_here = sorted(order[bisect_left(firsts, start) : bisect_left(firsts, end)])
                inside = [_in_words(entities[number], words) for number in given_here]
            if words:
                document.sentences.append(Sentence([text[first:last] for first, last in words], inside))
                document.word_spans.append(words)
                document.given.append(given_here)
        return document

    def _document_of_words(self, given: Mapping[str, Any], where: str) -> _Document:
        words, entities = given["tokens"], given.get("entities")
        if isinstance(words, (str, bytes)) or not isinstance(words, Iterable):
            raise ValueError(
                f"{where}: the words are {type(words).__name__}, give a list of strings; a string that is still to be "
                "split into words goes without is_split_into_words"
            )
        words = list(words)
        for index, word in enumerate(words):
            if not isinstance(word, str) or not word:
                raise ValueError(f"{where}: tokens[{index}] is {word!r}, give a word")
        words = list(map(_plain, words))
        if entities is not None:
            entities = self._checked_entities(entities, len(words), "words of the sentence", where)
        starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
        document = _Document(" ".join(words))
        if words:
            document.sentences.append(Sentence(words, entities))
            document.word_spans.append([(start, start + len(word)) for start, word in zip(starts, words)])
            document.given.append(None if entities is None else range(len(entities)))
        return document

    def _sentences(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Sentences; neighbours are joined where a given entity reaches over their boundary."""
        if not self.options.split_sentences:
            return [(0, len(text))]
        joined: list[tuple[int, int]] = []
        later, reach = sorted(spans, reverse=True), 0  # reach: where the entities end that begin before the sentence
        for start, end in split_sentences(text, self.language):
            while later and later[-1][0] < start:
                reach = max(reach, later.pop()[1])
            if joined and reach > joined[-1][1]:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    def _extract_chunk(self, documents: Sequence[_Document]) -> Iterator[dict[str, Any]]:
        annotations = self.annotate([sentence for document in documents for sentence in document.sentences])
        for document in documents:
            record: dict[str, Any] = {"text": document.text, "entities": [], "relations": []}
            for words, given in zip(document.word_spans, document.given):
                annotation = next(annotations)
                first_id = len(record["entities"])
                ids = range(first_id, first_id + len(annotation["entities"])) if given is None else given
                for entity_id, entity in zip(ids, annotation["entities"]):
                    start, end = words[entity["start"]][0], words[entity["end"] - 1][1]
                    record["entities"].append(
                        {
                            "id": entity_id,
                            "type": entity["type"],
                            "text": document.text[start:end],
                            "start": start,
                            "end": end,
                            "score": entity["score"],
                        }
                    )
                for relation in annotation["relations"]:
                    head, tail = ids[relation["head"]], ids[relation["tail"]]
                    record["relations"].append({**relation, "head": head, "tail": tail})
            # given entities: as they were given, not sentence by sentence
            record["entities"].sort(key=lambda entity: entity["id"])
            yield record

    # -- sentences ----------------------------------------------------------------------------------------------

    def _checked(self, number: int, sentence: Sentence) -> Sentence:
        where = f"sentence {number}"
        if not isinstance(sentence, Sentence):
            raise TypeError(f"{where} is {type(sentence).__name__}: give Sentence(words)")
        if isinstance(sentence.words, (str, bytes)) or not all(isinstance(word, str) for word in sentence.words):
            raise TypeError(f"{where}: the words are {reprlib.repr(sentence.words)}: give a list of strings")
        if sentence.entities is None:
            return sentence
        length = len(sentence.words)
        return Sentence(
            sentence.words, self._checked_entities(sentence.entities, length, "words of the sentence", where)
        )

    def _checked_entities(
        self, entities: Iterable[Mapping[str, Any]], length: int, unit: str, where: str
    ) -> list[dict[str, Any]]:
        """Given entities, of plain JSON types."""
        if not isinstance(entities, Iterable):
            raise ValueError(f"{where}: entities is {type(entities).__name__}, give a list of mappings")
        types = self.model.config.entity_types
        checked = []
        for number, entity in enumerate(entities):
            name = f"{where}, entities[{number}]"
            if not isinstance(entity, Mapping):
                raise ValueError(f"{name} is {entity!r}: give a mapping with type, start and end")
            for required in ("type", "start", "end"):
                if required not in entity:
                    raise ValueError(f"{name} has no {required!r}: give type, start and end (in {unit})")
            if entity["type"] not in types:
                raise ValueError(f"{name} has the type {entity['type']!r}: choose one of the model's, {types}")
            try:
                start, end = operator.index(entity["start"]), operator.index(entity["end"])
            except TypeError:
                start = end = -1
            if isinstance(entity["start"], bool) or isinstance(entity["end"], bool) or not 0 <= start < end <= length:
                raise ValueError(
                    f"{name} has start = {entity['start']!r} and end = {entity['end']!r}: give integers with "
                    f"0 <= start < end <= {length} ({unit})"
                )
            checked.append({"type": types[types.index(entity["type"])], "start": start, "end": end})
        return checked

    def _annotate_chunk(self, sentences: Sequence[Sentence]) -> Iterator[dict[str, list[dict[str, Any]]]]:
        encoded = self.processor.encode([sentence.words for sentence in sentences])
        units = [
            unit
            for position, (sentence, encoding) in enumerate(zip(sentences, encoded))
            for unit in self._units(position, sentence, encoding)
        ]
        units_of: dict[int, list[int]] = {}
        for number, unit in enumerate(units):
            units_of.setdefault(unit.sentence, []).append(number)
        predictions: dict[int, Predictions] = {}
        for batch in self._batches(units):
            predictions |= zip(batch, self._predict([units[number] for number in batch]))
        for position, sentence in enumerate(sentences):
            numbers = units_of.get(position, [])
            # records take many times the memory of the arrays: those of one sentence at a time
            parts = [predictions[number].annotation(self.model.config) for number in numbers]
            if sentence.entities is not None:
                found = [(units[number].given, part["relations"]) for number, part in zip(numbers, parts)]
                yield _with_relations(sentence.entities, found)
            elif len(parts) == 1:
                yield parts[0]
            else:
                bounds = [(units[n].word_start, units[n].word_end) for n in numbers]
                yield merge_windows(parts, bounds, self.model.config.symmetric_relations)

    def _units(self, position: int, sentence: Sentence, encoded: EncodedSentence) -> Iterator[_Unit]:
        """The sentence, or its windows; nothing for a sentence without words or with an empty list of entities."""
        if not encoded.num_words or (sentence.entities is not None and not sentence.entities):
            return
        limit = self._windower.max_tokens
        fits = limit is None or encoded.num_tokens <= limit
        if fits:
            bounds = [(0, encoded.num_words)]
        else:
            counts = np.diff(encoded.word_offsets).tolist()
            bounds = windows(counts, limit - self.processor.num_special_tokens, self.options.stride)
        seen = 0
        for start, end in bounds:
            unit = _Unit(position, encoded if fits else self._windower.window(encoded, start, end), start, end)
            if sentence.entities is not None:
                entities = sentence.entities
                inside = [n for n, given in enumerate(entities) if start <= given["start"] and given["end"] <= end]
                inside.sort(key=lambda n: (entities[n]["start"], entities[n]["end"]))
                seen = max(seen, len(inside))
                if not inside:
                    continue
                spans = [(entities[n]["start"] - start, entities[n]["end"] - start) for n in inside]
                types = self.model.config.entity_types
                unit.given = inside
                unit.spans = np.asarray(spans, dtype=np.int64)
                unit.labels = np.asarray([types.index(entities[n]["type"]) + 1 for n in inside])
            yield unit
        if sentence.entities is not None and seen < len(sentence.entities):
            logger.warning(
                "a sentence of %d words is longer than the %s sub-words that are read at a time: relations are looked "
                "for within its %d windows only",
                encoded.num_words,
                limit,
                len(bounds),
            )

    def _batches(self, units: Sequence[_Unit]) -> Iterator[list[int]]:
        """Units of like length, and of like kind: entities given or not."""
        order = sorted(range(len(units)), key=lambda n: (units[n].spans is not None, units[n].encoded.num_tokens))
        with_maps = self.model.config.attentional_contribution
        batch: list[int] = []
        for number in order:
            unit = units[number]
            tokens = unit.encoded.num_tokens
            room = _MAP_BUDGET // tokens**2 if with_maps else _TOKEN_BUDGET // tokens
            full = len(batch) >= min(self.options.batch_size, room)
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
        word_spans = batch.pop("word_spans")
        labels = None
        if given:
            labels = pad([unit.labels for unit in units])
            batch["pairs"], batch["pair_mask"] = pairs_of_entities(batch["span_mask"])
            # as in training, entities on one span are no pair
            heads, tails = (
                word_spans.gather(1, end.long().unsqueeze(-1).expand(-1, -1, 2)) for end in batch["pairs"].unbind(-1)
            )
            batch["pair_mask"] &= (heads != tails).any(-1)
        if getattr(self.model, "training", False):  # a training went on since the extractor was made
            self.model.eval()
        if self.model.device.type != "meta":  # what is offloaded to disk moves its inputs itself
            batch = {name: values.to(self.model.device) for name, values in batch.items()}
        with torch.inference_mode():
            output = self.model(**batch, return_dict=True)
            predictions = decode(
                output,
                word_spans,
                batch["span_mask"],
                self.model.config,
                self.options.relation_threshold,
                self.options.entity_threshold,
                self.options.entity_overlap,
                labels,
            )
        if predictions.left_out:
            logger.warning(
                "%d relations that reach their thresholds are left out, as with an untrained model: of a batch the %d "
                "with the highest scores are taken; raise relation_threshold",
                predictions.left_out,
                MAX_RELATIONS,
            )
        return predictions.per_sentence(len(units))


def _plain(text: str) -> str:
    """The string itself, not one of a subclass such as numpy's."""
    return str.__str__(text)


def _cut_words(words: Sequence[tuple[int, int]], offset: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Words at their place in the text, cut where a given entity begins or ends inside one. ``cuts`` are sorted."""
    result: list[tuple[int, int]] = []
    for start, end in words:
        start, end = start + offset, end + offset
        inner = cuts[bisect_right(cuts, start) : bisect_left(cuts, end)]
        result.extend(itertools.pairwise([start, *inner, end]))
    return result


def _without_blanks(entity: dict[str, Any], text: str, name: str) -> dict[str, Any]:
    piece = text[entity["start"] : entity["end"]]
    if not piece.strip():
        raise ValueError(f"{name} holds nothing but white space: remove it")
    start = entity["start"] + len(piece) - len(piece.lstrip())
    return {**entity, "start": start, "end": start + len(piece.strip())}


def _in_words(entity: Mapping[str, Any], words: Sequence[tuple[int, int]]) -> dict[str, Any]:
    first = bisect_right(words, entity["start"], key=operator.itemgetter(1))
    last = bisect_left(words, entity["end"], key=operator.itemgetter(0))
    return {"type": entity["type"], "start": first, "end": last}


def _with_relations(
    entities: Sequence[Mapping[str, Any]], found: Iterable[tuple[Sequence[int], Iterable[Mapping[str, Any]]]]
) -> dict[str, list[dict[str, Any]]]:
    """Given entities as they were given, and the relations of their sentence or of its windows, the best of equals.

    found: which entities each window holds, and its relations, whose heads and tails count only these.
    """
    relations: dict[tuple[int, int, str], dict[str, Any]] = {}
    for given, of_window in found:
        for relation in of_window:
            head, tail = given[relation["head"]], given[relation["tail"]]
            key = (head, tail, relation["type"])
            if key not in relations or relation["score"] > relations[key]["score"]:
                relations[key] = {**relation, "head": head, "tail": tail}
    return {
        "entities": [{**entity, "score": 1.0} for entity in entities],
        "relations": [relations[key] for key in sorted(relations, key=operator.itemgetter(0, 1))],
    }
