"""A tiny encoder and a small corpus in the SpERT format that it learns within seconds, both made here."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer

TYPES = {
    "entities": {name: {"short": name, "verbose": name} for name in ("Person", "Place", "Company")},
    "relations": {
        name: {"short": name, "verbose": name, "symmetric": name == "married-to"}
        for name in ("works-for", "lives-in", "married-to")
    },
}
_PEOPLE = "Ada Bo Cleo Dan Eve Finn Gus Hal Ida Jo".split()
_PLACES = "Rome Oslo Bonn Lima Kyiv Bern".split()
_COMPANIES = "Acme Globex Initech Umbrella Hooli Stark".split()
_WORDS = "works for lives in married . , and the rain fell on today it was late".split()
MAX_POSITIONS = 40

# settings with which the corpus is learnt in a few seconds
QUICK = {
    "learning_rate": 1e-2,
    "num_train_epochs": 5,
    "per_device_train_batch_size": 4,
    "span_classifier_size": 64,
    "width_embedding_size": 4,
    "max_span_width": 3,
    "negative_entity_count": 8,
    "negative_relation_count": 10,
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


def make_encoder(folder: Path, seed: int = 1, dropout: float = 0.1, **fields: Any) -> Path:
    """Save a random BERT (2 layers of 4 heads, hidden size 32) with a WordPiece tokenizer; returns the folder."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PEOPLE, *_PLACES, *_COMPANIES, *_WORDS]
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=MAX_POSITIONS,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **fields,
    )
    encoder = BertModel(config)
    with torch.no_grad():
        # words that can be told apart after the layers, and attention that passes the paper's threshold
        encoder.embeddings.word_embeddings.weight.normal_(0.0, 1.0)
        for name, weight in encoder.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                weight.normal_(0.0, 0.4)
    encoder.save_pretrained(folder)
    ids = {word: index for index, word in enumerate(vocabulary)}
    BertTokenizer(vocab=ids, do_lower_case=False).save_pretrained(folder)
    return folder


def make_records(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences with no entity, one entity, two or three entities, and relations of all types."""
    rng = random.Random(seed)
    return [_record(rng, f"{seed}-{number}") for number in range(count)]


def empty_record(identifier: str) -> dict[str, Any]:
    """A sentence without entities."""
    return {"tokens": "the rain fell today .".split(), "entities": [], "relations": [], "orig_id": identifier}


def _record(rng: random.Random, identifier: str) -> dict[str, Any]:
    first, second = rng.sample(_PEOPLE, 2)
    place, company = rng.choice(_PLACES), rng.choice(_COMPANIES)
    kind = rng.choice(("rain", "alone", "works", "works", "lives", "lives", "married", "married", "both"))
    if kind == "rain":
        return empty_record(identifier)
    parts: list[tuple[str, str | None]] = [(first, "Person")]
    relations: list[tuple[str, int, int]] = []
    if kind == "alone":
        parts += [("was", None), ("late", None)]
    if kind in ("works", "both"):
        parts += [("works", None), ("for", None), (company, "Company")]
        relations.append(("works-for", 0, 1))
    if kind == "both":
        parts += [("and", None)]
    if kind in ("lives", "both"):
        parts += [("lives", None), ("in", None), (place, "Place")]
        relations.append(("lives-in", 0, len(relations) + 1))
    if kind == "married":
        parts += [("married", None), (second, "Person"), ("in", None), (place, "Place")]
        # against the order that training and scores use, every other time
        relations.append(("married-to", *rng.sample((0, 1), 2)))
    parts.append((".", None))
    return {
        "tokens": [word for word, _ in parts],
        "entities": [
            {"type": type_, "start": index, "end": index + 1} for index, (_, type_) in enumerate(parts) if type_
        ],
        "relations": [{"type": type_, "head": head, "tail": tail} for type_, head, tail in relations],
        "orig_id": identifier,
    }


def write_corpus(folder: Path, types: dict[str, Any] | None = None, **splits: Sequence[dict[str, Any]]) -> Path:
    """Write train, dev and test as they are given, and the types; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "types.json").write_text(json.dumps(types or TYPES), encoding="utf-8")
    for split, records in splits.items():
        (folder / f"{split}.json").write_text(json.dumps(list(records)), encoding="utf-8")
    return folder


def make_corpus(folder: Path, train: int = 29, dev: int = 9, test: int = 11) -> Path:
    """A corpus whose splits divide by none of the batch sizes in use."""
    return write_corpus(folder, train=make_records(train, 1), dev=make_records(dev, 2), test=make_records(test, 3))


def arguments(corpus: Path, encoder: Path, output: Path, **fields: Any) -> list[str]:
    """Command line of train.py for a quick run; a field that is None is left out."""
    chosen = {"dataset": corpus, "encoder": encoder, "output_dir": output, "do_train": True, "do_predict": True}
    chosen |= {**QUICK, **fields}
    return [part for name, value in chosen.items() if value is not None for part in (f"--{name}", str(value))]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
