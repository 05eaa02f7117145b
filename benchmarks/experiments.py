"""Experiments (configuration/experiments/*.yaml) as lists of training runs, each with an identity of its own.

Two experiments that hold the same model (Table 4's ASpERT is Table 6's full model) share its runs: a run is known by
what it computes, not by the table that asked for it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import data_scripts
from modeling_aspert.configuration_aspert import PRESET_TRAINING, PRESETS, AspertConfig, preset_fields

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "configuration" / "experiments"
CORPORA_FILE = "corpora.yaml"

# Where and how a run is made, which does not change what it computes.
_PLACE_FIELDS = {
    "card_examples",
    "data_dir",
    "dataloader_num_workers",
    "disable_tqdm",
    "do_eval",
    "do_predict",
    "do_train",
    "language",
    "license",
    "logging_steps",
    "output_dir",
    "per_device_eval_batch_size",
    "report_to",
    "save_total_limit",
    "use_cpu",
}
# An architecture that is no preset, but of which enough runs are kept to call them by a name.
_NAMED = {
    "best_plus": {
        "word_shapes": True,
        "span_boundaries": True,
        "relation_classifier": "mlp",
        "relation_entity_types": True,
        "relation_threshold": 0.5,
        "entity_threshold": 0.5,
    }
}
_EXPERIMENT_KEYS = {
    "title", "question", "paper", "corpora", "seeds", "scores", "baseline", "subject", "variants", "sweep", "fields",
    "note", "aside",
}  # fmt: skip
_CORPUS_KEYS = {"title", "base", "fields", "headline", "folds", "paper"}


@dataclass(frozen=True)
class Corpus:
    """A corpus of the experiments.

    Args:
        name: its key in corpora.yaml.
        title: as tables call it.
        fields: fields of train.py.
        paper_fields: those of its training file, the paper's settings.
        headline: the two scores (entities, relations) that the paper reports first.
        folds: values of ``dataset_config``, one held-out fold each; empty without folds.
        paper: the corpus whose figures of the paper stand beside ours.
    """

    name: str
    title: str
    fields: dict[str, Any]
    paper_fields: dict[str, Any]
    headline: tuple[str, ...]
    folds: tuple[str, ...]
    paper: str


@dataclass(frozen=True)
class Experiment:
    """A table or a sweep of models.

    Args:
        name: of its file.
        title, question: for the report.
        corpora: names of corpora.
        seeds: the runs of one variant.
        variants: fields of train.py by the variant's label.
        baseline: the label that the others are compared with.
        subject: the label without whose runs there is no table, or None.
        aside: whether its tables stand on the page of all runs, not on that of the results.
        scores: what its tables show besides the corpus's headline; empty for the headline alone.
        swept: the field of a sweep, else None.
        paper: its key in paper_figures.yaml, else None.
        note: a sentence or more for the report.
    """

    name: str
    title: str
    question: str
    corpora: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, Any]]
    baseline: str
    scores: tuple[str, ...] = ()
    swept: str | None = None
    paper: str | None = None
    note: str = ""
    subject: str | None = None
    aside: bool = False


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        corpus: name of the corpus.
        fold: held-out fold, or None.
        seed: of initial weights, order and negatives.
        fields: all fields handed to train.py but the place (``output_dir``).
        settings: what the run computes, see :func:`settings_of`; without seed and fold.
        architecture: its name, see :func:`architecture_name`.
        launched: what its launcher decides, `processes` and `mixed_precision`, where it is not one process in fp32.
    """

    corpus: str
    fold: str | None
    seed: int
    fields: dict[str, Any]
    settings: dict[str, Any]
    architecture: str
    launched: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """16 hexadecimal digits that change with anything that can change the scores."""
        identity = [self.corpus, self.fold, self.seed, self.settings, *filter(None, [self.launched])]
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def encoder(self) -> str:
        return self.settings["encoder"]

    @property
    def path(self) -> Path:
        """Place of the result, relative to the folder of results."""
        fold = f"-{self.fold}" if self.fold else ""
        name = f"{self.architecture}{fold}-seed{self.seed}-{self.id[:8]}.json"
        return Path(self.corpus) / slug(self.encoder) / name


def load_corpora(folder: Path = FOLDER) -> dict[str, Corpus]:
    """The corpora of corpora.yaml.

    Raises:
        ValueError: a file that cannot be read, or an unknown key.
    """
    path = folder / CORPORA_FILE
    corpora = {}
    for name, entry in _read(path).items():
        _check_keys(path, f"corpus {name!r}", entry, _CORPUS_KEYS, {"headline"})
        base = _read(_base_file(folder, entry["base"])) if "base" in entry else {}
        corpora[name] = Corpus(
            name=name,
            title=entry.get("title", name),
            fields={**base, **entry.get("fields", {})},
            paper_fields=base,
            headline=tuple(entry["headline"]),
            folds=tuple(entry.get("folds", ())),
            paper=entry.get("paper", name),
        )
    return corpora


def load_experiments(folder: Path = FOLDER, names: Sequence[str] | None = None) -> dict[str, Experiment]:
    """The experiments of a folder, or those named, by name.

    Raises:
        ValueError: an experiment that does not exist, a file that cannot be read, or an unknown key.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name != CORPORA_FILE}
    for name in names or ():
        if name not in files:
            raise ValueError(f"no experiment {name!r} in {folder}: choose one of {', '.join(files)}")
    return {name: _experiment(files[name]) for name in names or files}


def _experiment(path: Path) -> Experiment:
    entry = _read(path)
    _check_keys(path, "the experiment", entry, _EXPERIMENT_KEYS, {"title", "corpora", "seeds", "baseline"})
    fields, swept = entry.get("fields", {}), None
    variants = {str(label): {**fields, **(changes or {})} for label, changes in entry.get("variants", {}).items()}
    if "sweep" in entry:
        if len(entry["sweep"]) != 1:
            raise ValueError(f"{path}: sweep must hold one field and its values, not {len(entry['sweep'])}")
        ((swept, values),) = entry["sweep"].items()
        variants |= {f"{value:g}" if _is_number(value) else str(value): {**fields, swept: value} for value in values}
    baseline, subject = str(entry["baseline"]), entry.get("subject")
    for key, label in (("baseline", baseline), ("subject", subject)):
        if label is not None and label not in variants:
            raise ValueError(f"{path}: {key} {label!r} is no variant: use one of {', '.join(variants)}")
    return Experiment(
        name=path.stem,
        title=entry["title"],
        question=entry.get("question", ""),
        corpora=tuple(entry["corpora"]),
        seeds=tuple(entry["seeds"]),
        variants=variants,
        baseline=baseline,
        scores=tuple(entry.get("scores", ())),
        swept=swept,
        paper=entry.get("paper"),
        note=entry.get("note", ""),
        subject=subject,
        aside=bool(entry.get("aside", False)),
    )


def runs_of(
    experiment: Experiment,
    corpora: Mapping[str, Corpus],
    *,
    only_corpora: Sequence[str] | None = None,
    only_variants: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """The runs of an experiment: seeds outermost, so that a sweep that is cut short is balanced.

    Args:
        only_variants: labels, or what :func:`typed` makes of them.
        overrides: fields of train.py that win over the files' (the encoder, say).

    Raises:
        ValueError: a corpus, variant or fold that the experiment does not have, or an override of the architecture or of
            what the variants differ in.
    """
    for name in overrides or {}:
        differs = len({json.dumps(changes.get(name)) for changes in experiment.variants.values()}) > 1
        if differs or name in {"preset", "learn_constraints", "learn_thresholds", *_switches()}:
            reason = "differs between" if differs else "is a field of"
            raise ValueError(
                f"{name} {reason} the models of {experiment.name}, so it cannot be set for all of them: copy "
                f"{experiment.name}.yaml and {CORPORA_FILE} to a folder of your own, change it there and name the folder "
                "with --configuration"
            )
    names = {name: label for label in experiment.variants for name in (label, typed(label))}
    _check_choice("variant", only_variants, names, experiment.name)
    labels = list(experiment.variants) if only_variants is None else {names[name] for name in only_variants}
    chosen = only_corpora if only_corpora is not None else experiment.corpora
    _check_choice("corpus", chosen, corpora, CORPORA_FILE)
    _check_choice("fold", folds, {fold for name in chosen for fold in corpora[name].folds}, ", ".join(chosen))
    for seed in seeds or experiment.seeds:
        for name in chosen:
            corpus = corpora[name]
            for fold in corpus.folds or [None]:
                if folds is not None and fold is not None and fold not in folds:
                    continue
                for label, changes in experiment.variants.items():
                    if label in labels:
                        yield make_run(corpus, changes, seed, fold, overrides)


def with_data_dir(fields: Mapping[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """Fields of train.py with the folder of the public corpora, where the data set is one of them."""
    if data_dir is None or fields["dataset"] not in data_scripts.CORPORA:
        return dict(fields)
    return {**fields, "data_dir": str(data_dir)}


def typed(label: str) -> str:
    """A variant's label in characters that a keyboard has: `no AC` for `−AC`, `SpERT'` for `SpERT′`."""
    return label.replace("−", "no ").replace("′", "'")


def make_run(
    corpus: Corpus,
    changes: Mapping[str, Any],
    seed: int,
    fold: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """A run of a corpus's settings with changes, then overrides, on top.

    Raises:
        ValueError: no encoder, or an unknown preset.
    """
    fields = {**corpus.fields, **changes, **(overrides or {})}
    fields.pop("output_dir", None)
    if "encoder" not in fields:
        raise ValueError(
            f"{CORPORA_FILE}: corpus {corpus.name!r} names no encoder: add it to its fields, or give --encoder"
        )
    if fold is not None:
        fields["dataset_config"] = fold
    settings = settings_of(fields)
    if fold is not None:
        settings.pop("dataset_config")
    return Run(corpus.name, fold, seed, {**fields, "seed": seed}, settings, architecture_name(settings))


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computes: fields of train.py without those of place and seed.

    Presets are dissolved: architecture switches are those that differ from the paper's model, and switches of the
    contribution are left out where it is off. So one model has one description, however it was written.
    """
    defaults = _paper_switches()
    preset = fields.get("preset", "paper")
    rest = {name: value for name, value in fields.items() if value is not None}
    # as train.py does where it is not said
    merged = {**preset_fields(preset), **PRESET_TRAINING.get(preset, {}), **rest}
    for name in ("learn_constraints", "learn_thresholds"):
        if not merged.get(name):
            merged.pop(name, None)
    contributes = merged.get("attentional_contribution", True)
    contribution = [name for name in defaults if name.startswith(("contribution_", "relation_contribution"))]
    moot = [] if contributes else contribution
    settings = {}
    for name, value in merged.items():
        if name in _PLACE_FIELDS or name in ("preset", "seed"):
            continue
        if name in defaults and (value == defaults[name] or name in moot):
            continue
        settings[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return dict(sorted(settings.items()))


def switches_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture switches among settings."""
    return {name: value for name, value in settings.items() if name in _switches()}


def _paper_switches() -> dict[str, Any]:
    """The paper's model: what AspertConfig takes where nothing is said."""
    parameters = inspect.signature(AspertConfig.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


@functools.cache
def _switches() -> frozenset[str]:
    return frozenset(AspertConfig.field_names())


def architecture_name(settings: Mapping[str, Any]) -> str:
    """The preset (or named architecture) that is nearest, the first of several, and the switches in which it differs."""
    switches, of_paper = switches_of(settings), _paper_switches()
    known = {preset: switches_of(settings_of({"preset": preset})) for preset in PRESETS} | _NAMED
    names = []
    for named, others in known.items():
        differing = sorted(name for name in switches.keys() | others.keys() if switches.get(name) != others.get(name))
        names.append([named, *(f"{name}={slug(str(switches.get(name, of_paper[name])))}" for name in differing)])
    return ",".join(min(names, key=len))


def slug(name: str) -> str:
    """A name that is safe as a file name: the last part of a path, letters, digits and ``._-`` only."""
    last = name.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "unnamed"


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``field=value`` pairs as fields; numbers, true, false and null are read as such.

    Raises:
        ValueError: a pair without ``=``, or a field that the driver sets itself.
    """
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {pair!r} is not field=value")
        if name in ("seed", "output_dir", "resume_from_checkpoint"):
            raise ValueError(f"--set {name}: the driver sets this field itself (--seeds, --work)")
        fields[name] = _value(text)
    return fields


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return yaml.safe_load(text)


def _base_file(folder: Path, name: str) -> Path:
    """A base file named from the repository's root, or from the folder of the experiments."""
    beside = folder / name
    return beside if beside.is_file() else ROOT / name


def _read(path: Path) -> dict[str, Any]:
    try:
        entry = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{path} must hold `name: value` pairs, not {type(entry).__name__}")
    return entry


def _check_keys(path: Path, what: str, entry: Any, known: set[str], needed: set[str]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: {what} must hold `name: value` pairs, not {type(entry).__name__}")
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f": did you mean {close[0]!r}?" if close else f": use {', '.join(sorted(known))}"
            raise ValueError(f"{path}: {what} has an unknown key {key!r}{hint}")
    for key in sorted(needed - entry.keys()):
        raise ValueError(f"{path}: {what} lacks the key {key!r}")


def _check_choice(kind: str, chosen: Sequence[str] | None, known: Any, where: str) -> None:
    for name in chosen or ():
        if name not in known:
            raise ValueError(f"no {kind} {name!r} in {where}: choose one of {', '.join(known)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
