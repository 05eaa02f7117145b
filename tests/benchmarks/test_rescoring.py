"""What the predictions of finished runs tell beyond their scores, by figures that can be checked by hand."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

import data_scripts
from benchmarks import rescoring, tables
from benchmarks.rescoring import RESCORED_FILE, between_right_spans, read_rescored, stale_runs, without_shared
from benchmarks.results import load_results
from modeling_aspert.scoring import SCORE_NAMES, compute_scores


def record(spans: list[tuple[int, int]], *relations: tuple[str, int, int], kind: str = "Peop") -> dict:
    return {
        "tokens": ["w"] * 20,
        "entities": [{"type": kind, "start": start, "end": end} for start, end in spans],
        "relations": [{"type": name, "head": head, "tail": tail} for name, head, tail in relations],
    }


def test_relations_between_spans_that_both_have():
    gold = record([(0, 1), (2, 3), (4, 6)], ("Live_In", 0, 1), ("Live_In", 0, 2), ("Kill", 1, 2), ("Kill", 2, 0))
    # the last span is wrong, so of the gold relations one lies within, and of the four predicted ones three
    found = record(
        [(0, 1), (2, 3), (5, 6)],
        ("Live_In", 0, 1),
        ("Kill", 1, 0),
        ("Kill", 0, 1),
        ("Live_In", 0, 2),
        kind="Loc",  # entity types do not count
    )
    scores = between_right_spans([found, record([])], [gold, record([])])
    assert scores == pytest.approx({"gold": 25, "predicted": 75, "precision": 100 / 3, "recall": 100, "f1": 50})


def test_a_symmetric_relation_the_other_way_round_is_the_same():
    gold, found = record([(0, 1), (2, 3)], ("Kill", 0, 1)), record([(2, 3), (0, 1)], ("Kill", 0, 1))
    assert between_right_spans([found], [gold])["f1"] == 0
    assert between_right_spans([found], [gold], symmetric=["Kill"])["f1"] == 100


def test_nothing_found_and_nothing_to_find():
    nothing = {"gold": 0, "predicted": 0, "precision": 0, "recall": 0, "f1": 0}
    assert between_right_spans([record([])], [record([(0, 1), (2, 3)], ("Kill", 0, 1))]) == nothing
    assert between_right_spans([record([])], [record([])]) == nothing
    with pytest.raises(ValueError):
        between_right_spans([record([])], [])


def test_sentences_that_stand_in_train_are_left_out():
    gold = [record([(0, 1)]), record([(0, 1), (2, 3)])]
    gold[1]["tokens"] = ["v"] * 20
    found = [record([(0, 1)]), record([(0, 1)])]
    assert without_shared(found, gold, {("x",) * 20}) is None
    scores = without_shared(found, gold, {("w",) * 20})
    # of two entities one is found, where with the first sentence it would be two of three
    assert scores["sentences"] == 1 and scores["ner_micro_f1"] == pytest.approx(200 / 3)
    assert set(scores) == {"sentences", *(name for name in SCORE_NAMES if name.endswith("_f1"))}


# -- what the file is of -------------------------------------------------------------------------------------------


def keep(folder, name: str, rows: list[dict], level: int = 9, **settings) -> None:
    """A result of the embedded corpus with its predictions."""
    content = {
        "kind": "aspert training run", "format": 1, "id": name, "corpus": "quickstart", "fold": None, "seed": 1,
        "settings": {"encoder": "tiny", **settings}, "scores": {"test": dict.fromkeys(SCORE_NAMES, 50.0)},
        "fields": {"dataset": "quickstart", **settings}, "predictions": f"{name}.gz",
    }  # fmt: skip
    (folder / f"{name}.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), level))
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def gold():
    rows = list(data_scripts.load("quickstart")["test"])
    scored = [{**entity, "score": 0.9} for entity in rows[0]["entities"]]
    return [{"entities": scored, "relations": []}, *({"entities": [], "relations": []} for _ in rows[1:])]


@pytest.fixture
def folder(tmp_path, gold):
    """Three runs and the file of their predictions, scored again; the last run had constraints."""
    results = tmp_path / "the runs"
    results.mkdir()
    for name in ("a", "b"):
        keep(results, name, gold)
    keep(results, "c", gold, learn_constraints=True)
    assert rescoring.main(["--results", str(results)]) == 0
    return results


def stale(folder) -> dict[str, str]:
    content = json.loads((folder / RESCORED_FILE).read_text(encoding="utf-8"))
    return stale_runs(content, load_results(folder))


def test_the_file_names_the_predictions_of_each_run(folder):
    content = json.loads((folder / RESCORED_FILE).read_text(encoding="utf-8"))
    digest = hashlib.sha256(gzip.decompress((folder / "a.gz").read_bytes())).hexdigest()
    assert content["predictions"] == {name: digest for name in "abc"}
    assert ["constraints" in content["runs"][name] for name in "abc"] == [True, True, False]
    # what the report is given
    runs, votes = rescoring.rescored(load_results(folder))
    assert read_rescored(folder / RESCORED_FILE, load_results(folder)) == {"runs": runs, "votes": votes}


def test_runs_that_differ_in_their_seed_alone_vote(folder, gold, tmp_path):
    """Two of three runs find all that the third misses; runs with other settings have no vote."""
    assert json.loads((folder / RESCORED_FILE).read_text(encoding="utf-8"))["votes"] == []
    nothing = [{"entities": [], "relations": []} for _ in gold]
    keep(folder, "d", nothing)
    for name in "efg":
        keep(folder, name, nothing, learning_rate=1.0)
    assert rescoring.main(["--results", str(folder)]) == 0
    first, second = json.loads((folder / RESCORED_FILE).read_text(encoding="utf-8"))["votes"]
    assert (first["runs"], second["runs"]) == (["a", "b", "d"], ["e", "f", "g"])
    test = list(data_scripts.load("quickstart")["test"])
    expected = compute_scores([{**row, "relations": []} for row in gold], test)
    assert first["scores"] == {name: expected[name] for name in SCORE_NAMES if name.endswith("_f1")}
    assert first["scores"]["ner_micro_f1"] > 0 and set(second["scores"].values()) == {0}
    # of the three that vote one finds nothing, and so their mean is two thirds of the vote's
    low, high = first["gains"]["ner_micro_f1"]
    assert 0 <= low < first["scores"]["ner_micro_f1"] / 3 < high < 100 / 3
    assert set(map(tuple, second["gains"].values())) == {(0, 0)}
    output = tmp_path / "page.md"
    assert tables.main(["report", "--results", str(folder), "--output", str(output), "--no-plots"]) == 0
    page = output.with_name("page_all.md").read_text(encoding="utf-8").partition("## Several seeds together")[2]
    rows = [line for line in page.partition("\n## ")[0].splitlines() if line.startswith("| quickstart")]
    voted = first["scores"]["ner_micro_f1"]
    assert [row.split(" | ")[4:5] + row.split(" | ")[9:] for row in rows] == [
        ["3", "50.00 ± 0.00", f"{voted:.2f}", f"{voted - 50:+.2f}", f"{low:+.2f} … {high:+.2f} |"],
        ["3", "50.00 ± 0.00", "0.00", "-50.00", "+0.00 … +0.00 |"],
    ]


def test_sentences_that_a_run_did_not_train_on_are_unseen(gold, tmp_path, monkeypatch):
    """The second sentence of train stands in test, and one of two runs trains on the first alone."""
    splits = {name: list(split) for name, split in data_scripts.load("quickstart").items()}
    splits["train"] = [splits["train"][0], splits["test"][0]]
    monkeypatch.setattr(data_scripts, "load", lambda *args, **kwargs: splits)
    keep(tmp_path, "all", gold)
    keep(tmp_path, "one", gold, max_train_samples=1)
    runs, _ = rescoring.rescored(load_results(tmp_path))
    assert runs["all"]["unseen"]["sentences"] == 1 and "unseen" not in runs["one"]


def test_predictions_compressed_anew_are_the_same(folder, gold):
    before = (folder / "a.gz").read_bytes()
    keep(folder, "a", gold, level=0)
    assert (folder / "a.gz").read_bytes() != before
    assert stale(folder) == {}


def test_runs_that_the_file_does_not_fit(folder, gold):
    keep(folder, "new", gold)
    keep(folder, "b", [gold[0] | {"entities": []}, *gold[1:]])
    keep(folder, "c", gold)
    (folder / "a.json").unlink()
    assert stale(folder) == {
        "b": "was not scored from the predictions that are there now",
        "c": "was scored by other code",
        "new": "is not in it",
        "a": "is there no more, or without predictions",
    }


def test_a_file_from_before_it_named_the_predictions_fits_no_run(folder):
    content = json.loads((folder / RESCORED_FILE).read_text(encoding="utf-8"))
    del content["predictions"]
    assert set(stale_runs(content, load_results(folder))) == {"a", "b", "c"}


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_the_report_refuses_a_file_that_does_not_fit(folder, gold, tmp_path, capsys, check):
    output = tmp_path / "page.md"
    call = ["report", "--results", str(folder), "--output", str(output), "--no-plots"]
    assert tables.main(call) == 0 and tables.main([*call, "--check"]) == 0
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("page*.md")}
    assert any("Where relations are lost" in page for page in pages.values())
    keep(folder, "b", [gold[0] | {"entities": []}, *gold[1:]])
    keep(folder, "new", gold)
    capsys.readouterr()
    assert tables.main([*call, *check]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder / RESCORED_FILE} does not fit the results in 2 runs: the first, b ({folder / 'b.json'}), was not "
        f"scored from the predictions that are there now; run `python benchmarks/rescoring.py --results '{folder}'`\n"
    )
    assert {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("page*.md")} == pages
    # the mend
    assert rescoring.main(["--results", str(folder)]) == 0
    assert tables.main(call) == 0


def test_results_without_the_file_are_reported_without_its_sections(folder, tmp_path):
    (folder / RESCORED_FILE).unlink()
    output = tmp_path / "page.md"
    assert tables.main(["report", "--results", str(folder), "--output", str(output), "--no-plots"]) == 0
    assert output.is_file()
    assert not any(
        "Where relations are lost" in path.read_text(encoding="utf-8") for path in tmp_path.glob("page*.md")
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": {}}', json.dumps({"kind": rescoring.KIND, "runs": {}})])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / RESCORED_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"rescored\.json cannot be read: .*; run `python benchmarks/rescoring\.py"):
        read_rescored(tmp_path / RESCORED_FILE)


def test_the_committed_file_fits_the_committed_results():
    file = tables.RESULTS / RESCORED_FILE
    assert read_rescored(file, load_results(tables.RESULTS)), f"{file} is missing: run python benchmarks/rescoring.py"
