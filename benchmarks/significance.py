"""Is a difference more than chance: mean and spread, paired t-test over runs, bootstrap over sentences and runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# columns of a type's counts
GOLD, PREDICTED, RIGHT = range(3)
# Runs of a model from which on the bootstrap draws among them: of two, half the samples would hold one of them twice.
MIN_RESAMPLED = 3


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for fewer than two values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def paired_t_test(ours: Sequence[float], baseline: Sequence[float], test_share: float = 0.0) -> float | None:
    """Two-sided p of Student's paired t-test; None for fewer than two pairs.

    Equal differences have no spread: p is 1 where all are 0, else 0. This and `pairs_needed` need scipy.

    Args:
        test_share: test sentences by training sentences where the pairs are the folds of a cross-validation. Their
            training data overlap, so the variance of the mean is larger (Nadeau and Bengio 2003): 1 / n + this share,
            times that of the differences.
    """
    if len(ours) != len(baseline):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(baseline)}")
    differences = np.asarray(ours, dtype=float) - np.asarray(baseline, dtype=float)
    if len(differences) < 2:
        return None
    if np.ptp(differences) < 1e-12:
        return float(abs(differences[0]) < 1e-12)
    t = _scipy_stats().t
    error = differences.std(ddof=1) * math.sqrt(1 / len(differences) + test_share)
    return float(2 * t.sf(abs(differences.mean()) / error, len(differences) - 1))


def pairs_needed(difference: float, std: float) -> int:
    """The fewest pairs with which a two-sided paired t-test of the level 0.05 finds a mean difference four times in five.

    Args:
        difference: the mean difference that is there.
        std: standard deviation of the differences.

    Raises:
        ValueError: a difference of 0, which no test finds.
    """
    if difference == 0:
        raise ValueError("a difference of 0 is found by no number of pairs")
    nct, t = _scipy_stats().nct, _scipy_stats().t
    pairs = 2
    while std > 0:
        limit, shift = t.ppf(0.975, pairs - 1), abs(difference) / std * math.sqrt(pairs)
        if nct.sf(limit, pairs - 1, shift) + nct.cdf(-limit, pairs - 1, shift) >= 0.8:
            break
        pairs += 1
    return pairs


def std_bounds(std: float, count: int) -> tuple[float, float]:
    """Between what the standard deviation of normal values lies (95%), by that of so many of them: chi-square."""
    chi2 = _scipy_stats().chi2
    low, high = (std * math.sqrt((count - 1) / chi2.ppf(share, count - 1)) for share in (0.975, 0.025))
    return low, high


def _scipy_stats() -> Any:
    try:
        import scipy.stats
    except ImportError:
        raise ImportError("tests of significance need scipy: run `pip install scipy`") from None
    return scipy.stats


class SentenceCounts:
    """Gold, predicted and right items of each sentence and type: what F1 is made of, so that it can be resampled.

    Args:
        rows: one mapping a sentence: view -> type -> (gold, predicted, right); types with none may be left out.
    """

    def __init__(self, rows: Sequence[Mapping[str, Mapping[str, Sequence[int]]]]) -> None:
        self.size = len(rows)
        self._tables: dict[str, np.ndarray] = {}
        for view in sorted({view for row in rows for view in row}):
            types = sorted({name for row in rows for name in row.get(view, {})})
            table = np.zeros((len(rows), len(types), 3))
            for number, row in enumerate(rows):
                for name, counts in row.get(view, {}).items():
                    table[number, types.index(name)] = counts
            self._tables[view] = table

    def score(self, name: str, weights: np.ndarray | None = None) -> np.ndarray:
        """A score in percent of samples of the sentences.

        Args:
            name: ``{view}_{micro,macro}_{precision,recall,f1}``.
            weights: [R, sentences], how often each sentence is in each of R samples. Default: every one once.

        Returns:
            [R]. Macro averages over the types seen in gold or predictions of the sample, as the scorer does.
        """
        view, average, measure = name.rsplit("_", 2)
        if weights is None:
            weights = np.ones((1, self.size))
        table = self._tables.get(view)
        if table is None or not table.shape[1]:
            return np.zeros(len(weights))
        sums = np.tensordot(weights, table, axes=1)
        if average == "micro":
            sums = sums.sum(axis=1, keepdims=True)
        gold, predicted, right = (sums[..., column] for column in (GOLD, PREDICTED, RIGHT))
        below = {"precision": predicted, "recall": gold, "f1": (gold + predicted) / 2}[measure]
        values = 100.0 * right / np.where(below > 0, below, 1.0)
        seen = (gold + predicted > 0).sum(axis=1)
        return values.sum(axis=1) / np.maximum(seen, 1)


def bootstrap_difference(
    ours: Mapping[str, Sequence[SentenceCounts]],
    baseline: Mapping[str, Sequence[SentenceCounts]],
    score: str,
    samples: int = 2000,
    seed: int = 0,
    min_resampled: float = MIN_RESAMPLED,
) -> tuple[float, float]:
    """Bootstrap over test sentences and runs of the difference of mean scores.

    The same sentences are drawn for both models and for all their seeds. Of a model with at least ``min_resampled`` runs,
    so many are drawn from these; fewer are taken as they are. Folds are resampled apart and averaged.

    Args:
        ours, baseline: by fold, the counts of each seed's run.

    Returns:
        Lower and upper bound of the 95% interval.

    Raises:
        ValueError: folds or numbers of sentences that differ.
    """
    if ours.keys() != baseline.keys():
        raise ValueError(f"folds differ: {sorted(ours)} and {sorted(baseline)}")
    differences = np.zeros(samples)
    for number, fold in enumerate(sorted(ours)):
        sizes = {counts.size for counts in (*ours[fold], *baseline[fold])}
        if len(sizes) != 1:
            raise ValueError(f"the runs of fold {fold!r} have different test sentences: {sorted(sizes)}")
        (size,) = sizes
        weights = _resamples(size, samples, (seed, number))
        rng = np.random.default_rng((seed, number, 1))
        means = [_mean_of_runs(side[fold], score, weights, rng, min_resampled) for side in (ours, baseline)]
        differences += means[0] - means[1]
    differences /= len(ours)
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def _mean_of_runs(
    runs: Sequence[SentenceCounts], score: str, weights: np.ndarray, rng: np.random.Generator, min_resampled: float
) -> np.ndarray:
    """[R], the mean score of the runs that each sample draws, on its sentences."""
    scores = np.stack([counts.score(score, weights) for counts in runs])
    if len(runs) >= min_resampled:
        scores = np.take_along_axis(scores, rng.integers(len(runs), size=scores.shape), axis=0)
    return scores.mean(axis=0)


@functools.lru_cache(maxsize=16)
def _resamples(size: int, samples: int, seed: tuple[int, ...]) -> np.ndarray:
    """[samples, size], how often each of so many sentences is in each sample; kept, since all comparisons on a test split
    take the same."""
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1.0 / size), size=samples).astype(float)
    weights.flags.writeable = False
    return weights
