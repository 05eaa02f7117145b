"""Files that are no strict JSON: each error names the file, the place and the mend."""

from __future__ import annotations

import json
import time

import pytest

from data_scripts import DataError, read_records
from data_scripts.reading import read_bytes

GOOD = '{"tokens": ["a"], "entities": [], "relations": []}'

# name, content, what the message must say
MALFORMED = [
    ("empty file", b"", ["the file is empty", "leave it out"]),
    ("blank file", b" \n\t", ["the file is empty", "leave it out"]),
    ("truncated in a word", f'[{GOOD}, {{"tokens": ["b'.encode(), ["record 1", "line 1", "breaks off", "whole file"]),
    ("truncated after a record", f"[{GOOD}, {GOOD}".encode(), ["record 1", "breaks off", "whole file"]),
    ("truncated after a comma", f"[{GOOD},".encode(), ["record 1", "breaks off", "whole file"]),
    ("only a bracket", b"[", ["record 0", "breaks off", "whole file"]),
    ("no comma", f"[{GOOD}\n {GOOD}]".encode(), ["record 0", "line 2, column 2", "expected ,", "correct the file"]),
    ("single quotes", b"[{'tokens': []}]", ["record 0", "line 1, column 3", "correct the file"]),
    ("text after the list", f"[{GOOD}] x".encode(), ["line 1", "more text", "correct the file"]),
    ("not JSON", b"tokens: a", ["line 1, column 1", "not JSON", "correct the file"]),
    ("top level is an object", GOOD.encode(), ["the top level is an object", "[ and ]", ".jsonl"]),
    ("top level is a string", b'"a"', ["the top level is a string", "[ and ]"]),
    ("record is a string", f'[{GOOD}, "a"]'.encode(), ["record 1", "record = 'a'", "a string", "write an object"]),
    ("record is null", b"[null]", ["record 0", "record = None", "null", "write an object"]),
    ("repeated key", b'[{"tokens": [], "tokens": ["a"]}]', ["record 0", "tokens: ", "more than once", "keep one"]),
    (
        "repeated key inside",
        f'[{GOOD}, {{"entities": [{{"start": 0, "start": 1}}]}}]'.encode(),
        ["record 1", "entities[0].start", "more than once", "keep one"],
    ),
    ("NaN", b'[{"entities": [{"start": NaN}]}]', ["record 0", "entities[0].start = nan", "NaN", "finite"]),
    ("Infinity", b'[{"a": [0, -Infinity]}]', ["record 0", "a[1] = -inf", "Infinity", "finite"]),
    ("huge number", b'[{"a": 1' + b"0" * 5000 + b"}]", ["record 0", "4300 digits", "correct the file"]),
    ("deep nesting", b"[" * 200_000, ["record 0", "nested too deeply", "correct the file"]),
    ("newline in a string", b'[{"tokens": ["a\nb"]}]', ["record 0", "control character", "correct the file"]),
    ("not UTF-8", b'[\n{"tokens": ["\xff"]}]', ["byte 0xff in line 2", "save the file as UTF-8"]),
    ("UTF-16", "[]".encode("utf-16"), ["byte 0xff in line 1", "save the file as UTF-8"]),
]


@pytest.mark.parametrize(("content", "expected"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_malformed_json(tmp_path, content, expected):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(path)
    message = str(caught.value)
    for part in [str(path), *expected]:
        assert part in message
    assert len(caught.value.problems) == 1
    assert "\n" not in message


def test_jsonl_names_every_bad_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    lines = [GOOD, '{"tokens": [', "", f"{GOOD} {GOOD}", '{"tokens":', '["a"]}', GOOD, '{"a": 1, "a": NaN}', "[]"]
    path.write_text("\r\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_records(path)
    found = [(problem.record, problem.problem.split(": ")[0]) for problem in caught.value.problems]
    assert found == [
        (1, "not JSON at line 2, column 14"),
        (2, "not JSON at line 4, column 52"),
        (3, "not JSON at line 5, column 12"),
        (4, "not JSON at line 6, column 6"),
        (6, "the key is given more than once"),
        (6, "NaN and Infinity are not JSON"),
        (7, "a list, not an object"),
    ]
    assert str(caught.value).startswith("7 problems:\n") and str(caught.value).endswith("… and 2 more")


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    def message(path) -> str:
        with pytest.raises(DataError) as caught:
            read_records(path)
        return str(caught.value)

    assert message(tmp_path / "none.json") == f"{tmp_path}/none.json: does not exist; check the path"
    assert message(tmp_path) == f"{tmp_path}: is a directory, not a file; name a file inside it"
    assert "cannot be read (File name too long); check the path" in message("x" * 5000)
    assert "cannot be read (embedded null byte)" in message("a\0b")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # the tests may run as root, who may read everything
    assert (
        message(tmp_path / "x.json") == f"{tmp_path}/x.json: may not be read; give yourself the permission to read it"
    )


def test_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "windows.json"
    path.write_bytes(b"\xef\xbb\xbf" + f"[{GOOD}]\r\n".encode())
    assert read_records(path) == [json.loads(GOOD)]


def test_json_and_jsonl_give_the_same(tmp_path):
    records = [{"tokens": ["a\u2028b", "\u00e9"]}, {"tokens": []}]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (tmp_path / "x.json").write_text(f"[{', '.join(lines)}]", encoding="utf-8")
    (tmp_path / "x.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    assert read_records(tmp_path / "x.json") == read_records(tmp_path / "x.jsonl") == records
    (tmp_path / "none.json").write_text("[]")
    assert read_records(tmp_path / "none.json") == []
    assert read_bytes(tmp_path / "none.json") == b"[]"


def test_many_keys_one_twice_are_read_at_once(tmp_path):
    keys = [f'"{number}": 0' for number in range(60_000)]
    (tmp_path / "x.json").write_text(f"[{{{', '.join([*keys, keys[7]])}}}]")
    started = time.process_time()
    with pytest.raises(DataError, match=r"x.json: record 0: 7: the key is given more than once"):
        read_records(tmp_path / "x.json")
    assert time.process_time() - started < 5  # 45 with a search for each key
