"""Loading: counts of the real corpora, ADE's dev data, folders, the cache, and names that are refused."""

from __future__ import annotations

import json
import os
import time

import pytest

from data_scripts import FEATURES, Ade, Conll04, DataError, Scierc, load, load_schema, read_records
from data_scripts.builders import carve_dev

RECORD = {
    "tokens": ["Ann", "lives", "in", "Rome"],
    "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 3, "end": 4}],
    "relations": [{"type": "Lives_In", "head": 0, "tail": 1}],
    "orig_id": 7,
}
TYPES = {"entities": {"Person": {}, "Place": {}}, "relations": {"Lives_In": {}}}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "my_train.json").write_text(json.dumps([RECORD, {**RECORD, "orig_id": "x"}]))
    (folder / "my_dev.jsonl").write_text(json.dumps({key: RECORD[key] for key in ("tokens", "entities", "relations")}))
    (folder / "my_types.json").write_text(json.dumps(TYPES))
    (folder / "my_train_dev.json").write_text("[]")  # two splits in one name: belongs to none
    (folder / "README.md").write_text("about train and test")
    return folder


def test_files_of_no_split_are_named(folder, tmp_path, caplog):
    load(folder, cache_dir=tmp_path)
    assert "single split: my_train_dev.json" in caplog.text and "README" not in caplog.text


@pytest.mark.parametrize("name", ["validation.json", "my-valid.jsonl", "val_data.json"])
def test_validation_is_dev(folder, tmp_path, name):
    (folder / "my_dev.jsonl").rename(folder / name)
    if name.endswith(".json"):
        (folder / name).write_text(f"[{(folder / name).read_text()}]")
    assert set(load(folder, cache_dir=tmp_path)) == {"train", "dev"}


def counts(data) -> dict[str, tuple[int, int, int]]:
    return {
        split: (len(rows), sum(map(len, rows["entities"])), sum(map(len, rows["relations"])))
        for split, rows in data.items()
    }


def test_conll04(corpora, tmp_path):
    data = load("conll04", data_dir=corpora, cache_dir=tmp_path)
    assert counts(data) == {"train": (922, 3377, 1283), "dev": (231, 893, 343), "test": (288, 1079, 422)}
    both = load("conll04", config_name="train_dev", data_dir=corpora, cache_dir=tmp_path)
    assert counts(both) == {"train": (1153, 4270, 1626), "test": (288, 1079, 422)}
    assert set(both["train"]["orig_id"]) == {*data["train"]["orig_id"], *data["dev"]["orig_id"]}
    assert data["train"].features == FEATURES
    assert data["train"][0]["orig_id"] == "3255"
    assert data["train"][0]["tokens"][9:14] == ["Havana", "Radio", "Reloj", "Network", "in"]
    assert data["train"][0]["relations"] == [{"type": "OrgBased_In", "head": 2, "tail": 1}]
    schema = load_schema("conll04", data_dir=corpora)
    assert schema.entity_types == ("Loc", "Org", "Peop", "Other") and schema.symmetric_relations == ()


def test_scierc(corpora, tmp_path):
    data = load("scierc", data_dir=corpora, cache_dir=tmp_path)
    assert counts(data) == {"train": (1861, 5598, 3219), "dev": (275, 811, 455), "test": (551, 1685, 974)}
    both = load("scierc", config_name="train_dev", data_dir=corpora, cache_dir=tmp_path)
    assert counts(both) == {"train": (2136, 6409, 3674), "test": (551, 1685, 974)}
    assert list(both["train"]["tokens"]) == [*data["train"]["tokens"], *data["dev"]["tokens"]]
    assert load_schema("scierc", data_dir=corpora).symmetric_relations == ("Compare", "Conjunction")


def test_ade_full(corpora, tmp_path):
    data = load("ade", config_name="full", data_dir=corpora, cache_dir=tmp_path)
    assert counts(data) == {"train": (4272, 10839, 6821)}


def test_ade_dev_data(corpora):
    tested = []
    for fold in range(10):
        whole = read_records(corpora / "ade" / f"ade_split_{fold}_train.json")
        test = read_records(corpora / "ade" / f"ade_split_{fold}_test.json")
        train, dev = carve_dev(whole, f"split_{fold}")
        assert 0.09 < len(dev) / len(whole) < 0.11 and len(train) + len(dev) == len(whole)
        words = [{tuple(record["tokens"]) for record in split} for split in (train, dev, test)]
        assert not words[1] & words[0] and not words[1] & words[2]
        tested += [record["orig_id"] for record in test]
    assert sorted(tested) == list(range(4272))


def test_ade_folds(corpora, tmp_path):
    data = load("ade", config_name="split_9", data_dir=corpora, cache_dir=tmp_path)
    train, dev = carve_dev(read_records(corpora / "ade" / "ade_split_9_train.json"), "split_9")
    test = read_records(corpora / "ade" / "ade_split_9_test.json")
    for split, records in (("train", train), ("dev", dev), ("test", test)):
        assert data[split]["tokens"] == [record["tokens"] for record in records]
    whole = load("ade", config_name="split_9_train_dev", data_dir=corpora, cache_dir=tmp_path)
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 3843, "test": 429}
    assert Ade(data_dir=corpora, cache_dir=tmp_path).config.name == "split_0"


def test_carving_depends_on_the_words_alone():
    records = [{"tokens": [str(number % 500)]} for number in range(1000)]
    train, dev = carve_dev(records, "split_0")
    assert len(train) + len(dev) == 1000 and 70 < len(dev) < 130
    assert [r["tokens"][0] for r in dev[:3]] == ["10", "33", "53"]  # fixed for all time: results depend on it
    assert carve_dev(records[::-1], "split_0") == (train[::-1], dev[::-1])
    assert not {tuple(r["tokens"]) for r in dev} & {tuple(r["tokens"]) for r in train}
    assert carve_dev(records, "split_1")[1] != dev


def test_files_of_quickstart_may_be_others(tmp_path):
    embedded = load("quickstart", cache_dir=tmp_path)
    (tmp_path / "mine.jsonl").write_text(json.dumps(embedded["dev"][0]) + "\n", encoding="utf-8")
    load_schema("quickstart").to_file(tmp_path / "types.json")
    files = {"train": tmp_path / "mine.jsonl", "types": tmp_path / "types.json"}
    data = load("quickstart", data_files=files, cache_dir=tmp_path)
    assert {name: len(split) for name, split in data.items()} == {"train": 1}


def test_quickstart(tmp_path):
    data = load("quickstart", cache_dir=tmp_path)
    assert list(data) == ["train", "dev", "test"] and all(len(rows) for rows in data.values())
    assert len(load_schema("quickstart").symmetric_relations) >= 1


def test_folder(folder, tmp_path):
    data = load(folder, cache_dir=tmp_path)
    assert counts(data) == {"train": (2, 4, 2), "dev": (1, 2, 1)}
    assert data["train"]["orig_id"] == ["7", "x"] and data["dev"]["orig_id"] == [None]
    assert {**data["train"][0], "orig_id": 7} == RECORD
    assert load_schema(str(folder)).relation_types == ("Lives_In",)


def test_folder_with_named_files(folder, tmp_path):
    files = {"test": "my_train.json", "types": "my_types.json"}
    assert counts(load(folder, data_files=files, cache_dir=tmp_path)) == {"test": (2, 4, 2)}
    with pytest.raises(DataError, match="'valid' is no split; use train, dev, test and types"):
        load(folder, data_files={**files, "valid": "my_dev.jsonl"}, cache_dir=tmp_path)
    with pytest.raises(DataError, match="none.json: does not exist; check the path"):
        load(folder, data_files={**files, "dev": "none.json"}, cache_dir=tmp_path)


def test_folder_that_does_not_tell(folder, tmp_path):
    (folder / "other-TRAIN.json").write_text("[]")
    (folder / "my_types.json").unlink()
    with pytest.raises(DataError) as caught:
        load(folder, cache_dir=tmp_path)
    assert str(caught.value).splitlines() == [
        "2 problems:",
        f"{folder}: holds several files for train (my_train.json, other-TRAIN.json); name one with data_files",
        f"{folder}: holds no file *types*.json; write one with LabelSchema.to_file, or name it with data_files",
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"holds no file \*train\*.json, \*dev\*.json or \*test\*.json"):
        load(empty, cache_dir=tmp_path)


def test_problems_of_all_splits_are_named_and_nothing_is_prepared(folder, tmp_path):
    (folder / "my_train.json").write_text(json.dumps([RECORD, {**RECORD, "tokens": ["Ann"]}]))
    (folder / "my_dev.jsonl").write_text("{")
    cache = tmp_path / "cache"
    with pytest.raises(DataError) as caught:
        load(folder, cache_dir=cache)
    assert [problem.file for problem in caught.value.problems] == [
        str(folder / "my_train.json"),
        str(folder / "my_dev.jsonl"),
    ]
    assert not list(cache.rglob("*.arrow"))


def test_a_split_of_several_files(tmp_path):
    folder = tmp_path / "scierc"
    folder.mkdir()
    (folder / "scierc_types.json").write_text(json.dumps(TYPES))
    for number, name in enumerate(("train", "dev", "test")):
        (folder / f"scierc_{name}.json").write_text(json.dumps([{**RECORD, "orig_id": name}] * (number + 1)))
    data = load("scierc", config_name="train_dev", data_dir=tmp_path, cache_dir=tmp_path)
    assert {split: list(rows["orig_id"]) for split, rows in data.items()} == {
        "train": ["train", "dev", "dev"],
        "test": ["test", "test", "test"],
    }
    (folder / "scierc_dev.json").write_text(json.dumps([{**RECORD, "orig_id": "new"}]))
    data = load("scierc", config_name="train_dev", data_dir=tmp_path, cache_dir=tmp_path)
    assert list(data["train"]["orig_id"]) == ["train", "new"]
    for name in ("train", "dev"):
        (folder / f"scierc_{name}.json").write_text("{")
    with pytest.raises(DataError) as caught:
        Scierc("train_dev", tmp_path, tmp_path).download_and_prepare()
    assert [problem.file for problem in caught.value.problems] == [
        str(folder / "scierc_train.json"),
        str(folder / "scierc_dev.json"),
    ]


def test_changed_files_are_read_anew(folder, tmp_path):
    assert len(load(folder, cache_dir=tmp_path)["train"]) == 2
    path = folder / "my_train.json"
    before = path.stat()
    text = path.read_text().replace("Rome", "Bern")
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither size nor time tell
    assert load(folder, cache_dir=tmp_path)["train"][0]["tokens"][3] == "Bern"
    (folder / "my_types.json").write_text(json.dumps({**TYPES, "relations": {}}))
    with pytest.raises(DataError, match="unknown relation type"):
        load(folder, cache_dir=tmp_path)


def test_prepared_data_load_in_less_than_a_second(corpora, tmp_path):
    load("conll04", data_dir=corpora, cache_dir=tmp_path)
    start = time.perf_counter()
    load("conll04", data_dir=corpora, cache_dir=tmp_path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", ["conll", "../conll04", "conll04/../../etc", "/none", "", "quickstart/..x"])
def test_unknown_names_and_paths_out_of_the_data_folder_are_refused(name, corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("ASPERT_DATA", str(corpora / "scierc"))  # where ../conll04 would be a corpus
    with pytest.raises(DataError, match="neither a data set nor a folder; use conll04, scierc, ade, quickstart or a"):
        load(name, cache_dir=tmp_path)


def test_unknown_configurations_are_refused(folder, tmp_path):
    for name in ("split_10", "../../x", "all"):
        with pytest.raises(DataError, match="ade: config_name = .*: unknown; use one of split_0, "):
            load("ade", config_name=name, cache_dir=tmp_path)
    with pytest.raises(DataError, match="there is no configuration 'train_dev'; leave config_name out"):
        load(folder, config_name="train_dev", cache_dir=tmp_path)
    with pytest.raises(DataError, match="data_dir is for the public corpora; give the folder in place of"):
        load("quickstart", data_dir=folder, cache_dir=tmp_path)
    with pytest.raises(DataError, match="neither a data set nor a folder"):
        load("conll04", data_files={"train": "x.json"}, cache_dir=tmp_path)


def test_builders_are_classes_of_their_own(corpora, tmp_path):
    builder = Conll04("train_dev", data_dir=corpora, cache_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.homepage.startswith("https://") and builder.info.features == FEATURES
    assert len(builder.as_dataset(split="test")) == 288
