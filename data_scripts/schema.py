"""The labels of a data set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from .problems import DataError, Problem
from .reading import json_type, not_an_object, read_json
from .writing import write_json

NONE_TYPE = "none"  # as in modeling_aspert, where it is the class of spans that are no entity


@dataclass(frozen=True)
class LabelSchema:
    """Entity and relation types in the order of their ids, the symmetric relation types, and texts for people.

    `descriptions` maps a type to its long name; a type without one is described by its own name. Raises `ValueError`
    for types given twice and for symmetric types that are no relation types, `TypeError` for a string of types.
    """

    entity_types: tuple[str, ...]
    relation_types: tuple[str, ...] = ()
    symmetric_relations: tuple[str, ...] = ()
    descriptions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("entity_types", "relation_types", "symmetric_relations"):
            types = getattr(self, name)
            if isinstance(types, str):
                raise TypeError(f"{name} = {types!r} is a string, not a tuple of types; write ({types!r},)")
            if len(set(types)) < len(types):
                raise ValueError(f"{name} holds a type more than once: {types}; keep one of each")
        relation_types = set(self.relation_types)
        strangers = [name for name in self.symmetric_relations if name not in relation_types]
        if strangers:
            raise ValueError(f"symmetric_relations holds {strangers}, which are not among the relation_types")

    @property
    def labels(self) -> dict[str, list[str]]:
        """The types under the names that a model's configuration has for them."""
        names = ("entity_types", "relation_types", "symmetric_relations")
        return {name: list(getattr(self, name)) for name in names}

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> LabelSchema:
        """Read a types file in SpERT's format.

        `{"entities": {NAME: {"short", "verbose"}}, "relations": {NAME: {"short", "verbose", "symmetric"}}}`, where
        `short` and `verbose` may be left out, and `symmetric` is false if left out; `short` is not kept. Raises
        `DataError` with every problem of the file.
        """
        return _TypesFile(str(path), read_json(path)).schema()

    @classmethod
    def from_records(cls, records: Iterable[dict[str, Any]], symmetric_relations: Sequence[str] = ()) -> LabelSchema:
        """Infer the types of records, in the order of their first appearance.

        Records cannot tell which relations are symmetric: name them. Raises `ValueError` if one of these is not used,
        and `DataError` with every place where no type can be read; `validate_records` checks the rest.
        """
        types: dict[str, dict[str, None]] = {"entities": {}, "relations": {}}
        problems: list[Problem] = []
        for index, record in enumerate(records):
            found = list(_unreadable_types(index, record))
            problems.extend(found)
            if not found:
                for kind, names in types.items():
                    names.update(dict.fromkeys(item["type"] for item in record[kind]))
        if problems:
            raise DataError(problems)
        return cls(tuple(types["entities"]), tuple(types["relations"]), tuple(symmetric_relations))

    def to_file(self, path: str | PathLike[str]) -> None:
        """Write a types file in SpERT's format, whole or not at all; `short` is the type's name. Raises `OSError`."""
        write_json(path, self._content())

    def add_to_file(self, path: str | PathLike[str]) -> None:
        """Add what a types file lacks: types, and that a relation is symmetric. The rest of its entries stays.

        The file is written whole or left as it was. Raises `OSError`, and `DataError` where it cannot be read.
        """
        content = read_json(path)
        _TypesFile(str(path), content).schema()  # raises
        for kind, entries in self._content().items():
            for name, entry in entries.items():
                known = content[kind].setdefault(name, entry)
                if entry.get("symmetric"):
                    known["symmetric"] = True
        write_json(path, content)

    def _content(self) -> dict[str, dict[str, dict[str, Any]]]:
        symmetric = set(self.symmetric_relations)
        entities = {name: {"short": name, "verbose": self.describe(name)} for name in self.entity_types}
        relations = {
            name: {"short": name, "verbose": self.describe(name), "symmetric": name in symmetric}
            for name in self.relation_types
        }
        return {"entities": entities, "relations": relations}

    def describe(self, name: str) -> str:
        """Return the long name of a type."""
        return self.descriptions.get(name, name)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that an unknown one was probably meant to be."""
    for other in known:
        if other.casefold() == name.casefold():
            return other
    near = difflib.get_close_matches(name[:100], known, n=1)  # its time grows with the square of the length
    return near[0] if near else None


def label_problem(name: Any, kind: str) -> tuple[str, str] | None:
    """Return what is wrong with a value that should be the name of a type of entities or relations (`kind`: "entity" or
    "relation"), and the mend; None if nothing is."""
    if not isinstance(name, str):
        return f"{json_type(name)}, not a string", "write the type's name"
    if not name.strip():
        return "an empty name", "write the type's name"
    if not name.isprintable():  # control characters, lone surrogates
        return "a name with characters that cannot be printed", "leave them out"
    if kind == "entity" and name == NONE_TYPE:
        return "a reserved name, of spans that are no entity", "give the type another name"
    return None


def _unreadable_types(index: int, record: Any) -> Iterator[Problem]:
    """Yield the problems of a record in which the types of its entities and relations cannot be read."""
    if not isinstance(record, dict):
        yield not_an_object("records", index, record)
        return

    def problem(place: str, problem: str, mend: str, **value: Any) -> Problem:
        orig_id = record.get("orig_id")
        return Problem(file="records", record=index, orig_id=orig_id, field=place, problem=problem, mend=mend, **value)

    for kind in ("entities", "relations"):
        if kind not in record:
            yield problem(kind, "the key is missing", "add it with [] if there are none")
            continue
        items = record[kind]
        if not isinstance(items, list):
            yield problem(kind, f"{json_type(items)}, not a list", "write [] if there are none", value=items)
            continue
        for i, item in enumerate(items):
            place = f"{kind}[{i}]"
            if not isinstance(item, dict):
                yield problem(place, f"{json_type(item)}, not an object", "write an object with type", value=item)
            elif "type" not in item:
                yield problem(f"{place}.type", "the key is missing", "add the type's name")
            elif not isinstance(item["type"], str):
                name = item["type"]
                yield problem(f"{place}.type", f"{json_type(name)}, not a string", "write the type's name", value=name)


class _TypesFile:
    """Checks the content of a types file and turns it into a `LabelSchema`."""

    KEYS = {"entities": {"short": str, "verbose": str}, "relations": {"short": str, "verbose": str, "symmetric": bool}}

    def __init__(self, file: str, content: Any):
        self.file = file
        self.content = content
        self.problems: list[Problem] = []

    def schema(self) -> LabelSchema:
        if self._is_object(self.content, "types"):
            for key in self.content:
                if key not in self.KEYS:
                    self._add(key, "an unknown key", 'leave it out; only "entities" and "relations" are read')
            for kind in self.KEYS:
                self._check_kind(kind)
        if self.problems:
            raise DataError(self.problems)
        entities, relations = self.content["entities"], self.content["relations"]
        specifications = [*entities.items(), *relations.items()]
        return LabelSchema(
            entity_types=tuple(entities),
            relation_types=tuple(relations),
            symmetric_relations=tuple(name for name, spec in relations.items() if spec.get("symmetric", False)),
            descriptions={name: spec["verbose"] for name, spec in specifications if "verbose" in spec},
        )

    def _check_kind(self, kind: str) -> None:
        if kind not in self.content:
            self._add(kind, "the key is missing", f'add "{kind}": {{}}')
            return
        types = self.content[kind]
        if not self._is_object(types, kind):
            return
        if kind == "entities" and not types:
            self._add(kind, "there is no entity type", "add one")
        for name, spec in types.items():
            problem = label_problem(name, "entity" if kind == "entities" else "relation")
            if problem:
                self._add(f"{kind}.{name}", *problem)
            if self._is_object(spec, f"{kind}.{name}"):
                self._check_type(kind, name, spec)

    def _check_type(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        expected = self.KEYS[kind]
        for key, value in spec.items():
            field_name = f"{kind}.{name}.{key}"
            if key not in expected:
                self._add(field_name, "an unknown key", f"leave it out, or write one of {', '.join(expected)}")
            elif not isinstance(value, expected[key]):
                kind_name = "boolean" if expected[key] is bool else "string"
                self._add(field_name, f"{json_type(value)}, not a {kind_name}", f"write a {kind_name}")
        if kind == "relations" and isinstance(self.content.get("entities"), dict):
            twin = self.content["entities"].get(name)
            if isinstance(twin, dict) and twin.get("verbose", name) != spec.get("verbose", name):
                problem = "the entity type of this name has another text"
                self._add(f"relations.{name}.verbose", problem, "give both the same text")

    def _is_object(self, value: Any, field_name: str) -> bool:
        if not isinstance(value, dict):
            self._add(field_name, f"{json_type(value)}, not an object", "write an object { }")
        return isinstance(value, dict)

    def _add(self, field_name: str, problem: str, mend: str) -> None:
        self.problems.append(Problem(file=self.file, field=field_name, problem=problem, mend=mend))
