"""Loading of saved models for the commands: an error names the file and the mend, whatever is in the folder."""

from __future__ import annotations

from pathlib import Path

import torch

from .configuration_aspert import AspertConfig
from .model_files import naming, read_config, read_object
from .modeling_aspert import AspertForJointExtraction
from .processing_aspert import AspertProcessor


def load_saved(
    name_or_path: str, dtype: torch.dtype = torch.float32, revision: str | None = None
) -> tuple[AspertForJointExtraction, AspertProcessor]:
    """The model and processor of a folder or Hub name.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file that is not what it should be, or that does not fit the others; a revision of a folder.
        OSError: no such Hub name, or files that are missing.
    """
    config = load_config(name_or_path, revision)
    graphs = sorted(Path(name_or_path).glob("*.onnx"))
    if graphs and not any(Path(name_or_path).glob("*.safetensors")):
        raise ValueError(
            f"{graphs[0]}: a model exported to ONNX: give the model that it was made of, or export that again"
        )
    place = {"revision": revision} if revision else {}
    with naming(name_or_path, ": the weights"):
        model = AspertForJointExtraction.from_pretrained(name_or_path, dtype=dtype, **place)
    return model, load_processor(name_or_path, config, revision)


def load_processor(name_or_path: str, config: AspertConfig, revision: str | None = None) -> AspertProcessor:
    """The processor of a folder or Hub name, which must fit the model's configuration. Raises as :func:`load_saved`."""
    folder = Path(name_or_path)
    if folder.is_dir():
        for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
            read_object(folder / name)
    with naming(name_or_path, ": the processor"):
        try:
            processor = AspertProcessor.from_pretrained(name_or_path, **({"revision": revision} if revision else {}))
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError("its tokenizer is code beside the weights, which is not run: save a fast one") from None
        processor.fit_to(config.encoder_config)
    return processor


def load_config(name_or_path: str, revision: str | None = None) -> AspertConfig:
    """The configuration of a folder or Hub name. Raises as :func:`load_saved`."""
    refuse_revision_of_folder(name_or_path, revision)
    refuse_missing_folder(name_or_path)
    fields = read_config(name_or_path, **({"revision": revision} if revision else {}))
    file = f"{name_or_path}/config.json"
    if fields.get("model_type") != AspertConfig.model_type:
        raise ValueError(
            f"{file}: model_type = {fields.get('model_type')!r}, not {AspertConfig.model_type!r}: this is no model of "
            f"this library; `python train.py --encoder {name_or_path}` makes one of an encoder"
        )
    with naming(file):
        return AspertConfig.from_dict(fields)


def is_trained(name_or_path: str) -> bool:
    """Whether a folder or Hub name is a model of this library, not an encoder.

    Raises:
        OSError: no such folder or Hub name.
        ValueError: a file, or its config.json cannot be read.
    """
    refuse_missing_folder(name_or_path)
    return read_config(name_or_path).get("model_type") == AspertConfig.model_type


def refuse_missing_folder(name_or_path: str) -> None:
    """Raise FileNotFoundError for a path that does not exist, which would be taken for a Hub name, and ValueError for a
    file."""
    path = Path(name_or_path)
    if path.is_file():
        raise ValueError(f"{name_or_path}: a file, not the folder of a model")
    is_path = path.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") > 1
    if is_path and not path.is_dir():
        raise FileNotFoundError(f"{name_or_path}: no such folder")


def refuse_revision_of_folder(name_or_path: str, revision: str | None) -> None:
    """Raise ValueError for the revision of a folder, which has none."""
    if revision is not None and Path(name_or_path).is_dir():
        raise ValueError(f"revision {revision} is for a Hub name, but {name_or_path} is a folder: leave it out")
