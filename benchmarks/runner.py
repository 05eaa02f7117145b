"""Running train.py for many runs, side by side and resumable.

A run works in its own folder below ``work``; its result is written when it is finished. A run whose result is there is
skipped, one that was killed goes on from its last whole checkpoint. A lock that the training itself holds keeps two
drivers (or a driver and a training that outlived a killed one) from working on one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml

from benchmarks.experiments import ROOT, Run, with_data_dir
from benchmarks.results import check_launched, collect, is_finished, unusual
from modeling_aspert.files import try_lock, write_text

_POLL_SECONDS = 0.2
_LOG_TAIL_LINES = 8


@dataclass
class RunOptions:
    """How runs are made.

    Args:
        results: folder of the results.
        work: folder of what runs leave while they work.
        jobs: runs side by side.
        threads: CPU threads of each run. Default: the cores shared among the jobs.
        launcher: what starts train.py, such as ``[python]`` or ``["accelerate", "launch"]``.
        script: the training script.
        data_dir: where the corpora lie.
        keep_models: keep checkpoints and models of finished runs.
    """

    results: Path
    work: Path
    jobs: int = 1
    threads: int | None = None
    launcher: Sequence[str] = (sys.executable,)
    script: Path = ROOT / "train.py"
    data_dir: Path | None = None
    keep_models: bool = False


@dataclass
class Summary:
    """What became of the runs, by their ids."""

    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)


@dataclass
class _Job:
    run: Run
    process: subprocess.Popen[bytes]
    lock: TextIO
    log: Any
    command: list[str]
    started: float
    attempts: int
    started_at: float = field(default_factory=time.time)
    begun: bool = False
    refused: str | None = None


def unique(runs: Sequence[Run]) -> list[Run]:
    """Runs without repetition, in order: experiments share runs."""
    return list({run.id: run for run in runs}.values())


def launched_by(launcher: Sequence[str]) -> dict[str, Any]:
    """What the words of a launcher decide about the scores: `Run.launched`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_processes", "--num-processes", dest="processes", type=int)
    parser.add_argument("--mixed_precision", "--mixed-precision", dest="mixed_precision")
    decided, _ = parser.parse_known_args(list(launcher))
    return unusual(vars(decided))


def run_all(runs: Sequence[Run], options: RunOptions, say: Callable[[str], None] = print) -> Summary:
    """Make all runs that are not finished; a failed run does not stop the others.

    Raises:
        KeyboardInterrupt: after the trainings were told to stop; they go on from their checkpoints next time.
    """
    summary = Summary()
    waiting = unique(runs)
    total = len(waiting)
    active: list[_Job] = []
    try:
        while waiting or active:
            while waiting and len(active) < options.jobs:
                run = waiting.pop(0)
                # looked at only now: another driver may have finished it in the meantime
                if is_finished(run, options.results):
                    summary.skipped.append(run.id)
                    continue
                lock = _locked(run, options)
                if lock is None:
                    summary.locked.append(run.id)
                    say(f"{run.path}: another process works on it, passed over")
                    continue
                # and again: it may have finished between the first look and the lock, and its checkpoints are gone then
                if is_finished(run, options.results):
                    lock.close()
                    summary.skipped.append(run.id)
                    continue
                active.append(_start(run, options, lock))
                say(f"[{total - len(waiting)}/{total}] {run.path}: started, log {_work(run, options) / 'train.log'}")
            for job in active:
                _check_beginning(job, options)
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                _finish(job, options, summary, say)
            if active:
                time.sleep(_POLL_SECONDS)
    finally:
        for job in active:
            _stop(job)
        for job in active:
            _close(job)
    return summary


def command_of(run: Run, options: RunOptions) -> list[str]:
    """The command line of a run's training."""
    work = _work(run, options)
    return [
        *options.launcher,
        str(options.script),
        str(work / "config.yaml"),
        "--output_dir",
        str(work / "output"),
        "--resume_from_checkpoint",
        "true",
    ]


def _locked(run: Run, options: RunOptions) -> TextIO | None:
    """The run's lock, held until it is closed; None where another process holds it."""
    work = _work(run, options)
    work.mkdir(parents=True, exist_ok=True)
    lock = open(work / "lock", "w", encoding="utf-8")
    if not try_lock(lock.fileno()):
        lock.close()
        return None
    return lock


def _start(run: Run, options: RunOptions, lock: TextIO) -> _Job:
    work = _work(run, options)
    # an empty field is one that train.py decides
    fields = {name: value for name, value in run.fields.items() if value is not None}
    fields = with_data_dir(fields, options.data_dir)
    fields |= {"do_train": True, "do_eval": True, "do_predict": True, "disable_tqdm": True}
    write_text(work / "config.yaml", yaml.safe_dump(fields, allow_unicode=True))
    attempts = _attempts(work) + 1
    write_text(work / "attempts.json", json.dumps(attempts))

    command = command_of(run, options)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(_threads(options)),
        "MKL_NUM_THREADS": str(_threads(options)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    log = open(work / "train.log", "ab")
    # the training inherits the lock: it stays taken while the training lives, also without this driver
    process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[lock.fileno()],
        start_new_session=True,
    )
    return _Job(run, process, lock, log, command, time.monotonic(), attempts)


def _check_beginning(job: _Job, options: RunOptions) -> None:
    """Stop a training that is not what its run says before it takes its time."""
    file = _work(job.run, options) / "output" / "run.json"
    try:
        # not that of an earlier attempt
        if job.begun or file.stat().st_mtime < job.started_at:
            return
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    job.begun = True
    try:
        check_launched(job.run, described)
    except ValueError as error:
        job.refused = str(error)
        _stop(job)


def _stop(job: _Job) -> None:
    # with what a launcher started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.process.pid, signal.SIGTERM)


def _finish(job: _Job, options: RunOptions, summary: Summary, say: Callable[[str], None]) -> None:
    seconds = time.monotonic() - job.started
    work = _work(job.run, options)
    try:
        if job.refused is not None:
            raise RuntimeError(job.refused)
        if job.process.returncode != 0:
            raise RuntimeError(f"train.py ended with code {job.process.returncode}")
        about = {"command": _portable(job.command, options), "seconds": round(seconds, 1), "attempts": job.attempts}
        about |= {"threads": _threads(options), "jobs": options.jobs}
        collect(job.run, work / "output", options.results, about, options.data_dir)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        summary.failed.append(job.run.id)
        tail = (work / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        say("\n    ".join([f"{job.run.path}: FAILED after {seconds:.0f} s: {error}", *tail]))
        _close(job)
        return
    summary.finished.append(job.run.id)
    say(f"{job.run.path}: finished in {seconds:.0f} s")
    if not options.keep_models:
        shutil.rmtree(work / "output", ignore_errors=True)
    _close(job)


def _close(job: _Job) -> None:
    job.process.wait()
    job.log.close()
    job.lock.close()


def _threads(options: RunOptions) -> int:
    return options.threads or max(1, (os.cpu_count() or 1) // options.jobs)


def _work(run: Run, options: RunOptions) -> Path:
    return options.work / run.path.with_suffix("")


def _attempts(work: Path) -> int:
    try:
        return int(json.loads((work / "attempts.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0


def _portable(command: Sequence[str], options: RunOptions) -> list[str]:
    """The command with names that hold on another machine."""
    names = {sys.executable: "python", str(options.script): options.script.name}
    places = {str(options.work): "WORK", str(ROOT) + os.sep: ""}
    portable = []
    for part in command:
        part = names.get(part, part)
        for place, name in places.items():
            part = part.replace(place, name)
        portable.append(part)
    return portable
