"""AdamW as BERT's and SpERT's code have it: without the correction of its moments' bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


class UncorrectedAdamW(torch.optim.AdamW):
    """AdamW whose step is ``lr * m / (sqrt(v) + eps)``, with the moments as they are (SpERT: ``correct_bias=False``).

    Adam divides the two moments by what they lack at the start of a training (Kingma & Ba 2015, Algorithm 1). Without
    it the t-th step is larger by (1 - beta1^t) / sqrt(1 - beta2^t): 6.5 times at the 10th step, 2.3 times at the
    200th, 1.3 times at the 1000th. The decay is decoupled.

    Args: as `torch.optim.AdamW`'s, with the defaults of transformers 4's AdamW.

    Raises:
        ValueError: `amsgrad`, which this is not.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-5,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("amsgrad"):
            raise ValueError("amsgrad = True is another kind of AdamW: take torch.optim.AdamW")
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, **kwargs)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and not self.state[weight]:
                    # after infinitely many steps nothing is left to correct: 1 - beta^inf = 1
                    steps = torch.tensor(math.inf, dtype=torch.float32)
                    self.state[weight] = {
                        "step": steps.to(weight.device) if group["fused"] else steps,
                        "exp_avg": torch.zeros_like(weight),
                        "exp_avg_sq": torch.zeros_like(weight),
                    }
        super().step()
        return loss
