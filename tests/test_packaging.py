"""What an installed package has beside its modules."""

from __future__ import annotations

import configparser
from pathlib import Path

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
