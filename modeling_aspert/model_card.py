"""The model card: README.md beside the weights, with the metadata that the Hub reads.

Whatever comes from data, arguments or labels reaches the Markdown as plain text: a character that could mean something
to Markdown, HTML or the table around it becomes a character reference. Nothing here uses the network.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import jinja2
from huggingface_hub.utils import validate_repo_id
from markupsafe import Markup

from ._version import __version__
from .configuration_aspert import AspertConfig
from .encoders import PACKAGE_PREFIX
from .files import write_text
from .plots import drawn, epoch_of, plot_training_curves, training_entries
from .scoring import SCORE_NAMES, VIEWS

logger = logging.getLogger(__name__)

FILE_NAME = "README.md"
# where somebody else's README.md is in the way
OTHER_NAME = "MODEL_CARD.md"
CURVES = "training_curves.png"
# A card with this line was written here and may be written again; its own text is left to the user.
MARK = "<!-- Written by aspert. Remove this line to keep your own text when the model is pushed again. -->"
# how transformers marks the empty card that it pushes where there is none
_EMPTY_CARD = "This model card has been automatically generated."
# The Hub's list of tasks is closed and has none for relations: entities are what its search and widgets can know.
_HUB_TASK = "token-classification"
_TASK_NAME = "Joint entity and relation extraction"
_TAGS = ["aspert", "joint-extraction", "relation-extraction", "named-entity-recognition", "information-extraction"]
_NOT_SETTINGS = {"encoder_config", "entity_types", "relation_types", "symmetric_relations"}
# those of the training arguments that can change a result
TRAINING_SETTINGS = (
    "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "head_learning_rate lr_scheduler_type warmup_steps optim weight_decay adam_beta1 adam_beta2 adam_epsilon "
    "adam_bias_correction max_grad_norm negative_entity_count negative_relation_count train_sampling_strategy dataloader_drop_last bf16 "
    "fp16 seed data_seed early_stopping_patience metric_for_best_model load_best_model_at_end"
).split()
# those that the launcher decides
_LAUNCH_SETTINGS = ("processes", "effective_batch_size", "mixed_precision")
_AVERAGES = ("micro", "macro")
_RATIOS = ("precision", "recall", "f1")
_LONGEST_MENTION = 60
_SENTENCE = "Marie Curie worked in Paris."
_SENTENCE_WORDS = 8
_SPECIAL = re.compile(r"[&<>\"\\`*\[\]{}#|~$@^:]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.", re.IGNORECASE)


@dataclass
class ModelCardData:
    """What a card can say. What is not given is left out; only the configuration must be there.

    Args:
        config: the model's configuration: labels, architecture, thresholds.
        repo_id: the model's name on the Hub ("organisation/name"), where it has one.
        dataset: name of the training data, or the folder with it (only the folder's name is shown).
        dataset_config: the configuration of the data set, such as a fold.
        scores: by split ("dev", "test"), results of :func:`compute_scores`.
        run: the run's description, as in run.json: "versions", "commit", "data", "arguments".
        examples: mentions of each type, see :func:`mentions`.
        sentence: the text of the examples, see :func:`example_sentence`; one that Markdown does not take for plain text is
            left out.
        log_history: `trainer.state.log_history`.
        best_step: the step whose checkpoint is the model, where a score chose one.
        training_seconds: how long the training took.
        hardware: what it ran on, see :func:`hardware`.
        license: of the weights, an identifier of the Hub such as "apache-2.0".
        language: of the training data, ISO 639-1.

    Raises:
        ValueError: a ``repo_id`` that the Hub does not allow, or scores that are not whole.
    """

    config: AspertConfig
    repo_id: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    sentence: str | None = None
    log_history: Sequence[Mapping[str, Any]] = ()
    best_step: int | None = None
    training_seconds: float | None = None
    hardware: str | None = None
    license: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        if self.repo_id is not None:
            validate_repo_id(self.repo_id)
        for split, scores in self.scores.items():
            missing = [name for name in (*SCORE_NAMES, "per_type") if name not in scores]
            if missing:
                raise ValueError(
                    f"the scores of {split!r} have no {missing[0]!r}: pass the whole result of compute_scores"
                )


def write_model_card(folder: str | os.PathLike, data: ModelCardData) -> Path:
    """Write README.md and, with matplotlib, the training's curves; returns the card's path. The picture of the scores by
    type is shown where `reports.write_evaluation` has left it. A README.md that is no card stays, and the card becomes
    MODEL_CARD.md.

    Args:
        folder: that of the model; made if it does not exist.
    """
    folder = Path(folder)
    plot = functools.partial(plot_training_curves, best_step=data.best_step)
    pictures = [CURVES] if drawn(plot, data.log_history, folder / CURVES) else []
    split = _main_split(data)
    if split is not None and (folder / _per_type_name(split)).is_file():
        pictures.append(_per_type_name(split))
    path = folder / FILE_NAME
    if path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        logger.warning(
            "%s is not the card of an earlier training and stays as it is: the card is %s", path, OTHER_NAME
        )
        path = folder / OTHER_NAME
    write_text(path, render_model_card(data, folder, pictures))
    return path


def render_model_card(data: ModelCardData, folder: str | os.PathLike = "model", pictures: Iterable[str] = ()) -> str:
    """The card as text.

    Args:
        folder: the model's, named in the examples where there is no ``repo_id``.
        pictures: those beside the card: `training_curves.png`, `per_type_SPLIT.png`.
    """
    folder, pictures = Path(folder), set(pictures)
    name = _line(data.repo_id.rpartition("/")[2] if data.repo_id else folder.resolve().name) or "model"
    arguments = data.run.get("arguments", {})
    split = _main_split(data)
    examples = {part: data.examples.get(part, {}) for part in ("entities", "relations")}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        finalize=plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # a filter's result is no Markup by itself, so that what is joined is escaped one by one
    environment.filters["join"] = lambda values, separator: Markup(separator).join(Markup(plain(v)) for v in values)
    return environment.get_template("model_card.md.jinja").render(
        metadata=Markup(_metadata(data, name).to_yaml()),
        mark=Markup(MARK),
        name=name,
        model_line=Markup(_model_line(data.repo_id, folder)),
        sentence=Markup(json.dumps(data.sentence if _is_plain(data.sentence) else _SENTENCE, ensure_ascii=False)),
        separator="; ",
        separator_cells=" | ",
        architecture=_architecture(data.config),
        encoder=_encoder(arguments.get("model", {}).get("encoder")),
        has_examples=any(examples.values()),
        entity_rows=[
            (label, [_shortened(text) for text in examples["entities"].get(label, [])])
            for label in data.config.entity_types
        ],
        relation_rows=[
            (label, symmetric, [_pair(pair, symmetric) for pair in examples["relations"].get(label, [])])
            for label, symmetric in zip(data.config.relation_types, data.config.symmetric_flags)
        ],
        scores=data.scores,
        score_rows=list(_score_rows(data.scores)),
        selection=_selection(data),
        per_type_split=split,
        per_type_rows=list(_per_type_rows(data.scores[split])) if split else [],
        per_type_picture=split and _per_type_name(split) in pictures and _per_type_name(split),
        curves_picture=CURVES in pictures and CURVES,
        has_training=bool(data.dataset or data.run.get("data") or data.training_seconds or CURVES in pictures),
        dataset=data.dataset and _base_name(data.dataset),
        dataset_config=data.dataset_config,
        split_rows=[(name, part["sentences"], part["sha256"][:16]) for name, part in data.run.get("data", {}).items()],
        time=None if data.training_seconds is None else _duration(data.training_seconds),
        hardware=data.hardware,
        setting_rows=list(_setting_rows(data)),
        versions=_versions(data.run),
        max_span_width=data.config.max_span_width,
        relation_threshold=data.config.relation_threshold,
        overlapping=data.config.entity_overlap == "allow",
        license=data.license,
    )


def chosen_epoch(log_history: Sequence[Mapping[str, Any]], best_step: int | None) -> str | None:
    """Which checkpoint of a training is the model ("epoch 4 of 8 (step 40)"); None where the log does not tell."""
    epoch = epoch_of(log_history, best_step)
    if epoch is None:
        return None
    return f"epoch {epoch:g} of {round(training_entries(log_history)[-1]['epoch'], 2):g} (step {best_step})"


def mentions(
    records: Iterable[Mapping[str, Any]], config: AspertConfig, count: int = 3
) -> dict[str, dict[str, list[Any]]]:
    """The first different mentions of each type, in the order of the data.

    Args:
        records: word records of the training data.
        count: mentions a type.

    Returns:
        ``{"entities": {type: [text]}, "relations": {type: [(head text, tail text)]}}``.
    """
    found: dict[str, dict[str, list[Any]]] = {
        "entities": {label: [] for label in config.entity_types},
        "relations": {label: [] for label in config.relation_types},
    }
    for record in records:
        texts = [" ".join(record["tokens"][entity["start"] : entity["end"]]) for entity in record["entities"]]
        items = [("entities", entity["type"], text) for entity, text in zip(record["entities"], texts)]
        for relation in record["relations"]:
            items.append(("relations", relation["type"], (texts[relation["head"]], texts[relation["tail"]])))
        for part, label, mention in items:
            known = found[part].get(label)
            if known is not None and len(known) < count and mention not in known:
                known.append(mention)
    return found


def example_sentence(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Of the word records with entities the one nearest to eight words, with a relation if there is any, as text; None
    where there is none that Markdown takes for plain text."""
    texts = [(" ".join(record["tokens"]), record) for record in records if record["entities"]]
    ranks = [
        (not record["relations"], abs(len(record["tokens"]) - _SENTENCE_WORDS), place)
        for place, (text, record) in enumerate(texts)
        if _is_plain(text)
    ]
    return texts[min(ranks)[-1]][0] if ranks else None


def hardware(device: Any = "cpu", processes: int = 1) -> str:
    """What a training runs on, in words.

    Args:
        device: a `torch.device` or its name; `TrainingArguments.device`.
        processes: of the training, each with a device of its own; `TrainingArguments.world_size`.
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return f"{processes} × {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return f"{processes} × {device.type}"
    threads = processes * torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads != 1 else ''} ({processor_name()})"


def processor_name() -> str:
    """What the CPU is called."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        name = model.group(1) if model else name
    return name


def put_card(model: Any, folder: str | os.PathLike, repo_id: str) -> None:
    """Put a model's card into a folder that is about to be pushed, unless a card that somebody wrote lies there.

    It is the README.md beside the weights that the model was loaded from: as it is where somebody wrote it, a card of ours
    under its name on the Hub; else the one of an earlier push; else what the configuration alone can say.

    Args:
        model: an :class:`AspertForJointExtraction`.
        folder: with README.md as transformers prepared it: the card on the Hub, or an empty one.
        repo_id: where it will be pushed.
    """
    path = Path(folder) / FILE_NAME
    present = path.read_text(encoding="utf-8") if path.is_file() else ""
    if present and MARK not in present and _EMPTY_CARD not in present:
        return
    source = Path(model.name_or_path) if model.name_or_path else None
    own = source / FILE_NAME if source is not None else None
    text = own.read_text(encoding="utf-8") if own is not None and own.is_file() else ""
    if text.strip() and _EMPTY_CARD not in text:
        for picture in source.glob("*.png"):
            if f"({picture.name})" in text and not (Path(folder) / picture.name).exists():
                shutil.copyfile(picture, Path(folder) / picture.name)
        write_text(path, _renamed(text, repo_id) if MARK in text else text)
    elif MARK not in present:
        write_text(path, render_model_card(ModelCardData(config=model.config, repo_id=repo_id)))


def plain(value: Any) -> str:
    """A value as one line that Markdown, a table cell and HTML take for plain text; `Markup` is left as it is."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", _line(str(value)))


def _is_plain(text: str | None) -> bool:
    # in a block of code, where no reference stands for a character
    return bool(text) and plain(text) == text


def _line(text: str) -> str:
    """Text on one line: white space and control characters become blanks, invisible characters, among them those that
    turn the direction of the text, U+FFFD (but not the joiners, which belong to words and emoji)."""
    characters = []
    for character in text:
        category = unicodedata.category(character)
        if character.isspace() or category in ("Cc", "Zl", "Zp"):
            characters.append(" ")
        elif category in ("Cf", "Cs") and character not in "\u200c\u200d\u00ad":
            characters.append("\ufffd")
        else:
            characters.append(character)
    return " ".join("".join(characters).split())


def _shortened(text: str) -> str:
    text = _line(text)
    return text if len(text) <= _LONGEST_MENTION else text[: _LONGEST_MENTION - 1].rstrip() + "…"


def _pair(pair: tuple[str, str], symmetric: bool) -> str:
    head, tail = map(_shortened, pair)
    return f"{head} {'–' if symmetric else '→'} {tail}"


def _model_line(repo_id: str | None, folder: Path) -> str:
    # a folder's place on this machine is nobody's business
    shown = repo_id or (folder.name if folder.is_absolute() else folder.as_posix())
    comment = "" if repo_id else "  # the folder with this file"
    return f"model = {json.dumps(_line(shown), ensure_ascii=False)}{comment}"


def _renamed(text: str, repo_id: str) -> str:
    """A card of ours with another name."""
    validate_repo_id(repo_id)
    card = huggingface_hub.ModelCard(text)
    name = repo_id.rpartition("/")[2]
    if card.data.eval_results:
        card.data.model_name = name
    line = _model_line(repo_id, Path())
    text = re.sub(r"^model = .*$", lambda _: line, str(card), flags=re.MULTILINE)
    return re.sub(r"^# .*$", lambda _: f"# {plain(name)}", text, count=1, flags=re.MULTILINE)


def _base_name(name: str) -> str:
    """A name as it is, of a folder only the last part."""
    return Path(name).name if os.sep in name or Path(name).is_dir() else name


def _architecture(config: AspertConfig) -> Markup:
    aspert = "[ASpERT](https://doi.org/10.32604/iasc.2022.028352)"
    spert = "[SpERT](https://arxiv.org/abs/1909.07755)"
    base, added = (aspert, []) if config.attentional_contribution else (spert, [])
    if not config.attentional_contribution and config.span_classifier == "mlp":
        added.append(f"the span classifier of {aspert}")
    if config.attentional_contribution and config.span_classifier == "linear":
        added.append("a linear span classifier")
    if config.word_shapes:
        added.append("word shapes")
    if config.span_boundaries:
        added.append("span boundaries")
    if config.relation_entity_types:
        added.append("entity types in the relation classifier")
    if config.relation_classifier == "mlp":
        added.append("an MLP as relation classifier")
    without = "" if config.width_embedding else " without the width embedding"
    return Markup(base + without + (f", with {' and '.join(added)}" if added else ""))


def _encoder(name: str | None) -> Markup | str | None:
    if not name:
        return None
    if _on_hub(name):
        return Markup(f"[{plain(name)}](https://huggingface.co/{name})")
    if name.startswith(PACKAGE_PREFIX):
        return f"{name.removeprefix(PACKAGE_PREFIX)} (from the Python package index)"
    return f"{_base_name(name)} (a local folder)"


def _on_hub(name: str | None) -> bool:
    """Whether an encoder's name is one on the Hub, as far as can be said without asking the Hub."""
    if not name or Path(name).exists() or name.startswith((PACKAGE_PREFIX, ".", "/", "~")):
        return False
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return True


def _main_split(data: ModelCardData) -> str | None:
    """The split whose table by type is shown."""
    return "test" if "test" in data.scores else next(iter(data.scores), None)


def _per_type_name(split: str) -> str:
    return f"per_type_{re.sub(r'[^A-Za-z0-9_-]', '_', split)}.png"


def _metadata(data: ModelCardData, name: str) -> huggingface_hub.ModelCardData:
    encoder = data.run.get("arguments", {}).get("model", {}).get("encoder")
    dataset = _line(_base_name(data.dataset)) if data.dataset else "unknown"
    results = [
        huggingface_hub.EvalResult(
            task_type=_HUB_TASK,
            task_name=_TASK_NAME,
            dataset_type=re.sub(r"[^\w./-]+", "-", dataset),
            dataset_name=dataset,
            dataset_config=data.dataset_config and _line(data.dataset_config),
            dataset_split=_line(split),
            metric_type="f1",
            metric_name=f"{title} {average} F1 (percent)",
            metric_value=round(float(scores[f"{view}_{average}_f1"]), 2),
        )
        for split, scores in data.scores.items()
        for view, title in VIEWS.items()
        for average in _AVERAGES
    ]
    return huggingface_hub.ModelCardData(
        language=data.language and _line(data.language),
        license=data.license and _line(data.license),
        library_name="transformers",
        pipeline_tag=_HUB_TASK,
        tags=list(_TAGS),
        base_model=encoder if _on_hub(encoder) else None,
        metrics=["precision", "recall", "f1"] if results else None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _score_rows(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for split, values in scores.items():
        for view, title in VIEWS.items():
            for average in _AVERAGES:
                numbers = (values[f"{view}_{average}_{name}"] for name in _RATIOS)
                yield (split, title, average, *(f"{number:.2f}" for number in numbers))


def _per_type_rows(scores: Mapping[str, Any]) -> Iterator[list[str]]:
    for view, title in VIEWS.items():
        for label, row in scores["per_type"][view].items():
            numbers = [f"{row[name]:.2f}" for name in _RATIOS]
            yield [title, label, *numbers, *(str(row[name]) for name in ("support", "predicted", "true_positives"))]


def _selection(data: ModelCardData) -> str | None:
    """How the weights were chosen, where the run says so."""
    training = data.run.get("arguments", {}).get("training", {})
    if not training or "data" not in data.run:
        return None
    if "dev" not in data.run["data"]:
        return "There was no development data: the weights are those of the last step."
    metric = training.get("metric_for_best_model")
    learnt = data.run["arguments"].get("model", {}).get("learn_thresholds")
    if not training.get("load_best_model_at_end"):
        chosen = f"; the thresholds are those with the best {metric} on dev, so the scores on dev flatter it"
        return f"The weights are those of the last step{chosen if learnt else ', chosen by no score'}."
    thresholds = ", and the thresholds were chosen on it too" if learnt else ""
    epoch = chosen_epoch(data.log_history, data.best_step)
    which = f", that of {epoch}" if epoch else ""
    return (
        f"The checkpoint is the one with the best {metric} on dev{which}{thresholds}, so the scores on dev flatter it."
    )


def _setting_rows(data: ModelCardData) -> Iterator[tuple[str, Any]]:
    arguments = data.run.get("arguments", {})
    for part, names in (
        ("model", ["preset", "lowercase", "learn_constraints", "learn_thresholds"]),
        ("data", ["max_train_samples"]),
        ("training", TRAINING_SETTINGS),
    ):
        for name in names:
            value = arguments.get(part, {}).get(name)
            # the Trainer's own dump has "None" for what was not set
            if value not in (None, "None") and not (name == "max_steps" and value <= 0):
                yield name, value
    for name in _LAUNCH_SETTINGS:
        if name in data.run:
            yield name, data.run[name]
    for name in AspertConfig.field_names():
        value = getattr(data.config, name, None)
        if name not in _NOT_SETTINGS and value is not None:
            yield name, value if isinstance(value, (bool, int, float, str)) else json.dumps(value, ensure_ascii=False)


def _versions(run: Mapping[str, Any]) -> str | None:
    versions = run.get("versions")
    if not versions:
        return None
    commit = f"; commit {run['commit']}" if run.get("commit") else ""
    return ", ".join(f"{name} {version}" for name, version in {"aspert": __version__, **versions}.items()) + commit


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts)
