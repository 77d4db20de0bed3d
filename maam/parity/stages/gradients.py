"""Gradients of the input and of every parameter, by name, at fresh and at trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maam.parity.bounds import GRADIENT, NONE, TRAINED_GRADIENT_FACTOR, Difference, root_mean_square, worse
from maam.parity.kinks import Reference, Settled, calm_batch, crossings, named_gradients
from maam.parity.overrides import rounding
from maam.parity.report import Report, Row, not_run, row
from maam.parity.stages.crowded_gradients import (
    EPSILON,
    FRESH,
    against_rounding,
    compare_crowded,
    compare_parts,
    compare_smooth,
    gradients_of,
    hold,
    smooth_subject,
)
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.reference import Referee
from maam.training import Optimizer, Runner

Array = np.ndarray[Any, Any]
TRAINED = "gradients, trained weights"
CENTRAL = "gradient referee, central differences"
_STEP = 1e-6
_TRAINING_STEPS = 20


def compare_gradients(subject: Subject, report: Report) -> Iterator[Row]:
    """At freshly initialised weights, against PyTorch in float64, itself held to the NumPy forward."""
    if (reason := _obstacle(subject)) is not None:
        for runner in subject.runners:
            yield from not_run([FRESH], runner.name, reason)
        return
    index, reference = calm_batch(subject, subject.fresh, subject.cotangent)
    if reference.crowded:
        smooth = smooth_subject(subject)
        chosen = calm_batch(smooth, smooth.fresh, smooth.cotangent)
        yield _central_differences(smooth, *chosen)  # a step would take many values across their kinks
        yield from compare_crowded(subject, report, index, reference)
        yield from compare_smooth(smooth, report, *chosen)
        yield from compare_parts(subject, report)
        return
    yield _central_differences(subject, index, reference)
    for runner in subject.runners:
        worst, crossed, layer = hold(runner, subject, subject.fresh, index, reference)
        yield row(FRESH, runner.name, worst, GRADIENT, report.first_difference or layer, crossings(crossed))


def compare_trained_gradients(subject: Subject, report: Report) -> Iterator[Row]:
    """At trained weights: no further from float64 than three times as far as PyTorch in float32 is."""
    if (reason := _obstacle(subject)) is not None:
        for runner in subject.runners:
            yield from not_run([TRAINED], runner.name, reason)
        return
    arrays = _trained(subject)
    index, reference = calm_batch(subject, arrays, subject.cotangent)
    x, cotangent = subject.batch(index)[0], subject.cotangent(index)
    assert subject.single is not None
    single = named_gradients(subject.single, arrays, x, cotangent)
    own = root_mean_square(_errors(single, reference.settle(single), reference).values())
    for runner in subject.runners:
        factor = TRAINED_GRADIENT_FACTOR * rounding(runner.name, subject.spec).trained
        actual = gradients_of(runner, arrays, x, cotangent)
        settled = reference.settle(actual)
        if reference.crowded:  # one run's error says little: the sides of kinks are not settled
            found, bound, layer = against_rounding(actual, reference, factor)
        else:
            found, bound, layer = _against_own(_errors(actual, settled, reference), own, factor)
        yield row(TRAINED, runner.name, found, bound, report.first_difference or layer, crossings(settled.crossed))


def _against_own(errors: Mapping[str, float], own: float, factor: float) -> tuple[Difference, str, str]:
    """The root mean square of the errors against PyTorch's own; the bound; the worst tensor."""
    size = root_mean_square(errors.values())
    layer = max(errors, key=lambda name: errors[name]) or "the input"
    return Difference(np.nan, size, size / (factor * max(own, EPSILON))), f"{factor:.0f} x {own:.1e}", layer


def _obstacle(subject: Subject) -> str | None:
    if subject.double is None:
        return "the referee of gradients is PyTorch in float64; run: pip install 'maam[torch]'"
    if has_dropout(subject.spec):
        return RANDOM
    return None


def _central_differences(subject: Subject, index: int, reference: Reference) -> Row:
    """One entry of every parameter: (f(w + h) - f(w - h)) / 2h of the NumPy forward against the gradient."""
    x, cotangent = subject.batch(index)[0], subject.cotangent(index)
    generator = np.random.default_rng([subject.seed, 19])
    worst, layer = NONE, ""
    for name, gradient in reference.gradients.items():
        entry = tuple(generator.integers(0, size) for size in gradient.shape)
        if name:
            measured = _slope(subject, x, cotangent, name, entry)
            gap = abs(measured - gradient[entry])
            found = Difference(gap, gap / reference.largest[name], gap / reference.largest[name] / GRADIENT.absolute)
            layer = layer or name if found.used > 1 else layer
            worst = worse(worst, found)
    return row(CENTRAL, "torch float64", worst, GRADIENT, layer)


def _slope(subject: Subject, x: Array, cotangent: Array, name: str, entry: tuple[int, ...]) -> float:
    values = []
    for sign in (1, -1):
        referee = Referee(subject.spec, subject.fresh)
        referee.arrays[name][entry] += sign * _STEP
        values.append(float((referee(x, training=True) * cotangent).sum()))
    return (values[0] - values[1]) / (2 * _STEP)


def _trained(subject: Subject) -> Mapping[str, Array]:
    """The subject's own weights; where they are the fresh ones, these after a few steps in PyTorch."""
    own = all(np.array_equal(array, subject.fresh[name]) for name, array in subject.arrays.items())
    if not own or len(subject.spec.output_shape(subject.images.shape[1:])) != 1:
        return subject.arrays
    assert subject.double is not None
    runner: Runner = subject.double.sibling(subject.spec, subject.arrays)
    trainer = runner.trainer(Optimizer(lr=0.02))
    for index in range(_TRAINING_STEPS):
        trainer.step(*subject.batch(index, 16), 0.02)
    return runner.read_arrays()


def _errors(actual: dict[str, Array], settled: Settled, reference: Reference) -> dict[str, float]:
    """For each tensor, the norm of the error as a share of the norm of the gradient."""
    errors = {}
    for name, gradient in settled.gradients.items():
        size = max(float(np.linalg.norm(gradient)), reference.floor * np.sqrt(gradient.size))
        errors[name] = float(np.linalg.norm(actual[name].astype(np.float64) - gradient)) / size
    return errors
