"""Splitting annotated records into training, development and test data."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .problems import Problem

UNITS = ("document", "sentence")


def split_records(
    records: Sequence[Mapping[str, Any]], *, dev: float = 0.1, test: float = 0.1, by: str = "document", seed: int = 0
) -> dict[str, list[Any]]:
    """Split records into "train", "dev" and "test", where a document is in one of them as a whole.

    The names of the documents and the seed decide; the order of the records does not. Each split keeps that order.

    Args:
        records: sound records (see `validate_records`).
        dev, test: about what share of the records each gets, from 0 (no such split) to below 1; train gets the rest.
        by: what is kept together: "document", records whose orig_id is the same string up to the number after its last `_`
            (as `convert` writes it for texts and DyGIE), or "sentence", records with the same words. Records that are of no
            such document go by their words.
        seed: another one gives other splits.

    Raises:
        ValueError: shares that leave nothing to train on, an unknown unit, or fewer documents or sentences than splits.
    """
    if min(dev, test) < 0 or not dev + test < 1:
        raise ValueError(f"dev = {dev} and test = {test} are not valid: each must be >= 0, and their sum below 1")
    if by not in UNITS:
        raise ValueError(f"by = {by!r} is not valid: use one of {', '.join(UNITS)}")
    groups = _groups(records, by)
    shares = {name: share for name, share in (("test", test), ("dev", dev)) if share}
    if len(groups) <= len(shares):
        sentences = len(_groups(records, "sentence"))
        mend = "split by sentence, or add data" if sentences > len(shares) else "add data"
        raise ValueError(
            f"{len(records)} records of {len(groups)} {by}{'' if len(groups) == 1 else 's'} cannot be split into "
            f"{len(shares) + 1} parts: {mend}"
        )
    waiting = sorted(groups, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    splits = {}
    for needed, (name, share) in zip(range(len(shares), 0, -1), shares.items()):
        wanted = share * len(records)
        chosen: list[int] = []
        for group in list(waiting):
            fits = len(chosen) + len(groups[group]) / 2 <= wanted
            if fits and len(waiting) > needed:
                chosen += groups[group]
                waiting.remove(group)
        if not chosen:
            smallest = min(waiting, key=lambda group: len(groups[group]))
            chosen = groups[smallest]
            waiting.remove(smallest)
        splits[name] = chosen
    splits["train"] = [number for group in waiting for number in groups[group]]
    return {name: [records[number] for number in sorted(splits[name])] for name in reversed(splits)}


def untrained_types(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> tuple[Problem, ...]:
    """Warnings of types that occur in a split, and not in the first one, which is trained on: they cannot be learnt."""
    types = {
        name: {
            (kind, item["type"]): None
            for record in records
            for kind in ("entities", "relations")
            for item in record[kind]
        }
        for name, records in splits.items()
    }
    train, *others = types
    return tuple(
        Problem(
            file=name,
            field=f"{kind}.type",
            value=type_name,
            problem=f"does not occur in {train}, and cannot be learnt",
            mend="annotate more of it, or split anew",
        )
        for name in others
        for kind, type_name in types[name]
        if (kind, type_name) not in types[train]
    )


def _groups(records: Sequence[Mapping[str, Any]], by: str) -> dict[str, list[int]]:
    """Return the numbers of the records that are kept together, by a name that does not depend on their order."""
    documents = [_document(record.get("orig_id")) for record in records]
    sizes = Counter(documents)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, (record, document) in enumerate(zip(records, documents)):
        alone = by == "sentence" or document is None or sizes[document] == 1
        groups["words " + " ".join(record["tokens"]) if alone else f"document {document}"].append(number)
    return groups


def _document(orig_id: str | int | None) -> str | None:
    return re.sub(r"_\d+$", "", orig_id) if isinstance(orig_id, str) else None
