"""Comparison of each layer of a port: alone, together with its neighbors, and inside the model.

Three runs locate a difference. First, each MindSpore layer gets the input of PyTorch's layer. Second, a layer that
differs is compared together with the layers without weights around it, because one model may pad in a separate layer.
Third, MindSpore's model runs with the output of every layer replaced by PyTorch's. The code between two layers then
starts from the right values, so that an error in it shows at the next layer. For a layer `b` after a layer `a`:

    1. alone      b(input of PyTorch's b)                   against the output of PyTorch's b
    2. a group    conv(pad(input of PyTorch's conv))        against the output of PyTorch's conv
    3. in model   the input of b, after PyTorch's output of a   against the input of PyTorch's b
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from maam.backend.adapter import Call, Inputs
from maam.porting.matching import squeezed
from maam.porting.runs import Run
from maam.porting.subject import Array, Subject, compare_arrays, first_line, judge, near
from maam.porting.unmatched import describe_unmatched
from maam.tolerance import BROKEN, LAYER, LOGITS, STATISTICS, Bound, Difference, difference

MODES = ("eval", "train")
_FAR_CLOSER = 1e-2
"""The share of the error of an array's own layout that shows another layout."""
_NEIGHBOURS = 2
"""The number of layers without weights, before and after a layer, that may form a group with it."""


@dataclass
class Judgement:
    """What the comparisons of one run of a layer found.

    `judge_layers` fills it in this order: `_judge_alone` sets `found`, `statistics`, `note`, `border` and `swaps`;
    `_find_group` sets `group` and `members` of a layer that differs; `_judge_in_model` sets `before`, and `found` and
    `note` of a layer that could not run alone; `_explain_containers` sets `group` of containers.

    Attributes:
        run: the layer's run in both models.
        found: the difference alone, by mode; modes that could not be compared are missing.
        statistics: whether the running statistics differ after a pass in train mode.
        note: an error message of the layer, or the shapes that differ.
        border: whether the output differs at the border of the map only.
        group: the layers that agree together, if the layer does not agree alone.
        members: the indices of PyTorch's and MindSpore's calls in that group.
        before: a description of the code before the layer, if that code differs.
        swaps: whether the code around MindSpore's layer swaps the first two axes, as its `batch_first` needs.
    """

    run: Run
    found: dict[str, Difference] = field(default_factory=dict)
    statistics: bool = False
    note: str = ""
    border: bool = False
    group: str = ""
    members: tuple[range, range] | None = None
    before: str = ""
    swaps: bool = False

    @property
    def modes(self) -> list[str]:
        """The modes in which the layer differs alone."""
        return [mode for mode, found in self.found.items() if found.used > 1]

    @property
    def differs(self) -> bool:
        """Whether the layer itself differs."""
        return bool(self.modes or self.statistics) and not self.group


def judge_layers(subject: Subject) -> tuple[list[Judgement], str]:
    """Judge all runs of layers.

    Returns:
        The judgements in PyTorch's running order, and a description of the code after the last layer if it differs.
    """
    found = [Judgement(run) for run in subject.runs]
    for mode in MODES:
        _judge_alone(subject, found, mode)
    if subject.refusal:
        return found, ""
    for judgement in found:
        if judgement.modes:
            _find_group(subject, judgement)
    after = _judge_in_model(subject, found)
    _explain_containers(found)
    return found, after


def _explain_containers(found: list[Judgement]) -> None:
    """Mark layers that have arrays and differ only because a layer inside them differs."""
    bad = [judgement.run.pair.torch.name for judgement in found if judgement.differs or judgement.before]
    for judgement in found:
        name = judgement.run.pair.torch.name
        inside = [other for other in bad if other != name and (not name or other.startswith(f"{name}."))]
        if judgement.differs and inside:
            judgement.group = f"the layers inside {judgement.run.pair.name}"


def _judge_alone(subject: Subject, found: list[Judgement], mode: str) -> None:
    """Compare each layer on the input of PyTorch's layer, and restore the models' arrays."""
    training = mode == "train"
    single = subject.recording("torch", training)
    before = subject.mindspore.read()
    for judgement in found:
        call = single.calls[judgement.run.torch]
        if call.inputs is None or call.output is None or not judgement.run.pair.simple:
            continue
        judgement.swaps = _swaps_batch(subject, judgement.run)
        inputs = tuple(x.swapaxes(0, 1) for x in call.inputs) if judgement.swaps else call.inputs
        try:
            options = _options(subject, judgement.run)
            actual = subject.mindspore.run_layer(judgement.run.pair.mindspore.name, inputs, training, options)
            actual = actual.swapaxes(0, 1) if judgement.swaps else actual
        except Exception as error:  # a user's layer may raise anything
            judgement.found[mode] = BROKEN
            judgement.note = f"the layer cannot run on its input: {first_line(error)}"
            continue
        judgement.found[mode] = _compare(subject, judgement, actual, call, training)
    if training:
        _judge_statistics(subject, found, single.after)
    subject.mindspore.write(before)


def _swaps_batch(subject: Subject, run: Run) -> bool:
    """Return whether MindSpore's model swaps the first two axes for a layer whose `batch_first` differs."""
    left, right = (
        subject.torch.settings(run.pair.torch.name, ()),
        subject.mindspore.settings(run.pair.mindspore.name, ()),
    )
    if run.mindspore is None or "batch_first" not in left or "batch_first" not in right:
        return False
    own = subject.recording("torch").calls[run.torch].inputs or ()
    other = subject.recording("mindspore").calls[run.mindspore].inputs or ()
    return left["batch_first"].value != right["batch_first"].value and all(
        x.ndim == y.ndim == 3 and compare_arrays(y.swapaxes(0, 1), x, x, LOGITS).used <= 1
        for x, y in zip(own, other, strict=False)
    )


def _options(subject: Subject, run: Run) -> Mapping[str, object]:
    """Return the keyword arguments that MindSpore's model gives to the layer."""
    if run.mindspore is None:
        return {}
    return subject.recording("mindspore").calls[run.mindspore].options


def _compare(subject: Subject, judgement: Judgement, actual: Array, call: Call, training: bool) -> Difference:
    assert call.inputs is not None
    assert call.output is not None
    if actual.shape != call.output.shape:
        judgement.note = f"the output has shape {actual.shape} in MindSpore and {call.output.shape} in PyTorch"
        return BROKEN
    layer, inputs = judgement.run.pair.torch, call.inputs
    name, slots = layer.name, [slot.name for slot in layer.slots.values()]

    def expected() -> Array:
        before = subject.double.read(slots) if training else {}
        output = subject.double.run_layer(name, inputs, training, call.options)
        subject.double.write(before)
        return output

    found = judge(actual, call.output, expected, LAYER)
    if found.used > 1:
        judgement.border = _at_border(np.abs(actual.astype(np.float64) - call.output), LAYER.absolute)
    return found


def _at_border(gap: Array, bound: float) -> bool:
    """Return whether a map (N, C, H, W) differs in its outer quarter only."""
    if gap.ndim != 4 or min(gap.shape[2:]) < 3:
        return False
    rows = max(1, min(gap.shape[2:]) // 4)
    inner = gap[:, :, rows:-rows, rows:-rows]
    return bool(inner.size and np.nan_to_num(inner, nan=np.inf).max() <= max(bound, 1e-3 * gap.max()))


def _judge_statistics(subject: Subject, found: list[Judgement], expected: Mapping[str, Array]) -> None:
    """Compare the running statistics that each layer alone has after its pass in train mode."""
    for judgement in found:
        if judgement.found.get("train", BROKEN) == BROKEN:
            continue  # the layer did not run
        names = {
            item.torch[0].name: item.mindspore[0].name
            for item in judgement.run.pair.arrays
            if item.name.startswith("running_") and item.torch and item.mindspore
        }
        actual = subject.mindspore.read(names.values())
        for own, other in names.items():
            gap = difference(actual[other], expected[own].astype(np.float64), STATISTICS)
            judgement.statistics = judgement.statistics or gap.used > 3  # two float32 results


def _find_group(subject: Subject, judgement: Judgement) -> None:
    """Find the layers that agree together, in both modes, with a layer that does not agree alone."""
    modes = sorted(MODES, key=lambda mode: mode not in judgement.modes)  # the mode that differs refuses most groups
    for own, other in _groups(subject, judgement.run):
        if all(_agree_together(subject, own, other, mode) for mode in modes):
            calls = subject.recording("torch").calls, subject.recording("mindspore").calls
            left, right = (
                " and ".join(side[i].name for i in indices) for side, indices in zip(calls, (own, other), strict=True)
            )
            judgement.group, judgement.members = f"{left} (MindSpore: {right})", (own, other)
            return


def _groups(subject: Subject, run: Run) -> Iterator[tuple[range, range]]:
    """Yield the groups of calls around a run, smallest first: those that could compute the same by their shapes."""
    assert run.mindspore is not None
    sides = [_chains(subject, "torch", run.torch), _chains(subject, "mindspore", run.mindspore)]
    pairs = sorted(product(*sides), key=lambda both: len(both[0]) + len(both[1]))
    own, other = subject.recording("torch").calls, subject.recording("mindspore").calls
    for a, b in pairs[1:]:
        if _shapes(own, a) == _shapes(other, b):
            yield a, b


def _chains(subject: Subject, side: str, index: int) -> list[range]:
    """Return the groups of a call and of the calls without weights that feed it or that it feeds alone."""
    calls, plain = subject.recording(side).calls, _without_weights(subject, side)
    starts, ends = [index], [index]
    for _ in range(_NEIGHBOURS):
        if _feeds(calls, starts[-1] - 1, starts[-1]) and calls[starts[-1] - 1].name in plain:
            starts.append(starts[-1] - 1)
        if _feeds(calls, ends[-1], ends[-1] + 1) and calls[ends[-1] + 1].name in plain:
            ends.append(ends[-1] + 1)
    return [range(a, b + 1) for a, b in product(starts, ends)]


def _without_weights(subject: Subject, side: str) -> set[str]:
    return {layer.name for layer in subject.layers_of(side) if not layer.slots}


def _feeds(calls: list[Call], first: int, second: int) -> bool:
    """Return whether the output of one call is the only input of the other."""
    if first < 0 or second >= len(calls):
        return False
    output, inputs = calls[first].output, calls[second].inputs
    return output is not None and inputs is not None and len(inputs) == 1 and np.array_equal(output, inputs[0])


def _shapes(calls: list[Call], group: range) -> tuple[object, object]:
    inputs, output = calls[group[0]].inputs, calls[group[-1]].output
    return [x.shape for x in inputs or ()], None if output is None else output.shape


def _agree_together(subject: Subject, own: range, other: range, mode: str) -> bool:
    """Return whether two groups of layers agree on the input of PyTorch's group; restores MindSpore's arrays."""
    training = mode == "train"
    single = subject.recording("torch", training).calls
    names = [subject.recording("mindspore").calls[i].name for i in other]
    x, expected = single[own[0]].inputs, single[own[-1]].output
    slots = [
        slot.name for layer in subject.layers_of("mindspore") if layer.name in names for slot in layer.slots.values()
    ]
    before = subject.mindspore.read(slots) if training else {}
    try:
        for name in names:
            x = (subject.mindspore.run_layer(name, x or (), training),)
    except Exception:  # a user's layer may raise anything
        return False
    finally:
        subject.mindspore.write(before)
    assert x is not None
    assert expected is not None
    return difference(x[0], expected.astype(np.float64), LAYER.times(len(own) + len(other))).used <= 1


def _judge_in_model(subject: Subject, found: list[Judgement]) -> str:
    """Run MindSpore's model on PyTorch's outputs of all layers, and judge the code between the layers.

    Returns:
        A description of the code after the last layer if it differs.
    """
    names = [call.name for call in subject.recording("mindspore").calls]
    try:
        output, calls = subject.mindspore.record(subject.inputs, False, _replacements(subject, found))
    except Exception:  # the free run of the model is reported by other stages
        return ""
    if [call.name for call in calls] != names:
        return ""
    for index, judgement in enumerate(found):
        _judge_input(subject, judgement, calls, index)
    last = found[-1].run.pair.name if found else "the input"
    right = subject.recording("torch").output
    if compare_arrays(output, right, right, subject.code_bound).used <= 1 or (subject.mindspore.mixed and not calls):
        return ""
    return f"the code after {last}{describe_unmatched(subject, len(found))}"


def _replacements(subject: Subject, found: list[Judgement]) -> dict[tuple[str, int], Array]:
    """Return PyTorch's outputs for MindSpore's calls; those of a group replace the output of its last call."""
    own, other = subject.recording("torch").calls, subject.recording("mindspore").calls
    counts = _call_indices(other)
    grouped = {index for judgement in found if judgement.members for index in judgement.members[1]}
    ends = {judgement.members[1][-1]: judgement.members[0][-1] for judgement in found if judgement.members}
    replaced: dict[tuple[str, int], Array] = {}
    for judgement in found:
        run = judgement.run
        if run.mindspore is not None and run.mindspore not in grouped:
            right, actual = own[run.torch].output, other[run.mindspore].output
            if right is not None and actual is not None:
                fitting = arrange(right, actual)
                if fitting.shape == actual.shape or judgement.modes:
                    replaced[other[run.mindspore].name, counts[run.mindspore]] = fitting
    for last, source in ends.items():
        output = own[source].output
        if output is not None:
            replaced[other[last].name, counts[last]] = output
    return replaced


def _call_indices(calls: list[Call]) -> list[int]:
    seen: dict[str, int] = {}
    found = []
    for call in calls:
        found.append(seen.get(call.name, 0))
        seen[call.name] = found[-1] + 1
    return found


def _judge_input(subject: Subject, judgement: Judgement, calls: list[Call], index: int) -> None:
    """Judge the code before a layer, by its input and output in the run on PyTorch's outputs."""
    run = judgement.run
    if judgement.group or run.mindspore is None:
        return
    own, other = subject.recording("torch").calls[run.torch], calls[run.mindspore]
    bound = subject.code_bound
    inputs, output = _agree(own.inputs, other.inputs, bound), _agree(own.output, other.output, bound)
    if output is not False:
        other_shapes = [x.shape for x in own.inputs or ()] != [x.shape for x in other.inputs or ()]
        if judgement.modes and output and (inputs is False or other_shapes):
            judgement.group = f"the code before {run.pair.name} and the layer"
        return
    if inputs is False:
        last = subject.runs[index - 1].pair.name if index else "the input"
        judgement.before = f"the code between {last} and {run.pair.name}{describe_unmatched(subject, index)}"
    elif not judgement.found and not judgement.modes:
        judgement.found["eval"] = BROKEN
        judgement.note = "its input agrees in the model, and its output differs"


def _agree(own: Inputs | Array | None, other: Inputs | Array | None, bound: Bound) -> bool | None:
    """Return whether arrays agree up to their layout; None if they were not recorded."""
    if own is None or other is None:
        return None
    left, right = (own, other) if isinstance(own, tuple) else ((own,), (other,))
    if len(left) != len(right):
        return False
    pairs = [(arrange(np.asarray(b), np.asarray(a)), np.asarray(a)) for a, b in zip(left, right, strict=True)]
    return all(near(b, a, bound) or compare_arrays(b, a, a, bound).used <= 1 for b, a in pairs)


def arrange(array: Array, like: Array) -> Array:
    """Return an array in the layout of another one: channels first or last, time first, or without axes of size 1.

    Of the layouts that fit, the array's own is taken, unless the values of another one are far closer.

    Example:
        >>> import numpy as np
        >>> from maam.porting.layers import arrange
        >>> maps = np.arange(24.0).reshape(1, 2, 3, 4)
        >>> arrange(np.moveaxis(maps, 1, -1), maps).shape
        (1, 2, 3, 4)
    """
    options = [array]
    if array.shape == like.shape and near(array, like, LOGITS):
        return array
    if array.ndim >= 3:
        options += [np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1), np.swapaxes(array, 0, 1)]
    fitting = [option for option in options if option.shape == like.shape]
    if not fitting and squeezed(array.shape) == squeezed(like.shape):
        return array.reshape(like.shape)
    if len(fitting) < 2:
        return fitting[0] if fitting else array
    gaps = [float(np.nan_to_num(np.abs(option - like).max(), nan=np.inf)) for option in fitting]
    return fitting[int(np.argmin(gaps))] if min(gaps) < _FAR_CLOSER * gaps[0] else fitting[0]
