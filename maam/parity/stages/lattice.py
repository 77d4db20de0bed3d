"""Integer lattice: weights and images for which every float32 operation is exact, so the difference must be 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.report import Report, Row, Verdict, row
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
    parse_document,
)
from maam.tolerance import EXACT, NONE, difference, worse

Array = np.ndarray[Any, Any]
STAGE = "integer lattice"
EPS = 2.0**-10
TAPS = 4
LIMIT = 2.0**24
SPARE, LEAST = 2, 6
"""Binary digits for what batch norm and sums of branches add to the sums that are looked at, and for all in all."""
_EXACT_NODES = (BatchNorm2d, Conv2d, Flatten, Identity, Linear, MaxPool2d, Resize, Sequential)


class _DegenerateError(Exception):
    """Small integers prove nothing for this network."""


def run_lattice(subject: Subject, report: Report) -> Iterator[Row]:
    """Small integers everywhere, batch norm that divides by exactly 1, fusion weights of 1, 1/2 and 0."""
    obstacle = next((path or node.kind for path, node in subject.spec.walk() if not _is_exact(node)), None)
    if obstacle is not None:
        for runner in subject.runners:
            yield Row(STAGE, runner.name, Verdict.NOT_APPLICABLE, note=f"{obstacle} is not exact in float32")
        return
    spec = parse_document(_with_exact_eps(subject.spec.to_document()))
    cases = list(_cases(spec, subject.seed))
    x = _images(subject)
    try:
        expected = [_judge(spec, arrays, x) for arrays in cases]
    except _DegenerateError as error:
        for runner in subject.runners:
            yield Row(STAGE, runner.name, Verdict.NOT_APPLICABLE, note=str(error))
        return
    for runner in subject.runners:
        other = runner.clone_with(spec, cases[0])
        worst = NONE
        for arrays, outcome in zip(cases, expected, strict=True):
            other.write_arrays(arrays)
            worst = worse(worst, difference(other.forward(x), outcome, EXACT))
        yield row(STAGE, runner.name, worst, "0", note=f"{len(cases)} cases")


def _is_exact(node: Node) -> bool:
    if isinstance(node, Activation):
        return node.function in ("relu", "identity")
    if isinstance(node, AvgPool2d):
        return node.kernel_size & (node.kernel_size - 1) == 0
    if isinstance(node, Parallel):
        return node.merge in ("sum", "concat", "softmax")
    return isinstance(node, _EXACT_NODES)


def _with_exact_eps(document: Any) -> Any:
    if isinstance(document, dict):
        changed = {name: _with_exact_eps(value) for name, value in document.items()}
        return {**changed, "eps": EPS} if document.get("kind") == "batch_norm2d" else changed
    return [_with_exact_eps(item) for item in document] if isinstance(document, list) else document


def _cases(spec: Node, seed: int) -> Iterator[dict[str, Array]]:
    """One set of arrays for each way of weighting the branches: each alone, then each and the next by halves."""
    parameters = spec.parameters()
    arrays = {p.name: _integers(p, np.random.default_rng([seed, 5, i])) for i, p in enumerate(parameters)}
    alphas = [p for p in parameters if p.role is Role.FUSION]
    count = max((p.size for p in alphas), default=0)
    if not alphas:
        yield arrays
    for kept in range(count):
        yield {**arrays, **{p.name: _alpha(p.size, (kept,)) for p in alphas}}
    for kept in range(count if count > 2 else count - 1):
        yield {**arrays, **{p.name: _alpha(p.size, (kept, kept + 1)) for p in alphas}}


def _alpha(size: int, kept: tuple[int, ...]) -> Array:
    alpha = np.full(size, -1000.0, np.float32)
    alpha[[index % size for index in kept]] = 0.0
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


def _judge(spec: Node, arrays: dict[str, Array], x: Array) -> Array:
    """The referee's output, once it is sure that float32 can hold every partial sum."""
    referee = ReferenceModel(spec, arrays)
    bounding = ReferenceModel(spec, {name: np.abs(array) for name, array in arrays.items()})
    largest = 0.0

    def watch(path: str, inputs: Array, output: Array) -> None:
        nonlocal largest
        if isinstance(spec.at(path), (Conv2d, Linear)):
            largest = max(largest, float(bounding.run(path, np.abs(inputs)).max()))

    referee.observer = watch
    output = referee(x)
    if not output.any():
        raise _DegenerateError("every output is 0 with small integers for weights")
    digits = _digits(spec)
    if largest * 2.0 ** max(digits + SPARE, LEAST) >= LIMIT:
        fractions = f", with {digits} binary digits behind the point" if digits else ""
        raise _DegenerateError(f"float32 does not hold the sums of small integers: they reach {largest:.0f}{fractions}")
    return output


def _digits(node: Node) -> int:
    """At most so many binary digits have the values behind the point: average pooling and halved fusion add some."""
    if isinstance(node, AvgPool2d):
        return 2 * (node.kernel_size.bit_length() - 1)
    inner = [_digits(child) for child in node.nodes.values()]
    if isinstance(node, Parallel):
        return max(inner, default=0) + (node.merge == "softmax")
    return sum(inner)
