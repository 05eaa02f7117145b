"""What `aspert validate`, `split` and `convert` do; the options are declared in `aspert_cli.py`.

They start without torch and transformers, which take seconds to import; `--page` and `--split-sentences` need them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from . import converters
from .problems import DataError, folded
from .reading import read_records
from .schema import LabelSchema
from .splitting import split_records, untrained_types
from .validation import shared_sentences, validate_records
from .writing import check_writable, write_records

_SHOWN = 20  # lines of problems


def _print_counts(records: Sequence[Mapping[str, Any]], schema: LabelSchema | None) -> None:
    """How often each type occurs; those of a types file that do not, too."""
    for kind, known in (("entities", "entity_types"), ("relations", "relation_types")):
        counts = Counter(dict.fromkeys(getattr(schema, known, ()), 0))
        counts.update(item["type"] for record in records for item in record[kind])
        print(f"  {kind}: {', '.join(f'{name} {count}' for name, count in counts.most_common()) or 'none'}")


@contextmanager
def _all_problems() -> Iterator[None]:
    """Print several problems with data, which `main` would only count."""
    try:
        yield
    except DataError as error:
        if len(error.problems) == 1:
            raise
        lines = folded(error.problems)
        for line in lines[:_SHOWN]:
            print(f"error: {line}", file=sys.stderr)
        if len(lines) > _SHOWN:
            print(f"… and {len(lines) - _SHOWN} more", file=sys.stderr)
        raise ValueError(f"{len(error.problems)} problems: nothing was done") from error


def validate(args: Namespace) -> None:
    if args.page is not None:
        from modeling_aspert.commands import check_page

        check_page(args.page, args.data)
    with _all_problems():
        schema = LabelSchema.from_file(args.types) if args.types else None
    failed = 0
    sound = {}
    for path in args.data:
        try:
            records = read_records(path)
        except DataError as error:
            if len(args.data) == len(error.problems) == 1:
                raise
            print("\n".join(f"error: {line}" for line in folded(error.problems)))
            failed += 1
            continue
        report = validate_records(records, schema, path, args.max_span_width)
        for line in folded(report.errors):
            print(f"error: {line}")
        for line in folded(report.warnings):
            print(f"warning: {line}")
        found = {"record": records, "error": report.errors, "warning": report.warnings}
        counts = (f"{len(items)} {name}{'' if len(items) == 1 else 's'}" for name, items in found.items())
        print(f"{path}: {', '.join(counts)}")
        failed += bool(report.errors)
        if not report.errors:
            _print_counts(records, schema)
            sound[path] = records
    for problem in shared_sentences(sound):
        print(f"warning: {problem}")
    if args.page is not None and sound:
        from modeling_aspert.visualization import visualize

        drawn = [record for records in sound.values() for record in records]
        visualize(drawn, args.page, ", ".join(sound), schema.symmetric_relations if schema else ())
        print(f"{len(drawn)} records drawn in {args.page}")
    if failed:
        raise ValueError(f"files with errors: {failed} of {len(args.data)}")


def split(args: Namespace) -> None:
    folder = Path(args.output)
    shares = {"train": 1 - args.dev - args.test, "dev": args.dev, "test": args.test}
    files = {name: folder / f"{name}.json" for name, share in shares.items() if share or name == "train"}
    types_file = folder / "types.json"
    keep_types = args.types is not None and os.path.realpath(args.types) == os.path.realpath(types_file)
    for file in (*files.values(), *(() if keep_types else (types_file,))):
        if file.exists():
            raise FileExistsError(f"{file} is there already, and would be overwritten: name another folder")
    check_writable(files["train"])
    with _all_problems():
        schema = LabelSchema.from_file(args.types) if args.types else None
        records = read_records(args.data)
        report = validate_records(records, schema, args.data)
        report.raise_for_errors()
    if schema is None:
        schema = LabelSchema.from_records(records)
        if not schema.entity_types:
            raise ValueError(
                f"{args.data}: no entities, and so no types: annotate some, or name a types file (--types)"
            )
    try:
        splits = split_records(records, dev=args.dev, test=args.test, by=args.by, seed=args.seed)
    except ValueError as error:
        raise ValueError(f"{args.data}: {error}") from None
    named = {str(files[name]): part for name, part in splits.items()}
    for line in (*folded(report.warnings), *shared_sentences(named), *untrained_types(named)):
        print(f"warning: {line}", file=sys.stderr)
    for name, part in splits.items():
        share = len(part) / len(records)
        if name != "train" and abs(share - shares[name]) > shares[name] / 2:
            print(
                f"warning: {files[name]}: {share:.0%} of the records, not {shares[name]:.0%}: the {args.by}s are few or large; "
                f"{'add data' if args.by == 'sentence' else 'split by sentence, or add data'}",
                file=sys.stderr,
            )
    if args.types is None and schema.relation_types:
        print(
            f"warning: {types_file}: no relation is symmetric; name a types file that says which are", file=sys.stderr
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
            for name, part in splits.items():
                write_records(Path(temporary, files[name].name), part)
            if args.types is None:
                schema.to_file(Path(temporary, types_file.name))
            elif not keep_types:
                shutil.copyfile(args.types, Path(temporary, types_file.name))
            for file in sorted(Path(temporary).iterdir()):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror or error})") from error
    for name, part in splits.items():
        print(f"{files[name]}: {len(part)} of {len(records)} records")
        _print_counts(part, schema)


def convert(args: Namespace) -> None:
    if args.language is not None and not args.split_sentences:
        raise ValueError(f"--language {args.language} is for --split-sentences: add it, or leave the language out")
    splitter = None
    if args.split_sentences:
        from modeling_aspert.documents import split_sentences

        splitter = partial(split_sentences, language=args.language or "en")
    with _all_problems():
        conversion = converters.convert(
            args.source_format, args.input, args.output, args.types_output, args.symmetric or (), splitter
        )
    for line in folded(conversion.warnings):
        print(f"warning: {line}", file=sys.stderr)
    entities = sum(len(record["entities"]) for record in conversion.records)
    relations = sum(len(record["relations"]) for record in conversion.records)
    print(f"{args.output}: {len(conversion.records)} sentences, {entities} entities, {relations} relations")
    _print_counts(conversion.records, None)
