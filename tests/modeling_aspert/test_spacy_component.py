"""The spaCy component: tokens as words, sentences, batches, options, and what is left after saving a Doc."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tiny import make_model, make_processor

from modeling_aspert import ExtractionOptions, Extractor
from modeling_aspert.export import open_writer
from modeling_aspert.extraction import Sentence

spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
from spacy.tokens import Doc, DocBin, Span  # noqa: E402

from modeling_aspert.spacy_component import AspertComponent, create_component  # noqa: E402

TEXTS = [
    "Ada Lovelace worked for Analytical Engines in London. Marie married Pierre in Paris.",
    "",
    "Rain.",
    "Marie  married\n\nPierre \t in Paris , un happiness Stop",
    " \n ",
    "Don't stop: Ada's in London (the fox jumps over). \U0001f98a Stop",
]
THRESHOLD = 0.3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(path)
    make_processor().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def nlp(folder):
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("aspert", config={"model": folder, "device": "cpu", "relation_threshold": THRESHOLD})
    return pipeline


@pytest.fixture(scope="module")
def extractor():
    return Extractor(make_model(), make_processor(), ExtractionOptions(relation_threshold=THRESHOLD))


def as_numbers(doc):
    entities = [(span.label_, span.start, span.end) for span in doc.spans["aspert"]]
    relations = [(r.type, r.head.start, r.head.end, r.tail.start, r.tail.end) for r in doc._.relations]
    scores = [*doc.spans["aspert"].attrs["scores"], *(relation.score for relation in doc._.relations)]
    return entities, relations, scores


def assert_same(numbers, others):
    assert numbers[:2] == others[:2]
    # other batches sum in another order
    assert numbers[2] == pytest.approx(others[2], abs=1e-5)


def expected(extractor, doc, sentences):
    """From the extractor itself. ``sentences``: the tokens of each, written down by the caller."""
    entities, relations, scores, relation_scores = [], [], [], []
    for tokens in sentences:
        [annotation] = extractor.annotate([Sentence([doc[i].text for i in tokens])])
        spans = [(tokens[entity["start"]], tokens[entity["end"] - 1] + 1) for entity in annotation["entities"]]
        entities += [(entity["type"], *span) for entity, span in zip(annotation["entities"], spans)]
        relations += [(r["type"], *spans[r["head"]], *spans[r["tail"]]) for r in annotation["relations"]]
        scores += [entity["score"] for entity in annotation["entities"]]
        relation_scores += [relation["score"] for relation in annotation["relations"]]
    return entities, relations, scores + relation_scores


def test_words_are_spacys_tokens_and_sentences_are_spacys(nlp, extractor):
    doc = nlp(TEXTS[0])
    first = [token.text for token in doc].index("Marie")
    wanted = expected(extractor, doc, [list(range(first)), list(range(first, len(doc)))])
    assert wanted[0] and wanted[1], "the tiny model finds nothing: choose other texts"
    assert_same(as_numbers(doc), wanted)


def test_white_space_is_no_word_but_offsets_count_it(nlp, extractor):
    doc = nlp(TEXTS[3])
    tokens = [token.i for token in doc if not token.is_space]
    assert len(tokens) < len(doc)
    assert_same(as_numbers(doc), expected(extractor, doc, [tokens]))
    assert any(span.text in TEXTS[3] and "\n" in span.text for span in doc.spans["aspert"])


@pytest.mark.parametrize("split", [True, False], ids=["nobody split", "not wanted"])
def test_without_sentences_the_doc_is_one(folder, extractor, split):
    pipeline = spacy.blank("en")
    if not split:
        pipeline.add_pipe("sentencizer")
    settings = {"model": folder, "relation_threshold": THRESHOLD, "split_sentences": split}
    pipeline.add_pipe("aspert", config=settings)
    doc = pipeline(TEXTS[0])
    assert_same(as_numbers(doc), expected(extractor, doc, [list(range(len(doc)))]))


def test_pipe_gives_the_same_in_order_whatever_the_batch(nlp):
    alone = [nlp(text) for text in TEXTS * 2]
    for size in (1, 2, 100):
        together = list(nlp.pipe(TEXTS * 2, batch_size=size))
        assert [doc.text for doc in together] == TEXTS * 2
        for doc, same in zip(together, alone):
            assert_same(as_numbers(doc), as_numbers(same))
    for doc in (alone[1], alone[4]):
        assert len(doc.spans["aspert"]) == 0 and doc._.relations == []


def test_long_docs_are_read_in_windows(nlp):
    doc = nlp("Marie married Pierre in Paris , un happiness Ada worked for London " * 11)
    assert len(doc) > make_processor().max_tokens
    assert min(span.start for span in doc.spans["aspert"]) < 12
    assert max(span.end for span in doc.spans["aspert"]) > len(doc) - 12


def test_relations_are_spans_of_the_group(nlp):
    doc = nlp(TEXTS[0])
    group = list(doc.spans["aspert"])
    assert doc._.relations
    for relation in doc._.relations:
        assert isinstance(relation.head, Span) and relation.head in group and relation.tail in group
        assert relation.type in ("works-for", "lives-in", "married-to") and THRESHOLD <= relation.score <= 1
    assert doc._.relations[0].head.doc is doc


def test_what_is_stored_is_plain_and_survives(nlp, tmp_path):
    doc = nlp(TEXTS[0])
    stored = doc.user_data["._.", "relations", None, None]
    assert json.loads(json.dumps(stored)) == stored
    assert json.loads(json.dumps(doc.spans["aspert"].attrs)) == doc.spans["aspert"].attrs
    wanted = as_numbers(doc)
    doc.to_disk(tmp_path / "doc")
    box = DocBin(store_user_data=True, docs=[doc])
    again = [
        Doc(nlp.vocab).from_bytes(doc.to_bytes()),
        Doc(nlp.vocab).from_disk(tmp_path / "doc"),
        next(iter(DocBin().from_bytes(box.to_bytes()).get_docs(nlp.vocab))),
        doc.copy(),
    ]
    for other in again:
        assert_same(as_numbers(other), wanted)
        assert all(relation.head.doc is other for relation in other._.relations)


def test_files_of_the_writer_read_the_same(nlp, tmp_path):
    record = {
        "text": "Ada in London",
        "entities": [
            {"id": 0, "type": "Person", "text": "Ada", "start": 0, "end": 3, "score": 0.75},
            {"id": 1, "type": "Place", "text": "London", "start": 7, "end": 13, "score": 0.5},
        ],
        "relations": [{"type": "lives-in", "head": 0, "tail": 1, "score": 0.25}],
    }
    with open_writer(tmp_path / "docs.spacy", "spacy") as writer:
        writer.write(record)
    [doc] = DocBin().from_disk(tmp_path / "docs.spacy").get_docs(nlp.vocab)
    [relation] = doc._.relations
    assert (relation.head.text, relation.type, relation.tail.text, relation.score) == (
        "Ada",
        "lives-in",
        "London",
        0.25,
    )


def test_a_saved_pipeline_comes_back_with_its_settings(nlp, tmp_path):
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert again.get_pipe("aspert").extractor.options == nlp.get_pipe("aspert").extractor.options
    assert_same(as_numbers(again(TEXTS[0])), as_numbers(nlp(TEXTS[0])))


def test_options_reach_the_extractor(folder):
    settings = {
        "relation_threshold": {"lives-in": 0.9},
        "entity_threshold": 0.25,
        "entity_overlap": "flat",
        "batch_size": 3,
        "stride": 5,
        "split_sentences": False,
    }
    component = spacy.blank("en").add_pipe("aspert", config={"model": folder, **settings})
    assert isinstance(component, AspertComponent)
    assert component.extractor.options == ExtractionOptions(**settings)
    doc = component(spacy.blank("en").make_doc(TEXTS[0]))
    spans = sorted((span.start, span.end) for span in doc.spans["aspert"])
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "missing required argument: 'model'"),
        ({"entity_overlap": "none"}, "entity_overlap = 'none' is not valid: it must be allow or flat"),
        ({"entity_threshold": 1.5}, r"entity_threshold = 1.5 is not valid: it must be a number in \[0, 1\]"),
        ({"batch_size": "many"}, "batch_size"),
        ({"revision": "v1"}, "revision v1 is for a Hub name, but .* is a folder: leave it out"),
        ({"relation_treshold": 0.5}, "unexpected argument: 'relation_treshold'"),
    ],
)
def test_bad_settings_are_named(folder, settings, message):
    given = {"model": folder, **settings} if settings else {}
    with pytest.raises(ValueError, match=message):
        spacy.blank("en").add_pipe("aspert", config=given)


def test_a_missing_folder_and_a_broken_one_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="^/no/such/model: no such folder$"):
        spacy.blank("en").add_pipe("aspert", config={"model": "/no/such/model"})
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=f"^{tmp_path}/config.json: model_type = 'bert', not 'aspert'"):
        spacy.blank("en").add_pipe("aspert", config={"model": str(tmp_path)})


def test_a_second_component_is_refused(folder):
    pipeline = spacy.blank("en")
    pipeline.add_pipe("aspert", name="first", config={"model": folder})
    with pytest.raises(ValueError, match="^the component 'second' would replace what 'first' writes in doc.spans"):
        pipeline.add_pipe("aspert", name="second", config={"model": folder})
    pipeline.replace_pipe("first", "aspert", config={"model": folder})
    assert pipeline.pipe_names == ["first"]


def test_the_import_alone_declares_the_relations():
    code = (
        "import modeling_aspert.spacy_component; from spacy.tokens import Doc; print(Doc.has_extension('relations'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_another_librarys_relations_are_left_alone(folder):
    kept = Doc.get_extension("relations") if Doc.has_extension("relations") else None
    try:
        Doc.set_extension("relations", default="theirs", force=True)
        with pytest.raises(ValueError, match="another library has registered doc._.relations"):
            spacy.blank("en").add_pipe("aspert", config={"model": folder})
        Doc.remove_extension("relations")
        Doc.set_extension("relations", getter=lambda doc: "theirs", force=True)
        with pytest.raises(ValueError, match="another library has registered doc._.relations"):
            spacy.blank("en").add_pipe("aspert", config={"model": folder})
        assert spacy.blank("en")("x")._.relations == "theirs"
        Doc.remove_extension("relations")
        # what the writer of spaCy files registers
        Doc.set_extension("relations", default=[])
        spacy.blank("en").add_pipe("aspert", config={"model": folder})
    finally:
        if kept is not None:
            _, _, getter, setter = kept
            Doc.set_extension("relations", getter=getter, setter=setter, force=True)


def test_the_entry_point_of_the_package_is_the_factory():
    from configparser import ConfigParser
    from pathlib import Path

    settings = ConfigParser()
    settings.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    [line] = settings["options.entry_points"]["spacy_factories"].strip().splitlines()
    name, value = (part.strip() for part in line.split("="))
    assert name == "aspert"
    assert EntryPoint(name, value, "spacy_factories").load() is create_component
