"""The subject of a parity check: a spec, its weights, images, and the runners to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maam.backend.protocol import Capability, Runner
from maam.reference import ReferenceModel
from maam.spec import BatchNorm2d, Dropout, Model, Node, draw, input_rule
from maam.spec.inputs import example_shape
from maam.tolerance import DEEP, LONG_SERIAL_SUMS, SERIAL_SUMS, Allowance

Array = np.ndarray[Any, Any]
RANDOM = "dropout is random; compare with dropout=0"
WHOLE = "the whole model"
"""The name of the model itself in reports."""
_LEAST_SIZE = 16
"""The height and width of random maps for a layer that takes maps of any size."""


@dataclass
class Subject:
    """The subject of a parity check.

    Attributes:
        spec: the architecture.
        arrays: the weights by canonical name, float32.
        images: at least one batch, float32 (N, C, H, W); the stages draw batches from them.
        labels: int32 (N,), below the number of outputs.
        runners: the models to compare, one for each framework and mode.
        double: a float64 runner of the gradient reference; None if its framework is not installed.
        seed: the seed of all random numbers.
        batch_size: the number of images in a batch.
        steps: the length of the free run.
        fresh: weights drawn from `seed`.
        single: a float32 runner of the gradient reference, separate from `runners`; it measures rounding.
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

    @property
    def runner_names(self) -> list[str]:
        """The names of the runners in reports."""
        return [runner.name for runner in self.runners]

    @property
    def has_logits(self) -> bool:
        """Whether the output is a vector, so that the model can be trained on labels."""
        return len(self.spec.output_shape(self.images.shape[1:])) == 1

    def batch(self, index: int, size: int | None = None) -> tuple[Array, Array]:
        """Return the images and labels of a batch, taken from the data in a seeded order that repeats."""
        size = self.batch_size if size is None else size
        order = np.random.default_rng([self.seed, 7]).permutation(len(self.images))
        chosen = order[(np.arange(size) + index * size) % len(order)]
        return self.images[chosen], self.labels[chosen]

    def cotangent(self, index: int = 0) -> Array:
        """Return normal random weights for the outputs of a batch: gradients are those of their weighted sum."""
        shape = self.spec.output_shape(self.images.shape[1:])
        generator = np.random.default_rng([self.seed, 11, index])
        return generator.standard_normal((self.batch_size, *shape)).astype(np.float32)

    def reference(self, arrays: Mapping[str, Array] | None = None) -> ReferenceModel:
        """Return a new float64 reference with the given arrays, or with the subject's own."""
        return ReferenceModel(self.spec, self.arrays if arrays is None else arrays)

    def layer_inputs(self, x: Array, training: bool, arrays: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return the reference's input of each layer by path, float32, in running order, layers before their container.

        `arrays` are as for `reference`, x is the input of the model.
        """
        reference = self.reference(arrays)
        inputs: dict[str, Array] = {}
        reference.observer = lambda path, given, output: inputs.__setitem__(path, given.astype(np.float32))
        reference(x, training=training)
        return inputs

    def clone_with(self, spec: Node, arrays: Mapping[str, Array], images: Array, labels: Array) -> Subject:
        """Return a subject of another spec with new models in the same frameworks and modes."""
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


def random_images(spec: Node, count: int, seed: int = 0) -> tuple[Array, Array]:
    """Return uniform random images in [0, 1), float32 (count, C, H, W), and labels, int32 (count,).

    The images are 16x16, or the smallest valid size above, if the spec takes any size.
    """
    generator = np.random.default_rng([seed, 3])
    size = None if isinstance(spec, Model) else max(input_rule(spec).minimum, _LEAST_SIZE)
    shape = example_shape(spec, size)
    classes = spec.output_shape(shape)[0]
    images = generator.random((count, *shape)).astype(np.float32)
    return images, generator.integers(0, classes, count).astype(np.int32)


def has_dropout(node: Node) -> bool:
    """Return whether a node, or a node inside it, is random in train mode."""
    return any(isinstance(inner, Dropout) for _, inner in node.walk())


def is_deep(node: Node) -> bool:
    """Return whether a node has so many batch norms that rounding adds up over them."""
    return sum(isinstance(inner, BatchNorm2d) for _, inner in node.walk()) > DEEP


def allowance(runner: Runner, spec: Node) -> Allowance:
    """Return the factors on the bounds of a runner for this architecture."""
    found = Allowance()
    if Capability.SERIAL_SUMS in runner.capabilities:
        found = SERIAL_SUMS
    if Capability.LONG_SERIAL_SUMS in runner.capabilities:
        found = LONG_SERIAL_SUMS
    return found if is_deep(spec) else Allowance(trained=found.trained)


def compiles_only_whole(runner: Runner) -> bool:
    """Return whether a runner compiles the whole model and cannot run its layers alone, as torch.compile."""
    return Capability.COMPILED in runner.capabilities and Capability.SINGLE_LAYERS not in runner.capabilities
