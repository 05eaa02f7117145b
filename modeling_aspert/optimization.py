"""AdamW as BERT's and SpERT's code have it: without the correction of its moments' bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


class UncorrectedAdamW(torch.optim.AdamW):
    """AdamW whose step is ``lr * m / (sqrt(v) + eps)``, with the moments as they are (SpERT: ``correct_bias=False``).

    Adam divides the two moments by what they lack at the start of a training (Kingma & Ba 2015, Algorithm 1). Without
    it the t-th step is larger by (1 - beta1^t) / sqrt(1 - beta2^t): 6.5 times at the 10th step, 2.3 times at the
    200th, 1.3 times at the 1000th. The decay is not scaled.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        asked = [(group["lr"], group["eps"], group["weight_decay"]) for group in self.param_groups]
        for group, (rate, eps, decay) in zip(self.param_groups, asked):
            # in the group, so that a checkpoint keeps it
            group["taken"] = group.get("taken", 0) + 1
            first = 1 - group["betas"][0] ** group["taken"]
            second = math.sqrt(1 - group["betas"][1] ** group["taken"])
            group.update(lr=rate * first / second, eps=eps / second, weight_decay=decay * second / first)
        try:
            return super().step(closure)
        finally:
            for group, (rate, eps, decay) in zip(self.param_groups, asked):
                group.update(lr=rate, eps=eps, weight_decay=decay)
