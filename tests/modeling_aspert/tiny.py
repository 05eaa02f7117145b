"""Tiny encoders with random weights and tokenizers that fit them, made here: no download, a few milliseconds each.

Every family that the library promises to support has one entry in ``FAMILIES``. Queries and keys start with large
weights, so that some attention passes the paper's threshold of 0.5 before any training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoModel,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    MPNetTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
)

from modeling_aspert import AspertConfig, AspertDataCollator, AspertForJointExtraction, AspertProcessor
from modeling_aspert.dataset import JointExtractionDataset

ENTITY_TYPES = ["Person", "Place", "Company"]
RELATION_TYPES = ["works-for", "lives-in", "married-to"]
SYMMETRIC_RELATIONS = ["married-to"]
HIDDEN_SIZE, LAYERS, HEADS = 32, 2, 4
MAX_POSITIONS = 128

RECORDS = [
    {
        "tokens": "Ada Lovelace , a mathematician , worked for Analytical Engines in London .".split(),
        "entities": [
            {"type": "Person", "start": 0, "end": 2},
            {"type": "Company", "start": 8, "end": 10},
            {"type": "Place", "start": 11, "end": 12},
        ],
        "relations": [{"type": "works-for", "head": 0, "tail": 1}, {"type": "lives-in", "head": 0, "tail": 2}],
        "orig_id": "a",
    },
    {
        "tokens": "Marie married Pierre in Paris .".split(),
        "entities": [
            {"type": "Person", "start": 0, "end": 1},
            {"type": "Person", "start": 2, "end": 3},
            {"type": "Place", "start": 4, "end": 5},
        ],
        "relations": [
            {"type": "married-to", "head": 1, "tail": 0},
            {"type": "lives-in", "head": 0, "tail": 2},
            {"type": "lives-in", "head": 1, "tail": 2},
        ],
    },
    {"tokens": ["Rain", "."], "entities": [], "relations": []},
    {"tokens": ["Stop"], "entities": [], "relations": []},
]

# words that the vocabularies know as a whole; all others fall into pieces
_KNOWN_WORDS = """Ada a mathematician worked for in London married Paris Stop the fox jumps over un happy happiness
don measured University""".split()
_LETTERS = [chr(code) for code in range(33, 127)]


def _wordpiece(special: list[str]) -> dict[str, int]:
    """Special tokens, ASCII characters at the start and inside of words, known words, a few endings."""
    endings = ["##ing", "##s", "##ed", "##love", "##lace", "##happy", "##ness"]
    inside = [f"##{letter}" for letter in _LETTERS]
    return {
        token: index
        for index, token in enumerate(dict.fromkeys([*special, *_LETTERS, *inside, *endings, *_KNOWN_WORDS]))
    }


def _byte_pairs(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Bytes, and the merges that build known words from left to right: all with the leading blank, some without."""
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in [f"Ġ{word}" for word in _KNOWN_WORDS] + ["Ada", "Paris", "happy"]:
        for cut in range(1, len(word)):
            merge = (word[:cut], word[cut])
            if merge not in merges:
                merges.append(merge)
                vocabulary.append("".join(merge))
    return {token: index for index, token in enumerate(vocabulary)}, merges


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    """Special tokens, the blank, ASCII characters and known words, with log probabilities."""
    pieces = [("▁", -4.0), *((letter, -8.0) for letter in _LETTERS)]
    pieces += [(f"▁{word}", -3.0 - index / 100) for index, word in enumerate(_KNOWN_WORDS)] + [
        ("ing", -5.0),
        ("ace", -5.5),
    ]
    return [(token, 0.0) for token in special] + pieces


def _bert_tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab=_wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]), do_lower_case=False)


def _mpnet_tokenizer() -> MPNetTokenizer:
    return MPNetTokenizer(vocab=_wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]), do_lower_case=False)


def _roberta_tokenizer() -> RobertaTokenizer:
    vocab, merges = _byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return RobertaTokenizer(vocab=vocab, merges=merges)


def _albert_tokenizer() -> AlbertTokenizer:
    vocab = _unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    return AlbertTokenizer(vocab=vocab, do_lower_case=False)


def _deberta_tokenizer() -> DebertaV2Tokenizer:
    vocab = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    return DebertaV2Tokenizer(vocab=vocab, unk_id=3)


def _modernbert_tokenizer() -> PreTrainedTokenizerFast:
    vocab, merges = _byte_pairs(["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"])
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ids = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


_COMMON = {
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": MAX_POSITIONS,
}
# family -> (configuration class, its fields, builder of its tokenizer)
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any], Callable[[], Any]]] = {
    "bert": (BertConfig, _COMMON, _bert_tokenizer),
    # RoBERTa's and MPNet's positions start behind the padding index
    "roberta": (RobertaConfig, {**_COMMON, "max_position_embeddings": MAX_POSITIONS + 2}, _roberta_tokenizer),
    "albert": (AlbertConfig, {**_COMMON, "embedding_size": 16}, _albert_tokenizer),
    "deberta-v2": (DebertaV2Config, _COMMON, _deberta_tokenizer),
    "deberta-v3": (
        DebertaV2Config,
        {
            **_COMMON,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
            "max_relative_positions": -1,
        },
        _deberta_tokenizer,
    ),
    "mpnet": (MPNetConfig, {**_COMMON, "max_position_embeddings": MAX_POSITIONS + 2}, _mpnet_tokenizer),
    "electra": (ElectraConfig, {**_COMMON, "embedding_size": 16}, _bert_tokenizer),
    "distilbert": (
        DistilBertConfig,
        {
            "dim": HIDDEN_SIZE,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": 48,
            "max_position_embeddings": MAX_POSITIONS,
        },
        _bert_tokenizer,
    ),
    "modernbert": (ModernBertConfig, {**_COMMON, "local_attention": 8}, _modernbert_tokenizer),
}


def make_tokenizer(family: str = "bert") -> Any:
    """A new fast tokenizer of the family, with a vocabulary written by hand."""
    return FAMILIES[family][2]()


@functools.cache
def _processor(family: str) -> AspertProcessor:
    return AspertProcessor(make_tokenizer(family), max_tokens=MAX_POSITIONS)


def make_processor(family: str = "bert") -> AspertProcessor:
    """The family's processor; shared between the tests of a run."""
    return _processor(family)


def make_encoder_config(family: str = "bert", **fields: Any) -> PretrainedConfig:
    """The configuration of a tiny encoder: 2 layers of 4 heads, hidden size 32."""
    config_class, own, _ = FAMILIES[family]
    tokenizer = make_processor(family).tokenizer
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    ids.update(bos_token_id=ids["cls_token_id"], eos_token_id=ids["sep_token_id"])
    return config_class(**{**own, **ids, "vocab_size": len(tokenizer), **fields})


def make_config(family: str = "bert", encoder_fields: dict[str, Any] | None = None, **fields: Any) -> AspertConfig:
    """ASpERT on a tiny encoder, with three entity types and three relation types of which one is symmetric."""
    defaults: dict[str, Any] = {
        "entity_types": ENTITY_TYPES,
        "relation_types": RELATION_TYPES,
        "symmetric_relations": SYMMETRIC_RELATIONS,
        "span_classifier_size": 24,
        "width_embedding_size": 5,
        "max_span_width": 4,
    }
    encoder_config = make_encoder_config(family, **(encoder_fields or {}))
    return AspertConfig(encoder_config=encoder_config, **{**defaults, **fields})


def sharpen(model: torch.nn.Module) -> None:
    """Give the encoder's query and key weights a large spread, so that attention is far from uniform."""
    projected = [
        parameter for name, parameter in model.named_parameters() if name.endswith("embeddings_project.weight")
    ]
    with torch.no_grad():
        for parameter in [*projected, *(parameter for _, parameter in query_key_parameters(model))]:
            parameter.normal_(0.0, 0.4)


def query_key_parameters(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The weight matrices of the query and key projections (ModernBERT: with the values in one matrix)."""
    marks = (
        "query",
        "key",
        "q_lin",
        "k_lin",
        "attn.q.",
        "attn.k.",
        "query_proj",
        "key_proj",
        "Wqkv",
        "q_proj",
        "k_proj",
    )
    found = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and any(mark in name for mark in marks)
    ]
    if not found:
        raise AssertionError("no query or key projections found: add their names to the marks")
    return found


def make_model(family: str = "bert", seed: int = 0, sharp: bool = True, **fields: Any) -> AspertForJointExtraction:
    """A tiny model in evaluation mode; classifiers with weights large enough that scores differ."""
    torch.manual_seed(seed)
    model = AspertForJointExtraction(make_config(family, **fields))
    if sharp:
        sharpen(model.encoder)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith("encoder."):
                    parameter.normal_(0.0, 0.3)
    return model.eval()


def make_encoder_folder(directory: Path, family: str = "bert", seed: int = 3, **save: Any) -> PreTrainedModel:
    """Save a tiny plain encoder and its tokenizer, as a pre-trained one would lie on disk; returns the encoder."""
    torch.manual_seed(seed)
    encoder = AutoModel.from_config(make_encoder_config(family), attn_implementation="eager").eval()
    sharpen(encoder)
    encoder.save_pretrained(directory, **save)
    make_tokenizer(family).save_pretrained(directory)
    return encoder


def make_dataset(
    config: AspertConfig, family: str = "bert", records: list[dict] | None = None
) -> JointExtractionDataset:
    return JointExtractionDataset(RECORDS if records is None else records, make_processor(family), config)


def make_batch(
    config: AspertConfig,
    family: str = "bert",
    training: bool = True,
    indices: list[int] | None = None,
    records: list[dict] | None = None,
    **collator: Any,
) -> dict[str, torch.Tensor]:
    """A collated batch of the tiny records, without the keys that are not the model's."""
    dataset = make_dataset(config, family, records)
    collate = AspertDataCollator(make_processor(family), config, training=training, **collator)
    batch = collate([dataset[index] for index in (indices or range(len(dataset)))])
    del batch["index"]
    return batch


class WithStart(AspertForJointExtraction):
    """A feature of its own: where a span begins, as a share of the sentence."""

    def _span_sizes(self):
        return {**super()._span_sizes(), "start": 1}

    def _span_parts(self, table, attentions, spans, span_widths, attention_mask, *rest, **options):
        parts = super()._span_parts(table, attentions, spans, span_widths, attention_mask, *rest, **options)
        return {**parts, "start": spans[..., :1] / attention_mask.sum(-1).view(-1, 1, 1)}


class LargestTensor(TorchDispatchMode):
    """Records the largest memory that any operation allocates, forward and backward, in values of 4 bytes.

    Views are free: it is the storage that counts, once. Packed weights, which have none, do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values = 0
        self.operation = "none"

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in args if _has_storage(tensor)}
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if not _has_storage(tensor) or id(tensor.untyped_storage()) in given:
                continue
            values = tensor.untyped_storage().nbytes() // 4
            if values > self.values:
                self.values, self.operation = values, f"{operation} -> {tuple(tensor.shape)}"
        return result


def _has_storage(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def random_attention(
    generator: np.random.Generator, heads: int, length: int, real: int, sharpness: float = 3.0
) -> torch.Tensor:
    """[heads, length, length] softmax over the first ``real`` keys, float64; garbage wherever padding is.

    Rows of padding may hold anything, NaN too; what a real row gives to padding is at least finite.
    """
    logits = torch.from_numpy(generator.normal(0.0, sharpness, (heads, length, length)))
    attention = logits.clone()
    attention[:, :, :real] = logits[:, :, :real].softmax(-1)
    garbage = torch.tensor([float("nan"), 0.99, 7.0, float("inf"), -1.0], dtype=torch.float64)
    picks = garbage[torch.from_numpy(generator.integers(0, len(garbage), (heads, length, length)))]
    attention[:, real:, :] = picks[:, real:, :]
    attention[:, :real, real:] = picks[:, :real, real:].nan_to_num(nan=0.6, posinf=3.0)
    return attention
