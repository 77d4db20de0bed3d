"""The layers without weights that have no counterpart: other kinds in the same place, and dropout in one model."""

from __future__ import annotations

from collections.abc import Iterator

from maam.backend.adapter import Call, Layer
from maam.backend.registry import find_entry
from maam.porting.subject import Subject, compare_arrays
from maam.tolerance import LAYER


def unmatched(subject: Subject, index: int) -> tuple[list[Call], list[Call]]:
    """Return PyTorch's and MindSpore's calls without counterpart between two runs of layers."""
    found: list[list[Call]] = []
    for place, side in enumerate(subject.adapters):
        calls = subject.recording(side).calls
        ends = [(run.torch, run.mindspore)[place] for run in subject.runs]
        start = max([i for i in ends[:index] if i is not None], default=-1)
        stop = ends[index] if index < len(ends) else len(calls)
        found.append([calls[i] for i in range(start + 1, stop or 0) if i not in ends])
    return found[0], found[1]


def describe_unmatched(subject: Subject, index: int) -> str:
    """Return the kinds of the layers without counterpart between two runs; empty if there are none."""
    texts = []
    for place, (side, here) in enumerate(zip(subject.adapters, unmatched(subject, index), strict=True)):
        if here:
            kinds = dict.fromkeys(_layer(subject, place, call).kind for call in here)
            texts.append(f"{find_entry(side).title} runs {', '.join(kinds)}")
    return f" ({'; '.join(texts)})" if texts else ""


def other_kinds(subject: Subject) -> Iterator[tuple[Layer, Layer]]:
    """Yield layers of different kinds that are alone in the same place and agree on PyTorch's input."""
    for index in range(len(subject.runs) + 1):
        own, other = unmatched(subject, index)
        if len(own) == len(other) == 1 and not _has_weights(subject, own[0], other[0]):
            pair = _layer(subject, 0, own[0]), _layer(subject, 1, other[0])
            both_drop = all(layer.kind.startswith("dropout") for layer in pair)
            if pair[0].kind != pair[1].kind and not both_drop and _agrees(subject, own[0], other[0]):
                yield pair


def _layer(subject: Subject, place: int, call: Call) -> Layer:
    return next(layer for layer in subject.layers[place] if layer.name == call.name)


def _has_weights(subject: Subject, *calls: Call) -> bool:
    return any(_layer(subject, place, call).slots for place, call in enumerate(calls))


def _agrees(subject: Subject, own: Call, other: Call) -> bool:
    if own.inputs is None or own.output is None:
        return False
    try:
        actual = subject.mindspore.run_layer(other.name, own.inputs, False, other.options)
    except Exception:  # a user's layer may raise anything
        return False
    return compare_arrays(actual, own.output, own.output, LAYER).used <= 1


def lonely_dropout(subject: Subject) -> str:
    """Return a remark on the dropout layers that only one model runs; empty if both run as many."""
    found: list[list[str]] = []
    for place, side in enumerate(subject.adapters):
        paired = {(run.torch, run.mindspore)[place] for run in subject.runs}
        calls = [call for i, call in enumerate(subject.recording(side).calls) if i not in paired]
        found.append([call.name for call in calls if _drops(subject, place, call)])
    if len(found[0]) == len(found[1]):
        return ""
    place = int(len(found[1]) > len(found[0]))
    names = list(dict.fromkeys(found[place]))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    titles = [find_entry(side).title for side in subject.adapters]
    return (
        f"dropout in {titles[place]} without a counterpart in {titles[1 - place]}, which no result shows "
        f"because dropout is off: {', '.join(names[:3])}{more}"
    )


def _drops(subject: Subject, place: int, call: Call) -> bool:
    """Return whether a call is that of dropout with a rate above 0."""
    adapter = list(subject.adapters.values())[place]
    rate = adapter.settings(call.name, ()).get("p")
    return _layer(subject, place, call).kind.startswith("dropout") and (rate is None or bool(rate.value))
