"""The arrays that each model trains, their gradients, and their changes by steps of SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from maam.backend.adapter import Inputs, ModelAdapter, Slot
from maam.parity.report import Row, Verdict, row, skip
from maam.porting.matching import ArrayPair
from maam.porting.subject import NOT_RUN, RUNNER, Array, Arrays, Subject
from maam.tolerance import GRADIENT_FLOOR, PORT_GRADIENT, PORT_MARGIN, PORT_MAX_ALLOWED, Difference

Compute = Callable[[ModelAdapter, Inputs], Arrays]
"""A computation with a model and its inputs, such as its gradients."""
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4
PERTURBATIONS = 3
"""The number of runs from slightly changed weights and inputs that measure rounding."""
NUDGE = 8 * 2.0**-23
"""The relative change of each value in these runs: about the rounding error of float32 after a few layers."""
_BOUND = f"{PORT_GRADIENT.absolute:.0e} of the norm"


def compare_trained_sets(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare which arrays each model trains, and which it ties."""
    stage = "trained arrays"
    problems = trained_problems(subject)
    trained = [item for item in subject.arrays if any(slot.trainable for slot in (*item.torch, *item.mindspore))]
    if not trained:
        note = "neither model trains an array" if subject.arrays else "the models have no arrays"
        return [Row(stage, RUNNER, Verdict.NOT_APPLICABLE, note=note)]
    if problems:
        name, text = next(iter(problems.items()))
        more = f"; {len(problems)} arrays differ" if len(problems) > 1 else ""
        return [Row(stage, RUNNER, Verdict.FAIL, layer=suspect or name, note=f"{name}: {text}{more}")]
    return [Row(stage, RUNNER, Verdict.PASS, "the same", note=f"{len(trained)} arrays")]


def trained_problems(subject: Subject) -> dict[str, str]:
    """Return what differs about the training of an array, by its name."""
    found: dict[str, str] = {}
    for item in subject.arrays:
        if item.torch and item.mindspore:
            for name, own, other in _slots(subject, item):
                if text := _problem(own, other):
                    found[name] = text
            continue
        for slot in (*item.torch, *item.mindspore):
            has, lacks = ("PyTorch", "MindSpore") if item.torch else ("MindSpore", "PyTorch")
            if slot.trainable:
                found[slot.name] = f"trained in {has}; {lacks} has no such array"
    return found


def _slots(subject: Subject, item: ArrayPair) -> Iterator[tuple[str, Slot, Slot]]:
    """Yield the name and both arrays of a pair: each part of a joined array with the whole one."""
    own, other = item.torch, item.mindspore
    if len(own) == len(other):
        yield from ((subject.display_name(a.name), a, b) for a, b in zip(own, other, strict=True))
    else:
        parts = max(own, other, key=len)
        yield from ((slot.name, own[i % len(own)], other[i % len(other)]) for i, slot in enumerate(parts))


def _problem(own: Slot, other: Slot) -> str:
    """Return what differs about the training of two arrays; empty if nothing does."""
    if own.trainable != other.trainable:
        trained, fixed = ("PyTorch", "MindSpore") if own.trainable else ("MindSpore", "PyTorch")
        return f"trained in {trained} alone ({fixed}: requires_grad=False)"
    if bool(own.tied) != bool(other.tied):
        tied, free = ("PyTorch", "MindSpore") if own.tied else ("MindSpore", "PyTorch")
        return f"the same array as that of another layer in {tied}, an array of its own in {free}"
    return ""


def compare_gradients(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare the gradients of all trained arrays, by name, in train mode."""
    if obstacle := _obstacle(subject):
        return skip(["gradients"], [RUNNER], *obstacle)
    generator = np.random.default_rng([subject.seed, 11])
    cotangent = np.asarray(generator.standard_normal(subject.recording("torch").output.shape), np.float32)

    def compute(adapter: ModelAdapter, inputs: Inputs) -> Arrays:
        return adapter.gradients(inputs, cotangent)

    return [_compare_trained(subject, suspect, "gradients", compute)]


def compare_steps(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare the change of all trained arrays by a few steps of SGD with momentum and weight decay."""
    stage = f"sgd, steps: {subject.steps}"
    if obstacle := _obstacle(subject):
        return skip([stage], [RUNNER], *obstacle)
    generator = np.random.default_rng([subject.seed, 13])
    shape = subject.recording("torch").output.shape
    target = np.asarray(generator.standard_normal(shape), np.float32)
    if len(shape) == 2:
        target = generator.integers(0, shape[1], shape[0]).astype(np.int32)

    def compute(adapter: ModelAdapter, inputs: Inputs) -> Arrays:
        start = adapter.read()
        adapter.train([(inputs, target)] * subject.steps, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
        after = adapter.read()
        with np.errstate(invalid="ignore"):  # infinity in a mask
            return {name: after[name].astype(np.float64) - start[name] for name in start}

    return [_compare_trained(subject, suspect, stage, compute)]


def _obstacle(subject: Subject) -> tuple[str, Verdict] | None:
    """Return the reason why gradients cannot be compared, and the verdict; None if they can."""
    if subject.refusal:
        return NOT_RUN, Verdict.NOT_RUN
    if reason := subject.torch.fixed or subject.mindspore.fixed:
        return f"{reason} keeps the mode that it was made in", Verdict.NOT_APPLICABLE
    if subject.random:
        return subject.random, Verdict.NOT_RUN
    if subject.recording("torch").output.dtype.kind in "biu":
        return "integers and booleans have no gradient", Verdict.NOT_APPLICABLE
    if not _trained(subject):
        return "the models train no arrays in common", Verdict.NOT_APPLICABLE
    own, other = (recording.output.shape for recording in subject.recordings())
    if own != other:
        return f"the output has shape {other} in MindSpore and {own} in PyTorch", Verdict.NOT_RUN
    return None


def _trained(subject: Subject) -> list[str]:
    """Return PyTorch's names of the arrays that both models train."""
    return [
        slot.name
        for item in subject.shared
        for slot in item.torch
        if slot.trainable and all(other.trainable for other in item.mindspore)
    ]


def _compare_trained(subject: Subject, suspect: str, stage: str, compute: Compute) -> Row:
    """Compare the result for each trained array. Name the last one that differs, because errors spread backwards."""
    trained = _trained(subject)
    single = _select(_restoring(subject.torch, compute, subject.inputs), trained)
    if bad := [name for name in trained if not np.isfinite(single[name]).all()]:
        layer, note = suspect or subject.display_name(bad[-1]), f"not finite in PyTorch itself: {len(bad)} arrays"
        return Row(stage, RUNNER, Verdict.FAIL, layer=layer, note=note)
    actual = subject.torch_names(_restoring(subject.mindspore, compute, subject.inputs))
    gaps = errors(actual, single)
    if max(gaps.values()) <= PORT_GRADIENT.absolute / 2:  # the comparison with float64 would pass, too
        worst = Difference(np.nan, max(gaps.values()), max(gaps.values()) / PORT_GRADIENT.absolute)
        return row(stage, RUNNER, worst, _BOUND, "", f"{len(trained)} arrays")
    if reason := subject.find_random_code(training=True):  # the outputs of two runs can be equal by chance
        return Row(stage, RUNNER, Verdict.FAIL, layer=suspect or "the whole model", note=reason)
    if not subject.agrees:  # rounding is not the reason, so it is not measured
        worst = Difference(np.nan, max(gaps.values()), max(gaps.values()) / PORT_GRADIENT.absolute)
        bad = [name for name in trained if gaps[name] > PORT_GRADIENT.absolute]
        name = suspect or subject.display_name(bad[-1] if bad else "")
        return row(stage, RUNNER, worst, _BOUND, name, f"{len(bad)} arrays differ from float32 PyTorch's")
    expected = _select(_restoring(subject.double, compute, subject.inputs), trained)
    found, others = errors(actual, expected), [single]
    allowed = allowed_errors(expected, others)
    for index in range(PERTURBATIONS):
        if all(found[name] <= allowed[name] for name in trained):
            break  # rounding needs no further measurement
        moved = perturbed_run(subject.torch, subject.inputs, compute, subject.seed, index)
        others.append(_select(moved, trained))
        allowed = allowed_errors(expected, others)
    clear = [name for name in trained if allowed[name] <= PORT_MAX_ALLOWED]
    if not clear:
        note = "rounding alone changes every array by a tenth or more; use a larger batch or larger inputs"
        return Row(stage, RUNNER, Verdict.NOT_APPLICABLE, note=note)
    bad = [name for name in clear if found[name] > allowed[name]]
    worst = Difference(np.nan, max(found[n] for n in clear), max(found[n] / allowed[n] for n in clear))
    note = f"at most {max(allowed[n] for n in clear):.1e} allowed for rounding"
    if len(clear) < len(trained):
        note += f"; {len(trained) - len(clear)} arrays left out, because rounding alone changes them by a tenth or more"
    return row(stage, RUNNER, worst, _BOUND, suspect or subject.display_name(bad[-1] if bad else ""), note)


def _restoring(adapter: ModelAdapter, compute: Compute, inputs: Inputs) -> Arrays:
    """Return the result of a computation and restore the model's arrays."""
    before = adapter.read()
    found = compute(adapter, inputs)
    adapter.write(before)
    return found


def _select(arrays: Arrays, names: list[str]) -> Arrays:
    return {name: arrays[name] for name in names}


def perturbed_run(adapter: ModelAdapter, inputs: Inputs, compute: Compute, seed: int, index: int) -> Arrays:
    """Return the result for weights and inputs changed by rounding, and restore the model's arrays.

    In float32, the rounding inside the computation changes as well, which float64 does not show: a sum of values
    that cancel is all rounding.
    """
    before = adapter.read()
    generator = np.random.default_rng([seed, 23, index])
    adapter.write({name: _nudge(array, generator) for name, array in before.items()})
    found = compute(adapter, tuple(_nudge_input(x, generator) for x in inputs))
    adapter.write(before)
    return found


def _nudge(array: Array, generator: np.random.Generator) -> Array:
    """Return the array, each element moved up or down by eight float32 units in the last place."""
    return np.asarray(array.astype(np.float64) * (1 + NUDGE * generator.choice([-1.0, 1.0], array.shape)))


def _nudge_input(x: Array, generator: np.random.Generator) -> Array:
    """Return a moved input; integers stay, and zeros move like ones, because layers round the values that follow."""
    if x.dtype.kind != "f":
        return x
    return _nudge(x, generator) if x.any() else _nudge(np.ones_like(x), generator) - 1


def errors(actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return the norm of each tensor's error as a share of the tensor's norm; infinity for NaN.

    The norm counts as at least `GRADIENT_FLOOR` of the largest norm, because smaller values are rounding.
    """
    sizes = {name: float(np.linalg.norm(array)) / max(array.size, 1) ** 0.5 for name, array in expected.items()}
    floor = max(GRADIENT_FLOOR * max(sizes.values(), default=0.0), 1e-300)
    found = {}
    for name, array in expected.items():
        error = float(np.linalg.norm(actual[name].astype(np.float64) - array)) / max(array.size, 1) ** 0.5
        found[name] = float(np.nan_to_num(error / max(sizes[name], floor), nan=np.inf, posinf=np.inf))
    return found


def allowed_errors(expected: Arrays, others: list[Mapping[str, Array]]) -> dict[str, float]:
    """Return the allowed error of each tensor, from runs that differ from the expected one by rounding only."""
    found = [errors(other, expected) for other in others]
    return {name: max(PORT_GRADIENT.absolute, PORT_MARGIN * max(e[name] for e in found)) for name in expected}
