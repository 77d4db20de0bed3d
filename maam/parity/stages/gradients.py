"""Gradients of the input and of every parameter, by name, at fresh and at trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from maam.backend.protocol import Capability
from maam.parity.kinks import Reference, Settled, calm_batch, crossings, named_gradients, smoothed
from maam.parity.report import Report, Row, not_run, row
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.parity.tolerance import rounding
from maam.reference import ReferenceModel
from maam.tolerance import (
    CROWDED_FACTOR,
    GRADIENT,
    NONE,
    TRAINED_GRADIENT_FACTOR,
    Difference,
    difference,
    root_mean_square,
    worse,
)
from maam.training import Optimizer, Runner

Array = np.ndarray[Any, Any]
FRESH = "gradients, fresh weights"
SMOOTH = "gradients, smooth activations"
PARTS = "gradients, part by part"
EPSILON = float(np.finfo(np.float32).eps)
_BATCHES = 4
"""How many batches of inputs a part has to choose a calm one from."""


def compare_crowded(subject: Subject, report: Report, index: int, reference: Reference) -> Iterator[Row]:
    """The network as it is; `reference` is that of batch `index` at the subject's fresh weights."""
    for runner in subject.runners:
        actual = gradients_of(runner, subject.fresh, subject.batch(index)[0], subject.cotangent(index))
        found, bound, layer = against_rounding(actual, reference)
        note = f"{reference.near:,} values near kinks"
        yield row(FRESH, runner.name, found, bound, report.first_difference or layer, note)


def compare_smooth(smooth: Subject, report: Report, index: int, reference: Reference) -> Iterator[Row]:
    """The network with smooth activations; `reference` is that of its batch `index`."""
    for runner in smooth.runners:
        found, crossed, layer = hold(runner, smooth, smooth.fresh, index, reference)
        yield row(SMOOTH, runner.name, found, GRADIENT, report.first_difference or layer, crossings(crossed))


def smooth_subject(subject: Subject) -> Subject:
    """The same weights and images in networks whose activations have no kinks."""
    return subject.alike(smoothed(subject.spec), subject.fresh, subject.images, subject.labels)


def gradients_of(runner: Runner, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> dict[str, Array]:
    """A runner's gradients with `arrays`; what its model held stays in it."""
    before = runner.read_arrays()
    found = named_gradients(runner, arrays, x, cotangent)
    runner.write_arrays(before)
    return found


def hold(
    runner: Runner, subject: Subject, arrays: Mapping[str, Array], index: int, reference: Reference
) -> tuple[Difference, int, str]:
    """A runner's gradients in batch `index`, held to the bound: the worst, the kinks crossed, where it differs."""
    actual = gradients_of(runner, arrays, subject.batch(index)[0], subject.cotangent(index))
    settled = reference.settle(actual)
    worst, layer = _compare(actual, settled, reference)
    return worst, settled.crossed, layer


def against_rounding(
    actual: Mapping[str, Array], reference: Reference, factor: float = CROWDED_FACTOR
) -> tuple[Difference, str, str]:
    """The root mean square over the tensors of the worst error, against PyTorch's own; the bound; the worst tensor."""
    errors = {name: reference.share(name, array - reference.gradients[name]) for name, array in actual.items()}
    size = root_mean_square(errors.values())
    own = max(root_mean_square(reference.noise.values()), EPSILON)  # where all gradients are exact, there is none
    layer = max(errors, key=lambda name: errors[name]) or "the input"
    return Difference(np.nan, size, size / (factor * own)), f"{factor:.0f} x {own:.1e}", layer


def _compare(actual: dict[str, Array], settled: Settled, reference: Reference) -> tuple[Difference, str]:
    """The worst difference, and the differing parameter nearest to the output: a fault spreads backwards."""
    worst, layer = NONE, ""
    for name, gradient in settled.gradients.items():
        slack = reference.credit(name) * reference.largest[name]
        found = difference(actual[name], gradient, GRADIENT, reference.floor, slack)
        layer = (name or "the input") if found.used > 1 else layer
        worst = worse(worst, found)
    return worst, layer


def compare_parts(subject: Subject, report: Report) -> Iterator[Row]:
    """Each part in each runner's mode; a part alone is never compiled by torch.compile, as no layer is."""
    parts = list(_parts(replace(subject, runners=[]), "", _inputs(subject)))
    for runner in subject.runners:
        if Capability.SINGLE_LAYERS not in runner.capabilities:
            continue
        worst, first, crossed = NONE, "", 0
        for path, part, index, reference in parts:
            found, count, layer = hold(runner.clone_with(part.spec, part.arrays), part, part.arrays, index, reference)
            worst, crossed = worse(worst, found), crossed + count
            first = first or (f"{path}.{layer}" if found.used > 1 else "")
        note = "; ".join(filter(None, (f"{len(parts)} parts", crossings(crossed))))
        yield row(PARTS, runner.name, worst, GRADIENT, report.first_difference or first, note)


def _parts(subject: Subject, path: str, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Subject, int, Reference]]:
    """The largest nodes with parameters whose kinks are few; of a crowded one, the nodes inside."""
    node = subject.spec.at(path)
    if not any(parameter.trainable for parameter in node.parameters()):
        return
    start = f"{path}." if path else ""
    arrays = {p.name: subject.fresh[f"{start}{p.name}"] for p in node.parameters()}
    images = inputs[path]
    part = subject.alike(node, arrays, images, np.zeros(len(images), np.int32))
    index, reference = calm_batch(part, arrays, part.cotangent)
    if reference.crowded and node.nodes:
        for name in node.nodes:
            yield from _parts(subject, f"{start}{name}", inputs)
    else:
        yield path, part, index, reference


def _inputs(subject: Subject) -> dict[str, Array]:
    """The referee's inputs of all nodes by path, float32, in train mode at fresh weights."""
    referee = subject.referee(subject.fresh)
    inputs: dict[str, Array] = {}
    referee.observer = lambda path, x, y: inputs.__setitem__(path, x.astype(np.float32))
    referee(subject.batch(0, _BATCHES * subject.batch_size)[0], training=True)
    return inputs


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
        referee = ReferenceModel(subject.spec, subject.fresh)
        referee.arrays[name][entry] += sign * _STEP
        values.append(float((referee(x, training=True) * cotangent).sum()))
    return (values[0] - values[1]) / (2 * _STEP)


def _trained(subject: Subject) -> Mapping[str, Array]:
    """The subject's own weights; where they are the fresh ones, these after a few steps in PyTorch."""
    own = all(np.array_equal(array, subject.fresh[name]) for name, array in subject.arrays.items())
    if not own or len(subject.spec.output_shape(subject.images.shape[1:])) != 1:
        return subject.arrays
    assert subject.double is not None
    runner: Runner = subject.double.clone_with(subject.spec, subject.arrays)
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
