"""Trainings in processes of their own: with an exit code, killable, or several that train together.

The processes are forked from a server that has imported everything once, so a start costs milliseconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import train
from modeling_aspert import AspertTrainer, model_card, reports

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.training_worker"])


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
    reports._can_plot = lambda: False
    model_card._drawn = lambda *_: False
    sys.argv = ["train.py", *argv]
    if kill_at is not None:
        kill_before_step(kill_at)
    return train.main()


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
