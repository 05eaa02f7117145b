"""Converters of other formats into records in SpERT's format."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from ..reading import JSONL_SUFFIXES
from ..schema import LabelSchema, nearest
from ..validation import validate_records
from ..writing import write_records
from .annotated_text import SentenceSplitter
from .brat import brat_pairs, read_brat
from .conversion import Conversion
from .corp import read_corp
from .drug_ae import read_drug_ae
from .dygie import read_dygie
from .label_studio import read_label_studio
from .text_records import read_aspert, read_doccano

# texts with offsets of characters
_TEXT_FORMATS = {
    "brat": read_brat,
    "doccano": read_doccano,
    "label-studio": read_label_studio,
    "aspert": read_aspert,
}
FORMATS = {**_TEXT_FORMATS, "dygie": read_dygie, "drug-ae": read_drug_ae, "corp": read_corp}


def convert(
    source_format: str,
    input: str | PathLike[str],
    output: str | PathLike[str],
    types_output: str | PathLike[str] | None = None,
    symmetric_relations: Sequence[str] = (),
    split_sentences: SentenceSplitter | None = None,
) -> Conversion:
    """Convert a file (brat: a file pair or a folder) and write records, and their types if `types_output` is given.

    Args:
        source_format: `brat`, `doccano`, `label-studio` or `aspert` (what `aspert predict` writes): texts with offsets of
            characters; `dygie` (SciERC's JSONL), `drug-ae` (ADE's DRUG-AE.rel) or `corp` (CoNLL04).
        input: see the reader of the format.
        output: a `.json` file (a list) or a `.jsonl` file (a record a line).
        types_output: the types file; the types are in the order of their first appearance. One that is there grows by
            the types that it lacks, and so the conversions of train, dev and test can share it; what it says of its
            types stays, but that the `symmetric_relations` become symmetric. If nothing is new, it is left as it is.
        symmetric_relations: relation types to mark as symmetric in the types file.
        split_sentences: for texts, what gives the character offsets of the sentences of one: a record is then a sentence.
            Default: a record is a line.

    Returns:
        Records, types and the warnings of the reader and of `validate_records`.

    Raises:
        DataError: the input cannot be converted, or a types file that is there cannot be read; nothing is written then.
            The message names every problem's place.
        ValueError: an unknown format, an output of another kind, an output that is an input or the other output too,
            a symmetric relation that does not occur, or `split_sentences` for a format that has sentences.
        OSError: a file cannot be written; it is then left as it was. The types file is written after the records.
    """
    if source_format not in FORMATS:
        near = nearest(source_format, list(FORMATS))
        mend = f"did you mean {near!r}?" if near else f"use one of {', '.join(FORMATS)}"
        raise ValueError(f"{source_format!r} is no format to convert from; {mend}")
    if Path(output).suffix.lower() not in (".json", *JSONL_SUFFIXES):
        raise ValueError(f"the output {str(output)!r} is neither .json nor .jsonl; rename it")
    _refuse_overwriting(source_format, Path(input), *(path for path in (output, types_output) if path is not None))
    if split_sentences is None:
        conversion = FORMATS[source_format](input)
    elif source_format in _TEXT_FORMATS:
        conversion = _TEXT_FORMATS[source_format](input, split_sentences)
    else:
        raise ValueError(f"split_sentences does not go with {source_format}, whose sentences are given: leave it out")
    found = conversion.schema
    old = LabelSchema.from_file(types_output) if types_output is not None and Path(types_output).exists() else None
    base = old or found
    _check_symmetric(symmetric_relations, tuple(dict.fromkeys([*base.relation_types, *found.relation_types])))
    conversion.schema = replace(
        base,
        **{
            kind: tuple(dict.fromkeys([*getattr(base, kind), *getattr(found, kind), *more]))
            for kind, more in (
                ("entity_types", ()),
                ("relation_types", ()),
                ("symmetric_relations", symmetric_relations),
            )
        },
    )
    # records are counted anew: its problems must not seem to be of the records of the input
    report = validate_records(conversion.records, conversion.schema, f"{input}, converted")
    report.raise_for_errors()
    conversion.warnings.extend(report.warnings)
    write_records(output, conversion.records)
    if types_output is not None and old is None:
        conversion.schema.to_file(types_output)
    elif types_output is not None and conversion.schema != old:
        conversion.schema.add_to_file(types_output)
    return conversion


def _check_symmetric(names: Sequence[str], relation_types: tuple[str, ...]) -> None:
    for name in names:
        if name not in relation_types:
            near = nearest(name, relation_types)
            mend = f"did you mean {near!r}? There are" if near else "there are"
            raise ValueError(
                f"symmetric_relations (--symmetric) = {name!r} is no relation type of the data; {mend} "
                f"{', '.join(relation_types) or 'none'}"
            )


def _refuse_overwriting(source_format: str, input: Path, *outputs: str | PathLike[str]) -> None:
    read = [input]
    if source_format == "brat":
        read += itertools.chain.from_iterable(brat_pairs(input))
    taken = set(map(os.path.realpath, read))
    for output in outputs:
        if os.path.realpath(output) in taken:
            raise ValueError(f"{output} is an input or the other output too, which would be overwritten: rename it")
        taken.add(os.path.realpath(output))
