"""An output of JSON lines that can be resumed after a kill."""

from __future__ import annotations

import itertools
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .files import try_lock
from .record_writer import Output, Record, json_line, output_target

T = TypeVar("T")


class ResumableJsonlWriter(Output):
    """JSON lines that survive a kill: PATH.partial grows, and becomes PATH when `close` is called.

    A writer for a path that has a partial output takes it up: a torn last line is cut off, and `completed` says how
    many records there are; the caller skips that many inputs, or lets `skip_done` skip and compare them.

    settings: what the output depends on besides the inputs (model, options; JSON values). They stand in
    PATH.partial.json, and `ValueError` says which one differs where a run with others is to be resumed. Records reach
    the disk every `sync_seconds`. A `with` block left by an exception keeps the partial output.
    """

    def __init__(self, path: str | os.PathLike, settings: dict[str, Any], sync_seconds: float = 1.0) -> None:
        self.path = Path(path)
        self._target = output_target(path)
        self._partial = self._target.with_name(self._target.name + ".partial")
        self._settings_file = self._target.with_name(self._target.name + ".partial.json")
        self._sync_seconds = sync_seconds
        self._synced_at = time.monotonic()
        self._buffer: list[bytes] = []
        self._file = open(self._partial, "ab", buffering=0)
        try:
            self._lock()
            settings = json.loads(json.dumps(settings))
            if self._partial.stat().st_size:
                self._check_settings(settings)
            else:
                self._settings_file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            self.completed = self._recover()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if not try_lock(self._file.fileno()):
            raise ValueError(f"{self._partial}: another run is writing it, wait for it or choose another output")

    def _check_settings(self, settings: dict[str, Any]) -> None:
        mend = self._mend("settings")
        try:
            before = json.loads(self._settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._settings_file}: cannot be read ({error}); {mend}") from error
        for name in sorted({*before, *settings}):
            then, now = before.get(name), settings.get(name)
            if then == now:
                continue
            if isinstance(then, list) and isinstance(now, list):  # of many files the first that differs
                then, now = next(pair for pair in itertools.zip_longest(then, now) if pair[0] != pair[1])
            then, now = (textwrap.shorten(json.dumps(value), 300) for value in (then, now))
            raise ValueError(f"{self._partial} was begun with {name} {then}, now it is {now}: {mend}")

    def _mend(self, what: str) -> str:
        return f"give the same {what}, or delete {self._partial} to begin anew"

    def _recover(self) -> int:
        kept = kept_bytes = 0
        with open(self._partial, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    kept, kept_bytes = kept + 1, kept_bytes + len(line)
        self._file.truncate(kept_bytes)
        return kept

    def skip_done(self, chunks: Iterable[list[T]], made_of: Callable[[Record, T], bool]) -> Iterator[list[T]]:
        """The chunks of inputs that are still to be done.

        Records of a chunk that is there in part are cut off, so that a model which sees its inputs in chunks sees the
        same chunks as in a run without a break, and gives the same scores to the last digit.

        chunks: all inputs of the run, in the lists in which the model sees them. made_of: whether a record is that of
        an input.

        Raises ValueError, and cuts nothing off, where a record that is there is not that of the input in its place.
        """
        chunks, begun = iter(chunks), []
        done = done_bytes = 0
        with open(self._partial, "rb") as file:
            while done < self.completed and not begun:
                chunk = next(chunks, [])
                if not chunk:
                    raise ValueError(
                        f"{self._partial} holds {self.completed} records, but there are only {done} inputs: "
                        + self._mend("inputs")
                    )
                for number, given in enumerate(chunk[: self.completed - done], start=done):
                    if not made_of(json.loads(file.readline()), given):
                        raise ValueError(
                            f"{self._partial}: record {number} was made of another input than the present one: "
                            + self._mend("inputs")
                        )
                if done + len(chunk) > self.completed:
                    begun = [chunk]
                else:
                    done, done_bytes = done + len(chunk), file.tell()
        self._file.truncate(done_bytes)
        self.completed = done
        return itertools.chain(begun, chunks)

    def write(self, record: Record) -> None:
        self._buffer.append(json_line(record).encode("utf-8") + b"\n")
        self.completed += 1
        if time.monotonic() - self._synced_at >= self._sync_seconds:
            self._sync()

    def _sync(self) -> None:
        data = memoryview(b"".join(self._buffer))
        self._buffer = []
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._partial)) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Give the complete output its name."""
        self._sync()
        self._let_go()
        os.replace(self._partial, self._target)
        self._settings_file.unlink(missing_ok=True)
        self._file.close()

    def _let_go(self) -> None:
        """Windows neither moves nor removes an open file; elsewhere its lock is kept until it is moved."""
        if os.name == "nt":
            self._file.close()

    def abort(self) -> None:
        """Stop, and keep what was done for a later run; where nothing was done, nothing stays."""
        try:
            self._sync()
            if not self._partial.stat().st_size:
                self._let_go()
                self._partial.unlink()
                self._settings_file.unlink(missing_ok=True)
        finally:
            self._file.close()
