"""Two drivers on one run: what is finished is not made again."""

from __future__ import annotations

import json

from benchmarks import runner
from benchmarks.experiments import Run
from benchmarks.runner import RunOptions, run_all
from modeling_aspert.files import try_lock, write_text


def test_a_run_that_another_driver_finished_before_the_lock_is_not_made_again(tmp_path, monkeypatch):
    run = Run("quickstart", None, 1, {"dataset": "quickstart"}, {"encoder": "tiny"}, "paper")
    options = RunOptions(tmp_path / "results", tmp_path / "work", script=tmp_path / "no_train.py")

    def finished_meanwhile(file: int) -> bool:
        # between this driver's first look and its lock
        write_text(options.results / run.path, json.dumps({"id": run.id}))
        return try_lock(file)

    monkeypatch.setattr(runner, "try_lock", finished_meanwhile)
    summary = run_all([run], options, say=lambda line: None)
    assert (summary.skipped, summary.finished, summary.failed, summary.locked) == ([run.id], [], [], [])
    # nothing was started, and the lock is free again
    work = options.work / run.path.with_suffix("")
    assert [path.name for path in work.iterdir()] == ["lock"]
    with open(work / "lock", encoding="utf-8") as lock:
        assert try_lock(lock.fileno())
