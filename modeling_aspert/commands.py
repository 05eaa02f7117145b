"""What the `aspert` command does with models; the options are declared in `aspert_cli.py`, which imports this when it must."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import cached_file

import data_scripts
from data_scripts.problems import folded
from data_scripts.writing import check_writable

from . import AspertConfig, AspertForJointExtraction, ExtractionOptions, Extractor, Sentence, decoding, thresholds
from .documents import check_language
from .export import FORMATS, PAGE_SUFFIXES, choose_format, open_writer
from .extraction import CHUNK_INPUTS, chunks
from .files import whole_files, write_text
from .model_files import read_object
from .onnx_model import is_export, load_exported
from .record_writer import check_target, json_line
from .resumable_writer import ResumableJsonlWriter
from .saved_models import load_config, load_saved, refuse_revision_of_folder
from .scoring import VIEWS, compute_scores, format_scores
from .streaming import InputRecord, count_records, input_files, read_inputs
from .voting import VotingExtractor

# what a model's predictions depend on, as files of its folder
_MODEL_FILES = ("*.safetensors", "*.onnx*", "config.json", "processor_config.json", "tokenizer*.json")
# how often a long run gives freed memory back to the system
_TRIM_SECONDS = 1.0


def load(args: Namespace) -> Extractor | VotingExtractor:
    """The model and processor of a folder or Hub name, and of those that vote with it, with the options of the command
    line."""
    extractors = list(map(_load, _each_model(args)))
    return VotingExtractor(extractors) if len(extractors) > 1 else extractors[0]


def _each_model(args: Namespace) -> list[Namespace]:
    """The command line for the model and for each of those that vote with it, whose revision it does not name.

    Raises:
        ValueError: a model that is named twice, whose vote would count twice.
    """
    names = getattr(args, "vote", None) or []
    seen = {os.path.realpath(args.model)}
    for name in names:
        if os.path.realpath(name) in seen:
            raise ValueError(f"--vote {name}: it is among the models already, leave it out")
        seen.add(os.path.realpath(name))
    return [args, *(Namespace(**{**vars(args), "model": name, "revision": None}) for name in names)]


def _load(args: Namespace) -> Extractor:
    refuse_revision_of_folder(args.model, args.revision)
    exported, device = is_export(args.model), _device(args)
    if exported and args.dtype != "float32":
        raise ValueError(f"--dtype {args.dtype}: a model exported to ONNX keeps the dtype of its export")
    if exported:
        model, processor = load_exported(args.model)
    else:
        model, processor = load_saved(args.model, getattr(torch, args.dtype), args.revision)
    options = ExtractionOptions(
        relation_threshold=_thresholds(args.relation_threshold, model.config),
        entity_threshold=args.entity_threshold,
        entity_overlap=args.entity_overlap,
        batch_size=args.batch_size,
        stride=args.stride,
        split_sentences=not args.no_sentence_splitting,
        language=args.language,
        word_splitter=args.word_splitter,
    )
    extractor = Extractor(model.to(device), processor, options)
    if options.split_sentences:
        # the model's own language may have no rules
        check_language(extractor.language)
    return extractor


def _device(args: Namespace) -> str:
    """The device that was asked for, or a GPU if there is one. Raises ValueError where it cannot be used."""
    exported = is_export(args.model)
    device = args.device or ("cuda" if torch.cuda.is_available() and not exported else "cpu")
    try:
        # an export says itself where it runs
        torch.device(device) if exported else torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the last two: built without that device
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"--device {device} cannot be used ({reason}): choose cpu, cuda, cuda:1, mps ...") from error
    return device


def _thresholds(values: list[str] | None, config: AspertConfig) -> float | dict[str, float] | None:
    """`0.5` for all types, or `Kill=0.5` for one; a bare number holds for the types that are not named."""
    if not values:
        return None
    default, by_type = config.relation_threshold, {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            threshold = float(number)
        except ValueError:
            raise ValueError(f"--relation-threshold {value!r} is not valid: give NUMBER or TYPE=NUMBER") from None
        if name and name not in config.relation_types:
            raise ValueError(f"--relation-threshold {value!r}: the model's relation types are {config.relation_types}")
        if name:
            by_type[name] = threshold
        else:
            default = threshold
    return {**dict.fromkeys(config.relation_types, default), **by_type} if by_type else default


def _chunks(records: Iterable[InputRecord]) -> Iterator[list[InputRecord]]:
    def length(record: InputRecord) -> int:
        return len(record.text) if record.tokens is None else sum(map(len, record.tokens))

    return chunks(records, length, CHUNK_INPUTS)


def _run(
    extractor: Extractor | VotingExtractor, chunks: Iterable[list[InputRecord]], as_words: bool
) -> Iterator[dict[str, Any]]:
    """Predicted records in the order of the input: of words where ``as_words``, else of characters."""
    trimmed_at = time.monotonic()
    for chunk in chunks:
        if time.monotonic() - trimmed_at >= _TRIM_SECONDS:
            _trim_memory()
            trimmed_at = time.monotonic()
        words = [record for record in chunk if as_words and record.tokens is not None]
        annotations = extractor.annotate(Sentence(record.tokens) for record in words)
        texts = extractor.extract(
            record.text if record.tokens is None else {"tokens": record.tokens}
            for record in chunk
            if not (as_words and record.tokens is not None)
        )
        for record in chunk:
            if as_words and record.tokens is not None:
                yield {"tokens": record.tokens, **next(annotations), "orig_id": record.id}
            else:
                yield {"id": record.id, **next(texts)}


def _trim_memory() -> None:
    """Give freed memory back to the system: glibc keeps what the largest batch so far needed. Elsewhere nothing."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _made_of(predicted: dict[str, Any], record: InputRecord) -> bool:
    """Whether a predicted record (of words, where it may be) is that of an input."""
    if record.tokens is None:
        return (predicted.get("id"), predicted.get("text")) == (record.id, record.text)
    return (predicted.get("orig_id"), predicted.get("tokens")) == (record.id, record.tokens)


def _inputs(args: Namespace) -> Iterable[InputRecord]:
    if args.text:
        if args.inputs:
            raise ValueError("give either --text or input files, not both")
        for option, value in (("--column", args.column), ("--input-format", args.input_format)):
            if value is not None:
                raise ValueError(f"{option} {value} is for input files, not for --text: leave it out")
        return [InputRecord(number, text, None, "--text", None) for number, text in enumerate(args.text)]
    paths = args.inputs or ["-"]
    return _some(read_inputs(paths, args.column, args.input_format), ", ".join(paths))


def _some(records: Iterable[InputRecord], source: str) -> Iterator[InputRecord]:
    """The records, and a warning where there are none."""
    none = True
    for record in records:
        none = False
        yield record
    if none:
        print(f"warning: {source}: no record, there was nothing to do", file=sys.stderr)


def _refuse_overwriting(path: str, inputs: Iterable[str]) -> None:
    """Raise for an output that is an input."""
    for file in input_files(inputs):
        if file != "-" and os.path.realpath(file) == os.path.realpath(path):
            raise ValueError(f"{path} is an input too, which would be overwritten: choose another output")


def _check_output(path: str | os.PathLike, directory: bool = False) -> None:
    """Raise for an output that cannot be written: before the model is loaded, not after hours."""
    if path in ("", "-"):
        raise ValueError(f"--output {path!r} is no name of a file; left out, `predict` writes to standard output")
    check_writable(path, check_target(path, directory))


def _model_files(args: Namespace) -> list[dict[str, Any]]:
    """What tells the files of a model that was loaded from others without reading them.

    Those of a Hub name lie in a folder named by the commit.
    """
    folder = Path(cached_file(args.model, "config.json", revision=args.revision)).parent
    files = sorted((file, file.stat()) for pattern in _MODEL_FILES for file in folder.glob(pattern))
    return [{"path": str(file), "size": stat.st_size, "modified_ns": stat.st_mtime_ns} for file, stat in files]


def predict(args: Namespace) -> None:
    format = args.format or "jsonl"
    if args.output is not None:
        _refuse_overwriting(args.output, args.inputs)
        format = choose_format(args.output, args.format)
        _check_output(args.output, FORMATS[format].directory)
    elif format != "jsonl":
        raise ValueError(f"--format {format} needs --output")
    records = _inputs(args)
    extractor = load(args)
    config = extractor.model.config
    FORMATS[format].check_types(config.entity_types, config.relation_types)
    shown = sys.stderr.isatty() or args.progress
    progress = {"unit": " records", "disable": not shown, "file": sys.stderr}
    if shown:
        progress["total"] = len(args.text) if args.text else count_records(args.inputs or ["-"], args.input_format)
    if args.output is None:
        if sys.stdout is None:
            raise OSError("standard output is closed: name a file with --output")
        for record in tqdm(_run(extractor, _chunks(records), as_words=True), **progress):
            print(json_line(record), flush=True)
        return
    if format == "jsonl":
        settings = {
            "model": str(args.model),
            "model files": [file for one in _each_model(args) for file in _model_files(one)],
            "options": {
                name: getattr(args, name)
                for name in (
                    "revision", "dtype", "relation_threshold", "entity_threshold", "entity_overlap", "batch_size", "stride",
                    "word_splitter", "language", "no_sentence_splitting", "column", "input_format", "text", "vote",
                )
            },
        }  # fmt: skip
        with ResumableJsonlWriter(args.output, settings) as writer:
            todo = writer.skip_done(_chunks(records), _made_of)
            done = writer.completed
            if done:
                print(
                    f"{args.output}: {done} records are there from a run before, going on after them", file=sys.stderr
                )
            for record in tqdm(_run(extractor, todo, as_words=True), initial=done, **progress):
                writer.write(record)
                done += 1
    else:
        done = 0
        with open_writer(args.output, format) as writer:
            for record in tqdm(_run(extractor, _chunks(records), as_words=False), **progress):
                writer.write(record)
                done += 1
    print(f"{args.output}: {done} records written, format {format}", file=sys.stderr)


def _annotated(path: str, config: AspertConfig) -> list[dict[str, Any]]:
    """Annotated records with a model's labels; warnings are printed. Raises DataError."""
    schema = data_scripts.LabelSchema(
        tuple(config.entity_types), tuple(config.relation_types), tuple(config.symmetric_relations)
    )
    records = data_scripts.read_records(path)
    report = data_scripts.validate_records(records, schema, path, config.max_span_width)
    if report.errors:
        found = data_scripts.validate_records(records, None, path)
        types = {entity["type"] for record in records for entity in record["entities"]} if not found.errors else set()
        if types and types.isdisjoint(schema.entity_types):
            print(
                f"warning: {path}: its entity types ({', '.join(sorted(types))}) are none of the model's "
                f"({', '.join(schema.entity_types)}): is it the right model?",
                file=sys.stderr,
            )
    report.raise_for_errors()
    for line in folded(report.warnings):
        print(f"warning: {line}", file=sys.stderr)
    return records


def _predicted(extractor: Extractor | VotingExtractor, gold: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a model makes of the sentences of annotated records."""
    sentences = (Sentence(record["tokens"]) for record in gold)
    annotations = tqdm(
        extractor.annotate(sentences), total=len(gold), unit=" sentences", disable=not sys.stderr.isatty()
    )
    return [{**record, **annotation} for record, annotation in zip(gold, annotations)]


def evaluate(args: Namespace) -> None:
    if args.output is not None:
        if args.vote and (Path(args.output) / "config.json").exists():
            # `info` and the card would take them for this model's
            raise ValueError(
                f"--output {args.output} holds a model, and the scores are those of a vote: name another folder"
            )
        _check_output(Path(args.output) / "scores.json")
    config = load_config(args.model, args.revision)
    gold = _annotated(args.data, config)
    predicted = _predicted(load(args), gold)
    scores = compute_scores(predicted, gold, config.entity_types, config.relation_types, config.symmetric_relations)
    print(format_scores(scores))
    if args.output is not None:
        from .reports import write_evaluation

        folder, split = Path(args.output), Path(args.data).stem
        write_text(folder / f"predictions_{split}.jsonl", "".join(json_line(record) + "\n" for record in predicted))
        write_evaluation(folder, split, predicted, gold, scores, config)
        print(
            f"{folder}: scores, predictions and a page of errors of {len(gold)} records written (scores_{split}.json, "
            f"predictions_{split}.jsonl, error_analysis_{split}.html)",
            file=sys.stderr,
        )


def check_page(path: str, inputs: Sequence[str]) -> None:
    """Refuse a place for a page that is an input or means another format."""
    _refuse_overwriting(path, inputs)
    suffix = Path(path).suffix
    if suffix and suffix.lower() not in PAGE_SUFFIXES:
        raise ValueError(
            f"{path}: an HTML page does not go with the suffix {suffix}: name it {Path(path).stem}.html; other formats are "
            "written by `aspert predict --format`"
        )
    _check_output(path)


def show(args: Namespace) -> None:
    from .visualization import visualize

    check_page(args.output, args.inputs)
    records = _inputs(args)
    extractor = load(args)
    predicted = list(_run(extractor, _chunks(records), as_words=False))
    visualize(predicted, args.output, args.title, extractor.model.config.symmetric_relations)
    print(f"{len(predicted)} records drawn in {args.output}")


def info(args: Namespace) -> None:
    config = load_config(args.model, args.revision)
    encoder, processor = config.encoder_config, _json_beside(args, "processor_config.json")
    with torch.device("meta"):  # sizes, no numbers
        parameters = sum(weights.numel() for weights in AspertForJointExtraction(config).parameters())
    fields = {
        "model": args.model,
        "saved with": f"transformers {config.transformers_version or '(not recorded)'}",
        "parameters": f"{parameters:,}",
        "encoder": f"{encoder.model_type}, "
        + " x ".join(
            f"{size} {name}".rstrip()
            for name, attribute in (
                ("layers", "num_hidden_layers"),
                ("heads", "num_attention_heads"),
                ("", "hidden_size"),
            )
            if (size := getattr(encoder, attribute, None)) is not None
        ),
        "entity types": ", ".join(config.entity_types),
        "relation types": ", ".join(
            f"{name} (symmetric)" if name in config.symmetric_relations else name for name in config.relation_types
        ),
        "widest entity": f"{config.max_span_width} words",
        "attention features": "on" if config.attentional_contribution else "off",
        "span classifier": config.span_classifier,
        "word shapes": "on" if config.word_shapes else "off",
        "relation threshold": config.relation_threshold,
        "entity threshold": config.entity_threshold,
        "entity overlap": config.entity_overlap,
        "constraints": "off" if config.relation_type_constraints is None else "on",
        "word splitter": processor.get("word_splitter", "(not recorded)"),
        "language": processor.get("language", "(not recorded)"),
        "dev micro F1": _headline(args, "dev", "eval"),
        "test micro F1": _headline(args, "test", "test"),
    }
    for name, value in fields.items():
        if value is not None:
            print(f"{name + ':':20}{value}")


def _json_beside(args: Namespace, name: str) -> dict[str, Any]:
    """A JSON object of a model's folder or Hub name; {} where it has no such file."""
    try:
        path = cached_file(args.model, name, revision=args.revision)
    except OSError:
        return {}
    return read_object(path)


def _headline(args: Namespace, split: str, prefix: str) -> str | None:
    """The scores of a split that lie beside a model, those of `aspert evaluate` or of the training."""
    scores = {}
    for file, before in ((f"{prefix}_results.json", f"{prefix}_"), (f"scores_{split}.json", "")):
        found = _json_beside(args, file)
        for view in VIEWS:
            name = f"{before}{view}_micro_f1"
            if name in found and type(found[name]) not in (int, float):
                raise ValueError(
                    f"{args.model}/{file}: {name} = {found[name]!r} is no number: evaluate the model again"
                )
            if name in found:
                scores[view] = found[name]
    return ", ".join(f"{title} {scores[view]:.2f}" for view, title in VIEWS.items() if view in scores) or None


def import_spert(args: Namespace) -> None:
    from .spert_import import load_spert

    _refuse_existing_model(args.output)
    model, processor = load_spert(args.spert_dir, args.types, args.max_span_width, args.relation_threshold)
    with whole_files(args.output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    print(f"{args.output}: SpERT with {len(model.config.entity_types)} entity and "
          f"{len(model.config.relation_types)} relation types")  # fmt: skip


def export_onnx(args: Namespace) -> None:
    from .onnx_export import check_extra, export_onnx

    check_extra()
    if not is_export(args.output):
        _refuse_existing_model(args.output)
    model, processor = load_saved(args.model, revision=args.revision)
    export_onnx(model, processor, args.output, int8=args.int8)
    size = sum(file.stat().st_size for file in Path(args.output).glob("*.onnx*")) / 2**20
    print(f"{args.output}: {size:.0f} MiB of graphs; `aspert predict {args.output} ...` runs them")


def demo(args: Namespace) -> None:
    from .demo import launch

    launch(load(args), port=args.port)


def _to_learn_from(path: str, config: AspertConfig) -> list[dict[str, Any]]:
    records = _annotated(path, config)
    if not any(record["entities"] for record in records):
        raise ValueError(f"{path}: no entities, from which nothing can be learnt: name annotated data")
    return records


def learn_constraints(args: Namespace) -> None:
    _require_saved_model(args.model)
    constraints = decoding.learn_constraints(_to_learn_from(args.data, load_config(args.model)))
    _store(args.model, constraints)
    print(f"entity_overlap: {constraints['entity_overlap']}")
    for relation, pairs in constraints["relation_type_constraints"].items():
        print(f"{relation}: {', '.join(f'{head} -> {tail}' for head, tail in pairs)}")


def learn_thresholds(args: Namespace) -> None:
    _require_saved_model(args.model)
    config = load_config(args.model)
    thresholds.check_learnable(config, args.metric)
    device = _device(args)
    gold = _to_learn_from(args.data, config)
    model, processor = load_exported(args.model) if is_export(args.model) else load_saved(args.model)
    model.config.update(thresholds.loosest_fields(config))
    predicted = _predicted(Extractor(model.to(device), processor), gold)
    learnt = thresholds.learn_thresholds(predicted, gold, config, args.metric)
    before = {name: getattr(config, name) for name in learnt}
    found = decoding.Predictions.from_records(predicted, config)
    scores = [thresholds.score_with(fields, found, gold, config, args.metric) for fields in (before, learnt)]
    _store(args.model, learnt)
    for name, value in learnt.items():
        print(f"{name}: {value} (before: {before[name]})")
    print(f"{args.metric} on {args.data}: {scores[1]:.2f} (before: {scores[0]:.2f})")


def _refuse_existing_model(folder: str) -> None:
    """Refuse a folder that cannot be written to, or that holds a model, which would be mixed with the new one."""
    if (Path(folder) / "config.json").exists():
        raise FileExistsError(f"{folder} holds a model, which would be overwritten: name another folder, or delete it")
    _check_output(Path(folder) / "config.json")


def _require_saved_model(model: str) -> None:
    if not (Path(model) / "config.json").is_file():
        raise FileNotFoundError(f"{model}: no folder with a saved model")


def _store(model: str, fields: Mapping[str, Any]) -> None:
    """Change fields of a model's configuration, and nothing else in it."""
    file = Path(model) / "config.json"
    write_text(file, json.dumps({**read_object(file), **fields}, indent=2, sort_keys=True) + "\n")
    if any(Path(model).glob("*_results.json")):
        mend = f"train.py DATA.yaml --encoder {model} --output_dir {model} --do_train false --do_predict true"
        print(
            f"warning: {model}: the scores and the card beside the model are those of before; `python {mend}` with the YAML "
            "file of its training makes them anew",
            file=sys.stderr,
        )
