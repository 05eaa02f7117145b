"""Finding and downloading files; the server is on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest

from data_scripts import DataError, load, load_schema, sources
from data_scripts import corpora as table

RECORDS = [{"tokens": ["Rome"], "entities": [{"type": "Loc", "start": 0, "end": 1}], "relations": [], "orig_id": 1}]
TYPES = {"entities": {"Loc": {}}, "relations": {}}
FILES = {
    "conll04/conll04_train.json": json.dumps(RECORDS * 3).encode(),
    "conll04/conll04_dev.json": json.dumps(RECORDS * 2).encode(),
    "conll04/conll04_test.json": json.dumps(RECORDS).encode(),
    "conll04/conll04_types.json": json.dumps(TYPES).encode(),
}


class Server(ThreadingHTTPServer):
    """Serves FILES below /data, and does `fault` to the train file."""

    fault = ""
    requests: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/data/")
        self.server.requests.append(name)
        content = FILES[name]
        fault = self.server.fault if name.endswith("train.json") else ""
        if fault == "missing":
            self.send_error(404)
            return
        if fault == "hangs":
            time.sleep(2)
        if fault == "changed":
            content = content.replace(b"Rome", b"Bern")
        if fault == "large":
            content += b" " * 5000
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "truncated" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    for name, content in FILES.items():
        monkeypatch.setitem(table.SHA256, name, hashlib.sha256(content).hexdigest())
    monkeypatch.delenv("ASPERT_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "TIMEOUT", 0.5)
    monkeypatch.setattr(sources, "MAX_BYTES", 4096)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        monkeypatch.setattr(table, "ADDRESS", f"http://127.0.0.1:{server.server_port}/data")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download_once_then_from_the_cache(server, tmp_path):
    data = load("conll04", cache_dir=tmp_path)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 3, "dev": 2, "test": 1}
    assert sorted(server.requests) == sorted(FILES)
    assert load("conll04", cache_dir=tmp_path, download=False)["dev"][0]["tokens"] == ["Rome"]
    assert load_schema("conll04", cache_dir=tmp_path, download=False).entity_types == ("Loc",)
    assert len(server.requests) == len(FILES)


def test_a_damaged_file_of_the_cache_is_downloaded_again(server, tmp_path):
    load("conll04", cache_dir=tmp_path)
    damaged = tmp_path / "downloads" / "aspert" / "conll04" / "conll04_dev.json"
    damaged.write_bytes(b"[]")
    assert len(load("conll04", cache_dir=tmp_path)["dev"]) == 2
    assert server.requests[len(FILES) :] == ["conll04/conll04_dev.json"]
    assert damaged.read_bytes() == FILES["conll04/conll04_dev.json"]


FAULTS = [
    ("missing", "cannot be downloaded (Not Found)"),
    ("hangs", "cannot be downloaded (timed out)"),
    ("changed", "came truncated or changed ("),
    ("truncated", "came truncated or changed ("),
    ("large", "is larger than 4096 bytes and was not kept"),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_failed_download(server, tmp_path, fault, expected):
    server.fault = fault
    with pytest.raises(DataError) as caught:
        load("conll04", cache_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{table.ADDRESS}/conll04/conll04_train.json: {expected}")
    assert message.endswith(
        "; pass --data_dir FOLDER or set ASPERT_DATA=FOLDER, where FOLDER holds conll04/conll04_train.json"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_server(tmp_path, server, monkeypatch):
    monkeypatch.setattr(table, "ADDRESS", "http://127.0.0.1:9/data")  # the port of "discard": nobody listens
    with pytest.raises(DataError, match=r"cannot be downloaded \(.*refused\); pass --data_dir FOLDER or set ASPERT_"):
        load("conll04", cache_dir=tmp_path)


def test_no_network_where_it_is_forbidden(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"may not be downloaded \(offline\); pass --data_dir FOLDER or set ASPERT_"):
        load("conll04", cache_dir=tmp_path, download=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="may not be downloaded"):
        load_schema("conll04", cache_dir=tmp_path)
    assert server.requests == []


def test_a_folder_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "corpora" / "conll04").mkdir(parents=True)
    file = tmp_path / "corpora" / "conll04" / "conll04_types.json"
    file.write_text("{}")
    assert sources.find_corpus_file("conll04", file.name, "~/corpora") == file
    monkeypatch.setenv("ASPERT_DATA", "~/corpora")
    assert sources.find_corpus_file("conll04", file.name) == file


def test_data_dir_and_variable_come_before_the_network(server, tmp_path, monkeypatch):
    for name, content in FILES.items():
        path = tmp_path / "corpora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(b"Rome", b"Bern"))  # what somebody names need not be the public file
    for folder in (tmp_path / "corpora", tmp_path / "corpora" / "conll04"):
        assert load("conll04", data_dir=folder, cache_dir=tmp_path)["test"][0]["tokens"] == ["Bern"]
    monkeypatch.setenv("ASPERT_DATA", str(tmp_path / "corpora"))
    assert load("conll04", cache_dir=tmp_path)["test"][0]["tokens"] == ["Bern"]
    with pytest.raises(DataError, match="ASPERT_DATA .*corpora: holds neither scierc/scierc_train.json nor scierc_tr"):
        load("scierc", cache_dir=tmp_path)
    with pytest.raises(DataError, match="data_dir none: holds neither .*; name the folder of the corpora"):
        load("conll04", data_dir="none", cache_dir=tmp_path)
    assert server.requests == []


def test_checksums_are_those_of_the_corpora(corpora):
    for name, checksum in table.SHA256.items():
        content = (corpora / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum
        assert len(content) < 8 * 2**20


def test_every_file_of_every_corpus_has_a_checksum():
    for corpus in (table.CONLL04, table.SCIERC, table.ADE):
        names = (name for splits in corpus.splits.values() for names in splits.values() for name in names)
        files = {corpus.types, *names}
        assert {f"{corpus.name}/{name}" for name in files} <= set(table.SHA256)
