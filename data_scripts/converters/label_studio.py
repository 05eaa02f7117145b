"""Label Studio's JSON export: tasks with labels and relations on a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from os import PathLike
from typing import Any

from ..problems import Problem
from .annotated_text import BrowserOffsets, SentenceSplitter
from .conversion import Conversion
from .text_records import Annotations, TextReader


def read_label_studio(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read tasks with `data` (the text in `text`, or in its only string) and `annotations`.

    A record is a line of the text, or a sentence, as of brat. Of a task's annotations the ground truth is taken, or the
    first that was not cancelled. Tasks without one are left out, and so are results that are neither labels of a text
    nor relations, and relations without a label; warnings count them. A relation in both directions is two. Offsets that
    count an emoji twice, as Label Studio's did until 2022, are counted anew where this gives the text that the label is
    said to hold. Raises `DataError` with every problem of the file.
    """
    reader = TextReader(str(path))
    without: list[str] = []
    several: list[str] = []
    others: Counter[str] = Counter()
    total = 0
    for name, task in reader.records():
        total += 1
        if "annotations" not in task:
            mend = "export as JSON (not JSON-MIN) from Label Studio 1.0 or later, which has it"
            reader.add("annotations", None, "the key is missing", mend)
            continue
        annotations = [item for _, item in reader.items("annotations", task["annotations"], dict)]
        valid = [one for one in annotations if not one.get("was_cancelled")]
        if not valid:
            without.append(name)
            continue
        if len(valid) > 1:
            several.append(name)
        chosen = next((one for one in valid if one.get("ground_truth")), valid[0])
        text = _text(reader, task.get("data"))
        if text is not None:
            field = f"annotations[{annotations.index(chosen)}].result"
            results = list(reader.items(field, chosen.get("result"), dict))
            reader.annotated(name, text, _annotations(text, results, others))
    if without and len(without) == total and not reader.problems:
        reader.problems.append(Problem(file=str(path), problem="no task was annotated", mend="annotate some"))
    elif without:
        problem = f"{len(without)} of {total} tasks were not annotated and are left out ({_some(without)})"
        reader.warnings.append(Problem(file=str(path), problem=problem, mend="annotate them, or go on without"))
    if several:
        problem = (
            f"{len(several)} of {total} tasks were annotated more than once ({_some(several)}): the ground truth is "
            "taken, or the first annotation"
        )
        reader.warnings.append(Problem(file=str(path), problem=problem, mend="mark the right one as ground truth"))
    for kind, count in others.items():
        problem = f"left out {count} {kind}"
        reader.warnings.append(Problem(file=str(path), problem=problem, mend="records have no place for them"))
    return reader.conversion(split_sentences)


def _text(reader: TextReader, data: Any) -> str | None:
    strings = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    if "text" in strings:
        return strings["text"]
    if len(strings) != 1:
        problem = f"has {len(strings)} strings ({', '.join(strings) or 'none'}), none of them called text"
        reader.add("data", data, problem, 'name the one that was annotated "text"')
        return None
    return next(iter(strings.values()))


def _annotations(text: str, results: list[tuple[str, dict[str, Any]]], others: Counter[str]) -> Annotations:
    found = Annotations([], [], set())
    read_offsets = _offsets_reader(text, [result.get("value") for _, result in results])
    regions: set[str] = set()
    for field, result in results:
        kind, value = result.get("type"), result.get("value")
        value = value if isinstance(value, dict) else {}
        labels = result.get("labels") if kind == "relation" else value.get("labels")
        labels = labels if isinstance(labels, list) else []
        if kind not in ("labels", "relation"):
            others[f"results of the type {kind}"] += 1
            if isinstance(result.get("id"), (str, int)):
                found.skipped.add(result["id"])
        elif kind == "relation" and not labels:
            others["relations without a label"] += 1
        elif kind == "labels":
            start, end, said = read_offsets(value)
            for number, label in enumerate(labels or [None]):
                # relations join the first label of a region, which may have some of several <Labels> tags
                identifier = result.get("id", field) if number == 0 else f"{field}.value.labels[{number}]"
                region = repr((identifier, start, end))
                identifier = field if region in regions else identifier
                regions.add(region)
                found.entities.append((field, result, identifier, label, start, end, said))
        else:
            head, tail = result.get("from_id"), result.get("to_id")
            directions = {"left": [(tail, head)], "bi": [(head, tail), (tail, head)]}
            for label in labels:
                for ends in directions.get(str(result.get("direction")), [(head, tail)]):
                    found.relations.append((field, result, field, label, *ends))
    return found


def _offsets_reader(text: str, values: list[Any]) -> Callable[[dict[str, Any]], tuple[Any, Any, str | None]]:
    """Return what gives start, end and text (None if it is as said) of a label of an annotation.

    Where `text` has an emoji, one way of counting may fit a label by chance: of the two, that is tried first which fits
    more of the labels.
    """
    browser = BrowserOffsets(text)

    def fits(value: Any, count: Callable[[Any], Any]) -> bool:
        start, end, said = (value.get(key) if isinstance(value, dict) else None for key in ("start", "end", "text"))
        start, end = count(start), count(end)
        if type(start) is not int or type(end) is not int or not isinstance(said, str):
            return False
        found = text[start:end]
        return 0 <= start < end <= len(text) and bool(found.strip()) and _spaced(said) == _spaced(found)

    ways = [lambda offset: offset, browser.characters]
    ways.sort(key=lambda count: sum(fits(value, count) for value in values), reverse=True)

    def read(value: dict[str, Any]) -> tuple[Any, Any, str | None]:
        for count in ways:
            if fits(value, count):
                return count(value["start"]), count(value["end"]), None
        return value.get("start"), value.get("end"), value.get("text")

    return read


def _spaced(text: str) -> str:
    # as the browser gives a selection: Label Studio writes its line breaks as a backslash and an n
    return re.sub(r"(?:\\n|\s)+", " ", text).strip()


def _some(names: list[str]) -> str:
    return "the first: " + ", ".join(names[:3])
