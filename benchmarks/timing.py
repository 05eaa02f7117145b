"""Timing of workloads side by side: warm-up, alternating rounds, medians and spread."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


def alternate(
    workloads: Mapping[str, Callable[[], Any] | Sequence[Callable[[], Any]]],
    repeats: int,
    warmup: int = 1,
    synchronize: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each workload in each of ``repeats`` rounds; a round runs every workload once, in turn (ABAB).

    So what slows the machine for a while slows all of them, and their ratio round by round stays fair. Workloads that
    are given in pieces take turns piece by piece, so that this holds for a short while too; their pieces' times add up.

    Args:
        warmup: rounds that are not timed.
        synchronize: waits for the device before the clock is read.
        clock: such as ``time.process_time``, which other processes do not stretch.
    """
    pieces = {name: [work] if callable(work) else list(work) for name, work in workloads.items()}
    turns = [
        (name, work)
        for turn in itertools.zip_longest(*pieces.values())
        for name, work in zip(pieces, turn)
        if work is not None
    ]
    wait = synchronize or (lambda: None)
    for _ in range(warmup):
        for _, work in turns:
            work()
    seconds: dict[str, list[float]] = {name: [] for name in pieces}
    with _no_collection():
        for _ in range(repeats):
            gc.collect()
            spent = dict.fromkeys(pieces, 0.0)
            for name, work in turns:
                wait()
                start = clock()
                work()
                wait()
                spent[name] += clock() - start
            for name, value in spent.items():
                seconds[name].append(value)
    return seconds


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def speed_ratio(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How many times the other's speed ours is, from seconds of the same rounds: median and extremes over them."""
    if len(ours) != len(other):
        raise ValueError(f"{len(ours)} and {len(other)} rounds cannot be compared")
    return summary([theirs / mine for mine, theirs in zip(ours, other)])


class StageClock:
    """Seconds spent in stages of a workload, each without the stages inside it.

    Args:
        synchronize: waits for the device at the edges of a stage.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize = synchronize or (lambda: None)
        self._inside: list[float] = []

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as (part of) a stage."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._synchronize()
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._synchronize()
                spent = time.perf_counter() - start
                inner = self._inside.pop()
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - inner
                if self._inside:
                    self._inside[-1] += spent

        return timed


@contextmanager
def patched(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of objects or modules replaced for a while: (owner, name, value)."""
    absent = object()
    before = [(owner, name, vars(owner).get(name, absent)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is absent:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection but where it is asked for, and then without all that is there already."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
