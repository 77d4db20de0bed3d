"""Gradients of a network in which too many values stand near kinks to tell on which side a framework took each.

Three rows hold it instead of one: the network as it is, to a multiple of what rounding does to PyTorch itself; the same
network with smooth activations, to the bound of gradients; and its parts, each alone on the input that it has there,
to the bound of gradients again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from maam.parity.bounds import CROWDED_FACTOR, GRADIENT, NONE, Difference, difference, root_mean_square, worse
from maam.parity.kinks import Reference, Settled, calm_batch, crossings, named_gradients
from maam.parity.report import Report, Row, row
from maam.parity.smoothing import smoothed
from maam.parity.subject import Subject
from maam.training import Runner

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
        if runner.name == "torch compiled":
            continue
        worst, first, crossed = NONE, "", 0
        for path, part, index, reference in parts:
            found, count, layer = hold(runner.sibling(part.spec, part.arrays), part, part.arrays, index, reference)
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
