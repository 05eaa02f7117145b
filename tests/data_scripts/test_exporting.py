"""Exported files give the same rows back, through `datasets` alone and through `load`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_scripts import FEATURES, LabelSchema, export, load, load_schema, read_records, validate_records

SCHEMA = LabelSchema(("Person", "Place"), ("Lives_In", "Married_To"), ("Married_To",), {"Person": "Human being"})

WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=6)


@st.composite
def records(draw) -> dict:
    """A valid record, with overlapping entities and several relations on one pair."""
    tokens = draw(st.lists(WORDS, min_size=1, max_size=8))
    entities = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(tokens) - 1))
        end = draw(st.integers(start + 1, len(tokens)))
        entities.append({"type": draw(st.sampled_from(SCHEMA.entity_types)), "start": start, "end": end})
    relations = []
    for _ in range(draw(st.integers(0, 4)) if len(entities) > 1 else 0):
        head, tail = draw(st.permutations(range(len(entities))))[:2]
        relations.append({"type": draw(st.sampled_from(SCHEMA.relation_types)), "head": head, "tail": tail})
    record = {"tokens": tokens, "entities": entities, "relations": relations}
    orig_id = draw(st.none() | WORDS)
    return record if orig_id is None else {**record, "orig_id": orig_id}


def dataset(rows: list[dict]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"orig_id": None, **row} for row in rows], features=FEATURES)


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
@settings(max_examples=8, deadline=None)
@given(train=st.lists(records(), min_size=1, max_size=5), dev=st.lists(records(), min_size=1, max_size=3))
def test_round_trip(format, train, dev):
    with tempfile.TemporaryDirectory() as folder:
        splits = {"train": train, "dev": dev}
        given_data = datasets.DatasetDict({split: dataset(rows) for split, rows in splits.items()})
        paths = export(given_data, Path(folder) / "out", format, SCHEMA)
        assert sorted(Path(folder, "out").iterdir()) == sorted(paths.values())
        assert load_schema(Path(folder) / "out", data_files={"train": "-", "types": "types.json"}) == LabelSchema(
            SCHEMA.entity_types,
            SCHEMA.relation_types,
            SCHEMA.symmetric_relations,
            {name: SCHEMA.describe(name) for name in SCHEMA.entity_types + SCHEMA.relation_types},
        )
        if format == "parquet":
            files = {split: str(paths[split]) for split in splits}
            loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=folder)
            assert loaded["train"].features == FEATURES
        else:
            for split, rows in splits.items():
                assert read_records(paths[split]) == rows
                assert not validate_records(rows, SCHEMA, "rows").errors
            loaded = load(Path(folder) / "out", cache_dir=folder)
        for split in splits:
            assert loaded[split].to_list() == given_data[split].to_list()


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_datasets_alone_reads_the_files(format, tmp_path):
    record = {
        "tokens": ["Ann", "lives", "in", "Rome"],
        "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 3, "end": 4}],
        "relations": [{"type": "Lives_In", "head": 0, "tail": 1}],
        "orig_id": "7",
    }
    data = datasets.DatasetDict({"train": dataset([record] * 3), "dev": dataset([record]), "test": dataset([record])})
    export(data, tmp_path / "out", format, SCHEMA)
    builder = "parquet" if format == "parquet" else "json"
    files = {split: str(tmp_path / "out" / f"{split}.{format}") for split in data}
    loaded = datasets.load_dataset(builder, data_files=files, features=FEATURES, cache_dir=str(tmp_path))
    assert {split: rows.to_list() for split, rows in loaded.items()} == {
        split: rows.to_list() for split, rows in data.items()
    }
    whole = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 3, "validation": 1, "test": 1}


def test_json_export_of_conll04_equals_the_source(corpora, tmp_path):
    data = load("conll04", data_dir=corpora, cache_dir=tmp_path)
    paths = export(data, tmp_path / "out", "json", load_schema("conll04", data_dir=corpora))
    for split in data:
        source = read_records(corpora / "conll04" / f"conll04_{split}.json")
        assert read_records(paths[split]) == [{**record, "orig_id": str(record["orig_id"])} for record in source]
    types = json.loads(paths["types"].read_text())
    assert list(types["relations"]) == ["Work_For", "Kill", "OrgBased_In", "Live_In", "Located_In"]
    assert types["entities"]["Loc"] == {"short": "Loc", "verbose": "Location"}


def test_types_are_inferred_with_a_warning(tmp_path, caplog):
    record = {"tokens": ["a"], "entities": [{"type": "T", "start": 0, "end": 1}], "relations": []}
    paths = export(datasets.DatasetDict({"train": dataset([record])}), tmp_path)
    assert LabelSchema.from_file(paths["types"]).entity_types == ("T",)
    assert "none of them symmetric" in caplog.text


def test_what_cannot_be_exported(tmp_path):
    data = dataset([{"tokens": ["a"], "entities": [], "relations": []}])
    with pytest.raises(ValueError, match="'csv' is no export format; use one of jsonl, parquet, json"):
        export(datasets.DatasetDict({"train": data}), tmp_path, "csv", SCHEMA)
    with pytest.raises(ValueError, match=r"the split '\.\./train' cannot name a file"):
        export({"../train": data}, tmp_path / "out", "json", SCHEMA)
    with pytest.raises(ValueError, match=r"has or lacks the columns \['pos'\]"):
        export(datasets.DatasetDict({"train": data.add_column("pos", ["x"])}), tmp_path, "json", SCHEMA)
    assert list(tmp_path.iterdir()) == []
