"""AdamW as BERT's and SpERT's code have it: without the correction of its moments' bias."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class UncorrectedAdamW(torch.optim.Optimizer):
    """AdamW whose step is ``lr * m / (sqrt(v) + eps)``, with the moments as they are (SpERT: ``correct_bias=False``).

    Adam divides the two moments by what they lack at the start of a training (Kingma & Ba 2015, Algorithm 1). Without
    it the t-th step is larger by (1 - beta1^t) / sqrt(1 - beta2^t): 6.5 times at the 10th step, 2.3 times at the
    200th, 1.3 times at the 1000th. The decay is decoupled.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            first, second = self._moments(weights)
            torch._foreach_lerp_(first, gradients, 1 - group["betas"][0])
            torch._foreach_mul_(second, group["betas"][1])
            torch._foreach_addcmul_(second, gradients, gradients, 1 - group["betas"][1])
            scale = torch._foreach_sqrt(second)
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(weights, first, scale, -group["lr"])
        return loss

    def _moments(self, weights: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        states = [self.state[weight] for weight in weights]
        return [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
