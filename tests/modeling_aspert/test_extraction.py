"""Sentences and texts to entities and relations: order, windows, given entities, offsets, the pipeline's forms."""

from __future__ import annotations

import copy
import json
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_model, make_processor
from transformers import pipeline

from modeling_aspert import (
    AspertForJointExtraction,
    ExtractionOptions,
    Extractor,
    JointExtractionDataset,
    JointExtractionPipeline,
    extraction,
)
from modeling_aspert.decoding import Predictions, decode
from modeling_aspert.documents import merge_windows, windows
from modeling_aspert.extraction import Sentence

WORDS = "Ada Lovelace worked for Analytical Engines in London and Paris , where Pierre married Marie .".split()
SENTENCES = [WORDS[:length] for length in (1, 16, 3, 9, 2, 12, 5, 16, 7)] + [WORDS[::-1], ["Stop"]]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture
def extract(model, processor):
    return JointExtractionPipeline(model=model, processor=processor)


def one_by_one(model, processor, words):
    """The definition: one sentence, all spans, no batch."""
    extractor = Extractor(model, processor)
    encoded = processor.encode([words])
    batch = extractor.collator.collate_candidates(encoded)
    word_spans = batch.pop("word_spans")
    with torch.inference_mode():
        output = model(**batch)
    return decode(output, word_spans, batch["span_mask"], model.config).annotation(model.config)


def rounded(annotation):
    return {
        part: [{**item, "score": pytest.approx(item["score"], abs=1e-5)} for item in annotation[part]]
        for part in ("entities", "relations")
    }


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("chunk", [2, 256])
def test_batches_do_not_change_results_or_order(model, processor, monkeypatch, batch_size, chunk):
    monkeypatch.setattr(extraction, "CHUNK_INPUTS", chunk)
    extractor = Extractor(model, processor, ExtractionOptions(batch_size=batch_size))
    results = list(extractor.annotate(map(Sentence, SENTENCES)))
    expected = [one_by_one(model, processor, words) for words in SENTENCES]
    assert sum(len(result["entities"]) for result in expected) > 20
    assert sum(len(result["relations"]) for result in expected) > 20
    assert results == [rounded(annotation) for annotation in expected]


def test_long_sentences_are_batched_by_fewer(model, processor, monkeypatch):
    monkeypatch.setattr(extraction, "_MAP_BUDGET", 2 * 30**2)
    extractor = Extractor(model, processor)
    sizes = []
    predict = extractor._predict
    monkeypatch.setattr(extractor, "_predict", lambda units: (sizes.append(len(units)), predict(units))[1])
    results = list(extractor.annotate(map(Sentence, SENTENCES)))
    assert max(sizes) < len(SENTENCES) and sum(sizes) == len(SENTENCES)
    assert results == [rounded(one_by_one(model, processor, words)) for words in SENTENCES]


@pytest.mark.parametrize(("with_maps", "sizes"), [(True, [2, 1]), (False, [3])])
def test_without_attention_maps_batches_are_larger(processor, monkeypatch, with_maps, sizes):
    """Three sentences of 18 sub-words: two have maps of 2 * 18^2 values; without maps three are within 3 * 18."""
    monkeypatch.setattr(extraction, "_MAP_BUDGET", 2 * 18**2)
    monkeypatch.setattr(extraction, "_TOKEN_BUDGET", 3 * 18)
    extractor = Extractor(make_model(attentional_contribution=with_maps), processor)
    predict, seen = extractor._predict, []
    monkeypatch.setattr(extractor, "_predict", lambda units: (seen.append(len(units)), predict(units))[1])
    words = ["Ada", *["a"] * 15]
    assert [sentence.num_tokens for sentence in processor.encode([words])] == [18]
    assert len(list(extractor.annotate([Sentence(words)] * 3))) == 3
    assert seen == sizes
    seen.clear()
    list(extractor.annotate([Sentence([*words, "a"])] * 3))
    assert seen == ([1, 1, 1] if with_maps else [2, 1])


@pytest.mark.parametrize("most", [64, None, 2000])
@pytest.mark.parametrize("with_maps", [True, False])
def test_attention_maps_bound_the_length_of_a_sentence(model, processor, monkeypatch, with_maps, most):
    """As for an encoder of long inputs: 60 stands for 512, and a word of 100 sub-words is longer by itself."""
    monkeypatch.setattr(extraction, "_LONGEST_MAPPED", 60)
    long = type(processor)(processor.tokenizer, max_tokens=most)
    extractor = Extractor(make_model(attentional_contribution=with_maps), long, ExtractionOptions(stride=4))
    lengths = []

    def predict(units):
        lengths.extend(unit.encoded.num_tokens for unit in units)
        nothing = np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.float32)
        return [Predictions(*nothing, *nothing) for _ in units]

    monkeypatch.setattr(extractor, "_predict", predict)
    sentences = [["a"] * 58, ["a"] * 100, ["a", "x" * 100, "a"]]
    assert len(list(extractor.annotate(map(Sentence, sentences)))) == 3
    assert max(lengths) == (60 if with_maps else {64: 64, None: 104, 2000: 104}[most])
    assert lengths.count(60) >= 2 if with_maps else 60 in lengths
    assert long.max_tokens == most


def test_a_sentence_that_fits_is_not_encoded_again(model, processor, monkeypatch):
    monkeypatch.setattr(type(processor), "window", None)
    assert list(Extractor(model, processor).annotate([Sentence(WORDS)])) == [
        rounded(one_by_one(model, processor, WORDS))
    ]


def test_too_many_relations_are_left_out_with_a_warning(model, processor, monkeypatch, caplog):
    everything = ExtractionOptions(relation_threshold=0.0)
    [whole] = Extractor(model, processor, everything).annotate([Sentence(WORDS)])
    count = len(whole["relations"])
    assert count > 10 and not caplog.records
    monkeypatch.setattr("modeling_aspert.decoding.MAX_RELATIONS", 5)
    [cut] = Extractor(model, processor, everything).annotate([Sentence(WORDS)])
    assert len(cut["relations"]) <= 5 and cut["entities"] == whole["entities"]
    assert all(relation in whole["relations"] for relation in cut["relations"])
    assert "relations that reach their thresholds are left out" in caplog.text


def test_words_and_text_give_the_same(extract):
    text = " ".join(WORDS)
    by_words = extract(WORDS, is_split_into_words=True)
    by_text = extract(text, split_sentences=False)
    assert by_words["text"] == text and by_words["entities"]
    assert by_words["entities"] == [{**item, "score": pytest.approx(item["score"])} for item in by_text["entities"]]
    assert by_words["relations"] == [{**item, "score": pytest.approx(item["score"])} for item in by_text["relations"]]


def test_a_text_goes_before_its_words(extract):
    record = {"text": "Ada  worked in London.", "tokens": ["something", "else"]}
    assert extract(record) == extract(record["text"]) and extract(record)["entities"]


def test_forms_of_input(extract):
    single = extract("Ada worked in London .")
    assert isinstance(single, dict) and json.loads(json.dumps(single)) == single
    several = extract(["Ada worked in London .", "", "Stop"])
    assert isinstance(several, list) and [result["text"] for result in several] == [
        "Ada worked in London .",
        "",
        "Stop",
    ]
    assert several[1] == {"text": "", "entities": [], "relations": []}
    streamed = extract(text for text in ("Ada worked in London .", "Stop"))
    assert not isinstance(streamed, list) and [result["text"] for result in streamed] == [
        "Ada worked in London .",
        "Stop",
    ]
    assert [result["text"] for result in extract([["Ada", "sings"], ["Stop"]], is_split_into_words=True)] == [
        "Ada sings",
        "Stop",
    ]
    assert extract([], batch_size=2) == [] == extract([], is_split_into_words=True)
    from datasets import Dataset
    from transformers.pipelines.pt_utils import KeyDataset

    column = KeyDataset(Dataset.from_dict({"text": ["Stop", "Ada worked in London ."]}), "text")
    assert [result["text"] for result in extract(column)] == ["Stop", "Ada worked in London ."]
    assert extract.postprocess(extract.forward(extract.preprocess("Stop"))) == extract("Stop")


def test_ids_are_positions_and_refer_within_the_text(extract):
    text = f"{' '.join(WORDS)} {' '.join(WORDS[:9])} ."
    result = extract(text)
    assert [entity["id"] for entity in result["entities"]] == list(range(len(result["entities"])))
    assert result["entities"] == sorted(result["entities"], key=lambda entity: (entity["start"], entity["end"]))
    assert result["relations"]
    for relation in result["relations"]:
        assert relation["head"] != relation["tail"]
        assert {relation["head"], relation["tail"]} <= set(range(len(result["entities"])))


def test_windows_over_a_long_sentence(model):
    processor = make_processor()
    short = type(processor)(processor.tokenizer, max_tokens=24)
    words = (WORDS[:-1] * 12) + ["."]
    extractor = Extractor(model, short, ExtractionOptions(stride=4))
    (result,) = extractor.annotate([Sentence(words)])
    # by hand: each window as a sentence of its own, then put together
    counts = np.diff(short.encode([words])[0].word_offsets).tolist()
    bounds = windows(counts, 24 - short.num_special_tokens, 4)
    assert len(bounds) > 3
    parts = [next(extractor.annotate([Sentence(words[start:end])])) for start, end in bounds]
    expected = merge_windows(parts, bounds, model.config.symmetric_relations)
    assert expected["relations"] and max(entity["end"] for entity in expected["entities"]) > len(words) // 2
    for kind in ("entities", "relations"):
        assert result[kind] == [{**item, "score": pytest.approx(item["score"], abs=1e-5)} for item in expected[kind]]
    (record,) = extractor.extract([{"text": " ".join(words)}])
    for entity in record["entities"]:
        assert record["text"][entity["start"] : entity["end"]] == entity["text"]


def test_a_word_longer_than_the_encoder_is_reported(model, caplog):
    processor = make_processor()
    short = type(processor)(processor.tokenizer, max_tokens=12)
    words = ["Ada", "x" * 50, "sings"]
    (result,) = Extractor(model, short).annotate([Sentence(words)])
    assert "sub-words is longer than the encoder's limit" in caplog.text
    assert result["entities"] and all(entity["end"] <= 3 for entity in result["entities"])


def test_given_entities_get_relations_only(model, extract):
    text = "Pierre married Marie. They live in Paris."
    given_entities = [
        {"type": "Place", "start": 35, "end": 40},
        {"type": "Person", "start": 15, "end": 20},
        {"type": "Person", "start": 0, "end": 6},
    ]
    result = extract({"text": text, "entities": given_entities}, relation_threshold=0.0)
    # in the order in which they were given
    assert [(entity["id"], entity["text"], entity["type"], entity["score"]) for entity in result["entities"]] == [
        (0, "Paris", "Place", 1.0),
        (1, "Marie", "Person", 1.0),
        (2, "Pierre", "Person", 1.0),
    ]
    # within the first sentence only: two directed types in both directions and a symmetric one
    assert len(result["relations"]) == 5
    assert {frozenset((relation["head"], relation["tail"])) for relation in result["relations"]} == {frozenset((1, 2))}
    # Pierre comes first in the text, whatever the order of the list
    [married] = [relation for relation in result["relations"] if relation["type"] == "married-to"]
    assert (married["head"], married["tail"]) == (2, 1)


def by_spans(result):
    """Scores by type and ends; those of the symmetric type are a set, for equal spans are in the order of the list."""
    spans = [(entity["type"], entity["start"], entity["end"]) for entity in result["entities"]]
    scores = {}
    for relation in result["relations"]:
        ends = (spans[relation["head"]], spans[relation["tail"]])
        key = (relation["type"], frozenset(ends) if relation["type"] == "married-to" else ends)
        assert key not in scores
        scores[key] = pytest.approx(relation["score"], abs=1e-5)
    return scores


@pytest.mark.parametrize("words", [WORDS, (WORDS[:-1] * 6) + ["."]], ids=["one window", "windows"])
def test_the_order_of_given_entities_changes_only_their_ids(model, words):
    processor = make_processor()
    processor = type(processor)(processor.tokenizer, max_tokens=60)
    assert (processor.encode([words])[0].num_tokens > 60) == (words is not WORDS)
    extractor = Extractor(model, processor, ExtractionOptions(relation_threshold=0.3, stride=8))
    # 0 to 12 fits no window of the long sentence, and two are the same but for their types
    spans = [(0, 2), (4, 6), (7, 8), (0, 12), (11, 12), (4, 6), (len(words) - 3, len(words) - 2)]
    types = ["Person", "Company", "Place", "Company", "Person", "Place", "Person"]
    entities = [{"type": kind, "start": start, "end": end} for kind, (start, end) in zip(types, spans)]
    results = []
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 3, 0, 5, 2, 4, 1]):
        chosen = [{**entities[n], "id": f"T{n}"} for n in order]
        [annotation] = extractor.annotate([Sentence(words, chosen)])
        assert annotation["entities"] == [{**entities[n], "score": 1.0} for n in order]
        [record] = extractor.extract([{"tokens": words, "entities": chosen}])
        assert [entity["id"] for entity in record["entities"]] == list(range(7))
        assert [entity["text"] for entity in record["entities"]] == [" ".join(words[slice(*spans[n])]) for n in order]
        assert record["relations"] == annotation["relations"] != []
        results.append(by_spans(annotation))
    assert results[0] == results[1]


def test_relations_between_sentences_are_missed_with_one_warning(extract, caplog):
    text = "Pierre married Marie. They live in Paris."
    ends = [{"type": "Person", "start": 0, "end": 6}, {"type": "Place", "start": 35, "end": 40}]
    inputs = ["Stop", {"text": text, "entities": ends[:1]}, *[{"text": text, "entities": ends}] * 2]
    results = extract(inputs, relation_threshold=0.0)
    assert [result["relations"] for result in results[1:]] == [[], [], []]
    [record] = caplog.records
    assert record.getMessage().startswith("input 2: its given entities are in several sentences, and no relation is")
    assert "split_sentences=False" in record.getMessage()
    caplog.clear()
    assert len(extract(inputs[3], relation_threshold=0.0, split_sentences=False)["relations"]) == 5
    assert not caplog.records


def test_given_entities_on_one_span_are_no_pair(model):
    words = ["Pierre", "left", "Paris"]
    spans = {"Person": (0, 1), "Company": (0, 1), "Place": (2, 3)}
    entities = [{"type": kind, "start": start, "end": end} for kind, (start, end) in spans.items()]
    extractor = Extractor(model, make_processor(), ExtractionOptions(relation_threshold=0.0))
    [annotation] = extractor.annotate([Sentence(words, entities)])
    pairs = {frozenset((relation["head"], relation["tail"])) for relation in annotation["relations"]}
    assert pairs == {frozenset((0, 2)), frozenset((1, 2))}


def test_given_entities_may_be_numpys_and_have_blanks_around(extract):
    text = np.array(["  Ada worked in London "])[0]
    given_entities = [
        {"type": np.str_("Place"), "start": np.int64(15), "end": np.int32(23)},
        {"type": "Person", "start": np.uint8(0), "end": np.int16(5)},
    ]
    result = extract({"text": text, "entities": given_entities}, relation_threshold=0.0)
    assert [(entity["text"], entity["start"], entity["end"]) for entity in result["entities"]] == [
        ("London", 16, 22),
        ("Ada", 2, 5),
    ]
    assert len(result["relations"]) == 5
    values = [result["text"], *(value for entity in result["entities"] for value in entity.values())]
    assert {type(value) for value in values} == {str, int, float}


@pytest.mark.parametrize("words", [False, True], ids=["text", "words"])
def test_strings_of_numpy_become_plain(extract, words):
    given = np.array(["Ada", "Lovelace", "sings"]) if words else np.array(["Ada Lovelace sings"])[0]
    [result] = extract([given], is_split_into_words=words)
    assert type(result["text"]) is str and result["text"] == "Ada Lovelace sings"


def test_given_entities_join_sentences_and_cut_words(extract):
    text = "He met Mr. X. Smith-Jones there."
    spans = [(7, 14 + 5), (20, 25)]
    given_entities = [{"type": "Person", "start": start, "end": end} for start, end in spans]
    result = extract({"text": text, "entities": given_entities})
    assert [(entity["start"], entity["end"]) for entity in result["entities"]] == spans


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_words_and_sentences_of_given_entities_are_those_of_the_definition(model, data):
    """A word is cut at each edge inside it, an entity is the words that it touches, and no sentence ends inside one."""
    text = data.draw(st.text("ab .'\n", min_size=1, max_size=40))
    edges = st.integers(0, len(text))
    spans = data.draw(st.lists(st.tuples(edges, edges).filter(lambda span: text[slice(*span)].strip()), max_size=6))
    entities = [{"type": "Person", "start": start, "end": end} for start, end in spans]
    stripped = [(end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())) for start, end in spans]
    borders = {edge for span in stripped for edge in span}

    document = Extractor(model, make_processor())._document({"text": text, "entities": entities}, "input")

    plain = Extractor(model, make_processor())._document(text, "input")
    cut = []
    for start, end in (word for words in plain.word_spans for word in words):
        pieces = sorted({start, end, *(edge for edge in borders if start < edge < end)})
        cut += zip(pieces, pieces[1:])
    assert [word for words in document.word_spans for word in words] == cut
    begins = {words[0][0] for words in document.word_spans}
    assert begins == {
        begin
        for begin in (words[0][0] for words in plain.word_spans)
        if not any(start < begin < end for start, end in stripped)
    }
    for words, sentence, given_here in zip(document.word_spans, document.sentences, document.given):
        assert given_here == [n for n, (start, _) in enumerate(stripped) if words[0][0] <= start < words[-1][1]]
        for number, entity in zip(given_here, sentence.entities):
            start, end = stripped[number]
            touched = [n for n, word in enumerate(words) if word[0] < end and start < word[1]]
            assert (entity["start"], entity["end"]) == (touched[0], touched[-1] + 1)
    assert sum(map(len, document.given)) == len(spans)


def test_many_given_entities_take_no_long_time(model):
    text = "Ada " * 40_000
    entities = [{"type": "Person", "start": start, "end": start + 3} for start in range(0, len(text), 20)]
    extractor = Extractor(model, make_processor(), ExtractionOptions(split_sentences=False))
    started = time.process_time()
    document = extractor._document({"text": text, "entities": entities}, "input")
    assert time.process_time() - started < 4  # minutes, were each word compared with each entity
    assert [entity["start"] for entity in document.sentences[0].entities] == list(range(0, 40_000, 5))


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        (
            {"type": "Person", "start": 0, "end": 99},
            "start = 0 and end = 99: give integers with 0 <= start < end <= 4 ",
        ),
        ({"type": "Person", "start": 2, "end": 2}, "0 <= start < end"),
        ({"type": "Robot", "start": 0, "end": 4}, r"has the type 'Robot': choose one of the model's, \['Person', "),
        ({"type": ["Person"], "start": 0, "end": 4}, "has the type"),
        ({"type": "Person", "start": "0", "end": 4}, "start = '0' and end = 4: give integers with 0 <= start < end"),
        ({"type": "Person", "start": 0.0, "end": 4}, "give integers"),
        ({"start": 0, "end": 4}, "has no 'type': give type, start and end"),
        ({"type": "Person", "end": 4}, "has no 'start': give"),
        ({"type": "Person", "start": 0}, "has no 'end': give"),
        (None, "is None: give a mapping with type, start and end"),
    ],
)
@pytest.mark.parametrize("form", ["text", "tokens", "sentence"])
def test_given_entities_are_checked(extract, entity, problem, form):
    good = {"type": "Person", "start": 0, "end": 1}
    text, where = "Stop", "input 1"
    if form != "text":
        text, where = ["He", "did", "not", "stop"], "input 1" if form == "tokens" else "sentence 1"
    with pytest.raises(ValueError, match=rf"^{where}, entities\[1\] .*{problem}") as caught:
        if form == "sentence":
            list(extract._extractor().annotate([Sentence(text), Sentence(text, [good, entity])]))
        else:
            extract([{form: text}, {form: text, "entities": [good, entity]}])
    assert "\n" not in str(caught.value)


def test_given_entities_of_white_space_or_of_another_form_are_refused(extract):
    with pytest.raises(ValueError, match=r"^input 0, entities\[0\] holds nothing but white space: remove it$"):
        extract({"text": "Stop  here", "entities": [{"type": "Person", "start": 4, "end": 6}]})
    with pytest.raises(ValueError, match="^input 0: entities is int, give a list of mappings$"):
        extract({"text": "Stop", "entities": 1})


FORMS = 'give a string, a mapping with "text" or "tokens", or a list of words with is_split_into_words=True'


@pytest.mark.parametrize(
    ("inputs", "split", "problem"),
    [
        (None, False, f"input 0 is NoneType: {FORMS}"),
        (1, False, f"input 0 is int: {FORMS}"),
        (b"abc", False, f"input 0 is bytes: {FORMS}"),
        ({"foo": 1}, False, f"input 0 has the fields ['foo']: {FORMS}"),
        (["Stop", None], False, f"input 1 is NoneType: {FORMS}"),
        ([["Ann", "Lee"]], False, f"input 0 is list: {FORMS}"),
        ({"text": None}, False, "input 0: text is NoneType, give a string"),
        ("Ann Lee", True, "input 0: the words are str, give a list of strings; a string that is still to be split "),
        ({"tokens": "Ann Lee"}, False, "input 0: the words are str, give a list of strings; "),
        ([["Ann"], "Lee"], True, "input 1: the words are str, give a list of strings; "),
        ([["Ann"], None], True, "input 1: the words are NoneType, give a list of strings; "),
        (None, True, "input 0: the words are NoneType, give a list of strings; "),
        ([["Ann"], ["Lee", None]], True, "input 1: tokens[1] is None, give a word"),
        ([["Ann", ""]], True, "input 0: tokens[1] is '', give a word"),
    ],
)
def test_other_forms_of_input_are_refused(extract, inputs, split, problem):
    with pytest.raises(ValueError) as caught:
        extract(inputs, is_split_into_words=split)
    assert str(caught.value).startswith(problem) and "\n" not in str(caught.value)


def test_annotated_records_are_pointed_out_once(caplog):
    """A row of a data set holds the entities that an evaluation wants predicted."""
    row = {"tokens": ["Ada", "Lovelace"], "entities": [{"type": "Person", "start": 0, "end": 2}], "relations": []}
    extractor = Extractor(make_model(), make_processor())
    assert [result["entities"][0]["score"] for result in extractor.extract([row, row])] == [1.0, 1.0]
    (said,) = caplog.messages
    assert said.startswith(
        "input 0: an annotated record, whose entities are taken as given; to predict them, give its "
    )
    list(extractor.extract([{name: row[name] for name in ("tokens", "entities")}]))
    assert len(caplog.messages) == 1


def test_a_pipeline_needs_a_processor():
    with pytest.raises(ValueError, match="processor is missing: give the model's AspertProcessor"):
        JointExtractionPipeline(model=make_model())("Ada Lovelace")


def test_a_training_that_goes_on_changes_no_result(processor):
    model = make_model()
    extractor = Extractor(model, processor)
    before = list(extractor.extract(["Ada Lovelace worked in London."]))
    model.train()
    assert list(extractor.extract(["Ada Lovelace worked in London."])) == before


def test_a_processor_without_a_limit_has_the_encoders():
    tokenizer = copy.deepcopy(make_processor().tokenizer)
    tokenizer.model_max_length = 10**30
    model, processor = make_model(attentional_contribution=False), type(make_processor())(tokenizer)
    assert processor.max_tokens is None
    words = ["a"] * 300  # the encoder has 128 positions
    assert len(list(Extractor(model, processor).annotate([Sentence(words)]))) == 1
    record = {"tokens": words, "entities": [], "relations": []}
    with pytest.raises(ValueError, match="longer than the encoder's limit of 128 sub-words"):
        JointExtractionDataset([record], processor, model.config)


def test_numbers_of_inputs_go_on_behind_a_chunk(extract, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK_INPUTS", 2)
    with pytest.raises(ValueError, match="^input 4 is NoneType"):
        extract(["Stop"] * 4 + [None])


def test_options_choose(extract, model):
    text = " ".join(WORDS)
    everything = extract(text, relation_threshold=0.0)
    few = extract(text, relation_threshold=0.9)
    assert len(few["relations"]) < len(everything["relations"])
    assert all(relation["score"] >= 0.9 for relation in few["relations"])
    by_type = extract(text, relation_threshold={"lives-in": 1.0})
    assert {relation["type"] for relation in by_type["relations"]} == {"works-for", "married-to"}
    sure = extract(text, entity_threshold=0.8)
    assert sure["entities"] and all(entity["score"] >= 0.8 for entity in sure["entities"])
    flat = extract(text, entity_overlap="flat")["entities"]
    assert flat and all(one["end"] <= other["start"] for one, other in zip(flat, flat[1:]))
    with pytest.raises(ValueError, match="entity_overlap"):
        extract(text, entity_overlap="none")
    with pytest.raises(ValueError, match="relation_threshold"):
        extract(text, relation_threshold=2)
    with pytest.raises(ValueError, match="no-such"):
        extract(text, relation_threshold={"no-such": 0.5})
    with pytest.raises(TypeError, match="treshold"):
        extract(text, treshold=0.5)


def test_options_can_be_set_when_the_pipeline_is_made(model, processor):
    strict = JointExtractionPipeline(
        model=model, processor=processor, relation_threshold=1.0, is_split_into_words=True
    )
    assert strict(WORDS)["relations"] == []
    assert strict(WORDS, relation_threshold=0.0)["relations"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("relation_threshold", "0.5", "relation_threshold = '0.5' is not valid: it must be a number in [0, 1]"),
        ("relation_threshold", {"lives-in": "1"}, "relation_threshold['lives-in'] = '1' is not valid: it must be a "),
        ("entity_threshold", {"Person": 0.5}, "entity_threshold = {'Person': 0.5} is not valid: it must be a number"),
        ("entity_threshold", float("nan"), "entity_threshold = nan is not valid"),
        ("batch_size", "many", "batch_size = 'many' is not valid: it must be an integer >= 1"),
        ("stride", 2.5, "stride = 2.5 is not valid: it must be an integer >= 0"),
        ("word_splitter", "letters", "unknown word splitter 'letters': choose one of rules, "),
        ("language", "tlh", "no sentence rules for language 'tlh': choose one of "),
        ("relation_treshold", 0.5, "unknown option 'relation_treshold': did you mean 'relation_threshold'? Choose"),
        ("colour", "red", "unknown option 'colour': choose from ['batch_size', 'entity_overlap', "),
    ],
)
def test_options_are_checked_when_the_pipeline_is_made_and_in_a_call(model, processor, extract, name, value, problem):
    with pytest.raises((TypeError, ValueError)) as in_call:
        extract("Stop", **{name: value})
    errors = [in_call]
    if name != "batch_size":  # which transformers keeps to itself until the first call
        with pytest.raises((TypeError, ValueError)) as when_made:
            JointExtractionPipeline(model=model, processor=processor, **{name: value})
        errors.append(when_made)
    for caught in errors:
        assert str(caught.value).startswith(problem) and "\n" not in str(caught.value)


def test_language_and_word_splitter_go_before_the_processors(model, monkeypatch):
    processor, seen = make_processor(), []
    encode = processor.encode
    monkeypatch.setattr(processor, "encode", lambda sentences: (seen.append(sentences), encode(sentences))[1])
    extract = JointExtractionPipeline(model=model, processor=processor, language="de", word_splitter="whitespace")
    extract("Ada kam am 3. Mai.")
    extract("Ada kam am 3. Mai.", language="en", word_splitter="rules")
    JointExtractionPipeline(model=model, processor=processor)("Ada kam am 3. Mai.")
    german = [["Ada", "kam", "am", "3.", "Mai."]]
    english = [["Ada", "kam", "am", "3", "."], ["Mai", "."]]
    assert seen == [german, english, english]
    assert (processor.language, processor.word_splitter) == ("en", "rules")


def test_relation_type_constraints(processor):
    free = make_model()
    held = make_model(relation_type_constraints={"works-for": [["Person", "Company"]], "lives-in": []})
    held.load_state_dict(free.state_dict())
    (before,) = Extractor(free, processor).annotate([Sentence(WORDS)])
    (after,) = Extractor(held, processor).annotate([Sentence(WORDS)])

    def allowed(relation):
        ends = tuple(before["entities"][relation[end]]["type"] for end in ("head", "tail"))
        return relation["type"] == "married-to" or (relation["type"] == "works-for" and ends == ("Person", "Company"))

    kept = [relation for relation in before["relations"] if allowed(relation)]
    assert len(kept) < len(before["relations"])
    assert after == {"entities": before["entities"], "relations": kept}


def test_from_a_folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = pipeline("joint-extraction", model=str(tmp_path))
    direct = JointExtractionPipeline(model=model, processor=processor)
    found, expected = loaded(" ".join(WORDS)), direct(" ".join(WORDS))
    assert found["entities"] and found["relations"]
    for part in ("entities", "relations"):
        # weights of a file lie elsewhere in memory, and some processors then round in another way
        scores = [[item.pop("score") for item in result[part]] for result in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert found == expected


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_a_pipeline_of_another_dtype_is_saved(model, processor, tmp_path, dtype):
    model.save_pretrained(tmp_path / "one")
    processor.save_pretrained(tmp_path / "one")
    options = {"model_kwargs": {"attn_implementation": "eager"}, "dtype": dtype}
    pipeline("joint-extraction", model=str(tmp_path / "one"), **options).save_pretrained(tmp_path / "other")
    again = pipeline("joint-extraction", model=str(tmp_path / "other"))
    assert again.model.dtype == torch.bfloat16 and again("Ada worked in London .")["entities"]
    saved = json.loads((tmp_path / "other" / "tokenizer_config.json").read_text())
    assert not {"dtype", "attn_implementation"} & saved.keys()


def check_offsets(extract, text):
    result = extract(text)
    assert result["text"] == text
    for entity in result["entities"]:
        assert 0 <= entity["start"] < entity["end"] <= len(text)
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert entity["text"] == entity["text"].strip()


TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="Ada London.!?, \t\r\n\u200b\u200d\u0301\u05d0\u0627👩🔬中", max_size=80),
    st.lists(
        st.sampled_from([*WORDS, "\r\n", "👩‍🔬", "e\u0301", "שלום", "مرحبا", "\u202e", "\ud800", "\x00"]), max_size=30
    ).map(" ".join),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_offsets_are_right_in_any_text(extract, text):
    check_offsets(extract, text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_offsets_are_right_in_ten_thousand_texts(extract, text):
    check_offsets(extract, text)


def test_a_table_is_not_taken_for_its_names(extract):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": ["Lisbon is in Portugal."]})
    with pytest.raises(TypeError, match="a DataFrame is no list of texts: give one column"):
        extract(table)
    assert [record["text"] for record in extract(table["text"])] == ["Lisbon is in Portugal."]
    with pytest.raises(TypeError, match="is_split_into_words = 'no'"):
        extract("Lisbon", is_split_into_words="no")


def test_a_single_text_is_not_taken_apart(model, processor):
    extractor = Extractor(model, processor)
    for single in ("Lisbon", b"Lisbon", {"text": "Lisbon"}):
        with pytest.raises(TypeError, match="give a list of texts"):
            list(extractor.extract(single))
    for sentence in (["Ann", "sings"], Sentence("Lisbon is in Portugal."), Sentence(["Ann", 3])):
        with pytest.raises(TypeError, match="sentence 1.*give (Sentence|a list of strings)"):
            list(extractor.annotate([Sentence(["Ann"]), sentence]))


@pytest.mark.parametrize(
    "wrong", [{"entity_threshold": True}, {"relation_threshold": {"x": False}}, {"split_sentences": "false"}]
)
def test_switches_and_numbers_are_told_apart(wrong):
    with pytest.raises(TypeError, match="is not valid: it must be"):
        ExtractionOptions(**wrong)
    with pytest.raises(ValueError, match="batch_size = True is not valid"):
        ExtractionOptions(batch_size=True)


def test_a_model_on_disk_extracts(tmp_path):
    """accelerate's hooks move the inputs to where each layer works."""
    model, processor = make_model(word_shapes=True).eval(), make_processor()
    model.save_pretrained(tmp_path / "model")
    place = {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offload"}
    offloaded = AspertForJointExtraction.from_pretrained(tmp_path / "model", **place)
    assert offloaded.device.type == "meta"
    text = "Ada Lovelace married William King in London."
    options = ExtractionOptions(relation_threshold=0.1)
    found, expected = (next(iter(Extractor(one, processor, options).extract([text]))) for one in (offloaded, model))
    assert expected["entities"] and found["entities"] == [
        {**entity, "score": pytest.approx(entity["score"], abs=1e-5)} for entity in expected["entities"]
    ]
