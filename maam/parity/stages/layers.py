"""The stage "layers": each layer of a built model on the reference's input, compared with the reference's output.

Layers come before the container that holds them, so the first failure shows where the fault is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.backend.protocol import Capability, Runner
from maam.parity.report import Depth, Findings, Row, row, skip
from maam.parity.subject import RANDOM, WHOLE, Subject, has_dropout, is_deep
from maam.reference import ReferenceModel
from maam.spec import Activation, BatchNorm2d, MaxPool2d, Node
from maam.tolerance import LAYER, LOGITS, NONE, STATISTICS, Bound, Difference, difference, worse

Array = np.ndarray[Any, Any]
PROBES = "layers, probe inputs"
POINTS = np.concatenate([np.linspace(-8, 8, 65), [-50, -20, -12, 12, 20, 50]])
"""Inputs on both sides of each kink of an activation, or of a likely wrong one in its place: 0, 3, 6 and -3.

The inputs in a network need not reach these points. For example, ReLU6 equals ReLU for inputs up to 6.
"""


def compare_layers(subject: Subject, suspect: str = "") -> Findings:
    """Compare the outputs of all layers in eval and train mode, and the running statistics after the latter.

    Activations and max pooling are also compared on inputs on both sides of every kink.
    """
    rows: list[Row] = []
    depth: list[Depth] = []
    for training in (False, True):
        inputs = subject.layer_inputs(subject.batch(0)[0], training)
        for runner in subject.runners:
            if Capability.SINGLE_LAYERS not in runner.capabilities:
                continue
            walk = _Walk(subject, runner, inputs, training)
            if Capability.COSTLY_LAYERS in runner.capabilities:
                walk.from_top("")
            else:
                walk.all()
            runner.write_arrays(subject.arrays)
            rows += walk.rows()
            depth += walk.depth
    return Findings([*rows, *_compare_probes(subject)], depth)


def _compare_probes(subject: Subject) -> Iterator[Row]:
    """Compare each activation and max pooling on `POINTS`; where layers are costly, one of each kind."""
    given = subject.layer_inputs(subject.batch(0)[0], training=False)
    inputs = {path: probe_input(x) for path, x in given.items() if _bends(subject.spec.at(path))}
    reference = subject.reference()
    expected = {path: reference.run(path, x.astype(np.float64)) for path, x in inputs.items()}
    kinds = {subject.spec.at(path): path for path in reversed(inputs)}.values()
    for runner in subject.runners:
        if Capability.SINGLE_LAYERS not in runner.capabilities or not inputs:
            continue
        worst, first = NONE, ""
        paths = [path for path in inputs if Capability.COSTLY_LAYERS not in runner.capabilities or path in kinds]
        for path in paths:
            found = difference(runner.forward_layer(path, inputs[path], False), expected[path], LAYER)
            first = first or (path or WHOLE if found.used > 1 else "")
            worst = worse(worst, found)
        yield row(PROBES, runner.name, worst, LAYER, first, f"{len(paths)} layers")


def _bends(node: Node) -> bool:
    return isinstance(node, MaxPool2d) or (isinstance(node, Activation) and node.function != "identity")


def probe_input(x: Array) -> Array:
    """Return an input of the shape of `x`, or with more samples, in which each of `POINTS` occurs.

    In the second half of the samples all values are negative, as a maximum over zero padding would show.
    """
    samples = max(2 * -(-len(POINTS) * x.shape[0] // x.size), x.shape[0])
    values = np.resize(np.random.default_rng(29).permutation(POINTS), (samples, x.size // x.shape[0]))
    half = -(-samples // 2)
    found = np.concatenate([values[:half], -np.abs(values[: samples - half])])
    return found.astype(np.float32).reshape(samples, *x.shape[1:])


def layer_bound(node: Node) -> Bound:
    """Return the bound of a layer; for a deep container, in which rounding adds up, it is that of logits."""
    return LOGITS if is_deep(node) else LAYER


class _Walk:
    """The comparison of one runner in one mode, layer by layer."""

    def __init__(self, subject: Subject, runner: Runner, inputs: dict[str, Array], training: bool) -> None:
        self.subject = subject
        self.runner = runner
        self.inputs = inputs
        self.training = training
        self.mode = "train" if training else "eval"
        self.output = NONE
        self.statistics = NONE
        self.first = ""
        self.first_statistics = ""
        self.depth: list[Depth] = []
        runner.write_arrays(subject.arrays)

    def all(self) -> None:
        """Compare every layer, children before their container."""
        for path in self.inputs:
            self.one(path)

    def from_top(self, path: str) -> bool:
        """Compare the layer at `path`; if it differs or is random, compare its children first.

        The innermost layer that differs is then recorded first. Returns whether all agree.
        """
        if not self._is_random(path) and self.one(path, dry=True):
            return self.one(path)
        children = [f"{path}.{name}".removeprefix(".") for name in self.subject.spec.at(path).nodes]
        found = [self.from_top(child) for child in children if child in self.inputs]
        return self.one(path) and all(found)

    def one(self, path: str, dry: bool = False) -> bool:
        """Compare the layer at `path` and record the result unless `dry`; return whether it agrees."""
        node, x = self.subject.spec.at(path), self.inputs[path]
        if self._is_random(path):
            return True
        reference = self.subject.reference()
        expected = reference.run(path, x.astype(np.float64), self.training)
        found = difference(self.runner.forward_layer(path, x, self.training), expected, layer_bound(node))
        statistics = self._compare_statistics(reference, path) if self.training else NONE
        if self.training:
            self.runner.write_arrays(self.subject.arrays)
        if not dry:
            self._record(path, found, statistics, float(np.abs(expected).max(initial=0)))
        return found.used <= 1 and statistics.used <= 1

    def rows(self) -> list[Row]:
        """Return the rows of this runner and mode."""
        stage, name = f"layers, {self.mode}", self.runner.name
        if not self.depth:
            return skip([stage], [name], RANDOM)
        rows = []
        if self.training and any(isinstance(node, BatchNorm2d) for _, node in self.subject.spec.walk()):
            rows.append(row("running statistics", name, self.statistics, STATISTICS, self.first_statistics))
        deep = [path or WHOLE for path in self.inputs if layer_bound(self.subject.spec.at(path)) != LAYER]
        notes = [f"bound of deep containers ({', '.join(deep)}): {LOGITS}"] if deep else []
        notes += ["layers with dropout left out"] if any(map(self._is_random, self.inputs)) else []
        return [*rows, row(stage, name, self.output, LAYER, self.first, "; ".join(notes))]

    def _is_random(self, path: str) -> bool:
        return self.training and has_dropout(self.subject.spec.at(path))

    def _record(self, path: str, found: Difference, statistics: Difference, largest: float) -> None:
        self.depth.append(Depth(self.runner.name, self.mode, path, found.absolute, largest))
        self.first = self.first or path or WHOLE if found.used > 1 else self.first
        self.first_statistics = self.first_statistics or path or WHOLE if statistics.used > 1 else self.first_statistics
        self.output = worse(self.output, found)
        self.statistics = worse(self.statistics, statistics)

    def _compare_statistics(self, reference: ReferenceModel, path: str) -> Difference:
        """Compare the running statistics in the layer at `path` after it ran in train mode."""
        arrays, worst = self.runner.read_arrays(), NONE
        for parameter in self.subject.spec.at(path).parameters():
            name = parameter.under(path).name
            if not parameter.trainable:
                worst = worse(worst, difference(arrays[name], reference.arrays[name], STATISTICS))
        return worst
