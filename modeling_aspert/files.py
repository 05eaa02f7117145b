"""Files that are whole or not there, locks, and the commit of a checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, whose folders are made, and rename it to `path` if the block ends without an
    exception.

    As `data_scripts.writing` has it, which is not there where this package is alone, as in the Space of demo/. Raises
    OSError that names `path` where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror or error})", str(path)) from error
    finally:
        with suppress(OSError):  # renamed, or never made
            temporary.unlink()


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file through a temporary one beside it, so that a kill leaves the old file or the new one.

    Raises OSError that names the file.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """:func:`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def describe_commit(checkout: str | os.PathLike[str]) -> str | None:
    """The commit of a checkout, with "-dirty" behind it where files are changed; None where it cannot be told."""
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def try_lock(file: int) -> bool:
    """Whether an open file or folder is locked for this process from now on, until it is closed; False where another
    process holds the lock. Where there are no locks, True: two processes are not told apart."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        pass
    return True


@contextmanager
def whole_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder in `folder`; what was written there moves up, file by file, if the block ends well.

    Raises:
        OSError: the files cannot be written, whatever the library that writes them raises.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
            yield Path(temporary)
            for file in sorted(Path(temporary).iterdir()):
                os.replace(file, folder / file.name)
    except Exception as error:
        # tokenizers has no class of its own for what goes wrong
        if isinstance(error, (OSError, SafetensorError)) or type(error) is Exception:
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"{folder} cannot be written ({reason})") from error
        raise
