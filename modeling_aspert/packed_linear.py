"""Linear layers whose weights lie ready in oneDNN's order, for few sub-words at a time on a CPU.

A matrix product first brings its weights into blocks. Over few rows that takes about as long as the product itself, and
PyTorch's own product then hardly uses a second thread. With the weights in blocks already, a short sentence takes less
time, most of all with several threads. Many rows gain nothing.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Sub-words of a batch up to which the product from packed weights is the faster one.
MAX_ROWS = 64
# the operations that torch.compile's own code is made of; a build without oneDNN does not have them
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack_linears(module: nn.Module) -> None:
    """Let all linear layers of a module take packed weights in inference mode. Weights, state dict and training stay as
    they are."""
    if _AVAILABLE:
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.forward = PackedForward(layer)


class PackedForward:
    """The forward pass of a linear layer: from packed weights in inference mode, over few rows, in fp32 on a CPU; else
    as ever.

    The weights are packed when they are first needed, and again where they were changed: by a training, of which this
    layer sees a forward pass, in place or by other tensors. (What is written into ``weight.data`` in evaluation mode
    nobody is told of.) They take as much memory as the layer's own.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self._forget()

    def __call__(self, values: Tensor) -> Tensor:
        # the mapping takes a fraction of the time of the module's attributes
        parameters = self.layer._parameters
        weight, bias = parameters["weight"], parameters["bias"]
        if torch.compiler.is_compiling():
            return F.linear(values, weight, bias)
        if torch.is_grad_enabled() or not values.is_cpu or values.dtype is not torch.float32:
            # fused optimizers do not count their changes, and elsewhere packed weights are of no use
            self._forget()
            return F.linear(values, weight, bias)
        if (
            not torch.is_inference_mode_enabled()
            or not 0 < values.numel() <= MAX_ROWS * values.shape[-1]
            or torch.is_autocast_enabled("cpu")
            or not self._are_packed(weight)
        ):
            return F.linear(values, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(values, self._packed, bias, "none", [], "")

    def _are_packed(self, weight: Tensor) -> bool:
        # of weights made in inference mode no one can tell whether they were changed
        if weight.is_inference() or weight.dtype is not torch.float32:
            return False
        if self._pointer != weight.data_ptr() or self._version != weight._version:
            self._source = weight.detach()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._source, None)
            self._pointer, self._version = weight.data_ptr(), weight._version
        return True

    def _forget(self) -> None:
        self._packed: Tensor | None = None
        # kept, so that no other weights come to lie in its place
        self._source: Tensor | None = None
        self._pointer = self._version = -1

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedForward:
        # packed weights cannot be copied
        return PackedForward(copy.deepcopy(self.layer, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedForward, (self.layer,)
