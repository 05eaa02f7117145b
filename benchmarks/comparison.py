"""Results put side by side: which runs belong to which row of which table, their means, differences and tests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.experiments import Corpus, Experiment, settings_of, switches_of
from benchmarks.results import Result
from benchmarks.significance import SentenceCounts, bootstrap_difference, mean_and_std, paired_t_test

# Pairs of runs from which on a t-test is made: from fewer, the spread is hardly known.
MIN_PAIRS = 5


@dataclass
class Row:
    """A variant's figures of one score.

    Args:
        label: the variant.
        score: name of the score.
        units: number of runs, or of seeds over all folds, or of folds; what the spread is over.
        mean, std: on test, in percent; std is None for a single unit.
        dev: mean on dev, or None.
        pairs: units that the baseline has too.
        difference, dev_difference: of the mean to the baseline's, over the pairs where units are folds, which differ in
            their test sentences, else over all seeds of both; None for the baseline itself.
        difference_std: spread of the differences over the pairs; None for a single one.
        p: two-sided, paired t-test over the units, from MIN_PAIRS on; corrected where they are folds, whose training data
            overlap.
        interval: 95% of the difference, bootstrap over test sentences and runs.
        paper, paper_difference: the paper's figures.
    """

    label: str
    score: str
    units: int
    mean: float
    std: float | None
    dev: float | None = None
    pairs: int = 0
    difference: float | None = None
    dev_difference: float | None = None
    difference_std: float | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None
    paper: float | None = None
    paper_difference: float | None = None


@dataclass
class Table:
    """One experiment on one corpus, with one encoder and one set of training settings.

    Args:
        regime: settings that all its runs share: encoder and training, no architecture.
        unit: what a unit of the spread is: "seed", "seed (mean of N folds)" or "fold".
        missing: what keeps it from being complete, in words.
        other_code: labels with a run that was made with another commit than a run of the baseline, or with one that
            cannot be told (uncommitted changes).
        other_data: labels with a run on other data than a run of the baseline (on the same fold).
        values: test scores of each run by label and score, for plots.
    """

    experiment: Experiment
    corpus: Corpus
    regime: dict[str, Any]
    unit: str
    rows: list[Row]
    seeds: list[int]
    folds: list[str]
    missing: list[str]
    other_code: list[str] = field(default_factory=list)
    other_data: list[str] = field(default_factory=list)
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.experiment.name


_Key = tuple[int, str | None]


def tables_of(
    experiment: Experiment,
    corpora: Mapping[str, Corpus],
    results: Sequence[Result],
    paper: Mapping[str, Any],
) -> list[Table]:
    """The tables of an experiment that can be made: a table needs results of two variants with equal training settings, one
    of them its subject, if it has one."""
    tables = []
    for name in dict.fromkeys((*experiment.corpora, *corpora)):
        corpus = corpora[name]
        variants = {label: settings_of({**corpus.fields, **changes}) for label, changes in experiment.variants.items()}
        varied = _varied_training_fields(list(variants.values()))
        groups: dict[str, dict[str, list[Result]]] = {}
        for result in results:
            if result.content["corpus"] != name:
                continue
            settings = result.content["settings"]
            for label, wanted in variants.items():
                if switches_of(settings) == switches_of(wanted) and all(
                    settings.get(key) == wanted.get(key) for key in varied
                ):
                    regime = {key: value for key, value in result.training().items() if key not in varied}
                    groups.setdefault(json.dumps(regime, sort_keys=True), {}).setdefault(label, []).append(result)
        # what has most runs comes first
        for key, by_label in sorted(groups.items(), key=lambda group: (-sum(map(len, group[1].values())), group[0])):
            if len(by_label) > 1 and (experiment.subject is None or experiment.subject in by_label):
                tables.append(_table(experiment, corpus, json.loads(key), by_label, paper))
    return [table for table in tables if table is not None]


def _table(
    experiment: Experiment,
    corpus: Corpus,
    regime: dict[str, Any],
    by_label: Mapping[str, Sequence[Result]],
    paper: Mapping[str, Any],
) -> Table | None:
    labels = [label for label in experiment.variants if label in by_label]
    everything = {label: {_key(result): result for result in by_label[label]} for label in labels}
    seeds = sorted({seed for keys in everything.values() for seed, _ in keys})
    folds = sorted({fold for keys in everything.values() for _, fold in keys if fold is not None})
    scores = experiment.scores or corpus.headline
    runs, by_seed = _comparable(everything, folds)
    if len(runs) < 2:
        return None
    missing = _missing(experiment, labels, everything, seeds, folds)
    if left_out := sum(map(len, everything.values())) - sum(map(len, runs.values())):
        missing.append(f"{left_out} runs of other seeds are left out, since not all {len(folds)} folds have them")
    labels = list(runs)
    unit = "fold" if not by_seed else f"seed (mean of {len(folds)} folds)" if folds else "seed"
    table = Table(experiment, corpus, regime, unit, [], seeds, folds, missing)
    counts = {label: {key: result.sentence_counts for key, result in keys.items()} for label, keys in runs.items()}
    baseline = experiment.baseline if experiment.baseline in runs else None
    if baseline is not None:
        others = [label for label in labels if label != baseline]
        for label in others:
            pairs = [
                (one.content, other.content)
                for (_, fold), one in runs[label].items()
                for (_, fold_of_other), other in runs[baseline].items()
                if fold == fold_of_other
            ]
            if any(_other_code(one.get("commit"), other.get("commit")) for one, other in pairs):
                table.other_code.append(label)
            if any(one.get("data") != other.get("data") for one, other in pairs):
                table.other_data.append(label)
    for score in scores:
        reported = paper.get(experiment.paper or "", {}).get(corpus.paper, {})
        for label in labels:
            units = _units(runs[label], score, by_seed)
            if not units:
                continue
            mean, std = mean_and_std(list(units.values()))
            dev = [value for result in runs[label].values() if (value := result.score(score, "dev")) is not None]
            row = Row(label, score, len(units), mean, std, mean_and_std(dev)[0] if dev else None)
            row.paper = reported.get(label, {}).get(score)
            if baseline is not None and label != baseline:
                _compare(row, runs[label], runs[baseline], counts[label], counts[baseline], by_seed)
                other = reported.get(baseline, {}).get(score)
                if row.paper is not None and other is not None:
                    row.paper_difference = row.paper - other
            table.rows.append(row)
            table.values[label, score] = list(units.values())
    return table


def _compare(
    row: Row,
    ours: Mapping[_Key, Result],
    baseline: Mapping[_Key, Result],
    our_counts: Mapping[_Key, SentenceCounts | None],
    baseline_counts: Mapping[_Key, SentenceCounts | None],
    by_seed: bool,
) -> None:
    """Fill in difference, p and interval."""
    common = [key for key in ours if key in baseline]
    pairs = [_units({key: side[key] for key in common}, row.score, by_seed) for side in (ours, baseline)]
    first, second = (list(units.values()) for units in pairs)
    row.pairs = len(first)
    if first:
        row.difference_std = mean_and_std([ours - theirs for ours, theirs in zip(first, second)])[1]
    if len(first) >= MIN_PAIRS:
        row.p = paired_t_test(first, second, 0.0 if by_seed else _test_share([ours[key] for key in common]))
    compared = [list(side) if by_seed else common for side in (ours, baseline)]
    if not all(compared):
        return
    sides = [{key: side[key] for key in keys} for side, keys in zip((ours, baseline), compared)]
    means = [mean_and_std(list(_units(side, row.score, by_seed).values()))[0] for side in sides]
    row.difference = means[0] - means[1]
    on_dev = [[result.score(row.score, "dev") for result in side.values()] for side in sides]
    if None not in (*on_dev[0], *on_dev[1]):
        row.dev_difference = mean_and_std(on_dev[0])[0] - mean_and_std(on_dev[1])[0]
    counted = list(zip((our_counts, baseline_counts), compared))
    if all(counts[key] is not None for counts, keys in counted for key in keys):
        by_fold = [
            {fold or "": [counts[key] for key in keys if key[1] == fold] for _, fold in keys}
            for counts, keys in counted
        ]
        row.interval = bootstrap_difference(*by_fold, row.score)


def _other_code(commit: str | None, other: str | None) -> bool:
    return commit is None or commit != other or "+" in commit or "-dirty" in commit


def _test_share(runs: Iterable[Result]) -> float:
    """Test sentences by training sentences, the mean of some runs."""
    return mean_and_std(
        [run.content["data"]["test"]["sentences"] / run.content["data"]["train"]["sentences"] for run in runs]
    )[0]


def _comparable(
    runs: Mapping[str, Mapping[_Key, Result]], folds: Sequence[str]
) -> tuple[dict[str, Mapping[_Key, Result]], bool]:
    """The runs of the models that can be put side by side, and whether a seed is a unit of theirs, else a fold.

    Where there are folds, a seed is a unit of a model that has it on all of them, if a second model has; where fewer than two
    seeds are, the folds of one seed are compared, the one that the most models have.
    """
    if not folds:
        return dict(runs), True
    whole = {
        label: {seed for seed, _ in keys if all((seed, fold) in keys for fold in folds)}
        for label, keys in runs.items()
    }
    models = Counter(seed for seeds in whole.values() for seed in seeds)
    by_seed = sum(count > 1 for count in models.values()) > 1
    if by_seed:
        chosen = {label: {seed for seed in seeds if models[seed] > 1} for label, seeds in whole.items()}
    else:
        seeds_of = {label: {seed for seed, _ in keys} for label, keys in runs.items()}
        models = Counter(seed for seeds in seeds_of.values() for seed in seeds)
        count = Counter(seed for keys in runs.values() for seed, _ in keys)
        chosen = dict.fromkeys(runs, {min(models, key=lambda seed: (-models[seed], -count[seed], seed))})
    kept = {label: {key: run for key, run in keys.items() if key[0] in chosen[label]} for label, keys in runs.items()}
    return {label: keys for label, keys in kept.items() if keys}, by_seed


def _units(runs: Mapping[_Key, Result], score: str, by_seed: bool) -> dict[Any, float]:
    """The score of each unit: of a seed, averaged over its folds; or of a fold."""
    values: dict[Any, list[float]] = {}
    for (seed, fold), result in sorted(runs.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        if (value := result.score(score)) is not None:
            values.setdefault(seed if by_seed else fold, []).append(value)
    return {unit: mean_and_std(of_unit)[0] for unit, of_unit in values.items()}


def _missing(
    experiment: Experiment,
    labels: Sequence[str],
    runs: Mapping[str, Mapping[_Key, Result]],
    seeds: Sequence[int],
    folds: Sequence[str],
) -> list[str]:
    """What keeps the table from being complete, in words."""
    missing = [f"no runs of {label}" for label in experiment.variants if label not in labels]
    wanted = [(seed, fold) for seed in seeds for fold in (folds or [None])]
    for label in labels:
        lacking = sum(key not in runs[label] for key in wanted)
        if lacking:
            missing.append(f"{label} lacks {lacking} of {len(wanted)} runs")
    return missing


def _key(result: Result) -> _Key:
    return result.content["seed"], result.content["fold"]


def _varied_training_fields(variants: Sequence[Mapping[str, Any]]) -> set[str]:
    """Fields outside the architecture in which the variants of an experiment differ."""
    names = {name for settings in variants for name in settings if name not in switches_of(settings)}
    return {name for name in names if len({json.dumps(settings.get(name)) for settings in variants}) > 1}
