"""What an installed package has beside its modules."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from modeling_aspert.sample import SENTENCES

ROOT = Path(__file__).resolve().parents[1]


def test_every_file_of_a_package_is_installed() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    shipped = settings["options.package_data"]
    for package in settings["options"]["packages"].split():
        folder = ROOT / package.replace(".", "/")
        patterns = [pattern.strip() for pattern in shipped.get(package, "").split(",") if pattern]
        installed = {file for pattern in ("*.py", *patterns) for file in folder.glob(pattern)}
        assert {file for file in folder.iterdir() if file.is_file()} == installed
    for package in ("modeling_aspert", "data_scripts"):
        assert (ROOT / package / "py.typed").is_file()


def test_the_last_step_of_make_demo(quickstart_model: Path) -> None:
    command = [sys.executable, "-m", "modeling_aspert.sample", str(quickstart_model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    for sentence in SENTENCES:
        assert sentence in done.stdout
    assert "Gdansk" in done.stdout.replace(SENTENCES[0], "")
