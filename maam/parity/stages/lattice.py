"""The stage "lattice": weights and images for which every float32 operation is exact, so the difference must be 0.

Weights and images are small integers, batch norm divides by exactly 1, and the fusion weights are 1, 1/2 and 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.report import Findings, Verdict, row, skip
from maam.parity.subject import Subject
from maam.reference import ReferenceModel
from maam.spec import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    Node,
    Parallel,
    Parameter,
    Resize,
    Role,
    Sequential,
)
from maam.spec.node import map_layers
from maam.tolerance import EXACT, NONE, difference, worse

Array = np.ndarray[Any, Any]
STAGE = "integer lattice"
EPS = 2.0**-10
TAPS = 4
"""The number of weights other than 0 for each output of a convolution or linear layer."""
LIMIT = 2.0**24
"""Float32 holds all integers up to this one."""
SPARE, LEAST = 2, 6
"""Binary digits kept for the sums of batch norm and of branches, and the fewest digits kept in all."""
_EXACT_NODES = (BatchNorm2d, Conv2d, Flatten, Identity, Linear, MaxPool2d, Resize, Sequential)


class _DegenerateError(Exception):
    """The lattice proves nothing for this network."""


def run_lattice(subject: Subject, suspect: str = "") -> Findings:
    """Compare the outputs of lattice models with the reference; the difference must be 0."""
    try:
        spec, cases = _lattice_models(subject)
        x = _images(subject)
        expected = [_expected_output(spec, arrays, x) for arrays in cases]
    except _DegenerateError as error:
        return Findings(skip([STAGE], subject.runner_names, str(error), Verdict.NOT_APPLICABLE))
    rows = []
    for runner in subject.runners:
        clone = runner.clone_with(spec, cases[0])
        worst = NONE
        for arrays, output in zip(cases, expected, strict=True):
            clone.write_arrays(arrays)
            worst = worse(worst, difference(clone.forward(x), output, EXACT))
        rows.append(row(STAGE, runner.name, worst, "0", note=f"{len(cases)} cases"))
    return Findings(rows)


def _lattice_models(subject: Subject) -> tuple[Node, list[dict[str, Array]]]:
    """Return the spec with an exact eps, and the arrays of each case."""
    for path, node in subject.spec.walk():
        if not _is_exact(node):
            raise _DegenerateError(f"{path or node.kind} is not exact in float32")
    spec = map_layers(subject.spec, lambda node: node.replace(eps=EPS) if isinstance(node, BatchNorm2d) else node)
    return spec, list(_cases(spec, subject.seed))


def _is_exact(node: Node) -> bool:
    if isinstance(node, Activation):
        return node.function in ("relu", "identity")
    if isinstance(node, AvgPool2d):
        return node.kernel_size & (node.kernel_size - 1) == 0
    if isinstance(node, Parallel):
        return node.merge in ("sum", "concat", "softmax")
    return isinstance(node, _EXACT_NODES)


def _cases(spec: Node, seed: int) -> Iterator[dict[str, Array]]:
    """Yield arrays for each case of branch weights: 1 for each branch alone, then 1/2 for each branch and the next."""
    parameters = spec.parameters()
    arrays = {p.name: _integers(p, np.random.default_rng([seed, 5, i])) for i, p in enumerate(parameters)}
    alphas = [p for p in parameters if p.role is Role.FUSION]
    count = max((p.size for p in alphas), default=0)
    if not alphas:
        yield arrays
    for branch in range(count):
        yield {**arrays, **{p.name: _alpha(p.size, (branch,)) for p in alphas}}
    for branch in range(count if count > 2 else count - 1):
        yield {**arrays, **{p.name: _alpha(p.size, (branch, branch + 1)) for p in alphas}}


def _alpha(size: int, branches: tuple[int, ...]) -> Array:
    alpha = np.full(size, -1000.0, np.float32)
    alpha[[index % size for index in branches]] = 0.0
    return alpha


def _integers(parameter: Parameter, generator: np.random.Generator) -> Array:
    shape = parameter.shape
    if parameter.role is Role.WEIGHT:
        rows = np.zeros((shape[0], parameter.size // shape[0]), np.float32)
        for line in rows:
            taps = generator.choice(rows.shape[1], min(TAPS, rows.shape[1]), replace=False)
            line[taps] = generator.choice([-1.0, 1.0, 1.0], len(taps))
        return rows.reshape(shape)
    if parameter.role is Role.RUNNING_VAR:
        return np.full(shape, 1 - EPS, np.float32)
    if parameter.role is Role.NORM_WEIGHT:
        return generator.choice([-1.0, 1.0, 1.0, 2.0], shape).astype(np.float32)
    return generator.integers(-2, 4, shape).astype(np.float32)


def _images(subject: Subject) -> Array:
    shape = subject.images[: subject.batch_size].shape
    return np.random.default_rng([subject.seed, 13]).integers(0, 4, shape).astype(np.float32)


def _expected_output(spec: Node, arrays: dict[str, Array], x: Array) -> Array:
    """Return the reference's output; raise if float32 cannot hold every partial sum."""
    reference = ReferenceModel(spec, arrays)
    bounding = ReferenceModel(spec, {name: np.abs(array) for name, array in arrays.items()})
    largest = 0.0

    def watch(path: str, inputs: Array, output: Array) -> None:
        nonlocal largest
        if isinstance(spec.at(path), (Conv2d, Linear)):
            largest = max(largest, float(bounding.run(path, np.abs(inputs)).max()))

    reference.observer = watch
    output = reference(x)
    if not output.any():
        raise _DegenerateError("with small-integer weights every output is 0, so a comparison proves nothing")
    digits = _digits(spec)
    if largest * 2.0 ** max(digits + SPARE, LEAST) >= LIMIT:
        fractions = f" with {digits} binary digits after the point" if digits else ""
        raise _DegenerateError(f"float32 cannot hold the sums of small integers: they reach {largest:.0f}{fractions}")
    return output


def _digits(node: Node) -> int:
    """Return the largest number of binary digits after the point, from average pooling and halved fusion weights."""
    if isinstance(node, AvgPool2d):
        return 2 * (node.kernel_size.bit_length() - 1)
    inner = [_digits(child) for child in node.nodes.values()]
    if isinstance(node, Parallel):
        return max(inner, default=0) + (node.merge == "softmax")
    return sum(inner)
