"""The driver of SpERT's own training; the training itself needs SpERT's code, which is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import spert_training


def test_a_run_that_is_there_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "runs.json"
    call = ["--spert", str(tmp_path), "--corpus", "quickstart", "--seeds", "7", "--output", str(output)]
    assert spert_training.main(call) == 2
    assert "no checkout of SpERT" in capsys.readouterr().err
    assert spert_training.read_runs(output) == []
    parsed = spert_training.build_parser().parse_args(call)
    settings = {name: getattr(parsed, name, 7) for name in spert_training.SPERT_SETTINGS}
    output.write_text(json.dumps({"runs": [{"settings": settings}]}), encoding="utf-8")
    assert spert_training.main(call) == 0
    assert "seed 7: there already" in capsys.readouterr().out
    assert spert_training.main([*call[:-4], "--seeds", "8", *call[-2:]]) == 2


def test_runs_are_added_also_in_a_new_folder(tmp_path: Path) -> None:
    output = tmp_path / "new" / "runs.json"
    for seed in (1, 2):
        spert_training.add_run(output, {"settings": {"seed": seed}})
    assert [run["settings"]["seed"] for run in spert_training.read_runs(output)] == [1, 2]
    assert [path.name for path in output.parent.iterdir()] == ["runs.json"]
