"""The scores of joint entity and relation extraction as an ``evaluate`` metric.

From the package: ``JointExtractionMetric()``. By path, from anywhere:
``evaluate.load("…/modeling_aspert/metrics.py")``.
``evaluate`` reads the imports below with a regular expression: one module a line, no comment behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from .scoring import compute_scores

_DESCRIPTION = """\
Precision, recall and F1 in percent of jointly extracted entities and relations: NER (span and type), RE strict \
(relation type, both spans, both entity types) and RE boundaries (relation type, both spans), each as a micro and a \
macro average and per type.
"""

_INPUTS = """\
Args:
    predictions: one record a sentence, {"entities": [{"type", "start", "end"}], "relations": [{"type", "head", \
"tail"}]}; head and tail index the record's entities; other keys are ignored.
    references: the gold records, in the same order.
    entity_types, relation_types: the order of the rows of the per-type table (optional).
    symmetric_relations: relation types without direction (optional).
Returns:
    {ner,re_strict,re_boundaries}_{micro,macro}_{precision,recall,f1} and per_type.
Examples:
    >>> gold = {"entities": [{"type": "Peop", "start": 0, "end": 2}, {"type": "Loc", "start": 4, "end": 5}],
    ...         "relations": [{"type": "Live_In", "head": 0, "tail": 1}]}
    >>> metric = evaluate.load("modeling_aspert/metrics.py")
    >>> metric.compute(predictions=[gold], references=[gold])["re_strict_micro_f1"]
    100.0
"""

_CITATION = """\
@article{ouyang2022aspert,
  title = {Attention Weight is Indispensable in Joint Entity and Relation Extraction},
  author = {Ouyang, Jianquan and Zhang, Jing and Liu, Tianming},
  year = {2022}
}
@inproceedings{eberts2020spert,
  title = {Span-based Joint Entity and Relation Extraction with Transformer Pre-training},
  author = {Eberts, Markus and Ulges, Adrian},
  booktitle = {European Conference on Artificial Intelligence},
  year = {2020},
  url = {https://arxiv.org/abs/1909.07755}
}
"""


Records = Sequence[Mapping[str, Any]]
_FIELDS = {"entities": ("type", "start", "end"), "relations": ("type", "head", "tail")}


class JointExtractionMetric(evaluate.Metric):
    """``compute``, ``add`` and ``add_batch`` take records; the scores are those of ``compute_scores``."""

    def _info(self) -> evaluate.MetricInfo:
        record = {
            part: [{name: datasets.Value("string" if name == "type" else "int64") for name in names}]
            for part, names in _FIELDS.items()
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": record, "references": record}),
        )

    def add_batch(
        self, *, predictions: Records | None = None, references: Records | None = None, **kwargs: Any
    ) -> None:
        """Adds the records of a batch of sentences."""
        predictions, references = map(_bare_records, (predictions, references))
        return super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(
        self, *, prediction: Mapping[str, Any] | None = None, reference: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Adds the records of one sentence."""
        (prediction,), (reference,) = _bare_records([prediction]), _bare_records([reference])
        return super().add(prediction=prediction, reference=reference, **kwargs)

    def _compute(
        self,
        predictions: Records,
        references: Records,
        entity_types: Sequence[str] | None = None,
        relation_types: Sequence[str] | None = None,
        symmetric_relations: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        return compute_scores(predictions, references, entity_types, relation_types, symmetric_relations)


def _bare_records(records: Records | None) -> list[dict[str, Any]]:
    """The records with nothing but the scored fields: `evaluate` fails on a key that its features do not name."""
    if records is None:
        raise ValueError("predictions or references are missing: give both")
    return [_bare_record(number, record) for number, record in enumerate(records)]


def _bare_record(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {
            part: [{name: item[name] for name in names} for item in record[part]] for part, names in _FIELDS.items()
        }
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"record {number} is not in SpERT's format ({error!r}): give entities (type, start, end) and relations (type, "
            "head, tail)"
        ) from None
