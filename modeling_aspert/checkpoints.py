"""The checkpoints of a training: which of them are whole, and can be gone on from."""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

# what a checkpoint has, on one device or DDP, with FSDP or with DeepSpeed: weights, optimizer, rate, random states
_PARTS = (
    ("*.safetensors", "pytorch_model_fsdp*", "global_step*"),
    ("optimizer*", "global_step*"),
    ("scheduler.pt", "global_step*"),
    ("rng_state*",),
)


def complete_checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoints that were written to the end, by step."""
    folders = [folder for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if is_complete(folder)]
    steps = {folder: folder.name.rpartition("-")[2] for folder in folders}
    return sorted((folder for folder in folders if steps[folder].isdigit()), key=lambda folder: int(steps[folder]))


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has all its parts and trainer_state.json, which the Trainer writes last, in whole files.

    A part is missing where a kill came while the checkpoint was deleted; that a file is damaged is told.
    """
    patterns = (("trainer_state.json",), *_PARTS)
    if not all(any(any(checkpoint.glob(pattern)) for pattern in part) for part in patterns):
        return False
    damaged = [file for file in sorted(checkpoint.iterdir()) if not _is_whole(file)]
    for file in damaged:
        logger.warning("%s is damaged: its checkpoint is passed over, and may be deleted", file)
    return not damaged


def _is_whole(file: Path) -> bool:
    """Whether a file can be read to its end, as far as its format tells without loading it."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
        elif file.suffix in (".pt", ".pth"):
            # what torch.save writes
            with zipfile.ZipFile(file) as archive:
                return archive.testzip() is None
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile, zlib.error):
        return False
    return True


def steps_before(checkpoint: str | None) -> int:
    """Steps of the training that a run goes on from."""
    if checkpoint is None:
        return 0
    return TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json")).global_step
