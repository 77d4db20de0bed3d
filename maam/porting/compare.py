"""The stages of a port: weights, layers, outputs, running statistics, gradients and training steps of both models.

A stage is a function of the subject and of the first layer that earlier stages found to differ ("" if none did). It
returns rows of a report. The float64 PyTorch model is the reference; float32 PyTorch shows what rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maam.backend.adapter import Array, Call, ModelAdapter, Slot
from maam.parity.report import Row, Verdict, row, skip
from maam.porting.pairing import Pair, Run
from maam.tolerance import (
    BROKEN,
    EXACT,
    GRADIENT_FLOOR,
    LAYER,
    LOGITS,
    NONE,
    PORT_GRADIENT,
    PORT_MARGIN,
    PORT_MAX_ALLOWED,
    PORT_MAX_ROUNDING,
    STATISTICS,
    Bound,
    Difference,
    difference,
    worse,
)

Arrays = Mapping[str, Array]
Compute = Callable[[ModelAdapter, Array], Arrays]
"""A computation with a model and its input, such as its gradients."""
RUNNER = "mindspore pynative"
NOT_RUN = "MindSpore's model did not run"
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4
PERTURBATIONS = 3
"""The number of runs from slightly changed weights and inputs that measure rounding."""
NUDGE = 8 * 2.0**-23
"""The relative change of each value in these runs: about the rounding error of float32 after a few layers."""


@dataclass(frozen=True)
class Subject:
    """The two models of a port after the transfer of weights.

    Attributes:
        torch: the PyTorch module.
        mindspore: the MindSpore cell.
        double: the PyTorch module in float64, the reference; the float32 module if it cannot be converted.
        pairs: the layers with weights.
        runs: the corresponding runs of layers.
        x: the inputs.
        seed: the seed of all random numbers.
        steps: the number of training steps.
        refusal: the error message of a MindSpore model that cannot run; empty if it can.
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

    @property
    def slots(self) -> list[tuple[Slot, Slot]]:
        """The corresponding arrays of both models, PyTorch's first."""
        return [slots for pair in self.pairs for slots in pair.slots]

    @property
    def trained(self) -> list[str]:
        """PyTorch's names of all arrays that PyTorch trains."""
        return [slot.name for slot, _ in self.slots if slot.trainable]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of PyTorch's output for the inputs."""
        return self.torch.forward(self.x).shape

    def torch_names(self, arrays: Arrays) -> dict[str, Array]:
        """Return MindSpore's arrays under PyTorch's names and in PyTorch's shapes."""
        return {own.name: arrays[other.name].reshape(own.shape) for own, other in self.slots if other.name in arrays}

    def display_name(self, name: str) -> str:
        """Return a PyTorch array's name for a report, with MindSpore's if it differs."""
        for own, other in self.slots:
            if own.name == name:
                return name if other.name == name else f"{name} (MindSpore: {other.name})"
        return name

    def record(self, adapter: ModelAdapter, training: bool = False) -> list[Call]:
        """Return the calls of all layers of a model, and restore its arrays."""
        before = adapter.read()
        calls = adapter.record(self.x, training)[1]
        adapter.write(before)
        return calls


def compare_weights(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare all weights bit by bit."""
    own, other = subject.torch.read(), subject.torch_names(subject.mindspore.read())
    worst, first = NONE, ""
    for name, array in other.items():
        found = difference(array, own[name].astype(np.float64), EXACT)
        first = first or subject.display_name(name) if found.used > 1 else first
        worst = worse(worst, found)
    return [row("weights", RUNNER, worst, EXACT, first, f"{len(other)} arrays of {len(subject.pairs)} layers")]


def compare_layers(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare each layer alone, in eval and train mode, on the input of PyTorch's layer."""
    rows = []
    for training, stage in ((False, "layers alone, eval"), (True, "layers alone, train")):
        single = subject.record(subject.torch, training)
        adapters = (subject.mindspore, subject.double)
        before = [adapter.read() for adapter in adapters]
        worst, first, remark = NONE, "", ""
        for run in subject.runs:
            found, reason = _compare_layer(subject, run, single[run.torch], training)
            if found.used > 1 and not first:
                first, remark = run.pair.name, reason
            worst = worse(worst, found)
        for adapter, arrays in zip(adapters, before, strict=True):
            adapter.write(arrays)
        rows.append(row(stage, RUNNER, worst, LAYER, first, remark or f"{len(subject.runs)} runs of layers"))
    return rows


def _compare_layer(subject: Subject, run: Run, single: Call, training: bool) -> tuple[Difference, str]:
    if single.inputs is None or single.output is None:
        return NONE, ""
    try:
        actual = subject.mindspore.run_layer(run.pair.mindspore.name, single.inputs, training)
        expected = subject.double.run_layer(run.pair.torch.name, single.inputs, training)
    except Exception as error:  # a user's layer may raise anything
        return BROKEN, f"the layer cannot run on its input: {first_line(error)}"
    if actual.shape != expected.shape:
        return BROKEN, f"the output has shape {actual.shape} in MindSpore and {expected.shape} in PyTorch"
    return compare_arrays(actual, expected, single.output, LAYER), ""


def compare_layers_inside(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare each layer's output in the running models, in eval mode."""
    stage = "layers in the model, eval"
    if subject.refusal:
        return skip([stage], [RUNNER], NOT_RUN)
    single, double, calls = (subject.record(adapter) for adapter in (subject.torch, subject.double, subject.mindspore))
    worst, first, note, last = NONE, "", "", "the input"
    for run in subject.runs:
        assert run.mindspore is not None
        a, b, c = single[run.torch], double[run.torch], calls[run.mindspore]
        found = NONE
        if a.output is not None and b.output is not None and c.output is not None:
            found = compare_arrays(c.output, b.output, a.output, LOGITS)
        if found.used > 1 and not first:
            first = run.pair.name
            note = _cause(a, b, c, last, suspect)
        worst, last = worse(worst, found), run.pair.name
    return [row(stage, RUNNER, worst, LOGITS, first, note)]


def _cause(single: Call, double: Call, actual: Call, last: str, suspect: str) -> str:
    """Return a note on whether the fault is in a layer or before it, from the layer's inputs."""
    triples = zip(single.inputs or (), double.inputs or (), actual.inputs or (), strict=False)
    if any(compare_arrays(c, b, a, LOGITS).used > 1 for a, b, c in triples):
        return f"its input differs: check the code between {last} and this layer (functions, sums, order)"
    return "" if suspect else "its input agrees, so check this layer"


def compare_outputs(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare the output in eval and train mode, and the running statistics after a pass in train mode."""
    stages = ("output, eval", "output, train")
    if subject.refusal:
        failed = Row(stages[0], RUNNER, Verdict.FAIL, str(LOGITS), layer=suspect, note=subject.refusal)
        return [failed, *skip([stages[1], "running statistics"], [RUNNER], NOT_RUN)]
    adapters = (subject.mindspore, subject.double, subject.torch)
    last = f"after {subject.runs[-1].pair.name}" if subject.runs else "the whole model"
    rows = []
    for training, stage in enumerate(stages):
        before = [adapter.read() for adapter in adapters]
        actual, expected, single = (adapter.forward(subject.x, bool(training)) for adapter in adapters)
        rows.append(row(stage, RUNNER, compare_arrays(actual, expected, single, LOGITS), LOGITS, suspect or last))
        if training:
            rows.append(_compare_statistics(subject, *(adapter.read() for adapter in adapters)))
        for adapter, arrays in zip(adapters, before, strict=True):
            adapter.write(arrays)
    return rows


def _compare_statistics(subject: Subject, actual: Arrays, expected: Arrays, single: Arrays) -> Row:
    worst, first = NONE, ""
    names = [slot.name for slot, _ in subject.slots if not slot.trainable]
    own = subject.torch_names(actual)
    for name in names:
        found = compare_arrays(own[name], expected[name], single[name], STATISTICS)
        first = first or subject.display_name(name) if found.used > 1 else first
        worst = worse(worst, found)
    return row("running statistics", RUNNER, worst, STATISTICS, first, "" if names else "the models have none")


def compare_gradients(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare the gradients of all trained arrays, by name, in train mode."""
    if obstacle := _obstacle(subject):
        return skip(["gradients"], [RUNNER], obstacle)
    generator = np.random.default_rng([subject.seed, 11])
    cotangent = generator.standard_normal(subject.output_shape).astype(np.float32)

    def compute(adapter: ModelAdapter, x: Array) -> Arrays:
        return adapter.gradients(x, cotangent)

    return [_compare_trained(subject, suspect, "gradients", compute)]


def compare_steps(subject: Subject, suspect: str = "") -> list[Row]:
    """Compare the change of all trained arrays by a few steps of SGD with momentum and weight decay."""
    stage = f"sgd, steps: {subject.steps}"
    if obstacle := _obstacle(subject):
        return skip([stage], [RUNNER], obstacle)
    generator = np.random.default_rng([subject.seed, 13])
    shape = subject.output_shape
    target = generator.standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        target = generator.integers(0, shape[1], shape[0]).astype(np.int32)

    def compute(adapter: ModelAdapter, x: Array) -> Arrays:
        start = adapter.read()
        adapter.train([(x, target)] * subject.steps, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
        after = adapter.read()
        return {name: after[name].astype(np.float64) - start[name] for name in start}

    return [_compare_trained(subject, suspect, stage, compute)]


def _obstacle(subject: Subject) -> str:
    """Return the reason why gradients cannot be compared; empty if they can."""
    if subject.refusal:
        return NOT_RUN
    own, other = subject.output_shape, subject.mindspore.forward(subject.x).shape
    return "" if own == other else f"the output has shape {other} in MindSpore and {own} in PyTorch"


def _compare_trained(subject: Subject, suspect: str, stage: str, compute: Compute) -> Row:
    """Compare the result for each trained array. Name the last one that differs, because errors spread backwards."""
    trained = subject.trained

    def fail(name: str, note: str) -> Row:
        return Row(stage, RUNNER, Verdict.FAIL, layer=suspect or subject.display_name(name), note=note)

    expected = _select(_restoring(subject.double, compute, subject.x), trained)
    if bad := [name for name in trained if not np.isfinite(expected[name]).all()]:
        return fail(bad[-1], f"not finite in PyTorch itself: {len(bad)} arrays")
    single = _restoring(subject.torch, compute, subject.x)
    moved = perturbed_runs(subject.double, subject.torch.read(), subject.x, compute, subject.seed)
    allowed = allowed_errors(expected, [_select(found, trained) for found in (single, *moved)])
    actual = subject.torch_names(_restoring(subject.mindspore, compute, subject.x))
    if fixed := [name for name in trained if name not in actual]:
        return fail(fixed[0], f"not trained in MindSpore (requires_grad=False): {len(fixed)} arrays")
    clear = [name for name in trained if allowed[name] <= PORT_MAX_ALLOWED]
    if not clear:
        note = "PyTorch trains no arrays"
        if trained:
            note = "rounding alone changes every array by a tenth or more; use a larger batch or larger inputs"
        return Row(stage, RUNNER, Verdict.NOT_APPLICABLE, note=note)
    found = errors(actual, expected)
    bad = [name for name in clear if found[name] > allowed[name]]
    worst = Difference(np.nan, max(found[n] for n in clear), max(found[n] / allowed[n] for n in clear))
    note = f"at most {max(allowed[n] for n in clear):.1e} allowed for rounding"
    if len(clear) < len(trained):
        note += f"; {len(trained) - len(clear)} arrays left out, because rounding alone changes them by a tenth or more"
    return row(stage, RUNNER, worst, PORT_GRADIENT, suspect or subject.display_name(bad[-1] if bad else ""), note)


def _restoring(adapter: ModelAdapter, compute: Compute, x: Array) -> Arrays:
    """Return the result of a computation and restore the model's arrays."""
    before = adapter.read()
    found = compute(adapter, x)
    adapter.write(before)
    return found


def _select(arrays: Arrays, names: list[str]) -> Arrays:
    return {name: arrays[name] for name in names}


def perturbed_runs(adapter: ModelAdapter, arrays: Arrays, x: Array, compute: Compute, seed: int) -> list[Arrays]:
    """Return the results for weights and inputs changed by rounding, and restore the model's arrays."""
    before = adapter.read()
    found = []
    for index in range(PERTURBATIONS):
        generator = np.random.default_rng([seed, 23, index])
        adapter.write({name: _nudge(array, generator) for name, array in arrays.items()})
        found.append(compute(adapter, _nudge(x, generator) if x.dtype.kind == "f" else x))
    adapter.write(before)
    return found


def _nudge(array: Array, generator: np.random.Generator) -> Array:
    """Return the array in float64, each element moved up or down by eight float32 units in the last place."""
    return np.asarray(array.astype(np.float64) * (1 + NUDGE * generator.choice([-1.0, 1.0], array.shape)))


def compare_arrays(actual: Array, expected: Array, single: Array, bound: Bound) -> Difference:
    """Compare an array with the expected one; rounding in float32 PyTorch widens the bound.

    Args:
        actual: MindSpore's result.
        expected: the float64 result.
        single: the result of PyTorch in float32.
        bound: the tolerance without rounding.
    """
    if actual.shape != expected.shape:
        return BROKEN
    expected = expected.astype(np.float64)
    rounding = PORT_MARGIN * float(np.abs(single - expected).max(initial=0))
    slack = min(rounding, PORT_MAX_ROUNDING * max(1.0, float(np.abs(expected).max(initial=0))))
    return difference(actual, expected, bound, slack=slack)


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


def allowed_errors(expected: Arrays, others: Sequence[Arrays]) -> dict[str, float]:
    """Return the allowed error of each tensor, from runs that differ from the expected one by rounding only."""
    found = [errors(other, expected) for other in others]
    return {name: max(PORT_GRADIENT.absolute, PORT_MARGIN * max(e[name] for e in found)) for name in expected}


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
