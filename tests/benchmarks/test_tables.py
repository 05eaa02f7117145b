"""The driver of the paper's tables: identities of runs, resuming, aggregation, and a page that the results give."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks import tables
from benchmarks.comparison import tables_of
from benchmarks.experiments import (
    ROOT,
    Run,
    architecture_name,
    load_corpora,
    load_experiments,
    make_run,
    parse_overrides,
    runs_of,
    settings_of,
    slug,
    with_data_dir,
)
from benchmarks.report import NOTES_FILES, build_report, command_above
from benchmarks.rescoring import RESCORED_FILE, read_rescored
from benchmarks.results import load_results
from benchmarks.runner import RunOptions, launched_by, run_all
from benchmarks.significance import mean_and_std, paired_t_test, pairs_needed, std_bounds
from benchmarks.spert_training import SPERT_FILE, read_runs

FAKE = Path(__file__).with_name("fake_train.py")
SEEDS = (1, 2, 3)


@pytest.fixture
def mode(tmp_path, monkeypatch):
    """Sets what the fake training does."""
    file = tmp_path / "mode"
    monkeypatch.setenv("FAKE_TRAIN_MODE", str(file))
    file.write_text("ok")
    return file.write_text


@pytest.fixture
def options(tmp_path):
    return RunOptions(results=tmp_path / "results", work=tmp_path / "work", jobs=2, script=FAKE)


def quickstart_runs(seeds=SEEDS, **fields):
    """Runs of Table 4 on the embedded corpus."""
    experiment = load_experiments(names=["table4"])["table4"]
    overrides = {"encoder": "tiny", **fields}
    return list(runs_of(experiment, load_corpora(), only_corpora=["quickstart"], seeds=seeds, overrides=overrides))


def copied(finished, folder, change):
    """The finished results in another folder, each changed by a function of its content and its number."""
    for number, path in enumerate(sorted(finished.rglob("*.json"))):
        content = json.loads(path.read_text(encoding="utf-8"))
        (folder / content["predictions"]).write_bytes((path.parent / content["predictions"]).read_bytes())
        change(content, number)
        (folder / path.name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def on_conll04(content, number):
    content["corpus"], content["id"] = "conll04", content["id"][::-1]


def written(folder, run, value, **more):
    """A result without predictions: both scores of ADE's headline are the value, on dev a point less."""
    scores = {
        split: {"ner_macro_f1": value - less, "re_strict_macro_f1": value - less}
        for split, less in (("dev", 1), ("test", 0))
    }
    content = {
        "kind": "aspert training run", "format": 1, "id": run.id, "corpus": run.corpus, "fold": run.fold,
        "seed": run.seed, "settings": run.settings, "scores": scores, **more,
    }  # fmt: skip
    (folder / run.path.name).write_text(json.dumps(content), encoding="utf-8")


def sorted_scores(finished, span_classifier):
    """RE strict macro F1 by seed, of SpERT ("linear") or ASpERT (None)."""
    runs = [run for run in load_results(finished) if run.content["settings"].get("span_classifier") == span_classifier]
    return [run.score("re_strict_macro_f1") for run in sorted(runs, key=lambda run: run.content["seed"])]


def page_of(results, output):
    assert tables.main(["report", "--results", str(results), "--output", str(output), "--no-plots"]) == 0
    return output.read_text(encoding="utf-8")


def more_of(output):
    """The page of all runs beside that of the results."""
    return output.with_name(f"{output.stem}_all.md").read_text(encoding="utf-8")


# -- experiments ---------------------------------------------------------------------------------------------------


def test_every_experiment_has_a_baseline_and_known_scores():
    corpora = load_corpora()
    paper = yaml.safe_load((ROOT / "benchmarks" / "paper_figures.yaml").read_text(encoding="utf-8"))
    experiments = load_experiments()
    assert set(experiments) >= {"table1", "table4", "table6", "table7", "table8", "figure2", "lambda", "scope"}
    for experiment in experiments.values():
        assert set(experiment.corpora) <= set(corpora)
        ids = {run.id for run in runs_of(experiment, corpora, only_corpora=["conll04"], seeds=[1])}
        assert len(ids) == len(experiment.variants), f"{experiment.name}: two variants are one model"
        if experiment.paper:
            for figures in paper[experiment.paper].values():
                assert set(figures) <= set(experiment.variants)


def test_paper_figures_are_those_of_the_headline():
    paper = yaml.safe_load((ROOT / "benchmarks" / "paper_figures.yaml").read_text(encoding="utf-8"))
    gains = {
        name: paper["table4"][name]["ASpERT"][score] - paper["table4"][name]["SpERT"][score]
        for name, score in (
            ("conll04", "re_strict_macro_f1"), ("scierc", "re_boundaries_micro_f1"), ("ade", "re_strict_macro_f1"),
        )
    }  # fmt: skip
    assert gains == pytest.approx({"conll04": 1.25, "scierc": 1.39, "ade": 1.31})


def test_one_model_has_one_identity_however_it_is_written():
    corpus = load_corpora()["conll04"]
    same = [
        {"preset": "paper"},
        {"preset": "paper", "contribution_pooling": "mean", "contribution_threshold": 0.5},
        {"learning_rate": 0.00005},
        {"num_train_epochs": 20.0, "output_dir": "elsewhere", "logging_steps": 7},
    ]
    assert len({make_run(corpus, changes, 1).id for changes in same}) == 1
    spert = {"attentional_contribution": False, "span_classifier": "linear", "contribution_scope": "span"}
    assert make_run(corpus, spert, 1).id == make_run(corpus, {"preset": "spert"}, 1).id
    assert make_run(corpus, spert, 1).path.name.startswith("spert-seed1-")
    different = [{}, {"preset": "spert"}, {"learning_rate": 1e-4}, {"contribution_pooling": "max"}, {"encoder": "x"}]
    assert len({make_run(corpus, changes, 1).id for changes in different}) == len(different)


def test_folds_are_runs_of_their_own():
    runs = list(runs_of(load_experiments()["table6"], load_corpora(), only_corpora=["ade"], seeds=[1]))
    assert len(runs) == 20 == len({run.id for run in runs})
    assert [run.fields["dataset_config"] for run in runs[:3]] == ["split_0", "split_0", "split_1"]
    assert all("dataset_config" not in run.settings for run in runs)


def test_variants_can_be_typed():
    experiment, corpora = load_experiments()["table6"], load_corpora()
    named, typed = (
        [run.id for run in runs_of(experiment, corpora, only_corpora=["conll04"], only_variants=[name], seeds=[1])]
        for name in ("−AC", "no AC")
    )
    assert named == typed and len(named) == 1
    with pytest.raises(ValueError, match="no variant 'AC'"):
        list(runs_of(experiment, corpora, only_variants=["AC"]))


def test_named_folds_leave_out_corpora_without_them():
    chosen = {"only_corpora": ["ade", "ade_train_dev"], "seeds": [1]}
    experiment, corpora = load_experiments()["table4"], load_corpora()
    runs = list(runs_of(experiment, corpora, folds=["split_0"], **chosen))
    assert {(run.corpus, run.fold) for run in runs} == {("ade", "split_0")} and len(runs) == 2
    with pytest.raises(ValueError, match="no fold 'split_10'"):
        list(runs_of(experiment, corpora, folds=["split_10"], **chosen))


def test_overrides_are_typed_and_checked():
    parsed = parse_overrides(["learning_rate=1e-4", "num_train_epochs=1", "bf16=true", "encoder=a=b"])
    assert parsed == {"learning_rate": 1e-4, "num_train_epochs": 1, "bf16": True, "encoder": "a=b"}
    with pytest.raises(ValueError, match="--seeds"):
        parse_overrides(["seed=1"])
    with pytest.raises(ValueError, match="not field=value"):
        parse_overrides(["seed"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"titel": "x"}, "did you mean 'title'"),
        ({"title": "x", "corpora": ["a"], "seeds": [1], "baseline": "b", "variants": {"a": {}}}, "baseline 'b'"),
        (
            {"title": "x", "corpora": ["a"], "seeds": [1], "baseline": "a", "subject": "b", "variants": {"a": {}}},
            "subject 'b'",
        ),
        ([1], "must hold"),
    ],
)
def test_bad_experiment_files_are_refused(tmp_path, entry, message):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_experiments(tmp_path)


def test_an_architecture_is_called_by_its_nearest_preset():
    def name(**fields):
        return architecture_name(settings_of({"encoder": "tiny", **fields}))

    assert name(preset="spert", word_shapes=True) == "spert,word_shapes=True"
    assert name(preset="paper", attentional_contribution=False) == "paper,attentional_contribution=False"
    assert name(preset="paper", attentional_contribution=False, span_classifier="linear") == "spert"
    assert name(preset="best", span_boundaries=True) == "best,span_boundaries=True"
    assert name(preset="paper", word_shapes=True, learn_constraints=True) == "best"
    # written as the difference from the paper's model
    assert name(word_shapes=True, span_boundaries=True, relation_classifier="mlp", relation_entity_types=True,
                entity_threshold=0.5) == "best_plus,relation_threshold=0.4"  # fmt: skip


def test_settings_refuse_an_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'papr'"):
        settings_of({"preset": "papr"})


# -- running -------------------------------------------------------------------------------------------------------


def test_finished_runs_are_skipped_and_results_hold_no_words(mode, options):
    runs = quickstart_runs(seeds=(1,))
    summary = run_all(runs, options, say=lambda line: None)
    assert len(summary.finished) == 2 and not summary.failed
    again = run_all(runs, options, say=lambda line: None)
    assert len(again.skipped) == 2 and not again.finished

    result = load_results(options.results)[0].content
    assert result["seed"] == 1 and result["commit"] == "abc" and result["train_seconds"] == 12.5
    assert result["dev_history"] == [[1.0, 60.0], [2.0, 61.0]]
    assert result["scores"]["dev"]["ner_micro_f1"] == 99.0
    assert set(result["scores"]["test"]) == {
        f"{view}_{average}_{measure}"
        for view in ("ner", "re_strict", "re_boundaries")
        for average in ("micro", "macro")
        for measure in ("precision", "recall", "f1")
    }
    kept = gzip.decompress((load_results(options.results)[0].path.parent / result["predictions"]).read_bytes())
    assert b"tokens" not in kept and b"0.98765," not in kept and b"0.98765}" in kept


def test_a_failed_run_is_reported_and_tried_again(mode, options):
    mode("fail")
    lines = []
    runs = quickstart_runs(seeds=(1,))[:1]
    summary = run_all(runs, options, say=lines.append)
    assert len(summary.failed) == 1 and not load_results(options.results)
    assert "code 3" in lines[-1] and "fails as it was told" in lines[-1]
    mode("ok")
    assert len(run_all(runs, options, say=lines.append).finished) == 1
    assert load_results(options.results)[0].content["attempts"] == 2


def test_predictions_of_another_run_are_refused(mode, options):
    mode("wrong")
    lines = []
    summary = run_all(quickstart_runs(seeds=(1,))[:1], options, say=lines.append)
    assert len(summary.failed) == 1 and "but the run reported" in lines[-1]


def test_a_stopped_driver_stops_what_its_launcher_started(mode, options):
    mode("hang")
    forward = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    options.launcher = [sys.executable, "-c", forward]
    run = quickstart_runs(seeds=(1,))[0]
    work = options.work / run.path.with_suffix("")

    def interrupt(line):
        for _ in range(600):
            if (work / "hanging").is_file():
                raise KeyboardInterrupt
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        run_all([run], options, say=interrupt)
    # the training held the lock
    mode("ok")
    assert run_all([run], options, say=lambda line: None).finished == [run.id]


def test_trainings_start_where_the_driver_was_called(mode, options, tmp_path, monkeypatch):
    """So that a relative path of a corpus or an encoder means the same to both. A field set to nothing is left out."""
    monkeypatch.chdir(tmp_path)
    (run, *_) = quickstart_runs(seeds=(1,), train_sampling_strategy=None)
    assert run_all([run], options, say=lambda line: None).finished == [run.id]
    log = options.work / run.path.with_suffix("") / "train.log"
    assert f"fake training of seed 1 in {tmp_path.resolve()}\n" in log.read_text()


def test_the_launcher_is_part_of_what_a_run_is(mode, options):
    assert launched_by(["accelerate", "launch", "--num_processes", "1", "--mixed_precision=no", "--cpu"]) == {}
    launched = launched_by(["accelerate", "launch", "--num-processes=2", "--mixed_precision", "bf16"])
    assert launched == {"processes": 2, "mixed_precision": "bf16"}
    (run, *_) = quickstart_runs(seeds=(1,))
    other = dataclasses.replace(run, launched=launched)
    assert other.id != run.id and other.path != run.path
    # the fake training is one process, whatever its run says; it is not waited for
    mode("hang")
    lines, started = [], time.monotonic()
    assert run_all([other], options, say=lines.append).failed == [other.id]
    assert any("is one with one process in fp32, but its run one with {'processes': 2" in line for line in lines)
    assert time.monotonic() - started < 50
    # what an earlier attempt left says nothing of this one
    mode("ok")
    left = options.work / run.path.with_suffix("") / "output" / "run.json"
    left.parent.mkdir(parents=True)
    left.write_text('{"processes": 2}')
    os.utime(left, (1, 1))
    assert run_all([run], options, say=lines.append).finished == [run.id]


def test_a_killed_driver_leaves_no_half_result_and_the_run_goes_on(mode, options, tmp_path):
    mode("hang")
    command = [
        sys.executable, "-c",
        "import pickle, sys; sys.path.insert(0, sys.argv[1])\n"
        "from benchmarks.runner import run_all\n"
        "run_all(*pickle.load(sys.stdin.buffer))",
        str(ROOT),
    ]  # fmt: skip
    run = quickstart_runs(seeds=(1,))[0]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE)
    driver.stdin.write(pickle.dumps(([run], options)))
    driver.stdin.close()
    work = options.work / run.path.with_suffix("")
    try:
        for _ in range(3000):  # seconds where the machine is idle
            if (work / "hanging").is_file() and (work / "hanging").read_text():
                break
            time.sleep(0.1)
        training = int((work / "hanging").read_text())
        driver.kill()
        driver.wait()
        mode("ok")
        # the training outlived its driver and still holds the run
        assert run_all([run], options, say=lambda line: None).locked == [run.id]
        os.kill(training, signal.SIGKILL)
        for _ in range(100):
            if not run_all([run], options, say=lambda line: None).locked:
                break
            time.sleep(0.05)
    finally:
        driver.kill()
    assert (work / "calls").read_text().splitlines() == ["hang resume=true found=False", "ok resume=true found=True"]
    assert len(load_results(options.results)) == 1


def test_dry_run_starts_nothing(tmp_path, capsys):
    arguments = ["run", "table4", "--corpora", "quickstart", "--seeds", "1", "--dry-run", "--results", str(tmp_path)]
    assert tables.main([*arguments, "--work", str(tmp_path / "work")]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, 0 finished, 2 to do" in printed and "--resume_from_checkpoint true" in printed
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_refused_before_any_run(tmp_path, capsys):
    place = ["--results", str(tmp_path), "--work", str(tmp_path)]
    assert tables.main(["run", "tabel4", *place]) == 2
    assert tables.main(["run", "table4", "--variants", "Spert", *place]) == 2
    assert tables.main(["run", "table4", "--set", "learning_rat=1", "--dry-run", *place]) == 2
    errors = capsys.readouterr().err
    assert "no experiment 'tabel4'" in errors and "no variant 'Spert'" in errors
    assert "did you mean 'learning_rate'" in errors


def test_a_foreign_training_is_adopted_as_the_run_that_it_is(mode, options, tmp_path):
    run = quickstart_runs(seeds=(5,))[0]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(run.fields), encoding="utf-8")
    output = tmp_path / "foreign" / "output"
    subprocess.run(
        [sys.executable, FAKE, config, "--output_dir", output, "--resume_from_checkpoint", "true"], check=True
    )
    place = ["--results", str(options.results)]
    assert tables.main(["adopt", str(output), "--corpus", "quickstart", *place]) == 0
    assert [result.content["id"] for result in load_results(options.results)] == [run.id]
    assert tables.main(["adopt", str(output), "--corpus", "conll04", *place]) == 2


# -- report --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results of both models of Table 4 with five seeds."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mode").write_text("ok")
    before = os.environ.get("FAKE_TRAIN_MODE")
    os.environ["FAKE_TRAIN_MODE"] = str(folder / "mode")
    try:
        options = RunOptions(results=folder / "results", work=folder / "work", jobs=3, script=FAKE)
        assert len(run_all(quickstart_runs(seeds=range(1, 6)), options, say=lambda line: None).finished) == 10
    finally:
        if before is None:
            del os.environ["FAKE_TRAIN_MODE"]
        else:
            os.environ["FAKE_TRAIN_MODE"] = before
    return folder / "results"


def test_the_page_is_the_same_bytes_every_time(finished, tmp_path):
    pages = []
    for name in ("one", "two"):
        output = tmp_path / name / "results.md"
        call = ["report", "--results", str(finished), "--output", str(output), "--csv", str(output.parent / "r.csv")]
        assert tables.main(call) == 0
        assert tables.main([*call, "--check"]) == 0
        pages.append({path.relative_to(output.parent): path.read_bytes() for path in output.parent.rglob("*.*")})
    assert pages[0] == pages[1]
    assert {path.suffix for path in pages[0]} == {".md", ".csv", ".svg"}
    for changed in (output, output.with_name("results_all.md")):
        page = changed.read_text(encoding="utf-8")
        changed.write_text("something else", encoding="utf-8")
        assert tables.main([*call, "--check"]) == 1
        assert changed.read_text(encoding="utf-8") == "something else"
        changed.write_text(page, encoding="utf-8")


def test_the_committed_page_is_what_the_committed_results_give(tmp_path, capsys):
    """And the command above a table has all runs of the table among those that it would make."""
    results = load_results(tables.RESULTS)
    notes = tuple((tables.RESULTS / name).read_text(encoding="utf-8") for name in NOTES_FILES)
    spert_runs = read_runs(tables.RESULTS / SPERT_FILE)
    rescored = read_rescored(tables.RESULTS / RESCORED_FILE, results)
    page, more, all_tables = build_report(
        load_experiments(), load_corpora(), results, notes, tables.PAGE.stem, spert_runs, rescored
    )
    for made, file in ((page, tables.PAGE), (more, tables.PAGE.with_name("results_all.md"))):
        assert made == file.read_text(encoding="utf-8"), "run python benchmarks/tables.py report"
    commands = re.findall(r"^`python benchmarks/tables\.py (run .*)`$", page + more, flags=re.M)
    assert sorted(commands) == sorted(command_above(table).partition("tables.py ")[2] for table in all_tables)
    assert len(commands) > 10
    # what a preset that all models share brings along is not said again
    assert any(table.name == "train_size" for table in all_tables)
    assert not any("learn_constraints" in command for command in commands if "train_size" in command)
    for table in all_tables:
        command = command_above(table).partition("tables.py ")[2]
        assert tables.main([*shlex.split(command), "--dry-run"]) == 0
        finished = int(re.search(r"(\d+) finished", capsys.readouterr().out)[1])
        shown = sum(row.units for row in table.rows if row.score == table.rows[0].score)
        assert finished >= shown, command


def test_the_page_holds_means_spreads_and_tests(finished, tmp_path):
    scores = {}
    for result in load_results(finished):
        is_spert = result.content["settings"].get("span_classifier") == "linear"
        scores.setdefault(is_spert, []).append((result.content["seed"], result.score("re_strict_micro_f1")))
    spert, ours = ([value for _, value in sorted(scores[key])] for key in (True, False))
    mean, std = mean_and_std(ours)
    difference = mean - mean_and_std(spert)[0]
    assert difference > 5
    page = page_of(finished, tmp_path / "results.md")
    assert paired_t_test(ours, spert) < 0.001
    row = next(line for line in page.splitlines() if f"| ASpERT | 5 | {mean:.2f} ± {std:.2f} |" in line)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[5:7] == [f"{difference:+.2f}", "< 0.001"]
    # the fake training scores a point less on dev
    assert cells[8] == f"{mean - 1:.2f}" and cells[9] == f"{difference:+.2f}"
    assert "seeds 1, 2, 3, 4, 5. Baseline: SpERT. Spread over: seed." in page
    assert "10 runs" in more_of(tmp_path / "results.md") and ".svg" not in page
    rows = (line for line in page.splitlines() if line.startswith("| RE strict micro F1 | SpERT"))
    assert next(rows).count("|") == 10


def test_the_paper_stands_beside_ours(finished, tmp_path):
    page = page_of(copied(finished, tmp_path, on_conll04), tmp_path / "page" / "results.md")
    assert any(line.startswith("|  | ASpERT") and line.endswith("| 71.66 | +1.25 |") for line in page.splitlines())
    assert "CoNLL04 (train), tiny" in page


def test_the_headline_scores_stand_at_the_top(finished, tmp_path):
    """SpERT and ASpERT, trained as the table of `best` has them, beside the paper's gain."""
    wanted = next(
        run for run in runs_of(load_experiments()["best"], load_corpora(), only_corpora=["conll04"])
    ).settings

    def trained_alike(content, number):
        on_conll04(content, number)
        for name in ("learning_rate", "per_device_train_batch_size", "train_sampling_strategy", "learn_constraints"):
            content["settings"].pop(name, None)
            content["settings"] |= {name: wanted[name]} if name in wanted else {}

    page = page_of(copied(finished, tmp_path, trained_alike), tmp_path / "page" / "results.md")
    overview = page.partition("## At a glance")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in overview.splitlines() if line.startswith("|")]
    header, _, spert, ours = rows
    assert header[4:7] == ["entities", "relations", "relations − SpERT"]
    assert [spert[0], *spert[2:4]] == ["CoNLL04 (train)", "SpERT", "5"] and spert[6:] == [""] * 5
    # the settings that are not the corpus's, so that two blocks of a corpus can be told apart
    assert spert[1].startswith("tiny, ") and spert[1].endswith(", num_train_epochs 15")
    assert ours[:4] == ["", "", "ASpERT", "5"] and float(ours[7]) < 0.01 and ours[9] == "+1.25"
    # the fake trainings differ by more than the paper's, and spread little
    gains = [ours - spert for spert, ours in zip(*(sorted_scores(finished, kind) for kind in ("linear", None)))]
    spread = mean_and_std(gains)[1]
    needed = [pairs_needed(1.25, one) for one in (spread, *std_bounds(spread, 5))]
    assert ours[10] == f"{needed[0]} ({needed[1]} … {needed[2]})"
    # the figures are those of the table below
    for position, title in ((4, "NER macro F1"), (5, "RE strict macro F1")):
        assert f"| {title} | SpERT | 5 | {spert[position]} |" in page
    assert f"|  | ASpERT | 5 | {ours[5]} | {ours[6]} | {ours[7]} | {ours[8]} |" in page


def test_there_is_no_table_without_its_subject(finished, tmp_path):
    experiments, corpora, results = load_experiments(), load_corpora(), load_results(finished)
    [table] = tables_of(experiments["table4"], corpora, results, {})
    assert {row.label for row in table.rows} == {"SpERT", "ASpERT"}
    assert not tables_of(dataclasses.replace(experiments["table4"], subject="best"), corpora, results, {})
    assert tables_of(dataclasses.replace(experiments["table4"], subject="ASpERT"), corpora, results, {})


def test_this_code_stands_beside_sperts_own(tmp_path):
    """Trained with the settings of its file, which the documentation gives as overrides."""
    file = yaml.safe_load((ROOT / "configuration" / "conll04_spert_original.yaml").read_text(encoding="utf-8"))
    command = (
        (ROOT / "docs" / "reproducing.md")
        .read_text(encoding="utf-8")
        .partition("run table4 --corpora conll04 --var")[2]
    )
    overrides = parse_overrides(command.partition("--set")[2].partition("```")[0].replace("\\", "").split())
    experiments, corpora = load_experiments(), load_corpora()
    chosen = {"only_corpora": ["conll04"], "only_variants": ["SpERT"]}
    runs = list(runs_of(experiments["table4"], corpora, **chosen, seeds=[8, 7], overrides=overrides))
    # which of several epochs would be the best is no matter
    assert settings_of({**file, "metric_for_best_model": "re_strict_macro_f1"}) == runs[0].settings
    [other] = runs_of(experiments["table4"], corpora, **chosen, seeds=[9])
    views = ("ner_micro_f1", "ner_macro_f1", "re_strict_micro_f1", "re_strict_macro_f1")
    # a run that differs in anything else does not stand beside theirs, nor take the place of one that does
    [strayed] = runs_of(
        experiments["table4"], corpora, **chosen, seeds=[8], overrides={**overrides, "adam_epsilon": 1e-8}
    )
    for run, value in ((*runs[:1], 62.0), (*runs[1:], 60.0), (other, 90.0), (strayed, 90.0)):
        written(tmp_path, run, value, scores={"test": dict.fromkeys(views, value)})
    settings = {"corpus": "conll04", "encoder": file["encoder"], "epochs": 20, "batch_size": 2, "negatives": 100}
    settings |= {"learning_rate": 5e-5, "seed": 7}
    theirs = [{"settings": settings, "test": dict.fromkeys(views, 61.0)}]
    page, _, _ = build_report(experiments, corpora, load_results(tmp_path), spert_runs=theirs)
    rows = page.partition("## SpERT's own code")[2].partition("\n## ")[0].strip().splitlines()[-2:]
    place = f"CoNLL04 (train) | {slug(file['encoder'])} | 20 | 2 | 100 | 5e-05"
    assert rows == [
        f"| SpERT's | {place} | 7 | {' | '.join(['61.00'] * 4)} |",
        f"| this | {place} | 7, 8 | {' | '.join(['61.00 ± 1.41'] * 4)} |",
    ]


def test_a_table_without_all_runs_says_so(finished, tmp_path):
    copied(finished, tmp_path, lambda content, number: None)
    for result in load_results(tmp_path):
        if result.content["seed"] == 2 and "span_classifier" not in result.content["settings"]:
            result.path.unlink()
    page = page_of(tmp_path, tmp_path / "page" / "results.md")
    assert "Not complete: ASpERT lacks 1 of 5 runs." in page
    # four pairs: a difference, to the mean of all five of the baseline, but no test
    rows = page[page.index("| RE strict micro F1 | SpERT | 5 |") :].splitlines()[:2]
    spert, ours = ([cell.strip() for cell in row.split("|")] for row in rows)
    assert ours[2:4] == ["ASpERT", "4"]
    mean, of_spert = (float(cells[4].split(" ")[0]) for cells in (ours, spert))
    assert float(ours[5]) == pytest.approx(mean - of_spert, abs=0.011) and not ours[6]


def test_runs_of_other_commits_are_named(finished, tmp_path):
    def of_two_commits(content, number):
        content["commit"] = "aaaa" if number else "bbbb"

    def of_two_corpora(content, number):
        content |= {"commit": "aaaa", "data": {"test": {"sentences": 1, "sha256": "1" if number else "2"}}}

    commits = "Not all from the same commit as the runs of SpERT: ASpERT."
    data = "Not on the same data as the runs of SpERT: ASpERT."
    for change, said, unsaid in ((of_two_commits, commits, data), (of_two_corpora, data, commits)):
        page = page_of(copied(finished, tmp_path, change), tmp_path / "page" / "results.md")
        assert said in page and unsaid not in page


def test_two_results_of_one_run_are_refused(finished, tmp_path, capsys):
    path = next(finished.rglob("*.json"))
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(path.read_bytes())
    assert tables.main(["report", "--results", str(tmp_path), "--output", str(tmp_path / "x.md")]) == 2
    assert "results of the same run" in capsys.readouterr().err


def test_an_empty_folder_gives_a_page(tmp_path):
    output = tmp_path / "results.md"
    assert tables.main(["report", "--results", str(tmp_path), "--output", str(output)]) == 0
    assert "None yet." in more_of(output)


def test_folds_are_averaged_before_seeds_are_compared(tmp_path):
    """ADE: five seeds on two folds; the units are the seeds, each the mean of its folds."""
    corpus = load_corpora()["ade"]
    values = {("spert", seed): (80.0 + seed, 82.0 + seed) for seed in range(1, 6)}
    for seed, gain in enumerate((3.0, 1.0, 2.0, 2.0, 2.0), start=1):
        values["paper", seed] = tuple(value + gain for value in values["spert", seed])
    for (preset, seed), folds in values.items():
        for fold, value in zip(("split_0", "split_1"), folds):
            written(tmp_path, make_run(corpus, {"preset": preset}, seed, fold), value)
    page = page_of(tmp_path, tmp_path / "results.md")
    # SpERT: 82 ... 86; differences 3, 1, 2, 2, 2: t = sqrt(40), and with four degrees of freedom
    # p = 1 - t / sqrt(4 + t²) · (1 + 2 / (4 + t²)) = 0.003
    assert "| NER macro F1 | SpERT | 5 | 84.00 ± 1.58 |" in page
    assert "|  | ASpERT | 5 | 86.00 ± 1.58 | +2.00 | 0.003 |" in page
    assert "2 of 10 folds" in page and "seed (mean of 2 folds)" in page


def test_one_seed_on_folds_is_tested_over_the_folds(tmp_path):
    corpus, data = load_corpora()["ade"], {"train": {"sentences": 90}, "test": {"sentences": 10}}
    for fold in range(5):
        for preset, value in (("spert", 80.0), ("paper", 81.0 + fold % 2)):
            written(tmp_path, make_run(corpus, {"preset": preset}, 1, f"split_{fold}"), value, data=data)
    p = paired_t_test([81.0, 82.0, 81.0, 82.0, 81.0], [80.0] * 5, 10 / 90)
    assert f"|  | ASpERT | 5 | 81.40 ± 0.55 | +1.40 | {p:.3f} |" in page_of(tmp_path, tmp_path / "results.md")


def test_a_seed_without_all_folds_is_left_out(tmp_path):
    """A sweep that was stopped in its second seed, then in its third: all figures are of the same runs."""
    corpus, data = load_corpora()["ade"], {"train": {"sentences": 90}, "test": {"sentences": 10}}
    folds = [f"split_{fold}" for fold in range(10)]

    def runs(seed, folds):
        for fold in folds:
            for preset, value in (("spert", 80.0), ("paper", 75.0 if fold == "split_0" else 90.0)):
                written(tmp_path, make_run(corpus, {"preset": preset}, seed, fold), value + seed, data=data)

    runs(1, folds)
    runs(2, folds[:1])
    page = page_of(tmp_path, tmp_path / "results.md")
    row = next(line for line in page.splitlines() if line.startswith("|  | ASpERT | 10 | 89.50 ± 4.74 | +8.50 |"))
    assert [cell.strip() for cell in row.split("|")][8:10] == ["88.50", "+8.50"]
    assert (
        "Spread over: fold." in page and "2 runs of other seeds are left out, since not all 10 folds have them" in page
    )
    # one model alone with a further seed changes nothing for the others
    for fold in folds:
        written(tmp_path, make_run(corpus, {"preset": "spert"}, 2, fold), 82.0, data=data)
    row = next(
        line
        for line in page_of(tmp_path, tmp_path / "results.md").splitlines()
        if line.startswith("|  | ASpERT | 10 |")
    )
    assert "| 89.50 ± 4.74 | +8.50 |" in row
    runs(2, folds)
    runs(3, folds[:4])
    page = page_of(tmp_path, tmp_path / "results.md")
    assert "|  | ASpERT | 2 | 90.00 ± 0.71 | +8.50 |" in page
    assert (
        "seed (mean of 10 folds)" in page
        and "8 runs of other seeds are left out, since not all 10 folds have them" in page
    )


def test_what_the_models_differ_in_cannot_be_set_for_all(tmp_path, capsys):
    call = ["run", "best", "--dry-run", "--results", str(tmp_path), "--work", str(tmp_path), "--set"]
    assert tables.main([*call, "learning_rate=5e-5"]) == 0
    assert tables.main([*call, "word_shapes=true", "preset=paper"]) == 2
    call[1] = "best_plus"
    assert tables.main([*call, "learning_rate=5e-5"]) == 2
    assert "learning_rate differs between the models of best_plus" in capsys.readouterr().err
    call[1] = "table4"
    for field in ("max_span_width=12", "relation_threshold=0.3", "learn_thresholds=true"):
        assert tables.main([*call, field]) == 2
        assert (
            f"{field.split('=')[0]} is a field of the models of table4, so it cannot be set" in capsys.readouterr().err
        )


def test_the_folder_of_the_public_corpora_is_for_them_alone(tmp_path):
    assert with_data_dir({"dataset": "conll04"}, tmp_path)["data_dir"] == str(tmp_path)
    for fields, folder in (({"dataset": "conll04"}, None), ({"dataset": "quickstart"}, tmp_path)):
        assert with_data_dir(fields, folder) == fields


def test_a_misspelt_field_of_a_variant_is_refused_before_any_run(tmp_path, capsys):
    entry = {"title": "x", "corpora": ["mine"], "seeds": [1], "baseline": "a", "variants": {"a": {"prset": "spert"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    corpora = {"mine": {"fields": {"dataset": "mine", "encoder": "tiny"}, "headline": ["ner_micro_f1"]}}
    (tmp_path / "corpora.yaml").write_text(yaml.safe_dump(corpora), encoding="utf-8")
    call = ["run", "mine", "--configuration", str(tmp_path), "--dry-run", "--results", str(tmp_path)]
    assert tables.main(call) == 2
    assert "did you mean 'preset'" in capsys.readouterr().err
    del corpora["mine"]["headline"]
    (tmp_path / "corpora.yaml").write_text(yaml.safe_dump(corpora), encoding="utf-8")
    assert tables.main(call) == 2
    assert "corpora.yaml: corpus 'mine' lacks the key 'headline'" in capsys.readouterr().err


def test_every_committed_result_lies_where_its_run_is_looked_for():
    for result in load_results(tables.RESULTS):
        content = result.content
        settings = content["settings"]
        run = Run(content["corpus"], content["fold"], content["seed"], {}, settings, architecture_name(settings))
        assert run.id == content["id"]
        assert result.path == tables.RESULTS / run.path, "python benchmarks/tables.py run would train it again"
