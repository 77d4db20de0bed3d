"""The expressions of layers that would agree; each is built, read and run before a report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maam.backend.adapter import Layer, ModelAdapter, Setting
from maam.backend.settings import InexpressibleError, settings_differ
from maam.porting.runs import Run
from maam.porting.subject import Subject, first_line
from maam.spec.node import join_path

_CLOSE = 1e-3
"""The largest error of a layer with a remedy, as a share of the largest value; settings are compared exactly."""


def find_remedy(
    subject: Subject, run: Run, wanted: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], target: str
) -> tuple[str, str]:
    """Return the expression of a layer with other settings, or an empty text, and a note for the user.

    Args:
        subject: the models.
        run: the run of the layer.
        wanted: the settings, in PyTorch's meaning.
        shapes: the shapes of the inputs of the layer.
        target: the framework of the layer.
    """
    adapter = subject.adapters[target]
    layer: Layer = getattr(run.pair, target)
    values = {name: value for name, value in wanted.items() if name != "precision"}
    try:
        text = adapter.write_layer(layer.name, values, shapes)
        if not text:
            return "", ""
        if text == adapter.write_layer(layer.name, {}, shapes):
            return "", "no argument of the layer changes this"
        built = adapter.build(text)
        whole = not built.layers()[0].name  # and not in a container
        if whole and (left := _left(built.settings("", shapes), values)):
            return "", f"no argument of the layer changes {left}"
        if "precision" not in wanted and not _agrees(subject, run, built, target):
            return "", "a layer with equal settings gives another result"
    except InexpressibleError as error:
        return "", str(error)
    except Exception as error:  # a framework may refuse any argument, also at the first run
        return "", f"the layer cannot have these settings: {first_line(error)}"
    return text, "" if whole or not layer.slots else "the names of its arrays change, because it is in a container"


def _left(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> str:
    """Return the first setting that still differs."""
    return next((n for n, value in values.items() if n in settings and settings_differ(settings[n].value, value)), "")


def _agrees(subject: Subject, run: Run, built: ModelAdapter, target: str) -> bool:
    """Return whether a new layer gives the result of the other framework's layer in eval mode, if both have one."""
    call = subject.recording("torch").calls[run.torch]
    if call.inputs is None or call.output is None or run.mindspore is None:
        return True
    options = subject.recording("mindspore").calls[run.mindspore].options
    left, right = run.pair
    own, other = (right, left) if target == subject.mindspore.framework else (left, right)
    source: ModelAdapter = subject.torch if own is right else subject.mindspore
    before = subject.adapters[target].read()
    arrays = {name: before[full] for name in built.read() if (full := join_path(own.name, name)) in before}
    new = next(layer for layer in built.layers() if set(layer.slots) == set(own.slots))
    for key, slot in new.slots.items():
        arrays[slot.name] = before[own.slots[key].name]
        if key in other.slots:
            name = other.slots[key].name
            arrays[slot.name] = source.read([name])[name].reshape(slot.shape)
    built.write(arrays)
    if own is right:
        expected, actual = call.output, built.run_layer("", call.inputs, False, options)
    else:
        expected = subject.mindspore.run_layer(right.name, call.inputs, False, options)
        actual = built.run_layer("", call.inputs, False, call.options)
    if actual.shape != expected.shape:
        return False
    return bool(np.abs(actual - expected).max(initial=0) <= _CLOSE * max(1e-3, np.abs(expected).max(initial=0)))
