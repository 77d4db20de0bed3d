"""Ports of a user's own model: transfer of weights, and comparison stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maam._messages import check_counts
from maam._system import environment
from maam.backend.adapter import OWN, Call, Inputs, ModelAdapter, neutral_array
from maam.backend.registry import find_entry, load_porting_backend
from maam.errors import PortingError, ShapeError
from maam.parity.report import Row, Verdict
from maam.porting.causes import differing_settings, find_causes, has_known_cause
from maam.porting.compare import compare_layers_inside, compare_outputs, compare_weights, layer_rows
from maam.porting.inputs import make_inputs
from maam.porting.layers import Judgement, judge_layers
from maam.porting.matching import constant_tables, convert
from maam.porting.pairing import Pairing, pair_layers
from maam.porting.report import PortReport, depth_of, lay_out
from maam.porting.runs import align
from maam.porting.subject import Subject, first_line
from maam.porting.trained import compare_gradients, compare_steps, compare_trained_sets
from maam.porting.unmatched import lonely_dropout
from maam.tolerance import LOGITS, difference

Array = np.ndarray[Any, Any]
DIRECTIONS = ("torch-to-mindspore", "mindspore-to-torch")


def port(
    torch_module: Any,
    mindspore_cell: Any,
    *,
    input_shape: Sequence[int] | None = None,
    inputs: Array | Sequence[Array] | None = None,
    names: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    direction: str = "torch-to-mindspore",
    transfer: bool = True,
    batch_size: int = 4,
    steps: int = 3,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> PortReport:
    """Copy the weights of one of your models into the other, and compare both models.

    Layers are paired in order, by name, or by kind and shapes. Of several pairings that fit, `port` takes one that
    gives equal outputs. The comparison covers weights, each layer alone and in the model, outputs, running statistics,
    gradients and a few steps of SGD. The report names the first layer that differs, and the causes of all differences
    with the argument names of both frameworks. Apart from the copy, both models keep their weights and modes.

    Args:
        torch_module: a torch.nn.Module with one output. Wrappers, such as that of torch.compile, are removed.
        mindspore_cell: the corresponding mindspore.nn.Cell; it runs in PyNative mode.
        input_shape: the shape of one sample, such as (C, H, W), for random inputs from a normal distribution. Pass
            exactly one of `input_shape` and `inputs`.
        inputs: a batch (N, ...) of real numbers or integers, or a tuple of batches for a model with several inputs.
        names: MindSpore's path for a path in PyTorch, of a layer or a container; other layers are paired as usual.
        skip: paths of layers, in either model, that have no counterpart.
        direction: "torch-to-mindspore" or "mindspore-to-torch": the direction of the copy.
        transfer: whether to copy the weights; otherwise the models are only compared.
        batch_size: the number of random samples.
        steps: the number of training steps.
        seed: the seed of all random numbers.
        progress: called with the name of each stage before it runs.

    Returns:
        The report; it is true if nothing differs.

    Raises:
        MissingFrameworkError: a framework is not installed.
        PortingError: the layers cannot be paired, a name or argument is invalid, or an object is not a model or does
            not return a tensor.
        ShapeError: the PyTorch model cannot take the input.

    Example:
        >>> import mindspore, torch
        >>> from maam.porting import port
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LeakyReLU(0.1))
        >>> cell = mindspore.nn.SequentialCell(mindspore.nn.Dense(4, 3), mindspore.nn.LeakyReLU())
        >>> report = port(module, cell, input_shape=(4,), steps=1)
        >>> report.passed, report.first_difference
        (False, '1')
        >>> print(report.causes[0].text)
        negative_slope=0.1 in PyTorch, alpha=0.2 in MindSpore
        >>> report.causes[0].remedy
        'nn.LeakyReLU(alpha=0.1)'
    """
    check_direction(direction)
    check_counts(PortingError, steps=steps)
    torch = load_porting_backend("torch").adapt(torch_module)
    mindspore = load_porting_backend("mindspore").adapt(mindspore_cell)
    x = make_inputs(input_shape, inputs, batch_size, seed)
    tell = progress or (lambda _: None)
    tell("pairing")
    subject, pairing = _prepare(torch, mindspore, x, names, skip, direction if transfer else "")
    subject.seed, subject.steps = seed, steps
    report = PortReport(type(torch_module).__name__, environment=environment(), pairs=subject.pairs, how=pairing.how)
    report.remarks, report.refusal = _remarks(subject, pairing), subject.refusal
    _run_stages(subject, report, tell, direction)
    return report


def check_direction(direction: str) -> None:
    """Raise `PortingError` for an unknown direction."""
    if direction not in DIRECTIONS:
        raise PortingError(f"direction: expected {' or '.join(DIRECTIONS)}, got {direction!r}")


def _prepare(
    torch: ModelAdapter,
    mindspore: ModelAdapter,
    x: Inputs,
    names: Mapping[str, str] | None,
    skip: Sequence[str],
    direction: str,
) -> tuple[Subject, Pairing]:
    """Pair the layers, copy the weights unless the direction is empty, and return the subject of the comparison."""
    calls, other_calls, refusal = _trace(torch, mindspore, x)
    layers = torch.layers(), mindspore.layers()
    orders = None if other_calls is None else ([c.name for c in calls], [c.name for c in other_calls])
    target = direction.rpartition("-")[2]
    pairings = pair_layers(*layers, names=names, skip=skip, orders=orders, writable=target)
    _check_finite(torch, mindspore, pairings[0], direction)
    chosen = _transfer(torch, mindspore, pairings, direction, x) if direction else pairings[0]
    layers = torch.layers(), mindspore.layers()  # with the new values
    runs = align(chosen.pairs, layers, calls, other_calls)
    return Subject(torch, mindspore, chosen.pairs, runs, layers, x, 0, 1, refusal), chosen


def _run_stages(subject: Subject, report: PortReport, tell: Callable[[str], None], direction: str) -> None:
    """Run all stages, those that locate a fault most exactly first."""
    judged: list[Judgement] = []
    after = ""
    tell("weights")
    report.rows += compare_weights(subject)
    tell("layers alone")
    if not (subject.torch.fixed or subject.mindspore.fixed):
        judged, after = judge_layers(subject)
    alone = layer_rows(subject, judged)
    report.rows += alone
    tell("layers in the model")
    report.rows += compare_layers_inside(subject, judged, report.first_difference)
    tell("outputs")
    outputs = compare_outputs(subject, report.first_difference)
    report.rows += outputs
    settled = any(found.verdict is Verdict.FAIL for found in outputs) or has_known_cause(subject, judged)
    subject.agrees = not settled
    report.rows += compare_trained_sets(subject, report.first_difference)
    tell("gradients")
    report.rows += compare_gradients(subject, report.first_difference)
    tell(f"{subject.steps} training steps")
    report.rows += compare_steps(subject, report.first_difference)
    tell("causes")
    if _settle(subject, report, judged, alone):
        report.rows[1 : 1 + len(alone)] = layer_rows(subject, judged)
    report.causes = find_causes(subject, judged, after, direction)
    if not subject.refusal and (remark := lonely_dropout(subject)):
        report.remarks.append(remark)
    report.depth, report.layout = depth_of(judged, subject), lay_out(subject, judged)


def _settle(subject: Subject, report: PortReport, judged: Sequence[Judgement], alone: Sequence[Row]) -> bool:
    """Accept layers that differ alone, if all later stages agree; return whether there are any.

    Both models then split the same computation differently. A layer whose settings differ is never accepted.
    """
    if subject.refusal or any(found not in alone for found in report.failures):
        return False
    bad = [judgement for judgement in judged if judgement.differs and not differing_settings(subject, judgement.run)]
    for judgement in bad:
        judgement.group = "the whole model"
    return bool(bad)


def _remarks(subject: Subject, pairing: Pairing) -> list[str]:
    tables = [*pairing.alone, *(name for pair in pairing.pairs for name in constant_tables(*pair))]
    neutral = [
        slot.name
        for item in subject.arrays
        if not (item.torch and item.mindspore)
        for slot in (*item.torch, *item.mindspore)
    ]
    remarks = [*subject.torch.remarks, *subject.mindspore.remarks]
    if tables:
        remarks.append(f"constant tables that only one model stores: {_first(tables)}")
    if neutral:
        remarks.append(f"arrays that only one model has; their values change nothing: {_first(neutral)}")
    return remarks


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _trace(torch: ModelAdapter, mindspore: ModelAdapter, x: Inputs) -> tuple[list[Call], list[Call] | None, str]:
    """Run both models in both modes and return their calls of layers.

    Returns:
        PyTorch's calls, MindSpore's calls, and an empty text. If only MindSpore's model fails, its calls are None and
        the text is its error message.
    """
    messages, found = {}, {}
    for adapter in (torch, mindspore):
        mode = "eval"
        try:
            calls = adapter.record(x)[1]
            mode = "train"
            before = adapter.read()
            adapter.forward(x, training=True)  # batch norm rejects a single sample only in train mode
            adapter.write(before)
            found[adapter.framework] = calls
        except PortingError:
            raise
        except Exception as error:  # a user's model may raise anything
            title = find_entry(adapter.framework).title
            messages[adapter.framework] = f"{title}'s model cannot run in {mode} mode: {first_line(error)}"
    if torch.framework in messages:
        cause, shapes = "; ".join(messages.values()), ", ".join(str(part.shape) for part in x)
        raise ShapeError(f"input {shapes}: {cause}; pass a batch that the models accept in eval and train mode")
    return found[torch.framework], found.get(mindspore.framework), messages.get(mindspore.framework, "")


def _transfer(
    torch: ModelAdapter, mindspore: ModelAdapter, pairings: Sequence[Pairing], direction: str, x: Inputs
) -> Pairing:
    """Copy the weights by the first pairing that gives equal outputs, or by the one with the closest outputs."""
    target = torch if direction == DIRECTIONS[1] else mindspore
    before = target.read()
    distances: list[float] = []
    for pairing in pairings:
        copy_weights(torch, mindspore, pairing, direction)
        if len(pairings) > 1:
            distances.append(_distance(torch, mindspore, x))
        if len(pairings) == 1 or distances[-1] <= 1:
            target.commit()
            return pairing
        target.write(before)
    best = pairings[int(np.argmin(distances))] if np.isfinite(distances).any() else pairings[0]
    copy_weights(torch, mindspore, best, direction)
    target.commit()
    return best


def _check_finite(torch: ModelAdapter, mindspore: ModelAdapter, pairing: Pairing, direction: str) -> None:
    """Check the arrays of the source, or of both models if nothing is copied.

    Constant tables may contain infinity, such as masks of attention.
    """
    sides = [(torch, 0), (mindspore, 1)]
    if direction:
        sides = sides[:1] if direction == DIRECTIONS[0] else sides[1:]
    for adapter, place in sides:
        arrays = adapter.read()
        for pair in pairing.pairs:
            for slot in (slot for item in pair.arrays for slot in (item.torch, item.mindspore)[place]):
                if (slot.trainable or pair[place].kind != OWN) and not np.isfinite(arrays[slot.name]).all():
                    title = find_entry(adapter.framework).title
                    raise PortingError(f"{title}'s {slot.name} has values that are not finite; expected finite weights")


def copy_weights(torch: ModelAdapter, mindspore: ModelAdapter, pairing: Pairing, direction: str) -> None:
    """Copy all arrays of the pairs from one model into the other; arrays that only the target has become neutral."""
    forwards = direction == DIRECTIONS[0]
    source, target = (torch, mindspore) if forwards else (mindspore, torch)
    arrays, written = source.read(), dict[str, Array]()
    for pair in pairing.pairs:
        for item in pair.arrays:
            given, taken = (item.torch, item.mindspore) if forwards else (item.mindspore, item.torch)
            parts = convert([arrays[slot.name] for slot in given], taken) if given and taken else []
            written |= {slot.name: part for slot, part in zip(taken, parts, strict=False)}
            if not given:
                written |= {slot.name: neutral_array(item.name, slot.shape) for slot in taken}
    target.write(written)


def _distance(torch: ModelAdapter, mindspore: ModelAdapter, x: Inputs) -> float:
    """Return the difference of the outputs, in units of its bound; infinity if it cannot be measured."""
    try:
        return difference(mindspore.forward(x), torch.forward(x).astype(np.float64), LOGITS).used
    except Exception:  # a stage reports a MindSpore model that cannot run
        return np.inf
