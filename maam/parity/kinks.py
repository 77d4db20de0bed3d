"""Elements of a gradient that stand near a kink, where one unit in the last place of float32 decides.

A ReLU whose input is all but 0, or two values that all but tie in a pooling window, give one gradient or another by
rounding alone. They are found by what they do: the float64 gradient is taken again with weights and input moved by
eight float32 units in the last place, and an element that this moves by more than half its bound is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.parity.bounds import GRADIENT, MAX_LEFT_OUT, Bound
from maam.parity.subject import Subject
from maam.training import Runner

Array = np.ndarray[Any, Any]
TRIES = 8
PERTURBATIONS = 3
ULP = 2.0**-23
NUDGE = 8 * ULP
"""About as far as float32's rounding moves a value after a few layers."""
FLOOR = 1e-2
"""A tensor's largest gradient counts as at least this share of the network's: what is all but 0 is all rounding."""


class Reference(NamedTuple):
    """The float64 gradients ("" for the input's), and how they answer to rounding.

    `left_out` masks the elements near a kink, `share` is their share of all; `noise` is how far the others move, or
    PyTorch in float32 is off, as a share of the tensor's largest element; `floor` is the least that counts as that.
    """

    gradients: dict[str, Array]
    left_out: dict[str, Array]
    noise: dict[str, float]
    share: float
    floor: float

    @property
    def note(self) -> str:
        """How many elements were left out, in words; empty where none was."""
        count = sum(int(mask.sum()) for mask in self.left_out.values())
        return f"{count} elements near a kink left out" if count else ""


def stable_batch(
    subject: Subject, double: Runner, arrays: Mapping[str, Array], start: int = 0
) -> tuple[int, Reference]:
    """The first batch from `start` on whose gradients are hardly touched by kinks, and its reference.

    Of `TRIES` batches the best is taken where none keeps below the share that may be left out.
    """
    best: tuple[int, Reference] | None = None
    for index in range(start, start + TRIES):
        x, _ = subject.batch(index)
        found = reference(subject, double, arrays, x, subject.cotangent(index))
        if best is None or found.share < best[1].share:
            best = index, found
        if found.share <= MAX_LEFT_OUT:
            break
    assert best is not None
    return best


def reference(
    subject: Subject,
    double: Runner,
    arrays: Mapping[str, Array],
    x: Array,
    cotangent: Array,
    bound: Bound = GRADIENT,
    effort: int = 1,
) -> Reference:
    """Float64 gradients of sum(output * cotangent) in training mode, and where they are near a kink.

    With a larger `effort` weights and input are moved that many times as often, and as far.
    """
    base = named_gradients(double, arrays, x, cotangent)
    floor = FLOOR * max(float(np.abs(gradient).max(initial=0)) for gradient in base.values())
    left_out = {name: np.zeros(gradient.shape, bool) for name, gradient in base.items()}
    moved = {name: np.zeros(gradient.shape) for name, gradient in base.items()}
    for index in range(effort * PERTURBATIONS):
        generator = np.random.default_rng([subject.seed, 17, index])
        other = {name: nudge(array, generator, effort) for name, array in arrays.items()}
        others = named_gradients(double, other, nudge(x, generator, effort), cotangent)
        for name, gradient in base.items():
            moved[name] = np.maximum(moved[name], np.abs(others[name] - gradient))
    assert subject.single is not None
    single = named_gradients(subject.single, arrays, x, cotangent)
    noise = {}
    for name, gradient in base.items():
        largest = max(float(np.abs(gradient).max(initial=0)), floor, 1e-300)
        left_out[name] = moved[name] > (bound.absolute * largest + bound.relative * np.abs(gradient)) / 2
        per_ulp = moved[name] * (ULP / NUDGE / effort)
        rounding = np.maximum(per_ulp, np.abs(single[name] - gradient))[~left_out[name]]
        noise[name] = float(rounding.max(initial=0)) / largest
    total = sum(mask.size for mask in left_out.values())
    share = sum(int(mask.sum()) for mask in left_out.values()) / max(total, 1)
    return Reference(base, left_out, noise, share, floor)


def named_gradients(runner: Runner, arrays: Mapping[str, Array], x: Array, cotangent: Array) -> dict[str, Array]:
    """Gradients by name, the input's under '', with `arrays` in the runner's model."""
    runner.write_arrays(arrays)
    found = runner.gradients(x, cotangent)
    return {"": found.input, **found.parameters}


def nudge(array: Array, generator: np.random.Generator, times: int = 1) -> Array:
    """The array in float64, each element moved by `times` eight float32 units in the last place, up or down."""
    signs = generator.choice([-1.0, 1.0], array.shape)
    return np.asarray(array.astype(np.float64) * (1 + times * NUDGE * signs))
