"""What a converter returns, and what converters share."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
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
        inner = cuts[bisect_right(cuts, match.start()) : bisect_left(cuts, match.end())]
        edges = [match.start(), *inner, match.end()]
        words.extend(pairwise(edges))
    return words


def word_span(words: list[tuple[int, int]], char_start: int, char_end: int) -> tuple[int, int]:
    """Return the numbers (end-exclusive) of the words that lie in a span of characters that holds at least one."""
    first = bisect_left(words, char_start, key=itemgetter(0))
    last = bisect_right(words, char_end, key=itemgetter(1))
    return first, last
