"""What is compared: a spec, weights, images, and the runners that are held to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maam.reference import ReferenceModel
from maam.spec import Dropout, Model, Node, draw, input_rule
from maam.training import Runner

Array = np.ndarray[Any, Any]
RANDOM = "dropout is random; compare with dropout=0"


@dataclass
class Subject:
    """The matter of a parity run.

    Attributes:
        spec: the architecture.
        arrays: the weights, float32, by canonical name.
        images: at least one batch, float32 (N, C, H, W); stages draw batches from them.
        labels: int32 (N,), in the range of the output's first axis.
        runners: the models under test, one for each framework and mode.
        double: a float64 PyTorch runner, the referee of gradients and steps; None where PyTorch is missing.
        single: a float32 one, none of those under test: the measure of what rounding does.
        seed: of all that is drawn on the way.
        batch_size: images in one comparison.
        steps: length of the free run.
    """

    spec: Node
    arrays: Mapping[str, Array]
    images: Array
    labels: Array
    runners: Sequence[Runner]
    double: Runner | None = None
    seed: int = 0
    batch_size: int = 4
    steps: int = 50
    fresh: Mapping[str, Array] = field(init=False)
    single: Runner | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.fresh = draw(self.spec.parameters(), self.seed)
        if self.double is not None:
            self.single = self.double.clone_with(self.spec, self.arrays)

    def batch(self, index: int, size: int | None = None) -> tuple[Array, Array]:
        """The images and labels of batch `index`, taken round the data in a seeded order."""
        size = self.batch_size if size is None else size
        order = np.random.default_rng([self.seed, 7]).permutation(len(self.images))
        chosen = order[(np.arange(size) + index * size) % len(order)]
        return self.images[chosen], self.labels[chosen]

    def cotangent(self, index: int = 0) -> Array:
        """Random weights of order 1 for the outputs, for gradients of a scalar; the output's shape."""
        shape = self.spec.output_shape(self.images.shape[1:])
        generator = np.random.default_rng([self.seed, 11, index])
        return generator.standard_normal((self.batch_size, *shape)).astype(np.float32)

    def alike(self, spec: Node, arrays: Mapping[str, Array], images: Array, labels: Array) -> Subject:
        """A subject of another spec in the same frameworks and modes, with models of its own."""
        return Subject(
            spec=spec,
            arrays=arrays,
            images=images,
            labels=labels,
            runners=[runner.clone_with(spec, arrays) for runner in self.runners],
            double=None if self.double is None else self.double.clone_with(spec, arrays, "float64"),
            seed=self.seed,
            batch_size=self.batch_size,
            steps=self.steps,
        )

    def referee(self, arrays: Mapping[str, Array] | None = None) -> ReferenceModel:
        """A fresh referee with the subject's arrays, or others."""
        return ReferenceModel(self.spec, self.arrays if arrays is None else arrays)


def random_images(spec: Node, count: int, seed: int = 0) -> tuple[Array, Array]:
    """Uniform images in [0, 1], float32 (count, C, H, W), and labels; 16x16 where the spec leaves the size open."""
    generator = np.random.default_rng([seed, 3])
    shape = spec.input_shape if isinstance(spec, Model) else _open_shape(spec)
    classes = spec.output_shape(shape)[0]
    images = generator.random((count, *shape)).astype(np.float32)
    return images, generator.integers(0, classes, count).astype(np.int32)


def _open_shape(spec: Node) -> tuple[int, ...]:
    rule = input_rule(spec)
    channels = rule.channels or 3
    return (channels,) if rule.rank == 2 else (channels, max(rule.minimum, 16), max(rule.minimum, 16))


def has_dropout(node: Node) -> bool:
    """Whether a layer at or below `node` drops at random in train mode."""
    return any(isinstance(inner, Dropout) for _, inner in node.walk())
