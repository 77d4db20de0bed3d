"""The stages "gradients" and "trained": gradients of the input and of every parameter, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Capability, Runner
from maam.errors import install_command
from maam.parity.kinks import GradientReference, Settled, calm_batch, crossings, named_gradients, smoothed
from maam.parity.report import Findings, Row, row, skip
from maam.parity.subject import RANDOM, Subject, allowance, has_dropout
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

Array = np.ndarray[Any, Any]
FRESH = "gradients, fresh weights"
SMOOTH = "gradients, smooth activations"
PARTS = "gradients, part by part"
TRAINED = "gradients, trained weights"
CENTRAL = "gradient reference, central differences"
INPUT = "the input"
"""The name of the input in reports."""
EPSILON = float(np.finfo(np.float32).eps)
_BATCHES = 4
"""The number of batches from which a part chooses a calm one."""
_STEP = 1e-6
_TRAINING_STEPS = 20


def compare_gradients(subject: Subject, suspect: str = "") -> Findings:
    """Compare gradients at fresh weights with PyTorch in float64, and that with central differences in NumPy.

    A network with a crowd of kinks is compared in three ways: unchanged, with smooth activations, and part by part.
    """
    if obstacle := _obstacle(subject):
        return Findings(skip([FRESH], subject.runner_names, obstacle))
    index, reference = calm_batch(subject, subject.fresh, subject.cotangent)
    if not (reference.crowded or reference.on_kinks):
        central = _compare_central_differences(subject, index, reference)
        return Findings([central, *_compare_bounded(subject, index, reference, FRESH, suspect or central.layer)])
    smooth = smooth_subject(subject)
    chosen = calm_batch(smooth, smooth.fresh, smooth.cotangent)
    central = _compare_central_differences(smooth, *chosen)  # a step would move values across their kinks
    suspect = suspect or central.layer
    if not reference.crowded:
        return Findings([central, *_compare_bounded(subject, index, reference, FRESH, suspect)])
    return Findings(
        [
            central,
            *_compare_crowded(subject, index, reference, suspect),
            *_compare_bounded(smooth, *chosen, SMOOTH, suspect),
            *_compare_parts(subject, suspect),
        ]
    )


def compare_trained_gradients(subject: Subject, suspect: str = "") -> Findings:
    """Compare gradients at trained weights: their error may be three times that of float32 PyTorch."""
    if obstacle := _obstacle(subject):
        return Findings(skip([TRAINED], subject.runner_names, obstacle))
    arrays = _trained_arrays(subject)
    index, reference = calm_batch(subject, arrays, subject.cotangent)
    x, cotangent = subject.batch(index)[0], subject.cotangent(index)
    assert subject.single is not None
    single = named_gradients(subject.single, arrays, x, cotangent)
    own = root_mean_square(_errors(single, reference.settle(single), reference).values())
    rows = []
    for runner in subject.runners:
        factor = TRAINED_GRADIENT_FACTOR * allowance(runner, subject.spec).trained
        actual = _gradients_of(runner, arrays, x, cotangent)
        settled = reference.settle(actual)
        if reference.crowded:  # the sides of kinks are unknown, so PyTorch's error is that of several runs
            found, bound, layer = _against_noise(actual, reference, factor)
        else:
            found, bound, layer = _against_own(_errors(actual, settled, reference), own, factor)
            layer = _find_unused(actual, reference) or layer
        rows.append(row(TRAINED, runner.name, found, bound, suspect or layer, crossings(settled.crossed)))
    return Findings(rows)


def smooth_subject(subject: Subject) -> Subject:
    """Return a subject with the same weights and images whose activations have no kinks."""
    return subject.clone_with(smoothed(subject.spec), subject.fresh, subject.images, subject.labels)


def _obstacle(subject: Subject) -> str:
    """Return the reason why gradients cannot be compared; empty if they can."""
    if subject.double is None:
        return f"gradients are compared with PyTorch in float64; run: {install_command('torch')}"
    return RANDOM if has_dropout(subject.spec) else ""


def _compare_bounded(
    subject: Subject, index: int, reference: GradientReference, stage: str, suspect: str
) -> Iterator[Row]:
    """Compare every element in batch `index` with its bound."""
    for runner in subject.runners:
        found, crossed, layer = _hold(runner, subject, subject.fresh, index, reference)
        yield row(stage, runner.name, found, GRADIENT, suspect or layer, crossings(crossed))


def _compare_crowded(subject: Subject, index: int, reference: GradientReference, suspect: str) -> Iterator[Row]:
    """Compare the size of the error in batch `index` with that of float32 PyTorch."""
    for runner in subject.runners:
        actual = _gradients_of(runner, subject.fresh, subject.batch(index)[0], subject.cotangent(index))
        found, bound, layer = _against_noise(actual, reference)
        yield row(FRESH, runner.name, found, bound, suspect or layer, f"{reference.near:,} values near kinks")


def _compare_parts(subject: Subject, suspect: str) -> Iterator[Row]:
    """Compare the parts of a network, each with its own weights and its own input in the network."""
    x, _ = subject.batch(0, _BATCHES * subject.batch_size)
    inputs = subject.layer_inputs(x, training=True, arrays=subject.fresh)
    parts = list(_parts(replace(subject, runners=[]), "", inputs))
    for runner in subject.runners:
        if Capability.SINGLE_LAYERS not in runner.capabilities:
            continue
        worst, first, crossed = NONE, "", 0
        for path, part, index, reference in parts:
            found, count, layer = _hold(runner.clone_with(part.spec, part.arrays), part, part.arrays, index, reference)
            worst, crossed = worse(worst, found), crossed + count
            first = first or (f"{path}.{layer}" if found.used > 1 else "")
        note = "; ".join(filter(None, (f"{len(parts)} parts", crossings(crossed))))
        yield row(PARTS, runner.name, worst, GRADIENT, suspect or first, note)


def _parts(
    subject: Subject, path: str, inputs: Mapping[str, Array]
) -> Iterator[tuple[str, Subject, int, GradientReference]]:
    """Yield the largest nodes with parameters and without a crowd of kinks; a crowded node is divided."""
    node = subject.spec.at(path)
    if not any(parameter.trainable for parameter in node.parameters()):
        return
    start = f"{path}." if path else ""
    arrays = {p.name: subject.fresh[f"{start}{p.name}"] for p in node.parameters()}
    images = inputs[path]
    part = subject.clone_with(node, arrays, images, np.zeros(len(images), np.int32))
    index, reference = calm_batch(part, arrays, part.cotangent)
    if reference.crowded and node.nodes:
        for name in node.nodes:
            yield from _parts(subject, f"{start}{name}", inputs)
    else:
        yield path, part, index, reference


def _gradients_of(runner: Runner, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> dict[str, Array]:
    """Return a runner's gradients with `arrays`, and restore the model's arrays."""
    before = runner.read_arrays()
    found = named_gradients(runner, arrays, x, cotangent)
    runner.write_arrays(before)
    return found


def _hold(
    runner: Runner, subject: Subject, arrays: Mapping[str, Array], index: int, reference: GradientReference
) -> tuple[Difference, int, str]:
    """Compare a runner's gradients in batch `index` with their bounds.

    Returns:
        The largest difference, the number of kinks crossed, and the differing parameter nearest to the output, because
        a fault spreads backwards. A parameter without any gradient is named first: the framework does not use it.
    """
    actual = _gradients_of(runner, arrays, subject.batch(index)[0], subject.cotangent(index))
    settled = reference.settle(actual)
    worst, layer = NONE, ""
    for name, gradient in settled.gradients.items():
        slack = reference.credit(name) * reference.largest[name]
        found = difference(actual[name], gradient, GRADIENT, reference.floor, slack)
        layer = (name or INPUT) if found.used > 1 else layer
        worst = worse(worst, found)
    return worst, settled.crossed, _find_unused(actual, reference) or layer


def _find_unused(actual: Mapping[str, Array], reference: GradientReference) -> str:
    """Return the last parameter whose gradient is 0 in all elements, but not in the reference; "" if there is none."""
    unused = ""
    for name, gradient in actual.items():
        if name and not gradient.any() and reference.share(name, reference.gradients[name]) > GRADIENT.absolute:
            unused = name
    return unused


def _against_noise(
    actual: Mapping[str, Array], reference: GradientReference, factor: float = CROWDED_FACTOR
) -> tuple[Difference, str, str]:
    """Compare the errors with PyTorch's measured noise: the root mean square of the largest error of each tensor."""
    errors = {name: reference.share(name, array - reference.gradients[name]) for name, array in actual.items()}
    found, bound, layer = _against_own(errors, root_mean_square(reference.noise.values()), factor)
    return found, bound, _find_unused(actual, reference) or layer


def _against_own(errors: Mapping[str, float], own: float, factor: float) -> tuple[Difference, str, str]:
    """Return the root mean square of the errors in units of PyTorch's `own`, the bound as text, the worst tensor."""
    size = root_mean_square(errors.values())
    own = max(own, EPSILON)  # PyTorch's error is 0 if all gradients are exact
    layer = max(errors, key=lambda name: errors[name]) or INPUT
    return Difference(np.nan, size, size / (factor * own)), f"{factor:.0f} x {own:.1e}", layer


def _errors(actual: dict[str, Array], settled: Settled, reference: GradientReference) -> dict[str, float]:
    """Return the norm of each tensor's error as a share of the norm of its gradient."""
    errors = {}
    for name, gradient in settled.gradients.items():
        size = max(float(np.linalg.norm(gradient)), reference.floor * np.sqrt(gradient.size))
        errors[name] = float(np.linalg.norm(actual[name].astype(np.float64) - gradient)) / size
    return errors


def _compare_central_differences(subject: Subject, index: int, reference: GradientReference) -> Row:
    """Compare one entry of each parameter's gradient with (f(w + h) - f(w - h)) / 2h of the NumPy forward pass."""
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
        reference = ReferenceModel(subject.spec, subject.fresh)
        reference.arrays[name][entry] += sign * _STEP
        values.append(float((reference(x, training=True) * cotangent).sum()))
    return (values[0] - values[1]) / (2 * _STEP)


def _trained_arrays(subject: Subject) -> Mapping[str, Array]:
    """Return the subject's own weights; if these are the fresh ones, train them for a few steps first."""
    is_fresh = all(np.array_equal(array, subject.fresh[name]) for name, array in subject.arrays.items())
    if not is_fresh or not subject.has_logits:
        return subject.arrays
    assert subject.double is not None
    runner = subject.double.clone_with(subject.spec, subject.arrays)
    trainer = runner.trainer(Optimizer(lr=0.02))
    for index in range(_TRAINING_STEPS):
        trainer.step(*subject.batch(index, 16), 0.02)
    return runner.read_arrays()
