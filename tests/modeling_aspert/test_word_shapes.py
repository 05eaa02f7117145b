"""Word shapes: their names, their way to the sub-words, and the encoder that reads them beside its own embeddings."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import AutoModel, BertTokenizer

from modeling_aspert import AspertForJointExtraction, AspertProcessor, Extractor
from modeling_aspert.configuration_aspert import WORD_SHAPES
from modeling_aspert.processing_aspert import word_shape


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "lower": ["paris", "don't", "ß", "日本", "עברית"],
        "capitalized": ["Paris", "O'Brien", "Smith-Jones", "Ünal"],
        "upper": ["NATO", "U.S.", "AT&T"],
        "initial": ["J", "J.", "É"],
        "mixed": ["McDonald", "iPhone", "eBay"],
        "number": ["1990", "3.14", "-5%", "٣"],
        "alphanumeric": ["B-52", "1st", "x2"],
        "symbol": [".", "``", "--", "😀", "\u200b", ""],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names(name, words):
    assert [WORD_SHAPES[word_shape(word)] for word in words] == [name] * len(words)


def shapes_of(sentence) -> list[str]:
    return [WORD_SHAPES[shape] for shape in sentence.word_shapes]


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_every_subword_has_its_words_shape(family):
    processor = tiny.make_processor(family)
    words = ["Zebras", "\u200b", "NATO", "x2", "."]
    shapes = ["capitalized", "symbol", "upper", "alphanumeric", "symbol"]
    sentence = processor.encode([words])[0]
    for encoded, names in ((sentence, shapes), (processor.window(sentence, 2, 4), shapes[2:4])):
        assert len(encoded.word_shapes) == encoded.num_tokens > encoded.num_words + 2
        found = shapes_of(encoded)
        assert found[0] == found[-1] == "none"
        for position, name in enumerate(names):
            start, end = encoded.word_offsets[position : position + 2]
            assert found[start:end] == [name] * (end - start)


def test_a_word_that_is_cut_keeps_its_shape():
    processor = AspertProcessor(tiny.make_tokenizer(), max_tokens=6)
    sentence = processor.encode([["Zzzzzzzzz"]])[0]
    assert shapes_of(processor.window(sentence, 0, 1)) == ["none"] + ["capitalized"] * 4 + ["none"]


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_shapes_are_added_to_the_encoders_own_embeddings(tmp_path, family):
    """Against the same encoder without the switch, whose input embeddings a hook changes."""
    shaped = tiny.make_model(family, word_shapes=True)
    plain = tiny.make_model(family)
    missing, unexpected = plain.load_state_dict(shaped.state_dict(), strict=False)
    assert not missing and unexpected == ["word_shape_embedding.weight"]
    batch = tiny.make_batch(shaped.config, family)
    shapes = batch["word_shapes"]
    assert shapes.shape == batch["input_ids"].shape
    assert not shapes[batch["attention_mask"] == 0].any()
    given = {name: values for name, values in batch.items() if name != "word_shapes"}
    plain.encoder.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output + shaped.word_shape_embedding.weight[shapes]
    )
    with torch.no_grad():
        ours, theirs = shaped(**batch), plain(**given)
    torch.testing.assert_close(ours.span_logits, theirs.span_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.relation_logits, theirs.relation_logits, rtol=1e-5, atol=1e-5)

    shaped.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(AspertForJointExtraction.from_pretrained(tmp_path)(**batch).span_logits, ours.span_logits)
    shaped.train()(**batch).loss.backward()
    used = shapes[batch["attention_mask"] == 1].unique()
    assert shaped.word_shape_embedding.weight.grad[used].abs().amax(-1).all()


def test_a_pretrained_encoder_starts_as_it_is(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    types = {"entity_types": tiny.ENTITY_TYPES, "relation_types": tiny.RELATION_TYPES}
    model = AspertForJointExtraction.from_encoder_pretrained(tmp_path, preset="best", **types)
    assert model.config.word_shapes and not model.word_shape_embedding.weight.any()
    batch = tiny.make_batch(model.config)
    with torch.no_grad():
        hidden = model._encode(batch["input_ids"], batch["attention_mask"], batch["word_shapes"])[0]
        encoder = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
        own = encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(hidden, own, rtol=1e-6, atol=1e-6)


def test_case_reaches_an_uncased_encoder():
    vocabulary = tiny.make_tokenizer().get_vocab()
    processor = AspertProcessor(BertTokenizer(vocab=vocabulary, do_lower_case=True), max_tokens=tiny.MAX_POSITIONS)
    lower, title = processor.encode([["the", "stop"], ["The", "STOP"]])
    assert lower.input_ids.tolist() == title.input_ids.tolist()
    scores = {}
    for shaped in (False, True):
        extractor = Extractor(tiny.make_model(word_shapes=shaped), processor)
        batch = extractor.collator.collate_candidates([lower, title])
        del batch["word_spans"]
        with torch.no_grad():
            scores[shaped] = extractor.model(**batch).span_logits
    assert torch.equal(*scores[False])
    assert (scores[True][0] - scores[True][1]).abs().max() > 0.01


def test_shapes_that_are_missing():
    model = tiny.make_model(word_shapes=True)
    batch = tiny.make_batch(model.config)
    del batch["word_shapes"]
    with pytest.raises(ValueError, match=r"word_shapes=True needs word_shapes \[B, n\].*AspertDataCollator adds it"):
        model(**batch)
