"""A saved model as two ONNX graphs, for inference without the network's code; needs the extra `onnx`.

spans.onnx: input_ids, attention_mask [B, n], spans [B, S, 2], span_widths [B, S] and, where the model needs them,
word_shapes and special_tokens_mask [B, n] and offsets [W] (0 to W - 1, W at least the widest span in sub-words and
at least 2)
-> span_logits [B, S, T_e + 1], representation [B, S, E] and table [K, B, n, d].

relations.onnx: that table, the representations entities [N, E] of the spans between which relations are looked for,
their sentences entity_rows [N] and sub-words entity_spans [N, 2], and pairs [M, 2] (head, tail), indices into N
-> relation_logits [M, T_r].

All sizes but E, d and K are free; n is at most 2 ** K. Integers are int64, all else is float32.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from .configuration_aspert import AspertConfig
from .files import whole_files
from .modeling_aspert import AspertForJointExtraction, _between
from .onnx_model import RELATIONS_FILE, SPANS_FILE, require
from .packed_linear import is_plain
from .processing_aspert import AspertProcessor
from .span_pooling import range_max, range_max_table

_OPSET = 20
# the first with an operation for attention
_ATTENTION_OPSET = 23
# sub-words, where the encoder knows no limit
_NO_LIMIT = 8192
_ATTENTION = "aspert_onnx"


def export_onnx(
    model: AspertForJointExtraction, processor: AspertProcessor, folder: str | os.PathLike[str], int8: bool = False
) -> None:
    """Write the graphs, the configuration and the processor: a folder for :class:`AspertOnnxModel`.

    Args:
        int8: store the weights of spans.onnx as 8-bit integers by output channel; activations are quantised as they
            come, by tensor, those of the feed-forward layers after rows or columns have been brought to one scale.

    Raises:
        ImportError: the extra `onnx` is missing.
        ValueError: an encoder that cannot be exported.
        OSError: the folder cannot be written.
    """
    check_extra()
    with whole_files(folder) as temporary:
        _write(model, processor, temporary, int8)


def _write(model: AspertForJointExtraction, processor: AspertProcessor, folder: Path, int8: bool) -> None:
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    if int8:
        _scale(model, processor)
    opset = _ATTENTION_OPSET if _use_onnx_attention(model) else _OPSET
    spans = _Spans(model, processor.max_tokens or _NO_LIMIT)
    relations = _Relations(model)
    inputs, sizes = _example(model.config, processor)
    with torch.no_grad():
        names = ["span_logits", "representation", "table"]
        outputs = spans(**inputs)
        _export(spans, inputs, sizes, names, folder / SPANS_FILE, opset)
        inputs = {
            "table": outputs[2],
            "entities": outputs[1][0, :4],
            "entity_rows": torch.tensor([0, 0, 1, 1]),
            "entity_spans": inputs["spans"][0, :4],
            "pairs": torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2], [0, 1]]),
        }
        sizes = {name: {0: "entities"} for name in inputs}
        sizes |= {"table": {1: "batch", 2: "length"}, "pairs": {0: "pairs"}}
        _export(relations, inputs, sizes, ["relation_logits"], folder / RELATIONS_FILE)
    if int8:
        _quantize(folder / SPANS_FILE)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)


class _ScaledByRow(nn.Module):
    """A linear layer that sees each sub-word on a scale of its own, since all of a tensor share their 8 bits: a few
    values of [CLS] and the like are ten times greater than all others (vector-wise quantisation, arXiv 2208.07339).

    Args:
        least: value of the layer's input. Where it is near 0, as after GELU, the greatest value alone gives a row's
            scale, which takes half the time.
    """

    def __init__(self, layer: nn.Linear, least: float) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.one_sided = least >= -0.2

    def forward(self, values: Tensor) -> Tensor:
        greatest = values.amax(-1, keepdim=True)
        if not self.one_sided:
            # two maxima take less time than one of absolute values
            greatest = torch.maximum(greatest, -values.amin(-1, keepdim=True))
        greatest = greatest.clamp(min=0.2 if self.one_sided else 1e-9)
        scaled = F.linear(values * greatest.reciprocal(), self.weight) * greatest
        return scaled if self.bias is None else scaled + self.bias


class _ScaledByColumn(nn.Module):
    """The same for the columns of a layer's input (SmoothQuant, arXiv 2211.10438, by the activations alone): a
    constant, and so faster where the output is wider than the input.

    Args:
        greatest: absolute value in each column, [input features].
    """

    def __init__(self, layer: nn.Linear, greatest: Tensor) -> None:
        super().__init__()
        scale = greatest.clamp(min=1e-2).sqrt()
        self.weight, self.bias = nn.Parameter(layer.weight.detach() * scale), layer.bias
        self.register_buffer("inverse", scale.reciprocal())

    def forward(self, values: Tensor) -> Tensor:
        return F.linear(values * self.inverse, self.weight, self.bias)


def _scale(model: AspertForJointExtraction, processor: AspertProcessor) -> None:
    """Of the encoder's layers those of the feed-forward networks lose the most in 8 bits: those that are not square."""
    layers = [
        (parent, name, layer)
        for parent in model.encoder.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and layer.in_features != layer.out_features
    ]
    seen: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[layer] = inputs[0].flatten(0, -2)

    hooks = [layer.register_forward_pre_hook(note) for _, _, layer in layers]
    # which columns are great hardly depends on the text: words from all over the vocabulary will do
    vocabulary = sorted(processor.tokenizer.get_vocab())
    sentence = processor.encode([vocabulary[:: len(vocabulary) // 50 + 1]])[0]
    ids, shapes = (
        torch.from_numpy(values[: processor.max_tokens]).unsqueeze(0)
        for values in (sentence.input_ids, sentence.word_shapes)
    )
    with torch.no_grad():
        model._encode(ids, torch.ones_like(ids), shapes)
    for hook in hooks:
        hook.remove()
    for parent, name, layer in layers:
        if layer not in seen:
            continue
        if layer.in_features > layer.out_features:
            setattr(parent, name, _ScaledByRow(layer, seen[layer].min().item()))
        else:
            setattr(parent, name, _ScaledByColumn(layer, seen[layer].abs().amax(0)))


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as one operation of ONNX, which returns the probabilities too.

    Args:
        query, key, value: [B, H, n, d / H].
        attention_mask: what is added to the scores, [B, 1, n, n].

    Returns:
        [B, n, H, d / H] and the attention [B, H, n, n].
    """
    heads, size = query.shape[1], query.shape[3]
    # the operation's own order, so that the encoder's transposition falls away
    joined = [values.transpose(1, 2).flatten(2) for values in (query, key, value)]
    output, _, _, probabilities = torch.onnx.ops.attention(
        *joined,
        attn_mask=attention_mask,
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=scaling,
        qk_matmul_output_mode=3,
    )
    return output.unflatten(2, (heads, size)), probabilities


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, eager_mask)


def _use_onnx_attention(model: AspertForJointExtraction) -> bool:
    """Whether the encoder takes it and computes the same; if not, it stays as it is: torch < 2.9 has no such operation,
    and some encoders have their own kind of attention."""
    if not model.config.attentional_contribution:
        return False
    encoder, mask = model.encoder, torch.arange(6) < torch.tensor([[6], [4]])
    ids = torch.arange(12).view(2, 6) % model.config.encoder_config.vocab_size

    def encoded() -> list[Tensor]:
        hidden, maps = model._encode(ids, mask.long(), torch.zeros_like(ids))
        return [hidden[mask], *(attention.transpose(1, 2)[mask] for attention in maps)]

    kind = encoder.config._attn_implementation
    with torch.no_grad(), _silence():
        expected = encoded()
        try:
            encoder.set_attn_implementation(_ATTENTION)
            if encoder.config._attn_implementation == _ATTENTION:
                torch.testing.assert_close(encoded(), expected, rtol=0, atol=1e-5)
                return True
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
            pass
        encoder.set_attn_implementation(kind)
        return False


def check_extra() -> None:
    """Raise ImportError, naming the extra `onnx`, unless it is installed."""
    require("onnx", "onnxruntime", "onnxscript")


class _Spans(nn.Module):
    """Encoder and span classifier; what depends on the values in eager mode depends on the limit here."""

    def __init__(self, model: AspertForJointExtraction, longest: int) -> None:
        super().__init__()
        self.model, self.longest = model, longest
        classifier = model.span_classifier.input
        hidden_size = model.config.encoder_config.hidden_size
        self.span, self.sentence = _split(classifier, [classifier.in_features - hidden_size, hidden_size])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spans: Tensor,
        span_widths: Tensor | None = None,
        special_tokens_mask: Tensor | None = None,
        word_shapes: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        model, config = self.model, self.model.config
        hidden, attentions = model._encode(input_ids, attention_mask, word_shapes)
        table = range_max_table(hidden, longest=self.longest)
        parts = model._span_parts(
            table,
            attentions,
            spans,
            span_widths,
            attention_mask,
            special_tokens_mask,
            offsets=offsets,
            longest=self.longest,
        )
        representation = torch.cat(list(parts.values()), dim=-1)
        scores = self.span(representation) + self.sentence(hidden[:, 0]).unsqueeze(1)
        span_logits = model.span_classifier._classify(scores)
        if config.relation_entity_types or not config.relation_contribution:
            representation = model._relation_spans(parts, span_logits)
        return span_logits, representation, table


class _Relations(nn.Module):
    """The relation classifier: each entity is projected once, however many pairs it is in."""

    def __init__(self, model: AspertForJointExtraction) -> None:
        super().__init__()
        self.classifier = model.relation_classifier
        self.head, self.context, self.tail = _split(self.classifier.first, self.classifier.sizes)

    def forward(
        self, table: Tensor, entities: Tensor, entity_rows: Tensor, entity_spans: Tensor, pairs: Tensor
    ) -> Tensor:
        head, tail = pairs[:, 0], pairs[:, 1]
        between = _between(entity_spans[head], entity_spans[tail])
        contexts = self.context(range_max(table, entity_rows[head], *between))
        return self.classifier.finish(self.head(entities)[head] + contexts + self.tail(entities)[tail])


def _split(layer: nn.Linear, sizes: list[int]) -> list[nn.Linear]:
    """One layer for each part of the input, the bias with the second: weights that are constants of the graph, so that
    they can be quantised."""
    if not is_plain(layer):
        raise ValueError(
            "a classifier has an adapter, a hook or weights that are quantised, which an export leaves out: merge or "
            "remove it first"
        )
    layers = []
    for number, weight in enumerate(layer.weight.detach().split(sizes, dim=1)):
        part = nn.Linear(weight.shape[1], weight.shape[0], bias=number == 1)
        part.weight.data = weight.contiguous()
        if number == 1:
            part.bias.data = layer.bias.detach()
        layers.append(part)
    return layers


def _example(config: AspertConfig, processor: AspertProcessor) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """What the graph is traced with, and its free sizes; of the values only the shapes count."""
    ids = processor.tokenizer("a", return_tensors="pt")["input_ids"]
    input_ids = ids[:, :1].repeat(2, 12)
    starts = torch.arange(9).clamp(max=7).expand(2, -1)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(12) < torch.tensor([[12], [10]])).long(),
        "spans": torch.stack([starts, starts + 3], dim=-1),
    }
    by_token, by_span = {0: "batch", 1: "length"}, {0: "batch", 1: "spans"}
    sizes = {"input_ids": by_token, "attention_mask": by_token, "spans": by_span}
    if config.word_shapes:
        inputs["word_shapes"], sizes["word_shapes"] = torch.zeros_like(input_ids), by_token
    if config.width_embedding:
        inputs["span_widths"], sizes["span_widths"] = torch.ones(2, 9, dtype=torch.long), by_span
    if config.attentional_contribution:
        uses_other_side = config.contribution_pooling == "mean" or config.contribution_scope != "span"
        if not config.contribution_special_tokens and uses_other_side:
            inputs["special_tokens_mask"], sizes["special_tokens_mask"] = torch.zeros_like(input_ids), by_token
        if config.contribution_pooling != "max" and config.contribution_scope != "sentence":
            inputs["offsets"], sizes["offsets"] = torch.arange(3), {0: "widest"}
    return inputs, sizes


def _threshold(values: Any, threshold: float, value: float) -> Any:
    """The gate as one operation of ONNX; the exporter's own translation needs two."""
    from onnxscript import opset20 as operations

    assert value == 0
    return operations.ThresholdedRelu(values, alpha=float(threshold))


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    sizes: dict[str, dict[int, str]],
    outputs: list[str],
    path: Path,
    opset: int = _OPSET,
) -> None:
    options: dict[str, Any] = {"input_names": list(inputs), "output_names": outputs, "opset_version": opset}
    try:
        with _silence():
            program = torch.onnx.export(
                module.eval(),
                kwargs=inputs,
                dynamic_shapes=sizes,
                dynamo=True,
                custom_translation_table={torch.ops.aten.threshold.default: _threshold},
                **options,
            )
            program.save(path)
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ValueError(f"{path.name}: this model cannot be exported ({reason}): use it as it is") from error
    stored = {value.name: list(value.shape) for value in program.model.graph.inputs}
    for name, axes in sizes.items():
        fixed = [axis for axis in axes if isinstance(stored[name][axis], int)]
        if fixed:
            raise ValueError(
                f"{path.name}: this encoder's code fixes the {axes[fixed[0]]} of {name} to {stored[name][fixed[0]]} in "
                "an export: use the model as it is"
            )


def _quantize(path: Path) -> None:
    """Replace the weights of matrix products by int8, in place."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # read and written in a folder of their own, because weights above 2 GB lie in a file beside the graph
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        full = Path(work) / path.name
        for file in _files(path):
            os.replace(file, full.with_name(file.name))
        with _silence():
            quantize_dynamic(
                full,
                path,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_narrow(full),
            )


def _narrow(path: Path) -> list[str]:
    """Matrix products with so few columns that quantising their input takes longer than they do."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    columns = {weight.name: weight.dims[-1] for weight in graph.initializer if weight.dims}
    return [node.name for node in graph.node if node.op_type == "MatMul" and columns.get(node.input[1], 16) < 16]


def _files(path: Path) -> list[Path]:
    """A graph's file, and that of its weights where there is one."""
    return [file for file in (path, path.with_name(f"{path.name}.data")) if file.is_file()]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's progress and its remarks on packages that are not there."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
