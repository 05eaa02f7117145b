"""From running text to sentences, words and windows, with character offsets into the text as it was given.

Offsets are end-exclusive. Nothing here changes, normalises or drops a character: the words of a text cover all of its
characters that are not white space (`str.isspace`), in order, and so do its sentences.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import regex

logger = logging.getLogger(__name__)

Splitter = Literal["rules", "rules-split-hyphens", "word-punct", "whitespace"]
Span = tuple[int, int]

# Scripts written without blanks between words, in which any character may begin an entity.
_NO_BLANKS = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# Letters, marks and digits of all other scripts, with the invisible characters that stand inside words: soft hyphen,
# zero-width (non-)joiner, word joiner.
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}\p{{GCB=Prepend}}_\u00ad\u200c\u200d\u2060]--[{_NO_BLANKS}\p{{Katakana}}]]"
_WORD_END = rf"(?!{_LETTER})"
_NUMBER = rf"\p{{Nd}}++(?:[.,:/]\p{{Nd}}++)*+{_LETTER}*+"
_ABBREVIATION = rf"\p{{L}}(?:\.\p{{L}})++{_WORD_END}\.?"
_PART = rf"(?:{_ABBREVIATION}|{_NUMBER}|{_LETTER}++)"
_NEGATION = rf"(?i:n['’]t){_WORD_END}"
_CLITIC = rf"['’](?i:s|m|d|re|ve|ll){_WORD_END}"
_ELISION = r"(?i:[cdjlmnst]|qu|un|(?:a|co|da|de|ne|su)ll)['’](?=\p{L}{2})"
# What a user sees as one character (Unicode's grapheme cluster) goes on over these.
_GRAPHEME_REST = r"(?:[\p{GCB=Extend}\p{GCB=SpacingMark}]|\u200d\p{Extended_Pictographic}?)*+"


def _word_pattern(hyphen: str) -> regex.Pattern:
    """Every repetition is possessive or bounded by a word, so the time is linear in the text."""
    return regex.compile(
        rf"""(?:
          {_NEGATION}
        | {_LETTER}+?(?={_NEGATION})
        | {_ELISION}
        | {_CLITIC}
        | {_PART}(?:{hyphen}{_PART}|(?!{_CLITIC})['’]{_LETTER}++)*+
        | [\p{{Katakana}}ー]++
        | \p{{Regional_Indicator}}{{2}}
        | ([-.'`!?*_=~\#+/\\:…—–])\1++
        | [^\s\x1c-\x1f]
        ){_GRAPHEME_REST}""",
        regex.VERSION1 | regex.VERBOSE,
    )


_WORDS: dict[str, Any] = {
    "rules": _word_pattern(r"[-‐‑]"),
    "rules-split-hyphens": _word_pattern(r"(?:(?<!\p{L})[-‐‑]|[-‐‑](?!\p{L}))"),
    "word-punct": re.compile(r"\w+|[^\w\s]"),
    "whitespace": re.compile(r"\S+"),
}


def split_words(text: str, splitter: Splitter = "rules") -> list[Span]:
    """Character offsets of the words of `text`.

    `"rules"`: words and punctuation of running text in any script. Hyphenated words, numbers (1,250.5, 10:30) and
    abbreviations with inner periods (U.S.) stay whole; English clitics are split as in the Penn Treebank (do|n't,
    Paget|'s), French and Italian elisions after the apostrophe (l'|Italie); each grapheme of a script without blanks
    (Han, Hiragana, Thai, Lao, Khmer, Burmese) is a word; a grapheme cluster (emoji with joiners, letters with
    combining marks) is never cut but by white space. Invisible characters outside words are words of their own.

    `"rules-split-hyphens"`: the same, but a hyphen between two letters is a word (azithromycin|-|induced), as in
    corpora tokenised by spaCy, ADE among them. Choose the rules that the training data were split by: of the mentions
    in ADE's raw sentences, `"rules"` can mark 93.9% and `"rules-split-hyphens"` 99.98%.

    `"word-punct"`: runs of letters, digits and underscores, and every other character by itself (U|.|S|.), as the converters
    of `data_scripts` split the raw text of brat and DRUG-AE.

    `"whitespace"`: `str.split()`.

    Why not the pre-tokenizers of `tokenizers`: none keeps hyphens and numbers whole (`BertPreTokenizer` gives U|.|S|.),
    `Split` would need the pattern below all the same, and all refuse lone surrogates. `regex`, which transformers
    brings along, knows the Unicode properties.

    Raises ValueError for an unknown splitter.
    """
    check_word_splitter(splitter)
    return [match.span() for match in _WORDS[splitter].finditer(text)]


def check_word_splitter(splitter: str) -> None:
    """Raise ValueError, with the list, for a word splitter that there is not."""
    if splitter not in _WORDS:
        raise ValueError(f"unknown word splitter {splitter!r}: choose one of {', '.join(_WORDS)}")


# pysbd sees at most this many characters at once: its time grows with the square of its input.
_BLOCK = 1000
# Where a block holds no boundary, the next one begins this much before its end, so that a boundary there is seen.
_BLOCK_OVERLAP = 200
# Characters that pysbd puts into the text for its own use; what the text itself has of them must not be mistaken.
_PYSBD_MARKERS = regex.compile(r"[ƪȸȹᓰᓱᓳᓴᓷᓸ∮∯⌬⎋☄☇☈☉☏☝♝♟♨♬♭✂]")
# Its rule for numbered references after a period takes exponential time on long ones: ".[1, 2, 3, ... 30]".
_LONG_REFERENCE = re.compile(r"(?<=\.)\[[\[\]\d,\s-]{16,}")


def sentence_languages() -> list[str]:
    """The languages (ISO 639-1 codes) that `split_sentences` knows."""
    return sorted(_pysbd().languages.LANGUAGE_CODES)


def check_language(language: str) -> None:
    """Raise ValueError, with the list, for a language that `split_sentences` does not know."""
    if language not in sentence_languages():
        raise ValueError(
            f"no sentence rules for language {language!r}: choose one of {', '.join(sentence_languages())}"
        )


def _pysbd() -> Any:
    # optional for the code that travels with a model: whoever gives whole sentences does not need it
    try:
        import pysbd
        import pysbd.languages
    except ImportError:
        raise ImportError(
            "splitting text into sentences needs pysbd: `pip install pysbd`, or give sentences (split_sentences=False)"
        ) from None
    return pysbd


def split_sentences(text: str, language: str = "en") -> list[Span]:
    """Character offsets of the sentences of `text`, without the white space around them, by pysbd's rules.

    A line break ends a sentence, unless the next line begins with a lower-case letter and the line before did not end
    with a sentence's punctuation (hard-wrapped prose). Within a paragraph pysbd sees blocks of at most 1,000
    characters, each beginning with a sentence, so the time is linear in the text; a longer sentence stays one
    sentence (see `windows`). pysbd's answer is not trusted: its sentences are looked up in the text in order, one that
    cannot be found stays joined to its neighbour, and no boundary is accepted within a word.

    Raises ValueError, with the list, for a language that pysbd has no rules for.
    """
    check_language(language)
    segmenter = _pysbd().Segmenter(language=language, clean=False)
    return [
        (start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()))
        for paragraph in _paragraphs(text)
        for start, end in _paragraph_sentences(segmenter, text, *paragraph)
        if (piece := text[start:end]).strip()
    ]


def _paragraphs(text: str) -> Iterator[Span]:
    """Runs of lines that belong together; blank lines belong to none."""
    start = end = position = 0
    open_end = False
    for line in text.splitlines(keepends=True):
        content = line.strip()
        if not (content and open_end and content[0].islower()):
            if end > start:
                yield start, end
            start = position
        position += len(line)
        end = position if content else start
        open_end = bool(content) and content[-1] not in ".!?:;。！？"
    if end > start:
        yield start, end


def _paragraph_sentences(segmenter: Any, text: str, start: int, end: int) -> Iterator[Span]:
    sentence_start = block_start = start
    while block_start < end:
        block_end = min(block_start + _BLOCK, end)
        if block_end < end:
            block_end = _blank_before(text, block_start + _BLOCK_OVERLAP, block_end)
        boundaries = [
            boundary
            for boundary in _block_boundaries(segmenter, text, block_start, block_end)
            if boundary > sentence_start
        ]
        for boundary in boundaries:
            yield sentence_start, boundary
            sentence_start = boundary
        if block_end == end:
            break
        # The last sentence of a block may go on: it is seen again, whole.
        block_start = (
            boundaries[-1] if boundaries else _blank_before(text, block_start + 1, block_end - _BLOCK_OVERLAP)
        )
    if end > sentence_start:
        yield sentence_start, end


def _blank_before(text: str, low: int, high: int) -> int:
    """The last position in (low, high] that follows white space; `high` where there is none."""
    for position in range(high, low, -1):
        if text[position - 1].isspace():
            return position
    return high


def _block_boundaries(segmenter: Any, text: str, start: int, end: int) -> list[int]:
    """Where pysbd begins sentences in text[start:end], but for the first, as offsets in `text`."""
    block = text[start:end]
    masked = _PYSBD_MARKERS.sub("\ufffd", re.sub(r"\s", " ", block))
    masked = _LONG_REFERENCE.sub(lambda match: re.sub(r"\d", "x", match.group()), masked)
    try:
        # not `segment`, which searches the whole text for each sentence
        sentences = segmenter.processor(masked).process()
    except (re.error, ValueError, LookupError) as error:
        # pysbd makes patterns of what it finds in the text: "b(a." breaks its German rules
        logger.warning(
            "pysbd failed on characters %d to %d (%s: %s): no sentence boundary is looked for in them",
            start,
            end,
            type(error).__name__,
            error,
        )
        return []
    word_starts = {word_start for word_start, _ in split_words(block)}
    found: list[int] = []
    position = 0
    for sentence in map(str.strip, sentences):
        sentence_start = masked.find(sentence, position)
        if not sentence or sentence_start < 0:
            continue
        gap = masked[position:sentence_start]
        found += [sentence_start - len(gap.lstrip()), sentence_start]
        position = sentence_start + len(sentence)
    return sorted({start + boundary for boundary in found if boundary in word_starts and boundary > 0})


def windows(word_token_counts: Sequence[int], limit: int, stride: int) -> list[Span]:
    """Windows (word_start, word_end) over a sentence that is longer than the encoder takes.

    word_token_counts: sub-words of each word. limit: sub-words that a window may hold, special tokens not counted.
    stride: words by which neighbours overlap; less where the words are long, for the overlap is at most half of a
    window, and each window reaches further than the one before.

    Every word is in a window at least, and the windows are in order. A window's sub-words fit the limit, but for one
    case: a word that is longer than the limit by itself has a window to itself, of which the processor truncates (and
    counts) the pieces. A sentence that fits has the one window (0, number of words), a sentence without words none.

    Raises ValueError for limit < 1 or stride < 0.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}: a window holds at least one sub-word")
    if stride < 0:
        raise ValueError(f"stride is {stride}: the overlap of windows, in words, is at least 0")
    result: list[Span] = []
    n_words = len(word_token_counts)
    start = end = tokens = 0  # tokens: sub-words of start..end
    while end < n_words:
        while start < end and tokens + word_token_counts[end] > limit:
            tokens -= word_token_counts[start]
            start += 1
        while end < n_words and (end == start or tokens + word_token_counts[end] <= limit):
            tokens += word_token_counts[end]
            end += 1
        result.append((start, end))
        overlap = min(stride, (end - start) // 2)
        tokens -= sum(word_token_counts[start : end - overlap])
        start = end - overlap
    return result


def merge_windows(
    window_records: Sequence[dict[str, Any]], offsets: Sequence[Span], symmetric_relations: Collection[str] = ()
) -> dict[str, list]:
    """The word records of a sentence's windows as one: {"entities": [...], "relations": [...]}.

    window_records: word records, entity offsets counted from the window's first word; a "score" is kept, and counts as
    0 where there is none. offsets: the windows, as `windows` gave them. symmetric_relations: the types whose head is the
    entity that comes first.

    - An entity that several windows found (same start, end and type) is one, with the highest score.
    - Of two overlapping entities that no window found together, the one stays that is further from the border of its
      window (the sentence's own ends are no borders), then the one with the higher score. So what a border cut never
      replaces what the neighbour saw whole, and nested entities found together stay.
    - Relations follow their entities; those of an entity that gave way go to the one that replaced it if that has the
      same type, else they go with it. Of equal relations the highest score stays.

    Entities are sorted by (start, end, type), relations by (head, tail, type).
    """
    first, last = (offsets[0][0], offsets[-1][1]) if offsets else (0, 0)

    best: dict[tuple, dict[str, Any]] = {}
    seen_in: dict[tuple, set[int]] = defaultdict(set)
    margins: dict[tuple, float] = defaultdict(float)
    keys: list[list[tuple]] = []
    for index, (record, (window_start, window_end)) in enumerate(zip(window_records, offsets, strict=True)):
        keys.append([])
        for entity in record["entities"]:
            start, end = entity["start"] + window_start, entity["end"] + window_start
            key = (start, end, entity["type"])
            keys[index].append(key)
            seen_in[key].add(index)
            left = start - window_start if window_start > first else float("inf")
            right = window_end - end if window_end < last else float("inf")
            margins[key] = max(margins[key], min(left, right))
            if key not in best or _score(entity) > _score(best[key]):
                best[key] = {**entity, "start": start, "end": end}

    winner: dict[tuple, tuple] = {}
    kept_at: dict[int, list[tuple]] = defaultdict(list)
    for key in sorted(best, key=lambda key: (-margins[key], -_score(best[key]), key)):
        rivals = (kept for word in range(key[0], key[1]) for kept in kept_at[word])
        winner[key] = next((kept for kept in rivals if not seen_in[kept] & seen_in[key]), key)
        if winner[key] == key:
            for word in range(key[0], key[1]):
                kept_at[word].append(key)

    kept_keys = sorted(key for key in best if winner[key] == key)
    position = {key: index for index, key in enumerate(kept_keys)}
    relations: dict[tuple, dict[str, Any]] = {}
    for index, record in enumerate(window_records):
        for relation in record["relations"]:
            ends = [keys[index][relation["head"]], keys[index][relation["tail"]]]
            if any(winner[key][2] != key[2] for key in ends):
                continue
            head, tail = (position[winner[key]] for key in ends)
            if relation["type"] in symmetric_relations and head > tail:
                head, tail = tail, head
            key = (head, tail, relation["type"])
            if head != tail and (key not in relations or _score(relation) > _score(relations[key])):
                relations[key] = {**relation, "head": head, "tail": tail}
    return {"entities": [best[key] for key in kept_keys], "relations": [relations[key] for key in sorted(relations)]}


def _score(item: dict[str, Any]) -> float:
    return item.get("score", 0.0)
