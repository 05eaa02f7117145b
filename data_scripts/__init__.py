"""Data sets of words, entities and relations: loading, checking, converting, splitting and exporting. See docs/data.md."""

from typing import TYPE_CHECKING, Any

from .converters import Conversion, convert
from .problems import DataError, Problem, ValidationReport
from .reading import read_records
from .schema import LabelSchema
from .splitting import split_records, untrained_types
from .validation import shared_sentences, validate_records

if TYPE_CHECKING:
    from .builders import FEATURES, Ade, Conll04, Folder, Quickstart, Scierc
    from .exporting import export
    from .loading import CORPORA, load, load_schema

# what needs the library `datasets`, which takes long to import
_LAZY = {
    **dict.fromkeys(("FEATURES", "Ade", "Conll04", "Folder", "Quickstart", "Scierc"), "builders"),
    **dict.fromkeys(("CORPORA", "load", "load_schema"), "loading"),
    "export": "exporting",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "CORPORA",
    "FEATURES",
    "Ade",
    "Conll04",
    "Conversion",
    "DataError",
    "Folder",
    "LabelSchema",
    "Problem",
    "Quickstart",
    "Scierc",
    "ValidationReport",
    "convert",
    "export",
    "load",
    "load_schema",
    "read_records",
    "shared_sentences",
    "split_records",
    "untrained_types",
    "validate_records",
]
