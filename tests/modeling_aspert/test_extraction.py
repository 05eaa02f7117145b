"""Sentences and texts to entities and relations: order, windows, given entities, offsets, the pipeline's forms."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_model, make_processor
from transformers import pipeline

from modeling_aspert import ExtractionOptions, Extractor, JointExtractionPipeline, extraction
from modeling_aspert.decoding import decode
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


def test_words_and_text_give_the_same(extract):
    text = " ".join(WORDS)
    by_words = extract(WORDS, is_split_into_words=True)
    by_text = extract(text, split_sentences=False)
    assert by_words["text"] == text and by_words["entities"]
    assert by_words["entities"] == [{**item, "score": pytest.approx(item["score"])} for item in by_text["entities"]]
    assert by_words["relations"] == [{**item, "score": pytest.approx(item["score"])} for item in by_text["relations"]]


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
    assert extract([], batch_size=2) == []
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
    ends = [entity["end"] for entity in result["entities"]]
    assert result["entities"] and max(ends) > len(words) // 2 and max(ends) <= len(words)
    (record,) = extractor.extract([{"text": " ".join(words)}])
    for entity in record["entities"]:
        assert record["text"][entity["start"] : entity["end"]] == entity["text"]


def test_a_word_longer_than_the_encoder_is_reported(model, caplog):
    processor = make_processor()
    short = type(processor)(processor.tokenizer, max_tokens=12)
    words = ["Ada", "x" * 50, "sings"]
    (result,) = Extractor(model, short).annotate([Sentence(words)])
    assert "sub-words is longer than the encoder's limit" in caplog.text
    assert all(entity["end"] <= 3 for entity in result["entities"])


def test_given_entities_get_relations_only(model, extract):
    text = "Pierre married Marie. They live in Paris."
    given_entities = [
        {"type": "Place", "start": 35, "end": 40},
        {"type": "Person", "start": 15, "end": 20},
        {"type": "Person", "start": 0, "end": 6},
    ]
    result = extract({"text": text, "entities": given_entities}, relation_threshold=0.0)
    assert [(entity["text"], entity["type"], entity["score"]) for entity in result["entities"]] == [
        ("Pierre", "Person", 1.0),
        ("Marie", "Person", 1.0),
        ("Paris", "Place", 1.0),
    ]
    # within the first sentence only: two directed types in both directions and a symmetric one
    assert len(result["relations"]) == 5
    assert {frozenset((relation["head"], relation["tail"])) for relation in result["relations"]} == {frozenset((0, 1))}


def test_given_entities_join_sentences_and_cut_words(extract):
    text = "He met Mr. X. Smith-Jones there."
    spans = [(7, 14 + 5), (20, 25)]
    given_entities = [{"type": "Person", "start": start, "end": end} for start, end in spans]
    result = extract({"text": text, "entities": given_entities})
    assert [(entity["start"], entity["end"]) for entity in result["entities"]] == spans


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        ({"type": "Person", "start": 0, "end": 99}, "0 <= start < end <= 4"),
        ({"type": "Person", "start": 2, "end": 2}, "0 <= start < end"),
        ({"type": "Robot", "start": 0, "end": 4}, "'Robot'"),
        ({"type": "Person", "start": "0", "end": 4}, "0 <= start < end"),
    ],
)
def test_given_entities_are_checked(extract, entity, problem):
    with pytest.raises(ValueError, match=problem):
        extract({"text": "Stop", "entities": [entity]})


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
    flat = extract(text, overlap="flat")["entities"]
    assert flat and all(one["end"] <= other["start"] for one, other in zip(flat, flat[1:]))
    with pytest.raises(ValueError, match="overlap"):
        extract(text, overlap="none")
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
    assert loaded(" ".join(WORDS)) == direct(" ".join(WORDS))


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
