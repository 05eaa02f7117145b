"""What a converter returns, and what converters share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..problems import Problem
from ..schema import LabelSchema

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass
class Conversion:
    """Records in SpERT's format, their types, and a warning for each thing that has no place in that format."""

    records: list[dict[str, Any]]
    schema: LabelSchema
    warnings: list[Problem] = field(default_factory=list)


def split_words(text: str, boundaries: Iterable[int] = ()) -> list[tuple[int, int]]:
    """Return the character offsets (end-exclusive) of the words of a text.

    A word is a run of letters, digits and underscores, or one other character that is not white space. No word
    reaches across a boundary (a character offset), so that an entity that starts and ends at boundaries is words.
    """
    cuts = sorted(set(boundaries))
    words = []
    for match in _WORD.finditer(text):
        inner = [cut for cut in cuts if match.start() < cut < match.end()]
        edges = [match.start(), *inner, match.end()]
        words.extend(pairwise(edges))
    return words


def word_span(words: list[tuple[int, int]], char_start: int, char_end: int) -> tuple[int, int]:
    """Return the numbers (end-exclusive) of the words that lie in a span of characters."""
    inside = [i for i, (start, end) in enumerate(words) if char_start <= start and end <= char_end]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
