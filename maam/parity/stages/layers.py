"""Every layer for itself: the built model's own layer, given the referee's input, against the referee's output.

Layers come before the container that holds them, so the first failure is where the fault lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.backend.protocol import Capability
from maam.parity.kinks import DEEP
from maam.parity.report import Depth, Report, Row, not_run, row
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.reference import ReferenceModel
from maam.spec import BatchNorm2d, Node
from maam.tolerance import LAYER, LOGITS, NONE, STATISTICS, Bound, Difference, difference, worse
from maam.training import Runner

Array = np.ndarray[Any, Any]


def compare_layers(subject: Subject, report: Report) -> Iterator[Row]:
    """Outputs of all layers in eval and train mode, and batch norm's running statistics after the latter."""
    for training in (False, True):
        inputs = layer_inputs(subject, training)
        for runner in subject.runners:
            if Capability.SINGLE_LAYERS not in runner.capabilities:
                continue
            walk = _Walk(subject, runner, inputs, training)
            if Capability.COSTLY_LAYERS in runner.capabilities:
                walk.from_top("")
            else:
                walk.all()
            runner.write_arrays(subject.arrays)
            report.depth.extend(walk.depth)
            yield from walk.rows()


def layer_inputs(subject: Subject, training: bool) -> dict[str, Array]:
    """The referee's input of each layer by path, float32, in running order, each layer before its container."""
    referee = subject.referee()
    inputs: dict[str, Array] = {}
    referee.observer = lambda path, x, y: inputs.__setitem__(path, x.astype(np.float32))
    referee(subject.batch(0)[0], training=training)
    return inputs


def layer_bound(node: Node) -> Bound:
    """A layer's bound; that of logits for a container of more than `DEEP` batch norms, in which rounding adds up."""
    return LOGITS if sum(isinstance(inner, BatchNorm2d) for _, inner in node.walk()) > DEEP else LAYER


class _Walk:
    """One runner in one mode, layer by layer."""

    def __init__(self, subject: Subject, runner: Runner, inputs: dict[str, Array], training: bool) -> None:
        self.subject = subject
        self.runner = runner
        self.inputs = inputs
        self.training = training
        self.output = NONE
        self.moved = NONE
        self.first = ""
        self.first_moved = ""
        self.depth: list[Depth] = []
        runner.write_arrays(subject.arrays)

    def all(self) -> None:
        """Every layer, children before their container."""
        for path in self.inputs:
            self.one(path)

    def from_top(self, path: str) -> bool:
        """The layer at `path`; where it differs, or is random, its children first, so that the innermost is named."""
        clean = not self._is_random(path) and self.one(path, dry=True)
        if clean:
            return self.one(path)
        children = [f"{path}.{name}".removeprefix(".") for name in self.subject.spec.at(path).nodes]
        found = [self.from_top(child) for child in children if child in self.inputs]
        return self.one(path) and all(found)

    def _is_random(self, path: str) -> bool:
        """Whether it draws numbers of its own."""
        return self.training and has_dropout(self.subject.spec.at(path))

    def one(self, path: str, dry: bool = False) -> bool:
        """Compare the layer at `path`; `dry` keeps no record. Returns whether it agrees."""
        node, x = self.subject.spec.at(path), self.inputs[path]
        if self._is_random(path):
            return True
        referee = self.subject.referee()
        expected = referee.run(path, x.astype(np.float64), self.training)
        found = difference(self.runner.forward_layer(path, x, self.training), expected, layer_bound(node))
        moved = self._statistics(referee, path) if self.training else NONE
        if self.training:
            self.runner.write_arrays(self.subject.arrays)
        if not dry:
            self._record(path, found, moved, float(np.abs(expected).max(initial=0)))
        return found.used <= 1 and moved.used <= 1

    def rows(self) -> Iterator[Row]:
        """What was found."""
        mode = "train" if self.training else "eval"
        if not self.depth:
            yield from not_run([f"layers, {mode}"], self.runner.name, RANDOM)
            return
        if self.training and any(isinstance(node, BatchNorm2d) for _, node in self.subject.spec.walk()):
            yield row("running statistics", self.runner.name, self.moved, STATISTICS, self.first_moved)
        deep = [path or "the whole" for path in self.inputs if layer_bound(self.subject.spec.at(path)) != LAYER]
        notes = [f"{' and '.join(deep)}, deep, to {LOGITS}"] if deep else []
        notes += ["what holds dropout left out"] if any(map(self._is_random, self.inputs)) else []
        yield row(f"layers, {mode}", self.runner.name, self.output, LAYER, self.first, "; ".join(notes))

    def _record(self, path: str, found: Difference, moved: Difference, largest: float) -> None:
        mode = "train" if self.training else "eval"
        self.depth.append(Depth(self.runner.name, mode, path, found.absolute, largest))
        self.first = self.first or path or "the whole" if found.used > 1 else self.first
        self.first_moved = self.first_moved or path or "the whole" if moved.used > 1 else self.first_moved
        self.output = worse(self.output, found)
        self.moved = worse(self.moved, moved)

    def _statistics(self, referee: ReferenceModel, path: str) -> Difference:
        """The running statistics at and below `path`, after the layer ran in train mode."""
        arrays, worst = self.runner.read_arrays(), NONE
        for parameter in self.subject.spec.at(path).parameters():
            name = parameter.under(path).name
            if not parameter.trainable:
                worst = worse(worst, difference(arrays[name], referee.arrays[name], STATISTICS))
        return worst
