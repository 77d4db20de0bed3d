"""The causes of differences: settings of paired layers as each framework writes them, grouped over all layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from maam.backend.adapter import Setting
from maam.backend.settings import settings_differ
from maam.porting.layers import Judgement
from maam.porting.matching import Pair
from maam.porting.remedies import find_remedy
from maam.porting.runs import Run
from maam.porting.subject import Subject
from maam.porting.trained import trained_problems
from maam.porting.unmatched import other_kinds

CODE, UNKNOWN, TRAINED, PRECISION, KIND = "code", "no setting differs", "trained arrays", "precision", "kind"
_PADDED = ("count_include_pad", "padding_mode")
"""Settings that matter only with padding."""


@dataclass(frozen=True)
class Cause:
    """A reason why layers differ.

    Attributes:
        what: the setting, such as "eps", or `CODE`, `UNKNOWN`, `TRAINED` or `KIND`.
        kind: the kind of the layers; empty for code between layers.
        torch: the setting as PyTorch writes it.
        mindspore: the setting as MindSpore writes it.
        remedy: the expression that builds the first of these layers so that it agrees, in the framework that receives
            the weights. If it is empty, no layer agrees, and `note` says why.
        layers: the names of all layers that this concerns.
        seen: the results that it changes: "eval", "train", "statistics", "gradients"; empty if it changed none.
        note: shapes, errors and places, or a description of the code.

    Example:
        >>> from maam.porting.causes import Cause
        >>> print(Cause("eps", "batch norm", "eps=0.001", "eps=1e-05", "nn.BatchNorm2d(16, eps=0.001)", ("bn1", "bn2")))
        eps, 2 batch norm layers: bn1, ...: eps=0.001 in PyTorch, eps=1e-05 in MindSpore: nn.BatchNorm2d(16, eps=0.001)
    """

    what: str
    kind: str
    torch: str
    mindspore: str
    remedy: str
    layers: tuple[str, ...]
    seen: tuple[str, ...] = ()
    note: str = ""

    @property
    def title(self) -> str:
        """The cause and the number and kind of the layers."""
        count = len(self.layers)
        unit = f"{self.kind} layer" if self.kind else "place"
        return f"{self.what}, {count} {unit}{'s' if count != 1 else ''}"

    @property
    def text(self) -> str:
        """The difference in both frameworks' words."""
        return f"{self.torch} in PyTorch, {self.mindspore} in MindSpore" if self.torch else self.note

    def __str__(self) -> str:
        first = f"{self.layers[0]}{', ...' if len(self.layers) > 1 else ''}"
        return ": ".join(filter(None, (self.title, first, self.text, self.remedy)))


class SettingDifference(NamedTuple):
    """A setting that differs between two paired layers.

    Attributes:
        name: PyTorch's name of the setting.
        torch: PyTorch's setting.
        mindspore: MindSpore's setting.
    """

    name: str
    torch: Setting
    mindspore: Setting


def differing_settings(subject: Subject, run: Run) -> list[SettingDifference]:
    """Return the settings of two paired layers that differ, for the sizes that PyTorch's layer sees."""
    if not run.pair.simple:
        return []
    own, other = _settings(subject, run)
    return [
        SettingDifference(name, own[name], other[name])
        for name in own
        if name in other and settings_differ(own[name].value, other[name].value) and _matters(name, own, other)
    ]


def _settings(subject: Subject, run: Run) -> tuple[Mapping[str, Setting], Mapping[str, Setting]]:
    """Return the settings of both layers for the sizes that PyTorch's layer sees."""
    shapes = _shapes(subject, run)
    left, right = run.pair
    return subject.torch.settings(left.name, shapes), subject.mindspore.settings(right.name, shapes)


def _shapes(subject: Subject, run: Run) -> list[tuple[int, ...]]:
    return [x.shape for x in subject.recording("torch").calls[run.torch].inputs or ()]


def _matters(name: str, own: Mapping[str, Setting], other: Mapping[str, Setting]) -> bool:
    """Return whether a setting can have an effect beside the other settings."""
    if name in _PADDED:
        return any(any(pair) for side in (own, other) for pair in side["padding"].value)
    if name == "dilation" and "kernel_size" in own:
        return any(size > 1 for size in own["kernel_size"].value)
    return True


def has_known_cause(subject: Subject, judged: Sequence[Judgement]) -> bool:
    """Return whether a layer gives other results because of a setting."""
    return any(
        judgement.modes and not judgement.group and differing_settings(subject, judgement.run) for judgement in judged
    )


def find_causes(subject: Subject, judged: Sequence[Judgement], after: str, direction: str) -> list[Cause]:
    """Return the causes of all differences, those that change results first.

    Args:
        subject: the models.
        judged: the judgements of all runs of layers.
        after: a description of the code after the last layer if it differs.
        direction: the direction of the copy, whose target the remedies are written for.
    """
    found = [cause for judgement in judged for cause in _of_layer(subject, judgement)]
    if after:
        found.append(Cause(CODE, "", "", "", "", ("the output",), ("eval",), after))
    if (mixed := subject.mindspore.mixed) and not any(cause.what == PRECISION for cause in found):
        found.append(Cause(PRECISION, "", "float32", mixed, "", ("the whole model",), ("eval", "train")))
    if subject.refusal:
        found.append(Cause(CODE, "", "", "", "", ("the whole model",), ("eval", "train"), subject.refusal))
    else:
        found += [
            Cause(KIND, own.kind, own.kind, other.kind, "", (Pair(own, other).name,), (), "no effect on these inputs")
            for own, other in other_kinds(subject)
        ]
    if subject.random:
        found.append(Cause(CODE, "", "", "", "", ("the whole model",), ("train",), subject.random))
    for name, text in trained_problems(subject).items():
        found.append(Cause(TRAINED, "", "", "", "", (name,), ("train",), text))
    causes = _with_remedies(subject, judged, _grouped(found), direction)
    return sorted(causes, key=lambda cause: not cause.seen)


def _with_remedies(
    subject: Subject, judged: Sequence[Judgement], causes: Iterable[Cause], direction: str
) -> Iterator[Cause]:
    """Yield the causes with the remedies of their first layers."""
    runs = {judgement.run.pair.name: judgement.run for judgement in reversed(judged) if not judgement.swaps}
    remedies: dict[str, tuple[str, str]] = {}
    for cause in causes:
        name = cause.layers[0]
        written = cause.torch and name in runs and cause.what not in (KIND, PRECISION)  # a wrapper sets the precision
        if written and name not in remedies:
            remedies[name] = _remedy(subject, runs[name], direction)
        remedy, note = remedies[name] if written else ("", cause.note)
        yield replace(cause, remedy=remedy, note="; ".join(dict.fromkeys(filter(None, (cause.note, note)))))


def _of_layer(subject: Subject, judgement: Judgement) -> Iterator[Cause]:
    run = judgement.run
    kind, name = run.pair.torch.kind, run.pair.name
    if judgement.before:
        yield Cause(CODE, "", "", "", "", (name,), ("eval",), judgement.before)
    if judgement.group:
        return
    settings = differing_settings(subject, run)
    seen = (*judgement.modes, *(["statistics"] if judgement.statistics else []))
    if settings:
        swaps = "the code around MindSpore's layer swaps the axes" if judgement.swaps else ""
        for item in settings:
            results = (*seen, *_gradients(subject, run, item))
            yield Cause(
                item.name,
                kind,
                _shown(item.name, item.torch),
                _shown(item.name, item.mindspore),
                "",
                (name,),
                results,
                swaps or ("" if results else "no effect on these inputs"),
            )
    elif judgement.differs:
        yield Cause(UNKNOWN, kind, "", "", "", (name,), seen, _describe(subject, judgement))


def _gradients(subject: Subject, run: Run, item: SettingDifference) -> tuple[str, ...]:
    """Return ("gradients",) for the row of an embedding that one model does not train, if the inputs have its index."""
    indices = subject.recording("torch").calls[run.torch].inputs
    rows = [setting.value for setting in item[1:] if setting.value is not None] if item.name == "padding_idx" else []
    return ("gradients",) if indices and np.isin(rows, indices[0]).any() else ()


def _remedy(subject: Subject, run: Run, direction: str) -> tuple[str, str]:
    """Return the layer as it agrees, and a note; padding is written for the sizes seen, also if it agrees already."""
    settings = differing_settings(subject, run)
    shapes = _shapes(subject, run)
    if direction != "torch-to-mindspore":
        values = {s.name: s.mindspore.value for s in settings}
        return find_remedy(subject, run, values, shapes, subject.torch.framework)
    own = _settings(subject, run)[0]
    padding = {"padding": own["padding"].value} if "padding" in own else {}
    values = {**padding, **{s.name: s.torch.value for s in settings}}
    return find_remedy(subject, run, values, shapes, subject.mindspore.framework)


def _shown(name: str, setting: Setting) -> str:
    """Return a setting's text, with the rows and columns that padding adds if it adds unequal ones."""
    value: Any = setting.value
    if name != "padding" or isinstance(value[0], int):  # a layer that only pads has one tuple of integers
        return setting.text
    if "same" in setting.text or any(low != high for low, high in value):
        axes = ("depth", "rows", "columns")[-len(value) :] if len(value) > 1 else ("length",)
        sides = ", ".join(f"{axis} {low}{high:+d}" for axis, (low, high) in zip(axes, value, strict=True))
        return f"{setting.text} ({sides})"
    return setting.text


def _describe(subject: Subject, judgement: Judgement) -> str:
    """Return the shape of the input, the error and its place, or the reason why there is none."""
    if judgement.note:
        return judgement.note
    inputs = subject.recording("torch").calls[judgement.run.torch].inputs or ()
    shapes = " and ".join(str(x.shape) for x in inputs)
    if not judgement.modes:
        return "the running statistics differ"
    worst = max(judgement.found[mode].absolute for mode in judgement.modes)
    where = ", at the border of the map only: check the padding" if judgement.border else ""
    return f"input {shapes}, largest error {worst:.1e}{where}"


def _grouped(causes: Iterable[Cause]) -> list[Cause]:
    """Join the causes that are the same for several layers; the first one's remedy and note are kept."""
    found: dict[tuple[str, ...], Cause] = {}
    for cause in causes:
        place = cause.note if cause.what in (CODE, TRAINED) else ""
        key = (cause.what, cause.kind, cause.torch.partition(" (")[0], cause.mindspore.partition(" (")[0], place)
        if key in found:
            layers = tuple(dict.fromkeys((*found[key].layers, *cause.layers)))
            seen = tuple(dict.fromkeys((*found[key].seen, *cause.seen)))
            found[key] = replace(
                found[key], layers=layers, seen=seen, note="" if seen and not found[key].seen else found[key].note
            )
        else:
            found[key] = cause
    return list(found.values())
