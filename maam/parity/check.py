"""The parity run: all stages over all runners."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from maam._system import environment
from maam.backend.registry import make_double, make_runners
from maam.errors import SpecError, check_counts
from maam.parity.report import Report, not_run
from maam.parity.stages import STAGES
from maam.parity.subject import Subject, random_images
from maam.spec import Model, Node, draw, input_rule
from maam.spec.presets import resolve
from maam.training import Runner
from maam.weights import match
from maam.weights.exchange import PathLike
from maam.weights.lookup import find_spec

Array = np.ndarray[Any, Any]


def check(
    spec: Node | PathLike,
    arrays: Mapping[str, Array] | None = None,
    *,
    images: Array | None = None,
    labels: Array | None = None,
    frameworks: Iterable[str] | None = None,
    runners: Sequence[Runner] | None = None,
    stages: Iterable[str] = tuple(STAGES),
    compiled: bool = True,
    seed: int = 0,
    batch_size: int = 4,
    steps: int = 50,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Hold the frameworks to the float64 referee and to each other, stage by stage.

    Args:
        spec: a spec, or the name of a preset, of a weights file (whose arrays are then taken) or of a spec document.
        arrays: weights by canonical name; where None those of the first of `runners`, or freshly drawn from `seed`.
        images: float32 (count, C, H, W); random ones where None.
        labels: integers (count,), for the training stages; given with images.
        frameworks: which to compare; one that is not installed gets NOT RUN rows.
        runners: models to compare instead of freshly built ones (of this spec); they keep their weights and mode.
        stages: which stages to run, of `maam.parity.STAGES`.
        compiled: whether torch.compile is among the modes.
        seed: of all that is drawn.
        batch_size: images in one comparison.
        steps: length of the free run.
        progress: called with the name of each stage before it runs.

    Raises:
        SpecError: `spec` is none, a stage or framework is unknown, images and labels do not fit, or a count is under 1.
        ShapeError, WeightsError: the images, or the arrays, are not those of the model.
        PresetError: there is no preset of that name.
    """
    chosen = _chosen([stages] if isinstance(stages, str) else stages)
    node, weights = _model(spec, arrays, runners, seed)
    images, labels = _data(node, images, labels, seed)
    check_counts(batch_size=batch_size, steps=steps)
    missing: dict[str, str] = {}
    if runners is None:
        runners, missing = make_runners(node, weights, frameworks, compiled=compiled)
    double = make_double(node, weights)
    subject = Subject(node, weights, images, labels, runners, double, seed=seed, batch_size=batch_size, steps=steps)
    report = Report(title=node.name if isinstance(node, Model) else node.kind, environment=environment())
    with ExitStack() as stack:
        for runner in runners:
            stack.enter_context(runner.preserve_state())
        for name in chosen:
            if progress is not None:
                progress(name)
            _run(name, subject, report, missing)
    return report


def _run(stage: str, subject: Subject, report: Report, missing: Mapping[str, str]) -> None:
    for row in STAGES[stage](subject, report):
        report.rows.append(row)  # one by one: a stage asks the report for what was found so far
    for runner, reason in missing.items():
        report.rows.extend(not_run([stage], runner, reason))


def _chosen(stages: Iterable[str]) -> list[str]:
    """The stages in the order in which they run."""
    wanted = set(stages)
    if unknown := sorted(wanted - set(STAGES)):
        raise SpecError(f"stages: no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    return [name for name in STAGES if name in wanted]


def _single(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(array).astype(np.float32) for name, array in arrays.items()}


def _model(
    spec: Node | PathLike, arrays: Mapping[str, Array] | None, runners: Sequence[Runner] | None, seed: int
) -> tuple[Node, dict[str, Array]]:
    """What is compared, and its weights in float32: those given, of the file, of the first runner, or drawn."""
    node, saved = find_spec(os.fspath(spec)) if isinstance(spec, (str, os.PathLike)) else (resolve(spec), None)
    given = saved if arrays is None else arrays
    if given is None and runners:
        given = runners[0].read_arrays()
    if given is None:
        return node, draw(node.parameters(), seed)
    return node, _single(match(node, given, source="arrays")[0])


def _data(node: Node, images: Array | None, labels: Array | None, seed: int) -> tuple[Array, Array]:
    """The images, float32, and labels, int32, that are compared on: those given, or random ones."""
    if images is None:
        images, labels = random_images(node, 256, seed)
    else:
        labels = _labels(labels, len(images))
    _check_data(node, images, labels)
    return np.asarray(images, np.float32), np.asarray(labels, np.int32)


def _check_data(node: Node, images: Array, labels: Array) -> None:
    shape = np.shape(images)
    input_rule(node).check(shape)
    if not len(images):
        raise SpecError("images: expected at least one")
    if (kind := np.asarray(images).dtype).kind != "f":
        raise SpecError(f"images: expected floating-point numbers, got {kind}; scale pixels by maam.data.to_float")
    if not np.isfinite(images).all():
        raise SpecError("images: they hold NaN or infinity, which nothing can be compared on")
    output = node.output_shape(tuple(shape[1:]))
    if len(output) == 1 and len(labels) and not 0 <= np.min(labels) <= np.max(labels) < output[0]:
        raise SpecError(f"labels: expected 0..{output[0] - 1}, got {np.min(labels)}..{np.max(labels)}")


def _labels(labels: Array | None, count: int) -> Array:
    if labels is None or len(labels) != count:
        given = "none" if labels is None else len(labels)
        raise SpecError(f"labels: expected one for each of {count} images, got {given}")
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SpecError(f"labels: expected integers of shape ({count},), got {array.dtype} of shape {array.shape}")
    return array
