"""The demo on a real socket of the loopback interface: answers, limits, refusals, hostile input, and its page."""

from __future__ import annotations

import concurrent.futures
import configparser
import contextlib
import csv
import http.client
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
from html import unescape
from pathlib import Path

import pytest
import torch
import yaml
from gradio_client import Client
from gradio_client.exceptions import AppError
from selenium.webdriver.support.ui import WebDriverWait
from tiny import make_model, make_processor

import aspert_cli
from modeling_aspert import ExtractionOptions, Extractor, demo

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Ada Lovelace worked for Analytical Engines in London. \U0001f98a Marie married Pierre in Paris."
# an untrained model finds entities everywhere
OPTIONS = ExtractionOptions(relation_threshold=0.3, entity_threshold=0.85)
HOSTILE = (
    "=1+1 <script>window.hacked=1</script></script><img src=x onerror=window.hacked=2>${window.hacked=5}\u202e Ada"
)


def ask(port, *given, **options):
    """What `/extract` answers: the drawing's page and sentences, the rows of both tables, the three files."""
    client = Client(f"http://127.0.0.1:{port}/", verbose=False, download_files=os.environ["GRADIO_TEMP_DIR"])
    frame, *tables, jsonl, entities, relations = client.predict(*given, **options, api_name="/extract")
    page = unescape(re.fullmatch(r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts" [^<]*></iframe>', frame)[1])
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    answer = types.SimpleNamespace(page=page, entities=tables[0]["data"], relations=tables[1]["data"])
    answer.sentences = json.loads(data)["sentences"]
    answer.record = json.loads(Path(jsonl).read_text(encoding="utf-8"))
    answer.csv = [list(csv.DictReader(open(path, encoding="utf-8", newline=""))) for path in (entities, relations)]
    return answer


def request(port, method, path, body=None, **headers):
    """Status, headers and content, without Gradio's client."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def join(port, session, *data, kind="application/json"):
    """Puts a request in the queue; returns status and content."""
    body = json.dumps({"data": data, "fn_index": 0, "session_hash": session})
    status, _, content = request(port, "POST", "/gradio_api/queue/join", body, Content_Type=kind)
    return status, content


def outcome(port, session):
    """What came of a request that was put in the queue."""
    lines = request(port, "GET", f"/gradio_api/queue/data?session_hash={session}")[2].splitlines()
    messages = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    return next(message for message in messages if message["msg"] == "process_completed")


@contextlib.contextmanager
def serving(extractor, host="127.0.0.1", **settings):
    server, listener = demo.make_server(extractor, host, **settings), socket.create_server((host, 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        # the client, unlike the demo, would ask the Hub
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def extractor():
    return Extractor(make_model(), make_processor(), OPTIONS)


@pytest.fixture(scope="module")
def server(extractor):
    with serving(extractor) as port:
        yield port


def test_the_answer_is_the_extractors(server, extractor):
    answer, [record] = ask(server, TEXT), extractor.extract([TEXT])
    entities, relations = record["entities"], record["relations"]
    assert answer.record == record
    assert entities and relations, "the tiny model finds nothing: choose another text"
    assert answer.entities == [[e["text"], e["type"], e["start"], e["end"], round(e["score"], 3)] for e in entities]
    ends = [entity["text"] for entity in entities]
    wanted = [[ends[r["head"]], r["type"], ends[r["tail"]], round(r["score"], 3)] for r in relations]
    assert answer.relations == sorted(wanted, key=lambda row: -row[-1])
    assert [row["text"] for row in answer.csv[0]] == ends
    assert [[row["head_text"], row["type"], row["tail_text"]] for row in answer.csv[1]] == [row[:3] for row in wanted]
    # the drawing has every sentence, entity and relation, and counts in UTF-16
    assert [sentence["text"] for sentence in answer.sentences] == [TEXT[:53], TEXT[54:]]
    texts, drawn = [], []
    for sentence in answer.sentences:
        units = sentence["text"].encode("utf-16-le")
        found = [units[2 * e["start"] : 2 * e["end"]].decode("utf-16-le") for e in sentence["entities"]]
        drawn += [[found[r["head"]], r["type"], found[r["tail"]]] for r in sentence["relations"]]
        texts += found
    assert texts == ends and drawn == [row[:3] for row in wanted]


def test_options_of_a_request(server, extractor):
    [usual] = extractor.extract([TEXT])
    assert ask(server, TEXT, entity_threshold=1).entities == []
    strict = ask(server, TEXT, relation_threshold=0.9).relations
    assert [r["score"] >= 0.9 for r in usual["relations"]].count(True) == len(strict) < len(usual["relations"])
    flat = ask(server, TEXT, entity_overlap="flat").record["entities"]
    assert all(one["end"] <= two["start"] for one, two in zip(flat, flat[1:]))
    assert extractor.options == OPTIONS and ask(server, TEXT).record == usual


def test_the_page_starts_from_the_extractors_options(extractor):
    def shown(**options):
        changed = Extractor(extractor.model, extractor.processor, ExtractionOptions(**options))
        components = demo.build_app(changed, example="A & <b>").get_config_file()["components"]
        return [item["props"]["value"] for item in components if item["type"] in ("textbox", "slider", "radio")]

    options = {"relation_threshold": 0.25, "entity_threshold": 0.5, "entity_overlap": "flat"}
    assert shown(**options) == ["A & <b>", 0.5, 0.25, "flat"]
    assert shown(**options | {"relation_threshold": {"lives-in": 0.1}}) == ["A & <b>", 0.5, "flat"]
    for settings in ({"waiting": 0}, {"time_limit": 0}, {"time_limit": float("nan")}):
        with pytest.raises(ValueError, match="waiting = .* time_limit = "):
            demo.build_app(extractor, **settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "a" * 20_001}, "The text has 20,001 characters; the demo takes at most 20,000 characters. Shorten"),
        ({"text": " \n\u2003"}, "The text is empty."),
        ({"entity_threshold": 2}, "entity_threshold = 2 is not valid: it must be a number in [0, 1]"),
        ({"relation_threshold": "0.5"}, "A threshold is not a number."),
        ({"entity_overlap": "<b>"}, "entity_overlap = '&lt;b&gt;' is not valid: it must be allow or flat"),
    ],
)
def test_what_is_refused_before_the_model_sees_it(server, monkeypatch, given, message):
    monkeypatch.setattr(demo.Extractor, "extract", None)
    with pytest.raises(AppError) as refusal:
        ask(server, **{"text": "a", **given})
    assert str(refusal.value).startswith(message)


def test_the_longest_text_fits_and_too_much_to_draw_is_refused(server, monkeypatch):
    text = "\U0001d49c" * 19_999 + "\ud800"  # 12 bytes each, as JSON; half a character is replaced
    assert join(server, "long", text, "allow", 1, 1)[0] == 200
    answer = outcome(server, "long")
    assert answer["success"] and r"\ud835\udc9c\ufffd" in answer["output"]["data"][0]
    monkeypatch.setattr(demo, "MAX_ITEMS", 1)
    with pytest.raises(
        AppError, match=r"The model finds \d+ entities and more in this text, and the demo shows at most 1\."
    ):
        ask(server, TEXT)


def test_too_much_is_refused_before_all_of_it_is_computed(server, monkeypatch):
    batches, predict = [], Extractor._predict
    monkeypatch.setattr(Extractor, "_predict", lambda *given: batches.append(1) or predict(*given))
    with pytest.raises(
        AppError, match=r"The model finds [\d,]+ relations and more in this text, and the demo shows at most 5,000\."
    ):
        ask(server, "Marie " * 3000, entity_threshold=0, relation_threshold=0)
    assert len(batches) <= 2  # of dozens


def test_a_wrong_number_of_values_is_refused_without_a_traceback(server, capfd):
    for number, values in enumerate(([], ["a"], ["a"] * 50)):
        assert join(server, f"short{number}", *values)[0] == 200
        answer = outcome(server, f"short{number}")
        assert not answer["success"]
        assert answer["output"]["error"] == f"A request has 4 values, not {len(values)}."
    assert "".join(capfd.readouterr()) == ""


def test_only_what_the_page_needs_is_open(server):
    headers = request(server, "GET", "/")[1]
    assert re.match("default-src 'self';.* frame-ancestors 'none'", headers["Content-Security-Policy"])
    assert headers["X-Content-Type-Options"] == "nosniff"
    config = json.loads(request(server, "GET", "/config")[2])
    assert [endpoint["api_name"] for endpoint in config["dependencies"]] == ["extract"]
    for path in ("upload", "run/extract", "api/extract", "call/extract", "component_server", "vibe-edit"):
        assert request(server, "POST", f"/gradio_api/{path}", "{}", Content_Type="application/json")[0] == 404
    for path in ("file=https://192.0.2.1/", "proxy=https://192.0.2.1/", f"file={ROOT}/setup.cfg", "deep_link"):
        assert request(server, "GET", f"/gradio_api/{path}")[0] in (403, 404)
    assert join(server, "large", "a" * demo.MAX_BODY)[0] == 413
    assert join(server, "form", TEXT, kind="text/plain")[0] == 422
    for host in ("evil.example", f"evil.example:{server}", "127.0.0.1.evil.example", ""):
        assert request(server, "GET", "/", Host=host)[0] == 400
    assert request(server, "GET", "/", Host=f"localhost:{server}")[0] == 200
    assert "Access-Control-Allow-Origin" not in request(server, "GET", "/config", Origin="https://evil.example")[1]


def test_fifty_clients_are_answered_or_refused(extractor, monkeypatch):
    opened, reached, lock, extract = threading.Event(), threading.Event(), threading.Lock(), Extractor.extract

    def held(extractor, inputs):
        reached.set()
        assert opened.wait(300) and lock.acquire(blocking=False), "two texts are worked on at a time"
        records = list(extract(extractor, inputs))
        lock.release()
        return iter(records)

    monkeypatch.setattr(demo.Extractor, "extract", held)
    with serving(extractor) as port, concurrent.futures.ThreadPoolExecutor(49) as pool:
        joined = [join(port, "client0", TEXT, "allow", 0.85, 0.3)]
        assert reached.wait(120)
        joined += pool.map(lambda number: join(port, f"client{number}", TEXT, "allow", 0.85, 0.3), range(1, 50))
        assert sorted(status for status, _ in joined) == 9 * [200] + 41 * [503]
        assert all("Queue is full" in content for status, content in joined if status == 503)
        opened.set()
        accepted = [number for number, (status, _) in enumerate(joined) if status == 200]
        answers = [outcome(port, f"client{number}")["output"]["data"][1]["data"] for number in accepted]
        assert answers == 9 * [ask(port, TEXT).entities]


def test_slow_and_failing_models_are_told(extractor, monkeypatch, caplog, capfd):
    extract, clock, started = Extractor.extract, types.SimpleNamespace(now=0.0, step=0.5), threading.Event()

    def strange(extractor, inputs):
        while inputs == ["endless"]:
            started.set()
            clock.now += clock.step
            torch.zeros(1).add(1)
        if inputs != ["failing"]:
            yield from extract(extractor, inputs)

    monkeypatch.setattr(demo.Extractor, "extract", strange)
    monkeypatch.setattr(demo, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    with serving(extractor, time_limit=1.5) as port:
        with pytest.raises(AppError, match=r"This took longer than 1\.5 seconds\. Try a shorter text, or try again"):
            ask(port, "endless")
        assert clock.now == 2
        with pytest.raises(AppError, match=r"The model failed on this text\."):
            ask(port, "failing")
        with pytest.raises(AppError, match=r"A threshold is not a number\."):
            ask(port, "other", entity_threshold="other")
        assert ask(port, "other words").record["text"] == "other words"
        # one that runs is ended with the server
        clock.step = 0
        started.clear()
        join(port, "client", "endless", "allow", 1, 1)
        assert started.wait(120)
    assert "the demo failed on a text of 7 characters" in caplog.text
    log = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in ("failing", "endless", "other") if word in log]


def test_listens_on_loopback_only_and_looks_up_no_name(extractor, monkeypatch):
    asked, real = set(), socket.getaddrinfo  # the fixture `connections` watches over addresses
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *given, **to: asked.add(host) or real(host, *given, **to))
    for name in ("gethostbyaddr", "gethostbyname", "getfqdn"):
        monkeypatch.setattr(socket, name, lambda *given, name=name: asked.add((name, *given)))
    with serving(extractor) as port:
        assert ask(port, TEXT).entities
    with serving(extractor, "0.0.0.0") as port:  # behind a proxy any name is right, and a frame
        status, headers, _ = request(port, "GET", "/", Host="me-space.hf.space")
        assert status == 200 and "frame-ancestors" not in headers["Content-Security-Policy"]
    monkeypatch.setattr(demo._Server, "run", lambda _, sockets: asked.add(sockets[0].getsockname()[0]))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # to be put back
    demo.launch(extractor, port=0)
    assert asked - {b"127.0.0.1"} == {"127.0.0.1"}


@pytest.fixture
def folder(tmp_path):
    make_model().save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    return tmp_path


def test_the_command_names_a_taken_port_and_what_is_not_installed(server, folder, monkeypatch, capsys):
    for port in (server, 99_999):
        assert aspert_cli.main(["demo", str(folder), "--port", str(port)]) == 2
        message = f"error: port {port} of 127.0.0.1 cannot be used .*: choose another port\n"
        assert re.fullmatch(message, capsys.readouterr().err)
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "modeling_aspert.demo")
    assert aspert_cli.main(["demo", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: the demo needs Gradio: pip install 'aspert[demo]'\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("sent", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_command_ends_on_an_interrupt_and_leaves_nothing(folder, sent):
    (folder / "tmp").mkdir()
    command = [sys.executable, str(ROOT / "aspert_cli.py"), "demo", str(folder), "--port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # the background ignores it
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
        try:
            port = int(re.fullmatch(r"The demo is at http://127.0.0.1:(\d+)/ .*\n", process.stdout.readline())[1])
            assert ask(port, TEXT).record["text"] == TEXT
            [private] = (folder / "tmp").glob("aspert-demo-*")
            assert private.stat().st_mode & 0o777 == 0o700 and list(private.glob("*/entities.csv"))
            process.send_signal(sent)
            assert process.wait(120) == 0 and process.stderr.read() == "" and not private.exists()
        finally:
            process.kill()


def test_the_space(folder, monkeypatch):
    launched = []
    monkeypatch.setattr(demo, "launch", lambda extractor, **settings: launched.append((extractor, settings)))
    monkeypatch.delenv("ASPERT_MODEL", raising=False)
    with pytest.raises(SystemExit, match="set the variable ASPERT_MODEL"):
        runpy.run_path(str(ROOT / "demo" / "app.py"), run_name="__main__")
    monkeypatch.setenv("ASPERT_MODEL", str(folder))
    for space, host in (("", "127.0.0.1"), ("me/space", "0.0.0.0")):
        monkeypatch.setenv("SPACE_ID", space)
        runpy.run_path(str(ROOT / "demo" / "app.py"), run_name="__main__")
        extractor, settings = launched.pop()
        assert isinstance(extractor, Extractor) and (settings["host"], settings["port"]) == (host, 7860)
    metadata = yaml.safe_load((ROOT / "demo" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (metadata["sdk"], metadata["app_file"], metadata["license"]) == ("gradio", "app.py", "apache-2.0")
    assert f"gradio=={metadata['sdk_version']}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_space_needs_no_other_folder():
    """Its README has the folder modeling_aspert copied in, and nothing else of the repository."""
    code = "import sys; sys.modules['data_scripts'] = None; import modeling_aspert.demo"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.fixture(scope="module")
def hostile(extractor):
    """A model whose labels are hostile too, behind a server."""
    entity_types = ["<script>window.hacked=3</script>", "=cmd", "'\"><img src=x onerror=window.hacked=4>"]
    relation_types = ["</script><b>", "@b"]
    model = make_model(seed=4, entity_types=entity_types, relation_types=relation_types, symmetric_relations=[])
    with serving(Extractor(model, extractor.processor, OPTIONS)) as port:
        yield port


def test_hostile_text_and_labels_are_escaped(hostile):
    page = request(hostile, "GET", "/")[2]
    assert "<script>window.hacked" not in page and "<img src=x" not in page and "</script><b>" not in page
    answer = ask(hostile, HOSTILE)
    assert answer.record["text"] == HOSTILE and answer.sentences[0]["text"] in HOSTILE
    assert "<script>window" not in answer.page and "<img" not in answer.page
    cells = [cell for table in answer.csv for row in table for cell in row.values()]
    assert any(cell.startswith("'=cmd") for cell in cells) and not any(cell[:1] in {*"=+@"} for cell in cells)


def wait(browser, script):
    return WebDriverWait(browser, 120).until(lambda _: browser.execute_script(script))


def extract_in(browser, port, width, text):
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"http://127.0.0.1:{port}/")
    button = wait(browser, "return [...document.querySelectorAll('button')].find((b) => /Extract/.test(b.innerText))")
    script = "const [area, text, button] = [document.querySelector('textarea'), ...arguments]; area.value = text; "
    browser.execute_script(script + "area.dispatchEvent(new Event('input')); button.click()", text, button)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, server, width, tmp_path):
    extract_in(browser, server, width, "\U0001f98a" * 20_001)
    shown = wait(browser, "return document.querySelector('[data-testid=toast-body]')?.innerText")
    assert "The text has 20,001 characters; the demo takes at most 20,000 characters." in shown
    answer = ask(server, TEXT)
    extract_in(browser, server, width, TEXT)
    rows = "[...document.querySelectorAll('.virtual-body')].map((body) => [...body.querySelectorAll('.virtual-row')]"
    rows += ".map((row) => [...row.children].map((cell) => cell.innerText.trim())))"
    entities, relations = wait(browser, f"const rows = {rows}; return rows[1]?.length && rows")
    assert entities == [list(map(str, row)) for row in answer.entities]
    assert relations == [list(map(str, row)) for row in answer.relations[: len(relations)]]
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.switch_to.frame(browser.find_element("css selector", ".drawing iframe"))
    wait(browser, "return document.querySelectorAll('.card').length === 2 && document.querySelector('.tint')")
    assert browser.execute_script("return origin") == "null"
    browser.switch_to.default_content()
    if os.environ.get("ASPERT_SCREENSHOTS"):
        browser.save_screenshot(str(Path(os.environ["ASPERT_SCREENSHOTS"]) / f"demo-{width}.png"))
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.execute_script("[...document.querySelectorAll('button')].find((b) => /jsonl/.test(b.textContent)).click()")
    target = tmp_path / "prediction.jsonl"
    WebDriverWait(browser, 120).until(lambda _: target.exists() and target.stat().st_size)
    assert json.loads(target.read_text(encoding="utf-8")) == answer.record
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked and all(url.startswith((f"http://127.0.0.1:{server}/", "data:")) for url in asked)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


@pytest.mark.browser
def test_hostile_text_in_a_browser(browser, hostile):
    extract_in(browser, hostile, 1280, HOSTILE)
    look = "return [typeof window.hacked, document.querySelectorAll('img[src=x]').length]"
    assert "</script><b>" in wait(browser, "return document.querySelectorAll('.virtual-body')[1]?.textContent")
    browser.switch_to.frame(wait(browser, "return document.querySelector('.drawing iframe')"))
    wait(browser, "return document.querySelector('.card .line')")
    assert browser.execute_script(look) == ["undefined", 0]
    browser.switch_to.default_content()
    assert browser.execute_script(look) == ["undefined", 0]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def test_the_space_asks_for_what_the_package_asks_for() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    package = settings["options"]["install_requires"].split("\n")
    space = (ROOT / "demo" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in space if line and not line.startswith(("#", "--"))]
    assert "torch" in {re.split("[<>=]", line)[0] for line in wanted}
    assert set(wanted) <= set(package)
