"""Output formats of annotated documents: brat's standoff files and spaCy's DocBin."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from .documents import split_words
from .record_writer import Record, Writer, sync


class BratWriter(Writer):
    """A folder for brat: NAME.txt and NAME.ann for each record, scores as notes.

    NAME is the record's id, percent-encoded but for letters, digits, - and _ ("0", "1", ... without an id or with an
    empty one; followed by .N, the record's number, where the name is taken or long). What lies beyond a tab or a line
    break is a further fragment of the entity, as brat wants it. brat's type names are made of A-Z, a-z, 0-9, - and _.
    """

    directory = True

    def _open(self, temporary: Path) -> None:
        temporary.mkdir()

    @classmethod
    def check_types(cls, entity_types: Iterable[str], relation_types: Iterable[str]) -> None:
        for name in (*entity_types, *relation_types):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"type {name!r} is no name in brat (A-Z, a-z, 0-9, - and _): rename the type")

    def _write(self, record: Record) -> None:
        self.check_types(
            [entity["type"] for entity in record["entities"]], [relation["type"] for relation in record["relations"]]
        )
        lines = []
        for index, entity in enumerate(record["entities"], start=1):
            fragments = list(_BRAT_FRAGMENT.finditer(record["text"], entity["start"], entity["end"]))
            offsets = ";".join(f"{fragment.start()} {fragment.end()}" for fragment in fragments)
            if not fragments:
                raise ValueError(f"entities[{index - 1}] is made of line breaks only, which brat cannot mark")
            text = " ".join(fragment.group() for fragment in fragments)
            lines.append(f"T{index}\t{entity['type']} {offsets}\t{text}\n")
        for index, relation in enumerate(record["relations"], start=1):
            ends = f"Arg1:T{relation['head'] + 1} Arg2:T{relation['tail'] + 1}"
            lines.append(f"R{index}\t{relation['type']} {ends}\n")
        scored = [(f"T{i}", item) for i, item in enumerate(record["entities"], start=1)]
        scored += [(f"R{i}", item) for i, item in enumerate(record["relations"], start=1)]
        notes = [(name, item["score"]) for name, item in scored if "score" in item]
        lines += [
            f"#{index}\tAnnotatorNotes {name}\tscore {score}\n" for index, (name, score) in enumerate(notes, start=1)
        ]
        name = self._name(record)
        for suffix, content in ((".txt", record["text"]), (".ann", "".join(lines))):
            with open(self._temporary / (name + suffix), "x", encoding="utf-8", newline="") as file:
                file.write(self._holdable(content))

    def _name(self, record: Record) -> str:
        identity = record["id"] if record.get("id") not in (None, "") else self.n_records
        name = quote(self._holdable(str(identity)), safe="").replace(".", "%2E").replace("~", "%7E")
        if len(name) > 200 or (self._temporary / f"{name}.txt").exists():
            name = f"{name[:200]}.{self.n_records}"
        return name

    def _finish(self) -> None: ...

    def _release(self) -> None: ...


# str.splitlines' line breaks, which readers of .ann files go by, and the tab, which separates its columns
_BRAT_FRAGMENT = re.compile(r"[^\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


class SpacyWriter(Writer):
    """A spaCy DocBin (needs the extra `spacy`): doc.spans["aspert"] with the scores in its attrs, doc._.relations.

    Words are those of `split_words`, cut at the borders of entities; doc.text is the text. The DocBin is kept in
    memory until it is closed, as spaCy has no other way. An id of more than 64 bits is refused.
    """

    def _open(self, temporary: Path) -> None:
        try:
            import spacy
            from spacy.tokens import Doc, DocBin, Span, SpanGroup
        except ImportError as error:
            raise ImportError("the format 'spacy' needs spaCy: pip install 'aspert[spacy]'") from error
        if not Doc.has_extension("relations"):
            Doc.set_extension("relations", default=[])
        self._doc, self._span, self._group = Doc, Span, SpanGroup
        self._vocab = spacy.blank("xx").vocab
        self._docs = DocBin(store_user_data=True)

    def _write(self, record: Record) -> None:
        text = self._holdable(record["text"])
        cuts = {0, len(text)}
        for item in record["entities"]:
            cuts |= {item["start"], item["end"]}
        for word in split_words(text):
            cuts |= set(word)
        borders = sorted(cuts)
        words, spaces, starts, ends = [], [], {}, {}
        for start, end in itertools.pairwise(borders):
            piece = text[start:end]
            starts[start] = len(words)
            # spaCy keeps one blank after a word as a flag of the word
            if piece.isspace() and piece[0] == " " and words and not spaces[-1] and not words[-1].isspace():
                spaces[-1], piece = True, piece[1:]
            if piece:
                words.append(piece)
                spaces.append(False)
            ends[end] = len(words)
        doc = self._doc(self._vocab, words=words, spaces=spaces)
        if doc.text != text:
            raise ValueError("spaCy does not give the text back")
        spans = [
            self._span(doc, starts[item["start"]], ends[item["end"]], label=self._holdable(item["type"]))
            for item in record["entities"]
        ]
        scores = [item.get("score") for item in record["entities"]]
        doc.spans["aspert"] = self._group(doc, name="aspert", spans=spans, attrs={"scores": scores})
        doc._.relations = [{**relation, "type": self._holdable(relation["type"])} for relation in record["relations"]]
        identity = record.get("id")
        if isinstance(identity, int) and not -(2**63) <= identity < 2**64:
            raise ValueError("id: an integer of more than 64 bits, which a DocBin cannot hold: give it as a string")
        if identity is not None:
            doc.user_data["id"] = self._holdable(identity) if isinstance(identity, str) else identity
        self._docs.add(doc)

    def _finish(self) -> None:
        self._docs.to_disk(self._temporary)
        sync(self._temporary)

    def _release(self) -> None: ...
