"""The soak's arithmetic; the run itself takes minutes."""

from __future__ import annotations

import json

import pytest

from benchmarks.soak import Sample, broken_promises, compare, summarise


def run(memory: list[float], cpu: list[float]) -> list[Sample]:
    """A sample every 100 of 2,000 sentences, and one before the first; cpu is the time of each hundred."""
    done = [Sample(0.0, 0.0, 10.0, 0)]
    for position, resident in enumerate(memory):
        last = done[-1]
        done.append(Sample(last.wall_seconds + 2, last.cpu_seconds + cpu[position], resident, last.sentences + 100))
    return done


def test_tenths_by_hand():
    found = summarise(run([100.0] * 18 + [104.0] * 2, [0.1] * 18 + [0.1, 0.2]), 2000)
    # the last tenth is the samples at 1800, 1900 and 2000 sentences: 100, 104, 104 MiB, 0.3 s of 200 sentences
    assert found["last_tenth"] == {"resident_mib": 104.0, "cpu_ms_per_sentence": 1.5, "wall_ms_per_sentence": 20.0}
    assert found["first_tenth"]["cpu_ms_per_sentence"] == 1.0
    assert found["memory_ratio"] == 1.04 and found["cpu_ratio"] == 1.5
    assert found["sentences_per_second"] == 50.0


def test_too_few_samples():
    with pytest.raises(ValueError, match="too few samples: give more --sentences"):
        summarise(run([100.0] * 20, [0.1] * 20)[:3], 2000)


def test_output_is_compared_with_the_input(tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("a\nb\n")
    records = [{"text": text, "entities": [{}], "relations": []} for text in "ab"]
    for kept, complete in (
        (records, True),
        (records[:1], False),
        (records[::-1], False),
        ([*records, *records], False),
    ):
        output.write_text("".join(json.dumps(record) + "\n" for record in kept))
        assert compare(source, output)[0] == complete
    output.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert compare(source, output) == (True, 2, 0)


def test_what_fails():
    good = {"exit_code": 0, "complete": True, "memory_ratio": 1.05, "cpu_ratio": 1.1}
    assert list(broken_promises(good)) == []
    assert list(broken_promises({**good, "memory_ratio": 1.06})) == ["memory_ratio 1.06 > 1.05"]
    assert list(broken_promises({**good, "complete": False})) == ["the output is not the input's"]
    assert list(broken_promises({"exit_code": -9})) == ["exit code -9"]
