"""Extracted entities and relations as one HTML page that needs nothing else: no network, no fonts, no other script.

The page draws in the browser (``page.js``) from JSON that is embedded in it. Whatever comes from a record reaches the
document as JSON and then as text nodes, or through an autoescaping template, and a content security policy lets no
other script or style run and nothing be loaded: hostile text is shown, not obeyed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from .files import write_bytes

_FOLDER = Path(__file__).parent


class Page:
    """A rendered page. ``html`` is the whole document; a notebook shows it in a sandboxed frame."""

    def __init__(self, html: str, height: int = 600):
        """``height``: of the frame in a notebook, in CSS pixels."""
        self.html = html
        self.height = height

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the page, whole or not at all, and makes the folders above it. Returns the path."""
        # A lone surrogate has no UTF-8; as a character reference the browser shows U+FFFD for it.
        write_bytes(path, self.html.encode("utf-8", errors="xmlcharrefreplace"))
        return Path(path)

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts" title="Entities and relations" '
            f'style="width:100%;height:{self.height}px;border:0;resize:vertical"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Page({len(self.html):,} characters of HTML; save(path) writes it)"


def visualize(
    records: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    path: str | os.PathLike | None = None,
    title: str = "Entities and relations",
    symmetric_relations: Collection[str] = (),
) -> Page:
    """A page with every sentence drawn: entities underlined, relations as arcs, filters, search, scores on hover.

    Args:
        records: one record or several, with characters (``text``) or words (``tokens``, joined by spaces); gold
            records without scores are fine.
        path: where to write the page; None only returns it.
        title: shown on top and in the browser's tab.
        symmetric_relations: relation types drawn without an arrowhead.

    Raises:
        ValueError: for a record in neither format or with offsets outside its text; nothing is written then.
    """
    if isinstance(records, Mapping):
        records = [records]
    sentences = [character_record(record, f"record {number}") for number, record in enumerate(records)]
    page = render_page("visualization.html.jinja", title, sentences, symmetric_relations)
    if path is not None:
        page.save(path)
    return page


def character_record(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record with characters from one with characters or words, checked.

    Returns ``id`` (or None), ``text``, ``entities`` with ``type``, ``start``, ``end`` (characters) and ``score`` (or
    None), ``relations`` with ``type``, ``head``, ``tail`` (positions in ``entities``) and ``score``.

    Raises:
        ValueError: names ``where`` (the record), the item and the value.
    """
    if not isinstance(record, Mapping) or not ("text" in record or "tokens" in record):
        raise ValueError(f"{where} has neither `text` nor `tokens`; give a mapping with one of them.")
    if "text" in record:
        text, unit = record["text"], "characters"
        if not isinstance(text, str):
            raise ValueError(f"{where}: text is {text!r}, not a string.")
        starts, ends, limit = range(len(text) + 1), range(len(text) + 1), len(text)
    else:
        tokens, unit = record["tokens"], "words"
        is_list = isinstance(tokens, Collection) and not isinstance(tokens, str)
        if not is_list or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{where}: tokens is not a list of strings.")
        text, limit = " ".join(tokens), len(tokens)
        ends = list(accumulate((len(token) + 1 for token in tokens), initial=0))
        starts, ends = ends, [end - 1 for end in ends]

    entities = []
    for number, entity in enumerate(_items(record, "entities", where)):
        place = f"{where}, entity {number}"
        start, end = _field(entity, "start", int, place), _field(entity, "end", int, place)
        if not 0 <= start < end <= limit:
            raise ValueError(f"{place}: {start}–{end} is no span of a text of {limit} {unit}; need 0 ≤ start < end.")
        char_start, char_end = starts[start], ends[end]
        if char_start >= char_end:
            raise ValueError(f"{place}: the words {start}–{end} are empty strings; remove the entity or the words.")
        name = _field(entity, "type", str, place)
        entities.append({"type": name, "start": char_start, "end": char_end, "score": _score(entity, place)})
    relations = []
    for number, relation in enumerate(_items(record, "relations", where)):
        place = f"{where}, relation {number}"
        head, tail = _field(relation, "head", int, place), _field(relation, "tail", int, place)
        for name, value in (("head", head), ("tail", tail)):
            if not 0 <= value < len(entities):
                raise ValueError(f"{place}: {name} {value} is not one of the {len(entities)} entities (from 0).")
        name = _field(relation, "type", str, place)
        relations.append({"type": name, "head": head, "tail": tail, "score": _score(relation, place)})
    record_id = next((record[key] for key in ("id", "orig_id") if record.get(key) is not None), None)
    return {
        "id": None if record_id is None else str(record_id),
        "text": text,
        "entities": entities,
        "relations": relations,
    }


def render_page(
    template: str,
    title: str,
    sentences: list[dict[str, Any]],
    symmetric_relations: Collection[str] = (),
    **context: Any,
) -> Page:
    """A page from a template of this folder; ``sentences`` as :func:`character_record` gives them.

    Items may also carry ``label`` (drawn in place of the type), ``kind`` (an outcome: colour and line), ``gold`` and
    ``predicted`` (types or None): see ``error_analysis.py``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script, style = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    counts = {
        part: Counter(item["type"] for sentence in sentences for item in sentence[part])
        for part in ("entities", "relations")
    }
    data = {
        "sentences": [_utf16(sentence) for sentence in sentences],
        "types": {part: [name for name, _ in counter.most_common()] for part, counter in counts.items()},
        "symmetric": sorted(symmetric_relations),
    }
    html = environment.get_template(template).render(
        title=title,
        totals={part: counter.total() for part, counter in counts.items()},
        sentences=len(sentences),
        has_scores=any(
            item["score"] is not None
            for sentence in sentences
            for part in ("entities", "relations")
            for item in sentence[part]
        ),
        data=_json_for_html(data),
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'",
        **context,
    )
    return Page(html, height=min(240 + 190 * len(sentences), 720))


def _items(record: Mapping[str, Any], name: str, where: str) -> Iterable[Any]:
    """The record's entities or relations; none where it has no such field."""
    items = record.get(name)
    if items is None:
        return ()
    if not isinstance(items, Iterable):
        raise ValueError(f"{where}: {name} is {items!r}, not a list.")
    return items


def _field(item: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    value = item.get(name) if isinstance(item, Mapping) else None
    if kind is str and isinstance(value, str):
        return value
    if kind is int and hasattr(value, "__index__"):
        return value.__index__()
    raise ValueError(f"{place}: {name} is {value!r}, not {'a string' if kind is str else 'an integer'}.")


def _score(item: Mapping[str, Any], place: str) -> float | None:
    score = item.get("score")
    if score is None:
        return None
    try:
        score = float(score)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError(f"{place}: score is {item['score']!r}, not a number from 0 to 1.")
    return score


def _utf16(sentence: dict[str, Any]) -> dict[str, Any]:
    """The sentence with entity offsets in UTF-16 units, which is how JavaScript counts."""
    text = sentence["text"]
    if not text or max(text) <= "\uffff":
        return sentence
    offsets = list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))
    entities = [
        {**entity, "start": offsets[entity["start"]], "end": offsets[entity["end"]]} for entity in sentence["entities"]
    ]
    return {**sentence, "entities": entities}


def _json_for_html(data: Any) -> Markup:
    """JSON in ASCII (so U+2028, U+2029 and lone surrogates are escapes) that cannot close or open an element."""
    content = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")
