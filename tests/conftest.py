"""Fixtures that all tests share."""

from __future__ import annotations

import os
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
