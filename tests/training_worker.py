"""Commands in processes of their own: with an exit code, killable, on a full disk, or several that train together.

The processes are forked from a server that has imported everything once, so a start costs milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import aspert_cli
import data_scripts
import train
from modeling_aspert import AspertTrainer, commands, model_card, reports

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.training_worker", "spacy"])


class Child:
    """A process that leads a group of its own and runs ``function(*args)``; its output goes to a file."""

    def __init__(
        self, log: Path, function: Callable[..., Any], *args: Any, environment: Mapping[str, str] = {}
    ) -> None:
        self.log = log
        self.process = _FORKSERVER.Process(target=_run, args=(log, dict(environment), function, args))
        self.process.start()

    def wait(self, seconds: float = 240) -> int:
        """The exit code; a negative one is the signal that ended it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.output}")
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL for the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""


def _run(log: Path, environment: dict[str, str], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.setsid()
    # ignored where the tests run in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = function(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    # collectives may leave threads that wait for the others
    os._exit(code or 0)


def run_together(folder: Path, processes: int, function: Callable[..., Any], *args: Any) -> None:
    """Run a function in processes that form one Accelerate job on the CPU; all must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    children = [
        Child(
            folder / f"rank{rank}.log",
            function,
            *args,
            environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    try:
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            child.kill()
    assert codes == [0] * processes, "\n".join(child.output[-3000:] for child in children)


def train_main(argv: Sequence[str], kill_at: int | None = None) -> int:
    """`python train.py ARGV` without pictures; SIGKILL in the forward pass of the step after ``kill_at`` steps."""
    reports.drawn = model_card.drawn = lambda *_: False
    sys.argv = ["train.py", *argv]
    if kill_at is not None:
        kill_before_step(kill_at)
    return train.main()


def aspert_main(argv: Sequence[str]) -> int:
    """`aspert ARGV` without pictures. Records reach the disk often, so that kills find some there."""
    reports.drawn = lambda *_: False
    commands.CHUNK_INPUTS = 16
    commands.ResumableJsonlWriter = functools.partial(commands.ResumableJsonlWriter, sync_seconds=0.01)
    return aspert_cli.main([str(word) for word in argv])


def prepare(corpus: Path, cache: Path) -> int:
    return _told(data_scripts.load, corpus, cache_dir=cache)


def export(corpus: Path, cache: Path, folder: Path, format: str) -> int:
    data = data_scripts.load(corpus, cache_dir=cache)
    return _told(data_scripts.export, data, folder, format, data_scripts.load_schema(corpus))


def _told(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """The exit code; an OSError becomes a line, as in the commands."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def with_small_files(size: int, function: Callable[..., int], *args: Any) -> int:
    """``function`` where no file can grow beyond ``size`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return function(*args)


def without_privileges(function: Callable[..., int], *args: Any) -> int:
    """``function`` in a process that obeys the permissions of its own files, also where it is root's."""
    if os.geteuid() == 0:
        version_3 = (ctypes.c_uint32 * 2)(0x20080522)
        assert ctypes.CDLL(None).capset(version_3, (ctypes.c_uint32 * 6)()) == 0
    return function(*args)


def kill_before_step(step: int) -> None:
    loss = AspertTrainer.compute_loss

    def compute_loss(self: AspertTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            os.killpg(0, signal.SIGKILL)
        return loss(self, *args, **kwargs)

    AspertTrainer.compute_loss = compute_loss


def wait_for(condition: Callable[[], Any], child: Child, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.process.is_alive(), f"ended with {child.process.exitcode}:\n{child.output[-3000:]}"
        assert time.monotonic() < deadline, child.output[-3000:]
        time.sleep(0.002)


def kill_repeatedly(
    n_kills: int,
    place: Path,
    start: Callable[[], Child],
    begin: Callable[[], Any],
    check: Callable[[], Any],
    end: Callable[[], Any],
) -> None:
    """Start runs and SIGKILL them at random moments until that has happened ``n_kills`` times; then let one end.

    Half of the moments lie anywhere in the length of a run, the others between the first change of `place` and the end.

    Args:
        place: where the runs write.
        begin: makes `place` anew; called before the first run, and again after one that came to its end.
        check: called after each kill.
        end: called after each run that came to its end.
    """
    for _ in range(2):  # the first run takes longer, as the server is started
        begin()
        before, started = _contents(place), time.monotonic()
        child = start()
        _wait_for_change(place, before, child)
        changed = time.monotonic()
        assert child.wait() == 0, child.output
        length, writing = time.monotonic() - started, time.monotonic() - changed
        end()
    begin()
    rng, kills = random.Random(n_kills), 0
    while True:
        before = _contents(place)
        child = start()
        if kills < n_kills:
            if kills % 2:
                _wait_for_change(place, before, child)
            child.process.join(rng.uniform(0, writing if kills % 2 else length))
            child.kill()
        if child.wait() == -signal.SIGKILL:
            kills += 1
            check()
            continue
        assert child.process.exitcode == 0, child.output
        end()
        if kills == n_kills:
            return
        begin()


def _wait_for_change(place: Path, before: dict[str, int], child: Child) -> None:
    while child.process.is_alive() and _contents(place) == before:
        time.sleep(0.002)


def _contents(folder: Path) -> dict[str, int]:
    """When each file and folder below a folder was changed; what goes meanwhile is left out."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                found[path] = os.stat(path).st_mtime_ns
    return found
