"""resumable_writer.py: an output that survives kills."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from modeling_aspert.resumable_writer import ResumableJsonlWriter
from modeling_aspert.streaming import read_inputs

SETTINGS = {"files": [{"path": "a.bin", "size": 3}], "model": "m", "options": {"threshold": 0.4}}
RECORDS = [{"id": index, "text": "é" * (index % 50), "entities": [], "relations": []} for index in range(300)]


def lines_of(path) -> list:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_resumable_output(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    with ResumableJsonlWriter(path, SETTINGS) as writer:
        assert writer.completed == 0
        for record in RECORDS[:3]:
            writer.write(record)
        assert not path.exists()
    assert lines_of(path) == RECORDS[:3]
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_interrupt_keeps_what_was_done(tmp_path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt), ResumableJsonlWriter(path, SETTINGS) as writer:
        for record in RECORDS[:10]:
            writer.write(record)
        raise KeyboardInterrupt
    assert not path.exists()
    with ResumableJsonlWriter(path, SETTINGS) as writer:
        assert writer.completed == 10
        for record in RECORDS[10:20]:
            writer.write(record)
    assert lines_of(path) == RECORDS[:20]


TORN = [b"", b"{", b'{"id": 7, "text": "\xc3', b"\x00" * 5000]


def partial_output(tmp_path, torn: bytes):
    """A path whose partial output holds 7 records and a torn one."""
    path = tmp_path / "out.jsonl"
    writer = ResumableJsonlWriter(path, SETTINGS)
    for record in RECORDS[:7]:
        writer.write(record)
    writer.abort()
    with open(tmp_path / "out.jsonl.partial", "ab") as file:
        file.write(torn)
    return path


@pytest.mark.parametrize("torn", TORN)
def test_torn_lines_are_cut_off(tmp_path, torn):
    path = partial_output(tmp_path, torn)
    with ResumableJsonlWriter(path, SETTINGS) as writer:
        assert writer.completed == 7
        for record in RECORDS[7:9]:
            writer.write(record)
    assert lines_of(path) == RECORDS[:9]


def same_id(record: dict, given: dict) -> bool:
    return record["id"] == given["id"]


@pytest.mark.parametrize(
    ("ends", "kept"),
    [([4, 8, 9], 4), ([8, 9], 0), ([1, 2, 7, 9], 7), ([6, 7, 9], 7), ([3, 6, 9], 6), ([9], 0)],
)
@pytest.mark.parametrize("torn", TORN)
def test_chunks_that_are_not_whole_are_cut_off(tmp_path, ends, kept, torn):
    """Of 7 records and a torn one, those of whole chunks stay; the others are given back as chunks."""
    path = partial_output(tmp_path, torn)
    chunks = [RECORDS[start:end] for start, end in zip([0, *ends], ends)]
    with ResumableJsonlWriter(path, SETTINGS) as writer:
        todo = list(writer.skip_done(iter(chunks), same_id))
        assert writer.completed == kept
        assert todo == [chunk for chunk, end in zip(chunks, ends) if end > kept]
        for record in itertools.chain(*todo):
            writer.write(record)
    assert lines_of(path) == RECORDS[:9]


def test_other_inputs_are_refused(tmp_path):
    path = partial_output(tmp_path, b"")
    kept = (tmp_path / "out.jsonl.partial").read_bytes()
    mend = f"give the same inputs, or delete {path}.partial to begin anew"
    for inputs, problem in [
        ([*RECORDS[:6], *RECORDS[7:10]], ": record 6 was made of another input than the present one: "),
        (RECORDS[:5], " holds 7 records, but there are only 5 inputs: "),
        ([], " holds 7 records, but there are only 0 inputs: "),
    ]:
        chunks = [inputs[start : start + 4] for start in range(0, len(inputs), 4)]
        with pytest.raises(ValueError, match=re.escape(f"{path}.partial{problem}{mend}")):
            with ResumableJsonlWriter(path, SETTINGS) as writer:
                writer.skip_done(chunks, same_id)
        assert (tmp_path / "out.jsonl.partial").read_bytes() == kept


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    writer = ResumableJsonlWriter(path, SETTINGS)
    writer.write(RECORDS[0])
    writer.abort()
    message = (
        f'{path}.partial was begun with model "m", now it is "n": give the same settings, or delete {path}.partial'
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        ResumableJsonlWriter(path, {**SETTINGS, "model": "n"})
    with pytest.raises(ValueError, match="was begun with language null, now it is"):
        ResumableJsonlWriter(path, {**SETTINGS, "language": "de"})
    files = [{"path": "a.bin", "size": 3}, {"path": "b.bin", "size": 4}]
    with pytest.raises(ValueError, match=r'was begun with files null, now it is \{"path": "b.bin", "size": 4\}: '):
        ResumableJsonlWriter(path, {**SETTINGS, "files": files})
    settings_file = tmp_path / "out.jsonl.partial.json"
    settings_file.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="out.jsonl.partial.json: cannot be read"):
        ResumableJsonlWriter(path, SETTINGS)
    (tmp_path / "moved").rename(settings_file)
    ResumableJsonlWriter(path, SETTINGS).close()
    assert lines_of(path) == RECORDS[:1]


def test_two_runs_at_once(tmp_path):
    with ResumableJsonlWriter(tmp_path / "out.jsonl", SETTINGS) as writer:
        writer.write(RECORDS[0])
        with pytest.raises(ValueError, match="another run is writing it"):
            ResumableJsonlWriter(tmp_path / "out.jsonl", SETTINGS)
    assert lines_of(tmp_path / "out.jsonl") == RECORDS[:1]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with ResumableJsonlWriter(tmp_path / "out.jsonl", SETTINGS) as writer:
        writer.write(RECORDS[0])
    assert lines_of(tmp_path / "out.jsonl") == RECORDS[:1]


def test_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    with pytest.raises(OSError, match=r"No space left on device: '.*out.jsonl.partial'"):
        with ResumableJsonlWriter(path, SETTINGS, sync_seconds=0) as writer:
            for record in RECORDS[:5]:
                writer.write(record)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full_disk)
                writer.write(RECORDS[5])
    with ResumableJsonlWriter(path, SETTINGS) as writer:
        for record in RECORDS[writer.completed :]:
            writer.write(record)
    assert lines_of(path) == RECORDS


def full_disk(_):
    raise OSError(28, "No space left on device")


WORKER = """
import itertools, sys, time
from modeling_aspert.resumable_writer import ResumableJsonlWriter
from modeling_aspert.streaming import read_inputs
source, output = sys.argv[1:]
with ResumableJsonlWriter(output, {}, sync_seconds=0.002) as writer:
    for record in itertools.islice(read_inputs([source]), writer.completed, None):
        time.sleep(0.0002)
        writer.write({"id": record.id, "text": record.text, "entities": [], "relations": []})
"""


@pytest.mark.parametrize("n_kills", [20, pytest.param(50, marks=pytest.mark.slow)])
def test_kills(tmp_path, light_package, n_kills):
    """Killed at random moments and begun again, a run gives the bytes of a run without a break."""
    source, output = tmp_path / "a.txt", tmp_path / "out.jsonl"
    source.write_text(
        "".join(f"record {index} {'é' * (index % 200)}\n" for index in range(150 * n_kills)), encoding="utf-8"
    )
    expected = "".join(
        json.dumps({"id": record.id, "text": record.text, "entities": [], "relations": []}, ensure_ascii=False) + "\n"
        for record in read_inputs([source])
    )
    rng = random.Random(n_kills)
    partial = tmp_path / "out.jsonl.partial"
    kills, sizes = 0, set()
    while not output.exists():
        process = subprocess.Popen([sys.executable, "-c", WORKER, source, output], cwd=light_package)
        if kills < n_kills:
            before = partial.stat().st_size if partial.exists() else -1
            while process.poll() is None and (partial.stat().st_size if partial.exists() else -1) <= before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert killed or process.returncode == 0
        kills += killed
        if not output.exists():
            sizes.add(partial.stat().st_size)
    assert output.read_bytes() == expected.encode("utf-8")
    assert kills == n_kills
    assert len(sizes) > n_kills // 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "out.jsonl"]
