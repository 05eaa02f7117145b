"""streaming.py: inputs of all kinds, their errors, and constant memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_aspert import streaming
from modeling_aspert.streaming import (
    InputError,
    InputRecord,
    count_records,
    read_inputs,
)

# inputs


def texts_of(*paths, **options) -> list:
    return [record.text if record.tokens is None else record.tokens for record in read_inputs(paths, **options)]


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        content = content.encode("utf-8") if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
        return path

    return write


def test_text_lines(write):
    path = write("a.txt", "\ufeffeins\r\n\n  drei\u2028\x85\x0c \rvier\nfünf")
    assert list(read_inputs([path])) == [
        InputRecord(0, "eins", None, str(path), 1),
        InputRecord(1, "", None, str(path), 2),
        InputRecord(2, "  drei\u2028\x85\x0c \rvier", None, str(path), 3),
        InputRecord(3, "fünf", None, str(path), 4),
    ]
    assert texts_of(write("b", "one\n"), write("c.txt.gz", "two\nthree\n")) == ["one", "two", "three"]
    assert texts_of(write("empty.txt", "")) == []
    assert texts_of(str(path)) == texts_of(path)
    assert [record.text for record in read_inputs(path)][3] == "fünf"


def test_folder(write, tmp_path, caplog):
    write("folder/b.txt", "zwei\r\nZeilen\n")
    write("folder/a.x.TXT.GZ", "\ufeffeins")
    write("folder/İ.txt", "drei")
    write("folder/b.ann", "T1")
    write("folder/._b.txt", b"\xff")
    (tmp_path / "folder" / "more.txt").mkdir()
    assert list(read_inputs([tmp_path / "folder"])) == [
        InputRecord("a.x", "eins", None, str(tmp_path / "folder" / "a.x.TXT.GZ"), None),
        InputRecord("b", "zwei\r\nZeilen\n", None, str(tmp_path / "folder" / "b.txt"), None),
        InputRecord("İ", "drei", None, str(tmp_path / "folder" / "İ.txt"), None),
    ]

    assert "left out 2 files or folders that are no .txt files, such as 'b.ann'" in caplog.text


@pytest.mark.parametrize("name", ["a.log", "a.txt", "-"])
def test_json_lines_are_not_taken_for_texts(write, monkeypatch, name):
    content = '\n{"id": 7, "text": "Rome"}\n'
    path = name if name == "-" else write(name, content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with pytest.raises(InputError, match="looks like JSON lines: say --input-format jsonl"):
        texts_of(path)
    for form, expected in (("jsonl", ["Rome"]), ("text", content.splitlines())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert texts_of(path, format=form) == expected
    other = '{"no": "text"}\n{half\n'
    assert texts_of(write("b.txt", other)) == other.splitlines()


@pytest.mark.parametrize(
    "content",
    ['[{"tokens": ["Ann"]}]', '\n [\n{"text": "Rome"}\n]', '[{"text": "Rome"},\n{"text": "Oslo"}]\n', "[{\n}]", "["],
)
@pytest.mark.parametrize("name", ["a.log", "-"])
def test_a_json_list_is_not_taken_for_texts(write, monkeypatch, name, content):
    path = name if name == "-" else write(name, content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with pytest.raises(InputError, match="looks like a JSON list: say --input-format json, or text where it is one"):
        texts_of(path)
    assert texts_of(write("b.log", content), format="text") == content.splitlines()


@pytest.mark.parametrize("text", ["[1] Rome", "[sic]", "[]", '["Ann"]', "[{x} = {y}]", "a\n[\n"])
def test_texts_in_brackets_are_texts(write, text):
    assert texts_of(write("a.txt", text)) == text.splitlines()


def test_a_column_of_text_is_refused_at_once(write):
    path = write("folder/a.txt", "Rome")
    table = write("a.csv", "body\nRome\n")
    for inputs in (["-"], [table, path], [path.parent]):
        with pytest.raises(InputError) as error:
            read_inputs(inputs, column="body")
        assert str(error.value) == (
            f"{inputs[-1]}: taken for text, but --column body goes with jsonl, json, csv, tsv or parquet: say "
            "--input-format, or leave out --column"
        )
    assert texts_of(write("b.log", "body\nRome\n"), column="body", format="csv") == ["Rome"]


def test_a_single_column_of_another_name_is_said(write, caplog):
    path = write("a.csv", "Lisbon is in Portugal.\nOslo is in Norway.\n")
    assert texts_of(path) == ["Oslo is in Norway."]
    assert "'Lisbon is in Portugal.' is taken for the name of the column" in caplog.text
    caplog.clear()
    assert texts_of(path, column="Lisbon is in Portugal.") == texts_of(write("b.csv", "text\nOslo is in Norway.\n"))
    assert not caplog.text


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"eins\nzwei")))
    assert list(read_inputs(["-"])) == [InputRecord(0, "eins", None, "-", 1), InputRecord(1, "zwei", None, "-", 2)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "eins"}\n')))
    assert texts_of("-", format="jsonl") == ["eins"]


def test_json_lines(write):
    lines = [
        '{"text": "a", "id": "x"}',
        "",
        '{"tokens": ["b", "c"], "orig_id": 7}',
        '{"text": "lone \\ud83d", "id": null}',
        '{"text": "d", "id": null, "orig_id": "y"}',
    ]
    path = write("a.jsonl", "\n".join(lines))
    assert list(read_inputs([path])) == [
        InputRecord("x", "a", None, str(path), 1),
        InputRecord(7, None, ["b", "c"], str(path), 3),
        InputRecord(2, "lone \ud83d", None, str(path), 4),
        InputRecord("y", "d", None, str(path), 5),
    ]
    assert texts_of(write("b.ndjson.GZ", '{"body": "x", "text": "y"}'), column="body") == ["x"]


def test_json_list(write, corpora):
    path = write("a.json", '\ufeff[{"tokens": ["a"], "entities": [], "relations": [], "orig_id": 5}, {"text": "b"}]')
    assert list(read_inputs([path])) == [
        InputRecord(5, None, ["a"], str(path), 0),
        InputRecord(1, "b", None, str(path), 1),
    ]
    assert len(texts_of(corpora / "conll04" / "conll04_test.json")) == 288


def test_tables(write):
    path = write("a.csv", '\ufeffid,body\r\nx,"a ""b""\r\nc, d"\r\n\r\n,=1\r\n')
    assert list(read_inputs([path], column="body")) == [
        InputRecord("x", 'a "b"\r\nc, d', None, str(path), 2),
        InputRecord(1, "=1", None, str(path), 5),
    ]
    assert texts_of(write("b.tsv.gz", "n\ttext\n1\ta, b\n")) == ["a, b"]
    assert texts_of(write("c.csv", "only\nx\n" + "y" * 200_000)) == ["x", "y" * 200_000]
    assert texts_of(write("d.csv", "a;b\nx;y\n"), column="a;b") == ["x;y"]  # asked for by name


def test_parquet(tmp_path):
    table = pa.table({"id": [3, None], "body": ["a", ""], "n": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    assert list(read_inputs([path], column="body")) == [
        InputRecord(3, "a", None, path, 0),
        InputRecord(1, "", None, path, 1),
    ]
    with pytest.raises(InputError, match="a.parquet, record 1: 'b' is null, give a string"):
        pq.write_table(pa.table({"b": ["a", None]}), path)
        texts_of(path)
    dictionary = pa.table({"text": pa.array(["x", "x"]).dictionary_encode()})
    pq.write_table(dictionary, path)
    assert texts_of(path) == ["x", "x"]
    pq.write_table(pa.table({"text": pa.array(["x", "x"], pa.string_view())}), path)
    assert texts_of(path) == ["x", "x"]


def test_a_parquet_file_with_damaged_pages(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(5000)]}), path, compression="none")
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.parquet: no Parquet that can be read .*: write or download it again"):
        texts_of(path)


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed: name a file"):
        texts_of("-")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", b"good\nbad \xff", {}, "{}, line 2: byte 5 (0xff) is not UTF-8, convert the file to UTF-8"),
        ("a.txt", "text".encode("utf-16"), {}, "{}, line 1: byte 1 (0xff) is not UTF-8"),
        ("a.txt", b"x" * 101, {}, "{}, line 1: longer than 100 bytes, cut it into several records"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', {}, "{}, line 2: no JSON (Expecting value: line 1 column 10 (char 9)), correct it"),
        ("a.jsonl", '{"text": "Ann", "text": "Bob"}', {}, "{}, line 1: the key 'text' is given more than once, keep one of them"),
        ("a.jsonl", "[" * 90, {}, "{}, line 1: no JSON ("),
        ("a.jsonl", '["a"]', {}, '{}, line 1: expected an object such as {{"text": "..."}}, found a list'),
        ("a.jsonl", '{"body": "a", "x": 1}', {}, "{}, line 1: no field 'text', only 'body', 'x'"),
        ("a.jsonl", '{"tokens": ["a"]}', {"column": "body"}, "{}, line 1: no field 'body', only 'tokens'"),
        ("a.jsonl", '{"text": null}', {}, "{}, line 1: 'text' is null, give a string"),
        ("a.jsonl", '{"tokens": "a b"}', {}, "{}, line 1: 'tokens' is a string, give a list of words"),
        ("a.jsonl", '{"tokens": ["a", ""]}', {}, '{}, line 1: tokens[1] is "", give a word'),
        ("a.jsonl", '{"text": "a", "id": true}', {}, "{}, line 1: the id is a boolean, give a string or an integer"),
        ("a.json", '{"text": "a"}', {}, "{}: expected a list of records, found an object; name JSON lines *.jsonl"),
        ("a.json", '[{"text": "a"}, 3]', {}, "{}, record 1: expected an object"),
        ("a.json", '[{"text": "a"}, {"text": 5}]', {}, "{}, record 1: 'text' is a number, give a string"),
        ("a.json", '[{"text": "a", "id": 1, "id": 2}]', {}, "{}, record 0: the key 'id' is given more than once, keep one"),
        ("a.json", '[{"text": {"b": 1, "b": 2}}]', {}, "{}, record 0: 'text' is an object, give a string"),
        ("a.json.gz", "[" + " " * 10_000, {}, "{}: a JSON list of more than 1000 bytes, which would be loaded whole: write an object a line to a file *.jsonl"),
        ("a.json", "[", {}, "{}: no JSON (Expecting value: line 1 column 2 (char 1))"),
        ("a.json", b"\xff", {}, "{}: no JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte), convert"),
        ("a.csv", "a,b\n1,2\n", {}, "{}: no column 'text', choose the column of the texts; the columns are 'a', 'b'"),
        ("a.csv", "a,b\n1,2\n", {"column": "c"}, "{}: no column 'c', choose the column of the texts; the columns are 'a'"),
        ("a.csv", "text,text\n1,2\n", {}, "{}: several columns 'text', choose"),
        ("a.csv", "text,b\n1,2\n\n1\n", {}, "{}, line 4: 1 fields, but the header has 2"),
        ("a.csv", 'text\n"open\n\n', {}, "{}, line 2: no CSV (unexpected end of data)"),
        ("a.csv", 'text\n"a"b\n', {}, "{}, line 2: no CSV ("),
        ("a.tsv", 'text\tn\n"Ann" sang\t1\n', {}, "{}, line 2: no CSV ('\t' expected after '\"'), put a field that begins"),
        ("a.tsv", 'n\ttext\n1\t"open\n2\tx"\n', {}, "{}, line 2: a quoted field that goes on in the next line, put a"),
        ("a.csv", "id;text\n1;a\n", {}, "{}: the header 'id;text' is divided by ';', not by ',': save the table with commas"),
        ("a.csv", "id\ttext\n1\ta\n", {}, "{}: the header 'id\\ttext' is divided by '\\t', not by ',': say --input-format tsv"),
        ("a.tsv", "id,text\n1,a\n", {}, "{}: the header 'id,text' is divided by ',', not by '\\t': say --input-format csv"),
        ("a.tsv", "id;text\n1;a\n", {}, "{}: the header 'id;text' is divided by ';', not by '\\t': save the table with commas"),
        ("a.csv", "id;body\n1;a\n", {"column": "body"}, "{}: the header 'id;body' is divided by ';', not by ','"),
        ("a.csv", "", {}, "{}: empty, a table begins with a line of column names"),
        ("a.parquet", "no parquet", {}, "{}: no Parquet that can be read ("),
        ("a.xml", "<a/>", {"format": "xml"}, "unknown input format 'xml': choose one of text, jsonl, json, csv, tsv, parquet"),
    ],
)  # fmt: skip
def test_errors(write, monkeypatch, name, content, options, message):
    monkeypatch.setattr(streaming, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(streaming, "MAX_LIST_BYTES", 1000)
    path = write(name, content)
    with pytest.raises(InputError) as error:
        list(read_inputs([path], **options))
    assert str(error.value).startswith(message.format(path))
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path, write):
    with pytest.raises(InputError, match="missing.txt: no such file or folder"):
        read_inputs([tmp_path / "missing.txt"])  # at once, not when it is its turn
    with pytest.raises(InputError, match="the folder holds no .txt file"):
        texts_of(tmp_path)
    with pytest.raises(InputError, match="is a folder: as input it holds .txt files, not json"):
        texts_of(tmp_path, format="json")
    with pytest.raises(InputError, match="a.txt, line 3: byte 2 .0xfe. is not UTF-8"):
        texts_of(write("folder/a.txt", b"\n\nx\xfe").parent)
    with pytest.raises(InputError, match="line 1: no JSON"):
        texts_of(write("a.txt", "{"), format="jsonl")
    with pytest.raises(InputError, match="Parquet is read from an uncompressed file, not from a stream"):
        texts_of("-", format="parquet")
    write("plain", "text").rename(tmp_path / "plain.gz")
    with pytest.raises(
        InputError, match="plain.gz: no whole gzip file .Not a gzipped file.*, write or download it again"
    ):
        texts_of(tmp_path / "plain.gz")
    torn = write("torn.gz", "text")
    torn.write_bytes(torn.read_bytes()[:-6])
    with pytest.raises(InputError, match="torn.gz: no whole gzip file .* ended before the end-of-stream marker"):
        texts_of(torn)
    (tmp_path / "empty.jsonl.gz").touch()
    with pytest.raises(InputError, match="empty.jsonl.gz: no whole gzip file .it has no bytes."):
        texts_of(tmp_path / "empty.jsonl.gz")
    (tmp_path / "torn").mkdir()
    torn.rename(tmp_path / "torn" / "b.txt.gz")
    with pytest.raises(InputError, match="torn/b.txt.gz: no whole gzip file"):
        texts_of(tmp_path / "torn")
    with pytest.raises(InputError, match="/proc/self/mem: .*, check the path and its permissions"):
        texts_of("/proc/self/mem")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 'text' holds int64, not strings"):
        texts_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "csv", "jsonl", "parquet"])
def test_constant_memory(tmp_path, light_package, kind):
    """40 MB of records: the highest memory grows by less than 12 MB (Parquet: one row group of 40 MB)."""
    path = tmp_path / f"a.{kind}"
    text = "The patient took the drug daily. " * 30
    n_records = 40_000_000 // len(text)
    if kind == "parquet":
        rows = [f"{index} {text}" for index in range(n_records)]
        pq.write_table(
            pa.table({"text": rows}), path, row_group_size=n_records, compression="none", use_dictionary=False
        )
    else:
        line = json.dumps({"text": text}) if kind == "jsonl" else text
        with gzip.open(path, "wt", compresslevel=1) if kind.endswith("gz") else open(path, "w") as file:
            file.write("text\n" if kind == "csv" else "")
            for _ in range(n_records):
                file.write(line + "\n")
    script = """
import resource, sys
from modeling_aspert.streaming import read_inputs
records = read_inputs([sys.argv[1]])
for _ in range(2000):
    next(records)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n_records = 2000 + sum(1 for _ in records)
print(n_records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    output = subprocess.check_output([sys.executable, "-c", script, path], cwd=light_package, text=True)
    n_read, growth_kib = map(int, output.split())
    assert n_read == n_records
    assert growth_kib < 12_000


def test_count_records(write, tmp_path):
    paths = [write("a.txt", "1\n\n3"), write("b.jsonl", '{"text": "x"}\n'), write("c.tsv", "text\na\nb\n")]
    write("folder/a.txt", "x")
    write("folder/b.txt.gz", "x")
    write("folder/b.ann", "T1")
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "d.parquet")
    paths += [tmp_path / "folder", tmp_path / "d.parquet", write("empty.txt", "")]
    assert [count_records([path]) for path in paths] == [3, 1, 2, 2, 2, 0]
    assert count_records(paths) == 10 == sum(1 for _ in read_inputs(paths))
    unknown = ["-", write("e.txt.GZ", "x"), write("f.json", "[]"), write("g.parquet", "x"), tmp_path / "nothing"]
    assert [count_records([*paths, path]) for path in unknown] == [None] * 5


def test_counting_leaves_a_pipe_to_be_read():
    reader, writer = os.pipe()
    os.write(writer, b"Ann\nBob\n")
    os.close(writer)
    path = f"/dev/fd/{reader}"  # as a shell's <(...)
    assert count_records([path]) is None
    assert texts_of(path) == ["Ann", "Bob"]
    os.close(reader)
