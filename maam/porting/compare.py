"""The stages of a port: weights, layers, outputs and running statistics of both models.

A stage is a function of the subject and of the first layer that earlier stages found to differ ("" if none did). It
returns rows of a report. The float64 PyTorch model is the reference; float32 PyTorch shows what rounding does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maam.backend.adapter import Call
from maam.parity.report import Row, Verdict, row, skip
from maam.porting.layers import MODES, Judgement, arrange
from maam.porting.subject import NOT_RUN, RUNNER, Subject, compare_arrays, judge, near, record
from maam.tolerance import EXACT, LAYER, LOGITS, NONE, PORT_MARGIN, STATISTICS, Difference, difference, worse


def compare_weights(subject: Subject) -> list[Row]:
    """Compare all weights bit by bit."""
    if not subject.shared:
        return [Row("weights", RUNNER, Verdict.NOT_APPLICABLE, note="the models have no arrays in common")]
    own, other = subject.torch.read(), subject.torch_names(subject.mindspore.read())
    worst, first = NONE, ""
    for name, array in other.items():
        same = np.array_equal(array, own[name])  # infinity in a mask has no difference
        found = NONE if same else difference(array, own[name].astype(np.float64), EXACT)
        first = first or subject.display_name(name) if found.used > 1 else first
        worst = worse(worst, found)
    return [row("weights", RUNNER, worst, EXACT, first, f"{len(other)} arrays of {len(subject.pairs)} layers")]


def layer_rows(subject: Subject, judged: Sequence[Judgement]) -> list[Row]:
    """Return the rows of the layers alone, in eval and train mode."""
    stages = [f"layers alone, {mode}" for mode in MODES]
    if reason := _unobserved(subject):
        return skip(stages, [RUNNER], reason, Verdict.NOT_APPLICABLE)
    rows = []
    for mode, stage in zip(MODES, stages, strict=True):
        alone = [judgement for judgement in judged if mode in judgement.found and not judgement.group]
        bad = [judgement for judgement in alone if judgement.found[mode].used > 1]
        worst = NONE
        for judgement in alone:
            worst = worse(worst, judgement.found[mode])
        groups = sum(bool(judgement.group) for judgement in judged)
        note = f"{len(alone)} runs of layers" + (f"; {groups} judged with their neighbors" if groups else "")
        if bad:
            note = "; ".join(filter(None, (f"{len(bad)} runs of layers differ", bad[0].note)))
        rows.append(row(stage, RUNNER, worst, LAYER, bad[0].run.pair.name if bad else "", note))
    return rows


def _unobserved(subject: Subject) -> str:
    """Return why the layers cannot be compared; empty if they can."""
    if reason := subject.torch.fixed or subject.mindspore.fixed:
        return f"the layers of {reason} cannot be observed"
    return "" if subject.runs else "no layers correspond"


def compare_layers_inside(subject: Subject, judged: Sequence[Judgement], suspect: str) -> list[Row]:
    """Compare each layer's output in the running models, in eval mode."""
    stage = "layers in the model, eval"
    if subject.refusal:
        return skip([stage], [RUNNER], NOT_RUN)
    if reason := _unobserved(subject):
        return skip([stage], [RUNNER], reason, Verdict.NOT_APPLICABLE)
    own, other = subject.recording("torch").calls, subject.recording("mindspore").calls
    worst, first, note, last = NONE, "", "", "the input"
    exact: list[Call] = []
    for judgement in judged:
        run = judgement.run
        assert run.mindspore is not None
        a, b = own[run.torch], other[run.mindspore]
        if judgement.group or a.output is None or b.output is None:
            continue
        own_layout = arrange(b.output, a.output)
        found = near(own_layout, a.output, LOGITS) or compare_arrays(own_layout, a.output, a.output, LOGITS)
        if found.used > 1:  # with the allowance for rounding, which needs the reference
            exact = exact or record(subject.double, subject.inputs, training=False).calls
            right = exact[run.torch].output
            found = found if right is None else compare_arrays(arrange(b.output, right), right, a.output, LOGITS)
        if found.used > 1 and not first:
            first, note = run.pair.name, _place(a, b, last, suspect)
        worst, last = worse(worst, found), run.pair.name
    return [row(stage, RUNNER, worst, LOGITS, first, note)]


def _place(own: Call, other: Call, last: str, suspect: str) -> str:
    """Return a note on whether the fault is in a layer or before it, from the layer's inputs."""
    pairs = zip(own.inputs or (), other.inputs or (), strict=False)
    if any(compare_arrays(arrange(b, a), a, a, LOGITS).used > 1 for a, b in pairs):
        return f"its input differs: check the code between {last} and this layer (functions, sums, order)"
    return "" if suspect else "its input agrees, so check this layer"


def compare_outputs(subject: Subject, suspect: str) -> list[Row]:
    """Compare the output in eval and train mode, and the running statistics after a pass in train mode."""
    stages = ("output, eval", "output, train")
    if subject.refusal:
        failed = Row(
            stages[0], RUNNER, Verdict.FAIL, str(LOGITS), layer=suspect or "the whole model", note=subject.refusal
        )
        return [failed, *skip([stages[1], "running statistics"], [RUNNER], NOT_RUN)]
    last = f"after {subject.runs[-1].pair.name}" if subject.runs else "the whole model"
    rows: list[Row] = []
    for training, stage in enumerate(stages):
        if training and (reason := subject.torch.fixed or subject.mindspore.fixed):
            note = f"{reason} keeps the mode that it was made in"
            return [*rows, *skip([stage, "running statistics"], [RUNNER], note, Verdict.NOT_APPLICABLE)]
        single, actual = subject.recordings(bool(training))

        def expected(training: bool = bool(training)) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return subject.expected_output(training).output

        found = judge(actual.output, single.output, expected, LOGITS)
        if found.used > 1 and (reason := subject.find_random_code(bool(training))):
            rows.append(row(stage, RUNNER, found, LOGITS, suspect or "the whole model", reason))
        elif found.used > 1 and (rounding := _rounding(subject, bool(training), found)):
            note = f"rounding alone changes it by {rounding:.1e} in PyTorch; use a larger batch or larger inputs"
            rows.append(Row(stage, RUNNER, Verdict.NOT_APPLICABLE, str(LOGITS), found.absolute, note=note))
        else:
            rows.append(row(stage, RUNNER, found, LOGITS, suspect or last))
    if subject.random:
        return [*rows, *skip(["running statistics"], [RUNNER], subject.random)]
    return [*rows, _compare_statistics(subject)]


def _rounding(subject: Subject, training: bool, found: Difference) -> float:
    """Return float32 PyTorch's own error if it exceeds the bound and explains MindSpore's; 0 otherwise.

    Batch norm over a few values amplifies rounding without limit.
    """
    single, exact = subject.recording("torch", training).output, subject.expected_output(training).output
    own = compare_arrays(single, exact, single, LOGITS)
    return own.absolute if own.used > 1 and found.absolute <= PORT_MARGIN * own.absolute else 0.0


def _compare_statistics(subject: Subject) -> Row:
    single, actual = (recording.after for recording in subject.recordings(training=True))
    own = subject.torch_names(actual)
    names = [slot.name for item in subject.shared for slot in item.torch if not slot.trainable]
    worst, first = NONE, ""
    for name in names:

        def expected(name: str = name) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return subject.expected_output(True).after[name]

        same = np.array_equal(own[name], single[name])
        found = NONE if same else judge(own[name], single[name], expected, STATISTICS)
        first = first or subject.display_name(name) if found.used > 1 else first
        worst = worse(worst, found)
    return row("running statistics", RUNNER, worst, STATISTICS, first, "" if names else "the models have none")
