"""The package's names, and what their import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import data_scripts

ROOT = Path(__file__).resolve().parents[2]


def test_all_names_are_there():
    assert set(data_scripts.__all__) <= set(dir(data_scripts))
    for name in data_scripts.__all__:
        assert getattr(data_scripts, name) is not None
    with pytest.raises(AttributeError, match="'data_scripts' has no attribute 'nothing'"):
        data_scripts.nothing  # noqa: B018


def test_reading_and_writing_need_no_library():
    script = (
        "import sys, data_scripts.reading, data_scripts.writing, data_scripts.validation, data_scripts.converters\n"
        "print([name for name in ('datasets', 'pandas', 'numpy', 'pyarrow', 'torch') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) == "[]\n"
