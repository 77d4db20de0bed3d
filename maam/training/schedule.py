"""The learning rate, averaging decay and dropout seed as functions of the step, so that a resumed run repeats them."""

from __future__ import annotations

import math

import numpy as np

from maam.training.recipe import Lookahead, Recipe, Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    Args:
        schedule: the recipe's schedule.
        peak: the optimizer's `lr`.
        step: 0 <= step < steps.
        steps: the number of steps of the run.
        steps_per_epoch: the number of steps of an epoch.

    Example:
        >>> from maam.training import learning_rate, read_recipe
        >>> schedule = read_recipe("imagenet_maf").schedule  # divides the rate by 10 every 30 epochs
        >>> [round(learning_rate(schedule, 0.1, epoch * 50, 5000, 50), 4) for epoch in (0, 30, 60)]
        [0.1, 0.01, 0.001]
    """
    if schedule.name == "one_cycle":
        return one_cycle(step, steps, peak, warmup=schedule.warmup, start=schedule.start)
    if schedule.name == "cosine":
        return cosine(step, steps, peak, warmup=schedule.warmup, start=schedule.start)
    if schedule.name == "triangular":
        return triangular(step, steps, peak, warmup=schedule.warmup, start=schedule.start, end=schedule.end)
    if schedule.name == "step":
        return peak * schedule.gamma ** (step // (schedule.step_epochs * steps_per_epoch))
    return peak


def one_cycle(step: int, total: int, peak: float, *, warmup: float = 0.3, start: float = 0.04) -> float:
    """Return the learning rate of Smith's one-cycle policy (arXiv 1708.07120): a cosine up, then a cosine down to 0.

    Args:
        step: 0 <= step < total.
        total: the number of steps.
        peak: the largest learning rate.
        warmup: the share of the steps on the way up.
        start: the first learning rate, as a fraction of `peak`.

    Example:
        >>> from maam.training import one_cycle
        >>> [round(one_cycle(step, 100, 0.1), 3) for step in (0, 15, 30, 65, 99)]
        [0.004, 0.052, 0.1, 0.05, 0.0]
    """
    turn = warmup * total
    if step < turn:
        return peak * (start + (1 - start) * (1 - math.cos(math.pi * step / turn)) / 2)
    return _cosine_down(step - turn, total - turn, peak)


def cosine(step: int, total: int, peak: float, *, warmup: float = 0.0, start: float = 0.0) -> float:
    """Return the learning rate of a line up, then a cosine down to 0; arguments as in `one_cycle`.

    This is SGDR without restarts (Loshchilov and Hutter, arXiv 1608.03983).
    """
    turn = warmup * total
    if step < turn:
        return peak * (start + (1 - start) * step / turn)
    return _cosine_down(step - turn, total - turn, peak)


def triangular(
    step: int, total: int, peak: float, *, warmup: float = 0.0, start: float = 0.0, end: float = 0.0
) -> float:
    """Return the learning rate of a line up, then a line down to `end` times `peak`; other arguments as in `one_cycle`.

    Example:
        >>> from maam.training.schedule import triangular
        >>> [round(triangular(step, 100, 1.0, warmup=0.2, start=0.2), 2) for step in (0, 10, 20, 60)]
        [0.2, 0.6, 1.0, 0.5]
    """
    turn = warmup * total
    if step < turn:
        return peak * (start + (1 - start) * step / turn)
    return peak * (1 - (1 - end) * (step - turn) / max(total - turn, 1e-9))


def _cosine_down(step: float, total: float, peak: float) -> float:
    return peak * (1 + math.cos(math.pi * min(step / max(total, 1e-9), 1.0))) / 2


def average_decay(recipe: Recipe, step: int, steps: int) -> float | None:
    """Return the decay of the averages at a step of `steps`; None if the averages do not change in this step.

    The decay of `ema_decay` is small at first, to forget the initial weights quickly.
    """
    if recipe.lookahead.steps:
        return lookahead_decay(recipe.lookahead, step, steps)
    return min(recipe.ema_decay or 0.0, (1 + step) / (10 + step))


def lookahead_decay(lookahead: Lookahead, step: int, steps: int) -> float | None:
    """Return the decay of look-ahead averaging after a step, which grows with the cube of the share of steps done.

    The last step of a run averages, too, so that no step is lost. The first average is that of the current weights
    alone, because there is no earlier one but the initial weights.

    Example:
        >>> from maam.training.recipe import Lookahead
        >>> from maam.training.schedule import lookahead_decay
        >>> [lookahead_decay(Lookahead(steps=5, decay=0.8), step, 20) for step in (3, 4, 9, 19)]
        [None, 0.0, 0.1, 0.8]
    """
    done = step + 1
    if done % lookahead.steps and done < steps:
        return None
    return 0.0 if done <= lookahead.steps else lookahead.decay * (done / steps) ** 3


def mask_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the dropout masks of a step in the process `rank`."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
