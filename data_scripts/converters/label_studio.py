"""Label Studio's JSON export: tasks with labels and relations on a text."""

from __future__ import annotations

from collections import Counter
from os import PathLike
from typing import Any

from ..problems import Problem
from ..reading import read_records
from .annotated_text import SentenceSplitter
from .conversion import Conversion
from .text_records import Annotations, TextReader


def read_label_studio(path: str | PathLike[str], split_sentences: SentenceSplitter | None = None) -> Conversion:
    """Read tasks with `data` (the text in `text`, or in its only string) and `annotations`.

    A record is a line of the text, or a sentence, as of brat. Of a task's annotations the ground truth is taken, or the
    first that was not cancelled. Tasks without one are left out, and so are results that are neither labels of a text
    nor relations, and relations without a label; warnings count them. A relation in both directions is two. Offsets that
    count UTF-16 units, as Label Studio's do in a text with an emoji, are counted anew where this gives the text that the
    label is said to hold. Raises `DataError` with every problem of the file.
    """
    reader = TextReader(str(path))
    tasks = read_records(path)
    without: list[Any] = []
    several: list[Any] = []
    others: Counter[str] = Counter()
    for index, task in enumerate(tasks):
        identifier = task.get("id", index)
        reader.place = {"record": index, "orig_id": identifier if isinstance(identifier, (str, int)) else None}
        if "annotations" not in task:
            reader.add("annotations", None, "the key is missing", "export as JSON (not JSON-MIN), which has it")
            continue
        annotations = [item for _, item in reader.items("annotations", task["annotations"], dict)]
        valid = [one for one in annotations if not one.get("was_cancelled")]
        if not valid:
            without.append(identifier)
            continue
        if len(valid) > 1:
            several.append(identifier)
        chosen = next((one for one in valid if one.get("ground_truth")), valid[0])
        text = _text(reader, task.get("data"))
        if text is not None:
            field = f"annotations[{annotations.index(chosen)}].result"
            results = list(reader.items(field, chosen.get("result"), dict))
            reader.annotated(str(identifier), text, _annotations(text, results, others))
    if without:
        problem = f"{len(without)} of {len(tasks)} tasks were not annotated and are left out ({_some(without)})"
        reader.warnings.append(Problem(file=str(path), problem=problem, mend="annotate them, or go on without"))
    if several:
        problem = (
            f"{len(several)} of {len(tasks)} tasks were annotated more than once ({_some(several)}): the ground truth is "
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
            start, end, said = (value.get(key) for key in ("start", "end", "text"))
            start, end = _offsets(text, start, end, said)
            for number, label in enumerate(labels or [None]):
                # relations join the first
                identifier = result.get("id", field) if number == 0 else f"{field}.value.labels[{number}]"
                found.entities.append((field, result, identifier, label, start, end, said))
        else:
            head, tail = result.get("from_id"), result.get("to_id")
            directions = {"left": [(tail, head)], "bi": [(head, tail), (tail, head)]}
            for label in labels:
                for ends in directions.get(result.get("direction"), [(head, tail)]):
                    found.relations.append((field, result, field, label, *ends))
    return found


def _offsets(text: str, start: Any, end: Any, said: Any) -> tuple[Any, Any]:
    """Return the offsets in characters, where they were counted in the 16-bit units of a browser."""
    if type(start) is not int or type(end) is not int or not isinstance(said, str) or text[start:end] == said:
        return start, end
    before, found = (
        text.encode("utf-16-le", "surrogatepass")[2 * first : 2 * last].decode("utf-16-le", "replace")
        for first, last in ((0, max(start, 0)), (max(start, 0), max(end, 0)))
    )
    return (len(before), len(before) + len(found)) if found == said else (start, end)


def _some(identifiers: list[Any]) -> str:
    return "the first: " + ", ".join(map(str, identifiers[:3]))
