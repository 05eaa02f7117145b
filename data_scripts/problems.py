"""A problem found in a data file, the report of many, and the error that carries them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NO_VALUE = object()  # None is a value that a file can hold
SHOWN = 5  # problems spelled out in a message; the rest are counted


def show(value: Any, limit: int = 60) -> str:
    """Return `value` as text of at most `limit` characters, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of more than 4300 digits; lists that hold themselves
        text = f"<{type(value).__name__} too large to print>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a file. `record` counts from 0; it is None for problems of the whole file."""

    file: str
    record: int | None = None
    orig_id: str | int | None = None
    field: str = ""
    value: Any = NO_VALUE
    problem: str
    mend: str

    def __str__(self) -> str:
        place = self.file
        if self.record is not None:
            place += f": record {self.record}"
            if self.orig_id is not None:
                place += f" (orig_id {show(self.orig_id)})"
        if self.field:
            place += f": {self.field}"
            if self.value is not NO_VALUE:
                place += f" = {show(self.value)}"
        line = f"{place}: {self.problem}; {self.mend}"
        # Newlines, lone surrogates and control characters of hostile names must not reach a terminal or a log.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def summary(problems: Sequence[Problem]) -> str:
    """Return the first problems, one a line, and the number of the others."""
    lines = [str(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def folded(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem; those that say the same of other places are one, the first, with their count."""
    alike: dict[tuple[Any, ...], list[Problem]] = {}
    for problem in problems:
        # of types, unlike offsets or words, each has to be named
        name = str(problem.value) if problem.field.endswith(".type") else ""
        field = re.sub(r"\[\d+\]", "[]", problem.field)
        alike.setdefault((problem.file, field, name, problem.problem, problem.mend), []).append(problem)
    return [
        str(first) + (f" ({1 + len(more)} such problems, this is the first)" if more else "")
        for first, *more in alike.values()
    ]


class DataError(ValueError):
    """Data that cannot be used. `problems` holds every problem; the message shows the first few and the count."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return f"{len(self.problems)} problems:\n{summary(self.problems)}"


@dataclass(frozen=True)
class ValidationReport:
    """What a check found: `errors` make the data unusable, `warnings` do not."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    def raise_for_errors(self) -> None:
        """Raise `DataError` with all errors if there are any."""
        if self.errors:
            raise DataError(self.errors)
