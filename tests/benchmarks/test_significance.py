"""Means, spreads and tests against numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.significance import (
    SentenceCounts,
    bootstrap_difference,
    mean_and_std,
    paired_t_test,
    pairs_needed,
    std_bounds,
)


def test_mean_and_std_by_hand():
    # mean 4, squared deviations 4 + 0 + 4, divided by n - 1 = 2
    assert mean_and_std([2.0, 4.0, 6.0]) == (4.0, 2.0)
    assert mean_and_std([70.5]) == (70.5, None)


def test_paired_t_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 2 sqrt(3) with 2 degrees of freedom;
    # there the two-sided p is 1 - t / sqrt(t^2 + 2) = 1 - 2 sqrt(3) / sqrt(14)
    expected = 1 - 2 * math.sqrt(3) / math.sqrt(14)
    assert paired_t_test([11.0, 12.0, 13.0], [10.0, 10.0, 10.0]) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.0742, abs=5e-5)
    # two pairs, differences 1 and 3: t = 2 with 1 degree of freedom, p = 1 - 2 atan(2) / pi
    assert paired_t_test([1.0, 3.0], [0.0, 0.0]) == pytest.approx(1 - 2 * math.atan(2) / math.pi, abs=1e-12)


def test_folds_that_share_training_data_are_corrected():
    # differences 1, 2, 3 on three folds, half as many test as training sentences: the variance of the mean is
    # (1/3 + 1/2) * 1, so t = 2 / sqrt(5/6), with 2 degrees of freedom
    t = 2 / math.sqrt(5 / 6)
    expected = 1 - t / math.sqrt(t**2 + 2)
    assert paired_t_test([11.0, 12.0, 13.0], [10.0, 10.0, 10.0], 0.5) == pytest.approx(expected, abs=1e-12)


def test_paired_t_without_spread():
    assert paired_t_test([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert paired_t_test([2.0, 3.0], [1.0, 2.0]) == 0.0
    assert paired_t_test([2.0], [1.0]) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_t_test([1.0, 2.0], [1.0])


def test_pairs_needed_are_those_of_the_tables():
    # Cohen (1988), Table 2.3.1 and its kin: an effect of half a standard deviation takes 34 pairs at a power of 0.8
    assert pairs_needed(0.5, 1.0) == 34 == pairs_needed(-1.0, 2.0)
    assert pairs_needed(1.0, 0.0) == 2
    with pytest.raises(ValueError, match="a difference of 0"):
        pairs_needed(0.0, 1.0)


def test_the_test_finds_a_difference_as_often_as_the_needed_pairs_promise():
    rng, pairs = np.random.default_rng(0), pairs_needed(1.3, 1.5)
    found = [paired_t_test(rng.normal(1.3, 1.5, pairs), np.zeros(pairs)) < 0.05 for _ in range(2000)]
    fewer = [paired_t_test(rng.normal(1.3, 1.5, 5), np.zeros(5)) < 0.05 for _ in range(2000)]
    assert 0.78 < np.mean(found) < 0.86 and np.mean(fewer) < 0.4


ROWS = [
    {"ner": {"Peop": [2, 1, 1], "Loc": [0, 0, 0]}},
    {"ner": {"Peop": [1, 2, 1], "Loc": [1, 1, 0]}},
]


def test_scores_of_counts_by_hand():
    counts = SentenceCounts(ROWS)
    # Peop: 2 * 2 / (3 + 3) = 2/3; Loc: 0; micro: 2 * 2 / (4 + 4)
    assert counts.score("ner_macro_f1") == pytest.approx(100 / 3)
    assert counts.score("ner_micro_f1") == pytest.approx(50.0)
    # the first sentence alone: Loc is not seen, so macro is over Peop: 2 * 1 / 3
    assert counts.score("ner_macro_f1", np.array([[1.0, 0.0], [3.0, 0.0]])) == pytest.approx([200 / 3, 200 / 3])
    # there one of one predicted is right, of two in gold
    first = np.array([[1.0, 0.0]])
    assert counts.score("ner_micro_precision", first) == 100.0 and counts.score("ner_macro_recall", first) == 50.0
    assert counts.score("re_strict_micro_f1") == [0.0]


def _counts(right: list[int]) -> SentenceCounts:
    return SentenceCounts([{"ner": {"T": [1, 1, value]}} for value in right])


def test_bootstrap_of_equal_models_is_no_difference():
    one = {"": [_counts([1, 0, 1, 0])]}
    assert bootstrap_difference(one, one, "ner_micro_f1", samples=200) == (0.0, 0.0)


def test_bootstrap_by_hand():
    # ours is right everywhere, the baseline nowhere: every sample differs by 100
    ours, baseline = {"": [_counts([1, 1, 1])]}, {"": [_counts([0, 0, 0])]}
    assert bootstrap_difference(ours, baseline, "ner_micro_f1", samples=100) == (100.0, 100.0)
    # right in one sentence of two: k of 2 draws hit it, the difference is 50 k
    ours, baseline = {"": [_counts([1, 0])]}, {"": [_counts([0, 0])]}
    assert bootstrap_difference(ours, baseline, "ner_micro_f1", samples=4000) == (0.0, 100.0)


def test_bootstrap_draws_among_the_runs():
    # one run of three is right, whatever the sentences: k of 3 draws hit it, the difference is 100 k / 3
    ours, baseline = {"": [_counts([1]), _counts([0]), _counts([0])]}, {"": [_counts([0])]}
    low, high = bootstrap_difference(ours, baseline, "ner_micro_f1", samples=4000)
    # P(k = 0) = 8 / 27, P(k = 3) = 1 / 27
    assert (low, high) == (0.0, pytest.approx(100.0))
    # two runs are taken as they are
    ours = {"": ours[""][:2]}
    assert bootstrap_difference(ours, baseline, "ner_micro_f1", samples=100) == (50.0, 50.0)


def test_bounds_of_a_standard_deviation():
    # chi-square with 4 degrees of freedom: 2.5% below 0.484, 97.5% below 11.143 (tables)
    low, high = std_bounds(1.0, 5)
    assert low == pytest.approx(math.sqrt(4 / 11.143), abs=1e-4) and high == pytest.approx(
        math.sqrt(4 / 0.4844), abs=1e-3
    )


def test_bootstrap_refuses_other_sentences():
    with pytest.raises(ValueError, match="different test sentences"):
        bootstrap_difference({"": [_counts([1])]}, {"": [_counts([1, 0])]}, "ner_micro_f1")
    with pytest.raises(ValueError, match="folds differ"):
        bootstrap_difference({"a": [_counts([1])]}, {"b": [_counts([1])]}, "ner_micro_f1")
