"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder with conll04/, scierc/ and ade/: ASPERT_DATA, else ../shared/data beside the repository.

    Tests that need it are skipped where it is absent, and fail where ASPERT_REQUIRE_CORPORA is set.
    """
    folder = Path(os.environ.get("ASPERT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        reason = f"no corpora at {folder}: set ASPERT_DATA"
        if os.environ.get("ASPERT_REQUIRE_CORPORA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def spert_reference() -> Path:
    """A checkpoint of SpERT's own code with its predictions: ASPERT_SPERT_REFERENCE, else ../shared/spert_reference.

    Tests that need it are skipped where it is absent, and fail where ASPERT_REQUIRE_CORPORA is set.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "spert_reference"
    folder = Path(os.environ.get("ASPERT_SPERT_REFERENCE") or default)
    if not folder.is_dir():
        reason = f"no SpERT checkpoint at {folder}: set ASPERT_SPERT_REFERENCE"
        if os.environ.get("ASPERT_REQUIRE_CORPORA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def quickstart_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a moment by the quickstart's command; too short to be good, long enough to find entities."""
    root = Path(__file__).resolve().parents[1]
    folder = tmp_path_factory.mktemp("quickstart") / "model"
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
    return folder
