"""The parity check: it runs the stages on all runners and assembles their findings into a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from maam._messages import check_counts, one_line
from maam._system import environment
from maam.backend.protocol import Runner
from maam.backend.registry import make_double, make_runners
from maam.errors import MaamError, SpecError
from maam.parity.report import Findings, Report, Row, Verdict, skip
from maam.parity.stages import STAGES
from maam.parity.subject import Subject, random_images
from maam.spec import Model, Node, draw, input_rule
from maam.spec.presets import resolve
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
    """Compare the frameworks with the float64 reference, stage by stage, and return a report.

    Args:
        spec: a spec, the name of a preset, or the path of a weights file or of a spec document. The arrays of a weights
            file are used if `arrays` is None.
        arrays: weights by canonical name; if None, those of the first runner, or fresh ones drawn from `seed`.
        images: floating-point (N, C, H, W) or (N, features), compared in float32; random ones if None.
        labels: integers (N,) for the stages that train; required with `images`.
        frameworks: the backends to compare; one that is not installed gets NOT RUN rows.
        runners: existing models of `spec` to compare in place of new ones. Their weights and modes are restored.
        stages: the stages to run, a selection of `maam.parity.STAGES`.
        compiled: whether to compare modes that compile the whole model, as torch.compile does.
        seed: the seed of all random numbers.
        batch_size: the number of images in a batch.
        steps: the length of the free run.
        progress: called with the name of each stage before it runs.

    Returns:
        The report; it is true if nothing differs.

    Raises:
        SpecError: `spec` is not a spec, a stage or framework is unknown, images and labels do not match, or a count is
            below 1.
        ShapeError: the images do not have the shape that the model takes.
        WeightsError: the arrays do not fit the spec, or the file cannot be read.
        PresetError: the preset does not exist.

    Example:
        >>> from maam.parity import check
        >>> report = check("maam_digits", frameworks=["torch"], compiled=False, stages=["layers", "forward"])
        >>> report.passed
        True
        >>> [row.stage for row in report.rows if row.runner == "torch"][-2:]
        ['logits, train', 'running statistics, whole model']
    """
    names = _order_stages([stages] if isinstance(stages, str) else stages)
    node, weights = _find_model(spec, arrays, runners, seed)
    images, labels = _find_data(node, images, labels, seed)
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
        for name in names:
            if progress is not None:
                progress(name)
            findings = _run_stage(name, subject, report.first_difference)
            report.rows.extend(findings.rows)
            report.depth.extend(findings.depth)
            for mode, reason in missing.items():
                report.rows.extend(skip([name], [mode], reason))
    return report


def _run_stage(name: str, subject: Subject, suspect: str) -> Findings:
    """Return the findings of a stage; an error of a framework is a failed row, so that the report is not lost."""
    try:
        return STAGES[name](subject, suspect)
    except (MaamError, MemoryError):
        raise
    except Exception as error:
        text = f"stopped by {type(error).__name__}: {one_line(error, 200)}"
        return Findings([Row(name, ", ".join(subject.runner_names), Verdict.FAIL, layer=suspect, note=text)])


def _order_stages(stages: Iterable[str]) -> list[str]:
    """Return the selected stages in the order in which they run."""
    wanted = set(stages)
    if unknown := sorted(wanted - set(STAGES)):
        raise SpecError(f"stages: expected names from {', '.join(STAGES)}; got {unknown[0]!r}")
    return [name for name in STAGES if name in wanted]


def _find_model(
    spec: Node | PathLike, arrays: Mapping[str, Array] | None, runners: Sequence[Runner] | None, seed: int
) -> tuple[Node, dict[str, Array]]:
    """Return the spec and its float32 weights: the given ones, the file's, the first runner's, or fresh ones."""
    node, saved = find_spec(os.fspath(spec)) if isinstance(spec, (str, os.PathLike)) else (resolve(spec), None)
    given = saved if arrays is None else arrays
    if given is None and runners:
        given = runners[0].read_arrays()
    if given is None:
        return node, draw(node.parameters(), seed)
    matched, _ = match(node, given, source="arrays")
    return node, {name: np.asarray(array).astype(np.float32) for name, array in matched.items()}


def _find_data(node: Node, images: Array | None, labels: Array | None, seed: int) -> tuple[Array, Array]:
    """Return float32 images and int32 labels: the given ones, or random ones."""
    if images is None:
        images, labels = random_images(node, 256, seed)
    else:
        labels = _check_labels(labels, len(images))
    _check_images(node, images, labels)
    return np.asarray(images, np.float32), np.asarray(labels, np.int32)


def _check_images(node: Node, images: Array, labels: Array) -> None:
    shape = np.shape(images)
    input_rule(node).check(shape)
    if not len(images):
        raise SpecError("images: expected at least one image, got none")
    if (dtype := np.asarray(images).dtype).kind != "f":
        raise SpecError(f"images: expected floating-point numbers, got {dtype}; convert pixels with maam.data.to_float")
    if not np.isfinite(images).all():
        raise SpecError("images: expected finite numbers, got NaN or infinity")
    output = node.output_shape(tuple(shape[1:]))
    if len(output) == 1 and len(labels) and not 0 <= np.min(labels) <= np.max(labels) < output[0]:
        raise SpecError(f"labels: expected 0..{output[0] - 1}, got {np.min(labels)}..{np.max(labels)}")


def _check_labels(labels: Array | None, count: int) -> Array:
    if labels is None or len(labels) != count:
        given = "none" if labels is None else len(labels)
        raise SpecError(f"labels: expected one for each of {count} images, got {given}")
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SpecError(f"labels: expected integers of shape ({count},), got {array.dtype} of shape {array.shape}")
    return array
