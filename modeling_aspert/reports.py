"""What an evaluation leaves to look at: scores by type, a page of errors, pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .configuration_aspert import AspertConfig
from .error_analysis import error_analysis
from .files import write_text
from .plots import drawn, plot_per_type

logger = logging.getLogger(__name__)

# A model that takes nearly everything for an entity or relation has nothing to show, and its page would be huge.
_MOST_FOUND = 50
_DRAWN_ANYWAY = 5000


def write_evaluation(
    folder: Path,
    split: str,
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    config: AspertConfig,
) -> None:
    """Write ``scores_SPLIT.json``, ``error_analysis_SPLIT.html`` and, with matplotlib, ``per_type_SPLIT.png``.

    A model that found more than fifty times what there is, and over 5,000, gets no page of errors, but a warning.

    Args:
        folder: where to; made if it does not exist.
        split: part of the file names and of the page's title.
        predictions, references: word records, in the same order.
        scores: of :func:`compute_scores`.
        config: the model's configuration, for labels and symmetric relations.
    """
    write_text(folder / f"scores_{split}.json", json.dumps(scores, indent=2) + "\n")
    found, gold = (
        sum(len(r["entities"]) + len(r["relations"]) for r in records) for records in (predictions, references)
    )
    if found <= max(_MOST_FOUND * gold, _DRAWN_ANYWAY):
        error_analysis(
            predictions,
            references,
            folder / f"error_analysis_{split}.html",
            f"Error analysis: {split}",
            config.entity_types,
            config.relation_types,
            config.symmetric_relations,
        )
    else:
        logger.warning(
            "no page of errors on %s: the model found %d entities and relations where there are %d; train it longer",
            split,
            found,
            gold,
        )
    drawn(plot_per_type, scores, folder / f"per_type_{split}.png")
