"""documents.py: sentences, words and windows, and that no offset is ever wrong."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
import time

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_scripts.converters import conversion
from modeling_aspert.documents import merge_windows, sentence_languages, split_sentences, split_words, windows

SPLITTERS = ["rules", "rules-split-hyphens", "word-punct", "whitespace"]

# Any code point, lone surrogates among them, mixed with what is known to be hard.
HARD = [
    *(
        "Dr. ",
        "U.S. ",
        "e.g. ",
        "It's ",
        "don't",
        ". ",
        "? ",
        "... ",
        "1,250.5",
        "(a) ",
        "1. ",
        '"Why?" ',
        "a-b",
        "l'Italie",
    ),
    *(
        "\r\n",
        "\n",
        "\n\n",
        "\t",
        "\u2028",
        "\x85",
        "\x1c",
        "\x0b",
        "\x00",
        " ",
        "\u3000",
        "\u200b",
        "\ufeff",
        "\u200f",
    ),
    *(
        "e\u0301",
        "\u0301",
        "👩\u200d👩\u200d👧",
        "👍🏽",
        "🇩🇪",
        "\u200d",
        "\ufe0f",
        "שלום ",
        "مرحبا. ",
        "日本語。",
        "ราคา",
        "한국어 ",
        "\u1112\u1161\u11ab",
    ),
    *("∯", "ȸ", "♨", "&ᓴ&", "☝", "ƪƪƪ", ".[1, 2, 3, 4, 5, 6, 7, 8, 9]", "b.a b(a. ", "\ud83d", "İ", "ß"),
]
texts = st.lists(st.one_of(st.sampled_from(HARD), st.text(st.characters(), max_size=8)), max_size=30).map("".join)


def assert_covers(text: str, spans: list[tuple[int, int]]) -> None:
    """In order, not empty, without overlap, and nothing but white space between them."""
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert not text[position:start].strip()
        position = end
    assert not text[position:].strip()


def words_of(text: str, splitter: str = "rules") -> list[str]:
    return [text[start:end] for start, end in split_words(text, splitter)]


def sentences_of(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, language)]


# words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $1,250.5 (10:30).", "It|costs|$|1,250.5|(|10:30|)|."),
        ("The U.S.-based non-small-cell x", "The|U.S.-based|non-small-cell|x"),
        ("He can't; it's Paget's, they’re", "He|ca|n't|;|it|'s|Paget|'s|,|they|’re"),
        ("Paget 's do n't", "Paget|'s|do|n't"),
        ("O'Brien l'Italie d'Alembert dell'arte", "O'Brien|l'|Italie|d'|Alembert|dell'|arte"),
        ("wait -- what?! a.m., ``so''", "wait|--|what|?|!|a.m.|,|``|so|''"),
        ("((x)) [1] C++ 5% 12-mg", "(|(|x|)|)|[|1|]|C|++|5|%|12-mg"),
        ("東京タワーは高い。", "東|京|タワー|は|高|い|。"),
        ("👩\u200d👩\u200d👧👍🏽🇩🇪🇫🇷1\ufe0f\u20e3", "👩\u200d👩\u200d👧|👍🏽|🇩🇪|🇫🇷|1\ufe0f\u20e3"),
        ("cafe\u0301-bar می\u200cخواهم", "cafe\u0301-bar|می\u200cخواهم"),
        ("a\u200bb \ufeffx", "a|\u200b|b|\ufeff|x"),
    ],
)
def test_rules(text, expected):
    assert words_of(text) == expected.split("|")


def test_split_hyphens():
    text = "azithromycin-induced 5-FU U.S.-based 43-year-old TMP–SMX"
    expected = "azithromycin|-|induced|5-FU|U.S.-based|43-year|-|old|TMP|–|SMX"
    assert words_of(text, "rules-split-hyphens") == expected.split("|")


def test_unknown_splitter():
    with pytest.raises(ValueError, match="unknown word splitter 'spacy': choose one of rules, "):
        split_words("a", "spacy")


@given(texts)
@settings(max_examples=400, deadline=None)
@example(" \u0600 \u0301a")
def test_words_cover_the_text(text):
    for splitter in SPLITTERS:
        spans = split_words(text, splitter)
        assert_covers(text, spans)
        assert not any(character.isspace() for start, end in spans for character in text[start:end])
    assert words_of(text, "whitespace") == text.split()


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_converted_data_can_be_split_alike(text):
    assert split_words(text, "word-punct") == conversion.split_words(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=300, deadline=None)
def test_words_do_not_cut_graphemes(text):
    # Prepend characters before punctuation are the one exception, white space inside a cluster (RTL number signs) too
    text = regex.sub(r"\p{GCB=Prepend}", "", text)
    borders = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert {border for span in split_words(text) for border in span} <= borders | {
        match.end() for match in re.finditer(r"\s", text)
    }


@pytest.mark.parametrize(
    "piece", ["a.b", "a-", "a'", "l'", "n't ", ".", "-.", "1,", "\u0301", "日", "👩\u200d", "a.a.ab "]
)
def test_words_take_linear_time(piece):
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    spans = split_words(text)
    assert time.process_time() - start < 2  # what is quadratic takes minutes
    assert_covers(text, spans)


@pytest.mark.parametrize("piece", ["word ", " "])
def test_a_megabyte(piece):
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    words = split_words(text)
    assert time.process_time() - start < 3
    sentences = split_sentences(text)
    assert time.process_time() - start < 12
    assert_covers(text, words)
    assert sentences == ([(0, len(text.rstrip()))] if text.strip() else [])


# (tokens reproduced, at least; measured 97.80, 99.90, 99.92 per cent)
@pytest.mark.parametrize(
    ("file", "share"),
    [("conll04/conll04_train_dev.json", 0.975), ("scierc/scierc_train.json", 0.998), ("ade/ade_full.json", 0.999)],
)
def test_corpora(corpora, file, share):
    """Tokens joined by blanks and split again. What differs is split finer ("Sen." → Sen|.), so borders stay."""
    n_tokens = n_found = 0
    for record in json.loads((corpora / file).read_text(encoding="utf-8")):
        text, offsets = " ".join(record["tokens"]), []
        for token in record["tokens"]:
            start = offsets[-1][1] + 1 if offsets else 0
            offsets.append((start, start + len(token)))
        spans = set(split_words(text))
        n_tokens += len(offsets)
        n_found += sum(offset in spans for offset in offsets)
        starts, ends = {start for start, _ in spans}, {end for _, end in spans}
        for entity in record["entities"]:
            assert offsets[entity["start"]][0] in starts
            assert offsets[entity["end"] - 1][1] in ends
    assert n_found / n_tokens >= share


# measured: 93.93, 99.99 and 66.35 per cent of 13,642 mentions
@pytest.mark.parametrize(("splitter", "share"), [("rules", 0.939), ("rules-split-hyphens", 0.995)])
def test_running_text_of_ade(corpora, splitter, share):
    """ADE's sentences as they were printed: the mentions whose borders are borders of words."""
    n_mentions = n_found = 0
    for line in (corpora / "ade/original/DRUG-AE.rel").read_text(encoding="utf-8").splitlines():
        _, text, effect, _, _, drug, _, _ = line.split("|")
        spans = split_words(text, splitter)
        starts, ends = {start for start, _ in spans}, {end for _, end in spans}
        for mention in (effect, drug):
            places = [match.start() for match in re.finditer(re.escape(mention), text)]
            n_mentions += bool(places)
            n_found += any(place in starts and place + len(mention) in ends for place in places)
    assert n_mentions > 13_000
    assert n_found / n_mentions >= share


# sentences


def test_sentences():
    text = (
        'Dr. Smith went to the U.S. He met Mr. J. Doe Jr. at 5 p.m. on Monday. "Why?" she asked.  It cost $3.5 million.'
        "\r\nA new line begins,\nand goes on. Last!"
    )
    assert sentences_of(text) == [
        "Dr. Smith went to the U.S.",
        "He met Mr. J. Doe Jr. at 5 p.m. on Monday.",
        '"Why?" she asked.',
        "It cost $3.5 million.",
        "A new line begins,\nand goes on.",
        "Last!",
    ]
    assert sentences_of("これはペンです。あれは？", "ja") == ["これはペンです。", "あれは？"]
    assert sentences_of("One.\n\nand two") == ["One.", "and two"]
    assert sentences_of(" \t\r\n") == []


def test_unknown_language():
    with pytest.raises(
        ValueError, match="no sentence rules for language 'xx': choose one of am, ar, bg, da, de, el, en, es"
    ):
        split_sentences("a", "xx")


@given(texts, st.sampled_from(sentence_languages()))
@settings(max_examples=400, deadline=None)
def test_sentences_cover_the_text(text, language):
    spans = split_sentences(text, language)
    assert_covers(text, spans)
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


@pytest.mark.parametrize("size", [900, 1100, 5000])
def test_long_sentences_stay_whole(size):
    """Blocks are invisible: sentences longer and shorter than a block, at all places."""
    rng = random.Random(size)
    sentences = []
    while sum(map(len, sentences)) < 30_000:
        n_words = rng.randrange(1, 20) if rng.random() < 0.8 else rng.randrange(1, size // 5)
        sentences.append("The " + " ".join(rng.choice(["drug", "was", "given"]) for _ in range(n_words)) + " daily.")
    assert sentences_of(" ".join(sentences)) == sentences


def test_pysbd_failure_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert sentences_of("b.a b(a. Eins. Zwei.", "de") == ["b.a b(a. Eins. Zwei."]
    assert "pysbd failed on characters 0 to 20 (" in caplog.text


@pytest.mark.parametrize("piece", ["\n", "1, ", "a.[1, 2, 3 ", '" (', "日", "No. ", "a. ", "a"])
def test_sentences_take_linear_time(piece):
    text = piece * (50_000 // len(piece))
    start = time.process_time()
    spans = split_sentences(text)
    assert time.process_time() - start < 4  # pysbd alone: minutes, or exponential time
    assert_covers(text, spans)


def test_time_is_linear_in_running_text():
    paragraph = "The patient was given 5 mg of the drug, e.g. at night. Dr. Smith (see Fig. 2) saw no effect. "
    times = []
    for n in (200, 800):
        start = time.process_time()
        assert len(split_sentences(paragraph * n)) == 2 * n
        times.append(time.process_time() - start)
    assert times[1] < 10 * times[0]


# windows


def test_windows_by_hand():
    assert windows([1, 1, 1], 10, 2) == [(0, 3)]
    assert windows([], 10, 2) == []
    assert windows([1] * 10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert windows([1] * 10, 4, 0) == [(0, 4), (4, 8), (8, 10)]
    assert windows([1] * 6, 4, 100) == [(0, 4), (2, 6)]  # the overlap is at most half
    assert windows([2, 9, 2, 2, 2], 4, 1) == [(0, 1), (1, 2), (2, 4), (3, 5)]  # word 1 is longer than a window
    assert windows([1, 1, 3, 1], 4, 2) == [(0, 2), (1, 3), (2, 4)]


@pytest.mark.parametrize(("arguments", "message"), [(([1], 0, 0), "limit"), (([1], 1, -1), "stride")])
def test_windows_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 15), st.integers(0, 20))
@settings(deadline=None)
def test_windows_cover_and_fit(counts, limit, stride):
    result = windows(counts, limit, stride)
    assert {word for start, end in result for word in range(start, end)} == set(range(len(counts)))
    for start, end in result:
        assert sum(counts[start:end]) <= limit or end == start + 1
    for (start, end), (next_start, next_end) in itertools.pairwise(result):
        assert start < next_start <= end < next_end
        assert end - next_start <= stride


def record(*entities, relations=()):
    return {
        "entities": [
            {"type": kind, "start": start, "end": end, "score": score} for kind, start, end, score in entities
        ],
        "relations": [
            {"type": kind, "head": head, "tail": tail, "score": score} for kind, head, tail, score in relations
        ],
    }


def test_merge_equal_entities_and_relations():
    first = record(("Drug", 5, 6, 0.9), ("Effect", 7, 8, 0.5), relations=[("Causes", 0, 1, 0.6)])
    second = record(("Effect", 3, 4, 0.8), ("Drug", 1, 2, 0.7), relations=[("Causes", 1, 0, 0.9)])
    assert merge_windows([first, second], [(0, 10), (4, 14)]) == record(
        ("Drug", 5, 6, 0.9), ("Effect", 7, 8, 0.8), relations=[("Causes", 0, 1, 0.9)]
    )


def test_merge_prefers_what_no_border_cut():
    # the entity 8..12 is cut to 8..10 by the first window, with a higher score and a relation that moves to the whole
    first = record(("Drug", 2, 3, 0.9), ("Effect", 8, 10, 0.99), relations=[("Causes", 0, 1, 0.8)])
    second = record(("Effect", 2, 6, 0.6))
    expected = record(("Drug", 2, 3, 0.9), ("Effect", 8, 12, 0.6), relations=[("Causes", 0, 1, 0.8)])
    assert merge_windows([first, second], [(0, 10), (6, 16)]) == expected


def test_merge_other_type_takes_its_relations_along():
    first = record(("Drug", 2, 3, 0.9), ("Person", 8, 10, 0.99), relations=[("Causes", 0, 1, 0.8)])
    second = record(("Effect", 2, 6, 0.6))
    assert merge_windows([first, second], [(0, 10), (6, 16)]) == record(("Drug", 2, 3, 0.9), ("Effect", 8, 12, 0.6))


def test_merge_keeps_nested_and_the_ends_of_the_sentence():
    # nested entities that one window found together stay; the sentence's own ends are no borders
    first = record(("Effect", 0, 3, 0.5), ("Drug", 0, 1, 0.4))
    second = record(("Effect", 2, 4, 0.3))
    assert (
        merge_windows([first, second], [(0, 8), (4, 8)])["entities"]
        == record(("Drug", 0, 1, 0.4), ("Effect", 0, 3, 0.5), ("Effect", 6, 8, 0.3))["entities"]
    )
    assert merge_windows([], []) == {"entities": [], "relations": []}


def test_merge_keeps_one_direction_of_a_symmetric_relation():
    # 16..20 of the first window gives way to 13..22, which begins before the other entity of its relation
    first = record(("A", 14, 15, 0.9), ("A", 16, 20, 0.9), relations=[("Near", 0, 1, 0.8), ("Of", 0, 1, 0.8)])
    second = record(("A", 3, 12, 0.9), ("A", 4, 5, 0.9), relations=[("Near", 0, 1, 0.6), ("Of", 0, 1, 0.6)])
    relations = [("Near", 0, 1, 0.8), ("Of", 0, 1, 0.6), ("Of", 1, 0, 0.8)]
    expected = record(("A", 13, 22, 0.9), ("A", 14, 15, 0.9), relations=relations)
    assert merge_windows([first, second], [(0, 20), (10, 40)], ["Near"]) == expected


def test_merge_without_scores_and_with_wrong_offsets():
    gold = {"entities": [{"type": "Drug", "start": 1, "end": 2}], "relations": []}
    assert merge_windows([gold], [(3, 6)])["entities"] == [{"type": "Drug", "start": 4, "end": 5}]
    with pytest.raises(ValueError, match="shorter|longer"):
        merge_windows([gold], [(0, 3), (2, 5)])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_windows_of_one_truth_merge_to_it(data):
    """A model that finds all that it sees whole: what fits into a window's inside is found, and nothing else."""
    n_words = data.draw(st.integers(1, 60))
    spans = windows([1] * n_words, limit=20, stride=8)
    starts = data.draw(st.sets(st.integers(0, n_words - 1)))
    truth = [
        {"type": "T", "start": start, "end": min(start + data.draw(st.integers(1, 8)), n_words)}
        for start in sorted(starts)
    ]
    seen = [
        [
            {**entity, "start": entity["start"] - start, "end": entity["end"] - start}
            for entity in truth
            if start <= entity["start"] and entity["end"] <= end
        ]
        for start, end in spans
    ]
    merged = merge_windows([{"entities": entities, "relations": []} for entities in seen], spans)["entities"]
    if all(first["end"] <= second["start"] for first, second in itertools.pairwise(truth)):
        assert merged == truth
    assert all(entity in truth for entity in merged)
