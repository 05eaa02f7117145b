"""Fixtures of the library's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def light_package(tmp_path_factory) -> Path:
    """A folder to run scripts in, where `modeling_aspert` has an empty __init__.py: the true one loads torch."""
    folder = tmp_path_factory.mktemp("light")
    package = folder / "modeling_aspert"
    package.mkdir()
    for file in (Path(__file__).resolve().parents[2] / "modeling_aspert").glob("*.py"):
        if file.name != "__init__.py":
            (package / file.name).symlink_to(file)
    (package / "__init__.py").touch()
    return folder
