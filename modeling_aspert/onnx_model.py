"""A model exported to ONNX, run by onnxruntime in place of the network; needs the extra `onnx`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .modeling_aspert import CHUNK_CONTEXTS, AspertOutput, pairs_of_entities
from .processing_aspert import AspertProcessor
from .saved_models import load_config, load_processor

SPANS_FILE, RELATIONS_FILE = "spans.onnx", "relations.onnx"
# Sub-words that are computed together. In fp32 it does not change results; in 8 bits a tensor shares its rounding.
PART_TOKENS = 192


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model exported to ONNX."""
    return (Path(folder) / SPANS_FILE).is_file()


def require(*packages: str) -> None:
    """Raise ImportError, naming the extra, unless all packages are there."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{missing[0]} is not installed: pip install 'aspert[onnx]'")


def load_exported(folder: str | os.PathLike[str]) -> tuple[AspertOnnxModel, AspertProcessor]:
    """The model and processor of a folder that `aspert export-onnx` wrote. Raises as :class:`AspertOnnxModel`."""
    model = AspertOnnxModel(folder)
    return model, load_processor(str(folder), model.config)


class AspertOnnxModel:
    """Stands in for :class:`AspertForJointExtraction` in an :class:`Extractor`: inference on the CPU, in fp32.

    Args:
        folder: what `aspert export-onnx` wrote.
        threads: of onnxruntime; default: as many as torch uses.

    Raises:
        ImportError: the extra `onnx` is missing.
        FileNotFoundError: a graph is missing.
        ValueError: a file that is not what it should be, or that does not fit the others.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        require("onnxruntime")
        folder = Path(folder)
        for name in (SPANS_FILE, RELATIONS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing: export the model again with aspert export-onnx")
        self.config = load_config(str(folder))
        self.device = torch.device("cpu")
        self._spans = _session(folder / SPANS_FILE, threads)
        self._relations = _session(folder / RELATIONS_FILE, threads)
        self._inputs = {value.name for value in self._spans.get_inputs()}
        labels = {
            SPANS_FILE: (self._spans, "span_logits", len(self.config.entity_types) + 1, "entity types and none"),
            RELATIONS_FILE: (self._relations, "relation_logits", self.config.num_relation_outputs, "relation outputs"),
        }
        for file, (session, name, wanted, what) in labels.items():
            found = _sizes(session).get(name, [None])[-1]
            if found != wanted:
                raise ValueError(
                    f"{folder / file} scores {found} {what}, but config.json lists {wanted}: export the model again"
                )
        self._longest = 2 ** _sizes(self._spans)["table"][0]

    def eval(self) -> AspertOnnxModel:
        """The model itself, which knows no other mode."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> AspertOnnxModel:
        """The model itself. Raises ValueError for a device other than the CPU."""
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, (str, torch.device)) and torch.device(device).type != "cpu":
            raise ValueError(f"a model exported to ONNX runs on the CPU, not on {device}: leave the device out")
        return self

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spans: Tensor,
        span_widths: Tensor,
        span_mask: Tensor | None = None,
        pairs: Tensor | None = None,
        pair_mask: Tensor | None = None,
        special_tokens_mask: Tensor | None = None,
        word_shapes: Tensor | None = None,
        return_dict: bool = True,
    ) -> AspertOutput:
        """Scores of candidate spans and pairs, without a loss: see :meth:`AspertForJointExtraction.forward`; never a
        tuple.

        Raises:
            ValueError: an input longer than the export allows, or no special_tokens_mask or word_shapes where they are
                needed.
        """
        if input_ids.shape[1] > self._longest:
            raise ValueError(f"{input_ids.shape[1]} sub-words are more than the export's {self._longest}: use windows")
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "spans": spans,
            "span_widths": span_widths,
            "special_tokens_mask": special_tokens_mask,
            "word_shapes": word_shapes,
        }
        given = {name: values for name, values in given.items() if name in self._inputs}
        for name in ("special_tokens_mask", "word_shapes"):
            if given.get(name, spans) is None:
                raise ValueError(f"this model needs {name} [B, n] in the batch; AspertDataCollator adds it")
        if span_mask is None:
            span_mask = torch.ones_like(span_widths, dtype=torch.bool)
        # given pairs may be of any spans
        wanted = span_mask if pairs is None else torch.ones_like(span_mask)
        span_logits = torch.zeros(*span_widths.shape, len(self.config.entity_types) + 1)
        lengths, counts = _lengths(attention_mask), _lengths(wanted)
        parts = []
        for rows in self._parts(attention_mask):
            num_tokens, num_spans = max(lengths[rows]), max(counts[rows])
            part = {
                name: values[rows, : num_spans if name.startswith("span") else num_tokens]
                for name, values in given.items()
            }
            if "offsets" in self._inputs:
                widths = part["spans"][..., 1] - part["spans"][..., 0]
                part["offsets"] = torch.arange(max(2, int(widths.max()) if widths.numel() else 1))
            logits, representation, table = _run(self._spans, part)
            span_logits[rows, :num_spans] = logits
            parts.append((rows, representation, table, part["spans"]))
        if pairs is None:
            pairs, pair_mask = pairs_of_entities((span_logits.argmax(-1) > 0) & span_mask.bool())
        elif pair_mask is None:
            pair_mask = torch.ones(pairs.shape[:2], dtype=torch.bool)
        relation_logits = torch.zeros(*pair_mask.shape, self.config.num_relation_outputs)
        for rows, representation, table, its_spans in parts:
            relation_logits[rows] = self._classify_pairs(
                table, representation, its_spans, pairs[rows], pair_mask[rows].bool()
            )
        return AspertOutput(
            span_logits=span_logits, relation_logits=relation_logits, pairs=pairs, pair_mask=pair_mask.bool()
        )

    def _parts(self, attention_mask: Tensor) -> Iterator[slice]:
        """Rows that are computed together: so few that what the graph computes stays near the processor."""
        step = max(1, PART_TOKENS // max(1, attention_mask.shape[1]))
        return (slice(start, start + step) for start in range(0, len(attention_mask), step))

    def _classify_pairs(
        self, table: Tensor, representation: Tensor, spans: Tensor, pairs: Tensor, pair_mask: Tensor
    ) -> Tensor:
        """Relation logits [B, P, T_r]; only real pairs are computed, so many at a time; padding gets 0."""
        logits = torch.zeros(*pair_mask.shape, self.config.num_relation_outputs)
        num_spans = representation.shape[1]
        for rows, positions in zip(*(values.split(CHUNK_CONTEXTS) for values in pair_mask.nonzero(as_tuple=True))):
            entities, ends = (pairs[rows, positions] + rows.unsqueeze(1) * num_spans).unique(return_inverse=True)
            given = {
                "table": table,
                "entities": representation.flatten(0, 1)[entities],
                "entity_rows": entities // num_spans,
                "entity_spans": spans.flatten(0, 1)[entities],
                "pairs": ends,
            }
            if len(rows):
                logits[rows, positions] = _run(self._relations, given)[0]
        return logits


def _session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # a plan of the memory is kept for each shape, and nearly every call has its own
    options.enable_mem_pattern = False
    # waiting threads do not burn the time that others could use
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            # on CPUs these fused operations take longer than their parts
            disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"],
        )
    except Exception as error:  # onnxruntime has its own kinds of errors, which differ between versions
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())}): export the model again") from error


def _sizes(session: Any) -> dict[str, list[Any]]:
    """The shapes of a graph's outputs by name; sizes that depend on the input are names."""
    return {output.name: output.shape for output in session.get_outputs()}


def _lengths(mask: Tensor) -> list[int]:
    """The length that holds all that each row of a mask [B, M] keeps; at least 1."""
    kept = F.pad(mask.bool(), (1, 0), value=True)
    return torch.arange(kept.shape[1]).where(kept, 0).amax(1).clamp(min=1).tolist()


def _run(session: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    from onnxruntime import OrtValue

    # outputs that are not copied
    given = {name: OrtValue.ortvalue_from_numpy(values.contiguous().numpy()) for name, values in inputs.items()}
    return [torch.from_numpy(output.numpy()) for output in session.run_with_ort_values(None, given)]
