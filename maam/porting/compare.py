"""The models as a whole: weights, outputs, running statistics, gradients, training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maam.backend.adapter import Call, ModelAdapter
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.porting.pairing import Pair, Run
from maam.tolerance import (
    EXACT,
    LAYER,
    LOGITS,
    NONE,
    STATISTICS,
    TRAINED_GRADIENT_FACTOR,
    Bound,
    Difference,
    difference,
    worse,
)

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
MARGIN = TRAINED_GRADIENT_FACTOR
"""How many times what rounding does to PyTorch a value may be off."""
MOST = 1e-3
"""The most, as a share of a tensor's largest value (1 at least), that rounding excuses in a pass forward."""
LEAST = Bound(1e-3, 0.0, scaled=True)
"""Allowed in any case to the norm of a gradient, as a share of it: no kink of a ReLU is left out here."""
FLOOR = 1e-2
"""A tensor counts as at least this share of the largest: what is all but 0 is all rounding."""
PERTURBATIONS = 3
NUDGE = 8 * 2.0**-23
"""About as far as float32 moves a value after a few layers."""
VAIN = 0.3
"""Where rounding alone moves a tensor by a tenth of itself, nothing can be said about it."""


def held(actual: Array, expected: Array, single: Array, bound: Bound) -> Difference:
    """Hold `actual` to the float64 `expected`; `single` is what PyTorch computes in float32."""
    if actual.shape != expected.shape:
        return Difference(np.inf, np.inf, np.inf)
    expected = expected.astype(np.float64)
    rounding = MARGIN * float(np.abs(single - expected).max(initial=0))
    slack = min(rounding, MOST * max(1.0, float(np.abs(expected).max(initial=0))))
    return difference(actual, expected, bound, slack=slack)


def errors(actual: Arrays, expected: Arrays) -> dict[str, float]:
    """For each tensor the norm of the error, as a share of the norm of the tensor; infinity where it is no number."""
    sizes = {name: float(np.linalg.norm(array)) / max(array.size, 1) ** 0.5 for name, array in expected.items()}
    floor = max(FLOOR * max(sizes.values(), default=0.0), 1e-300)
    found = {}
    for name, array in expected.items():
        error = float(np.linalg.norm(actual[name].astype(np.float64) - array)) / max(array.size, 1) ** 0.5
        found[name] = float(np.nan_to_num(error / max(sizes[name], floor), nan=np.inf, posinf=np.inf))
    return found


def allowances(expected: Arrays, others: Sequence[Arrays]) -> dict[str, float]:
    """For each tensor the error that is allowed, from runs that ought to agree with the expected one."""
    found = [errors(other, expected) for other in others]
    return {name: max(LEAST.absolute, MARGIN * max(e[name] for e in found)) for name in expected}


def moved_runs(
    half: ModelAdapter, arrays: Arrays, x: Array, run: Callable[[ModelAdapter, Array], Arrays], seed: int
) -> list[Arrays]:
    """What `run` gives for weights and input moved by rounding; the model's arrays are put back."""
    before = half.read()
    found = []
    for index in range(PERTURBATIONS):
        generator = np.random.default_rng([seed, 23, index])
        half.write({name: nudge(array, generator) for name, array in arrays.items()})
        found.append(run(half, nudge(x, generator) if x.dtype.kind == "f" else x))
    half.write(before)
    return found


def nudge(array: Array, generator: np.random.Generator) -> Array:
    """The array in float64, each element moved by eight float32 units in the last place, up or down."""
    return np.asarray(array.astype(np.float64) * (1 + NUDGE * generator.choice([-1.0, 1.0], array.shape)))


@dataclass(frozen=True)
class Subject:
    """The matter of a port, after the transfer.

    Attributes:
        torch: the PyTorch module.
        mindspore: the MindSpore cell.
        double: the PyTorch module in float64, the referee; the module itself where it has no float64 form.
        pairs: the layers with weights.
        runs: the runs of layers that stand for each other.
        x: the inputs.
        seed: of all that is drawn.
        steps: training steps to compare.
        refusal: what MindSpore said where its model could not run; empty otherwise.
    """

    torch: ModelAdapter
    mindspore: ModelAdapter
    double: ModelAdapter
    pairs: Sequence[Pair]
    runs: Sequence[Run]
    x: Array
    seed: int
    steps: int
    refusal: str = ""

    def torch_names(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """MindSpore's arrays by PyTorch's names, and in PyTorch's shapes."""
        return {own.name: arrays[other.name].reshape(own.shape) for own, other in self._slots(arrays)}

    def layer(self, name: str) -> str:
        """How to call a PyTorch array in a report: with MindSpore's name where that is another."""
        for pair in self.pairs:
            for own, other in pair.slots:
                if own.name == name:
                    return name if other.name == name else f"{name} (MindSpore: {other.name})"
        return name

    def record(self, training: bool) -> tuple[list[Call], list[Call]]:
        """What every layer takes and gives in PyTorch, in float32 and in float64; running statistics stay."""
        found = []
        for half in (self.torch, self.double):
            before = half.read()
            found.append(half.record(self.x, training)[1])
            half.write(before)
        return found[0], found[1]

    def _slots(self, arrays: Mapping[str, Array]) -> list[tuple[Any, Any]]:
        return [(a, b) for pair in self.pairs for a, b in pair.slots if b.name in arrays]


RUNNER = "mindspore pynative"
_BROKEN = Difference(np.inf, np.inf, np.inf)


def compare_layers(subject: Subject, report: Report) -> Iterator[Row]:
    """Each layer alone, in eval and in train mode, on what PyTorch's layer was given."""
    for training in (False, True):
        single, double = subject.record(training)
        halves = (subject.mindspore, subject.double)
        before = [half.read() for half in halves]
        worst, first, said = NONE, "", ""
        for run in subject.runs:
            found, reason = _alone(subject, run, single[run.torch], double[run.torch], training)
            if found.used > 1 and not first:
                first, said = run.pair.name, reason
            worst = worse(worst, found)
        for half, arrays in zip(halves, before, strict=True):
            half.write(arrays)
        stage = f"layers alone, {'train' if training else 'eval'}"
        yield row(stage, RUNNER, worst, LAYER, first, said or f"{len(subject.runs)} runs of layers")


def _alone(subject: Subject, run: Run, single: Call, double: Call, training: bool) -> tuple[Difference, str]:
    if single.inputs is None or single.output is None:
        return NONE, ""
    try:
        actual = subject.mindspore.run_layer(run.pair.mindspore.name, single.inputs, training)
        expected = subject.double.run_layer(run.pair.torch.name, single.inputs, training)
    except Exception as error:  # whatever a framework raises
        return _BROKEN, f"refused its input: {first_line(error)}"
    if actual.shape != expected.shape:
        return _BROKEN, f"gives {actual.shape} instead of {expected.shape}"
    return held(actual, expected, single.output, LAYER), ""


def compare_layers_inside(subject: Subject, report: Report) -> Iterator[Row]:
    """Each layer's output in the running model, in eval mode."""
    stage = "layers in the model, eval"
    if subject.refusal:
        yield from not_run([stage], RUNNER, "MindSpore's model did not run")
        return
    single, double = subject.record(False)
    calls = subject.mindspore.record(subject.x)[1]
    worst, first, note, last = NONE, "", "", "the input"
    for run in subject.runs:
        assert run.mindspore is not None
        found = _inside(single[run.torch], double[run.torch], calls[run.mindspore])
        if found.used > 1 and not first:
            first = run.pair.name
            note = _cause(report, single[run.torch], double[run.torch], calls[run.mindspore], last, first)
        worst, last = worse(worst, found), run.pair.name
    yield row(stage, RUNNER, worst, LOGITS, first, note)


def _inside(single: Call, double: Call, actual: Call) -> Difference:
    if single.output is None or double.output is None or actual.output is None:
        return NONE
    return held(actual.output, double.output, single.output, LOGITS)


def _cause(report: Report, single: Call, double: Call, actual: Call, last: str, first: str) -> str:
    """What the layer is given tells whether the fault is in it or before it."""
    triples = zip(single.inputs or (), double.inputs or (), actual.inputs or (), strict=False)
    if any(held(c, b, a, LOGITS).used > 1 for a, b, c in triples):
        return f"what it is given differs: look at the code between {last} and it (functions, sums, order)"
    return "" if report.first_difference else "what it is given agrees"


def first_line(error: Exception) -> str:
    """The first line of what a framework says, not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


RATE, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


def compare_weights(subject: Subject, report: Report) -> Iterator[Row]:
    """All weights, bit for bit."""
    own, other = subject.torch.read(), subject.torch_names(subject.mindspore.read())
    worst, first = NONE, ""
    for name, array in other.items():
        found = difference(array, own[name].astype(np.float64), EXACT)
        first = first or subject.layer(name) if found.used > 1 else first
        worst = worse(worst, found)
    yield row("weights", RUNNER, worst, EXACT, first, f"{len(other)} arrays of {len(subject.pairs)} layers")


def compare_outputs(subject: Subject, report: Report) -> Iterator[Row]:
    """The output in eval and train mode, and the running statistics that a pass in train mode leaves."""
    stages = ["output, eval", "output, train", "running statistics"]
    if subject.refusal:
        yield Row(stages[0], RUNNER, Verdict.FAIL, str(LOGITS), layer=report.first_difference, note=subject.refusal)
        yield from not_run(stages[1:], RUNNER, "MindSpore's model did not run")
        return
    halves = (subject.mindspore, subject.double, subject.torch)
    last = f"after {subject.runs[-1].pair.name}" if subject.runs else "the whole"
    for training, stage in enumerate(stages[:2]):
        before = [half.read() for half in halves]
        actual, expected, single = (half.forward(subject.x, bool(training)) for half in halves)
        found = held(actual, expected, single, LOGITS)
        yield row(stage, RUNNER, found, LOGITS, report.first_difference or last)
        if training:
            yield _statistics(subject, *(half.read() for half in halves))
        for half, arrays in zip(halves, before, strict=True):
            half.write(arrays)


def _statistics(
    subject: Subject, actual: dict[str, Array], expected: dict[str, Array], single: dict[str, Array]
) -> Row:
    worst, first = NONE, ""
    moved = [slot.name for pair in subject.pairs for slot, _ in pair.slots if not slot.trainable]
    own = subject.torch_names(actual)
    for name in moved:
        found = held(own[name], expected[name], single[name], STATISTICS)
        first = first or subject.layer(name) if found.used > 1 else first
        worst = worse(worst, found)
    return row("running statistics", RUNNER, worst, STATISTICS, first, "" if moved else "there are none")


def compare_gradients(subject: Subject, report: Report) -> Iterator[Row]:
    """Gradients of every parameter, by name, in train mode."""
    if reason := _obstacle(subject):
        yield from not_run(["gradients"], RUNNER, reason)
        return
    generator = np.random.default_rng([subject.seed, 11])
    cotangent = generator.standard_normal(_output_shape(subject)).astype(np.float32)

    def run(half: ModelAdapter, x: Array) -> dict[str, Array]:
        return half.gradients(x, cotangent)

    yield _judge(subject, report, "gradients", run)


def compare_steps(subject: Subject, report: Report) -> Iterator[Row]:
    """What a few steps of SGD with momentum and weight decay do to every parameter."""
    stage = f"sgd, steps: {subject.steps}"
    if reason := _obstacle(subject):
        yield from not_run([stage], RUNNER, reason)
        return
    generator = np.random.default_rng([subject.seed, 13])
    shape = _output_shape(subject)
    target = generator.standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        target = generator.integers(0, shape[1], shape[0]).astype(np.int32)

    def run(half: ModelAdapter, x: Array) -> dict[str, Array]:
        start = half.read()
        half.train([(x, target)] * subject.steps, RATE, MOMENTUM, DECAY)
        after = half.read()
        return {name: after[name].astype(np.float64) - start[name] for name in start}

    yield _judge(subject, report, stage, run)


def _judge(subject: Subject, report: Report, stage: str, run: Any) -> Row:
    """Hold what `run` gives for each trained array to the referee's.

    A fault spreads backwards, so the last one that differs is named.
    """
    trained = [slot.name for pair in subject.pairs for slot, _ in pair.slots if slot.trainable]
    expected = _of(_run(subject.double, run, subject.x), trained)
    if bad := [name for name in trained if not np.isfinite(expected[name]).all()]:
        note = f"not finite in PyTorch itself: {len(bad)} arrays"
        return Row(stage, RUNNER, Verdict.FAIL, layer=report.first_difference or subject.layer(bad[-1]), note=note)
    moved = moved_runs(subject.double, subject.torch.read(), subject.x, run, subject.seed)
    others = [_of(found, trained) for found in (_run(subject.torch, run, subject.x), *moved)]
    allowed = allowances(expected, others)
    actual = subject.torch_names(_run(subject.mindspore, run, subject.x))
    if fixed := [name for name in trained if name not in actual]:
        note = f"not trained in MindSpore (requires_grad): {len(fixed)} arrays"
        return Row(stage, RUNNER, Verdict.FAIL, layer=report.first_difference or subject.layer(fixed[0]), note=note)
    clear = [name for name in trained if allowed[name] <= VAIN]
    if not clear:
        return Row(stage, RUNNER, Verdict.NOT_APPLICABLE, note=_vain(trained))
    found = errors(actual, expected)
    bad = [name for name in clear if found[name] > allowed[name]]
    worst = Difference(np.nan, max(found[n] for n in clear), max(found[n] / allowed[n] for n in clear))
    note = f"rounding: {max(allowed[n] for n in clear):.1e} allowed at most"
    note += f"; {len(trained) - len(clear)} arrays all rounding, left out" if len(clear) < len(trained) else ""
    return row(stage, RUNNER, worst, LEAST, report.first_difference or subject.layer(bad[-1] if bad else ""), note)


def _vain(trained: list[str]) -> str:
    return (
        "rounding alone moves every gradient by a tenth or more; give more, or larger, inputs"
        if trained
        else "none trained"
    )


def _run(half: ModelAdapter, run: Any, x: Array) -> dict[str, Array]:
    before = half.read()
    found = run(half, x)
    half.write(before)
    return found


def _of(arrays: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    return {name: arrays[name] for name in names}


def _obstacle(subject: Subject) -> str:
    if subject.refusal:
        return "MindSpore's model did not run"
    shapes = _output_shape(subject), subject.mindspore.forward(subject.x).shape
    return "" if shapes[0] == shapes[1] else f"MindSpore's output is of shape {shapes[1]} instead of {shapes[0]}"


def _output_shape(subject: Subject) -> tuple[int, ...]:
    return subject.torch.forward(subject.x).shape
