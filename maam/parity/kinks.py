"""The float64 gradients that runners are compared with, on the side of each kink that a runner took.

A kink is a point where ReLU or max pooling is not differentiable. For a ReLU input near 0, or two nearly equal values
in a pooling window, rounding decides which of two gradients results; both are correct. The gradient reference finds
such values. If a runner's gradients are off by more than rounding, the values are moved across their kinks one by one,
nearest first, and the float64 gradients are computed again. If the runner's gradients show the change, the runner took
that side, and the float64 gradients keep it. No element is left out of the comparison.

A deep network has too many such values to try them one by one; see `GradientReference.crowded`. The reasons, with
figures, are in docs/parity.md, "How rounding is handled".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.backend.protocol import NearKinks, Runner
from maam.backend.registry import load_gradient_reference
from maam.parity.subject import Subject
from maam.spec import Activation, Node
from maam.spec.node import map_layers
from maam.spec.primitives import CURVES
from maam.tolerance import (
    DEEP,
    GRADIENT_FLOOR,
    MAX_CROSSED,
    MAX_NOISE,
    NOISE_MARGIN,
    SMALL_GRADIENT,
    ZERO_GRADIENT,
    ZERO_MARGIN,
)

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
ROUNDING = 1e-5
"""An error up to this share of a tensor's largest gradient is rounding; no kink is tried."""
LEAST_EFFECT = 1e-6
"""A kink that changes a tensor by less than this share of its largest gradient does not affect it."""
FEW, MOST = 8, 64
"""The smallest and largest number of kinks to try."""
CROWD = 128
"""With more values near kinks, or more than `DEEP` layers with kinks, no kink is tried.

Rounding then adds up over the layers to more than the effect of one kink.
"""
TRIES = 8
"""The number of batches among which `calm_batch` chooses."""
NEIGHBORS = 2
"""The number of runs from slightly changed weights and inputs that measure rounding noise."""
SMOOTH = {name: curve.smooth for name, curve in CURVES.items() if curve.smooth}
"""The smooth function that replaces each activation with a kink."""


class Settled(NamedTuple):
    """The float64 gradients on a runner's side of the kinks.

    Attributes:
        gradients: by name.
        crossed: the number of kinks whose side differs from that of the float64 model.
    """

    gradients: Arrays
    crossed: int


class GradientReference:
    """The float64 gradients of sum(output * cotangent) in train mode, for one batch.

    Attributes:
        gradients: by canonical name; "" is the input's.
        largest: the size of each gradient: its largest value, but at least `floor`.
        floor: the smallest size of a gradient, `GRADIENT_FLOOR` of the network's largest.
        noise: the error of float32 PyTorch on its own side of the kinks, as a share of `largest`: the largest of three
            runs, one with the arrays and the input as they are and two with these moved by one unit in the last place.
        near: the number of values near a kink.
        on_kinks: whether some values lie exactly on a kink, as the output of a layer norm over one channel does.
        crowded: whether there are too many of them, or the network is too deep, to find the sides of the kinks.
            `settle` then returns the gradients unchanged.
    """

    def __init__(self, subject: Subject, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> None:
        assert subject.double is not None
        assert subject.single is not None
        backend = load_gradient_reference()
        assert backend is not None
        self._backend = backend
        self._double, self._arrays, self._x, self._cotangent = subject.double, arrays, x, cotangent
        self.gradients = named_gradients(self._double, arrays, x, cotangent)
        sizes = {name: float(np.abs(gradient).max(initial=0)) for name, gradient in self.gradients.items()}
        self._network = max(*sizes.values(), float(np.finfo(np.float32).tiny))
        self.floor = GRADIENT_FLOOR * self._network
        self.largest = {name: max(size, self.floor) for name, size in sizes.items()}
        self._effects: dict[int, Arrays] = {}
        near = self._near(subject.single)
        self.near = len(near.kinks)
        self.on_kinks = any(kink.distance == 0 for kink in near.kinks)
        self.crowded = self.near > CROWD or near.layers > DEEP
        tried = 0 if self.crowded else min(MOST, max(FEW, int(MAX_CROSSED * near.values)))
        self._kinks = list(near.kinks[:tried])
        self.noise = dict.fromkeys(sizes, 0.0)
        for index in range(1 + NEIGHBORS):
            nudge = _Nudge(subject.seed, index)
            moved = {name: nudge(array) for name, array in arrays.items()}
            single = named_gradients(subject.single, moved, nudge(x), cotangent)
            for name, gradient in self.settle(single).gradients.items():
                self.noise[name] = max(self.noise[name], self.share(name, single[name] - gradient))

    def credit(self, name: str, times: float = 1.0, most: float = 1.0) -> float:
        """Return the noise that is added to the bound of a gradient, as a share of `largest`.

        Args:
            name: the gradient.
            times: a factor on the noise.
            most: a factor on the largest share that may be added.
        """
        return min(times * self._margin(name) * self.noise[name], most * self._most_noise(name))

    @property
    def calm(self) -> bool:
        """Whether the measured noise is small enough to be added in full."""
        return all(NOISE_MARGIN * self.noise[name] <= self._most_noise(name) for name in self.noise)

    def settle(self, actual: Mapping[str, Array], allowed: Mapping[str, float] | None = None) -> Settled:
        """Return the gradients on the side of the kinks that a runner took.

        Args:
            actual: the runner's gradients, all or some.
            allowed: the error of each that may be rounding, as a share of `largest`; `ROUNDING` by default.
        """
        off = {name: array - self.gradients[name] for name, array in actual.items()}
        gradients, crossed = dict(self.gradients), 0
        for index in range(len(self._kinks)):
            if all(self.share(name, array) <= (allowed or {}).get(name, ROUNDING) for name, array in off.items()):
                break
            if self._shows(off, effect := self._effect(index)):
                crossed += 1
                for name, change in effect.items():
                    gradients[name] = gradients[name] + change
                    if name in off:
                        off[name] = off[name] - change
        return Settled(gradients, crossed)

    def share(self, name: str, array: Array) -> float:
        """Return the largest value of an error in a gradient, as a share of `largest`."""
        return float(np.abs(array).max(initial=0)) / self.largest[name]

    def _margin(self, name: str) -> float:
        zero = float(np.abs(self.gradients[name]).max(initial=0)) <= ZERO_GRADIENT * self._network
        return ZERO_MARGIN if zero else NOISE_MARGIN

    def _most_noise(self, name: str) -> float:
        return MAX_NOISE * max(1.0, SMALL_GRADIENT * self._network / self.largest[name])

    def _near(self, single: Runner) -> NearKinks:
        for runner in (self._double, single):
            runner.write_arrays(self._arrays)
        return self._backend.near_kinks(self._double.model, single.model, self._x)

    def _effect(self, index: int) -> Arrays:
        """Return the change of the gradients when a kink is crossed; computed on first use."""
        if index not in self._effects:
            with self._backend.across(self._double.model, self._kinks[index]):
                moved = named_gradients(self._double, self._arrays, self._x, self._cotangent)
            changes = {name: array - self.gradients[name] for name, array in moved.items()}
            self._effects[index] = {n: c for n, c in changes.items() if self.share(n, c) > LEAST_EFFECT}
        return self._effects[index]

    def _shows(self, off: Mapping[str, Array], effect: Arrays) -> bool:
        """Return whether subtracting the effect reduces the errors, each in units of its tensor's size."""
        shared = [name for name in effect if name in off]
        both = sum(float(np.vdot(off[name], effect[name])) / self.largest[name] ** 2 for name in shared)
        return both > sum(float(np.vdot(effect[name], effect[name])) / self.largest[name] ** 2 for name in shared) / 2


class _Nudge:
    """A function that moves each float32 element to the next number up or down; with index 0 it changes nothing."""

    def __init__(self, seed: int, index: int) -> None:
        self.generator = np.random.default_rng([seed, 17, index]) if index else None

    def __call__(self, array: Array) -> Array:
        if self.generator is None:
            return array
        direction = self.generator.choice(np.array([-np.inf, np.inf], np.float32), array.shape)
        return np.nextafter(array, direction, dtype=np.float32)


def calm_batch(
    subject: Subject, arrays: Mapping[str, Array], cotangent: Callable[[int], Array], start: int = 0
) -> tuple[int, GradientReference]:
    """Return the first batch with little rounding noise, and its gradient reference.

    A batch with a crowd of kinks ends the search, too. If all of `TRIES` batches are noisy, return the least noisy one.

    Args:
        subject: the model and its images.
        arrays: the weights.
        cotangent: returns the cotangent of a batch.
        start: the first batch to try.
    """
    best: tuple[int, GradientReference] | None = None
    for index in range(start, start + TRIES):
        found = GradientReference(subject, arrays, subject.batch(index)[0], cotangent(index))
        if best is None or max(found.noise.values()) < max(best[1].noise.values()):
            best = index, found
        if found.calm or found.crowded:
            return index, found
    assert best is not None
    return best


def named_gradients(runner: Runner, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> Arrays:
    """Write `arrays` into a runner's model and return its gradients by name; "" is the input's."""
    runner.write_arrays(arrays)
    found = runner.gradients(x, cotangent)
    return {"": found.input, **found.parameters}


def crossings(count: int) -> str:
    """Return the note of a row for this number of crossed kinks."""
    return f"{count} kink{'s' if count > 1 else ''} on the other side" if count else ""


def smoothed(spec: Node) -> Node:
    """Return a spec whose activations have no kinks; layers, shapes and canonical names stay the same."""

    def smooth(node: Node) -> Node:
        return node.replace(function=SMOOTH.get(node.function, node.function)) if isinstance(node, Activation) else node

    return map_layers(spec, smooth)
