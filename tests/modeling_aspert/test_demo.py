"""The demo on a real socket of the loopback interface: answers, limits, refusals, hostile input, and its page."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from html import unescape
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
import yaml
from tiny import make_model, make_processor

from modeling_aspert import ExtractionOptions, Extractor, demo
from modeling_aspert.demo import DemoServer, build_app

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Ada Lovelace worked for Analytical Engines in London. \U0001f98a Marie married Pierre in Paris."
# an untrained model finds entities everywhere
OPTIONS = ExtractionOptions(relation_threshold=0.3, entity_threshold=0.85)
HOSTILE = (
    "=1+1 <script>window.hacked = 1</script> </script><img src=x onerror=window.hacked=2> \ud800 \u202e\u2028 Ada"
)


@pytest.fixture(scope="module")
def extractor():
    return Extractor(make_model(), make_processor(), OPTIONS)


@contextlib.contextmanager
def serving(extractor, **settings):
    server = DemoServer(build_app(extractor, **settings), port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server(extractor):
    with serving(extractor) as running:
        yield running


def ask(server, body=None, method="POST", path="/extract", timeout=120, **headers):
    """Status, headers and content; a dictionary is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=timeout)
    try:
        if isinstance(body, dict):
            body = json.dumps(body)
            headers = {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, response.headers, json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def drawn(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


class Gate:
    """Stands in for the extractor's work: holds it until opened, and counts."""

    def __init__(self, monkeypatch):
        self.opened, self.reached = threading.Event(), threading.Event()
        self.now = self.most = self.total = 0
        lock, extract = threading.Lock(), Extractor.extract

        def held(extractor, inputs):
            with lock:
                self.now, self.total = self.now + 1, self.total + 1
                self.most = max(self.most, self.now)
            self.reached.set()
            assert self.opened.wait(120)
            try:
                yield from extract(extractor, inputs)
            finally:
                self.now -= 1

        monkeypatch.setattr(demo.Extractor, "extract", held)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_extractors(server, extractor):
    status, headers, answer = ask(server, {"text": TEXT})
    [record] = extractor.extract([TEXT])
    assert status == 200 and answer["record"] == record
    assert record["entities"] and record["relations"], "the tiny model finds nothing: choose another text"
    assert json.loads(answer["files"]["prediction.jsonl"]) == record
    entities = list(csv.DictReader(io.StringIO(answer["files"]["entities.csv"])))
    relations = list(csv.DictReader(io.StringIO(answer["files"]["relations.csv"])))
    assert [row["text"] for row in entities] == [entity["text"] for entity in record["entities"]]
    assert [(row["type"], int(row["head"]), int(row["tail"])) for row in relations] == [
        (relation["type"], relation["head"], relation["tail"]) for relation in record["relations"]
    ]
    assert set(answer["files"]) == {"prediction.jsonl", "entities.csv", "relations.csv"}


def test_the_drawing_has_every_sentence_entity_and_relation(server):
    answer = ask(server, {"text": TEXT})[2]
    record, sentences = answer["record"], drawn(answer["page"])["sentences"]
    assert [sentence["text"] for sentence in sentences] == [TEXT[:53], TEXT[54:]]
    # the drawing counts in UTF-16
    texts = [sentence["text"].encode("utf-16-le") for sentence in sentences]
    entities = [
        [
            (entity["type"], text[2 * entity["start"] : 2 * entity["end"]].decode("utf-16-le"))
            for entity in s["entities"]
        ]
        for s, text in zip(sentences, texts)
    ]
    assert sum(entities, []) == [(entity["type"], entity["text"]) for entity in record["entities"]]
    assert all(entities)
    relations = [
        (relation["type"], found[relation["head"]], found[relation["tail"]])
        for sentence, found in zip(sentences, entities)
        for relation in sentence["relations"]
    ]
    ends = [(entity["type"], entity["text"]) for entity in record["entities"]]
    assert relations == [(r["type"], ends[r["head"]], ends[r["tail"]]) for r in record["relations"]]


def test_options_of_a_request(server, extractor):
    [usual] = extractor.extract([TEXT])
    none = {"relation_threshold": None, "entity_threshold": None, "overlap": None}
    assert ask(server, {"text": TEXT, **none})[2]["record"] == usual
    assert ask(server, {"text": TEXT, "entity_threshold": 1})[2]["record"]["entities"] == []
    strict = ask(server, {"text": TEXT, "relation_threshold": 0.9})[2]["record"]["relations"]
    assert [r["score"] >= 0.9 for r in usual["relations"]].count(True) == len(strict) < len(usual["relations"])
    flat = ask(server, {"text": TEXT, "overlap": "flat"})[2]["record"]["entities"]
    assert all(one["end"] <= two["start"] for one, two in zip(flat, flat[1:]))
    assert extractor.options == OPTIONS


def test_the_page_shows_what_the_extractor_starts_from(extractor):
    options = ExtractionOptions(relation_threshold=0.25, entity_threshold=0.5, overlap="flat")
    page, _ = build_app(Extractor(extractor.model, extractor.processor, options), example="A & <b>").page()
    page = page.decode()
    assert '<output id="relation-value" for="relation">0.25</output>' in page and 'value="0.25"' in page
    assert '<output id="entity-value" for="entity">0.50</output>' in page and " checked>" in page
    assert "A &amp; &lt;b&gt;</textarea>" in page and "married-to" in page and 'data-limit="20000"' in page
    options = ExtractionOptions(relation_threshold={"lives-in": 0.1})
    page, _ = build_app(Extractor(extractor.model, extractor.processor, options)).page()
    assert '<output id="relation-value" for="relation">by type</output>' in page.decode()


@pytest.mark.parametrize(("waiting", "time_limit"), [(-1, 1), (1, 0), (1, float("nan"))])
def test_settings_out_of_range(extractor, waiting, time_limit):
    with pytest.raises(ValueError, match="waiting = .* time_limit = "):
        build_app(extractor, waiting=waiting, time_limit=time_limit)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_too_long_texts_are_refused_before_the_model_sees_them(server, monkeypatch):
    message = "The text has 20,001 characters; the demo takes at most 20,000 characters. Shorten the text, or use"
    with monkeypatch.context() as patch:
        patch.setattr(demo.Extractor, "extract", None)
        status, _, answer = ask(server, {"text": "a" * 20_001})
        assert status == 413 and answer["error"].startswith(message)
        status, _, answer = ask(server, {"text": "a" * 5_000_000})
        assert status == 413 and "5,000,012 bytes; the demo takes at most 20,000 characters" in answer["error"]
    # 12 bytes each
    status, _, answer = ask(server, {"text": "\U0001d49c" * 20_000})
    assert status == 200 and len(answer["record"]["text"]) == 20_000
    assert ask(server, {"text": "\U0001f98a" * 20_001})[0] == 413


def test_too_much_to_draw_is_refused(server, monkeypatch):
    monkeypatch.setattr(demo, "MAX_ITEMS", 1)
    status, _, answer = ask(server, {"text": TEXT})
    assert status == 422 and re.match(
        r"The model finds \d+ entities in this text, more than the 1 that", answer["error"]
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not valid JSON"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        ({"text": 1}, 400, "must be a JSON object with a string `text`"),
        ({"text": " \n\u2003"}, 400, "The text is empty"),
        (
            {"text": "a", "entity_threshold": 2},
            400,
            "entity_threshold = 2 is not valid: it must be a number in [0, 1]",
        ),
        ({"text": "a", "relation_threshold": float("nan")}, 400, "relation_threshold = nan is not valid"),
        (
            {"text": "a", "relation_threshold": "0.5"},
            400,
            "field 'relation_threshold' is unknown or has the wrong type",
        ),
        ({"text": "a", "relation_threshold": True}, 400, "field 'relation_threshold'"),
        ({"text": "a", "overlap": "some"}, 400, "overlap = 'some' is not valid: it must be allow or flat"),
        ({"text": "a", "batch_size": 10**6}, 400, "field 'batch_size' is unknown"),
    ],
)
def test_malformed_requests(server, body, status, message):
    got, headers, answer = ask(server, body, **{"Content-Type": "application/json"})
    assert got == status and message in answer["error"]
    assert (
        headers["X-Content-Type-Options"] == "nosniff" and headers["Content-Security-Policy"] == "default-src 'none'"
    )


def test_only_this_page_of_this_machine_may_ask(server):
    body = json.dumps({"text": TEXT})
    assert ask(server, body, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(server, body)[0] == 415
    assert ask(server, None, "OPTIONS", Origin="https://evil.example")[0] == 501
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1.evil.example", "localhost.", ""):
        status, _, answer = ask(server, None, "GET", "/", Host=host)
        assert status == 403 and "http://127.0.0.1:" in answer["error"]
    for host in ("localhost", "LOCALHOST:1234", "[::1]:80", "127.0.0.1"):
        assert ask(server, None, "GET", "/", Host=host)[0] == 200


def test_other_paths_and_methods(server):
    assert ask(server, None, "GET", "/../setup.cfg")[0] == 404
    assert ask(server, None, "GET", "/extract")[0] == 404
    assert ask(server, {"text": "a"}, path="/")[0] == 404
    assert ask(server, None, "DELETE", "/")[0] == 501
    status, headers, content = ask(server, None, "HEAD", "/?x=1")
    assert status == 200 and content == "" and int(headers["Content-Length"]) > 5000


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Content-Type: application/json\r\n\r\n", 411),
        ("Content-Type: application/json\r\nContent-Length: -5\r\n\r\n", 411),
        ("Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{", 400),
        ("Content-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n{", 413),
        ("X: y\r\n" * 101 + "\r\n", 431),
    ],
)
def test_raw_requests(server, lines, status):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
        connection.sendall(f"POST /extract HTTP/1.1\r\nHost: localhost\r\n{lines}".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").readline().split()[1] == str(status).encode()


# -- load -------------------------------------------------------------------------------------------------------------


def test_fifty_clients_are_answered_or_refused(extractor, monkeypatch):
    gate = Gate(monkeypatch)
    results, lock, start = [], threading.Lock(), threading.Barrier(50)
    with serving(extractor, waiting=8, time_limit=120) as server:

        def client():
            start.wait()
            status, headers, answer = ask(server, {"text": TEXT})
            with lock:
                results.append((status, headers.get("Retry-After"), answer))

        threads = [threading.Thread(target=client) for _ in range(50)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(results) < 41 and time.monotonic() < deadline:
            time.sleep(0.02)
        # all that will be refused are, while the first is still being worked on
        assert Counter(status for status, *_ in results) == {503: 41} and gate.total == 1
        message = "Too many requests: 9 are being worked on. Try again in a few seconds."
        assert all(again == "5" and answer == {"error": message} for _, again, answer in results)
        gate.opened.set()
        for thread in threads:
            thread.join(120)
        assert Counter(status for status, *_ in results) == {503: 41, 200: 9}
        [record] = extractor.extract([TEXT])
        assert all(answer["record"] == record for status, _, answer in results if status == 200)
        assert gate.most == 1 and gate.total == 9 + 1
        # and it is free again
        assert ask(server, {"text": TEXT})[0] == 200
        assert threading.active_count() < 20


def test_time_limit_stops_the_work(extractor, monkeypatch):
    extract, stopped = Extractor.extract, []

    def endless(extractor, inputs):
        if inputs != ["endless"]:
            yield from extract(extractor, inputs)
            return
        try:
            while True:
                torch.zeros(1).add(1)
        except TimeoutError:
            stopped.append(time.monotonic())
            raise

    monkeypatch.setattr(demo.Extractor, "extract", endless)
    with serving(extractor, waiting=1, time_limit=1.5) as server:
        start = time.monotonic()
        waiting = threading.Thread(target=lambda: statuses.append(ask(server, {"text": "endless"})[0]))
        statuses = []
        waiting.start()
        status, _, answer = ask(server, {"text": "endless"})
        waiting.join()
        assert [status, *statuses] == [504, 504] and time.monotonic() - start < 20
        assert answer["error"] == "This took longer than 1.5 seconds. Try a shorter text, or try again later."
        server.demo.time_limit = 60
        status, _, answer = ask(server, {"text": "Stop"})
        assert status == 200 and answer["record"]["text"] == "Stop" and stopped


def test_failing_models_are_told_and_the_next_request_is_answered(extractor, monkeypatch, caplog):
    with serving(extractor, waiting=0) as server:
        with monkeypatch.context() as patch:
            patch.setattr(demo.Extractor, "extract", lambda *_: iter([][:1]))
            status, _, answer = ask(server, {"text": "secret words"})
        assert status == 500 and answer == {"error": "The model failed on this text."}
        assert "the demo failed on a text of 12 characters" in caplog.text and "secret words" not in caplog.text
        assert ask(server, {"text": "Stop"})[0] == 200


def test_stopping_ends_what_runs_and_refuses_what_waits(extractor, monkeypatch):
    def endless(extractor, inputs):
        started.set()
        while True:
            torch.zeros(1).add(1)
        yield

    started = threading.Event()
    monkeypatch.setattr(demo.Extractor, "extract", endless)
    statuses, lock = [], threading.Lock()

    def client():
        answer = ask(server, {"text": TEXT})
        with lock:
            statuses.append((answer[0], answer[2].get("error")))

    with serving(extractor, time_limit=60) as server:
        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert started.wait(60)
        time.sleep(0.3)
        start = time.monotonic()
    for thread in threads:
        thread.join(60)
    assert statuses == [(503, "The demo is being stopped.")] * 3 and time.monotonic() - start < 20


def test_connections_are_bounded_in_number_and_age(extractor, monkeypatch):
    monkeypatch.setattr(demo, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(demo, "_GRACE", 0.5)
    with serving(extractor, time_limit=1.5) as server, contextlib.ExitStack() as opened:
        idle = [socket.create_connection(("127.0.0.1", server.server_port), timeout=60) for _ in range(5)]
        for connection in idle:
            opened.enter_context(connection)
            connection.sendall(b"POST /extract HTTP/1.0\r\nContent-")
        time.sleep(0.3)
        status, headers, text = ask(server, None, "GET", "/")
        assert status == 503 and headers["Retry-After"] == "5" and text == "Too many connections. Try again.\n"
        start = time.monotonic()
        assert [connection.recv(100) for connection in idle] == [b""] * 5
        assert time.monotonic() - start < 20
        statuses = []
        while 200 not in statuses and time.monotonic() - start < 20:
            statuses.append(ask(server, None, "GET", "/")[0])
        assert statuses[-1] == 200


# -- where it listens -------------------------------------------------------------------------------------------------


def test_listens_on_loopback_only(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells this machine's own address
        except OSError:
            return
        address = probe.getsockname()[0]
    if not address.startswith("127."):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, server.server_port), timeout=5)


def test_nothing_else_is_connected_to(extractor, monkeypatch):
    asked = []

    def connect(self, address):
        asked.append(address)
        return real(self, address)

    real = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("gethostbyaddr", "gethostbyname", "getfqdn"):
        monkeypatch.setattr(socket, name, lambda *given, name=name: asked.append((name, *given)))
    with serving(extractor) as server:
        assert ask(server, None, "GET", "/")[0] == 200
        assert ask(server, {"text": TEXT})[0] == 200
        assert asked == [("127.0.0.1", server.server_port)] * 2


def test_a_taken_port_is_named(server, extractor):
    with pytest.raises(OSError, match=f"port {server.server_port} of 127.0.0.1 cannot be used .* choose another port"):
        demo.launch(extractor, port=server.server_port)
    with pytest.raises(OSError, match="port 99999 of 127.0.0.1 cannot be used"):
        demo.launch(extractor, port=99999)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_command_outlives_a_client_that_leaves_and_ends_on_an_interrupt(tmp_path):
    make_model().save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    command = [sys.executable, str(ROOT / "aspert_cli.py"), "demo", str(tmp_path), "--port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a test run in the background hands on that interrupts are ignored
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as process:
        try:
            port = int(re.fullmatch(r"The demo is at http://127.0.0.1:(\d+)/ .*\n", process.stdout.readline())[1])
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                    body = json.dumps({"text": TEXT})
                    head = f"POST /extract HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
                    # the reply's first write meets a closed connection, its second a broken pipe
                    connection.sendall(f"{head}\r\n\r\n{body}".encode())
            server = type("Address", (), {"server_port": port})
            assert ask(server, {"text": TEXT})[0] == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0 and "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_the_space(tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(demo, "launch", lambda extractor, **settings: launched.append((extractor, settings)))
    monkeypatch.delenv("ASPERT_MODEL", raising=False)
    with pytest.raises(SystemExit, match="set the variable ASPERT_MODEL"):
        runpy.run_path(str(ROOT / "demo" / "app.py"), run_name="__main__")
    make_model().save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    monkeypatch.setenv("ASPERT_MODEL", str(tmp_path))
    for space, host in ((None, "127.0.0.1"), ("me/space", "0.0.0.0")):
        monkeypatch.delenv("SPACE_ID", raising=False)
        if space:
            monkeypatch.setenv("SPACE_ID", space)
        runpy.run_path(str(ROOT / "demo" / "app.py"), run_name="__main__")
        extractor, settings = launched.pop()
        assert isinstance(extractor, Extractor) and (settings["host"], settings["port"]) == (host, 7860)
    metadata = yaml.safe_load((ROOT / "demo" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert metadata["sdk"] == "docker" and metadata["app_port"] == 7860 and metadata["license"] == "apache-2.0"


def test_behind_a_proxy_any_host_is_right(extractor):
    server = DemoServer(build_app(extractor), port=0, host="0.0.0.0")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        status, headers, _ = ask(server, None, "GET", "/", Host="me-space.hf.space")
        assert status == 200 and "frame-ancestors" not in headers["Content-Security-Policy"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- hostile input ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(extractor):
    """A model whose labels are hostile too, behind a server."""
    model = make_model(
        seed=4,
        entity_types=["<script>window.hacked=3</script>", "=cmd", "'\"><img src=x onerror=window.hacked=4>"],
        relation_types=["</script><b>", "@b"],
        symmetric_relations=[],
    )
    with serving(Extractor(model, extractor.processor, OPTIONS)) as running:
        yield running


def test_hostile_text_and_labels_are_escaped(hostile):
    _, headers, page = ask(hostile, None, "GET", "/")
    assert "<script>window" not in page and "<img" not in page and "<b>" not in page
    assert unescape(page).count("<script>window.hacked=3</script>") == 1
    policy = headers["Content-Security-Policy"]
    nonces = set(re.findall(r"'nonce-([\w-]+)'", policy))
    assert len(nonces) == 1 and page.count(f'nonce="{nonces.pop()}"') == 2 and "unsafe" not in policy
    assert ask(hostile, None, "GET", "/")[1]["Content-Security-Policy"] != policy
    status, headers, answer = ask(hostile, {"text": HOSTILE})
    assert status == 200 and answer["record"]["text"] == HOSTILE
    assert headers.get_content_type() == "application/json"
    assert "<script>window" not in answer["page"] and "<img" not in answer["page"]
    assert drawn(answer["page"])["sentences"][0]["text"] in HOSTILE
    cells = [cell for row in csv.reader(io.StringIO(answer["files"]["entities.csv"])) for cell in row]
    assert any(cell.startswith("'=cmd") for cell in cells)
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)


def test_log_lines_hold_no_text(server, caplog):
    caplog.set_level("DEBUG")
    ask(server, {"text": "secret words"})
    ask(server, None, "GET", "/\x1b[31m".replace("\x1b", "%1b"))
    assert "secret" not in caplog.text
    assert issubclass(server.RequestHandlerClass, BaseHTTPRequestHandler)


def wait(browser, script, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = browser.execute_script(script)
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"never true: {script}")


def open_page(browser, server, width):
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"http://127.0.0.1:{server.server_port}/")


def type_and_send(browser, text):
    browser.execute_script(
        "const area = document.getElementById('text'); area.value = arguments[0];"
        "area.dispatchEvent(new Event('input')); document.getElementById('extract').click();",
        text,
    )
    wait(browser, "return !document.getElementById('extract').disabled")
    return browser.execute_script("return document.getElementById('message').textContent")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, server, extractor, width, tmp_path):
    [record] = extractor.extract([TEXT])
    counted = [len(record[kind]) for kind in ("entities", "relations")]
    open_page(browser, server, width)
    assert type_and_send(browser, TEXT) == "{:,} entities, {:,} relations.".format(*counted)
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#relations tbody tr')].map((row) => "
        "[...row.cells].map((cell) => [...cell.children].map((part) => part.textContent)))"
    )
    entities = record["entities"]
    assert browser.execute_script(
        "return [...document.querySelectorAll('#entities tbody tr')].map((row) => [...row.cells].map((c) => c.textContent))"
    ) == [[e["text"], e["type"], f"{e['start']}–{e['end']}", f"{e['score']:.3f}"] for e in entities]
    wanted = sorted(record["relations"], key=lambda relation: -relation["score"])
    assert rows == [
        [
            [entities[r["head"]]["text"], entities[r["head"]]["type"]],
            [r["type"]],
            [entities[r["tail"]]["text"], entities[r["tail"]]["type"]],
            [f"{r['score']:.3f}"],
        ]
        for r in wanted
    ]
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.switch_to.frame("drawing")
    wait(browser, "return document.querySelectorAll('.card').length === 2 && document.querySelector('.tint')")
    assert browser.execute_script("return origin") == "null"
    browser.switch_to.default_content()
    if os.environ.get("ASPERT_SCREENSHOTS"):
        browser.save_screenshot(str(Path(os.environ["ASPERT_SCREENSHOTS"]) / f"demo-{width}.png"))
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.execute_script("document.querySelector('#files a').click()")
    target = tmp_path / "prediction.jsonl"
    end = time.monotonic() + 30
    while not (target.exists() and target.stat().st_size) and time.monotonic() < end:
        time.sleep(0.1)
    assert json.loads(target.read_text(encoding="utf-8")) == record
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_limits_in_a_browser(browser, extractor):
    with serving(extractor, waiting=0) as server:
        open_page(browser, server, 1280)
        message = type_and_send(browser, "\U0001f98a" * 20_001)
        assert message == "The text has 20,001 characters; the demo takes at most 20,000. Shorten it."
        assert "20,001 of 20,000" in browser.execute_script("return document.getElementById('count').textContent")
        assert browser.get_log("browser") == []
        assert type_and_send(browser, "  ") == "The text is empty."
        # a slider that is touched is sent
        browser.execute_script(
            "const slider = document.getElementById('entity'); slider.value = 1; slider.dispatchEvent(new Event('input'))"
        )
        assert type_and_send(browser, TEXT) == "0 entities, 0 relations."
        assert browser.execute_script("return !document.getElementById('no-relations').hidden")
    browser.get_log("browser")
    assert type_and_send(browser, TEXT) == "The server does not answer. Is it running?"
    browser.get_log("browser")


@pytest.mark.browser
def test_hostile_text_in_a_browser(browser, hostile):
    open_page(browser, hostile, 1280)
    sent = HOSTILE.replace("\ud800", "")
    assert " entities, " in type_and_send(browser, sent)
    look = "return [typeof window.hacked, document.images.length, document.querySelectorAll('script').length]"
    assert browser.execute_script(look) == ["undefined", 0, 1]
    cells = browser.execute_script("return document.querySelector('#relations tbody').textContent")
    assert "</script><b>" in cells
    browser.switch_to.frame("drawing")
    wait(browser, "return document.querySelector('.card .line')")
    assert browser.execute_script(look) == ["undefined", 0, 2]
    browser.switch_to.default_content()
    assert browser.get_log("browser") == []
