"""What changes from step to step, as functions of the step: all that a run needs to go on anywhere is the step."""

from __future__ import annotations

import math

import numpy as np

from maam.training.recipe import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate of step 0 <= `step` < `steps`; `peak` is the optimizer's `lr`."""
    if schedule.name == "one_cycle":
        return one_cycle(step, steps, peak, warmup=schedule.warmup, start=schedule.start)
    if schedule.name == "cosine":
        return cosine(step, steps, peak, warmup=schedule.warmup, start=schedule.start)
    if schedule.name == "step":
        return peak * schedule.gamma ** (step // (schedule.step_epochs * steps_per_epoch))
    return peak


def one_cycle(step: int, total: int, peak: float, *, warmup: float = 0.3, start: float = 0.04) -> float:
    """The learning rate at `step` of `total`: a cosine from `start * peak` to `peak`, then a cosine down to 0.

    Smith's one-cycle policy (arXiv 1708.07120); `warmup` is the share of the steps on the way up.
    """
    turn = warmup * total
    if step < turn:
        return peak * (start + (1 - start) * (1 - math.cos(math.pi * step / turn)) / 2)
    return _cosine_down(step - turn, total - turn, peak)


def cosine(step: int, total: int, peak: float, *, warmup: float = 0.0, start: float = 0.0) -> float:
    """The learning rate at `step` of `total`: a line from `start * peak` to `peak`, then a cosine down to 0.

    Loshchilov and Hutter's SGDR without restarts (arXiv 1608.03983).
    """
    turn = warmup * total
    if step < turn:
        return peak * (start + (1 - start) * step / turn)
    return _cosine_down(step - turn, total - turn, peak)


def average_decay(decay: float | None, step: int) -> float:
    """The decay of the moving average at `step`: short at first, so that it forgets the initial weights."""
    return min(decay or 0.0, (1 + step) / (10 + step))


def mask_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout masks in a process: of nothing that a resumed run would have to remember."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _cosine_down(step: float, total: float, peak: float) -> float:
    return peak * (1 + math.cos(math.pi * min(step / max(total, 1e-9), 1.0))) / 2
