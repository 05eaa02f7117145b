"""The spaCy component "aspert": entities as the span group ``doc.spans["aspert"]``, relations as ``doc._.relations``.

``nlp.add_pipe("aspert", config={"model": "folder or Hub name"})``; needs the extra `spacy`. spaCy finds the factory
through an entry point, or once this module is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .extraction import ExtractionOptions, Extractor, Sentence
from .saved_models import load_saved

try:
    from spacy.language import Language
    from spacy.tokens import Doc, Span, SpanGroup
    from spacy.util import minibatch
except ImportError as error:
    raise ImportError("the component 'aspert' needs spaCy: pip install 'aspert[spacy]'") from error

NAME = "aspert"
# Where spaCy itself keeps the value of an extension named "relations": a Doc that was saved by `aspert predict --format
# spacy` reads the same, and one that was saved here can be read without this module.
_STORED = ("._.", "relations", None, None)


@dataclass(frozen=True)
class Relation:
    """A relation of ``doc._.relations``; head and tail are spans of ``doc.spans["aspert"]``."""

    head: Span
    tail: Span
    type: str
    score: float | None = None


class AspertComponent:
    """Annotates Docs, with spaCy's tokens as words and spaCy's sentences where there are any.

    ``doc.spans["aspert"]`` holds the entities, sorted by sentence, start and end; their scores, in that order, are in
    the group's ``attrs["scores"]``. ``doc._.relations`` is a list of :class:`Relation`; the Doc keeps it as plain
    numbers and strings, so that `to_disk`, `to_bytes` and `DocBin` work.

    Args:
        extractor: the model with its options; without ``split_sentences`` a Doc is taken as one sentence.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """``batch_size``: Docs that are read ahead; sentences are batched across them."""
        for docs in minibatch(stream, batch_size):
            docs = list(docs)
            sentences = [self._sentences(doc) for doc in docs]
            annotations = self.extractor.annotate(
                Sentence([doc[index].text for index in words])
                for doc, of_doc in zip(docs, sentences)
                for words in of_doc
            )
            for doc, of_doc in zip(docs, sentences):
                _annotate(doc, of_doc, annotations)
                yield doc

    def _sentences(self, doc: Doc) -> list[list[int]]:
        """The tokens of each sentence, but for white space, which is no word to the model."""
        split = self.extractor.options.split_sentences and doc.has_annotation("SENT_START")
        spans = doc.sents if split else [doc[:]]
        sentences = [[token.i for token in span if not token.is_space] for span in spans]
        return [words for words in sentences if words]


def _annotate(doc: Doc, sentences: Sequence[Sequence[int]], annotations: Iterator[dict[str, Any]]) -> None:
    spans, scores, relations = [], [], []
    for words in sentences:
        annotation = next(annotations)
        first = len(spans)
        for entity in annotation["entities"]:
            start, end = words[entity["start"]], words[entity["end"] - 1] + 1
            spans.append(Span(doc, start, end, label=entity["type"]))
            scores.append(entity["score"])
        for relation in annotation["relations"]:
            relations.append({**relation, "head": first + relation["head"], "tail": first + relation["tail"]})
    doc.spans[NAME] = SpanGroup(doc, name=NAME, spans=spans, attrs={"scores": scores})
    doc.user_data[_STORED] = relations


def _get_relations(doc: Doc) -> list[Relation]:
    stored = doc.user_data.get(_STORED, ())
    group = doc.spans[NAME] if stored else ()
    return [Relation(group[item["head"]], group[item["tail"]], item["type"], item.get("score")) for item in stored]


def _set_relations(doc: Doc, relations: Iterable[Any]) -> None:
    """Takes relations as they are stored: mappings whose head and tail are positions in ``doc.spans["aspert"]``."""
    doc.user_data[_STORED] = [dict(relation) for relation in relations]


def _register_relations() -> None:
    if Doc.has_extension("relations"):
        default, method, getter, setter = Doc.get_extension("relations")
        # the plain list of the writer of spaCy files may be replaced, it is stored in the same place
        if getter is not _get_relations and (default != [] or method or getter or setter):
            raise ValueError(
                "another library has registered doc._.relations with a meaning of its own: "
                'call Doc.remove_extension("relations") before adding "aspert"'
            )
    Doc.set_extension("relations", getter=_get_relations, setter=_set_relations, force=True)


@Language.factory(
    NAME,
    assigns=["doc.spans", "doc._.relations"],
    default_config={
        "revision": None,
        "device": None,
        "relation_threshold": None,
        "entity_threshold": None,
        "entity_overlap": None,
        "batch_size": 16,
        "stride": 64,
        "split_sentences": True,
    },
)
def create_component(
    nlp: Language,
    name: str,
    model: str,
    revision: str | None,
    device: str | None,
    relation_threshold: float | dict[str, float] | None,
    entity_threshold: float | None,
    entity_overlap: str | None,
    batch_size: int,
    stride: int,
    split_sentences: bool,
) -> AspertComponent:
    """The factory. A saved spaCy pipeline holds these settings, not the weights.

    Args:
        model: a folder with a saved model, or a Hub name; ``revision`` is its branch, tag or commit.
        device: "cpu", "cuda", ...; default: a GPU if there is one.
        relation_threshold, entity_threshold, entity_overlap, batch_size, stride: see :class:`ExtractionOptions`.
        split_sentences: False ignores spaCy's sentences.

    Raises:
        OSError: no such model; of a path, FileNotFoundError with the folder's name.
        ValueError: a setting out of range, a file of the model that is not what it should be, another component of
            this kind in the pipeline, or ``doc._.relations`` belongs to another library.
    """
    for other, factory in nlp.pipe_factories.items():
        if factory == NAME:
            raise ValueError(
                f"the component {name!r} would replace what {other!r} writes in doc.spans[{NAME!r}]: remove one of "
                "them, or use two pipelines"
            )
    options = ExtractionOptions(
        relation_threshold=relation_threshold,
        entity_threshold=entity_threshold,
        entity_overlap=entity_overlap,
        batch_size=batch_size,
        stride=stride,
        split_sentences=split_sentences,
    )
    _register_relations()
    network, processor = load_saved(model, revision=revision)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return AspertComponent(Extractor(network.to(device), processor, options))


if not Doc.has_extension("relations"):
    # for documents that were predicted elsewhere
    _register_relations()
