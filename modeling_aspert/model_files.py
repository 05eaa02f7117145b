"""The files of a saved model or an encoder, looked at before anything is loaded: they may come from anyone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig
from transformers.utils import (
    AUDIO_TOKENIZER_NAME,
    CONFIG_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
    is_peft_available,
)

# where a model lies, besides its name: arguments of every `from_pretrained`
_PLACE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
_ADAPTER = "adapter_config.json"
_FLOATS = ("F16", "BF16", "F32", "F64")


def read_object(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no JSON object.
    """
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: does not exist: copy or download the whole folder again") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no JSON ({error}): copy or download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: no JSON object: copy or download it again")
    return value


def read_config(name_or_path: str | os.PathLike[str], **place: Any) -> dict[str, Any]:
    """The fields of the config.json of a folder or Hub name.

    Args:
        place: where it lies besides its name, see :func:`take_place`.

    Raises:
        OSError: no such folder or Hub name, or no config.json in it.
        ValueError: it is no JSON object.
    """
    if Path(name_or_path).is_dir():
        # says more than transformers does
        read_object(local_file(name_or_path, CONFIG_NAME, place))
    try:
        return PretrainedConfig.get_config_dict(name_or_path, **place)[0]
    except OSError as error:
        if Path(name_or_path).is_dir():
            raise
        # a folder's name with a slip is taken for one of the Hub
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"{name_or_path}: neither a folder here nor a model that the Hub gives ({reason})") from error


def local_file(name_or_path: str | os.PathLike[str], file: str, place: dict[str, Any]) -> Path:
    """The path that a file has, or would have, in a folder of this machine."""
    return Path(name_or_path, place.get("subfolder") or "", file)


def find_file(name_or_path: str | os.PathLike[str], file: str, place: dict[str, Any]) -> str | None:
    """The path of a file of a folder or Hub name; None where it has no such file."""
    return cached_file(
        name_or_path,
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        **place,
    )


def one_line(error: Exception, name_or_path: str | os.PathLike[str], part: str = "") -> str:
    """What an error says, on one line that begins with the folder or Hub name (and its part) or a file in it."""
    text = " ".join(str(error).split())
    return text if text.startswith(str(name_or_path)) else f"{name_or_path}{part}: {text}"


@contextmanager
def naming(name_or_path: str | os.PathLike[str], part: str = "") -> Iterator[None]:
    """Errors of what is read there become a ValueError that begins with its name, see :func:`one_line`; those of the
    system stay what they are."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each library has its own, and tokenizers has no class for them
        raise ValueError(one_line(error, name_or_path, part)) from error


def check_weights(name_or_path: str | os.PathLike[str] | None, variant: str | None = None, **kwargs: Any) -> None:
    """Refuse weights that are no safetensors of the folder or repository itself.

    Loaded as they are, a pickle in the place of a part would be opened, and so would a file elsewhere.

    Args:
        name_or_path: what `from_pretrained` is given, with its arguments; None where it loads no file.

    Raises:
        OSError: a Hub name that cannot be had.
        ValueError: the file, what is wrong in it, and the mend.
    """
    if name_or_path is None:
        return
    if os.path.isfile(name_or_path):
        files = [str(name_or_path)]
        if not files[0].endswith(".safetensors"):
            raise ValueError(f"{name_or_path}: no safetensors; a pickle can run code and is refused: convert it")
    else:
        place = take_place(kwargs)
        if is_peft_available() and (adapter := find_file(name_or_path, _ADAPTER, place)):
            raise ValueError(f"{adapter}: adapters are not loaded: merge them into the weights, or remove the file")
        single, index = (_with_variant(name, variant) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
        # where there is neither, transformers says so, or finds what the Hub converted to safetensors
        files = [file] if (file := find_file(name_or_path, single, place)) else []
        if not files and (index_file := find_file(name_or_path, index, place)):
            for part in _parts(index_file):
                if not (file := find_file(name_or_path, part, place)):
                    raise FileNotFoundError(
                        f"{index_file}: {part!r} is missing: copy or download the whole model again"
                    )
                files.append(file)
    for file in files:
        _check_types(file)


def check_processor(name_or_path: str | os.PathLike[str], **kwargs: Any) -> None:
    """Refuse a processor that names models to load besides its tokenizer: they may be pickles, and lie anywhere.

    Raises:
        OSError: a Hub name that cannot be had.
        ValueError: the file and what is wrong in it.
    """
    place = take_place(kwargs)
    file = find_file(name_or_path, PROCESSOR_NAME, place)
    named = file if file and "audio_tokenizer" in read_object(file) else None
    if named := named or find_file(name_or_path, AUDIO_TOKENIZER_NAME, place):
        raise ValueError(f"{named}: an audio tokenizer, which no model of this library has: leave it out")


def take_place(arguments: dict[str, Any]) -> dict[str, Any]:
    """Where a model lies besides its name: taken out of the arguments of a `from_pretrained`."""
    return {name: arguments.pop(name) for name in _PLACE if name in arguments}


def _parts(index_file: str) -> list[str]:
    """The files that an index of weights names."""
    fields = read_object(index_file)
    parts = fields.get("weight_map")
    if not isinstance(parts, dict) or not parts or not isinstance(fields.get("metadata"), dict):
        raise ValueError(f"{index_file}: no weight_map and metadata: copy or download it again")
    for weight, part in parts.items():
        plain = isinstance(part, str) and part.isprintable() and not set(part) & set("/\\:")
        if not plain or not part.endswith(".safetensors"):
            raise ValueError(
                f"{index_file}: {weight!r} lies in {part!r}, which is no name of a safetensors file beside it; a pickle "
                "can run code and is refused: convert the weights to safetensors"
            )
    return sorted(set(parts.values()))


def _check_types(file: str) -> None:
    """Refuse weights that are no floating-point numbers: cast to them they would be noise."""
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                dtype = tensors.get_slice(name).get_dtype()
                if name.endswith((".weight", ".bias")) and dtype not in _FLOATS:
                    raise ValueError(
                        f"{file}: {name} holds {dtype}, not floating-point numbers of 16 bits or more: save the "
                        "model again in one of their types"
                    )
    except SafetensorError as error:
        raise ValueError(f"{file}: no safetensors that can be read ({error}): copy or download it again") from None


def _with_variant(file: str, variant: str | None) -> str:
    """`model.safetensors` of the variant fp16 is `model.fp16.safetensors`, as transformers names it."""
    stem, _, suffix = file.rpartition(".")
    return file if variant is None else f"{stem}.{variant}.{suffix}"
