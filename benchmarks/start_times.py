"""Import time, and the time of commands that load no model, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.experiments import ROOT
from benchmarks.timing import summary

# What any program with a model of its own loads of transformers; the package's first names alone load next to nothing.
_BASE = (
    "import torch, transformers; "
    "from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, PreTrainedConfig, PreTrainedModel, "
    "ProcessorMixin; from transformers.utils import ModelOutput"
)
_TIMED = "import time; {before}; start = time.perf_counter(); {timed}; print(time.perf_counter() - start)"


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Seconds by name (median and extremes)."""
    found = {
        "import beyond torch + transformers: s": _repeated(repeats, _import_after, _BASE),
        "import beyond torch + transformers' first names: s": _repeated(
            repeats, _import_after, "import torch, transformers"
        ),
    }
    for options in (["--help"], ["validate", "data_scripts/quickstart/dev.json"]):
        found[f"aspert {options[0]}: s"] = _repeated(repeats, _run, [sys.executable, "-m", "aspert_cli", *options])
    return found


def _import_after(before: str) -> float:
    code = _TIMED.format(before=before, timed="import modeling_aspert")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout.splitlines()[-1])


def _run(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    return time.perf_counter() - start


def _repeated(repeats: int, function, *arguments) -> dict[str, float]:
    if repeats > 1:
        # warms the disk cache
        function(*arguments)
    return summary([function(*arguments) for _ in range(repeats)])
