"""Learning-rate schedules, as functions of the step."""

from __future__ import annotations

import math


def one_cycle(step: int, total: int, peak: float, *, warmup: float = 0.3, start: float = 0.04) -> float:
    """The learning rate at `step` of `total`: a cosine from `start * peak` to `peak`, then a cosine down to 0.

    Smith's one-cycle policy (arXiv 1708.07120); `warmup` is the share of the steps on the way up.
    """
    turn = max(warmup * total, 1e-9)
    if step < turn:
        return peak * (start + (1 - start) * (1 - math.cos(math.pi * step / turn)) / 2)
    return peak * (1 + math.cos(math.pi * min((step - turn) / max(total - turn, 1e-9), 1.0))) / 2
