"""The code of docs/data.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import datasets

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_code_runs(corpora, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASPERT_DATA", str(corpora))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), {})
    exported = datasets.load_dataset("exported", cache_dir=str(tmp_path / "cache"))
    assert set(exported) == {"train", "validation", "test"}
