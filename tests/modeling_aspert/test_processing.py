"""Words to sub-words: every family's offsets against tokenising each word on its own, odd words, saving, spans."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizerLegacy,
    PreTrainedTokenizerFast,
)

from modeling_aspert import AspertForJointExtraction, AspertProcessor
from modeling_aspert.processing_aspert import candidate_spans, longest_input, lowercases

FAMILIES = list(tiny.FAMILIES)
BYTE_LEVEL = ("roberta", "modernbert")
WORDS = [
    "Ada",
    "Lovelace",
    "un",
    "unhappy",
    "happiness",
    "London",
    "'s",
    ".",
    "(",
    "don't",
    "x-ray",
    "3.14",
    "ß",
    "日本",
    "😀",
]
ODD_WORDS = ["\u200b", "\x00", "", "\u200b\u200b", "\ud800", "a\ud800b", "\ufeff"]


def ids_of_one_word(tokenizer, family: str, word: str) -> list[int]:
    """The word's ids by the tokenizer's own call: as in running text, behind a blank where that matters."""
    if not word:
        return []
    text = f" {word}" if family in BYTE_LEVEL else word
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def assert_offsets(processor, family: str, words: list[str]) -> None:
    fresh = tiny.make_tokenizer(family)
    sentence = processor.encode([words])[0]
    offsets = sentence.word_offsets
    assert sentence.num_words == len(words)
    assert offsets[0] == 1 and offsets[-1] == sentence.num_tokens - 1
    assert sentence.input_ids[0] == fresh.cls_token_id
    assert sentence.input_ids[-1] == fresh.sep_token_id
    assert sentence.special_tokens_mask.tolist() == [1] + [0] * (sentence.num_tokens - 2) + [1]
    for position, word in enumerate(words):
        ours = sentence.input_ids[offsets[position] : offsets[position + 1]].tolist()
        assert ours == (ids_of_one_word(fresh, family, word) or [fresh.unk_token_id]), word


@pytest.mark.parametrize("family", FAMILIES)
def test_offsets_are_those_of_each_word_alone(family):
    processor = tiny.make_processor(family)
    assert_offsets(processor, family, WORDS)
    for word in WORDS:
        assert_offsets(processor, family, [word])


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "albert"])
def test_offsets_of_any_words(family):
    processor = tiny.make_processor(family)
    letters = st.sampled_from(list("Aadenopuhiy.,'-3ßé日") + ["\u200b", "\x00", "\u0301"])

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(st.text(letters, max_size=6), max_size=8))
    def check(words):
        if words:
            assert_offsets(processor, family, words)

    check()


def test_by_hand():
    """un|##happy has two pieces; Lovelace falls apart; positions count the [CLS]."""
    processor = tiny.make_processor("bert")
    sentence = processor.encode([["Ada", "unhappy", "Lovelace", "London"]])[0]
    pieces = processor.tokenizer.convert_ids_to_tokens(sentence.input_ids)
    assert pieces == ["[CLS]", "Ada", "un", "##happy", "L", "##o", "##v", "##e", "##lace", "London", "[SEP]"]
    assert sentence.word_offsets.tolist() == [1, 2, 4, 9, 10]
    assert sentence.token_spans(np.array([[0, 1], [1, 3], [0, 4]])).tolist() == [[1, 2], [2, 9], [1, 10]]
    assert processor.num_special_tokens == 2


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_leading_blank_of_byte_level_tokenizers(family):
    """Every word, the first one too, gets the ids it has behind a blank."""
    processor, fresh = tiny.make_processor(family), tiny.make_tokenizer(family)
    words = ["Ada", "Paris", "happy", "zebra", "Ada"]
    sentence = processor.encode([words])[0]
    expected = [token for word in words for token in fresh(f" {word}", add_special_tokens=False)["input_ids"]]
    assert sentence.input_ids[1:-1].tolist() == expected
    without = [token for word in words for token in fresh(word, add_special_tokens=False)["input_ids"]]
    assert expected != without
    assert fresh.convert_ids_to_tokens(sentence.input_ids[1:2].tolist()) == ["ĠAda"]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["gemma", "eurobert"])
def test_leading_blank_of_other_tokenizers(tmp_path, kind, padded):
    """Words are encoded as behind a blank where running text has the blank within the word."""
    blank = {"gemma": "▁", "eurobert": "Ġ"}[kind]
    letters = [blank, *"NewYorka"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(["[PAD]", "[UNK]", *letters, f"{blank}a"]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(blank, "a")], unk_token="[UNK]"))
    if kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", blank)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        words = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\s+"), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    if padded:
        tokenizer.enable_padding(length=16)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    processor = AspertProcessor(fast)
    for once_more in (processor, reloaded(processor, tmp_path)):
        sentence = once_more.encode([["New", "York", "a"]])[0]
        pieces = fast.convert_ids_to_tokens(sentence.input_ids.tolist())
        assert pieces == [blank, *"New", blank, *"York", f"{blank}a"]
        assert sentence.word_offsets.tolist() == [0, 4, 9, 10]
        # as the end of running text
        assert pieces[4:] == fast.tokenize("New York a")[3:]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_without_pieces_become_the_unknown_token(family):
    processor, fresh = tiny.make_processor(family), tiny.make_tokenizer(family)
    words = ["Ada", *ODD_WORDS, "London", *ODD_WORDS]
    sentence = processor.encode([words])[0]
    assert sentence.num_words == len(words)
    assert (np.diff(sentence.word_offsets) >= 1).all()
    alone = [processor.encode([[word]])[0].input_ids[1:-1].tolist() for word in words]
    assert sentence.input_ids[1:-1].tolist() == [token for ids in alone for token in ids]
    assert processor.encode([[""]])[0].input_ids[1:-1].tolist() == [fresh.unk_token_id]
    if family == "bert":
        for word in ("\u200b", "\x00"):
            assert processor.encode([[word]])[0].input_ids[1:-1].tolist() == [fresh.unk_token_id]


@pytest.mark.parametrize("family", FAMILIES)
def test_typed_special_tokens_are_words(family):
    """A typed [CLS] gets the same id, but it is a word: neither special nor the sentence vector's position."""
    processor = tiny.make_processor(family)
    special = processor.tokenizer.cls_token
    sentence = processor.encode([["Ada", special, "London"]])[0]
    start, end = sentence.word_offsets[1:3]
    assert end == start + 1
    assert sentence.input_ids[start] == processor.tokenizer.cls_token_id == sentence.input_ids[0]
    assert sentence.special_tokens_mask[start] == 0
    assert sentence.special_tokens_mask.sum() == 2


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_lone_surrogates(family):
    """Half of a surrogate pair has no UTF-8 form: it reads as U+FFFD, and its neighbours are not touched."""
    processor = tiny.make_processor(family)
    broken, mended = (processor.encode([["Ada", word, "London"], ["Paris"]]) for word in ("a\ud800b", "a\ufffdb"))
    for ours, theirs in zip(broken, mended):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert ours.word_offsets.tolist() == theirs.word_offsets.tolist()
    pair, letter = (processor.encode([[word]])[0] for word in ("\ud83d\ude00", "😀"))
    assert pair.input_ids.tolist() == letter.input_ids.tolist()


def test_nothing_is_empty():
    processor = tiny.make_processor()
    assert processor.encode([]) == []
    sentences = processor.encode([[], ["Ada"], []])
    assert [sentence.num_words for sentence in sentences] == [0, 1, 0]
    assert sentences[0].input_ids.tolist() == [processor.tokenizer.cls_token_id, processor.tokenizer.sep_token_id]
    assert sentences[0].word_offsets.tolist() == [1]


@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load(tmp_path, family):
    processor = AspertProcessor(tiny.make_tokenizer(family), max_tokens=77, word_splitter="whitespace", language="de")
    words = [["Ada", "unhappy", "\u200b", "", processor.tokenizer.cls_token, "Lovelace", "a\ud800b"], ["Paris"]]
    before = processor.encode(words)
    processor.save_pretrained(tmp_path)
    tiny.make_config(family).save_pretrained(tmp_path)
    for loader in (AspertProcessor, AutoProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is AspertProcessor
        assert (loaded.max_tokens, loaded.word_splitter, loaded.language) == (77, "whitespace", "de")
        assert loaded.num_special_tokens == processor.num_special_tokens
        for ours, theirs in zip(before, loaded.encode(words)):
            assert ours.input_ids.tolist() == theirs.input_ids.tolist()
            assert ours.word_offsets.tolist() == theirs.word_offsets.tolist()
            assert ours.special_tokens_mask.tolist() == theirs.special_tokens_mask.tolist()


@pytest.mark.parametrize(("name", "value"), [("word_splitter", "rule"), ("language", "klingon")])
def test_rules_that_there_are_not_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{value}.*choose one of"):
        AspertProcessor(tiny.make_tokenizer(), **{name: value})


def test_words_need_no_rules_of_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysbd", None)
    processor = AspertProcessor(tiny.make_tokenizer(), language="de")
    assert processor.encode([["Ada"]])[0].num_words == 1


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_saved_truncation_and_padding_cut_nothing(tmp_path, family):
    """A tokenizer.json that says "cut at 4, pad to 16", and a tokenizer used with truncation in between."""
    tiny.make_tokenizer(family).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    file.write_text(json.dumps(stored), encoding="utf-8")
    processor = AspertProcessor(AutoTokenizer.from_pretrained(tmp_path))
    expected = tiny.make_processor(family).encode([WORDS])[0].input_ids.tolist()
    assert processor.encode([WORDS])[0].input_ids.tolist() == expected
    processor.tokenizer(" ".join(WORDS), truncation=True, max_length=4, padding="max_length")
    assert processor.encode([WORDS])[0].input_ids.tolist() == expected


def test_limits():
    """The tokenizer's own limit where it has one; a given one wins; none where nothing is known."""
    tokenizer = tiny.make_tokenizer()
    assert AspertProcessor(tokenizer).max_tokens is None
    tokenizer.model_max_length = 512
    assert AspertProcessor(tokenizer).max_tokens == 512
    assert AspertProcessor(tokenizer, max_tokens=20).max_tokens == 20


@pytest.mark.parametrize(
    ("family", "pad_token_id"),
    [("bert", 0), ("roberta", 0), ("roberta", 1), ("roberta", 5), ("mpnet", 1), ("mpnet", 0)],
)
def test_limit_of_an_encoder_is_what_it_can_read(tmp_path, family, pad_token_id):
    """max_tokens sub-words run, one more does not: RoBERTa and MPNet count positions from the padding index."""
    tiny.make_tokenizer(family).save_pretrained(tmp_path)
    config = tiny.make_encoder_config(family, pad_token_id=pad_token_id, max_position_embeddings=20)
    config.save_pretrained(tmp_path)
    limit = AspertProcessor.from_encoder_pretrained(tmp_path).max_tokens
    encoder = AutoModel.from_config(config)
    ids = torch.full((1, limit), 40)
    encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    ids = torch.full((1, limit + 1), 40)
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("family", ["bert", "esm", "layoutlmv3", "lilt", "luke", "markuplm", "xlm-roberta", "electra"])
def test_longest_input_of_other_families(family):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    # LayoutLMv3 makes its boxes from these
    sizes |= {"coordinate_size": 4, "shape_size": 4, "input_size": 32} if family == "layoutlmv3" else {}
    sizes |= {"mask_token_id": 3} if family == "esm" else {}
    config = AutoConfig.for_model(family, vocab_size=50, max_position_embeddings=20, pad_token_id=1, **sizes)
    encoder = AutoModel.from_config(config).eval()
    ids = torch.full((1, longest_input(config)), 40)
    encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    ids = torch.full((1, longest_input(config) + 1), 40)
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))


# -- upper and lower case ------------------------------------------------------------------------------------------

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "<S>"]
CASED = [*SPECIAL, "Paris", "paris", "NATO", ".", *(f"the{number}" for number in range(80))]
UNCASED = [piece for piece in CASED if piece in SPECIAL or piece == piece.lower()]


def bare_encoder(folder: Path, vocabulary: list[str]) -> Path:
    """A BERT with vocab.txt and config.json alone, as several of the Hub are."""
    tiny.make_encoder_config("bert", vocab_size=len(vocabulary)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def pieces_of(processor: AspertProcessor, *words: str) -> list[str]:
    return processor.tokenizer.convert_ids_to_tokens(processor.encode([words])[0].input_ids[1:-1])


def reloaded(processor: AspertProcessor, folder: Path) -> AspertProcessor:
    processor.save_pretrained(folder)
    return AspertProcessor.from_pretrained(folder)


def test_a_cased_vocabulary_alone_keeps_upper_case(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        processor = AspertProcessor.from_encoder_pretrained(bare_encoder(tmp_path / "bert", CASED))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'bert'}: a cased vocabulary, and no file says that text is lower-cased: it is not (lowercase=True "
        "would)"
    ]
    for same in (processor, reloaded(processor, tmp_path / "saved")):
        assert pieces_of(same, "Paris", "paris", "NATO", "Nato") == ["Paris", "paris", "NATO", "[UNK]"]
        assert not lowercases(same.tokenizer)


def test_an_uncased_vocabulary_alone_is_lower_cased(tmp_path, caplog):
    """Its special tokens have upper-case letters, and a rare piece may."""
    for vocabulary in (UNCASED, [*UNCASED, *(f"a{number}" for number in range(20)), "COVID"]):
        processor = AspertProcessor.from_encoder_pretrained(bare_encoder(tmp_path, vocabulary))
        assert pieces_of(processor, "Paris", "PARIS") == ["paris", "paris"]
    assert not caplog.records


def test_lower_casing_that_is_stated_is_respected(tmp_path, caplog):
    folder = bare_encoder(tmp_path / "bert", CASED)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert pieces_of(AspertProcessor.from_encoder_pretrained(folder), "Paris", "NATO") == ["paris", "[UNK]"]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert pieces_of(AspertProcessor.from_encoder_pretrained(folder), "Paris", "NATO") == ["Paris", "NATO"]
    assert not caplog.records


@pytest.mark.parametrize("stated", [True, False])
def test_the_case_that_tokenizer_json_states_alone(tmp_path, stated):
    folder = bare_encoder(tmp_path / "bert", CASED)
    AutoTokenizer.from_pretrained(folder, do_lower_case=stated).save_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "vocab.txt").unlink()
    assert json.loads((folder / "tokenizer.json").read_text())["normalizer"]["lowercase"] is stated
    processor = AspertProcessor.from_encoder_pretrained(folder)
    assert pieces_of(processor, "Paris") == ["paris" if stated else "Paris"]
    assert lowercases(reloaded(processor, tmp_path / "saved").tokenizer) is stated


@pytest.mark.parametrize("stated", [None, True, False])
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("vocabulary", [CASED, UNCASED], ids=["cased", "uncased"])
def test_the_case_that_is_asked_for(tmp_path, caplog, vocabulary, lowercase, stated):
    folder = bare_encoder(tmp_path / "bert", vocabulary)
    if stated is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": stated}))
    processor = AspertProcessor.from_encoder_pretrained(folder, lowercase=lowercase)
    expected = "paris" if lowercase else "Paris" if "Paris" in vocabulary else "[UNK]"
    for same in (processor, reloaded(processor, tmp_path / "saved")):
        assert pieces_of(same, "Paris") == [expected]
    assert not caplog.records


def test_a_case_that_the_tokenizer_does_not_offer(tmp_path):
    tiny.make_encoder_folder(tmp_path, "roberta")
    assert not lowercases(AspertProcessor.from_encoder_pretrained(tmp_path, lowercase=False).tokenizer)
    with pytest.raises(
        ValueError, match="the tokenizer: lowercase = True is not valid: RobertaTokenizer leaves no ch"
    ):
        AspertProcessor.from_encoder_pretrained(tmp_path, lowercase=True)


def test_encoder_in_a_subfolder(tmp_path):
    tiny.make_encoder_folder(tmp_path, "roberta")
    tiny.make_encoder_folder(tmp_path / "enc")
    processor = AspertProcessor.from_encoder_pretrained(tmp_path, subfolder="enc")
    assert pieces_of(processor, "Ada", "unhappy") == ["Ada", "un", "##happy"]
    types = {"entity_types": ["a"], "relation_types": ["r"]}
    model = AspertForJointExtraction.from_encoder_pretrained(tmp_path, subfolder="enc", **types)
    assert model.config.encoder_config.model_type == "bert"
    (tmp_path / "enc" / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match="enc/tokenizer.json: no JSON object"):
        AspertProcessor.from_encoder_pretrained(tmp_path, subfolder="enc")


def test_slow_tokenizers_are_refused(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]), encoding="utf-8")
    slow = BertTokenizerLegacy(str(vocabulary))
    with pytest.raises(ValueError, match="BertTokenizerLegacy has no fast version"):
        AspertProcessor(slow)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 30), st.integers(1, 12))
def test_candidate_spans(num_words, max_width):
    spans = candidate_spans(num_words, max_width)
    assert spans.dtype == np.int64
    assert [tuple(span) for span in spans.tolist()] == reference.candidate_spans(num_words, max_width)


def test_candidate_spans_by_hand():
    assert candidate_spans(3, 2).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert len(candidate_spans(40, 10)) == 40 * 10 - 45
    assert candidate_spans(0, 10).shape == (0, 2)
    with pytest.raises(ValueError):
        candidate_spans(3, 2)[0, 0] = 7
