"""Linear layers whose weights lie ready in oneDNN's order, for few sub-words at a time on a CPU.

A matrix product first brings its weights into blocks. Over few rows that takes about as long as the product itself, and
PyTorch's own product then hardly uses a second thread. With the weights in blocks already, a short sentence takes less
time, most of all with several threads. Many rows gain nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Sub-words of a batch up to which the product from packed weights is the faster one.
MAX_ROWS = 64
# Values of a weight that are looked at before it is used, to see whether it was changed. A prime, so that they are not all
# of one column.
_SAMPLED = 97
# Layers of one module that see the same input, by the names that transformers gives them: one product does for all.
_TOGETHER = (("query", "key", "value"), ("q", "k", "v"), ("q_lin", "k_lin", "v_lin"))
# stands for a parameter that pruning or a parametrization has put elsewhere
_ELSEWHERE = object()
# the operations that torch.compile's own code is made of; a build without oneDNN does not have them
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack_linears(module: nn.Module) -> None:
    """Let all linear layers of a module take packed weights in inference mode. Weights, state dict and training stay as
    they are."""
    if not _AVAILABLE:
        return
    groups = [[layer] for layer in module.modules() if type(layer) is nn.Linear]
    for parent in module.modules():
        siblings = ([parent._modules.get(name) for name in names] for names in _TOGETHER)
        groups += [layers for layers in siblings if _go_together(layers)]
    for layers in groups:
        weights = PackedWeights(layers)
        for position, layer in enumerate(layers):
            layer.forward = PackedForward(layer, weights, position)


def _go_together(layers: Sequence[nn.Module | None]) -> bool:
    return all(type(layer) is nn.Linear for layer in layers) and (
        len({(layer.in_features, layer.bias is None) for layer in layers}) == 1
    )


@dataclass(frozen=True)
class _Packed:
    """Weights in blocks, and what they were made of."""

    weight: Tensor
    bias: Tensor | None
    stamps: list[tuple[float, ...]]
    # kept, so that no other weights come to lie in their place
    sources: list[Tensor]


class PackedWeights:
    """The weights of a layer, or of layers that see the same input, as one. They take as much memory as the layers' own.

    They are packed when they are first needed, and again where they were changed: by a training, of which a layer sees a
    forward pass, in place or by other tensors. What is written into ``.data``, as when an adapter is merged, is seen by some
    values of each weight. Several threads may use them at once.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        self.packed: _Packed | None = None
        # of each thread: an input and what the layers that were not asked yet make of it
        self.local = threading.local()

    def forget(self) -> None:
        # asked for at every step of a training, where there is nothing to forget
        if self.packed is not None:
            self.packed, self.local = None, threading.local()

    def output(self, values: Tensor, position: int) -> Tensor | None:
        """What one of the layers makes of values; None where the weights cannot be packed.

        The first that is asked works for all. The others find theirs, once and for this very tensor, which must not
        change in between.
        """
        asked, outputs = getattr(self.local, "waiting", (None, []))
        if asked is not values or outputs[position] is None:
            packed = self._current()
            if packed is None:
                return None
            product = torch.ops.mkldnn._linear_pointwise(values, packed.weight, packed.bias, "none", [], "")
            if len(self.layers) == 1:
                return product
            outputs = list(product.split([layer.out_features for layer in self.layers], dim=-1))
            self.local.waiting = values, outputs
        output, outputs[position] = outputs[position], None
        if all(left is None for left in outputs):
            self.local.waiting = None, []
        return output

    def _current(self) -> _Packed | None:
        parameters = [layer._parameters for layer in self.layers]
        weights, biases = ([given.get(name, _ELSEWHERE) for given in parameters] for name in ("weight", "bias"))
        biases = [bias for bias in biases if bias is not None]
        sources = weights + biases
        if not all(map(_can_be_packed, sources)):
            return None
        stamps = [(source.data_ptr(), source._version) for source in sources]
        # of what is written into `.data` nobody is told; the bias of a single layer is used as it is
        stamps += [(_sample(source),) for source in (weights + biases if len(weights) > 1 else weights)]
        packed = self.packed
        if packed is None or packed.stamps != stamps:
            weight = torch.ops.mkldnn._reorder_linear_weight(_joined(weights), None)
            bias = _joined(biases) if biases else None
            # replaced as one, because of the threads
            self.packed = packed = _Packed(weight, bias, stamps, [source.detach() for source in sources])
        return packed

    def __getstate__(self) -> dict[str, Any]:
        # packed weights can be neither copied nor pickled
        return {"layers": self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["layers"])


def _can_be_packed(source: Any) -> bool:
    """Whether a weight can be packed. Of one made in inference mode no one could tell whether it was changed."""
    plain = type(source) is nn.Parameter and source.dtype is torch.float32 and source.is_cpu
    return plain and not source.is_inference()


def _sample(source: Tensor) -> float:
    """The sum of some values from all over a weight, or of a bias."""
    if source.dim() == 1 or not source.is_contiguous():
        return source.sum().item()
    step = -(-source.numel() // _SAMPLED)
    return source.as_strided((source.numel() // step,), (step,)).sum().item()


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0].detach()


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is nothing but the product with its own weights, so that these may be used without it: no adapter,
    hook or offloading, and not quantised, pruned or parametrized."""
    # the mappings take a fraction of the time of a module's attributes
    own = layer.__dict__
    parameters = own["_parameters"]
    return (
        type(layer) is nn.Linear
        and type(parameters.get("weight")) is nn.Parameter
        and "bias" in parameters
        and not own["_forward_pre_hooks"]
        and not own["_forward_hooks"]
        # accelerate's, which brings the weights
        and "_hf_hook" not in own
    )


class PackedForward:
    """The forward pass of a linear layer: from packed weights in inference mode, over few rows, in fp32 on a CPU; else
    as ever.

    Args:
        layer: the layer.
        weights: its packed weights.
        position: its place among the layers of these.
    """

    def __init__(self, layer: nn.Linear, weights: PackedWeights, position: int) -> None:
        self.layer, self.weights, self.position = layer, weights, position

    def __call__(self, values: Tensor) -> Tensor:
        if not is_plain(self.layer) or torch.compiler.is_compiling():
            return F.linear(values, self.layer.weight, self.layer.bias)
        weight, bias = self.layer._parameters["weight"], self.layer._parameters["bias"]
        if torch.is_grad_enabled() or not values.is_cpu or values.dtype is not torch.float32:
            # fused optimizers do not count their changes, and elsewhere packed weights are of no use
            self.weights.forget()
            return F.linear(values, weight, bias)
        output = None
        if (
            torch.is_inference_mode_enabled()
            and 0 < values.numel() <= MAX_ROWS * values.shape[-1]
            and not torch.is_autocast_enabled("cpu")
        ):
            output = self.weights.output(values, self.position)
        return F.linear(values, weight, bias) if output is None else output
