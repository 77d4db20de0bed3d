"""The float64 gradients that a framework is held to, on the side of each kink that the framework took.

A ReLU whose input is all but 0, or two values that all but tie in a pooling window, give one gradient or another by
rounding alone: all are right. Such values are found (`maam.torch.kinks`); where a framework is off by more than
rounding, they are moved across their kinks one by one, nearest first, and the float64 gradient is taken again. A
change that the framework's gradient shows was its side of the kink. Nothing is left out of the comparison.

In a deep network so many values stand near kinks that this cannot be done one by one: see `Reference.crowded`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.backend.protocol import NearKinks
from maam.backend.registry import load_gradient_reference
from maam.parity.subject import Subject
from maam.spec import Activation, Node
from maam.tolerance import MAX_CROSSED, MAX_NOISE
from maam.training import Runner

SMOOTH = {
    "relu": "silu",
    "relu6": "silu",
    "leaky_relu": "silu",
    "hard_swish": "silu",
    "hard_sigmoid": "sigmoid",
}
"""The smooth function that takes the place of each activation with a kink."""


def smoothed(spec: Node) -> Node:
    """`spec` with `SMOOTH` activations; layers, shapes and canonical names stay."""
    if isinstance(spec, Activation):
        return spec.replace(function=SMOOTH.get(spec.function, spec.function))
    return spec.with_nodes({name: smoothed(node) for name, node in spec.nodes.items()}) if spec.nodes else spec


Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
ROUNDING = 1e-5
"""An error up to this share of a tensor's largest gradient is rounding: no kink is looked for."""
LEAST_EFFECT = 1e-6
"""A kink that moves a tensor by less than this share of its largest does not touch it."""
SMALL = 0.1
"""Up to this share of the network's largest gradient a tensor is credited the noise of one of that size."""
FLOOR = 1e-2
"""A tensor's largest gradient counts as at least this share of the network's: what is all but 0 is all rounding."""
FEW = 8
MOST = 64
CROWD = 128
DEEP = 32
"""With more values than `CROWD` near kinks, or more layers than `DEEP` that have kinks, no side is searched for:
rounding adds up from layer to layer, to more than what one value's side does to a gradient."""
TRIES = 8
NEIGHBOURS = 2
NOISE_MARGIN = 3.0
"""How much larger than PyTorch's rounding noise in a gradient another framework's may be."""
ZERO = 1e-12
ZERO_MARGIN = 10.0
"""The same for a gradient that is 0 in float64, up to `ZERO` of the network's largest: that of a bias in front of a
batch norm. What is left of a sum that cancels is how a framework adds up."""


class Settled(NamedTuple):
    """The referee's gradients on a framework's side of the kinks, and how many differ from float64's own side."""

    gradients: Arrays
    crossed: int


class Reference:
    """The float64 gradients ("" for the input's) of sum(output * cotangent) in training mode, for one batch.

    Attributes:
        gradients: by name.
        largest: of each gradient, what counts as its largest value.
        floor: the least that does: `FLOOR` of the network's largest.
        noise: how far float32 PyTorch is off on its own side of the kinks, as a share of `largest`: the most of
            runs from the arrays and the input themselves, and from these moved by one unit in the last place.
        near: how many values stand near a kink.
        crowded: whether that is too many, or the network too deep, to settle them; `settle` leaves the gradients then.
    """

    def __init__(self, subject: Subject, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> None:
        assert subject.double is not None
        assert subject.single is not None
        self._double, self._arrays, self._x, self._cotangent = subject.double, arrays, x, cotangent
        backend = load_gradient_reference()
        assert backend is not None
        self._backend = backend
        self.gradients = named_gradients(self._double, arrays, x, cotangent)
        sizes = {name: float(np.abs(gradient).max(initial=0)) for name, gradient in self.gradients.items()}
        self._network = max(*sizes.values(), float(np.finfo(np.float32).tiny))
        self.floor = FLOOR * self._network
        self.largest = {name: max(size, self.floor) for name, size in sizes.items()}
        self._effects: dict[int, Arrays] = {}
        near = self._near(subject.single)
        self.near = len(near.kinks)
        self.crowded = self.near > CROWD or near.layers > DEEP
        tried = 0 if self.crowded else min(MOST, max(FEW, int(MAX_CROSSED * near.values)))
        self._kinks = list(near.kinks[:tried])
        self.noise = dict.fromkeys(sizes, 0.0)
        for index in range(1 + NEIGHBOURS):
            nudge = _Nudge(subject.seed, index)
            moved = {name: nudge(array) for name, array in arrays.items()}
            single = named_gradients(subject.single, moved, nudge(x), cotangent)
            for name, gradient in self.settle(single).gradients.items():
                self.noise[name] = max(self.noise[name], self.share(name, single[name] - gradient))

    def credit(self, name: str, times: float = 1.0, most: float = 1.0) -> float:
        """What rounding noise adds to the bound of a gradient, as a share of `largest`.

        `times` as much as elsewhere, and `most` times as much at most.
        """
        return min(times * self._margin(name) * self.noise[name], most * self._most_noise(name))

    @property
    def calm(self) -> bool:
        """Whether all of the measured noise is credited."""
        return all(NOISE_MARGIN * self.noise[name] <= self._most_noise(name) for name in self.noise)

    def settle(self, actual: Mapping[str, Array], allowed: Mapping[str, float] | None = None) -> Settled:
        """The gradients on the side of the kinks that `actual`, some or all of the gradients, was computed on.

        `allowed` is what may be rounding in each, as a share of the largest: by default `ROUNDING`.
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

    def _margin(self, name: str) -> float:
        zero = float(np.abs(self.gradients[name]).max(initial=0)) <= ZERO * self._network
        return ZERO_MARGIN if zero else NOISE_MARGIN

    def _most_noise(self, name: str) -> float:
        return MAX_NOISE * max(1.0, SMALL * self._network / self.largest[name])

    def _near(self, single: Runner) -> NearKinks:
        """The kinks that may have been crossed."""
        for runner in (self._double, single):
            runner.write_arrays(self._arrays)
        return self._backend.near_kinks(self._double.model, single.model, self._x)

    def _effect(self, index: int) -> Arrays:
        """How the gradients change when a kink's value is moved across; computed when first asked for."""
        if index not in self._effects:
            with self._backend.across(self._double.model, self._kinks[index]):
                moved = named_gradients(self._double, self._arrays, self._x, self._cotangent)
            changes = {name: array - self.gradients[name] for name, array in moved.items()}
            self._effects[index] = {n: c for n, c in changes.items() if self.share(n, c) > LEAST_EFFECT}
        return self._effects[index]

    def _shows(self, off: Mapping[str, Array], effect: Arrays) -> bool:
        """Whether the difference gets smaller by the effect: each tensor counts by its own largest value."""
        shared = [name for name in effect if name in off]
        both = sum(float(np.vdot(off[name], effect[name])) / self.largest[name] ** 2 for name in shared)
        return both > sum(float(np.vdot(effect[name], effect[name])) / self.largest[name] ** 2 for name in shared) / 2

    def share(self, name: str, array: Array) -> float:
        """The largest value of an error in a gradient, as a share of `largest`."""
        return float(np.abs(array).max(initial=0)) / self.largest[name]


class _Nudge:
    """Moves each element of a float32 array to the next number up or down; with index 0 not at all."""

    def __init__(self, seed: int, index: int) -> None:
        self.generator = np.random.default_rng([seed, 17, index]) if index else None

    def __call__(self, array: Array) -> Array:
        if self.generator is None:
            return array
        direction = self.generator.choice(np.array([-np.inf, np.inf], np.float32), array.shape)
        return np.nextafter(array, direction, dtype=np.float32)


def calm_batch(
    subject: Subject, arrays: Mapping[str, Array], cotangent: Callable[[int], Array], start: int = 0
) -> tuple[int, Reference]:
    """The first batch from `start` on in which float32's noise is small, and its reference.

    Of `TRIES` batches the calmest is taken where none is calm, and the first where kinks are crowded; `cotangent` gives
    that of a batch.
    """
    best: tuple[int, Reference] | None = None
    for index in range(start, start + TRIES):
        found = Reference(subject, arrays, subject.batch(index)[0], cotangent(index))
        if best is None or max(found.noise.values()) < max(best[1].noise.values()):
            best = index, found
        if found.calm or found.crowded:
            return index, found
    assert best is not None
    return best


def named_gradients(runner: Runner, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> Arrays:
    """Gradients by name, the input's under '', with `arrays` in the runner's model."""
    runner.write_arrays(arrays)
    found = runner.gradients(x, cotangent)
    return {"": found.input, **found.parameters}


def crossings(count: int) -> str:
    """The note on a row."""
    return f"{count} kink{'s' if count > 1 else ''} on the other side" if count else ""
