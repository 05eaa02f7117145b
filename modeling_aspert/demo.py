"""A web page to try a model on: paste text, see entities and relations, take them along as JSONL or CSV.

A Gradio app (extra `demo`) with our own drawing (``visualization.py``) in a sandboxed frame. Nothing is loaded from
anywhere and nothing is sent anywhere: a content security policy says so to the browser. One text is worked on at a
time, few wait, more are refused; the length of a text and the time of a request are bounded. The server listens on the
loopback interface, and there answers requests that name this machine only, so that no other site's page can ask it.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch.overrides import TorchFunctionMode

from .decoding import Predictions
from .documents import split_sentences
from .export import open_writer
from .extraction import Extractor
from .visualization import visualize

try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError("the demo needs Gradio: pip install 'aspert[demo]'") from error

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 20_000
# More would neither be drawn nor read: a threshold is too low, or the model is untrained.
MAX_ITEMS = 5_000
# A character takes at most 12 bytes of JSON (two escapes of 6), and the rest of a request little.
MAX_BODY = 12 * MAX_CHARACTERS + 4096
MAX_CONNECTIONS = 300
# Seconds for which the downloads of a request are kept.
KEPT = 600
# What the page and Gradio's client ask for. Not among it: uploads, and the fetching of files from other servers.
_PATHS = re.compile(
    r"/(|config|theme\.css|manifest\.json|favicon\.ico|(assets|static)/.*|"
    r"gradio_api/(info|app_id|cancel|queue/(join|data)|file=(?!\w+://).*))"
)
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'self'; form-action 'none'; object-src 'none'"
)
_FILES = ("prediction.jsonl", "entities.csv", "relations.csv")
_FONTS = ["system-ui", "sans-serif"]  # nothing to load
_CSS = """
.drawing .html-container {padding: 0 !important}
.drawing iframe {max-height: 80vh}
th .header {word-break: normal !important}
"""


def build_app(
    extractor: Extractor,
    example: str = "",
    waiting: int = 8,
    time_limit: float = 60.0,
    stopping: threading.Event | None = None,
) -> gr.Blocks:
    """The demo of a model, not yet on a socket. Its one endpoint is `/extract`.

    Args:
        extractor: the model; its options are what the page starts from.
        example: text that stands in the page at first.
        waiting: requests that may wait for the one that is worked on.
        time_limit: seconds that a request may be worked on.
        stopping: ends what is being worked on, within a moment, when it is set.

    Raises:
        ValueError: a number out of range.
    """
    if waiting < 1 or not time_limit > 0:
        raise ValueError(f"waiting = {waiting!r} must be >= 1 and time_limit = {time_limit!r} > 0")
    options, config, stopping = extractor.options, extractor.model.config, stopping or threading.Event()
    thresholds = {
        name: getattr(config if getattr(options, name) is None else options, name)
        for name in ("entity_threshold", "relation_threshold")
    }

    def extract(
        text: str, entity_overlap: str, entity_threshold: float, relation_threshold: float | None = None
    ) -> tuple:
        """Entities and relations of a text: drawing (HTML), tables, files (JSONL and CSV)."""
        deadline = time.monotonic() + time_limit

        def check() -> None:
            if time.monotonic() > deadline or stopping.is_set():
                raise TimeoutError

        chosen = {
            "entity_overlap": entity_overlap,
            "entity_threshold": entity_threshold,
            "relation_threshold": relation_threshold,
        }
        try:
            text = _checked(text)
            chosen = {name: value for name, value in chosen.items() if value is not None}
            changed = _BoundedExtractor(extractor.model, extractor.processor, dataclasses.replace(options, **chosen))
        except TypeError:
            raise _refusal("A threshold is not a number.") from None
        except ValueError as error:
            raise _refusal(str(error)) from None
        try:
            with _Interruptible(check):
                record = next(changed.extract([text]))
                check()
            for kind in ("entities", "relations"):
                _check_number(kind, len(record[kind]))
            sentences = _by_sentence(record, extractor)
            page = visualize(sentences, title="Drawing", symmetric_relations=config.symmetric_relations)
            paths = _files(record, Path(files[0].GRADIO_CACHE))
            return page._repr_html_(), *_tables(record), *paths, gr.Column(visible=True)
        except gr.Error:
            raise
        except TimeoutError:
            late = f"This took longer than {time_limit:g} seconds. Try a shorter text, or try again later."
            raise _refusal("The demo is being stopped." if stopping.is_set() else late) from None
        except Exception:
            logger.exception("the demo failed on a text of %d characters", len(text))
            raise _refusal("The model failed on this text.") from None

    with _Blocks(title="Entities and relations", analytics_enabled=False, delete_cache=(60, KEPT)) as app:
        gr.HTML(
            "<h1>Entities and relations</h1><p>The model reads a text and marks its entities "
            f"({_listed(config.entity_types)}) and the relations between them ({_listed(config.relation_types)}).</p>",
            js_on_load=None,
        )
        hint = f"At most {MAX_CHARACTERS:,} characters. Shift+Enter extracts."
        text = gr.Textbox(example, lines=6, max_lines=20, label="Text", info=hint, placeholder="Paste a text")
        with gr.Row():
            sliders = [
                gr.Slider(0, 1, value, step=0.001, label=f"{name.partition('_')[0].capitalize()} score ≥")
                for name, value in thresholds.items()
                if not isinstance(value, Mapping)
            ]
            choices = [("allow", "allow"), ("keep the best", "flat")]
            overlap = gr.Radio(
                choices, value=options.entity_overlap or config.entity_overlap, label="Overlapping entities"
            )
        button = gr.Button("Extract", variant="primary")
        with gr.Column(visible=False) as result:
            drawing = gr.HTML(js_on_load=None, elem_classes="drawing")
            entities = _table("Entities", Entity="str", Type="str", Start="number", End="number", Score="number")
            relations = _table("Relations", Head="str", Relation="str", Tail="str", Score="number")
            with gr.Row():
                files = [gr.DownloadButton(f"↓ {name}") for name in _FILES]
        gr.on(
            [button.click, text.submit],
            extract,
            [text, overlap, *sliders],
            [drawing, entities, relations, *files, result],
            api_name="extract",
            preprocess=False,  # Gradio would log what it refuses
        )
    return app.queue(api_open=False, max_size=waiting, default_concurrency_limit=1)


class _Server(uvicorn.Server):
    """Ends what is being worked on before it waits for its clients to go."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self.stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stopping.set()
        await super().shutdown(sockets)


def make_server(extractor: Extractor, host: str = "127.0.0.1", **settings: Any) -> uvicorn.Server:
    """The demo as a web server, which ``run(sockets=[...])`` runs; arguments and errors as of :func:`launch`."""
    stopping, loopback = threading.Event(), host.startswith("127.") or host == "localhost"
    served = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_app(extractor, stopping=stopping, **settings),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        theme=gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=_FONTS),
        css=_CSS,
    )
    fenced = TrustedHostMiddleware(_fence(served, loopback), [host, "127.0.0.1", "localhost"] if loopback else ["*"])
    limits = {"limit_concurrency": MAX_CONNECTIONS, "timeout_graceful_shutdown": 2}
    return _Server(uvicorn.Config(fenced, log_level="warning", **limits), stopping)


def launch(extractor: Extractor, port: int = 7860, host: str = "127.0.0.1", **settings: Any) -> None:
    """Serves the demo until it is interrupted.

    Args:
        extractor: the model.
        port: 0 takes a free one.
        host: an address to listen on other than loopback is for a machine behind a proxy, such as a Space.
        settings: those of :func:`build_app`.

    Raises:
        OSError: the port is taken, or not allowed.
        ValueError: a setting out of range.
    """
    if hasattr(signal, "SIGPIPE") and threading.current_thread() is threading.main_thread():
        # the command line lets a closed pipe end the process; here it is a client that went away
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if threading.current_thread() is threading.main_thread():
        # a service manager's way to end it: the downloads are deleted as after Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise OSError(f"port {port} of {host} cannot be used ({error}): choose another port") from error
    with listener, tempfile.TemporaryDirectory(prefix="aspert-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        server = make_server(extractor, host, **settings)
        print(f"The demo is at http://{host}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _check_number(kind: str, number: int) -> None:
    if number > MAX_ITEMS:
        raise _refusal(
            f"The model finds {number:,} {kind} and more in this text, and the demo shows at most {MAX_ITEMS:,}. Raise a "
            "threshold, or shorten the text."
        )


class _BoundedExtractor(Extractor):
    """Refuses a text as soon as too much was found in it, before an untrained model fills the memory."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._found: Counter[str] = Counter()

    def _predict(self, units: Sequence[Any]) -> list[Predictions]:
        predictions = super()._predict(units)
        for kind in ("entities", "relations"):
            self._found[kind] += sum(len(getattr(prediction, kind)) for prediction in predictions)
            # the windows over a long sentence overlap: what lies in two of them is counted twice
            _check_number(kind, self._found[kind] // 2)
        return predictions


class _Blocks(gr.Blocks):
    """Refuses a request with too few or too many values in one line, where Gradio would log a traceback."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        if len(inputs) != len(block_fn.inputs):
            raise _refusal(f"A request has {len(block_fn.inputs)} values, not {len(inputs)}.")


class _Interruptible(TorchFunctionMode):
    """Calls ``check`` before each of torch's functions: a thread cannot be stopped from outside, but it can look."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check = check

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.check()
        return function(*args, **(kwargs or {}))


def _fence(app: ASGIApp, loopback: bool) -> ASGIApp:
    """Refuses requests that the page does not make, and tells the browser what the page may do."""
    policy = _POLICY + "; frame-ancestors 'none'" * loopback

    async def fenced(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})
            await send(message)

        answer = app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not _PATHS.fullmatch(scope["path"]):
                answer = PlainTextResponse("Not part of the demo.", 404)
            elif "transfer-encoding" in headers or int(headers.get("content-length", 0)) > MAX_BODY:
                answer = PlainTextResponse(f"A request has a length, of at most {MAX_BODY:,} bytes.", 413)
        await answer(scope, receive, send_with_headers)

    return fenced


def _checked(text: Any) -> str:
    """The text, with U+FFFD for halves of a character, which JSON may bring and no answer could hold.

    Raises:
        ValueError: it is no text, is empty or too long.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError("The text is empty.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"The text has {len(text):,} characters; the demo takes at most {MAX_CHARACTERS:,} characters. Shorten the "
            "text, or use `aspert predict`."
        )
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"<bdi>{escape(name)}</bdi>" for name in names)


def _table(label: str, **columns: str) -> gr.Dataframe:
    """A table of plain text and numbers."""
    names, kinds = list(columns), list(columns.values())
    return gr.Dataframe(label=label, headers=names, datatype=kinds, interactive=False, wrap=True, buttons=[])


def _refusal(message: str) -> gr.Error:
    """What the page shows of a message, as text and not as HTML; nothing of it is logged."""
    return gr.Error(escape(message, quote=False), print_exception=False)


def _by_sentence(record: dict[str, Any], extractor: Extractor) -> list[dict[str, Any]]:
    """The record cut into its sentences, which entities and relations never leave: a long text draws better so."""
    text, bounds = record["text"], [(0, len(record["text"]))]
    if extractor.options.split_sentences:
        bounds = split_sentences(text, extractor.language)
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


def _tables(record: dict[str, Any]) -> tuple[list[list], list[list]]:
    """Rows of the entities, and of the relations, the surest first."""
    entities = record["entities"]
    relations = sorted(record["relations"], key=lambda relation: -relation["score"])
    return (
        [[e["text"], e["type"], e["start"], e["end"], round(e["score"], 3)] for e in entities],
        [
            [entities[r["head"]]["text"], r["type"], entities[r["tail"]]["text"], round(r["score"], 3)]
            for r in relations
        ],
    )


def _files(record: dict[str, Any], cache: Path) -> list[str]:
    """The downloads, in a folder of their own in Gradio's cache, which deletes them; folders left empty go here."""
    for emptied in cache.glob("aspert-*"):
        with contextlib.suppress(OSError):
            emptied.rmdir()
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="aspert-", dir=cache))
    for name, kind in ((_FILES[0], "jsonl"), ("csv", "csv")):
        with open_writer(folder / name, kind) as writer:
            writer.write(record)
    for name in _FILES[1:]:
        (folder / "csv" / name).rename(folder / name)
    (folder / "csv").rmdir()
    return [str(folder / name) for name in _FILES]
