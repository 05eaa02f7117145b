"""Several models, such as one that was trained with several seeds: what most of them predict."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .extraction import Extractor, Sentence, refuse_single


def vote(records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The entities and relations that more than half of several models predict for a sentence or text.

    Entities go by their spans; a span gets the type that most models give it, of types with as many votes the one with the
    higher scores (then the first by name). Relations go by their type and the spans of head and tail, and so the vote may
    join types that no model's ``relation_type_constraints`` join. Scores are means over all models; a model that does not
    predict the entity with that type, or the relation, counts as 0.

    Args:
        records: a record of each model with scores, of words or of characters.

    Returns:
        "entities" by their spans, with their positions as "id" where they had one, and "relations" by head, tail and type.
    """
    spans: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    found: dict[tuple[tuple[int, int], tuple[int, int], str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        places = {}
        for position, entity in enumerate(record["entities"]):
            places[entity.get("id", position)] = entity["start"], entity["end"]
            spans[entity["start"], entity["end"]].append(entity)
        for relation in record["relations"]:
            found[places[relation["head"]], places[relation["tail"]], relation["type"]].append(relation)
    entities: list[dict[str, Any]] = []
    positions = {}
    for span, votes in sorted(spans.items()):
        if 2 * len(votes) > len(records):
            by_type: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for entity in votes:
                by_type[entity["type"]].append(entity)
            best = max((same for _, same in sorted(by_type.items())), key=lambda same: (len(same), _total(same)))
            positions[span] = len(entities)
            number = {"id": len(entities)} if "id" in best[0] else {}
            entities.append({**best[0], **number, "score": _total(best) / len(records)})
    relations = [
        # who votes for a relation votes for the spans of its entities
        {**same[0], "head": positions[head], "tail": positions[tail], "score": _total(same) / len(records)}
        for (head, tail, _), same in sorted(found.items())
        if 2 * len(same) > len(records)
    ]
    return {"entities": entities, "relations": relations}


def _total(items: Iterable[Mapping[str, Any]]) -> float:
    # exact, so that the order of the models does not count
    return math.fsum(item["score"] for item in items)


class VotingExtractor:
    """Runs several models, and gives what more than half of them predict (see :func:`vote`).

    It takes as many times the time and memory as there are models.

    Args:
        extractors: two or more, whose models have the same labels; of two, what both predict is taken.

    Attributes:
        model: that of the first.

    Raises:
        ValueError: fewer than two, or labels that differ.
    """

    def __init__(self, extractors: Sequence[Extractor]) -> None:
        if len(extractors) < 2:
            raise ValueError(f"the vote needs two extractors or more, not {len(extractors)}")
        self.extractors = list(extractors)
        self.model = extractors[0].model
        for field in ("entity_types", "relation_types", "symmetric_relations"):
            labels, *others = (getattr(one.model.config, field) for one in extractors)
            for number, other in enumerate(others, start=1):
                if set(other) != set(labels):
                    name = extractors[number].model.config.name_or_path or f"extractor {number}"
                    raise ValueError(
                        f"{name} has the {field} {list(other)}, and the first of the models that vote {list(labels)}: leave it "
                        "out, or train it with the same"
                    )

    def annotate(self, sentences: Iterable[Sentence]) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """As :meth:`Extractor.annotate`; ValueError for a sentence with given entities, on which there is no vote."""
        for records in self._together("annotate", sentences, "sentence"):
            yield vote(records)

    def extract(self, inputs: Iterable[str | Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """As :meth:`Extractor.extract`; ValueError for an input with given entities, on which there is no vote, and for
        models that differ in how they split texts."""
        refuse_single(inputs)
        self._check_alike()
        for records in self._together("extract", inputs, "input"):
            yield {"text": records[0]["text"], **vote(records)}

    def _check_alike(self) -> None:
        """Refuse models that see other words or sentences in a text: they would hardly vote for the same spans."""
        for field in ("word_splitter", "language"):
            first, *others = (getattr(one, field) for one in self.extractors)
            for other in others:
                if other != first:
                    raise ValueError(
                        f"the models that vote differ in their {field} ({first} and {other}): give one for all "
                        f"(ExtractionOptions.{field}, --{field.replace('_', '-')})"
                    )

    def _together(self, method: str, inputs: Iterable[Any], kind: str) -> Iterator[tuple[dict[str, Any], ...]]:
        """What each model makes of each input, of which none may have given entities."""

        def checked(number: int, given: Any) -> Any:
            # what is neither is for the extractors to refuse
            entities = given.get("entities") if isinstance(given, Mapping) else getattr(given, "entities", None)
            if entities is not None:
                raise ValueError(
                    f"{kind} {number} has given entities, on which there is no vote: leave them out, or use one Extractor"
                )
            return given

        copies = itertools.tee(map(checked, itertools.count(), inputs), len(self.extractors))
        return zip(*(getattr(one, method)(copy) for one, copy in zip(self.extractors, copies)), strict=True)
