"""Fixtures that all tests share."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock


def missing(variable: str, reason: str) -> NoReturn:
    """Skips the test, or fails it where the environment variable is set."""
    if os.environ.get(variable):
        pytest.fail(f"{reason} ({variable} is set)")
    pytest.skip(reason)


def shared_folder(variable: str, name: str) -> Path:
    """The folder that the environment variable names, else ../shared/`name` beside the repository.

    Tests that need it are skipped where it is absent, and fail where ASPERT_REQUIRE_CORPORA is set.
    """
    folder = Path(os.environ.get(variable) or Path(__file__).resolve().parents[2] / "shared" / name)
    if not folder.is_dir():
        missing("ASPERT_REQUIRE_CORPORA", f"no folder {folder}: set {variable}")
    return folder


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Nothing may use the network unless it is asked to: only this machine can be connected to.

    Yields the other addresses that were tried; a test that leaves any behind fails, also where the error was caught.
    """
    tried: list[object] = []

    def closed(name: str) -> Callable[..., object]:
        method = getattr(socket.socket, name)

        def connect(self: socket.socket, address: object) -> object:
            # a datagram socket sends nothing when it is connected
            stream = self.type & socket.SOCK_STREAM and self.family in (socket.AF_INET, socket.AF_INET6)
            if stream and not _is_here(address[0]):
                tried.append(address)
                raise OSError(f"no test may connect to {address}")
            return method(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, closed(name))
    yield tried
    assert not tried, f"connections to other machines: {tried}"


def _is_here(host: str) -> bool:
    """Whether an address is this machine's own: only such an address can be bound."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder with conll04/, scierc/ and ade/."""
    return shared_folder("ASPERT_DATA", "data")


@pytest.fixture(scope="session")
def spert_reference() -> Path:
    """A checkpoint of SpERT's own code with its predictions."""
    return shared_folder("ASPERT_SPERT_REFERENCE", "spert_reference")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window.

    Tests that need it are skipped where it or selenium is absent, and fail where ASPERT_REQUIRE_BROWSER is set.
    """
    try:
        from selenium import webdriver
    except ImportError:
        missing("ASPERT_REQUIRE_BROWSER", "selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        missing("ASPERT_REQUIRE_BROWSER", "no chromium or chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def quickstart_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a moment by the quickstart's command; too short to be good, long enough to find entities."""
    base = tmp_path_factory.getbasetemp()
    # one for all workers
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "quickstart" / "model"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "README.md").is_file():
            _train_quickstart(folder)
    return folder


def _train_quickstart(folder: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(root / "train.py"), str(root / "configuration" / "quickstart.yaml")]
    command += ["--output_dir", str(folder), "--num_train_epochs", "3", "--disable_tqdm", "true"]
    command += [
        "--per_device_train_batch_size",
        "8",
        "--train_sampling_strategy",
        "group_by_length",
        "--use_cpu",
        "true",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
