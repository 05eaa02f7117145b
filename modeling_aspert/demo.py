"""A web page to try a model on: paste text, see entities and relations, take them along as JSONL or CSV.

Python's own HTTP server and one page of ours (``demo.html.jinja``, ``demo.js``, ``demo.css``): nothing is loaded from
anywhere and nothing is sent anywhere. One text is worked on at a time, few wait, more are refused; the length of a text,
the time of a request, and the number and age of connections are bounded. What is drawn goes into a sandboxed frame
(see ``visualization.py``). The server listens on the loopback interface, and there answers requests that name this
machine only, so that no other site's page can ask it.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import contextlib
import dataclasses
import html
import json
import logging
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import jinja2
from markupsafe import Markup
from torch.overrides import TorchFunctionMode

from .documents import split_sentences
from .export import open_writer
from .extraction import Extractor
from .record_writer import json_line
from .visualization import visualize

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 20_000
# More would neither be drawn nor read: a threshold is too low, or the model is untrained.
MAX_ITEMS = 5_000
# A character takes at most 12 bytes of JSON (two escapes of 6), and the options little.
MAX_BODY = 12 * MAX_CHARACTERS + 4096
MAX_CONNECTIONS = 100
# Of a body that is refused this much is still read, so that the client gets to read the answer.
_DRAINED = 16 * 2**20
# Seconds that a connection may last beyond the time limit of its request.
_GRACE = 30
# With any port, which may be that of a tunnel.
_THIS_MACHINE = re.compile(r"(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d+)?")
_NO_CONTENT = "default-src 'none'"
_FOLDER = Path(__file__).parent
# What is sent: body, Content-Type, content security policy.
_Reply = tuple[bytes, str, str]


class Refused(Exception):
    """A request that is not answered with a result; the message is for the user."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Demo:
    """What the demo does, apart from HTTP. Thread-safe.

    Args:
        extractor: the model; its options are what a request starts from.
        waiting: requests that may wait for the one that is worked on.
        time_limit: seconds a request may take, waiting included.
        example: text that stands in the page at first.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, extractor: Extractor, waiting: int = 8, time_limit: float = 60.0, example: str = "") -> None:
        if waiting < 0 or not time_limit > 0:
            raise ValueError(f"waiting = {waiting!r} must be >= 0 and time_limit = {time_limit!r} > 0")
        self.extractor = extractor
        self.waiting = waiting
        self.time_limit = time_limit
        self.example = example
        self._free = threading.BoundedSemaphore(1 + waiting)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="aspert-demo")
        self._closing = threading.Event()

    def answer(self, body: bytes) -> bytes:
        """The reply to a request's body, JSON both: see :meth:`_parse` and :meth:`_work`.

        Raises:
            Refused: the request is malformed, too long, one too many, too slow, or the model failed.
        """
        text, extractor = self._parse(body)
        if not self._free.acquire(blocking=False):
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"Too many requests: {1 + self.waiting} are being worked on. Try again in a few seconds.",
            )
        deadline = time.monotonic() + self.time_limit
        try:
            job = self._worker.submit(self._work, text, extractor, deadline)
        except RuntimeError:  # the pool has been shut down
            self._free.release()
            raise _stopping() from None
        job.add_done_callback(lambda _: self._free.release())
        try:
            return job.result(self.time_limit)
        except (TimeoutError, concurrent.futures.TimeoutError):  # one class from Python 3.11
            job.cancel()
            if self._closing.is_set():
                raise _stopping() from None
            message = f"This took longer than {self.time_limit:g} seconds. Try a shorter text, or try again later."
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, message) from None
        except concurrent.futures.CancelledError:
            raise _stopping() from None
        except Refused:
            raise
        except Exception:
            logger.exception("the demo failed on a text of %d characters", len(text))
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The model failed on this text.") from None

    def page(self) -> tuple[bytes, str]:
        """The page and its content security policy. The frame's document is bound by its own policy and by this one, so
        this one allows what that one allows."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
        )
        styles = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "demo.css")]
        options, config = self.extractor.options, self.extractor.model.config
        threshold = config.relation_threshold if options.relation_threshold is None else options.relation_threshold
        nonce = secrets.token_urlsafe()
        page = environment.get_template("demo.html.jinja").render(
            nonce=nonce,
            style=Markup("\n".join(styles)),
            script=Markup((_FOLDER / "demo.js").read_text(encoding="utf-8")),
            limit=MAX_CHARACTERS,
            time_limit=self.time_limit,
            example=self.example,
            entity_threshold=config.entity_threshold if options.entity_threshold is None else options.entity_threshold,
            flat=(options.overlap or config.entity_overlap) == "flat",
            relation_threshold=None if isinstance(threshold, Mapping) else threshold,
            entity_types=config.entity_types,
            relation_types=config.relation_types,
        )
        drawing = html.unescape(visualize([]).html)
        scripts, styles = (re.search(rf"{kind}-src ([^;]*);", drawing)[1] for kind in ("script", "style"))
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}' {scripts}; style-src 'nonce-{nonce}' {styles}; "
            "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
        )
        return page.encode("utf-8", errors="xmlcharrefreplace"), policy

    def close(self) -> None:
        """Stops what is being worked on, within a moment, and refuses what waits."""
        self._closing.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _parse(self, body: bytes) -> tuple[str, Extractor]:
        """The body is ``{"text": str, "relation_threshold", "entity_threshold": number, "overlap": str}``; what is
        left out or null is as in the extractor's options."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            raise _bad("The request is not valid JSON.") from None
        if not isinstance(request, dict) or not isinstance(request.get("text"), str):
            raise _bad("The request must be a JSON object with a string `text`.")
        options = {name: value for name, value in request.items() if name != "text" and value is not None}
        for name, value in options.items():
            kind = {"relation_threshold": (int, float), "entity_threshold": (int, float), "overlap": str}.get(name)
            if kind is None or isinstance(value, bool) or not isinstance(value, kind):
                raise _bad(f"The request's field {name!r} is unknown or has the wrong type.")
        text = request["text"]
        if len(text) > MAX_CHARACTERS:
            raise _too_long(f"The text has {len(text):,} characters")
        if not text.strip():
            raise _bad("The text is empty.")
        try:
            changed = dataclasses.replace(self.extractor.options, **options)
        except ValueError as error:
            raise _bad(str(error)) from None
        return text, Extractor(self.extractor.model, self.extractor.processor, changed)

    def _work(self, text: str, extractor: Extractor, deadline: float) -> bytes:
        """``{"record": a character record, "page": the drawing's HTML, "height": its frame's in pixels, "files": {name:
        content}}``."""

        def check() -> None:
            if time.monotonic() > deadline or self._closing.is_set():
                raise TimeoutError

        check()
        with _Interruptible(check):
            record = next(extractor.extract([text]))
        for kind in ("entities", "relations"):
            if len(record[kind]) > MAX_ITEMS:
                raise Refused(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"The model finds {len(record[kind]):,} {kind} in this text, more than the {MAX_ITEMS:,} that the "
                    "demo shows. Raise a threshold, or shorten the text.",
                )
        sentences = _by_sentence(record, extractor)
        page = visualize(sentences, title="Drawing", symmetric_relations=extractor.model.config.symmetric_relations)
        check()
        reply = {"record": record, "page": page.html, "height": page.height, "files": _files(record)}
        return json.dumps(reply).encode("ascii")


class _Interruptible(TorchFunctionMode):
    """Calls ``check`` before each of torch's functions: a thread cannot be stopped from outside, but it can look."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check = check

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.check()
        return function(*args, **(kwargs or {}))


class DemoServer(ThreadingHTTPServer):
    """The demo on a socket; ``serve_forever`` runs it.

    Args:
        demo: what it serves; closed by ``server_close``.
        port: 0 takes a free one, which is then ``server_port``.
        host: an address to listen on other than loopback is for a machine behind a proxy, such as a Space.

    Raises:
        OSError: the port is taken, or not allowed.
    """

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, demo: Demo, port: int = 7860, host: str = "127.0.0.1") -> None:
        self.demo = demo
        self.loopback = host.startswith("127.") or host == "localhost"
        self._opened: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} of {host} cannot be used ({error}): choose another port") from error

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks a name server for this machine's name
        self.server_name, self.server_port = self.server_address[:2]

    def server_close(self) -> None:
        super().server_close()
        self.demo.close()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        with self._lock:
            full = len(self._opened) >= MAX_CONNECTIONS
            if not full:
                self._opened[request] = time.monotonic()
        if not full:
            super().process_request(request, client_address)
            return
        # here, in the only thread that takes connections, nothing may wait for a client
        request.setblocking(False)
        with contextlib.suppress(OSError):
            request.send(
                b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\n\r\nToo many connections. Try again.\n"
            )
            request.recv(2**16)
        self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._opened[request]

    def service_actions(self) -> None:
        """Twice a second: ends connections of clients that send or read too slowly."""
        oldest = time.monotonic() - self.demo.time_limit - _GRACE
        with self._lock:
            overdue = [request for request, opened in self._opened.items() if opened < oldest]
        for request in overdue:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection to the demo broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = "aspert", ""
    timeout = 10  # seconds of silence

    def do_GET(self) -> None:
        self._respond(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._respond(self._post)

    def _respond(self, action: Callable[[], _Reply]) -> None:
        self._unread = self._body_length() or 0
        try:
            self._check_host()
            status, reply = HTTPStatus.OK, action()
        except Refused as refusal:
            status, reply = refusal.status, _message(str(refusal))
        except (ConnectionError, TimeoutError):
            raise  # nobody to answer
        except Exception:
            logger.exception("the demo failed on %s %r", self.command, self.path)
            status, reply = HTTPStatus.INTERNAL_SERVER_ERROR, _message("The demo failed. Its log says more.")
        self._reply(status, *reply)
        if self._unread:
            self._drain()

    def _get(self) -> _Reply:
        if self.path.partition("?")[0] != "/":
            raise Refused(HTTPStatus.NOT_FOUND, "There is one page here: /")
        page, policy = self.server.demo.page()
        return page, "text/html; charset=utf-8", policy + "; frame-ancestors 'none'" * self.server.loopback

    def _post(self) -> _Reply:
        if self.path != "/extract":
            raise Refused(HTTPStatus.NOT_FOUND, "Requests go to /extract")
        # Other sites' pages can send forms here, but not JSON: for that their browser asks first, and gets no.
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A request's Content-Type must be application/json.")
        length = self._body_length()
        if length is None:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "A request must have a Content-Length.")
        if length > MAX_BODY:
            raise _too_long(f"The request has {length:,} bytes")
        body = self.rfile.read(length)
        self._unread = 0
        if len(body) < length:
            raise _bad("The request is shorter than its Content-Length.")
        return self.server.demo.answer(body), "application/json", _NO_CONTENT

    def _check_host(self) -> None:
        """On loopback, requests must be meant for this machine: another site's name may be made to point here."""
        if self.server.loopback and not _THIS_MACHINE.fullmatch(self.headers.get("Host", "localhost").lower()):
            raise Refused(HTTPStatus.FORBIDDEN, f"Open http://127.0.0.1:{self.server.server_port}/ instead.")

    def _body_length(self) -> int | None:
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None

    def _reply(self, status: HTTPStatus, body: bytes, kind: str, policy: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def _drain(self) -> None:
        # closing a connection with bytes unread makes the client's system throw the answer away
        self.connection.shutdown(socket.SHUT_WR)
        left = min(self._unread, _DRAINED)
        while left > 0 and (piece := self.rfile.read(min(left, 2**16))):
            left -= len(piece)

    def log_message(self, format: str, *arguments: Any) -> None:
        logger.debug(format, *arguments)


def build_app(extractor: Extractor, **settings: Any) -> Demo:
    """The demo of a model, not yet on a socket. ``settings``: those of :class:`Demo`."""
    return Demo(extractor, **settings)


def launch(extractor: Extractor, port: int = 7860, host: str = "127.0.0.1", **settings: Any) -> None:
    """Serves the demo until it is interrupted. ``settings``: those of :class:`Demo`.

    Raises:
        OSError: the port is taken, or not allowed.
        ValueError: a setting out of range.
    """
    if hasattr(signal, "SIGPIPE") and threading.current_thread() is threading.main_thread():
        # the command line lets a closed pipe end the process; here it is a client that went away
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with DemoServer(build_app(extractor, **settings), port, host) as server:
        print(f"The demo is at http://{host}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _by_sentence(record: dict[str, Any], extractor: Extractor) -> list[dict[str, Any]]:
    """The record cut into its sentences, which entities and relations never leave: a long text draws better so."""
    text, bounds = record["text"], [(0, len(record["text"]))]
    if extractor.options.split_sentences:
        bounds = split_sentences(text, extractor.processor.language)
    sentences = [{"text": text[start:end], "entities": [], "relations": []} for start, end in bounds]
    starts = [start for start, _ in bounds]
    places = []
    for entity in record["entities"]:
        number = bisect.bisect_right(starts, entity["start"]) - 1
        places.append((number, len(sentences[number]["entities"])))
        shifted = {"start": entity["start"] - starts[number], "end": entity["end"] - starts[number]}
        sentences[number]["entities"].append({**entity, **shifted})
    for relation in record["relations"]:
        number, head = places[relation["head"]]
        ends = {"head": head, "tail": places[relation["tail"]][1]}
        sentences[number]["relations"].append({**relation, **ends})
    return sentences


def _files(record: dict[str, Any]) -> dict[str, str]:
    """The downloads."""
    files = {"prediction.jsonl": json_line(record) + "\n"}
    with tempfile.TemporaryDirectory(prefix="aspert-demo-") as folder:
        with open_writer(Path(folder) / "csv", "csv") as writer:
            writer.write(record)
        for path in sorted(writer.path.iterdir()):
            files[path.name] = path.read_bytes().decode("utf-8")
    return files


def _message(text: str) -> _Reply:
    return json.dumps({"error": text}).encode("ascii"), "application/json", _NO_CONTENT


def _bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, message)


def _stopping() -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The demo is being stopped.")


def _too_long(what: str) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"{what}; the demo takes at most {MAX_CHARACTERS:,} characters. Shorten the text, or use `aspert predict`.",
    )
